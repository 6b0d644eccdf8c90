"""What a meter would have counted, before it is made: the engine itself, on a meter that is taken back at once."""

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, LiteralString

from django.db import OperationalError, connection, transaction

from customers.errors import DomainError
from meters.aggregation import EXACT, ZERO
from meters.filters import parse_filter
from meters.models import ArchivedMonth, Event, Meter
from meters.partitions import month_of, month_span
from meters.sql import Sql, compose, matches, reading, value
from meters.usage import (
    DayQuantity,
    MeterActivity,
    Verdict,
    daily_quantities,
    measure,
    meter_activity,
    meter_verdicts,
)
from meters.windows import read_zone

MAX_DAYS = 90
# There are no buckets for it yet, so a preview reads events: the newest ones, this many at most.
MAX_SCANNED = 300_000
EXAMPLES = 5
# For all of it.
_TIMEOUT_SECONDS = 15.0
_TOO_SLOW = "This preview takes too long here: ask for fewer days."


class PreviewTooSlow(DomainError):
    code = "PREVIEW_TOO_SLOW"


@dataclass(frozen=True, slots=True)
class Preview:
    """The last days as the meter would see them, over all customers.

    `complete` is False where not all could be read: there were too many events, or a month has left the log, and
    it begins later than was asked for; or a level that held before it (carry_forward) was not looked for.
    """

    start: datetime
    end: datetime
    complete: bool
    quantity: Decimal
    days: Sequence[DayQuantity]
    activity: MeterActivity
    counted: Sequence[tuple[Event, Verdict]]
    left_out: Sequence[tuple[Event, Verdict]]
    # Names of events that differ from the meter's in upper and lower case only.
    similar_names: Sequence[str]


def preview_meter(*, definition: Meter, days: int, now: datetime, time_zone: str) -> Preview:
    """What a meter that is not saved (`meters.meters.build_meter`) would give for the last days, today included."""
    if not 1 <= days <= MAX_DAYS:
        raise DomainError(f"days: must be from 1 to {MAX_DAYS}.")
    zone = read_zone(time_zone)
    first = now.astimezone(zone).date() - timedelta(days=days - 1)
    start = datetime(first.year, first.month, first.day, tzinfo=zone).astimezone(UTC)
    meter = copy.copy(definition)
    try:
        with transaction.atomic(), _limited(time.monotonic() + _TIMEOUT_SECONDS):
            begin = _affordable(_in_log(start, now), now, time_zone)
            if carried := meter.carry_forward and not _can_look_back(begin):
                meter.carry_forward = False
            # Nobody else sees it: its row never commits.
            meter.save(force_insert=True)
            total = ZERO
            for row in measure(meter=meter, customer=None, bounds=[begin, now]):
                total = EXACT.add(total, row.quantity)
            found = Preview(
                start=begin,
                end=now,
                complete=begin == start and not carried,
                quantity=total,
                days=daily_quantities(meter=meter, start=begin, end=now, time_zone=time_zone),
                activity=meter_activity(meter=meter, start=begin, end=now),
                counted=_examples(meter, begin, now, "{} AND ({} IS NOT NULL)"),
                left_out=_examples(meter, begin, now, "NOT ({} AND ({} IS NOT NULL))"),
                similar_names=_similar_names(meter, begin, now),
            )
            transaction.set_rollback(True)
    except OperationalError as error:
        if "statement timeout" not in str(error):
            raise
        raise PreviewTooSlow(_TOO_SLOW) from error
    return found


@contextmanager
def _limited(until: float) -> Iterator[None]:
    """All statements within it together end by then (on the monotonic clock)."""

    def limited(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
        left = int((until - time.monotonic()) * 1000)
        if left <= 0:
            raise PreviewTooSlow(_TOO_SLOW)
        connection.connection.execute(f"SET LOCAL statement_timeout = {left}")
        return execute(sql, params, many, context)

    with connection.execute_wrapper(limited):
        yield


def _in_log(start: datetime, end: datetime) -> datetime:
    """`start`, or the end of the last month after it that has left the log."""
    gone = ArchivedMonth.objects.filter(
        dropped_at__isnull=False, events__gt=0, month__gte=month_of(start), month__lte=month_of(end)
    ).first()
    return start if gone is None else max(start, min(month_span(gone.month)[1], end))


def _can_look_back(begin: datetime) -> bool:
    """Whether what lies before is all in the log, and little enough to look for a level in it."""
    if ArchivedMonth.objects.filter(dropped_at__isnull=False, events__gt=0).exists():
        return False
    return not _fetch(
        compose(
            "SELECT 1 FROM meters_event WHERE timestamp < {} ORDER BY timestamp DESC, id DESC OFFSET {} LIMIT 1",
            value(begin),
            value(MAX_SCANNED),
        )
    )


def _affordable(start: datetime, end: datetime, time_zone: str) -> datetime:
    """`start`, or the first midnight after it from which on there are few enough events to read."""
    rows = _fetch(
        compose(
            "SELECT timestamp FROM meters_event WHERE timestamp >= {} AND timestamp < {}"
            " ORDER BY timestamp DESC, id DESC OFFSET {} LIMIT 1",
            value(start),
            value(end),
            value(MAX_SCANNED),
        )
    )
    if not rows:
        return start
    cut: datetime = rows[0][0]
    day = cut.astimezone(read_zone(time_zone)).date() + timedelta(days=1)
    midnight = datetime(day.year, day.month, day.day, tzinfo=read_zone(time_zone)).astimezone(UTC)
    # Where even today is too much, begin inside it.
    return midnight if midnight < end else cut + timedelta(microseconds=1)


def _examples(meter: Meter, start: datetime, end: datetime, which: LiteralString) -> list[tuple[Event, Verdict]]:
    """The newest events of the name that do, or do not, bring something to the meter, with the reason."""
    rows = _fetch(
        compose(
            "SELECT id, timestamp FROM meters_event WHERE event_name = {} AND timestamp >= {} AND timestamp < {}"
            " AND voided_at IS NULL AND {} ORDER BY timestamp DESC, id DESC LIMIT {}",
            value(meter.event_name),
            value(start),
            value(end),
            compose(which, matches(None if meter.filter is None else parse_filter(meter.filter)), reading(meter)),
            value(EXAMPLES),
        )
    )
    events = list(
        Event.objects.filter(pk__in=[pk for pk, _ in rows], timestamp__in=[at for _, at in rows]).select_related(
            "customer"
        )
    )
    return list(zip(events, meter_verdicts(meter=meter, events=events), strict=True))


def _similar_names(meter: Meter, start: datetime, end: datetime) -> list[str]:
    rows = _fetch(
        compose(
            "SELECT DISTINCT event_name FROM meters_event WHERE timestamp >= {} AND timestamp < {}"
            " AND lower(event_name) = lower({}::text) AND event_name <> {}::text ORDER BY event_name LIMIT 5",
            value(start),
            value(end),
            value(meter.event_name),
            value(meter.event_name),
        )
    )
    return [name for (name,) in rows]


def _fetch(sql: Sql) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql.text, sql.params)
        return list(cursor.fetchall())
