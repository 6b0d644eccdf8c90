"""Two connections at once: real threads, real transactions, the rival put exactly into the gap."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from functools import partial
from threading import Barrier
from typing import Any, TypeVar

import pytest
from django.db import connection, transaction

from customers.models import Customer
from meters.events import list_events
from meters.ingestion import EventInput, enter_ingestion, store_events, wait_for_ingestion_in_flight
from meters.models import EventKey
from meters.partitions import ensure_partitions, month_of, partition_name
from tests.base import acme, at

pytestmark = pytest.mark.django_db(transaction=True)

NOW = at("2026-03-10T12:00:00")
Result = TypeVar("Result")


@pytest.fixture(autouse=True)
def month() -> None:
    """The month is there: a batch that has to make it is waited for by the next, which is another test's matter."""
    ensure_partitions(months=[month_of(NOW)])


@pytest.fixture
def threads() -> Any:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def start(pool: ThreadPoolExecutor, work: Callable[[], Result]) -> "Future[Result]":
    def closing_the_connection() -> Result:
        try:
            return work()
        finally:
            connection.close()

    return pool.submit(closing_the_connection)


def ingest(customer: Customer, ids: list[str], *, now: datetime = NOW, backfill: bool = False) -> int:
    events = [EventInput(event_id, customer.public_id, "n", None if not backfill else now, None) for event_id in ids]
    with transaction.atomic():
        enter_ingestion()
        return store_events(events=events, now=NOW, backfill=backfill)


def until_somebody_waits_for_us() -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with connection.cursor() as cursor:
            # The server's live table of locks; pg_stat_activity stands still inside a transaction.
            cursor.execute(
                "SELECT count(*) FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid))"
            )
            if cursor.fetchone()[0]:
                return
    raise AssertionError("nobody waits for this connection")


def test_two_batches_of_the_same_ids_at_once_store_each_id_once(threads: ThreadPoolExecutor) -> None:
    customer = acme()
    for turn in range(10):
        ids = [f"{turn}-{index}" for index in range(200)]
        barrier = Barrier(3)

        def work(mine: list[str], barrier: Barrier = barrier) -> int:
            barrier.wait(20)
            return ingest(customer, mine)

        # In opposite orders, and shifted: the classic way into a deadlock.
        counts = [
            start(threads, partial(work, ids[:150])),
            start(threads, partial(work, ids[::-1])),
            start(threads, partial(work, ids[50:])),
        ]
        assert sum(count.result(60) for count in counts) == 200
    stored = [event.event_id for event in list_events(offset=0, limit=5000)]
    assert len(stored) == len(set(stored)) == EventKey.objects.count() == 2000


@pytest.mark.parametrize("first_commits", [True, False])
def test_a_batch_waits_for_a_rival_that_is_storing_the_same_id(
    threads: ThreadPoolExecutor, first_commits: bool
) -> None:
    customer = acme()
    with transaction.atomic():
        assert ingest(customer, ["a", "b"]) == 2
        second = start(threads, lambda: ingest(customer, ["b", "c"]))
        until_somebody_waits_for_us()
        assert not second.done()
        transaction.set_rollback(not first_commits)
    assert second.result(20) == (1 if first_commits else 2)
    assert sorted(event.event_id for event in list_events(offset=0, limit=9)) == (
        ["a", "b", "c"] if first_commits else ["b", "c"]
    )


def test_closing_waits_for_a_batch_in_flight_and_then_sees_it(threads: ThreadPoolExecutor) -> None:
    customer = acme()

    def close() -> int:
        wait_for_ingestion_in_flight()
        return len(list_events(offset=0, limit=9))

    with transaction.atomic():
        ingest(customer, ["a"])
        closing = start(threads, close)
        with pytest.raises(TimeoutError):
            closing.result(0.3)
    assert closing.result(20) == 1


def test_closing_holds_nobody_up_once_it_has_waited(threads: ThreadPoolExecutor) -> None:
    customer = acme()
    with transaction.atomic():
        wait_for_ingestion_in_flight()
        # The closer's transaction is still open; ingestion goes on all the same.
        assert start(threads, lambda: ingest(customer, ["a"])).result(20) == 1


def test_batches_do_not_wait_for_one_another(threads: ThreadPoolExecutor) -> None:
    customer = acme()
    with transaction.atomic():
        ingest(customer, ["a"])
        assert start(threads, lambda: ingest(customer, ["b"])).result(20) == 1


def test_the_first_events_of_a_month_may_come_from_two_sides_at_once(threads: ThreadPoolExecutor) -> None:
    customer = acme()
    months = [at(f"2003-{month:02}-15") for month in range(1, 7)]
    try:
        for month in months:
            barrier = Barrier(2)

            def work(event_id: str, month: datetime = month, barrier: Barrier = barrier) -> int:
                barrier.wait(20)
                return ingest(customer, [f"{event_id} {month:%B}"], now=month, backfill=True)

            pair = [start(threads, lambda: work("left")), start(threads, lambda: work("right"))]
            assert [one.result(60) for one in pair] == [1, 1]
        assert len(list_events(offset=0, limit=50)) == 12
    finally:
        with connection.cursor() as cursor:
            for month in months:
                cursor.execute(f"DROP TABLE IF EXISTS {partition_name(month.date())}")


def test_making_a_month_waits_neither_for_readers_nor_for_writers(threads: ThreadPoolExecutor) -> None:
    customer = acme()
    month = at("2004-02-15")
    try:
        with transaction.atomic():
            ingest(customer, ["a"])  # writes to the log and stays open
            list_events(offset=0, limit=9)
            made = start(threads, lambda: ingest(customer, ["b"], now=month, backfill=True))
            assert made.result(20) == 1
    finally:
        with connection.cursor() as cursor:
            cursor.execute(f"DROP TABLE IF EXISTS {partition_name(month.date())}")
