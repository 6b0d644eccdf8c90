"""Writers, rollers and readers at once: real connections, real commits, killed backends, and the rival in the gap.

The gap: a sequence is not commit order. A writer takes its ids, others commit later ids, the roller comes, and only
then the writer commits. Whoever takes the wait out of `settled_event_id` sees these tests fail.
"""

import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote
from uuid import UUID

import pytest
from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection, transaction

from config.up.places import Places, account_to_run_as, make_private, readable_binaries
from config.up.postgres import ROLE, Cluster
from customers.models import Customer
from meters.ingestion import EventInput, enter_ingestion, event_key, ingest_events, store_events
from meters.meters import create_meter
from meters.models import EventKey, Meter
from meters.partitions import ensure_partitions, month_of
from meters.rollups import newest_event_id, rebuild, roll_up
from meters.usage import quantity
from tests.base import acme
from tests.conftest import unavailable
from tests.stack import ROOT, roomy_folder

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("months")]

Result = TypeVar("Result")
D = Decimal
# Whole hours, so that buckets count, around an hour that is cut, so that the log does, too.
BEGIN = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=5)
END = BEGIN + timedelta(hours=9, microseconds=1)


@pytest.fixture
def months(transactional_db: None) -> None:
    # A month that is made inside a writer's transaction keeps the others waiting for its end; here they must not.
    ensure_partitions(months={month_of(BEGIN), month_of(END)})


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(12) as pool:
        yield pool


def start(pool: ThreadPoolExecutor, work: Callable[[], Result]) -> "Future[Result]":
    def closing_the_connection() -> Result:
        try:
            return work()
        finally:
            connection.close()

    return pool.submit(closing_the_connection)


def events(customer: Customer, ids: list[str], *, worth: int = 3) -> list[EventInput]:
    """Events spread over the hours of the span, some of them late."""
    return [
        EventInput(
            event_id,
            customer.public_id,
            "n",
            (BEGIN + timedelta(minutes=(index * 37 + len(event_id)) % 300)).isoformat(),
            {"v": worth},
        )
        for index, event_id in enumerate(ids)
    ]


def store(customer: Customer, ids: list[str]) -> int:
    """The long way: several statements of one transaction."""
    with transaction.atomic():
        return store_events(events=events(customer, ids), now=enter_ingestion(), backfill=True)


def fresh(customer: Customer, ids: list[str]) -> list[EventInput]:
    """Events of this moment, which a request stores in one statement."""
    return [EventInput(event_id, customer.public_id, "n", None, {"v": 3}) for event_id in ids]


def a_meter(aggregation: str = "count", **changes: Any) -> Meter:
    return create_meter(
        name=aggregation,
        event_name="n",
        aggregation=aggregation,
        property_key="" if aggregation == "count" else "v",
        measurement_unit="u",
        **changes,
    )


def used(meter: Meter, customer: Customer) -> Decimal:
    return quantity(meter=meter, customer=customer, start=BEGIN, end=END)


def in_buckets(meter: Meter) -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT coalesce(sum(events), 0)::bigint FROM meters_bucket WHERE meter_id = %s", [meter.pk])
        return int(cursor.fetchone()[0])


def until(what: str, said: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not said():
        if time.monotonic() > deadline:
            raise AssertionError(f"not in 30 s: {what}")
        time.sleep(0.005)


def somebody_waits() -> bool:
    with connection.cursor() as cursor:
        # Who waits for a claimed event id waits for the transaction that claimed it.
        cursor.execute(
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid' AND pid IN"
            " (SELECT pid FROM pg_stat_activity WHERE datname = current_database())"
        )
        return bool(cursor.fetchone()[0])


# -- the rival in the gap --------------------------------------------------------------------------------------


@pytest.mark.parametrize("rival_commits", [True, False])
def test_a_writer_held_open_across_a_roll_is_counted_once_or_never(
    threads: ThreadPoolExecutor, rival_commits: bool
) -> None:
    customer, meters = acme(), [a_meter("count"), a_meter("sum"), a_meter("max")]
    went, may_end = threading.Event(), threading.Event()

    def rival() -> None:
        with transaction.atomic():
            assert store(customer, [f"rival {n}" for n in range(10)]) == 10
            went.set()
            assert may_end.wait(30)
            transaction.set_rollback(not rival_commits)

    held = start(threads, rival)
    assert went.wait(30)
    # Later ids, committed and acknowledged before the rival's lower ones.
    assert store(customer, [f"later {n}" for n in range(7)]) == 7
    assert [used(meter, customer) for meter in meters] == [7, 21, 3]
    assert roll_up(patience=0.2) == 0  # it gives up rather than pass the rival by
    assert [in_buckets(meter) for meter in meters] == [0, 0, 0]

    rolling = start(threads, lambda: roll_up(patience=None))
    with pytest.raises(TimeoutError):
        rolling.result(0.3)
    assert [used(meter, customer) for meter in meters] == [7, 21, 3]
    may_end.set()
    held.result(30)
    assert rolling.result(30) > 0
    stored = 17 if rival_commits else 7
    for _ in range(2):
        assert [used(meter, customer) for meter in meters] == [stored, 3 * stored, 3]
        assert [in_buckets(meter) for meter in meters] == [stored] * 3
        roll_up()


@pytest.mark.parametrize("killed", [False, True])
def test_a_request_that_hangs_between_its_ids_and_its_commit_is_counted_once_or_never(
    threads: ThreadPoolExecutor, killed: bool
) -> None:
    """The way of a request: one statement, held up behind a rival that has claimed one of its ids."""
    customer, meter = acme(), a_meter("sum")
    backend: list[int] = []

    def request() -> int:
        connection.ensure_connection()
        backend.append(connection.connection.info.backend_pid)
        return ingest_events(events=fresh(customer, ["mine 1", "both", "mine 2"]))

    went, may_end = threading.Event(), threading.Event()

    def rival() -> None:
        """Claims an id without the writers' lock: what the roller must wait for is the request alone."""
        with transaction.atomic():
            EventKey.objects.create(key=UUID(event_key("both")), event=0, timestamp=BEGIN)
            went.set()
            assert may_end.wait(30)
            transaction.set_rollback(True)

    held = start(threads, rival)
    assert went.wait(30)
    asked = start(threads, request)
    until("the request waits for the rival", somebody_waits)
    assert store(customer, ["later 1", "later 2"]) == 2
    assert roll_up(patience=0.2) == 0
    assert (used(meter, customer), in_buckets(meter)) == (D(6), 0)
    rolling = start(threads, lambda: roll_up(patience=None))
    if killed:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s)", backend)
        with pytest.raises((DatabaseError, InterfaceError)):
            asked.result(30)
    may_end.set()
    held.result(30)
    stored = 2 if killed else 2 + asked.result(30)
    assert stored == (2 if killed else 5)
    assert rolling.result(30) > 0
    assert (used(meter, customer), in_buckets(meter)) == (D(3 * stored), stored)


def test_a_writer_that_is_killed_holds_the_roller_up_no_longer(threads: ThreadPoolExecutor) -> None:
    customer, meter = acme(), a_meter()
    went, backend = threading.Event(), []

    def writer() -> None:
        with transaction.atomic():
            store(customer, ["never acknowledged"])
            backend.append(connection.connection.info.backend_pid)
            went.set()
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_sleep(30)")

    hanging = start(threads, writer)
    assert went.wait(30)
    assert store(customer, ["a"]) == 1
    assert roll_up(patience=0.2) == 0
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 10000)", backend)
    with pytest.raises((DatabaseError, InterfaceError)):
        hanging.result(30)
    assert roll_up() > 0
    assert (used(meter, customer), in_buckets(meter)) == (D(1), 1)


# -- all at once -----------------------------------------------------------------------------------------------


class Ledger:
    """What the writers know, kept beside the database: the bounds of what a reader may see."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.sent = 0
        self.acknowledged: set[str] = set()
        self.withdrawn: set[str] = set()
        self.unknown: set[str] = set()

    def send(self, ids: list[str]) -> None:
        with self._lock:
            self.sent += len(ids)

    def settle(self, ids: list[str], into: set[str]) -> None:
        with self._lock:
            into.update(ids)

    def bounds(self) -> tuple[int, int]:
        with self._lock:
            return len(self.acknowledged), self.sent


WRITERS, BATCHES, READERS = 5, 60, 2


def test_quantities_stay_between_what_was_acknowledged_and_what_was_sent(threads: ThreadPoolExecutor) -> None:
    customer, other = acme(), acme(email="other@acme.example")
    meters = [a_meter("count"), a_meter("sum"), a_meter("count", group_by=["v"]), a_meter("avg")]
    ledger, done = Ledger(), threading.Event()
    backends: dict[int, int] = {}
    killed = 0

    def writer(number: int) -> int:
        dice = random.Random(number)
        kills = 0
        for batch in range(BATCHES):
            ids = [f"{number} {batch} {n}" for n in range(dice.choice([1, 1, 5, 40]))]
            how = dice.choice(["request", "request", "long", "long", "withdraw", "with another's"])
            ledger.send(ids)
            try:
                connection.ensure_connection()
                backends[number] = connection.connection.info.backend_pid
                if how == "request":
                    assert ingest_events(events=fresh(customer, ids)) == len(ids)
                elif how == "withdraw":
                    with transaction.atomic():
                        store(customer, ids)
                        transaction.set_rollback(True)
                    ledger.settle(ids, ledger.withdrawn)
                    continue
                else:
                    with transaction.atomic():
                        store(customer, ids[: len(ids) // 2])
                        if how == "with another's":
                            store(other, [f"other {event_id}" for event_id in ids])
                        store(customer, ids)
                ledger.settle(ids, ledger.acknowledged)
            except (DatabaseError, InterfaceError):
                kills += 1
                ledger.settle(ids, ledger.unknown)
                connection.close()
        return kills

    def killer() -> None:
        dice = random.Random(99)
        while not done.wait(0.05):
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_terminate_backend(%s)", [dice.choice(list(backends.values()) or [0])])

    def roller(number: int) -> int:
        rolls = 0
        while not done.is_set():
            rolls += bool(roll_up(patience=1))
            if number == 0 and rolls % 15 == 14:
                rebuild(meter=Meter.objects.get(pk=meters[1].pk))
                rolls += 1
        return rolls

    def reader(number: int) -> int:
        reads, held = 0, list(meters)
        while not done.is_set() or not reads:
            meter = held[reads % 3]
            if reads % 7 == 0:
                held = list(Meter.objects.order_by("pk"))
            low, _ = ledger.bounds()
            found = used(meter, customer)
            _, high = ledger.bounds()
            worth = 3 if meter.aggregation == "sum" else 1
            assert low * worth <= found <= high * worth, (meter.aggregation, low, found, high)
            reads += 1
        return reads

    try:
        writing = [start(threads, lambda number=number: writer(number)) for number in range(WRITERS)]  # type: ignore[misc]
        watching = [start(threads, lambda number=number: reader(number)) for number in range(READERS)]  # type: ignore[misc]
        rolling = [start(threads, lambda number=number: roller(number)) for number in range(2)]  # type: ignore[misc]
        killing = start(threads, killer)
        killed = sum(one.result(120) for one in writing)
    finally:
        done.set()
    reads, rolls = sum(one.result(60) for one in watching), sum(one.result(60) for one in rolling)
    killing.result(60)
    assert min(killed, reads, rolls, len(ledger.withdrawn), len(ledger.acknowledged)) > 0, "this run proved nothing"

    with connection.cursor() as cursor:
        cursor.execute("SELECT event_id FROM meters_event WHERE customer_id = %s", [customer.pk])
        stored = [event_id for (event_id,) in cursor.fetchall()]
    assert len(stored) == len(set(stored))
    assert ledger.acknowledged <= set(stored) <= ledger.acknowledged | ledger.unknown
    for _ in range(2):
        assert [used(Meter.objects.get(pk=meter.pk), customer) for meter in meters] == [
            len(stored),
            3 * len(stored),
            len(stored),
            3,
        ]
        while roll_up(patience=None):
            pass
    for meter in Meter.objects.all():
        assert meter.rolled_up_to == newest_event_id()


# -- into another cluster ---------------------------------------------------------------------------------------


ELSEWHERE = """
import datetime, json, sys
from customers.models import Customer
from meters.ingestion import EventInput, ingest_events
from meters.models import Meter
from meters.rollups import roll_up
from meters.usage import quantity

begin, end = (datetime.datetime.fromisoformat(text) for text in {span!r})
customer = Customer.objects.get()
def used():
    meters = Meter.objects.order_by("pk")
    return [int(quantity(meter=meter, customer=customer, start=begin, end=end)) for meter in meters]

def send(*ids):
    return ingest_events(events=[EventInput(one, customer.public_id, "n", None, {{"v": 3}}) for one in ids])

seen = [used()]
assert send("before 1", "tail 1", "new 1", "new 2") == 2
seen.append(used())
assert roll_up() > 0
seen.append(used())
assert roll_up() == 0
assert send("new 3") == 1
seen.append(used())
print(json.dumps(seen))
"""


@pytest.fixture
def another_cluster() -> Iterator[tuple[str, Path]]:
    """A PostgreSQL that has seen no transaction of ours: its URL and its programs."""
    account = account_to_run_as()
    folder = roomy_folder("meterbook-restore-")
    make_private(folder / "s", account)
    binaries = readable_binaries(account, folder)
    cluster = Cluster(Places(folder / "data", folder / "s", binaries, account, note=""), settings={"fsync": "off"})
    try:
        cluster.create()
        cluster.start()
        cluster.ensure_database("meterbook")
        yield f"postgres://{ROLE}@{quote(str(folder / 's'), safe='')}/meterbook", binaries
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


def dump_program(binaries: Path) -> Path:
    """A pg_dump of the server's own version: another one's dump may hold what the restoring server refuses."""
    wanted = connection.connection.info.server_version // 10_000
    for program in (binaries / "bin" / "pg_dump", Path(shutil.which("pg_dump") or "")):
        if program.is_file():
            said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
            if f" {wanted}." in said:
                return program
    return unavailable(f"there is no pg_dump of PostgreSQL {wanted} here")


def test_a_dump_restored_into_another_cluster_goes_on_exactly(
    another_cluster: tuple[str, Path], tmp_path: Path
) -> None:
    url, binaries = another_cluster
    customer, _ = acme(), [a_meter("count"), a_meter("sum")]
    store(customer, [f"before {n}" for n in range(20)])
    assert roll_up() > 0
    store(customer, [f"tail {n}" for n in range(5)])  # behind the watermark when the dump is made
    parameters = connection.get_connection_params()
    ours = {"PGHOST": "host", "PGPORT": "port", "PGUSER": "user", "PGPASSWORD": "password", "PGDATABASE": "dbname"}
    environment = {**os.environ, **{name: str(parameters[key]) for name, key in ours.items() if parameters.get(key)}}
    dumped = tmp_path / "dump.sql"
    with dumped.open("wb") as file:
        subprocess.run(
            [dump_program(binaries), "--no-owner", "--no-privileges"],
            env=environment,
            stdout=file,
            check=True,
            timeout=60,
        )
    subprocess.run(
        [binaries / "bin" / "psql", "-qX", "-v", "ON_ERROR_STOP=1", "-f", dumped, url],
        stdout=subprocess.DEVNULL,
        check=True,
        timeout=60,
    )
    done = subprocess.run(
        [
            sys.executable,
            "manage.py",
            "shell",
            "-v0",
            "-c",
            ELSEWHERE.format(span=(BEGIN.isoformat(), END.isoformat())),
        ],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": url, "SECRET_KEY": settings.SECRET_KEY},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[[25, 75], [27, 81], [27, 81], [28, 84]]"
