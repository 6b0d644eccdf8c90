"""A customer's usage page for plans beyond a price per unit: in words, with what the plan costs at least."""

import re
from decimal import Decimal
from html import unescape

import pytest
import time_machine

from billing.credits import grant_credit
from billing.cycles import start_run, work_run
from billing.models import Subscription
from billing.pricing import ChargeRule, Graduated, Package, Tier
from billing.products import ChargeTerms, PriceTerms, create_product
from billing.taxes import create_tax_rate
from tests.base import acme, at, call_meter, send, subscribed, usage_product
from tests.portal.visit import come_in

pytestmark = pytest.mark.django_db
NOW = at("2026-02-20T12:00")
D = Decimal


def graduated(**changes: object) -> Subscription:
    """3 cents up to 100 calls, then 1 cent; at least $5.00 of usage a month. 250 calls in January and in February."""
    customer = acme(billing_address={"country": "DE"})
    rule = ChargeRule(Graduated((Tier(D(100), D(3)), Tier(None, D(1)))), **changes)  # type: ignore[arg-type]
    terms = PriceTerms(
        type="usage_based_price",
        currency="USD",
        payment_frequency_count=1,
        payment_frequency_interval="Month",
        subscription_period_count=20,
        subscription_period_interval="Year",
        charges=(ChargeTerms.of(call_meter(), rule),),
        commitment=D(500),
    )
    sold = subscribed(customer, create_product(name="Scale", terms=terms), on="2026-01-01")
    send(customer, 250, on="2026-01-10")
    instant = at("2026-02-01T01:00")
    work_run(run=start_run(trigger="command", until=instant, now=instant), clock=lambda: instant)
    send(customer, 250, on="2026-02-10")
    return sold


def text_of(sold: Subscription, path: str) -> str:
    with time_machine.travel(NOW, tick=False):
        page = come_in(sold.customer, on="2026-02-20T11:00").get(path).content.decode()
    return unescape(" ".join(re.sub(r"<[^>]+>", " ", page).split()))


def test_tiers_and_the_least_that_a_plan_costs_are_said_in_words() -> None:
    sold = graduated()
    home = text_of(sold, "/portal/")
    assert "100 × $0.03 + 150 × $0.01 = $4.50" in home
    assert "In each period usage comes to at least $5.00." in home
    assert "$4.50 so far" in home
    assert "before" not in home


def test_an_earlier_period_says_how_it_came_about_and_adds_up_with_its_commitment() -> None:
    sold = graduated()
    page = text_of(sold, f"/portal/plans/{sold.public_id}/")
    history = page.split("Earlier periods", 1)[1]
    assert "1 Jan 2026 – 31 Jan 2026 $5.00" in history
    assert "100 × $0.03 + 150 × $0.01 = $4.50" in history
    assert "Up to the plan’s commitment $0.50" in history
    assert sold.invoices.get().total == 500


def test_a_package_shows_the_free_units_that_its_price_has() -> None:
    customer = acme()
    rule = ChargeRule(Package(D(400), D(100)), D("50.5"))
    product = usage_product(name="Studio", charges=(ChargeTerms.of(call_meter(), rule),))
    sold = subscribed(customer, product, on="2026-01-01")
    send(customer, 250, on="2026-01-10")
    instant = at("2026-02-01T01:00")
    work_run(run=start_run(trigger="command", until=instant, now=instant), clock=lambda: instant)
    history = text_of(sold, f"/portal/plans/{sold.public_id}/").split("Earlier periods", 1)[1]
    assert "2 × $4.00 per 100 = $8.00" in history  # 250 - 50.5 = 199.5: two begun
    assert "250 calls 50.5 199.5" in history


def test_what_is_still_taken_off_or_added_is_said() -> None:
    sold = graduated()
    create_tax_rate(name="VAT", percent=D(19), country="DE")
    assert "$4.50 so far, before tax" in text_of(sold, "/portal/")
    grant_credit(customer=sold.customer, name="Prepaid", amount=D(100), currency="USD", now=at("2026-02-02"))
    assert "$4.50 so far, before prepaid credit and tax" in text_of(sold, "/portal/")
