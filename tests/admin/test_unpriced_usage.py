"""Usage that its price says nothing of: every page opens, says so, and shows the rest; closing parks that one."""

import re
from decimal import Decimal
from html import unescape

import pytest
import time_machine
from django.test import Client
from django.urls import reverse

from billing.corrections import pending_corrections
from billing.cycles import start_run, work_run
from billing.models import Subscription
from billing.pricing import ChargeRule, Graduated, Tier
from billing.products import ChargeTerms
from tests.api.client import api
from tests.base import acme, at, call_meter, globex, send, subscribed, usage_product
from tests.portal.visit import come_in

pytestmark = pytest.mark.django_db
D = Decimal
WHY = "The last tier ends at 100, and 250 units were used"


def story(calls: int = 250) -> Subscription:
    """3 cents a call up to 100 and nothing said of more; Globex pays 2 cents a call and is well."""
    calls_meter = call_meter()
    bounded = usage_product(
        name="Bounded", charges=(ChargeTerms.of(calls_meter, ChargeRule(Graduated((Tier(D(100), D(3)),)))),)
    )
    sold = subscribed(acme(), bounded, on="2026-01-01")
    well = subscribed(globex(), usage_product((calls_meter, "2", 0), name="Well"), on="2026-01-01")
    send(sold.customer, calls, on="2026-01-10")
    send(well.customer, 50, on="2026-01-10")
    return sold


def text_of(client: Client, url: str) -> str:
    with time_machine.travel(at("2026-01-20"), tick=False):
        answer = client.get(url)
    assert answer.status_code == 200, url
    return unescape(" ".join(re.sub(r"<[^>]+>", " ", answer.content.decode()).split()))


def test_the_start_page_names_it_and_counts_the_others(root: Client) -> None:
    story()
    page = text_of(root, reverse("admin:index"))
    assert "The usage of Acme has no price" in page
    assert WHY in page
    assert "Used, not billed yet $1.00" in page  # Globex, 50 x 2 cents


def test_its_pages_say_why(root: Client) -> None:
    sold = story()
    page = text_of(root, reverse("admin:billing_subscription_change", args=[sold.pk]))
    assert "The usage of this period has no price." in page
    assert WHY in page
    assert WHY in text_of(root, reverse("admin:customers_customer_change", args=[sold.customer.pk]))


def test_the_customer_reads_that_somebody_looks_into_it() -> None:
    sold = story()
    with time_machine.travel(at("2026-01-20"), tick=False):
        visitor = come_in(sold.customer, on="2026-01-19T23:00")
    for path in ("/portal/", f"/portal/plans/{sold.public_id}/"):
        page = text_of(visitor, path)
        assert "what your usage costs cannot be shown at the moment" in page
        assert "Nothing is running" not in page
        assert "tier" not in page


def test_the_api_says_it_by_a_code() -> None:
    sold = story()
    with time_machine.travel(at("2026-01-20"), tick=False):
        answer = api().get(f"/subscriptions/{sold.public_id}/usage-history")
    assert (answer.status, answer.body["code"]) == (409, "USAGE_NOT_PRICEABLE")
    assert WHY in answer.body["message"]


def test_closing_parks_it_with_the_reason_and_bills_the_others() -> None:
    sold = story()
    instant = at("2026-02-01T01:00")
    run = start_run(trigger="command", until=instant, now=instant)
    work_run(run=run, clock=lambda: instant)
    sold.refresh_from_db()
    assert WHY in sold.parked_reason
    assert [int(invoice.total) for invoice in run.invoices.all()] == [100]


def test_a_correction_that_has_no_price_is_named_beside_the_others(root: Client) -> None:
    sold = story(calls=90)
    instant = at("2026-02-01T01:00")
    work_run(run=start_run(trigger="command", until=instant, now=instant), clock=lambda: instant)
    send(sold.customer, 160, on="2026-01-20", received="2026-02-10")
    send(Subscription.objects.exclude(pk=sold.pk).get().customer, 10, on="2026-01-20", received="2026-02-10")
    pending = pending_corrections()
    assert [(found.subscription.price.product.name, int(found.amount)) for found in pending.corrections] == [
        ("Well", 20)  # 10 x 2 cents
    ]
    assert [(period.subscription, WHY in reason) for period, reason in pending.unpriced] == [(sold, True)]
    page = text_of(root, reverse("admin:billing_ignoredcorrection_pending"))
    assert WHY in page
    assert "+$0.20" in page
