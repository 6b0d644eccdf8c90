"""A void event stays in the log and counts for nothing: buckets, groups and levels follow in the same moment."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import connection

from customers.errors import Conflict, DomainError, NotFound
from customers.models import Customer
from meters.ingestion import EventInput, store_events
from meters.meters import archive_meter
from meters.models import ArchivedMonth, Backfill, Event, EventVoid, Meter
from meters.partitions import partition_name
from meters.rollups import roll_up
from meters.usage import Outcome, event_verdicts, meter_activity, meter_verdict, quantity
from meters.voids import MAX_REASON, EventAlreadyVoided, EventArchived, Selection, void_event, void_events
from tests.base import acme, at, call_meter, globex, token_meter
from tests.meters.test_rollups import a_meter, dump, meters

pytestmark = pytest.mark.django_db
D = Decimal
DAY, NOW = at("2026-03-10"), at("2026-03-20")
SPAN = (DAY, DAY + timedelta(days=1))


def store(customer: Customer, *events: tuple[str, float, dict[str, Any] | None], name: str = "e") -> None:
    """(event id, hours after the day's beginning, metadata) each."""
    batch = [
        EventInput(event_id, customer.public_id, name, DAY + timedelta(hours=hour), metadata)
        for event_id, hour, metadata in events
    ]
    assert store_events(events=batch, now=NOW, backfill=True) == len(batch)


def void(event_id: str, reason: str = "sent twice", author: str = "key one") -> EventVoid:
    return void_event(event_id=event_id, reason=reason, author=author, now=NOW)


def used(meter: Meter, customer: Customer) -> Decimal:
    return quantity(meter=meter, customer=customer, start=SPAN[0], end=SPAN[1])


@pytest.mark.parametrize("rolled", ["before", "between", "never"])
def test_every_kind_of_meter_forgets_a_void_event(rolled: str) -> None:
    """As if it had never been sent: compared with a customer to whom it never was."""
    with_it, without_it = acme(), globex()
    made = meters()
    shared: list[tuple[str, float, dict[str, Any] | None]] = [
        ("1", 1.0, {"v": 3, "tier": "gold"}),
        ("2", 1.5, {"v": 5, "tier": 1}),
        ("3", 4.0, {"v": 2}),
    ]
    store(with_it, *shared)
    store(without_it, *((f"other {event_id}", hour, metadata) for event_id, hour, metadata in shared))
    if rolled == "before":
        roll_up()
    store(with_it, ("wrong", 1.75, {"v": 9, "tier": "gold"}), ("wrong too", 6.0, {"v": -4, "tier": "gold"}))
    if rolled != "never":
        roll_up()
    assert all(used(meter, with_it) != used(meter, without_it) for meter in made)
    void("wrong")
    void("wrong too")
    for _ in range(2):
        for meter in made:
            meter.refresh_from_db()
            assert used(meter, with_it) == used(meter, without_it), meter.aggregation
            assert used(meter, with_it) != 0
        roll_up()


def test_the_event_stays_with_its_reason_its_author_and_its_time() -> None:
    customer = acme()
    operator = get_user_model().objects.create_user("ada", password=None)
    store(customer, ("a/1 ü", 1, {"v": 1}), ("b", 2, None))
    row = void_event(event_id="a/1 ü", reason="  a test run ", author="ada", operator=operator, now=NOW)
    event, other = Event.objects.get(event_id="a/1 ü"), Event.objects.get(event_id="b")
    assert (event.voided_at, other.voided_at) == (NOW, None)
    assert EventVoid.objects.get() == row
    assert (row.event, row.event_id, row.customer, row.timestamp) == (event.pk, "a/1 ü", customer, event.timestamp)
    assert (row.reason, row.author, row.operator, row.voided_at) == ("a test run", "ada", operator, NOW)


def test_an_event_is_voided_once_and_the_first_reason_stands() -> None:
    store(acme(), ("a", 1, None))
    void("a")
    with pytest.raises(EventAlreadyVoided, match="2026-03-20 00:00 UTC by key one: sent twice"):
        void("a", "another reason", "key two")
    assert EventVoid.objects.get().reason == "sent twice"
    assert EventAlreadyVoided.status == 409


def test_what_was_voided_is_not_stored_again_under_its_id() -> None:
    customer = acme()
    store(customer, ("a", 1, {"v": 5}))
    void("a")
    assert store_events(events=[EventInput("a", customer.public_id, "e", DAY)], now=NOW, backfill=True) == 0
    assert used(a_meter("count"), customer) == 0


@pytest.mark.parametrize("event_id", ["nobody's", "", "\ud800", "a\0"])
def test_an_event_that_is_not_there_is_not_found(event_id: str) -> None:
    store(acme(), ("a", 1, None))
    with pytest.raises(NotFound):
        void(event_id)
    assert not EventVoid.objects.exists()


@pytest.mark.parametrize("reason", ["", "  ", "x" * (MAX_REASON + 1), "a\0b"])
def test_a_void_needs_a_reason(reason: str) -> None:
    store(acme(), ("a", 1, None))
    with pytest.raises(DomainError, match="reason"):
        void("a", reason)
    assert Event.objects.get().voided_at is None


def test_what_was_dropped_from_the_log_cannot_be_voided() -> None:
    customer = acme()
    store(customer, ("a", 1, None))
    march = DAY.date().replace(day=1)
    ArchivedMonth.objects.create(month=march, path="x", events=1, checksum="0" * 64, archived_at=NOW, dropped_at=NOW)
    with connection.cursor() as cursor:
        cursor.execute(f"DROP TABLE {partition_name(march)}")
    with pytest.raises(EventArchived, match="March 2026"):
        void("a")
    for end in (SPAN[1], at("2026-04-01")):
        with pytest.raises(EventArchived, match="begin at 2026-04-01"):
            void_all(Selection(at("2026-02-01"), end, customer=customer))
    assert void_all(Selection(at("2026-04-01"), at("2026-05-01"), customer=customer)).events == 0
    assert not EventVoid.objects.exists()


def test_an_archive_that_no_longer_tells_the_truth_is_forgotten() -> None:
    """A month still in the log may be voided; it must be archived again before it is dropped."""
    store(acme(), ("a", 1, None))
    for month in ("2026-02-01", "2026-03-01"):
        ArchivedMonth.objects.create(month=month, path="x", events=1, checksum="0" * 64, archived_at=NOW)
    void("a")
    assert [archived.month.isoformat() for archived in ArchivedMonth.objects.all()] == ["2026-02-01"]


# -- many ----------------------------------------------------------------------------------------------------


def void_all(where: Selection, *, dry_run: bool = False) -> Any:
    return void_events(where=where, reason="a broken release", author="ada", now=NOW, dry_run=dry_run)


def names() -> list[str]:
    return list(EventVoid.objects.order_by("event_id").values_list("event_id", flat=True))


@pytest.mark.parametrize(
    ("conditions", "chosen"),
    [
        ({"event_name": "api.call"}, ["a1", "a2", "g1"]),
        ({"event_name": "token.usage"}, ["t1", "t2"]),
        ({"event_name": "API.call"}, []),
        ({"customer": "acme"}, ["a1", "a2", "t1", "t2"]),
        ({"customer": "acme", "event_name": "api.call"}, ["a1", "a2"]),
        ({"meter": "tokens"}, ["t2"]),
        ({"customer": "globex", "meter": "tokens"}, []),
        ({"filter": {"conjunction": "or", "clauses": [{"key": "n", "operator": "equals", "value": "1"}]}}, ["a1"]),
    ],
)
def test_a_selection_voids_what_it_names_and_nothing_else(conditions: dict[str, Any], chosen: list[str]) -> None:
    rule = {"conjunction": "and", "clauses": [{"key": "tier", "operator": "equals", "value": "gold"}]}
    known: dict[str, Any] = {"acme": acme(), "globex": globex(), "tokens": token_meter(filter=rule)}
    store(known["acme"], ("a1", 1, {"n": 1}), ("a2", 23.99, {"n": 2}), ("late", 24, {"n": 1}), name="api.call")
    store(known["acme"], ("t1", 1, {"tokens": 5}), ("t2", 1, {"tokens": 5, "tier": "gold"}), name="token.usage")
    store(known["globex"], ("g1", 0, None), ("early", -0.001, None), name="api.call")
    where = Selection(
        *SPAN,
        **{name: known.get(given, given) if isinstance(given, str) else given for name, given in conditions.items()},
    )
    assert void_all(where, dry_run=True).events == len(chosen)
    assert names() == []
    assert void_all(where).events == len(chosen)
    assert names() == chosen
    assert list(Event.objects.filter(voided_at=NOW).order_by("event_id").values_list("event_id", flat=True)) == chosen
    assert void_all(where).events == 0


def test_a_dry_run_tells_the_effect_and_changes_nothing() -> None:
    mine, theirs = acme(), globex()
    total, highest, other = a_meter("sum"), a_meter("max"), call_meter()
    store(mine, ("a", 1, {"v": 3, "bad": True}), ("b", 2, {"v": 5, "bad": True}), ("c", 3, {"v": 7}))
    store(theirs, ("d", 1, {"v": 11}))
    roll_up()
    total.refresh_from_db()
    buckets, backfills = dump(total), Backfill.objects.count()
    rule = {"conjunction": "and", "clauses": [{"key": "bad", "operator": "equals", "value": True}]}
    where = Selection(*SPAN, event_name="e", filter=rule)
    would = void_all(where, dry_run=True)
    assert [(unit.meter, unit.customer, unit.before, unit.after) for unit in would.units] == [
        (total, mine, D(15), D(7))
    ]
    assert (would.events, would.customers) == (2, 1)
    assert (dump(total), Backfill.objects.count(), names()) == (buckets, backfills, [])
    assert void_all(where) == would
    assert [used(meter, mine) for meter in (total, highest, other)] == [D(7), D(7), D(0)]
    assert used(total, theirs) == 11
    noted = Backfill.objects.order_by("pk").last()
    assert noted is not None
    assert (noted.customer, noted.events) == (mine, 2)
    assert (noted.first, noted.last) == (DAY + timedelta(hours=1), DAY + timedelta(hours=2))


@pytest.mark.parametrize(
    ("where", "said"),
    [
        (Selection(DAY, DAY, event_name="e"), "end"),
        (Selection(SPAN[1], SPAN[0], event_name="e"), "end"),
        (Selection(*SPAN), "Name an event name"),
        (Selection(*SPAN, event_name="a\0"), "event_name"),
        (Selection(*SPAN, filter={"conjunction": "xor", "clauses": []}), "filter.conjunction"),
    ],
)
def test_a_selection_that_makes_no_sense_is_refused(where: Selection, said: str) -> None:
    with pytest.raises(DomainError, match=said):
        void_all(where)


def test_too_many_at_once_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meters.voids.MAX_VOIDS", 2)
    store(acme(), ("a", 1, None), ("b", 2, None), ("c", 3, None))
    with pytest.raises(DomainError, match="More than 2 events"):
        void_all(Selection(*SPAN, event_name="e"))
    assert names() == []
    assert void_all(Selection(DAY, DAY + timedelta(hours=3), event_name="e")).events == 2


def test_a_level_that_is_carried_forward_reaches_billing_with_all_that_follows() -> None:
    customer = acme()
    seats = a_meter("weighted_sum", carry_forward=True)
    store(customer, ("a", 1, {"v": 10}), ("b", 2, {"v": 4}))
    void("b")
    noted = Backfill.objects.order_by("pk").last()
    assert noted is not None
    assert (noted.first, noted.last) == (DAY + timedelta(hours=2), NOW)
    assert used(seats, customer) == D(10) * 23


# -- what is said about it -------------------------------------------------------------------------------------


def test_verdicts_and_activity_tell_void_events_apart() -> None:
    customer, other = acme(), globex()
    total, away = a_meter("sum"), call_meter()
    distinct = a_meter("unique")
    store(customer, ("a", 1, {"v": 3}), ("b", 2, {"v": "x"}), ("c", 3, None))
    store(other, ("d", 1, {"v": 4}))
    void("a")
    void("c")
    event = Event.objects.get(event_id="a")
    said = meter_verdict(meter=total, event=event)
    assert (said.outcome, said.value) == (Outcome.VOIDED, None)
    assert said.reason == "Voided on 2026-03-20 00:00 UTC by key one: sent twice"
    assert [(meter, verdict.outcome) for meter, verdict in event_verdicts(event=event)] == [
        (total, Outcome.VOIDED),
        (distinct, Outcome.VOIDED),
        (away, Outcome.OTHER_NAME),
    ]
    everyone = meter_activity(meter=total, start=SPAN[0], end=SPAN[1])
    assert (everyone.seen, everyone.counted, everyone.unreadable, everyone.missing) == (4, 1, 1, 0)
    assert (everyone.voided, everyone.filtered_out) == (2, 0)
    mine = meter_activity(meter=total, customer=customer, start=SPAN[0], end=SPAN[1])
    assert (mine.seen, mine.counted, mine.unreadable, mine.voided) == (3, 0, 1, 2)
    any_value = meter_activity(meter=distinct, start=SPAN[0], end=SPAN[1])
    assert (any_value.counted, any_value.unreadable) == (2, 0)


@pytest.mark.parametrize(
    ("aggregation", "value", "reason"),
    [
        ("count", D(1), "Counted as 1 event."),
        ("sum", D(5), "5 is added to the sum."),
        ("max", D(5), "5 is compared with the highest value."),
        ("min", D(5), "5 is compared with the lowest value."),
        ("last", D(5), "5 is taken unless a later value follows."),
        ("avg", D(5), "5 is averaged with the others."),
        ("weighted_sum", D(5), "5 holds until a later value follows."),
        ("unique", D(1), "“5” is counted once, however often it comes."),
    ],
)
def test_a_verdict_has_true_words_for_every_aggregation(aggregation: str, value: Decimal, reason: str) -> None:
    store(acme(), ("a", 1, {"v": "5"}))
    meter = a_meter(aggregation)
    said = meter_verdict(meter=meter, event=Event.objects.get())
    assert (said.outcome, said.counted, said.value, said.reason) == (Outcome.COUNTED, True, value, reason)
    archive_meter(meter=meter, now=NOW)
    said = meter_verdict(meter=meter, event=Event.objects.get())
    assert said.counted
    assert said.reason == f"{reason} The meter is archived: only products that have it already bill it."


def test_a_bulk_void_that_is_overtaken_voids_nothing() -> None:
    store(acme(), ("a", 1, None), ("b", 1, None))
    from meters import voids

    targets = voids.select_events(where=Selection(*SPAN, event_name="e"))
    void("a")
    with pytest.raises(Conflict):
        voids._void(targets, reason="r", author="a", operator=None, now=NOW)
