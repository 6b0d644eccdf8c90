"""Prices that the contract does not know, through the official SDK as it is."""

from typing import Any

import pytest
from dodopayments import DodoPayments

# The SDK marks subscriptions.create deprecated in favour of its hosted checkout.
pytestmark = [pytest.mark.sdk, pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")]


def test_the_python_sdk_sends_and_shows_every_way_of_pricing(dodo: DodoPayments) -> None:
    meter = dodo.meters.create(
        name="Prices", event_name="py.prices", aggregation={"type": "count"}, measurement_unit="calls"
    )
    pricing: dict[str, Any] = {
        "model": "graduated",
        "tiers": [
            {"up_to": "100", "unit_price": "10", "flat_fee": "0"},
            {"up_to": None, "unit_price": "5", "flat_fee": "250"},
        ],
    }
    price: Any = {
        "type": "usage_based_price",
        "currency": "USD",
        "fixed_price": 4900,
        "discount": 0,
        "purchasing_power_parity": False,
        "payment_frequency_count": 1,
        "payment_frequency_interval": "Year",
        "subscription_period_count": 20,
        "subscription_period_interval": "Year",
        "usage_frequency_count": 1,
        "usage_frequency_interval": "Month",
        "commitment": 2000,
        "meters": [{"meter_id": meter.id, "pricing": pricing}],
    }
    without: Any = {**price, "meters": []}
    # As a typed argument with more in it, and as the SDK's own door for what it does not know.
    made = dodo.products.create(name="Typed", tax_category="saas", price=price)
    other = dodo.products.create(
        name="Extra",
        tax_category="saas",
        price=without,
        extra_body={"price": price},
    )
    for product in (made, dodo.products.retrieve(other.product_id)):
        assert product.price.type == "usage_based_price"
        shown: Any = product.price.model_dump()
        assert (shown["usage_frequency_interval"], shown["commitment"]) == ("Month", 2000)
        (priced,) = shown["meters"]
        assert (priced["pricing"], priced["price_per_unit"]) == (pricing, None)
    dodo.products.update(made.product_id, price=price)
    subscription: Any = dodo.subscriptions.create(
        billing={"country": "US"},
        customer={"email": "prices@hooli.example", "name": "Prices"},
        product_id=made.product_id,
        quantity=1,
    )
    meters: Any = dodo.subscriptions.retrieve(subscription.subscription_id).meters
    assert [(one.meter_id, one.price_per_unit) for one in meters] == [(meter.id, None)]
