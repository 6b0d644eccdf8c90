"""What holds for every price, and for spreading and rounding: against plain references, and by its laws."""

from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from billing.money import ROUNDING_MODES, ends, plain, round_fraction, round_together, spread, to_decimal
from billing.pricing import (
    ChargeRule,
    Commitment,
    Conventions,
    Discount,
    FeeRule,
    Graduated,
    Item,
    Model,
    Package,
    Percentage,
    PerUnit,
    RatedLine,
    Tier,
    Usage,
    Volume,
    explain,
    price,
    rate,
    rate_period,
    rule_to_data,
)
from billing.pricing.rating import spread_below

D = Decimal

prices = st.decimals(min_value=0, max_value=10**4, places=4).map(abs)
quantities = st.decimals(min_value=0, max_value=10**5, places=3).map(abs)
bounds = st.lists(st.integers(1, 10**5), max_size=5, unique=True).map(sorted)


@st.composite
def tables(draw: st.DrawFn, *, fees: bool = True) -> tuple[Tier, ...]:
    ends: list[int | None] = [*draw(bounds), None]
    return tuple(Tier(None if end is None else D(end), draw(prices), draw(prices) if fees else D(0)) for end in ends)


def graduated_by_hand(tiers: tuple[Tier, ...], quantity: Fraction, *, exclusive: bool) -> Fraction:
    """Unit by unit of the number line: what lies in each tier, and its fee where usage is in it."""
    cost, low = Fraction(0), Fraction(0)
    for number, tier in enumerate(tiers):
        high = Fraction(tier.up_to) if tier.up_to is not None else max(quantity, low)
        inside = min(quantity, high) - min(quantity, low)
        cost += inside * Fraction(tier.unit_price)
        if inside > 0 or (exclusive and number > 0 and quantity == low):
            cost += Fraction(tier.flat_fee)
        low = high
    return cost


def volume_by_hand(tiers: tuple[Tier, ...], quantity: Fraction, *, exclusive: bool) -> Fraction:
    if quantity == 0:
        return Fraction(0)
    for tier in tiers:
        bound = tier.up_to
        if bound is None or quantity < bound or (quantity == bound and not exclusive):
            return quantity * Fraction(tier.unit_price) + Fraction(tier.flat_fee)
    raise AssertionError


@given(tables(), quantities | bounds.map(lambda found: D(found[0]) if found else D(0)), st.booleans())
def test_tiers_agree_with_a_plain_reference(tiers: tuple[Tier, ...], quantity: Decimal, exclusive: bool) -> None:
    how = Conventions(tier_bound="exclusive" if exclusive else "inclusive")
    for at in (quantity, *(tier.up_to for tier in tiers if tier.up_to is not None)):
        exact = Fraction(at)
        found = rate(Graduated(tiers), at, conventions=how)
        assert found.exact == graduated_by_hand(tiers, exact, exclusive=exclusive)
        assert rate(Volume(tiers), at, conventions=how).exact == volume_by_hand(tiers, exact, exclusive=exclusive)
        told = found.explanation["tiers"]
        assert sum(Fraction(tier["units"]) for tier in told) == exact
        assert sum(Fraction(tier["amount"]) + Fraction(tier["flat_fee"]) for tier in told) == found.exact


@given(tables(), quantities, quantities)
def test_graduated_prices_are_monotone(tiers: tuple[Tier, ...], a: Decimal, b: Decimal) -> None:
    less, more = sorted((a, b))
    assert rate(Graduated(tiers), less).exact <= rate(Graduated(tiers), more).exact
    assert rate(Graduated(tiers), less).amount <= rate(Graduated(tiers), more).amount


@given(tables(fees=False), st.integers(0, 10**5), st.integers(1, 10**6))
def test_graduated_prices_without_fees_are_continuous(tiers: tuple[Tier, ...], at: int, parts: int) -> None:
    step = Fraction(1, parts)
    steepest = max(Fraction(tier.unit_price) for tier in tiers)
    difference = rate(Graduated(tiers), Usage(at + step)).exact - rate(Graduated(tiers), Usage(D(at))).exact
    assert 0 <= difference <= steepest * step


models = (
    st.builds(PerUnit, prices)
    | st.builds(Graduated, tables())
    | st.builds(Volume, tables())
    | st.builds(Package, prices, st.integers(1, 1000).map(D), st.sampled_from(["up", "down", "half_up", "exact"]))
    | st.builds(Percentage, prices)
)


@given(models, quantities, st.lists(quantities, min_size=1, max_size=4))
def test_splitting_a_period_changes_nothing(model: Model, free: Decimal, parts: list[Decimal]) -> None:
    rule = ChargeRule(model, free_units=free)
    before, cost = D(0), Fraction(0)
    for number, part in enumerate(parts):
        cost += rate(rule, Usage(part, before=before if number else None, last=number == len(parts) - 1)).exact
        before += part
    assert cost == rate(rule, before).exact


@given(models, quantities)
def test_a_correction_mirrors_what_it_corrects(model: Model, quantity: Decimal) -> None:
    assume(quantity)
    assert rate(model, -quantity).exact == -rate(model, quantity).exact


@given(models, quantities, quantities)
def test_free_units_are_units_that_were_not_used(model: Model, quantity: Decimal, free: Decimal) -> None:
    with_free = rate(ChargeRule(model, free_units=free), quantity)
    assert with_free.exact == rate(model, max(quantity - free, D(0))).exact
    assert with_free.billable_units == max(quantity - free, D(0))


@given(st.lists(st.integers(0, 5000), max_size=12), st.integers(0, 9), st.integers(0, 20000), st.integers(0, 99))
def test_event_by_event_agrees_with_the_sum_where_both_can_speak(
    values: list[int], fee: int, free: int, tenths: int
) -> None:
    percent = D(tenths) / 10
    each = Usage(values=[D(value) for value in values])
    together = Usage(D(sum(values)), events=len(values))
    for rule in (Percentage(percent, D(fee)), Percentage(percent, free_amount=D(free))):
        assert rate(rule, each).exact == rate(rule, together).exact


@given(st.lists(st.integers(0, 300), max_size=10), st.integers(0, 5), st.integers(0, 900))
def test_a_free_part_by_hand(values: list[int], events: int, amount: int) -> None:
    """Cents laid end to end: those before the amount, and before the end of the last free event, are free."""
    rule = Percentage(D(10), free_events=events, free_amount=D(amount))
    limits = [sum(values[:events])] if events else []
    limits += [amount] if amount else []
    free = min([*limits, sum(values)]) if limits else 0
    assert rate(rule, Usage(values=[D(value) for value in values])).exact == Fraction(sum(values) - free, 10)


# -- a period


@st.composite
def periods(draw: st.DrawFn) -> tuple[list[Item], list[Discount], Commitment | None]:
    items = []
    for number in range(draw(st.integers(1, 5))):
        if draw(st.booleans()):
            low, high = sorted((draw(quantities), draw(quantities)))
            rule = ChargeRule(
                draw(models),
                minimum=draw(st.none() | st.just(low)),
                maximum=draw(st.none() | st.just(high)),
            )
            items.append(Item(str(number), rule=rule, usage=Usage(draw(quantities))))
        else:
            items.append(Item(str(number), kind="fee", rule=FeeRule(draw(prices), D(draw(st.integers(0, 5))))))
    some = st.builds(
        Discount, percent=st.integers(0, 100).map(D), on=st.sampled_from(["all", "usage", "fee"])
    ) | st.builds(Discount, amount=prices)
    return items, draw(st.lists(some, max_size=3)), draw(st.none() | st.builds(Commitment, prices))


@given(periods(), st.sampled_from(["line", "invoice"]), st.fractions(0, 1, max_denominator=31))
def test_a_period_keeps_its_promises(
    given_period: tuple[list[Item], list[Discount], Commitment | None], rounding: str, part: Fraction
) -> None:
    items, discounts, commitment = given_period
    how = Conventions(rounding=rounding)
    lines = rate_period(items, discounts=discounts, commitment=commitment, conventions=how, fraction=part)
    for item, line in zip(items, lines, strict=False):
        assert line.exact >= 0
        assert line.key == item.key
        assert abs(line.exact - Fraction(line.amount)) < 1
        rule = item.rule
        if isinstance(rule, ChargeRule):
            if rule.maximum is not None:
                assert line.exact <= rule.maximum
            if rule.minimum is not None:
                assert line.exact >= Fraction(rule.minimum) * part
        took = sum((Fraction(one["took"]) for one in line.explanation.get("discounts", [])), Fraction(0))
        assert to_decimal(took) == line.discount
    if rounding == "invoice":
        exact = sum((line.exact for line in lines), Fraction(0))
        assert sum(line.amount for line in lines) == round_fraction(exact)
    if commitment is not None:
        spent = sum(line.amount for line in lines if line.kind in ("usage", "commitment"))
        assert spent >= round_fraction(Fraction(commitment.amount or 0) * part) - len(lines) * (rounding == "invoice")
    again = rate_period(items, discounts=discounts, commitment=commitment, conventions=how, fraction=part)
    assert again == lines


@given(st.lists(prices, min_size=1, max_size=6), prices)
def test_a_discount_is_conserved(found: list[Decimal], amount: Decimal) -> None:
    items = [Item(str(n), kind="fee", rule=FeeRule(one)) for n, one in enumerate(found)]
    lines = rate_period(items, discounts=[Discount(amount=amount)])
    assert sum(line.discount for line in lines) == min(amount, sum(found))
    assert all(line.exact >= 0 for line in lines)


# -- spreading and rounding


weights = st.lists(st.integers(0, 10**6) | st.fractions(0, 1000, max_denominator=97), min_size=1, max_size=9)


@given(st.decimals(-(10**6), 10**6, places=2), weights)
def test_what_is_spread_is_conserved(total: Decimal, found: list[Any]) -> None:
    shares = spread(total, found)
    assert sum(shares) == total
    whole = sum((Fraction(one) for one in found), Fraction(0))
    for share, weight in zip(shares, found, strict=True):
        ideal = Fraction(total) * Fraction(weight) / whole if whole else Fraction(total) / len(found)
        assert abs(Fraction(share) - ideal) <= 1
        assert share * total >= 0
        if whole and not weight:
            assert share == 0


@pytest.mark.parametrize(
    ("total", "found", "shares"),
    [
        ("100", [1, 1, 1], ["34", "33", "33"]),
        ("-100", [1, 1, 1], ["-34", "-33", "-33"]),
        ("101", [1, 1, 1], ["34", "34", "33"]),
        ("1", [1, 1], ["1", "0"]),
        ("1", [1, 2], ["0", "1"]),
        ("0", [1, 2], ["0", "0"]),
        ("7", [0, 0], ["4", "3"]),
        ("7", [0, 5, 0], ["0", "7", "0"]),
        ("1.5", [1, 1], ["1", "0.5"]),
        ("10", [D("0.5"), Fraction(1, 3), 1], ["3", "2", "5"]),  # 30/11, 20/11, 60/11
        ("0", [], []),
    ],
)
def test_spreading(total: str, found: list[Any], shares: list[str]) -> None:
    assert spread(D(total), found) == [D(share) for share in shares]


def test_something_cannot_be_spread_over_nothing() -> None:
    with pytest.raises(ValueError, match="5 cannot be spread over nothing"):
        spread(D(5), [])


@given(st.lists(st.fractions(0, 500, max_denominator=60), max_size=7), st.fractions(0, 4000, max_denominator=60))
def test_spreading_below_fills_no_line_above_its_room(room: list[Fraction], amount: Fraction) -> None:
    for method in ("largest_remainder", "largest_amount", "in_order", "exact"):
        shares = spread_below(room, amount, method)
        assert sum(shares, Fraction(0)) == min(amount, sum(room, Fraction(0)))
        assert all(0 <= share <= one for share, one in zip(shares, room, strict=True))


@given(st.lists(st.fractions(-500, 500, max_denominator=60), max_size=9), st.sampled_from(ROUNDING_MODES))
def test_rounded_together_they_add_up(exact: list[Fraction], mode: str) -> None:
    printed = round_together(exact, mode)
    assert sum(printed, D(0)) == round_fraction(sum(exact, Fraction(0)), mode)
    assert all(abs(Fraction(one) - other) < 1 for one, other in zip(printed, exact, strict=True))


@given(st.fractions(-1000, 1000, max_denominator=64))
def test_rounding_agrees_with_the_decimal_module(number: Fraction) -> None:
    for mode in ROUNDING_MODES:
        assert round_fraction(number, mode) == to_decimal(number).quantize(D(1), rounding=f"ROUND_{mode.upper()}")


def test_a_rounding_nobody_knows_is_refused() -> None:
    with pytest.raises(ValueError, match="Unknown rounding mode 'nearest'"):
        round_fraction(Fraction(1, 2), "nearest")


@given(st.fractions(max_denominator=10**6))
def test_a_decimal_is_exact_where_the_fraction_ends(number: Fraction) -> None:
    decimal = to_decimal(number)
    if ends(number):
        assert Fraction(decimal) == number
    else:
        assert abs(Fraction(decimal) - number) <= Fraction(1, 2 * 10**20)
        assert len(plain(decimal).partition(".")[2]) <= 20


# -- the lines themselves


@given(models, quantities, st.sampled_from(["USD", "JPY", "KWD"]))
def test_every_line_has_a_sentence_that_ends_with_its_amount(model: Model, quantity: Decimal, currency: str) -> None:
    line = rate(ChargeRule(model, free_units=D(3), discounts=(Discount(percent=D(5)),), minimum=D(2)), quantity)
    assert line.explanation["model"]
    sentence = explain(line, unit="calls", currency=currency)
    assert sentence.startswith(f"{_units(line)} calls")


def _units(line: RatedLine) -> str:
    whole, _, rest = plain(line.quantity).partition(".")
    return f"{int(whole):,}" + (f".{rest}" if rest else "")


@given(models, quantities, st.sampled_from(["JPY", "USD", "KWD"]))
def test_major_units_say_the_same(model: Model, quantity: Decimal, currency: str) -> None:
    digits = {"JPY": 0, "USD": 2, "KWD": 3}[currency]
    rule = rule_to_data(ChargeRule(model))
    in_minor = price({"rule": rule, "usage": quantity, "currency": currency})
    in_major = price({"rule": _major(rule, digits), "usage": quantity, "currency": currency, "amounts": "major"})
    for name in ("amount", "exact", "total"):
        assert Fraction(in_major[name]) * 10**digits == Fraction(in_minor[name])
    assert in_major["lines"][0]["text"] == in_minor["lines"][0]["text"]


def _major(rule: Any, digits: int) -> Any:
    """The rule with its money in major units."""
    if isinstance(rule, dict):
        found = {key: _major(value, digits) for key, value in rule.items()}
        for name in ("unit_price", "flat_fee", "price"):
            if isinstance(found.get(name), str):
                found[name] = D(found[name]).scaleb(-digits)
        if rule.get("model") == "percentage":
            found["unit_value"] = D(rule.get("unit_value", "1")).scaleb(-digits)
        return found
    if isinstance(rule, list):
        return [_major(value, digits) for value in rule]
    return rule
