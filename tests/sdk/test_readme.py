"""The README's own examples, run as they stand there against a running server: they end in the invoice it promises."""

import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from dodopayments import DodoPayments

from tests.sdk.conftest import Node, environment
from tests.stack import ROOT, Stack

# The SDK marks subscriptions.create deprecated in favour of its hosted checkout.
pytestmark = [pytest.mark.sdk, pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")]

README = (ROOT / "README.md").read_text()


def fenced(language: str) -> str:
    """The one block of this language."""
    (block,) = re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.S | re.M)
    return str(block)


def indented(first_word: str) -> str:
    """The one block of shell lines that begins with this word."""
    blocks = [block for block in re.findall(r"(?:^ {4}.*\n)+", README, flags=re.M) if block.split()[0] == first_word]
    (block,) = blocks
    return re.sub(r"^ {4}", "", block, flags=re.M)


def follow_the_first_three_steps(client: DodoPayments) -> str:
    """A meter, a product and a customer as the README has them made in the admin; the subscription's id."""
    customer = client.customers.create(
        name="README", email="readme@meterbook.example", extra_body={"customer_id": "cus_readme"}
    )
    assert customer.customer_id == "cus_readme"
    meter = client.meters.create(
        name="API Requests", event_name="api.call", aggregation={"type": "count"}, measurement_unit="calls"
    )
    product = client.products.create(
        name="API Service",
        tax_category="saas",
        price={
            "type": "usage_based_price",
            "currency": "USD",
            "fixed_price": 0,
            "payment_frequency_count": 1,
            "payment_frequency_interval": "Month",
            "subscription_period_count": 20,
            "subscription_period_interval": "Year",
            "meters": [{"meter_id": meter.id, "price_per_unit": "2", "free_threshold": 1000}],
        },
    )
    return client.subscriptions.create(
        billing={"country": "US"}, customer={"customer_id": "cus_readme"}, product_id=product.product_id, quantity=1
    ).subscription_id


def run(command: list[str], stack: Stack) -> str:
    done = subprocess.run(
        command, env=environment(stack), capture_output=True, text=True, timeout=120, check=False, cwd=ROOT
    )
    assert done.returncode == 0, f"{command[0]}: {done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_readmes_examples_end_in_the_invoice_that_it_promises(
    live_stack: Stack, dodo: DodoPayments, node: Node, tmp_path: Path
) -> None:
    subscription = follow_the_first_three_steps(dodo)
    # Both variables are set as the README's `export` lines name them.
    names = re.findall(r"^export (\w+)=", indented("export"), flags=re.M)
    assert names == ["DODO_PAYMENTS_BASE_URL", "DODO_PAYMENTS_API_KEY"]

    assert run(["bash", "-euc", indented("curl")], live_stack) == '{"ingested_count":1}'
    assert run([sys.executable, "-c", fenced("python")], live_stack) == ""
    (period,) = dodo.subscriptions.retrieve_usage_history(subscription).items
    assert [(m.consumed_units, m.chargeable_units, m.total_price) for m in period.meters] == [("2500", "1500", 3000)]
    # The same events in TypeScript: "running this after the Python example stores nothing new".
    source = tmp_path / "readme.ts"
    source.write_text(fenced("typescript"))
    assert node.print(source).splitlines() == ["0 new events"] * 3

    (command,) = re.findall(r"`\.venv/bin/python manage\.py (close_cycles --until) \S+` \(with your own date\)", README)
    ahead = (datetime.now(UTC) + timedelta(days=32)).isoformat()
    live_stack.manage(*command.split(), ahead)
    billed, started = dodo.payments.list(subscription_id=subscription).items
    assert (billed.total_amount, billed.currency, started.total_amount) == (3000, "USD", 0)
    page = dodo.invoices.payments.retrieve(billed.payment_id).read()
    assert page.startswith(b"%PDF-")
    (line,) = dodo.payments.retrieve_line_items(billed.payment_id).items
    assert (line.amount, line.name) == (3000, "API Requests")
    # 2,500 calls − 1,000 free = 1,500 × $0.02, the sentence of step 5.
    assert "2,500 calls − 1,000 free = 1,500 × $0.02 = $30.00" in README
