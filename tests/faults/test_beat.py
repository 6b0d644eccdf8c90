"""Two beats do no harm: one speaks, the other stands by and takes over when the first is killed."""

import signal
import time
from collections.abc import Iterator

import pytest
from django.conf import settings
from django.db import connection
from django_celery_beat.models import IntervalSchedule, PeriodicTask, PeriodicTasks

from config.beat import LOCK_KEY
from config.up.processes import Child
from tests.faults.probe import connect, leave_mark
from tests.faults.test_broker import celery, processes, until

__all__ = ["processes"]  # the fixture
pytestmark = [pytest.mark.faults, pytest.mark.django_db(transaction=True)]
QUEUE = "probe_beat"


@pytest.fixture(autouse=True)
def every_second() -> Iterator[PeriodicTask]:
    """A task due each second, into a queue that nobody empties."""
    schedule, _ = IntervalSchedule.objects.get_or_create(every=1, period=IntervalSchedule.SECONDS)
    PeriodicTask.objects.all().delete()
    task = PeriodicTask.objects.create(
        name="mark", task=leave_mark.name, interval=schedule, queue=QUEUE, args='["beat"]'
    )
    PeriodicTasks.update_changed()
    with leave_mark.app.connection_for_write() as broker:
        broker.default_channel.queue_declare(QUEUE, durable=True, auto_delete=False)
        broker.default_channel.queue_purge(QUEUE)
    yield task
    PeriodicTask.objects.all().delete()


def sent() -> int:
    """Tasks put into the queue so far."""
    with leave_mark.app.connection_for_read() as broker:
        return int(broker.default_channel.queue_declare(QUEUE, durable=True, auto_delete=False).message_count)


def lock_holders() -> set[int]:
    """The process id, at the server, of each connection that holds beat's lock."""
    with connect() as own:
        rows = own.execute(
            "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = %s AND granted"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
            [LOCK_KEY],
        ).fetchall()
    return {int(str(row[0])) for row in rows}


def standing_by(beat: Child) -> bool:
    return any("stands by" in line for line in beat.tail)


def test_two_beats_send_each_task_once_and_the_second_takes_over(processes: list[Child]) -> None:
    options = ["--max-interval=1"]
    first = celery(processes, "beat", *options)
    until(lambda: sent() >= 1, "the first beat sent a task")
    second = celery(processes, "beat", *options)
    until(lambda: standing_by(second), "the second beat stands by")
    assert not standing_by(first)
    holder = lock_holders()
    assert len(holder) == 1

    before, began = sent(), time.monotonic()
    time.sleep(5)  # the only way to see that nothing more happens
    grown, passed = sent() - before, time.monotonic() - began
    # One each second; two beats would have sent twice as many.
    assert passed / 2 <= grown <= passed + 1

    first.signal(signal.SIGKILL)
    first.wait(10)
    after = sent()
    until(lambda: sent() >= after + 2, "the second beat goes on")
    now = lock_holders()
    assert len(now) == 1
    assert now != holder


def test_beat_survives_the_loss_of_its_lock(processes: list[Child]) -> None:
    """An operator may end its connection, or the database restarts: it takes the lock anew and goes on."""
    celery(processes, "beat", "--max-interval=1")
    [holder] = until(lock_holders, "beat holds the lock")
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s)", [holder])
    until(lambda: lock_holders() - {holder}, "beat holds the lock again")
    seen = sent()
    until(lambda: sent() > seen, "beat sends tasks again")


def test_the_schedule_lives_in_the_database_where_operators_edit_it() -> None:
    assert settings.CELERY_BEAT_SCHEDULER == "config.beat:SingleScheduler"
