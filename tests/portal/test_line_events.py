"""From a line of one's own invoice to the events behind it: what a customer sees and downloads."""

import csv
from decimal import Decimal
from io import StringIO
from typing import Any

import pytest
import time_machine

from billing.cycles import close_subscription
from billing.line_events import PER_PAGE
from billing.models import Invoice
from meters.models import Event
from meters.voids import void_event
from tests.base import acme, at, send, subscribed, token_meter, usage_product
from tests.portal.visit import billed, come_in

pytestmark = pytest.mark.django_db
NOW = "2026-02-10T12:00"


def rows_of(answer: Any) -> list[list[str]]:
    return list(csv.reader(StringIO(b"".join(answer.streaming_content).decode())))


def test_the_invoice_leads_to_the_events_of_each_metered_line() -> None:
    with time_machine.travel(at(NOW), tick=False):
        customer = acme()
        _, invoice = billed(customer)
        client = come_in(customer, on=NOW)
        page = client.get(f"/portal/invoices/{invoice.public_id}/").content.decode()
        # The fee, on line 1, was not metered.
        assert "/lines/1/events/" not in page
        assert f"/portal/invoices/{invoice.public_id}/lines/2/events/" in page
        assert "2,500 events" in page
        assert client.get(f"/portal/invoices/{invoice.public_id}/lines/1/events/").status_code == 404
        assert client.get(f"/portal/invoices/{invoice.public_id}/lines/99999999999/events.csv").status_code == 404


def test_the_file_adds_up_to_the_line() -> None:
    with time_machine.travel(at(NOW), tick=False):
        customer = acme()
        _, invoice = billed(customer)
        client = come_in(customer, on=NOW)
        answer = client.get(f"/portal/invoices/{invoice.public_id}/lines/2/events.csv")
        assert answer["Content-Type"] == "text/csv; charset=utf-8"
        assert "attachment" in answer["Content-Disposition"]
        heading, *rows = rows_of(answer)
    assert heading == ["event_id", "timestamp", "value", "counts"]
    events, trailer = rows[:-3], rows[-3:]
    assert (len(events), {row[2] for row in events}) == (2500, {"1"})
    assert events[0][1] == "2026-01-05T12:00:00+00:00"
    assert trailer == [["Events", "", "", "2500"], ["Sum of counts", "", "", "2500"], ["Quantity", "", "", "2500"]]
    assert sum(Decimal(row[3]) for row in events) == invoice.lines.get(position=2).quantity


def test_pages_are_turned_to_the_last_event_and_each_stands_on_one() -> None:
    with time_machine.travel(at(NOW), tick=False):
        customer = acme()
        _, invoice = billed(customer)
        client = come_in(customer, on=NOW)
        address = f"/portal/invoices/{invoice.public_id}/lines/2/events/"
        seen: list[str] = []
        query: dict[str, str] | None = {}
        while query is not None:
            answer = client.get(address, query)
            seen += [row.event_id for row in answer.context["rows"]]
            following = answer.context["following"]
            query = {"after": following} if following else None
    assert len(seen) == len(set(seen)) == 2500
    assert PER_PAGE < 2500


@pytest.mark.parametrize("after", ["", "x", "~", "2026-01-05~1", "2026-01-05T00:00:00+00:00~x", "9999-99-99~1", "\0"])
def test_a_place_that_makes_no_sense_is_the_beginning(after: str) -> None:
    with time_machine.travel(at(NOW), tick=False):
        customer = acme()
        _, invoice = billed(customer)
        answer = come_in(customer, on=NOW).get(
            f"/portal/invoices/{invoice.public_id}/lines/3/events/", {"after": after}
        )
    assert (answer.status_code, len(answer.context["rows"])) == (200, 1)


def test_texts_are_no_formulas_and_no_markup() -> None:
    with time_machine.travel(at(NOW), tick=False):
        customer = acme()
        meter = token_meter(aggregation="unique", group_by=["who"])
        subscription = subscribed(customer, usage_product((meter, "2", 0)), on="2026-01-01")
        for value in ("=1+1", "<b>x</b>", "-5", "@SUM(A1)"):
            send(customer, on="2026-01-05", name="token.usage", metadata={"tokens": value, "who": "+cmd"})
        (invoice,) = close_subscription(
            subscription_id=subscription.pk, until=at("2026-02-01T02:00"), now=at("2026-02-01T02:00")
        )
        client = come_in(customer, on=NOW)
        rows = rows_of(client.get(f"/portal/invoices/{invoice.public_id}/lines/1/events.csv"))
        page = client.get(f"/portal/invoices/{invoice.public_id}/lines/1/events/").content.decode()
    # A number stays a number.
    assert [row[2] for row in rows[1:5]] == ["'=1+1", "<b>x</b>", "-5", "'@SUM(A1)"]
    assert rows[-1] == ["Quantity", "", "", "4"]
    assert "<b>x</b>" not in page
    assert "&lt;b&gt;x" in page


def test_what_was_voided_later_is_still_there_and_what_came_later_is_not() -> None:
    with time_machine.travel(at(NOW), tick=False):
        customer = acme()
        _, invoice = billed(customer)
        first = Event.objects.filter(event_name="api.call").order_by("id")[0]
        void_event(event_id=first.event_id, reason="r", author="a", now=at("2026-02-05"))
        send(customer, 7, on="2026-01-08", received="2026-02-06")
        rows = rows_of(come_in(customer, on=NOW).get(f"/portal/invoices/{invoice.public_id}/lines/2/events.csv"))
    assert rows[-1][-1] == "2500"
    assert first.event_id in {row[0] for row in rows}


def test_a_line_that_kept_no_evidence_has_no_link() -> None:
    with time_machine.travel(at(NOW), tick=False):
        customer = acme()
        draft = Invoice.objects.create(customer=customer, reason="one_time", currency="USD", customer_name="Acme")
        assert come_in(customer, on=NOW).get(f"/portal/invoices/{draft.public_id}/lines/1/events/").status_code == 404
