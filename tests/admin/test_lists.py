"""Lists ask the database the same number of questions however long they are, and the event log is never counted."""

from decimal import Decimal

from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from billing.credit_notes import credit_invoice
from billing.cycles import start_run
from billing.invoices import charge_once
from billing.models import RunTrigger
from billing.products import PriceTerms, create_product
from customers.keys import create_api_key
from tests.base import acme, call_meter, send, subscribed, usage_product

LISTS = [
    "customers_customer",
    "customers_apikey",
    "meters_meter",
    "meters_event",
    "billing_product",
    "billing_subscription",
    "billing_invoice",
    "billing_creditnote",
    "billing_payment",
    "billing_billingrun",
]


def _more(first: int, last: int) -> None:
    """One of everything for each number."""
    now = timezone.now()
    for n in range(first, last):
        customer = acme(name=f"Customer {n}", customer_id=f"cus_{n}")
        meter = call_meter(name=f"Meter {n}", event_name=f"event.{n}")
        other = call_meter(name=f"Other {n}", event_name=f"other.{n}")
        product = usage_product((meter, "2", 10), (other, "1", 0), fee=100, name=f"Product {n}")
        once = create_product(
            name=f"Once {n}", terms=PriceTerms(type="one_time_price", currency="USD", fixed_amount=Decimal(5))
        )
        subscribed(customer, product, on=now.isoformat())
        invoice = charge_once(customer=customer, product=once, now=now)
        credit_invoice(invoice=invoice, reason="Outage", now=now, amount=Decimal(2))
        send(customer, 2, on=now, name=f"event.{n}")
        start_run(trigger=RunTrigger.ADMIN, until=now, now=now)
        create_api_key(name=f"key {n}")


def _queries(client: Client, url: str) -> list[str]:
    with CaptureQueriesContext(
        connection,
    ) as captured:
        assert client.get(url).status_code == 200, url
    return [query["sql"] for query in captured.captured_queries]


def test_a_list_costs_the_same_questions_for_two_rows_and_for_ten(db: None, root: Client) -> None:
    _more(0, 2)
    few = {name: len(_queries(root, reverse(f"admin:{name}_changelist"))) for name in LISTS}
    _more(2, 10)
    many = {name: len(_queries(root, reverse(f"admin:{name}_changelist"))) for name in LISTS}
    assert many == few


def test_a_meters_page_costs_the_same_questions_for_two_events_and_for_forty(db: None, root: Client) -> None:
    _more(0, 1)
    from customers.models import Customer
    from meters.models import Meter

    url = reverse("admin:meters_meter_change", args=[Meter.objects.get(name="Meter 0").pk])
    few = len(_queries(root, url))
    send(Customer.objects.get(), 38, on=timezone.now(), name="event.0")
    assert len(_queries(root, url)) == few


def test_the_event_log_is_never_counted(db: None, root: Client) -> None:
    _more(0, 2)
    for search in ("", "?q=evt_1", "?event_name=event.1", "?customer=cus_1", "?p=2"):
        for sql in _queries(root, reverse("admin:meters_event_changelist") + search):
            assert not ("COUNT(" in sql and "meters_event" in sql), sql


def test_an_event_is_found_by_its_whole_id_through_the_table_of_keys(db: None, root: Client) -> None:
    _more(0, 2)
    from meters.models import Event

    event = Event.objects.order_by("pk").first()
    assert event is not None
    page = root.get(reverse("admin:meters_event_changelist"), {"q": event.event_id}).content.decode()
    assert page.count('class="data-row') == 1
    assert reverse("admin:meters_event_change", args=[event.pk]) in page
    page = root.get(reverse("admin:meters_event_changelist"), {"q": event.event_id[:-1]}).content.decode()
    assert page.count('class="data-row') == 0


def test_tabs_hold_what_they_say(db: None, root: Client) -> None:
    _more(0, 3)
    from billing.models import Invoice
    from meters.models import Meter

    url = reverse("admin:meters_meter_changelist")
    meter = Meter.objects.get(name="Meter 1")
    Meter.objects.filter(pk=meter.pk).update(archived_at=timezone.now())
    for show, count in (("", 5), ("archived", 1), ("all", 6)):
        assert root.get(url, {"show": show} if show else {}).content.decode().count('class="data-row') == count, show
    url = reverse("admin:billing_invoice_changelist")
    # A subscription's first fee and a one-time charge each.
    assert Invoice.objects.count() == 6
    for status, count in (("", 6), ("open", 6), ("overdue", 0), ("paid", 0), ("void", 0)):
        page = root.get(url, {"status": status} if status else {}).content.decode()
        assert page.count('class="data-row') == count, status
