"""Invoices in the admin: drafts under review, credit notes with a preview, the way each amount came about."""

from decimal import Decimal
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from billing.balances import balance_of
from billing.credit_notes import credit_invoice
from billing.invoices import mark_paid
from billing.models import CreditNote, Invoice
from tests.admin.house import nothing_changes, operator
from tests.base import hours
from tests.written import Row, written

D = Decimal


def page(client: Client, invoice: Invoice) -> str:
    return client.get(reverse("admin:billing_invoice_change", args=[invoice.pk])).content.decode()


def credit_url(invoice: Invoice) -> str:
    return reverse("admin:billing_invoice_credit_note", args=[invoice.pk])


def shown(answer: Any) -> Any:
    return answer.context["preview"]


def test_a_credit_note_is_shown_before_it_is_given_and_given_as_shown(root: Client, db: None) -> None:
    # 100.00, 60.00 of it by prepaid credit, 19 % on the rest, and 50.00; 30.00 came from the balance.
    invoice = written(Row(10_000, 6_000, 760, description="Seats"), Row(5_000, description="Setup"), balance=3_000)
    url = credit_url(invoice)
    typed = {"how": "amount", "amount": "78.80", "reason": "Outage"}
    with nothing_changes("the preview of a credit note"):
        answer = root.post(url, typed)
    # 78.80 of 157.60 is a half of each: 53.80 of 107.60 and 25.00 of 50.00.
    assert shown(answer).rows == (
        ("Seats", "$50.00", "-$30.00", "$3.80", "$23.80"),
        ("Setup", "$25.00", "–", "–", "$25.00"),
    )
    assert shown(answer).sums == (
        ("Given back in money", "$48.80"),
        ("Taken off what INV-000001 asks for", "$48.80"),
        ("Then INV-000001 asks for", "$18.80"),  # 97.60 - 30.00 - 48.80
        ("Prepaid credit that goes back to its grants", "$30.00"),
    )
    answer = root.post(url, {**typed, "confirm": shown(answer).known_by})
    note = CreditNote.objects.get()
    assert answer["Location"] == reverse("admin:billing_creditnote_change", args=[note.pk])
    assert (note.total, note.credit, note.to_invoice, note.reason) == (D(4_880), D(3_000), D(4_880), "Outage")
    assert note.issued_by.startswith("root")
    answer = root.get(answer["Location"])
    assert "$48.80 and $30.00 of prepaid credit given back" in answer.content.decode()
    assert reverse("admin:billing_creditnote_change", args=[note.pk]) in page(root, invoice)


def test_what_changed_since_it_was_shown_is_shown_again(root: Client, db: None) -> None:
    invoice = written(Row(10_000))
    typed = {"how": "whole", "reason": "Outage"}
    known_by = shown(root.post(credit_url(invoice), typed)).known_by
    # Somebody records the money meanwhile: it would go onto the balance now.
    mark_paid(invoice=invoice, now=timezone.now())
    with nothing_changes("confirming what is no longer so"):
        answer = root.post(credit_url(invoice), {**typed, "confirm": known_by})
    assert ("Put onto the customer's balance", "$100.00") in shown(answer).sums
    # Another amount than the one that was shown is shown first, too.
    with nothing_changes("confirming another amount"):
        answer = root.post(
            credit_url(invoice), {"how": "amount", "amount": "1", "reason": "x", "confirm": shown(answer).known_by}
        )
    root.post(credit_url(invoice), {**typed, "confirm": shown(root.post(credit_url(invoice), typed)).known_by})
    assert balance_of(customer=invoice.customer, currency="USD") == 10_000


def test_it_says_that_lines_below_zero_have_taken_their_part(root: Client, db: None) -> None:
    invoice = written(Row(10_000), Row(-3_000, kind="adjustment"))
    text = root.get(credit_url(invoice)).content.decode()
    assert "$70.00 is left, with tax." in text
    assert "have already taken their part off the others" in text
    text = root.get(credit_url(written(Row(10_000), customer=invoice.customer))).content.decode()
    assert "have already taken their part" not in text


def test_lines_are_credited_by_what_is_typed_beside_them(root: Client, db: None) -> None:
    invoice = written(Row(10_000, description="A"), Row(5_000, description="B"))
    second = invoice.lines.get(position=2)
    typed = {"how": "lines", f"line_{second.pk}": "12.50", "reason": "Too many"}
    answer = root.post(credit_url(invoice), typed)
    root.post(credit_url(invoice), {**typed, "confirm": shown(answer).known_by})
    (line,) = CreditNote.objects.get().lines.all()
    assert (line.invoice_line, line.total) == (second, D(1_250))
    assert "$37.50 is left of $50.00, with tax." in root.get(credit_url(invoice)).content.decode()


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ({"how": "amount"}, "How much?"),
        ({"how": "amount", "amount": "1.005"}, "USD has 2 digits after the point here; this has 3."),
        ({"how": "amount", "amount": "0"}, "Enter more than zero"),
        ({"how": "amount", "amount": "-1"}, "Enter more than zero"),
        ({"how": "amount", "amount": "1e2"}, "Write the number out"),
        ({"how": "amount", "amount": "nan"}, "Enter a number such as"),
        ({"how": "amount", "amount": "100.01"}, "Only $100.00 is left of INV-000001; $100.01 is more than that."),
        ({"how": "lines"}, "Type an amount for at least one line."),
        ({"how": "whole", "amount": "5"}, "This does not count with what you chose above"),
        ({"how": "whole", "reason": " "}, "This field is required."),
        ({"how": "nonsense"}, "Select a valid choice"),
        ({}, "This field is required."),
    ],
)
def test_what_cannot_be_credited_is_said_in_the_form(typed: dict[str, str], says: str, root: Client, db: None) -> None:
    invoice = written(Row(10_000))
    with nothing_changes("a form with a mistake"):
        answer = root.post(credit_url(invoice), {"reason": "r", **typed, "confirm": ""})
    assert says in answer.content.decode().replace("&#x27;", "'")
    assert shown(answer) is None


def test_a_credit_note_asks_for_its_permission_at_every_step(db: None) -> None:
    url = credit_url(written(Row(10_000)))
    for client in (operator(), operator("billing.void_invoice", "billing.issue_invoice")):
        with nothing_changes("crediting without permission"):
            assert client.get(url).status_code == 403
            assert client.post(url, {"how": "whole", "reason": "r"}).status_code == 403
    assert operator("billing.credit_invoice").get(url).status_code == 200
    with nothing_changes("another method"):
        assert operator("billing.credit_invoice").put(url).status_code == 405
    assert operator("billing.credit_invoice").get(credit_url(Invoice(pk=99_999_999))).status_code == 404


def test_a_draft_says_when_it_is_issued_and_offers_what_makes_sense(root: Client, db: None) -> None:
    draft = written(Row(10_000), status="draft", issue_at=timezone.now() + hours(24))
    text = page(root, draft)
    assert "Draft until" in text
    for name in ("issue", "approve", "hold", "refresh"):
        assert reverse(f"admin:billing_invoice_{name}", args=[draft.pk]) in text, name
    for name in ("release", "pay", "void", "give_up", "bill_again", "credit"):
        assert reverse(f"admin:billing_invoice_{name}", args=[draft.pk]) + '"' not in text, name
    root.post(reverse("admin:billing_invoice_hold", args=[draft.pk]), {"reason": "The price looks odd"})
    text = page(root, draft)
    assert "The price looks odd" in text
    assert "It is not issued until somebody releases or approves it." in text
    assert reverse("admin:billing_invoice_release", args=[draft.pk]) in text
    assert reverse("admin:billing_invoice_issue", args=[draft.pk]) + '"' not in text
    with nothing_changes("issuing a held draft"):
        answer = root.post(reverse("admin:billing_invoice_issue", args=[draft.pk]))
    assert "release or approve it first" in answer.content.decode()
    root.post(reverse("admin:billing_invoice_approve", args=[draft.pk]))
    assert "Approved" in page(root, draft)


def test_a_credited_invoice_cannot_be_void_and_says_so(root: Client, db: None) -> None:
    invoice = written(Row(10_000))
    credit_invoice(invoice=invoice, reason="Outage", now=timezone.now(), amount=D(1))
    assert reverse("admin:billing_invoice_void", args=[invoice.pk]) not in page(root, invoice)
    with nothing_changes("voiding a credited invoice"):
        answer = root.post(reverse("admin:billing_invoice_void", args=[invoice.pk]), {"reason": "r"})
    assert "has a credit note, so it cannot be voided" in answer.content.decode()


@pytest.mark.parametrize(
    ("tab", "found"),
    [
        ("", {"draft", "held", "open", "paid", "given up"}),
        ("draft", {"draft", "held"}),
        ("held", {"held"}),
        ("open", {"open"}),
        ("overdue", {"open"}),
        ("paid", {"paid"}),
        ("uncollectible", {"given up"}),
        ("void", set()),
    ],
)
def test_each_tab_holds_its_own(tab: str, found: set[str], root: Client, db: None) -> None:
    customer = written(Row(1), status="draft").customer
    named = {
        "draft": Invoice.objects.get(),
        "held": written(Row(2), customer=customer, status="draft", held_at=timezone.now(), hold_reason="odd"),
        "open": written(Row(3), customer=customer),
        "paid": written(Row(4), customer=customer, status="paid"),
        "given up": written(Row(5), customer=customer, status="uncollectible"),
    }
    answer = root.get(reverse("admin:billing_invoice_changelist"), {"status": tab} if tab else {})
    assert set(answer.context["cl"].queryset) == {named[name] for name in found}
    (active,) = [one for one in answer.context["mb_tabs"] if one["active"]]
    assert active["count"] == len(found)


def test_the_list_tells_what_is_still_asked_for(root: Client, db: None) -> None:
    invoice = written(Row(10_000), balance=2_000)
    credit_invoice(invoice=invoice, reason="Outage", now=timezone.now(), amount=D(500))
    credit_invoice(invoice=invoice, reason="Outage", now=timezone.now(), amount=D(1_000))
    answer = root.get(reverse("admin:billing_invoice_changelist"))
    (row,) = answer.context["cl"].queryset
    assert row.asked == 6_500  # 100.00 - 20.00 - 5.00 - 10.00
    text = answer.content.decode()
    assert all(shown in text for shown in ("15 Feb 2026", "$100.00", "$65.00"))


def test_a_number_series_cannot_be_changed_once_it_is_used(root: Client, db: None) -> None:
    series = written(Row(1)).series
    assert series is not None
    url = reverse("admin:billing_numberseries_change", args=[series.pk])
    assert "can no longer be changed" in root.get(url).content.decode()
    assert "INV-000002" in root.get(url).content.decode()
    with nothing_changes("changing a used series"):
        answer = root.post(
            reverse("admin:billing_numberseries_correct", args=[series.pk]), {"prefix": "X-", "first": 1}
        )
    assert "has numbered documents" in answer.content.decode()
    answer = root.post(reverse("admin:billing_numberseries_add"), {"name": "France", "prefix": "INV-", "first": 1})
    assert "could give the same numbers" in answer.content.decode()
    answer = root.post(reverse("admin:billing_numberseries_add"), {"name": "France", "prefix": "FR-", "first": 41})
    assert "FR-000041" in root.get(answer["Location"]).content.decode()
