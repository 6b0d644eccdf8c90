"""Usage that is found, or taken back, after its period was billed: what it changes in money, and what becomes of it.

A running period then simply costs something else. A closed one keeps its invoice; the difference becomes an adjustment
line on the next one, a credit note, or a record that it was ignored: the product chooses.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from django.db import transaction
from django.db.models import Exists, OuterRef, Q, Sum
from django.db.models.functions import Greatest

from billing.credit_notes import CREDITABLE, credit_invoice, lines_left
from billing.crediting import worth_of_amount
from billing.invoices import ProposedLine
from billing.models import (
    BillingPeriod,
    Charge,
    Corrections,
    CreditNoteCause,
    IgnoredCorrection,
    InvoiceLine,
    InvoiceStatus,
    LineKind,
    Subscription,
)
from billing.money import add
from billing.proposals import UsageNotPriceable, adjustment_lines, corrections_of, usage_lines
from meters.models import Backfill, Event, Meter
from meters.voids import Selection, Voided, select_events, void_events

ZERO = Decimal(0)
# Rating is exact and not free; a correction this wide is shown for the first periods, and says so.
MOST_PERIODS = 500


@dataclass(frozen=True, slots=True)
class MoneyEffect:
    """One charge of one period: how much its amount changes, in the currency's minor unit."""

    period: BillingPeriod
    charge: Charge
    currency: str
    change: Decimal

    @property
    def closed(self) -> bool:
        """Closed periods keep their invoice; the change becomes an adjustment on the next one."""
        return self.period.closed_at is not None


@dataclass(frozen=True, slots=True)
class Correction:
    """The whole effect of a bulk void. `complete` is False where only the first periods were rated."""

    voided: Voided
    money: tuple[MoneyEffect, ...]
    complete: bool

    @property
    def totals(self) -> dict[str, Decimal]:
        """The change by currency."""
        found: dict[str, Decimal] = {}
        for effect in self.money:
            found[effect.currency] = add(found.get(effect.currency, Decimal(0)), effect.change)
        return dict(sorted(found.items()))


class _NothingSaved(Exception):
    """Rolls the trial back."""


def preview_void(*, where: Selection, now: datetime) -> Correction:
    """What `void_events` would do, in units and in money: the same calls, rolled back."""
    found: list[Correction] = []
    try:
        with transaction.atomic():
            found.append(_try(where, now))
            raise _NothingSaved
    except _NothingSaved:
        return found[0]


def _try(where: Selection, now: datetime) -> Correction:
    targets = select_events(where=where)
    names = {target.event_name for target in targets}
    last_backfill = Backfill.objects.order_by("-pk").values_list("pk", flat=True).first() or 0
    # Voided first, because the spans it leaves for billing say which periods to rate; rated before from a savepoint.
    point = transaction.savepoint()
    voided = void_events(where=where, reason="preview", author="preview", now=now)
    spans = list(Backfill.objects.filter(pk__gt=last_backfill).order_by("pk"))
    periods, complete = _periods(spans, list(Meter.objects.filter(event_name__in=names)))
    after = {period.pk: _amounts(period, now) for period in periods}
    transaction.savepoint_rollback(point)
    money = []
    for period in periods:
        before = _amounts(period, now)
        for charge in period.subscription.price.charges.select_related("meter").order_by("position"):
            change = add(after[period.pk].get(charge.pk, Decimal(0)), -before.get(charge.pk, Decimal(0)))
            if change:
                money.append(MoneyEffect(period, charge, period.subscription.price.currency, change))
    return Correction(voided, tuple(money), complete)


def _periods(spans: list[Backfill], meters: list[Meter]) -> tuple[list[BillingPeriod], bool]:
    """The periods that may change, of subscriptions that pay for one of the meters."""
    found: dict[int, BillingPeriod] = {}
    for span in spans:
        rows = (
            BillingPeriod.objects.filter(
                subscription__customer=span.customer_id,
                subscription__price__charges__meter__in=meters,
                start__lte=span.last,
                end__gt=span.first,
            )
            .select_related("subscription__customer", "subscription__price__product")
            .order_by("subscription_id", "start")
            .distinct()
        )
        for period in rows[: MOST_PERIODS + 1]:
            found[period.pk] = period
        if len(found) > MOST_PERIODS:
            return list(found.values())[:MOST_PERIODS], False
    return list(found.values()), True


def _amounts(period: BillingPeriod, now: datetime) -> dict[int, Decimal]:
    """By charge: what a running period costs so far, or what a closed one still has to be adjusted by."""
    if period.closed_at is None:
        lines = usage_lines(period.subscription, period, so_far=now)
    else:
        lines = adjustment_lines(period.subscription, period)
    return {line.charge.pk: line.amount for line in lines if line.charge is not None}


# -- what becomes of a difference ---------------------------------------------------------------------------


def apply_corrections(
    subscription: Subscription, lines: Sequence[ProposedLine], *, periods: Iterable[BillingPeriod], now: datetime
) -> list[ProposedLine]:
    """Do with adjustments what the product chose; returns the lines that the next invoice bills.

    Adjusted: all of them. By credit note: what was billed too much is given back on the invoices that billed it, and
    only the rest is left. Ignored: recorded, so that the same difference is found once. What was billed for a period
    that never began, and fees, are no usage: they are always billed and given back.
    """
    choice = subscription.price.product.corrections
    if choice == Corrections.ADJUST:
        return list(lines)
    by_start: dict[datetime | None, BillingPeriod] = {period.start: period for period in periods}
    kept = []
    for line in lines:
        if line.adjusts == LineKind.FEE or line.period_start not in by_start:
            kept.append(line)
        elif choice == Corrections.IGNORE:
            _record(line, by_start[line.period_start], subscription.price.currency, now)
        elif line.amount > 0:
            kept.append(line)
        elif (rest := _give_back(line, now)).amount:
            kept.append(rest)
    return kept


def _record(line: ProposedLine, period: BillingPeriod, currency: str, now: datetime) -> None:
    IgnoredCorrection.objects.create(
        period=period,
        charge=line.charge,
        currency=currency,
        quantity=line.quantity,
        billable_units=line.billable_units,
        exact_amount=line.exact_amount,
        amount=line.amount,
        explanation=line.explanation,
        found_at=now,
    )


def _give_back(line: ProposedLine, now: datetime) -> ProposedLine:
    """Credit notes for an adjustment below zero, on the invoices that billed it; returns what they could not take."""
    billed = (
        InvoiceLine.objects.filter(
            subscription=line.subscription,
            charge=line.charge,
            period_start=line.period_start,
            kind__in=[LineKind.USAGE, LineKind.COMMITMENT, LineKind.ADJUSTMENT],
            live=True,
            amount__gt=0,
            invoice__status__in=CREDITABLE,
        )
        .select_related("invoice__customer")
        .order_by("pk")
    )
    if line.charge is None:
        billed = billed.filter(Q(kind=LineKind.COMMITMENT) | Q(adjusts=LineKind.COMMITMENT))
    wanted, quantity = -line.amount, -line.quantity
    for printed in billed:
        left = next((one for one in lines_left(printed.invoice) if one.line.pk == printed.pk), None)
        if left is None or wanted == 0:
            continue
        worth, amount = worth_of_amount(left.printed, given=left.given, amount=wanted)
        if amount == 0:
            continue
        credit_invoice(
            invoice=printed.invoice,
            reason=f"{printed.description}: {line.explanation['text']}",
            now=now,
            lines={printed.pk: worth},
            cause=CreditNoteCause.CORRECTION,
            quantities={printed.pk: quantity},
            explanations={printed.pk: line.explanation},
        )
        wanted, quantity = add(wanted, -amount), Decimal(0)
    if wanted == -line.amount:
        return line
    # The units are on the credit note.
    return replace(line, amount=-wanted, exact_amount=-wanted, quantity=ZERO, billable_units=ZERO)


def count_anew(subscription: Subscription, starts: Iterable[datetime | None], *, now: datetime) -> None:
    """What was ignored of these periods is billed with them, now that they are billed anew: record that it is back."""
    ignored = IgnoredCorrection.objects.filter(period__subscription=subscription, period__start__in=list(starts))
    rows = (
        ignored.values("period", "charge", "currency")
        .annotate(units=Sum("quantity"), billable=Sum("billable_units"), exact=Sum("exact_amount"), money=Sum("amount"))
        .order_by("period", "charge")
    )
    IgnoredCorrection.objects.bulk_create(
        IgnoredCorrection(
            period_id=row["period"],
            charge_id=row["charge"],
            currency=row["currency"],
            quantity=-row["units"],
            billable_units=-row["billable"],
            exact_amount=-row["exact"],
            amount=-row["money"],
            explanation={"text": "Billed after all: the invoice was made anew by the usage as it was then."},
            found_at=now,
        )
        for row in rows
        if row["money"] or row["units"]
    )


# -- what is pending ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PendingCorrection:
    """A difference that the next closing of its subscription will deal with, as its product chose."""

    subscription: Subscription
    period: BillingPeriod
    charge: Charge | None
    currency: str
    quantity: Decimal
    amount: Decimal
    choice: str
    text: str


@dataclass(frozen=True, slots=True)
class Pending:
    """`unreadable` are periods whose month has left the log; `complete` is False where only the first were rated.

    `unpriced` are those whose usage by now their price says nothing of, with the reason.
    """

    corrections: tuple[PendingCorrection, ...]
    unreadable: tuple[BillingPeriod, ...]
    complete: bool
    unpriced: tuple[tuple[BillingPeriod, str], ...] = ()

    @property
    def totals(self) -> dict[str, Decimal]:
        """The effect by currency."""
        found: dict[str, Decimal] = {}
        for correction in self.corrections:
            found[correction.currency] = add(found.get(correction.currency, Decimal(0)), correction.amount)
        return dict(sorted(found.items()))


def reached_by_backfill() -> Exists:
    """Of billing periods: whether usage came or was voided in them that no run has looked at yet."""
    return Exists(
        Backfill.objects.filter(
            seen_at__isnull=True,
            customer=OuterRef("subscription__customer"),
            first__lt=OuterRef("end"),
            last__gte=OuterRef("start"),
        )
    )


def pending_corrections(*, limit: int = MOST_PERIODS) -> Pending:
    """Every closed period that will be compared again, and differs by now; before any of it is billed."""
    in_draft = InvoiceLine.objects.filter(
        subscription=OuterRef("subscription"), period_start=OuterRef("start"), invoice__status=InvoiceStatus.DRAFT
    ).exclude(kind=LineKind.FEE)
    watched = (
        BillingPeriod.objects.filter(closed_at__isnull=False)
        .filter(Q(watch_until__isnull=False) | reached_by_backfill())
        .exclude(Exists(in_draft))
        .select_related("subscription__customer", "subscription__price__product")
        .order_by("subscription", "start")
    )
    periods = list(watched[: limit + 1])
    found: list[PendingCorrection] = []
    unreadable: list[BillingPeriod] = []
    unpriced: list[tuple[BillingPeriod, str]] = []
    for period in periods[:limit]:
        subscription = period.subscription
        try:
            corrections = corrections_of(subscription, [period], refund=False)
        except UsageNotPriceable as error:
            unpriced.append((period, error.message))
            continue
        if corrections.unreadable:
            unreadable.append(period)
        found += [
            PendingCorrection(
                subscription,
                period,
                line.charge,
                subscription.price.currency,
                line.quantity,
                line.amount,
                subscription.price.product.corrections,
                line.explanation["text"],
            )
            for line in corrections.lines
        ]
    return Pending(tuple(found), tuple(unreadable), len(periods) <= limit, tuple(unpriced))


@dataclass(frozen=True, slots=True)
class EventsBehind:
    """Events that changed a period's quantity after it was billed; `more` where they are not all."""

    events: tuple[Event, ...]
    more: bool


def events_behind(correction: PendingCorrection, *, limit: int) -> EventsBehind:
    """The events of a pending correction that came, or were voided, after its period was closed; the last first."""
    period, charge = correction.period, correction.charge
    if charge is None or period.closed_at is None:
        return EventsBehind((), False)
    found = list(
        Event.objects.filter(
            customer=correction.subscription.customer_id,
            event_name=charge.meter.event_name,
            timestamp__gte=period.start,
            timestamp__lt=period.end,
        )
        .filter(Q(received_at__gte=period.closed_at) | Q(voided_at__gte=period.closed_at))
        .order_by(Greatest("received_at", "voided_at").desc(), "-id")[: limit + 1]
    )
    return EventsBehind(tuple(found[:limit]), len(found) > limit)
