"""Usage in windows of a clock on a wall somewhere: hours, days or months of a time zone."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from itertools import pairwise
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django.db import OperationalError, connection, transaction

from customers.errors import DomainError
from customers.models import Customer
from meters.aggregation import ZERO
from meters.ingestion import EARLIEST
from meters.models import Meter
from meters.usage import Together, count_series, is_level, measure_together

# A month of hours fits, and so do almost three years of days.
MAX_WINDOWS = 1000
MAX_ROWS = 10_000
# Windows times customers (or their groups) of a level, which is there in each of them.
MAX_LEVELS = 100_000
TIMEOUT_MILLISECONDS = 15_000
LATEST = datetime(2200, 1, 1, tzinfo=UTC)


class UsageTooSlow(DomainError):
    code = "USAGE_TOO_SLOW"


class Window(StrEnum):
    HOUR = "hour"
    DAY = "day"
    MONTH = "month"


@dataclass(frozen=True, slots=True)
class WindowUsage:
    """The quantity of [start, end); with groups, of one combination of the meter's group keys."""

    start: datetime
    end: datetime
    groups: tuple[str | None, ...]
    quantity: Decimal
    events: int


def usage_by_window(
    *,
    meter: Meter,
    customer: Customer | None,
    start: datetime,
    end: datetime,
    window: Window,
    time_zone: str,
    grouped: bool = False,
) -> list[WindowUsage]:
    """Oldest first; of one customer, or the sum over all of them. The span may cut its first and last window.

    Without groups every window is there, also where nothing was used; with groups only what was used.
    """
    if grouped and not meter.group_by:
        raise DomainError("group_by: this meter was made without group keys.")
    bounds = window_bounds(start=start, end=end, window=window, time_zone=time_zone)
    found: dict[tuple[int, tuple[str | None, ...]], tuple[Decimal, int]] = {}
    if not grouped:
        found = {(number, ()): (ZERO, 0) for number in range(len(bounds) - 1)}
    for row in _affordably(meter, customer, bounds, grouped):
        found[row.window, row.groups] = (row.quantity, row.events)
    if len(found) > MAX_ROWS:
        raise DomainError(f"This would be more than {MAX_ROWS:,} rows: ask for a shorter time or longer windows.")
    windows = list(pairwise(bounds))
    return [WindowUsage(*windows[number], keys, *found[number, keys]) for number, keys in sorted(found, key=_in_order)]


def _affordably(meter: Meter, customer: Customer | None, bounds: list[datetime], grouped: bool) -> list[Together]:
    """Reads no more than fits in memory and gives up what takes too long."""
    try:
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute(f"SET LOCAL statement_timeout = {TIMEOUT_MILLISECONDS}")
            if is_level(meter) and (customer is None or grouped):
                _check_levels(meter, customer, bounds, grouped)
            return measure_together(meter=meter, customer=customer, bounds=bounds, grouped=grouped, limit=MAX_ROWS + 1)
    except OperationalError as error:
        if "statement timeout" not in str(error):
            raise
        raise UsageTooSlow(
            "This takes too long: name a customer_id, or ask for a shorter time or longer windows."
        ) from error


def _check_levels(meter: Meter, customer: Customer | None, bounds: list[datetime], grouped: bool) -> None:
    """A level that is carried on is there in every window for everyone who ever had one."""
    windows = len(bounds) - 1
    most = MAX_LEVELS // windows
    if (
        count_series(meter=meter, customer=customer, start=bounds[0], end=bounds[-1], grouped=grouped, limit=most + 1)
        > most
    ):
        raise DomainError(
            f"{windows:,} windows of more than {most:,} levels are too many at once: name a customer_id, or ask for a"
            " shorter time or longer windows."
        )


def _in_order(place: tuple[int, tuple[str | None, ...]]) -> tuple[int, list[tuple[bool, str]]]:
    """By window, then by the values, events without one last."""
    return place[0], [(key is None, key or "") for key in place[1]]


def window_bounds(*, start: datetime, end: datetime, window: Window, time_zone: str) -> list[datetime]:
    """The instants between the windows, the span's own ends first and last."""
    zone = read_zone(time_zone)
    if start >= end:
        raise DomainError("end: must lie after start.")
    if start < EARLIEST or end > LATEST:
        raise DomainError(f"start and end: must lie between {EARLIEST.year} and {LATEST.year}.")
    bounds = [start]
    for instant in _beginnings(start, window, zone):
        if instant >= end:
            break
        if instant > start:
            bounds.append(instant)
        if len(bounds) > MAX_WINDOWS:
            raise DomainError(
                f"This would be more than {MAX_WINDOWS:,} windows: ask for a shorter time or longer windows."
            )
    return [*bounds, end]


def read_zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise DomainError("time_zone: must be a name of the IANA data base, such as Europe/Berlin.") from error


def _beginnings(start: datetime, window: Window, zone: ZoneInfo) -> Iterator[datetime]:
    """The beginning of the window that holds `start`, and of every later one."""
    local = start.astimezone(zone)
    if window == Window.HOUR:
        instant = local.replace(minute=0, second=0, microsecond=0).astimezone(UTC)
        while True:
            yield instant
            instant += timedelta(hours=1)
    day = local.date() if window == Window.DAY else local.date().replace(day=1)
    while True:
        yield datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)
        # From any first of a month, 32 days lead into the next one.
        day = day + timedelta(days=1) if window == Window.DAY else (day + timedelta(days=32)).replace(day=1)
