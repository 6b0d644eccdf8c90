"""Prices in words, as tiers and drawn: a table of what is said, and rules of any kind that must not break a page."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing.admin.charge_rows import KEPT, row_of
from billing.admin.price_charts import cost_chart, tier_rows, unit_price_chart
from billing.admin.words import rule_sentence
from billing.pricing import ChargeRule, Conventions, Discount, rule_from_data


@pytest.mark.parametrize(
    ("data", "currency", "sentence"),
    [
        ({"model": "per_unit", "unit_price": "0.1"}, "USD", "$0.001 per call"),
        ({"model": "per_unit", "unit_price": "0.5"}, "JPY", "¥0.5 per call"),
        ({"model": "per_unit", "unit_price": "1"}, "KWD", "KWD0.001 per call"),
        (
            {"model": "per_unit", "unit_price": "2", "free_units": "1000", "minimum": "100", "maximum": "5000"},
            "USD",
            "$0.02 per call after 1,000 free, at least $1.00, at most $50.00",
        ),
        ({"model": "per_unit", "unit_price": "2", "maximum": "0"}, "USD", "$0.02 per call, at most $0.00"),
        ({"model": "per_unit", "unit_price": "2", "unit_size": "60"}, "USD", "$0.02 per call, counted in 60 calls"),
        ({"model": "per_unit", "unit_price": "2", "each": True}, "USD", "$0.02 per call, each event by itself"),
        ({"model": "graduated", "tiers": [{"unit_price": "5"}]}, "USD", "$0.05 per call"),
        (
            {"model": "graduated", "tiers": [{"up_to": "10", "flat_fee": "500"}, {"up_to": None, "unit_price": "1"}]},
            "USD",
            "$5.00 flat up to 10, then $0.01",
        ),
        (
            {"model": "graduated", "tiers": [{"up_to": n + 1, "unit_price": n} for n in range(7)]},
            "USD",
            "$0.00 per call up to 1, $0.01 up to 2, $0.02 up to 3, $0.03 up to 4, 3 more tiers",
        ),
        (
            {"model": "graduated", "tiers": [{"up_to": "10", "percent": "2.5"}, {"up_to": None, "percent": "1"}]},
            "USD",
            "2.5% up to 10, then 1%",
        ),
        (
            {"model": "volume", "tiers": [{"up_to": "10", "unit_price": "300", "package_size": "5"}, {"up_to": None}]},
            "USD",
            "$3.00 per 5 for all up to 10, $0.00 for all above",
        ),
        ({"model": "package", "price": "40", "size": "1"}, "USD", "$0.40 per 1 call"),
        (
            {"model": "package", "price": "40", "size": "10", "rounding": "down"},
            "USD",
            "$0.40 per 10 calls, only full ones",
        ),
        ({"model": "percentage", "percent": "2.5"}, "USD", "2.5%"),
        (
            {"model": "percentage", "percent": "1", "free_amount": "1000000", "unit_value": "1"},
            "USD",
            "1% after $10,000.00 free",
        ),
        ({"model": "flat", "amount": "0"}, "USD", "$0.00 flat"),
        (
            {"model": "by_dimension", "keys": ["a", "b"], "prices": [{"value": ["x", "*"], "unit_price": "1"}]},
            "USD",
            "by a and b: x/* $0.01 per call",
        ),
        (
            {
                "model": "by_dimension",
                "keys": ["a"],
                "prices": {str(n): 1 for n in range(6)},
                "default": {"model": "flat", "amount": "3"},
            },
            "USD",
            "by a: 0 $0.01 per call, 1 $0.01 per call, 2 $0.01 per call, 3 $0.01 per call, 2 more, others $0.03 flat",
        ),
    ],
)  # fmt: skip
def test_what_is_said_of_a_price(data: dict[str, Any], currency: str, sentence: str) -> None:
    assert rule_sentence(rule_from_data(data), unit="calls", currency=currency) == sentence


@pytest.mark.parametrize(
    ("data", "rows"),
    [
        ({"model": "per_unit", "unit_price": "1"}, []),
        ({"model": "volume", "tiers": [{"unit_price": "5"}]}, [("all calls", "$0.05")]),
        (
            {"model": "volume", "tiers": [{"up_to": "0.5", "unit_price": "5"}, {"up_to": "1000", "flat_fee": "1"}]},
            [("0 to 0.5 calls", "$0.05"), ("0.5 to 1,000 calls", "$0.01 flat")],
        ),
    ],
)
def test_tiers_as_a_table(data: dict[str, Any], rows: list[tuple[str, str]]) -> None:
    found = tier_rows(rule_from_data(data), unit="calls", currency="USD")
    assert [(row.reach, row.price) for row in found] == rows


def test_a_package_is_drawn_in_steps() -> None:
    rule = rule_from_data({"model": "package", "price": "100", "size": "10", "free_units": "5"})
    drawn = cost_chart(rule, Conventions(), unit="calls", currency="USD")
    assert drawn is not None
    assert drawn.rows[:4] == [("0 calls", "$0.00"), ("5 calls", "$0.00"), ("15 calls", "$1.00"), ("25 calls", "$2.00")]


def test_the_conventions_of_the_price_are_those_of_the_picture() -> None:
    rule = rule_from_data({"model": "volume", "tiers": [{"up_to": "10", "unit_price": "5"}, {"unit_price": "1"}]})
    for bound, at_ten in (("inclusive", "$0.50"), ("exclusive", "$0.10")):
        drawn = cost_chart(rule, Conventions(tier_bound=bound), unit="calls", currency="USD")
        assert drawn is not None
        assert drawn.rows[1] == ("10 calls", at_ten)


# -- rules of any kind ----------------------------------------------------------------------------------------

amounts = st.decimals(min_value=0, max_value=10**9, places=6) | st.sampled_from(
    [Decimal(0), Decimal("1e-30"), Decimal("1e40"), Decimal("0.000000000001")]
)
sizes = amounts.filter(lambda number: number > 0)


@st.composite
def models(draw: st.DrawFn) -> dict[str, Any]:
    def shown(number: Decimal) -> str:
        return format(number, "f")

    kind = draw(st.sampled_from(["per_unit", "graduated", "volume", "package", "percentage", "flat"]))
    if kind in ("graduated", "volume"):
        bounds: list[Any] = sorted(draw(st.sets(sizes, max_size=6)))
        tiers = [{"up_to": shown(bound)} for bound in bounds] + draw(st.sampled_from([[], [{"up_to": None}]]))
        for tier in tiers:
            tier |= {"unit_price": shown(draw(amounts)), "flat_fee": shown(draw(amounts))}
            if draw(st.booleans()):
                tier["package_size"] = shown(draw(sizes))
        return {"model": kind, "tiers": tiers or [{"unit_price": "1"}]}
    first, second = draw(amounts), draw(sizes)
    simple: dict[str, dict[str, Any]] = {
        "per_unit": {"model": kind, "unit_price": shown(first)},
        "package": {"model": kind, "price": shown(first), "size": shown(second)},
        "percentage": {"model": kind, "percent": shown(first), "fixed_fee": shown(second)},
        "flat": {"model": kind, "amount": shown(first), "only_when_used": draw(st.booleans())},
    }
    return simple[kind]


@st.composite
def rules(draw: st.DrawFn) -> ChargeRule:
    around = {
        "free_units": format(draw(amounts), "f"),
        "minimum": format(draw(amounts), "f") if draw(st.booleans()) else None,
        "unit_size": format(draw(sizes), "f"),
        "discounts": [{"percent": 10}] if draw(st.booleans()) else [],
    }
    return rule_from_data({**draw(models()), **around})


@settings(max_examples=150, deadline=None)
@given(rules(), st.sampled_from(["USD", "JPY", "KWD"]))
def test_any_rule_can_be_said_and_drawn(rule: ChargeRule, currency: str) -> None:
    assert rule_sentence(rule, unit="calls", currency=currency)
    tier_rows(rule, unit="calls", currency=currency)
    for chart in (
        unit_price_chart(rule, unit="calls", currency=currency),
        cost_chart(rule, Conventions(), unit="calls", currency=currency),
    ):
        if chart is not None:
            places = [Decimal(number) for point in chart.points.split() for number in point.split(",")]
            assert all(0 <= place <= 1000 for place in places)
            assert len(chart.y_ticks) == len(chart.x_ticks) == 5


@settings(max_examples=150, deadline=None)
@given(models(), st.sampled_from(["USD", "JPY", "KWD"]))
def test_what_the_form_shows_of_a_rule_is_the_rule_or_keeps_it(data: dict[str, Any], currency: str) -> None:
    rule = rule_from_data({**data, "discounts": [{"percent": 10, "name": "x"}]})
    shown = row_of(rule, currency)
    assert shown["model"] in (data["model"], KEPT)
    if shown["model"] != KEPT:
        assert shown["discounts"] == [{"percent": "10", "amount": "", "name": "x"}]
        assert rule.discounts == (Discount(percent=Decimal(10), name="x"),)
