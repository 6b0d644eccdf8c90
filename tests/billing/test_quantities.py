"""What a price asks of the usage: the quantity, its parts by value, every event's own; and the evidence with it."""

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from threading import Event as Signal
from typing import Any

import pytest
from django.db import connection, transaction

from billing import quantities
from billing.models import Charge
from billing.pricing import (
    ByDimension,
    ChargeRule,
    Flat,
    Graduated,
    Percentage,
    PerUnit,
    Tier,
    Usage,
    rate,
    rule_to_data,
)
from billing.products import charge_rule
from billing.quantities import UsageNotProved, group_keys, needs_values, proved_usage, usage_of
from customers.errors import DomainError
from customers.models import Customer
from meters.evidence import IngestionBusy, evidence, known_watermark
from meters.ingestion import EventInput, enter_ingestion, store_events
from meters.models import ArchivedMonth, Event, Meter
from meters.partitions import ensure_partitions, month_of
from meters.rollups import roll_up
from meters.usage import measure
from meters.voids import void_event
from tests.base import acme, at, send, token_meter, usage_product

D = Decimal
START, END = at("2026-03-01"), at("2026-04-01")


def charge_of(meter: Meter, rule: Any = None) -> Charge:
    """A charge of the meter, at 2 minor units a unit; with a rule, priced by that."""
    if rule is None:
        return usage_product((meter, "2", 0)).current_price().charges.get()
    terms = rule_to_data(rule if isinstance(rule, ChargeRule) else ChargeRule(rule))
    return Charge.objects.create(price=usage_product().current_price(), meter=meter, terms=terms)


def used(charge: Charge, customer: Customer) -> Usage:
    return usage_of(charge=charge, customer=customer, start=START, end=END)


def spend(customer: Customer, *amounts: str, **metadata: Any) -> None:
    for amount in amounts:
        send(customer, on="2026-03-02", name="token.usage", metadata={"tokens": amount, **metadata})


@pytest.mark.django_db
def test_a_price_per_unit_asks_for_the_quantity() -> None:
    customer, charge = acme(), charge_of(token_meter())
    spend(customer, "2.5", "4")
    assert used(charge, customer) == Usage(quantity=D("6.5"), events=2)


@pytest.mark.django_db
def test_without_an_event_the_usage_is_zero() -> None:
    customer = acme()
    assert used(charge_of(token_meter()), customer) == Usage(quantity=D(0), events=0)
    meter = token_meter(group_by=["model"])
    assert used(charge_of(meter, ByDimension(("model",), {"a": PerUnit(D(1))})), customer).by_value == {}


@pytest.mark.django_db
def test_a_price_by_dimension_asks_for_the_quantity_of_each_value() -> None:
    customer, meter = acme(), token_meter(group_by=["model", "region"])
    spend(customer, "1", "2", model="a", region="eu")
    spend(customer, "10", model="a", region="us")
    spend(customer, "100", model="b")
    spend(customer, "1000")
    charge = charge_of(meter, ByDimension(("region", "model"), {("eu", "a"): PerUnit(D(1))}, default=PerUnit(D(2))))
    usage = used(charge, customer)
    # Keys in the order of the price, not of the meter; what an event lacks is the empty text.
    assert usage.by_value == {
        ("", ""): Usage(quantity=D(1000), events=1),
        ("", "b"): Usage(quantity=D(100), events=1),
        ("eu", "a"): Usage(quantity=D(3), events=2),
        ("us", "a"): Usage(quantity=D(10), events=1),
    }
    assert (usage.quantity, usage.events) == (D(1113), 5)
    # 3 at 1 and 1110 at 2
    assert rate(charge_rule(charge), usage).amount == D(2223)


@pytest.mark.django_db
def test_some_of_the_meters_keys_are_enough_where_quantities_add_up() -> None:
    customer, meter = acme(), token_meter(group_by=["model", "region"])
    spend(customer, "1", model="a", region="eu")
    spend(customer, "10", model="a", region="us")
    usage = used(charge_of(meter, ByDimension(("model",), {"a": PerUnit(D(1))})), customer)
    assert usage.by_value == {("a",): Usage(quantity=D(11), events=2)}


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("aggregation", "keys", "says"),
    [
        ("sum", ("plan",), "does not keep its usage by plan"),
        ("max", ("model",), "does not add up over them"),
        ("unique", ("model",), "does not add up over them"),
    ],
)
def test_a_price_by_keys_that_the_meter_cannot_answer_is_refused(
    aggregation: str, keys: tuple[str, ...], says: str
) -> None:
    meter = token_meter(aggregation=aggregation, group_by=["model", "region"])
    with pytest.raises(DomainError, match=says):
        group_keys(ChargeRule(ByDimension(keys, {}, default=PerUnit(D(1)))), meter)


@pytest.mark.django_db
def test_terms_per_event_ask_for_every_events_own_value_in_order() -> None:
    customer = acme()
    charge = charge_of(token_meter(), Percentage(D(1), free_events=1))
    for day, amount in ((3, "20"), (2, "1000"), (4, "3")):
        send(customer, on=f"2026-03-0{day}", name="token.usage", metadata={"tokens": amount})
    assert used(charge, customer) == Usage(quantity=D(1023), events=3, values=(D(1000), D(20), D(3)))


@pytest.mark.django_db
def test_terms_per_event_can_be_by_dimension() -> None:
    customer, meter = acme(), token_meter(group_by=["model"])
    spend(customer, "5", "6", model="a")
    spend(customer, "7", model="b")
    price = ByDimension(("model",), {"a": Percentage(D(1), event_minimum=D(3))}, default=PerUnit(D(1)))
    usage = used(charge_of(meter, price), customer)
    assert usage.by_value == {
        ("a",): Usage(quantity=D(11), events=2, values=(D(5), D(6))),
        ("b",): Usage(quantity=D(7), events=1, values=(D(7),)),
    }


@pytest.mark.parametrize(
    ("rule", "asked"),
    [
        (ChargeRule(PerUnit(D(1))), False),
        (ChargeRule(Flat(D(1))), False),
        (ChargeRule(Graduated((Tier(None, D(1)),))), False),
        (ChargeRule(Percentage(D(1), fixed_fee=D(5))), False),
        (ChargeRule(Percentage(D(1), free_events=3)), True),
        (ChargeRule(Percentage(D(1), free_amount=D(3))), True),
        (ChargeRule(Percentage(D(1), event_minimum=D(3))), True),
        (ChargeRule(Percentage(D(1), event_maximum=D(3))), True),
        (ChargeRule(PerUnit(D(1)), each=True), True),
        (ChargeRule(ByDimension(("k",), {"a": PerUnit(D(1))}, default=Percentage(D(1), event_maximum=D(3)))), True),
        (ChargeRule(ByDimension(("k",), {"a": PerUnit(D(1))})), False),
    ],
)
def test_events_are_read_one_by_one_only_where_the_price_needs_them(rule: ChargeRule, asked: bool) -> None:
    assert needs_values(rule) is asked


# -- with its evidence -------------------------------------------------------------------------------------------


def proved(charge: Charge, customer: Customer) -> Any:
    return proved_usage(charge=charge, customer=customer, start=START, end=END)


@pytest.mark.django_db
@pytest.mark.parametrize(
    "price",
    [
        PerUnit(D(2)),
        ByDimension(("model",), {"a": PerUnit(D(1))}, default=PerUnit(D(2))),
        Percentage(D(1), free_events=1),
        ByDimension(("model",), {"a": Percentage(D(1), event_minimum=D(3))}, default=PerUnit(D(1))),
    ],
)
@pytest.mark.parametrize("rolled", ["not at all", "in part", "all"])
def test_the_proved_usage_is_the_usage_with_the_evidence_of_its_events(price: Any, rolled: str) -> None:
    customer, meter = acme(), token_meter(group_by=["model"])
    charge = charge_of(meter, price)
    spend(customer, "5", "6", model="a")
    if rolled == "in part":
        roll_up()
    spend(customer, "7")
    if rolled == "all":
        roll_up()
    found = proved(charge, customer)
    assert found.usage == used(charge, customer)
    assert found.evidence == evidence(meter=meter, customer=customer, start=START, end=END)
    assert found.evidence.events == 3


@pytest.mark.django_db
def test_buckets_that_say_something_else_than_the_log_are_not_billed() -> None:
    customer, meter = acme(), token_meter()
    spend(customer, "5", "6")
    roll_up()
    with connection.cursor() as cursor:
        cursor.execute("UPDATE meters_bucket SET total = 12")
    with pytest.raises(UsageNotProved, match=r"12 \(2 events\) in its buckets and 11 \(2 events\) in the log for Acme"):
        proved(charge_of(meter), customer)


@pytest.mark.django_db
def test_a_month_that_left_the_log_is_billed_from_its_buckets_without_evidence() -> None:
    customer, meter = acme(), token_meter()
    charge = charge_of(meter)
    spend(customer, "5", "6")
    roll_up()
    ArchivedMonth.objects.create(
        month=START.date(), path="x", events=2, checksum="", archived_at=END, dropped_at=at("2036-01-01")
    )
    Event.objects.all().delete()
    found = proved(charge, customer)
    assert (found.usage, found.evidence) == (Usage(quantity=D(11), events=2), None)


# -- the rival between the two readings --------------------------------------------------------------------------


@pytest.fixture
def committed(transactional_db: None) -> None:
    ensure_partitions(months={month_of(START)})


def store_one(customer: Customer, event_id: str, *, then: Any = None) -> None:
    try:
        with transaction.atomic():
            instant = at("2026-03-05")
            event = EventInput(event_id, customer.public_id, "token.usage", instant.isoformat(), {"tokens": 100})
            store_events(events=[event], now=enter_ingestion(), backfill=True)
            if then is not None:
                then()
    finally:
        connection.close()


@pytest.mark.usefixtures("committed")
@pytest.mark.parametrize("rival", ["stores", "voids", "stores and voids"])
def test_quantity_and_evidence_are_of_the_same_events_whatever_comes_between_them(
    rival: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exactly in the gap: after the buckets were read, before the log is."""
    customer, meter = acme(), token_meter()
    charge = charge_of(meter)
    spend(customer, "5", "6")
    roll_up()
    first = Event.objects.order_by("id")[0]
    came: list[str] = []

    def interrupted(**asked: Any) -> Any:
        rows = measure(**asked)
        if not came:
            came.append(rival)
            with ThreadPoolExecutor(1) as pool:
                if "stores" in rival:
                    pool.submit(store_one, customer, "rival").result()
                if "voids" in rival:
                    pool.submit(void, first.event_id).result()
        return rows

    def void(event_id: str) -> None:
        try:
            void_event(event_id=event_id, reason="r", author="a", now=END)
        finally:
            connection.close()

    monkeypatch.setattr(quantities, "measure", interrupted)
    found = proved(charge, customer)
    # What was only stored came after the quantity, and lies above the watermark: neither has it, and it is corrected as
    # any late event. A void shows at once as a difference, and both are read again.
    expected = {"stores": (D(11), 2), "voids": (D(6), 1), "stores and voids": (D(106), 2)}[rival]
    assert came
    assert (found.usage.quantity, found.usage.events, found.evidence.events) == (*expected, expected[1])
    mark = found.evidence.watermark
    assert found.evidence == evidence(meter=meter, customer=customer, start=START, end=END, up_to=mark)
    assert (Event.objects.filter(event_id="rival", pk__lte=mark).exists()) is (rival == "stores and voids")


@pytest.mark.usefixtures("committed")
def test_a_period_into_which_events_keep_coming_is_billed_up_to_its_watermark(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closed early, while its customer goes on: every look at the buckets finds one event more than the one before."""
    customer, meter = acme(), token_meter()
    charge = charge_of(meter)
    spend(customer, "5", "6")
    came: list[str] = []

    def interrupted(**asked: Any) -> Any:
        came.append(f"rival {len(came)}")
        with ThreadPoolExecutor(1) as pool:
            pool.submit(store_one, customer, came[-1]).result()
        return measure(**asked)

    monkeypatch.setattr(quantities, "measure", interrupted)
    found = proved(charge, customer)
    mark = found.evidence.watermark
    # One came before the watermark was taken, and one after it.
    assert came == ["rival 0", "rival 1"]
    assert list(Event.objects.filter(pk__gt=mark).values_list("event_id", flat=True)) == ["rival 1"]
    assert (found.usage, found.evidence.events) == (Usage(quantity=D(111), events=3), 3)
    assert found.evidence == evidence(meter=meter, customer=customer, start=START, end=END, up_to=mark)


@pytest.mark.usefixtures("committed")
def test_a_batch_with_lower_ids_that_commits_later_never_lies_below_the_watermark() -> None:
    """A sequence is not commit order: the watermark waits for who took a lower id, and never speaks of it too early."""
    customer, meter = acme(), token_meter()
    charge = charge_of(meter)
    with ThreadPoolExecutor(2) as pool:
        taken, go = Signal(), Signal()

        def hold() -> None:
            taken.set()
            assert go.wait(30)

        slow = pool.submit(store_one, customer, "slow", then=hold)
        assert taken.wait(30)
        spend(customer, "5")
        # 5 is there with a higher id than the batch that is under way.
        asked = pool.submit(lambda: _closing(lambda: proved(charge, customer)))
        with pytest.raises(TimeoutError):
            asked.result(timeout=0.5)
        go.set()
        slow.result(30)
        found = asked.result(30)
    assert (found.usage.quantity, found.evidence.events) == (D(105), 2)
    again = evidence(meter=meter, customer=customer, start=START, end=END, up_to=found.evidence.watermark)
    assert again == found.evidence


@pytest.mark.usefixtures("committed")
def test_a_batch_that_hangs_is_said_and_nothing_is_billed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meters.evidence.PATIENCE_SECONDS", 0.1)
    customer, charge = acme(), charge_of(token_meter())
    taken, go = Signal(), Signal()

    def hold() -> None:
        taken.set()
        assert go.wait(30)

    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(store_one, customer, "slow", then=hold)
        assert taken.wait(30)
        try:
            # What the buckets hold already needs no waiting.
            assert proved(charge, customer).usage.quantity == 0
            spend(customer, "5")
            with pytest.raises(IngestionBusy, match="try again"):
                proved(charge, customer)
        finally:
            go.set()
        slow.result(30)
    assert proved(charge, customer).usage.quantity == 105
    assert known_watermark() == 0


def _closing(work: Any) -> Any:
    try:
        return work()
    finally:
        connection.close()
