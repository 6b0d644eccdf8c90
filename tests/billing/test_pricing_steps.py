"""What stands around a price: discounts, limits, partial periods, rounding, a whole period, its commitment."""

from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from billing.pricing import (
    ChargeRule,
    Commitment,
    Conventions,
    Discount,
    FeeRule,
    Flat,
    Graduated,
    Item,
    Package,
    Percentage,
    PerUnit,
    PricingInvalid,
    RatedLine,
    Tier,
    Usage,
    conventions_from_data,
    rate,
    rate_fee,
    rate_period,
    waive,
)

D = Decimal
CENT = PerUnit(D(1))


def off(percent: str | None = None, amount: str | None = None, **more: Any) -> Discount:
    return Discount(None if percent is None else D(percent), None if amount is None else D(amount), **more)


def charge(price: Any = CENT, **more: Any) -> ChargeRule:
    return ChargeRule(price, **more)


def cents(lines: tuple[RatedLine, ...]) -> list[int]:
    return [int(line.amount) for line in lines]


def use(key: str, quantity: str, rule: ChargeRule | None = None, **more: Any) -> Item:
    return Item(key, rule=rule or charge(), usage=Usage(D(quantity)), **more)


def fee(key: str, amount: str, **more: Any) -> Item:
    return Item(key, kind="fee", rule=FeeRule(D(amount)), **more)


# -- discounts


@pytest.mark.parametrize(
    ("discounts", "left", "price"),
    [
        ((), "1000", "1000"),
        ((off("10"),), "900", "900"),
        ((off("10"), off("10")), "810", "800"),
        ((off("10"), off(amount="200")), "700", "700"),
        ((off(amount="200"), off("10")), "720", "700"),
        ((off(amount="999"),), "1", "1"),
        ((off(amount="1000"),), "0", "0"),
        ((off(amount="1001"),), "0", "0"),
        ((off("100"), off(amount="5")), "0", "0"),
        ((off(amount="950"), off("10")), "45", "0"),  # 10 % of the price is 100, and 50 are left
        ((off("10", at_most=D(30)),), "970", "970"),
        ((off("10", at_most=D(100)),), "900", "900"),
        ((off("10", at_most=D(101)),), "900", "900"),
        ((off(amount="200", at_most=D(30)),), "970", "970"),
        ((off("10", on="fee"),), "1000", "1000"),
        ((off("10", on="usage"),), "900", "900"),
        ((off("0"), off(amount="0")), "1000", "1000"),
    ],
)
def test_discounts_are_taken_in_their_order(discounts: tuple[Discount, ...], left: str, price: str) -> None:
    rule = charge(discounts=discounts)
    for base, expected in (("left", left), ("price", price)):
        line = rate(rule, "1000", conventions=Conventions(discount_base=base))
        assert (line.exact, line.discount) == (Fraction(expected), 1000 - D(expected))
        assert sum(Fraction(one["took"]) for one in line.explanation.get("discounts", [])) == 1000 - int(expected)


def test_a_percent_off_a_correction_makes_it_smaller_and_an_amount_leaves_it() -> None:
    assert rate(charge(discounts=(off("10"),)), "-1000").exact == -900
    assert rate(charge(discounts=(off(amount="10"),)), "-1000").exact == -1000


@pytest.mark.parametrize(
    ("quantity", "exact_net", "rounded_net"), [("5", "3", "2"), ("4", "2", "2"), ("3", "2", "1"), ("1", "1", "0")]
)
def test_what_a_percent_takes_may_be_rounded_by_itself(quantity: str, exact_net: str, rounded_net: str) -> None:
    rule = charge(discounts=(off("50"),))
    assert rate(rule, quantity).amount == D(exact_net)
    assert rate(rule, quantity, conventions=Conventions(discount_rounding="rounded")).amount == D(rounded_net)


# -- limits


@pytest.mark.parametrize(
    ("quantity", "amount", "took", "added"),
    [
        ("0", "100", "0", "100"),
        ("99", "100", "0", "1"),
        ("100", "100", "0", "0"),
        ("101", "101", "0", "0"),
        ("500", "500", "0", "0"),
        ("501", "500", "1", "0"),
        ("-5", "100", "0", "105"),
    ],
)
def test_at_least_the_minimum_and_at_most_the_maximum(quantity: str, amount: str, took: str, added: str) -> None:
    line = rate(charge(minimum=D(100), maximum=D(500)), quantity)
    assert line.amount == D(amount)
    assert line.explanation["maximum"] == {"amount": "500", "took": took}
    assert line.explanation["minimum"] == {"amount": "100", "added": added}


def test_limits_come_after_discounts() -> None:
    rule = charge(minimum=D(950), maximum=D(980), discounts=(off("10"),))
    assert [rate(rule, q).amount for q in ("1000", "1056", "1089", "2000")] == [D(950), D(950), D(980), D(980)]
    # 1056 x 0.9 = 950.4 and 1089 x 0.9 = 980.1
    assert rate(rule, "1056").exact == Fraction("950.4")


@pytest.mark.parametrize(
    ("commitment", "amounts"),
    [
        # of 600, 1000 and 1200 used
        (Commitment(D(1000)), (1000, 1000, 1200)),
        (Commitment(D(1000), true_up=False), (600, 1000, 1200)),
        (Commitment(D(1000), overage_factor=D("1.5")), (1000, 1000, 1300)),
        (Commitment(D(1000), overage_factor=D("0.5")), (1000, 1000, 1100)),
        (Commitment(quantity=D(1000), overage_factor=D(2)), (1000, 1000, 1400)),
    ],
)
def test_a_charge_may_commit_by_itself(commitment: Commitment, amounts: tuple[int, ...]) -> None:
    rule = charge(commitment=commitment)
    assert tuple(int(rate(rule, q).amount) for q in ("600", "1000", "1200")) == amounts


def test_a_committed_quantity_is_priced_by_the_rule() -> None:
    tiers = Graduated((Tier(D(10), D(5)), Tier(None, D(3))))
    rule = charge(tiers, commitment=Commitment(quantity=D(12), overage_factor=D(2)))
    assert [int(rate(rule, q).amount) for q in ("0", "12", "13")] == [56, 56, 62]


def test_limits_may_be_of_each_value() -> None:
    usage = Usage(values=[D(3), D(5), D(8)])
    each = charge(PerUnit(D(10)), each=True, limits_each=True, minimum=D(40), maximum=D(70))
    assert rate(each, usage).amount == 40 + 50 + 70
    whole = charge(PerUnit(D(10)), each=True, minimum=D(40), maximum=D(70))
    assert rate(whole, usage).amount == 70
    committed = charge(PerUnit(D(10)), each=True, limits_each=True, commitment=Commitment(D(50), overage_factor=D(2)))
    assert rate(committed, usage).amount == 50 + 50 + 50 + 60


# -- partial periods


HALF = Fraction(1, 2)


@pytest.mark.parametrize(
    ("rule", "quantity", "convention", "cut", "whole"),
    [
        (charge(Flat(D(900))), "0", "prorate_flat", "450", "900"),
        (charge(free_units=D(100)), "150", "prorate_free_units", "100", "50"),
        (charge(minimum=D(500)), "10", "prorate_minimum", "250", "500"),
        (charge(maximum=D(500)), "900", "prorate_maximum", "250", "500"),
        (charge(discounts=(off(amount="100"),)), "900", "prorate_discounts", "850", "800"),
        (charge(commitment=Commitment(D(500))), "10", "prorate_commitment", "250", "500"),
        (
            charge(Graduated((Tier(D(10), D(1), D(60)), Tier(None, D(1), D(40))))),
            "12",
            "prorate_tier_fees",
            "62",
            "112",
        ),
        (charge(Percentage(D(10), free_amount=D(100))), "150", "prorate_free_units", "10", "5"),
    ],
)
def test_what_a_partial_period_cuts_is_a_convention(
    rule: ChargeRule, quantity: str, convention: str, cut: str, whole: str
) -> None:
    for on, expected in ((True, cut), (False, whole)):
        how = conventions_from_data({convention: on})
        line = rate(rule, quantity, conventions=how, fraction=HALF)
        assert line.exact == Fraction(expected), on
        assert rate(rule, quantity, conventions=how).exact == rate(rule, quantity).exact
        assert line.explanation["fraction"] == "0.5"
    defaults = Conventions()
    assert getattr(defaults, convention) is (convention in ("prorate_flat", "prorate_minimum", "prorate_commitment"))


def test_usage_itself_and_tier_bounds_are_not_cut() -> None:
    tiers = Graduated((Tier(D(10), D(5)), Tier(None, D(3))))
    assert rate(tiers, "12", fraction=HALF).exact == 56
    assert rate(ChargeRule(tiers, prorated=True), "12", fraction=HALF).exact == 28


@pytest.mark.parametrize(
    ("fraction", "exact", "amount"),
    [("1", "3100", 3100), ("16/31", "1600", 1600), ("1/3", "3100/3", 1033), ("0", "0", 0)],
)
def test_a_fee_is_its_fraction_exactly(fraction: str, exact: str, amount: int) -> None:
    line = rate_fee(FeeRule(D(3100)), fraction=fraction)
    assert (line.exact, line.amount, line.kind) == (Fraction(exact), D(amount), "fee")


def test_a_fraction_without_an_end_keeps_twenty_digits_and_the_fraction() -> None:
    line = rate_fee(FeeRule(D(100)), fraction=Fraction(1, 3))
    assert line.exact_amount == D("33.33333333333333333333")
    assert (line.explanation["exact"], line.explanation["fraction"]) == ("100/3", "1/3")
    assert "exact" not in rate_fee(FeeRule(D(100)), fraction=HALF).explanation


def test_a_fee_counts_its_seats_and_takes_its_discounts() -> None:
    rule = FeeRule(D(4900), quantity=D(3), discounts=(off("10", on="fee"), off("50", on="usage")))
    line = rate_fee(rule)
    assert (line.quantity, line.unit_price, line.amount, line.discount) == (D(3), D(4900), D(13230), D(1470))
    assert rate_fee(FeeRule(D(-4900)), fraction=HALF).amount == -2450
    assert rate_fee(quantity=D(2), fee=D(150)).amount == 300


def test_a_fraction_below_zero_is_refused() -> None:
    with pytest.raises(PricingInvalid, match="fraction of a period cannot be"):
        rate(CENT, "1", fraction="-1")


# -- rounding


@pytest.mark.parametrize(
    ("mode", "at_half", "above", "below", "minus_half", "odd_half"),
    [
        # 2.5, 2.51, 2.49, -2.5, 3.5
        ("half_up", "3", "3", "2", "-3", "4"),
        ("half_down", "2", "3", "2", "-2", "3"),
        ("half_even", "2", "3", "2", "-2", "4"),
        ("up", "3", "3", "3", "-3", "4"),
        ("down", "2", "2", "2", "-2", "3"),
        ("ceiling", "3", "3", "3", "-2", "4"),
        ("floor", "2", "2", "2", "-3", "3"),
    ],
)
def test_each_way_to_round(mode: str, at_half: str, above: str, below: str, minus_half: str, odd_half: str) -> None:
    how = Conventions(rounding_mode=mode)
    found = [rate(CENT, q, conventions=how).amount for q in ("2.5", "2.51", "2.49", "-2.5", "3.5")]
    assert found == [D(one) for one in (at_half, above, below, minus_half, odd_half)]
    assert rate(CENT, "2.5", conventions=how).explanation["rounding"] == mode


def test_together_the_printed_lines_add_up_to_the_rounded_sum() -> None:
    items = [use(str(n), quantity) for n, quantity in enumerate(("0.4", "0.4", "0.4", "10.3", "-0.2"))]
    line_by_line = rate_period(items)
    assert cents(line_by_line) == [0, 0, 0, 10, 0]
    together = rate_period(items, conventions=Conventions(rounding="invoice"))
    # 11.3 -> 11; cut down: 0 0 0 10 -1 = 9, and 2 units go to the largest remainders: 0.8, then the first 0.4
    assert cents(together) == [1, 0, 0, 10, 0]
    assert all(line.explanation["conventions"]["rounding"] == "invoice" for line in together)


def test_each_component_may_be_rounded() -> None:
    tiers = Graduated((Tier(D(1), D("0.5"), D("0.5")), Tier(None, D("0.5"))))
    assert rate(tiers, "2").amount == 2  # 1.5
    line = rate(tiers, "2", conventions=Conventions(rounding="component"))
    assert line.amount == 3
    assert line.explanation["components"] == {"exact": ["0.5", "0.5", "0.5"], "rounded": ["1", "1", "1"]}


# -- a whole period


def test_the_order_of_operations() -> None:
    """Prices, own discounts, the period's in their order, maximum, minimum, commitment: each visible in the cents."""
    items = [
        use("a", "1100", charge(free_units=D(100), discounts=(off("10"),), maximum=D(700))),  # 900
        use("b", "100", charge(minimum=D(90))),  # 100
        fee("c", "1000"),
    ]
    lines = rate_period(
        items, discounts=(off("10", on="usage"), off(amount="190", name="voucher")), commitment=Commitment(D(1000))
    )
    # after 10 %: 810, 90, 1000 = 1900; the voucher takes 81, 9, 100: 729, 81, 900
    # maximum: 700; minimum: 90; usage is 790 of 1000
    assert cents(lines) == [700, 90, 900, 210]
    assert [line.kind for line in lines] == ["usage", "usage", "fee", "commitment"]
    assert [line.key for line in lines] == ["a", "b", "c", "commitment"]
    assert [line.discount for line in lines] == [D(271), D(19), D(100), D(0)]
    told = lines[0].explanation
    assert [(one["of"], one["took"]) for one in told["discounts"]] == [
        ("charge", "100"),
        ("period", "90"),
        ("period", "81"),
    ]
    assert told["maximum"] == {"amount": "700", "took": "29"}
    assert lines[3].explanation["commitment"]["spent"] == "790"


def test_the_periods_discounts_may_come_last() -> None:
    items = [use("a", "1000", charge(maximum=D(700))), use("b", "100", charge(minimum=D(200)))]
    how = Conventions(period_discounts="last")
    lines = rate_period(items, discounts=(off("10"),), commitment=Commitment(D(1000)), conventions=how)
    assert cents(lines) == [630, 180, 90]
    assert cents(rate_period(items, discounts=(off("10"),), commitment=Commitment(D(1000)))) == [700, 200, 100]


@pytest.mark.parametrize(
    ("prices", "amount", "left"),
    [
        (("100", "100", "100"), "100", [66, 67, 67]),  # 34, 33, 33
        (("100", "100", "100"), "101", [66, 66, 67]),
        (("1", "1", "1"), "2", [0, 0, 1]),
        (("50", "0", "50"), "99", [0, 0, 1]),
        (("10", "-5", "10"), "30", [0, -5, 0]),
        (("1000", "1", "1"), "1", [999, 1, 1]),
        (("3", "2", "2"), "0", [3, 2, 2]),
    ],
)
def test_an_amount_is_spread_by_largest_remainder(prices: tuple[str, ...], amount: str, left: list[int]) -> None:
    items = [use(str(n), quantity) for n, quantity in enumerate(prices)]
    assert cents(rate_period(items, discounts=(off(amount=amount),))) == left


@pytest.mark.parametrize(
    ("spread", "left"),
    [("largest_remainder", [1, 3, 5]), ("largest_amount", [2, 3, 4]), ("in_order", [0, 1, 8]), ("exact", [1, 3, 5])],
)
def test_how_an_amount_is_spread_is_a_convention(spread: str, left: list[int]) -> None:
    # 7 over 2, 6, 8: 0.875, 2.625, 3.5; cut down to 0, 2, 3, two units left
    items = [use(str(n), quantity) for n, quantity in enumerate(("2", "6", "8"))]
    lines = rate_period(items, discounts=(off(amount="7"),), conventions=Conventions(spread=spread))
    assert cents(lines) == left
    assert sum(line.exact for line in lines) == 9
    if spread == "exact":
        assert [line.discount for line in lines] == [D("0.875"), D("2.625"), D("3.5")]


@pytest.mark.parametrize(("on", "left"), [("all", [90, 90, 90]), ("usage", [90, 100, 100]), ("fee", [100, 90, 100])])
def test_a_discount_says_what_it_is_on(on: str, left: list[int]) -> None:
    items = [use("u", "100"), fee("f", "100"), use("o", "100", kind="other")]
    assert cents(rate_period(items, discounts=(off("10", on=on),))) == left


@pytest.mark.parametrize(
    ("used", "covers", "true_up", "factor", "added"),
    [
        ("899", "usage", True, "1", 101),
        ("1000", "usage", True, "1", None),
        ("1001", "usage", True, "1", None),
        ("899", "all", True, "1", None),
        ("399", "all", True, "1", 101),
        ("899", "fee", True, "1", 500),
        ("899", "usage", False, "1", None),
        ("1200", "usage", True, "1.5", 100),
        ("1200", "usage", False, "3", 400),
    ],
)
def test_a_commitment_that_is_not_reached_adds_a_line(
    used: str, covers: str, true_up: bool, factor: str, added: int | None
) -> None:
    commitment = Commitment(D(1000), covers=covers, true_up=true_up, overage_factor=D(factor), name="Pledge")
    lines = rate_period([use("u", used), fee("f", "500")], commitment=commitment)
    assert cents(lines) == [int(used), 500] + ([] if added is None else [added])
    if added is not None:
        assert lines[-1].explanation["name"] == "Pledge"


def test_a_commitment_fills_up_what_is_printed() -> None:
    items = [use(str(n), "0.4") for n in range(3)]
    assert cents(rate_period(items, commitment=Commitment(D(10)))) == [0, 0, 0, 10]
    how = Conventions(rounding="invoice")
    assert sum(cents(rate_period(items, commitment=Commitment(D(10)), conventions=how))) == 10


def test_a_partial_period_cuts_each_item_by_its_own_fraction() -> None:
    items = [fee("a", "1000"), fee("b", "1000", fraction=Fraction(1, 4)), use("c", "100")]
    lines = rate_period(items, fraction=HALF, commitment=Commitment(D(1000)))
    assert cents(lines) == [500, 250, 100, 400]
    whole = Conventions(prorate_commitment=False)
    assert cents(rate_period(items, fraction=HALF, commitment=Commitment(D(1000)), conventions=whole))[-1] == 900


def test_a_line_that_is_rated_already_is_taken_as_it_is() -> None:
    given = rate(CENT, "10.4", key="old")
    lines = rate_period(
        [Item("x", rated=given), use("b", "89.9")], discounts=(off("50"),), commitment=Commitment(D(100))
    )
    assert lines[0] is given
    assert cents(lines) == [10, 45, 45]


def test_nothing_to_rate_is_nothing_or_the_commitment() -> None:
    assert rate_period([]) == ()
    assert cents(rate_period([], commitment=Commitment(D(100)))) == [100]


def test_an_item_needs_one_thing_to_be_rated() -> None:
    with pytest.raises(PricingInvalid, match="exactly one"):
        Item("a")
    with pytest.raises(PricingInvalid, match="exactly one"):
        Item("a", rule=charge(), usage="1", rated=rate(CENT, "1"))
    with pytest.raises(PricingInvalid, match="needs its usage"):
        Item("a", rule=charge())
    with pytest.raises(PricingInvalid, match="kind must be one of"):
        Item("a", kind="seat", rule=FeeRule(D(1)))
    with pytest.raises(PricingInvalid, match="commit to an amount only"):
        rate_period([], commitment=Commitment(quantity=D(1)))


# -- the calls of before


def test_a_waived_line_costs_nothing_and_keeps_what_was_used() -> None:
    line = waive(rate(charge(Package(D(500), D(100)), discounts=(off("10"),)), "250"), because="free in the trial")
    assert [line.quantity, line.amount, line.exact, line.exact_amount, line.discount] == [250, 0, 0, 0, 0]
    assert line.explanation["waived"] == "free in the trial"
    assert line.explanation["packages"]["count"] == "3"


def test_below_zero_units_are_credited_unless_the_convention_says_they_are_free() -> None:
    rule = charge(PerUnit(D(2)), free_units=D(1))
    line = rate(rule, "-5", conventions=Conventions(below_zero="free"))
    assert (line.amount, line.billable_units) == (D(0), D(0))
    assert rate(rule, "-5").amount == -10
