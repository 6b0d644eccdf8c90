"""Every example of the seed runs unchanged, and what it sends is metered as the seed says."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from dodopayments import ConflictError, DodoPayments

from tests.sdk.conftest import NODE_SOURCES, Node, environment
from tests.stack import Stack

# The SDK marks subscriptions.create deprecated in favour of its hosted checkout.
pytestmark = [pytest.mark.sdk, pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")]

# What `next/server` and `react` mean to the seed's example, outside of Next and React.
STAND_INS = {
    "next/server.js": "export const NextRequest = Request; export const NextResponse = Response;",
    "react/index.js": "export const useCallback = (f) => f;",
}


@pytest.fixture(scope="module")
def seed_customers(live_stack: Stack) -> None:
    """The customers that the examples name."""
    client = DodoPayments(bearer_token=live_stack.api_key, base_url=live_stack.base_url)
    for customer_id in ("cus_abc123", "cus_abc", "cus_xyz"):
        try:
            client.customers.create(
                name=customer_id, email="seed@meterbook.example", extra_body={"customer_id": customer_id}
            )
        except ConflictError:
            continue  # the stack lives as long as the test process


def usage_of(client: DodoPayments, customer: str, event_name: str, kind: str, key: str | None = None) -> str:
    """What a meter over these events comes to for this customer, as a subscription to it shows."""
    aggregation = {"type": kind} if key is None else {"type": kind, "key": key}
    meter = client.meters.create(
        name=f"{kind} of {event_name}",
        event_name=event_name,
        aggregation=aggregation,  # type: ignore[arg-type]
        measurement_unit="units",
    )
    product = client.products.create(
        name="metered",
        tax_category="saas",
        price={
            "type": "usage_based_price",
            "currency": "USD",
            "fixed_price": 0,
            "payment_frequency_count": 1,
            "payment_frequency_interval": "Month",
            "subscription_period_count": 1,
            "subscription_period_interval": "Year",
            "meters": [{"meter_id": meter.id, "price_per_unit": "1"}],
        },
    )
    # It begins in the past, so that its running period holds what was sent before it existed.
    subscription = client.subscriptions.create(
        billing={"country": "US"},
        customer={"customer_id": customer},
        product_id=product.product_id,
        quantity=1,
        extra_body={"starts_at": _yesterday()},
    )
    (running,) = client.subscriptions.retrieve_usage_history(subscription.subscription_id).items
    (used,) = running.meters
    return used.consumed_units


def _yesterday() -> str:
    return (datetime.now(UTC) - timedelta(days=1)).isoformat()


def test_the_python_examples_run_as_written(live_stack: Stack, dodo: DodoPayments, seed_customers: None) -> None:
    before = dodo.usage_events.list(customer_id="cus_abc123", page_size=100).items
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "seed_examples.py")],
        env=environment(live_stack),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    known = {event.event_id for event in before}
    sent = [e for e in dodo.usage_events.list(customer_id="cus_abc123", page_size=100).items if e.event_id not in known]
    assert {event.event_name: event.metadata for event in sent} == {
        "ai.tokens": {"tokens": "2500", "model": "claude-3", "operation": "completion"},
        "image.generated": {"size": "1024x1024", "model": "dall-e-3"},
    }


def test_the_typescript_examples_run_as_written(node: Node, dodo: DodoPayments, seed_customers: None) -> None:
    for name, source in STAND_INS.items():
        package = node.folder / "node_modules" / Path(name).parent
        package.mkdir(parents=True, exist_ok=True)
        (package / Path(name).name).write_text(source)
        (package / "package.json").write_text(
            '{"type": "module", "main": "index.js", "exports": {".": "./index.js", "./server": "./server.js"}}'
        )

    def events(customer: str, event_name: str) -> set[str]:
        found: set[str] = set()
        for number in range(20):  # by hand: the SDK's own pager passes over a page (contract 0.6)
            page = dodo.usage_events.list(
                customer_id=customer, event_name=event_name, page_size=100, page_number=number
            ).items
            found |= {event.event_id for event in page}
        return found

    watched = [
        ("cus_abc123", "api.call"),
        ("cus_abc", "api.call"),
        ("cus_xyz", "api.call"),
        ("cus_abc123", "token.usage"),
        ("cus_abc", "token.usage"),
        ("cus_abc123", "ai.tokens"),
        ("cus_abc", "ai.tokens"),
        ("cus_abc", "image.generated"),
        ("cus_abc", "storage.snapshot"),
    ]
    before = {what: events(*what) for what in watched}
    told = {source.stem: node.run(source) for source in sorted((NODE_SOURCES / "seed").glob("*.ts"))}
    grown = {what: len(events(*what) - before[what]) for what in watched}
    assert grown == {
        ("cus_abc123", "api.call"): 3,  # quick start, trackUsage, hybrid billing
        ("cus_abc", "api.call"): 3,  # two of the batch, the middleware
        ("cus_xyz", "api.call"): 152,  # one of the batch, 150 queued, one with retry
        ("cus_abc123", "token.usage"): 1,
        ("cus_abc", "token.usage"): 1,
        ("cus_abc123", "ai.tokens"): 1,  # through the Next.js route
        ("cus_abc", "ai.tokens"): 1,
        ("cus_abc", "image.generated"): 1,
        ("cus_abc", "storage.snapshot"): 1,
    }
    accepted, refused = told["nextjs"]
    assert accepted == [200, {"success": True}]
    assert refused[0] == 500  # the seed's route turns the SDK's error into its own
    assert "cus_nobody" in refused[1]["error"]

    # "This value gets summed": token_123 with '1500'; 500 + 1,200 tokens sent as "1700"; the newest snapshot of 5 GB.
    assert usage_of(dodo, "cus_abc", "token.usage", "sum", "tokens") == "1500"
    assert usage_of(dodo, "cus_abc", "ai.tokens", "sum", "tokens") == "1700"
    assert usage_of(dodo, "cus_abc", "storage.snapshot", "last", "bytes") == "5368709120"
    assert usage_of(dodo, "cus_abc", "image.generated", "count") == "1"
