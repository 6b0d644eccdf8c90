"""Drawing a bar a day: pure numbers."""

from datetime import date
from decimal import Decimal

import pytest

from customers.portal.charts import DayValue, day_chart, nice_ceiling, percent

D = Decimal


@pytest.mark.parametrize(
    ("value", "ceiling"),
    [
        ("0", "1"),
        ("-3", "1"),
        ("1", "1"),
        ("3", "4"),
        ("7", "8"),
        ("9.5", "10"),
        ("72", "80"),
        ("101", "200"),
        ("0.003", "0.004"),
        ("1e40", "1e40"),
        ("99999999999999999999999999999999", "1e32"),
    ],
)
def test_an_axis_ends_at_the_next_round_number(value: str, ceiling: str) -> None:
    assert nice_ceiling(D(value)) == D(ceiling)


@pytest.mark.parametrize(
    ("part", "whole", "share"),
    [
        ("0", "10", "0.00%"),
        ("5", "10", "50.00%"),
        ("10", "10", "100.00%"),
        ("11", "10", "100.00%"),
        ("-1", "10", "0.00%"),
        ("1", "0", "0%"),
        ("1", "9223372036854775807", "0.00%"),
    ],
)
def test_a_share_is_never_more_than_the_whole(part: str, whole: str, share: str) -> None:
    assert percent(D(part), D(whole)) == share


def test_days_without_a_reading_have_no_bar_and_no_zero() -> None:
    values = [DayValue(date(2026, 2, 1), D(5)), DayValue(date(2026, 2, 2), None), DayValue(date(2026, 2, 3), D(0))]
    chart = day_chart(name="Peak", unit="users", values=values, last_day=date(2026, 2, 28), today=date(2026, 2, 3))
    assert chart is not None
    assert [bar.label for bar in chart.bars] == ["1 Feb: 5 users"]
    assert chart.rows == (("3 Feb", "0"), ("2 Feb", "–"), ("1 Feb", "5"))
    assert (chart.width, chart.days) == (280, ("1 Feb", "14 Feb", "28 Feb"))


def test_negative_days_hang_below_the_line() -> None:
    values = [DayValue(date(2026, 2, 1), D(10)), DayValue(date(2026, 2, 2), D(-10))]
    chart = day_chart(name="n", unit="", values=values, last_day=date(2026, 2, 2), today=date(2026, 2, 2))
    assert chart is not None
    assert [(bar.y, bar.height) for bar in chart.bars] == [("0.00", "50.00"), ("50.00", "50.00")]
    assert (chart.baseline, chart.top, chart.middle) == ("50.00", "10", "0")


def test_nothing_to_draw_is_no_chart_and_no_usage_says_so() -> None:
    assert day_chart(name="n", unit="", values=[], last_day=date(2026, 2, 2), today=date(2026, 2, 2)) is None
    chart = day_chart(
        name="n", unit="", values=[DayValue(date(2026, 2, 1), D(0))], last_day=date(2026, 2, 2), today=date(2026, 2, 1)
    )
    assert chart is not None
    assert (chart.bars, chart.summary) == ((), "No usage on these days yet.")
