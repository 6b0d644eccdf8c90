"""Addresses and forms that no page makes: always an answer, never an error of the server, never a change."""

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from tests.admin.house import House, nothing_changes, registered

IN_AN_ADDRESS = ["\0", "99999999999999999999", "2026-13-45"]
IN_A_FORM = ["", "\0", "x" * 5000, "-1", "1e400", "99999999999999999999", "ünï", "2026-13-45", "' OR 1=1 --"]
INSTANTS = [
    "0001-01-01T00:00",
    "9999-12-31T23:59:59",
    "2026-02-30T00:00",
    "now",
    "\0",
    "-1",
    "1e400",
    "10000-01-01T00:00",
]


def parameters_of(name: str, model_admin: Any) -> list[str]:
    """What a list reads from its address: paging, order, search, tabs and filters."""
    found = ["q", "p", "o", "all", "_to_field", "unknown", "id__in"]
    found.append(getattr(model_admin, "list_tab_parameter", "status"))
    for one in model_admin.list_filter:
        if isinstance(one, str):
            found += [one, f"{one}__exact"]
        elif isinstance(one, tuple):
            field = one[0]
            found += [f"{field}{end}" for end in ("__exact", "__id__exact", "_from", "_to_1")]
        else:
            found.append(one.parameter_name)
    return found


@pytest.mark.parametrize("name", [name for name, _, _ in registered()])
def test_a_list_answers_whatever_its_address_says(name: str, house: House, root: Client) -> None:
    model_admin = next(found for other, _, found in registered() if other == name)
    url = reverse(f"admin:{name}_changelist")
    for parameter in parameters_of(name, model_admin):
        for value in IN_AN_ADDRESS:
            answer = root.get(url, {parameter: value})
            assert answer.status_code in (200, 302, 400), (parameter, value)


@pytest.mark.parametrize("instant", INSTANTS)
def test_an_instant_that_cannot_be_is_refused_wherever_one_is_typed(instant: str, house: House, root: Client) -> None:
    run = reverse("admin:billing_billingrun_start")
    move = reverse("admin:billing_subscription_move_billing", args=[house.ending.pk])
    begin = {"customer": house.other.pk, "product": house.product.pk, "quantity": 1, "starts_at": instant}
    with nothing_changes(f"a dry run until {instant}"):
        assert root.get(run, {"until": instant, "only": ""}).status_code == 200
    with nothing_changes(f"moving billing to {instant}"):
        assert root.post(move, {"to": instant}).status_code == 200
    with nothing_changes(f"a subscription from {instant}"):
        assert root.post(reverse("admin:billing_subscription_add"), begin).status_code == 200


@pytest.mark.parametrize("value", IN_A_FORM)
def test_a_form_answers_whatever_is_sent(value: str, house: House, root: Client) -> None:
    for name, _, model_admin in registered():
        form = getattr(model_admin, "add_form", None)
        if name.startswith(("auth_", "django_")) or form is None:
            continue
        sent = dict.fromkeys(form.base_fields, value)
        sent |= {f"charges-{part}": value for part in ("TOTAL_FORMS", "INITIAL_FORMS", "0-meter", "0-price_per_unit")}
        sent |= {"metadata_key": value, "metadata_value": value}
        answer = root.post(reverse(f"admin:{name}_add"), sent)
        assert answer.status_code in (200, 302), name
    for action, row in (
        ("customers_customer_charge", house.customer),
        ("meters_meter_send_test_event", house.calls),
        ("billing_subscription_extend", house.ending),
        ("billing_subscription_cancel_later", house.ending),
        ("billing_invoice_void", house.open_invoice),
    ):
        sent = dict.fromkeys(
            ["product", "quantity", "customer", "event_id", "count", "interval", "comment", "reason"], value
        )
        answer = root.post(reverse(f"admin:{action}", args=[row.pk]), sent)
        assert answer.status_code in (200, 302), action
