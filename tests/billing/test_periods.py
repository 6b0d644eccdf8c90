"""Periods counted from their anchor: month ends, leap years, changes of clocks."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing.periods import INTERVALS, Period, add_intervals, index_containing, nth_period


def at(text: str, zone: str = "UTC") -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)


@pytest.mark.parametrize(
    ("anchor", "interval", "every", "starts"),
    [
        ("2026-01-31", "Month", 1, ["2026-01-31", "2026-02-28", "2026-03-31", "2026-04-30", "2026-05-31"]),
        ("2027-12-31", "Month", 1, ["2027-12-31", "2028-01-31", "2028-02-29", "2028-03-31"]),
        ("2026-01-30", "Month", 1, ["2026-01-30", "2026-02-28", "2026-03-30"]),
        ("2026-01-29", "Month", 1, ["2026-01-29", "2026-02-28", "2026-03-29"]),
        ("2026-08-31", "Month", 3, ["2026-08-31", "2026-11-30", "2027-02-28", "2027-05-31"]),
        ("2024-02-29", "Year", 1, ["2024-02-29", "2025-02-28", "2026-02-28", "2027-02-28", "2028-02-29"]),
        ("2026-12-28", "Week", 1, ["2026-12-28", "2027-01-04", "2027-01-11"]),
        ("2028-02-27", "Day", 1, ["2028-02-27", "2028-02-28", "2028-02-29", "2028-03-01"]),
        ("2026-02-27", "Day", 10, ["2026-02-27", "2026-03-09", "2026-03-19"]),
    ],
)
def test_each_period_is_counted_from_the_anchor(anchor: str, interval: str, every: int, starts: list[str]) -> None:
    periods = [nth_period(at(anchor), interval, every, n, "UTC") for n in range(len(starts) - 1)]
    assert [p.start for p in periods] == [at(day) for day in starts[:-1]]
    assert [p.end for p in periods] == [at(day) for day in starts[1:]]


@pytest.mark.parametrize(
    ("anchor", "zone", "interval", "expected_utc"),
    [
        # Berlin: midnight is 23:00 UTC in winter, 22:00 in summer.
        ("2026-03-01T00:00", "Europe/Berlin", "Month", ["2026-02-28T23:00", "2026-03-31T22:00", "2026-04-30T22:00"]),
        ("2026-10-01T00:00", "Europe/Berlin", "Month", ["2026-09-30T22:00", "2026-10-31T23:00"]),
        # The day the clocks go forward lasts 23 hours, the day they go back 25.
        ("2026-03-29T00:00", "Europe/Berlin", "Day", ["2026-03-28T23:00", "2026-03-29T22:00"]),
        ("2026-10-25T00:00", "Europe/Berlin", "Day", ["2026-10-24T22:00", "2026-10-25T23:00"]),
        # 02:30 does not exist on that day: it becomes 03:30 and is 02:30 again the day after.
        ("2026-03-28T02:30", "Europe/Berlin", "Day", ["2026-03-28T01:30", "2026-03-29T01:30", "2026-03-30T00:30"]),
        # 02:30 happens twice on that day: the first is meant.
        ("2026-10-24T02:30", "Europe/Berlin", "Day", ["2026-10-24T00:30", "2026-10-25T00:30", "2026-10-26T01:30"]),
        # Half-hour change of clocks, and offsets that are no whole hours.
        (
            "2026-04-04T00:00",
            "Australia/Lord_Howe",
            "Day",
            ["2026-04-03T13:00", "2026-04-04T13:00", "2026-04-05T13:30"],
        ),
        ("2026-01-31T00:00", "Asia/Kathmandu", "Month", ["2026-01-30T18:15", "2026-02-27T18:15", "2026-03-30T18:15"]),
        ("2026-01-31T00:00", "Pacific/Kiritimati", "Month", ["2026-01-30T10:00", "2026-02-27T10:00"]),
    ],
)
def test_periods_keep_the_wall_clock_of_their_zone(
    anchor: str, zone: str, interval: str, expected_utc: list[str]
) -> None:
    start = at(anchor, zone)
    found = [add_intervals(start, interval, n, zone) for n in range(len(expected_utc))]
    assert found == [at(text) for text in expected_utc]


zones = st.sampled_from(sorted(available_timezones()))
# Hypothesis wants its bounds naive and adds the zone itself.
anchors = st.datetimes(datetime(2024, 1, 1), datetime(2028, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001


@settings(max_examples=400)
@given(anchors, st.sampled_from(INTERVALS), st.integers(1, 12), st.integers(0, 40), zones)
def test_periods_meet_without_gap_or_overlap(
    anchor: datetime, interval: str, every: int, index: int, zone: str
) -> None:
    here = nth_period(anchor, interval, every, index, zone)
    following = nth_period(anchor, interval, every, index + 1, zone)
    assert here.end == following.start
    assert here.start < here.end < following.end


@settings(max_examples=400)
@given(anchors, anchors, st.sampled_from(INTERVALS), st.integers(1, 6), zones)
def test_every_instant_lies_in_exactly_one_period(
    anchor: datetime, instant: datetime, interval: str, every: int, zone: str
) -> None:
    index = index_containing(anchor, interval, every, instant, zone)
    assert instant in nth_period(anchor, interval, every, index, zone)
    assert instant not in nth_period(anchor, interval, every, index + 1, zone)
    assert instant not in nth_period(anchor, interval, every, index - 1, zone)


def test_a_period_holds_its_start_and_not_its_end() -> None:
    period = Period(at("2026-01-01"), at("2026-02-01"))
    assert period.start in period
    assert period.end - timedelta(microseconds=1) in period
    assert period.end not in period
    assert period.start - timedelta(microseconds=1) not in period


def test_a_period_that_ends_before_it_starts_is_refused() -> None:
    with pytest.raises(ValueError, match="must end after it starts"):
        Period(at("2026-01-01"), at("2026-01-01"))


def test_a_date_past_the_calendar_is_an_error_and_not_a_wrong_date() -> None:
    with pytest.raises(OverflowError):
        add_intervals(at("9990-01-01"), "Year", 10, "UTC")
