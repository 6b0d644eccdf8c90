"""Buckets are compared with the log, differences told in words and mended."""

from datetime import timedelta
from decimal import Decimal
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from customers.clock import database_now
from customers.models import Customer
from meters import reconciliation
from meters.ingestion import EventInput, store_events
from meters.meters import create_meter
from meters.models import ArchivedMonth, Event, Meter, Reconciliation
from meters.partitions import MonthArchived, partition_name
from meters.reconciliation import MOST_FINDINGS, last_reconciliation, reconcile
from meters.rollups import recount_span, roll_up
from meters.tasks import reconcile as nightly
from meters.usage import quantity
from meters.voids import void_event
from tests.base import acme, at, globex
from tests.meters.test_rollups import DAY, a_meter, dump, meters, store

pytestmark = pytest.mark.django_db
NOW = at("2026-04-20")


def check(**changes: Any) -> Reconciliation:
    return reconcile(**{"trigger": "command", "now": NOW, **changes})


def run_sql(sql: str, *params: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        assert cursor.rowcount >= 1


def story() -> Customer:
    customer = acme()
    store(
        customer,
        [
            (DAY, {"v": 3, "tier": "gold"}),
            (DAY + timedelta(minutes=30), {"v": 5, "tier": "free"}),
            (DAY + timedelta(hours=5), {"v": "2.5"}),
            (DAY + timedelta(days=35), {"v": 9, "tier": "gold"}),
        ],
    )
    return customer


@pytest.mark.parametrize("sample", [None, 10])
def test_what_was_rolled_up_is_what_the_log_says_for_every_kind_of_meter(sample: int | None) -> None:
    customer = story()
    made = meters()
    roll_up()
    store(customer, [(DAY + timedelta(hours=5, minutes=1), {"v": 1})])
    roll_up()
    store(globex(), [(DAY, {"v": 1})])  # behind the watermark
    before = [dump(meter) for meter in made]
    found = check(sample=sample)
    assert (found.differing, found.findings, found.fixed, found.meters) == (0, [], False, len(made))
    assert found.buckets == sum(buckets(meter) for meter in made)
    assert found.buckets > 3 * len(made)
    assert found.finished_at is not None
    assert [dump(meter) for meter in made] == before
    assert last_reconciliation() == found


def buckets(meter: Meter) -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM meters_bucket WHERE meter_id = %s", [meter.pk])
        return int(cursor.fetchone()[0])


@pytest.mark.parametrize("sample", [None, 10])
@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (
            "UPDATE meters_bucket SET events = 7, total = 8.5 WHERE meter_id = %s AND hour = %s",
            "events 7 in the buckets and 2 in the log, total 8.5 in the buckets and 8 in the log",
        ),
        (
            "DELETE FROM meters_bucket WHERE meter_id = %s AND hour = %s",
            "the buckets have nothing, the log has 2 events",
        ),
        (
            "UPDATE meters_bucket SET last_at = last_at + interval '1 second' WHERE meter_id = %s AND hour = %s",
            "last event 2026-03-10 00:30:01.000000 in the buckets and 2026-03-10 00:30:00.000000 in the log",
        ),
    ],
)
def test_a_difference_is_told_in_words_and_mended_on_request(harm: str, words: str, sample: int | None) -> None:
    customer = story()
    meter, other = a_meter("sum"), a_meter("sum")
    roll_up()
    right = dump(meter)
    run_sql(harm, meter.pk, DAY)
    wrong = dump(meter)
    assert wrong != right
    found = check(sample=sample)
    assert (found.differing, found.fixed) == (1, False)
    assert found.findings == [f"sum, Acme, 2026-03-10 00:00 UTC: {words}."]
    assert dump(meter) == wrong
    assert check(sample=sample, meter=other).differing == 0
    mended = check(sample=sample, fix=True)
    assert (mended.differing, mended.fixed) == (1, True)
    assert dump(meter) == right
    assert check(sample=sample, fix=True).fixed is False
    assert quantity(meter=meter, customer=customer, start=DAY, end=DAY + timedelta(days=1)) == Decimal("10.5")


def test_a_bucket_of_nothing_is_found() -> None:
    story()
    meter = a_meter("count", group_by=["tier"])
    roll_up()
    run_sql("UPDATE meters_bucket SET hour = %s WHERE meter_id = %s AND groups = '{free}'", at("2019-01-01"), meter.pk)
    found = check(fix=True)
    assert found.findings == [
        "count, Acme, 2019-01-01 00:00 UTC, tier “free”: the buckets have 1 event, the log has nothing that counts.",
        "count, Acme, 2026-03-10 00:00 UTC, tier “free”: the buckets have nothing, the log has 1 event.",
    ]
    assert check().differing == 0


def test_a_distinct_value_too_many_or_too_few_is_found() -> None:
    story()
    meter = a_meter("unique")
    roll_up()
    right = dump(meter)
    run_sql(
        "UPDATE meters_bucketvalue SET value = 'x' WHERE meter_id = %s AND hour = %s AND value = '3'", meter.pk, DAY
    )
    found = check()
    assert found.differing == 1
    assert found.findings[0].endswith("the buckets have 1 values that the log has not, and lack 1.")
    check(fix=True)
    assert dump(meter) == right


def test_a_void_event_is_no_difference() -> None:
    story()
    made = meters()
    roll_up()
    void_event(event_id=Event.objects.earliest("timestamp").event_id, reason="r", author="a", now=NOW)
    assert (check().differing, check(sample=5).differing, len(made)) == (0, 0, len(made))


def test_buckets_of_a_month_that_left_the_log_are_believed() -> None:
    story()
    meter = a_meter("sum")
    roll_up()
    right = dump(meter)
    march = DAY.date().replace(day=1)
    run_sql("UPDATE meters_event SET voided_at = NULL WHERE timestamp >= %s", march)
    with connection.cursor() as cursor:
        cursor.execute(f"DROP TABLE {partition_name(march)}")
    ArchivedMonth.objects.create(month=march, path="x", events=3, checksum="0" * 64, archived_at=NOW, dropped_at=NOW)
    for sample in (None, 5):
        found = check(sample=sample, fix=True)
        assert (found.differing, found.buckets) == (0, 1)
    assert dump(meter) == right


def test_findings_are_bounded_and_all_are_counted() -> None:
    customer = acme()
    store(customer, [(DAY + timedelta(hours=n), {"v": 1}) for n in range(MOST_FINDINGS + 3)])
    meter = a_meter("sum")
    roll_up()
    run_sql("UPDATE meters_bucket SET total = total + 1 WHERE meter_id = %s", meter.pk)
    found = check()
    assert (found.differing, len(found.findings)) == (MOST_FINDINGS + 3, MOST_FINDINGS)


def test_the_nightly_task_writes_a_row_and_mends_nothing() -> None:
    now = database_now()
    # On every day, so that a random week has seven; in the middle of an hour, away from its ends.
    middle = now.replace(minute=30, second=0, microsecond=0)
    name = acme().public_id
    events = [EventInput(f"e{n}", name, "e", middle - timedelta(days=n, hours=1), {"v": 1}) for n in range(62)]
    assert store_events(events=events, now=now, backfill=True) == 62
    meter = a_meter("sum")
    roll_up()
    run_sql("UPDATE meters_bucket SET total = total + 1 WHERE meter_id = %s", meter.pk)
    nightly()
    found = Reconciliation.objects.get()
    assert (found.trigger, found.differing, found.fixed) == ("schedule", 7, False)


@pytest.mark.parametrize("sample", [None, 5])
def test_a_month_that_leaves_the_log_while_its_meter_is_awaited_is_left_alone(
    sample: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    story()
    meter = a_meter("sum")
    roll_up()
    right = dump(meter)
    march = DAY.date().replace(day=1)
    lock = reconciliation._lock

    def after_the_drop(one: Meter) -> Meter:
        if not ArchivedMonth.objects.exists():
            with connection.cursor() as cursor:
                cursor.execute(f"DROP TABLE {partition_name(march)}")
            ArchivedMonth.objects.create(
                month=march, path="x", events=3, checksum="0" * 64, archived_at=NOW, dropped_at=NOW
            )
        return lock(one)

    monkeypatch.setattr(reconciliation, "_lock", after_the_drop)
    found = check(sample=sample, fix=True)
    assert (found.differing, found.buckets, found.finished_at is None) == (0, 1, False)
    assert dump(meter) == right
    with pytest.raises(MonthArchived, match="March 2026"):
        recount_span(meter=meter, start=at("2026-02-01"), end=at("2026-03-01T01:00"))
    recount_span(meter=meter, start=at("2026-02-01"), end=at("2026-03-01"))
    assert dump(meter) == right


def test_a_sample_of_days_lies_anywhere_in_the_last_sixty_and_looks_at_nothing_else() -> None:
    now = at("2026-04-18")
    customer = acme()
    store(customer, [(now - timedelta(days=n, hours=1), {"v": 1}) for n in range(70)])
    a_meter("sum")
    roll_up()
    assert {check(sample=5, days=7, now=now).buckets for _ in range(20)} == {7}
    assert (check(sample=5, days=60, now=now).buckets, check(sample=5, now=now).buckets) == (60, 70)
    spans = {reconciliation._some_days(7, now) for _ in range(200)}
    assert len(spans) > 20
    assert min(start for start, _ in spans) >= now - timedelta(days=60)
    assert max(end for _, end in spans) <= now + timedelta(hours=1)


# -- the command -----------------------------------------------------------------------------------------------


def command(*args: str) -> str:
    said = StringIO()
    call_command("reconcile", *args, stdout=said)
    return said.getvalue()


def test_the_command_reports_fails_and_mends() -> None:
    story()
    meter = a_meter("sum")
    other = create_meter(name="Other", event_name="x", aggregation="count", measurement_unit="u")
    roll_up()
    assert command() == "3 buckets of 2 meters compared: all as the log says.\n"
    run_sql("DELETE FROM meters_bucket WHERE meter_id = %s AND hour = %s", meter.pk, DAY)
    with pytest.raises(CommandError, match="3 buckets of 2 meters compared: 1 differ; --fix"):
        command()
    assert command("--meter", other.public_id) == "0 buckets of 1 meter compared: all as the log says.\n"
    assert command("--fix", "--meter", meter.public_id, "--sample", "3").splitlines() == [
        "sum, Acme, 2026-03-10 00:00 UTC: the buckets have nothing, the log has 2 events.",
        "3 buckets of 1 meter compared: 1 differed and were counted again.",
    ]
    assert "all as the log says" in command("--sample", "3")


@pytest.mark.parametrize(("args", "said"), [(["--meter", "mtr_nobody"], "no meter"), (["--sample", "0"], "from 1 on")])
def test_the_command_refuses_what_is_not_there(args: list[str], said: str) -> None:
    with pytest.raises(CommandError, match=said):
        command(*args)
    assert not Reconciliation.objects.exists()
