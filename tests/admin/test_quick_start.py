"""The seed's quick start through the admin's forms alone, from an empty house to the invoice the seed computes."""

from datetime import timedelta
from decimal import Decimal

from django.test import Client
from django.urls import reverse
from django.utils import timezone

from billing.cycles import work_run
from billing.models import BillingPeriod, BillingRun, Invoice, InvoiceStatus, Product, Subscription
from customers.clock import database_now
from customers.models import Customer
from meters.models import Event, Meter
from tests.admin.house import nothing_changes, operator
from tests.admin.test_forms import post_meter, post_product
from tests.base import send


def test_an_operator_comes_from_an_empty_house_to_a_paid_invoice(db: None, root: Client) -> None:
    start = root.get(reverse("admin:index")).content.decode()
    assert "0 of 5 done" in start

    # 1. Meters, Create meter: API Requests, api.call, Count, calls.
    answer = post_meter(root)
    meter = Meter.objects.get()
    assert answer["Location"] == reverse("admin:meters_meter_change", args=[meter.pk])
    page = root.get(answer["Location"]).content.decode()
    assert "No event named api.call yet" in page
    assert "client.usage_events.ingest(events=[" in page

    # 2. Products, Create product: usage-based, the meter, $0.02 a unit, 1,000 free.
    answer = post_product(root, **{"charges-0-price_per_unit": "0.02"})
    product = Product.objects.get()
    page = root.get(answer["Location"]).content.decode()
    assert "$0.02 per call after 1,000 free, billed every month" in page
    assert "“2” on the API, which counts cents" in page

    # 3. The customer, and a subscription.
    sent = {"name": "Acme", "email": "pay@acme.example", "customer_id": "cus_abc123"}
    assert root.post(reverse("admin:customers_customer_add"), sent).status_code == 302
    customer = Customer.objects.get()
    begun = {"customer": customer.pk, "product": product.pk, "quantity": 1}
    answer = root.post(reverse("admin:billing_subscription_add"), begun)
    subscription = Subscription.objects.get()
    assert answer["Location"] == reverse("admin:billing_subscription_change", args=[subscription.pk])

    # 4. An API key, and 2,500 calls: one of them from the meter's page.
    answer = root.post(reverse("admin:customers_apikey_add"), {"name": "shop"})
    key = answer.context["full_key"]
    api = Client(headers={"Authorization": f"Bearer {key}"})
    event = {"event_id": "evt_unique_123", "customer_id": "cus_abc123", "event_name": "api.call"}
    answer = api.post("/events/ingest", {"events": [event]}, content_type="application/json")
    assert answer.json() == {"ingested_count": 1}
    test_event = {"customer": customer.pk, "event_id": "from-the-page"}
    answer = root.post(reverse("admin:meters_meter_send_test_event", args=[meter.pk]), test_event, follow=True)
    assert "Counted as 1 event." in answer.content.decode()
    again = root.post(reverse("admin:meters_meter_send_test_event", args=[meter.pk]), test_event)
    assert "This event id is in the log already; each counts once." in again.content.decode()
    send(customer, 2498, on=timezone.now())
    assert Event.objects.count() == 2500

    # 5. See usage: on the customer's page, the subscription's and the start page.
    for url in (
        reverse("admin:customers_customer_change", args=[customer.pk]),
        reverse("admin:billing_subscription_change", args=[subscription.pk]),
    ):
        page = root.get(url).content.decode()
        assert "2,500 calls" in page
        assert "$30.00" in page
    start = root.get(reverse("admin:index")).content.decode()
    assert "4 of 5 done" in start
    assert "2,500 calls" in start

    # 6. Run billing: the dry run first, then the run.
    period = BillingPeriod.objects.get()
    until = (period.end + timedelta(hours=1)).isoformat()
    url = reverse("admin:billing_billingrun_start")
    with nothing_changes("the dry run"):
        page = root.get(url, {"until": until, "only": ""}).content.decode()
    assert "Run billing: issue 1 invoice" in page
    assert "2,500 calls − 1,000 free = 1,500 × $0.02 = $30.00" in page
    answer = root.post(url, {"until": until, "only": ""})
    run = BillingRun.objects.get()
    assert answer["Location"] == reverse("admin:billing_billingrun_change", args=[run.pk])
    assert run.started_by is not None
    assert "0 of 1 subscription done" in " ".join(root.get(answer["Location"]).content.decode().split())
    work_run(run=run, clock=database_now)
    page = " ".join(root.get(answer["Location"]).content.decode().split())
    assert "1 of 1 subscription done" in page
    assert "/progress/" not in page, "a finished run is not asked about again"

    # 7. Open the invoice; the money comes.
    invoice = Invoice.objects.get()
    assert (invoice.total, invoice.currency, invoice.status) == (Decimal(3000), "USD", InvoiceStatus.ISSUED)
    url = reverse("admin:billing_invoice_change", args=[invoice.pk])
    assert f'href="{url}"' in page
    shown = root.get(url).content.decode()
    assert "2,500 calls − 1,000 free = 1,500 × $0.02 = $30.00" in shown
    root.post(reverse("admin:billing_invoice_pay", args=[invoice.pk]), {"note": "transfer"})
    invoice.refresh_from_db()
    assert invoice.status == InvoiceStatus.PAID
    assert "of 5 done" not in root.get(reverse("admin:index")).content.decode()

    # Run again: nothing is billed twice.
    root.post(reverse("admin:billing_billingrun_start"), {"until": until, "only": ""})
    assert Invoice.objects.count() == 1


def test_running_billing_needs_its_permission_and_a_sensible_moment(db: None, root: Client) -> None:
    url = reverse("admin:billing_billingrun_start")
    with nothing_changes("a run without permission"):
        assert operator().post(url, {"until": "", "only": ""}).status_code == 403
    for until, said in (("2999-01-01T00:00", "at most 400 days ahead"), ("soon", "Enter a valid date/time.")):
        with nothing_changes(f"a run until {until}"):
            answer = root.post(url, {"until": until, "only": ""})
        assert answer.status_code == 200
        assert said in answer.content.decode()
    answer = root.post(url, {"until": "", "only": ""}, follow=True)
    assert "Nothing was due, so nothing was billed." in answer.content.decode()
