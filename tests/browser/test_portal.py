"""A customer's pages in a real browser: wide and narrow, light and dark, with the keyboard, without scripts."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize, expect

from tests.browser.conftest import NARROW, WIDE, Watch, is_within_the_window
from tests.stack import Stack

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("portal")]


@pytest.fixture(scope="module")
def story(start_stack: Callable[..., Stack]) -> dict[str, str]:
    # A house of its own: other tests close periods early in the shared one, and the sums here would be billed already.
    told = start_stack().manage("shell", "-v", "0", "-c", "from tests.browser import story; print(story.portal())")
    return dict(json.loads(told.stdout))


def come_in(browser: Browser, link: str, **options: Any) -> tuple[BrowserContext, Page, Watch]:
    context = browser.new_context(**options)
    watch = Watch(context, link)
    page = context.new_page()
    page.set_default_timeout(15_000)
    page.goto(link)
    return context, page, watch


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["1440", "390"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_customer_finds_usage_periods_and_invoices(
    browser: Browser, story: dict[str, str], size: ViewportSize, scheme: str, tmp_path: Path
) -> None:
    context, page, watch = come_in(browser, story["link"], viewport=size, color_scheme=scheme)
    token = story["link"].rpartition("/")[2]
    assert page.url.endswith("/portal/")
    # 700 + 900 calls, of which 1000 free: 600 x $0.02; 1,600,000 tokens x $0.00001
    expect(page.locator(".money .first dd")).to_have_text("$28.00")
    expect(page.get_by_text("All 1,000 free calls used, 600 more at $0.02 each")).to_be_visible()
    chart = page.get_by_role("img", name="Calls by day")
    expect(chart).to_be_visible()
    expect(chart.locator("rect.bar")).to_have_count(2)
    assert is_within_the_window(page)

    page.get_by_role("link", name="Earlier periods").click()
    expect(page.get_by_role("heading", name="Earlier periods")).to_be_visible()
    # 900 + 1600 - 1000 = 1500 x $0.02 = $30.00, and 2,500,000 x $0.00001 = $25.00
    expect(page.locator(".fold-sum").first).to_have_text("$55.00")
    assert is_within_the_window(page)
    with page.expect_download() as download:
        page.locator(".fold").first.get_by_role("link", name="CSV by day").click()
    saved = tmp_path / "usage.csv"
    download.value.save_as(saved)
    with saved.open(newline="") as file:
        rows = list(csv.reader(file))
    assert ["total", "API calls", "2500", "calls", ""] in rows

    page.get_by_role("link", name="Invoices", exact=True).click()
    expect(page.get_by_role("row")).to_have_count(3 if size is WIDE else 2)
    assert is_within_the_window(page)
    page.get_by_role("link", name=story["invoice"], exact=True).click()
    expect(page.get_by_text("2,500 calls − 1,000 free = 1,500 × $0.02 = $30.00").first).to_be_visible()
    assert is_within_the_window(page)
    with page.expect_download() as download:
        page.get_by_role("link", name="Download PDF").click()
    assert download.value.suggested_filename == f"{story['invoice']}.pdf"
    download.value.save_as(tmp_path / "invoice.pdf")
    assert (tmp_path / "invoice.pdf").read_bytes().startswith(b"%PDF")

    page.get_by_role("link", name="Balance", exact=True).click()
    expect(page.locator(".money .first dd")).to_have_text("$12.50")
    expect(page.get_by_text("Thank you for your <b>patience</b>")).to_be_visible()
    page.locator("summary", has_text="Yearly prepayment").click()
    expect(page.get_by_text("$500.00 of $500.00 left, never expires.")).to_be_visible()
    assert is_within_the_window(page)

    assert page.locator("b").count() == 0  # the customer's name holds a tag
    assert watch.wrong == []
    assert [address for address in watch.addresses if token in address] == [story["link"]]
    context.close()


def test_the_pages_need_no_script(browser: Browser, story: dict[str, str]) -> None:
    context, page, watch = come_in(browser, story["link"], viewport=NARROW, java_script_enabled=False)
    page.get_by_text("Show as a table").first.click()
    expect(page.get_by_role("table").first).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="You are signed out")).to_be_visible()
    assert watch.wrong == []
    page.goto(story["link"].split("/s/")[0] + "/")
    expect(page.get_by_role("heading", name="This link no longer opens")).to_be_visible()
    context.close()


def test_the_keyboard_reaches_everything(browser: Browser, story: dict[str, str]) -> None:
    context, page, watch = come_in(browser, story["link"], viewport=WIDE)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    expect(page.get_by_role("link", name="Skip to content")).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    summary = page.locator("summary").first
    for link in (*page.locator(".due a").all(), summary):  # nothing in between, nothing left out
        page.keyboard.press("Tab")
        expect(link).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("table").first).to_be_visible()
    assert watch.wrong == []
    context.close()


def test_a_new_customer_is_told_what_comes(browser: Browser, story: dict[str, str]) -> None:
    context, page, watch = come_in(browser, story["nothing"], viewport=NARROW)
    expect(page.get_by_role("heading", name="Nothing is running")).to_be_visible()
    page.get_by_role("link", name="See your invoices").click()
    expect(page.get_by_role("heading", name="No invoices yet")).to_be_visible()
    assert is_within_the_window(page)
    assert watch.wrong == []
    context.close()


def test_each_page_prints_without_its_navigation(browser: Browser, story: dict[str, str]) -> None:
    context, page, _watch = come_in(browser, story["link"], viewport=WIDE)
    page.emulate_media(media="print")
    expect(page.get_by_role("navigation", name="Your pages")).to_be_hidden()
    expect(page.locator(".money .first dd")).to_be_visible()
    expect(page.get_by_role("img", name="Calls by day")).to_be_visible()
    context.close()
