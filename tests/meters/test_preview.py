"""A meter tried on the last days before it is made."""

from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from rest_framework.test import APIClient

from customers.customers import create_customer
from customers.errors import DomainError
from meters.meters import build_meter
from meters.models import ArchivedMonth, Meter
from meters.partitions import partition_name
from meters.preview import MAX_DAYS, Preview, PreviewTooSlow, preview_meter
from meters.usage import DayQuantity, Outcome
from meters.voids import void_event
from tests.base import acme, at, globex, send
from tests.meters.conftest import Caller

pytestmark = pytest.mark.django_db
D = Decimal
NOW = at("2026-03-12T12:00")
GOLD = {"conjunction": "and", "clauses": [{"key": "tier", "operator": "equals", "value": "gold"}]}


def definition(aggregation: str = "sum", **changes: Any) -> Meter:
    return build_meter(
        **{
            "name": "n",
            "event_name": "e",
            "aggregation": aggregation,
            "property_key": "v",
            "measurement_unit": "u",
            **changes,
        }
    )


def preview(meter: Meter, **changes: Any) -> Preview:
    return preview_meter(**{"definition": meter, "days": 3, "now": NOW, "time_zone": "UTC", **changes})


def test_it_gives_the_quantity_by_day_and_the_examples_with_their_reasons() -> None:
    mine, theirs = acme(), globex()
    send(mine, on="2026-03-09T23:59:59", name="e", metadata={"v": 100, "tier": "gold"})
    send(mine, on="2026-03-10", name="e", metadata={"v": 1, "tier": "gold"})
    send(theirs, on="2026-03-10T10:00", name="e", metadata={"v": "0.5", "tier": "gold"})
    send(mine, on="2026-03-11T10:00", name="e", metadata={"v": 7, "tier": "free"})
    send(mine, on="2026-03-12T10:00", name="e", metadata={"v": "many", "tier": "gold"})
    send(mine, on="2026-03-12T11:00", name="e", metadata={"v": 4, "tier": "gold"})
    send(mine, on="2026-03-12T12:00", name="e", metadata={"v": 100, "tier": "gold"})
    send(mine, on="2026-03-12T11:00", name="E", metadata={"v": 100, "tier": "gold"})
    found = preview(definition(filter=GOLD))
    assert (found.start, found.end, found.complete, found.quantity) == (at("2026-03-10"), NOW, True, D("5.5"))
    assert list(found.days) == [
        DayQuantity(date(2026, 3, 10), D("1.5"), 2),
        DayQuantity(date(2026, 3, 11), D(0), 0),
        DayQuantity(date(2026, 3, 12), D(4), 1),
    ]
    activity = found.activity
    assert (activity.seen, activity.counted, activity.filtered_out, activity.unreadable) == (5, 3, 1, 1)
    assert [(event.timestamp, verdict.value) for event, verdict in found.counted] == [
        (at("2026-03-12T11:00"), D(4)),
        (at("2026-03-10T10:00"), D("0.5")),
        (at("2026-03-10"), D(1)),
    ]
    assert [(verdict.outcome, verdict.reason) for _, verdict in found.left_out] == [
        (Outcome.UNREADABLE, "Left out: v is “many”, which is not a number."),
        (Outcome.FILTERED_OUT, "Left out by the filter: tier is “free” and is not “gold”."),
    ]
    assert list(found.similar_names) == ["E"]


def test_nothing_of_it_is_saved_and_the_definition_can_be_used_again() -> None:
    send(acme(), on="2026-03-11", name="e", metadata={"v": 3})
    meter = definition()
    assert preview(meter) == preview(meter)
    assert meter.pk is None
    assert Meter.objects.count() == 0


@pytest.mark.parametrize(
    ("aggregation", "wanted"),
    [("count", 3), ("sum", 9), ("max", 4), ("min", 2), ("avg", 3), ("last", 3), ("unique", 3)],
)
def test_every_aggregation_can_be_tried(aggregation: str, wanted: int) -> None:
    customer = acme()
    for hour, number in enumerate((2, 4, 3), start=1):
        send(customer, on=f"2026-03-11T0{hour}:00", name="e", metadata={"v": number})
    meter = definition(aggregation)
    assert preview(meter).quantity == wanted
    assert [day.quantity for day in preview(meter).days] == [D(0), D(wanted), D(0)]


def test_a_level_is_weighed_and_carried() -> None:
    send(acme(), on="2026-03-09", name="e", metadata={"v": 10})
    found = preview(definition("weighted_sum", carry_forward=True))
    assert [day.quantity for day in found.days] == [D(240), D(240), D(120)]
    assert (found.quantity, found.activity.seen) == (D(600), 0)


def test_a_void_event_is_not_counted() -> None:
    customer = acme()
    send(customer, on="2026-03-11", name="e", metadata={"v": 3})
    found = preview(definition())
    void_event(event_id=found.counted[0][0].event_id, reason="r", author="a", now=NOW)
    again = preview(definition())
    assert (again.quantity, again.activity.voided, list(again.counted), list(again.left_out)) == (D(0), 1, [], [])


def test_its_cost_is_bounded_and_a_cut_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    customer = acme()
    for day in (10, 11, 12):
        send(customer, on=f"2026-03-{day}T10:00", name="other")
        send(customer, on=f"2026-03-{day}T11:00", name="e", metadata={"v": day})
    monkeypatch.setattr("meters.preview.MAX_SCANNED", 6)
    assert preview(definition()).complete
    # The five newest: the first whole day among them begins on the 11th.
    monkeypatch.setattr("meters.preview.MAX_SCANNED", 5)
    found = preview(definition())
    assert (found.complete, found.start, found.quantity) == (False, at("2026-03-11"), D(23))
    assert [day.day.day for day in found.days] == [11, 12]
    # Not even today in whole: from the newest event on.
    monkeypatch.setattr("meters.preview.MAX_SCANNED", 1)
    found = preview(definition())
    assert (found.complete, found.quantity, found.activity.seen) == (False, D(12), 1)
    assert at("2026-03-12T10:00") < found.start <= at("2026-03-12T11:00")


def test_a_preview_that_takes_too_long_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    # Each statement is short enough; together they are not.
    monkeypatch.setattr("meters.preview._TIMEOUT_SECONDS", 0.9)
    monkeypatch.setattr("meters.preview._similar_names", lambda *_: _slowly())
    with pytest.raises(PreviewTooSlow, match="fewer days"):
        preview(definition())


def _slowly() -> list[str]:
    from meters.preview import _fetch
    from meters.sql import Sql

    return [str(row) for _ in range(5) for row in _fetch(Sql("SELECT pg_sleep(0.3)"))]


def test_it_begins_after_a_month_that_left_the_log() -> None:
    customer = acme()
    send(customer, on="2026-02-27", name="e", metadata={"v": 4})
    send(customer, on="2026-03-09", name="e", metadata={"v": 10})
    with connection.cursor() as cursor:
        cursor.execute(f"DROP TABLE {partition_name(date(2026, 2, 1))}")
    ArchivedMonth.objects.create(
        month=date(2026, 2, 1), path="x", events=1, checksum="0" * 64, archived_at=NOW, dropped_at=NOW
    )
    found = preview(definition(), days=30)
    assert (found.complete, found.start, found.quantity) == (False, at("2026-03-01"), D(10))
    assert (preview(definition()).complete, preview(definition()).quantity) == (True, D(0))
    # What level held before is not known: it begins with none, and says so.
    found = preview(definition("weighted_sum", carry_forward=True))
    assert (found.complete, found.start, found.quantity) == (False, at("2026-03-10"), D(0))


def test_a_level_is_looked_for_only_among_as_many_events_as_are_read_anyway(monkeypatch: pytest.MonkeyPatch) -> None:
    customer = acme()
    send(customer, on="2026-03-08", name="e", metadata={"v": 1})
    send(customer, on="2026-03-09", name="e", metadata={"v": 10})
    meter = definition("weighted_sum", carry_forward=True)
    monkeypatch.setattr("meters.preview.MAX_SCANNED", 2)
    assert (preview(meter).complete, preview(meter).quantity) == (True, D(600))
    monkeypatch.setattr("meters.preview.MAX_SCANNED", 1)
    assert (preview(meter).complete, preview(meter).quantity) == (False, D(0))


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"days": 0}, "days"), ({"days": MAX_DAYS + 1}, "days"), ({"time_zone": "Mars"}, "time_zone")],
)
def test_what_cannot_be_tried_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(DomainError, match=said):
        preview(definition(), **changes)


# -- over HTTP -----------------------------------------------------------------------------------------------


@pytest.fixture
def api(call: Caller) -> APIClient:
    return call()


def test_it_takes_what_creating_takes(api: APIClient) -> None:
    create_customer(name="Acme", email="a@acme.example", customer_id="cus_a")
    events = [
        {"event_id": event_id, "customer_id": "cus_a", "event_name": "e", "metadata": metadata}
        for event_id, metadata in (("a", {"v": 5, "exact": 1}), ("b", {}))
    ]
    assert api.post("/events/ingest", {"events": events}, format="json").status_code == 200
    body = {"name": "n", "event_name": "e", "measurement_unit": "u", "aggregation": {"type": "sum", "key": "v"}}
    answer = api.post("/meters/preview", {**body, "days": 1, "time_zone": "UTC"}, format="json")
    assert answer.status_code == 200, answer.json()
    said = answer.json()
    assert (said["quantity"], said["complete"], len(said["days"])) == ("5", True, 1)
    assert said["activity"] == {
        "seen": 2,
        "counted": 1,
        "voided": 0,
        "filtered_out": 0,
        "missing": 1,
        "unreadable": 0,
    }
    [counted], [left_out] = said["counted"], said["left_out"]
    assert (counted["event_id"], counted["metadata"], counted["value"]) == ("a", {"v": 5, "exact": 1}, "5")
    assert (left_out["event_id"], left_out["outcome"], left_out["value"]) == ("b", "missing", None)
    del body["name"], body["measurement_unit"]
    assert api.post("/meters/preview", body, format="json").status_code == 200
    assert not Meter.objects.exists()


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"days": 0}, 422),
        ({"days": 91}, 422),
        ({"time_zone": "Mars"}, 400),
        ({"aggregation": {"type": "sum"}}, 422),
        ({"filter": {"conjunction": "and", "clauses": []}}, 422),
        ({"event_name": ""}, 422),
    ],
)
def test_a_wrong_definition_is_refused_as_creating_would(api: APIClient, changes: Any, status: int) -> None:
    answer = api.post(
        "/meters/preview", {"event_name": "e", "aggregation": {"type": "count"}, **changes}, format="json"
    )
    assert answer.status_code == status, answer.json()
