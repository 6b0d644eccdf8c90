"""The worked numbers of the wire contract's documentation, through the API, to the cent.

Each row is a quantity, the free units, the price per unit in cents as the API takes it, and the charge in cents.
"""

from typing import Any

import pytest

from tests.scenarios.client import Api

pytestmark = pytest.mark.django_db


@pytest.fixture
def api() -> Api:
    return Api()


def charge(api: Api, *, quantity: Any, free: int, price: str, fee: int = 0, seats: int = 1) -> dict[str, Any]:
    """Bill `quantity` units, sent as one event of a sum meter; answer the payment."""
    meter = api.meter("sum", "units")
    product = api.usage_product({"meter_id": meter, "price_per_unit": price, "free_threshold": free}, fixed_price=fee)
    customer = api.customer()
    subscription = api.subscribe(customer, product, quantity=seats)
    assert api.ingest(customer, {"units": quantity}) == 1
    return api.close(subscription)


@pytest.mark.parametrize(
    ("quantity", "free", "price", "cents"),
    [
        (2_500, 1_000, "2", 3000),
        (15_000, 1_000, "0.1", 1400),
        (50_000, 10_000, "0.001", 40),
        (100, 10, "5", 450),
        (25, 10, "5", 75),
        (250, 100, "50", 7500),
        (1_000, 0, "50", 50_000),
        (500, 0, "50", 25_000),
        (100, 0, "50", 5000),
        (5_000, 0, "1", 5000),
        (25_420, 10_000, "0.5", 7710),  # 15,420 over the allowance
        (150_000, 50_000, "0.01", 1000),
        (400_000, 0, "0.002", 800),
        (8, 0, "0.14", 1),  # 1.12 cents
        (3, 0, "0.115", 0),  # 0.345 cents
        (15, 0, "0.0225", 0),  # 0.3375 cents
        (51_000, 50_000, "0.09", 90),  # 1,000 over at $0.90 per 1,000
        (5_001, 5_000, "0.8", 1),  # one call at $0.008
        (400_000, 0, "0.00025", 100),  # $2.50 per 1,000,000: 400,000 for a dollar
        # Starter, Pro, Business, Enterprise: one block of 100 beyond the allowance
        (1_100, 1_000, "2", 200),
        (25_100, 25_000, "1", 100),
        (100_100, 100_000, "0.5", 50),
        (500_100, 500_000, "0.2", 20),
        # extremes: no wrap at 2^31 or 2^63, the threshold itself, twelve decimals
        (13_107_200_000, 13_107_200_000, "0.8", 0),
        (13_107_200_001, 13_107_200_000, "0.8", 1),
        (2**63, 2**63 - 1, "5", 5),
        (1, 0, "99999.999999999999", 100_000),
        (999, 1_000, "2", 0),
        (1_000, 1_000, "2", 0),
        (1_001, 1_000, "2", 2),
        ("1700", 1_000, "2", 1400),  # a number sent as a string
        ("0.5", 0, "1", 1),  # half a cent is a cent
        ("0.49", 0, "1", 0),
    ],
)
def test_the_charge_is_what_the_documentation_says(api: Api, quantity: Any, free: int, price: str, cents: int) -> None:
    payment = charge(api, quantity=quantity, free=free, price=price)
    assert api.lines(payment) == [cents]
    assert (payment["total_amount"], payment["currency"], payment["includes_usage"]) == (cents, "USD", True)
    assert payment["status"] == ("succeeded" if cents == 0 else "requires_payment_method")


@pytest.mark.parametrize(
    ("quantity", "free", "price", "fee", "seats", "lines"),
    [
        (25_000, 10_000, "0.5", 4900, 1, [4900, 7500]),  # $124.00
        (8_000, 10_000, "0.5", 4900, 1, [4900, 0]),  # $49.00
        (80, 50, "200", 2000, 10, [20_000, 6000]),  # 10 seats at $20 and 30 GB at $2: $260
        (12_345, 10_000, "1", 4900, 1, [4900, 2345]),  # the seed's $49 and $0.01 a call after 10,000
        (120_000, 100_000, "0.024", 2200, 1, [2200, 480]),  # $22 and 20 x $0.24: $26.80
    ],
)
def test_a_fee_and_the_overage_stand_on_one_invoice(
    api: Api, quantity: int, free: int, price: str, fee: int, seats: int, lines: list[int]
) -> None:
    payment = charge(api, quantity=quantity, free=free, price=price, fee=fee, seats=seats)
    assert api.lines(payment) == lines
    assert payment["total_amount"] == sum(lines)


def test_the_seeds_2500_calls_cost_30_dollars_counted_one_by_one(api: Api) -> None:
    meter = api.meter()
    product = api.usage_product({"meter_id": meter, "price_per_unit": "2", "free_threshold": 1000})
    customer = api.customer()
    subscription = api.subscribe(customer, product)
    assert api.ingest(customer, *[{"endpoint": "/v1/users"}] * 2500) == 2500
    (running,) = api.get(f"/subscriptions/{subscription}/usage-history")["items"]
    assert running["meters"] == [
        {
            "id": meter,
            "name": "api.call",
            "consumed_units": "2500",
            "chargeable_units": "1500",
            "free_threshold": 1000,
            "price_per_unit": "2",
            "currency": "USD",
            "total_price": 3000,
        }
    ]
    payment = api.close(subscription)
    assert (payment["total_amount"], payment["charge_type"]) == (3000, "renewal")
    # What was billed is what the history goes on saying.
    assert api.get(f"/subscriptions/{subscription}/usage-history")["items"][-1] == running


def test_the_seeds_four_meter_product(api: Api) -> None:
    calls = api.meter()
    tokens = api.meter("sum", "tokens", event_name="token.usage")
    images = api.meter(event_name="image.generated")
    storage = api.meter("last", "gb", event_name="storage.snapshot")
    product = api.usage_product(
        {"meter_id": calls, "price_per_unit": "0.1", "free_threshold": 1000},
        {"meter_id": tokens, "price_per_unit": "0.001"},
        {"meter_id": images, "price_per_unit": "5", "free_threshold": 10},
        {"meter_id": storage, "price_per_unit": "10"},
    )
    customer = api.customer()
    subscription = api.subscribe(customer, product)
    api.ingest(customer, *[None] * 3000)
    api.ingest(customer, *[{"tokens": "1700", "prompt_tokens": "500"}] * 50, event_name="token.usage")
    api.ingest(customer, *[{"size": "1024x1024"}] * 100, event_name="image.generated")
    api.ingest(customer, {"gb": "9.50"}, {"gb": "5.00"}, event_name="storage.snapshot")
    payment = api.close(subscription)
    # (3,000 - 1,000) x 0.1; 85,000 x 0.001; (100 - 10) x 5; 5 x 10
    assert api.lines(payment) == [200, 85, 450, 50]
    assert payment["total_amount"] == 785


@pytest.mark.parametrize(
    ("aggregation", "key", "events", "consumed"),
    [
        ("count", None, [{"a": 1}, {"b": 2}, None], "3"),
        ("max", "count", [{"count": 15}, {"count": 23}, {"count": 18}], "23"),
        ("sum", "bytes", [{"bytes": 1073741824}, {"bytes": 536870912}], "1610612736"),
        ("sum", "tokens", [{"tokens": "1700"}], "1700"),
        ("last", "bytes", [{"bytes": "1"}, {"bytes": "5368709120"}], "5368709120"),
        ("sum", "tokens", [{"tokens": 0.1}] * 10, "1"),
        ("sum", "tokens", [{"tokens": 5}, {"tokens": "many"}, {"tokens": True}, {"other": 7}], "5"),
        ("max", "count", [], "0"),
        ("last", "count", [], "0"),
    ],
)
def test_aggregations_give_the_documented_quantity(
    api: Api, aggregation: str, key: str | None, events: list[dict[str, Any] | None], consumed: str
) -> None:
    meter = api.meter(aggregation, key)
    product = api.usage_product({"meter_id": meter, "price_per_unit": "1"})
    customer = api.customer()
    subscription = api.subscribe(customer, product)
    for event in events:  # one request each, so that "last" has an order of arrival
        api.ingest(customer, event)
    (running,) = api.get(f"/subscriptions/{subscription}/usage-history")["items"]
    assert [m["consumed_units"] for m in running["meters"]] == [consumed]


@pytest.mark.parametrize(
    ("currency", "price", "quantity", "amount"),
    [("JPY", "1.5", 3, 5), ("KWD", "0.25", 3, 1), ("EUR", "0.1", 14_000, 1400)],
)
def test_amounts_are_in_the_smallest_unit_of_any_currency(
    api: Api, currency: str, price: str, quantity: int, amount: int
) -> None:
    meter = api.meter("sum", "units")
    product = api.usage_product({"meter_id": meter, "price_per_unit": price}, currency=currency)
    customer = api.customer()
    subscription = api.subscribe(customer, product)
    api.ingest(customer, {"units": quantity})
    payment = api.close(subscription)
    assert (payment["total_amount"], payment["currency"]) == (amount, currency)
