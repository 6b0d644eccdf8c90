"""Buckets, watermark and tail give the quantity of the raw log, at every moment, whatever happened in which order."""

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from customers.models import Customer
from meters import rollups
from meters.aggregation import ZERO, aggregate, count_unique, weigh
from meters.filters import is_present, parse_filter, read_identity, read_number
from meters.ingestion import EventInput, store_events
from meters.meters import create_meter
from meters.models import Aggregation, Meter
from meters.rollups import Hour, newest_event_id, rebuild, recompute, roll_meter, roll_meters, roll_up, settled_event_id
from meters.usage import daily_quantities, measure, quantity
from meters.voids import Selection, void_event, void_events
from tests.base import acme, at, globex

D = Decimal
pytestmark = pytest.mark.django_db
DAY = at("2026-03-10")
GOLD = {"conjunction": "and", "clauses": [{"key": "tier", "operator": "equals", "value": "gold"}]}


@dataclass
class Reference:
    """The raw events in plain Python, and every quantity computed from them anew."""

    events: list[tuple[int, str, datetime, dict[str, Any] | None]] = field(default_factory=list)
    # The ids of the events, in the same order, and those that were voided.
    ids: list[str] = field(default_factory=list)
    void: set[str] = field(default_factory=set)

    def quantity(self, meter: Meter, customer: Customer, start: datetime, end: datetime) -> Decimal:
        tree = parse_filter(meter.filter) if meter.filter else None
        # Sorted is stable: of two at one instant the one that arrived last is the last.
        mine = sorted(
            (
                event
                for event_id, event in zip(self.ids, self.events, strict=True)
                if event[0] == customer.pk and event[1] == meter.event_name and event_id not in self.void
            ),
            key=lambda event: event[2],
        )
        mine = [event for event in mine if tree is None or tree.matches(event[3])]
        inside = [event for event in mine if start <= event[2] < end]
        if meter.aggregation == Aggregation.COUNT:
            return D(len(inside))
        key = meter.property_key
        if meter.aggregation == Aggregation.UNIQUE:
            return count_unique(_canonical(event[3], key) for event in inside)
        before = [number for event in mine if event[2] < start and (number := _number(event[3], key)) is not None]
        level = before[-1] if before and meter.carry_forward else None
        if meter.aggregation == Aggregation.WEIGHTED_SUM:
            levels = [(event[2], number) for event in inside if (number := _number(event[3], key)) is not None]
            return weigh(levels, start=start, end=end, before=level or ZERO)
        numbers = [_number(event[3], key) for event in inside]
        if meter.aggregation == Aggregation.LAST and not any(number is not None for number in numbers):
            return level or ZERO
        return aggregate(meter.aggregation, numbers)


def _number(metadata: dict[str, Any] | None, key: str) -> Decimal | None:
    return read_number(metadata[key]) if metadata is not None and is_present(metadata, key) else None


def _canonical(metadata: dict[str, Any] | None, key: str) -> str | None:
    return read_identity(metadata[key]) if metadata is not None and is_present(metadata, key) else None


KINDS: list[tuple[str, dict[str, Any]]] = [
    (aggregation, changes)
    for aggregation in Aggregation.values
    for changes in ({}, {"filter": GOLD}, {"group_by": ["tier"]}, {"carry_forward": True})
    if "carry_forward" not in changes or aggregation in ("last", "weighted_sum")
]


def meters() -> list[Meter]:
    """One of each aggregation, plain, filtered, grouped and carried."""
    return [a_meter(aggregation, **changes) for aggregation, changes in KINDS]


def a_meter(aggregation: str, **changes: Any) -> Meter:
    return create_meter(
        name=aggregation,
        event_name="e",
        aggregation=aggregation,
        property_key="" if aggregation == "count" else "v",
        measurement_unit="u",
        **changes,
    )


values = st.one_of(
    st.integers(-5, 9),
    st.integers(-5, 9).map(str),
    st.sampled_from([D("0.1"), D("2.50"), "5.0", "many", True, "", 10**20, "x" * 8]),
)
metadatas = st.one_of(
    st.none(),
    st.fixed_dictionaries({}, optional={"v": values, "tier": st.sampled_from(["gold", "free", 1, "1.0"])}),
)
# Instants crowd around the edges of hours and windows, and often coincide.
offsets = st.one_of(
    st.sampled_from([0, 1, 3_599_999_999, 3_600_000_000, 3_600_000_001, 5_400_000_000, 86_399_999_999]),
    st.integers(0, 6 * 3600).map(lambda seconds: seconds * 1_000_000),
)
events = st.tuples(st.booleans(), st.sampled_from(["e", "e", "e", "other"]), offsets, metadatas)
steps = st.one_of(
    st.lists(events, min_size=1, max_size=6).map(lambda batch: ("send", batch)),
    st.integers(1, 4).map(lambda chunk: ("roll some", chunk)),
    st.integers(1, 4).map(lambda chunk: ("roll together", chunk)),
    st.just(("roll", None)),
    st.just(("rebuild", None)),
    # Which of the events sent so far, counted from the last one.
    st.lists(st.integers(0, 20), min_size=1, max_size=3).map(lambda back: ("void", back)),
    st.tuples(st.integers(0, 4), st.booleans()).map(lambda hours: ("void many", hours)),
    # Older than the lateness window, so that it comes as a backfill: most hours are rolled by then.
    st.lists(events, min_size=1, max_size=3).map(lambda batch: ("send late", batch)),
    st.lists(st.sampled_from(KINDS), min_size=1, max_size=2).map(lambda kinds: ("new meters", kinds)),
)
WINDOWS = [
    (DAY, DAY + timedelta(days=1)),
    (DAY + timedelta(minutes=90), DAY + timedelta(hours=4, microseconds=1)),
    (DAY + timedelta(microseconds=1), DAY + timedelta(hours=1)),
    (DAY + timedelta(hours=1), DAY + timedelta(hours=2)),
    (DAY + timedelta(minutes=10), DAY + timedelta(minutes=20)),
    (DAY + timedelta(days=2), DAY + timedelta(days=3)),
]


@settings(
    max_examples=40,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(st.lists(st.sampled_from(KINDS), min_size=1, max_size=4), st.lists(steps, min_size=2, max_size=8))
def test_every_quantity_is_that_of_the_raw_events_at_every_step(
    kinds: list[tuple[str, dict[str, Any]]], script: list[tuple[str, Any]]
) -> None:
    with transaction.atomic():
        point = transaction.savepoint()
        try:
            play(kinds, script)
        finally:
            transaction.savepoint_rollback(point)


def play(kinds: list[tuple[str, dict[str, Any]]], script: list[tuple[str, Any]]) -> None:
    customers, reference, sent = [acme(), globex()], Reference(), 0
    known = [a_meter(aggregation, **changes) for aggregation, changes in kinds]
    for step, what in script:
        if step in ("send", "send late"):
            now = DAY + timedelta(days=40 if step == "send late" else 1)
            batch = []
            for second, name, offset, metadata in what:
                customer, instant = customers[second], DAY + timedelta(microseconds=offset)
                sent += 1
                batch.append(EventInput(f"evt_{sent}", customer.public_id, name, instant.isoformat(), metadata))
                reference.events.append((customer.pk, name, instant, metadata))
                reference.ids.append(f"evt_{sent}")
            assert store_events(events=batch, now=now, backfill=True) == len(batch)
            # The same batch again changes nothing.
            assert store_events(events=batch, now=now, backfill=True) == 0
        elif step == "void":
            for back in what:
                if back < sent and (chosen := reference.ids[-1 - back]) not in reference.void:
                    void_event(event_id=chosen, reason="r", author="a", now=DAY)
                    reference.void.add(chosen)
        elif step == "void many":
            hour, second = what
            where = Selection(DAY, DAY + timedelta(hours=hour, microseconds=1), customer=customers[second])
            void_events(where=where, reason="r", author="a", now=DAY, dry_run=True)
            voided = void_events(where=where, reason="r", author="a", now=DAY)
            chosen_ids = {
                event_id
                for event_id, event in zip(reference.ids, reference.events, strict=True)
                if event[0] == customers[second].pk and where.start <= event[2] < where.end
            }
            assert voided.events == len(chosen_ids - reference.void)
            reference.void |= chosen_ids
        elif step == "new meters":
            known += [a_meter(aggregation, **changes) for aggregation, changes in what]
        elif step == "roll":
            # Meters that stand at one place share one pass over the log.
            roll_up()
        elif step == "roll together":
            roll_meters(meter_ids=[meter.pk for meter in known], settled=newest_event_id(), chunk=what)
        else:
            for number, meter in enumerate(known):
                if step == "rebuild":
                    if number % 3 == 0:
                        rebuild(meter=meter)
                else:
                    roll_meter(meter_id=meter.pk, settled=newest_event_id(), chunk=what + number % 3)
        check(known, customers, reference)


def check(known: list[Meter], customers: list[Customer], reference: Reference) -> None:
    for number, meter in enumerate(known):
        if number % 2:
            # Half of the readers hold an old copy of the meter, as a process that read it earlier does.
            meter.refresh_from_db()
        for customer in customers:
            for start, end in WINDOWS:
                found = quantity(meter=meter, customer=customer, start=start, end=end)
                wanted = reference.quantity(meter, customer, start, end)
                assert found == wanted, (
                    meter.aggregation,
                    meter.filter,
                    meter.group_by,
                    meter.carry_forward,
                    start,
                    end,
                )


def test_the_roller_moves_every_meter_to_what_is_settled() -> None:
    customer = acme()
    one, two = a_meter("count"), a_meter("sum")
    store(customer, [(DAY, {"v": 3}), (DAY + timedelta(hours=5), {"v": 4})])
    assert settled_event_id() == newest_event_id()
    assert roll_up() == newest_event_id()
    for meter in (one, two):
        meter.refresh_from_db()
        assert meter.rolled_up_to == newest_event_id()
    assert buckets(two) == [(DAY, 1, D(3)), (DAY + timedelta(hours=5), 1, D(4))]
    assert roll_up() == 0
    store(customer, [(DAY + timedelta(minutes=1), {"v": 10})])
    assert roll_up() == newest_event_id() - one.rolled_up_to
    assert buckets(two) == [(DAY, 2, D(13)), (DAY + timedelta(hours=5), 1, D(4))]


def test_a_meter_made_later_counts_what_came_before_it() -> None:
    customer = acme()
    store(customer, [(DAY, {"v": n}) for n in range(5)])
    roll_up()
    late = a_meter("sum")
    assert quantity(meter=late, customer=customer, start=DAY, end=DAY + timedelta(days=1)) == 10
    roll_up()
    assert quantity(meter=late, customer=customer, start=DAY, end=DAY + timedelta(days=1)) == 10
    assert buckets(late) == [(DAY, 5, D(10))]


def test_counting_hours_again_gives_the_same_buckets() -> None:
    customer, dice = acme(), random.Random(7)
    made = meters()
    store(customer, [(DAY + timedelta(minutes=dice.randrange(300)), {"v": dice.randrange(9)}) for _ in range(60)])
    roll_up()
    for meter in made:
        before = dump(meter)
        with transaction.atomic():
            locked = Meter.objects.select_for_update().get(pk=meter.pk)
            hours = [Hour(customer.pk, DAY + timedelta(hours=n)) for n in range(6)]
            recompute(meter=locked, hours=hours, upto=locked.rolled_up_to)
        assert dump(meter) == before


def test_groups_are_read_apart_and_together() -> None:
    customer = acme()
    meter = a_meter("sum", group_by=["model", "region"])
    store(
        customer,
        [
            (DAY, {"v": 1, "model": "a", "region": "eu"}),
            (DAY, {"v": 2, "model": "a", "region": "us"}),
            (DAY + timedelta(hours=3), {"v": 4, "model": "a", "region": "eu"}),
            (DAY + timedelta(hours=3), {"v": 8, "model": 5}),
            (DAY + timedelta(hours=3), {"v": 16, "model": "5.0"}),
        ],
    )
    wanted = {("a", "eu"): D(5), ("a", "us"): D(2), ("5", None): D(24)}
    for _ in range(2):
        rows = measure(meter=meter, customer=customer, bounds=[DAY, DAY + timedelta(days=1)], grouped=True)
        assert {row.groups: row.quantity for row in rows} == wanted
        assert quantity(meter=meter, customer=customer, start=DAY, end=DAY + timedelta(days=1)) == 31
        roll_up()


def test_a_seat_is_weighed_by_the_hours_it_was_held() -> None:
    customer = acme()
    seats = a_meter("weighted_sum", carry_forward=True)
    store(customer, [(at("2026-03-09T22:00"), {"v": 10}), (at("2026-03-10T06:30"), {"v": 4})])
    # 10 seats for 6.5 hours, then 4 seats for 17.5 hours
    for _ in range(2):
        assert quantity(meter=seats, customer=customer, start=DAY, end=DAY + timedelta(days=1)) == D(135)
        # The day after: 4 seats for 24 hours, with no event of its own
        following = (DAY + timedelta(days=1), DAY + timedelta(days=2))
        assert quantity(meter=seats, customer=customer, start=following[0], end=following[1]) == D(96)
        roll_up()
    days = daily_quantities(
        meter=seats, customer=customer, start=at("2026-03-09"), end=at("2026-03-12"), time_zone="UTC"
    )
    assert [day.quantity for day in days] == [D(20), D(135), D(96)]


def test_days_of_a_zone_off_the_hour_are_cut_exactly() -> None:
    customer = acme()
    meter = a_meter("count")
    # Midnight in Kathmandu is 18:15 UTC.
    store(customer, [(at(f"2026-03-09T{clock}"), {}) for clock in ("18:14:59", "18:15", "18:59", "23:00")])
    for _ in range(2):
        days = daily_quantities(
            meter=meter,
            customer=customer,
            start=at("2026-03-08T18:15"),
            end=at("2026-03-10T18:15"),
            time_zone="Asia/Kathmandu",
        )
        assert [(day.day.isoformat(), day.events) for day in days] == [("2026-03-09", 1), ("2026-03-10", 3)]
        roll_up()


def test_long_groups_and_values_are_told_apart() -> None:
    """An entry of an index has room for 2,704 bytes; a metadata text may have 500 characters of 4 bytes."""
    customer, dice = acme(), random.Random(1)
    long = ["".join(chr(dice.randrange(0x10000, 0x1FFFF)) for _ in range(500)) for _ in range(4)]
    added = a_meter("sum", group_by=["a", "b", "c"])
    distinct, levels = a_meter("unique", group_by=["a"]), a_meter("weighted_sum", group_by=["a", "b", "c"])
    span = [DAY, DAY + timedelta(days=1)]
    store(customer, [(DAY, {"v": text, "a": long[0]}) for text in long])
    store(customer, [(DAY, {"v": 1, "a": long[0], "b": long[1], "c": text}) for text in (*long, long[0])])
    for _ in range(2):
        rows = measure(meter=added, customer=customer, bounds=span, grouped=True)
        assert {row.groups: row.quantity for row in rows} == {
            (long[0], long[1], text): D(2 if text == long[0] else 1) for text in long
        }
        assert quantity(meter=distinct, customer=customer, start=span[0], end=span[1]) == 5
        assert len(measure(meter=levels, customer=customer, bounds=span, grouped=True)) == 4
        roll_up()
    assert not Meter.objects.exclude(roll_failure="").exists()
    assert sum(events for _, events, _ in buckets(added)) == 5


def test_groups_without_a_value_are_no_empty_nor_spelled_out_ones() -> None:
    customer = acme()
    meter = a_meter("sum", group_by=["a", "b"])
    odd: list[dict[str, Any]] = [
        {},
        {"a": ""},
        {"b": ""},
        {"a": "", "b": ""},
        {"a": "NULL", "b": "NULL"},
        {"a": '","'},
        {"a": ",", "b": ","},
        {"a": "{}", "b": "\\"},
        {"a": "x,y"},
        {"a": "x", "b": "y"},
    ]
    wanted = {(given.get("a"), given.get("b")): D(2**n) for n, given in enumerate(odd)}
    assert len(wanted) == len(odd)
    for round_ in (1, 2, 3):
        if round_ < 3:
            store(customer, [(DAY, {"v": 2**n, **given}) for n, given in enumerate(odd)])
        rows = measure(meter=meter, customer=customer, bounds=[DAY, DAY + timedelta(days=1)], grouped=True)
        assert {row.groups: row.quantity for row in rows} == {
            groups: amount * min(round_, 2) for groups, amount in wanted.items()
        }
        roll_up()
    assert len(buckets(meter)) == len(odd)


def test_any_number_of_meters_reads_one_event_name() -> None:
    customer = acme()
    made = [a_meter("sum", filter=GOLD) if n % 3 else a_meter("count") for n in range(180)]
    store(customer, [(DAY, {"v": 3, "tier": "gold"}), (DAY, {"v": 4})])
    assert roll_up() == newest_event_id()
    assert [buckets(meter) for meter in made] == [
        [(DAY, 1, D(3))] if meter.aggregation == "sum" else [(DAY, 2, D(0))] for meter in made
    ]


def test_a_meter_that_cannot_be_counted_stops_no_other(caplog: pytest.LogCaptureFixture) -> None:
    customer = acme()
    first, bad, last = a_meter("sum"), a_meter("sum"), a_meter("count")
    # A tree that no person could have entered.
    Meter.objects.filter(pk=bad.pk).update(filter={"conjunction": "nor", "clauses": []})
    store(customer, [(DAY, {"v": 3})])
    for turn in range(3):
        roll_up()
        for meter in (first, bad, last):
            meter.refresh_from_db()
        assert first.rolled_up_to == last.rolled_up_to == newest_event_id()
        assert (bad.rolled_up_to, first.roll_failure, last.roll_failure) == (0, "", "")
        assert bad.roll_failure
        store(customer, [(DAY, {"v": turn})])
    # Said once, not in each round.
    assert [record.getMessage() for record in caplog.records] == [f"Meter {bad.pk} cannot be rolled up"]
    Meter.objects.filter(pk=bad.pk).update(filter=None)
    roll_up()
    bad.refresh_from_db()
    assert (bad.rolled_up_to, bad.roll_failure) == (newest_event_id(), "")
    assert buckets(bad) == buckets(first)


def test_a_refusal_of_the_database_itself_stops_only_its_meter() -> None:
    customer = acme()
    bad, good = a_meter("sum"), a_meter("sum")
    store(customer, [(DAY, {"v": 3})])
    with connection.cursor() as cursor:
        # An error of the same class as an index entry that is too long; psycopg calls it operational.
        cursor.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE 'too long' USING ERRCODE = 'program_limit_exceeded'; END $$"
        )
        cursor.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON meters_bucket FOR EACH ROW"
            f" WHEN (new.meter_id = {int(bad.pk)}) EXECUTE FUNCTION refuse()"
        )
    assert roll_up() == newest_event_id()
    bad.refresh_from_db()
    assert (bad.rolled_up_to, bad.roll_failure) == (0, "too long")
    assert buckets(good) == [(DAY, 1, D(3))]


def test_a_lost_connection_is_no_fault_of_a_meter(monkeypatch: pytest.MonkeyPatch) -> None:
    meter = a_meter("sum")
    store(acme(), [(DAY, {"v": 3})])

    def lose(*_: object, **__: object) -> int:
        raise OperationalError("the connection is closed")

    monkeypatch.setattr(rollups, "roll_meters", lose)
    with pytest.raises(OperationalError):
        roll_up()
    meter.refresh_from_db()
    assert meter.roll_failure == ""


def test_a_meter_that_catches_up_keeps_no_other_back(monkeypatch: pytest.MonkeyPatch) -> None:
    customer = acme()
    store(customer, [(DAY, {"v": n}) for n in range(100)])
    small = a_meter("sum")
    roll_up()
    monkeypatch.setattr(rollups, "CHUNK", 20)
    late = a_meter("count")
    for turn in range(1, 4):
        store(customer, [(DAY, {"v": 1})])
        assert roll_up() == 20
        small.refresh_from_db()
        late.refresh_from_db()
        assert (small.rolled_up_to, late.rolled_up_to) == (newest_event_id(), 20 * turn)
    # Without time left, the nearest goes first and the next round has its turn.
    store(customer, [(DAY, {"v": 1})])
    assert roll_up(seconds=0) == 1
    late.refresh_from_db()
    assert late.rolled_up_to == 60


def store(customer: Customer, levels: list[tuple[datetime, dict[str, Any]]]) -> None:
    batch = [
        EventInput(
            f"evt_{newest_event_id()}_{n}", customer.public_id, "e", instant.astimezone(UTC).isoformat(), metadata
        )
        for n, (instant, metadata) in enumerate(levels)
    ]
    with transaction.atomic():
        assert store_events(events=batch, now=DAY + timedelta(days=40), backfill=True) == len(batch)


def buckets(meter: Meter) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT hour, events, total FROM meters_bucket WHERE meter_id = %s ORDER BY hour", [meter.pk])
        return list(cursor.fetchall())


def dump(meter: Meter) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT to_jsonb(b) FROM meters_bucket AS b WHERE meter_id = %s ORDER BY customer_id, hour, groups",
            [meter.pk],
        )
        found: list[Any] = list(cursor.fetchall())
        cursor.execute("SELECT to_jsonb(b) FROM meters_bucketvalue AS b WHERE meter_id = %s ORDER BY 1", [meter.pk])
        return found + list(cursor.fetchall())
