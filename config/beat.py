"""Celery beat that may be started twice.

Two beats would send every task twice (measured: 27 instead of 14 in 14 seconds). Tasks may run twice, so it
would do no wrong, but it would do everything double. Here the one that holds an advisory lock in the database
speaks, and any other stands by; the lock goes with its holder's connection, so a standby takes over when the
holder dies.
"""

from typing import Any

import psycopg
from celery.utils.log import get_logger
from django.db import connections
from django_celery_beat.schedulers import DatabaseScheduler

from config import embedded

logger = get_logger(__name__)

# A number of ours among the database's advisory locks; `select * from pg_locks where locktype = 'advisory'`
# shows it.
LOCK_KEY = 0x4D42_BEA7
STANDBY_SECONDS = 1.0


class SingleScheduler(DatabaseScheduler):
    """django-celery-beat's scheduler, silent while another one holds the lock."""

    # Write down each run at once: a standby that takes over must not repeat the last three minutes.
    sync_every = 0

    _lock: "psycopg.Connection[Any] | None" = None
    _told_standby = False

    def tick(self, *args: Any, **kwargs: Any) -> float:
        if not self._hold_lock():
            if not self._told_standby:
                logger.warning("Another beat is at work; this one stands by.")
                self._told_standby = True
            return STANDBY_SECONDS
        return float(super().tick(*args, **kwargs))

    def _hold_lock(self) -> bool:
        """Whether the lock is ours now; looked at on each tick, because a lost connection loses it
        silently."""
        try:
            if self._lock is not None:
                self._lock.execute("SELECT 1")
                return True
            # A connection of our own: Django closes and reopens its own as it sees fit.
            database = connections["default"].settings_dict
            connection = psycopg.connect(
                embedded.conninfo(database), autocommit=True, application_name="meterbook-beat"
            )
            row = connection.execute("SELECT pg_try_advisory_lock(%s)", [LOCK_KEY]).fetchone()
            if row is None or not row[0]:
                connection.close()
                return False
        except psycopg.OperationalError as error:
            logger.warning("The database does not answer beat: %s", str(error).splitlines()[0])
            self._release()
            return False
        self._lock = connection
        self._told_standby = False
        self._read_schedule_afresh()
        return True

    def _read_schedule_afresh(self) -> None:
        """Forget what was read before standing by: the other beat has run tasks since."""
        self._dirty.clear()
        self._initial_read = True
        self._heap = None

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.close()
        self._lock = None

    def close(self) -> None:
        super().close()
        self._release()
