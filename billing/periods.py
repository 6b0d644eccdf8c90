"""Billing periods: half-open, counted from an anchor, in the billing time zone. Pure: instants in, instants out.

Counting from the anchor keeps its day: monthly from 31 January gives 28 February and then 31 March, where adding a
month to the last end would stay on the 28th for ever.
"""

import calendar
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

INTERVALS = ("Day", "Week", "Month", "Year")
# A mean length, to guess an index that is then walked to the right one.
_TYPICAL = {"Day": 1.0, "Week": 7.0, "Month": 30.436875, "Year": 365.2425}


@dataclass(frozen=True, slots=True)
class Period:
    """A half-open span of time, [start, end)."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        if not self.start < self.end:
            raise ValueError(f"A period must end after it starts: {self.start} .. {self.end}")

    def __contains__(self, instant: object) -> bool:
        return isinstance(instant, datetime) and self.start <= instant < self.end


def add_intervals(anchor: datetime, interval: str, count: int, time_zone: str) -> datetime:
    """The instant `count` intervals after `anchor`, at the same time on the wall clock of `time_zone`.

    A day that a month lacks becomes its last; a time that a change of clocks skips moves forward by the skipped hour;
    of a time that happens twice the first is meant. Returns UTC. `OverflowError` past the year 9999.
    """
    if count == 0:
        return anchor.astimezone(UTC)
    zone = ZoneInfo(time_zone)
    local = anchor.astimezone(zone).replace(tzinfo=None, fold=0)
    if interval in ("Day", "Week"):
        moved = local + timedelta(days=count * (7 if interval == "Week" else 1))
    elif interval in ("Month", "Year"):
        months = local.year * 12 + local.month - 1 + count * (12 if interval == "Year" else 1)
        year, month = divmod(months, 12)
        if not 1 <= year <= 9999:
            raise OverflowError("date value out of range")
        day = min(local.day, calendar.monthrange(year, month + 1)[1])
        moved = local.replace(year=year, month=month + 1, day=day)
    else:
        raise ValueError(f"unknown interval {interval!r}")
    return moved.replace(tzinfo=zone).astimezone(UTC)


def nth_period(anchor: datetime, interval: str, every: int, index: int, time_zone: str) -> Period:
    """Period number `index` (0 begins at the anchor) of `every` intervals each."""
    return Period(
        add_intervals(anchor, interval, every * index, time_zone),
        add_intervals(anchor, interval, every * (index + 1), time_zone),
    )


def index_containing(anchor: datetime, interval: str, every: int, instant: datetime, time_zone: str) -> int:
    """The index of the period that `instant` falls in; negative before the anchor."""
    days = (instant - anchor) / timedelta(days=1)
    index = int(days // (_TYPICAL[interval] * every))
    while add_intervals(anchor, interval, every * index, time_zone) > instant:
        index -= 1
    while add_intervals(anchor, interval, every * (index + 1), time_zone) <= instant:
        index += 1
    return index
