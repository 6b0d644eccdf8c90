"""Charts, numbers and sentences, without a database."""

from datetime import date, timedelta
from decimal import Decimal

import pytest
from django.test import Client

from billing.admin.words import in_minor_words, one_of, terms_sentence
from billing.products import ChargeTerms, PriceTerms
from customers.admin.charts import Series, ranked, sparkline, time_chart
from customers.admin.formats import ago, badge, grouped, money_list, span
from meters.admin.meters import trend
from meters.models import Meter
from tests.base import at

DAYS = [date(2026, 3, 1) + timedelta(days=n) for n in range(4)]


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        ("0", "0"),
        ("-0", "0"),
        ("1500", "1,500"),
        ("13107200000", "13,107,200,000"),
        ("0.00025", "0.00025"),
        ("1E+5", "100,000"),
        ("1E-7", "0.0000001"),
        ("1.500", "1.5"),
        ("-1234.50", "-1,234.5"),
        ("123456789012345678901234567890.123456789", "123,456,789,012,345,678,901,234,567,890.123456789"),
    ],
)
def test_a_number_is_shown_with_every_digit(number: str, shown: str) -> None:
    assert grouped(Decimal(number)) == shown


def test_a_chart_holds_every_number_and_says_the_main_ones() -> None:
    chart = time_chart(
        title="Events",
        days=DAYS,
        series=[
            Series("Now", [Decimal(0), Decimal(50), Decimal(100), Decimal(25)]),
            Series("Before", [Decimal(1)] * 4, "dotted"),
            Series("Bars", [Decimal(100), Decimal(0), Decimal(50), Decimal(0)], "bar"),
        ],
        unit="events",
    )
    assert chart.series[0].points == "125.00,100.00 375.00,50.00 625.00,0.00 875.00,75.00"
    assert [(bar["y"], bar["h"]) for bar in chart.series[2].bars] == [("0.00", "100.00"), ("50.00", "50.00")]
    assert [tick.label for tick in chart.y_ticks] == ["0", "25", "50", "75", "100"]
    assert chart.rows[1] == ("2 Mar 2026", ["50", "1", "0"])
    assert chart.summary == "Events, 1 Mar to 4 Mar: highest 100 events on 3 Mar, latest 25 events."
    assert not chart.empty


def test_a_chart_of_nothing_and_one_of_enormous_numbers_can_be_drawn() -> None:
    nothing = time_chart(title="Events", days=DAYS, series=[Series("Now", [Decimal(0)] * 4)], unit="events")
    assert nothing.empty
    assert nothing.summary == "Events: nothing yet."
    assert time_chart(title="x", days=[], series=[Series("Now", [])], unit="x").empty
    huge = time_chart(
        title="x",
        days=DAYS[:2],
        series=[Series("Now", [Decimal("9.99E+120"), Decimal("-5")])],
        unit="x",
    )
    assert huge.series[0].points.endswith(",100.00")
    tiny = time_chart(title="x", days=DAYS[:1], series=[Series("Now", [Decimal("3E-9")])], unit="x")
    assert tiny.series[0].points == "500.00,25.00"  # of a chart that reaches up to 4E-9


def test_a_ranked_list_measures_against_its_largest() -> None:
    bars = ranked(
        caption="c",
        label_head="l",
        value_head="v",
        rows=[("a", Decimal(200), ""), ("b", Decimal(50), "")],
        unit="calls",
    )
    assert [(bar.label, bar.value, bar.per_cent) for bar in bars.bars] == [
        ("a", "200 calls", "100.0"),
        ("b", "50 calls", "25.0"),
    ]
    assert ranked(caption="c", label_head="l", value_head="v", rows=[]).bars == []
    assert sparkline([0, 10, 5]) == "0.00,22.00 50.00,2.00 100.00,12.00"
    assert sparkline([]) == ""


def test_a_status_is_a_word_and_a_colour() -> None:
    assert badge("on_hold") == '<span class="mb-badge mb-warn">On hold</span>'
    assert "&lt;script&gt;" in badge("<script>")


def test_amounts_of_several_currencies_stand_beside_each_other() -> None:
    assert money_list({"USD": Decimal(13740), "JPY": Decimal(500)}) == "¥500, $137.40"
    assert money_list({}) == "nothing"


def test_time_is_shown_in_words_with_the_instant_behind(client: Client) -> None:
    now = at("2026-03-10T12:00")
    assert ">3 h ago</time>" in ago(at("2026-03-10T08:10"), now)
    assert ">in 2 d</time>" in ago(at("2026-03-12T13:00"), now)
    assert ">just now</time>" in ago(at("2026-03-10T11:59:30"), now)
    assert ago(None, now) == "never"
    shown = span(at("2026-01-31"), at("2026-02-28"))
    assert ">31 Jan 2026 – 28 Feb 2026</span>" in shown
    assert "2026-01-31 00:00 to 2026-02-28 00:00 UTC, end not included" in shown


@pytest.mark.parametrize(
    ("now", "before", "said"),
    [
        (0, 0, "nothing yet"),
        (5, 0, "nothing in the 30 days before"),
        (0, 5, "100 % fewer than in the 30 days before (5)"),
        (150, 100, "50 % more than in the 30 days before (100)"),
        (1000, 1001, "as many as in the 30 days before (1,001)"),
    ],
)
def test_a_trend_makes_no_percentage_out_of_nothing(now: int, before: int, said: str) -> None:
    assert trend(now, before, 30) == said


def _terms(fee: int, *charges: tuple[str, str, int], count: int = 1, currency: str = "USD") -> PriceTerms:
    return PriceTerms(
        type="usage_based_price",
        currency=currency,
        fixed_amount=Decimal(fee),
        payment_frequency_count=count,
        payment_frequency_interval="Month",
        subscription_period_count=20,
        subscription_period_interval="Year",
        charges=tuple(
            ChargeTerms(Meter(public_id=unit, name=unit, measurement_unit=unit), Decimal(price), free)
            for unit, price, free in charges
        ),
    )


def test_a_price_is_a_sentence() -> None:
    assert terms_sentence(_terms(4900, ("calls", "1", 10000))) == "$49.00 a month + $0.01 per call after 10,000 free"
    assert terms_sentence(_terms(0, ("tokens", "0.001", 0))) == "$0.00001 per token, billed every month"
    assert terms_sentence(_terms(0, ("GB", "10", 0), count=3)) == "$0.10 per GB, billed every 3 months"
    assert terms_sentence(_terms(0)) == "$0.00 a month"
    once = PriceTerms(type="one_time_price", currency="JPY", fixed_amount=Decimal(500))
    assert terms_sentence(once) == "¥500 once"
    assert one_of("calls") == "call"
    assert one_of("GB") == "GB"
    assert one_of("access") == "access"


def test_it_says_what_a_price_is_called_on_the_api() -> None:
    assert in_minor_words(Decimal("0.100000000000"), "USD") == "“0.1” on the API, which counts cents"
    assert in_minor_words(Decimal("2"), "JPY") == "“2” on the API, which counts JPY"
    assert in_minor_words(Decimal("2"), "KWD") == "“2” on the API, which counts 1/1000 KWD"
