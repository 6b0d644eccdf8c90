from datetime import date, timedelta
from typing import Any

import pytest
from django.db import connection, transaction

from meters.events import get_event, list_events
from meters.ingestion import EventInput, store_events
from meters.partitions import ensure_partitions, missing_partitions, months_ahead, partition_name
from meters.tasks import make_partitions
from tests.base import acme, at

pytestmark = pytest.mark.django_db


def store(customer: Any, event_id: str, instant: str) -> int:
    return store_events(
        events=[EventInput(event_id, customer.public_id, "n", at(instant))], now=at(instant), backfill=True
    )


def where(event_id: str) -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT tableoid::regclass::text FROM meters_event WHERE event_id = %s", [event_id])
        return str(cursor.fetchone()[0])


@pytest.mark.parametrize(
    ("instant", "partition"),
    [
        ("2031-12-31T23:59:59.999999", "meters_event_2031_12"),
        ("2032-01-01", "meters_event_2032_01"),
        ("2032-01-01T00:30+01:00", "meters_event_2031_12"),
        ("2032-02-29T12:00", "meters_event_2032_02"),
        ("2000-01-01", "meters_event_2000_01"),
    ],
)
def test_an_event_lies_in_the_partition_of_its_month_in_utc(instant: str, partition: str) -> None:
    assert store(acme(), "a", instant) == 1
    assert where("a") == partition
    assert get_event(event_id="a").timestamp == at(instant)


def test_the_turn_of_the_month_is_no_error() -> None:
    customer = acme()
    turn = at("2033-06-01")
    events = [
        EventInput(f"evt_{index}", customer.public_id, "n", turn + timedelta(seconds=index)) for index in range(-3, 3)
    ]
    assert store_events(events=events, now=turn) == 6
    assert [event.event_id for event in list_events(offset=0, limit=9)] == [
        f"evt_{index}" for index in range(2, -4, -1)
    ]


def test_a_month_that_was_rolled_back_is_made_again() -> None:
    customer = acme()
    point = transaction.savepoint()
    store(customer, "a", "2034-03-03")
    transaction.savepoint_rollback(point)
    assert store(customer, "a", "2034-03-03") == 1
    assert where("a") == "meters_event_2034_03"


def test_each_month_is_made_once_with_the_logs_indexes() -> None:
    months = [date(2035, 12, 1), date(2036, 1, 1)]
    assert ensure_partitions(months=months) == months
    assert ensure_partitions(months=months) == []
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_get_expr(relpartbound, oid), (SELECT count(*) FROM pg_index WHERE indrelid = pg_class.oid)"
            " FROM pg_class WHERE relname = %s",
            [partition_name(months[0])],
        )
        bounds, indexes = cursor.fetchone()
    assert "2035-12-01 00:00:00+00" in bounds
    assert "2036-01-01 00:00:00+00" in bounds
    assert indexes == 4


def test_months_are_counted_across_the_new_year() -> None:
    assert months_ahead(now=at("2026-11-30T23:30-02:00"), count=2) == [
        date(2026, 12, 1),
        date(2027, 1, 1),
        date(2027, 2, 1),
    ]


def test_the_task_makes_this_month_and_the_next_three(time_machine_at: Any) -> None:
    time_machine_at("2041-10-31T23:59:59")
    assert make_partitions() == ["2041-10-01", "2041-11-01", "2041-12-01", "2042-01-01"]
    assert make_partitions() == []
    assert missing_partitions(months=[date(2042, 1, 1), date(2042, 2, 1)]) == [date(2042, 2, 1)]
