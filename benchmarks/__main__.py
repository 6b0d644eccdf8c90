"""Metering beside its limits. Each figure is a ratio to something measured in the same run, on the same server.

    python -m benchmarks [batches] [singles] [rolling] [usage] [footprint] [evidence] [closing] [--large] [--seconds 6]

An embedded PostgreSQL of its own, as durable as `make run` has it; the real gunicorn on loopback; clients, web server
and database share this machine's cores. `--large` adds the customer of ten million events to `usage` (minutes).
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, LiteralString

from benchmarks.ingest import own_server
from benchmarks.lab import (
    ROOT,
    Web,
    percentiles,
    rate,
    record,
    resident,
    say,
    send,
    sending,
    template,
    web_server,
)

if TYPE_CHECKING:
    from psycopg import Connection

    from customers.models import Customer
    from meters.models import Meter

BATCH = 1000


def sql(statement: LiteralString, given: list[Any] | None = None) -> list[tuple[Any, ...]]:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(statement, given)
        return list(cursor.fetchall()) if cursor.description else []


def make_key() -> str:
    from customers.keys import create_api_key

    return create_api_key(name="bench")[1]


def make_customer() -> "Customer":
    from customers.customers import create_customer

    return create_customer(name="Bench", email="bench@example.com")


def own_connection() -> "Connection[tuple[Any, ...]]":
    import psycopg

    from config import embedded
    from config.settings import DATABASES

    return psycopg.connect(embedded.conninfo(DATABASES["default"]), autocommit=True)


@contextmanager
def roller() -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.rolling"], cwd=ROOT)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def newest_and_rolled() -> tuple[int, int]:
    """The last id given out, and where the meter stands that is furthest behind."""
    (row,) = sql(
        "SELECT coalesce(pg_sequence_last_value(pg_get_serial_sequence('meters_event', 'id')::regclass), 0),"
        " (SELECT min(rolled_up_to) FROM meters_meter)"
    )
    return int(row[0]), int(row[1])


def wait_until_rolled() -> float:
    begun = time.perf_counter()
    while (places := newest_and_rolled())[0] > places[1]:
        assert time.perf_counter() - begun < 300, places
        time.sleep(0.05)
    return time.perf_counter() - begun


def make_meters(count: int, event_name: str) -> list["Meter"]:
    """Meters as they are: counts, sums and highest values, half of them with a filter."""
    from meters.meters import create_meter

    method = {"conjunction": "and", "clauses": [{"key": "method", "operator": "equals", "value": "GET"}]}
    kinds = [("sum", "tokens"), ("count", ""), ("max", "tokens")]
    return [
        create_meter(
            name=f"meter {number}",
            event_name=event_name,
            measurement_unit="units",
            aggregation=kinds[number % 3][0],
            property_key=kinds[number % 3][1],
            filter=method if number % 2 else None,
        )
        for number in range(count)
    ]


def fill(customers: list[int], events: int, event_name: str) -> None:
    """Events spread evenly over the last 31 days, written past ingestion: only the log is read afterwards."""
    from meters.partitions import ensure_partitions, month_of

    end = datetime.now(UTC)
    begin = end - timedelta(days=31)
    ensure_partitions(months={month_of(begin), month_of(end - timedelta(days=15)), month_of(end)})
    sql(
        "INSERT INTO meters_event (event_id, customer_id, event_name, timestamp, metadata)"
        " SELECT 'evt_' || lpad(n::text, 20, '0'), (%s::bigint[])[1 + n %% %s], %s,"
        " %s::timestamptz + n * (%s::interval / %s),"
        " jsonb_build_object('endpoint', '/v1/orders', 'method', 'GET', 'region', 'eu-west-1', 'tokens', n %% 1000)"
        " FROM generate_series(1, %s) AS n",
        [customers, len(customers), event_name, begin, end - begin, events, events],
    )


# -- 1 ---------------------------------------------------------------------------------------------------------


class Limit:
    """Binary COPY of ready-made rows by one connection into the log and the keys themselves."""

    def __init__(self, customer: "Customer", batches: int) -> None:
        self.connection = own_connection()
        self.events: list[bytes] = []
        self.keys: list[bytes] = []
        for batch in range(batches):
            rows = (
                "SELECT nextval(pg_get_serial_sequence('meters_event', 'id')) AS id,"
                f" 'limit{batch:011d}' || lpad(n::text, 8, '0') AS event_id, {customer.pk}::bigint AS customer_id,"
                " 'api.call' AS event_name,"
                " clock_timestamp() AS timestamp, jsonb_build_object('endpoint', '/v1/orders', 'method', 'GET',"
                " 'region', 'eu-west-1', 'tokens', n) AS metadata"
                f" FROM generate_series(1, {BATCH}) AS n"
            )
            self.connection.execute(f"CREATE TEMP TABLE batch AS {rows}")
            self.events.append(
                self._out("SELECT id, event_id, customer_id, event_name, timestamp, metadata FROM batch")
            )
            self.keys.append(
                self._out(
                    "SELECT substr(encode(sha256(event_id::bytea), 'hex'), 1, 32)::uuid, id, timestamp FROM batch"
                )
            )
            self.connection.execute("DROP TABLE batch")
        self._next = 0

    def _out(self, query: str) -> bytes:
        with self.connection.cursor().copy(f"COPY ({query}) TO STDOUT (FORMAT binary)") as copy:
            return b"".join(bytes(part) for part in copy)

    def store(self) -> None:
        with self.connection.transaction(), self.connection.cursor() as cursor:
            with cursor.copy("COPY meters_eventkey (key, event, timestamp) FROM STDIN (FORMAT binary)") as copy:
                copy.write(self.keys[self._next])
            columns = "id, event_id, customer_id, event_name, timestamp, metadata"
            with cursor.copy(f"COPY meters_event ({columns}) FROM STDIN (FORMAT binary)") as copy:
                copy.write(self.events[self._next])
        self._next += 1

    def events_per_second(self, batches: int) -> float:
        started = time.perf_counter()
        for _ in range(batches):
            self.store()
        return batches * BATCH / (time.perf_counter() - started)


def batches(web: Web, seconds: float) -> None:
    say(f"\n1. Batches of {BATCH} over HTTP, beside binary COPY by one connection into the same indexed tables")
    customer, key = make_customer(), make_key()
    body = template(customer=customer.public_id, size=BATCH)
    send(web=web, key=key, body=body, size=BATCH, clients=4, seconds=2)
    limit = Limit(customer, 150)
    found, limits = [], [limit.events_per_second(30)]
    for clients in (1, 2, 4, 8):
        answered = send(web=web, key=key, body=body, size=BATCH, clients=clients, seconds=seconds)
        limits.append(limit.events_per_second(30))
        beside = (limits[-1] + limits[-2]) / 2
        ratio = answered.events_per_second / beside
        say(
            f"  {clients} clients: {answered.events_per_second:>8,.0f} events/s, {ratio:.2f} of the limit"
            f" ({beside:,.0f}); {answered.milliseconds()} ms"
        )
        found.append(
            {
                "clients": clients,
                "events_per_second": round(answered.events_per_second),
                "limit_events_per_second": round(beside),
                "ratio": round(ratio, 3),
                "milliseconds": answered.milliseconds(),
            }
        )
    record("batches", {"batch": BATCH, "aim": 0.6, "runs": found})


# -- 2 ---------------------------------------------------------------------------------------------------------


def singles(web: Web, seconds: float) -> None:
    say("\n2. Requests of one event, beside the same view without a database, and a bare insert per transaction")
    customer, key = make_customer(), make_key()
    body = template(customer=customer.public_id, size=1)
    send(web=web, key=key, body=body, size=1, clients=4, seconds=2)
    found = []
    with web_server(without_database=True) as bare:
        send(web=bare, key=key, body=body, size=1, clients=4, seconds=1)
        for clients in (1, 2, 4, 8):
            load: dict[str, Any] = {"key": key, "body": body, "size": 1, "clients": clients, "seconds": seconds}
            answered = send(web=web, **load)
            without = send(web=bare, **load)
            inserts = bare_inserts(customer, seconds=2)
            ratio = answered.requests_per_second / without.requests_per_second
            beside = answered.requests_per_second / inserts
            say(
                f"  {clients} clients: {answered.requests_per_second:>6,.0f} requests/s, {ratio:.2f} of the view"
                f" without a database ({without.requests_per_second:,.0f}), {beside:.2f} of bare inserts by one"
                f" connection ({inserts:,.0f}); {answered.milliseconds()} ms"
            )
            found.append(
                {
                    "clients": clients,
                    "requests_per_second": round(answered.requests_per_second),
                    "without_database_per_second": round(without.requests_per_second),
                    "bare_inserts_per_second": round(inserts),
                    "ratio": round(ratio, 3),
                    "ratio_to_inserts": round(beside, 3),
                    "milliseconds": answered.milliseconds(),
                }
            )
    record("singles", {"runs": found})


def bare_inserts(customer: "Customer", *, seconds: float) -> float:
    with own_connection() as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS bench_log (LIKE meters_event INCLUDING ALL)")
        statement = (
            "INSERT INTO bench_log (id, event_id, customer_id, event_name, timestamp, metadata)"
            " VALUES (nextval(pg_get_serial_sequence('meters_event', 'id')), %s, %s, 'api.call', now(), %s::jsonb)"
        )
        metadata = '{"endpoint": "/v1/orders", "method": "GET", "region": "eu-west-1", "tokens": 5}'
        begun, number = time.perf_counter(), 0
        while time.perf_counter() - begun < seconds:
            connection.execute(statement, [f"bare_{begun}_{number}", customer.pk, metadata], prepare=True)
            number += 1
        return number / (time.perf_counter() - begun)


# -- 3 ---------------------------------------------------------------------------------------------------------


def usage(web: Web, seconds: float, *, large: bool) -> None:
    from meters.models import Meter
    from meters.rollups import roll_up
    from meters.usage import quantity

    say("\n3. A month of one customer, by how many events it has, while events come in and are rolled up")
    sizes = [10_000, 100_000, 1_000_000, *([10_000_000] if large else [])]
    key, busy = make_key(), make_customer()
    customers = {}
    for size in sizes:
        customers[size] = make_customer()
        fill([customers[size].pk], size, "usage.read")
    make_meters(2, "usage.read")
    while roll_up():
        pass
    meters = list(Meter.objects.filter(event_name="usage.read").order_by("pk"))
    # No VACUUM, no ANALYZE: what autovacuum has done by now is what an installation has.
    end = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    spans = {"whole hours": (end - timedelta(days=30), end)}
    spans["cut hours"] = tuple(at - timedelta(minutes=17, microseconds=5) for at in spans["whole hours"])  # type: ignore[assignment]
    wanted = {
        (size, span): sql(
            "SELECT count(*) FROM meters_event WHERE customer_id = %s AND timestamp >= %s AND timestamp < %s",
            [customers[size].pk, *spans[span]],
        )[0][0]
        for size in sizes
        for span in spans
    }
    body = template(customer=busy.public_id, size=100, event_name="usage.read")
    found = []
    with (
        roller(),
        sending(web=web, key=key, body=body, size=100, clients=2, seconds=max(20.0, 4 * seconds), per_second=20),
    ):
        # The machine's other work comes and goes, so the sizes take turns.
        taken: dict[tuple[int, str], list[float]] = {(size, span): [] for size in sizes for span in spans}
        idle: list[float] = []
        for turn in range(200):
            for (size, span), times in taken.items():
                meter, (start, stop) = meters[turn % 2], spans[span]
                meter.refresh_from_db()
                begun = time.perf_counter()
                read = quantity(meter=meter, customer=customers[size], start=start, end=stop)
                times.append(time.perf_counter() - begun)
                assert read == wanted[size, span] if turn % 2 else read > 0, (read, size)
            begun = time.perf_counter()
            sql("SELECT 1")
            idle.append(time.perf_counter() - begun)
    for span in spans:
        for size in sizes:
            here, least = percentiles(taken[size, span]), percentiles(taken[sizes[0], span])
            ratio = here["p50"] / least["p50"]
            say(f"  {size:>10,} events, {span}: {here} ms; {ratio:.2f} times the smallest")
            found.append({"events": size, "span": span, "milliseconds": here, "ratio": round(ratio, 3)})
    say(f"  SELECT 1 beside them: {percentiles(idle)} ms")
    record("usage", {"aim": "1.5 times the smallest, under 10 ms", "select_1": percentiles(idle), "runs": found})


# -- 4 ---------------------------------------------------------------------------------------------------------


def rolling(web: Web, seconds: float) -> None:
    from meters.models import Meter
    from meters.rollups import roll_meters, settled_event_id

    say("\n4. Rolling up, beside one bare aggregate of the same events; and how far the tail lags under full load")
    customers = [make_customer().pk for _ in range(50)]
    events = 1_000_000
    (before,) = sql(
        "SELECT coalesce(pg_sequence_last_value(pg_get_serial_sequence('meters_event', 'id')::regclass), 0)"
    )
    fill(customers, events, "rolled")
    settled = settled_event_id(patience=None)
    assert settled is not None
    found: list[dict[str, Any]] = []
    for count in (1, 10):
        meters = [meter.pk for meter in make_meters(count, "rolled")]
        Meter.objects.filter(pk__in=meters).update(rolled_up_to=before[0])
        limit = 1 / rate(
            lambda: sql(
                "SELECT count(*) FROM (SELECT customer_id, date_bin('1 hour', timestamp, '2000-01-01 00:00Z'), count(*)"
                " FROM meters_event WHERE event_name = 'rolled' AND id > %s GROUP BY 1, 2) AS hour",
                [before[0]],
            ),
            times=3,
        )
        begun = time.perf_counter()
        while roll_meters(meter_ids=meters, settled=settled):
            pass
        passed = time.perf_counter() - begun
        (counted,) = sql("SELECT sum(events) FROM meters_bucket WHERE meter_id = ANY(%s)", [meters])
        assert counted == (count * events,), counted
        ratio = limit / passed
        say(
            f"  {count:>2} meters: {events / passed:>9,.0f} events/s ({count * events / passed:,.0f} readings/s),"
            f" {ratio:.2f} of one bare aggregate ({events / limit:,.0f} events/s)"
        )
        found.append(
            {
                "meters": count,
                "events_per_second": round(events / passed),
                "limit_events_per_second": round(events / limit),
                "ratio": round(ratio, 3),
            }
        )
        Meter.objects.filter(pk__in=meters).update(event_name="not sent")
    customer, key = make_customer(), make_key()
    body = template(customer=customer.public_id, size=BATCH)
    lags = []
    for count in (1, 10):
        have = Meter.objects.filter(event_name="api.call").count()
        make_meters(count - have, "api.call")
        with roller():
            wait_until_rolled()
            seen: list[tuple[float, int, int]] = []
            with sending(web=web, key=key, body=body, size=BATCH, clients=4, seconds=3 * seconds) as load:
                while not load:
                    seen.append((time.perf_counter(), *newest_and_rolled()))
                    time.sleep(0.1)
            caught_up = wait_until_rolled()
        # What stands at the watermark was the newest so long ago.
        late = [
            now - max((then for then, newest, _ in seen if newest <= rolled), default=now) for now, _, rolled in seen
        ]
        lag = {
            "meters": count,
            "ingested_per_second": round(load[0].events_per_second),
            "most_events_behind": max(newest - rolled for _, newest, rolled in seen),
            "most_seconds_behind": round(max(late), 2),
            "median_seconds_behind": round(sorted(late)[len(late) // 2], 2),
            "seconds_to_catch_up": round(caught_up, 2),
        }
        say(f"  under full load, {lag}")
        lags.append(lag)
    record("rolling", {"runs": found, "tail": lags})


# -- 5 ---------------------------------------------------------------------------------------------------------


def footprint(web: Web, seconds: float) -> None:
    say("\n5. Memory over a run, and bytes on disk beside the JSON that was sent")
    customer, key = make_customer(), make_key()
    body = template(customer=customer.public_id, size=BATCH)
    size = (
        "SELECT (SELECT sum(pg_total_relation_size(inhrelid)) FROM pg_inherits"
        " WHERE inhparent = 'meters_event'::regclass) + pg_total_relation_size('meters_eventkey')"
    )
    if not sql("SELECT FROM meters_meter WHERE event_name = 'api.call'"):
        make_meters(3, "api.call")
    send(web=web, key=key, body=body, size=BATCH, clients=4, seconds=3)
    disk = int(sql(size)[0][0])
    with roller() as rolls:
        memory, answered = [], 0
        for _ in range(6):
            with sending(web=web, key=key, body=body, size=BATCH, clients=4, seconds=seconds) as load:
                pass
            answered += load[0].events
            memory.append((web.resident(), resident(rolls.pid)))
            say(
                f"  after {answered:>9,} events: web {memory[-1][0] / 2**20:.0f} MB,"
                f" roller {memory[-1][1] / 2**20:.0f} MB"
            )
    grown = (int(sql(size)[0][0]) - disk) / answered
    each = len(body) / BATCH
    ratios = [memory[-1][place] / memory[1][place] for place in (0, 1)]
    say(f"  {grown:.0f} bytes an event on disk with all indexes, {grown / each:.2f} of its {each:.0f} bytes of JSON")
    say(f"  memory at the end against after the second run: web {ratios[0]:.2f}, roller {ratios[1]:.2f}")
    record(
        "footprint",
        {
            "web_bytes": [web_bytes for web_bytes, _ in memory],
            "roller_bytes": [roller_bytes for _, roller_bytes in memory],
            "web_ratio": round(ratios[0], 3),
            "roller_ratio": round(ratios[1], 3),
            "bytes_an_event": round(grown, 1),
            "json_bytes_an_event": round(each, 1),
            "ratio_to_json": round(grown / each, 3),
        },
    )


# -- 6 ---------------------------------------------------------------------------------------------------------


def evidence(*, large: bool) -> None:
    """What proving a line costs when its period is closed, and again when it is verified: the raw log is read."""
    from meters.evidence import counted_events, newest_watermark, recount
    from meters.models import Meter

    say("\n6. The evidence of one line, beside one bare aggregate (count and sum) of the same events")
    sizes = [10_000, 100_000, 1_000_000, *([10_000_000] if large else [])]
    customers = {}
    for size in sizes:
        customers[size] = make_customer()
        fill([customers[size].pk], size, "proved")
    make_meters(2, "proved")
    end = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    start = end - timedelta(days=32)
    found = []
    watermark = newest_watermark()
    for size in sizes:
        for meter in Meter.objects.filter(event_name="proved").order_by("pk"):
            asked: dict[str, Any] = {
                "meter": meter,
                "customer": customers[size],
                "start": start,
                "end": end,
                "up_to": watermark,
            }
            bare, took = [], []
            for _ in range(3):
                begun = time.perf_counter()
                sql(
                    "SELECT count(*), sum((metadata ->> 'tokens')::numeric) FROM meters_event WHERE customer_id = %s"
                    " AND event_name = 'proved' AND timestamp >= %s AND timestamp < %s",
                    [customers[size].pk, start, end],
                )
                bare.append(time.perf_counter() - begun)
                begun = time.perf_counter()
                counted = recount(**asked)
                took.append(time.perf_counter() - begun)
                assert counted.events == size, counted
            begun = time.perf_counter()
            assert sum(1 for _ in counted_events(**asked)) == size
            listed = time.perf_counter() - begun
            say(
                f"  {size:>10,} events, {meter.aggregation}: {min(took) * 1000:,.0f} ms,"
                f" {min(took) / min(bare):.1f} times the aggregate ({min(bare) * 1000:,.0f} ms);"
                f" listed one by one in {listed:,.1f} s"
            )
            found.append(
                {
                    "events": size,
                    "meter": meter.aggregation,
                    "seconds": round(min(took), 4),
                    "bare": round(min(bare), 4),
                    "listed": round(listed, 3),
                }
            )
    record("evidence", {"runs": found})


# --------------------------------------------------------------------------------------------------------------

NAMES = ("batches", "singles", "rolling", "usage", "footprint", "evidence", "closing")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all without one")
    parser.add_argument("--large", action="store_true", help="also ten million events of one customer")
    parser.add_argument("--seconds", type=float, default=6.0, help="how long each load lasts")
    options = parser.parse_args()
    if unknown := set(options.which) - set(NAMES):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}")
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    os.environ.setdefault("SECRET_KEY", "only-for-the-benchmark")
    os.environ["LOG_LEVEL"] = "ERROR"
    for name in NAMES:
        if options.which and name not in options.which:
            continue
        # A server of its own for each, so that none reads what another left behind.
        with own_server() as url:
            os.environ["DATABASE_URL"] = url
            child = subprocess.run(
                [sys.executable, "-W", "ignore", "-c", _CHILD, name, str(options.seconds), str(int(options.large))],
                cwd=ROOT,
                check=False,
            )
            if child.returncode:
                raise SystemExit(child.returncode)


_CHILD = "import sys; from benchmarks.__main__ import run; run(sys.argv[1], float(sys.argv[2]), sys.argv[3] == '1')"


def run(name: str, seconds: float, large: bool) -> None:
    """One benchmark, in a process whose settings name its server."""
    import django

    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    if name == "evidence":
        evidence(large=large)
        return
    if name == "closing":
        from benchmarks.closing import closing

        closing()
        return
    with web_server() as web:
        if name == "usage":
            usage(web, seconds, large=large)
        else:
            {"batches": batches, "singles": singles, "rolling": rolling, "footprint": footprint}[name](web, seconds)


if __name__ == "__main__":
    main()
