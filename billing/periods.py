"""Billing periods: half-open, exact, in the billing time zone. Pure: instants in, instants and fractions out.

A `Rule` says how time is cut into periods; the functions answer every question about it. Instants are aware
datetimes and come back in UTC. `local("2026-01-31", "Asia/Kolkata")` makes one from the wall clock of a zone.

    Rule("Month", anchor=local("2026-01-31"))                               # 31 Jan - 28 Feb - 31 Mar - ...
    Rule("Month", 3, anchor=start)                                          # three at a time
    Rule("Month", anchor=local("2026-01-10"), alignment="calendar")         # 10 Jan - 1 Feb - 1 Mar - ...
    Rule("Week", anchor=start, alignment="calendar", first_weekday=6)       # weeks from Sunday; 0 is Monday
    Rule("Month", anchor=local("2026-01-10"), billing_day=31)               # 10 Jan - 31 Jan - 28 Feb - ...
    Rule("Month", anchor=local("2026-03-01"), starts=local("2026-02-20"))   # 20 Feb - 1 Mar - 1 Apr - ...
    rule_from_data({"interval": "Month", "anchor": "2026-01-31", "time_zone": "Asia/Kolkata"})

Intervals are Day, Week, Month, Quarter and Year. The questions:

    period_at(rule, instant)                   the period that holds an instant; BeforeStart if nothing had begun
    first_period(rule)                         the first one, partial where the start is no boundary
    next_period(rule, period)
    previous_period(rule, period)              None before the first
    whole_period(rule, period)                 the uncut period that a partial one is part of
    periods_between(rule, start, end, which="touching")   also "beginning", "ending", "inside": see there
    nests(fee_rule, usage_rule)                whether usage periods tile fee periods; why_not_nested() says why not
    nested_periods(fee_rule, usage_rule, fee_period)      the usage periods of one fee period, or NotNested
    fee_periods_begun(fee_rule, after=, until=)           what is billed in advance by an instant
    usage_periods_ended(usage_rule, after=, until=)       what is billed in arrears by an instant
    fraction(part, whole, time_zone=, by="second")        the share of a whole period, as an exact Fraction

    monthly = Rule("Month", anchor=local("2026-01-10"), alignment="calendar")
    first = first_period(monthly)                                           # 10 Jan - 1 Feb
    fraction(first, whole_period(monthly, first))                           # Fraction(22, 31)

**Where boundaries lie.** Anniversary periods keep the anchor's day and its time on the wall clock. Counting from the
anchor keeps its day: monthly from 31 January gives 28 February and then 31 March, where adding a month to the last end
would stay on the 28th for ever. With a `billing_day` they begin at local midnight of that day of the month (the last
day where a month lacks it), the first one on or after the anchor's date. Calendar periods begin at local midnight of
the 1st, of the first weekday, or of the day. Several at a time are counted from 1 January 2000 (weeks from the week
that holds it): every 2 months is January, March, May...; every 3 is the quarters; every 2 years the even ones. Another
phase is an anniversary rule with its anchor on a boundary and `starts` on the start.

**Changes of clocks.** A time that a change skips moves forward by the skipped hour (02:30 becomes 03:30, that once); of
a time that happens twice the first is meant; a day that a zone left out altogether has no period.

**Fractions.** By second: elapsed time, to the microsecond, over elapsed time. By day: calendar days of the billing time
zone over calendar days, so a change of clocks counts for nothing. What other systems do, and how to say it here:

    elapsed seconds (Stripe, OpenMeter, Polar)          by="second"
    days, the end's day not counted (Kill Bill)         by="day"
    days, the last day charged (Lago's termination)     by="day", charge_last_day=True
    days begun, counted from the start's time of day    by="day", day_count="started"   (Lago's ceiling)
    both days counted, of the part and of the whole     by="day", day_count="inclusive"   (Flexprice's first rule)
    every month has 30 days                             by="day", day_count="30/360", days=30   (Kill Bill's fixed days)
    days over 30, whatever the month                    by="day", days=30
"""

import calendar
from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, fields
from datetime import UTC, date, datetime, time, timedelta
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

INTERVALS = ("Day", "Week", "Month", "Quarter", "Year")
ALIGNMENTS = ("anniversary", "calendar")
DAY_COUNTS = ("calendar", "started", "inclusive", "30/360")
SELECTIONS = ("touching", "beginning", "ending", "inside")

_DAYS = {"Day": 1, "Week": 7}
_MONTHS = {"Month": 1, "Quarter": 3, "Year": 12}
# A mean length, to guess an index that is then walked to the right one.
_TYPICAL = {"Day": 1.0, "Week": 7.0, "Month": 30.436875, "Quarter": 91.310625, "Year": 365.2425}
# Calendar periods of several intervals are counted from here. 2000 makes decades, half decades and even years come out.
_EPOCH = date(2000, 1, 1)
_MOMENT = timedelta(microseconds=1)
# How else an interval is called.
_WORDS = {interval.lower(): interval for interval in INTERVALS} | {
    "daily": "Day",
    "weekly": "Week",
    "monthly": "Month",
    "quarterly": "Quarter",
    "yearly": "Year",
    "annual": "Year",
    "annually": "Year",
}


class PeriodInvalid(ValueError):
    """A rule or a question about periods that makes no sense; the text says what is wrong."""


class BeforeStart(PeriodInvalid):
    """Asked for the period of an instant before the first one began."""


class NotNested(PeriodInvalid):
    """The usage periods do not tile the fee periods; the text says why."""


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

    def overlap(self, other: "Period") -> "Period | None":
        """What both have in common; None where that is nothing."""
        start, end = max(self.start, other.start), min(self.end, other.end)
        return Period(start, end) if start < end else None


# -- counting intervals from an anchor ----------------------------------------------------------------------


def add_intervals(anchor: datetime, interval: str, count: int, time_zone: str) -> datetime:
    """The instant `count` intervals after `anchor`, at the same time on the wall clock of `time_zone`.

    A day that a month lacks becomes its last; a time that a change of clocks skips moves forward by the skipped hour;
    of a time that happens twice the first is meant. Returns UTC. `OverflowError` past the year 9999.
    """
    if interval not in INTERVALS:
        raise ValueError(f"unknown interval {interval!r}")
    zone = ZoneInfo(time_zone)
    return _anniversary_grid(anchor, interval, 1, zone).boundary(count)


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


# -- rules --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rule:
    """How time is cut into periods: every so many intervals, from an anchor or by the calendar.

    The first period begins at `starts`, or at the anchor where that is not given; it is partial unless a boundary lies
    there. `billing_day` puts the boundaries of an anniversary rule on a day of the month other than the anchor's.
    """

    interval: str
    every: int = 1
    _: KW_ONLY
    anchor: datetime
    time_zone: str = "UTC"
    alignment: str = "anniversary"
    first_weekday: int = 0
    starts: datetime | None = None
    billing_day: int | None = None

    def __post_init__(self) -> None:
        if self.interval not in INTERVALS:
            raise PeriodInvalid(f"The interval is one of {', '.join(INTERVALS)}; not {self.interval!r}.")
        if not _is_whole(self.every) or self.every < 1:
            raise PeriodInvalid(f"The number of intervals must be a whole number of 1 or more; not {self.every!r}.")
        if self.alignment not in ALIGNMENTS:
            raise PeriodInvalid(f"The alignment is one of {', '.join(ALIGNMENTS)}; not {self.alignment!r}.")
        if not _is_whole(self.first_weekday) or not 0 <= self.first_weekday <= 6:
            raise PeriodInvalid(f"The first weekday is 0 (Monday) to 6 (Sunday); not {self.first_weekday!r}.")
        _zone(self.time_zone)
        _require_aware("anchor", self.anchor)
        if self.starts is not None:
            _require_aware("start", self.starts)
        if self.billing_day is not None:
            if not _is_whole(self.billing_day) or not 1 <= self.billing_day <= 31:
                raise PeriodInvalid(f"The billing day is a day of the month from 1 to 31; not {self.billing_day!r}.")
            if self.alignment != "anniversary" or self.interval not in _MONTHS:
                raise PeriodInvalid("A billing day goes with anniversary periods of months, quarters or years.")

    @property
    def start(self) -> datetime:
        """Where the first period begins, in UTC."""
        return (self.starts or self.anchor).astimezone(UTC)


def rule_from_data(data: Mapping[str, Any]) -> Rule:
    """A rule from plain data with the same keys. Instants may be ISO texts: without an offset they are local.

    An interval may be written as "month", "months" or "monthly", in any case.
    """
    known = {field.name for field in fields(Rule)}
    if unknown := sorted(set(data) - known):
        raise PeriodInvalid(f"A rule for periods has no {unknown[0]!r}; it has {', '.join(sorted(known))}.")
    for name in ("interval", "anchor"):
        if data.get(name) is None:
            raise PeriodInvalid(f"A rule for periods needs {name!r}.")
    values = {name: value for name, value in data.items() if value is not None}
    word = str(values["interval"]).strip().lower()
    values["interval"] = _WORDS.get(word) or _WORDS.get(word.removesuffix("s"), values["interval"])
    for name in ("anchor", "starts"):
        if name in values and not (isinstance(values[name], datetime) and values[name].tzinfo):
            values[name] = local(values[name], values.get("time_zone", "UTC"))
    return Rule(**values)


def rule_to_data(rule: Rule) -> dict[str, Any]:
    """The rule as plain data, instants as ISO texts in UTC; what is not set is left out."""
    data = {field.name: getattr(rule, field.name) for field in fields(Rule)}
    for name in ("anchor", "starts"):
        data[name] = data[name] and data[name].astimezone(UTC).isoformat()
    return {name: value for name, value in data.items() if value is not None}


def local(moment: str | date, time_zone: str = "UTC") -> datetime:
    """The instant, in UTC, of a date (its midnight) or time on the wall clock of a zone: local("2026-01-31").

    A text or datetime with an offset of its own keeps it.
    """
    if isinstance(moment, str):
        try:
            moment = datetime.fromisoformat(moment)
        except ValueError:
            raise PeriodInvalid(f"{moment!r} is no date such as 2026-01-31 or 2026-01-31T12:00.") from None
    if not isinstance(moment, date):
        raise PeriodInvalid(f"{moment!r} is no date such as 2026-01-31 or 2026-01-31T12:00.")
    if not isinstance(moment, datetime):
        moment = datetime.combine(moment, time.min)
    return (moment if moment.tzinfo else moment.replace(tzinfo=_zone(time_zone))).astimezone(UTC)


# -- the periods of a rule ----------------------------------------------------------------------------------


def period_at(rule: Rule, instant: datetime) -> Period:
    """The period that holds `instant`. `BeforeStart` if the first has not begun by then."""
    _require_aware("instant", instant)
    if instant < rule.start:
        raise BeforeStart(f"The first period begins at {rule.start}, after {instant}.")
    whole = _whole_at(_grid(rule), instant)
    return Period(max(whole.start, rule.start), whole.end)


def first_period(rule: Rule) -> Period:
    """The first period, partial where the start is no boundary."""
    return period_at(rule, rule.start)


def next_period(rule: Rule, period: Period) -> Period:
    """The period that begins where this one ends."""
    return period_at(rule, period.end)


def previous_period(rule: Rule, period: Period) -> Period | None:
    """The period that ends where this one begins; None before the first."""
    return period_at(rule, period.start - _MOMENT) if period.start > rule.start else None


def whole_period(rule: Rule, period: Period) -> Period:
    """The uncut period that a partial one is part of; a whole one is its own."""
    whole = _whole_at(_grid(rule), period.start)
    if period.end > whole.end:
        raise PeriodInvalid(f"{period.start} .. {period.end} reaches beyond one period, which ends at {whole.end}.")
    return whole


def periods_between(rule: Rule, start: datetime, end: datetime, *, which: str = "touching") -> list[Period]:
    """The periods of a span of time [start, end), oldest first; none before the rule's start. `which` are meant:

    * "touching": those that have an instant in common with it;
    * "beginning": those that begin in it, start <= begin < end;
    * "ending": those that end in it, start < end of period <= end (what became due in arrears);
    * "inside": those that lie in it whole.
    """
    if which not in SELECTIONS:
        raise PeriodInvalid(f"Periods are chosen as {', '.join(SELECTIONS)}; not {which!r}.")
    if end <= start or end <= rule.start:
        return []
    touching = []
    for period in _periods_from(rule, max(start, rule.start)):
        if period.start >= end:
            break
        touching.append(period)
    if which in ("beginning", "inside"):
        touching = [period for period in touching if period.start >= start]
    if which in ("ending", "inside"):
        touching = [period for period in touching if period.end <= end]
    return touching


# -- usage periods within fee periods -----------------------------------------------------------------------


def fee_periods_begun(fee_rule: Rule, *, after: datetime | None = None, until: datetime) -> list[Period]:
    """The periods whose fee, billed in advance, became due: begun later than `after` and not later than `until`."""
    since = fee_rule.start if after is None else after + _MOMENT
    return periods_between(fee_rule, since, until + _MOMENT, which="beginning")


def usage_periods_ended(usage_rule: Rule, *, after: datetime | None = None, until: datetime) -> list[Period]:
    """The periods whose usage, billed in arrears, is complete: ended later than `after` and not later than `until`."""
    return periods_between(usage_rule, usage_rule.start if after is None else after, until, which="ending")


def nested_periods(fee_rule: Rule, usage_rule: Rule, fee_period: Period) -> list[Period]:
    """The usage periods that one fee period consists of. `NotNested` where the rules do not go together."""
    if reason := why_not_nested(fee_rule, usage_rule):
        raise NotNested(reason)
    return periods_between(usage_rule, fee_period.start, fee_period.end)


def nests(fee_rule: Rule, usage_rule: Rule) -> bool:
    """Whether every fee period, now and for ever, consists of whole usage periods: a yearly plan with monthly usage."""
    return why_not_nested(fee_rule, usage_rule) is None


def why_not_nested(fee_rule: Rule, usage_rule: Rule) -> str | None:
    """Why usage periods do not tile fee periods, as a sentence; None where they do."""
    if fee_rule.time_zone != usage_rule.time_zone:
        return f"The fee is billed in {fee_rule.time_zone} and usage in {usage_rule.time_zone}."
    if fee_rule.start != usage_rule.start:
        return f"The fee's periods begin at {fee_rule.start} and those of usage at {usage_rule.start}."
    fee, usage = _grid(fee_rule), _grid(usage_rule)
    if fee == usage:
        return None
    if fee.clock != usage.clock or fee.origin_instant != usage.origin_instant:
        return "The periods of the fee and of usage begin at different times of the day."
    if usage.unit == "day" and usage.count == 1:
        return None
    lengths = f"{_length_in_words(fee_rule)} cannot be cut into usage periods of {_length_in_words(usage_rule)}"
    if fee.unit != usage.unit or fee.count % usage.count:
        return f"A fee period of {lengths}."
    if fee.day != usage.day:
        return f"The fee's periods begin on day {fee.day} of the month and those of usage on day {usage.day}."
    if (fee.origin - usage.origin) % usage.count:
        return f"A fee period of {lengths}, as the two are counted from different dates."
    return None


def _length_in_words(rule: Rule) -> str:
    return f"{rule.every} {rule.interval.lower()}{'' if rule.every == 1 else 's'}"


# -- fractions ----------------------------------------------------------------------------------------------


def fraction(
    part: Period | tuple[datetime, datetime],
    whole: Period,
    *,
    time_zone: str = "UTC",
    by: str = "second",
    charge_last_day: bool = False,
    days: int | None = None,
    day_count: str = "calendar",
) -> Fraction:
    """Which share of the whole period the part is: exact, from 0 to 1. The module's text shows the conventions.

    Only what of the part lies in the whole counts, and all of the whole is 1 by any convention.

    * `by`: "second" or "day".
    * `charge_last_day`: the local day that holds the end of the part is charged to its end, also when the part ends at
      that day's midnight. It never reaches beyond the whole, so a part that runs to the whole's end gains nothing.
    * `days`: the days that a whole period is taken to have, whatever it really has.
    * `day_count`, by day: "calendar" counts dates, the start's and not the end's; "started" counts days of 24 hours by
      the wall clock from the start, the last one rounded up; "inclusive" counts the dates of both ends, of the part and
      of the whole; "30/360" gives every month 30 days, or with `days` as many as the whole then has a month. Parts of
      a split add up to the whole by seconds, by "calendar" and by "30/360"; the others may count a day twice.
    """
    if by not in ("second", "day"):
        raise PeriodInvalid(f"Proration is by second or by day; not by {by!r}.")
    if day_count not in DAY_COUNTS:
        raise PeriodInvalid(f"Days are counted as {', '.join(DAY_COUNTS)}; not {day_count!r}.")
    if days is not None and (not _is_whole(days) or days < 1):
        raise PeriodInvalid(f"A period is taken to have 1 day or more; not {days!r}.")
    zone = _zone(time_zone)
    first, last = (part.start, part.end) if isinstance(part, Period) else part
    if charge_last_day:
        last = _instant(datetime.combine(last.astimezone(zone).date() + timedelta(days=1), time.min), zone)
    start, end = max(first, whole.start), min(last, whole.end)
    if start >= end:
        return Fraction(0)
    if (start, end) == (whole.start, whole.end):
        return Fraction(1)
    if by == "second":
        taken = Fraction((end - start) // _MOMENT)
        full = Fraction((timedelta(days=days) if days else whole.end - whole.start) // _MOMENT)
    else:
        month = _month_of(whole, zone, days)
        taken = _days_between(start, end, zone, day_count, month)
        full = Fraction(days) if days else _days_between(whole.start, whole.end, zone, day_count, month)
    if full == 0:
        raise PeriodInvalid("The whole period holds no day to count; prorate it by second.")
    return min(taken / full, Fraction(1))


def _month_of(whole: Period, zone: ZoneInfo, days: int | None) -> Fraction:
    """The days of every month by "30/360": 30, or those that make the whole the length it is taken to have."""
    months = _month_number(whole.end.astimezone(zone)) - _month_number(whole.start.astimezone(zone))
    return Fraction(days, months) if days and months else Fraction(30)


def _days_between(start: datetime, end: datetime, zone: ZoneInfo, day_count: str, month: Fraction) -> Fraction:
    first, last = start.astimezone(zone), end.astimezone(zone)
    if day_count == "started":
        # Wall clock against wall clock: a day with a change of clocks is one. Not below zero in an hour that repeats.
        elapsed = last.replace(tzinfo=None) - first.replace(tzinfo=None)
        return Fraction(max(-(-elapsed // timedelta(days=1)), 0))
    if day_count == "30/360":
        # Days that such a month lacks pass like its last: none of them counts twice, and no later end counts for less.
        counted = [_month_number(one) * month + min(Fraction(one.day), month + 1) for one in (first, last)]
        return counted[1] - counted[0]
    return Fraction((last.date() - first.date()).days + (day_count == "inclusive"))


# -- boundaries ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Grid:
    """The boundaries of a rule: every `count` days or months from an origin, on a day of the month, at a local time.

    `origin` is the ordinal of a date, or the number of a month since the year 0. `origin_instant` is kept where
    boundary 0 is an anchor in an hour that happens twice: the wall clock alone would name the first one.
    """

    unit: str
    count: int
    origin: int
    day: int
    clock: time
    zone: ZoneInfo
    origin_instant: datetime | None = None

    def boundary(self, index: int) -> datetime:
        if index == 0 and self.origin_instant:
            return self.origin_instant
        position = self.origin + index * self.count
        if self.unit == "day":
            if not 1 <= position <= date.max.toordinal():
                raise OverflowError("date value out of range")
            day = date.fromordinal(position)
        else:
            year, month = divmod(position, 12)
            if not 1 <= year <= 9999:
                raise OverflowError("date value out of range")
            day = _day_of_month(year, month + 1, self.day)
        return _instant(datetime.combine(day, self.clock), self.zone)

    def index_of(self, instant: datetime) -> int:
        """The last boundary not later than `instant`."""
        seen = instant.astimezone(self.zone).date()
        position = seen.toordinal() if self.unit == "day" else _month_number(seen)
        index = (position - self.origin) // self.count
        while self.boundary(index) > instant:
            index -= 1
        while self.boundary(index + 1) <= instant:
            index += 1
        return index


def _grid(rule: Rule) -> _Grid:
    zone = ZoneInfo(rule.time_zone)
    if rule.alignment == "calendar":
        if rule.interval in _MONTHS:
            return _Grid("month", rule.every * _MONTHS[rule.interval], _month_number(_EPOCH), 1, time.min, zone)
        first = _EPOCH
        if rule.interval == "Week":
            first -= timedelta(days=(_EPOCH.weekday() - rule.first_weekday) % 7)
        return _Grid("day", rule.every * _DAYS[rule.interval], first.toordinal(), 1, time.min, zone)
    if rule.billing_day is not None:
        begin = rule.anchor.astimezone(zone).date()
        month = _month_number(begin)
        if _day_of_month(begin.year, begin.month, rule.billing_day) < begin:
            month += 1
        return _Grid("month", rule.every * _MONTHS[rule.interval], month, rule.billing_day, time.min, zone)
    return _anniversary_grid(rule.anchor, rule.interval, rule.every, zone)


def _anniversary_grid(anchor: datetime, interval: str, every: int, zone: ZoneInfo) -> _Grid:
    wall = anchor.astimezone(zone)
    plain = wall.replace(tzinfo=None, fold=0)
    instant = anchor.astimezone(UTC)
    twice = None if _instant(plain, zone) == instant else instant
    if interval in _DAYS:
        return _Grid("day", every * _DAYS[interval], plain.toordinal(), 1, plain.time(), zone, twice)
    return _Grid("month", every * _MONTHS[interval], _month_number(plain), plain.day, plain.time(), zone, twice)


def _whole_at(grid: _Grid, instant: datetime) -> Period:
    index = grid.index_of(instant)
    return Period(grid.boundary(index), grid.boundary(index + 1))


def _periods_from(rule: Rule, instant: datetime) -> Iterator[Period]:
    """The period that holds `instant` and all after it, each boundary computed once."""
    grid = _grid(rule)
    index = grid.index_of(instant)
    start = grid.boundary(index)
    while True:
        index += 1
        end = grid.boundary(index)
        # A day that a zone left out has no period.
        if start < end:
            yield Period(max(start, rule.start), end)
        start = end


def _instant(wall: datetime, zone: ZoneInfo) -> datetime:
    return wall.replace(tzinfo=zone).astimezone(UTC)


def _month_number(day: date) -> int:
    return day.year * 12 + day.month - 1


def _day_of_month(year: int, month: int, day: int) -> date:
    """That day of the month, or its last where it has none such."""
    return date(year, month, min(day, calendar.monthrange(year, month)[1]))


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError, TypeError, AttributeError):
        raise PeriodInvalid(f"{name!r} is no time zone such as Europe/Berlin.") from None


def _require_aware(what: str, instant: datetime) -> None:
    if not isinstance(instant, datetime) or instant.tzinfo is None:
        raise PeriodInvalid(f"The {what} must be an instant with a time zone; not {instant!r}. See local().")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
