"""A story: a month in Germany, billed with tax and prepaid credit, credited in parts, and what the next month pays."""

from decimal import Decimal

import pytest
import time_machine

from billing.balances import balance_of
from billing.credit_notes import credit_invoice, owed
from billing.credits import credit_of, grant_credit
from billing.cycles import close_subscription
from billing.documents import invoice_document
from billing.invoices import InvoiceNotVoidable, mark_paid, void_invoice
from billing.models import Invoice, Payment, Subscription
from billing.taxes import create_tax_rate
from tests.base import acme, at, call_meter, send, subscribed, usage_product

D = Decimal
pytestmark = pytest.mark.django_db


def close(subscription: Subscription, on: str) -> Invoice:
    with time_machine.travel(at(on), tick=False):
        (invoice,) = close_subscription(subscription_id=subscription.pk, until=at(on), now=at(on))
    return invoice


def test_a_month_is_credited_in_parts_and_the_next_one_is_paid_from_what_came_back() -> None:
    customer = acme(billing_address={"country": "DE"})
    create_tax_rate(name="VAT", percent=D(19), country="DE")
    product = usage_product((call_meter(), "2", 1000), fee=4900)
    subscription = subscribed(customer, product, on="2026-01-01")
    (start,) = subscription.invoices.all()
    assert start.total == 5_831  # 49.00 + 9.31
    mark_paid(invoice=start, now=at("2026-01-02"))
    grant_credit(customer=customer, name="Welcome", amount=D(2_000), currency="USD", now=at("2026-01-02"))

    send(customer, 2500, on="2026-01-05T12:00")
    january = close(subscription, "2026-02-01T02:00")
    # 49.00 and (2500 - 1000) * 0.02 = 30.00 are 79.00; 20.00 come from the credit, 49 : 30 is 12.41 : 7.59.
    # 19 % of 36.59 is 6.95 and of 22.41 is 4.26: 79.00 - 20.00 + 11.21 = 70.21.
    assert [(line.amount, line.credit, line.tax) for line in january.lines.order_by("position")] == [
        (D(4_900), D(1_241), D(695)),
        (D(3_000), D(759), D(426)),
    ]
    assert (january.total, owed(january), credit_of(customer=customer, currency="USD", at=at("2026-02-01"))) == (
        D(7_021), D(7_021), D(0),
    )  # fmt: skip

    # An outage: half of the usage, which is worth 34.26, is given back before anybody paid.
    usage = january.lines.get(kind="usage")
    first = credit_invoice(
        invoice=january, reason="Outage", now=at("2026-02-03"), lines={usage.pk: D(1_713)}, by="clerk"
    )
    # Halves: 15.00, 3.80 of the credit (3.795, half up), 2.13 of the tax: 13.33 of money.
    assert (first.subtotal, first.credit, first.tax, first.total) == (D(1_500), D(380), D(213), D(1_333))
    assert (first.to_invoice, owed(january), Payment.objects.get(invoice=january).amount) == (
        D(1_333), D(5_688), D(5_688),
    )  # fmt: skip
    assert credit_of(customer=customer, currency="USD", at=at("2026-02-03")) == 380
    assert invoice_document(invoice=january)["headline"] == "$56.88 due 15 February 2026"

    mark_paid(invoice=january, now=at("2026-02-10"))
    with pytest.raises(InvoiceNotVoidable):
        void_invoice(invoice=january, reason="Too late", now=at("2026-02-11"))

    # All of the rest, after it was paid: what the two notes give back is what the invoice was.
    rest = credit_invoice(invoice=january, reason="Goodwill", now=at("2026-02-12"))
    assert (first.subtotal + rest.subtotal, first.credit + rest.credit, first.tax + rest.tax) == (
        january.subtotal, january.credit, january.tax,
    )  # fmt: skip
    assert (rest.to_invoice, rest.to_balance) == (D(0), D(5_688))
    assert balance_of(customer=customer, currency="USD") == 5_688
    assert credit_of(customer=customer, currency="USD", at=at("2026-02-12")) == 2_000

    # February has no usage: 49.00 - 20.00 = 29.00, with 5.51 of tax 34.51, which the balance pays.
    february = close(subscription, "2026-03-01T02:00")
    assert (february.credit, february.tax, february.total) == (D(2_000), D(551), D(3_451))
    assert (february.balance, february.due, february.status) == (D(3_451), D(0), "paid")
    assert balance_of(customer=customer, currency="USD") == 2_237  # 56.88 - 34.51
