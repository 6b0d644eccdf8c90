"""Products and price versions: what a price may say, and that nobody's terms change under them."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction

from billing.models import Price, Product
from billing.products import (
    ChargeTerms,
    PriceTerms,
    archive_product,
    change_price,
    create_product,
    terms_of,
    unarchive_product,
    update_product,
)
from billing.subscriptions import subscribe
from customers.errors import DomainError
from meters.meters import archive_meter, unarchive_meter
from tests.base import acme, at, call_meter, subscribed, usage_product

D = Decimal
pytestmark = pytest.mark.django_db

MONTHLY: dict[str, Any] = {
    "type": "usage_based_price",
    "currency": "USD",
    "payment_frequency_count": 1,
    "payment_frequency_interval": "Month",
    "subscription_period_count": 20,
    "subscription_period_interval": "Year",
}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"type": "free"}, "type"),
        ({"currency": "usd"}, "not a currency"),
        ({"currency": "XXQ"}, "not a currency"),
        ({"fixed_amount": D("-1")}, "whole number of minor units"),
        ({"fixed_amount": D("0.5")}, "whole number of minor units"),
        ({"fixed_amount": D("NaN")}, "whole number of minor units"),
        ({"fixed_amount": D("1e16")}, "whole number of minor units"),
        ({"payment_frequency_count": 0}, "count of 1 or more"),
        ({"payment_frequency_count": None}, "count of 1 or more"),
        ({"payment_frequency_interval": "month"}, "interval"),
        ({"payment_frequency_interval": None}, "interval"),
        ({"subscription_period_count": 2, "subscription_period_interval": "Week"}, "at least as long"),
        ({"subscription_period_count": 1000}, "hundred years"),
        ({"trial_period_days": -1}, "trial"),
        ({"trial_period_days": 10_001}, "trial"),
    ],
)
def test_terms_that_make_no_sense_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(DomainError, match=says):
        PriceTerms(**{**MONTHLY, **changes})


@pytest.mark.parametrize(
    ("price", "allowed"),
    [
        ("0.000000000001", True),
        ("99999.999999999999", True),
        ("0.1000000000000000000", True),
        ("0", False),
        ("-1", False),
        ("100000", False),
        ("0.0000000000001", False),
        ("NaN", False),
        ("Infinity", False),
    ],
)
def test_a_price_per_unit_has_5_digits_before_and_12_after_the_point(price: str, allowed: bool) -> None:
    meter = call_meter()
    if allowed:
        product = create_product(name="P", terms=PriceTerms(**MONTHLY, charges=(ChargeTerms(meter, D(price)),)))
        assert product.current_price().charges.get().price_per_unit == D(price)
    else:
        with pytest.raises(DomainError, match="price per unit"):
            ChargeTerms(meter, D(price))


@pytest.mark.parametrize(("threshold", "allowed"), [(0, True), (2**63 - 1, True), (-1, False), (2**63, False)])
def test_a_free_threshold_has_64_bits(threshold: int, allowed: bool) -> None:
    meter = call_meter()
    if allowed:
        charges = (ChargeTerms(meter, D(1), threshold),)
        product = create_product(name="P", terms=PriceTerms(**MONTHLY, charges=charges))
        assert product.current_price().charges.get().free_threshold == threshold
    else:
        with pytest.raises(DomainError, match="free threshold"):
            ChargeTerms(meter, D(1), threshold)


def test_a_product_has_at_most_ten_meters_and_each_once() -> None:
    meters = [call_meter(name=f"m{n}", event_name=f"e{n}") for n in range(11)]
    charges = tuple(ChargeTerms(meter, D(1)) for meter in meters)
    product = create_product(name="Ten", terms=PriceTerms(**MONTHLY, charges=charges[:10]))
    assert [c.meter for c in product.current_price().charges.all()] == meters[:10]
    with pytest.raises(DomainError, match="at most 10"):
        PriceTerms(**MONTHLY, charges=charges)
    with pytest.raises(DomainError, match="once") as caught:
        PriceTerms(**MONTHLY, charges=(charges[0], charges[0]))
    assert caught.value.code == "DUPLICATE_METER_IDS_IN_REQUEST"


def test_only_a_usage_price_has_meters() -> None:
    charge = ChargeTerms(call_meter(), D(1))
    with pytest.raises(DomainError, match="neither meters nor a trial"):
        PriceTerms(type="one_time_price", currency="USD", charges=(charge,))
    with pytest.raises(DomainError, match="Only a usage-based price"):
        PriceTerms(**{**MONTHLY, "type": "recurring_price"}, charges=(charge,))


def test_an_archived_meter_gets_no_new_products_and_running_ones_go_on() -> None:
    meter = call_meter()
    product = usage_product((meter, "2", 0))
    archive_meter(meter=meter, now=at("2026-01-01"))
    meter.refresh_from_db()
    with pytest.raises(DomainError) as caught:
        usage_product((meter, "2", 0), name="Another")
    assert (caught.value.code, caught.value.status) == ("METER_IS_DELETED", 410)
    assert Product.objects.count() == 1
    terms = terms_of(product.current_price())
    charges = (ChargeTerms(meter, D(3)),)
    assert change_price(product=product, terms=replace(terms, charges=charges)).version == 2
    unarchive_meter(meter=meter)
    meter.refresh_from_db()
    usage_product((meter, "2", 0), name="Another")


def test_an_edit_makes_a_version_and_running_subscriptions_keep_theirs() -> None:
    product = usage_product((call_meter(), "2", 1000), fee=4900)
    before = subscribed(acme(), product, on="2026-01-01")
    terms = terms_of(product.current_price())
    second = change_price(product=product, terms=replace(terms, fixed_amount=D(5900)))
    after = subscribe(customer=before.customer, product=product, now=at("2026-01-02"))
    before.refresh_from_db()
    assert [(p.version, p.fixed_amount) for p in product.prices.order_by("version")] == [(1, D(4900)), (2, D(5900))]
    assert (before.price.version, after.price) == (1, second)


def test_an_edit_that_changes_nothing_makes_no_version() -> None:
    product = usage_product((call_meter(), "2", 1000))
    assert change_price(product=product, terms=terms_of(product.current_price())).version == 1
    assert Price.objects.count() == 1


def test_an_archived_product_cannot_be_subscribed_to_and_its_subscriptions_go_on() -> None:
    product = usage_product((call_meter(), "2", 0))
    running = subscribed(acme(), product, on="2026-01-01")
    archive_product(product=product, now=at("2026-01-02"))
    with pytest.raises(DomainError) as caught:
        subscribe(customer=running.customer, product=product, now=at("2026-01-03"))
    assert (caught.value.code, caught.value.status) == ("PRODUCT_IS_DELETED", 410)
    running.refresh_from_db()
    assert running.status == "active"
    unarchive_product(product=product)
    subscribe(customer=running.customer, product=product, now=at("2026-01-03"))


def test_texts_can_change_and_nothing_else_can_through_them() -> None:
    product = usage_product()
    update_product(product=product, name="New name", description=None)
    product.refresh_from_db()
    assert (product.name, product.description) == ("New name", None)
    with pytest.raises(TypeError):
        update_product(product=product, public_id="pdt_other")


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE billing_price SET fixed_amount = 1",
        "UPDATE billing_charge SET price_per_unit = 1",
        "UPDATE billing_charge SET free_threshold = 1",
        "DELETE FROM billing_charge",
    ],
)
def test_the_database_refuses_to_change_a_price_version(sql: str) -> None:
    product = usage_product((call_meter(), "2", 1000), fee=4900)
    before = terms_of(product.current_price())
    with pytest.raises(IntegrityError, match="never changes"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(sql)
    assert terms_of(product.current_price()) == before
