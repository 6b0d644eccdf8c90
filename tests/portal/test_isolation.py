"""Nobody sees another customer's. Every route under /portal/ is walked, and a new one without a case fails."""

from decimal import Decimal
from typing import Any

import pytest
import time_machine
from django.test import Client
from django.urls import URLPattern

from billing.credit_notes import credit_invoice
from billing.models import Invoice
from customers.models import Customer
from customers.portal.urls import urlpatterns
from tests.base import acme, at, globex
from tests.portal.visit import billed, come_in

pytestmark = pytest.mark.django_db

NOW = "2026-02-10T12:00"
# Routes that name nothing of a customer's.
_NAMELESS = {"home", "enter", "closed", "leave", "invoices", "balance", "nowhere"}


def owned_paths(customer_name: str) -> dict[str, str]:
    """For each route that names something, its path for what this customer owns."""
    customer = globex() if customer_name == "Globex" else acme()
    subscription, invoice = billed(customer, name=f"{customer_name} plan")
    period = subscription.periods.order_by("start").first()
    assert period is not None
    note = credit_invoice(invoice=invoice, reason=f"{customer_name} asked", now=at(NOW), amount=Decimal(100))
    return {
        "credit_note": f"/portal/credit-notes/{note.public_id}/",
        "credit_note_pdf": f"/portal/credit-notes/{note.public_id}/pdf",
        "plan": f"/portal/plans/{subscription.public_id}/",
        "usage_csv": f"/portal/periods/{period.pk}/usage.csv",
        "invoice": f"/portal/invoices/{invoice.public_id}/",
        "invoice_pdf": f"/portal/invoices/{invoice.public_id}/pdf",
        "line_events": f"/portal/invoices/{invoice.public_id}/lines/2/events/",
        "line_events_csv": f"/portal/invoices/{invoice.public_id}/lines/2/events.csv",
    }


def body_of(answer: Any) -> bytes:
    """The whole answer, also of one that comes in pieces."""
    return b"".join(answer.streaming_content) if answer.streaming else bytes(answer.content)


def test_every_route_has_a_case_here() -> None:
    names = {pattern.name for pattern in urlpatterns if isinstance(pattern, URLPattern)}
    assert names - _NAMELESS == set(owned_paths("Acme"))


def test_each_customer_sees_their_own_and_gets_404_for_the_others() -> None:
    with time_machine.travel(at(NOW), tick=False):
        paths = {name: owned_paths(name) for name in ("Acme", "Globex")}
        for name, other in (("Acme", "Globex"), ("Globex", "Acme")):
            client = come_in(Customer.objects.get(name=name), on=NOW)
            for route, path in paths[name].items():
                answer = client.get(path)
                assert answer.status_code == 200, route
                assert other.encode() not in body_of(answer), route
            for route, path in paths[other].items():
                answer = client.get(path)
                assert answer.status_code == 404, route
                assert other.encode() not in answer.content, route
            for path in ("/portal/", "/portal/invoices/"):
                page = client.get(path).content.decode()
                assert name in page
                assert other not in page


def test_without_a_link_nothing_opens() -> None:
    with time_machine.travel(at(NOW), tick=False):
        for path in [
            *owned_paths("Acme").values(),
            "/portal/",
            "/portal/invoices/",
            "/portal/balance/",
            "/portal/whatever/else",
        ]:
            answer = Client().get(path)
            assert answer.status_code == 403, path
            assert b"Acme" not in answer.content


def test_a_draft_is_not_the_customers_yet() -> None:
    with time_machine.travel(at(NOW), tick=False):
        customer = acme()
        draft = Invoice.objects.create(customer=customer, reason="one_time", currency="USD", customer_name="Acme")
        client = come_in(customer, on=NOW)
        for path in ("", "pdf", "lines/1/events/", "lines/1/events.csv"):
            path = f"/portal/invoices/{draft.public_id}/{path}"
            assert client.get(path).status_code == 404
        assert draft.public_id not in client.get("/portal/invoices/").content.decode()


@pytest.mark.parametrize(
    "path",
    [
        "/portal/periods/99999999999999999999999999/usage.csv",
        "/portal/invoices/nothing/",
        "/portal/invoices/inv_%E2%82%AC/pdf",
        "/portal/plans/' OR 1=1--/",
        "/portal/admin/",
    ],
)
def test_an_odd_address_is_simply_not_there(path: str) -> None:
    with time_machine.travel(at(NOW), tick=False):
        answer = come_in(acme(), on=NOW).get(path)
    assert answer.status_code == 404
    assert "There is nothing here" in answer.content.decode()
