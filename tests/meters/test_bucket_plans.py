"""Which index the buckets are read by: of one customer the primary key, however odd the statistics."""

from datetime import timedelta

import pytest
from django.db import connection

from meters.models import Meter
from meters.sql import Sql
from meters.usage import _measured, _weighed
from tests.base import acme, at
from tests.meters.test_rollups import a_meter

pytestmark = pytest.mark.django_db
BEGIN = at("2026-01-01")


def test_one_customer_is_found_by_the_key_and_all_of_them_by_the_hour() -> None:
    customer = acme()
    known, new = a_meter("sum"), a_meter("weighted_sum")
    fill(known, hours=1000)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE meters_bucket")
    # What came after the statistics: a meter that they do not know, and hours past all they have seen.
    fill(new, hours=2000)
    for days in (10, 60):
        start = BEGIN + timedelta(days=days, minutes=15)
        end = start + timedelta(days=7)
        assert plan(_measured(known, customer, [start, end], grouped=False, hint=0)) == {"meters_bucket_pkey"}
        assert plan(_weighed(new, customer, start, end, grouped=False, hint=0)) == {"meters_bucket_pkey"}
        assert "meters_bucket_hours" in plan(_measured(known, None, [start, end], grouped=False, hint=0))
        assert "meters_bucket_hours" in plan(_weighed(new, None, start, end, grouped=False, hint=0))


def fill(meter: Meter, *, hours: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO meters_bucket (meter_id, customer_id, hour, events, total)"
            " SELECT %s, customer, %s + hour * interval '1 hour', 1, 1"
            " FROM generate_series(1, %s) AS hour, generate_series(1, 50) AS customer",
            [meter.pk, BEGIN, hours],
        )


def plan(sql: Sql) -> set[str]:
    """The indexes of the buckets that the statement is planned with."""
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN {sql.text}", sql.params)
        lines = [line for (line,) in cursor.fetchall()]
    return {word for line in lines for word in line.split() if word.startswith("meters_bucket_") and word[-1].isalpha()}
