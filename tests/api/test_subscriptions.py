"""/subscriptions and /payments: a story from the first fee to the PDF, and every change that can be asked for."""

import io
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import time_machine
from django.core.management import call_command
from pypdf import PdfReader

from billing.credits import grant_credit
from billing.invoices import charge_once, mark_paid
from billing.models import Invoice, Product, Subscription
from billing.taxes import create_tax_rate
from customers.models import Customer
from tests.api.client import Api
from tests.api.test_products import MONTHLY, ONCE, RECURRING, product, usage

pytestmark = pytest.mark.django_db

START = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
BERLIN = {"country": "DE", "city": "Berlin", "street": "Allee 1", "zipcode": "10115", "state": None}


def make_customer(api: Api, customer_id: str = "cus_acme") -> str:
    made = api.post("/customers", {"customer_id": customer_id, "name": "Acme", "email": "pay@acme.example"})
    assert made.status == 201
    return str(made.body["customer_id"])


def make_product(api: Api, price: dict[str, Any] | None = None, **changes: Any) -> str:
    made = api.post("/products", product(price or RECURRING, **changes))
    assert made.status == 201, made
    return str(made.body["product_id"])


def make_meter(api: Api) -> str:
    body = {
        "name": "API calls",
        "event_name": "api.call",
        "aggregation": {"type": "count"},
        "measurement_unit": "calls",
    }
    made = api.post("/meters", body)
    assert made.status == 201, made
    return str(made.body["id"])


def order(**changes: Any) -> dict[str, Any]:
    return {"customer": {"customer_id": "cus_acme"}, "quantity": 1, "billing": BERLIN, **changes}


def make_subscription(api: Api, **changes: Any) -> str:
    made = api.post("/subscriptions", order(**changes))
    assert made.status == 200, made
    return str(made.body["subscription_id"])


def send_calls(api: Api, count: int, *, first: int = 0) -> None:
    """In batches of 1,000, as the SDKs do."""
    for begin in range(first, first + count, 1000):
        events = [
            {"event_id": f"evt_{number}", "customer_id": "cus_acme", "event_name": "api.call"}
            for number in range(begin, min(begin + 1000, first + count))
        ]
        assert api.post("/events/ingest", {"events": events}).body == {"ingested_count": len(events)}


def test_2500_calls_with_1000_free_at_two_cents_make_an_invoice_of_30_dollars(api: Api) -> None:
    make_customer(api)
    meter = make_meter(api)
    sold = make_product(api, usage({"meter_id": meter, "price_per_unit": "2", "free_threshold": 1000}))
    created = api.post("/subscriptions", order(product_id=sold))
    subscription = created.body["subscription_id"]
    # Nothing is due at the start, so the first payment is of nothing and has no invoice.
    first = api.get(f"/payments/{created.body['payment_id']}").body
    assert (first["total_amount"], first["status"], first["charge_type"]) == (0, "succeeded", "new")
    assert (first["invoice_id"], first["invoice_url"], first["product_cart"]) == (None, None, None)
    assert api.get(f"/invoices/payments/{first['payment_id']}").status == 404

    send_calls(api, 2500)
    path = f"/subscriptions/{subscription}"
    used = {
        "id": meter,
        "name": "API calls",
        "consumed_units": "2500",
        "chargeable_units": "1500",
        "free_threshold": 1000,
        "price_per_unit": "2",
        "currency": "USD",
        "total_price": 3000,  # (2,500 - 1,000) x 2 cents
    }
    (running,) = api.get(f"{path}/usage-history").body["items"]
    assert running["meters"] == [used]

    soon = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=2)
    moved = api.patch(path, {"next_billing_date": soon.isoformat()})
    assert moved.body["next_billing_date"] == soon.isoformat().replace("+00:00", "Z")
    with time_machine.travel(soon + timedelta(hours=2)):
        call_command("close_cycles", until=(soon + timedelta(hours=1, seconds=1)).isoformat())

    payments = api.get(f"/payments?subscription_id={subscription}").body["items"]
    assert [(payment["total_amount"], payment["includes_usage"]) for payment in payments] == [(3000, True), (0, False)]
    payment = api.get(f"/payments/{payments[0]['payment_id']}").body
    invoice = Invoice.objects.get()
    assert {
        "status": "requires_payment_method",
        "total_amount": 3000,
        "tax": 0,
        "currency": "USD",
        "charge_type": "renewal",
        "includes_usage": True,
        "invoice_id": invoice.public_id,
        "invoice_number": "INV-000001",
        "invoice_url": f"http://localhost:8000/invoices/payments/{payment['payment_id']}",
        "subscription_ids": [subscription],
        "service_periods": [],
        "billing": BERLIN,
    }.items() <= payment.items()
    items = api.get(f"/payments/{payment['payment_id']}/line-items").body
    (line,) = items["items"]
    assert items == {"currency": "USD", "partial_refund_allowed": False, "items": [line]}
    assert {
        "items_id": f"{payment['payment_id']}_1",
        "amount": 3000,
        "tax": 0,
        "refundable_amount": 0,
        "kind": "usage",
        "subscription_id": subscription,
        "quantity": "2500",
        "unit_price": "2",
        "credit": 0,
        "total": 3000,
        "tax_inclusive": False,
        "taxes": [],
    }.items() <= line.items()
    assert (line["explanation"]["model"], line["explanation"]["amount"]) == ("per_unit", "3000")
    assert "API calls" in items["items"][0]["name"]
    assert "1,500" in items["items"][0]["description"]

    pdf = api.get(f"/invoices/payments/{payment['payment_id']}")
    assert (pdf.status, pdf.headers["Content-Type"]) == (200, "application/pdf")
    assert pdf.headers["Content-Disposition"] == 'attachment; filename="INV-000001.pdf"'
    text = " ".join(page.extract_text() for page in PdfReader(io.BytesIO(pdf.content)).pages)
    assert "INV-000001" in text
    assert "$30.00" in text

    history = api.get(f"{path}/usage-history").body["items"]
    assert [item["meters"][0]["total_price"] for item in history] == [0, 3000]
    assert history[1]["end_date"] == moved.body["next_billing_date"] == history[0]["start_date"]
    assert history[1]["meters"] == [used]
    ended = history[1]["end_date"]
    assert len(api.get(f"{path}/usage-history?page_size=1").body["items"]) == 1
    assert api.get(f"{path}/usage-history?page_size=1&page_number=2").body["items"] == []
    assert [item["end_date"] for item in api.get(f"{path}/usage-history?end_date={START.date()}").body["items"]] == []
    after = api.get(f"{path}/usage-history?start_date={ended}").body["items"]
    assert [item["start_date"] for item in after] == [ended]
    assert api.get(f"{path}/usage-history?meter_id=mtr_other").body["items"][0]["meters"] == []
    assert api.get(f"{path}/credit-usage").body == {"subscription_id": subscription, "items": []}


@time_machine.travel(START, tick=False)
def test_a_fee_is_invoiced_in_advance_and_paid_for_its_period(api: Api) -> None:
    make_customer(api)
    sold = make_product(api)
    created = api.post(
        "/subscriptions",
        order(product_id=sold, quantity=3, metadata={"team": "red"}, tax_id="DE1", billing_currency="USD"),
    )
    subscription, payment = created.body["subscription_id"], created.body["payment_id"]
    customer: dict[str, Any] = {
        "customer_id": "cus_acme",
        "name": "Acme",
        "email": "pay@acme.example",
        "phone_number": None,
        "metadata": {},
    }
    assert created.body == {
        "subscription_id": subscription,
        "payment_id": payment,
        "customer": customer,
        "metadata": {"team": "red"},
        "addons": [],
        "recurring_pre_tax_amount": 14700,
        "payment_method_required": False,
        "payment_link": None,
        "client_secret": None,
        "expires_on": None,
        "discount_id": None,
        "discount_ids": [],
        "one_time_product_cart": [],
        "trial_amount": None,
    }
    shown = api.get(f"/subscriptions/{subscription}").body
    assert shown == {
        "subscription_id": subscription,
        "status": "active",
        "product_id": sold,
        "brand_id": "bus_meterbook",
        "quantity": 3,
        "currency": "USD",
        "customer": customer,
        "customer_business_name": None,
        "billing": BERLIN,
        "metadata": {"team": "red"},
        "created_at": shown["created_at"],
        "previous_billing_date": "2026-01-31T09:30:00Z",
        "next_billing_date": "2026-02-28T09:30:00Z",
        "expires_at": "2046-01-31T09:30:00Z",
        "recurring_pre_tax_amount": 14700,
        **MONTHLY,
        "trial_period_days": 0,
        "trial_amount": None,
        "on_demand": False,
        "tax_inclusive": False,
        "tax_id": "DE1",
        "has_payment_method": False,
        "payment_method_id": None,
        "cancel_at_next_billing_date": False,
        "cancelled_at": None,
        "cancelled_by": None,
        "cancellation_feedback": None,
        "cancellation_comment": None,
        "paused_at": None,
        "scheduled_change": None,
        "meters": [],
        "addons": [],
        "credit_entitlement_cart": [],
        "meter_credit_entitlement_cart": [],
        "discounts": [],
        "discount_id": None,
        "discount_cycles_remaining": None,
        "custom_field_responses": [],
    }
    item = api.get("/subscriptions").body["items"][0]
    assert item["product_name"] == "AI Platform"
    assert set(item) - {"product_name"} < set(shown)
    assert {name: item[name] for name in set(item) & set(shown)} == {
        name: shown[name] for name in set(item) & set(shown)
    }

    waiting = api.get(f"/payments/{payment}").body
    assert (waiting["status"], waiting["total_amount"], waiting["service_periods"]) == (
        "requires_payment_method",
        14700,
        [],
    )
    mark_paid(invoice=Invoice.objects.get(), now=START)
    paid = api.get(f"/payments/{payment}").body
    assert (paid["status"], paid["metadata"]) == ("succeeded", {"team": "red"})
    assert paid["service_periods"] == [
        {
            "subscription_id": subscription,
            "starts_at": "2026-01-31T09:30:00Z",
            "ends_at": "2026-02-28T09:30:00Z",
            "proration_factor": "1",
        }
    ]


def test_a_new_customer_can_be_made_with_the_subscription_or_not_at_all(api: Api) -> None:
    sold = make_product(api)
    who = {"email": "new@acme.example", "name": "New", "phone_number": "1"}
    created = api.post("/subscriptions", order(product_id=sold, customer=who))
    assert created.body["customer"] == {**who, "customer_id": created.body["customer"]["customer_id"], "metadata": {}}
    nameless = api.post("/subscriptions", order(product_id=sold, customer={"email": "only@acme.example"}))
    assert nameless.body["customer"]["name"] == "only@acme.example"
    # A subscription that is refused leaves no customer behind.
    once = make_product(api, ONCE)
    assert api.post("/subscriptions", order(product_id=once, customer=who)).status == 400
    assert Customer.objects.count() == 2


@pytest.mark.parametrize(
    ("changes", "status", "said"),
    [
        ({"product_id": "pdt_none"}, 404, "Item not found"),
        ({"product_id": "a\u0000"}, 422, "null character"),
        ({"customer": {"customer_id": "nobody"}}, 404, "Item not found"),
        ({"customer": {}}, 422, "customer: give either"),
        ({"customer": {"customer_id": "cus_acme", "email": "a@acme.example"}}, 422, "customer: give either"),
        ({"customer": "cus_acme"}, 422, "customer: must be an object."),
        ({"quantity": 0}, 422, "quantity: "),
        ({"quantity": "1"}, 422, "quantity: must be a whole number."),
        ({"quantity": None}, 422, "quantity: "),
        ({"billing": {"city": "Berlin"}}, 422, "billing.country: This field is required."),
        ({"billing": {"country": "Germany"}}, 422, "billing.country: must be a two-letter country code"),
        ({"billing_currency": "EUR"}, 400, "billing_currency: the product is sold in USD only."),
        ({"trial_period_days": 10_001}, 422, "trial_period_days: "),
        ({"addons": [{"addon_id": "adn_1", "quantity": 1}]}, 422, "addons: is not supported"),
        ({"on_demand": {"mandate_only": True}}, 422, "on_demand: is not supported"),
        ({"discount_code": "HALF"}, 422, "discount_code: is not supported"),
        ({"discount_codes": ["HALF"]}, 422, "discount_codes: is not supported"),
        ({"one_time_product_cart": [{"product_id": "p", "quantity": 1}]}, 422, "one_time_product_cart: is not supp"),
        ({"payment_link": True}, 422, "payment_link: is not supported"),
        ({"payment_method_id": "pm_1"}, 422, "payment_method_id: is not supported"),
        ({"status": "cancelled"}, 422, "status: is not a field"),
        ({"starts_at": "soon"}, 422, "starts_at: must be an ISO 8601 time"),
        ({"starts_at": "1899-12-31T00:00:00Z"}, 400, "between 1900 and ten years from now"),
        ({"metadata": {"a": []}}, 422, "metadata: "),
    ],
)  # fmt: skip
def test_odd_orders_are_refused(api: Api, changes: dict[str, Any], status: int, said: str) -> None:
    make_customer(api)
    answer = api.post("/subscriptions", order(**{"product_id": make_product(api), **changes}))
    assert answer.status == status
    assert said in answer.body["message"]
    assert not Subscription.objects.exists()


def test_harmless_defaults_of_the_sdks_are_let_through(api: Api) -> None:
    make_customer(api)
    answer = api.post(
        "/subscriptions",
        order(
            product_id=make_product(api),
            addons=[],
            on_demand=None,
            discount_code=None,
            payment_link=False,
            return_url="https://shop.example",
            allowed_payment_method_types=["credit"],
            show_saved_payment_methods=True,
            redirect_immediately=False,
            one_time_product_cart=None,
        ),
    )
    assert answer.status == 200


def test_an_archived_or_one_time_product_cannot_be_subscribed_to(api: Api) -> None:
    make_customer(api)
    archived, once = make_product(api), make_product(api, ONCE)
    api.delete(f"/products/{archived}")
    answer = api.post("/subscriptions", order(product_id=archived))
    assert (answer.status, answer.body["code"]) == (410, "PRODUCT_IS_DELETED")
    assert api.post("/subscriptions", order(product_id=once)).status == 400


@time_machine.travel(START, tick=False)
def test_a_subscription_may_start_in_the_past_or_with_a_trial(api: Api) -> None:
    make_customer(api)
    sold = make_product(api)
    past = api.get(f"/subscriptions/{make_subscription(api, product_id=sold, starts_at='2025-12-31')}").body
    assert (past["previous_billing_date"], past["next_billing_date"]) == (
        "2025-12-31T00:00:00Z",
        "2026-01-31T00:00:00Z",
    )
    trial = api.post("/subscriptions", order(product_id=sold, trial_period_days=14)).body
    shown = api.get(f"/subscriptions/{trial['subscription_id']}").body
    assert (shown["trial_period_days"], shown["next_billing_date"]) == (14, "2026-02-14T09:30:00Z")
    assert api.get(f"/payments/{trial['payment_id']}").body["total_amount"] == 0


@time_machine.travel(START, tick=False)
def test_details_change_and_null_means_not_given(api: Api) -> None:
    make_customer(api)
    path = f"/subscriptions/{make_subscription(api, product_id=make_product(api))}"
    before = api.get(path).body
    changes = {"metadata": {"a": "b"}, "tax_id": "DE2", "billing": {"country": "FR"}}
    expected = {
        **before,
        "metadata": {"a": "b"},
        "tax_id": "DE2",
        "billing": {"country": "FR", "city": None, "state": None, "street": None, "zipcode": None},
    }
    assert api.patch(path, changes).body == expected
    nothing = {"status": None, "metadata": None, "billing": None, "next_billing_date": None, "customer_name": None}
    assert api.patch(path, nothing).body == expected
    assert api.patch(path, {}).body == expected


@time_machine.travel(START, tick=False)
def test_cancelling_at_the_end_is_scheduled_and_taken_back(api: Api) -> None:
    make_customer(api)
    path = f"/subscriptions/{make_subscription(api, product_id=make_product(api))}"
    scheduled = api.patch(
        path,
        {
            "cancel_at_next_billing_date": True,
            "cancel_reason": "cancelled_by_customer",
            "cancellation_feedback": "too_expensive",
            "cancellation_comment": "Sorry",
        },
    ).body
    assert (scheduled["status"], scheduled["cancel_at_next_billing_date"]) == ("active", True)
    assert (scheduled["cancellation_feedback"], scheduled["cancellation_comment"]) == ("too_expensive", "Sorry")
    listed = api.get("/subscriptions?cancel_at_next_billing_date=true").body["items"]
    assert [item["subscription_id"] for item in listed] == [scheduled["subscription_id"]]
    assert api.get("/subscriptions?cancel_at_next_billing_date=false").body["items"] == []
    revoked = api.patch(path, {"cancel_at_next_billing_date": False}).body
    assert (revoked["cancel_at_next_billing_date"], revoked["cancellation_feedback"]) == (False, None)


@time_machine.travel(START, tick=False)
def test_cancelling_now_ends_it_once(api: Api) -> None:
    make_customer(api)
    path = f"/subscriptions/{make_subscription(api, product_id=make_product(api))}"
    with time_machine.travel(START + timedelta(days=3), tick=False):
        ended = api.patch(path, {"status": "cancelled", "cancellation_comment": "Bye"}).body
        assert (ended["status"], ended["cancelled_at"]) == ("cancelled", "2026-02-03T09:30:00Z")
        assert (ended["previous_billing_date"], ended["next_billing_date"]) == (
            "2026-01-31T09:30:00Z",
            "2026-02-03T09:30:00Z",
        )
        for change in ({"status": "cancelled"}, {"cancel_at_next_billing_date": True}):
            again = api.patch(path, change)
            assert (again.status, again.body["code"]) == (409, "SUBSCRIPTION_INACTIVE")
            assert again.headers["x-should-retry"] == "false"
    assert api.get("/subscriptions?status=cancelled").body["items"][0]["status"] == "cancelled"
    assert api.get("/subscriptions?status=active").body["items"] == []


@time_machine.travel(START, tick=False)
@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        ({"status": "paused"}, 422, "status: pausing and resuming are not supported"),
        ({"status": "active"}, 422, "status: pausing and resuming are not supported"),
        ({"status": "expired"}, 422, "status: can only be set to cancelled."),
        ({"status": "deleted"}, 422, "status: must be one of pending, active"),
        ({"status": "cancelled", "cancel_at_next_billing_date": True}, 422, "send either it or"),
        ({"pause": False}, 422, "pause: was removed from the contract"),
        ({"cancellation_comment": "Bye"}, 422, "cancellation_comment: goes with status cancelled"),
        ({"cancellation_feedback": "rude"}, 422, "cancellation_feedback: must be one of too_expensive"),
        ({"next_billing_date": "2026-01-31T09:29:59Z"}, 400, "Cannot change next_billing_date to past time"),
        ({"next_billing_date": "2026-01-31T09:30:00Z"}, 400, "after the start of the running period"),
        ({"next_billing_date": "9999-12-31T23:59:59-12:00"}, 422, "next_billing_date: must be an ISO 8601 time"),
        ({"next_billing_date": "2999-01-01"}, 400, "may not lie after the subscription expires"),
        ({"next_billing_date": 1769851800}, 422, "next_billing_date: must be an ISO 8601 time"),
        ({"subscription_period_count": 1}, 400, "can only be extended"),
        ({"subscription_period_count": 36601}, 422, "subscription_period_count: "),
        ({"subscription_period_count": 36600}, 400, "too long"),
        ({"customer_name": "Other"}, 422, "customer_name: is not supported"),
        ({"credit_entitlement_cart": [{"credit_entitlement_id": "c"}]}, 422, "credit_entitlement_cart: is not supp"),
        ({"disable_on_demand": {"next_billing_date": "2027-01-01"}}, 422, "disable_on_demand: is not supported"),
        ({"quantity": 2}, 422, "quantity: is not a field of this request."),
        ({"metadata": {"kept": "no"}, "next_billing_date": "2020-01-01"}, 400, "to past time"),
    ],
)  # fmt: skip
def test_odd_changes_are_refused_whole(api: Api, change: dict[str, Any], status: int, said: str) -> None:
    make_customer(api)
    path = f"/subscriptions/{make_subscription(api, product_id=make_product(api))}"
    before = api.get(path).body
    answer = api.patch(path, change)
    assert answer.status == status, answer
    assert said in answer.body["message"]
    assert api.get(path).body == before


@time_machine.travel(START, tick=False)
def test_the_whole_life_can_be_extended(api: Api) -> None:
    make_customer(api)
    path = f"/subscriptions/{make_subscription(api, product_id=make_product(api))}"
    assert api.patch(path, {"subscription_period_count": 21}).body["expires_at"] == "2047-01-31T09:30:00Z"


def test_subscriptions_and_payments_are_filtered(api: Api) -> None:
    for customer in ("cus_acme", "cus_globex"):
        make_customer(api, customer)
    dear = {**RECURRING, "currency": "EUR"}
    one, other = make_product(api), make_product(api, dear)
    first = make_subscription(api, product_id=one)
    second = make_subscription(api, product_id=other, customer={"customer_id": "cus_globex"})
    charge_once(
        customer=Customer.objects.get(public_id="cus_acme"),
        product=Product.objects.get(public_id=make_product(api, ONCE, name="Setup")),
        quantity=2,
        now=datetime.now(UTC),
    )

    def subscriptions(query: str) -> list[str]:
        return [item["subscription_id"] for item in api.get(f"/subscriptions?{query}").body["items"]]

    def payments(query: str) -> list[tuple[int, str]]:
        return [(item["total_amount"], item["currency"]) for item in api.get(f"/payments?{query}").body["items"]]

    assert subscriptions("") == [second, first]
    assert subscriptions("customer_id=cus_acme") == [first]
    assert subscriptions("customer_id=nobody") == []
    assert subscriptions(f"product_id={other}") == [second]
    assert subscriptions("brand_id=brd_1") == []
    assert subscriptions("status=active&locale=fr") == [second, first]
    assert subscriptions("status=paused") == []
    assert subscriptions("created_at_gte=2999-01-01") == []
    assert subscriptions("created_at_lte=2999-01-01") == [second, first]

    once, globex, acme = (9800, "EUR"), (4900, "EUR"), (4900, "USD")
    assert payments("") == [once, globex, acme]
    assert payments("customer_id=cus_acme") == [once, acme]
    assert payments(f"subscription_id={second}") == [globex]
    assert payments(f"product_id={one}") == [acme]
    assert payments("currency=EUR&page_size=1&page_number=1") == [globex]
    assert payments("status=requires_payment_method") == [once, globex, acme]
    assert payments("status=partially_captured") == []
    assert payments("created_at_gte=2999-01-01") == []
    setup = api.get("/payments?page_size=1").body["items"][0]["payment_id"]
    shown = api.get(f"/payments/{setup}").body
    assert [(item["quantity"], shown["charge_type"], shown["subscription_ids"]) for item in shown["product_cart"]] == [
        (2, None, [])
    ]
    for query in ("subscriptions?status=gone", "payments?status=gone", "payments?currency=euro"):
        assert api.get(f"/{query}").status == 422


def test_lists_cost_the_same_number_of_queries_however_long(api: Api, django_assert_max_num_queries: Any) -> None:
    make_customer(api)
    sold = make_product(api)
    for _ in range(5):
        make_subscription(api, product_id=sold)
    with django_assert_max_num_queries(1):
        assert len(api.get("/subscriptions").body["items"]) == 5
    with django_assert_max_num_queries(2):
        assert len(api.get("/payments").body["items"]) == 5


def test_a_payment_says_its_tax_and_each_line_its_own(api: Api) -> None:
    make_customer(api)
    create_tax_rate(name="VAT", percent=Decimal(19), country="DE")
    grant_credit(
        customer=Customer.objects.get(), name="Welcome", amount=Decimal(500), currency="USD", now=datetime.now(UTC)
    )
    meter = make_meter(api)
    price = usage({"meter_id": meter, "price_per_unit": "2", "free_threshold": 0}, fixed_price=1500)
    created = api.post("/subscriptions", order(product_id=make_product(api, price)))
    payment = api.get(f"/payments/{created.body['payment_id']}").body
    # 15.00 - 5.00 credit = 10.00, and 19 % of it
    assert (payment["total_amount"], payment["tax"]) == (1190, 190)
    (line,) = api.get(f"/payments/{payment['payment_id']}/line-items").body["items"]
    assert {"amount": 1500, "credit": 500, "tax": 190, "total": 1190, "kind": "fee"}.items() <= line.items()
    assert line["taxes"] == [{"name": "VAT", "percent": "19", "amount": "190"}]
