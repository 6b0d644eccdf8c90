"""Usage by hour, day and month of a time zone, and as CSV."""

import csv
import io
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

import pytest
from django.db import connection
from rest_framework.test import APIClient

from customers.errors import DomainError
from customers.models import Customer
from meters import windows
from meters.models import Meter
from meters.rollups import roll_up
from meters.windows import MAX_WINDOWS, Window, WindowUsage, usage_by_window, window_bounds
from tests.base import acme, at, globex, send
from tests.meters.conftest import Caller
from tests.meters.test_rollups import a_meter

pytestmark = pytest.mark.django_db
D = Decimal


def bounds(start: str, end: str, window: str, time_zone: str = "UTC") -> list[str]:
    found = window_bounds(start=at(start), end=at(end), window=Window(window), time_zone=time_zone)
    return [instant.strftime("%m-%dT%H:%M") for instant in found]


@pytest.mark.parametrize(
    ("start", "end", "window", "zone", "wanted"),
    [
        ("2026-01-01", "2026-01-01T02:00", "hour", "UTC", ["01-01T00:00", "01-01T01:00", "01-01T02:00"]),
        ("2026-01-01T00:30", "2026-01-01T01:30", "hour", "UTC", ["01-01T00:30", "01-01T01:00", "01-01T01:30"]),
        ("2026-01-01T00:30", "2026-01-01T00:31", "hour", "UTC", ["01-01T00:30", "01-01T00:31"]),
        # An hour of Kathmandu begins a quarter past.
        (
            "2026-01-01T00:00",
            "2026-01-01T01:00",
            "hour",
            "Asia/Kathmandu",
            ["01-01T00:00", "01-01T00:15", "01-01T01:00"],
        ),
        # Berlin's 29 March 2026 has 23 hours, its 25 October 25.
        ("2026-03-28T23:00", "2026-03-30T22:00", "day", "Europe/Berlin", ["03-28T23:00", "03-29T22:00", "03-30T22:00"]),
        ("2026-10-24T22:00", "2026-10-25T23:00", "day", "Europe/Berlin", ["10-24T22:00", "10-25T23:00"]),
        ("2026-01-31", "2026-04-01", "month", "UTC", ["01-31T00:00", "02-01T00:00", "03-01T00:00", "04-01T00:00"]),
        ("2025-12-31T23:00", "2026-01-31T23:00", "month", "Europe/Berlin", ["12-31T23:00", "01-31T23:00"]),
    ],
)
def test_windows_follow_the_clock_of_the_zone(start: str, end: str, window: str, zone: str, wanted: list[str]) -> None:
    assert bounds(start, end, window, zone) == wanted


@pytest.mark.parametrize(
    ("start", "end", "window", "zone", "said"),
    [
        ("2026-01-01", "2026-01-01", "day", "UTC", "end"),
        ("2026-01-02", "2026-01-01", "day", "UTC", "end"),
        ("1999-12-31", "2026-01-01", "month", "UTC", "between 2000 and 2200"),
        ("2026-01-01", "2200-01-01T00:00:00.000001", "month", "UTC", "between 2000 and 2200"),
        ("2026-01-01", "2026-01-02", "day", "Mars/Olympus", "time_zone"),
        ("2026-01-01", "2026-01-02", "day", "../etc/passwd", "time_zone"),
        ("2026-01-01", "2026-01-02", "day", "", "time_zone"),
        ("2026-01-01", "2026-01-02", "day", "a\0", "time_zone"),
        ("2000-01-01", "2190-01-01", "hour", "UTC", "1,000 windows"),
    ],
)
def test_a_span_that_cannot_be_cut_is_refused(start: str, end: str, window: str, zone: str, said: str) -> None:
    with pytest.raises(DomainError, match=said):
        bounds(start, end, window, zone)


def test_the_bound_on_windows_is_exact() -> None:
    start = at("2026-01-01")
    most = {"start": start, "window": Window.HOUR, "time_zone": "UTC"}
    assert len(window_bounds(end=start + timedelta(hours=MAX_WINDOWS), **most)) == MAX_WINDOWS + 1  # type: ignore[arg-type]
    with pytest.raises(DomainError, match="1,000 windows"):
        window_bounds(end=start + timedelta(hours=MAX_WINDOWS, microseconds=1), **most)  # type: ignore[arg-type]


def story() -> tuple[Meter, Customer, Customer]:
    meter, mine, theirs = a_meter("sum", group_by=["model", "region"]), acme(customer_id="cus_a"), globex()
    sent: list[tuple[Customer, str, dict[str, Any]]] = [
        (mine, "2026-03-10T00:00", {"v": 1, "model": "=a", "region": "eu"}),
        (mine, "2026-03-10T23:59:59", {"v": 2, "model": "=a", "region": "eu"}),
        (mine, "2026-03-12T00:00", {"v": 4, "model": "b"}),
        (theirs, "2026-03-10T12:00", {"v": "0.5", "model": "=a", "region": "eu"}),
        (theirs, "2026-03-13T00:00", {"v": 100}),
    ]
    for customer, on, metadata in sent:
        send(customer, on=on, name="e", metadata=metadata)
    return meter, mine, theirs


def day(number: int) -> datetime:
    return at(f"2026-03-{number}")


@pytest.mark.parametrize("rolled", [False, True])
def test_every_window_is_there_and_groups_only_where_they_occur(rolled: bool) -> None:
    meter, mine, _ = story()
    if rolled:
        roll_up()

    def ask(customer: Customer | None, grouped: bool) -> list[WindowUsage]:
        return usage_by_window(
            meter=meter,
            customer=customer,
            start=day(10),
            end=day(13),
            window=Window.DAY,
            time_zone="UTC",
            grouped=grouped,
        )

    assert ask(mine, False) == [
        WindowUsage(day(10), day(11), (), D(3), 2),
        WindowUsage(day(11), day(12), (), D(0), 0),
        WindowUsage(day(12), day(13), (), D(4), 1),
    ]
    assert [(row.quantity, row.events) for row in ask(None, False)] == [(D("3.5"), 3), (D(0), 0), (D(4), 1)]
    assert ask(mine, True) == [
        WindowUsage(day(10), day(11), ("=a", "eu"), D(3), 2),
        WindowUsage(day(12), day(13), ("b", None), D(4), 1),
    ]
    assert [row.quantity for row in ask(None, True)] == [D("3.5"), D(4)]


def test_a_meter_without_groups_is_not_read_by_group() -> None:
    with pytest.raises(DomainError, match="group_by"):
        usage_by_window(
            meter=a_meter("count"),
            customer=None,
            start=day(10),
            end=day(11),
            window=Window.DAY,
            time_zone="UTC",
            grouped=True,
        )


# -- over HTTP -----------------------------------------------------------------------------------------------


@pytest.fixture
def api(call: Caller) -> APIClient:
    return call(read_only=True)


def ask(api: APIClient, meter: Meter, headers: Any = None, **query: str) -> Any:
    query = {"start": "2026-03-10T00:00:00Z", "end": "2026-03-13T00:00:00Z", "time_zone": "UTC", **query}
    return api.get(f"/meters/{meter.public_id}/usage?{urlencode(query)}", headers=headers)


def test_usage_is_answered_as_json(api: APIClient) -> None:
    meter, _, _ = story()
    answer = ask(api, meter, customer_id="cus_a", group_by="region,model")
    assert answer.status_code == 200
    assert answer.json() == {
        "meter_id": meter.public_id,
        "customer_id": "cus_a",
        "measurement_unit": "u",
        "window": "day",
        "time_zone": "UTC",
        "items": [
            {
                "start": "2026-03-10T00:00:00Z",
                "end": "2026-03-11T00:00:00Z",
                "groups": {"model": "=a", "region": "eu"},
                "quantity": "3",
                "events": 2,
            },
            {
                "start": "2026-03-12T00:00:00Z",
                "end": "2026-03-13T00:00:00Z",
                "groups": {"model": "b", "region": None},
                "quantity": "4",
                "events": 1,
            },
        ],
    }
    month = ask(api, meter, window="month").json()["items"]
    assert [(row["quantity"], row["events"], row["groups"]) for row in month] == [("7.5", 4, {})]
    assert len(ask(api, meter, window="hour").json()["items"]) == 72


@pytest.mark.parametrize("how", [{"format": "csv"}, {"headers": {"Accept": "text/csv"}}])
def test_the_same_is_answered_as_csv_and_no_value_of_it_is_a_formula(api: APIClient, how: Any) -> None:
    meter, _, _ = story()
    answer = ask(api, meter, group_by="model,region", **how)
    assert answer["Content-Type"] == "text/csv; charset=utf-8"
    assert list(csv.reader(io.StringIO(answer.content.decode()))) == [
        ["start", "end", "model", "region", "quantity", "events"],
        ["2026-03-10T00:00:00Z", "2026-03-11T00:00:00Z", "'=a", "eu", "3.5", "3"],
        ["2026-03-12T00:00:00Z", "2026-03-13T00:00:00Z", "b", "", "4", "1"],
    ]
    plain = ask(api, meter, headers={"Accept": "text/csv"}, format="json")
    assert plain["Content-Type"] == "application/json"
    assert ask(api, meter, format="csv").content.decode().splitlines()[0] == "start,end,quantity,events"


@pytest.mark.parametrize(
    ("query", "status", "said"),
    [
        ({"window": "week"}, 422, "window"),
        ({"format": "xml"}, 422, "format"),
        ({"start": "yesterday"}, 422, "start"),
        ({"end": "2026-03-10T00:00:00Z"}, 400, "end"),
        ({"time_zone": "Mars"}, 400, "time_zone"),
        ({"group_by": "model"}, 400, "model,region"),
        ({"group_by": "model,region,region"}, 400, "model,region"),
        ({"customer_id": "cus_nobody"}, 404, "not found"),
        ({"start": "2020-01-01", "window": "hour"}, 400, "1,000 windows"),
    ],
)
def test_what_cannot_be_answered_is_said_in_words(
    api: APIClient, query: dict[str, str], status: int, said: str
) -> None:
    meter, _, _ = story()
    answer = ask(api, meter, **query)
    assert answer.status_code == status, answer.json()
    assert said in answer.json()["message"]


def test_activity_is_answered_by_reason_for_one_customer_or_all(api: APIClient) -> None:
    meter, mine, _ = story()
    send(mine, on="2026-03-11", name="e", metadata={"v": "many"})
    send(mine, on="2026-03-11", name="e")
    send(mine, on="2026-03-13", name="e")
    url = f"/meters/{meter.public_id}/activity?start=2026-03-10&end=2026-03-13"
    assert api.get(f"{url}&customer_id=cus_a").json() == {
        "meter_id": meter.public_id,
        "customer_id": "cus_a",
        "start": "2026-03-10T00:00:00Z",
        "end": "2026-03-13T00:00:00Z",
        "seen": 5,
        "counted": 3,
        "voided": 0,
        "filtered_out": 0,
        "missing": 1,
        "unreadable": 1,
    }
    everyone = api.get(url).json()
    assert (everyone["seen"], everyone["counted"], everyone["customer_id"]) == (6, 4, None)


@pytest.mark.parametrize("path", ["usage", "activity"])
@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({"end": "0001-01-02T00:00:00Z"}, 400),
        ({"start": "0001-01-01T00:00:00+14:00"}, 422),
        ({"end": "9999-12-31T23:59:59-14:00"}, 422),
        ({"start": "9999-12-31T23:59:59Z"}, 400),
        ({"end": "1999-12-31T23:59:59Z"}, 400),
        ({"end": "2000-01-01T00:00:00Z"}, 400),
        ({"end": "2000-01-01T00:00:01Z"}, 200),
        ({"start": "2199-12-31T00:00:00Z", "end": "2200-01-01T00:00:00Z"}, 200),
    ],
)
def test_no_instant_is_too_far_to_answer(call: Caller, path: str, asked: dict[str, str], status: int) -> None:
    meter = a_meter("sum")
    answer = call().get(f"/meters/{meter.public_id}/{path}", asked)
    assert answer.status_code == status, answer.content


LEVELS = [("last", True), ("weighted_sum", True), ("weighted_sum", False)]


@pytest.mark.parametrize(("aggregation", "carry"), LEVELS)
@pytest.mark.parametrize("grouped", [False, True])
def test_levels_over_all_customers_are_bounded_before_they_are_read(
    monkeypatch: pytest.MonkeyPatch, aggregation: str, carry: bool, grouped: bool
) -> None:
    meter = a_meter(aggregation, carry_forward=carry, group_by=["tier"])
    everyone = [acme(), globex()]
    for customer in everyone:
        send(customer, on="2026-01-01T00:30", name="e", metadata={"v": 1, "tier": "gold"})
    roll_up()
    meter.refresh_from_db()

    def ask(hours: int, customer: Customer | None = None) -> int:
        start = at("2026-01-01")
        end = start + timedelta(hours=hours)
        return len(
            usage_by_window(
                meter=meter,
                customer=customer,
                start=start,
                end=end,
                window=Window.HOUR,
                time_zone="UTC",
                grouped=grouped,
            )
        )

    # A weighted sum keeps a series of the whole beside those of its groups.
    series = 2 * (2 if grouped and aggregation == "weighted_sum" else 1)
    monkeypatch.setattr(windows, "MAX_LEVELS", series * 10)
    assert ask(10) == (1 if grouped and not carry else 10)
    with pytest.raises(DomainError, match="customer_id") as refused:
        ask(11)
    assert "11 windows" in refused.value.message
    assert ask(11, everyone[0]) == (1 if grouped and not carry else 11)


def test_rows_are_bounded_whoever_used_it(monkeypatch: pytest.MonkeyPatch) -> None:
    meter, customer = a_meter("sum", group_by=["tier"]), acme()
    for tier in ("a", "b", "c"):
        send(customer, on="2026-01-01T00:30", name="e", metadata={"v": 1, "tier": tier})

    def ask() -> list[WindowUsage]:
        return usage_by_window(
            meter=meter,
            customer=customer,
            start=at("2026-01-01"),
            end=at("2026-01-02"),
            window=Window.DAY,
            time_zone="UTC",
            grouped=True,
        )

    monkeypatch.setattr(windows, "MAX_ROWS", 3)
    assert [row.groups for row in ask()] == [("a",), ("b",), ("c",)]
    monkeypatch.setattr(windows, "MAX_ROWS", 2)
    with pytest.raises(DomainError, match="more than 2 rows"):
        ask()


def test_what_takes_too_long_is_given_up(call: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    meter = a_meter("sum")
    monkeypatch.setattr(windows, "measure_together", lambda **_: connection.cursor().execute("SELECT pg_sleep(60)"))
    monkeypatch.setattr(windows, "TIMEOUT_MILLISECONDS", 50)
    answer = call().get(f"/meters/{meter.public_id}/usage")
    assert (answer.status_code, answer.json()["code"]) == (400, "USAGE_TOO_SLOW")
    assert "customer_id" in answer.json()["message"]
    with connection.cursor() as cursor:
        cursor.execute("SHOW statement_timeout")
        assert cursor.fetchone() != ("50ms",)
