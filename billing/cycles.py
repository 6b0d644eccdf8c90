"""Closing: find what is due, bill what billing.proposals proposes for it, once; drafts, and invoices made anew.

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
from django.db.models import Exists, OuterRef, Q, QuerySet

from billing.corrections import apply_corrections, count_anew, reached_by_backfill
from billing.credits import lock_holdings
from billing.invoices import (
    InvoiceNotDraft,
    InvoiceNotVoidable,
    ProposedLine,
    add_lines,
    address_for,
    draft_invoice,
    drafts_to_issue,
    hold_invoice,
    issue_draft,
    issue_invoice,
    settle_draft,
    total_of,
    void_invoice,
)
from billing.models import (
    BillingPeriod,
    BillingProfile,
    BillingRun,
    Charge,
    Invoice,
    InvoiceLine,
    InvoiceReason,
    InvoiceStatus,
    LineKind,
    RunItem,
    RunOutcome,
    RunTrigger,
    Subscription,
)
from billing.models.subscriptions import RUNNING
from billing.money import add
from billing.profiles import profile_of
from billing.proposals import corrections_of, fee_of, propose, refunds, usage_lines
from billing.subscriptions import advance, current_period, lock_subscription, park, reason_of
from customers.errors import DomainError
from meters.evidence import IngestionBusy
from meters.ingestion import wait_for_ingestion_in_flight
from meters.models import Backfill

logger = logging.getLogger(__name__)

# How far ahead of now an operator may close periods early.
FURTHEST_EARLY_CLOSING = timedelta(days=400)
EARLIEST_BILLING = datetime(1900, 1, 1, tzinfo=UTC)
# The advisory lock of scheduled runs: any number, the same in every process.
SCHEDULED_RUN_LOCK = 0x6D62_0002


@dataclass(frozen=True, slots=True)
class Settlement:
    """What an invoice comes to as it would be settled now: after prepaid credit and tax, and what the balance pays.

    A draft says so: it is settled again when it is issued, and only then takes from the balance.
    """

    subtotal: Decimal
    credit: Decimal
    tax: Decimal
    total: Decimal
    balance: Decimal
    is_draft: bool

    @property
    def due(self) -> Decimal:
        return add(self.total, -self.balance)

    @property
    def tax_added(self) -> Decimal:
        """The part of the tax that is not included in the prices."""
        return add(self.total, self.credit, -self.subtotal)

    @classmethod
    def of(cls, invoice: Invoice) -> "Settlement":
        return cls(
            subtotal=invoice.subtotal,
            credit=invoice.credit,
            tax=invoice.tax,
            total=invoice.total,
            balance=invoice.balance,
            is_draft=invoice.status == InvoiceStatus.DRAFT,
        )


@dataclass(frozen=True, slots=True)
class ProposedInvoice:
    """What closing would issue: the difference between what should have been billed and what was."""

    subscription: Subscription
    reason: str
    period_start: datetime
    period_end: datetime
    currency: str
    lines: tuple[ProposedLine, ...]
    # Known to a preview, which issues it and takes that back.
    settled: Settlement | None = None

    @property
    def total(self) -> Decimal:
        """What the lines cost together, before credit and tax."""
        return total_of(self.lines)


# -- what is due --------------------------------------------------------------------------------------------


def due_subscriptions(*, until: datetime) -> QuerySet[Subscription]:
    """Subscriptions with a period to close at `until`, or over with a late correction to bill. Parked ones wait."""
    cutoff = until - settings.LATENESS_WINDOW
    periods = BillingPeriod.objects.filter(subscription=OuterRef("pk"))
    to_compare = periods.filter(closed_at__isnull=False).filter(Q(watch_until__lte=until) | reached_by_backfill())
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


# -- doing it -----------------------------------------------------------------------------------------------


def _close_all(
    subscription: Subscription,
    *,
    until: datetime,
    now: datetime,
    complete_as_of: datetime,
    run: BillingRun | None,
    prove: bool = True,
) -> Iterator[tuple[ProposedInvoice, Invoice]]:
    """Close each period that is due, oldest first, and bill it. The subscription row must be locked.

    Every event accepted before `complete_as_of` is visible: a period whose lateness window was over by then is complete
    and compared for the last time, any other stays watched.
    """
    lock_holdings(customer=subscription.customer, currency=subscription.price.currency)
    advance(subscription, until=until)
    unseen = list(Backfill.objects.filter(customer=subscription.customer_id, seen_at__isnull=True))
    periods = _to_look_at(subscription, unseen)
    _watch(periods, unseen, complete_as_of)
    cutoff = until - settings.LATENESS_WINDOW
    due = [period for period in periods if period.closed_at is None and period.end <= cutoff]
    for period in due:
        lines = propose(subscription, periods=[period], fees_until=period.end, prove=prove)
        lines += _corrected(subscription, periods, now=now, complete_as_of=complete_as_of, prove=prove)
        window_over = period.end + settings.LATENESS_WINDOW
        period.closed_at = now
        period.watch_until = window_over if complete_as_of < window_over else None
        period.save(update_fields=["closed_at", "watch_until"])
        # A period without a line sold nothing by meter and ends the subscription: there is nothing to print.
        if lines:
            yield _bill(subscription, InvoiceReason.CYCLE, period, lines, now=now, run=run)
    watched = _watched(periods)
    if watched and not due and not subscription.is_running():
        lines = _corrected(subscription, periods, now=now, complete_as_of=complete_as_of, prove=prove)
        if lines:
            yield _bill(subscription, InvoiceReason.CORRECTION, watched[-1], lines, now=now, run=run)
        elif any(period.watch_until <= complete_as_of for period in _watched(periods) if period.watch_until):
            # Parked, so that not every tick of the schedule begins a run for it.
            raise DomainError(
                "It cannot be compared with what was billed, because a month it needs has left the log. Restore the "
                "month, or try again to count it as settled."
            )


def _watched(periods: Iterable[BillingPeriod]) -> list[BillingPeriod]:
    return [period for period in periods if period.closed_at is not None and period.watch_until is not None]


def _to_look_at(subscription: Subscription, unseen: Sequence[Backfill]) -> list[BillingPeriod]:
    """The periods that may have something to bill, oldest first, locked: not all that were ever settled."""
    wanted = Q(closed_at__isnull=True) | Q(watch_until__isnull=False)
    if unseen:
        wanted |= Q(start__lte=max(one.last for one in unseen), end__gt=min(one.first for one in unseen))
    return list(subscription.periods.select_for_update().filter(wanted).order_by("start"))


def _watch(periods: Iterable[BillingPeriod], unseen: Iterable[Backfill], now: datetime) -> None:
    """Watch what a backfill reached that no run has looked at yet; in memory only, so that a preview does so too."""
    for backfill in unseen:
        for period in periods:
            if period.watch_until is None and period.start <= backfill.last and period.end > backfill.first:
                period.watch_until = now


def _corrected(
    subscription: Subscription,
    periods: Iterable[BillingPeriod],
    *,
    now: datetime,
    complete_as_of: datetime,
    prove: bool,
) -> list[ProposedLine]:
    """What earlier periods should have cost and were not billed, as the product wants it: the lines to bill.

    A credit note is given, and what is ignored is recorded, here and now. A period that is still a draft is left to it,
    and need not be watched for that: the draft follows the usage until it is issued.
    """
    if not _watched(periods) and subscription.cancelled_at is None:
        return []
    in_draft = set(
        InvoiceLine.objects.filter(subscription=subscription, invoice__status=InvoiceStatus.DRAFT)
        .exclude(kind=LineKind.FEE)
        .values_list("period_start", flat=True)
    )
    watched = [period for period in _watched(periods) if period.start not in in_draft]
    found = corrections_of(subscription, watched, prove=prove)
    for period in _watched(periods):
        if period.pk not in found.unreadable and period.watch_until and period.watch_until <= complete_as_of:
            period.watch_until = None
            period.save(update_fields=["watch_until"])
    return apply_corrections(subscription, found.lines, periods=watched, now=now)


def _bill(
    subscription: Subscription,
    reason: str,
    period: BillingPeriod,
    lines: list[ProposedLine],
    *,
    now: datetime,
    run: BillingRun | None,
) -> tuple[ProposedInvoice, Invoice]:
    """Issue the lines, or put them into a draft where the customer's invoices are reviewed or combined."""
    currency = subscription.price.currency
    customer = subscription.customer
    proposed = ProposedInvoice(subscription, reason, period.start, period.end, currency, tuple(lines))
    profile = profile_of(customer)
    grace = settings.INVOICE_GRACE if profile.grace_hours is None else timedelta(hours=profile.grace_hours)
    # One that others of the same run may still join is issued when the run is done.
    joinable = profile.combine_invoices and run is not None
    at_once = not grace and not profile.needs_approval and not joinable
    invoice = _combined_draft(subscription, run) if profile.combine_invoices else None
    if invoice is None:
        invoice = draft_invoice(
            customer=customer,
            subscription=None if profile.combine_invoices else subscription,
            reason=reason,
            currency=currency,
            lines=lines,
            period_start=period.start,
            period_end=period.end,
            now=now,
            run=run,
            issue_at=now + grace,
            settle=not at_once,
        )
        if profile.needs_approval:
            hold_invoice(invoice=invoice, reason="Waits for approval.", now=now)
    else:
        add_lines(invoice=invoice, lines=lines, now=now)
        _widen(invoice, period)
        if profile.needs_approval and invoice.held_at is None:
            hold_invoice(invoice=invoice, reason="More was added: it waits for approval again.", now=now)
    if at_once:
        issue_draft(invoice=invoice, now=now)
    return proposed, invoice


def _combined_draft(subscription: Subscription, run: BillingRun | None) -> Invoice | None:
    """The draft of this run that the customer's subscriptions share, of one currency and one billing address.

    Whoever looks holds the customer's profile, so that two workers do not both begin one.
    """
    customer = subscription.customer
    BillingProfile.objects.select_for_update().get(customer=customer)
    if run is None:
        return None
    return (
        Invoice.objects.select_for_update()
        .filter(
            customer=customer,
            currency=subscription.price.currency,
            customer_address=address_for(customer, subscription),
            run=run,
            subscription__isnull=True,
            status=InvoiceStatus.DRAFT,
            reason=InvoiceReason.CYCLE,
        )
        .first()
    )


def _widen(invoice: Invoice, period: BillingPeriod) -> None:
    """Let the invoice's period cover this one too."""
    invoice.period_start = min(invoice.period_start or period.start, period.start)
    invoice.period_end = max(invoice.period_end or period.end, period.end)
    invoice.save(update_fields=["period_start", "period_end"])


# -- drafts, and invoices made anew ---------------------------------------------------------------------------


def issue_due_drafts(*, clock: Callable[[], datetime]) -> int:
    """Issue each draft whose time has come, with the usage as it is then. Returns how many.

    One that cannot be issued is held with the reason, and the rest go on.
    """
    issued = 0
    for pk in list(drafts_to_issue(now=clock()).order_by("pk").values_list("pk", flat=True)):
        try:
            with transaction.atomic():
                issued += _issue_due_draft(pk, clock())
        except (OperationalError, InterfaceError):
            raise
        except Exception as error:
            logger.exception("the draft %s is held", pk)
            draft = Invoice.objects.filter(pk=pk, status=InvoiceStatus.DRAFT).first()
            if draft is not None:
                hold_invoice(invoice=draft, reason=reason_of(error), now=clock())
    return issued


def _issue_due_draft(pk: int, now: datetime) -> bool:
    subscriptions = _lock_subscriptions_of(pk)
    invoice = drafts_to_issue(now=now).select_for_update(of=("self",), skip_locked=True).filter(pk=pk).first()
    if invoice is None:
        return False
    _refresh(invoice, subscriptions, now)
    if not invoice.lines.exists():
        # The difference it was to bill has gone: a number is for what is printed.
        invoice.delete()
        return False
    issue_draft(invoice=invoice, now=now)
    return True


@transaction.atomic
def issue_now(*, invoice: Invoice, now: datetime) -> None:
    """Issue a draft before its time, with the usage as it is now."""
    subscriptions = _lock_subscriptions_of(invoice.pk)
    row = Invoice.objects.select_for_update().get(pk=invoice.pk)
    if row.status == InvoiceStatus.DRAFT and row.held_at is None:
        _refresh(row, subscriptions, now)
        if not row.lines.exists():
            raise DomainError("Nothing is left to bill of this draft; it goes when its time comes.")
    issue_draft(invoice=row, now=now)
    invoice.refresh_from_db()


@transaction.atomic
def refresh_draft(*, invoice: Invoice, now: datetime) -> None:
    """Make the draft's lines anew from the usage as it is now."""
    subscriptions = _lock_subscriptions_of(invoice.pk)
    row = Invoice.objects.select_for_update().get(pk=invoice.pk)
    if row.status != InvoiceStatus.DRAFT:
        raise InvoiceNotDraft(f"{row} is {row.get_status_display().lower()} and no draft any more.")
    _refresh(row, subscriptions, now)
    invoice.refresh_from_db()


def _lock_subscriptions_of(invoice_id: int) -> list[Subscription]:
    """The subscriptions on the invoice, locked in a fixed order, and the customer's money, before the invoice is: as
    closing does."""
    found = (
        InvoiceLine.objects.filter(invoice=invoice_id, subscription__isnull=False)
        .order_by("subscription")
        .values_list("subscription", flat=True)
        .distinct()
    )
    locked = [lock_subscription(pk) for pk in sorted(set(found))]
    invoice = Invoice.objects.select_related("customer").get(pk=invoice_id)
    lock_holdings(customer=invoice.customer, currency=invoice.currency)
    return [subscription for subscription in locked if subscription is not None]


def _refresh(invoice: Invoice, subscriptions: Sequence[Subscription], now: datetime) -> None:
    if not subscriptions:
        settle_draft(invoice=invoice, now=now)
        return
    # Only theirs: another of the run may have joined while these were locked, and its lines are new.
    lines_of_these = invoice.lines.filter(subscription__in=subscriptions)
    were = list(lines_of_these.order_by("position"))
    lines_of_these.delete()
    lines = [line for subscription in subscriptions for line in _bill_again(subscription, were)]
    add_lines(invoice=invoice, lines=lines, now=now)


def _bill_again(subscription: Subscription, were: Sequence[InvoiceLine]) -> list[ProposedLine]:
    """What these lines, which count no more, were for, proposed anew by what is known now."""
    mine = [line for line in were if line.subscription_id == subscription.pk]
    starts = [(line, line.period_start) for line in mine if line.period_start is not None]
    fees = [start for line, start in starts if LineKind.FEE in (line.kind, line.adjusts)]
    touched = {start for line, start in starts if LineKind.FEE not in (line.kind, line.adjusts)}
    periods = subscription.periods.filter(start__in=touched, closed_at__isnull=False).order_by("start")
    lines = propose(subscription, periods=periods, fees_until=max(fees) if fees else None, prove=True)
    return lines + refunds(subscription)


@transaction.atomic
def regenerate_invoice(*, invoice: Invoice, reason: str, now: datetime) -> Invoice:
    """Make an invoice void, and bill what it billed anew, by the usage and the terms as they are now.

    `InvoiceNotVoidable` where it cannot be taken back, or where nothing is left to bill.
    """
    subscriptions = _lock_subscriptions_of(invoice.pk)
    if not subscriptions:
        raise InvoiceNotVoidable(f"{invoice} bills no subscription: void it, and charge the customer again.")
    void_invoice(invoice=invoice, reason=reason, now=now, bill_again=True)
    were = list(invoice.lines.order_by("position"))
    for subscription in subscriptions:
        whole = [line for line in were if line.kind in (LineKind.USAGE, LineKind.COMMITMENT)]
        starts = {line.period_start for line in whole if line.subscription_id == subscription.pk}
        count_anew(subscription, starts, now=now)
    lines = [line for subscription in subscriptions for line in _bill_again(subscription, were)]
    if not lines:
        raise InvoiceNotVoidable(f"Nothing is left to bill of {invoice}: void it instead.")
    return issue_invoice(
        customer=invoice.customer,
        subscription=invoice.subscription,
        reason=invoice.reason,
        currency=invoice.currency,
        lines=lines,
        period_start=invoice.period_start,
        period_end=invoice.period_end,
        now=now,
        run=invoice.run,
        replaces=invoice,
    )


# -- one subscription ---------------------------------------------------------------------------------------


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
                closings = _close_all(subscription, until=until, now=now, complete_as_of=now, run=None, prove=False)
                proposed = [replace(proposal, settled=Settlement.of(invoice)) for proposal, invoice in closings]
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
    finished = (
        BillingRun.objects.filter(pk=run.pk, finished_at__isnull=True).exclude(Exists(pending)).update(finished_at=now)
    )
    if finished:
        # What waited for others of the run to join it.
        issue_due_drafts(clock=lambda: now)


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
    except (OperationalError, InterfaceError, IngestionBusy):
        # The database went away or chose a deadlock's victim, or a batch of events takes long to be stored: nothing was
        # done, nothing is wrong with this subscription, and the task is tried again.
        raise
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
    fee = fee_of(subscription, period)
    return RunningUsage(period, tuple(usage_lines(subscription, period, so_far=now)), fee, price.currency)


@dataclass(frozen=True, slots=True)
class ChargeUsage:
    """One meter of one period: what was consumed, and what it came to. `texts` say how, a sentence a line."""

    charge: Charge
    consumed_units: Decimal
    free_units: Decimal
    chargeable_units: Decimal
    amount: Decimal
    texts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PeriodUsage:
    """One period of the usage history. `invoice` is None while it runs."""

    period: BillingPeriod
    charges: tuple[ChargeUsage, ...]
    # What was billed to fill a commitment up.
    commitment: Decimal
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
        charges, commitment, invoice = found
    else:
        charges = [
            ChargeUsage(
                line.charge,
                line.quantity,
                line.free_units,
                line.billable_units,
                line.amount,
                (line.explanation["text"],),
            )
            for line in usage_lines(subscription, period, so_far=now)
            if line.charge is not None
        ]
        commitment, invoice = Decimal(0), None
    if meter_id is not None:
        charges = [charge for charge in charges if charge.charge.meter.public_id == meter_id]
    return PeriodUsage(period, tuple(charges), commitment, invoice, subscription.price.currency)


def _billed_usage(
    subscription: Subscription, period: BillingPeriod
) -> tuple[list[ChargeUsage], Decimal, Invoice | None] | None:
    lines = list(
        InvoiceLine.objects.filter(
            subscription=subscription,
            period_start=period.start,
            counts=True,
        )
        .filter(
            Q(kind__in=[LineKind.USAGE, LineKind.ADJUSTMENT], charge__isnull=False)
            | Q(kind=LineKind.COMMITMENT)
            | Q(adjusts=LineKind.COMMITMENT)
        )
        .select_related("charge__meter", "invoice")
        .order_by("charge__position", "pk")
    )
    if not lines:
        return None
    charges: dict[int, ChargeUsage] = {}
    commitment = Decimal(0)
    for line in lines:
        if line.charge is None:
            commitment = add(commitment, line.amount)
            continue
        so_far = charges.get(line.charge.pk)
        charges[line.charge.pk] = ChargeUsage(
            line.charge,
            add(line.quantity, so_far.consumed_units if so_far else Decimal(0)),
            add(line.free_units, so_far.free_units if so_far else Decimal(0)),
            add(line.billable_units, so_far.chargeable_units if so_far else Decimal(0)),
            add(line.amount, so_far.amount if so_far else Decimal(0)),
            (*(so_far.texts if so_far else ()), str(line.explanation.get("text", ""))),
        )
    # A draft is no invoice yet for whoever asks what was billed.
    issued = (line.invoice for line in lines if line.kind == LineKind.USAGE and line.invoice.number is not None)
    return list(charges.values()), commitment, next(issued, None)
