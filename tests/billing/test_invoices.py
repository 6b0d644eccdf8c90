"""Invoices: numbered without gaps, frozen once issued, paid or void by a guarded step."""

from decimal import Decimal
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction

from billing.cycles import close_subscription, usage_history
from billing.invoices import (
    InvoiceNotPayable,
    InvoiceNotVoidable,
    ProposedLine,
    charge_once,
    issue_invoice,
    mark_paid,
    void_invoice,
)
from billing.models import Invoice, InvoiceLine, NumberSeries
from billing.products import PriceTerms, archive_product, create_product
from customers.customers import update_customer
from customers.errors import DomainError
from tests.base import acme, at, call_meter, lines_of, send, subscribed, usage_product

D = Decimal
pytestmark = pytest.mark.django_db


def onboarding(price: int = 50_000) -> Any:
    return create_product(
        name="Onboarding", terms=PriceTerms(type="one_time_price", currency="USD", fixed_amount=D(price))
    )


def an_invoice() -> Invoice:
    return charge_once(customer=acme(), product=onboarding(), now=at("2026-01-05"), quantity=2)


def test_a_one_time_product_is_invoiced_at_once() -> None:
    invoice = an_invoice()
    assert lines_of(invoice) == [("one_time", "Onboarding", D(2), D(100_000))]
    assert (invoice.number, invoice.status, invoice.total) == ("INV-000001", "issued", D(100_000))
    assert (invoice.issued_at, invoice.due_at) == (at("2026-01-05"), at("2026-01-19"))
    assert (invoice.payment.amount, invoice.payment.status) == (D(100_000), "requires_payment_method")


def test_it_copies_who_was_billed_at_the_moment_of_issue() -> None:
    invoice = an_invoice()
    update_customer(customer=invoice.customer, name="Acme Holding", email="new@acme.example")
    invoice.refresh_from_db()
    assert (invoice.customer_name, invoice.customer_email) == ("Acme", "pay@acme.example")


def test_a_rolled_back_invoice_leaves_no_gap_in_the_numbers() -> None:
    product, customer = onboarding(), acme()
    with pytest.raises(RuntimeError), transaction.atomic():
        charge_once(customer=customer, product=product, now=at("2026-01-05"))
        raise RuntimeError("something after the number was given")
    invoices = [charge_once(customer=customer, product=product, now=at("2026-01-05")) for _ in range(3)]
    assert [invoice.number for invoice in invoices] == ["INV-000001", "INV-000002", "INV-000003"]
    assert NumberSeries.objects.get().next_number == 4


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE billing_invoice SET total = 1, subtotal = 1",
        "UPDATE billing_invoice SET customer_name = 'Somebody else'",
        "UPDATE billing_invoice SET number = 'INV-9'",
        "UPDATE billing_invoice SET status = 'draft'",
        "UPDATE billing_invoice SET issued_at = now()",
        "UPDATE billing_invoice SET paid_at = now()",
        "UPDATE billing_invoice SET void_reason = 'another'",
        "UPDATE billing_invoice SET status = 'paid', paid_at = now(), total = 0, subtotal = 0",
        "UPDATE billing_invoiceline SET amount = 1",
        "UPDATE billing_invoiceline SET live = false",
        "UPDATE billing_invoiceline SET explanation = '{}'",
        "DELETE FROM billing_invoiceline",
        "DELETE FROM billing_invoice",
    ],
)
def test_the_database_refuses_to_change_an_issued_invoice(sql: str) -> None:
    an_invoice()
    before = (list(Invoice.objects.values()), list(InvoiceLine.objects.values()))
    with pytest.raises(IntegrityError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(sql)
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
    assert before == (list(Invoice.objects.values()), list(InvoiceLine.objects.values()))


def test_the_database_refuses_an_invoice_that_begins_issued() -> None:
    invoice = an_invoice()
    invoice.pk, invoice.public_id, invoice.number = None, "inv_x", "INV-X"
    with pytest.raises(IntegrityError, match="begins as a draft"), transaction.atomic():
        invoice.save(force_insert=True)


def test_a_line_cannot_be_added_to_an_issued_invoice() -> None:
    invoice = an_invoice()
    line = invoice.lines.get()
    line.pk, line.position = None, 2
    with pytest.raises(IntegrityError, match="is issued and its lines cannot be changed"), transaction.atomic():
        line.save(force_insert=True)


def test_a_line_cannot_move_to_another_invoice() -> None:
    invoice = an_invoice()
    draft = Invoice.objects.create(
        customer=invoice.customer, reason="one_time", currency="USD", customer_name="A", customer_email="a@b.example"
    )
    with pytest.raises(IntegrityError, match="its lines cannot be changed"), transaction.atomic():
        invoice.lines.update(invoice=draft, position=9)
    assert invoice.lines.count() == 1


def test_an_invoice_whose_total_is_not_the_sum_of_its_lines_cannot_be_issued() -> None:
    draft = Invoice.objects.create(
        customer=acme(), reason="one_time", currency="USD", customer_name="A", customer_email="a@b.example", total=5
    )
    draft.number, draft.issued_at, draft.status = "INV-X", at("2026-01-01"), "issued"
    with pytest.raises(IntegrityError, match="its lines add up to"), transaction.atomic():
        draft.save()


def test_the_same_usage_cannot_be_billed_twice_whatever_the_code_does() -> None:
    customer = acme()
    subscription = subscribed(customer, usage_product((call_meter(), "2", 0)), on="2026-01-01")
    send(customer, 3, on="2026-01-02")
    (invoice,) = close_subscription(
        subscription_id=subscription.pk, until=at("2026-02-01T01:00"), now=at("2026-02-01T01:00")
    )
    copied = invoice.lines.get()
    again = ProposedLine(
        **{name: getattr(copied, name) for name in ProposedLine.__dataclass_fields__}  # the very same line
    )
    with pytest.raises(IntegrityError, match="line_billed_once"), transaction.atomic():
        issue_invoice(customer=customer, reason="correction", currency="USD", lines=[again], now=at("2026-02-02"))


def test_marking_paid_settles_the_payment() -> None:
    invoice = an_invoice()
    mark_paid(invoice=invoice, now=at("2026-01-09"), note="transfer 4711")
    assert (invoice.status, invoice.paid_at) == ("paid", at("2026-01-09"))
    invoice.payment.refresh_from_db()
    assert (invoice.payment.status, invoice.payment.note) == ("succeeded", "transfer 4711")


def test_voiding_keeps_the_number_and_takes_the_lines_back() -> None:
    invoice = an_invoice()
    void_invoice(invoice=invoice, reason="wrong customer", now=at("2026-01-09"))
    assert (invoice.status, invoice.voided_at, invoice.void_reason) == ("void", at("2026-01-09"), "wrong customer")
    assert invoice.number == "INV-000001"
    assert list(invoice.lines.values_list("live", flat=True)) == [False]
    invoice.payment.refresh_from_db()
    assert invoice.payment.status == "cancelled"


def test_each_step_is_refused_where_it_does_not_belong() -> None:
    product, customer = onboarding(), acme()
    paid, void = (charge_once(customer=customer, product=product, now=at("2026-01-05")) for _ in range(2))
    mark_paid(invoice=paid, now=at("2026-01-06"))
    void_invoice(invoice=void, reason="r", now=at("2026-01-06"))
    for invoice in (paid, void):
        with pytest.raises(InvoiceNotPayable):
            mark_paid(invoice=invoice, now=at("2026-01-07"))
        with pytest.raises(InvoiceNotVoidable):
            void_invoice(invoice=invoice, reason="r", now=at("2026-01-07"))
    assert (paid.paid_at, void.voided_at) == (at("2026-01-06"), at("2026-01-06"))


def test_voiding_asks_for_a_reason() -> None:
    invoice = an_invoice()
    with pytest.raises(InvoiceNotVoidable, match="Say why"):
        void_invoice(invoice=invoice, reason="  ", now=at("2026-01-09"))
    invoice.refresh_from_db()
    assert invoice.status == "issued"


@pytest.mark.parametrize("voided", ["the usage", "the adjustment"])
def test_what_was_voided_is_not_billed_again_and_what_comes_later_is(voided: str) -> None:
    customer = acme()
    subscription = subscribed(customer, usage_product((call_meter(), "2", 0)), on="2026-01-01")
    send(customer, 100, on="2026-01-02")
    (january,) = close_subscription(
        subscription_id=subscription.pk, until=at("2026-02-01T01:00"), now=at("2026-02-01T01:00")
    )
    send(customer, 10, on="2026-01-03", received="2026-02-03")
    (february,) = close_subscription(
        subscription_id=subscription.pk, until=at("2026-03-01T01:00"), now=at("2026-03-01T01:00")
    )
    assert (january.total, february.total) == (D(200), D(20))
    void_invoice(invoice=january if voided == "the usage" else february, reason="goodwill", now=at("2026-03-02"))
    send(customer, 1, on="2026-01-04", received="2026-03-03")
    (march,) = close_subscription(
        subscription_id=subscription.pk, until=at("2026-04-01T01:00"), now=at("2026-04-01T01:00")
    )
    assert lines_of(march) == [
        ("usage", "API calls", D(0), D(0)),
        ("adjustment", "API calls, adjustment", D(1), D(2)),
    ]
    history = usage_history(subscription=subscription, now=at("2026-04-02"))
    assert [charge.consumed_units for period in history for charge in period.charges] == [D(0), D(0), D(0), D(111)]


def test_what_cannot_be_charged_once_is_refused() -> None:
    customer, product = acme(), onboarding()
    with pytest.raises(DomainError, match="not a one-time product"):
        charge_once(customer=customer, product=usage_product(), now=at("2026-01-01"))
    with pytest.raises(DomainError, match="1 or more"):
        charge_once(customer=customer, product=product, now=at("2026-01-01"), quantity=0)
    archive_product(product=product, now=at("2026-01-01"))
    with pytest.raises(DomainError, match="archived"):
        charge_once(customer=customer, product=product, now=at("2026-01-02"))
    assert Invoice.objects.count() == 0
