"""What the admin says of a period that was billed while it still runs: told ahead, owed once."""

import re
from html import unescape

import time_machine
from django.urls import reverse

from billing.cycles import close_subscription
from billing.models import Subscription
from billing.subscriptions import schedule_cancellation
from tests.admin.house import operator
from tests.base import acme, at, call_meter, send, subscribed, usage_product

NOW = "2026-11-23T12:00"
AHEAD = "2026-12-25T12:00"


def _page(url: str) -> str:
    answer = operator().get(url)
    assert answer.status_code == 200
    body = re.sub(r"<(style|script)\b.*?</\1>", " ", answer.content.decode(), flags=re.S)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", body)).split())


def _used() -> Subscription:
    customer = acme()
    subscription = subscribed(customer, usage_product((call_meter(), "2", 1000)), on=NOW)
    send(customer, 2500, on=NOW)  # 1500 x 2 = 3000
    return subscription


def test_a_period_billed_ahead_says_so_and_asks_only_for_what_came_since(db: None) -> None:
    with time_machine.travel(at(NOW), tick=False):
        subscription = _used()
        (invoice,) = close_subscription(subscription_id=subscription.pk, until=at(AHEAD), now=at(NOW))
        send(subscription.customer, 50, on=NOW)
        for url in (
            reverse("admin:billing_subscription_change", args=[subscription.pk]),
            reverse("admin:customers_customer_change", args=[subscription.customer_id]),
        ):
            page = _page(url)
            assert f"billed early on {invoice.number} ; later events are added to the next invoice." in page
            assert "Usage so far $31.00 Not billed yet $1.00" in page
            assert "billed after the period ends" not in page
        page = _page(reverse("admin:billing_subscription_change", args=[subscription.pk]))
        assert "API calls, adjustment 23 Nov 2026 – 23 Dec 2026 $1.00 Total $1.00" in page
        assert "The running period was billed early" in page
        assert "is over" not in page.split("Next invoice")[1]
        assert "To come" in page  # the period after it
        assert "Billed early" in page


def test_a_subscription_that_is_over_and_billed_says_that(db: None) -> None:
    with time_machine.travel(at(NOW), tick=False):
        subscription = _used()
        schedule_cancellation(subscription=subscription, now=at(NOW))
        close_subscription(subscription_id=subscription.pk, until=at(AHEAD), now=at(NOW))
    with time_machine.travel(at("2027-01-05"), tick=False):
        page = _page(reverse("admin:billing_subscription_change", args=[subscription.pk]))
        assert "This subscription is over and billed; no further invoice comes." in page
        assert "Usage of the period $30.00 Not billed yet $0.00" in page
