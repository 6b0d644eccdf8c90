"""Buckets: the log added up per meter, customer, hour and group, as far as the meter's watermark.

    quantity = buckets up to the watermark + the raw events behind it        (meters.usage, one statement)

The roller moves a meter's watermark and its buckets in one transaction, under the lock of the meter's row. Ingestion
never touches either.

The watermark may pass an id only when no transaction that could still commit a lower one is alive, because a sequence
is not commit order. Every transaction holds the writers' lock before it takes its first id (meters.ingestion), so: read
the sequence, then see who holds the lock, then wait until those are over. Only event ids are kept; what identifies a
transaction does not survive a dump and restore.
"""

import logging
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import LiteralString

from django.db import InterfaceError, OperationalError, connection, transaction

from meters.filters import parse_filter
from meters.ingestion import wait_for_writers
from meters.models import Aggregation, ArchivedMonth, Meter
from meters.partitions import MonthArchived, dropped_months, month_of
from meters.sql import Sql, canonical, compose, groups, join, matches, reading, value

logger = logging.getLogger(__name__)

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


def roll_up(*, patience: float | None = PATIENCE_SECONDS, seconds: float = BUSY_SECONDS) -> int:
    """Move every meter's buckets one step towards what is settled. Returns the longest step, in ids.

    One step only: what is settled is read again before the next, so that a meter with the whole log to read keeps no
    other from what came meanwhile. After `seconds` no further step is begun. A meter that cannot be counted is written
    down (`Meter.roll_failure`) and stops nobody else.
    """
    settled = settled_event_id(patience=patience)
    if settled is None:
        return 0
    begun, longest = time.monotonic(), 0
    # Meters at one place share the reading of the log. Those with the shortest way come first.
    together: dict[tuple[str, int], list[int]] = {}
    behind = Meter.objects.filter(rolled_up_to__lt=settled).order_by("-rolled_up_to", "pk")
    for pk, event_name, place in behind.values_list("pk", "event_name", "rolled_up_to"):
        together.setdefault((event_name, place), []).append(pk)
    waiting = deque(together.values())
    while waiting and (not longest or time.monotonic() - begun < seconds):
        meter_ids = waiting.popleft()
        try:
            longest = max(longest, roll_meters(meter_ids=meter_ids, settled=settled))
        except Exception as error:
            if _concerns_everybody(error):
                raise
            if len(meter_ids) > 1:
                # Who of them it is shows one by one.
                waiting.extendleft([pk] for pk in reversed(meter_ids))
            else:
                _write_down(error, meter_ids[0])
    return longest


# Classes of SQLSTATE: connections, resources, a server that goes down, and the system under it.
_EVERYBODY = ("08", "53", "57P", "58")


def _concerns_everybody(error: Exception) -> bool:
    """Whether the database has a trouble that no other meter would escape."""
    if isinstance(error, InterfaceError):
        return True
    state = getattr(error.__cause__, "sqlstate", None)
    return isinstance(error, OperationalError) and (state is None or state.startswith(_EVERYBODY))


def _write_down(error: Exception, meter_id: int) -> None:
    words = (str(error).splitlines() or [type(error).__name__])[0][:500]
    news = Meter.objects.filter(pk=meter_id).exclude(roll_failure=words).update(roll_failure=words)
    if news:
        # Each round fails again; once is enough.
        logger.error("Meter %s cannot be rolled up", meter_id, exc_info=error)


def stuck_meters() -> list[Meter]:
    """The meters whose watermark stands still, with why in `roll_failure`."""
    return list(Meter.objects.exclude(roll_failure="").order_by("pk"))


def keep_rolled_up(*, seconds: float = BUSY_SECONDS) -> None:
    """Roll up until nothing new comes, `seconds` at the longest. One process at a time does so; another returns."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [ROLLER_LOCK])
        if not cursor.fetchone()[0]:
            return
        try:
            begun = time.monotonic()
            while moved := roll_up(seconds=seconds):
                if time.monotonic() - begun >= seconds:
                    break
                if moved < CHUNK:
                    # A short rest: fewer, larger steps cost less than many small ones.
                    time.sleep(REST_SECONDS)
        finally:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [ROLLER_LOCK])


def roll_meter(*, meter_id: int, settled: int, chunk: int | None = None) -> int:
    """One step of one meter. Returns how many ids it moved over; 0 when it is there, or busy."""
    return roll_meters(meter_ids=[meter_id], settled=settled, chunk=chunk)


def roll_meters(*, meter_ids: Sequence[int], settled: int, chunk: int | None = None) -> int:
    """One step of several meters, in one transaction. Returns the longest step, in ids.

    Meters that read one event name and stand at one place share the reading of the log.
    """
    longest = 0
    with transaction.atomic():
        meters = Meter.objects.select_for_update(skip_locked=True).filter(pk__in=meter_ids, rolled_up_to__lt=settled)
        together: dict[tuple[str, int], list[Meter]] = {}
        for meter in meters.order_by("pk"):
            together.setdefault((meter.event_name, meter.rolled_up_to), []).append(meter)
        for (_, after), group in together.items():
            upto = min(settled, after + (chunk or CHUNK))
            _add(group, after=after, upto=upto)
            Meter.objects.filter(pk__in=[meter.pk for meter in group]).update(rolled_up_to=upto, roll_failure="")
            longest = max(longest, upto - after)
    return longest


def _add(meters: Sequence[Meter], *, after: int, upto: int) -> None:
    """Merge the events with ids in (after, upto] into the buckets of meters that read one event name."""
    ids = compose("id > {} AND id <= {}", value(after), value(upto))
    shared = [meter for meter in meters if meter.aggregation in _SHARED and not meter.group_by]
    if len(shared) > 1:
        for first in range(0, len(shared), _TOGETHER):
            _insert_together(shared[first : first + _TOGETHER], ids)
    else:
        shared = []
    for meter in meters:
        if meter in shared:
            continue
        if meter.aggregation == Aggregation.WEIGHTED_SUM:
            # Where events arrive out of order, the state of an hour cannot be merged: count the touched hours again.
            touched = _fetch(compose("SELECT DISTINCT customer_id, hour FROM ({}) AS event", _events(meter, ids)))
            recompute(meter=meter, hours=[Hour(customer, hour) for customer, hour in touched], upto=upto)
        else:
            _insert(meter, _events(meter, ids))


def recompute(*, meter: Meter, hours: Sequence[Hour], upto: int) -> None:
    """Count these hours again from the log, up to the id `upto`. The meter's row must be locked."""
    if not hours:
        return
    # What is no longer in the log cannot be counted again.
    if gone := dropped_months(months={month_of(place.hour) for place in hours}):
        raise MonthArchived(f"{min(gone):%B %Y} was archived and dropped; restore it before it is counted again.")
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
    # The places drive: each is a short range of the index (customer, event name, timestamp). OFFSET 0 keeps PostgreSQL
    # from joining the other way round, which compares every event with every hour.
    inside = compose(
        "id <= {} AND customer_id = place.customer_id AND timestamp >= place.hour"
        " AND timestamp < place.hour + interval '1 hour'",
        value(upto),
    )
    events = compose(
        "SELECT event.* FROM ({}) AS place CROSS JOIN LATERAL ({} OFFSET 0) AS event", places, _events(meter, inside)
    )
    if meter.aggregation == Aggregation.WEIGHTED_SUM:
        _insert_levels(meter, events)
    else:
        _insert(meter, events)


def recount_span(*, meter: Meter, start: datetime, end: datetime) -> None:
    """Count all whole hours in [start, end) again from the log, up to the watermark. The meter's row must be locked."""
    if gone := ArchivedMonth.objects.filter(
        dropped_at__isnull=False, month__gte=month_of(start), month__lte=month_of(end - timedelta(microseconds=1))
    ).first():
        raise MonthArchived(f"{gone.month:%B %Y} was archived and dropped; restore it before it is counted again.")
    for table in _TABLES:
        _execute(
            compose(
                "DELETE FROM {} WHERE meter_id = {} AND hour >= {} AND hour < {}",
                table,
                value(meter.pk),
                value(start),
                value(end),
            )
        )
    inside = compose(
        "id <= {} AND timestamp >= {} AND timestamp < {}", value(meter.rolled_up_to), value(start), value(end)
    )
    if meter.aggregation == Aggregation.WEIGHTED_SUM:
        _insert_levels(meter, _events(meter, inside))
    else:
        _insert(meter, _events(meter, inside))


def rebuild(*, meter: Meter) -> None:
    """Forget the meter's buckets and start again at zero; readers stay exact, and slower, until it has caught up.

    The buckets of months that are no longer in the log stay: nothing else knows what was counted there.
    """
    with transaction.atomic():
        locked = Meter.objects.select_for_update().get(pk=meter.pk)
        for table in _TABLES:
            _execute(
                compose(
                    "DELETE FROM {} AS old WHERE meter_id = {} AND NOT EXISTS ("
                    "SELECT FROM meters_archivedmonth WHERE dropped_at IS NOT NULL"
                    " AND month = date_trunc('month', old.hour AT TIME ZONE 'UTC')::date)",
                    table,
                    value(locked.pk),
                )
            )
        Meter.objects.filter(pk=locked.pk).update(rolled_up_to=0)
    meter.refresh_from_db(fields=["rolled_up_to"])


# -- the statements ------------------------------------------------------------------------------------------

# Half the cost of date_trunc(), which looks the time zone up for each row. Hours of UTC have no exceptions.
_HOUR = Sql("date_bin('1 hour', timestamp, timestamptz '2000-01-01 00:00Z')")
_TABLES = (Sql("meters_bucket"), Sql("meters_bucketvalue"))
# Short, whatever customers send. An array's text tells NULL, '' and every other value apart.
_GROUPS_KEY = Sql("CASE WHEN groups = '{}' THEN ''::bytea ELSE sha256(convert_to(groups::text, 'UTF8')) END")


def _events(meter: Meter, which: Sql) -> Sql:
    """The meter's events among `which`, with what each brings to its bucket."""
    tree = None if meter.filter is None else parse_filter(meter.filter)
    text = canonical(meter.property_key) if meter.aggregation == Aggregation.UNIQUE else Sql("NULL::text")
    rows = compose(
        "SELECT customer_id, {} AS hour, {} AS groups, timestamp, id,"
        " {} AS value, {} AS text FROM meters_event"
        " WHERE event_name = {} AND voided_at IS NULL AND {} AND {} OFFSET 0",
        _HOUR,
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


# What several meters can compute beside one another in one pass: nothing that needs an order, or groups of its own.
_SHARED = {Aggregation.COUNT, Aggregation.SUM, Aggregation.AVG, Aggregation.MIN, Aggregation.MAX}

# Each takes several columns, and a row of PostgreSQL has room for 1,664.
_TOGETHER = 50

_MERGE: LiteralString = (
    " ON CONFLICT (meter_id, customer_id, hour, groups_key) DO UPDATE SET"
    " events = old.events + excluded.events, total = old.total + excluded.total,"
    " lowest = least(old.lowest, excluded.lowest), highest = greatest(old.highest, excluded.highest),"
    " first_at = least(old.first_at, excluded.first_at), last_at = greatest(old.last_at, excluded.last_at),"
    " last_id = CASE WHEN (excluded.last_at, excluded.last_id) > (old.last_at, old.last_id)"
    " THEN excluded.last_id ELSE old.last_id END,"
    " last_value = CASE WHEN (excluded.last_at, excluded.last_id) > (old.last_at, old.last_id)"
    " THEN excluded.last_value ELSE old.last_value END"
)


def _insert_together(meters: Sequence[Meter], ids: Sql) -> None:
    """The buckets of several meters of one event name, in one pass over the log.

    Each meter is a column of the pass (NULL where an event does not count for it), and becomes rows again at the end.
    OFFSET 0 keeps the planner from computing a column once for every place that mentions it.
    """
    readings, states, places = [], [], []
    for number, meter in enumerate(meters):
        tree = None if meter.filter is None else parse_filter(meter.filter)
        column = Sql(f"v{number}")
        readings.append(compose("CASE WHEN {} THEN {} END AS {}", matches(tree), reading(meter), column))
        state = {**_EMPTY, **_STATE[meter.aggregation]}
        parts = [
            "count(value)",
            "min(timestamp) FILTER (WHERE value IS NOT NULL)",
            "max(timestamp) FILTER (WHERE value IS NOT NULL)",
            *(state[name] for name in ("total", "lowest", "highest")),
        ]
        names = [f"s{number}_{place}" for place in range(len(parts))]
        states += [
            Sql(f"{part.replace('value', column.text)} AS {name}") for part, name in zip(parts, names, strict=True)
        ]
        places.append(compose("({}::bigint, {})", value(meter.pk), Sql(", ".join(names))))
    _execute(
        compose(
            "WITH event AS (SELECT customer_id, {} AS hour, timestamp, {} FROM meters_event"
            " WHERE event_name = {} AND voided_at IS NULL AND {} OFFSET 0),"
            " per_hour AS (SELECT customer_id, hour, {} FROM event GROUP BY customer_id, hour)"
            " INSERT INTO meters_bucket AS old"
            " (meter_id, customer_id, hour, events, first_at, last_at, total, lowest, highest)"
            " SELECT meter_id, customer_id, hour, events, first_at, last_at, total, lowest, highest"
            " FROM per_hour CROSS JOIN LATERAL (VALUES {})"
            " AS state (meter_id, events, first_at, last_at, total, lowest, highest)"
            " WHERE events > 0 ORDER BY meter_id, customer_id, hour{}",
            _HOUR,
            join(", ", readings),
            value(meters[0].event_name),
            ids,
            join(", ", states),
            join(", ", places),
            Sql(_MERGE),
        )
    )


def _insert(meter: Meter, events: Sql) -> None:
    state = {**_EMPTY, **_STATE[meter.aggregation]}
    columns = join_names(state)
    _execute(
        compose(
            "INSERT INTO meters_bucket AS old"
            " (meter_id, customer_id, hour, groups, groups_key, events, first_at, last_at,"
            " total, lowest, highest, last_id, last_value)"
            " SELECT {}, customer_id, hour, groups, {}, count(*), min(timestamp), max(timestamp), {}"
            " FROM ({}) AS event GROUP BY customer_id, hour, groups ORDER BY 2, 3, 5{}",
            value(meter.pk),
            _GROUPS_KEY,
            columns,
            events,
            Sql(_MERGE),
        )
    )
    if meter.aggregation == Aggregation.UNIQUE:
        _execute(
            compose(
                "INSERT INTO meters_bucketvalue (meter_id, customer_id, hour, groups, groups_key, value, value_key)"
                " SELECT {}::bigint, customer_id, hour, groups, {}, text, sha256(convert_to(text, 'UTF8'))"
                " FROM (SELECT DISTINCT customer_id, hour, groups, text FROM ({}) AS event) AS event"
                " ORDER BY 2, 3, 5, 7 ON CONFLICT DO NOTHING",
                value(meter.pk),
                _GROUPS_KEY,
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
                " (meter_id, customer_id, hour, groups, groups_key,"
                " events, total, first_at, last_at, last_id, last_value, area)"
                " SELECT {}::bigint, customer_id, hour, groups, {}, count(*), 0, min(timestamp), max(timestamp),"
                " (array_agg(id ORDER BY timestamp DESC, id DESC))[1],"
                " (array_agg(value ORDER BY timestamp DESC, id DESC))[1],"
                " coalesce(sum(value * extract(epoch FROM following - timestamp)), 0)"
                " FROM (SELECT customer_id, hour, timestamp, id, value, {} AS groups, lead(timestamp) OVER ("
                "PARTITION BY customer_id, hour, {} ORDER BY timestamp, id) AS following FROM ({}) AS event) AS step"
                " GROUP BY customer_id, hour, groups ORDER BY 2, 3, 5",
                value(meter.pk),
                _GROUPS_KEY,
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
