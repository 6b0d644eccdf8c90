"""Invoices: from proposed lines to a draft, from a draft to an issued document, and what may still happen to it.

    draft --issue--> issued --pay--> paid
      |                 |--void--> void (its lines no longer live)
      hold, approve     |--give up--> uncollectible --pay--> paid

A draft follows the usage; an issued invoice never changes. What it costs is settled when it is issued: prepaid credit,
then tax, then the customer's balance.
"""

import zoneinfo
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Max, Q, QuerySet

from billing import pricing
from billing.balances import apply_balance, move_balance
from billing.credits import draw, drawable, give_back, lock_holdings
from billing.models import (
    BalanceEntryKind,
    BillingRun,
    Charge,
    ChargeType,
    Invoice,
    InvoiceLine,
    InvoiceReason,
    InvoiceStatus,
    LineKind,
    Payment,
    PaymentStatus,
    PriceType,
    Product,
    Subscription,
)
from billing.models.invoices import OPEN
from billing.money import add, plain
from billing.numbers import INVOICES, take_number
from billing.pricing import LineToSettle, RatedLine, explain, rate_fee
from billing.products import settling_conventions
from billing.profiles import profile_of
from billing.taxes import tax_for
from customers.errors import Conflict, DomainError
from customers.models import Customer
from meters.evidence import Evidence

# Far above any invoice, and far below what its column holds.
LARGEST_AMOUNT = Decimal(10) ** 28


class InvoiceNotPayable(Conflict):
    code = "INVOICE_NOT_PAYABLE"


class InvoiceNotVoidable(Conflict):
    code = "INVOICE_NOT_VOIDABLE"


class InvoiceNotDraft(Conflict):
    code = "INVOICE_NOT_DRAFT"


class InvoiceHeld(Conflict):
    code = "INVOICE_HELD"


@dataclass(frozen=True, slots=True)
class ProposedLine:
    """A line that could be printed: the fields of an InvoiceLine before there is an invoice."""

    kind: str
    description: str
    product: Product
    quantity: Decimal
    free_units: Decimal
    billable_units: Decimal
    unit_price: Decimal | None
    exact_amount: Decimal
    amount: Decimal
    subscription: Subscription | None = None
    charge: Charge | None = None
    period_start: datetime | None = None
    period_end: datetime | None = None
    measurement_unit: str = ""
    explanation: dict[str, Any] = field(default_factory=dict)
    discount: Decimal = Decimal(0)
    tax_inclusive: bool = False
    # Of an adjustment: the kind of line it corrects.
    adjusts: str = ""
    # What a usage line stands on: see meters.evidence.
    meter_version: str = ""
    watermark: int | None = None
    events_counted: int | None = None
    events_digest: str = ""


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
    tax_inclusive: bool = False,
    evidence: Evidence | None = None,
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
        discount=rated.discount,
        tax_inclusive=tax_inclusive,
        measurement_unit=unit,
        explanation={**rated.explanation, "text": explain(rated, unit=unit, currency=currency)},
        meter_version=evidence.meter_version if evidence else "",
        watermark=evidence.watermark if evidence else None,
        events_counted=evidence.events if evidence else None,
        events_digest=evidence.digest if evidence else "",
    )


def total_of(lines: Sequence[ProposedLine]) -> Decimal:
    """What the lines cost together, before credit and tax."""
    return add(*(line.amount for line in lines))


# -- drafts -------------------------------------------------------------------------------------------------


def address_for(customer: Customer, subscription: Subscription | None) -> dict[str, Any]:
    """Where the invoices of a subscription, or of the customer alone, go to; tax follows it."""
    return (subscription.billing_address if subscription else {}) or customer.billing_address


def draft_invoice(
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
    replaces: Invoice | None = None,
    issue_at: datetime | None = None,
    settle: bool = True,
) -> Invoice:
    """Write the lines down without a number; it is issued when `issue_at` comes (now, unless said).

    Without `settle` its credit, tax and sums are left to issuing, which follows at once.
    """
    invoice = Invoice.objects.create(
        customer=customer,
        subscription=subscription,
        run=run,
        replaces=replaces,
        reason=reason,
        currency=currency,
        series=profile_of(customer).series,
        period_start=period_start,
        period_end=period_end,
        time_zone=subscription.time_zone if subscription else settings.BILLING_TIME_ZONE,
        customer_name=customer.name,
        customer_email=customer.email,
        customer_address=address_for(customer, subscription or next((one.subscription for one in lines), None)),
        seller_name=settings.SELLER_NAME,
        seller_address=settings.SELLER_ADDRESS,
        seller_email=settings.SELLER_EMAIL,
        issue_at=issue_at or now,
        created_at=now,
    )
    add_lines(invoice=invoice, lines=lines, now=now, settle=settle)
    return invoice


def add_lines(*, invoice: Invoice, lines: Sequence[ProposedLine], now: datetime, settle: bool = True) -> None:
    """Write further lines of a draft, and settle it anew."""
    if any(abs(line.amount) >= LARGEST_AMOUNT for line in lines):
        raise DomainError("A line's amount has more than 28 digits: look at the events and the price behind it.")
    last = invoice.lines.aggregate(last=Max("position"))["last"] or 0
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
            discount=line.discount,
            tax_inclusive=line.tax_inclusive,
            adjusts=line.adjusts,
            meter_version=line.meter_version,
            watermark=line.watermark,
            events_counted=line.events_counted,
            events_digest=line.events_digest,
            explanation=line.explanation,
        )
        for position, line in enumerate(lines, start=last + 1)
    )
    if settle:
        settle_draft(invoice=invoice, now=now)


def settle_draft(*, invoice: Invoice, now: datetime) -> dict[int, Decimal]:
    """Share the prepaid credit that can be drawn now over the lines, add the tax, and add it all up.

    Returns how much of which grant that takes; issuing draws it. A draft only shows it.
    """
    lines = list(invoice.lines.select_related("product", "charge__price", "subscription__price").order_by("position"))
    decisions = {
        category: tax_for(customer=invoice.customer, address=invoice.customer_address, tax_category=category, now=now)
        for category in {line.product.tax_category for line in lines}
    }
    price = next((line.subscription.price for line in lines if line.subscription is not None), None)
    settled = pricing.settle(
        [
            LineToSettle(
                key=str(line.pk),
                amount=line.amount,
                taxes=decisions[line.product.tax_category].taxes,
                tax_inclusive=line.tax_inclusive,
                reason=decisions[line.product.tax_category].reason,
            )
            for line in lines
        ],
        credits=drawable(customer=invoice.customer, currency=invoice.currency, at=now),
        conventions=settling_conventions(price, tax_inclusive=any(line.tax_inclusive for line in lines)),
        at=now,
    )
    for line, result in zip(lines, settled.lines, strict=True):
        line.credit, line.tax, line.tax_reason = result.credit, result.tax, result.reason
        line.taxes = [
            {"name": tax.name, "percent": plain(tax.percent), "amount": plain(tax.amount), "base": plain(tax.base)}
            for tax in result.taxes
        ]
    InvoiceLine.objects.bulk_update(lines, ["credit", "tax", "taxes", "tax_reason"])
    invoice.subtotal, invoice.credit = settled.subtotal, settled.credit
    invoice.tax, invoice.total = settled.tax, settled.total
    invoice.save(update_fields=["subtotal", "credit", "tax", "total"])
    return {int(credit.key): credit.drawn for credit in settled.credits if credit.drawn}


@transaction.atomic
def hold_invoice(*, invoice: Invoice, reason: str, now: datetime) -> None:
    """Keep a draft from being issued until somebody releases or approves it; an approval before counts no more."""
    if not reason.strip():
        raise DomainError("Say why the draft is held.")
    _change_draft(invoice, held_at=now, hold_reason=reason.strip(), approved_at=None, approved_by="")


@transaction.atomic
def release_invoice(*, invoice: Invoice, now: datetime) -> None:
    """Let a held draft be issued when its time comes."""
    _change_draft(invoice, held_at=None, hold_reason="")


@transaction.atomic
def approve_invoice(*, invoice: Invoice, by: str, now: datetime) -> None:
    """Somebody has looked at the draft: it is issued when its time comes, also if it waited for this."""
    _change_draft(invoice, held_at=None, hold_reason="", approved_at=now, approved_by=by)


def _change_draft(invoice: Invoice, **changes: Any) -> None:
    changed = Invoice.objects.filter(pk=invoice.pk, status=InvoiceStatus.DRAFT).update(**changes)
    invoice.refresh_from_db()
    if not changed:
        raise InvoiceNotDraft(f"{invoice} is {invoice.get_status_display().lower()} and no draft any more.")


def drafts_to_issue(*, now: datetime) -> QuerySet[Invoice]:
    """Drafts whose time has come and that nobody holds; one of a run waits for the run, which may add to it."""
    return Invoice.objects.filter(status=InvoiceStatus.DRAFT, held_at__isnull=True, issue_at__lte=now).filter(
        Q(run__isnull=True) | Q(run__finished_at__isnull=False)
    )


# -- issuing ------------------------------------------------------------------------------------------------


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
    replaces: Invoice | None = None,
) -> Invoice:
    """Write the lines down and issue them at once. Must run inside a transaction."""
    invoice = draft_invoice(
        customer=customer,
        reason=reason,
        currency=currency,
        lines=lines,
        now=now,
        subscription=subscription,
        period_start=period_start,
        period_end=period_end,
        run=run,
        replaces=replaces,
        settle=False,
    )
    issue_draft(invoice=invoice, now=now)
    return invoice


@transaction.atomic
def issue_draft(*, invoice: Invoice, now: datetime) -> None:
    """Settle it, give the next number, and ask for the money; also before its time. A held one is refused.

    The customer's balance pays first. With nothing left to pay it is paid at once; what is below zero goes onto the
    balance.
    """
    lock_holdings(customer=invoice.customer, currency=invoice.currency)
    Invoice.objects.select_for_update(of=("self",)).get(pk=invoice.pk)
    invoice.refresh_from_db()
    if invoice.status != InvoiceStatus.DRAFT:
        raise InvoiceNotDraft(f"{invoice} is {invoice.get_status_display().lower()} and no draft any more.")
    if invoice.held_at is not None:
        raise InvoiceHeld(f"The draft is held ({invoice.hold_reason}): release or approve it first.")
    drawn = settle_draft(invoice=invoice, now=now)
    total, customer = invoice.total, invoice.customer
    invoice.balance = min(total, Decimal(0))
    if total > 0:
        invoice.balance = apply_balance(customer=customer, currency=invoice.currency, due=total, now=now)
    due = add(total, -invoice.balance)
    # The number comes last: its row stays locked until the transaction ends, and nobody else can issue meanwhile.
    invoice.series, invoice.number = take_number(
        name=invoice.series.name if invoice.series else INVOICES, prefix=settings.INVOICE_NUMBER_PREFIX
    )
    invoice.issued_at = now
    invoice.due_at = now + settings.PAYMENT_TERM
    invoice.status = InvoiceStatus.PAID if due == 0 else InvoiceStatus.ISSUED
    invoice.paid_at = now if due == 0 else None
    invoice.save(update_fields=["series", "number", "issued_at", "due_at", "status", "paid_at", "balance"])
    invoice.refresh_from_db(fields=["due"])
    draw(invoice=invoice, drawn=drawn, now=now)
    if invoice.balance:
        move_balance(
            customer=customer,
            currency=invoice.currency,
            amount=-invoice.balance,
            kind=BalanceEntryKind.INVOICE_PAID if total > 0 else BalanceEntryKind.INVOICE_CREDIT,
            invoice=invoice,
            now=now,
        )
    Payment.objects.create(
        invoice=invoice,
        customer=customer,
        subscription=invoice.subscription,
        amount=due,
        currency=invoice.currency,
        status=PaymentStatus.SUCCEEDED if due == 0 else PaymentStatus.REQUIRES_PAYMENT_METHOD,
        charge_type=_CHARGE_TYPES[invoice.reason],
        includes_usage=invoice.lines.filter(
            kind__in=[LineKind.USAGE, LineKind.ADJUSTMENT, LineKind.COMMITMENT]
        ).exists(),
        created_at=now,
    )


_CHARGE_TYPES: dict[str, str | None] = {
    InvoiceReason.START: ChargeType.NEW,
    InvoiceReason.CYCLE: ChargeType.RENEWAL,
    InvoiceReason.CORRECTION: ChargeType.RENEWAL,
    InvoiceReason.ONE_TIME: None,
}


# -- what may still happen ----------------------------------------------------------------------------------


@transaction.atomic
def mark_paid(*, invoice: Invoice, now: datetime, note: str = "") -> None:
    """Record that the money came. Only an open or given-up invoice can be paid: `InvoiceNotPayable` otherwise."""
    changed = Invoice.objects.filter(pk=invoice.pk, status__in=OPEN).update(status=InvoiceStatus.PAID, paid_at=now)
    invoice.refresh_from_db()
    if not changed:
        raise InvoiceNotPayable(f"{invoice} is {invoice.get_status_display().lower()}, so it cannot be marked paid.")
    Payment.objects.filter(invoice=invoice).update(status=PaymentStatus.SUCCEEDED, note=note, updated_at=now)


@transaction.atomic
def mark_uncollectible(*, invoice: Invoice, reason: str, now: datetime) -> None:
    """Give up asking for an open invoice. It stays billed, and can still be paid."""
    if not reason.strip():
        raise DomainError("Say why the money will not come.")
    changed = Invoice.objects.filter(pk=invoice.pk, status=InvoiceStatus.ISSUED).update(
        status=InvoiceStatus.UNCOLLECTIBLE, uncollectible_at=now, uncollectible_reason=reason.strip()
    )
    invoice.refresh_from_db()
    if not changed:
        raise InvoiceNotPayable(f"{invoice} is {invoice.get_status_display().lower()}, so it cannot be given up.")
    Payment.objects.filter(invoice=invoice).update(status=PaymentStatus.FAILED, updated_at=now)


@transaction.atomic
def void_invoice(*, invoice: Invoice, reason: str, now: datetime, bill_again: bool = False) -> None:
    """Take an invoice back that nobody has paid with money. Its number stays used; the prepaid credit and the balance
    it took are given back.

    Nothing bills its lines again by itself, unless `bill_again` says so: see billing.cycles.regenerate_invoice.
    `InvoiceNotVoidable` for a paid or void one, one with a credit note, or without a reason.
    """
    if not reason.strip():
        raise InvoiceNotVoidable("Say why the invoice is void.", status=400)
    lock_holdings(customer=invoice.customer, currency=invoice.currency)
    row = Invoice.objects.select_for_update().get(pk=invoice.pk)
    if row.status not in OPEN and not row.is_paid_without_money():
        invoice.refresh_from_db()
        raise InvoiceNotVoidable(f"{invoice} is {invoice.get_status_display().lower()}, so it cannot be voided.")
    if row.credit_notes.exists():
        raise InvoiceNotVoidable(f"{row} has a credit note, so it cannot be voided: credit what is left of it.")
    Invoice.objects.filter(pk=row.pk).update(status=InvoiceStatus.VOID, voided_at=now, void_reason=reason.strip())
    row.lines.update(live=False, counts=not bill_again)
    give_back(invoice=row, now=now)
    if row.balance:
        move_balance(
            customer=row.customer,
            currency=row.currency,
            amount=row.balance,
            kind=BalanceEntryKind.INVOICE_RETURNED,
            invoice=row,
            now=now,
        )
    Payment.objects.filter(invoice=row).update(status=PaymentStatus.CANCELLED, updated_at=now)
    invoice.refresh_from_db()


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
        rated,
        kind=LineKind.ONE_TIME,
        description=product.name,
        product=product,
        currency=price.currency,
        tax_inclusive=price.tax_inclusive,
    )
    return issue_invoice(
        customer=customer, reason=InvoiceReason.ONE_TIME, currency=price.currency, lines=[line], now=now
    )


def local(instant: datetime, time_zone: str) -> datetime:
    """The instant on the wall clock that the invoice is written in."""
    return instant.astimezone(zoneinfo.ZoneInfo(time_zone))
