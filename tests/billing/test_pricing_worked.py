"""Worked cases of other billing systems, priced through the one entry; the arithmetic stands beside each.

The figures are those that the named systems state for themselves in their public tests. What they do differently is
said by conventions, so that a case also shows which of them it takes.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import pytest

from billing.periods import Rule, fraction, local, period_at, periods_between, whole_period
from billing.pricing import PricingInvalid, price

AT_ZERO = {"first_tier_fee_at_zero": True}


def priced(rule: Mapping[str, Any], usage: Any, **conventions: Any) -> dict[str, Any]:
    """One charge in major units."""
    return price(
        {"amounts": "major", "currency": "EUR", "rule": rule, "usage": usage, "conventions": conventions or None}
    )


def exact(rule: Mapping[str, Any], usage: Any, **conventions: Any) -> Fraction:
    """The unrounded amount, after holding that line, sum and total are one and the same."""
    result = priced(rule, usage, **conventions)
    (line,) = result["lines"]
    assert line["exact"] == result["exact"]
    assert line["amount"] == result["amount"] == result["total"] == result["net"]
    assert abs(Fraction(result["exact"]) - Fraction(result["amount"])) <= Fraction(1, 200)
    return Fraction(result["exact"])


# -- tiers

RANGES_WITH_FEES = {
    "model": "graduated",
    "tiers": [
        {"up_to": 10, "unit_price": 10, "flat_fee": 2},
        {"up_to": 20, "unit_price": 5, "flat_fee": 3},
        {"unit_price": 5, "flat_fee": 3},
    ],
}
NARROW = {
    "model": "graduated",
    "tiers": [{"up_to": "0.1", "unit_price": 10}, {"up_to": 1, "unit_price": 5}, {"unit_price": 2}],
}
FLAT_THEN_UNITS = {
    "model": "graduated",
    "tiers": [
        {"up_to": 5, "flat_fee": 100},
        {"up_to": 10, "flat_fee": 50},
        {"up_to": 15, "unit_price": 10},
        {"unit_price": 5},
    ],
}
SHARES = {
    "model": "graduated",
    "tiers": [
        {"up_to": 10, "percent": 1, "flat_fee": 200},
        {"up_to": 20, "percent": 2, "flat_fee": 300},
        {"percent": 3, "flat_fee": 400},
    ],
}
SLABS = {"model": "graduated", "tiers": [{"up_to": 5}, {"up_to": 10, "unit_price": 2}, {"unit_price": 3}]}


@pytest.mark.parametrize(
    ("rule", "quantity", "conventions", "expected"),
    [
        # Lago graduated: the first tier's fee also without usage.
        (RANGES_WITH_FEES, 0, AT_ZERO, "2"),
        (RANGES_WITH_FEES, 1, AT_ZERO, "12"),  # 2 + 10
        (RANGES_WITH_FEES, 10, AT_ZERO, "102"),  # 2 + 100
        (RANGES_WITH_FEES, 11, AT_ZERO, "110"),  # 102 + 3 + 5
        (RANGES_WITH_FEES, 12, AT_ZERO, "115"),
        (RANGES_WITH_FEES, 21, AT_ZERO, "163"),  # 102 + 53 + 8
        (NARROW, "0.05", AT_ZERO, "0.5"),
        (NARROW, "0.5", AT_ZERO, "3"),  # 0.1 x 10 + 0.4 x 5
        # Lago graduated percentage: no fee without usage.
        (SHARES, 0, {}, "0"),
        (SHARES, 1, {}, "200.01"),
        (SHARES, 10, {}, "200.1"),
        (SHARES, 11, {}, "500.12"),  # 200 + 300 + 10 x 1 % + 1 x 2 %
        (SHARES, 21, {}, "900.33"),
        # OpenMeter graduated.
        (FLAT_THEN_UNITS, 0, AT_ZERO, "100"),
        (FLAT_THEN_UNITS, 5, AT_ZERO, "100"),
        (FLAT_THEN_UNITS, "5.001", AT_ZERO, "150"),
        (FLAT_THEN_UNITS, 12, AT_ZERO, "170"),  # 150 + 2 x 10
        (FLAT_THEN_UNITS, 22, AT_ZERO, "235"),  # 150 + 5 x 10 + 7 x 5
        # Flexprice slabs.
        (SLABS, 5, {}, "0"),
        (SLABS, 7, {}, "4"),
        (SLABS, 10, {}, "10"),
        (SLABS, 11, {}, "13"),
        # Polar: what a closed last tier does not cover is not billed.
        ({"model": "graduated", "tiers": [{"up_to": 10, "unit_price": 500}]}, 15, {"beyond_last_tier": "free"}, "5000"),
    ],
)
def test_graduated(rule: dict[str, Any], quantity: Any, conventions: dict[str, Any], expected: str) -> None:
    assert exact(rule, quantity, **conventions) == Fraction(expected)


VOLUME = {
    "model": "volume",
    "tiers": [
        {"up_to": 100, "unit_price": 2, "flat_fee": 10},
        {"up_to": 200, "unit_price": 1},
        {"unit_price": "0.5", "flat_fee": 50},
    ],
}
STAIRS = {
    "model": "volume",
    "tiers": [
        {"up_to": 5, "flat_fee": 100},
        {"up_to": 10, "flat_fee": 150},
        {"up_to": 15, "unit_price": 10},
        {"unit_price": 5},
    ],
}
# Blocks of 100 up to 10 blocks, of 1000 up to 100 more, then cheaper ones.
BLOCKS = [
    {"up_to": 1000, "unit_price": 1, "package_size": 100},
    {"up_to": 101000, "unit_price": 1, "package_size": 1000},
    {"up_to": 201000, "unit_price": "0.5", "package_size": 1000},
]


@pytest.mark.parametrize(
    ("rule", "quantity", "conventions", "expected"),
    [
        # Lago volume; a quantity below zero falls into no range.
        (VOLUME, -5, {**AT_ZERO, "below_zero": "free"}, "0"),
        (VOLUME, 0, AT_ZERO, "10"),
        (VOLUME, 1, AT_ZERO, "12"),
        (VOLUME, 100, AT_ZERO, "210"),
        (VOLUME, "100.5", AT_ZERO, "100.5"),
        (VOLUME, 101, AT_ZERO, "101"),
        (VOLUME, 200, AT_ZERO, "200"),
        (VOLUME, 300, AT_ZERO, "200"),  # 300 x 0.5 + 50
        # OpenMeter volume, with least and most.
        (STAIRS, 0, AT_ZERO, "100"),
        (STAIRS, 5, AT_ZERO, "100"),
        (STAIRS, 6, AT_ZERO, "150"),
        (STAIRS, 14, AT_ZERO, "140"),
        (STAIRS, 15, AT_ZERO, "150"),
        (STAIRS, 16, AT_ZERO, "80"),
        ({**STAIRS, "minimum": 150}, 5, AT_ZERO, "150"),
        ({**STAIRS, "minimum": 100}, 5, AT_ZERO, "100"),
        ({**STAIRS, "minimum": 100}, 100, AT_ZERO, "500"),
        ({**STAIRS, "maximum": 125}, 7, AT_ZERO, "125"),
        ({**STAIRS, "maximum": 100}, 5, AT_ZERO, "100"),
        # Kill Bill: all units in blocks of the top tier, which goes on beyond its end; or each tier in its own blocks.
        ({"model": "volume", "tiers": BLOCKS}, 1000, {"beyond_last_tier": "last"}, "10"),
        ({"model": "volume", "tiers": BLOCKS}, 101000, {"beyond_last_tier": "last"}, "101"),
        ({"model": "volume", "tiers": BLOCKS}, 101001, {"beyond_last_tier": "last"}, "51"),  # 102 blocks x 0.5
        ({"model": "volume", "tiers": BLOCKS}, 300000, {"beyond_last_tier": "last"}, "150"),
        ({"model": "graduated", "tiers": BLOCKS[:2]}, 5325, {"beyond_last_tier": "free"}, "15"),  # 10 + ceil(4.325)
    ],
)
def test_volume_and_blocks(rule: dict[str, Any], quantity: Any, conventions: dict[str, Any], expected: str) -> None:
    assert exact(rule, quantity, **conventions) == Fraction(expected)


@pytest.mark.parametrize(
    ("rule", "usage", "expected"),
    [
        # Lago, Flexprice, OpenMeter packages.
        ({"model": "package", "price": 100, "size": 10}, 121, "1300"),
        ({"model": "package", "price": 100, "size": 10, "free_units": 10}, 121, "1200"),
        ({"model": "package", "price": 100, "size": 10, "free_units": 200}, 121, "0"),
        ({"model": "package", "price": 1, "size": 100}, 100, "1"),
        ({"model": "package", "price": 1, "size": 100}, 101, "2"),
        ({"model": "package", "price": 1, "size": 100, "rounding": "down"}, 50, "0"),
        ({"model": "package", "price": 1, "size": 100, "rounding": "down"}, 250, "2"),
        ({"model": "package", "price": 15, "size": 10, "minimum": 100}, 0, "100"),
        # OpenMeter: divided and rounded up, then free units; or multiplied.
        ({"model": "per_unit", "unit_price": 10, "unit_size": "1e6", "unit_rounding": "up"}, 1500001, "20"),
        ({"model": "per_unit", "unit_price": 5, "unit_size": 1000, "unit_rounding": "down"}, 1999, "5"),
        (
            {"model": "per_unit", "unit_price": 10, "unit_size": 1000, "unit_rounding": "up", "free_units": "0.5"},
            1400,
            "15",  # ceil(1.4) - 0.5 = 1.5
        ),
        ({"model": "per_unit", "unit_price": 1, "unit_factor": "1.2"}, 100, "120"),
        (
            {"model": "per_unit", "unit_price": 10, "unit_size": 1000, "unit_rounding": "up", "unit_digits": 2},
            1401,
            "14.1",  # ceil(140.1) hundredths
        ),
        # Flexprice: each bucket's highest by itself.
        ({"model": "package", "price": 5, "size": 100, "each": True}, {"values": [50, 150, 200, 99]}, "30"),
        ({**SLABS, "each": True}, {"values": [7, 11]}, "17"),  # 4 + 13
        ({"model": "per_unit", "unit_price": "0.1", "each": True}, {"values": []}, "0"),
    ],
)
def test_packages_units_and_buckets(rule: dict[str, Any], usage: Any, expected: str) -> None:
    assert exact(rule, usage) == Fraction(expected)


# -- a share of money

PAYMENTS = {"model": "percentage", "percent": "1.3", "fixed_fee": 2}
FOUR = {"values": [50, 100, 250, 400]}
BOUNDED = {"model": "percentage", "percent": "2.99", "event_minimum": "1.75", "event_maximum": 12}
THREE = {"values": [10, 80, 10000]}


@pytest.mark.parametrize(
    ("rule", "usage", "expected"),
    [
        # Lago percentage.
        (PAYMENTS, {"quantity": 800, "events": 4}, "18.4"),  # 10.4 + 4 x 2
        ({**PAYMENTS, "free_events": 3}, FOUR, "7.2"),  # 400 x 1.3 % + 1 x 2
        ({**PAYMENTS, "free_amount": 250}, FOUR, "11.15"),  # 550 x 1.3 % + 2 x 2
        ({**PAYMENTS, "free_events": 3, "free_amount": 250}, FOUR, "11.15"),
        ({**PAYMENTS, "free_events": 3, "free_amount": 500}, FOUR, "7.2"),
        ({**PAYMENTS, "free_events": 5}, {"quantity": 400, "events": 4}, "0"),
        ({"model": "percentage", "percent": "2.9"}, 4, "0.116"),
        (BOUNDED, THREE, "16.142"),  # 1.75 + 2.392 + 12
        ({**BOUNDED, "fixed_fee": 2}, THREE, "18.691"),  # 2.299 + 4.392 + 12
        ({**BOUNDED, "free_events": 2}, THREE, "12"),
        ({**BOUNDED, "free_amount": 30}, THREE, "13.794"),  # 60 x 2.99 % + 12
        ({**BOUNDED, "free_events": 3, "free_amount": 10000}, THREE, "2.691"),  # 90 x 2.99 %
    ],
)
def test_percentage(rule: dict[str, Any], usage: Any, expected: str) -> None:
    assert exact(rule, usage) == Fraction(expected)


# -- units for a part of the period

SEATS = {
    "model": "graduated",
    "tiers": [{"up_to": 5, "unit_price": 10, "flat_fee": 100}, {"unit_price": 5, "flat_fee": 50}],
}


def in_shares(values: Sequence[int], units: Sequence[str]) -> dict[str, Any]:
    """Values with what they count for in the period, as those systems state it."""
    return {
        "values": list(values),
        "shares": [str(Fraction(part) / value) for value, part in zip(values, units, strict=True)],
    }


@pytest.mark.parametrize(
    ("values", "units", "conventions", "expected"),
    [
        # Lago prorated graduated. 150 of fees, and:
        ([5, 5, 10, -6], ["3.5", "2.66667", "2", "-2.2"], {}, "197.33335"),  # 35 + (2.66667 + 2 - 2.2) x 5
        ([1], ["0.7"], {}, "107"),  # one tier: 100 + 7
        ([5, -2], ["3.5", "-1"], {}, "125"),  # 100 + 35 - 10
        ([4, 2, -3], ["2.8", "1", "-0.6"], {}, "180.5"),  # 28 + 5 + 2.5 - 1 - 4
        ([5, 2, -4, 10], ["3.5", "1", "-1.6", "2"], {}, "190"),
        ([5, -100], ["2", "-33.33"], {"below_zero": "free"}, "0"),
        ([], [], {}, "100"),
    ],
)
def test_seats_for_a_part_of_the_period(
    values: list[int], units: list[str], conventions: dict[str, Any], expected: str
) -> None:
    assert exact(SEATS, in_shares(values, units), **AT_ZERO, **conventions) == Fraction(expected)


SUM = {"values": [31, 62], "shares": ["21/31", "10/31"]}
UNIQUE = {"values": [1, 1, 1], "shares": ["21/31", "10/31", "10/31"]}


@pytest.mark.parametrize(
    ("model", "bound", "prices", "fee", "usage", "expected"),
    [
        # Lago: the tier is that of the whole units, the price that of their shares.
        ("graduated", 31, (1, 2), 0, SUM, "61"),  # 21 x 1 + 20 x 2
        ("graduated", 1, (31, 62), 0, UNIQUE, "61"),
        ("volume", 50, (1, 2), 0, SUM, "82"),  # 93 are in the second: 41 x 2
        ("volume", 2, (31, 62), 10, UNIQUE, "92"),  # 41/31 x 62 + 10 whole
    ],
)
def test_tiers_by_whole_units(
    model: str, bound: int, prices: tuple[int, int], fee: int, usage: dict[str, Any], expected: str
) -> None:
    tiers = [{"up_to": bound, "unit_price": prices[0]}, {"unit_price": prices[1], "flat_fee": fee}]
    assert exact({"model": model, "tiers": tiers}, usage) == Fraction(expected)


def test_units_are_reported_whole_and_paid_in_shares() -> None:
    # Lago: 31 units for 21 of 31 days, 62 for 10: 21 + 20 of 93.
    line = priced({"model": "per_unit", "unit_price": 1}, {"values": [31, 62], "shares": ["21/31", "10/31"]})["lines"][
        0
    ]
    assert (line["quantity"], line["billable_units"], line["amount"]) == ("93", "41", "41")


# -- billed before

UNIT = {"model": "per_unit", "unit_price": 10}


@pytest.mark.parametrize(
    ("rule", "before", "quantity", "last", "expected"),
    [
        # OpenMeter, periods split in the middle.
        (FLAT_THEN_UNITS, 3, 4, True, "50"),
        (FLAT_THEN_UNITS, 5, 5, True, "50"),
        (FLAT_THEN_UNITS, 6, 1, True, "0"),
        (FLAT_THEN_UNITS, 12, 8, True, "55"),  # 3 x 10 + 5 x 5
        ({**FLAT_THEN_UNITS, "minimum": 1000}, 0, 0, True, "900"),  # 100 were billed
        ({**FLAT_THEN_UNITS, "minimum": 1000}, 2, 0, False, "0"),
        ({**UNIT, "maximum": 100}, 7, 5, True, "30"),
        ({**UNIT, "maximum": 100, "discounts": [{"percent": 50}]}, 7, 20, False, "65"),  # 135 - 35 - 35
        ({"model": "package", "price": 15, "size": 10}, 17, 5, False, "15"),
        ({"model": "package", "price": 15, "size": 10, "maximum": 100}, 60, 50, False, "10"),
        ({"model": "per_unit", "unit_price": 1, "free_units": 10}, 5, 15, True, "10"),
        ({"model": "per_unit", "unit_price": 1, "free_units": 10}, 20, 15, True, "15"),
    ],
)
def test_on_top_of_what_was_billed_before(
    rule: dict[str, Any], before: int, quantity: int, last: bool, expected: str
) -> None:
    assert exact(rule, {"before": before, "quantity": quantity, "last": last}, **AT_ZERO) == Fraction(expected)


# -- a whole period and its invoice


def column(result: Mapping[str, Any], name: str) -> list[str]:
    return [line[name] for line in result["lines"]]


@pytest.mark.parametrize(
    ("fees", "discount", "conventions", "taken"),
    [
        # Polar: an amount by largest remainder, a percent rounded on each.
        ([1000, 1000], {"amount": 1500}, {}, ["750", "750"]),
        ([300, 1200], {"amount": 750}, {}, ["150", "600"]),
        ([1000, 1000], {"amount": 2500}, {}, ["1000", "1000"]),
        ([100, 200], {"amount": 100}, {}, ["33", "67"]),
        ([1000, 333], {"percent": 25}, {"discount_rounding": "rounded"}, ["250", "83"]),
        ([100, 100], {"percent": "33.33"}, {"discount_rounding": "rounded"}, ["33", "33"]),
        ([200], {"percent": "33.33"}, {"discount_rounding": "rounded"}, ["67"]),
    ],
)
def test_a_discount_over_several_fees(
    fees: list[int], discount: dict[str, Any], conventions: dict[str, Any], taken: list[str]
) -> None:
    result = price({"items": [{"fee": fee} for fee in fees], "discounts": [discount], "conventions": conventions})
    assert column(result, "discount") == taken
    assert result["amount"] == str(sum(fees) - sum(map(int, taken)))


def test_a_coupon_is_taken_off_before_each_fee_is_taxed_at_its_own_rate() -> None:
    # Lago: 1600 over 16000 is 100, 1000 and 500; 900 x 15 %, 9000 x 25 %, 4500 x 15 %.
    result = price(
        {
            "items": [{"fee": 1000, "taxes": 15}, {"fee": 10000, "taxes": 25}, {"fee": 5000, "taxes": 15}],
            "discounts": [{"amount": 1600}],
            "conventions": {"period_discounts": "last"},
        }
    )
    assert column(result, "discount") == ["100", "1000", "500"]
    assert column(result, "tax") == ["135", "2250", "675"]
    assert (result["net"], result["tax"], result["total"]) == ("14400", "3060", "17460")


def test_a_coupon_discounts_what_makes_up_the_commitment_too() -> None:
    # Lago: 2000 + 3000, made up to 10000; then 2000 off is 400, 600 and 1000; then 20 % on each.
    result = price(
        {
            "items": [
                {"fee": 2000},
                {"rule": {"model": "per_unit", "unit_price": 100}, "usage": 30},
            ],
            "commitment": {"amount": 10000, "covers": "all"},
            "discounts": [{"amount": 2000}],
            "taxes": 20,
            "conventions": {"period_discounts": "last"},
        }
    )
    assert column(result, "kind") == ["fee", "usage", "commitment"]
    assert column(result, "amount") == ["1600", "2400", "4000"]
    assert column(result, "tax") == ["320", "480", "800"]
    assert (result["net"], result["total"]) == ("8000", "9600")


def test_discounts_limited_to_some_lines_are_taken_in_their_order() -> None:
    # Lago: 80 and 15; 5 off the second, 82 off the first (which has only 80).
    result = price(
        {
            "items": [{"key": "plan", "fee": 80}, {"key": "metric", "fee": 15}],
            "discounts": [{"amount": 5, "only": ["metric"]}, {"amount": 82, "only": ["plan"]}],
        }
    )
    assert column(result, "discount") == ["80", "5"]
    assert column(result, "amount") == ["0", "10"]


@pytest.mark.parametrize(
    ("limited_first", "left"),
    [
        (True, "3000"),  # 2000 of the limited 5000, then 5000
        (False, "4000"),  # 5000 leave 4000 and 1000; then 1000 of the limited 5000
    ],
)
def test_the_order_of_discounts_decides_how_much_a_limited_one_takes(limited_first: bool, left: str) -> None:
    # Lago: 8000 and 2000, two coupons of 5000, one of them only for the second.
    coupons: list[dict[str, Any]] = [{"amount": 5000, "only": ["calls"]}, {"amount": 5000}]
    result = price(
        {
            "items": [{"key": "plan", "fee": 8000}, {"key": "calls", "fee": 2000}],
            "discounts": coupons if limited_first else coupons[::-1],
            "conventions": {"period_discounts": "last"},
        }
    )
    assert result["amount"] == left


COUPONS = [
    {"key": "metrics", "amount": 2000, "priority": 1, "only": ["1", "2"]},
    {"key": "plan", "amount": 1000, "priority": 2, "only": ["5", "6", "7", "8"]},
    {"key": "all", "amount": 500, "priority": 3},
]


def test_coupons_spread_exactly_with_taxes_of_each_line_and_of_the_whole() -> None:
    # Lago: 1000, 2000, 3000 and 4000 twice; 500 is over the 17000 that the others left, so the first line gets
    # 2000/3 + 333.33 x 500/17000 = 676.47 off, and so on; taxed at 10 % and, the second of each, 20 %.
    rows = [
        {"key": str(number), "amount": amount, "taxes": tax}
        for number, (amount, tax) in enumerate([(1000, 10), (2000, 20), (3000, 10), (4000, 10)] * 2, start=1)
    ]
    by_line = price({"items": rows, "credits": COUPONS, "conventions": {"spread": "exact"}})
    assert [round(Fraction(taken), 5) for taken in column(by_line, "credit")] == [
        Fraction(taken)
        for taken in (
            "676.47059",
            "1352.94118",
            "88.23529",
            "117.64706",
            "126.47059",
            "252.94118",
            "379.41176",
            "505.88235",
        )
    ]
    assert column(by_line, "tax") == ["32", "129", "291", "388", "87", "349", "262", "349"]
    whole = price({"items": rows, "credits": COUPONS, "conventions": {"spread": "exact", "tax_rounding": "total"}})
    # 1410.588 + 478.823 = 1889.41
    assert (whole["credit"], whole["net"], whole["tax"], whole["total"]) == ("3500", "16500", "1889", "18389")
    assert [tax["amount"] for tax in whole["taxes"]] == ["1410", "479"]


@pytest.mark.parametrize(
    ("amounts", "credits", "shares", "total"),
    [
        # OpenMeter and Flexprice: the first line is paid before the next.
        ([100, 50], [150], ["100", "50"], "0"),
        ([100, 50, 5], [150], ["100", "50", "0"], "5"),
        ([100, 50], [75, 75], ["100", "50"], "0"),
        ([100, 50], [125], ["100", "25"], "25"),
        ([100, 50, 50], [175], ["100", "50", "25"], "25"),
        ([50, 50], [30, 40], ["50", "20"], "30"),
        ([30], [50], ["30"], "0"),
    ],
)
def test_credit_line_by_line(amounts: list[int], credits: list[int], shares: list[str], total: str) -> None:
    result = price(
        {"items": [{"amount": one} for one in amounts], "credits": credits, "conventions": {"spread": "in_order"}}
    )
    assert (column(result, "credit"), result["total"]) == (shares, total)
    assert sum(int(one["drawn"]) + int(one["remaining"]) for one in result["credits"]) == sum(credits)


def test_wallets_by_priority_for_all_some_or_other_fees() -> None:
    # Lago: 3600 of a fee and 1550 of usage, with their tax.
    wallets = [("all", 1), ("usage", 1), ("fee", 1), ("all", 2), ("usage", 2), ("fee", 2)]
    result = price(
        {
            "items": [{"amount": 3600, "kind": "fee"}, {"amount": 1550, "kind": "usage"}],
            "credits": [{"amount": 1000, "covers": covers, "priority": rank} for covers, rank in wallets],
            "conventions": {"credit": "after_tax", "spread": "in_order"},
        }
    )
    assert [one["drawn"] for one in result["credits"]] == ["1000", "1000", "1000", "1000", "550", "600"]
    assert (result["credit"], result["total"]) == ("5150", "0")


@pytest.mark.parametrize("coupon", ["discount", "credit"])
def test_a_coupon_before_tax_and_a_wallet_after_it(coupon: str) -> None:
    # Lago: 15000 - 2000 = 13000; 20 % is 2600; 15600 - 3000 = 12600.
    given: dict[str, Any] = {"items": [{"fee": 5000}, {"fee": 10000}], "taxes": 20}
    wallet = {"amount": 3000, "applies": "after_tax"}
    if coupon == "discount":
        given |= {"discounts": [{"amount": 2000}], "credits": [wallet]}
    else:
        given |= {"credits": [wallet, {"amount": 2000, "applies": "before_tax"}]}
    result = price(given)
    assert (result["net"], result["tax"], result["total"]) == ("13000", "2600", "12600")
    assert [one["drawn"] for one in result["credits"]] == (["3000"] if coupon == "discount" else ["2000", "3000"])


@pytest.mark.parametrize(
    ("currency", "prices", "rate", "rounding", "net", "tax", "total"),
    [
        # pretix: on each line; by the sum of the nets; by it with stable prices.
        ("EUR", ["100"] * 5, 19, "line", "420.15", "79.85", "500"),
        ("EUR", ["100"] * 5, 19, "invoice_net", "420.15", "79.83", "499.98"),
        ("EUR", ["100"] * 5, 19, "invoice_gross", "420.17", "79.83", "500"),
        ("EUR", ["99.98"] * 5, 19, "line", "420.1", "79.8", "499.9"),
        ("EUR", ["99.98"] * 5, 19, "invoice_net", "420.1", "79.82", "499.92"),
        ("EUR", ["99.98"] * 5, 19, "invoice_gross", "420.08", "79.82", "499.9"),
        ("JPY", ["9998"] * 5, 19, "invoice_net", "42010", "7982", "49992"),
        ("JPY", ["9998"] * 5, 19, "invoice_gross", "42008", "7982", "49990"),
        # No net gives 23.00 at 7 %: 21.50 gives 23.01 (1.505 of tax, rounded up).
        ("EUR", ["23"], 7, "invoice_net", "21.5", "1.51", "23.01"),
        ("EUR", ["0", "23"], 7, "invoice_gross", "21.5", "1.51", "23.01"),
        ("EUR", ["100"], 19, "invoice_gross", "84.03", "15.97", "100"),
    ],
)
def test_tax_inside_of_prices(
    currency: str, prices: list[str], rate: int, rounding: str, net: str, tax: str, total: str
) -> None:
    result = price(
        {
            "amounts": "major",
            "currency": currency,
            "items": [{"amount": one} for one in prices],
            "taxes": rate,
            "tax_inclusive": True,
            "conventions": {"tax_rounding": rounding, "spread": "largest_amount", "inclusive_rounds": "net"},
        }
    )
    assert (result["net"], result["tax"], result["total"]) == (net, tax, total)
    assert Fraction(total) == Fraction(net) + Fraction(tax)


def test_windows_that_commit_each_for_itself() -> None:
    # Flexprice: 5 units are the 10 committed; 4 is made up to 10, 16 is 10 + 6 x 2.
    committed = {"model": "per_unit", "unit_price": 2, "commitment": {"amount": 10, "overage_factor": 2}}
    windows = [{"rule": committed, "usage": 2}, {"rule": UNIT | {"unit_price": 2}, "usage": 2}]
    result = price({"items": [*windows, {"rule": committed, "usage": 8}]})
    assert (column(result, "amount"), result["amount"]) == (["10", "4", "22"], "36")
    together = price({"rule": {**committed, "each": True, "limits_each": True}, "usage": {"values": [2, 8]}})
    assert together["amount"] == "32"


# -- parts of a period


@pytest.mark.parametrize(
    ("fee", "interval", "anchor", "changed", "expected"),
    [
        # Polar, by second: what is left of the period.
        (10000, "Month", "2025-06-01", "2025-06-16", "5000"),
        (10000, "Month", "2025-06-01", "2025-06-11", "6667"),
        (30000, "Month", "2024-02-18", "2024-02-25", "22759"),  # 22 of 29
        (300000, "Year", "2024-08-01", "2024-10-01", "249863"),  # 304 of 365
        (100000, "Year", "2024-02-18", "2024-09-05", "45355"),  # 166 of 366
        (100000, "Year", "2025-06-01", "2025-08-13", "80000"),  # 292 of 365
    ],
)
def test_what_is_left_of_a_period(fee: int, interval: str, anchor: str, changed: str, expected: str) -> None:
    period = period_at(Rule(interval, anchor=local(anchor)), local(changed))
    spans = {"part": [changed, period.end], "whole": [period.start, period.end]}
    charged = price({"fee": fee, "fraction": spans})["amount"]
    credited = price({"fee": -fee, "fraction": spans})["amount"]
    assert (charged, credited) == (expected, f"-{expected}")


@pytest.mark.parametrize(
    ("items", "lines", "amount"),
    [
        # Flexprice: 15 to 31 March, both days counted, of 1 to 31: 17 of 31.
        ([{"fee": -10}, {"fee": 20}], ["-5.48", "10.97"], "5.49"),
        ([{"fee": {"amount": -50, "quantity": 2}}, {"fee": 30}], ["-54.84", "16.45"], "-38.39"),
        (
            [{"fee": {"amount": -10, "quantity": 5}}, {"fee": {"amount": 10, "quantity": 10}}],
            ["-27.42", "54.84"],
            "27.42",
        ),
        ([{"fee": -40}], ["-21.94"], "-21.94"),
    ],
)
def test_a_change_in_the_middle_of_a_period(items: list[Any], lines: list[str], amount: str) -> None:
    spans = {"part": ["2024-03-15", "2024-03-31"], "whole": ["2024-03-01", "2024-03-31"]}
    result = price({"amounts": "major", "items": items, "fraction": {**spans, "by": "day", "day_count": "inclusive"}})
    assert (column(result, "amount"), result["amount"]) == (lines, amount)


@pytest.mark.parametrize(
    ("interval", "day", "start", "end", "target", "expected"),
    [
        # Kill Bill: billed in advance up to a day, in periods that begin on a day of the month.
        ("Month", 13, "2011-02-01", None, "2011-02-04", Fraction(12, 31)),
        ("Month", 13, "2011-02-01", None, "2011-02-13", Fraction(12, 31) + 1),
        ("Month", 13, "2011-02-01", "2011-04-13", "2011-04-10", Fraction(12, 31) + 2),
        ("Month", 27, "2011-02-14", None, "2011-03-01", Fraction(13, 31) + 1),
        ("Month", 1, "2012-02-01", "2012-02-15", "2012-02-19", Fraction(14, 29)),
        ("Month", 7, "2011-01-31", "2011-03-10", "2011-04-21", Fraction(7, 31) + 1 + Fraction(3, 31)),
        ("Month", 30, "2012-01-30", None, "2012-03-01", Fraction(2)),
        ("Year", 15, "2011-01-01", "2012-01-27", "2012-01-14", Fraction(14, 365) + 1),
        ("Year", 15, "2011-01-01", "2012-01-27", "2012-01-15", Fraction(14, 365) + 1 + Fraction(12, 366)),
    ],
)
def test_parts_of_periods_add_up(
    interval: str, day: int, start: str, end: str | None, target: str, expected: Fraction
) -> None:
    rule = Rule(interval, anchor=local(start), billing_day=day)
    stop = local(end) if end else local("9000-01-01")
    begun = periods_between(rule, local(start), local(f"{target}T00:00:01"), which="touching")
    billed = [(period.start, min(period.end, stop), period) for period in begun if period.start < stop]
    parts = [fraction((first, last), whole_period(rule, period), by="day") for first, last, period in billed]
    assert sum(parts) == expected


# -- what makes no sense


@pytest.mark.parametrize(
    ("data", "code"),
    [
        # Polar and others refuse these.
        ({"rule": {"model": "volume", "tiers": [{"up_to": 10, "unit_price": 5}]}, "usage": 11}, "BEYOND_LAST_TIER"),
        ({"rule": UNIT, "usage": -5, "conventions": {"below_zero": "refused"}}, "BELOW_ZERO"),
        ({"rule": {"model": "volume", "tiers": [{"unit_price": 5}, {"unit_price": 3}]}, "usage": 1}, "OPEN_TIER"),
        (
            {"rule": {"model": "volume", "tiers": [{"up_to": 10}, {"up_to": 10}]}, "usage": 1},
            "TIERS_DO_NOT_RISE",
        ),
        ({"rule": {"model": "graduated", "tiers": [{}, {"up_to": 10}]}, "usage": 1}, "OPEN_TIER"),
        ({"rule": {"model": "graduated", "tiers": []}, "usage": 1}, "MISSING"),
        ({"rule": {"model": "graduated", "tiers": [{"up_to": 0}]}, "usage": 1}, "TOO_SMALL"),
        ({"rule": UNIT, "usage": 1.5}, "FLOAT"),
        ({"rule": UNIT, "usage": "NaN"}, "NOT_A_NUMBER"),
        ({"rule": UNIT, "usage": "1e999999999"}, "TOO_LONG"),
        ({"rule": UNIT, "usage": {"quantity": 1, "last": "no"}}, "NOT_A_BOOLEAN"),
        ({"rule": {"model": ["per_unit"]}, "usage": 1}, "UNKNOWN_WORD"),
        ({"rule": {"model": "package", "price": 1, "size": 0}, "usage": 1}, "TOO_SMALL"),
        ({"rule": {**UNIT, "discounts": [{"percent": 101}]}, "usage": 1}, "TOO_LARGE"),
        ({"rule": {**UNIT, "discounts": [{"percent": 1, "only": ["a"]}]}, "usage": 1}, "CONTRADICTION"),
        ({"rule": {**UNIT, "minimum": 2, "maximum": 1}, "usage": 1}, "CONTRADICTION"),
        (
            {
                "rule": {"model": "by_dimension", "keys": ["region"], "prices": {"eu": 1}},
                "usage": {"by_value": [{"value": "eu", "quantity": 1}, {"value": "eu", "quantity": 2}]},
            },
            "TWICE",
        ),
        (
            {
                "rule": {"model": "by_dimension", "keys": ["region"], "prices": [{"value": [["eu"]], "unit_price": 1}]},
                "usage": 0,
            },
            "NOT_TEXT",
        ),
        ({"amount": 1, "taxes": [{"name": ["VAT"], "percent": 19}]}, "NOT_TEXT"),
        ({"amount": 1, "credits": [{"amount": 1, "priority": "1/3"}]}, "NOT_WHOLE"),
        ({"amount": 1, "credits": [{"amount": 1, "applies": "never"}]}, "UNKNOWN_WORD"),
        ({"fee": 1, "fraction": {"part": [1, 2], "whole": [1, 2]}}, "NOT_AN_INSTANT"),
        (
            {
                "fee": 1,
                "fraction": {"part": ["2026-01-01", "2026-01-02"], "periods": {"interval": "Month", "anchor": 1}},
            },
            "PERIOD",
        ),
        (
            {
                "fee": 1,
                "fraction": {
                    "part": ["2026-01-01", "2026-01-02"],
                    "periods": {"interval": "Month", "anchor": "2026-01-01", "every": 10**30},
                },
            },
            "PERIOD",
        ),
    ],
)
def test_it_is_refused_with_a_code_and_a_sentence(data: dict[str, Any], code: str) -> None:
    with pytest.raises(PricingInvalid) as refused:
        price(data)
    assert (refused.value.code, str(refused.value)[-1]) == (code, ".")


def test_the_price_of_a_unit_where_units_cost_the_same_and_where_they_do_not() -> None:
    # Flexprice: 25 units for 1050 in slabs; 15 for 600 by volume.
    tiers = [{"up_to": 10, "unit_price": 50}, {"up_to": 20, "unit_price": 40}, {"unit_price": 30}]
    slabs = price({"rule": {"model": "graduated", "tiers": tiers}, "usage": 25})["lines"][0]
    assert (slabs["amount"], slabs["unit_price"], slabs["effective_unit_price"]) == ("1050", None, "42")
    volume = price({"rule": {"model": "volume", "tiers": tiers}, "usage": 15})["lines"][0]
    assert (volume["amount"], volume["unit_price"], volume["effective_unit_price"]) == ("600", "40", "40")
    nothing = price({"rule": {"model": "volume", "tiers": tiers}, "usage": 0})["lines"][0]
    assert (nothing["amount"], nothing["effective_unit_price"]) == ("0", None)
