"""Comparing buckets with the log: count again what was rolled up, and say in words where the two differ.

The roller's own statements count again, into temporary tables that bear the buckets' names and so stand before them;
nothing of the buckets is touched until they are mended. A meter's row is locked meanwhile, month by month: the roller
passes it by, voids wait, and readers and ingestion notice nothing.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from secrets import randbelow
from typing import Any

from django.db import connection, transaction

from customers.clock import database_now
from customers.models import Customer
from meters.filters import read_text
from meters.ingestion import EARLIEST
from meters.models import Meter, Reconciliation
from meters.partitions import dropped_months, month_of, month_span, stored_months
from meters.rollups import Hour, recompute, recount_span

# Of what differs, this much is told in words; the rest is counted.
MOST_FINDINGS = 50
# Hours counted again at once where only some customers are looked at.
_CHUNK = 5000
# A sample of some days lies within this many, where late events and voids arrive.
RECENT_DAYS = 60


@dataclass(slots=True)
class _Result:
    buckets: int = 0
    differing: int = 0
    findings: list[str] = field(default_factory=list)


def reconcile(
    *,
    trigger: str,
    meter: Meter | None = None,
    sample: int | None = None,
    days: int | None = None,
    fix: bool = False,
    now: datetime,
) -> Reconciliation:
    """Compare every meter, or one, over all that is still in the log; write down and return what was found.

    With `sample` only that many customers of each meter, chosen at random; with `days`, of them only so many days in a
    row out of the last RECENT_DAYS, at random too. With `fix` what differs is counted again.
    """
    record = Reconciliation.objects.create(started_at=now, trigger=trigger)
    meters = [meter] if meter is not None else list(Meter.objects.order_by("pk"))
    result = _Result()
    for one in meters:
        if sample is None:
            for month in _months(one):
                _compare_month(one, month, fix, result)
        else:
            span = (EARLIEST, now + timedelta(days=1)) if days is None else _some_days(days, now)
            _compare_customers(one, _some_customers(sample), span, fix, result)
    record.meters = len(meters)
    record.buckets = result.buckets
    record.differing = result.differing
    record.findings = result.findings
    record.fixed = fix and result.differing > 0
    record.finished_at = database_now()
    record.save()
    return record


def last_reconciliation() -> Reconciliation | None:
    """The newest comparison that came to its end."""
    return Reconciliation.objects.filter(finished_at__isnull=False).first()


# -- what is compared ----------------------------------------------------------------------------------------


def _months(meter: Meter) -> list[date]:
    """The months with events or buckets; not those that left the log, whose buckets are all there is."""
    rows = _fetch("SELECT DISTINCT date_trunc('month', hour, 'UTC') FROM meters_bucket WHERE meter_id = %s", [meter.pk])
    months = {month_of(instant) for (instant,) in rows} | set(stored_months())
    return sorted(months - dropped_months(months=months))


def _some_days(count: int, now: datetime) -> tuple[datetime, datetime]:
    """A random span of so many days, in whole hours, that ends within the last RECENT_DAYS days."""
    hours = max((RECENT_DAYS - count) * 24, 0)
    end = now.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1 - randbelow(hours + 1))
    return end - timedelta(days=count), end


def _some_customers(count: int) -> list[int]:
    # A handful out of all customers; whoever has no events costs one look into an index.
    return list(Customer.objects.order_by("?").values_list("pk", flat=True)[:count])


def _hours_of(meter: Meter, customers: Sequence[int], span: tuple[datetime, datetime]) -> list[Hour]:
    """Every hour of these customers in the span with a bucket or an event."""
    rows = _fetch(
        "SELECT customer_id, hour FROM meters_bucket"
        " WHERE meter_id = %s AND customer_id = ANY(%s) AND hour >= %s AND hour < %s"
        " UNION SELECT customer_id, date_trunc('hour', timestamp, 'UTC') FROM meters_event"
        " WHERE customer_id = ANY(%s) AND event_name = %s AND timestamp >= %s AND timestamp < %s AND id <= %s"
        " ORDER BY 1, 2",
        [meter.pk, list(customers), *span, list(customers), meter.event_name, *span, meter.rolled_up_to],
    )
    return [Hour(customer, hour) for customer, hour in rows]


def _still_in_log(hours: Sequence[Hour]) -> list[Hour]:
    """Those of the hours whose month has not left the log. Asked under the meter's lock, it stays so until the end."""
    dropped = dropped_months(months={month_of(place.hour) for place in hours})
    return [place for place in hours if month_of(place.hour) not in dropped]


def _compare_month(meter: Meter, month: date, fix: bool, result: _Result) -> None:
    start, end = month_span(month)
    with transaction.atomic():
        locked = _lock(meter)
        # It may have left the log since the months were listed; while the meter is locked it cannot.
        if dropped_months(months=[month]):
            return
        with _beside(locked) as real:
            recount_span(meter=locked, start=start, end=end)
            differing = _differences(locked, real, start, end, None, result)
        if differing and fix:
            recount_span(meter=locked, start=start, end=end)


def _compare_customers(
    meter: Meter, customers: Sequence[int], span: tuple[datetime, datetime], fix: bool, result: _Result
) -> None:
    if not customers:
        return
    hours = _hours_of(meter, customers, span)
    for first in range(0, len(hours), _CHUNK):
        with transaction.atomic():
            locked = _lock(meter)
            chunk = _still_in_log(hours[first : first + _CHUNK])
            if not chunk:
                continue
            with _beside(locked) as real:
                recompute(meter=locked, hours=chunk, upto=locked.rolled_up_to)
                begin = min(place.hour for place in chunk)
                end = max(place.hour for place in chunk) + timedelta(hours=1)
                differing = _differences(locked, real, begin, end, chunk, result)
            if differing and fix:
                recompute(meter=locked, hours=sorted(differing, key=_by_place), upto=locked.rolled_up_to)


def _by_place(place: Hour) -> tuple[int, datetime]:
    return place.customer_id, place.hour


def _lock(meter: Meter) -> Meter:
    return Meter.objects.select_for_update(no_key=True).get(pk=meter.pk)


# -- counting beside the buckets -----------------------------------------------------------------------------


@contextmanager
def _beside(meter: Meter) -> Iterator[str]:
    """Within it, the buckets' names mean empty temporary tables; the real ones are in the schema that it gives."""
    [(schema,)] = _fetch(
        "SELECT quote_ident(nspname) FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace"
        " WHERE pg_class.oid = 'meters_bucket'::regclass",
        [],
    )
    with connection.cursor() as cursor:
        for table in ("meters_bucket", "meters_bucketvalue"):
            cursor.execute(f"CREATE TEMPORARY TABLE {table} (LIKE {schema}.{table} INCLUDING ALL) ON COMMIT DROP")
    yield schema
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE pg_temp.meters_bucket, pg_temp.meters_bucketvalue")


_STATE = ("events", "total", "lowest", "highest", "first_at", "last_at", "last_id", "last_value", "area")
_WORDS = {
    "events": "events",
    "total": "total",
    "lowest": "lowest value",
    "highest": "highest value",
    "first_at": "first event",
    "last_at": "last event",
    "last_id": "last event's id",
    "last_value": "last value",
    "area": "value times seconds",
}


def _differences(
    meter: Meter, schema: str, start: datetime, end: datetime, hours: Sequence[Hour] | None, result: _Result
) -> set[Hour]:
    """Add what differs in the span (or at these hours) to the result; returns the places."""
    within, params = "meter_id = %s AND hour >= %s AND hour < %s", [meter.pk, start, end]
    if hours is not None:
        within += " AND (customer_id, hour) IN (SELECT * FROM unnest(%s::bigint[], %s::timestamptz[]))"
        params += [[place.customer_id for place in hours], [place.hour for place in hours]]
    old, new = (", ".join(f"{side}.{column}" for column in _STATE) for side in ("old", "new"))
    # Only constants and the quoted name of the schema are put into these texts.
    rows = _fetch(
        f"SELECT customer_id, hour, groups, ROW({old}) IS DISTINCT FROM ROW({new}), {old}, {new}"  # noqa: S608
        f" FROM (SELECT * FROM {schema}.meters_bucket WHERE {within}) AS old"
        " FULL JOIN pg_temp.meters_bucket AS new USING (customer_id, hour, groups) ORDER BY 1, 2, 3",
        params,
    )
    result.buckets += len(rows)
    found: dict[tuple[int, datetime, tuple[str | None, ...]], str] = {}
    for customer, hour, groups, differs, *state in rows:
        if differs:
            found[customer, hour, tuple(groups)] = _in_words(state[: len(_STATE)], state[len(_STATE) :])
    values = _fetch(
        "SELECT customer_id, hour, groups, count(*) FILTER (WHERE new.meter_id IS NULL),"  # noqa: S608
        " count(*) FILTER (WHERE old.meter_id IS NULL)"
        f" FROM (SELECT * FROM {schema}.meters_bucketvalue WHERE {within}) AS old"
        " FULL JOIN pg_temp.meters_bucketvalue AS new USING (customer_id, hour, groups, value)"
        " WHERE old.meter_id IS NULL OR new.meter_id IS NULL GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
        params,
    )
    for customer, hour, groups, surplus, missing in values:
        place = (customer, hour, tuple(groups))
        found.setdefault(place, f"the buckets have {surplus} values that the log has not, and lack {missing}")
    result.differing += len(found)
    _tell(meter, found, result)
    return {Hour(customer, hour) for customer, hour, _ in found}


def _tell(meter: Meter, found: dict[tuple[int, datetime, tuple[str | None, ...]], str], result: _Result) -> None:
    some = list(found.items())[: MOST_FINDINGS - len(result.findings)]
    customers = Customer.objects.in_bulk({customer for (customer, _, _), _ in some})
    for (customer, hour, groups), words in some:
        who = customers[customer].name if customer in customers else f"customer {customer}"
        split = "".join(
            f", {key} {'none' if text is None else f'“{text}”'}"
            for key, text in zip(meter.group_by, groups, strict=False)
        )
        at = hour.astimezone(UTC)
        result.findings.append(f"{meter.name}, {who}, {at:%Y-%m-%d %H:%M} UTC{split}: {words}.")


def _in_words(old: Sequence[Any], new: Sequence[Any]) -> str:
    if old[0] is None:
        return f"the buckets have nothing, the log has {_events(new[0])}"
    if new[0] is None:
        return f"the buckets have {_events(old[0])}, the log has nothing that counts"
    differ = [
        f"{_WORDS[name]} {_shown(was)} in the buckets and {_shown(should)} in the log"
        for name, was, should in zip(_STATE, old, new, strict=True)
        if was != should
    ]
    return ", ".join(differ)


def _events(count: int) -> str:
    return f"{count:,} event{'' if count == 1 else 's'}"


def _shown(value: Any) -> str:
    if isinstance(value, Decimal):
        return read_text(value)
    return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}" if isinstance(value, datetime) else str(value)


def _fetch(sql: str, params: Sequence[Any]) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        return list(cursor.fetchall())
