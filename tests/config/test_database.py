"""The suite's own ground: a real PostgreSQL with the message queue's schema in it."""

import pytest
from django.db import connection

pytestmark = pytest.mark.django_db


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
