"""The admin's side of corrections: void one event or many, try a meter before it is made, see the comparisons."""

import re
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from customers.models import Customer
from meters.models import Event, EventVoid, Meter, Reconciliation
from meters.reconciliation import reconcile
from meters.rollups import roll_up
from tests.base import acme, call_meter, send, subscribed, token_meter, usage_product
from tests.meters.test_reconciliation import run_sql

pytestmark = pytest.mark.django_db
VIEW = ["view_event", "view_meter", "view_customer", "view_reconciliation"]


def operator(*permissions: str) -> Client:
    user = User.objects.create_user(f"ada{User.objects.count()}", password=None, is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    assert user.user_permissions.count() == len(permissions)
    client = Client()
    client.force_login(user)
    return client


def page(answer: Any) -> str:
    assert answer.status_code == 200, answer
    return " ".join(unescape(answer.content.decode()).split())


@pytest.fixture
def customer() -> Customer:
    return acme(customer_id="cus_a")


def test_an_event_is_voided_on_its_page_by_who_may(customer: Customer) -> None:
    call_meter()
    send(customer, on=timezone.now() - timedelta(minutes=5))
    event = Event.objects.get()
    url = reverse("admin:meters_event_change", args=[event.pk])
    act = reverse("admin:meters_event_void", args=[event.pk])
    looker, ada = operator(*VIEW), operator(*VIEW, "void_event")
    assert act not in page(looker.get(url))
    assert looker.get(act).status_code == 403
    assert looker.post(act, {"reason": "r"}).status_code == 403
    assert act in page(ada.get(url))
    assert "cannot be taken back" in page(ada.get(act))
    assert "This field is required" in page(ada.post(act, {"reason": " "}))
    assert not EventVoid.objects.exists()
    answer = ada.post(act, {"reason": "sent by a test"})
    assert (answer.status_code, answer["Location"]) == (302, url)
    void = EventVoid.objects.get()
    assert (void.reason, void.author, void.operator.username if void.operator else "") == (
        "sent by a test",
        "ada1",
        "ada1",
    )
    shown = page(ada.get(url))
    assert "This event counts for nothing" in shown
    assert "sent by a test" in shown
    assert act not in shown
    assert "voided on" in page(ada.post(act, {"reason": "again"}))
    assert EventVoid.objects.count() == 1
    assert "Void" in page(ada.get(reverse("admin:meters_event_changelist")))


def hidden(shown: str) -> str:
    found = re.search(r'name="shown" value="(\w+)"', shown)
    assert found, "the page shows no dry run"
    return found[1]


def test_many_are_voided_after_a_dry_run(customer: Customer) -> None:
    meter = token_meter()
    subscribed(customer, usage_product((meter, "2", 0)), on=(timezone.now() - timedelta(days=1)).isoformat())
    now = timezone.now()
    for tokens, bad in ((100, True), (40, False)):
        send(customer, on=now - timedelta(minutes=5), name="token.usage", metadata={"tokens": tokens, "bad": bad})
    url = reverse("admin:meters_event_void_by_filter")
    asked = {
        "start": (now - timedelta(hours=1)).isoformat(),
        "end": (now + timedelta(hours=1)).isoformat(),
        "event_name": "",
        "customer": "cus_a",
        "meter": meter.public_id,
        "filter": '{"conjunction": "and", "clauses": [{"key": "bad", "operator": "equals", "value": true}]}',
        "reason": "broken release",
    }
    looker, ada = operator(*VIEW), operator(*VIEW, "void_event")
    assert url not in page(looker.get(reverse("admin:meters_event_changelist")))
    assert (looker.get(url).status_code, looker.post(url, asked).status_code) == (403, 403)
    assert "Void events" in page(ada.get(reverse("admin:meters_event_changelist")))
    assert "Dry run" in page(ada.get(url))
    shown = page(ada.post(url, asked))
    assert "nothing is changed yet" in shown
    assert "Void 1 event<" in shown
    assert "$2.00" in shown
    assert not EventVoid.objects.exists()
    # A form that was opened twice, a link, or what came in since: nothing is voided that was not shown.
    assert "Void events" in page(ada.get(url, {**asked, "shown": hidden(shown)}))
    send(customer, on=now - timedelta(minutes=4), name="token.usage", metadata={"tokens": 7, "bad": True})
    again = page(ada.post(url, {**asked, "shown": hidden(shown)}))
    assert "look again" in again
    assert "Void 2 events<" in again
    assert not EventVoid.objects.exists()
    answer = ada.post(url, {**asked, "shown": hidden(again)})
    assert (answer.status_code, answer["Location"]) == (302, reverse("admin:meters_event_changelist"))
    assert [void.reason for void in EventVoid.objects.all()] == ["broken release"] * 2
    assert "No event matches" in page(ada.post(url, asked))
    for wrong, said in (
        ({"customer": "cus_nobody"}, "no customer of this id"),
        ({"filter": "{"}, "not JSON"),
        ({"filter": "[]"}, "must be an object"),
        ({"end": asked["start"]}, "must lie after start"),
        ({"customer": "", "meter": "", "filter": ""}, "a time alone is too wide"),
        ({"reason": ""}, "required"),
        ({"start": "soon"}, "valid date"),
    ):
        for more in ({}, {"shown": "x"}):
            assert said in page(ada.post(url, {**asked, **wrong, **more})), wrong
    assert EventVoid.objects.count() == 2


def test_a_dry_run_says_that_a_carried_level_goes_on(customer: Customer) -> None:
    now = timezone.now()
    send(customer, on=now - timedelta(minutes=5), name="token.usage", metadata={"tokens": 3})
    ada = operator(*VIEW, "void_event")
    asked = {
        "start": (now - timedelta(hours=1)).isoformat(),
        "end": now.isoformat(),
        "event_name": "token.usage",
        "reason": "r",
    }
    url = reverse("admin:meters_event_void_by_filter")
    token_meter()
    assert "carried forward" not in page(ada.post(url, asked))
    token_meter(name="Level", aggregation="last", carry_forward=True)
    assert "carried forward" in page(ada.post(url, asked))


def definition(**changes: Any) -> dict[str, Any]:
    return {
        "name": "",
        "measurement_unit": "tokens",
        "event_name": "token.usage",
        "aggregation": "sum",
        "property_key": "tokens",
        "group_by": "",
        "filter": "",
        **changes,
    }


def test_a_meter_is_tried_from_its_form(customer: Customer) -> None:
    now = timezone.now()
    send(customer, on=now - timedelta(minutes=5), name="token.usage", metadata={"tokens": 1234})
    send(customer, on=now - timedelta(minutes=5), name="token.usage", metadata={"tokens": "many"})
    url = reverse("admin:meters_meter_preview")
    looker, ada = operator(*VIEW), operator(*VIEW, "add_meter")
    assert looker.post(url, definition()).status_code == 403
    assert ada.get(url).status_code == 405
    assert url in page(ada.get(reverse("admin:meters_meter_add")))
    shown = page(ada.post(url, definition()))
    assert "1,234" in shown
    assert "is “many”, which is not a number" in shown
    assert "Say which metadata key" in page(ada.post(url, definition(property_key="")))
    assert "each once" in page(ada.post(url, definition(group_by="a, a")))
    assert "named “token.usage”" in page(ada.post(url, definition(event_name="Token.Usage")))
    assert "No event of this name" in page(ada.post(url, definition(event_name="nothing")))
    assert not Meter.objects.exists()


@pytest.mark.parametrize(
    ("aggregation", "words"),
    [
        ("unique", "Number of different tokens"),
        ("min", "Lowest tokens"),
        ("avg", "Average of tokens"),
        ("weighted_sum", "Tokens times the hours it held"),
    ],
)
def test_every_aggregation_can_be_made_and_looked_at(customer: Customer, aggregation: str, words: str) -> None:
    ada = operator(*VIEW, "add_meter")
    carried = {"carry_forward": "on"} if aggregation == "weighted_sum" else {}
    sent = definition(name="M", aggregation=aggregation, group_by="model, region", **carried)
    answer = ada.post(reverse("admin:meters_meter_add"), sent)
    meter = Meter.objects.get()
    assert answer.status_code == 302
    assert (meter.aggregation, meter.group_by, meter.carry_forward) == (
        aggregation,
        ["model", "region"],
        bool(carried),
    )
    send(customer, on=timezone.now() - timedelta(minutes=5), name="token.usage", metadata={"tokens": 3})
    roll_up()
    shown = page(ada.get(reverse("admin:meters_meter_change", args=[meter.pk])))
    assert words in shown
    assert "model, region" in shown
    assert ada.get(reverse("admin:index")).status_code == 200
    assert ada.get(reverse("admin:meters_meter_changelist")).status_code == 200


def test_a_sum_carries_nothing(customer: Customer) -> None:
    ada = operator(*VIEW, "add_meter")
    shown = page(ada.post(reverse("admin:meters_meter_add"), definition(name="M", carry_forward="on")))
    assert "Only Last and Weighted sum" in shown
    assert not Meter.objects.exists()


def test_comparisons_are_listed_and_the_start_page_tells_the_last(customer: Customer) -> None:
    call_meter()
    send(customer, on=timezone.now() - timedelta(minutes=5))
    roll_up()
    ada = operator(*VIEW)
    assert "Not compared yet" in page(ada.get(reverse("admin:meters_reconciliation_changelist")))
    assert "Compared with the event log" not in page(ada.get(reverse("admin:index")))
    reconcile(trigger="schedule", now=timezone.now())
    assert "1 bucket as the log says" in page(ada.get(reverse("admin:index")))
    run_sql("UPDATE meters_bucket SET events = 5")
    reconcile(trigger="schedule", now=timezone.now())
    start = page(ada.get(reverse("admin:index")))
    assert "1 bucket of usage not as the event log says" in start
    newest = Reconciliation.objects.first()
    assert newest is not None
    url = reverse("admin:meters_reconciliation_change", args=[newest.pk])
    assert url in start
    assert "events 5 in the buckets and 1 in the log" in page(ada.get(url))
    assert "Differs" in page(ada.get(reverse("admin:meters_reconciliation_changelist")))
    reconcile(trigger="command", fix=True, now=timezone.now())
    start = page(ada.get(reverse("admin:index")))
    assert "not as the event log says" not in start
    assert "1 differed and were mended" in start
    assert operator().get(url).status_code == 403
