"""What voiding events would change in money.

A running period then costs something else; a closed one keeps its invoice and is adjusted on the next.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from django.db import transaction

from billing.cycles import adjustment_lines, usage_lines
from billing.models import BillingPeriod, Charge
from billing.money import add
from meters.models import Backfill, Meter
from meters.voids import Selection, Voided, select_events, void_events

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
