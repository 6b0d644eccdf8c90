"""How much was used: every question about usage, exact at every moment.

    quantity = buckets up to the watermark + the raw events behind it

A span is half-open, [start, end), in event time. Whole hours come from the buckets; an hour that a span or a window
cuts is read from the log, and so is everything behind the watermark. One statement sees one snapshot, so it does not
matter when the roller moves. Most questions are one statement; a level (weighted_sum, or carry_forward) takes one for
what held before the span, and weighted_sum one a window: an event that is stored in between may be in a later one
only, in a window that ends now. A quantity is an exact Decimal. What counts is said in meters.filters and
meters.aggregation; this module and meters.rollups are their rendering for PostgreSQL.

Over several customers a quantity is the sum of the customers' quantities, for every aggregation: ten customers who
store 1 GB each store 10 GB.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any, LiteralString
from zoneinfo import ZoneInfo

from django.db import connection

from customers.models import Customer
from meters.aggregation import EXACT, SECONDS_PER_HOUR, ZERO, ratio
from meters.events import exact_metadata
from meters.filters import FilterGroup, is_present, parse_filter, read_identity, read_number, read_text
from meters.ingestion import EARLIEST
from meters.models import Aggregation, Event, EventVoid, Meter
from meters.partitions import MonthArchived, month_of
from meters.sql import TRUE, Sql, canonical, compose, groups, join, matches, number, present, reading, value

_HOUR = timedelta(hours=1)
_TICK = timedelta(microseconds=1)


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
    """Every event of the meter's name, by what became of it: `seen` is the sum of the others.

    A void event is `voided` whatever else could be said of it.
    """

    seen: int
    counted: int
    filtered_out: int
    unreadable: int
    missing: int
    voided: int = 0


class Outcome(StrEnum):
    """What became of an event, in one word for a program."""

    COUNTED = "counted"
    VOIDED = "voided"
    OTHER_NAME = "other_name"
    FILTERED_OUT = "filtered_out"
    MISSING = "missing"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a meter makes of one event, and why, in words for a person. `value` is what it brings, if it is counted."""

    outcome: Outcome
    value: Decimal | None
    reason: str

    @property
    def counted(self) -> bool:
        return self.outcome == Outcome.COUNTED


# -- quantities ----------------------------------------------------------------------------------------------


def quantity(*, meter: Meter, customer: Customer, start: datetime, end: datetime) -> Decimal:
    """What the customer used in the span; 0 without a single event."""
    rows = measure(meter=meter, customer=customer, bounds=[start, end])
    return rows[0].quantity if rows else ZERO


def quantities(*, meters: Sequence[Meter], customer: Customer, start: datetime, end: datetime) -> dict[int, Decimal]:
    """The same for several meters, by their primary keys."""
    return {meter.pk: quantity(meter=meter, customer=customer, start=start, end=end) for meter in meters}


def daily_quantities(
    *, meter: Meter, customer: Customer | None = None, start: datetime, end: datetime, time_zone: str
) -> list[DayQuantity]:
    """Each day of the span in the time zone, oldest first, also the days without an event; the ends may cut a day."""
    days, starts = _days(start, end, time_zone)
    if not days:
        return []
    found: dict[int, tuple[Decimal, int]] = {}
    for row in measure(meter=meter, customer=customer, bounds=[start, *starts[1:], end]):
        total, events = found.get(row.window, (ZERO, 0))
        found[row.window] = (EXACT.add(total, row.quantity), events + row.events)
    return [DayQuantity(day, *found.get(index, (ZERO, 0))) for index, day in enumerate(days)]


def customer_quantities(
    *, meter: Meter, start: datetime, end: datetime, limit: int | None = None
) -> list[CustomerQuantity]:
    """Who used how much, most first; only customers with an event that counts."""
    rows = [row for row in measure(meter=meter, customer=None, bounds=[start, end]) if row.last_event_at is not None]
    rows.sort(key=lambda row: (-row.quantity, row.customer_id))
    customers = Customer.objects.in_bulk([row.customer_id for row in rows[:limit]])
    return [
        CustomerQuantity(customers[row.customer_id], row.quantity, row.events, row.last_event_at)
        for row in rows[:limit]
        if row.customer_id in customers and row.last_event_at is not None
    ]


# -- one statement -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Measured:
    """The quantity of one customer in one window; with groups, of one group. `window` counts from 0."""

    window: int
    customer_id: int
    groups: tuple[str | None, ...]
    quantity: Decimal
    events: int
    last_event_at: datetime | None


def measure(
    *, meter: Meter, customer: Customer | None, bounds: Sequence[datetime], grouped: bool = False
) -> list[Measured]:
    """Quantities per window, customer and (if `grouped`) value of the meter's group keys; only where there are any.

    `bounds` are the ascending instants between windows, n + 1 for n windows.
    """
    if len(bounds) < 2 or bounds[0] >= bounds[-1]:
        return []
    if meter.aggregation == Aggregation.WEIGHTED_SUM:
        return list(_weigh(meter, customer, bounds, grouped))
    rows = _from_watermark(meter, lambda hint: _measured(meter, customer, list(bounds), grouped, hint))
    measured = [Measured(row[0] - 1, row[1], tuple(row[2] or ()), row[3], int(row[4]), row[5]) for row in rows]
    if meter.aggregation == Aggregation.LAST and meter.carry_forward:
        return _carried(meter, customer, bounds, grouped, measured)
    return measured


@dataclass(frozen=True, slots=True)
class Together:
    """What all customers together used in one window; with groups, of one group. `window` counts from 0."""

    window: int
    groups: tuple[str | None, ...]
    quantity: Decimal
    events: int


def is_level(meter: Meter) -> bool:
    """Whether customers are read one by one: what one holds in a window may come from the window before."""
    return meter.aggregation == Aggregation.WEIGHTED_SUM or (
        meter.aggregation == Aggregation.LAST and meter.carry_forward
    )


def measure_together(
    *, meter: Meter, customer: Customer | None, bounds: Sequence[datetime], grouped: bool, limit: int
) -> list[Together]:
    """`measure`, summed over the customers; at most `limit` rows. Levels are summed here and the others by PostgreSQL,
    so that ten thousand customers are no more rows than one.
    """
    if len(bounds) < 2 or bounds[0] >= bounds[-1]:
        return []
    if not is_level(meter):
        rows = _from_watermark(
            meter, lambda hint: _measured(meter, customer, list(bounds), grouped, hint, together=limit)
        )
        return [Together(row[0] - 1, tuple(row[2] or ()), row[3], int(row[4])) for row in rows]
    found: dict[tuple[int, tuple[str | None, ...]], tuple[Decimal, int]] = {}
    for row in measure(meter=meter, customer=customer, bounds=bounds, grouped=grouped):
        total, events = found.get((row.window, row.groups), (ZERO, 0))
        found[row.window, row.groups] = (EXACT.add(total, row.quantity), events + row.events)
    return [Together(*place, *used) for place, used in itertools.islice(found.items(), limit)]


def count_series(
    *, meter: Meter, customer: Customer | None, start: datetime, end: datetime, grouped: bool, limit: int
) -> int:
    """How many customers, or their groups, a level has over the span; not more than `limit` are counted.

    From the buckets, without the tail: it says whether a question is affordable, and is no figure to show.
    """
    since = EARLIEST if meter.carry_forward else floor_hour(start)
    of = compose("customer_id = {} AND", value(customer.pk)) if customer is not None else Sql("")
    rows = _rows(
        compose(
            "SELECT count(*) FROM (SELECT DISTINCT customer_id, {} FROM meters_bucket"
            " WHERE meter_id = {} AND {} hour >= {} AND hour < {} LIMIT {}) AS series",
            Sql("groups") if grouped else Sql("NULL::text[]"),
            value(meter.pk),
            of,
            value(since),
            value(end),
            value(limit),
        )
    )
    return int(rows[0][0])


def _from_watermark(meter: Meter, statement: Callable[[int], Sql]) -> list[tuple[Any, ...]]:
    """Run a statement that reads the tail behind the watermark.

    The watermark that counts is read inside the statement. The one that `meter` was read with only lets PostgreSQL
    plan for a short tail, and lies at or below it, unless the buckets were rebuilt in between: then the statement is
    run again. Its last columns are the gap (`_mark`) and the watermark it saw; a left join keeps one row where nothing
    was found.
    """
    hint = meter.rolled_up_to
    while True:
        sql = statement(hint)
        rows = _rows(sql)
        gap, seen = rows[0][-2:]
        if gap is not None:
            raise _missing_month(meter, *gap)
        if seen >= hint:
            return [row[:-2] for row in rows if row[0] is not None]
        hint = seen


def _mark(meter: Meter, customer: Customer | None, bounds: Sequence[datetime]) -> Sql:
    """The watermark, and the first month for which the quantities need events that are no longer in the log.

    Whole hours of a dropped month are in the buckets. Not so what lies in an hour that a bound cuts, if there is
    anything, nor what a meter would have counted that was made after the drop.
    """
    cut = sorted({floor_hour(bound) for bound in bounds if floor_hour(bound) != bound})
    of = compose("customer_id = {} AND", value(customer.pk)) if customer is not None else Sql("")
    return compose(
        "SELECT rolled_up_to, (SELECT ARRAY[month::text, CASE WHEN dropped_at < created_at THEN 'late' END]"
        " FROM meters_archivedmonth WHERE dropped_at IS NOT NULL AND meters_archivedmonth.events > 0"
        " AND month >= {}::date AND month <= {}::date"
        " AND (dropped_at < created_at OR EXISTS (SELECT FROM meters_bucket WHERE meter_id = {} AND {}"
        " hour = ANY({}::timestamptz[]) AND date_trunc('month', hour AT TIME ZONE 'UTC')::date = month))"
        " ORDER BY month LIMIT 1) AS gap FROM meters_meter WHERE id = {}",
        value(month_of(bounds[0]).isoformat()),
        value(month_of(bounds[-1] - _TICK).isoformat()),
        value(meter.pk),
        of,
        value(cut),
        value(meter.pk),
    )


def _missing_month(meter: Meter, month: str, late: str | None) -> MonthArchived:
    why = (
        f"the meter “{meter.name}” was made later and never counted it"
        if late
        else "only whole hours of it can still be read"
    )
    return MonthArchived(
        f"{date.fromisoformat(month):%B %Y} was archived and dropped, and {why}. Restore it to read it."
    )


_QUANTITY: dict[str, LiteralString] = {
    Aggregation.COUNT: "sum(events)::numeric",
    Aggregation.SUM: "sum(total)",
    Aggregation.MIN: "min(lowest)",
    Aggregation.MAX: "max(highest)",
    Aggregation.LAST: "(array_agg(last_value ORDER BY last_at DESC, last_id DESC))[1]",
    Aggregation.UNIQUE: "count(DISTINCT text)::numeric",
    # Half away from zero at 12 decimals, by whole numbers only: numeric division would round on its way.
    Aggregation.AVG: (
        "sign(sum(total)) * div(abs(sum(total)) * 2000000000000 + sum(events), 2 * sum(events)) * 0.000000000001"
    ),
}


def _measured(
    meter: Meter, customer: Customer | None, bounds: list[datetime], grouped: bool, hint: int, together: int = 0
) -> Sql:
    """Of each customer; or `together`, that many rows at most."""
    keys = Sql("groups") if grouped else Sql("NULL::text[]")
    told = Sql("SELECT * FROM measured")
    if together:
        told = compose(
            "SELECT win, NULL::bigint AS customer_id, keys, sum(quantity) AS quantity, sum(events)::bigint AS events,"
            " max(last_at) AS last_at FROM measured GROUP BY win, keys LIMIT {}",
            value(together),
        )
    return compose(
        "WITH mark AS MATERIALIZED ({}), piece AS ({}), measured AS ("
        "SELECT width_bucket(at, {}::timestamptz[]) AS win, customer_id, {} AS keys, {} AS quantity,"
        " sum(events)::bigint AS events, max(last_at) AS last_at FROM piece GROUP BY 1, 2, 3)"
        " SELECT win, customer_id, keys, quantity, events, last_at, gap, rolled_up_to"
        " FROM mark LEFT JOIN ({}) AS told ON true",
        _mark(meter, customer, bounds),
        _pieces(meter, customer, bounds, hint),
        value(bounds),
        keys,
        Sql(_QUANTITY[meter.aggregation]),
        told,
    )


def _pieces(meter: Meter, customer: Customer | None, bounds: list[datetime], hint: int) -> Sql:
    """The whole hours' buckets, the raw events of the cut hours, and the tail, in one shape."""
    raw = (
        "SELECT customer_id, groups, timestamp AS at, 1::bigint AS events, value AS total, value AS lowest,"
        " value AS highest, timestamp AS last_at, id AS last_id, value AS last_value, text FROM ({}) AS event"
    )
    cut = cut_hours(bounds)
    parts = [compose(raw, tail_events(meter, customer, bounds[0], bounds[-1], hint))]
    if cut:
        parts.append(compose(raw, cut_events(meter, customer, cut)))
    first, last = ceil_hour(bounds[0]), floor_hour(bounds[-1])
    if first < last:
        whole = TRUE
        if cut:
            whole = compose("hour <> ALL({}::timestamptz[])", value([floor_hour(a) for a, _ in cut]))
        parts.append(
            compose(
                "SELECT customer_id, groups, hour, events, total, lowest, highest, last_at, last_id, last_value,"
                " NULL::text FROM meters_bucket WHERE {} AND {}",
                _buckets(meter, customer, first, last),
                whole,
            )
        )
        if meter.aggregation == Aggregation.UNIQUE:
            parts.append(
                compose(
                    "SELECT customer_id, groups, hour, 0, NULL, NULL, NULL, NULL, NULL, NULL, value"
                    " FROM meters_bucketvalue WHERE {} AND {}",
                    _whole_hours(meter, customer, first, last),
                    whole,
                )
            )
    return join(" UNION ALL ", parts)


def _whole_hours(meter: Meter, customer: Customer | None, first: datetime, last: datetime) -> Sql:
    """The places of the meter in [first, last), in either table."""
    of = compose("customer_id = {} AND", value(customer.pk)) if customer is not None else Sql("")
    return compose("meter_id = {} AND {} hour >= {} AND hour < {}", value(meter.pk), of, value(first), value(last))


def _buckets(meter: Meter, customer: Customer | None, first: datetime, last: datetime) -> Sql:
    """The same for the buckets alone, which have an index for the hours of all customers.

    It is over expressions, so that no estimate, however old its statistics, makes PostgreSQL read everybody's hours to
    find one customer's.
    """
    if customer is not None:
        return _whole_hours(meter, customer, first, last)
    return compose(
        "meter_id + 0 = {} AND hour AT TIME ZONE 'UTC' >= {}::timestamptz AT TIME ZONE 'UTC'"
        " AND hour AT TIME ZONE 'UTC' < {}::timestamptz AT TIME ZONE 'UTC'",
        value(meter.pk),
        value(first),
        value(last),
    )


def tail_events(meter: Meter, customer: Customer | None, start: datetime, end: datetime, hint: int) -> Sql:
    """The counting events of the span behind the watermark (`mark`).

    Of one customer, the few events behind the watermark are found by the index (customer, id) and by nothing else:
    name and time are compared outside, where no index can serve them. Without that, statistics that are old or missing
    let PostgreSQL walk the customer's whole period.
    """
    behind = compose("id > {} AND id > (SELECT rolled_up_to FROM mark)", value(hint))
    where = compose(
        "event_name = {} AND timestamp >= {} AND timestamp < {}", value(meter.event_name), value(start), value(end)
    )
    if customer is None:
        return counting_events(meter, None, compose("{} AND {}", behind, where))
    mine = compose("(SELECT * FROM meters_event WHERE customer_id = {} AND {} OFFSET 0)", value(customer.pk), behind)
    return counting_events(meter, customer, where, source=mine)


def cut_events(meter: Meter, customer: Customer | None, cut: Sequence[tuple[datetime, datetime]]) -> Sql:
    """The counting events of these spans up to the watermark (`mark`).

    One after the other, each a short range of the index (customer, event name, timestamp); the id is compared in a
    way no index serves.
    """
    of = compose("customer_id = {} AND", value(customer.pk)) if customer is not None else Sql("")
    events = compose(
        "(SELECT found.* FROM unnest({}::timestamptz[], {}::timestamptz[]) AS span (first, following)"
        " CROSS JOIN LATERAL (SELECT * FROM meters_event WHERE {} event_name = {} AND timestamp >= first"
        " AND timestamp < following AND id + 0 <= (SELECT rolled_up_to FROM mark) OFFSET 0) AS found)",
        value([start for start, _ in cut]),
        value([end for _, end in cut]),
        of,
        value(meter.event_name),
    )
    return counting_events(meter, customer, TRUE, source=events)


_LOG = Sql("meters_event")


_LIVE = Sql("voided_at IS NULL")


def counting_events(
    meter: Meter, customer: Customer | None, where: Sql, *, source: Sql = _LOG, live: Sql = _LIVE
) -> Sql:
    """Of the events `where`, those that count for the meter, with what each brings.

    `live` says which are not void: as of now, unless another instant is asked about.
    """
    if customer is not None:
        where = compose("customer_id = {} AND {}", value(customer.pk), where)
    events = compose(
        "SELECT customer_id, {} AS groups, timestamp, id, {} AS value, {} AS text FROM {} AS meters_event"
        " WHERE {} AND {} AND {}",
        groups(meter),
        reading(meter),
        canonical(meter.property_key) if meter.aggregation == Aggregation.UNIQUE else Sql("NULL::text"),
        source,
        where,
        live,
        matches(_tree(meter)),
    )
    return compose("SELECT * FROM ({}) AS reading WHERE value IS NOT NULL", events)


def floor_hour(instant: datetime) -> datetime:
    return instant.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def ceil_hour(instant: datetime) -> datetime:
    floor = floor_hour(instant)
    return floor if floor == instant else floor + _HOUR


def cut_hours(bounds: Sequence[datetime]) -> list[tuple[datetime, datetime]]:
    """The spans inside [first, last) bound that lie in an hour which some bound cuts."""
    first, last = bounds[0], bounds[-1]
    hours = sorted({floor_hour(bound) for bound in bounds if floor_hour(bound) != bound})
    spans = [(max(hour, first), min(hour + _HOUR, last)) for hour in hours]
    return [(start, end) for start, end in spans if start < end]


# -- levels: what holds until something else is said ---------------------------------------------------------


def _weigh(meter: Meter, customer: Customer | None, bounds: Sequence[datetime], grouped: bool) -> Iterator[Measured]:
    """Value times hours by window. Hours that the tail reaches are read raw: their state cannot be merged."""
    levels = _levels_before(meter, customer, bounds[0], grouped) if meter.carry_forward else {}
    for window, (start, end) in enumerate(itertools.pairwise(bounds)):
        if start >= end:
            continue
        found: dict[tuple[int, tuple[str | None, ...]], Measured] = {}
        for customer_id, keys, first_at, area, events, last_at, level in _window_rows(
            meter, customer, start, end, grouped
        ):
            series = (customer_id, tuple(keys or ()))
            held = levels.get(series, ZERO)
            seconds = EXACT.add(area, EXACT.multiply(held, _seconds(first_at - start)))
            found[series] = Measured(window, *series, ratio(seconds, SECONDS_PER_HOUR), int(events), last_at)
            if meter.carry_forward:
                levels[series] = level
        for series in levels.keys() - found.keys():
            # Nothing happened in the window: what held before holds throughout.
            seconds = EXACT.multiply(levels[series], _seconds(end - start))
            found[series] = Measured(window, *series, ratio(seconds, SECONDS_PER_HOUR), 0, None)
        yield from (found[series] for series in sorted(found, key=str))


def _window_rows(
    meter: Meter, customer: Customer | None, start: datetime, end: datetime, grouped: bool
) -> list[tuple[Any, ...]]:
    return _from_watermark(meter, lambda hint: _weighed(meter, customer, start, end, grouped, hint))


def _seconds(span: timedelta) -> Decimal:
    return EXACT.scaleb(Decimal(span // timedelta(microseconds=1)), -6)


def _weighed(meter: Meter, customer: Customer | None, start: datetime, end: datetime, grouped: bool, hint: int) -> Sql:
    keys = Sql("groups") if grouped and meter.group_by else Sql("'{}'::text[]")
    cut = cut_hours([start, end])
    first, last = ceil_hour(start), floor_hour(end)
    raw = compose(
        "SELECT customer_id, {} AS series, timestamp AS first_at, timestamp AS last_at, id AS last_id,"
        " value AS last_value, 0::numeric AS area, 1::bigint AS events FROM ({}) AS event",
        keys,
        join(
            " UNION ALL ",
            [Sql("SELECT * FROM tail")]
            + ([cut_events(meter, customer, cut)] if cut else [])
            + ([_dirty_events(meter, customer, first, last)] if first < last else []),
        ),
    )
    if first < last:
        raw = compose(
            "{} UNION ALL SELECT customer_id, groups, first_at, last_at, last_id, last_value, area, events"
            " FROM meters_bucket AS old WHERE {} AND {}"
            " AND NOT EXISTS (SELECT FROM dirty WHERE dirty.customer_id = old.customer_id AND dirty.hour = old.hour)",
            raw,
            _buckets(meter, customer, first, last),
            Sql("groups <> '{}'") if grouped and meter.group_by else Sql("groups = '{}'"),
        )
    return compose(
        "WITH mark AS MATERIALIZED ({}),"
        " tail AS MATERIALIZED ({}),"
        " dirty AS MATERIALIZED (SELECT DISTINCT customer_id, date_trunc('hour', timestamp, 'UTC') AS hour FROM tail),"
        " piece AS ({}),"
        " step AS (SELECT piece.*, lead(first_at, 1, {}::timestamptz) OVER ("
        "PARTITION BY customer_id, series ORDER BY first_at, last_id) AS following FROM piece),"
        " weighed AS (SELECT customer_id, series, min(first_at) AS first_at,"
        " sum(area + last_value * extract(epoch FROM following - last_at)) AS area, sum(events)::bigint AS events,"
        " max(last_at) AS last_at, (array_agg(last_value ORDER BY last_at DESC, last_id DESC))[1] AS level"
        " FROM step GROUP BY customer_id, series)"
        " SELECT customer_id, series, first_at, area, events, last_at, level, gap, rolled_up_to"
        " FROM mark LEFT JOIN weighed ON true",
        _mark(meter, customer, [start, end]),
        tail_events(meter, customer, start, end, hint),
        raw,
        value(end),
    )


def _dirty_events(meter: Meter, customer: Customer | None, first: datetime, last: datetime) -> Sql:
    """The rolled events of the whole hours that the tail reaches too."""
    events = compose(
        "(SELECT found.* FROM (SELECT DISTINCT customer_id, hour FROM dirty WHERE hour >= {} AND hour < {}) AS place"
        " CROSS JOIN LATERAL (SELECT * FROM meters_event WHERE customer_id = place.customer_id AND event_name = {}"
        " AND timestamp >= place.hour AND timestamp < place.hour + interval '1 hour'"
        " AND id + 0 <= (SELECT rolled_up_to FROM mark) OFFSET 0) AS found)",
        value(first),
        value(last),
        value(meter.event_name),
    )
    return counting_events(meter, customer, TRUE, source=events)


def _levels_before(
    meter: Meter, customer: Customer | None, instant: datetime, grouped: bool
) -> dict[tuple[int, tuple[str | None, ...]], Decimal]:
    """The last value before the instant, by customer and group."""
    rows = _from_watermark(meter, lambda hint: _last_before(meter, customer, instant, grouped, hint))
    if not rows and customer is not None:
        _refuse_forgotten_level(meter, customer, instant)
    return {(customer_id, tuple(keys or ())): level for customer_id, keys, level in rows}


def _refuse_forgotten_level(meter: Meter, customer: Customer, instant: datetime) -> None:
    """No level is known, and the meter was made after a month was dropped that may have held it: refuse to say 0.

    A customer who came after the drop cannot have had a level in that month, unless another meter counted them there.
    """
    forgotten = _rows(
        compose(
            "SELECT month::text FROM meters_archivedmonth AS gone WHERE dropped_at < {} AND gone.events > 0"
            " AND month < {} AND (dropped_at >= {} OR EXISTS (SELECT FROM meters_bucket"
            " WHERE meter_id IN (SELECT id FROM meters_meter) AND customer_id = {}"
            " AND date_trunc('month', hour AT TIME ZONE 'UTC')::date = month))"
            " ORDER BY month DESC LIMIT 1",
            value(meter.created_at),
            value(instant),
            value(customer.created_at),
            value(customer.pk),
        )
    )
    if forgotten:
        raise _missing_month(meter, forgotten[0][0], "late")


def _last_before(meter: Meter, customer: Customer | None, instant: datetime, grouped: bool, hint: int) -> Sql:
    split = grouped and bool(meter.group_by)
    keys = Sql("groups") if split else Sql("NULL::text[]")
    of = compose("customer_id = {} AND", value(customer.pk)) if customer is not None else Sql("")
    # A weighted sum has a series of the whole beside those of its groups.
    series = Sql("true")
    if meter.aggregation == Aggregation.WEIGHTED_SUM and meter.group_by:
        series = Sql("groups <> '{}'") if split else Sql("groups = '{}'")
    cut = [(floor_hour(instant), instant)] if floor_hour(instant) != instant else []
    parts = [
        compose(
            "SELECT customer_id, groups, last_at, last_id, last_value FROM meters_bucket"
            " WHERE meter_id = {} AND {} hour < {} AND {}",
            value(meter.pk),
            of,
            value(floor_hour(instant)),
            series,
        ),
        compose(
            "SELECT customer_id, groups, timestamp, id, value FROM ({}) AS event",
            tail_events(meter, customer, EARLIEST, instant, hint),
        ),
    ]
    if cut:
        parts.append(
            compose(
                "SELECT customer_id, groups, timestamp, id, value FROM ({}) AS event", cut_events(meter, customer, cut)
            )
        )
    return compose(
        "WITH mark AS MATERIALIZED ({}), piece AS ({}), latest AS ("
        "SELECT DISTINCT ON (customer_id, {}) customer_id, {} AS keys, last_value FROM piece"
        " ORDER BY customer_id, {}, last_at DESC, last_id DESC)"
        " SELECT customer_id, keys, last_value, gap, rolled_up_to FROM mark LEFT JOIN latest ON true",
        _mark(meter, customer, [instant, instant]),
        join(" UNION ALL ", parts),
        keys,
        keys,
        keys,
    )


def _carried(
    meter: Meter, customer: Customer | None, bounds: Sequence[datetime], grouped: bool, measured: list[Measured]
) -> list[Measured]:
    """`last` with the value carried into every window that has no event of its own."""
    levels = _levels_before(meter, customer, bounds[0], grouped)
    own = {(row.window, row.customer_id, row.groups): row for row in measured}
    every = sorted({*levels, *((row.customer_id, row.groups) for row in measured)}, key=str)
    filled = []
    for series in every:
        level = levels.get(series)
        for window in range(len(bounds) - 1):
            row = own.get((window, *series))
            if row is None and level is not None:
                row = Measured(window, *series, level, 0, None)
            if row is not None:
                level = row.quantity
                filled.append(row)
    return filled


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


def meter_activity(*, meter: Meter, customer: Customer | None = None, start: datetime, end: datetime) -> MeterActivity:
    """What became of each event that bears the meter's name; of all customers, or of one."""
    if meter.aggregation == Aggregation.COUNT:
        there, readable = TRUE, TRUE
    elif meter.aggregation == Aggregation.UNIQUE:
        # Any value can be told from another: none is unreadable.
        there = readable = present(meter.property_key)
    else:
        there, readable = present(meter.property_key), compose("({} IS NOT NULL)", number(meter.property_key))
    rows = _rows(
        compose(
            "SELECT count(*), count(*) FILTER (WHERE live AND matches AND readable),"
            " count(*) FILTER (WHERE live AND NOT matches),"
            " count(*) FILTER (WHERE live AND matches AND present AND NOT readable),"
            " count(*) FILTER (WHERE live AND matches AND NOT present), count(*) FILTER (WHERE NOT live)"
            " FROM (SELECT {} AS matches, {} AS present, {} AS readable, voided_at IS NULL AS live"
            " FROM meters_event WHERE {}) AS event",
            matches(_tree(meter)),
            there,
            readable,
            _span(event_name=meter.event_name, customer=customer, start=start, end=end),
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
    """The same for several events, read together: a stored number is read back digit for digit."""
    metadata = exact_metadata(events)
    voids = _voids(events)
    return [_judge_stored(meter, event, metadata.get(event.pk), voids.get(event.pk)) for event in events]


def event_verdicts(*, event: Event) -> list[tuple[Meter, Verdict]]:
    """What each meter makes of the event: first those that read its name, archived ones too, then the others."""
    metadata = exact_metadata([event]).get(event.pk)
    void = _voids([event]).get(event.pk)
    meters = sorted(Meter.objects.order_by("name", "pk"), key=lambda meter: meter.event_name != event.event_name)
    return [(meter, _judge_stored(meter, event, metadata, void)) for meter in meters]


def _voids(events: Sequence[Event]) -> dict[int, EventVoid]:
    voided = [event.pk for event in events if event.voided_at is not None]
    return {void.event: void for void in EventVoid.objects.filter(event__in=voided)} if voided else {}


def _judge_stored(meter: Meter, event: Event, metadata: dict[str, Any] | None, void: EventVoid | None) -> Verdict:
    if event.voided_at is not None and event.event_name == meter.event_name:
        why = f" by {void.author}: {void.reason}" if void is not None else ""
        when = event.voided_at.astimezone(UTC)
        return Verdict(Outcome.VOIDED, None, f"Voided on {when:%Y-%m-%d %H:%M} UTC{why}")
    return judge(meter=meter, event_name=event.event_name, metadata=metadata)


_BROUGHT = {
    Aggregation.SUM: "is added to the sum",
    Aggregation.MAX: "is compared with the highest value",
    Aggregation.MIN: "is compared with the lowest value",
    Aggregation.LAST: "is taken unless a later value follows",
    Aggregation.AVG: "is averaged with the others",
    Aggregation.WEIGHTED_SUM: "holds until a later value follows",
}


def judge(*, meter: Meter, event_name: str, metadata: dict[str, Any] | None) -> Verdict:
    """What the meter would make of an event with this name and metadata, stored or not."""
    if event_name != meter.event_name:
        return Verdict(
            Outcome.OTHER_NAME, None, f"The meter reads events named “{meter.event_name}”, not “{event_name}”."
        )
    tree = _tree(meter)
    if tree is not None and (why := tree.explain(metadata)):
        return Verdict(Outcome.FILTERED_OUT, None, f"Left out by the filter: {why}.")
    # Counting goes on in the archive; it bills only those who had the meter before.
    archived = " The meter is archived: only products that have it already bill it." if meter.is_archived() else ""
    if meter.aggregation == Aggregation.COUNT:
        return Verdict(Outcome.COUNTED, Decimal(1), f"Counted as 1 event.{archived}")
    key = meter.property_key
    if metadata is None or not is_present(metadata, key):
        return Verdict(Outcome.MISSING, None, f"Left out: it has no value under “{key}”.")
    given = metadata[key]
    if meter.aggregation == Aggregation.UNIQUE:
        words = f"“{read_identity(given)}” is counted once, however often it comes.{archived}"
        return Verdict(Outcome.COUNTED, Decimal(1), words)
    brought = read_number(given)
    if brought is None:
        return Verdict(Outcome.UNREADABLE, None, f"Left out: {key} is “{read_text(given)}”, which is not a number.")
    words = f"{read_text(brought)} {_BROUGHT[Aggregation(meter.aggregation)]}.{archived}"
    return Verdict(Outcome.COUNTED, brought, words)


# -- pieces --------------------------------------------------------------------------------------------------


def _tree(meter: Meter) -> FilterGroup | None:
    return None if meter.filter is None else parse_filter(meter.filter)


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
