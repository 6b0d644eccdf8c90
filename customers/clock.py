"""The database's clock: one clock for every process that decides whether an event or a period is late."""

from datetime import datetime

from django.db import connection


def database_now() -> datetime:
    """The instant of this very statement, not of the transaction's start."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        (now,) = cursor.fetchone()
    return now
