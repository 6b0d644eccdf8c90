"""The suite's own ground: a real PostgreSQL with the message queue's schema in it."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from django.db import OperationalError, connection, connections

pytestmark = pytest.mark.django_db
# Its type names only what all databases of Django have.
django_connection: Any = connection


def test_it_runs_on_a_postgresql_new_enough() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SHOW server_version_num")
        assert int(cursor.fetchone()[0]) >= 150000


def test_its_migrations_bring_the_message_queue() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pgmq.create('a_queue')")
        cursor.execute("""SELECT pgmq.send('a_queue', '{"a": 1}')""")
        cursor.execute("SELECT message FROM pgmq.read('a_queue', 30, 10)")
        assert len(cursor.fetchall()) == 1


@pytest.fixture
def another() -> Iterator[psycopg.Connection]:
    """A connection of its own to the same database, as one that watches it."""
    parameters = {
        name: part
        for name, part in connection.get_connection_params().items()
        if name in ("host", "port", "user", "password", "dbname")
    }
    with psycopg.connect(**parameters, autocommit=True) as watching:
        yield watching


@pytest.mark.django_db(transaction=True)
def test_a_kept_connection_is_not_asked_how_it_is_while_it_is_silent(another: psycopg.Connection) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 'the last word'")
    django_connection.health_check_enabled = True
    django_connection.health_check_done = False
    assert connection.is_usable()
    last = another.execute(
        "SELECT query FROM pg_stat_activity WHERE pid = %s", [connection.connection.info.backend_pid]
    ).fetchone()
    assert last == ("SELECT 'the last word'",)


@pytest.mark.django_db(transaction=True)
def test_a_connection_that_the_server_has_ended_is_replaced_before_the_next_query(
    another: psycopg.Connection,
) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (first,) = cursor.fetchone()
    assert another.execute("SELECT pg_terminate_backend(%s, 10000)", [first]).fetchone() == (True,)
    # What Django does at the beginning of a request.
    connection.settings_dict["CONN_HEALTH_CHECKS"], before = True, connection.settings_dict["CONN_HEALTH_CHECKS"]
    try:
        django_connection.health_check_enabled = True
        connection.close_if_unusable_or_obsolete()
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            assert cursor.fetchone() != (first,)
    finally:
        connection.settings_dict["CONN_HEALTH_CHECKS"] = before


@pytest.mark.django_db(transaction=True)
def test_a_connection_that_failed_is_asked(another: psycopg.Connection) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (first,) = cursor.fetchone()
    assert another.execute("SELECT pg_terminate_backend(%s, 10000)", [first]).fetchone() == (True,)
    with pytest.raises(OperationalError), connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    assert connection.errors_occurred
    assert not connection.is_usable()
    connections["default"].close()
