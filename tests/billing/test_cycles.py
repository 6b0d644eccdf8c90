"""Closing billing periods: when, what, once. Amounts are in cents, with the arithmetic beside them."""

from decimal import Decimal
from typing import Any

import pytest

from billing.balances import balance_of
from billing.cycles import (
    close_subscription,
    due_subscriptions,
    preview_run,
    preview_subscription,
    running_usage,
    start_run,
    start_scheduled_run,
    usage_history,
    work_run,
)
from billing.models import Invoice, InvoiceLine, RunOutcome, Subscription
from billing.pricing import ChargeRule, Graduated, Tier
from billing.products import ChargeTerms
from billing.subscriptions import (
    advance_periods,
    cancel_now,
    move_next_billing_date,
    schedule_cancellation,
)
from customers.errors import DomainError
from meters.evidence import IngestionBusy
from meters.models import Backfill, Meter
from tests.base import (
    acme,
    at,
    call_meter,
    globex,
    invoices_of,
    lines_of,
    send,
    subscribed,
    token_meter,
    usage_product,
)

D = Decimal
pytestmark = pytest.mark.django_db


def close(subscription: Subscription, on: str, *, until: str | None = None) -> list[Invoice]:
    made = close_subscription(subscription_id=subscription.pk, until=at(until or on), now=at(on))
    subscription.refresh_from_db()
    return made


def test_a_period_is_due_one_hour_after_its_end_and_not_a_moment_before() -> None:
    subscription = subscribed(acme(), usage_product((call_meter(), "2", 1000)), on="2026-01-01")
    assert list(due_subscriptions(until=at("2026-02-01T00:59:59.999999"))) == []
    assert list(due_subscriptions(until=at("2026-02-01T01:00"))) == [subscription]


def test_usage_is_billed_in_arrears_and_the_fee_in_advance() -> None:
    customer = acme()
    product = usage_product((call_meter(), "1", 10_000), fee=4900, name="Pro")
    subscription = subscribed(customer, product, on="2026-01-31")
    (first,) = invoices_of(subscription)
    assert lines_of(first) == [("fee", "Pro", D(1), D(4900))]
    assert (first.period_start, first.period_end) == (at("2026-01-31"), at("2026-02-28"))
    send(customer, 10_250, on="2026-02-14")
    send(customer, 7, on="2026-02-28")  # the first instant of the next period

    (second,) = close(subscription, "2026-02-28T01:00")

    # 49.00 for 28 Feb to 31 Mar, and (10,250 - 10,000) x 0.01 = 2.50 for 31 Jan to 28 Feb
    assert lines_of(second) == [("fee", "Pro", D(1), D(4900)), ("usage", "API calls", D(10_250), D(250))]
    assert second.total == second.subtotal == D(5150)
    fee, usage = second.lines.order_by("position")
    assert (fee.period_start, fee.period_end) == (at("2026-02-28"), at("2026-03-31"))
    assert (usage.period_start, usage.period_end) == (at("2026-01-31"), at("2026-02-28"))
    assert (usage.free_units, usage.billable_units, usage.unit_price) == (D(10_000), D(250), D(1))
    assert usage.explanation["text"] == "10,250 calls − 10,000 free = 250 × $0.01 = $2.50"


def test_closing_twice_leaves_one_invoice() -> None:
    customer = acme()
    subscription = subscribed(customer, usage_product((call_meter(), "2", 0)), on="2026-01-01")
    send(customer, 5, on="2026-01-10")
    assert len(close(subscription, "2026-02-01T01:00")) == 1
    assert close(subscription, "2026-02-01T01:00") == []
    assert close(subscription, "2026-02-10") == []
    (invoice,) = invoices_of(subscription)
    assert invoice.total == D(10)


def test_periods_missed_for_months_are_each_billed_in_order() -> None:
    customer = acme()
    subscription = subscribed(customer, usage_product((call_meter(), "2", 0), fee=100, name="P"), on="2026-01-01")
    send(customer, 1, on="2026-01-10")
    send(customer, 3, on="2026-03-10")
    made = close(subscription, "2026-04-05")
    assert [(i.period_start, i.total) for i in made] == [
        (at("2026-01-01"), D(102)),  # fee of February + 1 x 0.02
        (at("2026-02-01"), D(100)),  # fee of March
        (at("2026-03-01"), D(106)),  # fee of April + 3 x 0.02
    ]
    assert [i.number for i in made] == ["INV-000002", "INV-000003", "INV-000004"]


def test_a_quiet_period_still_gets_its_invoice_of_zero_and_it_counts_as_paid() -> None:
    subscription = subscribed(acme(), usage_product((call_meter(), "2", 10)), on="2026-01-01")
    (invoice,) = close(subscription, "2026-02-01T01:00")
    assert lines_of(invoice) == [("usage", "API calls", D(0), D(0))]
    assert (invoice.total, invoice.status, invoice.paid_at) == (D(0), "paid", at("2026-02-01T01:00"))
    assert invoice.payment.status == "succeeded"


def test_two_customers_on_one_meter_pay_for_their_own_events() -> None:
    product = usage_product((call_meter(), "2", 0))
    one, other = acme(), globex()
    first, second = (subscribed(customer, product, on="2026-01-01") for customer in (one, other))
    send(one, 3, on="2026-01-02")
    send(other, 11, on="2026-01-02")
    assert [i.total for i in close(first, "2026-02-01T01:00")] == [D(6)]
    assert [i.total for i in close(second, "2026-02-01T01:00")] == [D(22)]


def test_cancelling_now_bills_the_usage_up_to_that_moment_and_no_further_fee() -> None:
    customer = acme()
    subscription = subscribed(customer, usage_product((call_meter(), "2", 0), fee=4900), on="2026-01-01")
    send(customer, 4, on="2026-01-10T11:59:59")
    cancel_now(subscription=subscription, now=at("2026-01-10T12:00"))
    send(customer, 9, on="2026-01-10T12:00")
    assert close(subscription, "2026-01-10T12:59") == []
    (last,) = close(subscription, "2026-01-10T13:00")
    assert lines_of(last) == [("usage", "API calls", D(4), D(8))]
    assert (last.period_start, last.period_end) == (at("2026-01-01"), at("2026-01-10T12:00"))
    assert (subscription.status, subscription.cancelled_at) == ("cancelled", at("2026-01-10T12:00"))
    assert close(subscription, "2027-01-01") == []


def test_a_scheduled_cancellation_ends_with_the_period_and_bills_its_usage() -> None:
    customer = acme()
    subscription = subscribed(customer, usage_product((call_meter(), "2", 0), fee=4900), on="2026-01-01")
    send(customer, 4, on="2026-01-20")
    schedule_cancellation(subscription=subscription, now=at("2026-01-21"))
    subscription.refresh_from_db()
    assert subscription.status == "active"
    advance_periods(now=at("2026-02-01"))
    subscription.refresh_from_db()
    assert (subscription.status, subscription.cancelled_at) == ("cancelled", at("2026-02-01"))
    (last,) = close(subscription, "2026-02-01T01:00")
    assert lines_of(last) == [("usage", "API calls", D(4), D(8))]


def test_an_expired_subscription_gets_its_last_usage_invoiced() -> None:
    customer = acme()
    product = usage_product(
        (call_meter(), "2", 0), fee=100, subscription_period_count=2, subscription_period_interval="Month"
    )
    subscription = subscribed(customer, product, on="2026-01-15")
    send(customer, 1, on="2026-02-20")
    made = close(subscription, "2026-03-15T01:00")
    assert [(i.period_start, i.total) for i in made] == [(at("2026-01-15"), D(100)), (at("2026-02-15"), D(2))]
    assert subscription.status == "expired"
    assert close(subscription, "2027-01-01") == []


def test_a_trial_records_usage_for_nothing_and_bills_the_first_fee_when_it_ends() -> None:
    customer = acme()
    product = usage_product((call_meter(), "2", 0), fee=4900, name="Pro", trial_period_days=14)
    subscription = subscribed(customer, product, on="2026-01-01")
    assert invoices_of(subscription) == []
    assert [(p.amount, p.status) for p in subscription.payments.all()] == [(D(0), "succeeded")]
    send(customer, 50, on="2026-01-05")
    (first,) = close(subscription, "2026-01-15T01:00")
    assert lines_of(first) == [("fee", "Pro", D(1), D(4900)), ("usage", "API calls", D(50), D(0))]
    assert first.lines.get(kind="usage").explanation["waived"] == "free during the trial"
    send(customer, 2, on="2026-01-20")
    (second,) = close(subscription, "2026-02-15T01:00")
    assert lines_of(second) == [("fee", "Pro", D(1), D(4900)), ("usage", "API calls", D(2), D(4))]


def test_the_fee_counts_seats_and_the_usage_does_not() -> None:
    customer = acme()
    subscription = subscribed(
        customer, usage_product((call_meter(), "2", 0), fee=2000, name="Seat"), on="2026-01-01", quantity=10
    )
    send(customer, 30, on="2026-01-02")
    (first,) = invoices_of(subscription)
    assert lines_of(first) == [("fee", "Seat", D(10), D(20_000))]  # 10 x 20.00
    (second,) = close(subscription, "2026-02-01T01:00")
    assert lines_of(second) == [("fee", "Seat", D(10), D(20_000)), ("usage", "API calls", D(30), D(60))]


def test_moving_the_next_billing_date_ends_the_period_there_and_counts_from_it() -> None:
    customer = acme()
    subscription = subscribed(customer, usage_product((call_meter(), "2", 0)), on="2026-01-31")
    send(customer, 3, on="2026-02-05")
    move_next_billing_date(subscription=subscription, to=at("2026-02-10T12:00"), now=at("2026-02-09"))
    (invoice,) = close(subscription, "2026-02-10T13:00")
    assert (invoice.period_start, invoice.period_end, invoice.total) == (
        at("2026-01-31"),
        at("2026-02-10T12:00"),
        D(6),
    )
    running = subscription.periods.get(closed_at=None)
    assert (running.start, running.end) == (at("2026-02-10T12:00"), at("2026-03-10T12:00"))


@pytest.mark.parametrize("to", ["2026-01-01", "2026-02-08T23:59", "2047-01-01"])
def test_a_next_billing_date_out_of_reach_is_refused(to: str) -> None:
    subscription = subscribed(acme(), usage_product((call_meter(), "2", 0)), on="2026-01-31")
    with pytest.raises(DomainError):
        move_next_billing_date(subscription=subscription, to=at(to), now=at("2026-02-09"))
    assert subscription.periods.get().end == at("2026-02-28")


# -- late usage ---------------------------------------------------------------------------------------------


def test_usage_after_an_early_closing_is_adjusted_on_the_next_invoice() -> None:
    customer = acme()
    subscription = subscribed(customer, usage_product((call_meter(), "2", 100)), on="2026-01-01")
    send(customer, 150, on="2026-01-10")
    (early,) = close(subscription, "2026-01-15", until="2026-02-01T01:00")
    assert early.total == D(100)  # (150 - 100) x 0.02
    send(customer, 30, on="2026-01-20")
    send(customer, 110, on="2026-02-10")

    (following,) = close(subscription, "2026-03-01T01:00")

    # February: (110 - 100) x 0.02 = 0.20; January by now (180 - 100) x 0.02 = 1.60, billed 1.00
    assert lines_of(following) == [
        ("usage", "API calls", D(110), D(20)),
        ("adjustment", "API calls, adjustment", D(30), D(60)),
    ]
    adjustment = following.lines.get(kind="adjustment")
    assert (adjustment.period_start, adjustment.period_end) == (at("2026-01-01"), at("2026-02-01"))
    assert following.total == D(80)
    (later,) = close(subscription, "2026-04-01T01:00")
    assert lines_of(later) == [("usage", "API calls", D(0), D(0))]


def test_a_backfill_into_a_closed_period_is_adjusted_on_the_next_invoice() -> None:
    customer = acme()
    subscription = subscribed(customer, usage_product((call_meter(), "2", 0)), on="2026-01-01")
    send(customer, 5, on="2026-01-10")
    (january,) = close(subscription, "2026-02-01T01:00")
    assert january.total == D(10)
    send(customer, 2, on="2026-01-10", received="2026-02-10")
    assert Backfill.objects.count() == 1
    assert start_scheduled_run(now=at("2026-02-10T01:00")) is None  # nothing is due before the period's end
    (february,) = close(subscription, "2026-03-01T01:00")
    assert lines_of(february) == [
        ("usage", "API calls", D(0), D(0)),
        ("adjustment", "API calls, adjustment", D(2), D(4)),
    ]
    (march,) = close(subscription, "2026-04-01T01:00")
    assert lines_of(march) == [("usage", "API calls", D(0), D(0))]


def test_a_backfill_after_the_end_of_a_subscription_makes_a_correction_invoice() -> None:
    customer = acme()
    subscription = subscribed(customer, usage_product((call_meter(), "2", 0)), on="2026-01-01")
    cancel_now(subscription=subscription, now=at("2026-01-20"))
    close(subscription, "2026-01-20T01:00")
    send(customer, 6, on="2026-01-10", received="2026-02-10")
    run = start_scheduled_run(now=at("2026-02-10T01:00"))
    assert run is not None
    work_run(run=run, clock=lambda: at("2026-02-10T01:00"))
    assert [lines_of(i) for i in invoices_of(subscription)] == [
        [("usage", "API calls", D(0), D(0))],
        [("adjustment", "API calls, adjustment", D(6), D(12))],
    ]
    assert start_scheduled_run(now=at("2026-02-10T01:01")) is None


def test_late_usage_within_the_free_units_changes_nothing() -> None:
    customer = acme()
    subscription = subscribed(customer, usage_product((call_meter(), "2", 100)), on="2026-01-01")
    close(subscription, "2026-01-15", until="2026-02-01T01:00")
    send(customer, 100, on="2026-01-20")
    (february,) = close(subscription, "2026-03-01T01:00")
    assert lines_of(february) == [("usage", "API calls", D(0), D(0))]


def storage_meter() -> Meter:
    return call_meter(name="Storage", event_name="disk", aggregation="last", property_key="gb", measurement_unit="GB")


def test_a_credit_larger_than_the_invoice_goes_onto_the_balance_which_pays_the_next() -> None:
    customer = acme()
    subscription = subscribed(customer, usage_product((storage_meter(), "10", 0)), on="2026-01-01")
    send(customer, on="2026-01-10", name="disk", metadata={"gb": 9})
    (january,) = close(subscription, "2026-01-15", until="2026-02-01T01:00")
    assert january.total == D(90)
    send(customer, on="2026-01-20", name="disk", metadata={"gb": 4})  # January by now: 4 x 0.10, so 0.50 too much
    send(customer, on="2026-02-20", name="disk", metadata={"gb": 3})
    (february,) = close(subscription, "2026-03-01T01:00")
    assert lines_of(february) == [
        ("usage", "Storage", D(3), D(30)),
        ("adjustment", "Storage, adjustment", D(-5), D(-50)),
    ]
    assert (february.total, february.balance, february.due, february.status) == (D(-20), D(-20), D(0), "paid")
    send(customer, on="2026-03-20", name="disk", metadata={"gb": 8})
    (march,) = close(subscription, "2026-04-01T01:00")
    assert lines_of(march) == [("usage", "Storage", D(8), D(80))]
    assert (march.total, march.balance, march.due) == (D(80), D(20), D(60))
    (april,) = close(subscription, "2026-05-01T01:00")
    assert [i.total for i in (january, february, march, april)] == [D(90), D(-20), D(80), D(0)]


def test_a_credit_left_at_the_end_goes_onto_the_balance_once() -> None:
    customer = acme()
    subscription = subscribed(customer, usage_product((storage_meter(), "10", 0)), on="2026-01-01")
    send(customer, on="2026-01-10", name="disk", metadata={"gb": 9})
    close(subscription, "2026-01-15", until="2026-02-01T01:00")
    send(customer, on="2026-01-20", name="disk", metadata={"gb": 4})
    cancel_now(subscription=subscription, now=at("2026-01-25"))
    run = start_scheduled_run(now=at("2026-01-25T02:00"))
    assert run is not None
    work_run(run=run, clock=lambda: at("2026-01-25T02:00"))
    subscription.refresh_from_db()
    last = invoices_of(subscription)[-1]
    assert (last.reason, last.total, last.due, last.status) == ("correction", D(-50), D(0), "paid")
    assert balance_of(customer=customer, currency="USD") == D(50)
    assert subscription.parked_reason == ""
    assert start_scheduled_run(now=at("2026-01-26")) is None
    assert len(invoices_of(subscription)) == 2


def test_cancelling_after_an_early_closing_gives_back_the_fee_that_never_began() -> None:
    customer = acme()
    product = usage_product((call_meter(), "200", 0), fee=4900, name="Pro")
    subscription = subscribed(customer, product, on="2026-01-01")
    send(customer, 1, on="2026-01-05")
    (early,) = close(subscription, "2026-01-11", until="2026-02-01T01:00")
    assert early.total == D(5100)  # the fee of February and one call
    send(customer, 30, on="2026-01-12")
    cancel_now(subscription=subscription, now=at("2026-01-13"))
    send(customer, 100, on="2026-01-20")  # after the end: nobody pays for these
    (last,) = close(subscription, "2026-01-13T01:00")
    # January by now 31 calls at 2.00, one of them billed; February did not begin
    assert lines_of(last) == [
        ("adjustment", "API calls, adjustment", D(30), D(6000)),
        ("adjustment", "Pro, a period that did not begin", D(1), D(-4900)),
    ]
    assert last.total == D(1100)
    assert close(subscription, "2026-03-01") == []


def test_an_event_that_is_stored_while_a_run_works_is_not_lost() -> None:
    customer = acme()
    subscription = subscribed(customer, usage_product((call_meter(), "2", 0)), on="2026-01-01")
    send(customer, 5, on="2026-01-10")
    # The run waited for writers at 00:30, before the window was over; it gets to this one an hour later.
    close_subscription(
        subscription_id=subscription.pk,
        until=at("2026-02-01T01:30"),
        now=at("2026-02-01T01:30"),
        complete_as_of=at("2026-02-01T00:30"),
    )
    send(customer, 3, on="2026-01-31T23:59")  # accepted meanwhile, visible after the run has read
    (february,) = close(subscription, "2026-03-01T01:00")
    assert lines_of(february)[1] == ("adjustment", "API calls, adjustment", D(3), D(6))


# -- runs ---------------------------------------------------------------------------------------------------


def test_a_dry_run_shows_what_the_run_then_issues_and_saves_nothing() -> None:
    customer = acme()
    subscription = subscribed(customer, usage_product((call_meter(), "2", 0), fee=100, name="P"), on="2026-01-01")
    send(customer, 7, on="2026-01-10")
    before = (Invoice.objects.count(), InvoiceLine.objects.count(), subscription.periods.count())
    (shown,) = preview_run(until=at("2026-02-05"), now=at("2026-02-05"))
    assert before == (Invoice.objects.count(), InvoiceLine.objects.count(), subscription.periods.count())
    (issued,) = close(subscription, "2026-02-05")
    assert [(line.kind, line.description, line.quantity, line.amount) for line in shown.lines] == lines_of(issued)
    assert (shown.total, shown.period_start, shown.period_end) == (
        issued.total,
        issued.period_start,
        issued.period_end,
    )


def test_a_dry_run_shows_corrections_nobody_has_looked_at_yet() -> None:
    customer = acme()
    subscription = subscribed(customer, usage_product((call_meter(), "2", 0)), on="2026-01-01")
    cancel_now(subscription=subscription, now=at("2026-01-20"))
    close(subscription, "2026-01-20T01:00")
    send(customer, 6, on="2026-01-10", received="2026-02-10")
    (shown,) = preview_run(until=at("2026-02-11"), now=at("2026-02-11"))
    assert [(line.kind, line.quantity, line.amount) for line in shown.lines] == [("adjustment", D(6), D(12))]
    assert Backfill.objects.get().seen_at is None
    run = start_run(trigger="command", until=at("2026-02-11"), now=at("2026-02-11"))
    work_run(run=run, clock=lambda: at("2026-02-11"))
    assert lines_of(invoices_of(subscription)[-1]) == [("adjustment", "API calls, adjustment", D(6), D(12))]


def test_the_next_invoice_can_be_shown_before_it_is_due() -> None:
    customer = acme()
    subscription = subscribed(customer, usage_product((call_meter(), "2", 0), fee=100, name="P"), on="2026-01-01")
    send(customer, 7, on="2026-01-10")
    (shown,) = preview_subscription(subscription_id=subscription.pk, until=at("2026-02-01T01:00"), now=at("2026-01-11"))
    assert shown.total == D(114)
    assert subscription.periods.count() == 1


def test_usage_beyond_the_last_tier_parks_with_the_sentence_alone() -> None:
    ends_at_ten = ChargeRule(Graduated((Tier(D(10), D(5)),)))
    product = usage_product(charges=(ChargeTerms.of(call_meter(), ends_at_ten),))
    sold = subscribed(acme(), product, on="2026-01-01")
    send(sold.customer, 11, on="2026-01-02")
    work_run(
        run=start_run(trigger="command", until=at("2026-02-02"), now=at("2026-02-02")), clock=lambda: at("2026-02-02")
    )
    sold.refresh_from_db()
    assert sold.parked_reason == (
        "The last tier ends at 10, and 11 units were used; leave it open, or say by the convention "
        "beyond_last_tier what more costs."
    )


def test_a_run_parks_the_one_it_cannot_bill_and_goes_on_with_the_rest() -> None:
    product = usage_product((token_meter(), "99999.999999999999", 0))
    broken, fine = acme(), globex()
    first, second = (subscribed(customer, product, on="2026-01-01") for customer in (broken, fine))
    # An amount that no invoice has room for: an error must stop it, not a wrong number be printed.
    send(broken, 1000, on="2026-01-02", name="token.usage", metadata={"tokens": "9" * 27})
    send(fine, on="2026-01-02", name="token.usage", metadata={"tokens": 1})
    run = start_run(trigger="command", until=at("2026-02-02"), now=at("2026-02-02"))
    assert work_run(run=run, clock=lambda: at("2026-02-02")) == 2
    run.refresh_from_db()
    assert run.finished_at == at("2026-02-02")
    outcomes = dict(run.items.values_list("subscription_id", "outcome"))
    assert outcomes == {first.pk: RunOutcome.PARKED, second.pk: RunOutcome.CLOSED}
    first.refresh_from_db()
    assert first.parked_at == at("2026-02-02")
    assert "more than 28 digits" in first.parked_reason == run.items.get(subscription=first).reason
    assert invoices_of(first) == []
    assert [i.total for i in invoices_of(second)] == [D(100_000)]
    assert list(due_subscriptions(until=at("2026-02-03"))) == []


def test_a_batch_that_takes_long_parks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    subscription = subscribed(acme(), usage_product((call_meter(), "2", 0)), on="2026-01-01")
    run = start_run(trigger="command", until=at("2026-02-01T01:00"), now=at("2026-02-01T01:00"))

    def busy(**_: Any) -> list[Invoice]:
        raise IngestionBusy("Events are being stored that take long; try again in a moment.")

    with monkeypatch.context() as patched:
        patched.setattr("billing.cycles.close_subscription", busy)
        with pytest.raises(IngestionBusy):
            work_run(run=run, clock=lambda: at("2026-02-01T01:00"))
    subscription.refresh_from_db()
    assert (subscription.parked_at, run.items.get().outcome) == (None, "pending")
    assert work_run(run=run, clock=lambda: at("2026-02-01T01:00")) == 1
    assert run.items.get().outcome == RunOutcome.CLOSED


def test_one_that_cannot_go_on_is_parked_and_the_rest_are_billed() -> None:
    product = usage_product((call_meter(), "2", 0))
    first, second = (subscribed(customer, product, on="2026-01-01") for customer in (acme(), globex()))
    Subscription.objects.filter(pk=first.pk).update(time_zone="Mars/Olympus")
    failures: list[tuple[int, str]] = []
    shown = list(
        preview_run(until=at("2026-02-02"), now=at("2026-02-02"), on_failure=lambda pk, why: failures.append((pk, why)))
    )
    assert [proposal.subscription for proposal in shown] == [second]
    assert [pk for pk, _ in failures] == [first.pk]
    assert advance_periods(now=at("2026-02-02")) == 1
    first.refresh_from_db()
    assert first.parked_at == at("2026-02-02")
    assert "Mars/Olympus" in first.parked_reason
    run = start_scheduled_run(now=at("2026-02-02"))
    assert run is not None
    work_run(run=run, clock=lambda: at("2026-02-02"))
    assert len(invoices_of(second)) == 1


def test_a_dry_run_of_several_periods_is_what_the_run_issues() -> None:
    customer = acme()
    subscription = subscribed(customer, usage_product((call_meter(), "2", 0)), on="2026-01-01")
    send(customer, 5, on="2026-01-10")
    close(subscription, "2026-01-15", until="2026-02-01T01:00")
    send(customer, 10, on="2026-01-20")  # 0.20 to be adjusted, once
    shown = list(preview_run(until=at("2026-04-02"), now=at("2026-04-02")))
    issued = close(subscription, "2026-04-02")
    assert [proposal.total for proposal in shown] == [invoice.total for invoice in issued] == [D(20), D(0)]
    numbers = [invoice.number for invoice in invoices_of(subscription)]
    assert numbers == ["INV-000001", "INV-000002", "INV-000003"]  # the dry run used none up


def test_an_instant_before_all_billing_is_refused_as_a_typing_error() -> None:
    with pytest.raises(DomainError, match="typing error"):
        start_run(trigger="command", until=at("0001-01-01"), now=at("2026-02-02"))


def test_a_run_over_chosen_subscriptions_leaves_the_others() -> None:
    product = usage_product((call_meter(), "2", 0))
    first, second = (subscribed(customer, product, on="2026-01-01") for customer in (acme(), globex()))
    run = start_run(trigger="admin", until=at("2026-02-02"), now=at("2026-02-02"), subscription_ids=[second.pk])
    work_run(run=run, clock=lambda: at("2026-02-02"))
    assert invoices_of(first) == []
    assert len(invoices_of(second)) == 1


def test_one_scheduled_run_at_a_time() -> None:
    subscribed(acme(), usage_product((call_meter(), "2", 0)), on="2026-01-01")
    run = start_scheduled_run(now=at("2026-02-02"))
    assert run is not None
    assert start_scheduled_run(now=at("2026-02-02")) is None
    work_run(run=run, clock=lambda: at("2026-02-02"))
    assert start_scheduled_run(now=at("2026-02-02")) is None


def test_billing_far_ahead_is_refused_as_a_typing_error() -> None:
    with pytest.raises(DomainError, match="at most 400 days ahead"):
        start_run(trigger="command", until=at("2027-12-01"), now=at("2026-02-02"))


# -- what pages show ----------------------------------------------------------------------------------------


def test_the_running_period_shows_what_it_costs_so_far() -> None:
    customer = acme()
    subscription = subscribed(customer, usage_product((call_meter(), "2", 100), fee=4900), on="2026-01-01")
    send(customer, 130, on="2026-01-10")
    running = running_usage(subscription=subscription, now=at("2026-01-11"))
    assert running is not None
    assert (running.period.start, running.fee, running.total) == (at("2026-01-01"), D(4900), D(60))


def test_usage_history_is_newest_first_and_says_what_was_billed() -> None:
    customer = acme()
    subscription = subscribed(customer, usage_product((call_meter(), "2", 100)), on="2026-01-01")
    send(customer, 150, on="2026-01-10")
    close(subscription, "2026-01-15", until="2026-02-01T01:00")
    send(customer, 30, on="2026-01-20")
    send(customer, 10, on="2026-02-10")
    close(subscription, "2026-03-01T01:00")
    send(customer, 101, on="2026-03-02")
    found = [
        (p.period.start, c.consumed_units, c.chargeable_units, c.amount, p.invoice.number if p.invoice else None)
        for p in usage_history(subscription=subscription, now=at("2026-03-03"))
        for c in p.charges
    ]
    assert found == [
        (at("2026-03-01"), D(101), D(1), D(2), None),
        (at("2026-02-01"), D(10), D(0), D(0), "INV-000002"),
        (at("2026-01-01"), D(180), D(80), D(160), "INV-000001"),
    ]


def test_a_level_has_held_until_now_and_at_closing_until_the_periods_end() -> None:
    customer = acme()
    seats = call_meter(
        name="Seats", event_name="seats", aggregation="weighted_sum", property_key="n", measurement_unit="seat hours"
    )
    subscription = subscribed(customer, usage_product((seats, "1", 0)), on="2026-01-01")
    send(customer, on="2026-01-01", name="seats", metadata={"n": 10})
    running = running_usage(subscription=subscription, now=at("2026-01-02"))
    assert running is not None
    assert [line.quantity for line in running.lines] == [D(240)]  # 10 seats for a day
    history = usage_history(subscription=subscription, now=at("2026-01-03"))
    assert [charge.consumed_units for period in history for charge in period.charges] == [D(480)]
    (invoice,) = close(subscription, "2026-02-01T01:00")
    assert lines_of(invoice) == [("usage", "Seats", D(7440), D(7440))]  # 10 x 31 x 24
