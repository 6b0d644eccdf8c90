from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from customers.models import Customer
from meters.ingestion import EventInput, store_events
from meters.meters import archive_meter, create_meter
from meters.models import Event, Meter
from meters.usage import (
    CustomerQuantity,
    DayQuantity,
    DayVolume,
    MeterActivity,
    Outcome,
    Verdict,
    customer_quantities,
    daily_quantities,
    event_volume,
    judge,
    meter_activity,
    meter_verdict,
    meter_verdicts,
    quantities,
    quantity,
    unmetered_event_names,
)
from tests.base import acme, at, globex

pytestmark = pytest.mark.django_db

D = Decimal
START, END = at("2026-03-01"), at("2026-04-01")
MICROSECOND = timedelta(microseconds=1)
Send = Callable[..., None]


@pytest.fixture
def send() -> Send:
    sent = 0

    def one(customer: Customer, on: str | datetime, metadata: dict[str, Any] | None = None, name: str = "e") -> None:
        nonlocal sent
        sent += 1
        instant = at(on) if isinstance(on, str) else on
        event = EventInput(f"evt_{sent}", customer.public_id, name, instant, metadata)
        assert store_events(events=[event], now=max(instant, END), backfill=True) == 1

    return one


def meter(aggregation: str = "count", key: str = "v", **changes: Any) -> Meter:
    return create_meter(
        **{
            "name": aggregation,
            "event_name": "e",
            "aggregation": aggregation,
            "property_key": key,
            "measurement_unit": "units",
            **changes,
        }
    )


def four() -> list[Meter]:
    return [meter(kind) for kind in ("count", "sum", "max", "last")]


def all_four(meters: list[Meter], customer: Customer, start: datetime = START, end: datetime = END) -> list[Decimal]:
    """Through the question about several meters, which must agree with the question about one."""
    together = quantities(meters=meters, customer=customer, start=start, end=end)
    one_by_one = {one.pk: quantity(meter=one, customer=customer, start=start, end=end) for one in meters}
    assert together == one_by_one
    return [together[one.pk] for one in meters]


@pytest.mark.parametrize(
    ("aggregation", "values", "expected"),
    [
        # The seed's own examples.
        ("sum", ["1700"], D(1700)),
        ("sum", ["2500", "1500"], D(4000)),
        ("sum", [1073741824, 536870912], D(1610612736)),
        ("max", [15, 23, 18], D(23)),
        ("last", ["4294967296", "5368709120"], D(5368709120)),
        ("count", [1, 1, 1], D(3)),
        # Exact, whatever the size.
        ("sum", [D("0.1"), D("0.2")], D("0.3")),
        ("sum", [0.1] * 10, D("1.0")),
        ("sum", [10**300, 1, -(10**300)], D(1)),
        ("sum", [2**53, 1], D(2**53 + 1)),
        ("max", ["9", "10"], D(10)),
        ("max", [-3, -2], D(-2)),
        # What is no number is left out; count does not look.
        ("sum", [True, "x", "", " 5", "NaN", "Infinity", "1e400", "٣", 7], D(7)),
        ("max", [True, "zzz", 2], D(2)),
        ("last", [4, "x"], D(4)),
        ("count", [True, "x", 7], D(3)),
    ],
)
def test_a_quantity_is_the_aggregation_of_the_values(
    send: Send, aggregation: str, values: list[Any], expected: Decimal
) -> None:
    customer = acme()
    for minute, value in enumerate(values):
        send(customer, START + timedelta(minutes=minute), {"v": value})
    assert quantity(meter=meter(aggregation), customer=customer, start=START, end=END) == expected


def test_without_an_event_every_quantity_is_zero() -> None:
    assert all_four(four(), acme()) == [D(0)] * 4
    assert quantities(meters=[], customer=acme(), start=START, end=END) == {}


def test_events_without_the_key_are_left_out_and_counted_by_count(send: Send) -> None:
    customer = acme()
    send(customer, "2026-03-02", {"v": 5})
    send(customer, "2026-03-03", {"V": 9})
    send(customer, "2026-03-04", None)
    assert all_four(four(), customer) == [D(3), D(5), D(5), D(5)]


def test_a_span_holds_its_start_and_not_its_end(send: Send) -> None:
    customer = acme()
    for instant, value in [
        (START - MICROSECOND, 1),
        (START, 20),
        (END - MICROSECOND, 300),
        (END, 4000),
    ]:
        send(customer, instant, {"v": value})
    meters = four()
    assert all_four(meters, customer) == [D(2), D(320), D(300), D(300)]
    assert all_four(meters, customer, END, END + MICROSECOND) == [D(1), D(4000), D(4000), D(4000)]
    assert all_four(meters, customer, START, START) == [D(0)] * 4
    assert all_four(meters, customer, END, START) == [D(0)] * 4


def test_nobody_pays_for_anothers_events_nor_for_another_name(send: Send) -> None:
    mine, theirs = acme(), globex()
    send(mine, "2026-03-02", {"v": 5})
    send(theirs, "2026-03-02", {"v": 7})
    send(mine, "2026-03-02", {"v": 11}, name="E")
    send(mine, "2026-03-02", {"v": 13}, name="e ")
    meters = four()
    assert all_four(meters, mine) == [D(1), D(5), D(5), D(5)]
    assert all_four(meters, theirs) == [D(1), D(7), D(7), D(7)]


def test_the_last_value_is_the_latest_by_event_time_and_then_by_arrival(send: Send) -> None:
    customer = acme()
    send(customer, "2026-03-05", {"v": 1})
    send(customer, "2026-03-09", {"v": 2})
    send(customer, "2026-03-09", {"v": 3})
    send(customer, "2026-03-07", {"v": 4})  # arrives last, happened before
    assert quantity(meter=meter("last"), customer=customer, start=START, end=END) == D(3)


def test_a_filter_decides_what_counts(send: Send) -> None:
    customer = acme()
    rule = {
        "conjunction": "and",
        "clauses": [
            {"key": "tier", "operator": "equals", "value": "premium"},
            {"key": "status", "operator": "equals", "value": 200},
        ],
    }
    send(customer, "2026-03-02", {"tier": "premium", "status": 200, "v": 5})
    send(customer, "2026-03-02", {"tier": "premium", "status": "200", "v": 6})
    send(customer, "2026-03-02", {"tier": "premium", "v": 100})
    send(customer, "2026-03-02", {"tier": "free", "status": 200, "v": 100})
    assert quantity(meter=meter("sum", filter=rule), customer=customer, start=START, end=END) == D(11)
    assert quantity(meter=meter("count", filter=rule), customer=customer, start=START, end=END) == D(2)


@pytest.mark.parametrize(
    "key", ["v'; DROP TABLE meters_event; --", 'v"x', "a'b", "%s", "%(x)s", "{}", "a.b", "$.v", "☃"]
)
def test_a_key_is_only_ever_a_name(send: Send, key: str) -> None:
    customer = acme()
    send(customer, "2026-03-02", {key: 5, "v": 100})
    rule = {"conjunction": "or", "clauses": [{"key": key, "operator": "equals", "value": "5"}]}
    assert quantity(meter=meter("sum", key, filter=rule), customer=customer, start=START, end=END) == D(5)


def test_each_meter_is_answered_by_one_statement(send: Send, django_assert_num_queries: Any) -> None:
    customer = acme()
    send(customer, "2026-03-02", {"v": 5})
    meters = [*four(), *four()]
    with django_assert_num_queries(len(meters)):
        assert len(quantities(meters=meters, customer=customer, start=START, end=END)) == 8


def test_the_tail_is_read_by_arrival_and_by_nothing_else(send: Send) -> None:
    """No statistics here, as in a month that has just begun: the customer's period must not be walked all the same."""
    customer = acme()
    for month in ("2026-02-10", "2026-03-10", "2026-04-10"):
        send(customer, month, {"v": 1})
    read = meter("sum")
    with CaptureQueriesContext(connection) as captured:
        quantity(meter=read, customer=customer, start=START, end=END)
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute("EXPLAIN " + captured[0]["sql"])
        plan = "\n".join(line for (line,) in cursor.fetchall())
    for month in ("2026_02", "2026_03", "2026_04"):
        assert f"meters_event_{month}_customer_id_id_idx" in plan
    assert "event_name_timestamp_idx" not in plan
    assert "meters_event_2026_03_pkey" not in plan


# -- by day ----------------------------------------------------------------------------------------------------


def test_a_day_begins_at_midnight_of_the_time_zone(send: Send) -> None:
    customer = acme()
    for instant in ("2026-03-28T22:59:59", "2026-03-28T23:00", "2026-03-29T21:59:59", "2026-03-29T22:00"):
        send(customer, instant, {"v": 1})
    # In Berlin the clocks go forward on 29 March: that day has 23 hours.
    start, end = at("2026-03-28T00:00+01:00"), at("2026-03-31T00:00+02:00")
    days = daily_quantities(meter=meter("sum"), start=start, end=end, time_zone="Europe/Berlin")
    assert days == [
        DayQuantity(date(2026, 3, 28), D(1), 1),
        DayQuantity(date(2026, 3, 29), D(2), 2),
        DayQuantity(date(2026, 3, 30), D(1), 1),
    ]
    assert [day.quantity for day in daily_quantities(meter=meter("sum"), start=start, end=end, time_zone="UTC")] == [
        D(0),  # 27 March, the hour before midnight UTC
        D(2),
        D(2),
        D(0),
    ]


def test_every_day_is_there_and_the_ends_may_cut_one(send: Send) -> None:
    customer = acme()
    send(customer, "2026-03-02T08:00", {"v": 5})
    send(customer, "2026-03-02T10:00", {"v": 7})
    send(customer, "2026-03-04T10:00", {"v": 9})
    send(customer, "2026-03-04T12:00", {"v": 11})
    start, end = at("2026-03-02T09:00"), at("2026-03-04T12:00")
    found = daily_quantities(meter=meter("sum"), customer=customer, start=start, end=end, time_zone="UTC")
    assert found == [
        DayQuantity(date(2026, 3, 2), D(7), 1),
        DayQuantity(date(2026, 3, 3), D(0), 0),
        DayQuantity(date(2026, 3, 4), D(9), 1),
    ]
    assert event_volume(start=start, end=end, time_zone="UTC") == [
        DayVolume(date(2026, 3, 2), 1),
        DayVolume(date(2026, 3, 3), 0),
        DayVolume(date(2026, 3, 4), 1),
    ]
    assert daily_quantities(meter=meter(), start=end, end=end, time_zone="UTC") == []
    assert event_volume(start=end, end=start, time_zone="UTC") == []


@pytest.mark.parametrize(
    ("aggregation", "first", "second"),
    [("count", 3, 3), ("sum", 5 + 4 + 30, 1 + 2 + 3), ("max", 5 + 30, 2 + 3), ("last", 4 + 30, 2 + 3)],
)
def test_over_all_customers_a_day_is_the_sum_of_theirs(send: Send, aggregation: str, first: int, second: int) -> None:
    one, other = acme(), globex()
    send(one, "2026-03-02T08:00", {"v": 5})
    send(one, "2026-03-02T09:00", {"v": 4})
    send(other, "2026-03-02T07:00", {"v": 30})
    send(one, "2026-03-03T08:00", {"v": 1})
    send(one, "2026-03-03T09:00", {"v": 2})
    send(other, "2026-03-03T09:00", {"v": 3})
    read = meter(aggregation)
    start, end = at("2026-03-02"), at("2026-03-04")
    both = daily_quantities(meter=read, start=start, end=end, time_zone="UTC")
    assert [day.quantity for day in both] == [D(first), D(second)]
    alone = [
        daily_quantities(meter=read, customer=customer, start=start, end=end, time_zone="UTC")
        for customer in (one, other)
    ]
    assert [day.quantity for day in both] == [a.quantity + b.quantity for a, b in zip(*alone, strict=True)]


@pytest.mark.parametrize("zone", ["Pacific/Apia", "America/Sao_Paulo", "Australia/Lord_Howe", "Asia/Kathmandu"])
def test_days_cover_every_event_once_in_odd_zones(send: Send, zone: str) -> None:
    customer = acme()
    start, end = at("2011-12-28"), at("2012-01-02")
    for hour in range(0, 24 * 5, 3):
        send(customer, start + timedelta(hours=hour), {"v": 1})
    days = daily_quantities(meter=meter("sum"), start=start, end=end, time_zone=zone)
    assert sum(day.quantity for day in days) == 40
    assert [day.day for day in days] == sorted({day.day for day in days})


# -- who and what ----------------------------------------------------------------------------------------------


def test_customers_are_listed_by_how_much_they_used(send: Send) -> None:
    one, other, _ = acme(), globex(), acme()
    send(one, "2026-03-02", {"v": 5})
    send(one, "2026-03-05", {"v": "x"})
    send(other, "2026-03-03", {"v": 3})
    send(other, "2026-03-04", {"v": 4})
    found = customer_quantities(meter=meter("sum"), start=START, end=END)
    assert found == [
        CustomerQuantity(other, D(7), 2, at("2026-03-04")),
        CustomerQuantity(one, D(5), 1, at("2026-03-02")),
    ]
    assert customer_quantities(meter=meter("sum"), start=START, end=END, limit=1) == found[:1]
    assert [row.quantity for row in customer_quantities(meter=meter("count"), start=START, end=END)] == [D(2), D(2)]
    assert customer_quantities(meter=meter("sum"), start=END, end=END) == []


def test_volume_counts_every_event_and_can_be_narrowed(send: Send) -> None:
    one, other = acme(), globex()
    send(one, "2026-03-02")
    send(other, "2026-03-02")
    send(one, "2026-03-02", name="f")
    day = (at("2026-03-02"), at("2026-03-03"))

    def volume(**narrowed: Any) -> list[int]:
        return [found.events for found in event_volume(start=day[0], end=day[1], time_zone="UTC", **narrowed)]

    assert volume() == [3]
    assert volume(customer=one) == [2]
    assert volume(event_name="e") == [2]
    assert volume(customer=one, event_name="f") == [1]
    assert volume(customer=other, event_name="f") == [0]


def test_every_event_of_a_name_is_accounted_for(send: Send) -> None:
    customer = acme()
    rule = {"conjunction": "and", "clauses": [{"key": "ok", "operator": "equals", "value": True}]}
    for metadata in ({"ok": True, "v": 1}, {"ok": True, "v": "2"}, {"ok": True, "v": "two"}, {"ok": True, "v": True}):
        send(customer, "2026-03-02", metadata)
    for metadata in ({"ok": True}, {"ok": False, "v": 1}, {"v": 1}):
        send(customer, "2026-03-02", metadata)
    send(customer, "2026-03-02", None)
    send(customer, "2026-03-02", {"ok": True, "v": 1}, name="f")
    assert meter_activity(meter=meter("sum", filter=rule), start=START, end=END) == MeterActivity(
        seen=8, counted=2, filtered_out=3, unreadable=2, missing=1
    )
    assert meter_activity(meter=meter("count", filter=rule), start=START, end=END) == MeterActivity(8, 5, 3, 0, 0)
    assert meter_activity(meter=meter("max"), start=START, end=END) == MeterActivity(8, 4, 0, 2, 2)
    assert meter_activity(meter=meter("max"), start=END, end=END) == MeterActivity(0, 0, 0, 0, 0)


def test_names_that_no_meter_reads_are_found(send: Send) -> None:
    customer = acme()
    for name in ("e", "f", "f", "g", "E"):
        send(customer, "2026-03-02", name=name)
    assert unmetered_event_names(start=START, end=END) == [("f", 2), ("E", 1), ("e", 1), ("g", 1)]
    archive_meter(meter=meter(), now=END)
    assert unmetered_event_names(start=START, end=END) == [("f", 2), ("E", 1), ("g", 1)]
    assert unmetered_event_names(start=END, end=END) == []


def test_a_verdict_says_what_became_of_an_event_and_why(send: Send, django_assert_num_queries: Any) -> None:
    customer = acme()
    rule = {"conjunction": "and", "clauses": [{"key": "tier", "operator": "equals", "value": "premium"}]}
    exact = D("0.1234567890123456789012345")
    for metadata in (
        {"tier": "premium", "v": exact},
        {"tier": "free", "v": 1},
        {"tier": "premium"},
        {"tier": "premium", "v": "many"},
    ):
        send(customer, "2026-03-02", metadata)
    send(customer, "2026-03-02", None, name="f")
    events = list(Event.objects.order_by("id"))
    reader = meter("sum", filter=rule)
    with django_assert_num_queries(1):
        verdicts = meter_verdicts(meter=reader, events=events)
    assert verdicts == [
        Verdict(Outcome.COUNTED, exact, f"{exact} is added to the sum."),
        Verdict(Outcome.FILTERED_OUT, None, "Left out by the filter: tier is “free” and is not “premium”."),
        Verdict(Outcome.MISSING, None, "Left out: it has no value under “v”."),
        Verdict(Outcome.UNREADABLE, None, "Left out: v is “many”, which is not a number."),
        Verdict(Outcome.OTHER_NAME, None, "The meter reads events named “e”, not “f”."),
    ]
    assert meter_verdict(meter=reader, event=events[1]) == verdicts[1]
    assert meter_verdict(meter=meter("count"), event=events[3]) == Verdict(Outcome.COUNTED, D(1), "Counted as 1 event.")
    assert judge(meter=meter("last"), event_name="e", metadata={"v": "5"}) == Verdict(
        Outcome.COUNTED, D(5), "5 is taken unless a later value follows."
    )
    assert meter_verdicts(meter=reader, events=[]) == []
