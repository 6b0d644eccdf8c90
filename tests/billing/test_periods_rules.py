"""Rules for periods: where boundaries lie, for every interval, alignment, zone and change of clocks."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from billing.periods import (
    ALIGNMENTS,
    INTERVALS,
    BeforeStart,
    NotNested,
    Period,
    PeriodInvalid,
    Rule,
    fee_periods_begun,
    first_period,
    local,
    nested_periods,
    nests,
    next_period,
    nth_period,
    period_at,
    periods_between,
    previous_period,
    rule_from_data,
    rule_to_data,
    usage_periods_ended,
    whole_period,
    why_not_nested,
)

MOMENT = timedelta(microseconds=1)


def rule(interval: str, every: int = 1, *, anchor: str, **changes: Any) -> Rule:
    return rule_from_data({"interval": interval, "every": every, "anchor": anchor, **changes})


def boundaries(of: Rule, count: int) -> list[datetime]:
    """The start of the first `count` periods, each asked of the one before it."""
    found = [first_period(of)]
    while len(found) < count:
        found.append(next_period(of, found[-1]))
    return [period.start for period in found]


# -- anniversary ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("interval", "every", "anchor", "starts"),
    [
        ("Month", 1, "2026-01-31", ["2026-01-31", "2026-02-28", "2026-03-31", "2026-04-30", "2026-05-31"]),
        ("Month", 1, "2028-01-31", ["2028-01-31", "2028-02-29", "2028-03-31"]),
        ("Month", 1, "2026-01-30", ["2026-01-30", "2026-02-28", "2026-03-30"]),
        ("Month", 1, "2026-01-29", ["2026-01-29", "2026-02-28", "2026-03-29"]),
        ("Month", 1, "2028-01-29", ["2028-01-29", "2028-02-29", "2028-03-29"]),
        ("Month", 1, "2026-02-28", ["2026-02-28", "2026-03-28", "2026-04-28"]),
        ("Month", 2, "2025-12-31", ["2025-12-31", "2026-02-28", "2026-04-30"]),
        ("Quarter", 1, "2025-11-30", ["2025-11-30", "2026-02-28", "2026-05-30", "2026-08-30"]),
        ("Quarter", 2, "2026-08-31", ["2026-08-31", "2027-02-28", "2027-08-31"]),
        ("Year", 1, "2024-02-29", ["2024-02-29", "2025-02-28", "2026-02-28", "2027-02-28", "2028-02-29"]),
        ("Year", 2, "2024-02-29", ["2024-02-29", "2026-02-28", "2028-02-29"]),
        ("Week", 1, "2026-12-28", ["2026-12-28", "2027-01-04", "2027-01-11"]),
        ("Week", 2, "2026-12-28", ["2026-12-28", "2027-01-11", "2027-01-25"]),
        ("Day", 1, "2028-02-28", ["2028-02-28", "2028-02-29", "2028-03-01"]),
        ("Day", 30, "2026-01-01", ["2026-01-01", "2026-01-31", "2026-03-02"]),
        ("Month", 1, "2026-01-31T15:45", ["2026-01-31T15:45", "2026-02-28T15:45", "2026-03-31T15:45"]),
    ],
)
def test_anniversary_periods_remember_the_anchor(interval: str, every: int, anchor: str, starts: list[str]) -> None:
    assert boundaries(rule(interval, every, anchor=anchor), len(starts)) == [local(day) for day in starts]


@pytest.mark.parametrize(
    ("interval", "every", "anchor", "billing_day", "starts"),
    [
        # A first partial period until the billing day, which is remembered through the short months.
        ("Month", 1, "2026-01-10", 31, ["2026-01-10", "2026-01-31", "2026-02-28", "2026-03-31", "2026-04-30"]),
        ("Month", 1, "2026-02-10", 31, ["2026-02-10", "2026-02-28", "2026-03-31"]),
        ("Month", 1, "2026-01-30", 31, ["2026-01-30", "2026-01-31", "2026-02-28"]),
        ("Month", 1, "2026-01-31", 31, ["2026-01-31", "2026-02-28", "2026-03-31"]),
        ("Month", 1, "2026-02-28", 30, ["2026-02-28", "2026-03-30", "2026-04-30"]),
        ("Month", 1, "2026-01-10", 5, ["2026-01-10", "2026-02-05", "2026-03-05"]),
        ("Month", 1, "2026-01-05", 5, ["2026-01-05", "2026-02-05", "2026-03-05"]),
        ("Month", 1, "2026-12-06", 5, ["2026-12-06", "2027-01-05", "2027-02-05"]),
        # Later in its own billing day: the first period has lost the morning.
        ("Month", 1, "2026-01-05T09:30", 5, ["2026-01-05T09:30", "2026-02-05", "2026-03-05"]),
        ("Quarter", 1, "2026-02-10", 15, ["2026-02-10", "2026-02-15", "2026-05-15", "2026-08-15"]),
        ("Quarter", 1, "2026-02-20", 15, ["2026-02-20", "2026-03-15", "2026-06-15"]),
        ("Year", 1, "2026-02-10", 31, ["2026-02-10", "2026-02-28", "2027-02-28", "2028-02-29"]),
    ],
)
def test_a_billing_day_begins_with_a_partial_period(
    interval: str, every: int, anchor: str, billing_day: int, starts: list[str]
) -> None:
    found = boundaries(rule(interval, every, anchor=anchor, billing_day=billing_day), len(starts))
    assert found == [local(day) for day in starts]


@pytest.mark.parametrize(
    ("anchor", "start", "starts"),
    [
        ("2026-03-01", "2026-02-20", ["2026-02-20", "2026-03-01", "2026-04-01"]),  # an anchor to come
        ("2026-01-31", "2026-03-10", ["2026-03-10", "2026-03-31", "2026-04-30"]),  # an anchor long ago
        ("2026-01-31", "2026-02-28", ["2026-02-28", "2026-03-31"]),  # a start on a boundary: nothing partial
        ("2026-01-31", "2026-02-27T23:59:59.999999", ["2026-02-27T23:59:59.999999", "2026-02-28"]),
        ("2026-01-31", "2026-02-28T00:00:00.000001", ["2026-02-28T00:00:00.000001", "2026-03-31"]),
    ],
)
def test_a_start_that_is_no_boundary_makes_the_first_period_partial(anchor: str, start: str, starts: list[str]) -> None:
    assert boundaries(rule("Month", anchor=anchor, starts=start), len(starts)) == [local(day) for day in starts]


# -- calendar -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("interval", "every", "anchor", "first_weekday", "starts"),
    [
        ("Day", 1, "2026-01-10T15:00", 0, ["2026-01-10T15:00", "2026-01-11", "2026-01-12"]),
        ("Day", 1, "2026-01-10", 0, ["2026-01-10", "2026-01-11"]),
        # 10 January 2026 is a Saturday.
        ("Week", 1, "2026-01-10", 0, ["2026-01-10", "2026-01-12", "2026-01-19"]),
        ("Week", 1, "2026-01-10", 5, ["2026-01-10", "2026-01-17", "2026-01-24"]),
        ("Week", 1, "2026-01-10", 6, ["2026-01-10", "2026-01-11", "2026-01-18"]),
        ("Week", 1, "2026-01-12", 0, ["2026-01-12", "2026-01-19"]),
        ("Month", 1, "2026-01-10", 0, ["2026-01-10", "2026-02-01", "2026-03-01"]),
        ("Month", 1, "2026-01-31T23:59", 0, ["2026-01-31T23:59", "2026-02-01", "2026-03-01"]),
        ("Month", 1, "2026-02-01", 0, ["2026-02-01", "2026-03-01"]),
        # Several months at a time: within the year, from January.
        ("Month", 2, "2026-02-10", 0, ["2026-02-10", "2026-03-01", "2026-05-01"]),
        ("Month", 3, "2026-02-10", 0, ["2026-02-10", "2026-04-01", "2026-07-01"]),
        ("Month", 6, "2026-02-10", 0, ["2026-02-10", "2026-07-01", "2027-01-01"]),
        ("Quarter", 1, "2026-05-20", 0, ["2026-05-20", "2026-07-01", "2026-10-01", "2027-01-01"]),
        ("Quarter", 1, "2026-12-31", 0, ["2026-12-31", "2027-01-01"]),
        ("Quarter", 2, "2026-05-20", 0, ["2026-05-20", "2026-07-01", "2027-01-01"]),
        ("Year", 1, "2026-05-20", 0, ["2026-05-20", "2027-01-01", "2028-01-01"]),
        # Several years at a time: from 2000.
        ("Year", 2, "2026-05-20", 0, ["2026-05-20", "2028-01-01", "2030-01-01"]),
        ("Year", 2, "2027-05-20", 0, ["2027-05-20", "2028-01-01"]),
        ("Year", 5, "2026-05-20", 0, ["2026-05-20", "2030-01-01", "2035-01-01"]),
        # Several weeks from the week that holds 1 January 2000, a Saturday: Monday 27 December 1999 and so on.
        ("Week", 2, "2000-01-01", 0, ["2000-01-01", "2000-01-10", "2000-01-24"]),
        ("Week", 2, "2000-01-01", 6, ["2000-01-01", "2000-01-09", "2000-01-23"]),
        ("Week", 2, "2000-01-01", 5, ["2000-01-01", "2000-01-15"]),
        ("Day", 10, "2000-01-05", 0, ["2000-01-05", "2000-01-11", "2000-01-21"]),
    ],
)
def test_calendar_periods_begin_with_the_calendar(
    interval: str, every: int, anchor: str, first_weekday: int, starts: list[str]
) -> None:
    found = rule(interval, every, anchor=anchor, first_weekday=first_weekday, alignment="calendar")
    assert boundaries(found, len(starts)) == [local(day) for day in starts]


def test_a_partial_period_knows_the_whole_it_is_part_of() -> None:
    quarters = rule("Quarter", anchor="2026-05-20T15:00", alignment="calendar")
    first = first_period(quarters)
    assert first == Period(local("2026-05-20T15:00"), local("2026-07-01"))
    assert whole_period(quarters, first) == Period(local("2026-04-01"), local("2026-07-01"))
    second = next_period(quarters, first)
    assert whole_period(quarters, second) == second == Period(local("2026-07-01"), local("2026-10-01"))
    # Cut at the other end, by a cancellation.
    cut = Period(second.start, local("2026-08-15"))
    assert whole_period(quarters, cut) == second
    with pytest.raises(PeriodInvalid, match="reaches beyond one period, which ends at 2026-07-01"):
        whole_period(quarters, Period(first.start, second.start + MOMENT))


# -- zones and clocks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("zone", "interval", "alignment", "anchor", "starts_utc"),
    [
        # Offsets of half hours and quarter hours.
        (
            "Asia/Kolkata",
            "Month",
            "calendar",
            "2026-01-10",
            ["2026-01-09T18:30", "2026-01-31T18:30", "2026-02-28T18:30"],
        ),
        (
            "Asia/Kathmandu",
            "Month",
            "anniversary",
            "2026-01-31",
            ["2026-01-30T18:15", "2026-02-27T18:15", "2026-03-30T18:15"],
        ),
        ("Asia/Kathmandu", "Day", "calendar", "2026-01-31T12:00", ["2026-01-31T06:15", "2026-01-31T18:15"]),
        # Lord Howe's clocks change by half an hour: the day of 5 April 2026 has 24.5 hours, that of 4 October 23.5.
        (
            "Australia/Lord_Howe",
            "Day",
            "calendar",
            "2026-04-05",
            ["2026-04-04T13:00", "2026-04-05T13:30", "2026-04-06T13:30"],
        ),
        ("Australia/Lord_Howe", "Day", "calendar", "2026-10-04", ["2026-10-03T13:30", "2026-10-04T13:00"]),
        # New York, both changes: 8 March 2026 has 23 hours, 1 November 25.
        ("America/New_York", "Day", "calendar", "2026-03-08", ["2026-03-08T05:00", "2026-03-09T04:00"]),
        ("America/New_York", "Day", "calendar", "2026-11-01", ["2026-11-01T04:00", "2026-11-02T05:00"]),
        (
            "America/New_York",
            "Month",
            "anniversary",
            "2026-02-08T02:30",
            # 02:30 of 8 March is skipped and becomes 03:30 EDT; on 8 April it is 02:30 again.
            ["2026-02-08T07:30", "2026-03-08T07:30", "2026-04-08T06:30"],
        ),
        (
            "America/New_York",
            "Month",
            "anniversary",
            "2026-10-01T01:30",
            # 01:30 of 1 November happens twice: the first, still EDT.
            ["2026-10-01T05:30", "2026-11-01T05:30", "2026-12-01T06:30"],
        ),
        # Beirut's clocks change at midnight: 29 March 2026 begins at 01:00.
        ("Asia/Beirut", "Day", "calendar", "2026-03-28", ["2026-03-27T22:00", "2026-03-28T22:00", "2026-03-29T21:00"]),
        # Samoa left 30 December 2011 out: the 29th is followed by the 31st.
        (
            "Pacific/Apia",
            "Day",
            "calendar",
            "2011-12-29",
            ["2011-12-29T10:00", "2011-12-30T10:00", "2011-12-31T10:00"],
        ),
        (
            "Pacific/Apia",
            "Month",
            "anniversary",
            "2011-11-30",
            ["2011-11-30T10:00", "2011-12-30T10:00", "2012-01-29T10:00"],
        ),
        ("Pacific/Kiritimati", "Year", "calendar", "2026-01-01", ["2025-12-31T10:00", "2026-12-31T10:00"]),
    ],
)
def test_periods_follow_the_clocks_of_their_zone(
    zone: str, interval: str, alignment: str, anchor: str, starts_utc: list[str]
) -> None:
    found = boundaries(rule(interval, anchor=anchor, time_zone=zone, alignment=alignment), len(starts_utc))
    assert found == [local(text) for text in starts_utc]


def test_a_day_that_was_left_out_has_no_period() -> None:
    days = rule("Day", anchor="2011-12-28", time_zone="Pacific/Apia")
    found = periods_between(days, local("2011-12-28", "Pacific/Apia"), local("2012-01-02", "Pacific/Apia"))
    # The 28th, 29th, 31st and the 1st.
    assert [period.start for period in found] == [
        local("2011-12-28T10:00"),
        local("2011-12-29T10:00"),
        local("2011-12-30T10:00"),
        local("2011-12-31T10:00"),
    ]
    assert all(period.end - period.start == timedelta(days=1) for period in found)


def test_an_anchor_in_the_hour_that_happens_twice_keeps_its_own_instant() -> None:
    # 1 November 2026, New York: 01:30 EST is the second 01:30 of that night.
    anchor = local("2026-11-01T01:30-05:00")
    monthly = Rule("Month", anchor=anchor, time_zone="America/New_York")
    assert first_period(monthly) == Period(local("2026-11-01T06:30"), local("2026-12-01T06:30"))
    assert whole_period(monthly, first_period(monthly)) == first_period(monthly)
    assert nth_period(anchor, "Month", 1, 0, "America/New_York") == first_period(monthly)


# -- asking ---------------------------------------------------------------------------------------------------


def test_a_period_holds_its_start_and_not_its_end() -> None:
    monthly = rule("Month", anchor="2026-01-31")
    january = Period(local("2026-01-31"), local("2026-02-28"))
    february = Period(local("2026-02-28"), local("2026-03-31"))
    assert period_at(monthly, january.start) == january
    assert period_at(monthly, january.end - MOMENT) == january
    assert period_at(monthly, january.end) == february
    with pytest.raises(BeforeStart, match="The first period begins at 2026-01-31"):
        period_at(monthly, january.start - MOMENT)


def test_it_walks_forth_and_back() -> None:
    monthly = rule("Month", anchor="2026-01-10", alignment="calendar")
    first = first_period(monthly)
    second = next_period(monthly, first)
    assert second == Period(local("2026-02-01"), local("2026-03-01"))
    assert previous_period(monthly, second) == first == Period(local("2026-01-10"), local("2026-02-01"))
    assert previous_period(monthly, first) is None


@pytest.mark.parametrize(
    ("which", "start", "end", "months"),
    [
        ("touching", "2026-02-15", "2026-04-01", [2, 3]),
        ("touching", "2026-02-01", "2026-04-01T00:00:00.000001", [2, 3, 4]),
        ("touching", "2026-02-01", "2026-03-01", [2]),
        ("touching", "2025-06-01", "2026-01-10", []),
        ("touching", "2025-06-01", "2026-01-10T00:00:00.000001", [1]),
        ("touching", "2026-03-01", "2026-03-01", []),
        ("touching", "2026-03-02", "2026-03-01", []),
        ("beginning", "2026-01-10", "2026-03-01", [1, 2]),
        ("beginning", "2026-01-10T00:00:00.000001", "2026-03-01T00:00:00.000001", [2, 3]),
        ("ending", "2026-02-01", "2026-04-01", [2, 3]),
        ("ending", "2026-01-31T23:59:59.999999", "2026-03-31T23:59:59.999999", [1, 2]),
        ("inside", "2026-01-10", "2026-03-31", [1, 2]),
        ("inside", "2026-01-11", "2026-04-01", [2, 3]),
    ],
)
def test_periods_of_a_span_of_time(which: str, start: str, end: str, months: list[int]) -> None:
    # 10 January - 1 February, then the months.
    monthly = rule("Month", anchor="2026-01-10", alignment="calendar")
    found = periods_between(monthly, local(start), local(end), which=which)
    assert [period.start.month for period in found] == months
    assert all(whole_period(monthly, period).end == period.end for period in found)


# -- usage within the fee's period ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fee", "usage"),
    [
        (rule("Year", anchor="2026-01-31"), rule("Month", anchor="2026-01-31")),
        (rule("Year", anchor="2024-02-29"), rule("Quarter", anchor="2024-02-29")),
        (rule("Year", anchor="2026-01-31"), rule("Month", 6, anchor="2026-01-31")),
        (rule("Quarter", anchor="2026-01-31"), rule("Month", anchor="2026-01-31")),
        (rule("Month", anchor="2026-01-31"), rule("Month", anchor="2026-01-31")),
        (rule("Quarter", anchor="2026-01-31"), rule("Month", 3, anchor="2026-01-31")),
        (rule("Month", anchor="2026-01-31"), rule("Day", anchor="2026-01-31")),
        (rule("Week", 2, anchor="2026-01-31"), rule("Week", anchor="2026-01-31")),
        (rule("Week", anchor="2026-01-31"), rule("Day", 7, anchor="2026-01-31")),
        (
            rule("Year", anchor="2026-05-20", alignment="calendar"),
            rule("Month", anchor="2026-05-20", alignment="calendar"),
        ),
        (
            rule("Month", anchor="2026-05-20", alignment="calendar"),
            rule("Day", anchor="2026-05-20", alignment="calendar"),
        ),
        # An anniversary on the first of a month is the calendar.
        (rule("Year", anchor="2026-01-01"), rule("Month", anchor="2026-01-01", alignment="calendar")),
        (rule("Quarter", anchor="2026-02-10", billing_day=15), rule("Month", anchor="2026-02-10", billing_day=15)),
    ],
)
def test_usage_periods_that_tile_the_fees(fee: Rule, usage: Rule) -> None:
    assert nests(fee, usage)
    period = first_period(fee)
    for _ in range(5):
        inner = nested_periods(fee, usage, period)
        assert (inner[0].start, inner[-1].end) == (period.start, period.end)
        assert all(one.end == following.start for one, following in pairwise(inner))
        period = next_period(fee, period)


@pytest.mark.parametrize(
    ("fee", "usage", "reason"),
    [
        (
            rule("Year", anchor="2026-01-31"),
            rule("Month", 5, anchor="2026-01-31"),
            "A fee period of 1 year cannot be cut into usage periods of 5 months.",
        ),
        (
            rule("Month", anchor="2026-01-31"),
            rule("Year", anchor="2026-01-31"),
            "A fee period of 1 month cannot be cut into usage periods of 1 year.",
        ),
        (
            rule("Month", anchor="2026-01-31"),
            rule("Week", anchor="2026-01-31"),
            "A fee period of 1 month cannot be cut into usage periods of 1 week.",
        ),
        (
            rule("Day", 30, anchor="2026-01-31"),
            rule("Month", anchor="2026-01-31"),
            "A fee period of 30 days cannot be cut into usage periods of 1 month.",
        ),
        (
            rule("Month", anchor="2026-01-31"),
            rule("Day", anchor="2026-01-31", time_zone="Asia/Kolkata"),
            "The fee is billed in UTC and usage in Asia/Kolkata.",
        ),
        (
            rule("Month", anchor="2026-01-31"),
            rule("Day", anchor="2026-02-01"),
            "The fee's periods begin at 2026-01-31 00:00:00+00:00 and those of usage at 2026-02-01 00:00:00+00:00.",
        ),
        (
            rule("Year", anchor="2026-01-31T09:00"),
            rule("Month", anchor="2026-01-31T09:00", alignment="calendar"),
            "The periods of the fee and of usage begin at different times of the day.",
        ),
        (
            rule("Year", anchor="2026-01-31"),
            rule("Month", anchor="2026-01-31", alignment="calendar"),
            "The fee's periods begin on day 31 of the month and those of usage on day 1.",
        ),
        (
            rule("Year", anchor="2026-02-01"),
            rule("Quarter", anchor="2026-02-01", alignment="calendar"),
            "A fee period of 1 year cannot be cut into usage periods of 1 quarter, as the two are counted from "
            "different dates.",
        ),
        (
            rule("Week", 2, anchor="2026-01-10", alignment="calendar", first_weekday=6),
            rule("Week", anchor="2026-01-10", alignment="calendar"),
            "A fee period of 2 weeks cannot be cut into usage periods of 1 week, as the two are counted from "
            "different dates.",
        ),
    ],
)
def test_usage_periods_that_do_not(fee: Rule, usage: Rule, reason: str) -> None:
    assert not nests(fee, usage)
    assert why_not_nested(fee, usage) == reason
    with pytest.raises(NotNested) as caught:
        nested_periods(fee, usage, first_period(fee))
    assert str(caught.value) == reason


def test_a_yearly_plan_with_monthly_usage() -> None:
    fee, usage = rule("Year", anchor="2026-01-31"), rule("Month", anchor="2026-01-31")
    start = local("2026-01-31")
    # On the day it begins: the first year's fee, and no usage yet.
    assert fee_periods_begun(fee, until=start) == [Period(start, local("2027-01-31"))]
    assert usage_periods_ended(usage, until=start) == []
    # At the end of each month its usage, and no fee.
    assert fee_periods_begun(fee, after=start, until=local("2026-02-28")) == []
    assert usage_periods_ended(usage, after=start, until=local("2026-02-28") - MOMENT) == []
    assert usage_periods_ended(usage, after=start, until=local("2026-02-28")) == [Period(start, local("2026-02-28"))]
    # Eleven months later the last one's usage together with the second year's fee.
    before, then = local("2026-12-31"), local("2027-01-31")
    assert usage_periods_ended(usage, after=before, until=then) == [Period(before, then)]
    assert fee_periods_begun(fee, after=before, until=then) == [Period(then, local("2028-01-31"))]
    assert len(usage_periods_ended(usage, until=then)) == 12


# -- rules that make no sense ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"interval": "Fortnight"}, "The interval is one of Day, Week, Month, Quarter, Year; not 'Fortnight'."),
        ({"every": 0}, "The number of intervals must be a whole number of 1 or more; not 0."),
        ({"every": 1.5}, "The number of intervals must be a whole number of 1 or more; not 1.5."),
        ({"every": True}, "The number of intervals must be a whole number of 1 or more; not True."),
        ({"alignment": "moon"}, "The alignment is one of anniversary, calendar; not 'moon'."),
        ({"first_weekday": 7}, "The first weekday is 0 (Monday) to 6 (Sunday); not 7."),
        ({"time_zone": "Mars/Olympus"}, "'Mars/Olympus' is no time zone such as Europe/Berlin."),
        ({"time_zone": ""}, "'' is no time zone such as Europe/Berlin."),
        ({"time_zone": "../etc/passwd"}, "'../etc/passwd' is no time zone such as Europe/Berlin."),
        ({"billing_day": 0}, "The billing day is a day of the month from 1 to 31; not 0."),
        ({"billing_day": 32}, "The billing day is a day of the month from 1 to 31; not 32."),
        (
            {"billing_day": 5, "interval": "Week"},
            "A billing day goes with anniversary periods of months, quarters or years.",
        ),
        (
            {"billing_day": 5, "alignment": "calendar"},
            "A billing day goes with anniversary periods of months, quarters or years.",
        ),
        ({"anchor": "soon"}, "'soon' is no date such as 2026-01-31 or 2026-01-31T12:00."),
        ({"anchor": None}, "A rule for periods needs 'anchor'."),
        (
            {"length": 3},
            "A rule for periods has no 'length'; it has alignment, anchor, billing_day, every, first_weekday, "
            "interval, starts, time_zone.",
        ),
    ],
)
def test_a_rule_that_makes_no_sense_says_why(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PeriodInvalid) as caught:
        rule_from_data({"interval": "Month", "anchor": "2026-01-31", **changes})
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("Day", "Day"),
        ("days", "Day"),
        ("DAILY", "Day"),
        ("week", "Week"),
        ("monthly", "Month"),
        ("Months", "Month"),
        (" quarterly ", "Quarter"),
        ("year", "Year"),
        ("annual", "Year"),
    ],
)
def test_an_interval_may_be_said_in_other_words(said: str, meant: str) -> None:
    assert rule(said, anchor="2026-01-31").interval == meant


def test_an_instant_without_a_zone_is_refused() -> None:
    naive = datetime(2026, 1, 31)  # noqa: DTZ001
    with pytest.raises(PeriodInvalid, match="The anchor must be an instant with a time zone"):
        Rule("Month", anchor=naive)
    with pytest.raises(PeriodInvalid, match="The start must be an instant with a time zone"):
        Rule("Month", anchor=local("2026-01-31"), starts=naive)
    with pytest.raises(PeriodInvalid, match="The instant must be an instant with a time zone"):
        period_at(rule("Month", anchor="2026-01-31"), naive)


def test_a_selection_that_does_not_exist_is_refused() -> None:
    monthly = rule("Month", anchor="2026-01-31")
    with pytest.raises(PeriodInvalid, match="touching, beginning, ending, inside; not 'around'"):
        periods_between(monthly, local("2026-01-31"), local("2026-03-31"), which="around")


def test_a_period_past_the_calendar_is_an_error_and_not_a_wrong_one() -> None:
    for interval in INTERVALS:
        with pytest.raises(OverflowError):
            period_at(rule(interval, 9999, anchor="2026-01-31"), local("9999-12-31"))


def test_local_reads_dates_times_and_offsets() -> None:
    assert local("2026-01-31", "Asia/Kolkata") == datetime(2026, 1, 30, 18, 30, tzinfo=UTC)
    assert local("2026-01-31T12:00", "Asia/Kolkata") == datetime(2026, 1, 31, 6, 30, tzinfo=UTC)
    assert local("2026-01-31T12:00+01:00", "Asia/Kolkata") == datetime(2026, 1, 31, 11, 0, tzinfo=UTC)
    assert local("2026-01-31T12:00Z", "Asia/Kolkata") == datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


def test_two_periods_overlap_in_what_they_share() -> None:
    january = Period(local("2026-01-01"), local("2026-02-01"))
    assert january.overlap(Period(local("2026-01-20"), local("2026-02-20"))) == Period(
        local("2026-01-20"), local("2026-02-01")
    )
    assert january.overlap(Period(local("2026-02-01"), local("2026-03-01"))) is None


# -- what holds for every rule --------------------------------------------------------------------------------

# Odd ones on purpose; every zone is tried with the plain functions.
zones = st.sampled_from(
    [
        "UTC",
        "Asia/Kolkata",
        "Asia/Kathmandu",
        "Australia/Lord_Howe",
        "America/New_York",
        "Europe/Berlin",
        "Pacific/Apia",
        "Asia/Beirut",
        "America/Sao_Paulo",
        "Africa/Casablanca",
        "America/St_Johns",
        "Pacific/Chatham",
        "Antarctica/Troll",
        "Pacific/Kwajalein",
    ]
)
# Hypothesis wants its bounds naive and adds the zone itself.
instants = st.datetimes(datetime(1993, 1, 1), datetime(2033, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    interval = draw(st.sampled_from(INTERVALS))
    alignment = draw(st.sampled_from(ALIGNMENTS))
    anchor = draw(instants)
    dated = alignment == "anniversary" and interval in ("Month", "Quarter", "Year")
    return Rule(
        interval,
        draw(st.integers(1, 5)),
        anchor=anchor,
        time_zone=draw(zones),
        alignment=alignment,
        first_weekday=draw(st.integers(0, 6)),
        starts=draw(st.none() | st.timedeltas(timedelta(-400), timedelta(400)).map(lambda gap: anchor + gap)),
        billing_day=draw(st.none() | st.integers(1, 31)) if dated else None,
    )


@settings(max_examples=300, deadline=None)
@given(rules(), instants)
def test_every_instant_lies_in_the_period_found_for_it(of: Rule, instant: datetime) -> None:
    assume(instant >= of.start)
    period = period_at(of, instant)
    assert instant in period
    assert period_at(of, period.start) == period_at(of, period.end - MOMENT) == period
    assert period.start >= of.start
    whole = whole_period(of, period)
    assert whole.end == period.end
    assert whole.start <= period.start
    assert whole == period or period.start == of.start


@settings(max_examples=300, deadline=None)
@given(rules(), instants)
def test_periods_tile_time_without_gap_or_overlap(of: Rule, instant: datetime) -> None:
    assume(instant >= of.start)
    period = period_at(of, instant)
    following = next_period(of, period)
    assert following.start == period.end
    assert previous_period(of, following) == period
    until = next_period(of, following).end
    listed = periods_between(of, instant, until)
    assert listed == [period, following, next_period(of, following)]


@settings(max_examples=200, deadline=None)
@given(rules(), st.timedeltas(timedelta(0), timedelta(500)), st.timedeltas(timedelta(0), timedelta(500)))
def test_what_is_due_by_two_steps_is_what_is_due_by_one(of: Rule, one: timedelta, two: timedelta) -> None:
    middle, end = of.start + one, of.start + one + two
    for due in (fee_periods_begun, usage_periods_ended):
        assert due(of, until=middle) + due(of, after=middle, until=end) == due(of, until=end)


@settings(max_examples=200, deadline=None)
@given(rules(), st.sampled_from(INTERVALS), st.integers(1, 6))
def test_periods_that_nest_do_so_in_every_period(of: Rule, interval: str, every: int) -> None:
    dated = of.billing_day if interval in ("Month", "Quarter", "Year") else None
    usage = Rule(
        interval,
        every,
        anchor=of.anchor,
        time_zone=of.time_zone,
        alignment=of.alignment,
        first_weekday=of.first_weekday,
        starts=of.starts,
        billing_day=dated,
    )
    period = first_period(of)
    tiles = []
    for _ in range(4):
        inner = periods_between(usage, period.start, period.end)
        tiles.append((inner[0].start, inner[-1].end) == (period.start, period.end))
        period = next_period(of, period)
    if nests(of, usage):
        assert all(tiles)


@given(rules())
def test_a_rule_survives_being_written_down(of: Rule) -> None:
    assert rule_from_data(rule_to_data(of)) == of
