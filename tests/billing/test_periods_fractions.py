"""The share of a partial period, by every convention; the arithmetic stands beside each."""

from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from billing.periods import Period, PeriodInvalid, Rule, first_period, fraction, local, whole_period


def span(start: str, end: str, zone: str = "UTC") -> Period:
    return Period(local(start, zone), local(end, zone))


JANUARY = span("2026-01-01", "2026-02-01")
FEBRUARY = span("2026-02-01", "2026-03-01")
MARCH = span("2026-03-01", "2026-04-01")
NOON_TO_NOON = span("2026-01-10T12:00", "2026-02-10T12:00")


@pytest.mark.parametrize(
    ("part", "whole", "expected"),
    [
        (span("2026-01-10", "2026-02-01"), JANUARY, Fraction(22, 31)),  # 10th to 31st
        (span("2026-01-01", "2026-01-10"), JANUARY, Fraction(9, 31)),
        (span("2026-01-01T00:00", "2026-01-01T12:00"), JANUARY, Fraction(1, 62)),  # half a day of 31
        (span("2026-01-31T23:59:59", "2026-02-01"), JANUARY, Fraction(1, 31 * 86_400)),
        (span("2026-01-31T23:59:59.999999", "2026-02-01"), JANUARY, Fraction(1, 31 * 86_400 * 10**6)),
        (JANUARY, JANUARY, Fraction(1)),
        # Only what lies in the whole counts.
        (span("2025-12-20", "2026-01-10"), JANUARY, Fraction(9, 31)),
        (span("2026-01-20", "2026-03-10"), JANUARY, Fraction(12, 31)),
        (span("2025-01-01", "2027-01-01"), JANUARY, Fraction(1)),
        (span("2026-02-01", "2026-02-10"), JANUARY, Fraction(0)),
        (span("2025-12-01", "2026-01-01"), JANUARY, Fraction(0)),
    ],
)
def test_by_second(part: Period, whole: Period, expected: Fraction) -> None:
    assert fraction(part, whole) == expected


@pytest.mark.parametrize(
    ("part", "charge_last_day", "expected"),
    [
        # Cancelled on the 15th: days 1 to 14, or 1 to 15.
        (span("2026-01-01", "2026-01-15"), False, Fraction(14, 31)),
        (span("2026-01-01", "2026-01-15"), True, Fraction(15, 31)),
        (span("2026-01-01", "2026-01-15T00:00:00.000001"), False, Fraction(14, 31)),
        (span("2026-01-01", "2026-01-15T00:00:00.000001"), True, Fraction(15, 31)),
        (span("2026-01-01", "2026-01-15T23:59:59.999999"), False, Fraction(14, 31)),
        (span("2026-01-01", "2026-01-15T23:59:59.999999"), True, Fraction(15, 31)),
        # Begun and cancelled on the same day.
        (span("2026-01-15T09:00", "2026-01-15T17:00"), False, Fraction(0)),
        (span("2026-01-15T09:00", "2026-01-15T17:00"), True, Fraction(1, 31)),
        # The day of the start counts whole.
        (span("2026-01-15T23:59", "2026-02-01"), False, Fraction(17, 31)),
        # A part that runs to the whole's end gains nothing.
        (span("2026-01-15", "2026-02-01"), True, Fraction(17, 31)),
        (span("2026-01-01", "2026-01-31T12:00"), True, Fraction(1)),
        (span("2026-01-01", "2026-01-31T12:00"), False, Fraction(30, 31)),
        (JANUARY, True, Fraction(1)),
    ],
)
def test_by_day_with_and_without_the_last_day(part: Period, charge_last_day: bool, expected: Fraction) -> None:
    assert fraction(part, JANUARY, by="day", charge_last_day=charge_last_day) == expected


@pytest.mark.parametrize(
    ("end", "charge_last_day", "expected"),
    [
        ("2026-01-15T12:00", False, Fraction(29, 62)),  # 14.5 days of 31
        ("2026-01-15T12:00", True, Fraction(15, 31)),
        ("2026-01-15", True, Fraction(15, 31)),
        ("2026-01-31T12:00", True, Fraction(1)),
    ],
)
def test_the_last_day_is_charged_to_its_end_by_second_as_well(
    end: str, charge_last_day: bool, expected: Fraction
) -> None:
    assert fraction(span("2026-01-01", end), JANUARY, charge_last_day=charge_last_day) == expected


@pytest.mark.parametrize(
    ("part", "day_count", "expected"),
    [
        # 10 January noon to 12 January 10:00: two dates half-open, 46 hours, three dates with both ends.
        (span("2026-01-10T12:00", "2026-01-12T10:00"), "calendar", Fraction(2, 31)),
        (span("2026-01-10T12:00", "2026-01-12T10:00"), "started", Fraction(2, 31)),
        (span("2026-01-10T12:00", "2026-01-12T10:00"), "inclusive", Fraction(3, 32)),
        (span("2026-01-10T12:00", "2026-01-12T12:00"), "started", Fraction(2, 31)),
        (span("2026-01-10T12:00", "2026-01-12T12:00:00.000001"), "started", Fraction(3, 31)),
        (span("2026-01-10T12:00", "2026-01-10T12:00:00.000001"), "started", Fraction(1, 31)),
        (span("2026-01-10T12:00", "2026-01-10T13:00"), "calendar", Fraction(0)),
        (span("2026-01-10T12:00", "2026-01-10T13:00"), "inclusive", Fraction(1, 32)),
        (NOON_TO_NOON, "calendar", Fraction(1)),
        (NOON_TO_NOON, "started", Fraction(1)),
        (NOON_TO_NOON, "inclusive", Fraction(1)),
    ],
)
def test_days_counted_in_other_ways(part: Period, day_count: str, expected: Fraction) -> None:
    assert fraction(part, NOON_TO_NOON, by="day", day_count=day_count) == expected


@pytest.mark.parametrize(
    ("part", "whole", "by", "expected"),
    [
        (span("2026-01-10", "2026-02-01"), JANUARY, "day", Fraction(22, 30)),
        (span("2026-02-10", "2026-03-01"), FEBRUARY, "day", Fraction(19, 30)),
        # Never above 1, and the whole is 1 however many days it has.
        (span("2026-01-01T12:00", "2026-02-01"), JANUARY, "day", Fraction(1)),
        (span("2026-01-02", "2026-02-01"), JANUARY, "day", Fraction(1)),  # 30 of 30
        (span("2026-01-03", "2026-02-01"), JANUARY, "day", Fraction(29, 30)),
        (FEBRUARY, FEBRUARY, "day", Fraction(1)),
        (span("2026-02-01", "2026-02-28"), FEBRUARY, "day", Fraction(27, 30)),
        (span("2026-01-10T12:00", "2026-02-01"), JANUARY, "second", Fraction(43, 60)),  # 21.5 of 30
        (span("2026-01-01T12:00", "2026-02-01"), JANUARY, "second", Fraction(1)),  # 30.5 of 30
    ],
)
def test_a_period_taken_to_have_thirty_days(part: Period, whole: Period, by: str, expected: Fraction) -> None:
    assert fraction(part, whole, by=by, days=30) == expected


@pytest.mark.parametrize(
    ("start", "end", "whole", "expected"),
    [
        # Within a month the days it has; across its end as if it had 30.
        ("2023-05-15", "2023-05-23", ("2023-04-23", "2023-05-23"), Fraction(8, 30)),
        ("2023-05-23", "2023-06-15", ("2023-05-23", "2023-06-23"), Fraction(22, 30)),  # 23 - (31 - 30)
        ("2023-06-23", "2023-07-15", ("2023-06-23", "2023-07-23"), Fraction(22, 30)),
        ("2023-02-23", "2023-03-15", ("2023-02-23", "2023-03-23"), Fraction(22, 30)),  # 20 - (28 - 30)
        ("2024-02-23", "2024-03-15", ("2024-02-23", "2024-03-23"), Fraction(22, 30)),  # 21 - (29 - 30)
    ],
)
def test_months_of_thirty_days(start: str, end: str, whole: tuple[str, str], expected: Fraction) -> None:
    assert fraction(span(start, end), span(*whole), by="day", day_count="30/360", days=30) == expected
    # Without a number of days the whole is counted alike: these months have 30.
    assert fraction(span(start, end), span(*whole), by="day", day_count="30/360") == expected


@pytest.mark.parametrize(
    ("start", "end", "whole", "days", "expected"),
    [
        # As many days in every month as the period is taken to have: 28 - 23 + 15 = 20 of 28.
        ("2023-05-23", "2023-06-15", ("2023-05-15", "2023-06-15"), 28, Fraction(20, 28)),
        ("2023-02-23", "2023-03-15", ("2023-02-15", "2023-03-15"), 28, Fraction(20, 28)),
        ("2024-02-23", "2024-03-15", ("2024-02-15", "2024-03-15"), 28, Fraction(20, 28)),
        # A quarter of 90 days and a year of 360 have months of 30.
        ("2023-02-23", "2023-04-15", ("2023-01-15", "2023-04-15"), 90, Fraction(52, 90)),  # 60 - 23 + 15
        ("2023-02-23", "2024-01-15", ("2023-01-15", "2024-01-15"), 360, Fraction(322, 360)),  # 330 - 23 + 15
    ],
)
def test_months_as_long_as_the_period_is_taken_to_be(
    start: str, end: str, whole: tuple[str, str], days: int, expected: Fraction
) -> None:
    assert fraction(span(start, end), span(*whole), by="day", day_count="30/360", days=days) == expected


def test_a_year_of_twelve_months_of_thirty_days() -> None:
    year = span("2026-01-01", "2027-01-01")
    # January to March and 10 days of April: 100 of 360.
    assert fraction(span("2026-01-01", "2026-04-11"), year, by="day", day_count="30/360") == Fraction(100, 360)


@pytest.mark.parametrize(
    ("zone", "whole", "part", "by_second", "by_day"),
    [
        # New York, March: 31 days, one of them of 23 hours; the first 15 days hold 359 of 743 hours.
        (
            "America/New_York",
            ("2026-03-01", "2026-04-01"),
            ("2026-03-01", "2026-03-16"),
            Fraction(359, 743),
            Fraction(15, 31),
        ),
        # November: 30 days, one of 25 hours.
        (
            "America/New_York",
            ("2026-11-01", "2026-12-01"),
            ("2026-11-01", "2026-11-16"),
            Fraction(361, 721),
            Fraction(15, 30),
        ),
        # Lord Howe, April 2026: one day of 24.5 hours.
        (
            "Australia/Lord_Howe",
            ("2026-04-01", "2026-05-01"),
            ("2026-04-01", "2026-04-16"),
            Fraction(721, 1441),
            Fraction(15, 30),
        ),
        # Kolkata changes no clocks; its 10th begins at 18:30 UTC of the 9th.
        (
            "Asia/Kolkata",
            ("2026-01-01", "2026-02-01"),
            ("2026-01-10", "2026-02-01"),
            Fraction(22, 31),
            Fraction(22, 31),
        ),
        # Samoa, December 2011: 30 days took place and 31 dates are counted.
        ("Pacific/Apia", ("2011-12-01", "2012-01-01"), ("2011-12-01", "2011-12-16"), Fraction(1, 2), Fraction(15, 31)),
    ],
)
def test_clocks_that_change_count_by_second_and_not_by_day(
    zone: str, whole: tuple[str, str], part: tuple[str, str], by_second: Fraction, by_day: Fraction
) -> None:
    assert fraction(span(*part, zone), span(*whole, zone), time_zone=zone) == by_second
    for day_count in ("calendar", "started"):
        assert fraction(span(*part, zone), span(*whole, zone), time_zone=zone, by="day", day_count=day_count) == by_day


def test_the_billing_time_zone_says_which_day_it_is() -> None:
    # 20:00 UTC of the 9th is the 10th in Kolkata.
    month = span("2026-01-01", "2026-02-01", "Asia/Kolkata")
    part = Period(local("2026-01-09T20:00"), month.end)
    assert fraction(part, month, time_zone="Asia/Kolkata", by="day") == Fraction(22, 31)
    assert fraction(Period(month.start, part.start), month, time_zone="Asia/Kolkata", by="day") == Fraction(9, 31)
    assert fraction(
        Period(month.start, part.start), month, time_zone="Asia/Kolkata", by="day", charge_last_day=True
    ) == Fraction(10, 31)


def test_the_first_partial_period_of_a_calendar_month() -> None:
    monthly = Rule("Month", anchor=local("2026-01-10"), alignment="calendar")
    first = first_period(monthly)
    assert fraction(first, whole_period(monthly, first)) == Fraction(22, 31)


def test_a_part_without_length_is_nothing_unless_its_day_is_charged() -> None:
    moment = local("2026-01-15T09:00")
    assert fraction((moment, moment), JANUARY) == 0
    assert fraction((moment, moment), JANUARY, by="day", day_count="inclusive") == 0
    assert fraction((moment, moment), JANUARY, by="day", charge_last_day=True) == Fraction(1, 31)
    assert fraction((moment, moment), JANUARY, charge_last_day=True) == Fraction(15, 24) / 31  # 09:00 to midnight


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"by": "hour"}, "Proration is by second or by day; not by 'hour'."),
        ({"day_count": "guess"}, "Days are counted as calendar, started, inclusive, 30/360; not 'guess'."),
        ({"days": 0}, "A period is taken to have 1 day or more; not 0."),
        ({"days": 30.5}, "A period is taken to have 1 day or more; not 30.5."),
        ({"time_zone": "Nowhere"}, "'Nowhere' is no time zone such as Europe/Berlin."),
    ],
)
def test_a_convention_that_does_not_exist_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PeriodInvalid) as caught:
        fraction(span("2026-01-10", "2026-02-01"), JANUARY, **changes)
    assert str(caught.value) == message


def test_a_whole_without_a_day_cannot_be_counted_in_days() -> None:
    hours = span("2026-01-10T09:00", "2026-01-10T17:00")
    with pytest.raises(PeriodInvalid, match="holds no day to count; prorate it by second"):
        fraction(span("2026-01-10T09:00", "2026-01-10T10:00"), hours, by="day")
    assert fraction(span("2026-01-10T09:00", "2026-01-10T10:00"), hours) == Fraction(1, 8)


# -- what holds for every period ------------------------------------------------------------------------------

zones = st.sampled_from(
    ["UTC", "Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe", "America/New_York", "Pacific/Apia", "Asia/Beirut"]
)
# Hypothesis wants its bounds naive and adds the zone itself.
instants = st.datetimes(datetime(2010, 1, 1), datetime(2030, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001
conventions = st.sampled_from(
    [
        {"by": "second"},
        {"by": "day"},
        {"by": "day", "day_count": "30/360"},
    ]
)
any_convention = st.fixed_dictionaries(
    {
        "by": st.sampled_from(["second", "day"]),
        "charge_last_day": st.booleans(),
        "days": st.none() | st.integers(1, 40),
        "day_count": st.sampled_from(["calendar", "started", "inclusive", "30/360"]),
    }
)


@settings(max_examples=300, deadline=None)
@given(instants, st.lists(st.integers(0, 10**9), min_size=1, max_size=6), zones, conventions)
def test_the_parts_of_a_split_add_up_to_one(
    start: datetime, cuts: list[int], zone: str, convention: dict[str, Any]
) -> None:
    whole = Period(start, start + timedelta(days=40))
    marks = sorted({whole.start, whole.end, *(start + timedelta(days=40) * (cut / 10**9) for cut in cuts)})
    parts = [Period(one, two) for one, two in pairwise(marks)]
    assert sum(fraction(part, whole, time_zone=zone, **convention) for part in parts) == 1


@settings(max_examples=300, deadline=None)
@given(instants, instants, instants, st.integers(2, 400), zones, any_convention)
def test_a_fraction_lies_between_nothing_and_all(
    one: datetime, two: datetime, start: datetime, length: int, zone: str, convention: dict[str, Any]
) -> None:
    assume(one != two)
    whole = Period(start, start + timedelta(days=length))
    found = fraction(Period(min(one, two), max(one, two)), whole, time_zone=zone, **convention)
    assert 0 <= found <= 1
    assert fraction(whole, whole, time_zone=zone, **convention) == 1


@settings(max_examples=300, deadline=None)
@given(instants, st.integers(0, 10**6), st.integers(0, 10**6), zones, any_convention)
def test_a_longer_part_never_costs_less(
    start: datetime, one: int, two: int, zone: str, convention: dict[str, Any]
) -> None:
    whole = Period(start, start + timedelta(days=62))
    shorter, longer = (start + timedelta(days=62) * (share / 10**6) for share in sorted((one, two)))
    found = [fraction((start, end), whole, time_zone=zone, **convention) for end in (shorter, longer)]
    # In an hour that repeats the wall clock goes back, and days begun with it: never by more than one.
    slack = Fraction(1, convention["days"] or 62) if convention["day_count"] == "started" else 0
    assert found[0] <= found[1] + slack
