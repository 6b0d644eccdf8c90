"""The button that verifies an invoice, and the pages of a line's events, as an operator meets them."""

import csv
from io import StringIO
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.urls import reverse

from billing.admin import proofs
from billing.cycles import close_subscription
from billing.models import Invoice, InvoiceLine
from meters.models import Event
from meters.voids import void_event
from tests.admin.house import EVIL, nothing_changes, operator
from tests.base import acme, at, send, subscribed, token_meter, usage_product

pytestmark = pytest.mark.django_db


@pytest.fixture
def line() -> InvoiceLine:
    """One of 250 events, on an invoice with a fee."""
    customer = acme()
    meter = token_meter(aggregation="unique", group_by=["model"])
    subscription = subscribed(customer, usage_product((meter, "2", 0), fee=100), on="2026-01-01")
    for number in range(250):
        send(
            customer,
            on=f"2026-01-05T00:{number // 60:02}:{number % 60:02}",
            name="token.usage",
            metadata={"tokens": f"{EVIL}{number % 100}", "model": "a"},
        )
    (invoice,) = close_subscription(
        subscription_id=subscription.pk, until=at("2026-02-01T02:00"), now=at("2026-02-01T02:00")
    )
    found: InvoiceLine = invoice.lines.get(kind="usage")
    return found


def address(name: str, *args: Any) -> str:
    return reverse(f"admin:billing_invoice_{name}", args=args)


def rows_of(answer: Any) -> list[list[str]]:
    return list(csv.reader(StringIO(b"".join(answer.streaming_content).decode())))


def test_verifying_says_identical_and_leaves_a_trace(line: InvoiceLine) -> None:
    client, url = operator(), address("verify", line.invoice_id)
    with nothing_changes("GET"):
        asked = client.get(url).content.decode()
    assert "Counts the 250 events behind INV-" in asked
    answer = client.post(url)
    page = answer.content.decode()
    assert answer.status_code == 200
    assert f"{line.invoice} is identical" in page
    assert "2. Tokens: identical as of issue." in page
    assert LogEntry.objects.latest("pk").change_message == "Verified: identical."


def test_verifying_shows_the_exact_difference(line: InvoiceLine) -> None:
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM meters_event WHERE id = (SELECT max(id) FROM meters_event)")
    page = operator().post(address("verify", line.invoice_id)).content.decode()
    assert f"{line.invoice} is different" in page
    assert "events: the invoice says 250, found 249" in page


def test_verifying_asks_who_you_are_and_for_the_forms_token(line: InvoiceLine) -> None:
    url = address("verify", line.invoice_id)
    with nothing_changes("strangers"):
        assert Client().post(url).status_code == 302
        assert operator(views=False).post(url).status_code == 403
        strict = Client(enforce_csrf_checks=True)
        strict.force_login(User.objects.latest("pk"))
        assert strict.post(url).status_code == 403


def test_too_many_events_are_left_to_the_command(line: InvoiceLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proofs, "MOST_EVENTS_ON_A_PAGE", 249)
    with nothing_changes("refused"):
        page = operator().post(address("verify", line.invoice_id)).content.decode()
    assert f"manage.py verify_invoice {line.invoice}" in page


def test_a_line_leads_to_its_events_and_each_of_them_to_its_verdicts(line: InvoiceLine) -> None:
    client = operator()
    url = address("line_events", line.invoice_id, line.pk)
    assert f'href="{url}"' in client.get(address("change", line.invoice_id)).content.decode()
    shown: list[int] = []
    following: str | None = url
    while following:
        answer = client.get(following)
        assert EVIL not in answer.content.decode()
        shown += [row["event"].id for row in answer.context["rows"]]
        following = answer.context["following"]
    assert shown == list(Event.objects.order_by("timestamp", "id").values_list("pk", flat=True))
    assert address("line_events_csv", line.invoice_id, line.pk) in client.get(url).content.decode()
    assert reverse("admin:meters_event_change", args=[shown[0]]) in client.get(url).content.decode()


def test_the_file_ends_with_the_quantity_of_the_line(line: InvoiceLine) -> None:
    rows = rows_of(operator().get(address("line_events_csv", line.invoice_id, line.pk)))
    assert rows[0] == ["event_id", "timestamp", "value", "counts"]
    assert len(rows) == 1 + 250 + 3
    # A hundred different values: the first of each brings 1.
    assert sum(int(row[3]) for row in rows[1:-3]) == 100 == line.quantity
    assert rows[-3:] == [
        ["Events", "", "", "250"],
        ["Sum of counts", "", "", "100"],
        ["Quantity", "", "", "100"],
    ]


def test_an_event_that_was_voided_later_is_marked(line: InvoiceLine) -> None:
    first = Event.objects.order_by("timestamp", "id")[0]
    void_event(event_id=first.event_id, reason="r", author="a", now=at("2026-02-05"))
    answer = operator().get(address("line_events", line.invoice_id, line.pk))
    assert [row["event"].voided_at is not None for row in answer.context["rows"]][:2] == [True, False]


def test_what_has_no_events_says_why(line: InvoiceLine) -> None:
    fee = line.invoice.lines.get(kind="fee")
    client = operator()
    page = client.get(address("line_events", line.invoice_id, fee.pk)).content.decode()
    assert "was not metered" in page
    answer = client.get(address("line_events_csv", line.invoice_id, fee.pk))
    assert (answer.status_code, answer["Content-Type"]) == (404, "text/plain; charset=utf-8")


def test_a_line_is_found_on_its_own_invoice_only(line: InvoiceLine) -> None:
    other = Invoice.objects.create(customer=line.invoice.customer, reason="one_time", currency="USD", customer_name="A")
    client = operator()
    for invoice, one in ((other.pk, line.pk), (line.invoice_id, 10**30), ("x", line.pk), ("9" * 40, line.pk)):
        assert client.get(address("line_events", invoice, one)).status_code == 404
        assert client.get(address("line_events_csv", invoice, one)).status_code == 404


def test_events_are_for_those_who_may_see_events(line: InvoiceLine) -> None:
    for name in ("line_events", "line_events_csv"):
        url = address(name, line.invoice_id, line.pk)
        assert Client().get(url).status_code == 302
        assert operator(views=False).get(url).status_code == 403
        assert operator("billing.view_invoice", views=False).get(url).status_code == 403
        assert operator("billing.view_invoice", "meters.view_event", views=False).get(url).status_code == 200
