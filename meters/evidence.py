"""What a quantity stands on: counted once more from the raw log, with a digest over the very events.

    recount = quantity + how many events + digest, as of a watermark and an instant, in one statement

A usage line keeps the evidence, so that whoever asks later can count again and compare. Three things pin down which
events those are, whatever arrives or is voided afterwards:

* the **watermark**, an id of the log. It is *settled*: when it was taken, every event with an id up to it that ever
  becomes visible was visible. An id is not commit order, so "the newest id" alone would not do: a batch that took lower
  ids may commit later. What lies above the watermark came later and does not belong to it;
* the **instant** at which voids are looked at: an event that was voided then, or later, still counted;
* the **meter version**, a digest of the meter's definition, which never changes once a meter is made.

The digest is the sum over the events of SHA-256(id, time, value), taken as four numbers of 64 bits that each wrap
around. A sum has no order, and the digests of two disjoint sets add up to that of both, so it could come from buckets
one day. No accident and no plain tampering goes unseen: two sets of events that were not made for it agree by chance
once in 2^256. It is no signature: someone who may write the log and is ready to compute for it can find other events
of the same sum (some 2^32 steps, with tens of thousands of events of their own making), and could rewrite the invoice
as well. Against that keep copies elsewhere.

For a level that is carried forward, the events are those of the period and the last one before it, of each value of
the meter's group keys: it is what held when the period began.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, LiteralString

from django.db import connection, transaction
from django.db.models import Max

from customers.errors import Conflict
from customers.models import Customer
from meters.aggregation import EXACT, SECONDS_PER_HOUR, ZERO, ratio
from meters.ingestion import EARLIEST
from meters.models import Aggregation, Meter
from meters.partitions import MonthArchived, month_of
from meters.rollups import settled_event_id
from meters.sql import TRUE, Sql, compose, join, value
from meters.usage import counting_events

# A batch takes seconds at most; one that hangs must not hold up whoever closes a period for ever.
PATIENCE_SECONDS = 20.0
# Above every id: a recount up to here is of all that is visible, and no evidence.
NEWEST = 2**62
_LANES = 4
_WRAP = 2**64


class IngestionBusy(Conflict):
    """A batch of events is being stored and does not end: nobody can say yet what lies below its ids."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What an invoice line keeps of the events it stands on."""

    meter_version: str
    watermark: int
    events: int
    digest: str


@dataclass(frozen=True, slots=True)
class Group:
    """What was counted of one value of the meter's group keys. Without grouping there is one, of no keys."""

    groups: tuple[str | None, ...]
    quantity: Decimal
    # Those inside the period; what held before it is not among them.
    events: int


@dataclass(frozen=True, slots=True)
class Recount:
    """A quantity from the raw log, by group where that was asked for, and the events behind it."""

    groups: tuple[Group, ...]
    evidence: Evidence

    @property
    def quantity(self) -> Decimal:
        """The groups' sum; 0 without a single event."""
        total = ZERO
        for group in self.groups:
            total = EXACT.add(total, group.quantity)
        return total

    @property
    def events(self) -> int:
        return sum(group.events for group in self.groups)


# -- what it is of -------------------------------------------------------------------------------------------


def meter_version(meter: Meter) -> str:
    """A short digest of what the meter counts; the same for two meters that count the same."""
    definition = [
        meter.event_name,
        meter.aggregation,
        meter.property_key,
        meter.filter,
        list(meter.group_by),
        meter.carry_forward,
    ]
    text = json.dumps(definition, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def known_watermark() -> int:
    """A settled id that is at hand: how far the buckets are. It waits for nobody, and may lie a little back."""
    return Meter.objects.aggregate(last=Max("rolled_up_to"))["last"] or 0


def newest_watermark() -> int:
    """The newest settled id: waits for the batches that are being stored, IngestionBusy if one does not end."""
    settled = settled_event_id(patience=PATIENCE_SECONDS)
    if settled is None:
        raise IngestionBusy("Events are being stored that take long; try again in a moment.")
    return settled


# -- counting again ------------------------------------------------------------------------------------------


def evidence(
    *,
    meter: Meter,
    customer: Customer,
    start: datetime,
    end: datetime,
    up_to: int | None = None,
    voided_before: datetime | None = None,
) -> Evidence:
    """What the quantity of the span stands on; MonthArchived where the log no longer holds all of it."""
    return recount(
        meter=meter, customer=customer, start=start, end=end, up_to=up_to, voided_before=voided_before
    ).evidence


def recount(
    *,
    meter: Meter,
    customer: Customer,
    start: datetime,
    end: datetime,
    up_to: int | None = None,
    voided_before: datetime | None = None,
    keys: Sequence[str] | None = None,
) -> Recount:
    """Count the span again, event by event, without the buckets; in one statement, so of one snapshot.

    `up_to` is a settled watermark, the newest one if left out. With `voided_before` events that were voided at that
    instant or later still count. `keys`, out of the meter's group keys, split the quantity by their values. Costs as
    much as there are events: `docs/performance.md`.
    """
    if up_to is None:
        up_to = newest_watermark()
    level = meter.aggregation == Aggregation.WEIGHTED_SUM or meter.carry_forward
    statement = _level_statement if level else _statement
    with connection.cursor() as cursor:
        counted = statement(meter, _events(meter, customer, start, end, up_to, voided_before), start, end, keys)
        sql = compose(
            "SELECT counted.*, ({}) AS gap FROM ({}) AS counted", _gap(meter, customer, start, end, up_to), counted
        )
        cursor.execute(sql.text, sql.params)
        rows = cursor.fetchall()
    _refuse(rows[0][-1])
    lanes, events = [0] * _LANES, 0
    groups = []
    for split, names, quantity, inside, every, *sums in rows:
        if not split:
            # One such row always comes: the whole, which the digest is of.
            events, lanes = int(every), [int(lane or 0) for lane in sums[:_LANES]]
        if split == (keys is not None) and every:
            exact = ZERO if quantity is None else quantity
            if meter.aggregation == Aggregation.WEIGHTED_SUM:
                exact = ratio(exact, SECONDS_PER_HOUR)
            groups.append(Group(tuple(names or ()), exact, int(inside)))
    groups.sort(key=lambda group: str(group.groups))
    return Recount(tuple(groups), Evidence(meter_version(meter), up_to, events, _digest(lanes)))


def _digest(lanes: Iterable[int]) -> str:
    return "".join(f"{lane % _WRAP:016x}" for lane in lanes)


# -- the very events -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CountedEvent:
    """One event behind a quantity: `value` is what the meter reads in it (1 for count), `text` what it is told by.

    The quantity is the sum of what the events bring (`added_up`). Of those that are compared, the one that is taken
    brings its value and the others 0; of equal ones for `unique`, the first brings 1.
    """

    id: int
    event_id: str
    timestamp: datetime
    value: Decimal
    text: str | None
    groups: tuple[str | None, ...]
    # It lies before the period, and held when it began.
    before: bool
    voided_at: datetime | None
    brings: Decimal


def added_up(meter: Meter, brought: Decimal, events: int) -> Decimal:
    """The quantity that so many events make which together bring so much. Without keys: of the whole."""
    if meter.aggregation == Aggregation.AVG:
        return ratio(brought, events) if events else ZERO
    # It brings value times seconds.
    return ratio(brought, SECONDS_PER_HOUR) if meter.aggregation == Aggregation.WEIGHTED_SUM else brought


def counted_events(
    *,
    meter: Meter,
    customer: Customer,
    start: datetime,
    end: datetime,
    up_to: int,
    voided_before: datetime | None = None,
    keys: Sequence[str] | None = None,
    after: tuple[datetime, int] | None = None,
    limit: int | None = None,
) -> Iterator[CountedEvent]:
    """The events that `recount` counts, oldest first; `after` (time, id) goes on behind one.

    With `keys` each of their values is a quantity of its own, and an event is compared with those of its value.

    Without `limit` they come one piece after the other from a cursor on the server, so that memory does not depend on
    how many there are; read them to the end, or close the iterator.
    """
    _refuse_missing(meter, customer, start, end, up_to)
    alone = meter.aggregation in EACH_ALONE
    # Where each event stands for itself, the pages before are not read.
    rows = _events(meter, customer, start, end, up_to, voided_before, since=after[0] if after and alone else None)
    where = TRUE if after is None else compose("(timestamp, id) > ({}, {}::bigint)", value(after[0]), value(after[1]))
    sql = compose(
        "SELECT event.id, log.event_id, event.timestamp, event.value, event.text, event.groups, event.before,"
        " log.voided_at, event.brings FROM (SELECT * FROM (SELECT *, {} AS brings FROM (SELECT *, {} AS names"
        " FROM ({}) AS event) AS event) AS event WHERE {} ORDER BY timestamp, id LIMIT {}) AS event"
        " LEFT JOIN LATERAL (SELECT event_id, voided_at FROM meters_event WHERE meters_event.id = event.id"
        " AND meters_event.timestamp = event.timestamp) AS log ON true ORDER BY event.timestamp, event.id",
        Sql("value") if alone else _brings(meter, start, end),
        Sql("NULL::text[]") if keys is None else _names(meter, keys),
        rows,
        where,
        value(limit),
    )
    if limit is not None:
        with connection.cursor() as cursor:
            cursor.execute(sql.text, sql.params)
            found = cursor.fetchall()
        yield from (_counted(row) for row in found)
        return
    with transaction.atomic(), connection.chunked_cursor() as cursor:
        cursor.execute(sql.text, sql.params)
        # From here on no month can leave; one that just did is noticed now.
        _refuse_missing(meter, customer, start, end, up_to)
        while piece := cursor.fetchmany(2000):
            yield from (_counted(row) for row in piece)


# What one event brings does not depend on the others.
EACH_ALONE = (Aggregation.COUNT, Aggregation.SUM, Aggregation.AVG)
_TAKEN: dict[str, LiteralString] = {
    Aggregation.MAX: "value DESC, timestamp, id",
    Aggregation.MIN: "value, timestamp, id",
    Aggregation.LAST: "timestamp DESC, id DESC",
}


def _brings(meter: Meter, start: datetime, end: datetime) -> Sql:
    if meter.aggregation == Aggregation.WEIGHTED_SUM:
        return compose(
            "value * extract(epoch FROM greatest(lead(timestamp, 1, {}) OVER ("
            "PARTITION BY names ORDER BY timestamp, id), {}) - greatest(timestamp, {}))",
            value(end),
            value(start),
            value(start),
        )
    if meter.aggregation == Aggregation.UNIQUE:
        return Sql(
            "CASE WHEN row_number() OVER (PARTITION BY names, text ORDER BY timestamp, id) = 1"
            " THEN 1::numeric ELSE 0::numeric END"
        )
    return compose(
        "CASE WHEN row_number() OVER (PARTITION BY names ORDER BY {}) = 1 THEN value ELSE 0::numeric END",
        Sql(_TAKEN[meter.aggregation]),
    )


def _counted(row: tuple[Any, ...]) -> CountedEvent:
    pk, event_id, timestamp, number, text, groups, before, voided_at, brings = row
    return CountedEvent(pk, event_id or "", timestamp, number, text, tuple(groups or ()), before, voided_at, brings)


def event_values(
    *,
    meter: Meter,
    customer: Customer,
    start: datetime,
    end: datetime,
    up_to: int = NEWEST,
    voided_before: datetime | None = None,
) -> list[tuple[tuple[str | None, ...], Decimal]]:
    """What each event of the span brings, in the order of (time, id), with its group values; nothing from before."""
    _refuse_missing(meter, customer, start, end, up_to)
    where = compose(
        "event_name = {} AND timestamp >= {} AND timestamp < {} AND id + 0 <= {}",
        value(meter.event_name),
        value(start),
        value(end),
        value(up_to),
    )
    events = counting_events(meter, customer, where, live=_live(voided_before))
    sql = compose("SELECT groups, value FROM ({}) AS event ORDER BY timestamp, id", events)
    with connection.cursor() as cursor:
        cursor.execute(sql.text, sql.params)
        return [(tuple(groups or ()), number) for groups, number in cursor.fetchall()]


@dataclass(frozen=True, slots=True)
class Since:
    """What became of a span's events since a watermark and an instant.

    `gone` counted then and do not now: voided, or, of what held before the period, no longer the last. `came` are those
    that count now and did not then.
    """

    gone: int
    came: int


def changed_since(
    *, meter: Meter, customer: Customer, start: datetime, end: datetime, up_to: int, voided_before: datetime
) -> Since:
    """How the events behind a quantity differ from those that it was billed by; all is looked at in one statement."""
    then = _events(meter, customer, start, end, up_to, voided_before)
    today = _events(meter, customer, start, end, NEWEST, None)
    sql = compose(
        "WITH past AS MATERIALIZED (SELECT id FROM ({}) AS event), today AS MATERIALIZED (SELECT id FROM ({}) AS event)"
        " SELECT (SELECT count(*) FROM past WHERE NOT EXISTS (SELECT FROM today WHERE today.id = past.id)),"
        " (SELECT count(*) FROM today WHERE NOT EXISTS (SELECT FROM past WHERE past.id = today.id))",
        then,
        today,
    )
    with connection.cursor() as cursor:
        cursor.execute(sql.text, sql.params)
        return Since(*cursor.fetchone())


def void_instants(
    *, meter: Meter, customer: Customer, start: datetime, end: datetime, up_to: int, near: datetime, limit: int
) -> list[datetime]:
    """When events of the span were voided, the instants nearest to `near` first.

    A void is written with the clock of whoever voids and seen when it commits, so which of two near instants came first
    is not always what the clocks say.
    """
    where = compose(
        "event_name = {} AND timestamp >= {} AND timestamp < {} AND id + 0 <= {}",
        value(meter.event_name),
        value(_earliest(meter, start)),
        value(end),
        value(up_to),
    )
    sql = compose(
        "SELECT DISTINCT voided_at, abs(extract(epoch FROM voided_at - {})) AS distance FROM meters_event"
        " WHERE customer_id = {} AND {} AND voided_at IS NOT NULL ORDER BY distance LIMIT {}",
        value(near),
        value(customer.pk),
        where,
        value(limit),
    )
    with connection.cursor() as cursor:
        cursor.execute(sql.text, sql.params)
        return [instant for instant, _ in cursor.fetchall()]


def _earliest(meter: Meter, start: datetime) -> datetime:
    """From where on an event can matter to a span that begins at `start`."""
    return EARLIEST if meter.carry_forward else start


# -- the statements ------------------------------------------------------------------------------------------


def _events(
    meter: Meter,
    customer: Customer,
    start: datetime,
    end: datetime,
    up_to: int,
    voided_before: datetime | None,
    *,
    since: datetime | None = None,
) -> Sql:
    """What counts in the span, and before it for a level that is carried forward, with a column that tells which.

    The id is compared in a way no index serves, so that the events are read by customer, name and time. Those before
    `since` may be left out.
    """
    live = _live(voided_before)
    here = compose("event_name = {} AND id + 0 <= {}", value(meter.event_name), value(up_to))
    inside = compose("{} AND timestamp >= {} AND timestamp < {}", here, value(max(start, since or start)), value(end))
    events = compose(
        "SELECT groups, timestamp, id, value, text, false AS before FROM ({}) AS inside",
        counting_events(meter, customer, inside, live=live),
    )
    if not meter.carry_forward or (since is not None and since >= start):
        return events
    earlier = compose("{} AND timestamp < {}", here, value(start))
    candidates = [
        # One group needs one event: found from the end of an index. Several are sorted out below.
        compose(
            "(SELECT groups, timestamp, id, value FROM ({}) AS earlier{})",
            counting_events(meter, customer, earlier, live=live),
            Sql("" if meter.group_by else " ORDER BY timestamp DESC, id DESC LIMIT 1"),
        ),
        # What a dropped month ended with is known from its buckets. A weighted sum has one of the whole beside them.
        compose(
            "SELECT groups, last_at, last_id, last_value FROM meters_bucket WHERE meter_id = {} AND customer_id = {}"
            " AND hour < {} AND {} AND date_trunc('month', hour AT TIME ZONE 'UTC')::date IN"
            " (SELECT month FROM meters_archivedmonth WHERE dropped_at IS NOT NULL)",
            value(meter.pk),
            value(customer.pk),
            value(start),
            Sql("groups <> '{}'") if meter.group_by else Sql("groups = '{}'"),
        ),
    ]
    return compose(
        "{} UNION ALL (SELECT DISTINCT ON (groups) groups, timestamp, id, value, NULL::text, true AS before"
        " FROM ({}) AS held ORDER BY groups, timestamp DESC, id DESC)",
        events,
        join(" UNION ALL ", candidates),
    )


def _live(voided_before: datetime | None) -> Sql:
    """Which events were not void: as of now, or as of an instant."""
    if voided_before is None:
        return Sql("voided_at IS NULL")
    return compose("(voided_at IS NULL OR voided_at >= {})", value(voided_before))


# An id and an instant have eight bytes each; a number has no blank, and an array's text ends where its brace closes.
_HASH: LiteralString = (
    "sha256(int8send(id) || timestamptz_send(timestamp) || convert_to("
    "trim_scale(value)::text || ' ' || groups::text || ' ' || coalesce(text, ''), 'UTF8'))"
)


def _lanes() -> Sql:
    return Sql(
        ", ".join(
            f"sum(('x' || substr(hash, {16 * lane + 1}, 16))::bit(64)::bigint) AS lane{lane}" for lane in range(_LANES)
        )
    )


def _hashed(events: Sql) -> Sql:
    # OFFSET 0 keeps PostgreSQL from hashing once for each lane.
    return compose("SELECT *, encode({}, 'hex') AS hash FROM ({}) AS event OFFSET 0", Sql(_HASH), events)


_QUANTITY: dict[str, LiteralString] = {
    Aggregation.COUNT: "count(*)::numeric",
    Aggregation.SUM: "sum(value)",
    Aggregation.MIN: "min(value)",
    Aggregation.MAX: "max(value)",
    # Arrays compare element by element; no list of all the values is built.
    Aggregation.LAST: "(max(ARRAY[extract(epoch FROM timestamp), id, value]))[3]",
    Aggregation.UNIQUE: "count(DISTINCT text)::numeric",
    # Half away from zero at 12 decimals, as meters.usage has it.
    Aggregation.AVG: (
        "sign(sum(value)) * div(abs(sum(value)) * 2000000000000 + count(*), 2 * count(*)) * 0.000000000001"
    ),
}


def _names(meter: Meter, keys: Sequence[str]) -> Sql:
    """The values of these keys, in their order, out of the column `groups`."""
    places = [meter.group_by.index(key) + 1 for key in keys]
    return compose("ARRAY[{}]::text[]", join(", ", [compose("groups[{}::int]", value(place)) for place in places]))


def _statement(meter: Meter, events: Sql, start: datetime, end: datetime, keys: Sequence[str] | None) -> Sql:
    sets = Sql("()") if keys is None else Sql("(), (names)")
    return compose(
        "SELECT {}, {} AS quantity, count(*), count(*), {} FROM (SELECT *, {} AS names FROM ({}) AS hashed) AS event"
        " GROUP BY GROUPING SETS ({})",
        Sql("false, NULL::text[]") if keys is None else Sql("GROUPING(names) = 0, names"),
        Sql(_QUANTITY[meter.aggregation]),
        _lanes(),
        Sql("NULL::text[]") if keys is None else _names(meter, keys),
        _hashed(events),
        sets,
    )


def _level_statement(meter: Meter, events: Sql, start: datetime, end: datetime, keys: Sequence[str] | None) -> Sql:
    """The whole, and each series of the keys: an event of one series ends what another began only in the whole."""
    parts = [_series(meter, Sql("NULL::text[]"), split=False, end=end, start=start)]
    if keys is not None:
        parts.append(_series(meter, _names(meter, keys), split=True, end=end, start=start))
    return compose(
        "WITH hashed AS MATERIALIZED ({}) {}",
        _hashed(events),
        join(" UNION ALL ", parts),
    )


def _series(meter: Meter, names: Sql, *, split: bool, start: datetime, end: datetime) -> Sql:
    quantity: LiteralString = _QUANTITY[Aggregation.LAST]
    if meter.aggregation == Aggregation.WEIGHTED_SUM:
        # In value times seconds. What held before holds from the start on; of two of those the later one counts.
        quantity = "sum(value * extract(epoch FROM following - since))"
    return compose(
        "SELECT {} AS names, {} AS quantity, count(*) FILTER (WHERE NOT before), count(*), {}"
        " FROM (SELECT *, greatest(timestamp, {}) AS since, greatest(lead(timestamp, 1, {}) OVER ("
        "PARTITION BY names ORDER BY timestamp, id), {}) AS following"
        " FROM (SELECT *, {} AS names FROM hashed) AS named) AS step{}",
        Sql("true AS split, names" if split else "false AS split, NULL::text[]"),
        Sql(quantity),
        _lanes(),
        value(start),
        value(end),
        value(start),
        names,
        Sql(" GROUP BY names" if split else ""),
    )


# -- months that left the log --------------------------------------------------------------------------------


def _gap(meter: Meter, customer: Customer, start: datetime, end: datetime, up_to: int) -> Sql:
    """The first month that counting event by event needs and that is no longer in the log.

    That is every month of the span. What a level held before it may come from the buckets of a dropped month, unless
    these hold something that came after the watermark.
    """
    first = month_of(start).isoformat()
    earlier = Sql("false")
    if meter.carry_forward:
        earlier = compose(
            "month < {}::date AND EXISTS (SELECT FROM meters_bucket WHERE meter_id = {} AND customer_id = {}"
            " AND last_id > {} AND date_trunc('month', hour AT TIME ZONE 'UTC')::date = month)",
            value(first),
            value(meter.pk),
            value(customer.pk),
            value(up_to),
        )
    return compose(
        "SELECT month::text FROM meters_archivedmonth WHERE dropped_at IS NOT NULL AND meters_archivedmonth.events > 0"
        " AND ((month >= {}::date AND month <= {}::date) OR ({})) ORDER BY month LIMIT 1",
        value(first),
        value(month_of(max(start, end - timedelta(microseconds=1))).isoformat()),
        earlier,
    )


def _refuse_missing(meter: Meter, customer: Customer, start: datetime, end: datetime, up_to: int) -> None:
    with connection.cursor() as cursor:
        sql = _gap(meter, customer, start, end, up_to)
        cursor.execute(sql.text, sql.params)
        found = cursor.fetchone()
    _refuse(found[0] if found else None)


def _refuse(month: str | None) -> None:
    if month is not None:
        raise MonthArchived(
            f"{date.fromisoformat(month):%B %Y} was archived and dropped. Restore it to count its events one by one."
        )
