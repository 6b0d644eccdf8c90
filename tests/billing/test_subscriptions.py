"""Subscriptions: how they begin, which dates they keep, how they end."""

from decimal import Decimal
from typing import Any

import pytest

from billing.invoices import mark_paid
from billing.models import Subscription
from billing.subscriptions import (
    SubscriptionInactive,
    advance_periods,
    cancel_now,
    current_period,
    extend_expiry,
    revoke_cancellation,
    schedule_cancellation,
    subscribe,
)
from customers.errors import DomainError
from tests.base import acme, at, call_meter, invoices_of, subscribed, usage_product

D = Decimal
pytestmark = pytest.mark.django_db


def spans(subscription: Subscription) -> list[tuple[str, str]]:
    return [
        (f"{period.start:%Y-%m-%dT%H:%M}", f"{period.end:%Y-%m-%dT%H:%M}")
        for period in subscription.periods.order_by("start")
    ]


def test_periods_follow_the_anchor_over_short_months() -> None:
    subscription = subscribed(acme(), usage_product((call_meter(), "2", 0)), on="2026-01-31")
    advance_periods(now=at("2026-05-01"))
    assert spans(subscription) == [
        ("2026-01-31T00:00", "2026-02-28T00:00"),
        ("2026-02-28T00:00", "2026-03-31T00:00"),
        ("2026-03-31T00:00", "2026-04-30T00:00"),
        ("2026-04-30T00:00", "2026-05-31T00:00"),
    ]


@pytest.mark.parametrize(
    ("interval", "count", "ends"),
    [("Day", 1, "2026-02-01"), ("Week", 2, "2026-02-14"), ("Month", 3, "2026-04-30"), ("Year", 1, "2027-01-31")],
)
def test_a_period_lasts_as_long_as_the_price_says(interval: str, count: int, ends: str) -> None:
    product = usage_product(payment_frequency_interval=interval, payment_frequency_count=count)
    subscription = subscribed(acme(), product, on="2026-01-31")
    assert subscription.periods.get().end == at(ends)


def test_periods_keep_the_billing_time_zone_through_a_change_of_clocks(settings: Any) -> None:
    settings.BILLING_TIME_ZONE = "Europe/Berlin"
    subscription = subscribed(acme(), usage_product(), on="2026-03-01T00:00+01:00")
    advance_periods(now=at("2026-04-02"))
    assert spans(subscription) == [
        ("2026-02-28T23:00", "2026-03-31T22:00"),
        ("2026-03-31T22:00", "2026-04-30T22:00"),
    ]
    # A later change of the setting does not move what runs.
    settings.BILLING_TIME_ZONE = "America/New_York"
    advance_periods(now=at("2026-05-02"))
    assert spans(subscription)[-1] == ("2026-04-30T22:00", "2026-05-31T22:00")


def test_a_start_with_nothing_to_pay_is_a_payment_of_zero_without_an_invoice() -> None:
    subscription = subscribed(acme(), usage_product((call_meter(), "2", 0)), on="2026-01-01")
    payment = subscription.payments.get()
    assert (payment.amount, payment.status, payment.charge_type, payment.invoice) == (D(0), "succeeded", "new", None)
    assert invoices_of(subscription) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"quantity": 0},
        {"trial_period_days": -1},
        {"trial_period_days": 10_001},
        {"starts_at": at("1899-12-31")},
        {"starts_at": at("2037-01-01")},
        {"starts_at": at("1990-01-01")},
    ],
)
def test_a_start_that_makes_no_sense_is_refused_and_leaves_nothing(changes: dict[str, Any]) -> None:
    with pytest.raises(DomainError):
        subscribe(customer=acme(), product=usage_product(fee=100), now=at("2026-01-01"), **changes)
    assert Subscription.objects.count() == 0


def test_a_one_time_product_cannot_be_subscribed_to() -> None:
    product = usage_product(type="one_time_price", fee=100)
    with pytest.raises(DomainError, match="one-time"):
        subscribe(customer=acme(), product=product, now=at("2026-01-01"))


def test_the_last_period_is_cut_where_the_subscription_expires() -> None:
    product = usage_product(subscription_period_count=45, subscription_period_interval="Day")
    subscription = subscribed(acme(), product, on="2026-01-01")
    advance_periods(now=at("2026-06-01"))
    assert spans(subscription) == [("2026-01-01T00:00", "2026-02-01T00:00"), ("2026-02-01T00:00", "2026-02-15T00:00")]
    subscription.refresh_from_db()
    assert subscription.status == "expired"


def test_a_scheduled_cancellation_can_be_taken_back_until_it_happens() -> None:
    subscription = subscribed(acme(), usage_product(), on="2026-01-01")
    schedule_cancellation(subscription=subscription, now=at("2026-01-02"), reason="too dear", comment="sorry")
    assert (subscription.cancel_at_period_end, subscription.cancel_reason) == (True, "too dear")
    revoke_cancellation(subscription=subscription, now=at("2026-01-03"))
    assert (subscription.cancel_at_period_end, subscription.cancel_reason) == (False, None)
    advance_periods(now=at("2026-02-01"))
    subscription.refresh_from_db()
    assert subscription.status == "active"
    schedule_cancellation(subscription=subscription, now=at("2026-02-02"))
    with pytest.raises(SubscriptionInactive):
        revoke_cancellation(subscription=subscription, now=at("2026-03-01"))


def test_what_is_over_cannot_be_cancelled_again() -> None:
    subscription = subscribed(acme(), usage_product(), on="2026-01-01")
    cancel_now(subscription=subscription, now=at("2026-01-02"))
    for step in (cancel_now, schedule_cancellation, revoke_cancellation):
        with pytest.raises(SubscriptionInactive):
            step(subscription=subscription, now=at("2026-01-03"))
    assert subscription.cancelled_at == at("2026-01-02")


def test_cancelling_between_a_periods_end_and_its_closing_keeps_both_periods() -> None:
    subscription = subscribed(acme(), usage_product(), on="2026-01-01")
    cancel_now(subscription=subscription, now=at("2026-02-01T00:30"))
    assert spans(subscription) == [("2026-01-01T00:00", "2026-02-01T00:00"), ("2026-02-01T00:00", "2026-02-01T00:30")]


def test_cancelling_at_the_very_start_leaves_no_empty_period() -> None:
    subscription = subscribed(acme(), usage_product(), on="2026-01-01")
    cancel_now(subscription=subscription, now=at("2026-01-01"))
    assert spans(subscription) == []
    assert current_period(subscription=subscription, now=at("2026-01-02")) is None


def test_extending_a_life_that_cuts_the_running_period_lets_it_run_on() -> None:
    product = usage_product(subscription_period_count=45, subscription_period_interval="Day")
    subscription = subscribed(acme(), product, on="2026-01-01")
    advance_periods(now=at("2026-02-02"))
    assert spans(subscription)[-1] == ("2026-02-01T00:00", "2026-02-15T00:00")
    extend_expiry(subscription=subscription, count=1, interval="Year", now=at("2026-02-03"))
    advance_periods(now=at("2026-03-02"))
    assert spans(subscription)[1:] == [
        ("2026-02-01T00:00", "2026-03-01T00:00"),
        ("2026-03-01T00:00", "2026-04-01T00:00"),
    ]


def test_its_life_can_be_extended_and_never_shortened() -> None:
    product = usage_product(subscription_period_count=1, subscription_period_interval="Year")
    subscription = subscribed(acme(), product, on="2026-01-01")
    extend_expiry(subscription=subscription, count=2, interval="Year", now=at("2026-01-02"))
    assert subscription.expires_at == at("2028-01-01")
    for count, interval in [(2, "Year"), (1, "Year"), (0, "Year"), (9, "year"), (9000, "Year")]:
        with pytest.raises(DomainError):
            extend_expiry(subscription=subscription, count=count, interval=interval, now=at("2026-01-02"))
    subscription.refresh_from_db()
    assert subscription.expires_at == at("2028-01-01")


def test_a_life_with_a_trial_is_extended_from_where_it_was_counted() -> None:
    product = usage_product(trial_period_days=30, subscription_period_count=1, subscription_period_interval="Year")
    subscription = subscribed(acme(), product, on="2026-01-01")
    assert subscription.expires_at == at("2027-01-31")
    extend_expiry(subscription=subscription, count=2, interval="Year", now=at("2026-01-02"))
    assert subscription.expires_at == at("2028-01-31")


def test_a_cancellation_before_the_beginning_takes_the_first_fee_back() -> None:
    product = usage_product(fee=4900)
    subscription = subscribed(acme(), product, on="2026-01-01", starts_at=at("2026-02-01"))
    cancel_now(subscription=subscription, now=at("2026-01-05"))
    (invoice,) = invoices_of(subscription)
    assert (invoice.status, subscription.status, spans(subscription)) == ("void", "cancelled", [])


def test_a_paid_first_fee_of_what_never_began_waits_for_a_person() -> None:
    product = usage_product(fee=4900)
    subscription = subscribed(acme(), product, on="2026-01-01", starts_at=at("2026-02-01"))
    mark_paid(invoice=invoices_of(subscription)[0], now=at("2026-01-02"))
    cancel_now(subscription=subscription, now=at("2026-01-05"))
    subscription.refresh_from_db()
    assert "never began" in subscription.parked_reason
