"""Invoices: from proposed lines to an issued document, and what may still happen to it."""

import zoneinfo
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from django.conf import settings
from django.db import transaction

from billing.models import (
    BillingRun,
    Charge,
    ChargeType,
    Invoice,
    InvoiceLine,
    InvoiceReason,
    InvoiceStatus,
    LineKind,
    NumberSeries,
    Payment,
    PaymentStatus,
    PriceType,
    Product,
    Subscription,
)
from billing.money import add
from billing.pricing import RatedLine, explain, rate_fee
from customers.errors import Conflict, DomainError
from customers.models import Customer

NUMBER_SERIES = "invoices"
# Far above any invoice, and far below what its column holds.
LARGEST_AMOUNT = Decimal(10) ** 28


class InvoiceNotPayable(Conflict):
    code = "INVOICE_NOT_PAYABLE"


class InvoiceNotVoidable(Conflict):
    code = "INVOICE_NOT_VOIDABLE"


@dataclass(frozen=True, slots=True)
class ProposedLine:
    """A line that could be printed: the fields of an InvoiceLine before there is an invoice."""

    kind: str
    description: str
    product: Product
    quantity: Decimal
    free_units: Decimal
    billable_units: Decimal
    unit_price: Decimal
    exact_amount: Decimal
    amount: Decimal
    subscription: Subscription | None = None
    charge: Charge | None = None
    period_start: datetime | None = None
    period_end: datetime | None = None
    measurement_unit: str = ""
    explanation: dict[str, str] = field(default_factory=dict)


def propose_line(
    rated: RatedLine,
    *,
    kind: str,
    description: str,
    product: Product,
    currency: str,
    subscription: Subscription | None = None,
    charge: Charge | None = None,
    period_start: datetime | None = None,
    period_end: datetime | None = None,
) -> ProposedLine:
    """A rated line with its name, its period and its explanation in words."""
    unit = charge.meter.measurement_unit if charge else ""
    return ProposedLine(
        kind=kind,
        description=description,
        product=product,
        subscription=subscription,
        charge=charge,
        period_start=period_start,
        period_end=period_end,
        quantity=rated.quantity,
        free_units=rated.free_units,
        billable_units=rated.billable_units,
        unit_price=rated.unit_price,
        exact_amount=rated.exact_amount,
        amount=rated.amount,
        measurement_unit=unit,
        explanation={**rated.explanation, "text": explain(rated, unit=unit, currency=currency)},
    )


def total_of(lines: Sequence[ProposedLine]) -> Decimal:
    return add(*(line.amount for line in lines))


def issue_invoice(
    *,
    customer: Customer,
    reason: str,
    currency: str,
    lines: Sequence[ProposedLine],
    now: datetime,
    subscription: Subscription | None = None,
    period_start: datetime | None = None,
    period_end: datetime | None = None,
    run: BillingRun | None = None,
) -> Invoice:
    """Write the lines down, give the next number, and ask for the money. Must run inside a transaction.

    An invoice of zero is paid at once. The total must not be negative: `DomainError`.
    """
    if any(abs(line.amount) >= LARGEST_AMOUNT for line in lines):
        raise DomainError("A line's amount has more than 28 digits: look at the events and the price behind it.")
    total = total_of(lines)
    if total < 0:
        raise DomainError(f"An invoice cannot be negative ({total} in the minor unit of {currency}).")
    invoice = Invoice.objects.create(
        customer=customer,
        subscription=subscription,
        run=run,
        reason=reason,
        currency=currency,
        subtotal=total,
        total=total,
        period_start=period_start,
        period_end=period_end,
        time_zone=subscription.time_zone if subscription else settings.BILLING_TIME_ZONE,
        customer_name=customer.name,
        customer_email=customer.email,
        customer_address=(subscription.billing_address if subscription else {}) or customer.billing_address,
        seller_name=settings.SELLER_NAME,
        seller_address=settings.SELLER_ADDRESS,
        seller_email=settings.SELLER_EMAIL,
        created_at=now,
    )
    InvoiceLine.objects.bulk_create(
        InvoiceLine(
            invoice=invoice,
            position=position,
            kind=line.kind,
            description=line.description,
            subscription=line.subscription,
            product=line.product,
            charge=line.charge,
            period_start=line.period_start,
            period_end=line.period_end,
            quantity=line.quantity,
            measurement_unit=line.measurement_unit,
            free_units=line.free_units,
            billable_units=line.billable_units,
            unit_price=line.unit_price,
            exact_amount=line.exact_amount,
            amount=line.amount,
            explanation=line.explanation,
        )
        for position, line in enumerate(lines, start=1)
    )
    # The number comes last: its row stays locked until the transaction ends, and nobody else can issue meanwhile.
    invoice.number = _next_number()
    invoice.issued_at = now
    invoice.due_at = now + settings.PAYMENT_TERM
    invoice.status = InvoiceStatus.PAID if total == 0 else InvoiceStatus.ISSUED
    invoice.paid_at = now if total == 0 else None
    invoice.save(update_fields=["number", "issued_at", "due_at", "status", "paid_at"])
    Payment.objects.create(
        invoice=invoice,
        customer=customer,
        subscription=subscription,
        amount=total,
        currency=currency,
        status=PaymentStatus.SUCCEEDED if total == 0 else PaymentStatus.REQUIRES_PAYMENT_METHOD,
        charge_type=_CHARGE_TYPES[reason],
        includes_usage=any(line.kind in (LineKind.USAGE, LineKind.ADJUSTMENT) for line in lines),
        created_at=now,
    )
    return invoice


_CHARGE_TYPES: dict[str, str | None] = {
    InvoiceReason.START: ChargeType.NEW,
    InvoiceReason.CYCLE: ChargeType.RENEWAL,
    InvoiceReason.CORRECTION: ChargeType.RENEWAL,
    InvoiceReason.ONE_TIME: None,
}


def _next_number() -> str:
    NumberSeries.objects.bulk_create([NumberSeries(name=NUMBER_SERIES)], ignore_conflicts=True)
    series = NumberSeries.objects.select_for_update().get(name=NUMBER_SERIES)
    number = series.next_number
    series.next_number = number + 1
    series.save(update_fields=["next_number"])
    return f"{settings.INVOICE_NUMBER_PREFIX}{number:06d}"


@transaction.atomic
def mark_paid(*, invoice: Invoice, now: datetime, note: str = "") -> None:
    """Record that the money came. Only an open invoice can be paid: `InvoiceNotPayable` otherwise."""
    changed = Invoice.objects.filter(pk=invoice.pk, status=InvoiceStatus.ISSUED).update(
        status=InvoiceStatus.PAID, paid_at=now
    )
    invoice.refresh_from_db()
    if not changed:
        raise InvoiceNotPayable(f"{invoice} is {invoice.get_status_display().lower()}, so it cannot be marked paid.")
    Payment.objects.filter(invoice=invoice).update(status=PaymentStatus.SUCCEEDED, note=note, updated_at=now)


@transaction.atomic
def void_invoice(*, invoice: Invoice, reason: str, now: datetime) -> None:
    """Take an open invoice back. Its number stays used, its lines no longer count as billed, nothing bills them again
    by itself. `InvoiceNotVoidable` for a paid or void one, or without a reason."""
    if not reason.strip():
        raise InvoiceNotVoidable("Say why the invoice is void.", status=400)
    changed = Invoice.objects.filter(pk=invoice.pk, status=InvoiceStatus.ISSUED).update(
        status=InvoiceStatus.VOID, voided_at=now, void_reason=reason.strip()
    )
    invoice.refresh_from_db()
    if not changed:
        raise InvoiceNotVoidable(f"{invoice} is {invoice.get_status_display().lower()}, so it cannot be voided.")
    invoice.lines.update(live=False)
    Payment.objects.filter(invoice=invoice).update(status=PaymentStatus.CANCELLED, updated_at=now)


@transaction.atomic
def charge_once(*, customer: Customer, product: Product, now: datetime, quantity: int = 1) -> Invoice:
    """Invoice a one-time product, now."""
    price = product.current_price()
    if price.type != PriceType.ONE_TIME:
        raise DomainError(f"“{product.name}” is not a one-time product; subscribe the customer instead.")
    if product.is_archived():
        raise DomainError(f"“{product.name}” is archived.", code="PRODUCT_IS_DELETED", status=410)
    if quantity < 1:
        raise DomainError("The quantity must be 1 or more.", code="INVALID_QUANTITY")
    rated = rate_fee(quantity=Decimal(quantity), fee=price.fixed_amount)
    line = propose_line(
        rated, kind=LineKind.ONE_TIME, description=product.name, product=product, currency=price.currency
    )
    return issue_invoice(
        customer=customer, reason=InvoiceReason.ONE_TIME, currency=price.currency, lines=[line], now=now
    )


def local(instant: datetime, time_zone: str) -> datetime:
    """The instant on the wall clock that the invoice is written in."""
    return instant.astimezone(zoneinfo.ZoneInfo(time_zone))
