"""Credit notes: what they give back and where it goes, never more than there is, numbered without gaps, frozen."""

import threading
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from django.db import IntegrityError, connection, connections, transaction
from django.db.models import Sum
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase

from billing.balances import balance_of, move_balance
from billing.credit_notes import InvoiceNotCreditable, credit_invoice, lines_left, owed, propose_credit
from billing.invoices import void_invoice
from billing.models import BalanceEntry, CreditGrant, CreditNote, GrantEntry, Invoice, NumberSeries
from customers.errors import DomainError
from customers.models import Customer
from tests.base import acme, at
from tests.billing.rivals import together
from tests.written import Row, written

D = Decimal
NOW = at("2026-02-10")
db = pytest.mark.django_db


def credit(invoice: Invoice, **what: Any) -> CreditNote:
    return credit_invoice(**{"invoice": invoice, "reason": "Outage", "now": NOW, "by": "clerk", **what})


def line(invoice: Invoice, position: int = 1) -> int:
    return invoice.lines.get(position=position).pk


def sums(note: CreditNote) -> tuple[Decimal, Decimal, Decimal, Decimal]:
    return note.subtotal, note.credit, note.tax, note.total


def went(note: CreditNote) -> tuple[Decimal, Decimal]:
    return note.to_invoice, note.to_balance


def money_of(invoice: Invoice) -> tuple[str, Decimal, Decimal, str]:
    """(status, owed, the payment's amount and its status)."""
    invoice.refresh_from_db()
    payment = type(invoice.payment).objects.get(pk=invoice.payment.pk)
    return invoice.status, owed(invoice), payment.amount, payment.status


# -- whole, by line, by amount --------------------------------------------------------------------------------


@db
def test_a_whole_credit_of_an_open_invoice_leaves_nothing_to_pay() -> None:
    invoice = written(Row(10_000, tax=1_900), Row(5_000, tax=950))
    note = credit(invoice)
    # 100.00 + 19.00 + 50.00 + 9.50 = 178.50
    assert sums(note) == (D(15_000), D(0), D(2_850), D(17_850))
    assert went(note) == (D(17_850), D(0))
    assert money_of(invoice) == ("paid", D(0), D(0), "succeeded")
    assert invoice.paid_at == NOW
    assert (invoice.due, invoice.total) == (D(17_850), D(17_850))  # the document itself is as it was
    assert balance_of(customer=invoice.customer, currency="USD") == 0
    assert (note.number, note.reason, note.issued_by, note.issued_at) == ("CN-000001", "Outage", "clerk", NOW)
    assert (note.customer, note.currency, note.cause) == (invoice.customer, "USD", "operator")


@db
def test_a_whole_credit_of_a_paid_invoice_goes_onto_the_balance() -> None:
    invoice = written(Row(10_000, tax=1_900), status="paid")
    note = credit(invoice)
    assert went(note) == (D(0), D(11_900))
    assert balance_of(customer=invoice.customer, currency="USD") == 11_900
    entry = BalanceEntry.objects.get()
    assert (entry.kind, entry.amount, entry.credit_note, entry.invoice, entry.author) == (
        "credit_note", D(11_900), note, invoice, "clerk",
    )  # fmt: skip
    assert invoice.payment.amount == 11_900


@db
def test_a_credit_takes_off_what_is_asked_for_before_it_fills_the_balance() -> None:
    # 100.00, of which 70.00 came from the balance: 30.00 are asked for.
    invoice = written(Row(10_000), balance=7_000)
    assert money_of(invoice) == ("issued", D(3_000), D(3_000), "requires_payment_method")
    first = credit(invoice, amount=D(1_000))
    assert went(first) == (D(1_000), D(0))
    assert money_of(invoice) == ("issued", D(2_000), D(2_000), "requires_payment_method")
    second = credit(invoice, amount=D(5_000))  # 20.00 off the invoice, the other 30.00 back onto the balance
    assert went(second) == (D(2_000), D(3_000))
    assert money_of(invoice) == ("paid", D(0), D(0), "succeeded")
    third = credit(invoice)  # 100.00 - 10.00 - 50.00
    assert (went(third), third.total) == ((D(0), D(4_000)), D(4_000))
    assert balance_of(customer=invoice.customer, currency="USD") == 7_000  # all it had given


@db
def test_an_uncollectible_invoice_asks_for_less_and_is_settled_by_a_whole_credit() -> None:
    invoice = written(Row(10_000), status="uncollectible")
    assert owed(invoice) == 10_000
    credit(invoice, amount=D(4_000))
    assert money_of(invoice)[:3] == ("uncollectible", D(6_000), D(6_000))
    credit(invoice)
    assert money_of(invoice) == ("paid", D(0), D(0), "succeeded")


@db
def test_a_credit_by_line_leaves_the_other_lines_alone() -> None:
    invoice = written(Row(10_000, tax=1_900, description="A"), Row(5_000, description="B"))
    note = credit(invoice, lines={line(invoice, 1): D(1_190)})
    # A tenth of 119.00: 10.00 and 1.90.
    assert [
        (row.position, row.description, row.amount, row.credit, row.tax, row.total) for row in note.lines.all()
    ] == [(1, "A", D(1_000), D(0), D(190), D(1_190))]
    assert [(one.line.description, one.left) for one in lines_left(invoice)] == [("A", D(10_710)), ("B", D(5_000))]
    assert sums(note) == (D(1_000), D(0), D(190), D(1_190))


@db
def test_a_credit_by_amount_is_spread_over_what_is_left_of_the_lines() -> None:
    invoice = written(Row(100), Row(100), Row(100))
    note = credit(invoice, amount=D(100))
    # 33.33… each; the cent that is over goes to the first.
    assert [row.total for row in note.lines.all()] == [D(34), D(33), D(33)]
    credit(invoice, lines={line(invoice, 2): D(67)})
    # What is left is 66, 0 and 67: 13 of it are 6.45 and 6.55.
    note = credit(invoice, amount=D(13))
    assert [(row.position, row.invoice_line.position, row.total) for row in note.lines.all()] == [
        (1, 1, D(6)), (2, 3, D(7)),
    ]  # fmt: skip


@db
def test_prepaid_credit_goes_back_to_its_grants_and_money_to_where_it_was_asked() -> None:
    # 100.00, 60.00 of it paid by prepaid credit; 10 % on the other 40.00. Worth 104.00, asked for 44.00.
    invoice = written(Row(10_000, credit=6_000, tax=400))
    grant = CreditGrant.objects.get()
    assert (grant.remaining, owed(invoice)) == (D(0), D(4_400))
    note = credit(invoice, amount=D(2_600))  # a quarter of 104.00
    assert sums(note) == (D(2_500), D(1_500), D(100), D(1_100))
    assert went(note) == (D(1_100), D(0))
    grant.refresh_from_db()
    assert grant.remaining == 1_500
    returned = GrantEntry.objects.get(kind="returned")
    assert (returned.amount, returned.credit_note, returned.invoice) == (D(1_500), note, invoice)
    rest = credit(invoice)
    assert sums(rest) == (D(7_500), D(4_500), D(300), D(3_300))
    grant.refresh_from_db()
    assert grant.remaining == 6_000
    assert money_of(invoice) == ("paid", D(0), D(0), "succeeded")


@db
def test_what_prepaid_credit_paid_whole_can_be_credited_too() -> None:
    invoice = written(Row(10_000, credit=10_000))
    assert invoice.status == "paid"
    note = credit(invoice, amount=D(2_500))
    assert (sums(note), went(note)) == ((D(2_500), D(2_500), D(0), D(0)), (D(0), D(0)))
    assert CreditGrant.objects.get().remaining == 2_500
    assert not BalanceEntry.objects.exists()


@db
def test_an_included_tax_is_given_back_inside_the_amount() -> None:
    invoice = written(Row(11_900, tax=1_900, inclusive=True))
    note = credit(invoice, amount=D(5_950))
    assert sums(note) == (D(5_950), D(0), D(950), D(5_950))
    (row,) = note.lines.all()
    assert (row.tax_inclusive, row.total) == (True, D(5_950))


@db
def test_each_part_says_what_it_is_of_and_its_tax_by_rate() -> None:
    invoice = written(Row(10_000, tax=1_500, taxes=[("GST", "5", "500"), ("QST", "10", "1000")]))
    credit(invoice, amount=D(100))
    (row,) = credit(invoice, amount=D(11_400)).lines.all()
    assert row.explanation == {
        "worth": "11400",
        "of": "11500",
        "before": "100",
        # The first note gave back 13 of tax: 4 and 9; all that is left is 496 and 991.
        "taxes": [
            {"name": "GST", "percent": "5", "amount": "496"},
            {"name": "QST", "percent": "10", "amount": "991"},
        ],
    }


@db
def test_a_correction_says_how_many_units_it_takes_back() -> None:
    invoice = written(Row(10_000))
    key = line(invoice)
    note = credit(
        invoice, lines={key: D(500)}, cause="correction", quantities={key: D(25)}, explanations={key: {"text": "why"}}
    )
    (row,) = note.lines.all()
    assert (note.cause, row.quantity, row.explanation["text"]) == ("correction", D(25), "why")


@db
def test_a_line_below_zero_lowers_what_can_be_given_back() -> None:
    # 100.00 - 30.00 with 19 %: 70.00 + 13.30 = 83.30 were asked for, and no more is given back.
    invoice = written(Row(10_000, tax=1_900), Row(-3_000, tax=-570, kind="adjustment"))
    assert owed(invoice) == 8_330
    with pytest.raises(InvoiceNotCreditable, match=r"Only \$83.30 is left"):
        credit(invoice, amount=D(8_331))
    with pytest.raises(InvoiceNotCreditable, match="no such line"):
        credit(invoice, lines={line(invoice, 2): D(1)})
    note = credit(invoice)
    assert sums(note) == (D(7_000), D(0), D(1_330), D(8_330))
    assert money_of(invoice) == ("paid", D(0), D(0), "succeeded")


# -- what is refused ------------------------------------------------------------------------------------------


@db
@pytest.mark.parametrize(
    ("what", "says"),
    [
        ({"amount": D(101)}, r"Only \$1\.00 is left of INV-000001; \$1\.01 is more than that\."),
        ({"amount": D(0)}, "A credit is above zero and in whole minor units of USD, not 0."),
        ({"amount": D(-1)}, "above zero"),
        ({"amount": D("0.5")}, "whole minor units"),
        ({"amount": D("NaN")}, "whole minor units"),
        ({"amount": D("Infinity")}, "whole minor units"),
        ({"lines": {}}, "Choose at least one line to credit."),
        ({"lines": {999: D(1)}}, "no such line"),
        ({"lines": {1: D(1)}, "amount": D(1)}, "not by both"),
        ({"reason": "  "}, "Say why it is credited"),
    ],
)
def test_what_cannot_be_credited_is_refused_and_nothing_is_written(what: dict[str, Any], says: str) -> None:
    invoice = written(Row(100))
    with pytest.raises(InvoiceNotCreditable, match=says):
        credit(invoice, **what)
    assert not CreditNote.objects.exists()
    assert not NumberSeries.objects.filter(name="credit_notes").exists()
    assert money_of(invoice) == ("issued", D(100), D(100), "requires_payment_method")


@db
def test_no_line_gives_back_more_than_is_left_of_it() -> None:
    invoice = written(Row(100, description="A"), Row(100))
    credit(invoice, lines={line(invoice): D(60)})
    with pytest.raises(InvoiceNotCreditable, match=r"Only \$0\.40 is left of “A”; \$0\.41 is more than that\."):
        credit(invoice, lines={line(invoice): D(41)})
    credit(invoice, lines={line(invoice): D(40)})
    with pytest.raises(InvoiceNotCreditable, match=r"Only \$0\.00 is left of “A”"):
        credit(invoice, lines={line(invoice): D(1)})


@db
@pytest.mark.parametrize(
    ("status", "says"), [("draft", "is a draft: change it before it is issued"), ("void", "is void, so it cannot")]
)
def test_a_draft_and_a_void_invoice_cannot_be_credited(status: str, says: str) -> None:
    invoice = written(Row(100), status=status)
    assert owed(invoice) == 0
    with pytest.raises(InvoiceNotCreditable, match=says):
        credit(invoice)


@db
def test_nothing_left_is_said_so() -> None:
    invoice = written(Row(100))
    credit(invoice)
    with pytest.raises(InvoiceNotCreditable, match="Nothing is left of INV-000001 to credit"):
        credit(invoice)
    with pytest.raises(InvoiceNotCreditable, match="Nothing is left"):
        credit(written(Row(0), customer=invoice.customer))


@db
def test_a_proposal_is_the_note_and_writes_nothing() -> None:
    invoice = written(Row(10_000, credit=6_000, tax=400), Row(333))
    proposed = propose_credit(invoice=invoice, amount=D(1_234))
    assert not CreditNote.objects.exists()
    note = credit(invoice, amount=D(1_234))
    assert sums(note) == (proposed.subtotal, proposed.credit, proposed.tax, proposed.total)
    assert went(note) == (proposed.to_invoice, proposed.to_balance)
    assert owed(invoice) == proposed.owed
    assert [(row.invoice_line_id, row.amount, row.credit, row.tax) for row in note.lines.all()] == [
        (one.line.pk, part.amount, part.credit, part.tax) for one, part in proposed.parts
    ]


# -- numbers, frozen rows, races ------------------------------------------------------------------------------


@db
def test_credit_notes_have_a_series_of_their_own_without_gaps() -> None:
    invoice = written(Row(1_000))
    with pytest.raises(RuntimeError), transaction.atomic():
        credit(invoice, amount=D(1))
        raise RuntimeError("something after the number was given")
    assert [credit(invoice, amount=D(1)).number for _ in range(3)] == ["CN-000001", "CN-000002", "CN-000003"]
    assert written(Row(1), customer=invoice.customer).number == "INV-000002"


@db
@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE billing_creditnote SET total = 1, to_invoice = 1",
        "UPDATE billing_creditnote SET reason = 'another'",
        "DELETE FROM billing_creditnote",
        "UPDATE billing_creditnoteline SET amount = 1",
        "DELETE FROM billing_creditnoteline",
    ],
)
def test_a_credit_note_is_frozen(sql: str) -> None:
    credit(written(Row(100)))
    with pytest.raises(IntegrityError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(sql)


@pytest.mark.django_db(transaction=True)
def test_two_at_once_give_back_no_more_than_there_is() -> None:
    invoice = written(Row(10_000, credit=6_000, tax=400))
    gate, outcomes = threading.Barrier(8, timeout=60), []

    def work() -> None:
        try:
            gate.wait()
            outcomes.append(credit_invoice(invoice=Invoice.objects.get(pk=invoice.pk), reason="r", now=NOW).number)
        except InvoiceNotCreditable as error:
            outcomes.append(error.message)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(outcomes) == ["CN-000001", *["Nothing is left of INV-000001 to credit."] * 7]
    assert CreditGrant.objects.get().remaining == 6_000
    assert money_of(invoice) == ("paid", D(0), D(0), "succeeded")


@pytest.mark.django_db(transaction=True)
def test_what_was_seen_is_given_once_however_often_it_is_confirmed() -> None:
    invoice = written(Row(10_000))
    seen = propose_credit(invoice=invoice, amount=D(2_000))

    def confirm() -> str:
        mine = Invoice.objects.get(pk=invoice.pk)
        return str(credit_invoice(invoice=mine, reason="r", now=NOW, amount=D(2_000), seen=seen).number)

    given = sorted(map(str, together(*[confirm] * 4)))
    assert given == [
        "CN-000001",
        *["Something was credited or paid on INV-000001 meanwhile; look again."] * 3,
    ]
    assert owed(invoice) == 8_000  # 10,000 - 2,000


@pytest.mark.django_db(transaction=True)
def test_a_credit_note_and_a_void_at_once_never_both_happen() -> None:
    customer: Customer = acme()
    for _ in range(5):
        invoice = written(Row(10_000, credit=6_000, tax=400), customer=customer, balance=1_000)
        gate = threading.Barrier(2, timeout=60)
        outcomes: list[str] = []

        def work(step: Callable[[Invoice], object], found: Invoice, gate: Any, outcomes: list[str]) -> None:
            try:
                gate.wait()
                step(Invoice.objects.get(pk=found.pk))
                outcomes.append("done")
            except DomainError as error:
                outcomes.append(error.code)
            finally:
                connections.close_all()

        steps: list[Callable[[Invoice], object]] = [
            lambda row: credit_invoice(invoice=row, reason="r", now=NOW, amount=D(5_200)),
            lambda row: void_invoice(invoice=row, reason="r", now=NOW),
        ]
        threads = [threading.Thread(target=work, args=(step, invoice, gate, outcomes)) for step in steps]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert sorted(outcomes) in (["INVOICE_NOT_CREDITABLE", "done"], ["INVOICE_NOT_VOIDABLE", "done"])
        # Either way what came back is what had been used: 10.00 of balance by the void, or half the prepaid credit.
        returned = GrantEntry.objects.filter(invoice=invoice, kind="returned").aggregate(all=Sum("amount"))["all"]
        assert returned == (6_000 if "INVOICE_NOT_CREDITABLE" in outcomes else 3_000)


@pytest.mark.django_db(transaction=True)
def test_many_at_once_are_numbered_without_gaps_and_their_sum_is_right() -> None:
    customer: Customer = acme()
    invoices = [written(Row(1_000), customer=customer, status="paid") for _ in range(2)]
    gate, errors = threading.Barrier(8, timeout=60), []

    def work(index: int) -> None:
        try:
            gate.wait()
            for _ in range(3):
                credit_invoice(invoice=invoices[index % 2], reason="r", now=NOW, amount=D(10))
        except Exception as error:
            errors.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    numbers = CreditNote.objects.order_by("number").values_list("number", flat=True)
    assert list(numbers) == [f"CN-{number:06d}" for number in range(1, 25)]
    assert balance_of(customer=customer, currency="USD") == 240


# -- what is true of every invoice and every way of crediting it ----------------------------------------------


class Conserved(TestCase):
    @given(
        st.lists(
            st.tuples(st.integers(1, 5_000), st.integers(0, 100), st.integers(0, 25), st.booleans()),
            min_size=1,
            max_size=4,
        ),
        st.integers(0, 100),
        st.lists(st.integers(1, 100), max_size=5),
        st.booleans(),
    )
    def test_everything_comes_back_exactly_however_it_is_cut(
        self,
        rows: list[tuple[int, int, int, bool]],
        held_percent: int,
        steps: list[int],
        paid: bool,
    ) -> None:
        lines = []
        for amount, credit_percent, tax_percent, inclusive in rows:
            prepaid = amount * credit_percent // 100
            base = amount - prepaid
            tax = base * tax_percent // (100 + tax_percent) if inclusive else base * tax_percent // 100
            lines.append(Row(amount, prepaid, tax, inclusive))
        total = sum(row.amount - row.credit + (0 if row.inclusive else row.tax) for row in lines)
        held = total * held_percent // 100
        invoice = written(*lines, balance=held)
        asked = invoice.due
        if paid and invoice.status == "issued":
            Invoice.objects.filter(pk=invoice.pk).update(status="paid", paid_at=NOW)
            invoice.refresh_from_db()
        for percent in steps:
            left = sum((one.left for one in lines_left(invoice)), D(0))
            if amount_now := left * percent // 100:
                credit(invoice, amount=amount_now)
        if any(one.left for one in lines_left(invoice)):
            credit(invoice)
        for row in invoice.lines.all():
            back = row.credited.aggregate(a=Sum("amount"), c=Sum("credit"), t=Sum("tax"), m=Sum("total"))
            assert (back["a"], back["c"], back["t"], back["m"]) == (row.amount, row.credit, row.tax, row.total)
        notes = invoice.credit_notes.aggregate(total=Sum("total"), off=Sum("to_invoice"), on=Sum("to_balance"))
        assert notes["total"] == invoice.total
        assert notes["off"] == (D(0) if paid else asked)
        assert balance_of(customer=invoice.customer, currency="USD") == notes["on"]
        assert invoice.status == "paid"
        assert owed(invoice) == 0
        for grant in CreditGrant.objects.all():
            assert grant.remaining == grant.amount


@db
def test_an_expired_grant_gets_its_credit_back_and_loses_it_visibly() -> None:
    invoice = written(Row(10_000, credit=6_000))
    CreditGrant.objects.update(expires_at=at("2026-02-05"))
    credit(invoice)
    grant = CreditGrant.objects.get()
    assert grant.remaining == 0
    assert list(grant.entries.order_by("pk").values_list("kind", "amount")) == [
        ("granted", D(6_000)), ("drawn", D(-6_000)), ("returned", D(6_000)), ("expired", D(-6_000)),
    ]  # fmt: skip


@db
def test_a_balance_in_another_currency_is_another_balance() -> None:
    invoice = written(Row(1_000), currency="JPY", status="paid")
    move_balance(customer=invoice.customer, currency="USD", amount=D(5), kind="adjustment", now=NOW, reason="r")
    credit(invoice, amount=D(300))
    assert balance_of(customer=invoice.customer, currency="JPY") == 300
    assert balance_of(customer=invoice.customer, currency="USD") == 5
