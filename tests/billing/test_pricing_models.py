"""Each model, on both sides of each of its edges. Amounts are cents; the arithmetic stands beside."""

from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from billing.pricing import (
    ByDimension,
    ChargeRule,
    Conventions,
    Flat,
    Graduated,
    Model,
    Package,
    Percentage,
    PerUnit,
    PricingInvalid,
    RatedLine,
    Tier,
    Usage,
    Volume,
    rate,
)

D = Decimal


def cost(model: Model, usage: Any, *, free: str = "0", fraction: str = "1", **conventions: Any) -> Fraction:
    rule = ChargeRule(model, free_units=D(free))
    return rate(rule, usage, conventions=Conventions(**conventions), fraction=fraction).exact


def tier(up_to: str | None, unit_price: str = "0", flat_fee: str = "0", **more: Any) -> Tier:
    return Tier(None if up_to is None else D(up_to), D(unit_price), D(flat_fee), **more)


PLAIN = (tier("10", "5"), tier("20", "4"), tier(None, "3"))
FEES = (tier("10", "5", "100"), tier("20", "4", "50"), tier(None, "3", "20"))


# -- graduated


@pytest.mark.parametrize(
    ("quantity", "exact"),
    [
        ("0", "0"),
        ("0.5", "2.5"),
        ("1", "5"),
        ("9.999", "49.995"),
        ("10", "50"),
        ("10.5", "52"),  # 50 + 0.5 x 4
        ("11", "54"),
        ("19.5", "88"),
        ("20", "90"),
        ("20.000000000001", "90.000000000003"),
        ("21", "93"),
        ("1000000", "3000030"),  # 90 + 999,980 x 3
        ("-1", "-5"),
        ("-11", "-54"),
    ],
)
def test_each_unit_costs_its_tier(quantity: str, exact: str) -> None:
    assert cost(Graduated(PLAIN), quantity) == Fraction(exact)


@pytest.mark.parametrize(
    ("quantity", "inclusive", "exclusive"),
    [
        ("0", "0", "0"),
        ("0.1", "100.5", "100.5"),
        ("9.9", "149.5", "149.5"),
        ("10", "150", "200"),  # reaching the bound is in the next tier, whose fee is 50
        ("10.1", "200.4", "200.4"),
        ("20", "240", "260"),
        ("20.1", "260.3", "260.3"),
    ],
)
def test_a_flat_fee_is_charged_once_usage_reaches_into_its_tier(quantity: str, inclusive: str, exclusive: str) -> None:
    assert cost(Graduated(FEES), quantity) == Fraction(inclusive)
    assert cost(Graduated(FEES), quantity, tier_bound="exclusive") == Fraction(exclusive)


@pytest.mark.parametrize(
    ("model", "quantity", "free", "without", "with_it"),
    [
        (Graduated(FEES), "0", "0", "0", "100"),
        (Graduated(FEES), "1", "0", "105", "105"),
        (Graduated(FEES), "4", "5", "0", "100"),  # all of it free: nothing reaches into a tier
        (Graduated(FEES), "6", "5", "105", "105"),
        (Volume(FEES), "0", "0", "0", "100"),
        (Volume(FEES), "1", "0", "105", "105"),
        (Volume(FEES), "5", "5", "0", "100"),
    ],
)
def test_the_first_fee_at_zero_is_a_convention(
    model: Model, quantity: str, free: str, without: str, with_it: str
) -> None:
    assert cost(model, quantity, free=free) == Fraction(without)
    assert cost(model, quantity, free=free, first_tier_fee_at_zero=True) == Fraction(with_it)


@pytest.mark.parametrize(
    ("quantity", "exact"),
    [
        ("0", "0"),
        ("1", "500"),
        ("100", "500"),
        ("100.5", "1000"),
        ("1000", "5000"),
        ("1000.5", "5200"),
        ("1050", "5200"),
        ("1051", "5400"),
    ],
)
def test_a_tier_may_sell_packages(quantity: str, exact: str) -> None:
    tiers = (tier("1000", "500", package_size=D(100)), tier(None, "200", package_size=D(50)))
    assert cost(Graduated(tiers), quantity) == Fraction(exact)


@pytest.mark.parametrize(("quantity", "exact"), [("0", "0"), ("1", "500"), ("1000", "5000"), ("1001", "4200")])
def test_in_a_volume_the_package_of_the_reached_tier_is_for_all(quantity: str, exact: str) -> None:
    tiers = (tier("1000", "500", package_size=D(100)), tier(None, "200", package_size=D(50)))
    assert cost(Volume(tiers), quantity) == Fraction(exact)  # 1,001 / 50 -> 21 x 200


@pytest.mark.parametrize(
    ("quantity", "exact"),
    [("0", "0"), ("10000", "310"), ("10001", "310.01"), ("20000", "410")],
)
def test_a_tier_may_take_a_percent(quantity: str, exact: str) -> None:
    # 3 % up to 10,000 with 10 once, 1 % above
    tiers = (Tier(D(10000), flat_fee=D(10), percent=D(3)), Tier(None, percent=D(1)))
    assert cost(Graduated(tiers), quantity) == Fraction(exact)
    # of dollars, each 100 cents
    assert cost(Graduated((Tier(None, percent=D(3)),), unit_value=D(100)), "7") == 21


def test_a_tier_may_have_its_own_bounds() -> None:
    tiers = (tier("10", "5", "7", minimum=D(20), maximum=D(40)), tier(None, "1", minimum=D(3)))
    for quantity, exact in [("0", 0), ("1", 27), ("4", 27), ("5", 32), ("8", 47), ("10", 47), ("11", 50), ("14", 51)]:
        assert cost(Graduated(tiers), quantity) == exact, quantity


@pytest.mark.parametrize(
    ("convention", "at_bound", "beyond"),
    [("last", "90", "94"), ("free", "90", "90")],
)
@pytest.mark.parametrize("closed", [(tier("10", "5"), tier("20", "4"))])
def test_beyond_a_closed_last_tier(closed: tuple[Tier, ...], convention: str, at_bound: str, beyond: str) -> None:
    assert cost(Graduated(closed), "20", beyond_last_tier=convention) == Fraction(at_bound)
    assert cost(Graduated(closed), "21", beyond_last_tier=convention) == Fraction(beyond)
    assert cost(Graduated(closed), "20") == 90
    with pytest.raises(PricingInvalid, match="last tier ends at 20, and 21 units") as refused:
        cost(Graduated(closed), "21")
    assert refused.value.code == "BEYOND_LAST_TIER"


def test_beyond_a_closed_volume() -> None:
    closed = Volume((tier("10", "5"), tier("20", "4", "7")))
    assert cost(closed, "20") == 87
    assert cost(closed, "21", beyond_last_tier="last") == 91
    assert cost(closed, "21", beyond_last_tier="free") == 87
    with pytest.raises(PricingInvalid):
        cost(closed, "21")
    with pytest.raises(PricingInvalid):
        cost(closed, "20", tier_bound="exclusive")


def test_the_last_tier_may_be_open_in_any_spelling() -> None:
    for bound in (None, "inf", "", "∞", "Infinity", D("Infinity")):
        assert Tier(bound, D(1)).up_to is None  # type: ignore[arg-type]


# -- volume


@pytest.mark.parametrize(
    ("quantity", "inclusive", "exclusive"),
    [
        ("0", "0", "0"),
        ("9.5", "47.5", "47.5"),
        ("10", "50", "40"),
        ("10.5", "42", "42"),
        ("20", "80", "60"),
        ("20.5", "61.5", "61.5"),
        ("-10", "-50", "-40"),
    ],
)
def test_all_units_cost_the_tier_that_is_reached(quantity: str, inclusive: str, exclusive: str) -> None:
    assert cost(Volume(PLAIN), quantity) == Fraction(inclusive)
    assert cost(Volume(PLAIN), quantity, tier_bound="exclusive") == Fraction(exclusive)


def test_a_volume_shows_its_price_only_where_it_is_the_only_one() -> None:
    assert rate(Volume(PLAIN), "11").unit_price == 4
    assert rate(Volume(FEES), "11").unit_price is None
    assert rate(Graduated(PLAIN), "11").unit_price is None


def test_a_stair_is_flat_fees_alone() -> None:
    stair = Volume((tier("10", flat_fee="900"), tier("50", flat_fee="2900"), tier(None, flat_fee="9900")))
    assert [cost(stair, q) for q in ("0", "1", "10", "10.01", "50", "51")] == [0, 900, 900, 2900, 2900, 9900]


# -- package


@pytest.mark.parametrize(
    ("quantity", "up", "down", "half_up", "exact"),
    [
        ("0", "0", "0", "0", "0"),
        ("0.001", "500", "0", "0", "0.005"),
        ("49.999", "500", "0", "0", "249.995"),
        ("50", "500", "0", "500", "250"),
        ("99", "500", "0", "500", "495"),
        ("100", "500", "500", "500", "500"),
        ("100.5", "1000", "500", "500", "502.5"),
        ("200", "1000", "1000", "1000", "1000"),
        ("-100.5", "-1000", "-500", "-500", "-502.5"),
    ],
)
def test_packages_are_begun_full_or_in_part(quantity: str, up: str, down: str, half_up: str, exact: str) -> None:
    for rounding, expected in (("up", up), ("down", down), ("half_up", half_up), ("exact", exact)):
        assert cost(Package(D(500), D(100), rounding), quantity) == Fraction(expected)
        assert cost(Package(D(500), D(100), rounding), quantity + "0" * ("." in quantity)) == Fraction(expected)


@pytest.mark.parametrize(
    ("quantity", "exact"), [("0", "0"), ("149", "0"), ("150", "0"), ("150.01", "500"), ("250", "500"), ("251", "1000")]
)
def test_free_units_go_before_the_packages(quantity: str, exact: str) -> None:
    assert cost(Package(D(500), D(100)), quantity, free="150") == Fraction(exact)


def test_at_least_so_many_packages_once_used() -> None:
    model = Package(D(500), D(100), "down", at_least=1)
    assert [cost(model, quantity) for quantity in ("0", "1", "199", "200")] == [0, 500, 500, 1000]


def test_a_package_may_have_a_fractional_size() -> None:
    assert cost(Package(D(3), D("0.1")), "0.25") == 9


# -- percentage


def percent(rule: Percentage, *values: str, **more: Any) -> Fraction:
    return cost(rule, Usage(values=[D(value) for value in values]), **more)


@pytest.mark.parametrize(
    ("rule", "values", "exact"),
    [
        # 2 % and 30 an event
        (Percentage(D(2), D(30)), "", "0"),
        (Percentage(D(2), D(30)), "1000", "50"),
        (Percentage(D(2), D(30)), "1000 500", "90"),
        (Percentage(D(2), D(30)), "0", "30"),
        # free events
        (Percentage(D(2), D(30), free_events=2), "1000 500", "0"),
        (Percentage(D(2), D(30), free_events=2), "1000 500 100", "32"),
        (Percentage(D(2), D(30), free_events=0), "1000", "50"),
        # a free amount; the event that passes it is partly free and pays its fee
        (Percentage(D(2), D(30), free_amount=D(1500)), "1000 499", "0"),
        (Percentage(D(2), D(30), free_amount=D(1500)), "1000 500", "0"),
        (Percentage(D(2), D(30), free_amount=D(1500)), "1000 501", "30.02"),
        (Percentage(D(2), D(30), free_amount=D(1500)), "1000 600 100", "64"),  # 2 + 30, 2 + 30
        # both: the first to run out ends it
        (Percentage(D(2), D(30), free_events=1, free_amount=D(1500)), "1000 500", "40"),
        (Percentage(D(2), D(30), free_events=3, free_amount=D(1500)), "1000 600 100", "64"),
        # bounds of an event, its fee included
        (Percentage(D(2), D(30), event_minimum=D(40)), "400 500 501", "120.02"),
        (Percentage(D(2), D(30), event_maximum=D(50)), "999 1000 1001", "149.98"),
        (Percentage(D(2), D(30), event_minimum=D(40), event_maximum=D(50)), "1 750 9999", "135"),
        # a free event costs nothing, also with a minimum
        (Percentage(D(2), D(30), free_events=1, event_minimum=D(40)), "1 1", "40"),
        # a refund is minus the price of its size
        (Percentage(D(2), D(30)), "1000 -1000", "0"),
        (Percentage(D(2)), "1000 -400", "12"),
    ],
)
def test_a_share_of_money_event_by_event(rule: Percentage, values: str, exact: str) -> None:
    assert percent(rule, *values.split()) == Fraction(exact)


@pytest.mark.parametrize(
    ("events", "amount", "values", "first", "by_amount", "last"),
    [
        # 2 % and 30. One event and 1,500 are free.
        # first: 400, 200 and 50 pay; the others: 100 of 200, and 50
        (1, 1500, "1000 400 200 50", 13 + 90, 3 + 60, 3 + 60),
        # Three events and 1,000 are free.
        # first and amount: 100 of 300, 500 and 100 pay; last: 100 alone
        (3, 1000, "800 300 500 100", 14 + 90, 14 + 90, 2 + 30),
        # Two events and 1,000 are free; the first event uses the amount up.
        (2, 1000, "1000 300 50", 7 + 60, 7 + 60, 1 + 30),
    ],
)
def test_which_allowance_ends_the_free_part(
    events: int, amount: int, values: str, first: int, by_amount: int, last: int
) -> None:
    rule = Percentage(D(2), D(30), free_events=events, free_amount=D(amount))
    found = [percent(rule, *values.split(), free_ends=ends) for ends in ("first", "amount", "last")]
    assert found == [first, by_amount, last]


@pytest.mark.parametrize(("bound", "exact"), [("inclusive", "0"), ("exclusive", "30")])
def test_the_event_that_just_uses_up_the_free_amount(bound: str, exact: str) -> None:
    rule = Percentage(D(2), D(30), free_amount=D(1500))
    assert percent(rule, "1000", "500", free_amount_bound=bound) == Fraction(exact)
    assert cost(rule, Usage(D(1499), events=2), free_amount_bound=bound) == 0


@pytest.mark.parametrize(
    ("rule", "usage", "exact"),
    [
        (Percentage(D(2)), Usage(D(1000)), "20"),
        (Percentage(D(2)), Usage(D("0.5")), "0.01"),
        (Percentage(D(2), unit_value=D(100)), Usage(D("9.5")), "19"),
        (Percentage(D(2), free_amount=D(400)), Usage(D(1000)), "12"),
        (Percentage(D(2), free_amount=D(400)), Usage(D(399)), "0"),
        (Percentage(D(2), D(30)), Usage(D(1000), events=3), "110"),
        (Percentage(D(2), D(30), free_events=3), Usage(D(1000), events=3), "0"),
        (Percentage(D(0), D(30), free_events=3), Usage(D(1000), events=5), "60"),
        (Percentage(D(2), D(30), free_amount=D(1000)), Usage(D(1000), events=3), "0"),
        (Percentage(D(2), D(30), event_maximum=D(40)), Usage(D(1000), events=1), "40"),
        (Percentage(D(2), D(30), event_minimum=D(40)), Usage(D(0)), "0"),
        (Percentage(D(2)), Usage(D(-1000)), "-20"),
        (Percentage(D(2), D(30)), Usage(D(-1000), events=1), "-50"),
    ],
)
def test_without_values_what_can_be_said_is_said(rule: Percentage, usage: Usage, exact: str) -> None:
    assert cost(rule, usage) == Fraction(exact)


@pytest.mark.parametrize(
    ("rule", "usage", "why"),
    [
        (Percentage(D(2), D(30)), Usage(D(1000)), "neither their number nor their values"),
        (Percentage(D(2), free_events=2), Usage(D(1000), events=3), "first events are free"),
        (Percentage(D(2), free_events=2), Usage(D(1000)), "first events are free"),
        (Percentage(D(2), D(30), free_amount=D(400)), Usage(D(1000), events=3), "which events pay the fixed fee"),
        (Percentage(D(2), event_minimum=D(1)), Usage(D(1000), events=3), "a minimum or a maximum"),
        (Percentage(D(2), event_maximum=D(1)), Usage(D(1000)), "a minimum or a maximum"),
    ],
)
def test_without_values_nothing_is_guessed(rule: Percentage, usage: Usage, why: str) -> None:
    with pytest.raises(PricingInvalid, match=why) as refused:
        cost(rule, usage)
    assert refused.value.code == "VALUES_NEEDED"


def test_free_units_of_the_charge_come_before_the_events() -> None:
    assert percent(Percentage(D(2), D(30)), "100", "100", free="150") == 61  # 50 x 2 % + 2 x 30


# -- flat


@pytest.mark.parametrize(("used", "quantity", "exact"), [(False, "0", 900), (False, "5", 900), (False, "-5", 900)])
def test_flat_is_the_same_whatever_was_used(used: bool, quantity: str, exact: int) -> None:
    assert cost(Flat(D(900), only_when_used=used), quantity) == exact


def test_flat_may_want_some_use() -> None:
    assert cost(Flat(D(900), only_when_used=True), "0") == 0
    assert cost(Flat(D(900), only_when_used=True), "0.001") == 900
    assert cost(Flat(D(900), only_when_used=True), Usage(D(0), events=1)) == 900


# -- by dimension


def by_region(**usage: str) -> Usage:
    return Usage(by_value={name: Usage(D(quantity)) for name, quantity in usage.items()})


def test_each_value_has_its_price_and_the_default_the_others() -> None:
    model = ByDimension(("region",), {"eu": PerUnit(D(5)), "us": Package(D(10), D(3))}, default=PerUnit(D(1)))
    assert cost(model, by_region(eu="3", us="4", mars="7")) == 42  # 15 + 2 x 10 + 7
    assert cost(model, by_region(eu="-3", us="4")) == 5
    assert cost(model, by_region(eu="-3", us="4"), below_zero="free") == 20
    assert cost(model, Usage(D(0))) == 0


def test_what_has_no_price_costs_nothing_and_is_named() -> None:
    line = rate(ByDimension(("region",), {"eu": PerUnit(D(5))}), by_region(eu="3", mars="7"))
    assert (line.amount, line.quantity, line.billable_units) == (D(15), D(10), D(3))
    assert line.explanation["unpriced"] == [{"value": ["mars"], "quantity": "7"}]
    assert [value["value"] for value in line.explanation["values"]] == [["eu"]]


def test_several_keys_and_any() -> None:
    model = ByDimension(
        ("region", "class"),
        {("eu", "gold"): PerUnit(D(9)), ("eu", "*"): PerUnit(D(5)), ("*", "gold"): PerUnit(D(3))},
    )
    usage = {
        ("eu", "gold"): Usage(D(1)),
        ("eu", "iron"): Usage(D(10)),
        ("us", "gold"): Usage(D(100)),
        ("us", "iron"): Usage(D(1000)),
    }
    assert cost(model, Usage(by_value=usage)) == 9 + 50 + 300


@pytest.mark.parametrize(
    ("taken", "free", "exact"),
    [
        ("in_proportion", "0", "19"),  # 3 x 5 + 4 x 1
        ("in_proportion", "7", "0"),
        ("in_proportion", "99", "0"),
        ("in_proportion", "1", "114/7"),  # 6/7 of 19
        ("in_order", "1", "14"),
        ("in_order", "3", "4"),
        ("in_order", "5", "2"),
    ],
)
def test_free_units_are_shared_by_the_values(taken: str, free: str, exact: str) -> None:
    model = ByDimension(("region",), {"eu": PerUnit(D(5)), "us": PerUnit(D(1))}, free_units_taken=taken)
    assert cost(model, by_region(us="4", eu="3"), free=free) == Fraction(exact)


def test_a_price_by_dimension_needs_the_usage_of_each_value() -> None:
    with pytest.raises(PricingInvalid, match="region needs the usage of each value"):
        cost(ByDimension(("region",), {"eu": PerUnit(D(5))}), "3")


# -- around a price


@pytest.mark.parametrize(
    ("rounding", "quantity", "exact"),
    [
        ("exact", "1536", "4.5"),
        ("up", "0", "0"),
        ("up", "1", "3"),
        ("up", "1024", "3"),
        ("up", "1025", "6"),
        ("down", "1023", "0"),
        ("down", "2047", "3"),
        ("half_up", "511", "0"),
        ("half_up", "512", "3"),
        ("up", "-1025", "-6"),
    ],
)
def test_a_quantity_may_be_counted_in_larger_units(rounding: str, quantity: str, exact: str) -> None:
    rule = ChargeRule(PerUnit(D(3)), unit_size=D(1024), unit_rounding=rounding)
    assert rate(rule, quantity).exact == Fraction(exact)


def test_tiers_may_be_of_packages() -> None:
    rule = ChargeRule(
        Graduated((tier("2", "100"), tier(None, "50"))), unit_size=D(10), unit_rounding="up", free_units=D(1)
    )
    # packages 0, 1, 1, 2, 4, the first free
    assert [rate(rule, q).amount for q in ("0", "1", "10", "11", "31")] == [0, 0, 0, 100, 250]


def test_each_value_may_be_priced_by_itself() -> None:
    rule = ChargeRule(Graduated(PLAIN), each=True, free_units=D(1))
    line = rate(rule, Usage(values=[D(9), D(12), D(1), D(0)]))
    assert line.exact == 40 + 54 + 0 + 0
    assert [one["amount"] for one in line.explanation["each"]] == ["40", "54", "0", "0"]
    with pytest.raises(PricingInvalid, match="needs the values"):
        rate(rule, "22")


def line_of(rule: ChargeRule, usage: Usage, **conventions: Any) -> RatedLine:
    return rate(rule, usage, conventions=Conventions(**conventions))


@pytest.mark.parametrize(
    ("values", "shares", "graduated", "volume", "per_unit"),
    [
        # tiers 10 at 5, 20 at 4, the rest 3; per unit 2
        ("4", "1", "20", "20", "8"),
        ("4", "1/2", "10", "10", "4"),
        ("8 4", "1 1/2", "49", "40", "20"),  # 8x5 + (2x5 + 2x4)/2; volume 10 x 4; 10 x 2
        ("8 4 -4", "1 1/2 -0", "49", "50", "20"),  # the leaver pays nothing back
        ("8 4 -4", "1 1 1/4", "53.5", "55", "22"),  # 58 - (2x4 + 2x5)/4; 11 x 5
        ("25", "1/5", "21", "15", "10"),
        ("0", "1", "0", "0", "0"),
    ],
)
def test_units_may_pay_for_their_share_of_the_period(
    values: str, shares: str, graduated: str, volume: str, per_unit: str
) -> None:
    usage = Usage(values=[D(v) for v in values.split()], shares=[Fraction(s) for s in shares.split()])
    assert cost(Graduated(PLAIN), usage) == Fraction(graduated)
    assert cost(Volume(PLAIN), usage) == Fraction(volume)
    assert cost(PerUnit(D(2)), usage) == Fraction(per_unit)


def test_flat_fees_are_those_of_the_highest_number_held() -> None:
    usage = Usage(values=[D(8), D(4), D(-4)], shares=[Fraction(1), Fraction(1, 2), Fraction(0)])
    assert cost(Graduated(FEES), usage) == 49 + 150
    assert cost(Volume(FEES), usage) == 50 + 100


def test_free_units_come_off_the_first_ones() -> None:
    usage = Usage(values=[D(8), D(4)], shares=[Fraction(1), Fraction(1, 2)])
    assert cost(PerUnit(D(2)), usage, free="8") == 4
    assert cost(PerUnit(D(2)), usage, free="10") == 2


@pytest.mark.parametrize("model", [Package(D(1), D(1)), Percentage(D(1)), Graduated((Tier(None, package_size=D(2)),))])
def test_whole_things_have_no_shares(model: Model) -> None:
    with pytest.raises(PricingInvalid, match="shares of the period"):
        cost(model, Usage(values=[D(1)], shares=[Fraction(1, 2)]))


@pytest.mark.parametrize(
    ("model", "quantity", "exact"),
    [
        (PerUnit(D(2)), "-5", "-10"),
        (Graduated(FEES), "-11", "-204"),
        (Volume(FEES), "-11", "-94"),
        (Package(D(500), D(100)), "-1", "-500"),
        (Percentage(D(2)), "-50", "-1"),
        (Flat(D(9)), "-5", "9"),
    ],
)
def test_below_zero_is_minus_the_price_of_its_size(model: Model, quantity: str, exact: str) -> None:
    assert cost(model, quantity) == Fraction(exact)
    assert cost(model, quantity, free="100") == Fraction(exact)  # a correction gives no free units
    assert cost(model, quantity, below_zero="free") == (9 if isinstance(model, Flat) else 0)
    line = rate(model, quantity)
    assert line.explanation["conventions"]["below_zero"] == "credited"
    assert line.quantity == D(quantity)


# -- usage billed before in the same period


@pytest.mark.parametrize(
    "model",
    [PerUnit(D(2)), Graduated(PLAIN), Graduated(FEES), Volume(PLAIN), Package(D(500), D(7)), Percentage(D(2))],
)
@pytest.mark.parametrize("parts", [("3", "4", "5"), ("10", "10", "10"), ("0", "25"), ("9.5", "0.5", "0.5")])
@pytest.mark.parametrize(("minimum", "maximum"), [(None, None), (None, "60"), ("70", None), ("70", "90")])
def test_parts_of_a_period_add_up_to_the_whole(
    model: Model, parts: tuple[str, ...], minimum: str | None, maximum: str | None
) -> None:
    rule = ChargeRule(
        model,
        free_units=D(2),
        minimum=None if minimum is None else D(minimum),
        maximum=None if maximum is None else D(maximum),
    )
    before, total = D(0), Fraction(0)
    for number, part in enumerate(parts, start=1):
        usage = Usage(D(part), before=before if number > 1 else None, last=number == len(parts))
        line = rate(rule, usage)
        assert line.quantity == D(part)
        total += line.exact
        before += D(part)
    assert total == rate(rule, before).exact


def test_a_fee_at_zero_is_charged_once_when_the_period_is_split() -> None:
    how = Conventions(first_tier_fee_at_zero=True)
    first = rate(Graduated(FEES), Usage(D(0), last=False), conventions=how)
    second = rate(Graduated(FEES), Usage(D(3), before=D(0)), conventions=how)
    assert [first.exact, second.exact] == [100, 15]


@pytest.mark.parametrize(
    ("quantity", "behind", "within"),
    [
        # 4 free; graduated 10 at 5, 10 at 4, then 3
        ("0", "0", "0"),
        ("4", "0", "0"),
        ("5", "5", "5"),
        ("10", "30", "30"),
        ("14", "50", "46"),  # behind: 10 x 5; within: 6 x 5 + 4 x 4
        ("20", "74", "70"),
        ("21", "78", "73"),
        ("25", "93", "85"),
    ],
)
def test_tiers_count_from_the_first_paid_unit_or_from_the_first_of_all(quantity: str, behind: str, within: str) -> None:
    rule = ChargeRule(Graduated(PLAIN), free_units=D(4))
    assert rate(rule, quantity).exact == Fraction(behind)
    assert rate(replace(rule, free_units_in_tiers=True), quantity).exact == Fraction(within)
    usage = Usage(values=[D(quantity)], shares=[Fraction(1)])
    assert rate(replace(rule, free_units_in_tiers=True), usage).exact == Fraction(within)


def test_a_volume_may_count_its_free_units_too() -> None:
    rule = ChargeRule(Volume(PLAIN), free_units=D(4), free_units_in_tiers=True)
    assert [rate(rule, q).exact for q in ("4", "10", "11", "20", "21")] == [0, 30, 28, 64, 51]
