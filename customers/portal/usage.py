"""What a customer's usage pages say: amounts and quantities in words, made from billing's own numbers.

Nothing is rated here. The running period comes from `usage_so_far`, which rates as closing will; earlier ones from
`usage_history`, which says what was billed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from django.conf import settings

from billing.credits import credit_of
from billing.cycles import PeriodUsage, usage_history
from billing.documents import day_in_words, span_in_words
from billing.invoices import ProposedLine
from billing.models import (
    BillingPeriod,
    Covers,
    Invoice,
    InvoiceLine,
    InvoiceStatus,
    LineKind,
    Subscription,
    SubscriptionStatus,
)
from billing.money import add, format_amount, format_unit_price, format_units, plain
from billing.proposals import fee_beginning
from billing.reports import usage_so_far
from billing.taxes import tax_for
from customers.models import Customer
from customers.portal.charts import DayChart, DayValue, day_chart, percent
from meters.models import Aggregation, Meter
from meters.partitions import MonthArchived
from meters.usage import daily_quantities, quantity

# A year by day is no chart any more; the table and the CSV have every day.
MOST_DAYS = 92

_BY_DAY = {
    Aggregation.COUNT: "{unit} by day",
    Aggregation.SUM: "{unit} by day",
    Aggregation.MAX: "Highest {unit} of each day",
    Aggregation.LAST: "Last {unit} of each day",
    Aggregation.UNIQUE: "Different {unit} by day",
    Aggregation.MIN: "Lowest {unit} of each day",
    Aggregation.AVG: "Average {unit} of each day",
    Aggregation.WEIGHTED_SUM: "{unit} by day",
}
_STATUS_WORDS = {
    SubscriptionStatus.PENDING: "Pending",
    SubscriptionStatus.ACTIVE: "Active",
    SubscriptionStatus.ON_HOLD: "On hold",
    SubscriptionStatus.PAUSED: "Paused",
    SubscriptionStatus.CANCELLED: "Cancelled",
    SubscriptionStatus.FAILED: "Failed",
    SubscriptionStatus.EXPIRED: "Expired",
    SubscriptionStatus.PAST_DUE: "Payment overdue",
}


@dataclass(frozen=True, slots=True)
class MeterView:
    """One meter of the running period."""

    name: str
    unit: str
    quantity: str
    sentence: str
    cost: str
    free_share: str
    charged_share: str
    has_threshold: bool
    used_up: bool
    chart: DayChart | None
    # Unique on the page, for the names that the chart is labelled by.
    chart_id: str


@dataclass(frozen=True, slots=True)
class PlanView:
    """A subscription with its running period, money first."""

    subscription_id: str
    name: str
    status: str
    status_word: str
    running: bool
    closed: bool
    # Closed while it still runs; then the invoice that billed it (empty where that one was withdrawn), and what came
    # since is all that the next invoice asks for.
    billed_early: bool
    early_invoice_id: str
    early_invoice_number: str
    not_billed_yet: str
    period_id: int
    period: str
    period_share: str
    days_left: str
    usage_so_far: str
    next_fee: str
    next_total: str
    next_invoice_on: str
    # What the plan costs at least, and what the next invoice does not show yet; empty where there is neither.
    at_least: str
    before: str
    is_trial: bool
    ending: str
    meters: tuple[MeterView, ...]
    time_zone: str
    as_of: str


@dataclass(frozen=True, slots=True)
class HistoryLine:
    name: str
    unit: str
    quantity: str
    free: str
    charged: str
    unit_price: str
    amount: str
    # How it comes about, where no single price per unit says it.
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HistoryView:
    """An earlier period."""

    period_id: int
    period: str
    total: str
    lines: tuple[HistoryLine, ...]
    # What was added to reach the plan's commitment; empty where nothing was.
    commitment: str
    invoice_id: str
    invoice_number: str


def plan_view(*, subscription: Subscription, now: datetime) -> PlanView | None:
    """The running (or last) period of a subscription; None where it has none yet."""
    so_far = usage_so_far(subscription=subscription, now=now)
    if so_far is None:
        return None
    zone = ZoneInfo(subscription.time_zone)
    running, early = so_far.running, so_far.invoice if so_far.is_early else None
    period = running.period
    billed_next = (so_far.next_period or period) if so_far.is_early else period
    fee = _next_fee(subscription, billed_next)

    def money(minor: Decimal) -> str:
        return format_amount(minor, running.currency)

    return PlanView(
        subscription_id=subscription.public_id,
        name=subscription.price.product.name,
        status=subscription.status,
        status_word=_STATUS_WORDS[SubscriptionStatus(subscription.status)],
        running=period.start <= now < period.end and subscription.is_running(),
        closed=period.is_closed(),
        billed_early=so_far.is_early,
        early_invoice_id=early.public_id if early else "",
        early_invoice_number=(early.number or "") if early else "",
        not_billed_yet=money(so_far.unbilled),
        period_id=period.pk,
        period=span_in_words(period.start, period.end, zone),
        period_share=percent(_seconds(min(now, period.end) - period.start), _seconds(period.end - period.start)),
        days_left=_days_left(period.end, now, zone),
        usage_so_far=money(running.total),
        next_fee=money(fee) if fee else "",
        next_total=money(add(so_far.unbilled, fee)),
        at_least=_at_least(subscription, period),
        before=_before(subscription, now),
        next_invoice_on=day_in_words(billed_next.end, zone),
        is_trial=period.is_trial,
        ending=_ending(subscription, zone),
        meters=tuple(_meter_view(subscription, period, line, now) for line in running.lines),
        time_zone=subscription.time_zone,
        as_of=f"{day_in_words(now, zone)}, {now.astimezone(zone):%H:%M}",
    )


def history_views(*, subscription: Subscription, now: datetime, offset: int, limit: int) -> list[HistoryView]:
    """Begun periods with what was billed for them, newest first, the running one first of all."""
    zone = ZoneInfo(subscription.time_zone)
    found = usage_history(subscription=subscription, now=now, end=now, offset=offset, limit=limit)
    return [_history_view(item, zone) for item in found]


def csv_rows(*, period: BillingPeriod, customer: Customer, now: datetime) -> Iterator[list[str]]:
    """A period's usage by day, then each meter's total, then what was billed for it.

    The total is the meter's own quantity of the period: for a peak or a latest value it is not the days' sum.
    """
    subscription = period.subscription
    yield ["day", "meter", "quantity", "unit", "events"]
    meters = [charge.meter for charge in subscription.price.charges.select_related("meter")]
    try:
        rows = [*_day_rows(meters, period, customer, now), *_total_rows(meters, period, customer, now)]
    except MonthArchived:
        rows = [["note", "The days of this period are archived and can no longer be listed.", "", "", ""]]
    yield from rows
    billed = InvoiceLine.objects.filter(
        subscription=subscription,
        period_start=period.start,
        kind__in=[LineKind.USAGE, LineKind.ADJUSTMENT],
        live=True,
    ).select_related("invoice")
    for line in billed.order_by("charge__position", "pk"):
        yield [
            f"billed on {line.invoice.number}",
            _cell(line.description),
            plain(line.quantity),
            _cell(line.measurement_unit),
            "",
        ]


def _day_rows(meters: list[Meter], period: BillingPeriod, customer: Customer, now: datetime) -> Iterator[list[str]]:
    today = now.astimezone(ZoneInfo(period.subscription.time_zone)).date()
    for meter in meters:
        for day in daily_quantities(
            meter=meter,
            customer=customer,
            start=period.start,
            end=_held_until(meter, period, now),
            time_zone=period.subscription.time_zone,
        ):
            if day.day > today and not day.events:
                continue
            yield [
                day.day.isoformat(),
                _cell(meter.name),
                plain(day.quantity),
                _cell(meter.measurement_unit),
                str(day.events),
            ]


def _total_rows(meters: list[Meter], period: BillingPeriod, customer: Customer, now: datetime) -> Iterator[list[str]]:
    for meter in meters:
        total = quantity(meter=meter, customer=customer, start=period.start, end=_held_until(meter, period, now))
        yield ["total", _cell(meter.name), plain(total), _cell(meter.measurement_unit), ""]


def _held_until(meter: Meter, period: BillingPeriod, now: datetime, ahead: timedelta | None = None) -> datetime:
    """Where reading ends: a level has held until now and not yet until the period's end.

    Of other meters all events are read, or those that are at most `ahead` of our clock.
    """
    if meter.aggregation == Aggregation.WEIGHTED_SUM:
        return max(period.start, min(period.end, now))
    return period.end if ahead is None else min(period.end, now + ahead)


def invoice_status(*, invoice: Invoice, now: datetime) -> tuple[str, str]:
    """A status and its word for a customer."""
    if invoice.is_overdue(now=now):
        return "overdue", "Overdue"
    if invoice.status == InvoiceStatus.UNCOLLECTIBLE:
        # That nobody expects the money any more is the operator's business: it is still asked for.
        return ("overdue", "Overdue") if invoice.due_at and invoice.due_at < now else ("issued", "Open")
    return invoice.status, invoice.get_status_display()


def _meter_view(subscription: Subscription, period: BillingPeriod, line: ProposedLine, now: datetime) -> MeterView:
    assert line.charge is not None, "usage is billed by charge"  # noqa: S101
    meter = line.charge.meter
    threshold = Decimal(line.charge.free_threshold)
    over = max(line.quantity - threshold, Decimal(0))
    scale = max(threshold, line.quantity)
    return MeterView(
        name=meter.name,
        unit=meter.measurement_unit,
        quantity=format_units(line.quantity),
        sentence=_sentence(line, subscription.price.currency, is_trial=period.is_trial),
        cost=format_amount(line.amount, subscription.price.currency),
        free_share=percent(min(max(line.quantity, Decimal(0)), threshold), scale),
        charged_share=percent(over, scale) if threshold else "0%",
        has_threshold=threshold > 0,
        used_up=over > 0,
        chart=_chart(subscription, period, meter, now),
        chart_id=f"chart-{period.pk}-{line.charge.pk}",
    )


def _sentence(line: ProposedLine, currency: str, *, is_trial: bool) -> str:
    assert line.charge is not None, "usage is billed by charge"  # noqa: S101
    unit = line.measurement_unit
    threshold = format_units(Decimal(line.charge.free_threshold))
    if line.unit_price is None or line.charge.terms is not None:
        return "Free during the trial" if is_trial else str(line.explanation["text"])
    price = format_unit_price(line.unit_price, currency)
    if is_trial:
        return f"Free during the trial, then {price} each"
    if line.charge.free_threshold == 0:
        return f"{price} each"
    if line.quantity <= line.charge.free_threshold:
        return f"{format_units(line.quantity)} of {threshold} free {unit} used"
    return f"All {threshold} free {unit} used, {format_units(line.billable_units)} more at {price} each"


def _chart(subscription: Subscription, period: BillingPeriod, meter: Meter, now: datetime) -> DayChart | None:
    zone = ZoneInfo(subscription.time_zone)
    until = min(period.end, now)
    start = max(period.start, until - timedelta(days=MOST_DAYS))
    if until <= start:
        return None
    last_day = (period.end - timedelta(microseconds=1)).astimezone(zone).date()
    if (last_day - start.astimezone(zone).date()).days > MOST_DAYS:
        last_day = until.astimezone(zone).date()
    gauge = meter.aggregation in (Aggregation.MAX, Aggregation.LAST, Aggregation.MIN, Aggregation.AVG)
    today = now.astimezone(zone).date()
    days = daily_quantities(
        meter=meter,
        customer=subscription.customer,
        start=start,
        # Clocks differ: an event may be a few minutes ahead of ours.
        end=_held_until(meter, period, now, ahead=settings.EVENT_CLOCK_TOLERANCE),
        time_zone=subscription.time_zone,
    )
    title = _BY_DAY[Aggregation(meter.aggregation)].format(unit=meter.measurement_unit)
    return day_chart(
        name=title[:1].upper() + title[1:],
        unit=meter.measurement_unit,
        # A day without events has no peak and no latest value; drawing 0 would say that it fell.
        values=[
            DayValue(day.day, None if gauge and day.events == 0 else day.quantity)
            for day in days
            if day.day <= today or day.events
        ],
        last_day=last_day,
        today=today,
    )


def _history_view(item: PeriodUsage, zone: ZoneInfo) -> HistoryView:
    currency = item.currency
    return HistoryView(
        period_id=item.period.pk,
        period=span_in_words(item.period.start, item.period.end, zone),
        total=format_amount(add(item.commitment, *(charge.amount for charge in item.charges)), currency),
        lines=tuple(
            HistoryLine(
                name=used.charge.meter.name,
                unit=used.charge.meter.measurement_unit,
                quantity=format_units(used.consumed_units),
                free=format_units(
                    used.free_units if used.charge.terms is not None else Decimal(used.charge.free_threshold)
                ),
                charged=format_units(used.chargeable_units),
                unit_price=(
                    format_unit_price(used.charge.price_per_unit, currency)
                    if used.charge.price_per_unit is not None
                    else "–"
                ),
                amount=format_amount(used.amount, currency),
                texts=() if used.charge.price_per_unit is not None else tuple(text for text in used.texts if text),
            )
            for used in item.charges
        ),
        commitment=format_amount(item.commitment, currency) if item.commitment else "",
        invoice_id=item.invoice.public_id if item.invoice else "",
        invoice_number=(item.invoice.number or "") if item.invoice else "",
    )


def _next_fee(subscription: Subscription, period: BillingPeriod) -> Decimal:
    """The fee that the next invoice asks for, in advance; none where the subscription ends with this period."""
    if not subscription.is_running() or subscription.cancel_at_period_end:
        return Decimal(0)
    return fee_beginning(subscription, period.end)


def _at_least(subscription: Subscription, period: BillingPeriod) -> str:
    """The commitment in a sentence; nothing in a trial, where usage is free."""
    price = subscription.price
    if price.commitment is None or period.is_trial:
        return ""
    what = "usage and fee together come" if price.commitment_covers == Covers.ALL else "usage comes"
    part = " A partial period has its share of it." if period.whole_start is not None else ""
    return f"In each period {what} to at least {format_amount(price.commitment, price.currency)}.{part}"


def _before(subscription: Subscription, now: datetime) -> str:
    """What is still taken off or added when the next invoice is issued: "before prepaid credit and tax"."""
    customer, price = subscription.customer, subscription.price
    taxes = tax_for(
        customer=customer,
        address=subscription.billing_address or customer.billing_address,
        tax_category=price.product.tax_category,
        now=now,
    ).taxes
    waiting = ["prepaid credit"] if credit_of(customer=customer, currency=price.currency, at=now) else []
    if taxes and not price.tax_inclusive:
        waiting.append("tax")
    return f"before {' and '.join(waiting)}" if waiting else ""


def _ending(subscription: Subscription, zone: ZoneInfo) -> str:
    if subscription.status == SubscriptionStatus.CANCELLED and subscription.cancelled_at:
        return f"Cancelled on {day_in_words(subscription.cancelled_at, zone)}"
    if subscription.status == SubscriptionStatus.EXPIRED:
        return f"Expired on {day_in_words(subscription.expires_at, zone)}"
    if subscription.cancel_at_period_end:
        return "Ends with this period"
    return ""


def _days_left(end: datetime, now: datetime, zone: ZoneInfo) -> str:
    if now >= end:
        return "over"
    days = (end.astimezone(zone).date() - now.astimezone(zone).date()).days
    if days == 0:
        return "ends today"
    return "1 day left" if days == 1 else f"{days} days left"


def _seconds(span: timedelta) -> Decimal:
    return Decimal(span // timedelta(seconds=1))


def _cell(text: str) -> str:
    """Text that a spreadsheet shows and does not run."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r", "\n") else text
