"""The demo: a real history, made once, reset with one command, and never over somebody's data."""

import json
import stat
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import authenticate
from django.core.management import CommandError, call_command

from billing.corrections import pending_corrections
from billing.management.commands import demo as command
from billing.models import CreditNote, Invoice, Subscription
from customers.keys import find_api_key
from customers.models import Customer
from meters.models import Event
from tests.base import acme

pytestmark = pytest.mark.django_db
D = Decimal


@pytest.fixture(autouse=True)
def credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "demo.json"
    monkeypatch.setattr(command, "CREDENTIALS", path)
    return path


def read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text()))


def test_it_makes_customers_events_and_invoices_paid_and_open(credentials: Path) -> None:
    call_command("demo")
    assert Customer.objects.count() == 8
    assert {"cus_abc123", "cus_abc", "cus_xyz"} <= set(Customer.objects.values_list("public_id", flat=True))
    assert Event.objects.count() > 20_000
    assert set(Invoice.objects.values_list("status", flat=True)) == {"paid", "issued", "draft"}
    assert set(Subscription.objects.values_list("status", flat=True)) == {"active", "cancelled"}
    assert not Subscription.objects.filter(parked_at__isnull=False).exists()
    numbers = list(Invoice.objects.exclude(status="draft").order_by("number").values_list("number", flat=True))
    assert numbers == [f"INV-{n:06d}" for n in range(1, len(numbers) + 1)]


def test_it_shows_one_of_each(credentials: Path) -> None:
    call_command("demo")
    # Tiers, filled up to the commitment; a discount; prepaid credit; tax.
    meridian = Customer.objects.get(public_id="cus_meridian")
    invoice = meridian.invoices.order_by("pk")[0]
    usage, commitment = invoice.lines.order_by("position")
    assert (usage.kind, usage.explanation["model"], commitment.kind) == ("usage", "graduated", "commitment")
    assert usage.discount > 0
    assert usage.amount + commitment.amount == invoice.subtotal == 4500
    # 45.00 are paid from the prepaid credit, so nothing is left to tax.
    assert (invoice.credit, invoice.tax, invoice.total) == (D(4500), D(0), D(0))
    taxed = Invoice.objects.filter(customer__public_id="cus_xyz").order_by("pk")[0]
    assert taxed.tax == 980  # 20 % of 49.00
    reverse = Invoice.objects.filter(customer__public_id="cus_abc", status="paid").latest("pk")
    assert {line.tax_reason for line in reverse.lines.all()} == {"Reverse charge, tax id DE811223344"}
    # A yearly fee and monthly usage.
    first, second = Invoice.objects.filter(customer__public_id="cus_fjord").order_by("pk")
    assert [(line.kind, line.amount) for line in first.lines.all()] == [("fee", D(48000))]
    assert [line.kind for line in second.lines.all()] == ["usage"]
    # A fifth of the onboarding day was given back after it was paid, and the balance paid for the next invoice.
    note = CreditNote.objects.get()
    assert (note.total, note.to_balance) == (D(10000), D(10000))
    # A draft that somebody looks at, and late events that will correct a billed period.
    draft = Invoice.objects.get(status="draft")
    assert (draft.customer.public_id, draft.hold_reason[:10]) == ("cus_solo", "Her first ")
    pending = pending_corrections()
    (late,) = pending.corrections
    assert late.charge is not None
    assert (late.charge.meter.name, late.quantity, late.amount) == ("Images", D(40), D(200))  # 40 x 5 cents
    assert pending.complete
    assert not pending.unreadable


def test_its_invoices_can_be_proved(credentials: Path) -> None:
    call_command("demo")
    said = StringIO()
    number = Invoice.objects.filter(customer__public_id="cus_meridian").order_by("pk")[0].number
    call_command("verify_invoice", number, stdout=said)
    assert "identical" in said.getvalue().lower()


def test_its_credentials_work_and_are_its_owners_only(credentials: Path) -> None:
    call_command("demo")
    given = read(credentials)
    assert stat.S_IMODE(credentials.stat().st_mode) == 0o600
    assert authenticate(username=given["admin_username"], password=given["admin_password"]) is not None
    assert find_api_key(presented=given["api_key"]) is not None
    call_command("demo", "--links")
    assert read(credentials)["portal_link"] != given["portal_link"]
    assert read(credentials)["api_key"] == given["api_key"]


def test_a_second_time_changes_nothing_and_a_reset_begins_anew(credentials: Path) -> None:
    call_command("demo")
    before = Event.objects.count()
    call_command("demo")
    assert Event.objects.count() == before
    acme_free = Customer.objects.get(public_id="cus_abc")
    Customer.objects.filter(pk=acme_free.pk).update(name="Renamed by a visitor")
    call_command("demo", "--reset", "--yes")
    assert Customer.objects.get(public_id="cus_abc").name == "Kestrel Robotics"
    assert Customer.objects.count() == 8


def test_a_reset_refuses_to_forget_real_customers() -> None:
    customer = acme()
    with pytest.raises(CommandError, match="not made by the demo"):
        call_command("demo", "--reset", "--yes")
    assert Customer.objects.get() == customer
