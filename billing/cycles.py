"""Closing: find what is due, propose what should be billed minus what was, and issue it, once.

One transaction a subscription. The row lock keeps two closers apart, the constraints `line_billed_once` and
`invoice_one_per_period` keep the promise even where the code would not, and a killed process leaves nothing behind.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
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
from billing.pricing import RatedLine, rate_per_unit, waive
from billing.subscriptions import advance, current_period, fee_line, lock_subscription
from customers.errors import DomainError
from meters.ingestion import wait_for_ingestion_in_flight
from meters.models import Backfill
from meters.usage import quantities

logger = logging.getLogger(__name__)

# How far ahead of now an operator may close periods early.
FURTHEST_EARLY_CLOSING = timedelta(days=400)
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
    return Subscription.objects.filter(parked_at__isnull=True).filter(
        Exists(periods.filter(closed_at__isnull=True, end__lte=cutoff))
        | (~Q(status__in=RUNNING) & Exists(periods.filter(closed_at__isnull=False, watch_until__lte=until)))
    )


def watch_backfilled_periods(*, now: datetime) -> int:
    """Have every period that a backfill reached compared again with what was billed for it. Returns how many.

    Open periods are marked as well: a closing that has already read its usage holds the row, so this waits for it and
    marks the period it has just closed.
    """
    marked = 0
    with transaction.atomic():
        seen = list(Backfill.objects.select_for_update(skip_locked=True).filter(seen_at__isnull=True))
        for backfill in seen:
            marked += BillingPeriod.objects.filter(
                subscription__customer=backfill.customer_id, start__lte=backfill.last, end__gt=backfill.first
            ).update(watch_until=now)
        Backfill.objects.filter(pk__in=[backfill.pk for backfill in seen]).update(seen_at=now)
    return marked


# -- what should be billed ----------------------------------------------------------------------------------


def usage_lines(subscription: Subscription, period: BillingPeriod) -> list[ProposedLine]:
    """The usage of one period, rated: one line a charge, also where nothing was used."""
    price = subscription.price
    charges = list(price.charges.select_related("meter"))
    used = quantities(
        meters=[charge.meter for charge in charges],
        customer=subscription.customer,
        start=period.start,
        end=period.end,
    )
    return [_usage_line(subscription, period, charge, used[charge.meter_id]) for charge in charges]


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
            live=True,
        ).aggregate(
            quantity=Sum("quantity"),
            billable=Sum("billable_units"),
            exact=Sum("exact_amount"),
            amount=Sum("amount"),
        )
        # Nothing live means the period's invoice was voided: billing it again is an operator's decision.
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


def _not_below_zero(
    lines: list[ProposedLine], corrections: Sequence[tuple[BillingPeriod, list[ProposedLine]]]
) -> tuple[list[ProposedLine], set[int]]:
    """Add the corrections that keep the total at zero or more. Returns the lines, and the periods still waiting:
    a credit larger than this invoice is offered again on the next one."""
    total, waiting = total_of(lines), set()
    # Charges first, so that credits find as much as possible to be taken from.
    every = [(period, line) for period, found in corrections for line in found]
    for period, line in sorted(every, key=lambda pair: pair[1].amount < 0):
        if add(total, line.amount) < 0:
            waiting.add(period.pk)
            continue
        total = add(total, line.amount)
        lines.append(line)
    return lines, waiting


def _proposals(
    subscription: Subscription, *, until: datetime, now: datetime
) -> Iterator[tuple[ProposedInvoice, BillingPeriod | None, list[BillingPeriod]]]:
    """Each invoice that is due, oldest first, with the period it closes and the watched periods it settles.

    The subscription row must be locked. The caller marks one as closed before asking for the next.
    """
    advance(subscription, until=until)
    periods = list(subscription.periods.select_for_update().order_by("start"))
    by_start = {period.start: period for period in periods}
    cutoff = until - settings.LATENESS_WINDOW
    due = [period for period in periods if period.closed_at is None and period.end <= cutoff]
    for period in due:
        lines: list[ProposedLine] = []
        following = by_start.get(period.end)
        if following is not None and not following.is_trial and subscription.price.fixed_amount > 0:
            lines.append(fee_line(subscription, following))
        lines += usage_lines(subscription, period)
        yield (
            _with_corrections(subscription, InvoiceReason.CYCLE, period, lines, periods, now=now),
            period,
            periods,
        )
    if not due and not subscription.is_running():
        watched = [period for period in periods if period.closed_at is not None and period.watch_until is not None]
        if watched:
            last = watched[-1]
            yield (
                _with_corrections(subscription, InvoiceReason.CORRECTION, last, [], periods, now=now),
                None,
                periods,
            )


def _with_corrections(
    subscription: Subscription,
    reason: str,
    period: BillingPeriod,
    lines: list[ProposedLine],
    periods: Iterable[BillingPeriod],
    *,
    now: datetime,
) -> ProposedInvoice:
    watched = [earlier for earlier in periods if earlier.closed_at is not None and earlier.watch_until is not None]
    corrections = [(earlier, adjustment_lines(subscription, earlier)) for earlier in watched]
    lines, waiting = _not_below_zero(lines, corrections)
    if waiting and reason == InvoiceReason.CORRECTION:
        raise CreditOwed(
            "Events that came late lower what was billed, and no further invoice is left to take it from: give the "
            "customer the difference by hand."
        )
    for earlier in watched:
        if earlier.pk not in waiting and earlier.watch_until is not None and earlier.watch_until <= now:
            earlier.watch_until = None
    return ProposedInvoice(
        subscription=subscription,
        reason=reason,
        period_start=period.start,
        period_end=period.end,
        currency=subscription.price.currency,
        lines=tuple(lines),
    )


# -- doing it -----------------------------------------------------------------------------------------------


def close_subscription(
    *, subscription_id: int, until: datetime, now: datetime, run: BillingRun | None = None
) -> list[Invoice]:
    """Close every period of one subscription that is due at `until`; all of it commits, or nothing.

    Call `wait_for_ingestion_in_flight` before, so that every event accepted for these periods is visible. Run twice,
    the second time finds nothing. Raises what billing raised; `work_run` parks.
    """
    invoices = []
    with transaction.atomic():
        subscription = lock_subscription(subscription_id)
        if subscription is None or subscription.parked_at is not None:
            return []
        for proposal, period, periods in _proposals(subscription, until=until, now=now):
            # A cycle without a line sold nothing by meter and ends the subscription: there is nothing to print.
            if proposal.lines:
                invoices.append(
                    issue_invoice(
                        customer=subscription.customer,
                        subscription=subscription,
                        reason=proposal.reason,
                        currency=proposal.currency,
                        lines=proposal.lines,
                        period_start=proposal.period_start,
                        period_end=proposal.period_end,
                        now=now,
                        run=run,
                    )
                )
            if period is not None:
                period.closed_at = now
                window_over = period.end + settings.LATENESS_WINDOW
                period.watch_until = window_over if now < window_over else None
            BillingPeriod.objects.bulk_update(periods, ["closed_at", "watch_until"])
    return invoices


class _NothingSaved(Exception):
    """Rolls a preview back."""


def preview_subscription(*, subscription_id: int, until: datetime, now: datetime) -> list[ProposedInvoice]:
    """What `close_subscription` would issue: the same call, rolled back."""
    proposed = []
    try:
        with transaction.atomic():
            watch_backfilled_periods(now=now)
            subscription = lock_subscription(subscription_id)
            if subscription is not None:
                for proposal, period, _ in _proposals(subscription, until=until, now=now):
                    if period is not None:
                        period.closed_at = now
                    if proposal.lines:
                        proposed.append(proposal)
            raise _NothingSaved
    except _NothingSaved:
        return proposed


def preview_run(
    *, until: datetime, now: datetime, subscription_ids: Sequence[int] | None = None
) -> Iterator[ProposedInvoice]:
    """A dry run: what a billing run at `until` would issue, one subscription after the other."""
    check_until(until=until, now=now)
    due: list[int] = []
    try:
        with transaction.atomic():
            watch_backfilled_periods(now=now)
            due = _due_ids(until, subscription_ids)
            raise _NothingSaved
    except _NothingSaved:
        pass
    for pk in due:
        yield from preview_subscription(subscription_id=pk, until=until, now=now)


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
    wait_for_ingestion_in_flight()
    while limit is None or worked < limit:
        item = _work_next(run, clock)
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


def _work_next(run: BillingRun, clock: Callable[[], datetime]) -> RunItem | None:
    pending = RunItem.objects.filter(run=run, outcome=RunOutcome.PENDING)
    item: RunItem | None = None
    try:
        with transaction.atomic():
            item = pending.select_for_update(skip_locked=True).order_by("pk").first()
            if item is None:
                return None
            invoices = close_subscription(subscription_id=item.subscription_id, until=run.until, now=clock(), run=run)
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
    reason = str(error) if isinstance(error, DomainError) else f"{type(error).__name__}: {error}"
    with transaction.atomic():
        locked = RunItem.objects.select_for_update().get(pk=item.pk)
        if locked.outcome != RunOutcome.PENDING:
            return
        _finish(item, RunOutcome.PARKED, reason, now)
        Subscription.objects.filter(pk=item.subscription_id).update(parked_at=now, parked_reason=reason)


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
    return RunningUsage(period, tuple(usage_lines(subscription, period)), fee, price.currency)


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
    return [_period_usage(subscription, period, meter_id) for period in periods[offset:stop]]


def _period_usage(subscription: Subscription, period: BillingPeriod, meter_id: str | None) -> PeriodUsage:
    if period.is_closed() and (found := _billed_usage(subscription, period)):
        charges, invoice = found
    else:
        charges = [
            ChargeUsage(line.charge, line.quantity, line.billable_units, line.amount)
            for line in usage_lines(subscription, period)
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
            live=True,
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
