"""An operator makes a price of tiers by clicking, reads it in words and drawn, and lets the page calculate."""

import secrets
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import NARROW, WIDE, Watch, is_within_the_window
from tests.browser.test_accessibility import axe as axe
from tests.browser.test_accessibility import wrong
from tests.stack import Stack

pytestmark = pytest.mark.browser

METER = (
    "from meters.meters import create_meter;"
    "create_meter(name='Tiered calls', event_name='tiered.call', aggregation='count', measurement_unit='calls')"
)


@pytest.fixture(scope="module")
def password(live_stack: Stack) -> str:
    word = secrets.token_urlsafe(12)
    made = f"from django.contrib.auth.models import User; User.objects.create_superuser('pricer', password={word!r})"
    live_stack.manage("shell", "-v", "0", "-c", f"{made}; {METER}")
    return word


@pytest.fixture(params=["light", "dark"])
def page(browser: Browser, request: pytest.FixtureRequest, live_stack: Stack, password: str) -> Iterator[Page]:
    scheme = request.param
    context = browser.new_context(viewport=NARROW if scheme == "dark" else WIDE, color_scheme=scheme)
    watch = Watch(context, live_stack.base_url)
    page = context.new_page()
    page.set_default_timeout(15_000)
    page.goto(f"{live_stack.base_url}/admin/")
    page.locator("[name=username]").fill("pricer")
    page.locator("[name=password]").fill(password)
    page.locator("[type=submit]").click()
    yield page
    context.close()
    assert watch.wrong == []


def test_a_price_of_tiers_is_clicked_together_read_and_calculated(page: Page, live_stack: Stack, axe: str) -> None:
    page.goto(f"{live_stack.base_url}/admin/billing/product/add/")
    page.locator("[name=name]").fill("Tiered API")
    charge = page.locator("#charge-rows .mb-charge")
    charge.locator("select[name$=-meter]").select_option(label="Tiered calls (calls)")
    # Only what the chosen way of pricing needs is to be seen.
    expect(charge.locator("[name$=-price_per_unit]")).to_be_visible()
    expect(charge.locator("[name$=-tiers_up_to]").first).to_be_hidden()
    charge.locator("select[name$=-model]").select_option("graduated")
    expect(charge.locator("[name$=-price_per_unit]")).to_be_hidden()
    bounds, prices = charge.locator("[name$=-tiers_up_to]"), charge.locator("[name$=-tiers_unit_price]")
    expect(bounds).to_have_count(1)
    add = charge.get_by_role("button", name="Add a tier")
    add.click()
    add.click()
    expect(bounds).to_have_count(3)
    for number, (bound, price) in enumerate([("100", "0.10"), ("5", "9"), ("", "0.05")]):
        bounds.nth(number).fill(bound)
        prices.nth(number).fill(price)
    # The one in the middle was a mistake.
    charge.get_by_role("button", name="Remove this row").nth(1).click()
    expect(bounds).to_have_count(2)
    expect(prices.nth(1)).to_have_attribute("aria-label", "Price per unit, row 2")
    charge.get_by_text("Least, most and discounts").click()
    charge.locator("[name$=-minimum]").fill("2")
    # A second meter comes with rows of its own; it is taken away again.
    page.get_by_role("button", name="Add a meter").click()
    expect(charge).to_have_count(2)
    charge.nth(1).locator("select[name$=-model]").select_option("by_dimension")
    charge.nth(1).get_by_role("button", name="Add a value").click()
    expect(page.locator("[name=charges-1-prices_value]")).to_have_count(2)
    charge.nth(1).get_by_role("button", name="Remove this meter").click()
    page.get_by_text("What billing systems do differently").click()
    page.locator("[name=convention_charge_last_day]").select_option("yes")
    assert wrong(page, axe) == []
    assert is_within_the_window(page)
    page.get_by_role("button", name="Create product").click()
    expect(page.get_by_text("$0.10 per call up to 100, then $0.05, at least $2.00").first).to_be_visible()
    expect(page.get_by_text("is charged whole")).to_be_visible()
    expect(page.locator("#calculator svg")).to_have_count(2)
    # 120 calls: 100 x 0.10 + 20 x 0.05, without leaving the page.
    page.locator("#calculator input").first.fill("120")
    expect(page.locator("#calculation tfoot")).to_contain_text("$11.00")
    page.locator("#calculator input").first.fill("many")
    expect(page.locator("#calculation")).to_contain_text("Enter a number")
    assert wrong(page, axe) == []
    assert is_within_the_window(page)
