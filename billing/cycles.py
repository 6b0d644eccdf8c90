"""Closing: find what is due, propose what should be billed minus what was, and issue it, once.

One transaction a subscription. The row lock keeps two closers apart, the constraints `line_billed_once` and
`invoice_one_per_period` keep the promise even where the code would not, and a killed process leaves nothing behind.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from django.conf import settings
from django.db import InterfaceError, OperationalError, connection, transaction
from django.db.models import Exists, OuterRef, Q, QuerySet, Sum

from billing.invoices import ProposedLine, issue_invoice, propose_line, total_of
from billing.models import (
    BillingPeriod,
    BillingRun,
    Charge,
    Invoice,
    InvoiceLine,
    InvoiceReason,
    LineKind,
    RunItem,
    RunOutcome,
    RunTrigger,
    Subscription,
)
from billing.models.subscriptions import RUNNING
from billing.money import add, format_amount, format_units
from billing.pricing import RatedLine, rate_fee, rate_per_unit, waive
from billing.subscriptions import advance, current_period, fee_line, lock_subscription, park, reason_of
from customers.errors import DomainError
from meters.ingestion import wait_for_ingestion_in_flight
from meters.models import Aggregation, Backfill, Meter
from meters.partitions import MonthArchived
from meters.usage import quantity

logger = logging.getLogger(__name__)

# How far ahead of now an operator may close periods early.
FURTHEST_EARLY_CLOSING = timedelta(days=400)
EARLIEST_BILLING = datetime(1900, 1, 1, tzinfo=UTC)
# The advisory lock of scheduled runs: any number, the same in every process.
SCHEDULED_RUN_LOCK = 0x6D62_0002


class CreditOwed(DomainError):
    """A correction would make an invoice negative, and the subscription is over."""


@dataclass(frozen=True, slots=True)
class ProposedInvoice:
    """What closing would issue: the difference between what should have been billed and what was."""

    subscription: Subscription
    reason: str
    period_start: datetime
    period_end: datetime
    currency: str
    lines: tuple[ProposedLine, ...]

    @property
    def total(self) -> Decimal:
        return total_of(self.lines)


# -- what is due --------------------------------------------------------------------------------------------


def due_subscriptions(*, until: datetime) -> QuerySet[Subscription]:
    """Subscriptions with a period to close at `until`, or over with a late correction to bill. Parked ones wait."""
    cutoff = until - settings.LATENESS_WINDOW
    periods = BillingPeriod.objects.filter(subscription=OuterRef("pk"))
    reached = Backfill.objects.filter(
        seen_at__isnull=True,
        customer=OuterRef("subscription__customer"),
        first__lt=OuterRef("end"),
        last__gte=OuterRef("start"),
    )
    to_compare = periods.filter(closed_at__isnull=False).filter(Q(watch_until__lte=until) | Exists(reached))
    return Subscription.objects.filter(parked_at__isnull=True).filter(
        Exists(periods.filter(closed_at__isnull=True, end__lte=cutoff)) | (~Q(status__in=RUNNING) & Exists(to_compare))
    )


def watch_backfilled_periods(*, now: datetime) -> int:
    """Have every period that a backfill reached compared again with what was billed for it. Returns how many.

    The subscriptions' rows are locked first, as closing does: a closing that has already read its usage is waited for,
    and the period it has just closed is marked. That is why open periods are marked as well.
    """
    marked = 0
    with transaction.atomic():
        unseen = Backfill.objects.select_for_update(skip_locked=True).filter(seen_at__isnull=True)
        # A large import leaves many: one span a customer is enough, a period that is compared in vain costs little.
        spans: dict[int, tuple[datetime, datetime]] = {}
        seen = []
        for pk, customer, first, last in unseen.values_list("pk", "customer_id", "first", "last").iterator():
            known = spans.get(customer, (first, last))
            spans[customer] = (min(known[0], first), max(known[1], last))
            seen.append(pk)
        locked = Subscription.objects.select_for_update().filter(customer__in=spans).order_by("pk")
        list(locked.values_list("pk", flat=True))
        for customer, (first, last) in spans.items():
            marked += BillingPeriod.objects.filter(
                subscription__customer=customer, start__lte=last, end__gt=first
            ).update(watch_until=now)
        Backfill.objects.filter(pk__in=seen).update(seen_at=now)
    return marked


# -- what should be billed ----------------------------------------------------------------------------------


def usage_lines(
    subscription: Subscription, period: BillingPeriod, *, so_far: datetime | None = None
) -> list[ProposedLine]:
    """The usage of one period, rated: one line a charge, also where nothing was used.

    With `so_far`, a level (weighted_sum) has held until that instant and not yet until the period's end.
    """
    price = subscription.price
    charges = list(price.charges.select_related("meter"))
    used = {
        charge.meter_id: quantity(
            meter=charge.meter,
            customer=subscription.customer,
            start=period.start,
            end=_held_until(charge.meter, period, so_far),
        )
        for charge in charges
    }
    return [_usage_line(subscription, period, charge, used[charge.meter_id]) for charge in charges]


def _held_until(meter: Meter, period: BillingPeriod, so_far: datetime | None) -> datetime:
    if so_far is None or meter.aggregation != Aggregation.WEIGHTED_SUM:
        return period.end
    return max(period.start, min(period.end, so_far))


def _rate(period: BillingPeriod, charge: Charge, quantity: Decimal) -> RatedLine:
    rated = rate_per_unit(
        quantity=quantity, free_units=Decimal(charge.free_threshold), price_per_unit=charge.price_per_unit
    )
    return waive(rated, because="free during the trial") if period.is_trial else rated


def _usage_line(subscription: Subscription, period: BillingPeriod, charge: Charge, quantity: Decimal) -> ProposedLine:
    return propose_line(
        _rate(period, charge, quantity),
        kind=LineKind.USAGE,
        description=charge.meter.name,
        product=subscription.price.product,
        currency=subscription.price.currency,
        subscription=subscription,
        charge=charge,
        period_start=period.start,
        period_end=period.end,
    )


def adjustment_lines(subscription: Subscription, period: BillingPeriod) -> list[ProposedLine]:
    """What a closed period should have cost by now, minus what was billed for it: a line a charge that differs."""
    lines = []
    for should in usage_lines(subscription, period):
        billed = InvoiceLine.objects.filter(
            subscription=subscription,
            charge=should.charge,
            period_start=period.start,
            kind__in=[LineKind.USAGE, LineKind.ADJUSTMENT],
        ).aggregate(
            quantity=Sum("quantity"),
            billable=Sum("billable_units"),
            exact=Sum("exact_amount"),
            amount=Sum("amount"),
        )
        # Void lines count as billed: an invoice that was taken back is not billed again by itself.
        if billed["amount"] is not None and billed["amount"] != should.amount:
            lines.append(_adjustment(subscription, should, billed))
    return lines


def _adjustment(subscription: Subscription, should: ProposedLine, billed: dict[str, Decimal]) -> ProposedLine:
    currency = subscription.price.currency
    quantity = add(should.quantity, -billed["quantity"])
    amount = add(should.amount, -billed["amount"])
    text = (
        f"{format_units(should.quantity)} {should.measurement_unit} by now, which is "
        f"{format_amount(should.amount, currency)}; billed so far {format_units(billed['quantity'])} for "
        f"{format_amount(billed['amount'], currency)}: {format_amount(amount, currency)}"
    )
    return ProposedLine(
        kind=LineKind.ADJUSTMENT,
        description=f"{should.description}, adjustment",
        product=should.product,
        subscription=subscription,
        charge=should.charge,
        period_start=should.period_start,
        period_end=should.period_end,
        quantity=quantity,
        free_units=Decimal(0),
        billable_units=add(should.billable_units, -billed["billable"]),
        unit_price=should.unit_price,
        exact_amount=add(should.exact_amount, -billed["exact"]),
        amount=amount,
        measurement_unit=should.measurement_unit,
        explanation={
            "model": "adjustment",
            "should_quantity": should.explanation["quantity"],
            "should_amount": should.explanation["amount"],
            "billed_quantity": str(billed["quantity"]),
            "billed_amount": str(billed["amount"]),
            "amount": str(amount),
            "text": text,
        },
    )


def fee_refunds(subscription: Subscription) -> list[ProposedLine]:
    """Fees billed for periods that a cancellation kept from beginning (closed early, then cancelled), taken back."""
    if subscription.cancelled_at is None:
        return []
    billed = (
        InvoiceLine.objects.filter(subscription=subscription, charge__isnull=True, live=True)
        .filter(kind__in=[LineKind.FEE, LineKind.ADJUSTMENT], period_start__gte=subscription.cancelled_at)
        .values("period_start", "period_end")
        .annotate(amount=Sum("amount"))
        .order_by("period_start")
    )
    price = subscription.price
    lines = []
    for row in billed:
        if row["amount"] == 0:
            continue
        refund = rate_fee(quantity=Decimal(1), fee=-row["amount"])
        line = propose_line(
            refund,
            kind=LineKind.ADJUSTMENT,
            description=f"{price.product.name}, a period that did not begin",
            product=price.product,
            currency=price.currency,
            subscription=subscription,
            period_start=row["period_start"],
            period_end=row["period_end"],
        )
        lines.append(line)
    return lines


def _as_much_as_fits(lines: list[ProposedLine], corrections: Sequence[ProposedLine], currency: str) -> Decimal:
    """Add the corrections to the lines, and of credits as much as leaves the total at zero or above.

    Returns the credit that did not fit. It is not lost: the next proposal finds the same difference again, less what
    was credited here.
    """
    left = Decimal(0)
    # Charges first, so that credits find as much as possible to be taken from.
    for line in sorted(corrections, key=lambda correction: correction.amount < 0):
        room = -total_of(lines)
        if line.amount >= room:
            lines.append(line)
            continue
        left = add(left, line.amount, -room)
        if room < 0:
            text = (
                f"{line.explanation['text']}. Credited here: {format_amount(room, currency)}; the rest follows on the "
                "next invoice"
            )
            explanation = {**line.explanation, "amount": str(room), "text": text}
            lines.append(replace(line, amount=room, exact_amount=room, explanation=explanation))
    return left


# -- doing it -----------------------------------------------------------------------------------------------


def _close_all(
    subscription: Subscription, *, until: datetime, now: datetime, complete_as_of: datetime, run: BillingRun | None
) -> Iterator[tuple[ProposedInvoice, Invoice]]:
    """Close each period that is due, oldest first, and issue its invoice. The subscription row must be locked.

    Every event accepted before `complete_as_of` is visible: a period whose lateness window was over by then is complete
    and compared for the last time, any other stays watched.
    """
    advance(subscription, until=until)
    periods = list(subscription.periods.select_for_update().order_by("start"))
    _watch_unseen_backfills(subscription, periods, complete_as_of)
    by_start = {period.start: period for period in periods}
    cutoff = until - settings.LATENESS_WINDOW
    due = [period for period in periods if period.closed_at is None and period.end <= cutoff]
    for period in due:
        lines: list[ProposedLine] = []
        following = by_start.get(period.end)
        if following is not None and not following.is_trial and subscription.price.fixed_amount > 0:
            lines.append(fee_line(subscription, following))
        lines += usage_lines(subscription, period)
        _correct(subscription, lines, periods, complete_as_of)
        window_over = period.end + settings.LATENESS_WINDOW
        period.closed_at = now
        period.watch_until = window_over if complete_as_of < window_over else None
        period.save(update_fields=["closed_at", "watch_until"])
        # A period without a line sold nothing by meter and ends the subscription: there is nothing to print.
        if lines:
            yield _issue(subscription, InvoiceReason.CYCLE, period, lines, now=now, run=run)
    watched = [period for period in periods if period.closed_at is not None and period.watch_until is not None]
    if watched and not due and not subscription.is_running():
        lines = []
        left = _correct(subscription, lines, periods, complete_as_of)
        if lines:
            yield _issue(subscription, InvoiceReason.CORRECTION, watched[-1], lines, now=now, run=run)
        elif left:
            amount = format_amount(-left, subscription.price.currency)
            raise CreditOwed(
                f"{amount} too much was billed, and no further invoice is left to take it from. Give it back by hand, "
                "then try again: that counts it as settled."
            )
        elif any(period.watch_until is not None and period.watch_until <= complete_as_of for period in watched):
            # Parked, so that not every tick of the schedule begins a run for it.
            raise DomainError(
                "It cannot be compared with what was billed, because a month it needs has left the log. Restore the "
                "month, or try again to count it as settled."
            )


def _watch_unseen_backfills(subscription: Subscription, periods: Iterable[BillingPeriod], now: datetime) -> None:
    """Watch what a backfill reached that no run has looked at yet; in memory only, so that a preview does so too."""
    for backfill in Backfill.objects.filter(customer=subscription.customer_id, seen_at__isnull=True):
        for period in periods:
            if period.watch_until is None and period.start <= backfill.last and period.end > backfill.first:
                period.watch_until = now


def _correct(
    subscription: Subscription,
    lines: list[ProposedLine],
    periods: Iterable[BillingPeriod],
    complete_as_of: datetime,
) -> Decimal:
    """Add what earlier periods should have cost and were not billed; returns the credit that did not fit."""
    watched = [period for period in periods if period.closed_at is not None and period.watch_until is not None]
    found: list[ProposedLine] = []
    unreadable: set[int] = set()
    for period in watched:
        try:
            found += adjustment_lines(subscription, period)
        except MonthArchived as error:
            # It begins or ends inside an hour of a month that left the log, and a void or a backfill came beside it.
            # It stays watched, so that it is corrected once the month is restored; what is due goes on meanwhile.
            unreadable.add(period.pk)
            logger.warning("the closed period %s cannot be compared with what was billed: %s", period, error.message)
    left = _as_much_as_fits(lines, [*found, *fee_refunds(subscription)], subscription.price.currency)
    for period in watched:
        if period.pk in unreadable:
            continue
        if not left and period.watch_until is not None and period.watch_until <= complete_as_of:
            period.watch_until = None
            period.save(update_fields=["watch_until"])
    return left


def _issue(
    subscription: Subscription,
    reason: str,
    period: BillingPeriod,
    lines: list[ProposedLine],
    *,
    now: datetime,
    run: BillingRun | None,
) -> tuple[ProposedInvoice, Invoice]:
    currency = subscription.price.currency
    proposed = ProposedInvoice(subscription, reason, period.start, period.end, currency, tuple(lines))
    invoice = issue_invoice(
        customer=subscription.customer,
        subscription=subscription,
        reason=reason,
        currency=currency,
        lines=lines,
        period_start=period.start,
        period_end=period.end,
        now=now,
        run=run,
    )
    return proposed, invoice


def close_subscription(
    *,
    subscription_id: int,
    until: datetime,
    now: datetime,
    complete_as_of: datetime | None = None,
    run: BillingRun | None = None,
) -> list[Invoice]:
    """Close every period of one subscription that is due at `until`; all of it commits, or nothing.

    `complete_as_of` is an instant before which every accepted event is visible: read the clock, then call
    `wait_for_ingestion_in_flight`. Run twice, the second time finds nothing. Raises what billing raised; `work_run`
    parks.
    """
    with transaction.atomic():
        subscription = lock_subscription(subscription_id)
        if subscription is None or subscription.parked_at is not None:
            return []
        closings = _close_all(subscription, until=until, now=now, complete_as_of=complete_as_of or now, run=run)
        return [invoice for _, invoice in closings]


class _NothingSaved(Exception):
    """Rolls a preview back."""


def preview_subscription(*, subscription_id: int, until: datetime, now: datetime) -> list[ProposedInvoice]:
    """What `close_subscription` would issue: the same call, rolled back. The number it takes is given back too."""
    proposed: list[ProposedInvoice] = []
    try:
        with transaction.atomic():
            subscription = lock_subscription(subscription_id)
            if subscription is not None:
                closings = _close_all(subscription, until=until, now=now, complete_as_of=now, run=None)
                proposed = [proposal for proposal, _ in closings]
            raise _NothingSaved
    except _NothingSaved:
        return proposed


def preview_run(
    *,
    until: datetime,
    now: datetime,
    subscription_ids: Sequence[int] | None = None,
    on_failure: Callable[[int, str], None] | None = None,
) -> Iterator[ProposedInvoice]:
    """A dry run: what a billing run at `until` would issue, one subscription after the other.

    One that cannot be billed is told to `on_failure` (its primary key, and why) and the rest go on, as in a run.
    """
    check_until(until=until, now=now)
    for pk in _due_ids(until, subscription_ids):
        try:
            proposed = preview_subscription(subscription_id=pk, until=until, now=now)
        except (OperationalError, InterfaceError):
            raise
        except Exception as error:
            logger.exception("subscription %s cannot be previewed", pk)
            if on_failure is not None:
                on_failure(pk, reason_of(error))
            continue
        yield from proposed


def _due_ids(until: datetime, subscription_ids: Sequence[int] | None) -> list[int]:
    due = due_subscriptions(until=until).order_by("pk")
    if subscription_ids is not None:
        due = due.filter(pk__in=subscription_ids)
    return list(due.values_list("pk", flat=True))


def check_until(*, until: datetime, now: datetime) -> None:
    """Refuse an instant that can only be a typing error."""
    if until > now + FURTHEST_EARLY_CLOSING:
        raise DomainError(
            f"Billing may run at most {FURTHEST_EARLY_CLOSING.days} days ahead; {until.date()} is further."
        )
    if until < EARLIEST_BILLING:
        raise DomainError(f"Nothing was billed before {EARLIEST_BILLING.year}; {until.date()} is a typing error.")


def start_run(
    *,
    trigger: str,
    until: datetime,
    now: datetime,
    started_by: object | None = None,
    subscription_ids: Sequence[int] | None = None,
) -> BillingRun:
    """Write down what is due. `until` after now closes early: the periods stay watched for events yet to come."""
    check_until(until=until, now=now)
    watch_backfilled_periods(now=now)
    with transaction.atomic():
        run = BillingRun.objects.create(
            trigger=trigger,
            until=until,
            started_at=now,
            started_by=started_by,  # type: ignore[misc]
        )
        due = _due_ids(until, subscription_ids)
        RunItem.objects.bulk_create([RunItem(run=run, subscription_id=pk) for pk in due], batch_size=5000)
        if not due:
            run.finished_at = now
            run.save(update_fields=["finished_at"])
    return run


def start_scheduled_run(*, now: datetime) -> BillingRun | None:
    """The run of a beat tick; None where nothing is due or a scheduled run is still under way.

    Two ticks at once (two beats) make one run: the advisory lock lets only one of them look and write.
    """
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [SCHEDULED_RUN_LOCK])
        watch_backfilled_periods(now=now)
        if unfinished_runs().filter(trigger=RunTrigger.SCHEDULE).exists() or not due_subscriptions(until=now).exists():
            return None
        return start_run(trigger=RunTrigger.SCHEDULE, until=now, now=now)


def work_run(
    *,
    run: BillingRun,
    clock: Callable[[], datetime],
    limit: int | None = None,
    on_progress: Callable[[RunItem], None] | None = None,
) -> int:
    """Work on the run's pending items until none is left, or `limit` are done. Any number of workers may do so at once.

    Returns how many this call worked on. An unexpected state parks that one subscription with its reason; only a lost
    database ends the call.
    """
    worked = 0
    # In this order: every event accepted before this instant is visible once the wait is over.
    complete_as_of = clock()
    wait_for_ingestion_in_flight()
    while limit is None or worked < limit:
        item = _work_next(run, clock, complete_as_of)
        if item is None:
            break
        worked += 1
        if on_progress is not None:
            on_progress(item)
    finish_run(run=run, now=clock())
    return worked


def finish_run(*, run: BillingRun, now: datetime) -> None:
    """Close the book on a run none of whose items is pending any more."""
    pending = RunItem.objects.filter(run=OuterRef("pk"), outcome=RunOutcome.PENDING)
    BillingRun.objects.filter(pk=run.pk, finished_at__isnull=True).exclude(Exists(pending)).update(finished_at=now)


def unfinished_runs() -> QuerySet[BillingRun]:
    return BillingRun.objects.filter(finished_at__isnull=True)


def _work_next(run: BillingRun, clock: Callable[[], datetime], complete_as_of: datetime) -> RunItem | None:
    pending = RunItem.objects.filter(run=run, outcome=RunOutcome.PENDING)
    item: RunItem | None = None
    try:
        with transaction.atomic():
            item = pending.select_for_update(skip_locked=True).order_by("pk").first()
            if item is None:
                return None
            invoices = close_subscription(
                subscription_id=item.subscription_id,
                until=run.until,
                now=clock(),
                complete_as_of=complete_as_of,
                run=run,
            )
            _finish(item, RunOutcome.CLOSED if invoices else RunOutcome.NOTHING, "", clock())
    except (OperationalError, InterfaceError):
        raise  # the database went away or chose a deadlock's victim: nothing was done, the task is tried again
    except Exception as error:
        if item is None:
            raise
        logger.exception("subscription %s is parked", item.subscription_id)
        _park(item, error, clock())
    return item


def _finish(item: RunItem, outcome: str, reason: str, now: datetime) -> None:
    item.outcome, item.reason, item.finished_at = outcome, reason, now
    item.save(update_fields=["outcome", "reason", "finished_at"])


def _park(item: RunItem, error: Exception, now: datetime) -> None:
    with transaction.atomic():
        locked = RunItem.objects.select_for_update().get(pk=item.pk)
        if locked.outcome != RunOutcome.PENDING:
            return
        _finish(item, RunOutcome.PARKED, reason_of(error), now)
        park(subscription_id=item.subscription_id, error=error, now=now)


# -- what the running period costs --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RunningUsage:
    """The running period so far: its usage rated as closing will rate it, and its fee (billed already, in advance)."""

    period: BillingPeriod
    lines: tuple[ProposedLine, ...]
    fee: Decimal
    currency: str

    @property
    def total(self) -> Decimal:
        """What the usage costs so far, without the fee."""
        return total_of(self.lines)


def running_usage(*, subscription: Subscription, now: datetime) -> RunningUsage | None:
    """What the running (or last) period costs so far; None for a subscription that has no period."""
    period = current_period(subscription=subscription, now=now)
    if period is None:
        return None
    price = subscription.price
    fee = Decimal(0) if period.is_trial else price.fixed_amount * subscription.quantity
    return RunningUsage(period, tuple(usage_lines(subscription, period, so_far=now)), fee, price.currency)


@dataclass(frozen=True, slots=True)
class ChargeUsage:
    """One meter of one period: what was consumed, and what it came to."""

    charge: Charge
    consumed_units: Decimal
    chargeable_units: Decimal
    amount: Decimal


@dataclass(frozen=True, slots=True)
class PeriodUsage:
    """One period of the usage history. `invoice` is None while it runs."""

    period: BillingPeriod
    charges: tuple[ChargeUsage, ...]
    invoice: Invoice | None
    currency: str


def usage_history(
    *,
    subscription: Subscription,
    now: datetime,
    start: datetime | None = None,
    end: datetime | None = None,
    meter_id: str | None = None,
    offset: int = 0,
    limit: int | None = None,
) -> list[PeriodUsage]:
    """Periods with their usage, newest first, the running one first of all.

    Closed ones say what was billed (with later adjustments), the open one what it comes to so far. `start` and `end`
    (both inclusive) keep the periods that touch the span; `meter_id` keeps one meter.
    """
    periods = subscription.periods.order_by("-start")
    if start is not None:
        periods = periods.filter(end__gt=start)
    if end is not None:
        periods = periods.filter(start__lte=end)
    stop = None if limit is None else offset + limit
    return [_period_usage(subscription, period, meter_id, now) for period in periods[offset:stop]]


def _period_usage(
    subscription: Subscription, period: BillingPeriod, meter_id: str | None, now: datetime
) -> PeriodUsage:
    if period.is_closed() and (found := _billed_usage(subscription, period)):
        charges, invoice = found
    else:
        charges = [
            ChargeUsage(line.charge, line.quantity, line.billable_units, line.amount)
            for line in usage_lines(subscription, period, so_far=now)
            if line.charge is not None
        ]
        invoice = None
    if meter_id is not None:
        charges = [charge for charge in charges if charge.charge.meter.public_id == meter_id]
    return PeriodUsage(period, tuple(charges), invoice, subscription.price.currency)


def _billed_usage(subscription: Subscription, period: BillingPeriod) -> tuple[list[ChargeUsage], Invoice | None] | None:
    lines = list(
        InvoiceLine.objects.filter(
            subscription=subscription,
            period_start=period.start,
            kind__in=[LineKind.USAGE, LineKind.ADJUSTMENT],
        )
        .select_related("charge__meter", "invoice")
        .order_by("charge__position", "pk")
    )
    if not lines:
        return None
    charges: dict[int, ChargeUsage] = {}
    for line in lines:
        assert line.charge is not None, "usage is billed by charge"  # noqa: S101
        so_far = charges.get(line.charge.pk)
        charges[line.charge.pk] = ChargeUsage(
            line.charge,
            add(line.quantity, so_far.consumed_units if so_far else Decimal(0)),
            add(line.billable_units, so_far.chargeable_units if so_far else Decimal(0)),
            add(line.amount, so_far.amount if so_far else Decimal(0)),
        )
    return list(charges.values()), next((line.invoice for line in lines if line.kind == LineKind.USAGE), None)
