"""Old months leave the log without a number changing, and come back as they were."""

import gzip
import json
from collections.abc import Callable
from datetime import date, timedelta
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction

from billing.cycles import (
    close_subscription,
    due_subscriptions,
    start_run,
    watch_backfilled_periods,
    work_run,
)
from billing.retention import month_in_use
from billing.subscriptions import cancel_now
from customers.clock import database_now
from customers.models import Customer
from customers.portal.usage import csv_rows
from meters.events import EventNotFound, get_event, list_events
from meters.imports import begin_import, checksum, report_path, run_import
from meters.ingestion import EventInput, EventsRefused, store_events
from meters.meters import create_meter
from meters.models import ArchivedMonth, Backfill, Event, EventKey, Meter
from meters.partitions import MonthArchived, missing_partitions, month_of, month_span
from meters.retention import (
    ArchiveRefused,
    MonthNotFound,
    archive_month,
    drop_month,
    month_before,
    months_to_archive,
    restore_month,
)
from meters.rollups import Hour, rebuild, recompute, roll_up
from meters.tasks import archive_old_events
from meters.usage import measure, quantity
from meters.voids import void_event
from tests.base import acme, at, call_meter, globex, send, subscribed, usage_product
from tests.meters.test_rollups import KINDS

pytestmark = pytest.mark.django_db

MARCH, APRIL = date(2025, 3, 1), date(2025, 4, 1)
START, END = at("2025-03-01"), at("2025-04-01")
NOW = at("2025-09-15")


def free(month: date) -> str:
    return ""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "archive"


def store(customer: Customer, *events: tuple[str, str, dict[str, Any] | None]) -> int:
    batch = [EventInput(event_id, customer.public_id, "n", at(instant), data) for event_id, instant, data in events]
    with transaction.atomic():
        return store_events(events=batch, now=NOW, backfill=True)


def three_months(customer: Customer) -> None:
    store(
        customer,
        *[
            (
                f"e{day}",
                f"2025-{month:02}-{day:02}T10:30:00",
                {"v": Decimal(day) / 4, "tier": "gold" if day % 2 else "free"},
            )
            for month, days in ((2, (25, 28)), (3, range(1, 21)), (4, (21, 22)))
            for day in days
        ],
    )


def all_meters() -> list[Meter]:
    return [
        create_meter(
            name=f"{aggregation} {changes}",
            event_name="n",
            aggregation=aggregation,
            property_key="" if aggregation == "count" else "v",
            measurement_unit="units",
            **changes,
        )
        for aggregation, changes in KINDS
    ]


def quantities(meters: list[Meter], customer: Customer) -> list[Any]:
    bounds = [START, at("2025-03-07"), at("2025-03-19T11:00"), END, at("2025-05-01")]
    return [
        measure(meter=Meter.objects.get(pk=meter.pk), customer=who, bounds=bounds, grouped=grouped)
        for meter in meters
        for who in (customer, None)
        for grouped in (False, True)
    ]


def archive_and_drop(folder: Path) -> ArchivedMonth:
    roll_up()
    archive_month(month=MARCH, folder=folder, now=NOW)
    return drop_month(month=MARCH, now=database_now(), in_use=free)


# -- writing -------------------------------------------------------------------------------------------------


def test_an_archive_holds_every_event_of_its_month_digit_for_digit(folder: Path) -> None:
    customer = acme(customer_id="cus_acme")
    store(
        customer,
        ("before", "2025-02-28T23:59:59.999999", None),
        ("late", "2025-03-31T23:59:59.999999", None),
        ("first", "2025-03-01T00:00:00", {"v": Decimal("12345678901234567890.1234567890"), "ok": True, "t": "é\n"}),
        ("after", "2025-04-01T00:00:00", None),
    )
    record = archive_month(month=MARCH, folder=folder, now=NOW)
    path = folder / "events-2025-03.jsonl.gz"
    assert (record.path, record.events, record.dropped_at) == (str(path), 2, None)
    assert record.checksum == checksum(path)
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    found = [json.loads(text, parse_float=Decimal) for text in lines]
    assert [event["event_id"] for event in found] == ["first", "late"]
    assert found[0]["metadata"] == {"v": Decimal("12345678901234567890.1234567890"), "ok": True, "t": "é\n"}
    assert "12345678901234567890.1234567890" in lines[0]
    assert (found[0]["customer_id"], found[0]["event_name"]) == ("cus_acme", "n")
    assert found[1]["timestamp"] == "2025-03-31T23:59:59.999999Z"
    assert found[1]["metadata"] is None
    assert found[0]["log_id"] == Event.objects.get(event_id="first").pk
    # The same month again is the same file.
    assert archive_month(month=MARCH, folder=folder, now=NOW).checksum == record.checksum
    assert sorted(name.name for name in folder.iterdir()) == ["events-2025-03.jsonl.gz"]


def test_a_month_that_is_not_over_or_not_there_is_refused(folder: Path) -> None:
    send(acme(), on="2025-03-10")
    with pytest.raises(ArchiveRefused, match="is not over yet"):
        archive_month(month=MARCH, folder=folder, now=END - timedelta(microseconds=1))
    assert archive_month(month=MARCH, folder=folder, now=END).events == 1
    with pytest.raises(MonthNotFound):
        archive_month(month=date(2001, 1, 1), folder=folder, now=NOW)


def test_the_last_whole_months_are_kept() -> None:
    three_months(acme())
    assert months_to_archive(now=at("2025-05-31"), keep_months=1) == [date(2025, 2, 1), MARCH]
    assert months_to_archive(now=at("2025-06-01"), keep_months=1) == [date(2025, 2, 1), MARCH, APRIL]
    assert months_to_archive(now=at("2025-06-01"), keep_months=12) == []


# -- dropping ------------------------------------------------------------------------------------------------


def test_usage_is_the_same_without_the_month(folder: Path) -> None:
    customer, other = acme(), globex()
    three_months(customer)
    store(other, ("g1", "2025-03-03T03:03:03", {"v": 7, "tier": "gold"}))
    meters = all_meters()
    before = quantities(meters, customer)
    assert before == quantities(meters, customer)
    record = archive_and_drop(folder)
    assert record.events == 21
    assert missing_partitions(months=[MARCH]) == [MARCH]
    assert {event.timestamp.month for event in Event.objects.all()} == {2, 4}
    assert quantities(meters, customer) == before
    # A rebuild counts the rest again and keeps what only the buckets know.
    for meter in meters:
        rebuild(meter=meter)
    assert quantities(meters, customer) == before
    roll_up()
    assert quantities(meters, customer) == before


def test_an_id_of_a_dropped_month_is_still_taken_and_a_new_one_refused(folder: Path) -> None:
    customer = acme()
    three_months(customer)
    keys = EventKey.objects.count()
    archive_and_drop(folder)
    assert store(customer, ("e5", "2025-03-05T10:30:00", None), ("e21", "2025-04-21T00:00", None)) == 0
    with pytest.raises(EventsRefused) as caught:
        store(customer, ("e6", "2025-03-06T10:30:00", None), ("new", "2025-03-05", None), ("april", "2025-04-05", None))
    (error,) = caught.value.errors or [{}]
    assert (error["index"], error["event_id"], error["code"]) == (1, "new", "MONTH_ARCHIVED")
    assert "March 2025 was archived" in error["message"]
    assert EventKey.objects.count() == keys
    assert missing_partitions(months=[MARCH]) == [MARCH]
    with pytest.raises(EventNotFound, match="March 2025"):
        get_event(event_id="e5")
    assert get_event(event_id="e21").event_id == "e21"


def test_an_import_of_the_archive_finds_every_id_there(folder: Path) -> None:
    customer = acme()
    three_months(customer)
    path = Path(archive_and_drop(folder).path)
    record = begin_import(path=path, name=path.name, now=NOW)
    run_import(record=record, path=path, report=report_path(path), clock=database_now)
    assert (record.stored, record.repeated, record.refused) == (0, 20, 0)


def test_a_cut_hour_of_a_dropped_month_is_an_error_and_no_wrong_number(folder: Path) -> None:
    customer, other = acme(), globex()
    three_months(customer)
    meter = call_meter(event_name="n")
    inside, empty = at("2025-03-05T10:15"), at("2025-03-05T12:15")
    assert quantity(meter=meter, customer=customer, start=inside, end=END) == 16
    archive_and_drop(folder)
    for start, end in ((inside, END), (START, inside)):
        with pytest.raises(MonthArchived, match="only whole hours"):
            quantity(meter=meter, customer=customer, start=start, end=end)
    # Where nothing happened in the hour there is nothing to be wrong about.
    assert quantity(meter=meter, customer=customer, start=empty, end=END) == 15
    assert quantity(meter=meter, customer=other, start=inside, end=END) == 0
    # Cut hours elsewhere are read from the log as ever.
    assert quantity(meter=meter, customer=customer, start=START, end=at("2025-04-21T10:30:00.000001")) == 21


def test_a_level_that_only_the_dropped_month_knew_is_refused_and_not_taken_for_nothing(folder: Path) -> None:
    customer, newcomer = acme(), globex()
    store(customer, ("a", "2025-03-10", {"v": 5}), ("b", "2025-06-10", {"v": 1}))
    archive_and_drop(folder)
    Customer.objects.filter(pk=customer.pk).update(created_at=at("2025-01-01"))
    Customer.objects.filter(pk=newcomer.pk).update(created_at=database_now() + timedelta(seconds=1))
    customer.refresh_from_db()
    newcomer.refresh_from_db()
    late = call_meter(event_name="n", aggregation="last", property_key="v", carry_forward=True)
    Meter.objects.filter(pk=late.pk).update(created_at=database_now() + timedelta(seconds=1))
    late.refresh_from_db()
    april, may, july, august = (at(f"2025-{month:02}-01") for month in (4, 5, 7, 8))
    with pytest.raises(MonthArchived, match=r"March 2025 .* was made later"):
        quantity(meter=late, customer=customer, start=april, end=may)
    # A level that the log still has is a level; and who came after the drop had none.
    assert quantity(meter=late, customer=customer, start=july, end=august) == 1
    assert quantity(meter=late, customer=newcomer, start=april, end=may) == 0


def test_a_meter_made_after_the_drop_says_that_it_never_counted_the_month(folder: Path) -> None:
    customer = acme()
    three_months(customer)
    archive_and_drop(folder)
    late = call_meter(event_name="n")
    Meter.objects.filter(pk=late.pk).update(created_at=database_now() + timedelta(seconds=1))
    late.refresh_from_db()
    with pytest.raises(MonthArchived, match="was made later"):
        quantity(meter=late, customer=customer, start=START, end=END)
    assert quantity(meter=late, customer=customer, start=END, end=at("2025-05-01")) == 2
    restore_month(month=MARCH)
    late.refresh_from_db()
    assert quantity(meter=late, customer=customer, start=START, end=END) == 20


def test_hours_of_a_dropped_month_are_not_counted_again(folder: Path) -> None:
    customer = acme()
    three_months(customer)
    meter = call_meter(event_name="n")
    archive_and_drop(folder)
    meter.refresh_from_db()
    with pytest.raises(MonthArchived):
        recompute(meter=meter, hours=[Hour(customer.pk, at("2025-03-05T10:00"))], upto=meter.rolled_up_to)
    assert quantity(meter=meter, customer=customer, start=START, end=END) == 20


# -- what stands against a drop ------------------------------------------------------------------------------


def _tamper(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("trouble", "why"),
    [
        (_tamper, "was changed"),
        (lambda path: path.write_bytes(gzip.compress(b"")), "was changed"),
        (Path.unlink, "is not at"),
    ],
)
def test_a_month_whose_archive_is_not_what_was_written_stays(
    folder: Path, trouble: Callable[[Path], Any], why: str
) -> None:
    three_months(acme())
    roll_up()
    path = Path(archive_month(month=MARCH, folder=folder, now=NOW).path)
    trouble(path)
    with pytest.raises(ArchiveRefused, match=why):
        drop_month(month=MARCH, now=NOW, in_use=free)
    assert Event.objects.count() == 24
    # Written anew, it is well.
    archive_month(month=MARCH, folder=folder, now=NOW)
    drop_month(month=MARCH, now=NOW, in_use=free)
    assert Event.objects.count() == 4
    with pytest.raises(ArchiveRefused, match="no longer in the log"):
        drop_month(month=MARCH, now=NOW, in_use=free)
    with pytest.raises(ArchiveRefused, match="no longer in the log"):
        archive_month(month=MARCH, folder=folder, now=NOW)


def test_a_month_that_is_not_archived_or_grew_since_stays(folder: Path) -> None:
    customer = acme()
    three_months(customer)
    with pytest.raises(ArchiveRefused, match="is not archived"):
        drop_month(month=MARCH, now=NOW, in_use=free)
    archive_month(month=MARCH, folder=folder, now=NOW)
    store(customer, ("later", "2025-03-30", None))
    roll_up()
    with pytest.raises(ArchiveRefused, match="21 events in the log and 20 in its archive"):
        drop_month(month=MARCH, now=NOW, in_use=free)
    assert Event.objects.count() == 25


def test_a_month_with_an_event_voided_since_stays_until_the_archive_says_so(folder: Path) -> None:
    three_months(acme())
    roll_up()
    record = archive_month(month=MARCH, folder=folder, now=NOW)
    void_event(event_id="e3", reason="a mistake", author="ada", now=NOW)
    # As if the void had come between the archive's reading and its record.
    record.pk = None
    ArchivedMonth.objects.all().delete()
    record.save(force_insert=True)
    with pytest.raises(ArchiveRefused, match="were voided after it was archived"):
        drop_month(month=MARCH, now=NOW, in_use=free)
    assert Event.objects.count() == 24
    path = Path(archive_month(month=MARCH, folder=folder, now=NOW).path)
    (voided,) = [
        event for event in map(json.loads, gzip.decompress(path.read_bytes()).splitlines()) if event["voided_at"]
    ]
    assert (voided["event_id"], voided["void_reason"], voided["void_author"]) == ("e3", "a mistake", "ada")
    assert drop_month(month=MARCH, now=NOW, in_use=free).dropped_at == NOW


def test_a_month_that_a_meter_has_not_read_stays(folder: Path) -> None:
    three_months(acme())
    call_meter(event_name="n", name="Slow")
    archive_month(month=MARCH, folder=folder, now=NOW)
    with pytest.raises(ArchiveRefused, match="“Slow” has not read"):
        drop_month(month=MARCH, now=NOW, in_use=free)
    roll_up()
    assert drop_month(month=MARCH, now=NOW, in_use=free).dropped_at == NOW


def test_a_month_of_an_open_period_stays_until_billing_is_done_with_it(folder: Path) -> None:
    customer = acme()
    meter = call_meter(event_name="n")
    subscription = subscribed(customer, usage_product((meter, "1", 0)), on="2025-02-15")
    three_months(customer)
    Backfill.objects.all().delete()
    assert month_in_use(date(2025, 1, 1)) == ""
    assert "is not closed" in month_in_use(date(2025, 2, 1))
    assert "is not closed" in month_in_use(MARCH)
    assert "are opened yet" in month_in_use(APRIL)
    close_subscription(subscription_id=subscription.pk, until=at("2025-03-20"), now=at("2025-03-20"))
    assert month_in_use(date(2025, 2, 1)) == ""
    assert "is not closed" in month_in_use(MARCH)
    roll_up()
    archive_month(month=MARCH, folder=folder, now=NOW)
    with pytest.raises(ArchiveRefused, match="is not closed"):
        drop_month(month=MARCH, now=NOW, in_use=month_in_use)
    close_subscription(subscription_id=subscription.pk, until=at("2025-04-20"), now=at("2025-04-20"))
    assert month_in_use(MARCH) == ""
    # A backfill makes billing look at the period again.
    store(customer, ("back", "2025-03-16", None))
    assert "has not looked at" in month_in_use(MARCH)
    watch_backfilled_periods(now=NOW)
    assert "still compared" in month_in_use(MARCH)
    close_subscription(subscription_id=subscription.pk, until=at("2025-05-20"), now=NOW)
    assert month_in_use(MARCH) == ""
    roll_up()
    archive_month(month=MARCH, folder=folder, now=NOW)
    assert drop_month(month=MARCH, now=NOW, in_use=month_in_use).events == 21


def test_a_period_that_cannot_be_corrected_beside_a_dropped_month_waits_and_the_next_are_billed(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A period from the middle of an hour of March on: March is dropped, and then an event of its April is voided."""
    customer = acme()
    meter = call_meter(event_name="n")
    Meter.objects.update(created_at=at("2025-01-01"))
    subscription = subscribed(customer, usage_product((meter, "100", 0)), on="2025-03-15T10:23")
    store(customer, ("a", "2025-03-15T10:30", None), ("b", "2025-04-03", None), ("c", "2025-05-20", None))

    def close(on: str) -> list[Decimal]:
        created = close_subscription(subscription_id=subscription.pk, until=at(on), now=at(on))
        return [invoice.total for invoice in created]

    # Everything was sent as a backfill: what it reached is looked at once more.
    assert close("2025-04-16") == [Decimal(200)]
    watch_backfilled_periods(now=at("2025-04-16"))
    assert close("2025-05-16") == [Decimal(0)]
    assert close("2025-06-16") == [Decimal(100)]
    roll_up()
    archive_month(month=MARCH, folder=folder, now=NOW)
    drop_month(month=MARCH, now=NOW, in_use=month_in_use)
    void_event(event_id="b", reason="r", author="a", now=at("2025-06-17"))
    watch_backfilled_periods(now=at("2025-06-17"))
    assert close("2025-07-16") == [Decimal(0)]
    assert "cannot be compared" in caplog.text
    assert "only whole hours" in caplog.text
    assert "still compared" in month_in_use(APRIL)
    restore_month(month=MARCH)
    send(customer, on="2025-07-20", name="n")
    send(customer, on="2025-07-21", name="n")
    # Two calls, less the one that was taken back.
    assert close("2025-08-16") == [Decimal(100)]
    assert month_in_use(MARCH) == ""


def test_of_a_subscription_that_is_over_it_is_parked_instead_of_tried_at_every_tick(folder: Path) -> None:
    customer = acme()
    meter = call_meter(event_name="n")
    Meter.objects.update(created_at=at("2025-01-01"))
    subscription = subscribed(customer, usage_product((meter, "100", 0)), on="2025-03-15T10:23")
    store(customer, ("a", "2025-03-15T10:30", None), ("b", "2025-04-03", None))
    watch_backfilled_periods(now=at("2025-04-04"))
    cancel_now(subscription=subscription, now=at("2025-04-10"))
    close_subscription(subscription_id=subscription.pk, until=at("2025-04-11"), now=at("2025-04-11"))
    roll_up()
    archive_month(month=MARCH, folder=folder, now=NOW)
    drop_month(month=MARCH, now=NOW, in_use=month_in_use)
    void_event(event_id="b", reason="r", author="a", now=at("2025-06-17"))
    run = start_run(trigger="schedule", until=at("2025-06-17"), now=at("2025-06-17"))
    work_run(run=run, clock=lambda: at("2025-06-17"))
    subscription.refresh_from_db()
    assert "Restore the month" in subscription.parked_reason
    assert not due_subscriptions(until=at("2025-06-18")).exists()
    restore_month(month=MARCH)


# -- bringing back -------------------------------------------------------------------------------------------


def test_a_restored_month_is_as_it_was(folder: Path) -> None:
    customer = acme()
    three_months(customer)
    void_event(event_id="e3", reason="a mistake", author="ada", now=NOW)
    meters = all_meters()
    rows = "SELECT id, event_id, customer_id, event_name, timestamp, metadata::text, received_at, voided_at"
    with connection.cursor() as cursor:
        cursor.execute(f"{rows} FROM meters_event ORDER BY id")
        log = cursor.fetchall()
    before = quantities(meters, customer)
    archive_and_drop(folder)
    rebuild(meter=meters[0])
    assert restore_month(month=MARCH).dropped_at is None
    with connection.cursor() as cursor:
        cursor.execute(f"{rows} FROM meters_event ORDER BY id")
        assert cursor.fetchall() == log
    assert quantities(meters, customer) == before
    roll_up()
    assert quantities(meters, customer) == before
    assert store(customer, ("e4", "2025-03-04", None), ("new", "2025-03-04", None)) == 1
    assert [event.event_id for event in list_events(offset=0, limit=1, start=START, end=at("2025-03-05"))] == ["e4"]
    with pytest.raises(ArchiveRefused, match="is in the log"):
        restore_month(month=MARCH)


def test_a_tampered_archive_is_not_restored(folder: Path) -> None:
    three_months(acme())
    _tamper(Path(archive_and_drop(folder).path))
    with pytest.raises(ArchiveRefused, match="was changed"):
        restore_month(month=MARCH)
    assert missing_partitions(months=[MARCH]) == [MARCH]


# -- the commands --------------------------------------------------------------------------------------------


def run(*arguments: Any) -> str:
    out = StringIO()
    call_command(*arguments, stdout=out, stderr=out)
    return out.getvalue()


def test_the_commands_archive_drop_and_restore(folder: Path, settings: Any) -> None:
    three_months(acme())
    Backfill.objects.all().delete()
    roll_up()
    settings.EVENT_ARCHIVE_DIR = folder
    with pytest.raises(CommandError, match="--keep-months"):
        run("archive_events")
    assert "2025-03 would be archived and dropped." in run(
        "archive_events", "--keep-months", "2", "--drop", "--dry-run"
    )
    assert not folder.exists()
    assert "2025-03: 20 events in" in run("archive_events", "--keep-months", "2")
    assert Event.objects.count() == 24
    said = run("archive_events", "--keep-months", "2", "--drop")
    assert "2025-03 is no longer in the log." in said
    assert Event.objects.count() == 0
    assert "There is no month" in run("archive_events", "--keep-months", "2", "--drop")
    assert "20 events are in the log again" in run("restore_events", "2025-03")
    assert Event.objects.count() == 20
    for month, why in (("March", "Name the month"), ("2025-03", "is in the log"), ("2024-01", "is not archived")):
        with pytest.raises(CommandError, match=why):
            run("restore_events", month)


def test_the_task_keeps_as_many_months_as_the_setting_says(folder: Path, settings: Any) -> None:
    three_months(acme())
    Backfill.objects.all().delete()
    settings.EVENT_ARCHIVE_DIR = folder
    archive_old_events()
    assert (Event.objects.count(), folder.exists()) == (24, False)
    settings.EVENT_RETENTION_MONTHS = 1
    archive_old_events()
    assert Event.objects.count() == 0
    assert [record.events for record in ArchivedMonth.objects.order_by("month")] == [2, 20, 2]
    archive_old_events()
    assert ArchivedMonth.objects.count() == 3


# -- the API -------------------------------------------------------------------------------------------------


def test_the_api_names_the_archived_month(folder: Path, call: Any) -> None:
    customer = acme(customer_id="cus_acme")
    three_months(customer)
    meter = call_meter(event_name="n")
    archive_and_drop(folder)
    client = call(backfill=True)
    event = {"customer_id": "cus_acme", "event_name": "n", "timestamp": "2025-03-05T10:30:00Z"}
    known = client.post("/events/ingest", {"events": [{**event, "event_id": "e5"}]}, format="json")
    assert (known.status_code, known.json()) == (200, {"ingested_count": 0})
    new = client.post("/events/ingest", {"events": [{**event, "event_id": "new"}]}, format="json")
    assert (new.status_code, new.json()["code"]) == (400, "MONTH_ARCHIVED")
    assert [error["event_id"] for error in new.json()["errors"]] == ["new"]
    gone = client.get("/events/e5")
    assert (gone.status_code, gone.json()["code"]) == (404, "NOT_FOUND")
    assert "March 2025" in gone.json()["message"]
    cut = client.get(
        f"/meters/{meter.public_id}/usage",
        {"customer_id": "cus_acme", "start": "2025-03-05T10:15:00Z", "end": "2025-03-06T00:00:00Z"},
    )
    assert (cut.status_code, cut.json()["code"]) == (409, "MONTH_ARCHIVED")


# -- pages ---------------------------------------------------------------------------------------------------


def test_pages_say_what_they_can_no_longer_show(folder: Path, client: Any, admin_user: Any) -> None:
    """The start page, a meter's page and a customer's CSV meet a month that only its buckets remember."""
    customer = acme()
    # Some hours before the end of the last month but one: over, billed, and less than 90 days ago.
    this_month = month_of(database_now())
    month = month_before(month_before(this_month))
    instant = month_span(month)[1] - timedelta(minutes=150)
    meter = call_meter(event_name="n")
    subscription = subscribed(
        customer, usage_product((meter, "1", 0)), on=(instant - timedelta(minutes=10)).isoformat()
    )
    send(customer, on=instant, name="n")
    close_subscription(subscription_id=subscription.pk, until=database_now(), now=database_now())
    roll_up()
    archive_month(month=month, folder=folder, now=database_now())
    drop_month(month=month, now=database_now(), in_use=free)
    Meter.objects.filter(pk=meter.pk).update(created_at=database_now() + timedelta(seconds=1))
    client.force_login(admin_user)
    assert client.get("/admin/").status_code == 200
    shown = client.get(f"/admin/meters/meter/{meter.pk}/change/?days=90")
    assert shown.status_code == 200
    assert "was archived and dropped, and the meter" in shown.content.decode()
    period = subscription.periods.order_by("start").first()
    assert period is not None
    rows = list(csv_rows(period=period, customer=customer, now=database_now()))
    assert [row[0] for row in rows[:2]] == ["day", "note"]
    assert rows[2][0].startswith("billed on INV-")
    assert rows[2][2] == "1"
