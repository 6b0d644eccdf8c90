"""Rules, usage and conventions as plain data: they round trip exactly, and nonsense is refused by name."""

import json
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.pricing import (
    ByDimension,
    ChargeRule,
    Commitment,
    Conventions,
    Discount,
    FeeRule,
    Flat,
    Graduated,
    Package,
    Percentage,
    PerUnit,
    PricingInvalid,
    Tax,
    Tier,
    Usage,
    Volume,
    conventions_from_data,
    conventions_to_data,
    price,
    rate,
    rule_from_data,
    rule_to_data,
)
from billing.pricing.data import fee_from_data, taxes_from_data, usage_from_data
from billing.pricing.values import as_key, exact_number

D = Decimal


# -- the canonical form


@pytest.mark.parametrize(
    ("rule", "data"),
    [
        (ChargeRule(PerUnit(D("0.10"))), {"model": "per_unit", "unit_price": "0.1"}),
        (
            ChargeRule(Graduated((Tier(D(10), D(5)), Tier(None, D(3), D(7)))), free_units=D(2)),
            {
                "model": "graduated",
                "tiers": [
                    {"up_to": "10", "unit_price": "5", "flat_fee": "0"},
                    {"up_to": None, "unit_price": "3", "flat_fee": "7"},
                ],
                "free_units": "2",
            },
        ),
        (
            ChargeRule(
                Volume((Tier(None, package_size=D(10)),), unit_value=D(100)),
                discounts=(Discount(percent=D(10), name="launch"), Discount(amount=D(5), on="usage", at_most=D(3))),
                maximum=D(9),
                minimum=D(1),
            ),
            {
                "model": "volume",
                "tiers": [{"up_to": None, "unit_price": "0", "flat_fee": "0", "package_size": "10"}],
                "unit_value": "100",
                "discounts": [
                    {"percent": "10", "name": "launch"},
                    {"amount": "5", "on": "usage", "at_most": "3"},
                ],
                "maximum": "9",
                "minimum": "1",
            },
        ),
        (
            ChargeRule(Package(D(500), D(100)), unit_size=D("0.5"), unit_rounding="up"),
            {
                "model": "package",
                "price": "500",
                "size": "100",
                "rounding": "up",
                "unit_size": "0.5",
                "unit_rounding": "up",
            },
        ),
        (
            ChargeRule(Percentage(D("1.5"), D(30), 2, D(100), D(1), D(2), D(100)), minimum=D(9)),
            {
                "model": "percentage",
                "percent": "1.5",
                "fixed_fee": "30",
                "free_events": 2,
                "free_amount": "100",
                "event_minimum": "1",
                "event_maximum": "2",
                "unit_value": "100",
                "minimum": "9",
            },
        ),
        (
            ChargeRule(Flat(D(900), only_when_used=True), prorated=True),
            {"model": "flat", "amount": "900", "only_when_used": True, "prorated": True},
        ),
        (
            ChargeRule(
                ByDimension(("r",), {"eu": PerUnit(D(5)), "us": Package(D(1), D(2))}, PerUnit(D(1)), "in_order"),
                each=True,
                limits_each=True,
                commitment=Commitment(quantity=D(5), overage_factor=D(2)),
            ),
            {
                "model": "by_dimension",
                "keys": ["r"],
                "prices": [
                    {"value": ["eu"], "model": "per_unit", "unit_price": "5"},
                    {"value": ["us"], "model": "package", "price": "1", "size": "2", "rounding": "up"},
                ],
                "default": {"model": "per_unit", "unit_price": "1"},
                "free_units_taken": "in_order",
                "each": True,
                "limits_each": True,
                "commitment": {"overage_factor": "2", "quantity": "5"},
            },
        ),
        (
            ChargeRule(Graduated((Tier(D(1), percent=D(3), minimum=D(1), maximum=D(2)),))),
            {
                "model": "graduated",
                "tiers": [
                    {
                        "up_to": "1",
                        "unit_price": "0",
                        "flat_fee": "0",
                        "percent": "3",
                        "minimum": "1",
                        "maximum": "2",
                    }
                ],
            },
        ),
    ],
)
def test_a_rule_is_stored_in_one_form(rule: ChargeRule, data: dict[str, Any]) -> None:
    assert rule_to_data(rule) == data
    assert rule_from_data(json.loads(json.dumps(data))) == rule


numbers = st.decimals(min_value=0, max_value=10**9, places=6).map(abs)
positive = st.decimals(min_value=D("0.000001"), max_value=10**9, places=6)
maybe = st.none() | numbers


@st.composite
def tiers(draw: st.DrawFn) -> tuple[Tier, ...]:
    bounds = sorted(draw(st.sets(st.integers(1, 10**6), max_size=4)))
    ends: list[int | None] = [*bounds, None] if not bounds or draw(st.booleans()) else [*bounds]
    made = []
    for bound in ends:
        size = draw(st.none() | positive)
        made.append(
            Tier(
                None if bound is None else D(bound),
                draw(numbers),
                draw(numbers),
                size,
                D(0) if size is not None else draw(numbers),
            )
        )
    return tuple(made)


simple = (
    st.builds(PerUnit, numbers)
    | st.builds(Graduated, tiers(), positive)
    | st.builds(Volume, tiers(), positive)
    | st.builds(Package, numbers, positive, st.sampled_from(["up", "down", "half_up", "exact"]), st.integers(0, 9))
    | st.builds(Percentage, numbers, numbers, st.none() | st.integers(0, 9), maybe, unit_value=positive)
    | st.builds(Flat, numbers, st.booleans())
)
words = st.text(min_size=1, max_size=5)
models = simple | st.builds(
    ByDimension,
    st.just(("key",)),
    st.dictionaries(words, simple, min_size=1, max_size=3),
    st.none() | simple,
    st.sampled_from(["in_proportion", "in_order"]),
)
discounts = st.builds(
    Discount, percent=st.decimals(0, 100, places=2).map(abs), on=st.sampled_from(["all", "usage", "fee"]), name=words
) | st.builds(Discount, amount=numbers, at_most=maybe)
rules = st.builds(
    ChargeRule,
    models,
    free_units=numbers,
    discounts=st.lists(discounts, max_size=3).map(tuple),
    maximum=maybe,
    unit_size=positive,
    unit_rounding=st.sampled_from(["exact", "up", "down", "half_up"]),
    each=st.booleans(),
    prorated=st.booleans(),
    commitment=st.none() | st.builds(Commitment, numbers, overage_factor=numbers, true_up=st.booleans()),
)


@given(rules)
def test_a_rule_round_trips_through_text(rule: ChargeRule) -> None:
    data = rule_to_data(rule)
    again = rule_from_data(json.loads(json.dumps(data)))
    assert again == rule
    assert rule_to_data(again) == data


@given(st.data())
def test_conventions_round_trip(data: st.DataObject) -> None:
    chosen = {}
    for name, one in Conventions.__dataclass_fields__.items():
        known = one.metadata.get("known") or (True, False)
        chosen[name] = data.draw(st.sampled_from(known), label=name)
    how = Conventions(**chosen)
    assert conventions_from_data(json.loads(json.dumps(conventions_to_data(how)))) == how
    assert set(conventions_to_data(how)) == {name for name in chosen if chosen[name] != getattr(Conventions(), name)}


def test_the_defaults_are_an_empty_object() -> None:
    assert conventions_to_data(Conventions()) == {}
    assert conventions_from_data({}) == conventions_from_data(None) == Conventions()


# -- forgiving in numbers


@pytest.mark.parametrize(
    ("given_as", "number"),
    [
        (5, "5"),
        ("5", "5"),
        (" 5.50 ", "5.5"),
        ("1e3", "1000"),
        ("1_000", "1000"),
        ("-3", "-3"),
        (D("0.10"), "0.1"),
        (Fraction(1, 3), "1/3"),
        ("1/3", "1/3"),
        ("1.5/3", "0.5"),
        (D("1E+2"), "100"),
    ],
)
def test_a_number_may_be_given_in_many_ways(given_as: Any, number: str) -> None:
    assert exact_number(given_as, "x") == Fraction(number)
    assert rate(PerUnit(D(3)), Usage(given_as)).exact == 3 * Fraction(number)


@pytest.mark.parametrize(
    ("given_as", "code"),
    [
        (0.5, "FLOAT"),
        (float("nan"), "FLOAT"),
        ("NaN", "NOT_A_NUMBER"),
        ("Infinity", "NOT_A_NUMBER"),
        (D("-Infinity"), "NOT_A_NUMBER"),
        ("", "NOT_A_NUMBER"),
        ("one", "NOT_A_NUMBER"),
        ("1,000", "NOT_A_NUMBER"),
        ("1/0", "NOT_A_NUMBER"),
        ("1/2/3", "NOT_A_NUMBER"),
        (True, "NOT_A_NUMBER"),
        (None, "NOT_A_NUMBER"),
        ([1], "NOT_A_NUMBER"),
        ("1e999999999", "TOO_LONG"),
        ("1e-999999999", "TOO_LONG"),
        ("1" * 501, "TOO_LONG"),
    ],
)
def test_what_is_no_number_is_refused(given_as: Any, code: str) -> None:
    with pytest.raises(PricingInvalid) as refused:
        exact_number(given_as, "there")
    assert (refused.value.code, refused.value.field) == (code, "there")
    assert "there" in str(refused.value)


def test_plain_prices_of_a_dimension_may_stand_alone() -> None:
    short = {"model": "by_dimension", "keys": "region", "prices": {"eu": 5, "us": {"unit_price": "7"}}, "default": 1}
    rule = rule_from_data(short)
    assert rule.price == ByDimension(("region",), {"eu": PerUnit(D(5)), "us": PerUnit(D(7))}, PerUnit(D(1)))


def test_usage_in_all_its_forms() -> None:
    assert usage_from_data("5") == Usage(D(5))
    assert usage_from_data({"values": [1, "2.5"]}) == Usage(D("3.5"), events=2, values=(D(1), D("2.5")))
    nested = usage_from_data({"by_value": {"eu": 3, "us": {"quantity": 4, "events": 2}}})
    listed = usage_from_data(
        {"by_value": [{"value": ["eu"], "quantity": 3}, {"value": "us", "quantity": 4, "events": 2}]}
    )
    assert nested == listed
    assert nested.total == 7
    assert fee_from_data("49") == FeeRule(D(49)) == fee_from_data({"amount": 49})
    assert taxes_from_data("19") == taxes_from_data([19]) == taxes_from_data({"percent": 19}) == (Tax("Tax", D(19)),)
    assert as_key(["eu", "gold"], "x") == ("eu", "gold")


# -- strict in everything else


def refusal(data: dict[str, Any]) -> tuple[str, str]:
    with pytest.raises(PricingInvalid) as refused:
        price(data)
    assert str(refused.value).endswith((".", "]"))
    return refused.value.code, refused.value.field


@pytest.mark.parametrize(
    ("rule", "code", "field"),
    [
        ({}, "MISSING", "rule.model"),
        ({"model": "per_seat"}, "UNKNOWN_WORD", "rule.model"),
        ({"model": "per_unit"}, "MISSING", "rule"),
        ({"model": "per_unit", "unit_price": "x"}, "NOT_A_NUMBER", "rule.unit_price"),
        ({"model": "per_unit", "unit_price": "-1"}, "TOO_SMALL", "rule.unit_price"),
        ({"model": "per_unit", "unit_price": "1/3"}, "NO_END", "rule.unit_price"),
        ({"model": "per_unit", "unit_price": 1, "tiers": []}, "UNKNOWN_KEY", "rule.tiers"),
        ({"model": "graduated"}, "MISSING", "rule"),
        ({"model": "graduated", "tiers": []}, "MISSING", "rule.tiers"),
        ({"model": "graduated", "tiers": 5}, "NOT_A_LIST", "rule.tiers"),
        ({"model": "graduated", "tiers": ["5"]}, "NOT_A_MAPPING", "rule.tiers[0]"),
        ({"model": "graduated", "tiers": [{"upto": 5}]}, "UNKNOWN_KEY", "rule.tiers[0].upto"),
        ({"model": "graduated", "tiers": [{"up_to": 0}]}, "TOO_SMALL", "rule.tiers[0].up_to"),
        ({"model": "graduated", "tiers": [{"up_to": 5}, {"up_to": 5}]}, "TIERS_DO_NOT_RISE", "rule.tiers"),
        ({"model": "volume", "tiers": [{"up_to": None}, {"up_to": 5}]}, "OPEN_TIER", "rule.tiers"),
        ({"model": "volume", "tiers": [{"package_size": 0}]}, "TOO_SMALL", "rule.tiers[0].package_size"),
        ({"model": "volume", "tiers": [{"package_size": 1, "percent": 1}]}, "CONTRADICTION", "rule.tiers[0].percent"),
        ({"model": "volume", "tiers": [{"minimum": 2, "maximum": 1}]}, "CONTRADICTION", "rule.tiers[0].minimum"),
        ({"model": "package", "price": 1, "size": 0}, "TOO_SMALL", "rule.size"),
        ({"model": "package", "price": 1, "size": 1, "rounding": "nearest"}, "UNKNOWN_WORD", "rule.rounding"),
        ({"model": "package", "price": 1, "size": 1, "at_least": "1.5"}, "NOT_WHOLE", "rule.at_least"),
        ({"model": "percentage", "percent": "-1"}, "TOO_SMALL", "rule.percent"),
        ({"model": "percentage", "percent": 1, "free_events": "0.5"}, "NOT_WHOLE", "rule.free_events"),
        (
            {"model": "percentage", "percent": 1, "event_minimum": 2, "event_maximum": 1},
            "CONTRADICTION",
            "rule.event_minimum",
        ),
        ({"model": "flat", "amount": 1, "only_when_used": "yes"}, "NOT_A_BOOLEAN", "rule.only_when_used"),
        ({"model": "by_dimension", "keys": ["a"], "prices": {}}, "MISSING", "rule.prices"),
        ({"model": "by_dimension", "keys": ["a"], "prices": [{"unit_price": 1}]}, "MISSING", "rule.prices[0].value"),
        ({"model": "by_dimension", "keys": [], "prices": {"x": 1}}, "NOT_TEXT", "rule.keys"),
        ({"model": "by_dimension", "keys": ["a", "b"], "prices": {"x": 1}}, "NOT_AS_MANY", "rule.prices"),
        (
            {"model": "by_dimension", "keys": ["a"], "prices": [{"value": "x", "unit_price": 1}] * 2},
            "TWICE",
            "rule.prices[1].value",
        ),
        (
            {
                "model": "by_dimension",
                "keys": ["a"],
                "prices": {"x": {"model": "by_dimension", "keys": ["b"], "prices": {"y": 1}}},
            },
            "NESTED",
            "rule.prices",
        ),
        ({"model": "per_unit", "unit_price": 1, "minimum": 2, "maximum": 1}, "CONTRADICTION", "rule.minimum"),
        ({"model": "per_unit", "unit_price": 1, "free_units": "-1"}, "TOO_SMALL", "rule.free_units"),
        ({"model": "per_unit", "unit_price": 1, "unit_size": 0}, "TOO_SMALL", "rule.unit_size"),
        ({"model": "per_unit", "unit_price": 1, "limits_each": True}, "CONTRADICTION", "rule.limits_each"),
        ({"model": "per_unit", "unit_price": 1, "discounts": [{}]}, "CONTRADICTION", "rule.discounts[0].percent"),
        (
            {"model": "per_unit", "unit_price": 1, "discounts": [{"percent": 1, "amount": 1}]},
            "CONTRADICTION",
            "rule.discounts[0].percent",
        ),
        (
            {"model": "per_unit", "unit_price": 1, "discounts": [{"percent": 101}]},
            "TOO_LARGE",
            "rule.discounts[0].percent",
        ),
        (
            {"model": "per_unit", "unit_price": 1, "discounts": [{"percent": 1, "on": "x"}]},
            "UNKNOWN_WORD",
            "rule.discounts[0].on",
        ),
        ({"model": "per_unit", "unit_price": 1, "commitment": {}}, "CONTRADICTION", "rule.commitment.amount"),
        ({"model": "per_unit", "unit_price": 1, "commitment": 5}, "NOT_A_MAPPING", "rule.commitment"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused_by_name(rule: dict[str, Any], code: str, field: str) -> None:
    assert refusal({"rule": rule, "usage": 1}) == (code, field)


PRICED = {"rule": {"model": "per_unit", "unit_price": 1}, "usage": 1}


@pytest.mark.parametrize(
    ("data", "code", "field"),
    [
        ({}, "CONTRADICTION", "data"),
        ({"rule": {"model": "per_unit", "unit_price": 1}}, "MISSING", "usage"),
        ({**PRICED, "fee": 1}, "CONTRADICTION", "data"),
        ({"fee": 1, "usage": 1}, "CONTRADICTION", "usage"),
        ({**PRICED, "usages": 1}, "UNKNOWN_KEY", "data.usages"),
        ({**PRICED, "items": []}, "CONTRADICTION", "rule"),
        ({"items": [{"fee": 1, "what": 2}]}, "UNKNOWN_KEY", "items[0].what"),
        ({"items": {}}, "NOT_A_LIST", "items"),
        ({"items": [{}]}, "CONTRADICTION", "items[0]"),
        ({**PRICED, "currency": "usd"}, "UNKNOWN_WORD", "currency"),
        ({**PRICED, "amounts": "dollars"}, "UNKNOWN_WORD", "amounts"),
        ({**PRICED, "kind": "seat"}, "UNKNOWN_WORD", "data.kind"),
        ({**PRICED, "conventions": {"rounding": "never"}}, "UNKNOWN_WORD", "rounding"),
        ({**PRICED, "conventions": {"tier_bounds": "inclusive"}}, "UNKNOWN_KEY", "conventions.tier_bounds"),
        ({**PRICED, "conventions": {"prorate_flat": 1}}, "NOT_A_BOOLEAN", "prorate_flat"),
        ({**PRICED, "fraction": "-1/2"}, "TOO_SMALL", "fraction"),
        ({**PRICED, "fraction": {"part": ["2026-01-01"]}}, "MISSING", "fraction.part"),
        ({**PRICED, "fraction": {"part": ["2026-01-02", "2026-01-01"]}}, "CONTRADICTION", "fraction.part"),
        ({**PRICED, "fraction": {"part": ["2026-01-01", "soon"]}}, "NOT_AN_INSTANT", "fraction.part"),
        (
            {**PRICED, "fraction": {"part": ["2026-01-01", "2026-01-02"], "periods": {"interval": "Fortnight"}}},
            "PERIOD",
            "fraction",
        ),
        ({**PRICED, "usage": {}}, "MISSING", "usage.quantity"),
        ({**PRICED, "usage": {"amount": 1}}, "UNKNOWN_KEY", "usage.amount"),
        ({**PRICED, "usage": 0.5}, "FLOAT", "usage.quantity"),
        ({**PRICED, "usage": {"values": [0.5]}}, "FLOAT", "usage.values[0]"),
        ({**PRICED, "usage": {"quantity": 1, "shares": [1]}}, "MISSING", "usage.shares"),
        ({**PRICED, "usage": {"values": [1], "shares": [1, 1]}}, "NOT_AS_MANY", "usage.shares"),
        ({**PRICED, "usage": {"values": [1], "events": 2}}, "NOT_AS_MANY", "usage.events"),
        ({**PRICED, "usage": {"quantity": 1, "events": "1.5"}}, "NOT_WHOLE", "usage.events"),
        ({**PRICED, "usage": {"values": [1], "before": 1}}, "NOT_SUPPORTED", "before"),
        ({**PRICED, "credits": [{"amount": -1}]}, "TOO_SMALL", "credits[0].amount"),
        ({**PRICED, "credits": [{"amount": 1, "expires_at": "soon"}]}, "NOT_AN_INSTANT", "credits[0].expires_at"),
        ({**PRICED, "credits": [{"amount": 1, "expires_at": "2026-01-01"}]}, "MISSING", "at"),
        ({**PRICED, "taxes": [{"name": "x"}]}, "MISSING", "taxes[0]"),
        ({**PRICED, "taxes": "-1"}, "TOO_SMALL", "taxes[0].percent"),
        ({**PRICED, "tax_inclusive": "yes"}, "NOT_A_BOOLEAN", "tax_inclusive"),
        ({**PRICED, "discounts": {"percent": 1}}, "NOT_A_LIST", "discounts"),
        ({**PRICED, "commitment": {"quantity": 1}}, "CONTRADICTION", "commitment.quantity"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused_by_name(data: dict[str, Any], code: str, field: str) -> None:
    assert refusal(data) == (code, field)


@pytest.mark.parametrize("data", [None, 5, "x", []])
def test_the_entry_wants_an_object(data: Any) -> None:
    with pytest.raises(PricingInvalid, match="must be an object"):
        price(data)


def test_a_refusal_is_a_value_error_with_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"^free_units must be at least 0, not -1\.$"):
        ChargeRule(PerUnit(D(1)), free_units=D(-1))
    with pytest.raises(ValueError, match="tiers must be a list"):
        Graduated("abc")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="No price"):
        ChargeRule(D(1))  # type: ignore[arg-type]
