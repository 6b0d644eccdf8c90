"""An issued invoice written row by row: any amounts, prepaid credit, tax and balance, without metering a thing."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from django.db import transaction
from django.db.models import Sum

from billing.balances import move_balance
from billing.credits import draw, grant_credit
from billing.models import (
    Charge,
    Invoice,
    InvoiceLine,
    InvoiceStatus,
    Payment,
    PaymentStatus,
    Product,
)
from billing.numbers import INVOICES, take_number
from billing.products import PriceTerms, create_product
from customers.models import Customer
from tests.base import acme, at

D = Decimal
WRITTEN = "2026-02-01"


@dataclass(frozen=True)
class Row:
    """A line: minor units. The tax is of one rate unless `taxes` says (name, percent, amount) of several."""

    amount: int
    credit: int = 0
    tax: int = 0
    inclusive: bool = False
    description: str = "Work"
    kind: str = "one_time"
    charge: Charge | None = None
    taxes: Sequence[tuple[str, str, str]] = ()
    more: dict[str, Any] = field(default_factory=dict)


def some_product() -> Product:
    existing = Product.objects.filter(name="Work").first()
    terms = PriceTerms(type="one_time_price", currency="USD", fixed_amount=D(100))
    return existing or create_product(name="Work", terms=terms)


@transaction.atomic
def written(
    *rows: Row,
    customer: Customer | None = None,
    currency: str = "USD",
    balance: int = 0,
    status: str = InvoiceStatus.ISSUED,
    on: str = WRITTEN,
    **fields: Any,
) -> Invoice:
    """An invoice of these lines, `balance` of it paid from what the customer holds. `status` draft leaves it so."""
    now = at(on)
    customer = customer or acme()
    product = some_product()
    invoice = Invoice.objects.create(
        customer=customer,
        reason="one_time",
        currency=currency,
        customer_name=customer.name,
        customer_email=customer.email,
        created_at=now,
        **fields,
    )
    InvoiceLine.objects.bulk_create(
        InvoiceLine(
            invoice=invoice,
            position=position,
            kind=row.kind,
            description=row.description,
            product=product,
            charge=row.charge,
            **{
                "quantity": D(1),
                "billable_units": D(1),
                "unit_price": D(row.amount),
                "exact_amount": D(row.amount),
                **row.more,
            },
            amount=D(row.amount),
            credit=D(row.credit),
            tax=D(row.tax),
            tax_inclusive=row.inclusive,
            taxes=[
                {"name": name, "percent": percent, "amount": amount}
                for name, percent, amount in (row.taxes or ([("VAT", "19", str(row.tax))] if row.tax else []))
            ],
            tax_reason="VAT for DE" if row.tax else "No tax rate for US",
        )
        for position, row in enumerate(rows, start=1)
    )
    for name in ("credit", "tax", "total"):
        setattr(invoice, name, invoice.lines.aggregate(all=Sum(name))["all"] or D(0))
    invoice.subtotal = invoice.lines.aggregate(all=Sum("amount"))["all"] or D(0)
    invoice.balance = D(balance)
    invoice.save()
    if status == InvoiceStatus.DRAFT:
        return invoice
    if invoice.credit:
        grant = grant_credit(customer=customer, name="Prepaid", amount=invoice.credit, currency=currency, now=now)
        draw(invoice=invoice, drawn={grant.pk: invoice.credit}, now=now)
    if balance:
        held: dict[str, Any] = {"customer": customer, "currency": currency, "now": now}
        move_balance(amount=D(balance), kind="adjustment", reason="held", **held)
        move_balance(amount=-D(balance), kind="invoice_paid", invoice=invoice, **held)
    invoice.series, invoice.number = take_number(name=INVOICES, prefix="INV-")
    invoice.issued_at = now
    invoice.due_at = at("2026-02-15")
    asks = invoice.total - invoice.balance
    invoice.status = InvoiceStatus.ISSUED if asks > 0 else InvoiceStatus.PAID
    invoice.paid_at = None if asks > 0 else now
    invoice.save()
    Payment.objects.create(
        invoice=invoice,
        customer=customer,
        amount=max(asks, D(0)),
        currency=currency,
        status=PaymentStatus.REQUIRES_PAYMENT_METHOD if asks > 0 else PaymentStatus.SUCCEEDED,
        created_at=now,
    )
    if status not in (InvoiceStatus.ISSUED, invoice.status):
        step = {"paid": "paid_at", "void": "voided_at", "uncollectible": "uncollectible_at"}[status]
        Invoice.objects.filter(pk=invoice.pk).update(status=status, **{step: now})
        Payment.objects.filter(invoice=invoice).update(
            status=PaymentStatus.SUCCEEDED if status == "paid" else PaymentStatus.REQUIRES_PAYMENT_METHOD
        )
    invoice.refresh_from_db()
    return invoice
