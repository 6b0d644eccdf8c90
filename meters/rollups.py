"""Buckets: the log added up per meter, customer, hour and group, as far as the meter's watermark.

    quantity = buckets up to the watermark + the raw events behind it        (meters.usage, one statement)

The roller moves a meter's watermark and its buckets in one transaction, under the lock of the meter's row. Ingestion
never touches either.

The watermark may pass an id only when no transaction that could still commit a lower one is alive, because a sequence
is not commit order. Every transaction holds the writers' lock before it takes its first id (meters.ingestion), so: read
the sequence, then see who holds the lock, then wait until those are over. Only event ids are kept; what identifies a
transaction does not survive a dump and restore.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString

from django.db import connection, transaction

from meters.filters import parse_filter
from meters.ingestion import wait_for_writers
from meters.models import Aggregation, Meter
from meters.sql import Sql, canonical, compose, groups, matches, reading, value

# Ids rolled in one transaction: enough to be quick, little enough to be short.
CHUNK = 500_000
# How long one round waits for writers older than it; a writer that hangs delays the watermark, never a reader.
PATIENCE_SECONDS = 2.0
BUSY_SECONDS = 20.0
REST_SECONDS = 0.3
# Any constant will do; it only has to differ from the other advisory locks of this software.
ROLLER_LOCK = 0x4D425F524F4C4C31


@dataclass(frozen=True, slots=True)
class Hour:
    """One bucket's place, without the meter: a customer and the hour's beginning (UTC)."""

    customer_id: int
    hour: datetime


# -- how far it is safe to go --------------------------------------------------------------------------------


def newest_event_id() -> int:
    """The last id given out, whether or not its transaction has committed."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_sequence_last_value(pg_get_serial_sequence('meters_event', 'id')::regclass)")
        (last,) = cursor.fetchone()
    return int(last or 0)


def settled_event_id(*, patience: float | None = PATIENCE_SECONDS) -> int | None:
    """An id that no event yet to become visible will lie at or below; None where a writer would not finish in time."""
    newest = newest_event_id()
    return newest if wait_for_writers(patience=patience) else None


# -- rolling -------------------------------------------------------------------------------------------------


def roll_up(*, patience: float | None = PATIENCE_SECONDS) -> int:
    """Bring every meter's buckets up to what is settled. Returns how many ids the furthest meter moved over."""
    settled = settled_event_id(patience=patience)
    if settled is None:
        return 0
    furthest = 0
    behind = Meter.objects.filter(rolled_up_to__lt=settled).order_by("pk").values_list("pk", flat=True)
    for pk in list(behind):
        moved = 0
        while step := roll_meter(meter_id=pk, settled=settled):
            moved += step
        furthest = max(furthest, moved)
    return furthest


def keep_rolled_up(*, seconds: float = BUSY_SECONDS) -> None:
    """Roll up until nothing new comes, `seconds` at the longest. One process at a time does so; another returns."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [ROLLER_LOCK])
        if not cursor.fetchone()[0]:
            return
        try:
            begun = time.monotonic()
            while roll_up() and time.monotonic() - begun < seconds:
                # A short rest: fewer, larger steps cost less than many small ones.
                time.sleep(REST_SECONDS)
        finally:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [ROLLER_LOCK])


def roll_meter(*, meter_id: int, settled: int, chunk: int = CHUNK) -> int:
    """One step of one meter, in one transaction. Returns how many ids it moved over; 0 when it is there, or busy."""
    with transaction.atomic():
        meter = Meter.objects.select_for_update(skip_locked=True).filter(pk=meter_id).first()
        if meter is None or meter.rolled_up_to >= settled:
            return 0
        upto = min(settled, meter.rolled_up_to + chunk)
        _add(meter, after=meter.rolled_up_to, upto=upto)
        Meter.objects.filter(pk=meter_id).update(rolled_up_to=upto)
        return upto - meter.rolled_up_to


def _add(meter: Meter, *, after: int, upto: int) -> None:
    """Merge the events with ids in (after, upto] into the buckets."""
    ids = compose("id > {} AND id <= {}", value(after), value(upto))
    if meter.aggregation == Aggregation.WEIGHTED_SUM:
        # Where events arrive out of order, the state of an hour cannot be merged: count the touched hours again.
        touched = _fetch(compose("SELECT DISTINCT customer_id, hour FROM ({}) AS event", _events(meter, ids)))
        recompute(meter=meter, hours=[Hour(customer, hour) for customer, hour in touched], upto=upto)
        return
    _insert(meter, _events(meter, ids))


def recompute(*, meter: Meter, hours: Sequence[Hour], upto: int) -> None:
    """Count these hours again from the log, up to the id `upto`. The meter's row must be locked."""
    if not hours:
        return
    places = compose(
        "SELECT DISTINCT customer_id, hour FROM unnest({}::bigint[], {}::timestamptz[]) AS place (customer_id, hour)",
        value([place.customer_id for place in hours]),
        value([place.hour for place in hours]),
    )
    for table in _TABLES:
        _execute(
            compose(
                "DELETE FROM {} AS old USING ({}) AS place WHERE old.meter_id = {}"
                " AND old.customer_id = place.customer_id AND old.hour = place.hour",
                table,
                places,
                value(meter.pk),
            )
        )
    # The places drive: each is a short range of the index (customer, event name, timestamp).
    inside = compose(
        "id <= {} AND EXISTS (SELECT FROM ({}) AS place WHERE place.customer_id = meters_event.customer_id"
        " AND meters_event.timestamp >= place.hour AND meters_event.timestamp < place.hour + interval '1 hour')"
        " AND customer_id = ANY({}::bigint[]) AND timestamp >= {} AND timestamp < {}::timestamptz + interval '1 hour'",
        value(upto),
        places,
        value(sorted({place.customer_id for place in hours})),
        value(min(place.hour for place in hours)),
        value(max(place.hour for place in hours)),
    )
    events = _events(meter, inside)
    if meter.aggregation == Aggregation.WEIGHTED_SUM:
        _insert_levels(meter, events)
    else:
        _insert(meter, events)


def rebuild(*, meter: Meter) -> None:
    """Forget the meter's buckets and start again at zero; readers stay exact, and slower, until it has caught up."""
    with transaction.atomic():
        locked = Meter.objects.select_for_update().get(pk=meter.pk)
        for table in _TABLES:
            _execute(compose("DELETE FROM {} WHERE meter_id = {}", table, value(locked.pk)))
        Meter.objects.filter(pk=locked.pk).update(rolled_up_to=0, rebuilds=locked.rebuilds + 1)
    meter.refresh_from_db(fields=["rolled_up_to", "rebuilds"])


# -- the statements ------------------------------------------------------------------------------------------

_TABLES = (Sql("meters_bucket"), Sql("meters_bucketvalue"))


def _events(meter: Meter, which: Sql) -> Sql:
    """The meter's events among `which`, with what each brings to its bucket."""
    tree = None if meter.filter is None else parse_filter(meter.filter)
    text = canonical(meter.property_key) if meter.aggregation == Aggregation.UNIQUE else Sql("NULL::text")
    rows = compose(
        "SELECT customer_id, date_trunc('hour', timestamp, 'UTC') AS hour, {} AS groups, timestamp, id,"
        " {} AS value, {} AS text FROM meters_event"
        " WHERE event_name = {} AND voided_at IS NULL AND {} AND {}",
        groups(meter),
        reading(meter),
        text,
        value(meter.event_name),
        which,
        matches(tree),
    )
    return compose("SELECT * FROM ({}) AS reading WHERE value IS NOT NULL", rows)


_EMPTY: dict[str, LiteralString] = {
    "total": "0",
    "lowest": "NULL::numeric",
    "highest": "NULL::numeric",
    "last_id": "NULL::bigint",
    "last_value": "NULL::numeric",
}
_STATE: dict[str, dict[str, LiteralString]] = {
    Aggregation.COUNT: {},
    Aggregation.UNIQUE: {},
    Aggregation.SUM: {"total": "sum(value)"},
    Aggregation.AVG: {"total": "sum(value)"},
    Aggregation.MIN: {"lowest": "min(value)"},
    Aggregation.MAX: {"highest": "max(value)"},
    Aggregation.LAST: {
        "last_id": "(array_agg(id ORDER BY timestamp DESC, id DESC))[1]",
        "last_value": "(array_agg(value ORDER BY timestamp DESC, id DESC))[1]",
    },
}


def _insert(meter: Meter, events: Sql) -> None:
    state = {**_EMPTY, **_STATE[meter.aggregation]}
    columns = join_names(state)
    _execute(
        compose(
            "INSERT INTO meters_bucket AS old"
            " (meter_id, customer_id, hour, groups, events, first_at, last_at,"
            " total, lowest, highest, last_id, last_value)"
            " SELECT {}, customer_id, hour, groups, count(*), min(timestamp), max(timestamp), {}"
            " FROM ({}) AS event GROUP BY customer_id, hour, groups ORDER BY customer_id, hour, groups"
            " ON CONFLICT (meter_id, customer_id, hour, groups) DO UPDATE SET"
            " events = old.events + excluded.events, total = old.total + excluded.total,"
            " lowest = least(old.lowest, excluded.lowest), highest = greatest(old.highest, excluded.highest),"
            " first_at = least(old.first_at, excluded.first_at), last_at = greatest(old.last_at, excluded.last_at),"
            " last_id = CASE WHEN (excluded.last_at, excluded.last_id) > (old.last_at, old.last_id)"
            " THEN excluded.last_id ELSE old.last_id END,"
            " last_value = CASE WHEN (excluded.last_at, excluded.last_id) > (old.last_at, old.last_id)"
            " THEN excluded.last_value ELSE old.last_value END",
            value(meter.pk),
            columns,
            events,
        )
    )
    if meter.aggregation == Aggregation.UNIQUE:
        _execute(
            compose(
                "INSERT INTO meters_bucketvalue (meter_id, customer_id, hour, groups, value)"
                " SELECT DISTINCT {}::bigint, customer_id, hour, groups, text FROM ({}) AS event"
                " ORDER BY 2, 3, 4, 5 ON CONFLICT DO NOTHING",
                value(meter.pk),
                events,
            )
        )


def join_names(state: dict[str, LiteralString]) -> Sql:
    return Sql(", ".join(state[name] for name in ("total", "lowest", "highest", "last_id", "last_value")))


def _insert_levels(meter: Meter, events: Sql) -> None:
    """A weighted sum keeps the step function of each hour: of the whole, and of each group where there are groups.

    The whole is not the sum of its groups: an event of one group ends what the other's event began.
    """
    for column in ("'{}'::text[]", "groups") if meter.group_by else ("'{}'::text[]",):
        _execute(
            compose(
                "INSERT INTO meters_bucket"
                " (meter_id, customer_id, hour, groups, events, total, first_at, last_at, last_id, last_value, area)"
                " SELECT {}::bigint, customer_id, hour, series, count(*), 0, min(timestamp), max(timestamp),"
                " (array_agg(id ORDER BY timestamp DESC, id DESC))[1],"
                " (array_agg(value ORDER BY timestamp DESC, id DESC))[1],"
                " coalesce(sum(value * extract(epoch FROM following - timestamp)), 0)"
                " FROM (SELECT event.*, {} AS series, lead(timestamp) OVER ("
                "PARTITION BY customer_id, hour, {} ORDER BY timestamp, id) AS following FROM ({}) AS event) AS step"
                " GROUP BY customer_id, hour, series ORDER BY customer_id, hour, series",
                value(meter.pk),
                Sql(column),
                Sql(column),
                events,
            )
        )


def _execute(sql: Sql) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql.text, sql.params)


def _fetch(sql: Sql) -> list[tuple[int, datetime]]:
    with connection.cursor() as cursor:
        cursor.execute(sql.text, sql.params)
        return list(cursor.fetchall())
