"""What a customer reads about the money held for them: balance, prepaid credit, and every movement."""

from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
import time_machine
from django.test import Client

from billing.balances import move_balance
from billing.credit_notes import credit_invoice
from billing.credits import draw, expire_grants, give_back, grant_credit, withdraw_grant
from billing.invoices import charge_once, mark_paid
from billing.models import BalanceEntryKind, CreditGrant, Invoice
from billing.products import PriceTerms, create_product
from customers.models import Customer
from tests.base import acme, at, globex
from tests.portal.test_pages import read
from tests.portal.visit import billed, come_in

pytestmark = pytest.mark.django_db
D = Decimal
NOW = "2026-02-10T12:00"


@pytest.fixture
def customer() -> Iterator[Customer]:
    with time_machine.travel(at(NOW), tick=False):
        yield acme()


def move(customer: Customer, amount: int, **changes: Any) -> None:
    given: dict[str, Any] = {"currency": "USD", "kind": BalanceEntryKind.ADJUSTMENT, "now": at(NOW), **changes}
    move_balance(customer=customer, amount=D(amount), **given)


def grant(customer: Customer, name: str, amount: int, *, now: datetime | None = None, **changes: Any) -> CreditGrant:
    given: dict[str, Any] = {"currency": "USD", **changes}
    return grant_credit(customer=customer, name=name, amount=D(amount), now=now or at(NOW), **given)


def page(customer: Customer) -> str:
    return read(come_in(customer, on=NOW), "/portal/balance/")


def test_nothing_held_says_when_something_will_be(customer: Customer) -> None:
    shown = page(customer)
    assert "Nothing is held for you" in shown
    assert "When you pay ahead, or money is given back to you, it stays here" in shown
    assert "Movements" not in shown


def test_a_balance_with_its_movements(customer: Customer) -> None:
    _, invoice = billed(customer)
    move(customer, 5000, now=at("2026-01-02"), reason="Prepayment, thank you", author="ann@seller.example")
    move(customer, -1234, kind=BalanceEntryKind.INVOICE_PAID, invoice=invoice, now=at("2026-02-01"))
    shown = page(customer)
    assert "Balance $37.66 Prepaid credit None" in shown  # 50.00 - 12.34
    assert f"Used for invoice {invoice.number} 1 February 2026 -$12.34 $37.66" in shown
    assert "Adjustment Prepayment, thank you 2 January 2026 +$50.00 $50.00" in shown
    assert "ann@seller.example" not in shown  # who entered it is the seller's business
    html = come_in(customer, on=NOW).get("/portal/balance/").content.decode()
    assert f'href="/portal/invoices/{invoice.public_id}/"' in html


def test_each_currency_has_its_own_balance(customer: Customer) -> None:
    move(customer, 5000)
    move(customer, 700, currency="JPY")
    move(customer, 100, currency="EUR")
    move(customer, -100, currency="EUR")
    assert "Balance ¥700 $50.00 Prepaid" in page(customer)  # nothing is left in euros


def test_credit_stands_in_the_order_in_which_it_will_be_drawn(customer: Customer) -> None:
    grant(customer, "Never ends", 1000)
    grant(customer, "Ends in June", 2000, expires_at=at("2026-06-01"))
    grant(customer, "Ends in May", 3000, expires_at=at("2026-05-01"))
    grant(customer, "In reserve", 4000, priority=1, expires_at=at("2026-03-01"))
    grant(customer, "From March", 500, starts_at=at("2026-03-01"))
    grant(customer, "Old", 600, now=at("2026-01-01"), expires_at=at("2026-02-01"))
    withdraw_grant(grant=grant(customer, "A mistake", 700), reason="Entered twice", now=at(NOW))
    expire_grants(now=at(NOW))
    shown = page(customer)
    assert "Balance Nothing Prepaid credit $100.00" in shown  # 10 + 20 + 30 + 40
    names = ["Ends in May", "Ends in June", "Never ends", "In reserve"]
    assert sorted(names, key=lambda name: shown.index(f"{name} Active")) == names
    for text in (
        "$30.00 of $30.00 left, expires on 1 May 2026.",
        "$10.00 of $10.00 left, never expires.",
        "From March Not begun $5.00 $5.00 of $5.00 left, counts from 1 March 2026.",
        "Old Expired $0.00 $0.00 of $6.00 left, expired on 1 February 2026.",
        "A mistake Withdrawn $0.00 $0.00 of $7.00 left.",
        "Withdrawn Entered twice 10 February 2026 -$7.00 $0.00",
    ):
        assert text in shown, text


def test_what_invoices_drew_and_gave_back(customer: Customer) -> None:
    _, invoice = billed(customer)
    made = grant(customer, "Yearly", 10_000)
    draw(invoice=invoice, drawn={made.pk: D(6000)}, now=at(NOW))
    give_back(invoice=invoice, now=at(NOW), amount=D(1000))
    shown = page(customer)
    assert "Yearly Active $50.00 $50.00 of $100.00 left, never expires." in shown  # 100 - 60 + 10
    assert f"Given back by invoice {invoice.number} 10 February 2026 +$10.00 $50.00" in shown
    assert f"Used for invoice {invoice.number} 10 February 2026 -$60.00 $40.00" in shown


def test_a_credit_note_is_named_and_opens(customer: Customer) -> None:
    made = grant(customer, "Yearly", 2000)
    terms = PriceTerms(type="one_time_price", currency="USD", fixed_amount=D(7940))
    invoice = charge_once(customer=customer, product=create_product(name="Setup", terms=terms), now=at(NOW))
    assert (invoice.credit, invoice.due) == (D(2000), D(5940))  # 7940 - 2000
    mark_paid(invoice=invoice, now=at(NOW))
    note = credit_invoice(invoice=invoice, reason="Our outage", now=at(NOW))
    shown = page(customer)
    assert "Balance $59.40 Prepaid credit $20.00" in shown
    assert f"Credit note {note.number} Our outage 10 February 2026 +$59.40 $59.40" in shown
    assert f"Given back by credit note {note.number} 10 February 2026 +$20.00 $20.00" in shown
    client = come_in(customer, on=NOW)
    address = f"/portal/credit-notes/{note.public_id}/"
    assert f'href="{address}"' in client.get("/portal/balance/").content.decode()
    assert client.get(address).status_code == 200
    assert CreditGrant.objects.get(pk=made.pk).remaining == 2000


def test_a_draft_is_not_named(customer: Customer) -> None:
    draft = Invoice.objects.create(
        customer=customer, reason="one_time", currency="USD", customer_name="Acme", customer_email="a@acme.example"
    )
    move(customer, 100, kind=BalanceEntryKind.INVOICE_CREDIT, invoice=draft)
    html = come_in(customer, on=NOW).get("/portal/balance/").content.decode()
    assert draft.public_id not in html
    assert "draft" not in html


def test_a_long_ledger_has_pages(customer: Customer) -> None:
    for number in range(1, 31):
        move(customer, number, reason=f"number {number}.")
    client = come_in(customer, on=NOW)
    first, second = read(client, "/portal/balance/"), read(client, "/portal/balance/?page=1")
    assert ("number 30." in first, "number 6." in first, "number 5." in first, "Older" in first) == (
        True,
        True,
        False,
        True,
    )
    assert ("number 5." in second, "number 1." in second, "number 6." in second, "Newer" in second) == (
        True,
        True,
        False,
        True,
    )
    for nonsense in ("x", "-1", "99999999999999"):
        assert client.get(f"/portal/balance/?page={nonsense}").status_code == 200


def test_nobody_sees_anothers(customer: Customer) -> None:
    other = globex()
    move(other, 7777, reason="theirs")
    grant(other, "Their credit", 8888)
    move(customer, 100, reason="mine")
    shown = page(customer)
    assert "mine" in shown
    for text in ("theirs", "Their credit", "77.77", "88.88"):
        assert text not in shown
    assert Client().get("/portal/balance/").status_code == 403


def test_a_name_that_is_markup_is_text(customer: Customer) -> None:
    grant(customer, "<b>bold</b>", 100)
    move(customer, 100, reason="<script>alert(1)</script>")
    html = come_in(customer, on=NOW).get("/portal/balance/").content.decode()
    assert "<b>bold" not in html
    assert "<script>alert" not in html
