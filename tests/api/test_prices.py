"""Every way of pricing over the API: kept and answered as it was sent, refused by name; the contract's own unharmed."""

import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from billing.models import Charge, Price, Product
from billing.products import terms_of
from tests.api.client import Api
from tests.api.test_products import MONTHLY, RECURRING, product, usage
from tests.base import acme, call_meter

pytestmark = pytest.mark.django_db

MODELS: list[dict[str, Any]] = [
    {"model": "per_unit", "unit_price": "2", "minimum": "500"},
    {
        "model": "graduated",
        "tiers": [
            {"up_to": "100.5", "unit_price": "10", "flat_fee": "0"},
            {"up_to": None, "unit_price": "0.000000000001", "flat_fee": "500"},
        ],
        "free_units": "0.25",
    },
    {
        "model": "volume",
        "tiers": [{"up_to": "10", "unit_price": "0", "flat_fee": "1", "package_size": "5"}],
        "discounts": [{"percent": "10", "name": "Launch"}, {"amount": "250"}],
    },
    {"model": "package", "price": "40", "size": "1000", "rounding": "down", "free_units": "100000"},
    {"model": "percentage", "percent": "2.9", "fixed_fee": "30", "free_events": 3, "event_maximum": "1000"},
    {"model": "flat", "amount": "1000", "only_when_used": True},
    {
        "model": "by_dimension",
        "keys": ["region"],
        "prices": [
            {"value": ["eu"], "model": "per_unit", "unit_price": "2"},
            {"value": ["us"], "model": "package", "price": "1", "size": "10", "rounding": "up"},
        ],
        "default": {"model": "flat", "amount": "7"},
    },
]


def priced(api: Api, pricing: Any, **item: Any) -> Any:
    meter = call_meter(group_by=["region"])
    return api.post("/products", product(usage({"meter_id": meter.public_id, "pricing": pricing, **item})))


@pytest.mark.parametrize("pricing", MODELS, ids=lambda data: f"{data['model']}")
def test_every_model_comes_back_as_it_was_sent_and_can_be_sent_again(api: Api, pricing: dict[str, Any]) -> None:
    created = priced(api, pricing)
    assert created.status == 201
    shown = created.body["price"]["meters"][0]
    assert shown["pricing"] == pricing
    assert shown["price_per_unit"] == pricing.get("unit_price")
    assert Charge.objects.get().terms == pricing
    path = f"/products/{created.body['product_id']}"
    assert api.get(path).body == created.body
    # What comes back is a request as well, and changes nothing.
    assert api.patch(path, {"price": created.body["price"]}).status == 200
    assert Price.objects.count() == 1
    # A subscription says the same of its meters.
    begun = {"customer": {"customer_id": acme().public_id}, "product_id": created.body["product_id"], "quantity": 1}
    subscription = api.post("/subscriptions", {**begun, "billing": {"country": "US"}}).body["subscription_id"]
    meter = api.get(f"/subscriptions/{subscription}").body["meters"][0]
    assert (meter["pricing"], meter["price_per_unit"]) == (pricing, pricing.get("unit_price"))


def test_numbers_may_be_numbers_and_come_back_as_texts(api: Api) -> None:
    sent = {"model": "graduated", "tiers": [{"up_to": 10, "unit_price": 0.1}, {"unit_price": 12345678901234567890}]}
    assert priced(api, sent).body["price"]["meters"][0]["pricing"] == {
        "model": "graduated",
        "tiers": [
            {"up_to": "10", "unit_price": "0.1", "flat_fee": "0"},
            {"up_to": None, "unit_price": "12345678901234567890", "flat_fee": "0"},
        ],
    }


@pytest.mark.parametrize(
    ("item", "price_per_unit", "free_threshold"),
    [
        ({"pricing": {"model": "per_unit", "unit_price": "2"}}, "2", 0),
        ({"pricing": {"model": "per_unit", "unit_price": "2", "free_units": "5"}}, "2", 5),
        ({"pricing": {"model": "per_unit", "unit_price": "2"}, "free_threshold": 5}, "2", 5),
        ({"pricing": {"model": "per_unit", "unit_price": "2.0", "free_units": 5}, "price_per_unit": "2"}, "2", 5),
        ({"pricing": None, "price_per_unit": "2", "free_threshold": None}, "2", 0),
    ],
)
def test_a_plain_price_per_unit_is_the_contracts_however_it_was_said(
    api: Api, item: dict[str, Any], price_per_unit: str, free_threshold: int
) -> None:
    meter = call_meter().public_id
    shown = api.post("/products", product(usage({"meter_id": meter, **item}))).body["price"]["meters"][0]
    assert (shown["price_per_unit"], shown["free_threshold"], shown["pricing"]) == (
        price_per_unit,
        free_threshold,
        None,
    )


GRADUATED = {"model": "graduated", "tiers": [{"unit_price": "5"}]}


@pytest.mark.parametrize(
    ("item", "status", "said"),
    [
        ({"pricing": "graduated"}, 422, "price.meters[0].pricing: must be an object with a model."),
        ({"pricing": []}, 422, "price.meters[0].pricing: must be an object with a model."),
        ({"pricing": {}}, 422, "pricing needs its model: per_unit, graduated"),
        ({"pricing": {"model": "auction"}}, 422, "pricing has an unknown model 'auction'"),
        ({"pricing": {"model": "graduated"}}, 422, "pricing needs tiers"),
        ({"pricing": {"model": "graduated", "tiers": []}}, 422, "There must be at least one tier"),
        ({"pricing": {"model": "graduated", "tiers": [{"up_to": "x"}]}}, 422, "pricing.tiers[0]"),
        ({"pricing": {"model": "graduated", "tiers": [{"unit_price": "-1"}]}}, 422, "must be at least 0"),
        ({"pricing": {"model": "graduated", "tiers": [{"up_to": 5}, {"up_to": 5}]}}, 422, "must rise"),
        ({"pricing": {"model": "flat", "amount": "1e999999999"}}, 422, "digits"),
        ({"pricing": {"model": "flat", "amount": True}}, 422, "must be a number"),
        ({"pricing": {"model": "flat", "amount": "1", "discount": "5"}}, 422, "unknown key 'discount'"),
        ({"pricing": {"model": "package", "price": "1", "size": "0"}}, 422, "must be above 0"),
        ({"pricing": {"model": "flat", "amount": "1", "minimum": "5", "maximum": "3"}}, 422, "above the maximum"),
        ({"pricing": GRADUATED, "price_per_unit": "5"}, 422, "price_per_unit: differs from pricing; leave it out."),
        ({"pricing": {"model": "per_unit", "unit_price": "2"}, "price_per_unit": "3"}, 422, "price_per_unit: differs"),
        ({"pricing": {**GRADUATED, "free_units": 3}, "free_threshold": 2}, 422, "free_threshold: differs from pricing"),
        ({"pricing": {"model": "graduated", "tiers": [{"up_to": n + 1} for n in range(9000)]}}, 422, "is longer than"),
        ({"pricing": {"model": "by_dimension", "keys": ["tier"], "prices": {"a": 1}}}, 400, "does not keep its usage"),
        ({"pricing": {"model": "per_unit", "unit_price": "0"}}, 400, "must be above zero"),
        ({"pricing": {**GRADUATED, "discounts": [{"amount": 1, "name": "x" * 256}]}}, 422, "at most 255 characters"),
    ],
)  # fmt: skip
def test_pricing_that_makes_no_sense_is_refused_by_name(api: Api, item: dict[str, Any], status: int, said: str) -> None:
    answer = priced(api, **item)
    code = {422: "INVALID_REQUEST_BODY", 400: "INVALID_REQUEST_PARAMETERS"}[status]
    assert (answer.status, answer.body["code"]) == (status, code)
    assert said in answer.body["message"]
    assert not Product.objects.exists()


# -- the whole price ------------------------------------------------------------------------------------------


def test_the_terms_of_the_whole_price_come_back_as_they_were_sent(api: Api) -> None:
    terms = {
        "alignment": "calendar",
        "usage_frequency_count": 1,
        "usage_frequency_interval": "Month",
        "commitment": 5000,
        "commitment_covers": "all",
        "conventions": {"proration": "day", "charge_last_day": True},
    }
    sent = usage(payment_frequency_interval="Quarter", **terms)
    created = api.post("/products", product(sent))
    assert created.status == 201
    assert {name: created.body["price"][name] for name in terms} == terms
    assert created.body["price"]["payment_frequency_interval"] == "Quarter"
    path = f"/products/{created.body['product_id']}"
    assert api.patch(path, {"price": sent}).status == 200
    assert Price.objects.count() == 1
    # Each of them makes a version of its own.
    for count, (name, value) in enumerate(
        [("commitment", 6000), ("alignment", "anniversary"), ("conventions", {}), ("commitment_covers", None)], start=2
    ):
        sent = {**sent, name: value}
        assert api.patch(path, {"price": sent}).status == 200
        assert Price.objects.count() == count, name
    last = terms_of(Price.objects.latest("version"))
    assert (last.commitment, last.commitment_covers, last.alignment, last.conventions) == (
        Decimal(6000),
        "usage",
        "anniversary",
        {},
    )


def test_a_product_says_what_becomes_of_late_usage(api: Api) -> None:
    created = api.post("/products", product(RECURRING, corrections="ignore"))
    assert created.body["corrections"] == "ignore"
    path = f"/products/{created.body['product_id']}"
    assert api.patch(path, {"corrections": "credit_note"}).status == 200
    assert api.get(path).body["corrections"] == "credit_note"
    assert api.patch(path, {"corrections": None, "name": "Same"}).status == 200
    assert api.get(path).body["corrections"] == "credit_note"


def test_conventions_that_say_the_default_are_not_written_down(api: Api) -> None:
    sent = usage(conventions={"tier_bound": "inclusive", "proration": "day", "charge_last_day": False})
    assert api.post("/products", product(sent)).body["price"]["conventions"] == {"proration": "day"}


def test_a_recurring_price_has_an_alignment_and_conventions(api: Api) -> None:
    sent = {**RECURRING, "alignment": "calendar", "conventions": {"proration": "day"}}
    shown = api.post("/products", product(sent)).body["price"]
    assert (shown["alignment"], shown["conventions"]) == ("calendar", {"proration": "day"})


@pytest.mark.parametrize(
    ("changes", "status", "said"),
    [
        ({"alignment": "moon"}, 422, "price.alignment: must be one of anniversary, calendar."),
        ({"commitment": 0}, 422, "price.commitment: Ensure this value is greater than"),
        ({"commitment": "50"}, 422, "price.commitment: must be a whole number."),
        ({"commitment_covers": "fee"}, 422, "price.commitment_covers: must be one of usage, all."),
        ({"conventions": []}, 422, "price.conventions: must be an object."),
        ({"conventions": {"proration": "hour"}}, 422, "price.conventions: proration must be one of second, day"),
        ({"conventions": {"charge_last_day": "yes"}}, 422, "charge_last_day must be true or false"),
        ({"conventions": {"colour": "red"}}, 422, "There is no convention 'colour'"),
        ({"usage_frequency_count": 1}, 400, "The usage period needs an interval"),
        ({"usage_frequency_interval": "Day"}, 400, "The usage period needs a count of 1 or more."),
        ({"usage_frequency_count": 0, "usage_frequency_interval": "Day"}, 422, "price.usage_frequency_count: "),
        (
            {"usage_frequency_count": 1, "usage_frequency_interval": "Week"},
            400,
            "A fee period of 1 month cannot be cut into usage periods of 1 week.",
        ),
        ({"usage_frequency_count": 2, "usage_frequency_interval": "Month"}, 400, "usage periods of 2 months."),
    ],
)
def test_terms_that_make_no_sense_are_refused_by_name(
    api: Api, changes: dict[str, Any], status: int, said: str
) -> None:
    answer = api.post("/products", product(usage(**changes)))
    assert answer.status == status
    assert said in answer.body["message"]
    assert not Product.objects.exists()


@pytest.mark.parametrize("name", ["commitment", "usage_frequency_count", "meters", "pricing"])
def test_only_a_usage_based_price_has_terms_of_usage(api: Api, name: str) -> None:
    answer = api.post("/products", product({**RECURRING, name: 1}))
    assert (answer.status, answer.body["code"]) == (422, "INVALID_REQUEST_BODY")
    assert f"price.{name}: is not a field" in answer.body["message"]


def test_the_example_of_the_documentation_works(api: Api) -> None:
    page = (Path(settings.BASE_DIR) / "docs" / "api.md").read_text()
    section = page.split("## Prices")[1].split("\n## ")[0]
    sent = json.loads(re.findall(r"```json\n(.*?)```", section, re.S)[0].replace("mtr_…", call_meter().public_id))
    created = api.post("/products", product(sent))
    assert created.status == 201, created.body
    shown = created.body["price"]
    assert {name: shown[name] for name in sent if name != "meters"} == {
        name: value for name, value in sent.items() if name != "meters"
    }
    documented = set(re.findall(r"^\| (`.*?`) \|", section, re.M))
    assert {name for cell in documented for name in re.findall(r"`(\w+)`", cell)} == set(sent) - set(MONTHLY) - {
        "type",
        "currency",
        "fixed_price",
        "meters",
    } | {"commitment_covers"}
