"""The demo: a real history, made once, reset with one command, and never over somebody's data."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import authenticate
from django.core.management import CommandError, call_command

from billing.management.commands import demo as command
from billing.models import Invoice, Subscription
from customers.keys import find_api_key
from customers.models import Customer
from meters.models import Event
from tests.base import acme

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "demo.json"
    monkeypatch.setattr(command, "CREDENTIALS", path)
    return path


def read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text()))


def test_it_makes_customers_events_and_invoices_paid_and_open(credentials: Path) -> None:
    call_command("demo")
    assert Customer.objects.count() == 6
    assert {"cus_abc123", "cus_abc", "cus_xyz"} <= set(Customer.objects.values_list("public_id", flat=True))
    assert Event.objects.count() > 20_000
    assert set(Invoice.objects.values_list("status", flat=True)) >= {"paid", "issued"}
    assert set(Subscription.objects.values_list("status", flat=True)) == {"active", "cancelled"}
    assert not Subscription.objects.filter(parked_at__isnull=False).exists()
    numbers = list(Invoice.objects.order_by("pk").values_list("number", flat=True))
    assert numbers == [f"INV-{n:06d}" for n in range(1, len(numbers) + 1)]


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
    assert Customer.objects.count() == 6


def test_a_reset_refuses_to_forget_real_customers() -> None:
    customer = acme()
    with pytest.raises(CommandError, match="not made by the demo"):
        call_command("demo", "--reset", "--yes")
    assert Customer.objects.get() == customer
