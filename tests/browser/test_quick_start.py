"""The seed's quick start by an operator who never saw the code: each step a click; only the events come over REST."""

import json
import re
import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from io import BytesIO

import pytest
from playwright.sync_api import APIRequestContext, Browser, Locator, Page, expect
from pypdf import PdfReader

from tests.browser.conftest import NARROW, WIDE, Watch, is_within_the_window
from tests.stack import Stack

pytestmark = pytest.mark.browser

SUM = "15,000 calls − 1,000 free = 14,000 × $0.001 = $14.00"


@pytest.fixture(scope="module")
def empty_house(start_stack: Callable[..., Stack]) -> Stack:
    """An installation nobody has used yet: the start page still shows its five steps."""
    return start_stack()


@pytest.fixture(scope="module")
def password(empty_house: Stack) -> str:
    word = secrets.token_urlsafe(12)
    empty_house.manage(
        "shell",
        "-v",
        "0",
        "-c",
        "from django.contrib.auth.models import User;"
        f"User.objects.create_superuser('operator', 'ops@example.com', {word!r})",
    )
    return word


def field(page: Page, label: str) -> Locator:
    """A form field by its label; a needed one has a star behind it."""
    return page.get_by_label(re.compile(rf"^\s*{re.escape(label)}\s*\*?\s*$"))


def step(page: Page, name: str) -> None:
    """Follow a step of the start page's checklist."""
    menu(page, "Start")
    page.locator("#first-steps").get_by_role("link", name=name).click()


def menu(page: Page, name: str) -> None:
    # The menu's icons are letters to a machine, so its entries are found by how they end.
    page.locator("#nav-sidebar a").filter(has_text=re.compile(rf"{name}\s*$")).first.click()


def send_calls(application: APIRequestContext, base_url: str, key: str, customer_id: str, count: int) -> None:
    """As an application does, a thousand events a request; the last one twice, as after a time-out."""
    stored = 0
    for first in [*range(0, count, 1000), count - 1000]:
        events = [
            {"event_id": f"call_{number}", "customer_id": customer_id, "event_name": "api.call"}
            for number in range(first, first + 1000)
        ]
        answer = application.post(
            f"{base_url}/events/ingest",
            data=json.dumps({"events": events}),
            headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
        )
        assert answer.status == 200
        stored += answer.json()["ingested_count"]
    assert stored == count


def test_an_operator_comes_from_an_empty_house_to_a_paid_invoice(
    browser: Browser, empty_house: Stack, password: str
) -> None:
    base = empty_house.base_url
    context = browser.new_context(viewport=WIDE)
    watch = Watch(context, base)
    page = context.new_page()
    page.set_default_timeout(20_000)
    page.goto(f"{base}/admin/")
    page.get_by_label("Username").fill("operator")
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_text("0 of 5 done")).to_be_visible()

    step(page, "Create a meter")
    field(page, "Name").fill("API Requests")
    field(page, "Event name").fill("api.call")
    field(page, "Unit").fill("calls")
    page.get_by_role("button", name="Create meter").click()
    expect(page.get_by_role("heading", name="API Requests", exact=True)).to_be_visible()

    step(page, "Create a usage-based product")
    field(page, "Name").fill("API Service")
    field(page, "Meter").select_option(label="API Requests (calls)")
    field(page, "Price per unit").fill("0.001")
    field(page, "Free units each period").fill("1000")
    page.get_by_role("button", name="Create product").click()
    expect(page.get_by_text("$0.001 per call after 1,000 free").first).to_be_visible()

    menu(page, "Customers")
    page.get_by_role("link", name=re.compile("New customer|Create customer|Add customer")).first.click()
    field(page, "Name").fill("Quick Start Ltd")
    page.get_by_label(re.compile("^E-?mail")).fill("pay@quick.example")
    field(page, "Customer id").fill("cus_abc123")
    page.get_by_role("button", name="Create customer").click()
    page.get_by_role("link", name="Subscribe").first.click()
    field(page, "Product").select_option(label="API Service")
    page.get_by_role("button", name="Subscribe").last.click()
    expect(page.get_by_role("heading", name="API Service", exact=True)).to_be_visible()

    step(page, "Create an API key and send events")
    field(page, "Name").fill("my application")
    page.get_by_role("button", name="Create key").click()
    key = page.locator("#new-key").inner_text().strip()
    application = browser.new_context()
    send_calls(application.request, base, key, "cus_abc123", 15_000)
    application.close()

    menu(page, "Meters")
    page.get_by_role("link", name="API Requests").first.click()
    expect(page.get_by_text("15,000").first).to_be_visible()
    expect(page.get_by_text("Quick Start Ltd").first).to_be_visible()
    menu(page, "Subscriptions")
    page.get_by_role("link", name=re.compile("Quick Start Ltd")).first.click()
    expect(page.get_by_text(SUM)).to_be_visible()

    step(page, "Run billing and open the invoice")
    page.get_by_role("button", name="Dry run").click()
    expect(page.get_by_text("Nothing is due at that moment")).to_be_visible()
    # A month and a day ahead: an operator may close a running period early.
    later = datetime.now(UTC) + timedelta(days=32)
    field(page, "Bill everything up to").fill(f"{later:%Y-%m-%dT%H:%M}")
    page.get_by_role("button", name="Dry run again").click()
    expect(page.locator("#dry-run")).to_contain_text(SUM)
    page.get_by_role("button", name="Run billing: issue 1 invoice").click()
    expect(page.get_by_text("1 of 1 subscription done")).to_be_visible(timeout=60_000)

    page.get_by_role("link", name="INV-000001").click()
    expect(page.locator(".doc-due")).to_contain_text("$14.00 due")
    expect(page.locator(".doc-lines")).to_contain_text(SUM)
    link = page.get_by_role("link", name="PDF", exact=True).last.get_attribute("href")
    document = PdfReader(BytesIO(context.request.get(f"{base}{link}").body()))
    text = "".join(sheet.extract_text() for sheet in document.pages)
    assert "$14.00 due" in text
    page.locator("a, button").filter(has_text="Mark paid").first.click()
    page.get_by_role("button", name=re.compile("Mark .*paid")).last.click()
    expect(page.locator(".doc-due")).to_contain_text("$14.00 paid on")

    menu(page, "Customers")
    page.get_by_role("link", name=re.compile("Quick Start Ltd")).first.click()
    page.locator("a, button").filter(has_text="Portal link").first.click()
    page.get_by_role("button", name="Make the link").click()
    address = page.get_by_text(re.compile(rf"{re.escape(base)}/portal/s/\S+")).first.inner_text().strip()
    assert watch.wrong == []
    context.close()

    theirs = browser.new_context(viewport=NARROW)
    watch = Watch(theirs, base)
    page = theirs.new_page()
    page.goto(address)
    expect(page.get_by_role("heading", name="Usage", exact=True)).to_be_visible()
    page.get_by_role("link", name="Invoices", exact=True).click()
    expect(page.get_by_role("row")).to_contain_text(["$14.00"])
    page.get_by_role("link", name="INV-000001", exact=True).click()
    expect(page.locator(".doc-lines")).to_contain_text(SUM)
    assert is_within_the_window(page)
    assert watch.wrong == []
    theirs.close()
