"""How much was used: every question about the event log, each answered by one statement over the log.

A span is half-open, [start, end), in event time. A quantity is an exact Decimal. What counts is said in
meters.filters and meters.aggregation; this module is their rendering for PostgreSQL.

Over several customers a quantity is the sum of the customers' quantities, for every aggregation: ten customers who
store 1 GB each store 10 GB.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, LiteralString
from zoneinfo import ZoneInfo

from django.db import connection

from customers.models import Customer
from meters.aggregation import ZERO
from meters.events import exact_metadata
from meters.filters import FilterGroup, is_present, parse_filter, read_number, read_text
from meters.models import Aggregation, Event, Meter
from meters.sql import TRUE, Sql, compose, join, matches, number, present, reading, value


@dataclass(frozen=True, slots=True)
class DayQuantity:
    """One day of a meter; `events` are those that made the quantity."""

    day: date
    quantity: Decimal
    events: int


@dataclass(frozen=True, slots=True)
class CustomerQuantity:
    customer: Customer
    quantity: Decimal
    events: int
    last_event_at: datetime


@dataclass(frozen=True, slots=True)
class DayVolume:
    day: date
    events: int


@dataclass(frozen=True, slots=True)
class MeterActivity:
    """Every event of the meter's name, by what became of it: `seen` is the sum of the others."""

    seen: int
    counted: int
    filtered_out: int
    unreadable: int
    missing: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a meter makes of one event, and why, in words for a person. `value` is what it brings, if it is counted."""

    counted: bool
    value: Decimal | None
    reason: str


# -- quantities ----------------------------------------------------------------------------------------------


def quantity(*, meter: Meter, customer: Customer, start: datetime, end: datetime) -> Decimal:
    """What the customer used in the span; 0 without a single event."""
    sql = _quantity(meter, customer=customer, start=start, end=end)
    return _rows(compose("SELECT {}", sql))[0][0]


def quantities(*, meters: Sequence[Meter], customer: Customer, start: datetime, end: datetime) -> dict[int, Decimal]:
    """The same for several meters, all from one snapshot of the log; by the meters' primary keys."""
    if not meters:
        return {}
    sql = [_quantity(meter, customer=customer, start=start, end=end) for meter in meters]
    row = _rows(compose("SELECT {}", join(", ", sql)))[0]
    return {meter.pk: found for meter, found in zip(meters, row, strict=True)}


def _quantity(meter: Meter, *, customer: Customer, start: datetime, end: datetime) -> Sql:
    """A scalar subquery; never NULL."""
    events = _events_of(meter, customer=customer, start=start, end=end)
    match meter.aggregation:
        case Aggregation.COUNT:
            return compose("(SELECT count(*)::numeric FROM ({}) AS event)", events)
        case Aggregation.SUM:
            return compose("(SELECT coalesce(sum(value), 0) FROM ({}) AS event)", events)
        case Aggregation.MAX:
            return compose("(SELECT coalesce(max(value), 0) FROM ({}) AS event)", events)
        case Aggregation.LAST:
            # Reads backwards from the end of the span and stops at the first value.
            return compose(
                "coalesce((SELECT value FROM ({}) AS event ORDER BY timestamp DESC, id DESC LIMIT 1), 0)", events
            )
    raise ValueError(f"no aggregation named {meter.aggregation!r}")


def daily_quantities(
    *, meter: Meter, customer: Customer | None = None, start: datetime, end: datetime, time_zone: str
) -> list[DayQuantity]:
    """Each day of the span in the time zone, oldest first, also the days without an event; the ends may cut a day."""
    days, bounds = _days(start, end, time_zone)
    if not days:
        return []
    per_customer = compose(
        "SELECT width_bucket(timestamp, {}::timestamptz[]) AS day, {} AS quantity, count(*) AS events"
        " FROM ({}) AS event GROUP BY day, customer_id",
        value(bounds),
        _aggregate(meter),
        _events_of(meter, customer=customer, start=start, end=end),
    )
    rows = _rows(
        compose("SELECT day, sum(quantity), sum(events)::bigint FROM ({}) AS customer_day GROUP BY day", per_customer)
    )
    found = {day: (total, events) for day, total, events in rows}
    return [DayQuantity(day, *found.get(index, (ZERO, 0))) for index, day in enumerate(days, start=1)]


def customer_quantities(
    *, meter: Meter, start: datetime, end: datetime, limit: int | None = None
) -> list[CustomerQuantity]:
    """Who used how much, most first; only customers with an event that counts."""
    rows = _rows(
        compose(
            "SELECT customer_id, {} AS quantity, count(*), max(timestamp) FROM ({}) AS event"
            " GROUP BY customer_id ORDER BY quantity DESC, customer_id LIMIT {}",
            _aggregate(meter),
            _events_of(meter, customer=None, start=start, end=end),
            value(limit),
        )
    )
    customers = Customer.objects.in_bulk([row[0] for row in rows])
    return [
        CustomerQuantity(customers[customer_id], total, events, last_event_at)
        for customer_id, total, events, last_event_at in rows
        if customer_id in customers
    ]


def _aggregate(meter: Meter) -> Sql:
    """The quantity of a group of `_events_of`; a group is never empty."""
    texts: dict[str, LiteralString] = {
        Aggregation.COUNT: "count(*)::numeric",
        Aggregation.SUM: "sum(value)",
        Aggregation.MAX: "max(value)",
        Aggregation.LAST: "(array_agg(value ORDER BY timestamp DESC, id DESC))[1]",
    }
    return Sql(texts[meter.aggregation])


# -- the log -------------------------------------------------------------------------------------------------


def event_volume(
    *,
    start: datetime,
    end: datetime,
    time_zone: str,
    event_name: str | None = None,
    customer: Customer | None = None,
) -> list[DayVolume]:
    """How many events happened on each day, whether or not a meter reads them."""
    days, bounds = _days(start, end, time_zone)
    if not days:
        return []
    rows = _rows(
        compose(
            "SELECT width_bucket(timestamp, {}::timestamptz[]) AS day, count(*)"
            " FROM meters_event WHERE {} GROUP BY day",
            value(bounds),
            _span(event_name=event_name, customer=customer, start=start, end=end),
        )
    )
    found = dict(rows)
    return [DayVolume(day, found.get(index, 0)) for index, day in enumerate(days, start=1)]


def meter_activity(*, meter: Meter, start: datetime, end: datetime) -> MeterActivity:
    """What became of each event that bears the meter's name."""
    if meter.aggregation == Aggregation.COUNT:
        there, readable = TRUE, TRUE
    else:
        there, readable = present(meter.property_key), compose("({} IS NOT NULL)", number(meter.property_key))
    rows = _rows(
        compose(
            "SELECT count(*), count(*) FILTER (WHERE matches AND readable), count(*) FILTER (WHERE NOT matches),"
            " count(*) FILTER (WHERE matches AND present AND NOT readable),"
            " count(*) FILTER (WHERE matches AND NOT present)"
            " FROM (SELECT {} AS matches, {} AS present, {} AS readable FROM meters_event WHERE {}) AS event",
            matches(_tree(meter)),
            there,
            readable,
            _span(event_name=meter.event_name, customer=None, start=start, end=end),
        )
    )
    return MeterActivity(*rows[0])


def unmetered_event_names(*, start: datetime, end: datetime) -> list[tuple[str, int]]:
    """Names of events that no meter reads (nor an archived one), with how many there were, most first."""
    return _rows(
        compose(
            "SELECT event_name, count(*) FROM meters_event WHERE {}"
            " AND NOT EXISTS (SELECT FROM meters_meter WHERE meters_meter.event_name = meters_event.event_name)"
            " GROUP BY event_name ORDER BY count(*) DESC, event_name",
            _span(event_name=None, customer=None, start=start, end=end),
        )
    )


def meter_verdict(*, meter: Meter, event: Event) -> Verdict:
    """What the meter makes of a stored event."""
    return meter_verdicts(meter=meter, events=[event])[0]


def meter_verdicts(*, meter: Meter, events: Sequence[Event]) -> list[Verdict]:
    """The same for several events, with one query for all: a stored number is read back digit for digit."""
    metadata = exact_metadata(events)
    return [judge(meter=meter, event_name=event.event_name, metadata=metadata.get(event.pk)) for event in events]


def judge(*, meter: Meter, event_name: str, metadata: dict[str, Any] | None) -> Verdict:
    """What the meter would make of an event with this name and metadata, stored or not."""
    if event_name != meter.event_name:
        return Verdict(False, None, f"The meter reads events named “{meter.event_name}”, not “{event_name}”.")
    tree = _tree(meter)
    if tree is not None and (why := tree.explain(metadata)):
        return Verdict(False, None, f"Left out by the filter: {why}.")
    if meter.aggregation == Aggregation.COUNT:
        return Verdict(True, Decimal(1), "Counted as 1 event.")
    key = meter.property_key
    if metadata is None or not is_present(metadata, key):
        return Verdict(False, None, f"Left out: it has no value under “{key}”.")
    brought = read_number(metadata[key])
    if brought is None:
        return Verdict(False, None, f"Left out: {key} is “{read_text(metadata[key])}”, which is not a number.")
    words = {
        Aggregation.SUM: "added to the sum",
        Aggregation.MAX: "compared with the highest value",
        Aggregation.LAST: "taken unless a later value follows",
    }
    return Verdict(True, brought, f"{read_text(brought)} is {words[Aggregation(meter.aggregation)]}.")


# -- pieces --------------------------------------------------------------------------------------------------


def _tree(meter: Meter) -> FilterGroup | None:
    return None if meter.filter is None else parse_filter(meter.filter)


def _events_of(meter: Meter, *, customer: Customer | None, start: datetime, end: datetime) -> Sql:
    """The events that count for the meter, with what each brings; for all but count, only those that bring a number."""
    events = compose(
        "SELECT customer_id, timestamp, id, {} AS value FROM meters_event WHERE {} AND {}",
        reading(meter),
        _span(event_name=meter.event_name, customer=customer, start=start, end=end),
        matches(_tree(meter)),
    )
    if meter.aggregation == Aggregation.COUNT:
        return events
    return compose("SELECT * FROM ({}) AS reading WHERE value IS NOT NULL", events)


def _span(*, event_name: str | None, customer: Customer | None, start: datetime, end: datetime) -> Sql:
    """Conditions in the order of the index (customer, event name, timestamp), as far as they are asked for."""
    conditions = [compose("timestamp >= {} AND timestamp < {}", value(start), value(end))]
    if event_name is not None:
        conditions.insert(0, compose("event_name = {}::text", value(event_name)))
    if customer is not None:
        conditions.insert(0, compose("customer_id = {}", value(customer.pk)))
    return join(" AND ", conditions)


def _days(start: datetime, end: datetime, time_zone: str) -> tuple[list[date], list[datetime]]:
    """The local days that the span touches, and the instant at which each begins.

    The instants come from Python's time zones, as the billing periods do, so that a chart and an invoice agree on
    what a day is, also where a clock is changed at midnight.
    """
    if start >= end:
        return [], []
    zone = ZoneInfo(time_zone)
    day = start.astimezone(zone).date()
    # The last instant inside the span: the log's clock has microseconds.
    last = (end - timedelta(microseconds=1)).astimezone(zone).date()
    days = []
    while day <= last:
        days.append(day)
        day += timedelta(days=1)
    return days, [datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC) for day in days]


def _rows(sql: Sql) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql.text, sql.params)
        return cursor.fetchall()
