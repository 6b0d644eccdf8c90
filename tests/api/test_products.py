"""/products: the price union both ways, versions, the archive, and what is refused."""

from typing import Any

import pytest

from billing.models import Price, Product
from meters.models import Meter
from tests.api.client import Api
from tests.base import call_meter, token_meter

pytestmark = pytest.mark.django_db

MONTHLY = {
    "payment_frequency_count": 1,
    "payment_frequency_interval": "Month",
    "subscription_period_count": 20,
    "subscription_period_interval": "Year",
}
ONCE = {"type": "one_time_price", "currency": "EUR", "price": 4900}
RECURRING = {"type": "recurring_price", "currency": "USD", "price": 4900, **MONTHLY}
# What an older SDK always sends along.
OLD_DEFAULTS = {"discount": 0, "purchasing_power_parity": False, "tax_inclusive": False}


def usage(*meters: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "type": "usage_based_price",
        "currency": "USD",
        "fixed_price": 0,
        **MONTHLY,
        "meters": list(meters),
        **changes,
    }


def product(price: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"name": "AI Platform", "tax_category": "saas", "price": price, **changes}


def test_a_usage_based_product_comes_back_as_it_was_sent(api: Api) -> None:
    calls, tokens = call_meter(description="Each request"), token_meter()
    sent = usage(
        {"meter_id": calls.public_id, "price_per_unit": "0.1", "free_threshold": 1000},
        {"meter_id": tokens.public_id, "price_per_unit": "0.001", "name": "ignored", "credit_entitlement_id": None},
        fixed_price=4900,
        **OLD_DEFAULTS,
    )
    created = api.post("/products", product(sent, description="All of it", metadata={"plan": "pro"}))
    assert created.status == 201
    row = Product.objects.get()
    assert created.body == {
        "product_id": row.public_id,
        "business_id": "bus_meterbook",
        "brand_id": "bus_meterbook",
        "name": "AI Platform",
        "description": "All of it",
        "image": None,
        "is_recurring": True,
        "price": {
            "type": "usage_based_price",
            "currency": "USD",
            "fixed_price": 4900,
            **MONTHLY,
            "trial_period_days": 0,
            "discount": 0,
            "discount_bps": 0,
            "purchasing_power_parity": False,
            "tax_inclusive": False,
            "alignment": "anniversary",
            "usage_frequency_count": None,
            "usage_frequency_interval": None,
            "commitment": None,
            "commitment_covers": "usage",
            "conventions": {},
            "meters": [
                {
                    "meter_id": calls.public_id,
                    "name": "API calls",
                    "description": "Each request",
                    "measurement_unit": "calls",
                    "price_per_unit": "0.1",
                    "free_threshold": 1000,
                    "pricing": None,
                    "credit_entitlement_id": None,
                    "meter_units_per_credit": None,
                },
                {
                    "meter_id": tokens.public_id,
                    "name": "Tokens",
                    "description": None,
                    "measurement_unit": "tokens",
                    "price_per_unit": "0.001",
                    "free_threshold": 0,
                    "pricing": None,
                    "credit_entitlement_id": None,
                    "meter_units_per_credit": None,
                },
            ],
        },
        "tax_category": "saas",
        "corrections": "adjust",
        "metadata": {"plan": "pro"},
        "addons": [],
        "credit_entitlements": [],
        "entitlements": [],
        "license_key_enabled": False,
        "license_key_activation_message": None,
        "license_key_activations_limit": None,
        "license_key_duration": None,
        "digital_product_delivery": None,
        "pricing_mode": None,
        "product_collection_id": None,
        "created_at": created.body["created_at"],
        "updated_at": created.body["updated_at"],
    }
    assert api.get(f"/products/{row.public_id}").body == created.body


@pytest.mark.parametrize(
    ("threshold", "price"),
    [(0, "0.000000000001"), (13_107_200_000, "0.8"), (2**63 - 1, "99999.999999999999"), (1, "1")],
)
def test_thresholds_do_not_wrap_and_prices_keep_every_digit(api: Api, threshold: int, price: str) -> None:
    meter = {"meter_id": call_meter().public_id, "price_per_unit": price, "free_threshold": threshold}
    shown = api.post("/products", product(usage(meter))).body["price"]["meters"][0]
    assert (shown["free_threshold"], shown["price_per_unit"]) == (threshold, price)


def test_list_items_show_the_amount_and_the_price_in_detail(api: Api) -> None:
    api.post("/products", product(ONCE, name="Setup"))
    api.post("/products", product({**RECURRING, "trial_period_days": 14}, name="Plan"))
    items = api.get("/products").body["items"]
    assert [(item["name"], item["price"], item["currency"], item["is_recurring"]) for item in items] == [
        ("Plan", 4900, "USD", True),
        ("Setup", 4900, "EUR", False),
    ]
    assert items[0]["price_detail"] == {
        **RECURRING,
        "trial_period_days": 14,
        "trial_amount": None,
        "trial_apply_discounts": False,
        "trial_payment_method_optional": False,
        "zero_amount_payment_method_optional": False,
        "discount": 0,
        "discount_bps": 0,
        "purchasing_power_parity": False,
        "tax_inclusive": False,
        "alignment": "anniversary",
        "conventions": {},
    }
    assert items[1]["price_detail"]["type"] == "one_time_price"


def test_a_list_costs_the_same_number_of_queries_however_long(api: Api, django_assert_max_num_queries: Any) -> None:
    meter = {"meter_id": call_meter().public_id, "price_per_unit": "1"}
    for _ in range(5):
        api.post("/products", product(usage(meter)))
    with django_assert_max_num_queries(3):
        assert len(api.get("/products").body["items"]) == 5


def test_lists_are_filtered(api: Api) -> None:
    def names(query: str) -> list[str]:
        return [item["name"] for item in api.get(f"/products?{query}").body["items"]]

    api.post("/products", product(ONCE, name="once"))
    monthly = api.post("/products", product(RECURRING, name="monthly")).body["product_id"]
    api.post("/products", product(usage(), name="metered"))
    assert names("") == ["metered", "monthly", "once"]
    assert names("recurring=true") == ["metered", "monthly"]
    assert names("recurring=false") == ["once"]
    assert names("recurring=null&locale=fr&brand_id=bus_meterbook") == ["metered", "monthly", "once"]
    assert names("brand_id=brd_other") == []
    assert api.delete(f"/products/{monthly}").status == 204
    assert names("") == ["metered", "once"]
    assert names("archived=true") == ["monthly"]
    assert api.get(f"/products/{monthly}").status == 200
    assert api.get("/products?archived=maybe").status == 422


def test_an_archived_product_comes_back(api: Api) -> None:
    made = api.post("/products", product(ONCE)).body["product_id"]
    for _ in range(2):  # a repeated request changes nothing
        answer = api.delete(f"/products/{made}")
        assert (answer.status, answer.content) == (204, b"")
    for _ in range(2):
        answer = api.post(f"/products/{made}/unarchive")
        assert (answer.status, answer.content) == (200, b"")
    assert not Product.objects.get().is_archived()


def test_a_changed_price_is_a_new_version_and_the_same_price_is_none(api: Api) -> None:
    path = f"/products/{api.post('/products', product(RECURRING)).body['product_id']}"
    answer = api.patch(path, {"price": {**RECURRING, "price": 5900}, "name": "Platform", "metadata": {"a": 1}})
    assert (answer.status, answer.content) == (200, b"")
    for _ in range(2):
        assert api.patch(path, {"price": {**RECURRING, "price": 5900}}).status == 200
    shown = api.get(path).body
    assert (shown["name"], shown["price"]["price"], shown["metadata"]) == ("Platform", 5900, {"a": 1})
    versions = [(price.version, int(price.fixed_amount)) for price in Price.objects.order_by("version")]
    assert versions == [(1, 4900), (2, 5900)]


def test_a_patch_that_fails_half_way_changes_nothing(api: Api) -> None:
    path = f"/products/{api.post('/products', product(RECURRING)).body['product_id']}"
    before = api.get(path).body
    answer = api.patch(path, {"name": "Other", "price": usage({"meter_id": "mtr_none", "price_per_unit": "1"})})
    assert (answer.status, answer.body["code"]) == (400, "MISSING_METER_IDS")
    assert api.get(path).body == before


def test_null_removes_the_description_and_leaves_the_rest(api: Api) -> None:
    path = f"/products/{api.post('/products', product(ONCE, description='Text')).body['product_id']}"
    api.patch(path, {"description": None, "name": None, "price": None, "metadata": None, "tax_category": None})
    shown = api.get(path).body
    assert (shown["description"], shown["name"], shown["tax_category"]) == (None, "AI Platform", "saas")


def charge(**changes: Any) -> dict[str, Any]:
    return {"meter_id": "calls", "price_per_unit": "1", **changes}


@pytest.mark.parametrize(
    ("price", "status", "code", "said"),
    [
        (None, 422, "INVALID_REQUEST_BODY", "price: This field may not be null."),
        ("4900", 422, "INVALID_REQUEST_BODY", "price: must be an object."),
        ({}, 422, "INVALID_REQUEST_BODY", "price: type: must be one of one_time_price, recurring_price"),
        ({**ONCE, "type": ["one_time_price"]}, 422, "INVALID_REQUEST_BODY", "price: type: must be one of"),
        ({**ONCE, "price": "4900"}, 422, "INVALID_REQUEST_BODY", "price.price: must be a whole number."),
        ({**ONCE, "price": 49.5}, 422, "INVALID_REQUEST_BODY", "price.price: must be a whole number."),
        ({**ONCE, "price": True}, 422, "INVALID_REQUEST_BODY", "price.price: must be a whole number."),
        ({**ONCE, "price": -1}, 422, "INVALID_REQUEST_BODY", "price.price: Ensure this value is greater than"),
        ({**ONCE, "price": 10**40}, 422, "INVALID_REQUEST_BODY", "price.price: Ensure this value is less than"),
        ({**ONCE, "currency": "usd"}, 400, "INVALID_REQUEST_PARAMETERS", "'usd' is not a currency"),
        ({**ONCE, "currency": "XXY"}, 400, "INVALID_REQUEST_PARAMETERS", "'XXY' is not a currency"),
        ({**ONCE, "currency": 1}, 422, "INVALID_REQUEST_BODY", "price.currency: must be a string."),
        ({**ONCE, "discount": 10}, 422, "INVALID_REQUEST_BODY", "price.discount: is not supported by this server"),
        ({**ONCE, "pay_what_you_want": True}, 422, "INVALID_REQUEST_BODY", "price.pay_what_you_want: is not supp"),
        ({**ONCE, "purchasing_power_parity": True}, 422, "INVALID_REQUEST_BODY", "price.purchasing_power_parity: "),
        ({**ONCE, "fixed_price": 1}, 422, "INVALID_REQUEST_BODY", "price.fixed_price: is not a field of this"),
        ({**RECURRING, "payment_frequency_interval": "month"}, 422, "INVALID_REQUEST_BODY",
         "price.payment_frequency_interval: must be one of Day, Week, Month, Quarter, Year."),
        ({**RECURRING, "payment_frequency_count": 0}, 422, "INVALID_REQUEST_BODY", "price.payment_frequency_count: "),
        ({**RECURRING, "trial_amount": 100}, 422, "INVALID_REQUEST_BODY", "price.trial_amount: is not supported"),
        ({**RECURRING, "meters": []}, 422, "INVALID_REQUEST_BODY", "price.meters: is not a field"),
        ({**RECURRING, "subscription_period_interval": "Day"}, 400, "INVALID_REQUEST_PARAMETERS", "at least as long"),
        (usage(fixed_price=None), 422, "INVALID_REQUEST_BODY", "price.fixed_price: This field may not be null."),
        (usage(charge(price_per_unit=1)), 422, "INVALID_REQUEST_BODY", "price.meters[0].price_per_unit: must be a dec"),
        (usage(charge(price_per_unit="1e2")), 422, "INVALID_REQUEST_BODY", "price.meters[0].price_per_unit: must be"),
        (usage(charge(price_per_unit="-1")), 422, "INVALID_REQUEST_BODY", "price.meters[0].price_per_unit: must be"),
        (usage(charge(price_per_unit="٣")), 422, "INVALID_REQUEST_BODY", "price.meters[0].price_per_unit: must be"),
        (usage(charge(price_per_unit="100000")), 422, "INVALID_REQUEST_BODY", "price.meters[0].price_per_unit: must"),
        (usage(charge(price_per_unit="1\n")), 422, "INVALID_REQUEST_BODY", "price.meters[0].price_per_unit: must"),
        (usage(charge(price_per_unit="0.0")), 400, "INVALID_REQUEST_PARAMETERS", "must be above zero"),
        (usage(charge(price_per_unit=None)), 422, "INVALID_REQUEST_BODY", "price.meters[0].price_per_unit: This field"),
        (usage({"meter_id": "calls"}), 422, "INVALID_REQUEST_BODY", "price.meters[0].price_per_unit: This field is re"),
        (usage(charge(free_threshold=-1)), 422, "INVALID_REQUEST_BODY", "price.meters[0].free_threshold: "),
        (usage(charge(free_threshold=2**63)), 422, "INVALID_REQUEST_BODY", "price.meters[0].free_threshold: "),
        (usage(charge(free_threshold="1000")), 422, "INVALID_REQUEST_BODY", "price.meters[0].free_threshold: must be"),
        (usage(charge(credit_entitlement_id="cde_1")), 422, "INVALID_REQUEST_BODY", "price.meters[0].credit_entitle"),
        (usage(charge(), charge()), 400, "DUPLICATE_METER_IDS_IN_REQUEST", "once"),
        (usage(charge(meter_id="mtr_none")), 400, "MISSING_METER_IDS", "One or more meter IDs do not exist: mtr_none"),
        (usage(charge(meter_id="archived")), 410, "METER_IS_DELETED", "archived"),
        (usage(*[charge(meter_id=f"m{n}") for n in range(11)]), 422, "INVALID_REQUEST_BODY", "price.meters: Ens"),
        (usage(meters="calls"), 422, "INVALID_REQUEST_BODY", "price.meters: Expected a list of items"),
        (usage(1), 422, "INVALID_REQUEST_BODY", "price.meters[0]: "),  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_odd_prices_are_refused_by_name(api: Api, price: Any, status: int, code: str, said: str) -> None:
    Meter.objects.filter(pk=call_meter().pk).update(public_id="calls")
    Meter.objects.filter(pk=call_meter().pk).update(public_id="archived", archived_at="2026-01-01T00:00:00Z")
    answer = api.post("/products", product(price))
    assert (answer.status, answer.body["code"]) == (status, code)
    assert said in answer.body["message"]
    assert not Product.objects.exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"addons": ["adn_1"]},
        {"license_key_enabled": True},
        {"credit_entitlements": [{"credit_entitlement_id": "cde_1"}]},
        {"pricing_mode": "localized"},
        {"tax_category": "food"},
        {"corrections": "forget"},
        {"name": ""},
        {"id": "pdt_mine"},
        {"archived_at": None},
    ],
)
def test_what_is_not_supported_is_never_silently_ignored(api: Api, changes: dict[str, Any]) -> None:
    answer = api.post("/products", product(ONCE, **changes))
    assert (answer.status, answer.body["code"]) == (422, "INVALID_REQUEST_BODY")
    assert next(iter(changes)) in answer.body["message"]
    nothing = {"addons": [], "license_key_enabled": False, "credit_entitlements": None, "brand_id": "brd_1"}
    assert api.post("/products", product(ONCE, **nothing)).status == 201
