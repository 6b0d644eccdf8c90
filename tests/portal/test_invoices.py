"""What a customer reads of what was billed and credited: documents, steps in plain words, never a draft."""

from decimal import Decimal

import pytest
import time_machine
from django.test import Client

from billing.credit_notes import credit_invoice
from billing.models import Invoice
from billing.pricing import ChargeRule, Graduated, Tier, Usage, explain, rate
from customers.models import Customer
from tests.base import acme, at
from tests.portal.test_pages import read
from tests.portal.visit import come_in
from tests.written import Row, written

D = Decimal
pytestmark = pytest.mark.django_db
NOW = "2026-02-10T12:00"


@pytest.fixture
def customer() -> object:
    with time_machine.travel(at(NOW), tick=False):
        yield acme()


def page_of(invoice: Invoice) -> str:
    return read(come_in(invoice.customer, on=NOW), f"/portal/invoices/{invoice.public_id}/")


def test_a_line_opens_to_its_tiers_and_conventions(customer: Customer) -> None:
    rated = rate(ChargeRule(price=Graduated((Tier(D(10), D(5)), Tier(None, D(3))))), Usage(D(25)))
    more = {
        "quantity": D(25),
        "billable_units": D(25),
        "unit_price": None,
        "exact_amount": rated.exact_amount,
        "measurement_unit": "calls",
        "explanation": {**rated.explanation, "text": explain(rated, unit="calls", currency="USD")},
        "meter_version": "only-for-operators",
    }
    page = page_of(written(Row(95, description="API calls", more=more), customer=customer))
    assert "How each amount came about API calls $0.95 25 calls, 10 × $0.05 + 15 × $0.03 = $0.95" in page
    assert (
        "Tiers used Tier From Up to Units Price Flat fee Amount 1 0 10 10 $0.05 – $0.50 2 10 and more 15 $0.03" in page
    )
    assert "A tier's upper bound belongs to it." in page
    assert "only-for-operators" not in page
    assert "No tax rate" not in page


def test_credit_notes_stand_with_their_invoice_and_in_the_list(customer: Customer) -> None:
    invoice = written(Row(10_000, 6_000, 760), customer=customer)
    note = credit_invoice(invoice=invoice, reason="Outage in March", now=at(NOW), amount=D(5_380), by="clerk")
    # A half: 50.00, 30.00 of it prepaid credit, 3.80 of tax.
    page = page_of(invoice)
    assert "CN-000001 10 February 2026 Outage in March $23.80 + $30.00 of prepaid credit" in page
    assert "Credit note CN-000001 -$23.80 Amount due $23.80" in page
    client = come_in(customer, on=NOW)
    assert "Credit notes" in read(client, "/portal/invoices/")
    page = read(client, f"/portal/credit-notes/{note.public_id}/")
    assert "$23.80 and $30.00 of prepaid credit given back" in page
    assert "For invoice INV-000001" in page
    assert "clerk" not in page
    pdf = client.get(f"/portal/credit-notes/{note.public_id}/pdf")
    assert pdf["Content-Disposition"] == 'attachment; filename="CN-000001.pdf"'
    assert pdf.content.startswith(b"%PDF")


def test_what_is_asked_for_is_what_credit_notes_and_balance_left(customer: Customer) -> None:
    invoice = written(Row(10_000), customer=customer, balance=2_000)
    credit_invoice(invoice=invoice, reason="Outage", now=at(NOW), amount=D(500))
    assert "INV-000001 : $75.00 , due 15 February 2026" in read(come_in(customer, on=NOW), "/portal/")


def test_a_draft_is_nowhere(customer: Customer) -> None:
    draft = written(Row(10_000, description="Secret"), customer=customer, status="draft")
    client = come_in(customer, on=NOW)
    assert client.get(f"/portal/invoices/{draft.public_id}/").status_code == 404
    assert client.get(f"/portal/invoices/{draft.public_id}/pdf").status_code == 404
    for path in ("/portal/", "/portal/invoices/"):
        assert "Secret" not in read(client, path)
        assert "$100.00" not in read(client, path)


@pytest.mark.parametrize(("day", "word"), [("2026-02-10", "Open"), ("2026-02-16", "Overdue")])
def test_an_invoice_that_was_given_up_is_still_asked_for(day: str, word: str, customer: Customer) -> None:
    invoice = written(Row(10_000), customer=customer, status="uncollectible")
    with time_machine.travel(at(day), tick=False):
        client: Client = come_in(customer, on=day)
        assert f"{word} INV-000001 : $100.00" in read(client, "/portal/")
        page = read(client, f"/portal/invoices/{invoice.public_id}/")
    assert f"Invoice INV-000001 {word}" in page
    assert "ncollectible" not in page
