"""How fast events are stored, beside the limit of the same PostgreSQL in the same run: a bare COPY.

    python -m benchmarks.ingest [--batches 40] [--size 1000]

Both store the same events, a batch at a time, each batch committed and durable (fsync on). The limit writes them by
COPY into a plain table with one unique text index: nothing is decoded, checked or de-duplicated. Ours is what the
API does between reading the body and answering. The two take turns, so that a busy machine slows both.
"""

import argparse
import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import msgspec

from config.up.places import Places, account_to_run_as, make_private, readable_binaries
from config.up.postgres import ROLE, Cluster
from tests.stack import roomy_folder


@contextmanager
def own_server() -> Iterator[str]:
    """An embedded server of this run's own, as durable as `make run` has it; yields its DATABASE_URL."""
    account = account_to_run_as()
    folder = roomy_folder("meterbook-bench-")
    make_private(folder / "s", account)
    cluster = Cluster(Places(folder / "data", folder / "s", readable_binaries(account, folder), account, note=""))
    try:
        cluster.create()
        cluster.start()
        cluster.ensure_database("meterbook")
        yield f"postgres://{ROLE}@{quote(str(folder / 's'), safe='')}/meterbook"
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


def bodies(count: int, size: int, begin: datetime, customer: str) -> list[bytes]:
    """Request bodies as an application sends them: ids of 24 characters, three properties."""
    return [
        msgspec.json.encode(
            {
                "events": [
                    {
                        "event_id": f"evt_{batch:08d}_{number:011d}",
                        "customer_id": customer,
                        "event_name": "api.call",
                        "timestamp": (begin + timedelta(milliseconds=number)).isoformat(),
                        "metadata": {"endpoint": "/v1/orders", "method": "GET", "tokens": number},
                    }
                    for number in range(size)
                ]
            }
        )
        for batch in range(count)
    ]


def measure(batches: int, size: int) -> None:
    import django

    django.setup()
    from django.core.management import call_command
    from django.db import connection, transaction

    from customers.customers import create_customer
    from meters.ingestion import decode_batch, enter_ingestion, store_events

    call_command("migrate", verbosity=0)
    customer = create_customer(name="Bench", email="bench@example.com")
    sent = bodies(batches, size, datetime.now(UTC) - timedelta(minutes=5), customer.public_id)
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE bench_limit (id bigserial, event_id text UNIQUE, customer_id bigint, event_name text,"
            " timestamp timestamptz, metadata jsonb, received_at timestamptz DEFAULT clock_timestamp())"
        )

    def ours(body: bytes) -> None:
        with transaction.atomic():
            now = enter_ingestion()
            assert store_events(events=decode_batch(body), now=now) == size

    def repeated(body: bytes) -> None:
        with transaction.atomic():
            now = enter_ingestion()
            assert store_events(events=decode_batch(body), now=now) == 0

    def limit(rows: list[tuple[object, ...]]) -> None:
        columns = "event_id, customer_id, event_name, timestamp, metadata"
        copy_in = f"COPY bench_limit ({columns}) FROM STDIN"
        with transaction.atomic(), connection.cursor() as cursor, cursor.copy(copy_in) as copy:
            for row in rows:
                copy.write_row(row)

    def rows_of(body: bytes) -> list[tuple[object, ...]]:
        return [
            (e["event_id"], customer.pk, e["event_name"], e["timestamp"], msgspec.json.encode(e["metadata"]).decode())
            for e in msgspec.json.decode(body)["events"]
        ]

    def seconds(work: Callable[[], None]) -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    times: dict[str, list[float]] = {"bare COPY, the limit": [], "ingest": [], "ingest, all repeats": []}
    for body in sent:
        rows = rows_of(body)
        times["bare COPY, the limit"].append(seconds(lambda rows=rows: limit(rows)))  # type: ignore[misc]
        times["ingest"].append(seconds(lambda body=body: ours(body)))  # type: ignore[misc]
        times["ingest, all repeats"].append(seconds(lambda body=body: repeated(body)))  # type: ignore[misc]
    best = size / statistics.median(times["bare COPY, the limit"])
    print(f"{batches} batches of {size} events, one connection, each batch durable; median of the batches")
    for name, each in times.items():
        rate = size / statistics.median(each)
        worst = max(each) * 1000
        print(f"{name:22} {rate:>9,.0f} events/s  {rate / best:>5.0%} of the limit  slowest batch {worst:6.1f} ms")
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM meters_event")
        assert cursor.fetchone() == (batches * size,)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=40)
    parser.add_argument("--size", type=int, default=1000)
    options = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    os.environ.setdefault("SECRET_KEY", "only-for-the-benchmark")
    with own_server() as url:
        os.environ["DATABASE_URL"] = url
        measure(options.batches, options.size)


if __name__ == "__main__":
    main()
