"""The page of corrections: what is pending and what it changes in money, before any of it is billed."""

import re
from decimal import Decimal
from html import unescape
from typing import Any

import pytest
import time_machine
from django.test import Client
from django.urls import reverse

from billing import corrections
from billing.cycles import start_run, work_run
from billing.models import BillingPeriod, IgnoredCorrection, Subscription
from billing.products import update_product
from billing.proposals import Corrections
from customers.models import Customer
from meters.models import Event
from meters.voids import void_event
from tests.admin.house import nothing_changes, operator
from tests.base import acme, at, globex, invoices_of, send, subscribed, token_meter, usage_product

pytestmark = pytest.mark.django_db
NOW = at("2026-02-20T12:00")
PENDING = "admin:billing_ignoredcorrection_pending"


def run(until: str) -> None:
    instant = at(until)
    work_run(run=start_run(trigger="command", until=instant, now=instant), clock=lambda: instant)


def tokens(customer: Customer, count: int, on: str, received: str | None = None) -> None:
    send(customer, on=on, name="token.usage", metadata={"tokens": count}, received=received)


def january(customer: Customer, **choice: Any) -> Subscription:
    """2 cents a token; 300 of them in January, which is closed."""
    product = usage_product((token_meter(), "2", 0), name=f"Plan of {customer.name}")
    update_product(product=product, **choice)
    sold = subscribed(customer, product, on="2026-01-01")
    tokens(customer, 300, "2026-01-10")
    run("2026-02-01T01:00")
    return sold


def shown(client: Client, name: str = PENDING) -> str:
    with time_machine.travel(NOW, tick=False):
        page = client.get(reverse(name)).content.decode()
    return unescape(" ".join(re.sub(r"<[^>]+>", " ", page).split()))


def test_it_shows_each_difference_with_its_period_units_and_effect(root: Client) -> None:
    sold = january(acme())
    tokens(sold.customer, 50, "2026-01-20", received="2026-02-10")
    page = shown(root)
    assert "+50 tokens" not in page
    assert "50 tokens +$1.00" in page  # 50 x 2 cents
    assert "350 tokens by now, which is $7.00; billed so far 300 for $6.00" in page
    assert "1 Jan 2026 – 1 Feb 2026" in page
    # February closes at its end plus the lateness window.
    assert "It becomes a line of the next invoice from 1 Mar 2026, 01:00 on" in page
    late = Event.objects.get(timestamp=at("2026-01-20"))
    assert f"{late.event_id} received" in page


def test_a_voided_event_is_named_and_lowers_the_total(root: Client) -> None:
    sold, other = january(acme()), january(globex())
    wrong = Event.objects.get(customer=sold.customer)
    void_event(event_id=wrong.event_id, reason="test data", author="ada", now=at("2026-02-10"))
    tokens(other.customer, 50, "2026-01-20", received="2026-02-10")
    page = shown(root)
    assert f"{wrong.event_id} voided 10 Feb 2026, 00:00" in page
    assert "-300 tokens -$6.00" in page
    assert "Differences 2 Effect before tax -$5.00" in page  # 1.00 - 6.00
    # What an operator sees first says the same.
    assert "2 corrections pending, -$5.00" in shown(root, "admin:index")


@pytest.mark.parametrize(
    ("choice", "late", "words"),
    [
        ("adjust", 50, "It becomes a line of the next invoice"),
        ("adjust", -1, "It becomes a line of the next invoice"),
        ("credit_note", 50, "It becomes a line of the next invoice"),
        ("credit_note", -1, "It is given back by a credit note"),
        ("ignore", 50, "It is recorded and not billed"),
        ("ignore", -1, "It is recorded and not billed"),
    ],
)
def test_it_says_what_the_product_does_with_it(root: Client, choice: str, late: int, words: str) -> None:
    sold = january(acme(), corrections=choice)
    if late > 0:
        tokens(sold.customer, late, "2026-01-20", received="2026-02-10")
    else:
        event = Event.objects.get(customer=sold.customer)
        void_event(event_id=event.event_id, reason="test", author="ada", now=at("2026-02-10"))
    assert words in shown(root)


def test_nothing_pending_is_said_and_nothing_is_on_the_start_page(root: Client) -> None:
    january(acme())
    assert "Nothing to correct" in shown(root)
    assert "pending" not in shown(root, "admin:index")


def test_looking_changes_nothing_and_the_closing_does_what_was_said(root: Client) -> None:
    sold = january(acme())
    tokens(sold.customer, 50, "2026-01-20", received="2026-02-10")
    with nothing_changes("the page of corrections"):
        assert "+$1.00" in shown(root)
    run("2026-03-01T01:00")
    assert [line.amount for line in invoices_of(sold)[-1].lines.filter(kind="adjustment")] == [Decimal(100)]
    assert "Nothing to correct" in shown(root)


def test_it_is_honest_about_what_it_did_not_compare(root: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    for customer in (acme(), globex()):
        tokens(january(customer).customer, 50, "2026-01-20", received="2026-02-10")
    monkeypatch.setattr("billing.admin.corrections.MOST_RATED", 1)
    monkeypatch.setattr("config.dashboard.MOST_COMPARED", 1)
    page = shown(root)
    assert "Only the first 1 periods that changed are compared here" in page
    assert "Differences 1+ Effect before tax +$1.00" in page
    assert "At least 1 correction pending, +$1.00" in shown(root, "admin:index")


def test_it_names_periods_whose_month_has_left_the_log(root: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    sold = january(acme())
    BillingPeriod.objects.filter(subscription=sold, closed_at__isnull=False).update(watch_until=NOW)

    def archived(subscription: Any, periods: list[BillingPeriod], **options: Any) -> Corrections:
        return Corrections((), frozenset(period.pk for period in periods))

    monkeypatch.setattr(corrections, "corrections_of", archived)
    page = shown(root)
    assert "1 period cannot be compared" in page
    assert "Acme: Plan of Acme , 1 Jan 2026 – 1 Feb 2026" in page
    assert "Nothing to correct" not in page
    assert "1 billed period cannot be compared" in shown(root, "admin:index")


def test_what_was_ignored_is_listed_with_its_record(root: Client) -> None:
    sold = january(acme(), corrections="ignore")
    tokens(sold.customer, 50, "2026-01-20", received="2026-02-10")
    run("2026-03-01T01:00")
    assert "Nothing to correct" in shown(root)
    listed = shown(root, "admin:billing_ignoredcorrection_changelist")
    assert "1 Jan 2026 – 1 Feb 2026 50 tokens $1.00" in listed
    record = IgnoredCorrection.objects.get()
    answer = root.get(reverse("admin:billing_ignoredcorrection_change", args=[record.pk])).content.decode()
    assert "+$1.00 not billed" in answer
    assert "350 tokens by now" in answer


def test_it_is_for_those_who_may_see_it(root: Client) -> None:
    tokens(january(acme()).customer, 50, "2026-01-20", received="2026-02-10")
    blind = operator("billing.view_invoice", views=False)
    assert blind.get(reverse(PENDING)).status_code == 403
    assert "pending" not in shown(blind, "admin:index")
    assert root.post(reverse(PENDING)).status_code == 405


def test_a_product_says_what_becomes_of_its_corrections(root: Client) -> None:
    sold = january(acme())
    product = sold.price.product
    page = root.get(reverse("admin:billing_product_change", args=[product.pk])).content.decode()
    assert "An adjustment line on the next invoice" in page
    edit = reverse("admin:billing_product_edit", args=[product.pk])
    texts = {"name": "Plan", "tax_category": "saas"}
    assert root.post(edit, {**texts, "corrections": "credit_note"}).status_code == 302
    product.refresh_from_db()
    assert (product.corrections, product.name) == ("credit_note", "Plan")
    # Whoever sends the form without it changes nothing; what is no choice is refused.
    assert root.post(edit, texts).status_code == 302
    answer = root.post(edit, {**texts, "corrections": "forget"})
    assert answer.status_code == 200
    assert "forget is not one of the available choices" in unescape(answer.content.decode())
    product.refresh_from_db()
    assert product.corrections == "credit_note"
    page = root.get(reverse("admin:billing_product_change", args=[product.pk])).content.decode()
    assert "A credit note where too much was billed" in page
