"""When a subscription is billed next, over REST: calendar periods, and usage billed more often than the fee."""

from datetime import UTC, datetime
from typing import Any

import pytest
import time_machine

from billing.models import Subscription
from tests.api.client import Api
from tests.base import acme, at, call_meter, subscribed, usage_product

pytestmark = pytest.mark.django_db


def shown(api: Api, sold: Subscription, *, on: str) -> dict[str, Any]:
    with time_machine.travel(at(on), tick=False):
        one = api.get(f"/subscriptions/{sold.public_id}").body
        (listed,) = api.get("/subscriptions").body["items"]
    for name in ("previous_billing_date", "next_billing_date", "recurring_pre_tax_amount"):
        assert listed[name] == one[name]
    return {
        "previous": datetime.fromisoformat(one["previous_billing_date"]).astimezone(UTC).date().isoformat(),
        "next": datetime.fromisoformat(one["next_billing_date"]).astimezone(UTC).date().isoformat(),
        "fee": one["recurring_pre_tax_amount"],
        "every": (one["payment_frequency_count"], one["payment_frequency_interval"]),
    }


def test_monthly_usage_in_a_yearly_plan_is_billed_monthly(api: Api) -> None:
    product = usage_product(
        (call_meter(), "2", 0),
        fee=12000,
        payment_frequency_interval="Year",
        usage_frequency_count=1,
        usage_frequency_interval="Month",
    )
    sold = subscribed(acme(), product, on="2026-01-31", quantity=2)
    assert shown(api, sold, on="2026-02-10") == {
        "previous": "2026-01-31",
        "next": "2026-02-28",
        "fee": 24000,  # 2 x $120.00 a year
        "every": (1, "Year"),
    }


def test_a_calendar_plan_ends_its_first_partial_period_with_the_month(api: Api) -> None:
    product = usage_product((call_meter(), "2", 0), fee=3100, alignment="calendar")
    sold = subscribed(acme(), product, on="2026-01-16")
    assert shown(api, sold, on="2026-01-20") == {
        "previous": "2026-01-16",
        "next": "2026-02-01",
        "fee": 3100,  # the whole fee; the first part of it was $16.00 of $31.00
        "every": (1, "Month"),
    }
    assert sold.invoices.get().total == 1600  # 31.00 / 31 x 16
