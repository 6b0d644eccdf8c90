"""Evidence: the raw log counted once more gives the quantity of the buckets, and a digest over the very events."""

import hashlib
import struct
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection, transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meters.evidence import (
    added_up,
    changed_since,
    counted_events,
    event_values,
    evidence,
    known_watermark,
    meter_version,
    newest_watermark,
    recount,
    void_instants,
)
from meters.ingestion import EventInput, store_events
from meters.meters import create_meter
from meters.models import Aggregation, ArchivedMonth, Event
from meters.partitions import MonthArchived
from meters.rollups import newest_event_id, roll_meter, roll_up
from meters.usage import measure
from meters.voids import void_event
from tests.base import acme, at, call_meter, globex, send, token_meter

D = Decimal
pytestmark = pytest.mark.django_db
START, END = at("2026-03-01"), at("2026-04-01")
LATER = at("2026-05-01")


def digest_of(*hashed: bytes) -> str:
    """The reference: SHA-256 of each event as four numbers, added up, each wrapping around at 2^64."""
    lanes = [0, 0, 0, 0]
    for one in hashed:
        lanes = [(lane + part) % 2**64 for lane, part in zip(lanes, struct.unpack(">4q", one), strict=True)]
    return "".join(f"{lane:016x}" for lane in lanes)


def hash_of(event: Event, value: str, groups: str = "{}", text: str = "") -> bytes:
    micros = (event.timestamp - datetime(2000, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    return hashlib.sha256(struct.pack(">qq", event.pk, micros) + f"{value} {groups} {text}".encode()).digest()


def test_the_digest_is_the_sum_of_the_events_hashes() -> None:
    customer, meter = acme(), token_meter(group_by=["model"])
    send(customer, on="2026-03-02", name="token.usage", metadata={"tokens": "2.50", "model": "a b"})
    send(customer, on="2026-03-03", name="token.usage", metadata={"tokens": 7})
    send(globex(), on="2026-03-03", name="token.usage", metadata={"tokens": 8})
    first, second = Event.objects.filter(customer=customer).order_by("id")
    found = evidence(meter=meter, customer=customer, start=START, end=END)
    assert found.events == 2
    assert found.digest == digest_of(hash_of(first, "2.5", '{"a b"}'), hash_of(second, "7", "{NULL}"))
    assert found.watermark == newest_event_id()
    assert found.meter_version == meter_version(meter)


def test_without_an_event_the_digest_is_zero() -> None:
    found = recount(meter=call_meter(), customer=acme(), start=START, end=END)
    assert (found.quantity, found.events, found.evidence.events, found.evidence.digest) == (D(0), 0, 0, "0" * 64)


def test_the_version_says_what_a_meter_counts_and_nothing_else() -> None:
    plain = {"event_name": "e", "aggregation": "last", "property_key": "v"}
    tree = {"conjunction": "and", "clauses": [{"key": "tier", "operator": "equals", "value": "gold"}]}
    changes: list[dict[str, Any]] = [
        {},
        {"event_name": "f"},
        {"aggregation": "max"},
        {"property_key": "w"},
        {"filter": tree},
        {"group_by": ["tier"]},
        {"carry_forward": True},
    ]
    versions = [meter_version(call_meter(**{**plain, **change})) for change in changes]
    assert len(set(versions)) == len(changes)
    # A name or a unit may be changed, and says nothing about what is counted.
    assert meter_version(call_meter(**plain, name="other", measurement_unit="u")) == versions[0]


@pytest.mark.parametrize(
    "tampering",
    [
        "UPDATE meters_event SET metadata = '{\"tokens\": 6}' WHERE id = %s",
        "UPDATE meters_event SET timestamp = timestamp + interval '1 microsecond' WHERE id = %s",
        "UPDATE meters_event SET voided_at = now() WHERE id = %s",
        "UPDATE meters_event SET event_name = 'other' WHERE id = %s",
        "DELETE FROM meters_event WHERE id = %s",
    ],
)
def test_whatever_is_done_to_a_row_shows_in_the_digest(tampering: str) -> None:
    customer, meter = acme(), token_meter()
    for day in (2, 3, 4):
        send(customer, on=f"2026-03-0{day}", name="token.usage", metadata={"tokens": 5})
    before = evidence(meter=meter, customer=customer, start=START, end=END)
    chosen = Event.objects.order_by("id")[1].pk
    with connection.cursor() as cursor:
        cursor.execute(tampering, [chosen])
    after = evidence(meter=meter, customer=customer, start=START, end=END, up_to=before.watermark)
    assert after.digest != before.digest


def test_what_only_looks_different_has_the_same_digest() -> None:
    customer, meter = acme(), token_meter()
    send(customer, on="2026-03-02", name="token.usage", metadata={"tokens": 5, "note": "x"})
    before = evidence(meter=meter, customer=customer, start=START, end=END)
    with connection.cursor() as cursor:
        cursor.execute("""UPDATE meters_event SET metadata = '{"tokens": "5.00", "note": "y"}'""")
    assert evidence(meter=meter, customer=customer, start=START, end=END) == before


def test_two_events_that_swap_their_values_are_noticed() -> None:
    customer, meter = acme(), token_meter()
    send(customer, on="2026-03-02", name="token.usage", metadata={"tokens": 5})
    send(customer, on="2026-03-03", name="token.usage", metadata={"tokens": 6})
    before = recount(meter=meter, customer=customer, start=START, end=END)
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE meters_event SET metadata = jsonb_build_object('tokens', 11 - (metadata ->> 'tokens')::int)"
        )
    after = recount(meter=meter, customer=customer, start=START, end=END)
    assert (after.quantity, after.events) == (before.quantity, before.events) == (D(11), 2)
    assert after.evidence.digest != before.evidence.digest


def test_later_events_and_later_voids_leave_it_as_it_was() -> None:
    customer, meter = acme(), call_meter()
    send(customer, 3, on="2026-03-02")
    issue = at("2026-04-01T01:00")
    before = recount(meter=meter, customer=customer, start=START, end=END)
    mark = before.evidence.watermark
    first, second = Event.objects.order_by("id")[:2]
    void_event(event_id=first.event_id, reason="r", author="a", now=issue + timedelta(days=1))
    send(customer, 2, on="2026-03-05", received="2026-04-10")

    def then() -> Any:
        return recount(meter=meter, customer=customer, start=START, end=END, up_to=mark, voided_before=issue)

    assert then() == before
    # A void that had happened by then does not count.
    void_event(event_id=second.event_id, reason="r", author="a", now=issue - timedelta(seconds=1))
    assert (then().quantity, then().evidence.events) == (D(2), 2)
    today = recount(meter=meter, customer=customer, start=START, end=END)
    assert (today.quantity, today.evidence.events) == (D(3), 3)
    since = changed_since(meter=meter, customer=customer, start=START, end=END, up_to=mark, voided_before=issue)
    assert (since.gone, since.came) == (1, 2)
    assert void_instants(meter=meter, customer=customer, start=START, end=END, up_to=mark, near=issue, limit=5) == [
        issue - timedelta(seconds=1),
        issue + timedelta(days=1),
    ]


def test_a_level_stands_on_the_event_before_the_period_too() -> None:
    customer = acme()
    meter = token_meter(aggregation="last", carry_forward=True)
    send(customer, on="2026-01-10", name="token.usage", metadata={"tokens": 3})
    send(customer, on="2026-02-10", name="token.usage", metadata={"tokens": 4})
    held = recount(meter=meter, customer=customer, start=START, end=END)
    assert (held.quantity, held.events, held.evidence.events) == (D(4), 0, 1)
    (event,) = counted_events(meter=meter, customer=customer, start=START, end=END, up_to=held.evidence.watermark)
    assert (event.before, event.value, event.timestamp) == (True, D(4), at("2026-02-10"))
    # Of nothing that came before it.
    assert held.evidence.digest == digest_of(hash_of(Event.objects.latest("id"), "4"))


def test_several_groups_each_begin_with_what_they_held() -> None:
    customer = acme()
    meter = token_meter(aggregation="weighted_sum", carry_forward=True, group_by=["disk"])
    for day, disk, size in (("01-10", "a", 3), ("02-10", "b", 5), ("02-20", "a", 4)):
        send(customer, on=f"2026-{day}", name="token.usage", metadata={"tokens": size, "disk": disk})
    send(customer, on="2026-03-02", name="token.usage", metadata={"tokens": 1, "disk": "a"})
    found = recount(meter=meter, customer=customer, start=START, end=END, keys=["disk"])
    # 744 hours in March: disk a holds 4 for 24 of them and 1 for 720; disk b holds 5 for all.
    assert [(group.groups, group.quantity, group.events) for group in found.groups] == [
        (("a",), D(4 * 24 + 720), 1),
        (("b",), D(5 * 744), 0),
    ]
    assert found.evidence.events == 3
    # As one series a level ends whatever held before, of whichever disk.
    whole = recount(meter=meter, customer=customer, start=START, end=END)
    assert (whole.quantity, whole.evidence) == (D(4 * 24 + 720), found.evidence)


def test_a_month_that_left_the_log_cannot_be_counted_again() -> None:
    customer, meter = acme(), call_meter()
    send(customer, on="2026-03-02")
    mark = newest_watermark()
    ArchivedMonth.objects.create(
        month=at("2026-03-01").date(), path="x", events=1, checksum="", archived_at=LATER, dropped_at=LATER
    )
    with pytest.raises(MonthArchived, match="March 2026 was archived and dropped"):
        recount(meter=meter, customer=customer, start=START, end=END, up_to=mark)
    with pytest.raises(MonthArchived):
        list(counted_events(meter=meter, customer=customer, start=START, end=END, up_to=mark))
    assert recount(meter=meter, customer=customer, start=END, end=LATER, up_to=mark).events == 0


def test_a_level_goes_on_from_a_month_that_left_the_log() -> None:
    customer = acme()
    meter = token_meter(aggregation="last", carry_forward=True)
    send(customer, on="2026-02-10", name="token.usage", metadata={"tokens": 4})
    roll_up()
    before = recount(meter=meter, customer=customer, start=START, end=END)
    ArchivedMonth.objects.create(
        month=at("2026-02-01").date(), path="x", events=1, checksum="", archived_at=LATER, dropped_at=LATER
    )
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM meters_event")
    assert recount(meter=meter, customer=customer, start=START, end=END) == before
    (event,) = counted_events(meter=meter, customer=customer, start=START, end=END, up_to=before.evidence.watermark)
    assert (event.value, event.event_id, event.before) == (D(4), "", True)
    # As of before its arrival nobody can say what held.
    with pytest.raises(MonthArchived, match="February"):
        recount(meter=meter, customer=customer, start=START, end=END, up_to=0)


def test_events_are_listed_oldest_first_and_page_by_page() -> None:
    customer, meter = acme(), token_meter()
    for minute in range(7):
        # Of one instant, so that the id tells them apart.
        send(customer, on="2026-03-02", name="token.usage", metadata={"tokens": minute})
    mark = newest_watermark()
    span: dict[str, Any] = {"meter": meter, "customer": customer, "start": START, "end": END, "up_to": mark}
    everything = list(counted_events(**span))
    assert [event.value for event in everything] == [0, 1, 2, 3, 4, 5, 6]
    pages: list[Any] = []
    after = None
    while page := list(counted_events(**span, after=after, limit=3)):
        pages.append([event.id for event in page])
        after = (page[-1].timestamp, page[-1].id)
    assert [len(page) for page in pages] == [3, 3, 1]
    assert [pk for page in pages for pk in page] == [event.id for event in everything]
    assert event_values(meter=meter, customer=customer, start=START, end=END) == [((), D(n)) for n in range(7)]


def test_a_watermark_at_hand_is_never_above_what_is_settled() -> None:
    customer, meter = acme(), call_meter()
    send(customer, 3, on="2026-03-02")
    assert known_watermark() == 0
    roll_meter(meter_id=meter.pk, settled=newest_event_id(), chunk=2)
    assert known_watermark() <= newest_event_id()
    roll_up()
    assert known_watermark() == newest_watermark() == newest_event_id()


# -- the raw log and the buckets say the same ------------------------------------------------------------------

KINDS: list[tuple[str, dict[str, Any]]] = [
    (aggregation, changes)
    for aggregation in Aggregation.values
    for changes in (
        {},
        {"group_by": ["tier", "zone"]},
        {"carry_forward": True},
        {"carry_forward": True, "group_by": ["tier"]},
    )
    if "carry_forward" not in changes or aggregation in ("last", "weighted_sum")
]
WINDOWS = [
    (START, START + timedelta(days=1)),
    (START + timedelta(minutes=90), START + timedelta(hours=4, microseconds=1)),
    (START + timedelta(hours=1), START + timedelta(hours=2)),
    (START + timedelta(days=2), START + timedelta(days=3)),
]
numbers = st.one_of(st.integers(-5, 9), st.sampled_from([D("0.1"), D("2.50"), "5.0", "5", "many", True, 10**20]))
metadatas = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {}, optional={"v": numbers, "tier": st.sampled_from(["gold", 1, "1.0", ""]), "zone": st.sampled_from("ab")}
    ),
)
offsets = st.one_of(
    st.sampled_from([0, 1, 3_599_999_999, 3_600_000_000, 5_400_000_000, 86_399_999_999]),
    st.integers(0, 6 * 3600).map(lambda seconds: seconds * 1_000_000),
)


@settings(
    max_examples=60,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.sampled_from(KINDS),
    st.lists(st.tuples(st.booleans(), offsets, metadatas), max_size=14),
    st.sets(st.integers(0, 13), max_size=4),
    st.integers(0, 14),
)
def test_a_recount_says_what_the_buckets_say_now_and_said_then(
    kind: tuple[str, dict[str, Any]],
    script: Sequence[tuple[bool, int, dict[str, Any] | None]],
    voids: set[int],
    first: int,
) -> None:
    """Some events, some voids, a look; then the others: the look can be taken again whenever one likes."""
    with transaction.atomic():
        point = transaction.savepoint()
        try:
            _play(kind, script, voids, first)
        finally:
            transaction.savepoint_rollback(point)


def _play(kind: tuple[str, dict[str, Any]], script: Sequence[Any], voids: set[int], first: int) -> None:
    aggregation, changes = kind
    customers = [acme(), globex()]
    meter = create_meter(
        name="m",
        event_name="e",
        aggregation=aggregation,
        property_key="" if aggregation == "count" else "v",
        measurement_unit="u",
        **changes,
    )
    issue = LATER

    def store(part: Sequence[Any], begin: int) -> None:
        events = []
        for index, (who, offset, metadata) in enumerate(part):
            instant = START + timedelta(microseconds=offset)
            events.append(
                EventInput(f"evt_{begin + index}", customers[who].public_id, "e", instant.isoformat(), metadata)
            )
        if events:
            store_events(events=events, now=issue, backfill=True)

    def looks() -> list[Any]:
        return [
            recount(meter=meter, customer=customer, start=start, end=end, up_to=mark, keys=keys, voided_before=issue)
            for customer in customers
            for start, end in WINDOWS
            for keys in split
        ]

    split: list[list[str] | None] = [None, *([list(meter.group_by)] if meter.group_by else [])]
    store(script[:first], 0)
    roll_up()
    for chosen in voids:
        if chosen < min(first, len(script)):
            void_event(event_id=f"evt_{chosen}", reason="r", author="a", now=issue - timedelta(seconds=1))
    mark = newest_watermark()
    before = looks()
    found = iter(before)
    for customer in customers:
        for start, end in WINDOWS:
            for keys in split:
                again = next(found)
                rows = measure(meter=meter, customer=customer, bounds=[start, end], grouped=keys is not None)
                assert {row.groups: (row.quantity, row.events) for row in rows} == {
                    group.groups: (group.quantity, group.events) for group in again.groups
                }
                listed = list(
                    counted_events(meter=meter, customer=customer, start=start, end=end, up_to=mark, keys=keys)
                )
                assert len(listed) == again.evidence.events
                if keys is None or not meter.carry_forward:
                    assert sum(not event.before for event in listed) == again.events
                # What the events bring adds up to the quantity, group by group.
                brought: dict[tuple[str | None, ...], list[Decimal]] = {}
                for event in listed:
                    brought.setdefault(event.groups if keys else (), []).append(event.brings)
                assert {place: added_up(meter, sum(parts, D(0)), len(parts)) for place, parts in brought.items()} == {
                    group.groups: group.quantity for group in again.groups
                }
    store(script[first:], first)
    for chosen in range(len(script)):
        if chosen not in voids and chosen % 2:
            void_event(event_id=f"evt_{chosen}", reason="r", author="a", now=issue)
    assert looks() == before
