"""The named questions that the start page and the lists ask. Each is one function; no template and no view queries."""

import zoneinfo
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from django.db import connection
from django.db.models import Count, Exists, F, Max, OuterRef, Q, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce, TruncDate

from billing.cycles import RunningUsage, running_usage
from billing.invoices import total_of
from billing.models import (
    BillingPeriod,
    BillingRun,
    Charge,
    CreditNote,
    Invoice,
    InvoiceLine,
    InvoiceStatus,
    LineKind,
    Price,
    Product,
    RunOutcome,
    Subscription,
)
from billing.money import add
from billing.proposals import UsageNotPriceable, adjustment_lines, corrections_of, usage_lines
from customers.models import ApiKey, Customer
from meters.models import Event, Meter

# The accrued amount rates every period that is not billed yet; beyond this many it would be too slow for a page.
MOST_ACCRUED = 200
ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class DayRange:
    """Whole days of a time zone, today included: [start, end)."""

    start: datetime
    end: datetime
    days: Sequence[date]


def last_days(*, now: datetime, count: int, time_zone: str, back: int = 0) -> DayRange:
    """The last `count` days, or the ones `back` days before them."""
    zone = zoneinfo.ZoneInfo(time_zone)
    last = now.astimezone(zone).date() - timedelta(days=back)
    days = [last - timedelta(days=n) for n in reversed(range(count))]
    return DayRange(
        datetime.combine(days[0], time(), zone), datetime.combine(last + timedelta(days=1), time(), zone), days
    )


def month_start(*, now: datetime, time_zone: str, back: int = 0) -> datetime:
    """Midnight of the first of this month, or of the month `back` months earlier."""
    zone = zoneinfo.ZoneInfo(time_zone)
    local = now.astimezone(zone)
    months = local.year * 12 + local.month - 1 - back
    return datetime(months // 12, months % 12 + 1, 1, tzinfo=zone)


# -- customers ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Balance:
    """What one customer owes and has paid, by currency in minor units; prepaid credit and the balance are no payment.

    Open and overdue are what invoices still ask for after their credit notes, of given-up ones too where said so.
    """

    open: Mapping[str, Decimal]
    overdue: Mapping[str, Decimal]
    uncollectible: Mapping[str, Decimal]
    paid: Mapping[str, Decimal]
    last_event_at: datetime | None


def customer_balance(*, customer: Customer, now: datetime) -> Balance:
    is_open, is_late = _open(now)
    owed = _owed(
        Invoice.objects.filter(customer=customer),
        open=is_open,
        overdue=is_late,
        uncollectible=Q(status=InvoiceStatus.UNCOLLECTIBLE),
        paid=Q(status=InvoiceStatus.PAID),
    )
    last = Event.objects.filter(customer=customer).aggregate(last=Max("timestamp"))["last"]
    return Balance(
        open=_amounts(owed, "open"),
        overdue=_amounts(owed, "overdue"),
        uncollectible=_amounts(owed, "uncollectible"),
        paid=_amounts(owed, "paid"),
        last_event_at=last,
    )


def _open(now: datetime) -> tuple[Q, Q]:
    """Which invoices wait for money, and which of them too long."""
    is_open = Q(status=InvoiceStatus.ISSUED)
    return is_open, is_open & Q(due_at__lt=now)


def _owed(invoices: QuerySet[Invoice], **which: Q) -> list[dict[str, Any]]:
    """By currency, what the invoices of each kind asked for, less the credit notes that took it off them.

    The same of many as billing.credit_notes.owed of one. A paid invoice was paid what this says of it.
    """
    noted = CreditNote.objects.filter(invoice=OuterRef("pk")).order_by().values("invoice")
    left = F("due") - Coalesce(Subquery(noted.annotate(all=Sum("to_invoice")).values("all")), ZERO)
    rows: Any = (
        invoices.order_by()
        .annotate(left=left)
        .values("currency")
        .annotate(**{name: Sum("left", filter=of) for name, of in which.items()})
    )
    return list(rows)


def _amounts(rows: Iterable[Mapping[str, object]], name: str) -> dict[str, Decimal]:
    return {str(row["currency"]): Decimal(str(row[name])) for row in rows if row[name]}


def _less(amounts: Mapping[str, Decimal], off: Mapping[str, Decimal]) -> dict[str, Decimal]:
    """The difference by currency, where there is any."""
    left = {name: add(amounts.get(name, ZERO), -off.get(name, ZERO)) for name in amounts.keys() | off.keys()}
    return {name: left[name] for name in sorted(left) if left[name]}


# -- money ----------------------------------------------------------------------------------------------------

# Invoices that were issued and are not made void.
_STANDING = [InvoiceStatus.ISSUED, InvoiceStatus.PAID, InvoiceStatus.UNCOLLECTIBLE]


@dataclass(frozen=True, slots=True)
class MoneyNow:
    """By currency, in minor units, tax included.

    "Invoiced" counts what was issued in the month and not made void, less the credit notes of the same month. Drafts
    are not invoiced. "Unpaid" and "overdue" are what is still asked for; given-up invoices stand apart.
    """

    invoiced_this_month: Mapping[str, Decimal]
    invoiced_last_month: Mapping[str, Decimal]
    unpaid: Mapping[str, Decimal]
    unpaid_count: int
    overdue: Mapping[str, Decimal]
    overdue_count: int
    uncollectible: Mapping[str, Decimal]
    uncollectible_count: int
    drafts: Mapping[str, Decimal]
    draft_count: int
    held_count: int


def money_now(*, now: datetime, time_zone: str) -> MoneyNow:
    this, last = (month_start(now=now, time_zone=time_zone, back=back) for back in (0, 1))
    in_this, in_last = Q(issued_at__gte=this), Q(issued_at__gte=last, issued_at__lt=this)
    is_open, is_late = _open(now)
    standing, given_up, draft = Q(status__in=_STANDING), Q(status=InvoiceStatus.UNCOLLECTIBLE), Q(status="draft")
    issued = list(
        Invoice.objects.order_by()
        .values("currency")
        .annotate(
            this_month=Sum("total", filter=standing & in_this),
            last_month=Sum("total", filter=standing & in_last),
            drafts=Sum("total", filter=draft),
            unpaid_count=Count("pk", filter=is_open),
            overdue_count=Count("pk", filter=is_late),
            uncollectible_count=Count("pk", filter=given_up),
            draft_count=Count("pk", filter=draft),
            held_count=Count("pk", filter=draft & Q(held_at__isnull=False)),
        )
    )
    # A credit note counts when it was given, so that the figures of an earlier month stay.
    noted = list(
        CreditNote.objects.order_by()
        .values("currency")
        .annotate(this_month=Sum("total", filter=in_this), last_month=Sum("total", filter=in_last))
    )
    owed = _owed(Invoice.objects.filter(is_open | given_up), unpaid=is_open, overdue=is_late, uncollectible=given_up)
    return MoneyNow(
        invoiced_this_month=_less(_amounts(issued, "this_month"), _amounts(noted, "this_month")),
        invoiced_last_month=_less(_amounts(issued, "last_month"), _amounts(noted, "last_month")),
        unpaid=_amounts(owed, "unpaid"),
        unpaid_count=sum(row["unpaid_count"] for row in issued),
        overdue=_amounts(owed, "overdue"),
        overdue_count=sum(row["overdue_count"] for row in issued),
        uncollectible=_amounts(owed, "uncollectible"),
        uncollectible_count=sum(row["uncollectible_count"] for row in issued),
        drafts=_amounts(issued, "drafts"),
        draft_count=sum(row["draft_count"] for row in issued),
        held_count=sum(row["held_count"] for row in issued),
    )


@dataclass(frozen=True, slots=True)
class UsageSoFar:
    """The running (or last) period of a subscription, and how much of its usage an invoice already asks for."""

    running: RunningUsage
    billed: Decimal
    # What the next invoice will ask for of this period's usage; below zero where it gives something back.
    unbilled: Decimal
    # The invoice that billed it; None also where that one is void.
    invoice: Invoice | None
    # Closed while it still runs: a billing run was told to bill ahead.
    is_early: bool
    # The period whose end brings the next invoice; None where none is open.
    next_period: BillingPeriod | None


def usage_so_far(*, subscription: Subscription, now: datetime) -> UsageSoFar | None:
    """What the period costs so far, split into billed and not billed; None for a subscription without a period."""
    running = running_usage(subscription=subscription, now=now)
    if running is None:
        return None
    period = running.period
    lines = _billed_lines(period) if period.is_closed() else []
    billed = add(*(line.amount for line in lines))
    return UsageSoFar(
        running=running,
        billed=billed,
        unbilled=_unbilled(subscription, period, running.total),
        invoice=next((line.invoice for line in lines if line.kind == LineKind.USAGE), None),
        is_early=period.is_closed() and period.end > now,
        next_period=subscription.periods.filter(closed_at__isnull=True).order_by("end").first(),
    )


def _billed_lines(period: BillingPeriod) -> list[InvoiceLine]:
    return list(
        InvoiceLine.objects.filter(
            subscription=period.subscription_id,
            period_start=period.start,
            kind__in=[LineKind.USAGE, LineKind.ADJUSTMENT, LineKind.COMMITMENT],
            live=True,
        )
        .select_related("invoice")
        .order_by("pk")
    )


def _unbilled(subscription: Subscription, period: BillingPeriod, total: Decimal) -> Decimal:
    """Of a closed period, what it still differs by from what was billed: nothing where a void invoice counts as it."""
    return total_of(adjustment_lines(subscription, period)) if period.is_closed() else total


def _accrued_of(subscription: Subscription, period: BillingPeriod, now: datetime) -> Decimal:
    if period.is_closed():
        # Of a month that has left the log nothing is known here; the page of corrections says so.
        return total_of(corrections_of(subscription, [period], refund=False).lines)
    return total_of(usage_lines(subscription, period, so_far=now))


@dataclass(frozen=True, slots=True)
class Accrued:
    """Usage that no invoice has billed yet. `complete` is False where there are too many periods to rate them all for
    a page; `unpriced` are subscriptions whose price says nothing of their usage, with the reason."""

    totals: Mapping[str, Decimal]
    by_subscription: Sequence[tuple[Subscription, Decimal, str]]
    complete: bool
    unpriced: Sequence[tuple[Subscription, str]] = ()


def accrued_unbilled(*, now: datetime) -> Accrued:
    """What the next closings will bill for usage, by subscription, highest first, rated as closing will rate it.

    That is every begun period that is not closed, be it running, waiting for late events, or of a subscription that
    was cancelled; and of a closed one that is still watched for later events, what came since it was billed.
    """
    waiting = list(
        BillingPeriod.objects.filter(start__lte=now)
        .filter(Q(closed_at__isnull=True) | Q(watch_until__isnull=False))
        .filter(Exists(Charge.objects.filter(price=OuterRef("subscription__price"))))
        .select_related("subscription__customer", "subscription__price__product")
        .order_by("pk")[: MOST_ACCRUED + 1]
    )
    amounts: dict[int, Decimal] = {}
    unpriced: dict[int, str] = {}
    subscriptions: dict[int, Subscription] = {}
    for period in waiting[:MOST_ACCRUED]:
        subscription = subscriptions.setdefault(period.subscription_id, period.subscription)
        try:
            unbilled = _accrued_of(subscription, period, now)
        except UsageNotPriceable as error:
            unpriced[subscription.pk] = error.message
            continue
        amounts[subscription.pk] = add(amounts.get(subscription.pk, Decimal(0)), unbilled)
    totals: dict[str, Decimal] = {}
    found: list[tuple[Subscription, Decimal, str]] = []
    for pk, amount in amounts.items():
        if amount:
            currency = subscriptions[pk].price.currency
            totals[currency] = add(totals.get(currency, Decimal(0)), amount)
            found.append((subscriptions[pk], amount, currency))
    found.sort(key=lambda entry: -entry[1])
    return Accrued(
        totals=totals,
        by_subscription=found,
        complete=len(waiting) <= MOST_ACCRUED,
        unpriced=[(subscriptions[pk], reason) for pk, reason in unpriced.items()],
    )


# -- events ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NameActivity:
    """The events of one name: by day, in the last 24 hours, and the latest."""

    by_day: Sequence[int]
    last_24_hours: int
    last_event_at: datetime | None


def activity_by_name(*, names: Sequence[str], now: datetime, days: DayRange, time_zone: str) -> dict[str, NameActivity]:
    """For each event name, its activity within `days`; one statement for all of them."""
    if not names:
        return {}
    zone = zoneinfo.ZoneInfo(time_zone)
    rows = (
        Event.objects.filter(event_name__in=set(names), timestamp__gte=days.start, timestamp__lt=days.end)
        .order_by()
        .annotate(on=TruncDate("timestamp", tzinfo=zone))
        .values("event_name", "on")
        .annotate(
            events=Count("id"),
            recent=Count("id", filter=Q(timestamp__gt=now - timedelta(hours=24), timestamp__lte=now)),
            latest=Max("timestamp"),
        )
    )
    counts: dict[str, dict[date, int]] = {name: {} for name in names}
    recent = dict.fromkeys(names, 0)
    latest: dict[str, datetime] = {}
    for row in rows:
        name = row["event_name"]
        counts[name][row["on"]] = row["events"]
        recent[name] += row["recent"]
        latest[name] = max(latest.get(name, row["latest"]), row["latest"])
    return {
        name: NameActivity([counts[name].get(day, 0) for day in days.days], recent[name], latest.get(name))
        for name in names
    }


def events_per_customer(*, start: datetime, end: datetime, limit: int) -> list[tuple[Customer, int]]:
    """The customers who sent most events, whatever the meter."""
    rows = list(
        Event.objects.filter(timestamp__gte=start, timestamp__lt=end)
        .order_by()
        .values("customer_id")
        .annotate(events=Count("id"))
        .order_by("-events", "customer_id")[:limit]
    )
    known = Customer.objects.in_bulk([row["customer_id"] for row in rows])
    return [(known[row["customer_id"]], row["events"]) for row in rows if row["customer_id"] in known]


# -- billing runs -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RunResult:
    """How far a run is and what came of it. Totals by currency, in minor units, tax included.

    `invoices` are those issued and not made void since; `drafts` still wait for review or for their time.
    """

    run: BillingRun
    due: int
    closed: int
    nothing: int
    parked: int
    pending: int
    invoices: int
    totals: Mapping[str, Decimal] = field(default_factory=dict)
    drafts: int = 0
    draft_totals: Mapping[str, Decimal] = field(default_factory=dict)

    @property
    def done(self) -> int:
        return self.due - self.pending

    @property
    def per_cent(self) -> int:
        return 100 if not self.due else self.done * 100 // self.due

    @property
    def state(self) -> str:
        if self.run.finished_at is None:
            return "running"
        if self.parked:
            return "parked"
        return "finished"


def run_results(*, runs: Sequence[BillingRun]) -> list[RunResult]:
    """The results of many runs in two statements."""
    ids = [run.pk for run in runs]
    items: dict[int, Any] = {
        row["pk"]: row
        for row in BillingRun.objects.filter(pk__in=ids)
        .order_by()
        .values("pk")
        .annotate(
            due=Count("items"),
            **{outcome: Count("items", filter=Q(items__outcome=outcome)) for outcome in RunOutcome.values},
        )
    }
    # By run and whether it is a draft: how many, and what they come to.
    invoices: dict[tuple[int, bool], tuple[int, dict[str, Decimal]]] = {}
    rows = (
        Invoice.objects.filter(run_id__in=ids)
        .exclude(status=InvoiceStatus.VOID)
        .order_by()
        .annotate(is_draft=Q(status=InvoiceStatus.DRAFT))
        .values("run_id", "is_draft", "currency")
        .annotate(count=Count("pk"), amount=Sum("total"))
    )
    for row in rows:
        count, totals = invoices.setdefault((row["run_id"], row["is_draft"]), (0, {}))
        totals[row["currency"]] = row["amount"]
        invoices[row["run_id"], row["is_draft"]] = (count + row["count"], totals)
    results = []
    for run in runs:
        counts: Any = items.get(run.pk, {})
        count, totals = invoices.get((run.pk, False), (0, {}))
        drafts, draft_totals = invoices.get((run.pk, True), (0, {}))
        results.append(
            RunResult(
                run=run,
                due=counts.get("due", 0),
                closed=counts.get(RunOutcome.CLOSED, 0),
                nothing=counts.get(RunOutcome.NOTHING, 0),
                parked=counts.get(RunOutcome.PARKED, 0),
                pending=counts.get(RunOutcome.PENDING, 0),
                invoices=count,
                totals=totals,
                drafts=drafts,
                draft_totals=draft_totals,
            )
        )
    return results


def latest_runs(*, limit: int) -> list[RunResult]:
    """The newest runs, oldest of them first, as a strip reads."""
    return run_results(runs=list(BillingRun.objects.order_by("-started_at", "-id")[:limit])[::-1])


# -- what needs a person ----------------------------------------------------------------------------------------


def parked_subscriptions() -> int:
    return Subscription.objects.filter(parked_at__isnull=False).count()


def overdue_invoices(*, now: datetime) -> int:
    return Invoice.objects.filter(status=InvoiceStatus.ISSUED, due_at__lt=now).count()


def longest_waiting_period(*, now: datetime, lateness: timedelta) -> datetime | None:
    """Since when the oldest period that could be closed has waited; None where none waits. Parked ones do not count."""
    found = (
        BillingPeriod.objects.filter(
            closed_at__isnull=True, end__lte=now - lateness, subscription__parked_at__isnull=True
        )
        .order_by("end")
        .values_list("end", flat=True)
        .first()
    )
    return None if found is None else found + lateness


# -- first steps --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FirstSteps:
    """What a new installation has already."""

    meter: Meter | None
    product: Product | None
    subscription: Subscription | None
    key: bool
    events: bool
    invoice: bool

    @property
    def done(self) -> int:
        return sum(
            bool(step) for step in (self.meter, self.product, self.subscription, self.key and self.events, self.invoice)
        )


def first_steps() -> FirstSteps:
    """The newest of each thing that the quick start makes. An invoice counts only once it bills usage or was issued."""
    with connection.cursor() as cursor:
        # The log has partitions without number; the first row of any answers at once.
        cursor.execute("SELECT EXISTS (SELECT 1 FROM meters_event LIMIT 1)")
        (events,) = cursor.fetchone()
    metered = Price.objects.filter(product=OuterRef("pk"))
    return FirstSteps(
        meter=Meter.objects.filter(archived_at__isnull=True).order_by("-pk").first(),
        product=Product.objects.filter(Exists(metered), archived_at__isnull=True).order_by("-pk").first(),
        subscription=Subscription.objects.select_related("customer", "price__product").order_by("-pk").first(),
        key=ApiKey.objects.filter(revoked_at__isnull=True).exists(),
        events=bool(events),
        invoice=Invoice.objects.exclude(status=InvoiceStatus.DRAFT).exists(),
    )
