"""A month is dropped while others store events into it: whatever was acknowledged is in the archive."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from pathlib import Path
from threading import Event as Flag

import pytest
from django.db import connection, transaction

from customers.clock import database_now
from customers.models import Customer
from meters import ingestion
from meters.ingestion import EventInput, EventsRefused, enter_ingestion, ingest_events, store_events
from meters.models import ArchivedMonth, Event, EventKey, Meter
from meters.partitions import ensure_partitions, missing_partitions
from meters.retention import ArchiveRefused, archive_month, drop_month, restore_month
from meters.rollups import roll_up
from meters.usage import quantity
from tests.base import acme, at, call_meter

pytestmark = pytest.mark.django_db(transaction=True)

MARCH, APRIL = date(2025, 3, 1), date(2025, 4, 1)
START, END = at("2025-03-01"), at("2025-04-01")


def write(customer: Customer, writer: int, stop: Flag) -> tuple[int, str]:
    """Store one event after the other into March; returns how many were acknowledged, and why it ended."""
    try:
        for number in range(100_000):
            if stop.is_set():
                return number, "stopped"
            instant = START + timedelta(seconds=number)
            event = EventInput(f"{writer}-{number}", customer.public_id, "n", instant)
            try:
                with transaction.atomic():
                    enter_ingestion()
                    store_events(events=[event], now=database_now(), backfill=True)
            except EventsRefused as refused:
                return number, refused.code
        return 100_000, "stopped"
    finally:
        connection.close()


def test_nothing_that_was_acknowledged_is_missing_from_the_archive(tmp_path: Path) -> None:
    customer = acme()
    meter = call_meter(event_name="n")
    stop = Flag()
    refusals = 0
    with ThreadPoolExecutor(3) as pool:
        writers = [pool.submit(write, customer, number, stop) for number in range(3)]
        try:
            while Event.objects.count() < 200:
                time.sleep(0.01)
            deadline = time.monotonic() + 60
            dropped = False
            while not dropped and time.monotonic() < deadline:
                roll_up()
                archive_month(month=MARCH, folder=tmp_path, now=database_now())
                try:
                    drop_month(month=MARCH, now=database_now(), in_use=lambda month: "")
                    dropped = True
                except ArchiveRefused:
                    # It grew in the meantime. Once enough was tried against writers in full run, let them end.
                    refusals += 1
                    if refusals == 15:
                        stop.set()
        finally:
            stop.set()
        ends = [writer.result(60) for writer in writers]
    acknowledged = sum(count for count, _ in ends)
    assert {why for _, why in ends} <= {"stopped", "MONTH_ARCHIVED"}
    assert dropped
    record = ArchivedMonth.objects.get()
    assert record.events == acknowledged == EventKey.objects.count()
    assert missing_partitions(months=[MARCH]) == [MARCH]
    meter = Meter.objects.get(pk=meter.pk)
    assert quantity(meter=meter, customer=customer, start=START, end=END) == acknowledged
    restore_month(month=MARCH)
    assert Event.objects.count() == acknowledged
    assert quantity(meter=meter, customer=customer, start=START, end=END) == acknowledged


def test_a_writer_in_the_middle_of_its_batch_keeps_the_month(tmp_path: Path) -> None:
    customer = acme()
    call_meter(event_name="n")
    stop = Flag()

    def hold(entered: Flag) -> None:
        try:
            with transaction.atomic():
                enter_ingestion()
                event = EventInput("held", customer.public_id, "n", START)
                store_events(events=[event], now=database_now(), backfill=True)
                entered.set()
                assert stop.wait(60)
        finally:
            connection.close()

    with transaction.atomic():
        store_events(events=[EventInput("first", customer.public_id, "n", START)], now=database_now(), backfill=True)
    roll_up()
    archive_month(month=MARCH, folder=tmp_path, now=database_now())
    with ThreadPoolExecutor(1) as pool:
        entered = Flag()
        holder = pool.submit(hold, entered)
        try:
            assert entered.wait(60)
            with pytest.raises(ArchiveRefused, match="are being stored that take long"):
                drop_month(month=MARCH, now=database_now(), in_use=lambda month: "")
        finally:
            stop.set()
        holder.result(60)
    with pytest.raises(ArchiveRefused, match="2 events in the log and 1 in its archive"):
        drop_month(month=MARCH, now=database_now(), in_use=lambda month: "")
    assert Event.objects.count() == 2


@pytest.mark.parametrize("known", [True, False])
def test_a_month_that_goes_between_looking_and_writing_is_refused_as_one_gone_long_ago(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    customer = acme()
    call_meter(event_name="n")
    first = EventInput("first", customer.public_id, "n", START)
    assert ingest_events(events=[first], backfill=True) == 1
    roll_up()
    archive_month(month=MARCH, folder=tmp_path, now=database_now())
    drop_month(month=MARCH, now=database_now(), in_use=lambda month: "")
    look_up = ingestion._look_up

    def before_the_drop(customer_ids: set[str], months: set[date]) -> tuple[dict[str, int], bool]:
        ensure_partitions(months=[APRIL])
        return look_up(customer_ids, months)[0], False

    monkeypatch.setattr(ingestion, "_look_up", before_the_drop)
    now = database_now()
    new = EventInput("new", customer.public_id, "n", END)
    old = first if known else EventInput("late", customer.public_id, "n", START)
    if known:
        with transaction.atomic():
            assert store_events(events=[old, new], now=now, backfill=True) == 1
    else:
        with pytest.raises(EventsRefused) as refused, transaction.atomic():
            store_events(events=[old, new], now=now, backfill=True)
        told = [(error["event_id"], error["code"]) for error in refused.value.errors or ()]
        assert told == [("late", "MONTH_ARCHIVED")]
    assert ArchivedMonth.objects.get().dropped_at is not None
    assert missing_partitions(months=[MARCH]) == [MARCH]
    assert list(Event.objects.values_list("event_id", flat=True)) == (["new"] if known else [])
