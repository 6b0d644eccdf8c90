"""From a quantity to an amount: the worked examples of the contract, and both sides of every edge."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.pricing import ChargeRule, Conventions, PerUnit, RatedLine, Usage, explain, rate, rate_fee, waive

D = Decimal


def rate_per_unit(*, quantity: Decimal, free_units: Decimal, price_per_unit: Decimal) -> RatedLine:
    """The contract's price: each unit beyond the free ones, and nothing below zero."""
    rule = ChargeRule(PerUnit(price_per_unit), free_units=free_units)
    return rate(rule, Usage(quantity), conventions=Conventions(below_zero="free"))


@pytest.mark.parametrize(
    ("quantity", "free", "price", "billable", "exact", "amount"),
    [
        # quantity, free, price per unit in cents -> chargeable units, exact cents, cents
        ("2500", "1000", "2", "1500", "3000", "3000"),
        ("15000", "1000", "0.1", "14000", "1400", "1400"),
        ("50000", "10000", "0.001", "40000", "40", "40"),
        ("100", "10", "5", "90", "450", "450"),
        ("25", "10", "5", "15", "75", "75"),
        ("250", "100", "50", "150", "7500", "7500"),
        ("1000", "0", "50", "1000", "50000", "50000"),
        ("5000", "0", "1", "5000", "5000", "5000"),
        ("25000", "10000", "0.5", "15000", "7500", "7500"),
        ("8000", "10000", "0.5", "0", "0", "0"),
        ("15420", "0", "0.5", "15420", "7710", "7710"),
        ("80", "50", "200", "30", "6000", "6000"),
        ("150000", "50000", "0.01", "100000", "1000", "1000"),
        ("400000", "0", "0.002", "400000", "800", "800"),
        ("8", "0", "0.14", "8", "1.12", "1"),
        ("3", "0", "0.115", "3", "0.345", "0"),
        ("15", "0", "0.0225", "15", "0.3375", "0"),
        # the edges of the threshold
        ("0", "1000", "2", "0", "0", "0"),
        ("999", "1000", "2", "0", "0", "0"),
        ("1000", "1000", "2", "0", "0", "0"),
        ("1000.000000001", "1000", "2", "0.000000001", "0.000000002", "0"),
        ("1001", "1000", "2", "1", "2", "2"),
        ("-5", "0", "2", "0", "0", "0"),
        ("-5", "1000", "2", "0", "0", "0"),
        # half a cent is a cent
        ("1", "0", "0.5", "1", "0.5", "1"),
        ("1", "0", "0.499999999999", "1", "0.499999999999", "0"),
        # extremes
        ("13107200000", "13107200000", "1", "0", "0", "0"),
        ("13107200001", "13107200000", "1", "1", "1", "1"),
        ("1", "0", "99999.999999999999", "1", "99999.999999999999", "100000"),
        ("1", "0", "0.000000000001", "1", "0.000000000001", "0"),
        ("9223372036854775807", "9223372036854775806", "99999.999999999999", "1", "99999.999999999999", "100000"),
    ],
)
def test_units_beyond_the_free_ones_cost_their_price(
    quantity: str, free: str, price: str, billable: str, exact: str, amount: str
) -> None:
    line = rate_per_unit(quantity=D(quantity), free_units=D(free), price_per_unit=D(price))
    assert (line.quantity, line.free_units, line.unit_price) == (D(quantity), D(free), D(price))
    assert (line.billable_units, line.exact_amount, line.amount) == (D(billable), D(exact), D(amount))


quantities = st.decimals(min_value=0, max_value=10**15, places=6)
prices = st.decimals(min_value=D("0.000000000001"), max_value=D("99999"), places=12)


@given(quantities, quantities, st.integers(0, 2**63 - 1), prices)
def test_more_usage_never_costs_less(a: Decimal, b: Decimal, free: int, price: Decimal) -> None:
    less, more = sorted([a, b])
    low = rate_per_unit(quantity=less, free_units=D(free), price_per_unit=price)
    high = rate_per_unit(quantity=more, free_units=D(free), price_per_unit=price)
    assert low.amount <= high.amount
    assert low.exact_amount <= high.exact_amount


@given(quantities, st.integers(0, 10**12), prices)
def test_the_explanation_says_what_was_computed(quantity: Decimal, free: int, price: Decimal) -> None:
    line = rate_per_unit(quantity=quantity, free_units=D(free), price_per_unit=price)
    told = line.explanation
    assert D(told["exact_amount"]) == line.exact_amount
    assert Fraction(told["billable_units"]) * Fraction(told["unit_price"]) == Fraction(told["exact_amount"])
    assert D(told["amount"]) == line.amount
    assert abs(line.amount - line.exact_amount) <= D("0.5")


def test_a_fee_counts_its_seats() -> None:
    line = rate_fee(quantity=D(3), fee=D(4900))
    assert (line.quantity, line.billable_units, line.amount) == (D(3), D(3), D(14700))


def test_a_waived_line_keeps_its_quantity_and_its_reason() -> None:
    line = waive(rate_per_unit(quantity=D(7), free_units=D(0), price_per_unit=D(2)), because="free during the trial")
    assert (line.quantity, line.billable_units, line.amount) == (D(7), D(0), D(0))
    assert line.explanation["waived"] == "free during the trial"
    assert explain(line, unit="calls", currency="USD") == "7 calls, free during the trial: $0.00"


@pytest.mark.parametrize(
    ("quantity", "free", "price", "unit", "sentence"),
    [
        ("2500", "1000", "2", "calls", "2,500 calls − 1,000 free = 1,500 × $0.02 = $30.00"),
        ("8", "0", "0.14", "seconds", "8 seconds × $0.0014 = $0.0112, rounded = $0.01"),
        ("800", "1000", "2", "calls", "800 calls, all within the 1,000 free: $0.00"),
        ("0", "1000", "2", "calls", "0 calls: $0.00"),
        ("-2", "0", "2", "", "-2: $0.00"),
    ],
)
def test_a_line_explains_itself_in_one_sentence(quantity: str, free: str, price: str, unit: str, sentence: str) -> None:
    line = rate_per_unit(quantity=D(quantity), free_units=D(free), price_per_unit=D(price))
    assert explain(line, unit=unit, currency="USD") == sentence
