"""What the database itself refuses, whatever the code does: notes that are not their lines, periods that open again."""

import pytest
from django.db import IntegrityError, connection, transaction

from billing.credit_notes import credit_invoice
from billing.cycles import close_subscription
from billing.models import BillingPeriod, CreditNote, CreditNoteLine, IgnoredCorrection, Invoice
from billing.products import update_product
from tests.base import acme, at, call_meter, send, subscribed, usage_product

pytestmark = pytest.mark.django_db


def billed(choice: str = "adjust") -> Invoice:
    customer = acme()
    product = usage_product((call_meter(), "10", 0), fee=500)
    update_product(product=product, corrections=choice)
    subscription = subscribed(customer, product, on="2026-01-01")
    send(customer, 3, on="2026-01-05")
    (invoice,) = close_subscription(
        subscription_id=subscription.pk, until=at("2026-02-01T01:00"), now=at("2026-02-01T01:00")
    )
    return invoice


def refused(sql: str, why: str) -> None:
    with pytest.raises(IntegrityError, match=why), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(sql)
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")


def test_a_credit_note_takes_no_line_that_it_was_not_given_with() -> None:
    invoice = billed()
    fee = invoice.lines.get(kind="fee")
    note = credit_invoice(invoice=invoice, reason="goodwill", now=at("2026-02-02"), lines={fee.pk: fee.amount})
    usage = invoice.lines.get(kind="usage")
    with pytest.raises(IntegrityError, match="totals 500 but its lines add up to 501"), transaction.atomic():
        CreditNoteLine.objects.create(
            credit_note=note, invoice_line=usage, position=2, description="more", amount=1, explanation={}
        )
        with connection.cursor() as cursor:
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
    assert note.lines.count() == 1


def test_a_credit_note_without_its_lines_is_refused() -> None:
    invoice = billed()
    note = credit_invoice(invoice=invoice, reason="goodwill", now=at("2026-02-02"))
    note.pk, note.public_id, note.number = None, "cn_x", "CN-X"
    with pytest.raises(IntegrityError, match="its lines add up to 0"), transaction.atomic():
        note.save(force_insert=True)
        with connection.cursor() as cursor:
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
    assert CreditNote.objects.count() == 1


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE billing_billingperiod SET closed_at = NULL WHERE closed_at IS NOT NULL",
        "UPDATE billing_billingperiod SET closed_at = '2026-02-09' WHERE closed_at IS NOT NULL",
    ],
)
def test_a_closed_period_stays_closed(sql: str) -> None:
    billed()
    refused(sql, "stays closed")
    assert BillingPeriod.objects.filter(closed_at=at("2026-02-01T01:00")).count() == 1


def test_the_record_of_what_was_ignored_is_not_edited() -> None:
    invoice = billed("ignore")
    send(invoice.customer, 1, on="2026-01-06", received="2026-02-05")
    close_subscription(
        subscription_id=invoice.subscription_id or 0, until=at("2026-03-01T01:00"), now=at("2026-03-01T01:00")
    )
    assert IgnoredCorrection.objects.get().amount == 10
    refused("UPDATE billing_ignoredcorrection SET amount = 0", "only grows")
