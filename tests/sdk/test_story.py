"""From a customer to an invoice, with the official SDKs and nothing changed but key and base URL."""

import io
from datetime import UTC, datetime, timedelta
from typing import Any

import dodopayments
import pytest
from dodopayments import DodoPayments
from pypdf import PdfReader

from tests.sdk.conftest import NODE_SOURCES, Node
from tests.stack import Stack

# The SDK marks subscriptions.create deprecated in favour of its hosted checkout.
pytestmark = [pytest.mark.sdk, pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")]


def close(stack: Stack, period_end: str) -> None:
    """What beat does an hour after the period's end, done now."""
    until = datetime.fromisoformat(period_end) + timedelta(hours=1, seconds=1)
    stack.manage("close_cycles", "--until", until.isoformat())


def test_the_python_sdk_from_customer_to_invoice(live_stack: Stack, dodo: DodoPayments) -> None:
    customer = dodo.customers.create(
        name="Hooli", email="pay@hooli.example", phone_number="+1 555", metadata={"crm": "17", "vip": True}
    )
    assert dodo.customers.retrieve(customer.customer_id) == customer
    assert dodo.customers.update(customer.customer_id, name="Hooli XYZ").name == "Hooli XYZ"
    meter = dodo.meters.create(
        name="API Requests", event_name="py.call", aggregation={"type": "count"}, measurement_unit="calls"
    )
    product = dodo.products.create(
        name="API",
        tax_category="saas",
        price={
            "type": "usage_based_price",
            "currency": "USD",
            "fixed_price": 0,
            "discount": 0,
            "purchasing_power_parity": False,
            "payment_frequency_count": 1,
            "payment_frequency_interval": "Month",
            "subscription_period_count": 20,
            "subscription_period_interval": "Year",
            "meters": [{"meter_id": meter.id, "price_per_unit": "2", "free_threshold": 1000}],
        },
    )
    shown = dodo.products.retrieve(product.product_id)
    assert shown.price.type == "usage_based_price"
    assert [(m.meter_id, m.price_per_unit, m.free_threshold) for m in shown.price.meters or []] == [
        (meter.id, "2", 1000)
    ]
    created = dodo.subscriptions.create(
        billing={"country": "US", "city": "Palo Alto"},
        customer={"customer_id": customer.customer_id},
        product_id=product.product_id,
        quantity=1,
        metadata={"team": "red"},
    )

    def batch(first: int) -> list[Any]:
        return [
            {
                "event_id": f"py call/{number}",
                "customer_id": customer.customer_id,
                "event_name": "py.call",
                "timestamp": datetime.now(UTC),
                "metadata": {"endpoint": "/v1/users", "ms": 12.5, "cached": False},
            }
            for number in range(first, min(first + 1000, 2500))
        ]

    assert [dodo.usage_events.ingest(events=batch(first)).ingested_count for first in (0, 1000, 2000)] == [
        1000,
        1000,
        500,
    ]
    # A timed-out batch is sent again: nothing counts twice.
    assert dodo.usage_events.ingest(events=batch(2000)).ingested_count == 0
    event = dodo.usage_events.retrieve("py call/2499")
    assert (event.customer_id, event.metadata) == (
        customer.customer_id,
        {"endpoint": "/v1/users", "ms": 12.5, "cached": False},
    )
    assert len(dodo.usage_events.list(meter_id=meter.id, customer_id=customer.customer_id, page_size=100).items) == 100

    (running,) = dodo.subscriptions.retrieve_usage_history(created.subscription_id).items
    (used,) = running.meters
    expected = ("2500", "1500", 1000, "2", 3000)  # (2,500 - 1,000) x 2 cents
    assert (
        used.consumed_units,
        used.chargeable_units,
        used.free_threshold,
        used.price_per_unit,
        used.total_price,
    ) == expected

    soon = datetime.now(UTC) + timedelta(minutes=1)
    moved = dodo.subscriptions.update(created.subscription_id, next_billing_date=soon)
    assert moved.next_billing_date == soon
    close(live_stack, soon.isoformat())
    close(live_stack, soon.isoformat())  # run twice, billed once

    payments = dodo.payments.list(subscription_id=created.subscription_id).items
    assert [(p.total_amount, p.charge_type, p.includes_usage) for p in payments] == [
        (3000, "renewal", True),
        (0, "new", False),
    ]
    payment = dodo.payments.retrieve(payments[0].payment_id)
    assert (payment.total_amount, payment.currency, payment.tax) == (3000, "USD", 0)
    assert payment.subscription_ids == [created.subscription_id]
    assert (payment.billing.country, payment.metadata) == ("US", {"team": "red"})
    lines = dodo.payments.retrieve_line_items(payment.payment_id)
    assert [(line.amount, line.tax) for line in lines.items] == [(3000, 0)]
    pdf = dodo.invoices.payments.retrieve(payment.payment_id).read()
    text = " ".join(page.extract_text() for page in PdfReader(io.BytesIO(pdf)).pages)
    assert "Hooli XYZ" in text
    assert "$30.00" in text
    history = dodo.subscriptions.retrieve_usage_history(created.subscription_id).items
    assert [period.meters[0].total_price for period in history] == [0, 3000]
    credit = dodo.subscriptions.retrieve_credit_usage(created.subscription_id)
    assert (credit.subscription_id, credit.items) == (created.subscription_id, [])
    session = dodo.customers.customer_portal.create(customer.customer_id, return_url="https://app.example")
    assert session.link.startswith(f"{live_stack.base_url}/portal/")

    ended = dodo.subscriptions.update(created.subscription_id, status="cancelled", cancellation_comment="Bye")
    assert (ended.status, ended.cancellation_comment) == ("cancelled", "Bye")
    listed = dodo.subscriptions.list(customer_id=customer.customer_id, status="cancelled").items
    assert [item.subscription_id for item in listed] == [created.subscription_id]


def test_the_npm_sdk_from_customer_to_invoice(live_stack: Stack, node: Node) -> None:
    met = node.run(NODE_SOURCES / "story.ts", "use")
    meter, subscription = met["meter"]["id"], met["subscription"]["subscription_id"]
    assert met["product"]["price"]["meters"][0]["price_per_unit"] == "2"
    assert met["ingested"] == [1000, 0, 1000, 600]
    assert met["event"]["metadata"] == {"tier": "free", "weight": 0.5, "last": True}
    assert len(met["counted"]) == 5
    assert {event["metadata"]["tier"] for event in met["counted"]} == {"paid"}
    used = {
        "id": meter,
        "name": "API Requests",
        "consumed_units": "2500",  # 100 of the 2,600 are of the tier that the filter leaves out
        "chargeable_units": "1500",
        "free_threshold": 1000,
        "price_per_unit": "2",
        "currency": "USD",
        "total_price": 3000,
    }
    assert [period["meters"] for period in met["running"]] == [[used]]
    assert met["moved"]["next_billing_date"][:23] == met["soon"][:23]
    assert met["session"]["link"].startswith(live_stack.base_url)
    assert met["nothing"] == [None, "", None, "", ""]  # 204, or 200 without a body
    missing, empty, nobody, paused, unknown = met["refusals"]
    assert missing == ["NotFoundError", 404, "404 Item not found", {"code": "NOT_FOUND", "message": "Item not found"}]
    assert empty[1] in (400, 422)
    assert nobody[:2] == ["NotFoundError", 404]
    assert paused[:2] == ["UnprocessableEntityError", 422]
    assert unknown[:2] == ["AuthenticationError", 401]

    close(live_stack, met["moved"]["next_billing_date"])
    billed = node.run(NODE_SOURCES / "story.ts", "bill", subscription)
    assert billed["amounts"] == [3000, 0]
    assert (billed["payment"]["total_amount"], billed["payment"]["status"]) == (3000, "requires_payment_method")
    assert [line["amount"] for line in billed["lines"]["items"]] == [3000]
    assert billed["pdf"] == ["application/pdf", "%PDF-"]
    assert [period["meters"][0]["total_price"] for period in billed["history"]] == [0, 3000]
    assert billed["credits"] == {"subscription_id": subscription, "items": []}


def test_pages_end_where_the_sdks_pagers_look_for_the_end(node: Node, dodo: DodoPayments) -> None:
    made = [dodo.customers.create(name=f"Page {number}", email="many@pages.example").customer_id for number in range(7)]
    newest_first = made[::-1]

    def items(number: int) -> list[str]:
        page = dodo.customers.list(email="many@pages.example", page_size=2, page_number=number).items
        return [customer.customer_id for customer in page]

    assert [items(number) for number in range(5)] == [
        newest_first[0:2],
        newest_first[2:4],
        newest_first[4:6],
        newest_first[6:],
        [],
    ]
    # The SDKs ask for page (page_number or 1) + 1 next: they pass over page 1 unless TypeScript is given a 0.
    walked = [customer.customer_id for customer in dodo.customers.list(email="many@pages.example", page_size=2)]
    assert walked == newest_first[0:2] + newest_first[4:]
    assert node.run(NODE_SOURCES / "story.ts", "page") == {"from_zero": newest_first, "without": walked}


def test_errors_arrive_as_the_sdks_own(live_stack: Stack, dodo: DodoPayments) -> None:
    with pytest.raises(dodopayments.NotFoundError) as missing:
        dodo.customers.retrieve("cus_none")
    assert missing.value.body == {"code": "NOT_FOUND", "message": "Item not found"}
    with pytest.raises(dodopayments.BadRequestError) as bad:
        dodo.usage_events.ingest(events=[{"event_id": "e1", "customer_id": "cus_none", "event_name": "x"}])
    assert bad.value.body["code"] == "CUSTOMER_NOT_FOUND"  # type: ignore[index]
    assert [(error["index"], error["event_id"]) for error in bad.value.body["errors"]] == [(0, "e1")]  # type: ignore[index]
    with pytest.raises(dodopayments.UnprocessableEntityError):
        dodo.customers.create(name="", email="nobody")
    taken = {"customer_id": f"cus_taken_{datetime.now(UTC).timestamp()}"}
    dodo.customers.create(name="First", email="a@b.example", extra_body=taken)
    with pytest.raises(dodopayments.ConflictError) as conflict:
        dodo.customers.create(name="Second", email="a@b.example", extra_body=taken)
    # One request, not three: the server says that a retry cannot help.
    assert conflict.value.response.request.headers["x-stainless-retry-count"] == "0"
    reader = live_stack.manage("create_api_key", "reader", "--read-only").stdout.strip()
    read_only = DodoPayments(bearer_token=reader, base_url=live_stack.base_url)
    assert read_only.meters.list(page_size=1).items is not None
    with pytest.raises(dodopayments.PermissionDeniedError):
        read_only.customers.create(name="New", email="a@b.example")
    with pytest.raises(dodopayments.AuthenticationError):
        DodoPayments(bearer_token="mk_wrong", base_url=live_stack.base_url).meters.list()


def test_a_body_of_100_megabytes_gets_its_answer(live_stack: Stack) -> None:
    sloppy = DodoPayments(bearer_token=live_stack.api_key, base_url=live_stack.base_url, max_retries=0)
    with pytest.raises(dodopayments.APIStatusError) as refused:
        sloppy.post("/events/ingest", cast_to=object, body={"events": "a" * 100_000_000})
    assert refused.value.status_code == 413
    assert refused.value.body == {
        "code": "PAYLOAD_TOO_LARGE",
        "message": "The request body is larger than 5242880 bytes.",
    }
