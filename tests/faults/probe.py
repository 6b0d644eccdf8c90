"""A task that leaves a mark in the database, for tests of the broker and of beat.

Run by real workers: `celery -A tests.faults.probe worker` is the application's own Celery with this one task more.
"""

import os
import time

import psycopg
from django.db import connections

from config import embedded
from config.celery import app

QUEUE = "probe"


def connect() -> "psycopg.Connection[tuple[object, ...]]":
    """A connection of the test's own to the database that Django is using."""
    return psycopg.connect(embedded.conninfo(connections["default"].settings_dict), autocommit=True)


@app.task(name="tests.leave_mark")
def leave_mark(name: str, seconds: float = 0.0) -> None:
    """Say that we began, work for a while, say that we ended."""
    with connect() as connection:
        connection.execute("INSERT INTO probe_marks VALUES (%s, 'began', %s)", [name, os.getpid()])
        time.sleep(seconds)
        connection.execute("INSERT INTO probe_marks VALUES (%s, 'ended', %s)", [name, os.getpid()])
