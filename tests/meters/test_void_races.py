"""Voids beside the roller, beside one another and beside a meter that is just being made: real connections."""

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction

from customers.models import Customer
from meters.ingestion import EventInput, store_events
from meters.meters import create_meter
from meters.models import Event, EventVoid, Meter
from meters.reconciliation import reconcile
from meters.rollups import newest_event_id, roll_meter, roll_up
from meters.usage import quantity
from meters.voids import EventAlreadyVoided, Selection, void_event, void_events
from tests.base import acme
from tests.meters.test_rollups import DAY, a_meter

pytestmark = pytest.mark.django_db(transaction=True)


def store(customer: Customer, count: int) -> None:
    batch = [
        EventInput(f"evt_{n}", customer.public_id, "e", DAY + timedelta(minutes=n % 300), {"v": n})
        for n in range(count)
    ]
    with transaction.atomic():
        store_events(events=batch, now=DAY + timedelta(days=40), backfill=True)


class Rival(threading.Thread):
    """Runs something on a connection of its own, and keeps what came of it."""

    def __init__(self, work: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self.work = work
        self.result: Any = None
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.result = self.work()
        except BaseException as error:
            self.error = error
        finally:
            connection.close()

    def end(self) -> Any:
        self.join(timeout=60)
        assert not self.is_alive()
        if self.error is not None:
            raise self.error
        return self.result


def waiting() -> int:
    """How many locks of this database are waited for (pg_stat_activity stands still within a transaction)."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND pid IN (SELECT pid FROM pg_locks AS held"
            " WHERE held.database = (SELECT oid FROM pg_database WHERE datname = current_database()))"
        )
        return int(cursor.fetchone()[0])


def until(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        threading.Event().wait(0.005)
    raise AssertionError("it never came to that")


def used(meter: Meter, customer: Customer) -> int:
    return int(quantity(meter=meter, customer=customer, start=DAY, end=DAY + timedelta(days=1)))


def test_a_void_waits_for_the_roller_and_its_buckets_follow() -> None:
    customer, meter = acme(), a_meter("count")
    store(customer, 3)
    with transaction.atomic():
        assert roll_meter(meter_id=meter.pk, settled=newest_event_id()) > 0
        rival = Rival(lambda: void_event(event_id="evt_1", reason="r", author="a", now=DAY))
        until(lambda: waiting() == 1)
    rival.end()
    assert used(meter, customer) == 2
    assert reconcile(trigger="command", now=DAY).differing == 0


def test_a_meter_made_and_rolled_during_a_void_never_keeps_the_event() -> None:
    customer = acme()
    store(customer, 3)

    def make_and_roll() -> Meter:
        meter = create_meter(name="M", event_name="e", aggregation="count", measurement_unit="u")
        roll_up(patience=None)
        return meter

    with transaction.atomic():
        void_event(event_id="evt_1", reason="r", author="a", now=DAY)
        rival = Rival(make_and_roll)
        # It waits for the void: were it rolled now, it would count what is not yet seen to be void.
        until(lambda: waiting() == 1)
    meter = rival.end()
    assert used(meter, customer) == 2
    assert reconcile(trigger="command", now=DAY).differing == 0


def test_of_two_who_void_one_event_the_second_is_told() -> None:
    customer, meter = acme(), a_meter("sum")
    store(customer, 3)
    roll_up()
    with transaction.atomic():
        void_event(event_id="evt_2", reason="first", author="a", now=DAY)
        rival = Rival(lambda: void_event(event_id="evt_2", reason="second", author="b", now=DAY))
        until(lambda: waiting() == 1)
    with pytest.raises(EventAlreadyVoided, match="first"):
        rival.end()
    assert [void.reason for void in EventVoid.objects.all()] == ["first"]
    assert used(meter, customer) == 1


@pytest.mark.parametrize("seed", range(3))
def test_voids_rolls_and_events_at_once_leave_usage_as_the_log_says(seed: int) -> None:
    customer = acme()
    kinds = ("count", "sum", "max", "unique", "weighted_sum", "last")
    made = [a_meter(kind) for kind in kinds]
    store(customer, 200)

    def void_some() -> int:
        done = 0
        for n in range(seed, 200, 7):
            try:
                void_event(event_id=f"evt_{n}", reason="r", author="a", now=DAY)
                done += 1
            except EventAlreadyVoided:
                pass
        return done

    def void_a_span() -> int:
        where = Selection(DAY + timedelta(hours=2), DAY + timedelta(hours=3), customer=customer)
        return void_events(where=where, reason="r", author="b", now=DAY).events

    def roll() -> None:
        for _ in range(20):
            for meter in made:
                roll_meter(meter_id=meter.pk, settled=newest_event_id(), chunk=17)

    def send() -> None:
        for n in range(20):
            with transaction.atomic():
                event = EventInput(f"more_{n}", customer.public_id, "e", DAY + timedelta(minutes=n * 13), {"v": 1})
                store_events(events=[event], now=DAY + timedelta(days=40), backfill=True)

    rivals = [Rival(work) for work in (void_some, roll, void_a_span, send)]
    voided = [rival.end() for rival in rivals]
    assert voided[0] + voided[2] == Event.objects.filter(voided_at__isnull=False).count() == EventVoid.objects.count()
    roll_up(patience=None)
    assert (
        used(made[0], customer) == Event.objects.filter(voided_at__isnull=True).count() == 220 - voided[0] - voided[2]
    )
    found = reconcile(trigger="command", now=DAY)
    assert (found.differing, found.findings) == (0, [])
    assert found.buckets > len(made)
