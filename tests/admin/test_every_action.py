"""A walk over every action of the admin: by GET it changes nothing, by POST it asks for its permission and for the
form's token, and with both it does what it says. An action that is not in the tables below fails the walk."""

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from queue import Empty
from typing import Any

import pytest
from celery import current_app
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from django_celery_beat.models import PeriodicTask

from billing.balances import balance_of
from billing.discounts import add_discount
from billing.invoices import hold_invoice
from billing.models import BillingRun, Invoice, InvoiceStatus, SubscriptionStatus, TaxRate
from billing.profiles import profile_of
from customers.models import PortalLink
from meters.imports import accept_upload, go_on
from meters.models import Event, EventImport, EventVoid
from tests.admin.house import House, nothing_changes, operator, registered, signed_in


@dataclass(frozen=True)
class Case:
    """One action: on what, who may, what is sent, and how its effect is seen (False before, True after)."""

    row: Callable[[House], Any]
    permission: str
    happened: Callable[[House], bool]
    data: Callable[[House], dict[str, Any]] = field(default=lambda house: {})
    prepare: Callable[[House], None] = field(default=lambda house: None)


@dataclass(frozen=True)
class Link:
    """A button that only leads somewhere."""

    row: Callable[[House], Any] | None
    permission: str
    leads_to: str


def _archive(thing: Any) -> None:
    type(thing).objects.filter(pk=thing.pk).update(archived_at=timezone.now())


def _ends(house: House) -> None:
    type(house.ending).objects.filter(pk=house.ending.pk).update(cancel_at_period_end=True)


def _discounted(house: House) -> None:
    add_discount(subscription=house.ending, name="Launch", percent=Decimal(10), now=timezone.now())


def _fresh(thing: Any) -> Any:
    return type(thing).objects.get(pk=thing.pk)


def _an_event(house: House) -> Event:
    return Event.objects.get(customer=house.customer, event_name="unread.name")


def _a_finished_import(house: House) -> None:
    """A file that was uploaded and read to its end."""
    event = {"event_id": "from-a-file", "customer_id": house.customer.public_id, "event_name": "e", "timestamp": _ago()}
    record = accept_upload(
        chunks=[json.dumps(event).encode()],
        name="events.jsonl",
        folder=Path(tempfile.mkdtemp(prefix="meterbook-tests-")),
        now=timezone.now(),
    )
    assert go_on(import_id=record.pk, clock=timezone.now, seconds=60)


def _ago() -> str:
    return (timezone.now() - timedelta(days=3)).isoformat()


def _write(rows: Any, **changes: Any) -> None:
    rows.update(**changes)


def _a_cycle(house: House) -> Invoice:
    """An open invoice of a subscription."""
    return house.subscription.invoices.filter(replaces=None).order_by("pk")[0]


def _later() -> str:
    return (timezone.now() + timedelta(days=3)).strftime("%Y-%m-%dT%H:%M")


COMMANDS: dict[str, Case] = {
    "customers_apikey_revoke": Case(
        lambda h: h.key, "customers.revoke_apikey", lambda h: not _fresh(h.key).is_active()
    ),
    "customers_customer_charge": Case(
        lambda h: h.other,
        "billing.add_invoice",
        lambda h: Invoice.objects.filter(customer=h.other, reason="one_time").exists(),
        lambda h: {"product": h.once.pk, "quantity": 2},
    ),
    "customers_customer_adjust_balance": Case(
        lambda h: h.other,
        "billing.add_balanceentry",
        lambda h: balance_of(customer=h.other, currency="EUR") == 1250,
        lambda h: {"direction": "give", "amount": "12.50", "currency": "EUR", "reason": "goodwill"},
    ),
    "customers_customer_billing_profile": Case(
        lambda h: h.other,
        "billing.change_billingprofile",
        lambda h: profile_of(h.other).reverse_charge and profile_of(h.other).grace_hours == 48,
        lambda h: {"reverse_charge": "on", "tax_id": "FR1", "grace_hours": 48},
    ),
    "customers_customer_portal_link": Case(
        lambda h: h.other, "customers.add_portallink", lambda h: PortalLink.objects.filter(customer=h.other).exists()
    ),
    "customers_customer_revoke_links": Case(
        lambda h: h.customer,
        "customers.change_portallink",
        lambda h: not PortalLink.objects.filter(customer=h.customer, revoked_at__isnull=True).exists(),
    ),
    "meters_meter_send_test_event": Case(
        lambda h: h.calls,
        "meters.add_meter",
        lambda h: Event.objects.filter(event_id="by-hand", customer=h.other, metadata={"a": "b"}).exists(),
        lambda h: {"customer": h.other.pk, "event_id": "by-hand", "metadata_key": ["a"], "metadata_value": ["b"]},
    ),
    "meters_meter_archive": Case(lambda h: h.calls, "meters.change_meter", lambda h: _fresh(h.calls).is_archived()),
    "meters_meter_unarchive": Case(
        lambda h: h.calls,
        "meters.change_meter",
        lambda h: not _fresh(h.calls).is_archived(),
        prepare=lambda h: _archive(h.calls),
    ),
    "meters_event_void": Case(
        _an_event,
        "meters.void_event",
        lambda h: EventVoid.objects.filter(event=_an_event(h).pk, reason="sent by mistake").exists(),
        lambda h: {"reason": "sent by mistake"},
    ),
    "meters_eventimport_try_again": Case(
        lambda h: EventImport.objects.get(),
        "meters.add_eventimport",
        lambda h: EventImport.objects.get().finished_at is None,
        prepare=_a_finished_import,
    ),
    "billing_product_archive": Case(
        lambda h: h.product, "billing.change_product", lambda h: _fresh(h.product).is_archived()
    ),
    "billing_product_unarchive": Case(
        lambda h: h.product,
        "billing.change_product",
        lambda h: not _fresh(h.product).is_archived(),
        prepare=lambda h: _archive(h.product),
    ),
    "billing_subscription_try_again": Case(
        lambda h: h.parked, "billing.start_billingrun", lambda h: _fresh(h.parked).parked_at is None
    ),
    "billing_subscription_move_billing": Case(
        lambda h: h.ending,
        "billing.change_subscription",
        lambda h: _fresh(h.ending).anchor - timezone.now() > timedelta(days=2),
        lambda h: {"to": _later()},
    ),
    "billing_subscription_extend": Case(
        lambda h: h.ending,
        "billing.change_subscription",
        lambda h: _fresh(h.ending).expires_at - timezone.now() > timedelta(days=365 * 24),
        lambda h: {"count": 25, "interval": "Year"},
    ),
    "billing_subscription_add_discount": Case(
        lambda h: h.ending,
        "billing.change_subscription",
        lambda h: [(d.name, d.percent) for d in h.ending.discounts.all()] == [("Launch", Decimal(10))],
        lambda h: {"name": "Launch", "kind": "percent", "value": "10", "applies_to": "all"},
    ),
    "billing_subscription_end_discount": Case(
        lambda h: h.ending,
        "billing.change_subscription",
        lambda h: h.ending.discounts.get().ends_at is not None,
        lambda h: {"discount": h.ending.discounts.get().pk},
        prepare=_discounted,
    ),
    "billing_subscription_cancel_later": Case(
        lambda h: h.ending,
        "billing.cancel_subscription",
        lambda h: _fresh(h.ending).cancel_at_period_end and _fresh(h.ending).cancellation_comment == "too dear",
        lambda h: {"comment": "too dear"},
    ),
    "billing_subscription_undo_cancel": Case(
        lambda h: h.ending,
        "billing.cancel_subscription",
        lambda h: not _fresh(h.ending).cancel_at_period_end,
        prepare=_ends,
    ),
    "billing_subscription_cancel": Case(
        lambda h: h.ending,
        "billing.cancel_subscription",
        lambda h: _fresh(h.ending).status == SubscriptionStatus.CANCELLED,
    ),
    "billing_invoice_pay": Case(
        lambda h: h.open_invoice,
        "billing.mark_paid_invoice",
        lambda h: (
            _fresh(h.open_invoice).status == InvoiceStatus.PAID and _fresh(h.open_invoice).payment.note == "transfer 7"
        ),
        lambda h: {"note": "transfer 7"},
    ),
    "billing_invoice_issue": Case(
        lambda h: h.draft, "billing.issue_invoice", lambda h: _fresh(h.draft).number is not None
    ),
    "billing_invoice_approve": Case(
        lambda h: h.draft, "billing.issue_invoice", lambda h: _fresh(h.draft).approved_at is not None
    ),
    "billing_invoice_hold": Case(
        lambda h: h.draft,
        "billing.issue_invoice",
        lambda h: _fresh(h.draft).hold_reason == "odd",
        lambda h: {"reason": "odd"},
    ),
    "billing_invoice_release": Case(
        lambda h: h.draft,
        "billing.issue_invoice",
        lambda h: _fresh(h.draft).held_at is None,
        prepare=lambda h: hold_invoice(invoice=h.draft, reason="odd", now=timezone.now()),
    ),
    "billing_invoice_refresh": Case(
        lambda h: h.draft,
        "billing.issue_invoice",
        lambda h: _fresh(h.draft).subtotal != 1,
        prepare=lambda h: _write(Invoice.objects.filter(pk=h.draft.pk), subtotal=1),
    ),
    "billing_invoice_give_up": Case(
        lambda h: h.open_invoice,
        "billing.void_invoice",
        lambda h: _fresh(h.open_invoice).status == InvoiceStatus.UNCOLLECTIBLE,
        lambda h: {"reason": "bankrupt"},
    ),
    "billing_invoice_bill_again": Case(
        _a_cycle,
        "billing.void_invoice",
        lambda h: Invoice.objects.filter(replaces=_a_cycle(h)).exists(),
        lambda h: {"reason": "wrong price"},
    ),
    "billing_numberseries_correct": Case(
        lambda h: h.series,
        "billing.issue_invoice",
        lambda h: _fresh(h.series).prefix == "YZ-",
        lambda h: {"prefix": "YZ-", "first": 7},
    ),
    "billing_invoice_void": Case(
        lambda h: h.open_invoice,
        "billing.void_invoice",
        lambda h: (
            _fresh(h.open_invoice).status == InvoiceStatus.VOID and _fresh(h.open_invoice).void_reason == "a mistake"
        ),
        lambda h: {"reason": "a mistake"},
    ),
    "billing_balance_adjust": Case(
        lambda h: h.balance,
        "billing.add_balanceentry",
        lambda h: balance_of(customer=h.customer, currency="USD") == 3000,
        lambda h: {"direction": "take", "amount": "20", "reason": "paid out"},
    ),
    "billing_creditgrant_withdraw": Case(
        lambda h: h.grant,
        "billing.withdraw_creditgrant",
        lambda h: _fresh(h.grant).remaining == 0 and _fresh(h.grant).withdrawn_at is not None,
        lambda h: {"reason": "a mistake"},
    ),
    "billing_taxrate_end": Case(
        lambda h: h.tax_rate, "billing.change_taxrate", lambda h: _fresh(h.tax_rate).ends_at is not None
    ),
    "billing_taxrate_replace": Case(
        lambda h: h.tax_rate,
        "billing.change_taxrate",
        lambda h: TaxRate.objects.filter(percent=21, starts_at=_fresh(h.tax_rate).ends_at).exists(),
        lambda h: {"percent": "21"},
    ),
    "billing_billingrun_try_again": Case(
        lambda h: h.run,
        "billing.start_billingrun",
        lambda h: _fresh(h.parked).parked_at is None and BillingRun.objects.filter(trigger="admin").exists(),
    ),
    # Seen at the broker: looking takes the message away.
    "django_celery_beat_periodictask_run_now": Case(
        lambda h: h.task,
        "django_celery_beat.change_periodictask",
        lambda h: h.task.task in _handed_over(),
    ),
}

LINKS: dict[str, Link] = {
    "customers_customer_edit_details": Link(lambda h: h.customer, "customers.change_customer", "/edit/"),
    "customers_customer_subscribe": Link(lambda h: h.customer, "billing.add_subscription", "/add/?customer="),
    "customers_customer_grant_credit": Link(lambda h: h.customer, "billing.add_creditgrant", "/add/?customer="),
    "meters_meter_edit_details": Link(lambda h: h.calls, "meters.change_meter", "/edit/"),
    "meters_event_void_many": Link(None, "meters.void_event", "/void/"),
    "meters_eventimport_import_a_file": Link(None, "meters.add_eventimport", "/upload/"),
    "billing_product_edit_details": Link(lambda h: h.product, "billing.change_product", "/edit/"),
    "billing_product_new_price": Link(lambda h: h.product, "billing.change_product", "/price/"),
    "billing_product_subscribe": Link(lambda h: h.product, "billing.add_subscription", "/add/?product="),
    "billing_subscription_edit_details": Link(lambda h: h.subscription, "billing.change_subscription", "/edit/"),
    "billing_invoice_credit": Link(lambda h: h.open_invoice, "billing.credit_invoice", "/credit-note/"),
    "billing_billingrun_run_billing": Link(None, "billing.start_billingrun", "/start/"),
}
# Whoever may see an invoice may see it as PDF, and have it verified (tests/admin/test_proofs.py).
VIEWING = {"billing_invoice_pdf", "billing_creditnote_pdf", "billing_invoice_verify"}


def _handed_over() -> list[str]:
    """The tasks that wait at the broker, taken away; whichever broker it is."""
    found = []
    with current_app.connection_for_read() as connection:
        queue = connection.SimpleQueue(current_app.conf.task_default_queue)
        try:
            while True:
                message = queue.get(block=False)
                found.append(str(message.headers["task"]))
                message.ack()
        except Empty:
            return found
        finally:
            queue.close()


def _actions() -> dict[str, Any]:
    """Every button that Unfold shows, by its name."""
    found = {}
    for _, _, model_admin in registered():
        for kind in ("list", "detail", "row", "submit_line"):
            for action in getattr(model_admin, f"_get_base_actions_{kind}")():
                found[action.action_name] = action
    return found


def _url(name: str, row: Any) -> str:
    return reverse(f"admin:{name}", args=[row.pk] if row is not None else [])


def test_every_action_is_in_a_table_here() -> None:
    assert set(_actions()) == COMMANDS.keys() | LINKS.keys() | VIEWING


def test_every_action_names_its_permission_by_a_method_of_its_admin() -> None:
    for name, action in _actions().items():
        permissions = action.method.allowed_permissions
        assert permissions, name
        assert all("." not in permission for permission in permissions), name


def test_no_button_changes_anything_by_get(house: House, root: Client) -> None:
    for name, case in COMMANDS.items():
        case.prepare(house)
        url = _url(name, case.row(house))
        for headers in ({}, {"HX-Request": "true"}):
            with nothing_changes(f"GET {url}"):
                answer = root.get(url, case.data(house), headers=headers)
            assert answer.status_code == 200, url
            assert b"csrfmiddlewaretoken" in answer.content, url


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_works_with_its_permission_and_only_so(name: str, house: House) -> None:
    case = COMMANDS[name]
    case.prepare(house)
    url = _url(name, case.row(house))
    everything_else = operator(
        *(other.permission for other in COMMANDS.values() if other.permission != case.permission)
    )
    with nothing_changes(f"POST {url} without its permission"):
        assert everything_else.get(url).status_code == 403
        assert everything_else.post(url, case.data(house)).status_code == 403

    allowed = User.objects.get(pk=operator(case.permission).session["_auth_user_id"])
    strict = signed_in(allowed, enforce_csrf_checks=True)
    with nothing_changes(f"POST {url} without the form's token"):
        assert strict.post(url, case.data(house)).status_code == 403

    assert not case.happened(house)
    answer = signed_in(allowed).post(url, case.data(house))
    assert answer.status_code in (200, 302), answer.content[:2000]
    assert case.happened(house)


def test_a_link_leads_where_it_says_for_those_who_may(house: House) -> None:
    for name, link in LINKS.items():
        url = _url(name, link.row(house) if link.row else None)
        assert operator().get(url).status_code == 403, url
        client = operator(link.permission)
        answer = client.get(url)
        assert answer.status_code == 302, url
        assert link.leads_to in answer["Location"], url
        with nothing_changes(f"POST {url}"):
            assert client.post(url).status_code == 405, url
    pdf = reverse("admin:billing_invoice_pdf", args=[house.open_invoice.pk])
    assert operator().get(pdf).status_code == 302
    assert operator(views=False).get(pdf).status_code == 403


def test_buttons_are_offered_only_to_those_who_may_and_where_they_make_sense(house: House, root: Client) -> None:
    page = reverse("admin:billing_invoice_change", args=[house.open_invoice.pk])
    assert (
        f'href="{reverse("admin:billing_invoice_pay", args=[house.open_invoice.pk])}"'
        in root.get(page).content.decode()
    )
    assert "/pay/" not in operator().get(page).content.decode()
    paid = reverse("admin:billing_invoice_change", args=[house.paid_invoice.pk])
    assert "/pay/" not in root.get(paid).content.decode()
    assert "/void/" not in root.get(paid).content.decode()


def test_what_the_domain_refuses_is_a_message_in_the_form(house: House, root: Client) -> None:
    url = reverse("admin:billing_invoice_pay", args=[house.paid_invoice.pk])
    with nothing_changes("paying a paid invoice"):
        answer = root.post(url, {"note": "again"})
    assert answer.status_code == 200
    assert f"{house.paid_invoice} is paid, so it cannot be marked paid." in answer.content.decode()
    url = reverse("admin:billing_invoice_void", args=[house.open_invoice.pk])
    with nothing_changes("voiding without a reason"):
        assert root.post(url, {"reason": "   "}).status_code == 200
    url = reverse("admin:billing_subscription_move_billing", args=[house.subscription.pk])
    with nothing_changes("moving billing into the past"):
        answer = root.post(url, {"to": "2020-01-01T00:00"})
    assert "Cannot change next_billing_date to past time" in answer.content.decode()


def test_a_dialog_that_succeeds_tells_the_page_where_to_go(house: House, root: Client) -> None:
    url = reverse("admin:billing_invoice_pay", args=[house.open_invoice.pk])
    answer = root.post(url, {"note": ""}, headers={"HX-Request": "true"})
    assert answer.status_code == 200
    assert answer["HX-Redirect"] == reverse("admin:billing_invoice_change", args=[house.open_invoice.pk])


def test_other_methods_are_refused(house: House, root: Client) -> None:
    url = reverse("admin:billing_invoice_pay", args=[house.open_invoice.pk])
    for method in ("put", "delete", "patch"):
        with nothing_changes(f"{method} {url}"):
            assert getattr(root, method)(url).status_code == 405


# -- the actions of a list's selection ------------------------------------------------------------------------

SELECTIONS = {
    "billing_subscription": {"run_billing"},
    "django_celery_beat_periodictask": {"switch_on", "switch_off", "delete_selected"},
    "django_celery_beat_intervalschedule": {"delete_selected"},
    "django_celery_beat_crontabschedule": {"delete_selected"},
    "auth_user": {"delete_selected"},
    "auth_group": {"delete_selected"},
}


def test_every_action_on_a_selection_is_known(root: Client, house: House) -> None:
    request = root.get("/admin/").wsgi_request
    found = {name: set(model_admin.get_actions(request)) for name, _, model_admin in registered()}
    assert {name: actions for name, actions in found.items() if actions} == SELECTIONS


def _select(client: Client, name: str, action: str, *rows: Any) -> Any:
    return client.post(
        reverse(f"admin:{name}_changelist"),
        {"action": action, "_selected_action": [row.pk for row in rows], "index": 0},
    )


def test_billing_for_a_selection_leads_to_its_dry_run_and_changes_nothing(house: House) -> None:
    with nothing_changes("choosing subscriptions"):
        answer = _select(
            operator("billing.start_billingrun"), "billing_subscription", "run_billing", house.subscription
        )
    assert answer["Location"] == f"{reverse('admin:billing_billingrun_start')}?only={house.subscription.pk}"
    with nothing_changes("choosing subscriptions without permission"):
        answer = _select(operator(), "billing_subscription", "run_billing", house.subscription)
    assert answer.status_code == 200


def test_schedules_are_switched_by_those_who_may_change_them(house: House) -> None:
    name = "django_celery_beat_periodictask"
    with nothing_changes("switching off without permission"):
        _select(operator(), name, "switch_off", house.task)
    client = operator("django_celery_beat.change_periodictask")
    _select(client, name, "switch_off", house.task)
    assert not PeriodicTask.objects.get(pk=house.task.pk).enabled
    _select(client, name, "switch_on", house.task)
    assert PeriodicTask.objects.get(pk=house.task.pk).enabled


def test_deleting_a_selection_asks_first(house: House, root: Client) -> None:
    with nothing_changes("the question before a deletion"):
        answer = _select(root, "django_celery_beat_periodictask", "delete_selected", house.task)
    assert answer.status_code == 200
    with nothing_changes("deleting without permission"):
        _select(
            operator("django_celery_beat.change_periodictask"),
            "django_celery_beat_periodictask",
            "delete_selected",
            house.task,
        )
