"""Billing runs that make drafts and shared invoices: said rightly before, by the command, and after."""

import re
from decimal import Decimal
from html import unescape
from io import StringIO

import pytest
import time_machine
from django.core.management import call_command
from django.test import Client
from django.urls import reverse

from billing.credits import grant_credit
from billing.cycles import start_run, work_run
from billing.invoices import approve_invoice
from billing.models import BillingRun, Invoice
from billing.profiles import set_profile
from billing.taxes import create_tax_rate
from tests.base import acme, at, call_meter, globex, send, subscribed, usage_product

pytestmark = pytest.mark.django_db
NOW = at("2026-02-01T01:00")


def story() -> None:
    """Acme's two subscriptions share an invoice, $2 each; Globex's draft waits for approval, $6 with 20 % tax."""
    one, two = acme(), globex(billing_address={"country": "DE"})
    create_tax_rate(name="VAT", percent=Decimal(20), country="DE")
    product = usage_product((call_meter(), "2", 0), name="API")
    for _ in range(2):
        subscribed(one, product, on="2026-01-01")
    subscribed(two, product, on="2026-01-01")
    send(one, 100, on="2026-01-10")
    send(two, 250, on="2026-01-10")
    set_profile(customer=one, combine_invoices=True)
    set_profile(customer=two, needs_approval=True)


def text_of(client: Client, url: str) -> str:
    with time_machine.travel(NOW, tick=False):
        return unescape(" ".join(re.sub(r"<[^>]+>", " ", client.get(url).content.decode()).split()))


def run() -> BillingRun:
    made = start_run(trigger="command", until=NOW, now=NOW)
    work_run(run=made, clock=lambda: NOW)
    return made


def test_a_dry_run_says_what_is_a_draft_and_what_is_shared(root: Client) -> None:
    story()
    page = text_of(root, reverse("admin:billing_billingrun_start") + "?until=2026-02-01T01:00&only=")
    assert "2 of these share an invoice with others of their customer" in page
    assert "1 of them is a draft first, for review" in page
    assert "Total, with credit and tax $10.00" in page  # 2.00 + 2.00 + 5.00 + 20 %
    assert "Tax $1.00 Total $6.00" in page
    assert "Run billing: issue" not in page
    assert not Invoice.objects.exists()


def test_a_dry_run_shows_credit_and_what_it_leaves(root: Client) -> None:
    customer = acme()
    subscribed(customer, usage_product((call_meter(), "2", 0)), on="2026-01-01")
    send(customer, 100, on="2026-01-10")
    grant_credit(customer=customer, name="Prepaid", amount=Decimal(50), currency="USD", now=at("2026-01-02"))
    page = text_of(root, reverse("admin:billing_billingrun_start") + "?until=2026-02-01T01:00&only=")
    assert "Prepaid credit -$0.50 Total $1.50" in page
    assert "Run billing: issue 1 invoice" in page
    assert "share an invoice" not in page
    assert "for review" not in page


def test_a_run_says_what_it_issued_and_what_waits(root: Client) -> None:
    story()
    made = run()
    page = text_of(root, reverse("admin:billing_billingrun_change", args=[made.pk]))
    assert "3 of 3 subscriptions done" in page
    assert "Invoices issued 1 1 for several subscriptions" in page
    assert "Drafts 1 $6.00; 1 held" in page
    assert "Issued in total $4.00" in page
    assert "1 draft of this run is not issued yet" in page
    listed = text_of(root, reverse("admin:billing_billingrun_changelist"))
    assert "3 0 1, 1 draft $4.00" in listed
    approve_invoice(invoice=made.invoices.get(status="draft"), by="ada", now=NOW)
    assert "held" not in text_of(root, reverse("admin:billing_billingrun_change", args=[made.pk]))


def test_the_command_says_the_same() -> None:
    story()
    said = StringIO()
    with time_machine.travel(NOW, tick=False):
        call_command("close_cycles", "--dry-run", "--until", NOW.isoformat(), stdout=said)
    assert "Globex" in said.getvalue()
    assert "$6.00, a draft first" in said.getvalue()
    assert (
        "Dry run: 3 invoices would be made for $10.00, 1 of them a draft first. Nothing was saved." in said.getvalue()
    )
    done = StringIO()
    call_command("close_cycles", "--until", NOW.isoformat(), stdout=done)
    assert done.getvalue().strip() == "3 subscriptions due, 1 invoice issued for $4.00, 1 draft to review for $6.00."


def test_a_run_without_drafts_says_nothing_of_them() -> None:
    customer = acme()
    subscribed(customer, usage_product((call_meter(), "2", 0)), on="2026-01-01")
    send(customer, 100, on="2026-01-10")
    done = StringIO()
    call_command("close_cycles", "--until", NOW.isoformat(), stdout=done)
    assert done.getvalue().strip() == "1 subscription due, 1 invoice issued for $2.00."
