"""What a customer reads: the running period, earlier ones, and their invoices."""

import csv
import re
from datetime import timedelta
from decimal import Decimal
from html import unescape
from io import StringIO

import pytest
import time_machine
from django.test import Client

from billing.cycles import close_subscription
from billing.invoices import charge_once, mark_paid, void_invoice
from billing.models import Interval
from billing.products import PriceTerms, create_product
from customers.models import Customer
from meters.models import Meter
from tests.base import acme, at, call_meter, send, subscribed, usage_product
from tests.portal.visit import billed, come_in

pytestmark = pytest.mark.django_db

NOW = "2026-02-10T12:00"


def text_of(html: str) -> str:
    """What a reader sees, in one line."""
    body = re.sub(r"<(title|desc|style|script)\b.*?</\1>", " ", html, flags=re.S)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", body)).split())


def read(client: Client, path: str) -> str:
    answer = client.get(path)
    assert answer.status_code == 200, path
    return text_of(answer.content.decode())


@pytest.fixture
def customer() -> object:
    with time_machine.travel(at(NOW), tick=False):
        yield acme()


def test_the_running_period_says_money_first_then_each_meter(customer: Customer) -> None:
    billed(customer)
    send(customer, 720, on="2026-02-03T09:00")
    page = read(come_in(customer, on=NOW), "/portal/")
    assert "1 Feb 2026 – 28 Feb 2026 · 19 days left" in page
    assert "Usage so far $0.00 Plus the fee for the next period $49.00" in page
    assert "Next invoice, on 1 March 2026 $49.00 so far" in page
    assert "As of 10 February 2026, 12:00 (UTC)" in page
    assert "AI platform calls $0.00 720 calls 720 of 1,000 free calls used" in page
    send(customer, 380, on="2026-02-10T11:00")
    page = read(come_in(customer, on=NOW), "/portal/")
    assert "Usage so far $2.00" in page  # 1100 - 1000 = 100 x 2
    assert "All 1,000 free calls used, 100 more at $0.02 each" in page
    assert "$51.00 so far" in page


def test_a_meter_without_free_units_names_its_price(customer: Customer) -> None:
    subscribed(customer, usage_product((call_meter(), "0.1", 0)), on="2026-02-01")
    send(customer, 12_340, on="2026-02-03T09:00")
    page = read(come_in(customer, on=NOW), "/portal/")
    assert "API calls $12.34 12,340 calls $0.001 each" in page


def test_each_day_has_a_bar_and_a_row(customer: Customer) -> None:
    billed(customer)
    send(customer, 30, on="2026-02-03T09:00")
    send(customer, 60, on="2026-02-10T11:00")
    html = come_in(customer, on=NOW).get("/portal/").content.decode()
    assert "<title>3 Feb: 30 calls</title>" in html
    assert "<title>10 Feb: 60 calls</title>" in html
    chart = re.search(r"<svg role=\"img\".*?</svg>", html, re.S)
    assert chart
    assert chart.group().count("<rect") == 2
    assert 'viewBox="0 0 280 100"' in chart.group()  # room for all 28 days
    assert "Highest on 10 Feb: 60 calls." in chart.group()
    table = text_of(html[html.index("Show as a table") :].split("</table>")[0])
    assert table.endswith("4 Feb 0 3 Feb 30 2 Feb 0 1 Feb 0")
    assert "11 Feb" not in table  # still to come


def test_the_days_are_those_of_the_billing_time_zone(customer: Customer) -> None:
    product = usage_product((call_meter(), "1", 0))
    subscribed(customer, product, on="2026-02-01T08:00+00:00", time_zone="Asia/Tokyo")
    send(customer, 5, on="2026-02-03T16:00+00:00")  # one in the morning of the 4th there
    html = come_in(customer, on=NOW).get("/portal/").content.decode()
    assert "<title>4 Feb: 5 calls</title>" in html
    assert "As of 10 February 2026, 21:00 (Asia/Tokyo)" in text_of(html)


def test_earlier_periods_fold_out_with_what_was_billed(customer: Customer) -> None:
    subscription, invoice = billed(customer)
    page = read(come_in(customer, on=NOW), f"/portal/plans/{subscription.public_id}/")
    assert "1 Jan 2026 – 31 Jan 2026 $30.40" in page
    assert "AI platform calls 2,500 calls 1,000 1,500 $0.02 $30.00" in page
    assert "AI platform tokens 50,000 tokens 10,000 40,000 $0.00001 $0.40" in page
    assert f"Invoice {invoice.number}" in page


def test_a_first_period_says_what_will_come(customer: Customer) -> None:
    subscription = subscribed(customer, usage_product((call_meter(), "1", 0)), on="2026-02-01")
    page = read(come_in(customer, on=NOW), f"/portal/plans/{subscription.public_id}/")
    assert "The first period is still running." in page


def test_a_plan_that_ends_with_its_period_asks_no_further_fee(customer: Customer) -> None:
    subscription, _invoice = billed(customer)
    subscription.cancel_at_period_end = True
    subscription.save()
    page = read(come_in(customer, on=NOW), "/portal/")
    assert "Ends with this period" in page
    assert "Last invoice, on 1 March 2026 $0.00" in page
    assert "Plus the fee" not in page


def test_a_customer_without_anything_is_told_what_to_expect(customer: Customer) -> None:
    client = come_in(customer, on=NOW)
    assert "You have no running plan at the moment." in read(client, "/portal/")
    assert "Your first invoice appears here when a billing period closes" in read(client, "/portal/invoices/")


def test_invoices_say_their_status_in_a_word(customer: Customer) -> None:
    subscription, invoice = billed(customer)
    client = come_in(customer, on=NOW)
    first = subscription.invoices.get(reason="start")
    listed = read(client, "/portal/invoices/")
    # Issued on 1 January with fourteen days to pay, and nine days ago.
    assert f"{first.number} 1 January 2026 1 Jan 2026 – 31 Jan 2026 Overdue $49.00" in listed
    assert f"{invoice.number} 1 February 2026 1 Jan 2026 – 31 Jan 2026 Open $79.40" in listed
    assert listed.index(invoice.number or "") < listed.index(first.number or "")
    home = read(client, "/portal/")
    assert f"Overdue {first.number} : $49.00 , due 15 January 2026" in home
    mark_paid(invoice=first, now=at(NOW))
    void_invoice(invoice=invoice, reason="a secret between clerks", now=at(NOW))
    listed = read(client, "/portal/invoices/")
    assert "Paid $49.00" in listed
    assert "Void $79.40" in listed
    assert str(first.number) not in read(client, "/portal/").split("AI platform")[0]
    page = read(client, f"/portal/invoices/{invoice.public_id}/")
    assert "This invoice was withdrawn. Please do not pay it." in page
    assert "secret" not in page


def test_an_invoice_page_explains_each_line(customer: Customer) -> None:
    _subscription, invoice = billed(customer)
    page = read(come_in(customer, on=NOW), f"/portal/invoices/{invoice.public_id}/")
    assert "2,500 calls − 1,000 free = 1,500 × $0.02 = $30.00" in page
    assert "50,000 tokens − 10,000 free = 40,000 × $0.00001 = $0.40" in page
    assert "Subtotal $79.40 Tax $0.00 Total USD $79.40 Amount due $79.40" in page
    assert "$79.40 due 15 February 2026" in page


def test_names_are_shown_as_they_are_and_run_nowhere(customer: Customer) -> None:
    nasty = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'{{7*7}}"
    customer.name = nasty
    customer.save()
    subscription, invoice = billed(customer, name=nasty)
    client = come_in(customer, on=NOW)
    for path in (
        "/portal/",
        f"/portal/plans/{subscription.public_id}/",
        "/portal/invoices/",
        f"/portal/invoices/{invoice.public_id}/",
    ):
        html = client.get(path).content.decode()
        assert "<script" not in html, path
        assert "<img" not in html, path
        assert "&lt;script&gt;alert(1)" in html, path
        assert "{{7*7}}" in html, path


def rows_of(client: Client, period_id: int) -> list[list[str]]:
    answer = client.get(f"/portal/periods/{period_id}/usage.csv")
    assert answer["Content-Type"] == "text/csv; charset=utf-8"
    assert answer["Content-Disposition"].startswith('attachment; filename="usage-2026-01-01-to-2026-02-01')
    return list(csv.reader(StringIO(answer.content.decode())))


def test_the_csv_of_a_period_adds_up_to_its_invoice_lines(customer: Customer) -> None:
    subscription, invoice = billed(customer)
    send(customer, 1, on="2026-02-01T00:00")  # the next period's
    period = subscription.periods.get(start=at("2026-01-01"))
    head, *rows = rows_of(come_in(customer, on=NOW), period.pk)
    assert head == ["day", "meter", "quantity", "unit", "events"]
    for line in invoice.lines.filter(kind="usage"):
        days = [row for row in rows if row[1] == line.description and re.fullmatch(r"\d{4}-\d\d-\d\d", row[0])]
        assert [row[0] for row in days] == [f"2026-01-{day:02}" for day in range(1, 32)]
        assert sum(int(row[2]) for row in days) == line.quantity
        total = ["total", line.description, str(line.quantity), line.measurement_unit, ""]
        assert total in rows
        assert [f"billed on {invoice.number}", *total[1:]] in rows


def test_the_csv_of_a_running_period_ends_today(customer: Customer) -> None:
    subscription = subscribed(customer, usage_product((call_meter(), "1", 0)), on="2026-01-31")
    send(customer, 3, on="2026-02-09T00:00")
    period = subscription.periods.get()
    answer = come_in(customer, on=NOW).get(f"/portal/periods/{period.pk}/usage.csv")
    rows = list(csv.reader(StringIO(answer.content.decode())))
    assert rows[1][0] == "2026-01-31"
    assert rows[-2] == ["2026-02-10", "API calls", "0", "calls", "0"]
    assert rows[-1] == ["total", "API calls", "3", "calls", ""]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_no_cell_of_a_csv_is_a_formula(customer: Customer, start: str) -> None:
    name = f"{start}HYPERLINK(1)"
    meter = call_meter(measurement_unit="=1+1")
    Meter.objects.filter(pk=meter.pk).update(name=name)
    subscription = subscribed(customer, usage_product((meter, "1", 0)), on="2026-02-01")
    answer = come_in(customer, on=NOW).get(f"/portal/periods/{subscription.periods.get().pk}/usage.csv")
    for row in list(csv.reader(StringIO(answer.content.decode(), newline="")))[1:]:
        assert row[1] == f"'{name}"
        assert row[3] == "'=1+1"


def test_a_long_period_is_drawn_by_its_latest_days(customer: Customer) -> None:
    product = usage_product((call_meter(), "1", 0), payment_frequency_interval=Interval.YEAR, name="Yearly")
    subscribed(customer, product, on="2025-03-01")
    send(customer, 5, on=at(NOW) - timedelta(days=1))
    html = come_in(customer, on=NOW).get("/portal/").content.decode()
    found = re.search(r'viewBox="0 0 (\d+) 100"', html)
    assert found
    assert int(found.group(1)) == 93 * 10
    assert "<title>9 Feb: 5 calls</title>" in html


def test_lists_turn_their_pages_and_survive_odd_page_numbers(customer: Customer) -> None:
    terms = PriceTerms(type="one_time_price", currency="USD", fixed_amount=Decimal(500))
    product = create_product(name="Setup", terms=terms)
    for _ in range(26):
        charge_once(customer=customer, product=product, now=at(NOW))
    client = come_in(customer, on=NOW)
    first, second = read(client, "/portal/invoices/"), read(client, "/portal/invoices/?page=1")
    assert (first.count("Setup"), first.count("$5.00"), second.count("$5.00")) == (0, 25, 1)
    assert "Older →" in first
    assert "← Newer" in second
    for odd in ("-1", "x", "1e9", "²", "99999999999999999999", "999999999"):
        assert client.get("/portal/invoices/", {"page": odd}).status_code == 200


def test_a_period_that_was_billed_early_is_not_asked_for_twice(customer: Customer) -> None:
    product = usage_product((call_meter(), "2", 1000), fee=4900, name="API Service")
    subscription = subscribed(customer, product, on="2026-02-01")
    send(customer, 2500, on="2026-02-05")  # 1500 x 2 = 3000
    # Billed up to 2 March on 10 February, as the quick start does.
    (invoice,) = close_subscription(subscription_id=subscription.pk, until=at("2026-03-02"), now=at("2026-02-10T11:00"))
    client = come_in(customer, on=NOW)
    home = read(client, "/portal/")
    assert f"Open {invoice.number} : $79.00" in home  # 3000 + 4900 for March
    assert f"This period was billed early on {invoice.number} ; later events are added to the next invoice." in home
    assert "Usage so far $30.00 Not billed yet $0.00" in home
    # The invoice after March, with April's fee; nothing of the $30.00 again.
    assert "Next invoice, on 1 April 2026 $49.00 so far" in home
    send(customer, 100, on="2026-02-10T11:30")
    plan = read(client, f"/portal/plans/{subscription.public_id}/")
    assert "Usage so far $32.00 Not billed yet $2.00" in plan
    assert "Next invoice, on 1 April 2026 $51.00 so far" in plan
    # March has not begun: it is no earlier period.
    assert "1 Mar 2026 – 31 Mar 2026" not in plan
