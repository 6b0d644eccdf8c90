"""The event log's months: one partition each, in UTC, made before the first event of the month is stored."""

import re
from collections.abc import Iterable
from datetime import UTC, date, datetime

from django.db import connection, transaction

from customers.errors import Conflict
from meters.models import ArchivedMonth

# Any constant will do; it only has to differ from the other advisory locks of this software.
PARTITION_LOCK = 0x4D425F5041525430


class MonthArchived(Conflict):
    """What was asked for needs events of a month that was archived and dropped."""

    code = "MONTH_ARCHIVED"


def month_of(instant: datetime) -> date:
    """The first day of the month, in UTC, that an event of this time is stored under."""
    return instant.astimezone(UTC).date().replace(day=1)


def next_month(month: date) -> date:
    return month.replace(year=month.year + 1, month=1) if month.month == 12 else month.replace(month=month.month + 1)


def months_ahead(*, now: datetime, count: int) -> list[date]:
    """The month of `now` and the `count` months after it."""
    months = [month_of(now)]
    for _ in range(count):
        months.append(next_month(months[-1]))
    return months


def partition_name(month: date) -> str:
    return f"meters_event_{month.year:04}_{month.month:02}"


# Asks the catalogue's rows, not to_regclass(): that answers from a cache that does not notice a rival's commit before
# this transaction ends.
_PARTITION_NAMES = (
    "SELECT relname::text FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid"
    " WHERE inhparent = 'meters_event'::regclass"
)


def missing_partitions(*, months: Iterable[date]) -> list[date]:
    with connection.cursor() as cursor:
        cursor.execute(_PARTITION_NAMES)
        existing = {name for (name,) in cursor.fetchall()}
    return sorted(month for month in set(months) if partition_name(month) not in existing)


def stored_months() -> list[date]:
    """The months that have a partition, oldest first."""
    with connection.cursor() as cursor:
        cursor.execute(_PARTITION_NAMES)
        names = [name for (name,) in cursor.fetchall()]
    found = [re.fullmatch(r"meters_event_(\d{4})_(\d\d)", name) for name in names]
    return sorted(date(int(match[1]), int(match[2]), 1) for match in found if match)


def ensure_partitions(*, months: Iterable[date]) -> list[date]:
    """Make the partitions that do not exist yet; says which those were.

    Safe beside ingestion and beside itself: attaching a table that is still empty blocks neither readers nor writers
    of the log (CREATE … PARTITION OF would), and whoever comes second waits and then finds it made. Nothing is
    remembered in the process, because a transaction that is rolled back takes its partition along.
    """
    missing = missing_partitions(months=months)
    if not missing:
        return []
    made = []
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [PARTITION_LOCK])
        for month in missing_partitions(months=missing):
            name = connection.ops.quote_name(partition_name(month))
            # Identity and indexes are not copied: attaching brings them.
            cursor.execute(f"CREATE TABLE {name} (LIKE meters_event INCLUDING DEFAULTS INCLUDING CONSTRAINTS)")
            cursor.execute(
                f"ALTER TABLE meters_event ATTACH PARTITION {name} FOR VALUES FROM (%s) TO (%s)",
                [_midnight(month), _midnight(next_month(month))],
            )
            made.append(month)
    return made


def dropped_months(*, months: Iterable[date]) -> set[date]:
    """Those of the months that are in an archive and no longer in the log."""
    return set(
        ArchivedMonth.objects.filter(month__in=set(months), dropped_at__isnull=False).values_list("month", flat=True)
    )


def month_span(month: date) -> tuple[datetime, datetime]:
    """The half-open span of event time that a month's partition holds."""
    return _midnight(month), _midnight(next_month(month))


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
