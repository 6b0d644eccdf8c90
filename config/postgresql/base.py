"""Django's PostgreSQL backend, which asks a kept connection how it is only where there is reason to doubt.

Django would send `SELECT 1` ahead of every request's first query. A server that went away has closed its end of the
connection, which the operating system knows already; so a connection that is open and silent is taken as it is.
"""

import select

from django.db.backends.postgresql import base


class DatabaseWrapper(base.DatabaseWrapper):
    def is_usable(self) -> bool:
        if not self.errors_occurred and self._is_silent():
            return True
        return bool(super().is_usable())

    def _is_silent(self) -> bool:
        """Whether the connection is open and the server has said nothing unasked (such as goodbye)."""
        connection = self.connection
        if connection is None or connection.closed:
            return False
        poll = select.poll()
        poll.register(connection.fileno(), select.POLLIN)
        return not poll.poll(0)
