"""The documented entry: plain data in, plain data out; and the sentences that it gives with each line."""

import json
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from billing.pricing import ChargeRule, PerUnit, PricingInvalid, explain, price, rate, rate_fee, rule_from_data, waive

D = Decimal
TIERS = [{"up_to": 10, "unit_price": 5, "flat_fee": 100}, {"up_to": None, "unit_price": 3}]
GRADUATED = {"model": "graduated", "tiers": TIERS}


def test_everything_of_one_charge() -> None:
    result = price({"rule": {**GRADUATED, "free_units": 1}, "usage": "12.5", "unit": "calls", "taxes": "19"})
    line = result["lines"][0]
    explanation = line.pop("explanation")
    assert explanation["tiers"][1]["units"] == "1.5"
    assert line == {
        "key": "1",
        "kind": "usage",
        "quantity": "12.5",
        "free_units": "1",
        "billable_units": "11.5",
        "unit_price": None,
        "effective_unit_price": "12.36",  # 154.5 / 12.5
        "discount": "0",
        "exact": "154.5",
        "exact_amount": "154.5",
        "amount": "155",
        "credit": "0",
        "net": "155",
        "tax": "29",  # 29.45
        "taxes": [{"name": "Tax", "percent": "19", "on": "155", "amount": "29"}],
        "total": "184",
        "text": "12.5 calls − 1 free = 11.5, 10 × $0.05 + $1.00 + 1.5 × $0.03 = $1.545, rounded = $1.55",
    }
    assert {name: result[name] for name in ("amount", "exact", "credit", "net", "tax", "total", "fraction")} == {
        "amount": "155",
        "exact": "154.5",
        "credit": "0",
        "net": "155",
        "tax": "29",
        "total": "184",
        "fraction": "1",
    }
    assert (result["currency"], result["amounts"], result["credits"]) == ("USD", "minor", [])
    assert result["taxes"] == [{"name": "Tax", "percent": "19", "on": "155", "amount": "29"}]


def test_what_comes_out_is_json_and_what_went_in_is_not_changed() -> None:
    data = {
        "items": [
            {"key": "a", "rule": GRADUATED, "usage": {"quantity": "3", "events": 2}},
            {"key": "b", "fee": {"amount": 5, "discounts": [{"percent": 10}]}, "taxes": [], "tax_reason": "Exempt"},
        ],
        "discounts": [{"amount": 3}],
        "commitment": {"amount": 500},
        "credits": [{"amount": 7, "expires_at": "2027-01-01"}],
        "at": "2026-01-01T00:00:00Z",
        "taxes": [{"name": "VAT", "percent": "19"}],
        "fraction": "1/3",
    }
    before = json.dumps(data)
    result = price(data)
    assert json.loads(json.dumps(result)) == result
    assert json.dumps(data) == before
    assert price(json.loads(before)) == result


def test_numbers_may_come_in_any_exact_kind() -> None:
    for quantity in ("7.5", D("7.50"), Fraction(15, 2), "15/2", " 7.5 ", "75e-1"):
        assert price({"rule": {"model": "per_unit", "unit_price": 2}, "usage": quantity})["amount"] == "15"
    assert price({"rule": {"model": "per_unit", "unit_price": 3}, "usage": "1/3"})["exact"] == "1"
    assert price({"rule": {"model": "per_unit", "unit_price": 1}, "usage": "1/3"})["exact"] == "1/3"


@pytest.mark.parametrize(
    ("currency", "fee", "amount", "exact"),
    [("USD", "1.005", "1.01", "1.005"), ("JPY", "100.5", "101", "100.5"), ("KWD", "1.0005", "1.001", "1.0005")],
)
def test_major_units_are_rounded_to_the_currencys_digits(currency: str, fee: str, amount: str, exact: str) -> None:
    result = price({"amounts": "major", "currency": currency, "fee": fee})
    assert (result["amount"], result["exact_amount"], result["total"]) == (amount, exact, amount)


def test_in_major_units_every_amount_is_major() -> None:
    result = price(
        {
            "amounts": "major",
            "items": [
                {
                    "rule": {
                        "model": "graduated",
                        "tiers": [{"up_to": 10, "unit_price": "0.5", "flat_fee": 1, "maximum": 4}, {"percent": 10}],
                        "discounts": [{"amount": "0.25", "at_most": "0.2"}],
                        "maximum": 50,
                        "minimum": 1,
                        "commitment": {"amount": 9},
                    },
                    "usage": 12,
                },
                {"fee": {"amount": "2.5", "quantity": 2}},
                {"amount": "1.25"},
            ],
            "commitment": {"amount": 20, "covers": "all"},
            "credits": [{"amount": "1.5"}],
        }
    )
    # 10 x 0.50 is at most 4, + 1, + 10 % of 2 = 5.20 - 0.20 = 5.00, up to 9; 5.00; 1.25; up to 20
    assert [line["amount"] for line in result["lines"]] == ["9", "5", "1.25", "4.75"]
    assert (result["amount"], result["credit"], result["total"]) == ("20", "1.5", "18.5")
    told = result["lines"][0]["explanation"]
    assert [(tier["amount"], tier["flat_fee"]) for tier in told["tiers"]] == [("4", "1"), ("0.2", "0")]
    assert told["discounts"][0]["took"] == "0.2"
    assert told["maximum"] == {"amount": "50", "took": "0"}
    assert told["commitment"]["added"] == "4"
    assert result["lines"][3]["explanation"]["commitment"]["spent"] == "15.25"


def test_each_item_may_have_its_own_tax_and_the_others_take_the_common_one() -> None:
    items = [
        {"key": "a", "amount": 100},
        {"key": "b", "amount": 100, "taxes": 7},
        {"key": "c", "amount": 119, "tax_inclusive": True},
        {"key": "d", "amount": 100, "taxes": [], "tax_reason": "Reverse charge"},
    ]
    result = price({"items": items, "taxes": 19})
    assert [line["tax"] for line in result["lines"]] == ["19", "7", "19", "0"]
    assert result["total"] == "445"  # 119 + 107 + 119 + 100


@pytest.mark.parametrize(
    ("said", "exact"),
    [
        ("1/2", "1550"),
        (D("0.5"), "1550"),
        ({"part": ["2026-01-10", "2026-02-01"], "whole": ["2026-01-01", "2026-02-01"]}, "2200"),
        ({"part": {"start": "2026-01-10", "end": "2026-02-01"}, "whole": ["2026-01-01", "2026-02-01"]}, "2200"),
        ({"part": ["2026-01-10", "2026-02-01"], "periods": {"interval": "Month", "anchor": "2025-12-01"}}, "2200"),
        ({"part": ["2026-01-10T12:00", "2026-02-01"], "whole": ["2026-01-01", "2026-02-01"]}, "2150"),
        ({"part": ["2026-01-10T12:00", "2026-02-01"], "whole": ["2026-01-01", "2026-02-01"], "by": "day"}, "2200"),
    ],
)
def test_a_fraction_may_be_said_in_many_ways(said: Any, exact: str) -> None:
    assert price({"fee": 3100, "fraction": said})["exact"] == exact
    assert price({"items": [{"fee": 3100, "fraction": said}]})["exact"] == exact


def test_spans_of_time_follow_the_conventions() -> None:
    part = {"part": ["2026-01-10T12:00", "2026-01-20T12:00"], "whole": ["2026-01-01", "2026-02-01"]}
    for conventions, exact in (
        ({}, "1000"),
        ({"proration": "day"}, "1000"),
        ({"proration": "day", "charge_last_day": True}, "1100"),
        ({"charge_last_day": True}, "1050"),
    ):
        assert price({"fee": 3100, "fraction": part, "conventions": conventions})["exact"] == exact


def test_what_was_applied_is_answered() -> None:
    result = price({"fee": 1, "conventions": {"rounding_mode": "up"}})
    assert result["conventions"]["rounding_mode"] == "up"
    assert result["conventions"]["tier_bound"] == "inclusive"


@pytest.mark.parametrize(
    ("rule", "usage", "sentence"),
    [
        (GRADUATED, "0", "0 calls: $0.00"),
        (GRADUATED, "12", "12 calls, 10 × $0.05 + $1.00 + 2 × $0.03 = $1.56"),
        ({**GRADUATED, "free_units": 20}, "12", "12 calls, all within the 20 free: $0.00"),
        ({**GRADUATED, "model": "volume"}, "12", "12 calls, 12 × $0.03 = $0.36"),
        (
            {"model": "package", "price": 500, "size": 1000, "free_units": 100},
            "1500",
            "1,500 calls − 100 free = 1,400, 2 × $5.00 per 1,000 = $10.00",
        ),
        (
            {"model": "percentage", "percent": "2.9", "fixed_fee": 30},
            {"quantity": 10000, "events": 3},
            "10,000 calls, 2.9 % of 10,000 + 3 × $0.30 = $3.80",
        ),
        ({"model": "flat", "amount": 900}, "5", "5 calls, $9.00 flat = $9.00"),
        (
            {"model": "per_unit", "unit_price": 10, "discounts": [{"percent": 10, "name": "launch"}], "minimum": 500},
            "5",
            "5 calls, 5 × $0.10 − $0.05 (launch 10 %), at least $5.00 = $5.00",
        ),
        ({"model": "per_unit", "unit_price": 10, "maximum": 30}, "5", "5 calls, 5 × $0.10, at most $0.30 = $0.30"),
        (
            {"model": "per_unit", "unit_price": 3, "unit_size": 1024, "unit_rounding": "up"},
            "1025",
            "1,025 calls (2 of 1,024), 2 × $0.03 = $0.06",
        ),
        (
            {"model": "by_dimension", "keys": ["region"], "prices": {"eu": 5}},
            {"by_value": {"eu": 3, "us": 4}},
            "7 calls, eu: $0.15, us: 4 without a price = $0.15",
        ),
        (
            {"model": "graduated", "tiers": [{"percent": 3, "unit_price": 1}]},
            "100",
            "100 calls, 3 % of 100 and 100 × $0.01 = $1.03",
        ),
        ({"model": "per_unit", "unit_price": "1/8"}, "3", "3 calls × $0.00125 = $0.00375, rounded = $0.00"),
        ({"model": "per_unit", "unit_price": 3}, "1/3", "0.33333333333333333333 calls × $0.03 = $0.01"),
        ({"model": "per_unit", "unit_price": 2}, "-3", "-3 calls × $0.02 = -$0.06"),
    ],
)
def test_a_line_says_in_words_what_it_costs(rule: dict[str, Any], usage: Any, sentence: str) -> None:
    assert price({"rule": rule, "usage": usage, "unit": "calls"})["lines"][0]["text"] == sentence


def test_fees_and_commitments_in_words() -> None:
    def text(**data: Any) -> str:
        found: str = price(data)["lines"][-1]["text"]
        return found

    assert text(fee=4900) == "$49.00"
    assert text(fee={"amount": 4900, "quantity": 3}) == "3 × $49.00 = $147.00"
    assert text(fee=3100, fraction="16/31") == "$31.00 × 16/31 of the period = $16.00"
    assert text(fee={"amount": 1000, "discounts": [{"amount": 100}]}) == "$10.00 − $1.00 (discount) = $9.00"
    assert text(items=[], commitment={"amount": 500}) == "$5.00 committed − $0.00 = $5.00"
    used = {"rule": {"model": "per_unit", "unit_price": 1}, "usage": 700}
    assert text(items=[used], commitment={"amount": 500, "overage_factor": 2}) == (
        "$7.00 − $5.00 committed, the rest at 2 times its price: $2.00 more"
    )
    committed = {"model": "per_unit", "unit_price": 1, "commitment": {"amount": 500, "overage_factor": 2}}
    assert text(rule=committed, usage=400) == "400, 400 × $0.01, up to the $5.00 committed = $5.00"
    assert text(rule=committed, usage=700) == "700, 700 × $0.01, above $5.00 at 2 times the price = $9.00"
    assert text(rule=GRADUATED, usage={"quantity": 4, "before": 8}) == (
        "4, 10 × $0.05 + $1.00 + 2 × $0.03 − $1.40 billed before = $0.16"
    )


def test_other_languages_and_currencies() -> None:
    line = rate(ChargeRule(PerUnit(D("0.5"))), "1500")
    assert explain(line, unit="Anrufe", currency="EUR", locale="de") == "1.500 Anrufe × 0,005\xa0€ = 7,50\xa0€"
    result = price({"rule": GRADUATED, "usage": 12, "currency": "JPY"})
    assert result["lines"][0]["text"] == "12, 10 × ¥5 + ¥100 + 2 × ¥3 = ¥156"


def test_values_that_are_priced_one_by_one_have_no_common_unit_price_in_their_sentence() -> None:
    per_unit = {"model": "per_unit", "unit_price": 1, "each": True, "limits_each": True, "minimum": 100, "maximum": 500}
    usage = {"values": ["10.5", "1000", "333.33", "2500"]}
    assert price({"rule": per_unit, "usage": usage})["lines"][0]["text"] == (
        # 100 + 500 + 333.33 + 500
        "3,843.83, 4 values, each priced by itself = $14.3333, rounded = $14.33"
    )


def test_a_waived_line_in_words() -> None:
    line = waive(rate(rule_from_data(GRADUATED), "12"), because="free during the trial")
    assert explain(line, unit="calls", currency="USD") == "12 calls, free during the trial: $0.00"
    free_seats = waive(rate_fee(quantity=D(3), fee=D(100)), because="on the house")
    assert explain(free_seats, unit="", currency="USD") == "3, on the house: $0.00"


@pytest.mark.parametrize(
    ("digits", "amount", "credit", "tax", "total"),
    [
        # 100 / 3 = 33.3333..., 10 of credit, 19 %
        (None, "33.33", "10", "4.43", "27.76"),
        (2, "33.33", "10", "4.43", "27.76"),
        (0, "33", "10", "4", "27"),
        (4, "33.3333", "10", "4.4333", "27.7666"),
        (12, "33.333333333333", "10", "4.433333333333", "27.766666666666"),
    ],
)
def test_amounts_may_be_rounded_to_other_digits(
    digits: int | None, amount: str, credit: str, tax: str, total: str
) -> None:
    data = {"fee": 100, "fraction": "1/3", "credits": [10], "taxes": "19", "amounts": "major", "round_to": digits}
    result = price(data)
    assert (result["amount"], result["credit"], result["tax"], result["total"]) == (amount, credit, tax, total)
    assert result["exact"] == "100/3"
    in_cents = price({**data, "amounts": "minor", "fee": 10000, "credits": [1000]})
    assert [D(in_cents[name]) / 100 for name in ("amount", "credit", "tax", "total")] == [
        D(one) for one in (amount, credit, tax, total)
    ]
    assert in_cents["lines"][0]["text"] == result["lines"][0]["text"]


@pytest.mark.parametrize("digits", [-1, "1.5", 21, True, 0.5])
def test_digits_are_a_small_count(digits: Any) -> None:
    with pytest.raises(PricingInvalid):
        price({"fee": 1, "round_to": digits})
