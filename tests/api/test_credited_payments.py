"""A payment over the API is what its invoice still asks for, whatever was credited."""

from decimal import Decimal

import pytest

from billing.credit_notes import credit_invoice
from billing.invoices import mark_paid
from tests.api.client import Api
from tests.base import at
from tests.written import Row, written

D = Decimal
pytestmark = pytest.mark.django_db
NOW = at("2026-02-10")


def test_a_payment_follows_the_credit_notes_of_its_invoice(api: Api) -> None:
    # 100.00, 60.00 by prepaid credit, 19 % of 40.00: 47.60, and 10.00 from the balance.
    invoice = written(Row(10_000, 6_000, 760), balance=1_000)
    path = f"/payments/{invoice.payment.public_id}"
    shown = api.get(path).body
    assert (shown["total_amount"], shown["tax"], shown["status"]) == (3_760, 760, "requires_payment_method")
    # A half of it: 23.80 of money.
    credit_invoice(invoice=invoice, reason="Outage", now=NOW, amount=D(5_380))
    shown = api.get(path).body
    assert (shown["total_amount"], shown["status"]) == (1_380, "requires_payment_method")
    mark_paid(invoice=invoice, now=NOW)
    # Nothing is asked for any more, so this goes onto the balance, and the payment stays what was paid.
    credit_invoice(invoice=invoice, reason="Goodwill", now=NOW)
    shown = api.get(path).body
    assert (shown["total_amount"], shown["status"]) == (1_380, "succeeded")
    wallets = api.get(f"/customers/{invoice.customer.public_id}/wallets").body
    assert [(one["currency"], one["balance"]) for one in wallets["items"]] == [("USD", 2_380)]


def test_a_whole_credit_leaves_a_payment_of_nothing(api: Api) -> None:
    invoice = written(Row(10_000))
    credit_invoice(invoice=invoice, reason="Outage", now=NOW)
    shown = api.get(f"/payments/{invoice.payment.public_id}").body
    assert (shown["total_amount"], shown["status"], shown["invoice_number"]) == (0, "succeeded", "INV-000001")
