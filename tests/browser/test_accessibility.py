"""axe-core looks at every kind of customer page, light and dark, and at the admin's own kinds of page."""

import json
import subprocess
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from tests.browser.conftest import NARROW, WIDE
from tests.sdk.conftest import NODE, NPM
from tests.stack import Stack

pytestmark = pytest.mark.browser

VERSION = "4.11.0"
SERIOUS = ("serious", "critical")
PORTAL = ("/portal/", "plan", "/portal/invoices/", "invoice", "events", "/portal/balance/", "/portal/nowhere/")
# Of a customer with tiers and a credit note.
CREDITED = ("/portal/invoices/", "INV", "CN-")
ADMIN = (
    "/admin/",
    "/admin/customers/customer/",
    "/admin/customers/customer/add/",
    "/admin/billing/product/add/",
    "/admin/billing/invoice/",
    "/admin/billing/billingrun/start/",
    "/admin/billing/subscription/",
    "Hooli",
    "/admin/billing/ignoredcorrection/pending/",
    "/admin/billing/ignoredcorrection/",
    "/admin/billing/taxrate/",
    "/admin/billing/taxrate/add/",
    "/admin/billing/creditgrant/add/",
    "/admin/billing/creditgrant/",
    "Yearly prepayment",
    "of their customer",
    "/admin/billing/invoice/?status=held",
    "draft inv_",
    "/admin/billing/creditnote/",
    "CN-",
    "INV-",
    "Credit note",
    "/admin/billing/numberseries/",
    "/admin/billing/invoice/",
    "INV-",
    "The events behind this line",
    "/admin/billing/invoice/",
    "INV-",
    "Verify",
    "Verify!",
)
PASSWORD = "only-for-this-test-9"


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The source of axe-core, from the npm registry that this machine uses."""
    folder = tmp_path_factory.mktemp("axe")
    subprocess.run(
        [str(NODE), str(NPM), "install", "--no-package-lock", "--no-audit", "--no-fund", f"axe-core@{VERSION}"],
        cwd=folder,
        check=True,
        capture_output=True,
        timeout=180,
    )
    return (folder / "node_modules" / "axe-core" / "axe.min.js").read_text()


@pytest.fixture(scope="module")
def story(live_stack: Stack) -> dict[str, str]:
    told = live_stack.manage("shell", "-v", "0", "-c", "from tests.browser import story; print(story.portal())")
    return dict(json.loads(told.stdout))


@pytest.fixture(scope="module")
def operator(live_stack: Stack) -> str:
    """The name of somebody who may do everything."""
    made = "from django.contrib.auth.models import User; User.objects.create_superuser('axe', password='%s')"
    live_stack.manage("shell", "-v", "0", "-c", made % PASSWORD)
    return "axe"


@pytest.fixture
def page(browser: Browser, scheme: str) -> Iterator[Page]:
    context = browser.new_context(viewport=NARROW if scheme == "dark" else WIDE, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    page.set_default_timeout(15_000)
    yield page
    context.close()


def open_all(page: Page) -> None:
    """Everything that folds, so that axe sees it."""
    page.wait_for_load_state("load")
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")


def wrong(page: Page, axe: str) -> list[str]:
    """What axe calls serious or critical, with where it is."""
    page.evaluate(axe)
    found = page.evaluate("axe.run({resultTypes: ['violations']})")["violations"]
    return [
        f"{page.url}: {rule['id']} at {node['target']}: {node['failureSummary']}"
        for rule in found
        if rule["impact"] in SERIOUS
        for node in rule["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_on_a_customers_pages(
    page: Page, axe: str, live_stack: Stack, story: dict[str, str]
) -> None:
    found = []
    for link in (story["early"], story["nothing"], story["link"]):
        page.goto(link)
        found += wrong(page, axe)
    for place in PORTAL:
        if place == "plan":
            page.goto(f"{live_stack.base_url}/portal/")
            page.get_by_role("link", name="Earlier periods").click()
        elif place == "invoice":
            page.goto(f"{live_stack.base_url}/portal/invoices/")
            page.get_by_role("link", name=story["invoice"]).first.click()
        elif place == "events":
            page.locator(".others li a").first.click()
        else:
            page.goto(f"{live_stack.base_url}{place}")
        page.wait_for_load_state("load")
        found += wrong(page, axe)
    page.goto(story["credited"])
    for place in CREDITED:
        if place.startswith("/"):
            page.goto(f"{live_stack.base_url}{place}")
        else:
            page.locator("tbody th a", has_text=place).first.click()
        open_all(page)
        found += wrong(page, axe)
    page.context.clear_cookies()
    page.goto(f"{live_stack.base_url}/portal/")
    assert found + wrong(page, axe) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_on_the_admins_pages(
    page: Page, axe: str, live_stack: Stack, story: dict[str, str], operator: str
) -> None:
    page.goto(f"{live_stack.base_url}/admin/")
    page.locator("[name=username]").fill(operator)
    page.locator("[name=password]").fill(PASSWORD)
    page.locator("[type=submit]").click()
    found = []
    for place in ADMIN:
        if place == "Yearly prepayment":
            page.get_by_role("link", name=place).first.click()
        elif place == "of their customer":
            page.locator(".mb-sub a").click()
        elif place.endswith("!"):
            page.get_by_role("button", name=place.rstrip("!")).click()
        elif not place.startswith("/"):
            page.get_by_role("link", name=place).first.click()
        else:
            page.goto(f"{live_stack.base_url}{place}")
        open_all(page)
        found += wrong(page, axe)
    assert found == []
