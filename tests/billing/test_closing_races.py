"""Two closers at once, a closer killed half-way, and an event on its way while a period closes: real connections."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from urllib.parse import quote, urlencode

import psycopg
import pytest
from django.db import connection, connections, transaction

from billing.cycles import (
    close_subscription,
    preview_subscription,
    start_run,
    watch_backfilled_periods,
    work_run,
)
from billing.models import Invoice, NumberSeries, RunOutcome, Subscription
from billing.numbers import INVOICES
from meters.ingestion import EventInput, enter_ingestion, store_events, wait_for_ingestion_in_flight
from tests.base import acme, at, call_meter, globex, invoices_of, send, subscribed, usage_product

D = Decimal
ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.django_db(transaction=True)
LONGEST_WAIT = 60


def in_thread(work: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    """Run `work` in a thread with a database connection of its own; its result or error is put into the list."""
    results: list[object] = []

    def run() -> None:
        try:
            results.append(work())
        except Exception as error:
            results.append(error)
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    return thread, results


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONGEST_WAIT
    while not condition():
        assert time.monotonic() < deadline, "what the test waits for did not happen"
        time.sleep(0.02)


def waiting_for_a_lock() -> int:
    """How many connections to this database wait for a lock right now."""
    with connection.cursor() as cursor:
        # Inside a transaction the view is read once and kept.
        cursor.execute("SELECT pg_stat_clear_snapshot()")
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        (count,) = cursor.fetchone()
    return int(count)


def is_connected(process: int) -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = %s)", [process])
        (found,) = cursor.fetchone()
    return bool(found)


def due(count: int = 5) -> Subscription:
    """A subscription with `count` calls in a January that is long over."""
    customer = acme()
    subscription = subscribed(
        customer,
        usage_product((call_meter(), "2", 0), subscription_period_count=1, subscription_period_interval="Month"),
        on="2026-01-01",
    )
    send(customer, count, on="2026-01-10")
    return subscription


def test_two_closers_at_once_make_one_invoice() -> None:
    subscription = due()
    NumberSeries.objects.create(name=INVOICES, prefix="INV-")

    def close() -> int:
        return len(close_subscription(subscription_id=subscription.pk, until=at("2026-02-02"), now=at("2026-02-02")))

    # Both are held at the number, the last lock of closing, so the second must be waiting for the first.
    with transaction.atomic():
        NumberSeries.objects.select_for_update().get(name=INVOICES)
        first, first_made = in_thread(close)
        until(lambda: waiting_for_a_lock() == 1)
        second, second_made = in_thread(close)
        until(lambda: waiting_for_a_lock() == 2)
    first.join(LONGEST_WAIT)
    second.join(LONGEST_WAIT)
    assert sorted([*first_made, *second_made], key=str) == [0, 1]
    (invoice,) = invoices_of(subscription)
    assert (invoice.total, invoice.number) == (D(10), "INV-000001")


def test_workers_share_a_run_without_doubling_anything() -> None:
    product = usage_product((call_meter(), "2", 0))
    subscriptions = []
    for number in range(12):
        customer = globex(name=f"Customer {number}")
        subscriptions.append(subscribed(customer, product, on="2026-01-01"))
        send(customer, number, on="2026-01-10")
    run = start_run(trigger="command", until=at("2026-02-02"), now=at("2026-02-02"))
    barrier = threading.Barrier(4)

    def work() -> int:
        barrier.wait(LONGEST_WAIT)
        return work_run(run=run, clock=lambda: at("2026-02-02"))

    workers = [in_thread(work) for _ in range(4)]
    for thread, _ in workers:
        thread.join(LONGEST_WAIT)
    shares = [share for _, results in workers for share in results]
    assert sum(share for share in shares if isinstance(share, int)) == 12, shares
    assert [[i.total for i in invoices_of(s)] for s in subscriptions] == [[D(2 * n)] for n in range(12)]
    numbers = sorted(Invoice.objects.values_list("number", flat=True), key=str)
    assert numbers == [f"INV-{n:06d}" for n in range(1, 13)]


def start_close_cycles() -> subprocess.Popen[bytes]:
    """`manage.py close_cycles` as a process of its own against this test's database."""
    place = connection.settings_dict
    query = urlencode({"host": place["HOST"]}) if str(place["HOST"]).startswith("/") else ""
    host = "" if query else f"{place['HOST']}:{place['PORT'] or 5432}"
    login = quote(place["USER"], safe="") + (f":{quote(place['PASSWORD'], safe='')}" if place["PASSWORD"] else "")
    return subprocess.Popen(
        [sys.executable, "manage.py", "close_cycles"],
        cwd=ROOT,
        env={
            **os.environ,
            "DATABASE_URL": f"postgres://{login}@{host}/{place['NAME']}?{query}",
            "SECRET_KEY": "a key of this test",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_a_closer_killed_half_way_leaves_nothing_and_the_next_one_bills_once() -> None:
    subscription = due(count=7)
    NumberSeries.objects.create(name=INVOICES, prefix="INV-")
    with transaction.atomic():
        # Held here, the process has written the invoice and its lines and waits for its number.
        NumberSeries.objects.select_for_update().get(name=INVOICES)
        process = start_close_cycles()
        until(lambda: waiting_for_a_lock() == 1 or process.poll() is not None)
        assert process.poll() is None, process.communicate()
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=LONGEST_WAIT)
    until(lambda: waiting_for_a_lock() == 0)
    assert invoices_of(subscription) == []

    second = start_close_cycles()
    out, errors = second.communicate(timeout=LONGEST_WAIT)
    assert (second.returncode, out.decode()) == (0, "1 subscription due, 1 invoice issued for $0.14.\n"), errors
    (invoice,) = invoices_of(subscription)
    assert (invoice.number, invoice.total, invoice.lines.count()) == ("INV-000001", D(14), 1)
    third = start_close_cycles()
    out, errors = third.communicate(timeout=LONGEST_WAIT)
    assert (third.returncode, out.decode()) == (0, "0 subscriptions due, 0 invoices issued.\n"), errors
    assert len(invoices_of(subscription)) == 1


def test_the_run_of_a_killed_worker_is_finished_by_another() -> None:
    subscription = due()
    run = start_run(trigger="schedule", until=at("2026-02-02"), now=at("2026-02-02"))
    # A worker that dies holds its item in an open transaction; its end puts the item back into the queue.
    rival = psycopg.connect(**{**connection.get_connection_params(), "cursor_factory": None})
    rival.execute("SELECT 1 FROM billing_runitem WHERE run_id = %s FOR UPDATE", [run.pk])
    assert work_run(run=run, clock=lambda: at("2026-02-02")) == 0
    run.refresh_from_db()
    assert run.finished_at is None
    rival_process = rival.info.backend_pid
    rival.close()
    until(lambda: not is_connected(rival_process))  # the server notices a closed connection a moment later
    assert work_run(run=run, clock=lambda: at("2026-02-02")) == 1
    run.refresh_from_db()
    assert run.finished_at == at("2026-02-02")
    assert run.items.get().outcome == RunOutcome.CLOSED
    assert len(invoices_of(subscription)) == 1


def test_an_event_on_its_way_when_a_period_closes_is_billed_in_it() -> None:
    customer = acme()
    stored, go_on = threading.Event(), threading.Event()

    def ingest() -> int:
        with transaction.atomic():
            now = enter_ingestion()
            count = store_events(
                events=[
                    EventInput(
                        event_id="slow",
                        customer_id=customer.public_id,
                        event_name="api.call",
                        timestamp=now.isoformat(),
                        metadata=None,
                    )
                ],
                now=now,
            )
            stored.set()
            assert go_on.wait(LONGEST_WAIT)
            return count

    thread, ingested = in_thread(ingest)
    assert stored.wait(LONGEST_WAIT)
    waiter, waited = in_thread(wait_for_ingestion_in_flight)
    waiter.join(0.3)
    assert waited == []  # billing waits for the batch that read its clock before
    go_on.set()
    thread.join(LONGEST_WAIT)
    waiter.join(LONGEST_WAIT)
    assert (ingested, waited) == ([1], [None])


def test_a_dry_run_and_a_closing_stand_in_nobodys_way() -> None:
    subscription = due()
    close_subscription(subscription_id=subscription.pk, until=at("2026-01-15"), now=at("2026-01-15"))
    send(subscription.customer, 10, on="2026-01-20", received="2026-02-10")
    NumberSeries.objects.create(name=INVOICES, prefix="INV-")

    def close() -> int:
        return len(close_subscription(subscription_id=subscription.pk, until=at("2026-02-05"), now=at("2026-02-05")))

    def look() -> int:
        when = at("2026-02-05")
        return len(preview_subscription(subscription_id=subscription.pk, until=when, now=when))

    def watch() -> int:
        return watch_backfilled_periods(now=at("2026-02-05"))

    with transaction.atomic():
        NumberSeries.objects.select_for_update().get(name=INVOICES)
        closer, closed = in_thread(close)
        until(lambda: waiting_for_a_lock() == 1)
        viewer, seen = in_thread(look)
        marker, marked = in_thread(watch)
        until(lambda: waiting_for_a_lock() == 3)
    for thread in (closer, viewer, marker):
        thread.join(LONGEST_WAIT)
    assert (closed, seen, marked) == ([1], [0], [1])
