"""A line's stored explanation in words: every model's own parts, and nothing that was written stays hidden."""

from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from billing.models import InvoiceLine
from billing.pricing import (
    ByDimension,
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
    RatedLine,
    Tier,
    Usage,
    explain,
    rate,
    rate_fee,
    rate_period,
)
from billing.reckonings import Reckoning, reckonings
from tests.written import Row, written

D = Decimal
pytestmark = pytest.mark.django_db
TIERS = (Tier(D(10), D(5), D(100)), Tier(None, D(3)))


def of(rated: RatedLine, **row: Any) -> Reckoning:
    """The reckoning of an invoice line that carries this rated line."""
    explanation = {**rated.explanation, "text": explain(rated, unit="calls", currency="USD")}
    more = {
        "quantity": rated.quantity,
        "free_units": rated.free_units,
        "billable_units": rated.billable_units,
        "unit_price": rated.unit_price,
        "exact_amount": rated.exact_amount,
        "measurement_unit": "calls",
        "explanation": explanation,
    }
    invoice = written(Row(int(rated.amount), more=more, **row), status="draft")
    (found,) = reckonings(InvoiceLine.objects.filter(invoice=invoice), currency="USD")
    return found


def test_graduated_tiers_are_a_table_and_the_bounds_are_steps() -> None:
    rule = ChargeRule(
        price=Graduated(TIERS),
        free_units=D(2),
        discounts=(Discount(percent=D(10), name="Launch"),),
        maximum=D(10_000),
        minimum=D(500),
    )
    found = of(rate(rule, Usage(D("25.5"))))
    assert found.steps == (
        ("Quantity", "25.5 calls"),
        ("Free", "2"),
        ("Chargeable", "23.5"),
        ("Model", "Graduated: each unit at the price of its tier"),
        ("Price before discount and bounds", "$1.905"),  # 10 × 5 + 100 + 13.5 × 3 = 190.5 cents
        ("Launch 10 %", "-$0.1905"),
        ("At most $100.00", "did not apply"),
        ("At least $5.00", "$3.2855"),
        ("Exactly", "$5.00"),
        ("Rounded once, half up", "$5.00"),
        ("Tax", "No tax rate for US"),
    )
    (tiers,) = found.tables
    assert (tiers.caption, tiers.columns, tiers.rows) == (
        "Tiers used",
        ("Tier", "From", "Up to", "Units", "Price", "Flat fee", "Amount"),
        (
            ("1", "0", "10", "10", "$0.05", "$1.00", "$0.50"),
            ("2", "10", "and more", "13.5", "$0.03", "–", "$0.405"),
        ),
    )
    assert found.conventions == ("A tier's upper bound belongs to it",)
    assert found.text.endswith("at least $5.00 = $5.00")


def test_every_value_of_a_dimension_has_a_row_and_its_own_tiers() -> None:
    price = ByDimension(keys=("region",), prices={"eu": PerUnit(D(5)), "us": Graduated(TIERS)})
    usage = Usage(D(40), by_value={"eu": Usage(D(10)), "us": Usage(D(20)), "as": Usage(D(10))})
    values, tiers = of(rate(ChargeRule(price=price), usage)).tables
    assert (values.caption, values.rows) == (
        "By region",
        (
            ("eu", "10", "0", "10", "$0.05", "$0.50"),
            ("us", "20", "0", "20", "Graduated", "$1.80"),
            ("as", "10", "–", "–", "no price", "–"),
        ),
    )
    assert (tiers.caption, len(tiers.rows)) == ("Tiers used of us", 2)


@pytest.mark.parametrize(
    ("rule", "usage", "steps"),
    [
        (
            ChargeRule(price=Package(size=D(10), price=D(7)), free_units=D(3)),
            Usage(D(25)),
            {"Packages": "3 of 10 at $0.07, rounded up"},
        ),
        (
            ChargeRule(price=Percentage(percent=D("2.9"), fixed_fee=D(30), free_events=1)),
            Usage(D(2500), events=3, values=[D(1000), D(500), D(1000)]),
            {"2.9 % of 1,500, 1,000 free": "$0.435", "2 events at $0.30 after 1 free": "$0.60"},
        ),
        (ChargeRule(price=PerUnit(D("0.5"))), Usage(D(4001)), {"Price per unit": "$0.005", "Exactly": "$20.005"}),
    ],
)
def test_each_model_tells_its_own_parts(rule: ChargeRule, usage: Usage, steps: dict[str, str]) -> None:
    said = dict(of(rate(rule, usage)).steps)
    assert {name: said.get(name) for name in steps} == steps


def test_a_part_of_a_period_and_an_endless_fraction_are_said() -> None:
    said = dict(of(rate(ChargeRule(price=Flat(D(5000))), Usage(D(4)), fraction=Fraction(14, 31))).steps)
    assert said["Part of the period"] == "14/31"
    assert said["Flat amount"] == "$22.58064516"
    assert said["Exactly"] == "$22.5806451612903225806452 (70000/31 in the minor unit)"
    said = dict(of(rate_fee(FeeRule(D(4900), quantity=D(2)), fraction=Fraction(3, 7))).steps)
    assert (said["Price per unit"], said["Part of the period"], said["Exactly"]) == ("$49.00", "3/7", "$42.00")


def test_a_commitment_and_discounts_of_a_period_are_said() -> None:
    items = [Item("a", "usage", rule=ChargeRule(price=PerUnit(D(2))), usage=Usage(D(100)))]
    usage, commitment = rate_period(
        items, discounts=(Discount(percent=D(10), name="Loyal"),), commitment=Commitment(amount=D(1000))
    )
    assert ("Loyal 10 %", "-$0.20") in of(usage).steps
    said = dict(of(commitment).steps)
    assert said["Committed to $10.00"] == "spent $1.80"
    assert said["Added up to the commitment"] == "$8.20"


def test_conventions_that_applied_are_named() -> None:
    rule = ChargeRule(price=Graduated(TIERS))
    conventions = Conventions(tier_bound="exclusive", first_tier_fee_at_zero=True)
    assert of(rate(rule, Usage(D(0)), conventions=conventions)).conventions == (
        "A tier's upper bound belongs to the next tier",
        "The first tier's flat fee is charged without usage too",
    )


def test_an_adjustment_shows_both_sides() -> None:
    should = rate(ChargeRule(price=Graduated(TIERS)), Usage(D(12)))
    explanation = {
        "model": "adjustment",
        "should_quantity": "12",
        "should_amount": "156",
        "should": should.explanation,
        "billed_quantity": "10",
        "billed_amount": "150",
        "amount": "6",
        "text": "12 calls by now",
    }
    more = {"quantity": D(2), "billable_units": D(2), "measurement_unit": "calls", "explanation": explanation}
    invoice = written(Row(6, kind="adjustment", more={**more, "unit_price": None}), status="draft")
    (found,) = reckonings(invoice.lines.all(), currency="USD")
    said = dict(found.steps)
    assert said["By now"] == "12 calls"
    assert said["By now: model"] == "Graduated: each unit at the price of its tier"
    assert (said["By now it costs"], said["Billed so far, 10 calls"]) == ("$1.56", "$1.50")
    assert [table.caption for table in found.tables] == ["Tiers used of what it should have cost"]


def test_a_part_without_words_is_shown_by_its_own_name() -> None:
    explanation = {"new_part": {"inner_thing": "7", "deep": {"er": 1}}, "a_list": ["x", "y"], "on": True, "off": None}
    invoice = written(Row(6, more={"explanation": explanation}), status="draft")
    said = dict(reckonings(invoice.lines.all(), currency="USD")[0].steps)
    assert {name: said[name] for name in ("New part: inner thing", "New part: deep: er", "A list", "On", "Off")} == {
        "New part: inner thing": "7",
        "New part: deep: er": "1",
        "A list": "x, y",
        "On": "yes",
        "Off": "–",
    }


@pytest.mark.parametrize(
    "explanation",
    [
        {},
        {"text": "a line of before the parts were kept"},
        {"tiers": [{}], "values": [{}], "discounts": [{}], "packages": {}, "events": {}, "percentage": {}, "flat": {}},
        {"commitment": {}, "minimum": {}, "maximum": {"amount": "x"}, "conventions": {"unheard_of": "thing"}},
        {"tiers": None, "discounts": None, "should": {}, "exact": "1/3"},
    ],
)
def test_an_odd_explanation_breaks_no_page(explanation: dict[str, Any]) -> None:
    invoice = written(Row(6, more={"explanation": explanation}), status="draft")
    (found,) = reckonings(invoice.lines.all(), currency="USD")
    assert found.amount == "$0.06"


def test_credit_and_tax_follow_the_amount_and_the_evidence_is_told() -> None:
    more = {"meter_version": "abc", "watermark": 4711, "events_counted": 2500, "events_digest": "d1gest"}
    invoice = written(Row(10_000, 6_000, 760, more=more), status="draft")
    (found,) = reckonings(invoice.lines.all(), currency="USD")
    assert found.steps[-4:] == (
        ("Prepaid credit", "-$60.00"),
        ("VAT 19 %", "$7.60"),
        ("Tax", "VAT for DE"),
        ("With credit and tax", "$47.60"),
    )
    assert found.evidence == (
        ("Meter version", "abc"),
        ("Events counted", "2,500"),
        ("Event log up to", "4711"),
        ("Digest of the events", "d1gest"),
    )
