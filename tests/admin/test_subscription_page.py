"""A subscription's page: what the next invoice will say to the cent, its discounts, its periods in words."""

import re
from decimal import Decimal
from html import unescape
from typing import Any

import pytest
import time_machine
from django.test import Client
from django.urls import reverse

from billing.balances import move_balance
from billing.credits import grant_credit
from billing.cycles import start_run, work_run
from billing.discounts import add_discount
from billing.models import Subscription
from billing.profiles import set_profile
from billing.taxes import create_tax_rate
from tests.admin.house import nothing_changes
from tests.base import acme, at, call_meter, invoices_of, send, subscribed, usage_product

pytestmark = pytest.mark.django_db
NOW = at("2026-01-20T12:00")


def page_of(client: Client, sold: Subscription, *, now: str = "2026-01-20T12:00") -> str:
    with time_machine.travel(at(now), tick=False):
        answer = client.get(reverse("admin:billing_subscription_change", args=[sold.pk]))
    assert answer.status_code == 200
    return unescape(" ".join(re.sub(r"<[^>]+>", " ", answer.content.decode()).split()))


def run(until: str) -> None:
    instant = at(until)
    work_run(run=start_run(trigger="command", until=instant, now=instant), clock=lambda: instant)


def command(client: Client, sold: Subscription, name: str, data: dict[str, Any], now: str) -> str:
    with time_machine.travel(at(now), tick=False):
        url = reverse(f"admin:billing_subscription_{name}", args=[sold.pk])
        return unescape(client.post(url, data, follow=True).content.decode())


def test_the_next_invoice_is_shown_as_the_closing_will_issue_it(root: Client) -> None:
    customer = acme(billing_address={"country": "DE"})
    create_tax_rate(name="VAT", percent=Decimal(20), country="DE")
    sold = subscribed(customer, usage_product((call_meter(), "2", 100), fee=1000, name="API"), on="2026-01-01")
    send(customer, 600, on="2026-01-10")
    grant_credit(customer=customer, name="Prepaid", amount=Decimal(500), currency="USD", now=NOW)
    move_balance(customer=customer, currency="USD", amount=Decimal(300), kind="adjustment", reason="gift", now=NOW)
    with nothing_changes("a subscription's page"):
        page = page_of(root, sold)
    # 500 calls at 2 cents and February's fee; less $5 of credit: $15.00; 20 % tax: $18.00; $3 of it are there.
    assert "API calls 1 Jan 2026 – 1 Feb 2026 $10.00" in page
    assert "API 1 Feb 2026 – 1 Mar 2026 $10.00" in page
    assert "Prepaid credit -$5.00 Tax $3.00 Total $18.00 Paid from the balance -$3.00 Due $15.00" in page
    run("2026-02-01T01:00")
    issued = invoices_of(sold)[-1]
    figures = (issued.subtotal, issued.credit, issued.tax, issued.total, issued.balance, issued.due)
    assert [int(figure) for figure in figures] == [2000, 500, 300, 1800, 300, 1500]


def test_a_draft_and_a_shared_invoice_are_said(root: Client) -> None:
    customer = acme()
    set_profile(customer=customer, needs_approval=True, combine_invoices=True)
    sold = subscribed(customer, usage_product((call_meter(), "2", 0)), on="2026-01-01")
    page = page_of(root, sold)
    assert "It is a draft first" in page
    assert "It shares one invoice" in page


def test_discounts_are_added_listed_in_order_and_ended(root: Client) -> None:
    customer = acme()
    sold = subscribed(customer, usage_product((call_meter(), "2", 0), fee=1000, name="API"), on="2026-01-01")
    send(customer, 500, on="2026-01-10")
    percent = {"name": "Launch", "kind": "percent", "value": "10", "applies_to": "all"}
    amount = {"name": "Loyal", "kind": "amount", "value": "1.50", "applies_to": "usage"}
    for data in (percent, amount):
        command(root, sold, "add_discount", data, "2026-01-20T12:00")
    page = page_of(root, sold)
    assert "1. Launch , 10 % off fee and usage from 1 Jan 2026, 00:00 Counts" in page
    assert "2. Loyal , $1.50 off the usage of each period from 1 Jan 2026, 00:00 Counts" in page
    assert "API calls 1 Jan 2026 – 1 Feb 2026 $7.50" in page  # 10.00 - 1.00 - 1.50
    assert "API 1 Feb 2026 – 1 Mar 2026 $9.00" in page  # 10.00 - 10 %
    assert "less $2.50 of discounts" in page
    command(root, sold, "end_discount", {"discount": sold.discounts.get(name="Launch").pk}, "2026-01-21")
    page = page_of(root, sold, now="2026-01-22")
    assert "until 21 Jan 2026, 00:00 Ends with this period" in page
    assert "API calls 1 Jan 2026 – 1 Feb 2026 $7.50" in page
    assert "API 1 Feb 2026 – 1 Mar 2026 $10.00" in page
    run("2026-02-01T01:00")
    assert "until 21 Jan 2026, 00:00 Ended" in page_of(root, sold, now="2026-02-02")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"value": "0"}, "A percentage lies above 0 and is 100 at most."),
        ({"value": "100.01"}, "A percentage lies above 0 and is 100 at most."),
        ({"value": ""}, "This field is required."),
        ({"name": ""}, "This field is required."),
        ({"kind": "amount", "value": "1.005", "applies_to": "fee"}, "USD"),
        ({"kind": "amount", "value": "5"}, "Say whether the amount is off the fee or off the usage."),
        ({"kind": "gift"}, "gift is not one of the available choices"),
        ({"starts_at": "2025-12-01T00:00"}, "A discount cannot begin before the running period"),
        ({"starts_at": "2026-02-01T00:00", "ends_at": "2026-02-01T00:00"}, "A discount ends after it begins."),
    ],
)
def test_a_discount_that_makes_no_sense_is_refused(data: dict[str, str], said: str, root: Client) -> None:
    sold = subscribed(acme(), usage_product((call_meter(), "2", 0)), on="2026-01-01")
    sent = {"name": "Launch", "kind": "percent", "value": "10", "applies_to": "all", **data}
    assert said in command(root, sold, "add_discount", sent, "2026-01-20T12:00")
    assert not sold.discounts.exists()


def test_no_discount_of_somebody_else_can_be_ended(root: Client) -> None:
    product = usage_product((call_meter(), "2", 0))
    mine, theirs = (subscribed(acme(email=f"{n}@acme.example"), product, on="2026-01-01") for n in "ab")
    add_discount(subscription=mine, name="Mine", percent=Decimal(5), now=NOW)
    other = add_discount(subscription=theirs, name="Theirs", percent=Decimal(5), now=NOW)
    assert "Select a valid choice" in command(root, mine, "end_discount", {"discount": other.pk}, "2026-01-21")
    other.refresh_from_db()
    assert other.ends_at is None


@pytest.mark.parametrize(("calls", "said"), [(100, "by now $3.00 would be added to reach it"), (250, "reached")])
def test_a_commitment_is_said_with_what_is_missing(calls: int, said: str, root: Client) -> None:
    customer = acme()
    product = usage_product((call_meter(), "2", 0), commitment=Decimal(500))
    sold = subscribed(customer, product, on="2026-01-01")
    send(customer, calls, on="2026-01-10")  # 100 x 2 cents: 3.00 are missing of 5.00
    assert f"Commitment $5.00 : {said}" in page_of(root, sold).replace("$5.00:", "$5.00 :")


def test_a_yearly_fee_with_monthly_usage_says_both_periods(root: Client) -> None:
    product = usage_product(
        (call_meter(), "2", 0),
        fee=12000,
        name="Yearly",
        payment_frequency_interval="Year",
        usage_frequency_count=1,
        usage_frequency_interval="Month",
    )
    customer = acme()
    sold = subscribed(customer, product, on="2026-01-01")
    send(customer, 100, on="2026-01-10")
    page = page_of(root, sold)
    assert "The fee is paid for 1 Jan 2026 – 1 Jan 2027 ; the next one begins on 1 Jan 2027, 00:00" in page
    # No fee of $120.00 is due in February.
    assert "API calls 1 Jan 2026 – 1 Feb 2026 $2.00 Total $2.00" in page


def test_a_partial_period_says_what_it_is_part_of(root: Client) -> None:
    sold = subscribed(acme(), usage_product((call_meter(), "2", 0), alignment="calendar"), on="2026-01-16")
    page = page_of(root, sold)
    assert "A partial period: it is part of 1 Jan 2026 – 1 Feb 2026" in page


def test_a_subscription_that_cannot_be_billed_says_why(root: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    sold = subscribed(acme(), usage_product((call_meter(), "2", 0)), on="2026-01-01")

    def broken(**given: Any) -> None:
        raise RuntimeError("the price is odd")

    monkeypatch.setattr("billing.admin.subscriptions.preview_subscription", broken)
    assert "The next invoice cannot be shown:" in page_of(root, sold)


def test_a_subscription_that_is_over_says_so(root: Client) -> None:
    sold = subscribed(acme(), usage_product((call_meter(), "2", 0)), on="2026-01-01")
    with time_machine.travel(at("2026-01-20"), tick=False):
        root.post(reverse("admin:billing_subscription_cancel", args=[sold.pk]), {})
    run("2026-01-20T02:00")
    assert "This subscription is over and billed" in page_of(root, sold)
