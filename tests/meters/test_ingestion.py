from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from django.conf import settings
from django.db import connection, transaction
from hypothesis import given
from hypothesis import strategies as st

from customers.errors import DomainError
from meters.events import get_event, list_events
from meters.ingestion import (
    EARLIEST,
    EventInput,
    EventsRefused,
    decode_batch,
    enter_ingestion,
    event_key,
    ingest_events,
    read_timestamp,
    store_events,
)
from meters.models import Backfill, Event, EventKey
from tests.base import acme, at, globex
from tests.meters.conftest import encode

NOW = at("2026-03-10T12:00:00")
MICROSECOND = timedelta(microseconds=1)


def event(event_id: str = "evt_1", **changes: Any) -> EventInput:
    return EventInput(**{"event_id": event_id, "customer_id": "cus_acme", "event_name": "api.call", **changes})


def store(*events: EventInput, now: datetime = NOW, backfill: bool = False) -> int:
    return store_events(events=events, now=now, backfill=backfill)


@pytest.fixture(autouse=True)
def customer(db: None) -> Any:
    return acme(customer_id="cus_acme")


def stored() -> list[str]:
    return [event.event_id for event in reversed(list_events(offset=0, limit=5000))]


def test_it_stores_an_event_as_it_was_sent(customer: Any) -> None:
    metadata = {"tokens": "1700", "ratio": Decimal("0.10"), "huge": 10**300, "ok": True, "n": -0.5, "é": "☃", "e": ""}
    assert store(event(timestamp="2026-03-10T12:30:00.123456+01:00", metadata=metadata)) == 1
    row = Event.objects.get()
    assert (row.event_id, row.customer, row.event_name) == ("evt_1", customer, "api.call")
    assert row.timestamp == at("2026-03-10T11:30:00.123456")
    assert get_event(event_id="evt_1").metadata == {**metadata, "n": Decimal("-0.5")}
    assert str(get_event(event_id="evt_1").metadata["ratio"]) == "0.10"  # type: ignore[index]
    key = EventKey.objects.get()
    assert (key.key.hex, key.event, key.timestamp) == (event_key("evt_1"), row.pk, row.timestamp)


def test_without_a_timestamp_it_happened_now_and_without_metadata_it_has_none() -> None:
    store(event())
    row = get_event(event_id="evt_1")
    assert (row.timestamp, row.metadata) == (NOW, None)


def test_the_statement_of_a_request_is_planned_once_for_a_connection() -> None:
    # PostgreSQL plans a prepared statement five times with its values, then once for all if that looks no dearer.
    def plans() -> tuple[int, int]:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT coalesce(sum(generic_plans), 0), coalesce(sum(custom_plans), 0) FROM pg_prepared_statements"
                " WHERE statement LIKE '%WITH entered%'"
            )
            generic, custom = cursor.fetchone()
        return generic, custom

    def request(number: int) -> None:
        assert ingest_events(events=[event(f"{number} {each}") for each in range(1 + number % 3)]) == 1 + number % 3

    for number in range(6):
        request(number)
    before = plans()
    for number in range(6, 26):
        request(number)
    assert plans() == (before[0] + 20, before[1])


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00+00:00"),
        ("2026-01-31T12:00:00", "2026-01-31T12:00:00+00:00"),
        ("2026-01-31t12:00:00z", "2026-01-31T12:00:00+00:00"),
        ("2026-01-31 12:00:00+00:00", "2026-01-31T12:00:00+00:00"),
        ("2026-01-31T12:00Z", "2026-01-31T12:00:00+00:00"),
        ("2026-01-31T12:00:00.5-05:30", "2026-01-31T17:30:00.500000+00:00"),
        ("2026-01-31T12:00:00+0530", "2026-01-31T06:30:00+00:00"),
        ("2026-01-31T12:00:00.123456789Z", "2026-01-31T12:00:00.123456+00:00"),
        ("2026-01-31T12:59:59.9999999Z", "2026-01-31T12:59:59.999999+00:00"),
        ("2026-01-31T12:59:59.999999999", "2026-01-31T12:59:59.999999+00:00"),
        ("2026-01-31T12:59:59.9999999999Z", None),
        ("2024-02-29T00:00:00Z", "2024-02-29T00:00:00+00:00"),
        ("2026-02-29T00:00:00Z", None),
        ("2026-01-31T24:00:00Z", None),
        ("2026-01-31T23:59:60Z", None),
        ("2026-01-31", None),
        ("20260131T120000Z", None),
        ("2026-W05-6T12:00:00Z", None),
        ("1767225600", None),
        ("1767225600000", None),
        ("٢٠٢٦-01-31T12:00:00Z", None),
        ("2026-01-31T12:00:00+99:00", None),
        ("0001-01-01T00:00:00+05:00", None),
        ("9999-12-31T23:59:59-05:00", None),
        ("10000-01-01T00:00:00Z", None),
        ("yesterday", None),
        ("", None),
        (" 2026-01-31T12:00:00Z", None),
        ("2026-01-31T12:00:00Z\n", None),
    ],
)
def test_it_reads_times(text: str, instant: str | None) -> None:
    read = read_timestamp(text)
    assert (read and read.isoformat()) == instant


@given(
    moment=st.datetimes(min_value=datetime(1990, 1, 1), max_value=datetime(2200, 1, 1)),  # noqa: DTZ001
    between=st.sampled_from("Tt "),
    digits=st.text("0123456789", max_size=11),
    point=st.sampled_from(".,"),
    zone=st.sampled_from(["", "Z", "z", "+00:00", "-00:00", "+05:30", "-0800", "+14", "+24:00", "+5:30", "Zulu"]),
)
def test_a_time_is_cut_to_the_microsecond_never_rounded(
    moment: datetime, between: str, digits: str, point: str, zone: str
) -> None:
    # `+24:00`, `+5:30` and `Zulu` are no zones; a second has nine digits at most.
    hours = {"+05:30": 5.5, "-0800": -8, "+14": 14}.get(zone, 0)
    good = len(digits) <= 9 and zone not in ("+24:00", "+5:30", "Zulu")
    second = moment.replace(microsecond=0, tzinfo=UTC)
    instant = second + timedelta(microseconds=int(digits[:6].ljust(6, "0"))) - timedelta(hours=hours)
    text = f"{moment:%Y-%m-%d}{between}{moment:%H:%M:%S}{point + digits if digits else ''}{zone}"
    assert read_timestamp(text) == (instant if good else None)


def test_it_reads_python_times_with_and_without_a_zone() -> None:
    assert read_timestamp(datetime(2026, 1, 31, 12)) == at("2026-01-31T12:00")  # noqa: DTZ001
    east = timezone(timedelta(hours=5))
    assert read_timestamp(datetime(2026, 1, 31, 12, tzinfo=east)) == at("2026-01-31T07:00")
    assert read_timestamp(datetime(1, 1, 1, tzinfo=east)) is None


@pytest.mark.parametrize(
    ("timestamp", "accepted"),
    [
        (NOW - settings.LATENESS_WINDOW, True),
        (NOW - settings.LATENESS_WINDOW - MICROSECOND, False),
        (NOW + settings.EVENT_CLOCK_TOLERANCE, True),
        (NOW + settings.EVENT_CLOCK_TOLERANCE + MICROSECOND, False),
        (NOW - timedelta(days=36), False),
    ],
)
def test_an_event_is_neither_too_old_nor_ahead_of_the_clock(timestamp: datetime, accepted: bool) -> None:
    if accepted:
        assert store(event(timestamp=timestamp)) == 1
        return
    with pytest.raises(EventsRefused, match="timestamp is more than") as refused:
        store(event(timestamp=timestamp))
    assert refused.value.errors is not None
    assert [error["code"] for error in refused.value.errors] == ["INVALID_TIMESTAMP"]
    assert stored() == []


@pytest.mark.parametrize(
    ("timestamp", "accepted"),
    [
        (NOW - timedelta(days=3650), True),
        (EARLIEST, True),
        (EARLIEST - MICROSECOND, False),
        (NOW + settings.EVENT_CLOCK_TOLERANCE + MICROSECOND, False),
    ],
)
def test_a_backfill_lifts_the_limit_on_age_and_no_other(timestamp: datetime, accepted: bool) -> None:
    if accepted:
        assert store(event(timestamp=timestamp), backfill=True) == 1
        return
    with pytest.raises(EventsRefused, match="timestamp is"):
        store(event(timestamp=timestamp), backfill=True)


def test_a_backfill_notes_each_customers_span_of_late_events() -> None:
    other = globex(customer_id="cus_globex")
    day = timedelta(days=1)
    store(event("known", timestamp=NOW - 9 * day), backfill=True)
    Backfill.objects.all().delete()
    assert (
        store(
            event("a", timestamp=NOW - 3 * day),
            event("b", timestamp=NOW - 2 * day),
            event("c", timestamp=NOW - settings.LATENESS_WINDOW),  # as any key may send it
            event("known", timestamp=NOW - 9 * day),  # stored before: corrects nothing
            event("d", customer_id=other.public_id, timestamp=NOW),
            backfill=True,
        )
        == 4
    )
    note = Backfill.objects.get()
    assert (note.customer.public_id, note.first, note.last, note.events) == (
        "cus_acme",
        NOW - 3 * day,
        NOW - 2 * day,
        2,
    )
    assert note.seen_at is None


def test_an_ordinary_batch_notes_no_backfill() -> None:
    store(event(timestamp=NOW - settings.LATENESS_WINDOW))
    assert not Backfill.objects.exists()


def test_an_id_counts_once_for_ever() -> None:
    assert store(event("a", event_name="first", metadata={"v": 1}), event("b")) == 2
    # In another month, with another content, for another customer: still the same event.
    globex(customer_id="cus_globex")
    later = NOW + timedelta(days=40)
    assert store(event("a", event_name="second", customer_id="cus_globex"), event("c"), now=later) == 1
    assert store(event("a"), event("b"), event("c"), now=later) == 0
    assert stored() == ["a", "b", "c"]
    assert get_event(event_id="a").event_name == "first"
    assert EventKey.objects.count() == 3


def test_ids_are_told_apart_byte_by_byte() -> None:
    ids = ["a", "A", "a ", " a", "ä", "a\u0308", "\u200ba", "а", "a/b", "a\nb", "ingest"]
    assert store(*[event(event_id) for event_id in ids]) == len(ids)
    assert stored() == ids
    assert [get_event(event_id=event_id).event_id for event_id in ids] == ids


def test_an_id_twice_in_one_batch_refuses_the_batch() -> None:
    with pytest.raises(EventsRefused) as refused:
        store(event("a"), event("b"), event("a"))
    assert refused.value.message == "events[2] (a): the same event_id as events[0]."
    assert (refused.value.code, refused.value.status) == ("DUPLICATE_EVENT_ID", 400)
    assert stored() == []


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"event_id": ""}, "INVALID_EVENT_ID"),
        ({"event_id": "x" * 256}, "INVALID_EVENT_ID"),
        ({"event_id": "a\0b"}, "INVALID_EVENT_ID"),
        ({"event_id": "a\ud800"}, "INVALID_EVENT_ID"),
        ({"event_id": 5}, "INVALID_EVENT_ID"),
        ({"customer_id": ""}, "INVALID_CUSTOMER_ID"),
        ({"customer_id": "a\0"}, "INVALID_CUSTOMER_ID"),
        ({"customer_id": "cus_nobody"}, "CUSTOMER_NOT_FOUND"),
        ({"customer_id": "CUS_ACME"}, "CUSTOMER_NOT_FOUND"),
        ({"event_name": ""}, "INVALID_EVENT_NAME"),
        ({"event_name": "x" * 256}, "INVALID_EVENT_NAME"),
        ({"event_name": "a\0"}, "INVALID_EVENT_NAME"),
        ({"timestamp": "soon"}, "INVALID_TIMESTAMP"),
        ({"timestamp": 5}, "INVALID_TIMESTAMP"),
        ({"metadata": {str(n): n for n in range(51)}}, "INVALID_METADATA"),
        ({"metadata": {"": 1}}, "INVALID_METADATA"),
        ({"metadata": {"k" * 101: 1}}, "INVALID_METADATA"),
        ({"metadata": {"a\0": 1}}, "INVALID_METADATA"),
        ({"metadata": {"k": "x" * 501}}, "INVALID_METADATA"),
        ({"metadata": {"k": "a\0"}}, "INVALID_METADATA"),
        ({"metadata": {"k": "\udfff"}}, "INVALID_METADATA"),
        ({"metadata": {"k": None}}, "INVALID_METADATA"),
        ({"metadata": {"k": {}}}, "INVALID_METADATA"),
        ({"metadata": {"k": [1]}}, "INVALID_METADATA"),
        ({"metadata": {"k": Decimal("1e400")}}, "INVALID_METADATA"),
        ({"metadata": {"k": Decimal("0e400")}}, "INVALID_METADATA"),
        ({"metadata": {"k": Decimal("1e-341")}}, "INVALID_METADATA"),
        ({"metadata": {"k": Decimal("NaN")}}, "INVALID_METADATA"),
        ({"metadata": {"k": float("inf")}}, "INVALID_METADATA"),
        ({"metadata": {"k": 10**308}}, "INVALID_METADATA"),
        ({"metadata": {"k": -(10**308)}}, "INVALID_METADATA"),
        ({"metadata": ["k"]}, "INVALID_METADATA"),
    ],
)
def test_a_wrong_event_refuses_the_whole_batch_and_is_named(changes: dict[str, Any], code: str) -> None:
    batch = [event(f"evt_{index}") for index in range(3)]
    batch[1] = event(**{"event_id": "wrong", **changes})
    with pytest.raises(EventsRefused) as refused:
        store(*batch)
    assert refused.value.errors is not None
    assert [(error["index"], error["code"]) for error in refused.value.errors] == [(1, code)]
    assert (refused.value.code, refused.value.status) == (code, 400)
    assert refused.value.message.startswith("events[1]")
    assert (stored(), EventKey.objects.count()) == ([], 0)
    assert encode(refused.value.errors)  # the answer can be written, whatever the sender put into it


def test_the_limits_themselves_are_allowed() -> None:
    metadata: dict[str, Any] = {f"{n:->100}": "☃" * 500 for n in range(47)}
    metadata |= {"i": 10**308 - 1, "d": Decimal("1e-340"), "w": Decimal(10**307)}
    assert store(event("☃" * 255, event_name="☃" * 255, metadata=metadata)) == 1
    assert get_event(event_id="☃" * 255).metadata == metadata


def test_every_wrong_event_is_listed_at_once() -> None:
    batch = [event(f"evt_{index}") for index in range(1000)]
    batch[731] = event("evt_731", timestamp="soon")
    batch[12] = event("evt_12", customer_id="cus_nobody")
    batch[999] = event("evt_0")
    with pytest.raises(EventsRefused) as refused:
        store(*batch)
    assert refused.value.errors == [
        {
            "index": 12,
            "event_id": "evt_12",
            "code": "CUSTOMER_NOT_FOUND",
            "message": "there is no customer cus_nobody.",
        },
        {
            "index": 731,
            "event_id": "evt_731",
            "code": "INVALID_TIMESTAMP",
            "message": "timestamp must be an ISO 8601 time such as 2026-01-31T12:00:00Z.",
        },
        {"index": 999, "event_id": "evt_0", "code": "DUPLICATE_EVENT_ID", "message": "the same event_id as events[0]."},
    ]
    assert refused.value.message == (
        "events[12] (evt_12): there is no customer cus_nobody. 2 more of the batch cannot be stored either."
    )
    assert stored() == []


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"customer_id": "c" * 256}, "INVALID_CUSTOMER_ID"),
        ({"event_name": "n\0"}, "INVALID_EVENT_NAME"),
        ({"metadata": {"k\0": 1}}, "INVALID_METADATA"),
        ({"metadata": {"good": "v\0"}}, "INVALID_METADATA"),
    ],
)
def test_what_is_wrong_twice_is_told_twice_also_beside_what_is_right(wrong: dict[str, Any], code: str) -> None:
    right = {"metadata": {"good": 1}}
    batch = [event(f"evt_{index}", **(wrong if index in (1, 3) else right)) for index in range(5)]
    with pytest.raises(EventsRefused) as refused:
        store(*batch)
    assert [(error["index"], error["code"]) for error in refused.value.errors or []] == [(1, code), (3, code)]
    assert stored() == []


def test_events_of_one_instant_keep_the_order_they_were_sent_in() -> None:
    ids = [f"evt_{(index * 7919) % 1000:03}" for index in range(1000)]
    store(*[event(event_id) for event_id in ids])
    assert stored() == ids


def test_an_empty_list_stores_nothing() -> None:
    assert store() == 0


def test_the_clock_of_ingestion_is_the_databases_and_moves_on() -> None:
    with transaction.atomic():
        first = enter_ingestion()
        assert abs(first - datetime.now(UTC)) < timedelta(minutes=1)
        assert enter_ingestion() > first


@pytest.mark.django_db(transaction=True)
def test_events_are_stored_inside_a_transaction_only() -> None:
    assert not connection.in_atomic_block
    with pytest.raises(transaction.TransactionManagementError):
        store(event())
    with pytest.raises(transaction.TransactionManagementError):
        enter_ingestion()


# -- reading a body --------------------------------------------------------------------------------------------


def body(*events: dict[str, Any]) -> bytes:
    return encode({"events": list(events)})


PLAIN = {"event_id": "a", "customer_id": "c", "event_name": "n"}


def test_a_body_is_read_exactly() -> None:
    text = (
        b' {"events": [{"event_id":"a","customer_id":"c","event_name":"n","timestamp":"t","metadata":'
        b'{"f":0.1000,"i":123456789012345678901234567890,"e":1e5,"s":"5","b":true,"z":-0}}]} '
    )
    (read,) = decode_batch(text)
    assert read.metadata is not None
    assert (read.event_id, read.customer_id, read.event_name, read.timestamp) == ("a", "c", "n", "t")
    assert [repr(value) for value in read.metadata.values()] == [
        "Decimal('0.1000')",
        "123456789012345678901234567890",
        "Decimal('1E+5')",
        "'5'",
        "True",
        "0",
    ]


@pytest.mark.parametrize(
    "text",
    [
        # White space before a colon, a colon behind a quote inside a text, fields that are null: look closely, accept.
        b'{"events" : [{"event_id" : "a", "customer_id": "c", "event_name": "n"}]}',
        b'{"events": [{"event_id": ":a", "customer_id": "\\":", "event_name": "n", "metadata": {"k": "\\": \\":"}}]}',
        b'{"events": [{"event_id": "a", "customer_id": "c", "event_name": "n", "timestamp": null, "metadata": null}]}',
        b'{"events": [{"event_id": "a", "customer_id": "c", "event_name": "n", "metadata": {"":":", "f": 1.5}}]}',
    ],
)
def test_unusual_bodies_are_accepted(text: bytes) -> None:
    assert len(decode_batch(text)) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b'{"events": [], "events": []}', "“events”"),
        (b'{"events":[{"event_id":"a","customer_id":"c","event_name":"n","event_id":"b"}]}', "events[0]"),
        (b'{"events":[{"event_id":"a","customer_id":"c","event_name":"n","metadata":{"k":1,"k":2}}]}', "events[0] (a)"),
        (
            b'{"events":[{"event_id":"a","customer_id":"c","event_name":"n","metadata":{"k" :1,"k":2}}]}',
            "events[0] (a)",
        ),
        (
            b'{"events":[{"event_id":"a","customer_id":"c","event_name":"n","metadata":{"k"\n:1,"k":2}}]}',
            "events[0] (a)",
        ),
        (
            b'{"events":[{"event_id":"a","customer_id":"c","event_name":"n","metadata":{"k":1,"k"\t:2}}]}',
            "events[0] (a)",
        ),
        (
            b'{"events":[{"event_id":"a","customer_id":"c","event_name":"n","metadata":{"k"\r:1,"k":2}}]}',
            "events[0] (a)",
        ),
        (b'{"events":[{"event_id":"a","customer_id":"c","event_name":"n","metadata":{"k":1,"\\u006b":2}}]}', "(a)"),
    ],
)
def test_a_key_that_stands_twice_in_one_object_is_refused(text: bytes, said: str) -> None:
    with pytest.raises(DomainError, match="stands twice") as refused:
        decode_batch(text)
    assert (refused.value.code, refused.value.status) == ("INVALID_REQUEST_BODY", 422)
    assert said.replace("“", "").replace("”", "") in refused.value.message


def test_a_wrong_shape_deep_in_a_batch_names_the_event() -> None:
    batch: list[dict[str, Any]] = [{**PLAIN, "event_id": f"evt_{index}"} for index in range(1000)]
    batch[731]["event_name"] = 5
    del batch[800]["customer_id"]
    with pytest.raises(DomainError) as refused:
        decode_batch(body(*batch))
    assert refused.value.status == 422
    assert refused.value.message.startswith("events[731] (evt_731): Expected `str`, got `int`")
    assert refused.value.errors is not None
    assert [(error["index"], error["event_id"]) for error in refused.value.errors] == [
        (731, "evt_731"),
        (800, "evt_800"),
    ]


@pytest.mark.parametrize("count", [0, 1001])
def test_a_batch_has_1_to_1000_events(count: int) -> None:
    with pytest.raises(DomainError, match="send 1 to 1000 events") as refused:
        decode_batch(body(*[{**PLAIN, "event_id": str(index)} for index in range(count)]))
    assert refused.value.status == 400
