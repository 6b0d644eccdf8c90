"""Voiding and money: a running period costs less, a closed one is adjusted on the next invoice."""

from collections import defaultdict
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest

from billing.corrections import pending_corrections, preview_void
from billing.credit_notes import owed
from billing.cycles import close_subscription, running_usage, start_run, work_run
from billing.invoices import void_invoice
from billing.models import IgnoredCorrection, Invoice, Subscription
from billing.money import add
from billing.pricing import ChargeRule, PerUnit
from billing.products import ChargeTerms, PriceTerms, create_product, update_product
from billing.taxes import create_tax_rate
from customers.models import Customer
from customers.portal.usage import csv_rows
from meters.models import Backfill, Event, EventVoid
from meters.rollups import roll_up
from meters.voids import Selection, void_event, void_events
from tests.base import acme, at, call_meter, globex, invoices_of, lines_of, send, subscribed, token_meter, usage_product

pytestmark = pytest.mark.django_db
D = Decimal


def run(until: str) -> None:
    instant = at(until)
    work_run(run=start_run(trigger="command", until=instant, now=instant), clock=lambda: instant)


def story(customer: Customer) -> Subscription:
    """From 1 January, $10 a month, 2 cents a token, 100 tokens free. 400 tokens in January, 50 in February."""
    meter = token_meter()
    sold = subscribed(customer, usage_product((meter, "2", 100), fee=1000), on="2026-01-01")
    for day, tokens in (("2026-01-10", 150), ("2026-01-20", 250)):
        send(customer, on=day, name="token.usage", metadata={"tokens": tokens})
    return sold


def january(**changes: Any) -> Selection:
    return Selection(at("2026-01-01"), at("2026-02-01"), **{"event_name": "token.usage", **changes})


@pytest.mark.parametrize("rolled", [False, True])
def test_a_void_after_closing_lowers_the_next_invoice(rolled: bool) -> None:
    customer = acme()
    sold = story(customer)
    if rolled:
        roll_up()
    run("2026-02-01T01:00")
    # 300 chargeable tokens at 2 cents, and February's fee
    closing = invoices_of(sold)[-1]
    assert closing.total == 600 + 1000
    wrong = Event.objects.get(timestamp=at("2026-01-20")).event_id
    void_event(event_id=wrong, reason="test data", author="ada", now=at("2026-02-10"))
    assert invoices_of(sold)[-1].total == 1600, "an issued invoice never changes"
    send(customer, on="2026-02-15", name="token.usage", metadata={"tokens": 500})
    run("2026-03-01T01:00")
    # March's fee; February's 400 chargeable tokens; January should have been 50 chargeable tokens, not 300
    corrected = invoices_of(sold)[-1]
    assert [(kind, amount) for kind, _, _, amount in lines_of(corrected)] == [
        ("fee", D(1000)),
        ("usage", D(800)),
        ("adjustment", D(-500)),
    ]
    adjustment = corrected.lines.get(kind="adjustment")
    assert (adjustment.period_start, adjustment.quantity) == (at("2026-01-01"), D(-250))
    run("2026-04-01T01:00")
    assert [(kind, amount) for kind, _, _, amount in lines_of(invoices_of(sold)[-1])] == [
        ("fee", D(1000)),
        ("usage", D(0)),
    ]


def test_the_preview_names_the_money_of_open_and_closed_periods_and_saves_nothing() -> None:
    customer, other = acme(), globex()
    sold = story(customer)
    run("2026-02-01T01:00")
    send(customer, on="2026-02-15", name="token.usage", metadata={"tokens": 500})
    send(other, on="2026-02-15", name="token.usage", metadata={"tokens": 500})
    where = Selection(at("2026-01-15"), at("2026-03-01"), event_name="token.usage")
    before = (Backfill.objects.count(), Invoice.objects.count())
    found = preview_void(where=where, now=at("2026-02-20"))
    assert (found.voided.events, found.voided.customers, found.complete) == (3, 2, True)
    assert [(effect.period.start, effect.closed, effect.change) for effect in found.money] == [
        (at("2026-01-01"), True, D(-500)),
        (at("2026-02-01"), False, D(-800)),
    ]
    assert {effect.period.subscription for effect in found.money} == {sold}
    assert found.totals == {"USD": D(-1300)}
    assert [(unit.customer, unit.before, unit.after) for unit in found.voided.units] == [
        (customer, D(750), D(0)),
        (other, D(500), D(0)),
    ]
    assert (Backfill.objects.count(), Invoice.objects.count()) == before
    assert not EventVoid.objects.exists()
    assert not Event.objects.filter(voided_at__isnull=False).exists()
    # Doing it comes to what was said.
    void_events(where=where, reason="test data", author="ada", now=at("2026-02-20"))
    usage = running_usage(subscription=sold, now=at("2026-02-20"))
    assert usage is not None
    assert usage.total == 0


def test_within_the_free_units_a_void_costs_nothing() -> None:
    customer = acme()
    sold = subscribed(customer, usage_product((token_meter(), "2", 100)), on="2026-01-01")
    send(customer, on="2026-01-10", name="token.usage", metadata={"tokens": 60})
    found = preview_void(where=january(), now=at("2026-01-20"))
    assert (found.voided.events, found.money, found.totals) == (1, (), {})
    assert [(unit.before, unit.after) for unit in found.voided.units] == [(D(60), D(0))]
    assert sold.periods.count() == 1


def test_an_empty_selection_has_no_effect() -> None:
    found = preview_void(where=january(), now=at("2026-01-20"))
    assert (found.voided.events, found.voided.units, found.money, found.complete) == (0, (), (), True)


def test_a_preview_too_wide_to_rate_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("billing.corrections.MOST_PERIODS", 1)
    meter = token_meter()
    product = usage_product((meter, "2", 0))
    for customer in (acme(), globex()):
        subscribed(customer, product, on="2026-01-01")
        send(customer, on="2026-01-10", name="token.usage", metadata={"tokens": 60})
    found = preview_void(where=january(), now=at("2026-01-20"))
    assert (found.complete, len(found.money), found.voided.events) == (False, 1, 2)


@pytest.mark.parametrize("how", ["void", "backfill"])
def test_a_carried_level_corrects_every_period_after_it(how: str) -> None:
    """Ten seats from 1 January on, twenty from 21 January; a cent a seat and hour. Both periods are closed then."""
    customer = acme()
    seats = token_meter(
        name="Seats",
        event_name="seats",
        aggregation="weighted_sum",
        property_key="seats",
        measurement_unit="seat hours",
        carry_forward=True,
    )
    sold = subscribed(customer, usage_product((seats, "1", 0)), on="2026-01-01")
    send(customer, on="2026-01-01", name="seats", metadata={"seats": 10})
    if how == "void":
        send(customer, on="2026-01-21", name="seats", metadata={"seats": 20})
    run("2026-02-01T01:00")
    run("2026-03-01T01:00")
    january_hours, february_hours = 31 * 24, 28 * 24
    more = 11 * 24 * 10 if how == "void" else 0
    billed = [invoice.total for invoice in invoices_of(sold) if invoice.total]
    doubled = 2 if how == "void" else 1
    assert billed == [10 * january_hours + more, 10 * february_hours * doubled]
    roll_up()
    if how == "void":
        wrong = Event.objects.get(timestamp=at("2026-01-21")).event_id
        void_event(event_id=wrong, reason="nobody came", author="ada", now=at("2026-03-10"))
    else:
        send(customer, on="2026-01-21", name="seats", metadata={"seats": 20}, received="2026-03-10")
        # A later word ends what the late one began, so that March is not billed at twenty.
        send(customer, on="2026-03-10", name="seats", metadata={"seats": 10})
    # March's invoice has room for one of the credits and a part of the other, April's for the rest.
    run("2026-04-01T01:00")
    run("2026-05-01T01:00")
    adjusted: dict[datetime | None, Decimal] = defaultdict(Decimal)
    for invoice in invoices_of(sold):
        for line in invoice.lines.filter(kind="adjustment"):
            adjusted[line.period_start] += line.amount
    sign = -1 if how == "void" else 1
    assert adjusted == {
        at("2026-01-01"): D(sign * 11 * 24 * 10),
        at("2026-02-01"): D(sign * 10 * february_hours),
    }


def test_a_running_level_is_worth_what_it_held_so_far() -> None:
    """A dry run, a customer's CSV and the running usage agree: 26 hours of which 2 held for 24 and 5 for 2."""
    customer = acme()
    meter = call_meter(
        name="Servers",
        event_name="servers",
        aggregation="weighted_sum",
        property_key="n",
        measurement_unit="hours",
        carry_forward=True,
    )
    sold = subscribed(customer, usage_product((meter, "100", 0)), on="2026-01-01")
    send(customer, on="2026-01-09T12:00", name="servers", metadata={"n": 2})
    send(customer, on="2026-01-10T12:00", name="servers", metadata={"n": 5})
    now = at("2026-01-10T14:00")
    running = running_usage(subscription=sold, now=now)
    assert running is not None
    assert [line.quantity for line in running.lines] == [D(58)]
    rows = list(csv_rows(period=sold.periods.get(), customer=customer, now=now))
    days = {row[0]: row[2] for row in rows[1:] if row[2] != "0"}
    assert days == {"2026-01-09": "24", "2026-01-10": "34", "total": "58"}
    # Without the second, 2 would have held for those two hours: 6 units less, at a dollar each.
    where = Selection(at("2026-01-10T12:00"), at("2026-01-11"), event_name="servers")
    (effect,) = preview_void(where=where, now=now).money
    assert (effect.change, effect.closed) == (D(-600), False)


# -- what becomes of a difference ---------------------------------------------------------------------------


def _sold(choice: str, *, country: str = "") -> Subscription:
    customer = acme(billing_address={"country": country} if country else {})
    product = usage_product((call_meter(), "10", 0))
    update_product(product=product, corrections=choice)
    return subscribed(customer, product, on="2026-01-01")


def _close(subscription: Subscription, on: str) -> list[Invoice]:
    return close_subscription(subscription_id=subscription.pk, until=at(on), now=at(on))


def _void_january(subscription: Subscription, day: str, on: str) -> None:
    void_events(
        where=Selection(start=at(f"2026-01-{day}"), end=at(f"2026-01-{day}T23:00"), customer=subscription.customer),
        reason="a test",
        author="Ada",
        now=at(on),
    )


def test_what_was_billed_too_much_is_given_back_by_credit_note_where_the_product_says_so() -> None:
    create_tax_rate(name="VAT", percent=D(19), country="DE")
    subscription = _sold("credit_note", country="DE")
    send(subscription.customer, 10, on="2026-01-10")
    send(subscription.customer, 3, on="2026-01-20")
    (january,) = _close(subscription, "2026-02-01T01:00")
    assert (january.subtotal, january.tax, january.due) == (D(130), D(25), D(155))  # 24.7
    _void_january(subscription, "20", "2026-02-03")
    pending = pending_corrections()
    assert [(one.quantity, one.amount, one.choice) for one in pending.corrections] == [(D(-3), D(-30), "credit_note")]
    (february,) = _close(subscription, "2026-03-01T01:00")
    assert lines_of(february) == [("usage", "API calls", D(0), D(0))]
    (note,) = january.credit_notes.all()
    assert (note.cause, note.subtotal, note.to_balance) == ("correction", D(30), D(0))
    assert note.to_invoice == note.total == add(D(30), note.tax)
    assert note.lines.get().quantity == D(3)
    assert owed(january) == add(D(155), -note.total)
    # once
    assert pending_corrections().corrections == ()
    send(subscription.customer, 1, on="2026-01-21", received="2026-03-05")
    (march,) = _close(subscription, "2026-04-01T01:00")
    assert lines_of(march)[1:] == [("adjustment", "API calls, adjustment", D(1), D(10))]
    assert january.credit_notes.count() == 1


def test_what_came_late_is_ignored_with_a_record_where_the_product_says_so() -> None:
    subscription = _sold("ignore")
    send(subscription.customer, 10, on="2026-01-10")
    _close(subscription, "2026-02-01T01:00")
    send(subscription.customer, 2, on="2026-01-11", received="2026-02-05")
    (february,) = _close(subscription, "2026-03-01T01:00")
    assert lines_of(february) == [("usage", "API calls", D(0), D(0))]
    (ignored,) = IgnoredCorrection.objects.all()
    assert (ignored.quantity, ignored.amount, ignored.found_at) == (D(2), D(20), at("2026-03-01T01:00"))
    _void_january(subscription, "10", "2026-03-02")
    _close(subscription, "2026-04-01T01:00")
    # 2 by now, 10 billed and 2 ignored: 10 too many
    assert list(IgnoredCorrection.objects.order_by("pk").values_list("quantity", "amount")) == [
        (D(2), D(20)),
        (D(-10), D(-100)),
    ]


def test_what_was_ignored_of_a_commitment_is_not_billed_as_usage_later() -> None:
    customer = acme()
    terms = PriceTerms(
        type="usage_based_price",
        currency="USD",
        commitment=D(100),
        payment_frequency_count=1,
        payment_frequency_interval="Month",
        subscription_period_count=1,
        subscription_period_interval="Year",
        charges=(ChargeTerms.of(call_meter(), ChargeRule(PerUnit(D(10)))),),
    )
    product = create_product(name="Calls", terms=terms)
    update_product(product=product, corrections="ignore")
    subscription = subscribed(customer, product, on="2026-01-01")
    send(customer, 10, on="2026-01-10")
    (january,) = _close(subscription, "2026-02-01T01:00")
    assert lines_of(january) == [("usage", "API calls", D(10), D(100))]
    # Without the ten the usage is worth 100 less, and the commitment asks for 100 more: both are ignored.
    _void_january(subscription, "10", "2026-02-03")
    _close(subscription, "2026-03-01T01:00")
    records = IgnoredCorrection.objects.order_by("pk").values_list("charge__meter__name", "amount")
    assert list(records) == [("API calls", D(-100)), (None, D(100))]
    # Four come after all: 40 more of usage, 40 less up to the commitment, whatever the product says by then.
    update_product(product=product, corrections="adjust")
    send(customer, 4, on="2026-01-11", received="2026-03-05")
    assert [one.amount for one in pending_corrections().corrections] == [D(40), D(-40)]
    (march,) = _close(subscription, "2026-04-01T01:00")
    # March's own commitment, and January nothing in all: it was billed 100, which is what it costs
    assert [(kind, amount) for kind, _, _, amount in lines_of(march)] == [
        ("usage", D(0)),
        ("commitment", D(100)),
        ("adjustment", D(40)),
        ("adjustment", D(-40)),
    ]


def test_what_is_pending_is_shown_before_it_is_billed() -> None:
    subscription = _sold("adjust")
    send(subscription.customer, 10, on="2026-01-10")
    _close(subscription, "2026-02-01T01:00")
    assert pending_corrections().corrections == ()
    send(subscription.customer, 2, on="2026-01-11", received="2026-02-05")
    pending = pending_corrections()
    (one,) = pending.corrections
    assert (one.subscription, one.period.start, one.quantity, one.amount) == (
        subscription,
        at("2026-01-01"),
        D(2),
        D(20),
    )
    assert (pending.totals, pending.complete) == ({"USD": D(20)}, True)
    _close(subscription, "2026-03-01T01:00")
    assert pending_corrections().corrections == ()


def test_nothing_is_given_back_of_an_invoice_that_was_void_anyway() -> None:
    subscription = _sold("adjust")
    send(subscription.customer, 10, on="2026-01-10")
    (january,) = _close(subscription, "2026-02-01T01:00")
    void_invoice(invoice=january, reason="goodwill", now=at("2026-02-02"))
    _void_january(subscription, "10", "2026-02-03")
    (february,) = _close(subscription, "2026-03-01T01:00")
    assert lines_of(february) == [("usage", "API calls", D(0), D(0))]
