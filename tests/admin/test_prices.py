"""Every way of pricing in the admin: typed in major units, kept as a rule, shown in words and drawn, and calculated."""

import re
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from billing.admin import conventions
from billing.admin.charge_rows import KEPT, row_of
from billing.models import Charge, Price, Product
from billing.pricing import ChargeRule, PerUnit, Tier, Volume, rule_from_data
from billing.products import ChargeTerms, charge_rule
from meters.models import Meter
from tests.admin.house import nothing_changes, operator
from tests.admin.test_forms import post_product, typed
from tests.base import call_meter, token_meter, usage_product

pytestmark = pytest.mark.django_db


def rows(name: str, *lines: dict[str, str]) -> dict[str, list[str]]:
    """Rows of one field as a browser sends them."""
    return {f"charges-0-{name}_{column}": [line[column] for line in lines] for column in lines[0]}


def complaints(answer: Any) -> list[str]:
    """What a page says is wrong, for a test that did not expect anything to be."""
    return re.findall(r"mb-errors.*?</ul>|mb-note mb-bad.*?</div>", answer.content.decode(), re.S)


def tier(up_to: str, unit_price: str = "", flat_fee: str = "") -> dict[str, str]:
    return {"up_to": up_to, "unit_price": unit_price, "flat_fee": flat_fee}


def discount(percent: str = "", amount: str = "", name: str = "") -> dict[str, str]:
    return {"percent": percent, "amount": amount, "name": name}


def row(**values: str) -> dict[str, Any]:
    """What is typed in the row of the one meter, beside an empty price per unit and no free units."""
    return {
        "charges-0-price_per_unit": "",
        "charges-0-free_threshold": "0",
        **{f"charges-0-{name}": value for name, value in values.items()},
    }


WAYS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    (
        row(model="per_unit", price_per_unit="0.001", free_threshold="1000", minimum="5"),
        {"model": "per_unit", "unit_price": "0.1", "free_units": "1000", "minimum": "500"},
        "$0.001 per call after 1,000 free, at least $5.00",
    ),
    (
        row(model="graduated") | rows("tiers", tier("100", "0.10"), tier("1000.5", "0.05", "5"), tier("", "0.01")),
        {
            "model": "graduated",
            "tiers": [
                {"up_to": "100", "unit_price": "10", "flat_fee": "0"},
                {"up_to": "1000.5", "unit_price": "5", "flat_fee": "500"},
                {"up_to": None, "unit_price": "1", "flat_fee": "0"},
            ],
        },
        "$0.10 per call up to 100, $5.00 + $0.05 up to 1,000.5, then $0.01",
    ),
    (
        row(model="volume", free_threshold="7") | rows("tiers", tier("100", "0.1"), tier("", "0.05", "2.5")),
        {
            "model": "volume",
            "tiers": [
                {"up_to": "100", "unit_price": "10", "flat_fee": "0"},
                {"up_to": None, "unit_price": "5", "flat_fee": "250"},
            ],
            "free_units": "7",
        },
        "$0.10 per call for all up to 100, $2.50 + $0.05 for all above after 7 free",
    ),
    (
        row(
            model="package",
            package_price="0.40",
            package_size="1000",
            package_rounding="up",
            free_threshold="100000",
            maximum="99.99",
        ),
        {
            "model": "package",
            "price": "40",
            "size": "1000",
            "rounding": "up",
            "free_units": "100000",
            "maximum": "9999",
        },
        "$0.40 per 1,000 calls after 100,000 free, at most $99.99",
    ),
    (
        row(
            model="percentage",
            percent="2.9",
            worth="major",
            fixed_fee="0.30",
            free_events="3",
            free_amount="100",
            event_minimum="0.5",
            event_maximum="10",
        ),
        {
            "model": "percentage",
            "percent": "2.9",
            "fixed_fee": "30",
            "free_events": 3,
            "free_amount": "100",
            "event_minimum": "50",
            "event_maximum": "1000",
            "unit_value": "100",
        },
        "2.9% + $0.30 each (at least $0.50, at most $10.00 an event) after 3 events or $100.00 free",
    ),
    (
        row(model="flat", flat_amount="10", only_when_used="on"),
        {"model": "flat", "amount": "1000", "only_when_used": True},
        "$10.00 flat if used",
    ),
    (
        row(model="by_dimension", dimension="region", default_price="0.03")
        | rows("prices", {"value": "eu", "unit_price": "0.02"}, {"value": "us", "unit_price": "0.015"}),
        {
            "model": "by_dimension",
            "keys": ["region"],
            "prices": [
                {"value": ["eu"], "model": "per_unit", "unit_price": "2"},
                {"value": ["us"], "model": "per_unit", "unit_price": "1.5"},
            ],
            "default": {"model": "per_unit", "unit_price": "3"},
        },
        "by region: eu $0.02 per call, us $0.015 per call, others $0.03 per call",
    ),
    (
        row(model="per_unit", price_per_unit="1")
        | rows("discounts", discount(percent="10", name="Launch"), discount(amount="2.50")),
        {
            "model": "per_unit",
            "unit_price": "100",
            "discounts": [{"percent": "10", "name": "Launch"}, {"amount": "250"}],
        },
        "$1.00 per call, less 10% (Launch), less $2.50",
    ),
]


@pytest.mark.parametrize(("sent", "kept", "sentence"), WAYS, ids=[way[1]["model"] for way in WAYS])
def test_each_way_of_pricing_is_typed_kept_shown_and_typed_again(
    sent: dict[str, Any], kept: dict[str, Any], sentence: str, root: Client
) -> None:
    call_meter(group_by=["region"])
    answer = post_product(root, **sent)
    assert answer.status_code == 302, re.findall(
        r"mb-errors.*?</ul>|mb-note mb-bad.*?</div>", answer.content.decode(), re.S
    )
    charge = Charge.objects.get()
    assert charge.terms == kept
    product = Product.objects.get()
    page = root.get(reverse("admin:billing_product_change", args=[product.pk])).content.decode()
    assert sentence in page.replace("&#x27;", "'")
    assert sentence in root.get(reverse("admin:billing_product_changelist")).content.decode()
    # The form of a new price shows what was typed: sent back unchanged it is the same price.
    url = reverse("admin:billing_product_price", args=[product.pk])
    with nothing_changes("saving a price unchanged"):
        again = root.post(url, {**typed(root.get(url)), "confirm": "1"})
    assert "Nothing differs from the current price." in again.content.decode()


def test_a_plain_price_per_unit_is_kept_in_the_contracts_words_alone(root: Client) -> None:
    assert post_product(root, **row(model="per_unit", price_per_unit="0.02", free_threshold="5")).status_code == 302
    charge = Charge.objects.get()
    assert (charge.price_per_unit, charge.free_threshold, charge.terms) == (Decimal(2), 5, None)


@pytest.mark.parametrize(
    ("sent", "field", "said"),
    [
        (row(model="graduated"), "tiers", "This field is required."),
        (row(model="graduated") | rows("tiers", tier("", "1"), tier("10", "1")), "tiers", "Only the last tier may be"),
        (row(model="volume") | rows("tiers", tier("10", "1"), tier("10", "1")), "tiers", "must rise"),
        (row(model="volume") | rows("tiers", tier("x", "1")), "tiers", "Row 1, up to: Enter a number such as 49"),
        (row(model="volume") | rows("tiers", tier("1e3", "1")), "tiers", "Row 1, up to: Write the number out"),
        (row(model="volume") | rows("tiers", tier("10", "-1")), "tiers", "Row 1, price per unit: "),
        (row(model="volume") | rows("tiers", tier("10", "0.000000000000001")), "tiers", "USD has 14 digits"),
        (row(model="volume") | rows("tiers", *[tier(str(n + 1)) for n in range(101)]), "tiers", "At most 100 rows"),
        (row(model="package", package_price="1"), "package_size", "This field is required."),
        (row(model="package", package_price="1", package_size="0"), "package_size", "above 0"),
        (row(model="package", package_size="10"), "package_price", "This field is required."),
        (row(model="percentage"), "percent", "This field is required."),
        (row(model="percentage", percent="1", event_minimum="2", event_maximum="1"), "event_minimum", "The least is"),
        (row(model="percentage", percent="1", free_events="1.5"), "free_events", "whole number"),
        (row(model="flat"), "flat_amount", "This field is required."),
        (row(model="by_dimension", dimension="region"), "prices", "This field is required."),
        (row(model="by_dimension") | rows("prices", {"value": "eu", "unit_price": "1"}), "dimension", "is required"),
        (row(model="by_dimension", dimension="region") | rows("prices", {"value": "eu", "unit_price": ""}), "prices",
         "Each row needs a value and its price."),
        (row(model="by_dimension", dimension="region")
         | rows("prices", {"value": "eu", "unit_price": "1"}, {"value": "eu", "unit_price": "2"}), "prices", "two"),
        (row(price_per_unit="1", minimum="2", maximum="1"), "minimum", "The least is more than the most."),
        (row(price_per_unit="1") | rows("discounts", discount("10", "1")), "discounts", "a percentage or an amount"),
        (row(price_per_unit="1") | rows("discounts", discount(name="None")), "discounts", "a percentage or an amount"),
        (row(price_per_unit="1") | rows("discounts", discount("101")), "discounts", "would pay the customer"),
        (row(model="auction"), "model", "Select a valid choice."),
        (row(model=KEPT), "model", "Select a valid choice."),
    ],
)  # fmt: skip
def test_what_makes_no_price_is_refused_beside_its_field(
    sent: dict[str, Any], field: str, said: str, root: Client
) -> None:
    answer = post_product(root, **sent)
    assert answer.status_code == 200
    page = answer.content.decode()
    errors = re.search(rf'<ul class="mb-errors" id="id_charges-0-{field}_error">(.*?)</ul>', page, re.S)
    assert errors, re.findall(r"mb-errors.*?</ul>", page, re.S)
    assert said in errors[1].replace("&#x27;", "'")
    assert not Product.objects.exists()


def test_what_is_typed_for_another_way_of_pricing_does_not_count(root: Client) -> None:
    sent = row(model="flat", flat_amount="10", price_per_unit="5", package_size="3", free_threshold="9")
    assert post_product(root, **sent).status_code == 302
    assert Charge.objects.get().terms == {"model": "flat", "amount": "1000"}


def test_rows_that_were_typed_come_back_with_the_error(root: Client) -> None:
    page = post_product(root, **row(model="graduated"), **rows("tiers", tier("10", "0.5"), tier("5", "0.25"))).content
    shown = re.findall(r'name="charges-0-tiers_up_to" value="([^"]*)"', page.decode())
    # The page also holds the template of a further meter, without a number.
    assert [value for value in shown if value] == ["10", "5"]


# -- terms of the whole price ---------------------------------------------------------------------------------


def test_the_terms_of_the_whole_price_are_kept_and_shown(root: Client) -> None:
    sent = {
        "fixed_amount": "120",
        "payment_frequency_interval": "Year",
        "usage_frequency_count": "1",
        "usage_frequency_interval": "Month",
        "alignment": "calendar",
        "commitment": "50",
        "commitment_covers": "all",
        "convention_tier_bound": "exclusive",
        "convention_proration": "day",
        "convention_charge_last_day": "yes",
        "convention_prorate_minimum": "no",
        "convention_rounding": "line",
    }
    answer = post_product(root, **sent)
    assert answer.status_code == 302, re.findall(
        r"mb-errors.*?</ul>|mb-note mb-bad.*?</div>", answer.content.decode(), re.S
    )
    price = Price.objects.get()
    assert (price.usage_frequency_count, price.usage_frequency_interval, price.alignment) == (1, "Month", "calendar")
    assert (price.commitment, price.commitment_covers) == (Decimal(5000), "all")
    # The defaults are not written down.
    assert price.conventions == {
        "tier_bound": "exclusive",
        "proration": "day",
        "charge_last_day": True,
        "prorate_minimum": False,
    }
    page = root.get(reverse("admin:billing_product_change", args=[price.product.pk])).content.decode()
    assert "$120.00 a calendar year" in page
    assert "at least $50.00 with the fee, usage billed every month" in page
    assert "is charged whole" in page
    url = reverse("admin:billing_product_price", args=[price.product.pk])
    form = root.get(url)
    assert '<details class="mb-more" open>' in form.content.decode()
    assert "Nothing differs" in root.post(url, {**typed(form), "confirm": "1"}).content.decode()


@pytest.mark.parametrize(
    ("sent", "field", "said"),
    [
        ({"usage_frequency_count": "2"}, "usage_frequency_count", "Say both how many and of which, or neither."),
        ({"usage_frequency_interval": "Day"}, "usage_frequency_count", "Say both how many and of which, or neither."),
        ({"commitment": "0"}, "commitment", "A commitment is above zero"),
        ({"commitment": "0.001"}, "commitment", "USD has 2 digits"),
        ({"convention_rounding": "never"}, "convention_rounding", "Select a valid choice."),
        ({"alignment": "moon"}, "alignment", "Select a valid choice."),
    ],
)
def test_terms_that_make_no_sense_are_refused_beside_their_field(
    sent: dict[str, Any], field: str, said: str, root: Client
) -> None:
    page = post_product(root, **sent).content.decode()
    errors = re.search(rf'id="id_{field}_error">(.*?)</ul>', page, re.S)
    assert errors
    assert said in errors[1]
    assert not Product.objects.exists()


def test_a_product_says_what_becomes_of_late_usage(root: Client) -> None:
    assert post_product(root).status_code == 302
    product = Product.objects.get()
    assert product.corrections == "adjust"
    url = reverse("admin:billing_product_edit", args=[product.pk])
    sent = {"name": "API", "tax_category": "saas", "description": "", "corrections": "ignore"}
    assert root.post(url, sent).status_code == 302
    product.refresh_from_db()
    assert product.corrections == "ignore"
    page = root.get(reverse("admin:billing_product_change", args=[product.pk])).content.decode()
    assert "Nothing; the difference is recorded" in page


def test_usage_periods_that_do_not_tile_the_fees_are_refused(root: Client) -> None:
    page = post_product(root, usage_frequency_count="1", usage_frequency_interval="Week").content.decode()
    assert "A fee period of 1 month cannot be cut into usage periods of 1 week." in page
    assert not Product.objects.exists()


def test_every_answer_of_every_convention_has_words() -> None:
    worded = {
        (name, word) for name, (_, answers) in (conventions.CONVENTIONS | conventions.FINER).items() for word in answers
    }
    assert worded | conventions.NOT_OFFERED == conventions.all_answers()
    assert not worded & conventions.NOT_OFFERED
    for name, field in conventions.convention_fields().items():
        assert field.choices[0][0] == field.initial, name
        assert field.choices[0][1].endswith("(default)"), name


def test_an_answer_that_the_form_does_not_offer_stays_as_it_was() -> None:
    stored = {"spread": "exact", "tier_bound": "exclusive"}
    field = conventions.convention_fields(stored)["convention_spread"]
    assert ("exact", "exact") in field.choices
    shown = conventions.conventions_shown(stored)
    assert conventions.conventions_typed(shown, stored) == stored
    assert conventions.conventions_typed({**shown, "convention_tier_bound": "inclusive"}, stored) == {"spread": "exact"}
    assert conventions.conventions_in_words(stored) == [
        ("The unit at a tier's upper bound", "belongs to the next tier"),
        ("What is left when an amount is spread goes", "exact"),
    ]


# -- rules that only the API makes ----------------------------------------------------------------------------

SPECIAL: list[dict[str, Any]] = [
    {"model": "graduated", "tiers": [{"up_to": None, "unit_price": "5", "package_size": "10"}]},
    {"model": "by_dimension", "keys": ["a", "b"], "prices": [{"value": ["x", "*"], "unit_price": "1"}]},
    {"model": "by_dimension", "keys": ["a"], "prices": [{"value": "x", "model": "flat", "amount": "1"}]},
    {"model": "per_unit", "unit_price": "1", "unit_size": "1000", "unit_rounding": "up"},
    {"model": "package", "price": "1", "size": "1", "free_units": "0.5"},
    {"model": "percentage", "percent": "1", "unit_value": "7"},
]


@pytest.mark.parametrize("data", SPECIAL)
def test_a_rule_that_the_form_cannot_say_is_kept_until_another_is_chosen(data: dict[str, Any], root: Client) -> None:
    rule = rule_from_data(data)
    assert row_of(rule, "USD") == {"model": KEPT}
    product = usage_product()
    meter = call_meter(group_by=["a", "b"])
    Charge.objects.create(price=product.current_price(), meter=meter, position=0, terms=data)
    assert root.get(reverse("admin:billing_product_change", args=[product.pk])).status_code == 200
    url = reverse("admin:billing_product_price", args=[product.pk])
    form = root.get(url)
    assert "As the API set it, unchanged" in form.content.decode()
    changed = {**typed(form), "fixed_amount": "49", "confirm": "1"}
    assert root.post(url, changed).status_code == 302
    assert charge_rule(product.current_price().charges.get()) == rule
    assert product.current_price().fixed_amount == 4900
    chosen = {**changed, "charges-0-model": "per_unit", "charges-0-price_per_unit": "1"}
    assert root.post(url, chosen).status_code == 302
    assert product.current_price().charges.get().price_per_unit == 100


# -- the page -------------------------------------------------------------------------------------------------


def tiered(meter: Meter) -> Product:
    """10 calls free; 0.10 to 100, then 5.00 and 0.05; at least 2.00; a fee of 49.00; 60.00 committed in all."""
    rule = rule_from_data(
        {
            "model": "graduated",
            "tiers": [{"up_to": "100", "unit_price": "10"}, {"up_to": None, "unit_price": "5", "flat_fee": "500"}],
            "free_units": "10",
            "minimum": "200",
        }
    )
    return usage_product(
        fee=4900, charges=(ChargeTerms.of(meter, rule),), commitment=Decimal(6000), commitment_covers="all"
    )


def calculated(root: Client, product: Product, **typed: str) -> Any:
    url = reverse("admin:billing_product_calculate", args=[product.pk])
    with nothing_changes("calculating"):
        answer = root.get(url, typed)
    assert answer.status_code == 200
    return answer.context["calculation"]


def test_the_calculator_shows_each_line_and_how_it_came_about(root: Client) -> None:
    product = tiered(call_meter())
    name = f"q{Charge.objects.get().pk}"
    # 120 - 10 free = 110: 100 x 0.10 + 10 x 0.05 + 5.00 = 15.50; with 49.00 that is above the 60.00.
    lines = calculated(root, product, **{name: "120"})
    assert [(line.name, line.amount) for line in lines.results] == [("Fee", "$49.00"), ("API calls", "$15.50")]
    assert "120 calls − 10 free = 110" in lines.results[1].text
    assert lines.total == "$64.50"
    # Nothing used: at least 2.00, and 9.00 up to the commitment.
    lines = calculated(root, product, **{name: ""})
    assert [(line.name, line.amount) for line in lines.results] == [
        ("Fee", "$49.00"),
        ("API calls", "$2.00"),
        ("Commitment", "$9.00"),
    ]
    assert lines.total == "$60.00"


def test_the_calculator_takes_each_event_and_each_value(root: Client) -> None:
    share = rule_from_data(
        {"model": "percentage", "percent": "10", "fixed_fee": "30", "free_events": 1, "unit_value": "100"}
    )
    regions = rule_from_data(
        {"model": "by_dimension", "keys": ["region"], "prices": [{"value": "eu", "unit_price": "2"}], "default": "3"}
    )
    terms = (ChargeTerms.of(token_meter(), share), ChargeTerms.of(call_meter(group_by=["region"]), regions))
    product = usage_product(charges=terms)
    paid, by = Charge.objects.order_by("position")
    lines = calculated(root, product, **{f"q{paid.pk}": "50 100", f"q{by.pk}-0": "7", f"q{by.pk}-1": "1"})
    # The first event is free: 10 % of 100.00 and 0.30; 7 x 0.02 and 1 x 0.03.
    assert [line.amount for line in lines.results] == ["$10.30", "$0.17"]
    assert lines.total == "$10.47"


@pytest.mark.parametrize(
    ("quantity", "said"),
    [
        ("many", "Enter a number"),
        ("1e9", "Write the number out"),
        ("NaN", "Enter a number"),
        ("1 2", "One number here."),
        ("\0", "Enter a number"),
        ("9" * 100, "digits"),
        ("1 " * 501, "At most 500 numbers."),
    ],
)
def test_the_calculator_says_what_is_no_quantity(quantity: str, said: str, root: Client) -> None:
    product = tiered(call_meter())
    found = calculated(root, product, **{f"q{Charge.objects.get().pk}": quantity})
    assert (found.results, found.total) == ([], "")
    assert said in found.inputs[0][2][0].problem
    page = root.get(
        reverse("admin:billing_product_change", args=[product.pk]), {f"q{Charge.objects.get().pk}": quantity}
    )
    assert page.status_code == 200


def test_the_calculator_says_what_the_price_refuses(root: Client) -> None:
    closed = ChargeRule(Volume((Tier(Decimal(10), Decimal(5)),)))
    product = usage_product(charges=(ChargeTerms.of(call_meter(), closed),))
    found = calculated(root, product, **{f"q{Charge.objects.get().pk}": "11"})
    assert "11" in found.problem
    assert found.results == []


def test_the_calculator_works_without_a_script_and_asks_for_permission(root: Client) -> None:
    product = tiered(call_meter())
    name = f"q{Charge.objects.get().pk}"
    page = root.get(reverse("admin:billing_product_change", args=[product.pk]), {name: "120"}).content.decode()
    assert "$64.50" in page
    url = reverse("admin:billing_product_calculate", args=[product.pk])
    assert operator(views=False).get(url).status_code == 403
    assert root.post(url).status_code == 405
    assert root.get(reverse("admin:billing_product_calculate", args=[999_999])).status_code == 404


def test_tiers_are_a_table_and_the_costs_are_drawn(root: Client) -> None:
    product = tiered(call_meter())
    page = root.get(reverse("admin:billing_product_change", args=[product.pk]))
    one = page.context["charges"][0]
    assert [(tier.reach, tier.price) for tier in one["tiers"]] == [
        ("0 to 100 calls", "$0.10"),
        ("above 100 calls", "$5.00 + $0.05"),
    ]
    steps, costs = one["charts"]
    assert steps.title == "Price per unit by tier"
    # At 0.10 until 100 of 200 (130 and a round number), then at 0.05.
    assert steps.points == "0.00,0.00 500.00,0.00 500.00,50.00 1000.00,50.00"
    # Free to 10; the first tier ends at 110 with 10.00; the least is 2.00.
    assert costs.rows[:3] == [("0 calls", "$2.00"), ("10 calls", "$2.00"), ("110 calls", "$10.00")]


def test_a_price_with_nothing_to_draw_is_shown_without_a_picture(root: Client) -> None:
    rules: list[dict[str, Any]] = [
        {"model": "flat", "amount": "100"},
        {"model": "percentage", "percent": "1", "fixed_fee": "30", "free_events": 3},
    ]
    terms = (
        ChargeTerms.of(call_meter(), rule_from_data(rules[0])),
        ChargeTerms.of(token_meter(), rule_from_data(rules[1])),
    )
    product = usage_product(charges=terms)
    page = root.get(reverse("admin:billing_product_change", args=[product.pk]))
    assert [one["charts"] for one in page.context["charges"]] == [[], []]
    free = usage_product(charges=(ChargeTerms.of(call_meter(), ChargeRule(PerUnit(Decimal(1)))),))
    assert len(root.get(reverse("admin:billing_product_change", args=[free.pk])).context["charges"][0]["charts"]) == 1
