"""The start page: figures that add up, what needs a person, and nothing for those who may not see it."""

from datetime import timedelta
from decimal import Decimal

import time_machine
from django.test import Client
from django.urls import reverse
from django_celery_beat.models import PeriodicTask

from billing.cycles import close_subscription
from billing.invoices import charge_once, mark_paid, void_invoice
from billing.models import BillingRun, Subscription
from billing.products import PriceTerms, create_product
from billing.reports import accrued_unbilled, last_days, money_now, month_start
from customers.models import Customer
from meters.models import Meter
from tests.admin.house import operator
from tests.base import acme, at, call_meter, globex, send, subscribed, token_meter, usage_product

NOW = at("2026-03-10T12:00")


def _once(customer: Customer, amount: int, on: str, currency: str = "USD") -> None:
    product = create_product(
        name="Setup", terms=PriceTerms(type="one_time_price", currency=currency, fixed_amount=Decimal(amount))
    )
    charge_once(customer=customer, product=product, now=at(on))


def test_the_figures_add_up_by_currency(db: None) -> None:
    customer = acme()
    _once(customer, 1000, "2026-02-01")  # last month, overdue since the 15th
    _once(customer, 200, "2026-03-01")  # this month, open
    _once(customer, 30, "2026-03-02", "JPY")
    _once(customer, 4, "2026-03-03")
    _once(customer, 500, "2026-03-04")
    paid, void = customer.invoices.order_by("-pk")[:2][::-1]
    mark_paid(invoice=paid, now=NOW)
    void_invoice(invoice=void, reason="twice", now=NOW)
    figures = money_now(now=NOW, time_zone="UTC")
    assert figures.invoiced_this_month == {"USD": Decimal(204), "JPY": Decimal(30)}  # 200 + 4; the void 500 is out
    assert figures.invoiced_last_month == {"USD": Decimal(1000)}
    assert figures.unpaid == {"USD": Decimal(1200), "JPY": Decimal(30)}  # 1000 + 200
    assert (figures.unpaid_count, figures.overdue_count) == (3, 1)
    assert figures.overdue == {"USD": Decimal(1000)}


def test_what_is_used_and_not_billed_is_rated_as_closing_will_rate_it(db: None) -> None:
    customer, other = acme(), globex()
    product = usage_product((call_meter(), "2", 1000))
    one = subscribed(customer, product, on="2026-03-01")
    two = subscribed(other, product, on="2026-03-01")
    send(customer, 1500, on="2026-03-05")
    send(other, 2500, on="2026-03-05")
    found = accrued_unbilled(now=NOW)
    assert found.totals == {"USD": Decimal(4000)}  # 500 x 2 + 1500 x 2
    assert [(s.pk, amount) for s, amount, _ in found.by_subscription] == [
        (two.pk, Decimal(3000)),
        (one.pk, Decimal(1000)),
    ]
    assert found.complete


def test_usage_waits_to_be_billed_until_its_period_is_closed_and_only_once(db: None) -> None:
    customer, other = acme(), globex()
    product = usage_product((call_meter(), "2", 0))
    ended = subscribed(customer, product, on="2026-02-10T11:30")  # over for half an hour, open to late events
    early = subscribed(other, product, on="2026-03-01")
    send(customer, 10, on="2026-02-20")
    send(other, 100, on="2026-03-05")
    assert accrued_unbilled(now=NOW).totals == {"USD": Decimal(220)}  # 10 x 2 + 100 x 2
    close_subscription(subscription_id=early.pk, until=at("2026-04-02"), now=NOW)
    found = accrued_unbilled(now=NOW)
    assert [(s.pk, amount) for s, amount, _ in found.by_subscription] == [(ended.pk, Decimal(20))]
    send(other, 3, on="2026-03-10T12:30")
    later = accrued_unbilled(now=NOW + timedelta(hours=1))
    assert [(s.pk, amount) for s, amount, _ in later.by_subscription] == [
        (ended.pk, Decimal(20)),
        (early.pk, Decimal(6)),  # what came after the early invoice
    ]
    assert later.totals == {"USD": Decimal(26)}


def test_days_and_months_are_those_of_the_billing_time_zone() -> None:
    # 00:30 in Berlin is still the day before in UTC.
    span = last_days(now=at("2026-03-31T22:30"), count=3, time_zone="Europe/Berlin")
    assert [str(day) for day in span.days] == ["2026-03-30", "2026-03-31", "2026-04-01"]
    assert (span.start, span.end) == (at("2026-03-29T22:00"), at("2026-04-01T22:00"))
    before = last_days(now=at("2026-03-31T22:30"), count=3, time_zone="Europe/Berlin", back=3)
    # The clock changes on the 29th: that span is an hour shorter.
    assert (before.start, before.end) == (at("2026-03-26T23:00"), span.start)
    assert month_start(now=at("2026-03-31T22:30"), time_zone="Europe/Berlin") == at("2026-03-31T22:00")
    assert month_start(now=at("2026-01-15"), time_zone="UTC", back=1) == at("2025-12-01")


def _start(client: Client) -> str:
    return " ".join(client.get(reverse("admin:index")).content.decode().split())


def test_it_says_what_needs_a_person(db: None, root: Client) -> None:
    with time_machine.travel(NOW, tick=False):
        customer = acme()
        tokens = token_meter()
        subscription = subscribed(customer, usage_product((tokens, "1", 0)), on="2026-03-01")
        send(customer, 2, on="2026-03-05", name="token.usage", metadata={"tokens": "many"})
        send(customer, 3, on="2026-03-05", name="api.cal")
        _once(customer, 1000, "2026-02-01")
        Subscription.objects.filter(pk=subscription.pk).update(parked_at=NOW, parked_reason="odd")
        PeriodicTask.objects.update(enabled=False)
        page = _start(root)
    assert "1 subscription parked" in page
    assert "1 invoice overdue" in page
    assert "2 events not counted by “Tokens”" in page
    assert "3 events named “api.cal” are read by no meter" in page
    assert "There is no API key" in page
    # The menu says it on every page.
    assert page.count('<span class="mb-nav-badge">1</span>') == 2


def test_it_names_a_meter_that_cannot_be_rolled_up(db: None, root: Client) -> None:
    call_meter(name="Calls")
    Meter.objects.filter(pk=call_meter(name="Odd").pk).update(roll_failure="index row size exceeds")
    page = _start(root)
    assert "“Odd” is not rolled up" in page
    assert "index row size exceeds" in page
    assert "“Calls” is not rolled up" not in page


def test_it_notices_that_nobody_closes_periods(db: None, root: Client) -> None:
    words = "Billing periods are waiting to be closed"
    subscribed(acme(), usage_product((call_meter(), "2", 0)), on="2026-02-10")
    # The period ends on 10 March 00:00; it can be closed from 01:00, and should be soon after.
    with time_machine.travel(at("2026-03-10T01:10"), tick=False):
        assert words not in _start(root)
    with time_machine.travel(at("2026-03-10T01:20"), tick=False):
        assert words in _start(root)


def test_with_nothing_to_do_it_says_so(db: None, root: Client) -> None:
    PeriodicTask.objects.update(enabled=True)
    assert "No subscription is parked, no invoice is overdue, and every event is read." in _start(root)


def test_a_person_sees_the_parts_that_they_may_see(db: None) -> None:
    send(acme(name="Very Secret Ltd"), 3, on=NOW - timedelta(days=1))
    with time_machine.travel(NOW, tick=False):
        nobody, metering = _start(operator(views=False)), _start(operator("meters.view_meter", views=False))
        billing = _start(operator("billing.view_invoice", views=False))
    assert "Your account sees no part of the business yet." in nobody
    assert "Very Secret" not in nobody
    assert "Very Secret" in metering
    assert "Waiting for money" not in metering
    assert "Waiting for money" in billing
    assert "Event volume" not in billing


def test_runs_are_shown_with_their_colour_and_words(db: None, root: Client) -> None:
    subscription = subscribed(acme(), usage_product((call_meter(), "2", 0)), on="2026-03-01")
    good = BillingRun.objects.create(trigger="schedule", until=NOW, started_at=NOW, finished_at=NOW)
    good.items.create(subscription=subscription, outcome="closed")
    bad = BillingRun.objects.create(trigger="schedule", until=NOW, started_at=NOW, finished_at=NOW)
    bad.items.create(subscription=subscription, outcome="parked", reason="odd")
    page = _start(root)
    assert "0 invoices, 1 parked" in page
    assert page.index(reverse("admin:billing_billingrun_change", args=[good.pk])) < page.index(
        reverse("admin:billing_billingrun_change", args=[bad.pk])
    )
