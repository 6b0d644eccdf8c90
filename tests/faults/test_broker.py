"""Tasks through whichever broker CELERY_BROKER_URL names (the database itself when it names none)."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest
from django.conf import settings
from django.db import connection

from config.up.processes import Child
from tests.faults.probe import QUEUE, connect, leave_mark
from tests.stack import ROOT

pytestmark = [pytest.mark.faults, pytest.mark.django_db(transaction=True)]
# How long a loaded machine may take; kombu looks for what a killed worker held in Redis every 100 s only.
SECONDS = 240.0 if settings.CELERY_BROKER_URL.startswith("redis") else 60.0


def database_url() -> str:
    """The test's database, for a process of its own."""
    facts = connection.settings_dict
    login = quote(facts["USER"], safe="") + (f":{quote(facts['PASSWORD'], safe='')}" if facts["PASSWORD"] else "")
    port = f":{facts['PORT']}" if facts["PORT"] else ""
    return f"postgres://{login}@{quote(facts['HOST'], safe='')}{port}/{facts['NAME']}"


def until(true: Callable[[], Any], what: str) -> Any:
    """Ask until it is so."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        if found := true():
            return found
        time.sleep(0.05)
    raise AssertionError(f"never: {what}")


def marks(what: str) -> list[tuple[str, int]]:
    with connect() as own:
        rows = own.execute("SELECT name, pid FROM probe_marks WHERE what = %s ORDER BY name, pid", [what]).fetchall()
    return [(str(name), int(str(pid))) for name, pid in rows]


@pytest.fixture(autouse=True)
def _table() -> Iterator[None]:
    with connect() as own:
        own.execute("DROP TABLE IF EXISTS probe_marks")
        own.execute("CREATE TABLE probe_marks (name text, what text, pid int)")
    with leave_mark.app.connection_for_write() as broker:
        broker.default_channel.queue_declare(QUEUE, durable=True, auto_delete=False)
        broker.default_channel.queue_purge(QUEUE)
    yield
    with connect() as own:
        own.execute("DROP TABLE probe_marks")


@pytest.fixture
def processes() -> Iterator[list[Child]]:
    started: list[Child] = []
    yield started
    for child in started:
        child.kill_group()
        child.wait(10)


def celery(processes: list[Child], *arguments: str, **environment: str) -> Child:
    child = Child(
        [sys.executable, "-m", "celery", "-A", "tests.faults.probe", "--quiet", *arguments, "--loglevel=WARNING"],
        name=arguments[0],
        at_parents_death=signal.SIGKILL,
        environment={
            **os.environ,
            "DATABASE_URL": database_url(),
            "CELERY_BROKER_URL": os.environ.get("CELERY_BROKER_URL", ""),
            "SECRET_KEY": "only-for-the-test-suite",
            "PYTHONWARNINGS": "ignore",
            **environment,
        },
        directory=ROOT,
    )
    processes.append(child)
    return child


def worker(processes: list[Child], **environment: str) -> Child:
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    return celery(processes, "worker", f"--queues={QUEUE}", "--concurrency=2", *quiet, **environment)


def test_a_task_sent_from_here_runs_in_a_worker_there(processes: list[Child]) -> None:
    leave_mark.apply_async(["before the worker"], queue=QUEUE)
    child = worker(processes)
    until(lambda: len(marks("ended")) == 1, f"the first task ran: {child.last_words()}")
    leave_mark.apply_async(["while it waits"], queue=QUEUE)
    until(lambda: len(marks("ended")) == 2, f"the second task ran: {child.last_words()}")
    assert [name for name, _ in marks("ended")] == ["before the worker", "while it waits"]
    assert {pid for _, pid in marks("ended")}.isdisjoint({os.getpid(), child.pid})


def test_a_task_whose_process_is_killed_runs_again(processes: list[Child]) -> None:
    """The pool's process dies; the worker sees it and gives the task back."""
    worker(processes)
    leave_mark.apply_async(["unlucky", 3], queue=QUEUE)
    [(_, victim)] = until(lambda: marks("began"), "the task began")
    os.kill(victim, signal.SIGKILL)
    [(_, other)] = until(lambda: marks("ended"), "the task ended in another process")
    assert other != victim
    assert marks("began") == sorted([("unlucky", victim), ("unlucky", other)])


def test_no_task_is_lost_with_the_whole_worker(processes: list[Child]) -> None:
    """kill -9 of the worker and its pool, with tasks begun and tasks waiting."""
    # What a killed worker held is delivered again after the visibility timeout, an hour by default; RabbitMQ sees
    # the connection close and needs none.
    short = {"CELERY_VISIBILITY_TIMEOUT": "4"}
    names = [f"task {number}" for number in range(8)]
    for name in names:
        leave_mark.apply_async([name, 0.5], queue=QUEUE)
    first = worker(processes, **short)
    until(lambda: len(marks("began")) >= 2, "two tasks began")
    first.kill_group()
    first.wait(10)
    worker(processes, **short)
    until(lambda: {name for name, _ in marks("ended")} == set(names), "every task ended")
    assert {name for name, _ in marks("began")} == set(names)
