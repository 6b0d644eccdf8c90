"""Voids and verdicts over HTTP."""

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
from rest_framework.test import APIClient

from customers.models import Customer
from meters.models import Event, EventVoid
from meters.voids import MAX_REASON
from tests.base import acme, call_meter, subscribed, usage_product
from tests.meters.conftest import Caller

pytestmark = pytest.mark.django_db
ODD = ["a", "a/b", "void", "ingest", "x/void", "verdicts", "a b\nü☃", "void/void", "x/verdicts"]


@pytest.fixture
def past(call: Caller) -> APIClient:
    """A key that may change the past."""
    acme(customer_id="cus_a")
    return call(backfill=True)


@pytest.fixture
def api(call: Caller) -> APIClient:
    acme(customer_id="cus_a")
    return call()


def ingest(api: APIClient, *ids: str, **changes: Any) -> None:
    events = [{"event_id": name, "customer_id": "cus_a", "event_name": "api.call", **changes} for name in ids]
    assert api.post("/events/ingest", {"events": events}, format="json").status_code == 200


def url(event_id: str, rest: str = "") -> str:
    return f"/events/{quote(event_id, safe='')}{rest}"


@pytest.mark.parametrize("event_id", ODD)
def test_any_event_is_voided_by_its_id_and_stays_readable(api: APIClient, event_id: str) -> None:
    ingest(api, event_id, "another")
    before = api.get(url(event_id)).json()
    assert (before["event_id"], before["voided_at"]) == (event_id, None)
    answer = api.post(url(event_id, "/void"), {"reason": "a test"}, format="json")
    assert answer.status_code == 200, answer.json()
    void = EventVoid.objects.get()
    when = void.voided_at.isoformat().replace("+00:00", "Z")
    assert answer.json() == {
        "event_id": event_id,
        "customer_id": "cus_a",
        "reason": "a test",
        "author": "tests",
        "voided_at": when,
    }
    assert api.get(url(event_id)).json() == {**before, "voided_at": when}
    listed = {item["event_id"]: item["voided_at"] for item in api.get("/events").json()["items"]}
    assert listed == {event_id: when, "another": None}


def test_a_second_void_is_a_conflict_that_says_who_did_it(api: APIClient) -> None:
    ingest(api, "a")
    api.post("/events/a/void", {"reason": "a test"}, format="json")
    answer = api.post("/events/a/void", {"reason": "again"}, format="json")
    assert (answer.status_code, answer.json()["code"]) == (409, "EVENT_ALREADY_VOIDED")
    assert "by tests: a test" in answer.json()["message"]
    assert answer["x-should-retry"] == "false"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"reason": ""},
        {"reason": " "},
        {"reason": 5},
        {"reason": "x", "other": 1},
        {"reason": "x" * (MAX_REASON + 1)},
    ],
)
def test_a_void_without_a_proper_reason_is_refused(api: APIClient, body: Any) -> None:
    ingest(api, "a")
    answer = api.post("/events/a/void", body, format="json")
    assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_REQUEST_BODY")
    assert Event.objects.get().voided_at is None


def test_a_bulk_void_shows_its_effect_first(past: APIClient) -> None:
    meter = call_meter()
    customer = Customer.objects.get()
    sold = subscribed(customer, usage_product((meter, "5", 1)), on=(datetime.now(UTC) - timedelta(days=2)).isoformat())
    ingest(past, "a", "b", metadata={"bad": True})
    ingest(past, "c")
    body: dict[str, Any] = {
        "start": (datetime.now(UTC) - timedelta(days=1)).isoformat(),
        "end": (datetime.now(UTC) + timedelta(days=1)).isoformat(),
        "meter_id": meter.public_id,
        "customer_id": "cus_a",
        "filter": {"conjunction": "and", "clauses": [{"key": "bad", "operator": "equals", "value": True}]},
    }
    answer = past.post("/events/void", {**body, "dry_run": True}, format="json")
    assert answer.status_code == 200, answer.json()
    period = sold.periods.get()
    units = [{"meter_id": meter.public_id, "customer_id": "cus_a", "before": "3", "after": "1"}]
    assert answer.json() == {
        "dry_run": True,
        "events": 2,
        "customers": 1,
        "units": units,
        "money": [
            {
                "subscription_id": sold.public_id,
                "customer_id": "cus_a",
                "meter_id": meter.public_id,
                "period_start": period.start.isoformat().replace("+00:00", "Z"),
                "period_end": period.end.isoformat().replace("+00:00", "Z"),
                "closed": False,
                "currency": "USD",
                "change": -10,
            }
        ],
        "money_complete": True,
    }
    assert not EventVoid.objects.exists()
    refused = past.post("/events/void", body, format="json")
    assert (refused.status_code, "reason" in refused.json()["message"]) == (400, True)
    done = past.post("/events/void", {**body, "reason": "broken release"}, format="json").json()
    assert done == {
        "dry_run": False,
        "events": 2,
        "customers": 1,
        "units": units,
        "money": None,
        "money_complete": None,
    }
    assert set(EventVoid.objects.values_list("event_id", "reason")) == {
        ("a", "broken release"),
        ("b", "broken release"),
    }


def test_the_past_is_voided_by_a_key_that_may_backfill(past: APIClient, call: Caller) -> None:
    """Any key that may write voids what it may send; older events, and many at once, need the right to backfill."""
    ordinary, reader = call(), call(read_only=True)
    old = (datetime.now(UTC) - timedelta(minutes=61)).isoformat()
    ingest(past, "old", "void", timestamp=old)
    ingest(past, "new", timestamp=(datetime.now(UTC) - timedelta(minutes=59)).isoformat())
    whole: dict[str, Any] = {
        "start": "2026-01-01T00:00:00Z",
        "end": "2100-01-01T00:00:00Z",
        "event_name": "api.call",
        "reason": "r",
    }
    for client, path, body, said in (
        (ordinary, "/events/old/void", {"reason": "r"}, "more than 60 minutes old"),
        (ordinary, "/events/void", whole, "may backfill"),
        (ordinary, "/events/void", {**whole, "dry_run": True}, "may backfill"),
        (reader, "/events/void", whole, "may only read"),
        (reader, "/events/new/void", {"reason": "r"}, "may only read"),
    ):
        refused = client.post(path, body, format="json")
        assert (refused.status_code, refused.json()["code"]) == (403, "FORBIDDEN"), path
        assert said in refused.json()["message"]
    assert not EventVoid.objects.exists()
    assert ordinary.get("/events/void").json()["event_id"] == "void", "reading needs no right"
    assert ordinary.post("/events/nothing/void", {"reason": "r"}, format="json").status_code == 404
    assert ordinary.post("/events/new/void", {"reason": "r"}, format="json").status_code == 200
    assert past.post("/events/old/void", {"reason": "r"}, format="json").status_code == 200
    assert past.post("/events/void", whole, format="json").json()["events"] == 1


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"event_name": None}, 422),
        ({"end": "2026-01-01T00:00:00Z"}, 400),
        ({"start": "soon"}, 422),
        ({"customer_id": "cus_nobody"}, 404),
        ({"meter_id": "mtr_nobody"}, 404),
        ({"filter": {"conjunction": "and", "clauses": []}}, 400),
        ({"dry_run": "yes"}, 422),
    ],
)
def test_a_wrong_selection_is_refused(past: APIClient, changes: Any, status: int) -> None:
    ingest(past, "a")
    body = {"start": "2026-01-01T00:00:00Z", "end": "2100-01-01T00:00:00Z", "event_name": "api.call", "reason": "r"}
    assert past.post("/events/void", {**body, **changes}, format="json").status_code == status
    assert not EventVoid.objects.exists()


def test_a_verdict_of_every_meter_is_answered(api: APIClient) -> None:
    gold = {"conjunction": "and", "clauses": [{"key": "tier", "operator": "equals", "value": "gold"}]}
    plain, filtered, other = call_meter(name="A"), call_meter(name="B", filter=gold), call_meter(event_name="other")
    ingest(api, "a/1", metadata={"tier": "free"})
    answer = api.get("/events/a%2F1/verdicts")
    assert answer.status_code == 200
    assert answer.json()["event_id"] == "a/1"
    assert [(item["meter_id"], item["outcome"], item["value"]) for item in answer.json()["items"]] == [
        (plain.public_id, "counted", "1"),
        (filtered.public_id, "filtered_out", None),
        (other.public_id, "other_name", None),
    ]
    assert answer.json()["items"][1] == {
        "meter_id": filtered.public_id,
        "meter_name": "B",
        "archived": False,
        "outcome": "filtered_out",
        "value": None,
        "reason": "Left out by the filter: tier is “free” and is not “gold”.",
    }
    api.post("/events/a%2F1/void", {"reason": "a test"}, format="json")
    outcomes = [item["outcome"] for item in api.get("/events/a%2F1/verdicts").json()["items"]]
    assert outcomes == ["voided", "voided", "other_name"]
    assert api.get("/events/nobody/verdicts").status_code == 404
