"""Money that two steps could each take for theirs: it is billed, and given back, once."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from billing.balances import balance_of
from billing.corrections import pending_corrections
from billing.credit_notes import credit_invoice
from billing.cycles import (
    close_subscription,
    issue_due_drafts,
    issue_now,
    refresh_draft,
    regenerate_invoice,
    start_run,
    work_run,
)
from billing.invoices import approve_invoice, void_invoice
from billing.models import BillingPeriod, IgnoredCorrection, Invoice, InvoiceLine, Subscription
from billing.products import update_product
from billing.profiles import set_profile
from billing.subscriptions import cancel_now, extend_expiry, move_next_billing_date
from customers.errors import DomainError
from meters.models import Event
from meters.voids import Selection, void_events
from tests.base import acme, at, call_meter, hours, invoices_of, lines_of, send, subscribed, usage_product

pytestmark = pytest.mark.django_db
D = Decimal


def close(subscription: Subscription, until: str, now: str | None = None) -> list[Invoice]:
    return close_subscription(subscription_id=subscription.pk, until=at(until), now=at(now or until))


def run(until: str) -> None:
    instant = at(until)
    work_run(run=start_run(trigger="command", until=instant, now=instant), clock=lambda: instant)


def sold(**changes: Any) -> Subscription:
    """10 cents a call, from 1 January."""
    return subscribed(acme(), usage_product((call_meter(), "10", 0), **changes), on="2026-01-01")


def void_day(subscription: Subscription, day: str, now: str) -> None:
    void_events(
        where=Selection(start=at(day), end=at(day) + hours(23), customer=subscription.customer),
        reason="a test",
        author="Ada",
        now=at(now),
    )


def test_a_moved_billing_date_bills_no_year_again_that_was_paid() -> None:
    """A year's fee of $120, paid on 1 January 2025 and 2026, with usage by the month."""
    subscription = subscribed(
        acme(),
        usage_product(
            (call_meter(), "10", 0),
            fee=12000,
            payment_frequency_interval="Year",
            usage_frequency_count=1,
            usage_frequency_interval="Month",
        ),
        on="2025-01-01",
    )
    run("2026-04-01T01:00")
    fees = InvoiceLine.objects.filter(kind="fee").order_by("period_start")
    assert [fee.period_start for fee in fees] == [at("2025-01-01"), at("2026-01-01")]
    with pytest.raises(DomainError):
        move_next_billing_date(subscription=subscription, to=at("2026-04-20"), now=at("2026-04-10"))
    run("2026-06-01T01:00")
    assert [fee.period_start for fee in fees.all()] == [at("2025-01-01"), at("2026-01-01")]
    # In the year's last month the usage's end is the fee's: both move.
    run("2026-12-01T01:00")
    move_next_billing_date(
        subscription=subscription, to=at("2026-12-01T12:00") + timedelta(days=10), now=at("2026-12-05")
    )
    run("2027-02-15T01:00")
    assert [fee.period_start for fee in fees.all()] == [at("2025-01-01"), at("2026-01-01"), at("2026-12-11T12:00")]


def test_what_an_operator_credited_is_not_given_back_again_by_a_correction() -> None:
    subscription = sold()
    send(subscription.customer, 10, on="2026-01-10")
    (january,) = close(subscription, "2026-02-01T01:00")
    credit_invoice(invoice=january, reason="goodwill", now=at("2026-02-02"), amount=D(70))
    void_day(subscription, "2026-01-10", "2026-02-03")
    send(subscription.customer, 50, on="2026-02-10")
    (february,) = close(subscription, "2026-03-01T01:00")
    # 100 were billed, 70 of it given back; with the calls gone, 30 are left to give
    assert lines_of(february) == [
        ("usage", "API calls", D(50), D(500)),
        ("adjustment", "API calls, adjustment", D(-10), D(-30)),
    ]
    assert pending_corrections().corrections == ()


@pytest.mark.parametrize("choice", ["adjust", "credit_note"])
def test_what_was_credited_whole_leaves_nothing_to_correct(choice: str) -> None:
    subscription = sold()
    update_product(product=subscription.price.product, corrections=choice)
    send(subscription.customer, 10, on="2026-01-10")
    (january,) = close(subscription, "2026-02-01T01:00")
    credit_invoice(invoice=january, reason="goodwill", now=at("2026-02-02"))
    void_day(subscription, "2026-01-10", "2026-02-03")
    (february,) = close(subscription, "2026-03-01T01:00")
    assert (lines_of(february), january.credit_notes.count()) == ([("usage", "API calls", D(0), D(0))], 1)
    # Usage that comes later than the credit is billed: 4 calls more than the 10 that were.
    send(subscription.customer, 14, on="2026-01-11", received="2026-03-05")
    (march,) = close(subscription, "2026-04-01T01:00")
    assert lines_of(march)[1:] == [("adjustment", "API calls, adjustment", D(4), D(40))]


def test_less_usage_never_costs_more() -> None:
    """January is void, and 40 of it were given back before: what drops further changes nothing."""
    subscription = sold()
    send(subscription.customer, 6, on="2026-01-10")
    send(subscription.customer, 4, on="2026-01-11")
    (january,) = close(subscription, "2026-02-01T01:00")
    void_day(subscription, "2026-01-11", "2026-02-03")
    send(subscription.customer, 50, on="2026-02-10")
    (february,) = close(subscription, "2026-03-01T01:00")
    assert [amount for *_, amount in lines_of(february)] == [D(500), D(-40)]
    void_invoice(invoice=january, reason="goodwill", now=at("2026-03-02"))
    void_day(subscription, "2026-01-10", "2026-03-03")
    (march,) = close(subscription, "2026-04-01T01:00")
    assert lines_of(march) == [("usage", "API calls", D(0), D(0))]


def test_a_period_that_never_began_costs_nothing() -> None:
    """Closed early up to April, cancelled in January: fee, commitment and minimum of February and March come back."""
    subscription = sold(fee=1000, commitment=D(500))
    send(subscription.customer, 10, on="2026-01-10")
    close(subscription, "2026-03-01T01:00", "2026-01-15")
    billed = [[(kind, amount) for kind, _, _, amount in lines_of(one)] for one in invoices_of(subscription)]
    assert billed == [
        [("fee", D(1000))],
        [("fee", D(1000)), ("usage", D(100)), ("commitment", D(400))],
        [("fee", D(1000)), ("usage", D(0)), ("commitment", D(500))],
    ]
    cancel_now(subscription=subscription, now=at("2026-01-20"))
    close(subscription, "2026-01-20T01:00")
    close(subscription, "2026-04-01T01:00")
    stands: dict[Any, Decimal] = {}
    for line in InvoiceLine.objects.all():
        stands[line.period_start] = stands.get(line.period_start, D(0)) + line.amount
    # January had its fee, and its part of the commitment: 500 x 19/31 = 306.45
    assert stands == {at("2026-01-01"): D(1306), at("2026-02-01"): D(0), at("2026-03-01"): D(0)}


def test_a_backfill_into_a_held_draft_parks_nobody() -> None:
    subscription = sold()
    set_profile(customer=subscription.customer, needs_approval=True)
    send(subscription.customer, 10, on="2026-01-10")
    cancel_now(subscription=subscription, now=at("2026-01-20"))
    run("2026-01-20T01:00")
    (draft,) = invoices_of(subscription)
    send(subscription.customer, 2, on="2026-01-11", received="2026-01-25")
    run("2026-01-25T01:00")
    subscription.refresh_from_db()
    assert (subscription.parked_reason, subscription.parked_at) == ("", None)
    # and no tick of the schedule begins a run for what the draft will find by itself
    assert start_run(trigger="command", until=at("2026-01-26"), now=at("2026-01-26")).items.count() == 0
    approve_invoice(invoice=draft, by="ada", now=at("2026-01-27"))
    issue_now(invoice=draft, now=at("2026-01-27"))
    assert lines_of(draft) == [("usage", "API calls", D(12), D(120))]


def test_an_extension_bills_the_rest_of_a_fee_that_the_end_had_cut() -> None:
    """$31 a month for 45 days: from 1 February it is 14 of 28 days. Extended to a year, it costs its whole fee."""
    subscription = sold(fee=3100, subscription_period_count=45, subscription_period_interval="Day")
    run("2026-02-01T01:00")
    fee = InvoiceLine.objects.get(kind="fee", period_start=at("2026-02-01"))
    assert (fee.period_end, fee.amount) == (at("2026-02-15"), D(1550))
    extend_expiry(subscription=subscription, count=1, interval="Year", now=at("2026-02-10"))
    run("2026-03-01T01:00")
    february = InvoiceLine.objects.filter(period_start=at("2026-02-01")).exclude(kind="usage")
    assert sum(line.amount for line in february) == D(3100)
    run("2026-04-01T01:00")
    assert sum(line.amount for line in february.all()) == D(3100)


def test_an_ignored_difference_is_no_part_of_an_invoice_made_anew() -> None:
    subscription = sold()
    product = subscription.price.product
    update_product(product=product, corrections="ignore")
    send(subscription.customer, 10, on="2026-01-10")
    (january,) = close(subscription, "2026-02-01T01:00")
    send(subscription.customer, 5, on="2026-01-11", received="2026-02-05")
    close(subscription, "2026-03-01T01:00")
    assert IgnoredCorrection.objects.get().amount == D(50)
    anew = regenerate_invoice(invoice=january, reason="wrong address", now=at("2026-03-02"))
    assert lines_of(anew) == [("usage", "API calls", D(15), D(150))]
    update_product(product=product, corrections="adjust")
    send(subscription.customer, 1, on="2026-01-12", received="2026-03-05")
    (march,) = close(subscription, "2026-04-01T01:00")
    assert lines_of(march)[1:] == [("adjustment", "API calls, adjustment", D(1), D(10))]


def test_what_joins_an_approved_draft_waits_for_approval_again() -> None:
    customer = acme()
    product = usage_product((call_meter(), "10", 0))
    first = subscribed(customer, product, on="2026-01-01")
    second = subscribed(customer, product, on="2026-01-01")
    set_profile(customer=customer, needs_approval=True, combine_invoices=True)
    send(customer, 3, on="2026-01-10")
    now = at("2026-02-01T01:00")
    billing = start_run(trigger="command", until=now, now=now)
    work_run(run=billing, clock=lambda: now, limit=1)
    draft = Invoice.objects.get(status="draft")
    approve_invoice(invoice=draft, by="ada", now=now)
    work_run(run=billing, clock=lambda: now)
    draft.refresh_from_db()
    assert {line.subscription for line in draft.lines.all()} == {first, second}
    assert (draft.status, draft.held_at, draft.approved_by) == ("draft", now, "")


def test_a_correction_that_has_come_to_nothing_takes_no_number() -> None:
    subscription = sold()
    send(subscription.customer, 10, on="2026-01-10")
    cancel_now(subscription=subscription, now=at("2026-01-20"))
    run("2026-01-20T01:00")
    set_profile(customer=subscription.customer, grace_hours=48)
    send(subscription.customer, 2, on="2026-01-11", received="2026-01-25")
    run("2026-01-25T01:00")
    draft = Invoice.objects.get(status="draft")
    assert (draft.reason, draft.total) == ("correction", D(20))
    void_day(subscription, "2026-01-11", "2026-01-26")
    run("2026-01-27T01:00")
    assert not Invoice.objects.filter(pk=draft.pk).exists()
    assert balance_of(customer=subscription.customer, currency="USD") == 0
    assert Event.objects.count() == 12


def test_the_units_that_a_credit_note_took_are_not_taken_again() -> None:
    """January's invoice has room for a part of the credit; the rest is a line without units."""
    subscription = sold()
    update_product(product=subscription.price.product, corrections="credit_note")
    send(subscription.customer, 10, on="2026-01-10")
    (january,) = close(subscription, "2026-02-01T01:00")
    send(subscription.customer, 5, on="2026-01-11", received="2026-02-05")
    (february,) = close(subscription, "2026-03-01T01:00")
    assert lines_of(february)[1:] == [("adjustment", "API calls, adjustment", D(5), D(50))]
    void_invoice(invoice=february, reason="goodwill", now=at("2026-03-02"))
    void_day(subscription, "2026-01-10", "2026-03-03")
    void_day(subscription, "2026-01-11", "2026-03-03")
    (march,) = close(subscription, "2026-04-01T01:00")
    assert (lines_of(march), january.credit_notes.get().subtotal) == ([("usage", "API calls", D(0), D(0))], D(100))


def test_cancelling_within_the_lateness_window_changes_no_fee() -> None:
    """Fees are not refunded: one that has begun is owed whole, whether the last period's closing came first or not."""
    for minutes in (30, 90):
        subscription = subscribed(
            acme(email=f"{minutes}@acme.example"), usage_product(fee=3100, type="recurring_price"), on="2026-01-01"
        )
        cancelled = at("2026-02-01") + timedelta(minutes=minutes)
        if minutes > 60:
            close(subscription, "2026-02-01T01:00")
        cancel_now(subscription=subscription, now=cancelled)
        close(subscription, "2026-02-03")
        fees = InvoiceLine.objects.filter(subscription=subscription, kind="fee").order_by("period_start")
        assert [fee.amount for fee in fees] == [D(3100), D(3100)], f"after {minutes} minutes"


def test_a_refreshed_draft_keeps_its_period() -> None:
    subscription = sold()
    set_profile(customer=subscription.customer, grace_hours=48)
    send(subscription.customer, 3, on="2026-01-10")
    (draft,) = close(subscription, "2026-02-01T01:00")
    refresh_draft(invoice=draft, now=at("2026-02-01T02:00"))
    assert lines_of(draft) == [("usage", "API calls", D(3), D(30))]
    assert BillingPeriod.objects.filter(subscription=subscription, closed_at__isnull=False).count() == 1


def test_drafts_of_periods_that_never_began_are_not_given_back_either() -> None:
    """Closed early to the end of February into drafts, cancelled, and then the drafts are issued in any order."""
    subscription = sold(fee=1000, commitment=D(500))
    set_profile(customer=subscription.customer, needs_approval=True)
    close(subscription, "2026-03-01T01:00", "2026-01-15")
    cancel_now(subscription=subscription, now=at("2026-01-20"))
    close(subscription, "2026-01-20T01:00")
    for draft in Invoice.objects.filter(status="draft").order_by("-pk"):
        approve_invoice(invoice=draft, by="ada", now=at("2026-01-21"))
        run_drafts("2026-01-21")
    stands: dict[Any, Decimal] = {}
    for line in InvoiceLine.objects.filter(subscription=subscription):
        stands[line.period_start] = stands.get(line.period_start, D(0)) + line.amount
    # the first fee, and January's part of the commitment
    assert {start: amount for start, amount in stands.items() if amount} == {at("2026-01-01"): D(1000 + 306)}


def run_drafts(on: str) -> None:
    issue_due_drafts(clock=lambda: at(on))


def test_the_rest_of_a_credit_that_the_invoice_has_no_room_for_is_money_without_units() -> None:
    """February's 10 calls, less 8 of January: of the 100 only 20 can be credited there, and 80 go onto the next one."""
    subscription = sold()
    send(subscription.customer, 8, on="2026-01-10")
    send(subscription.customer, 2, on="2026-01-20")
    close(subscription, "2026-02-01T01:00")
    void_day(subscription, "2026-01-10", "2026-02-03")
    send(subscription.customer, 10, on="2026-02-10")
    (february,) = close(subscription, "2026-03-01T01:00")
    assert [amount for *_, amount in lines_of(february)] == [D(100), D(-80)]
    update_product(product=subscription.price.product, corrections="credit_note")
    void_day(subscription, "2026-02-10", "2026-03-03")
    send(subscription.customer, 30, on="2026-03-10")
    (march,) = close(subscription, "2026-04-01T01:00")
    assert [one.subtotal for one in february.credit_notes.all()] == [D(20)]
    assert lines_of(march)[1:] == [("adjustment", "API calls, adjustment", D(0), D(-80))]
    send(subscription.customer, 3, on="2026-02-11", received="2026-04-05")
    (april,) = close(subscription, "2026-05-01T01:00")
    assert lines_of(april)[1:] == [("adjustment", "API calls, adjustment", D(3), D(30))]


def test_a_date_moved_before_the_last_closing_loses_no_fee() -> None:
    """February's fee is billed when January closes, at 01:00; the date is moved at 00:30."""
    subscription = sold(fee=1000)
    move_next_billing_date(subscription=subscription, to=at("2026-02-20"), now=at("2026-02-01T00:30"))
    run("2026-02-20T01:00")
    fees = InvoiceLine.objects.filter(subscription=subscription, kind="fee").order_by("period_start")
    assert [(fee.period_start, fee.period_end, fee.amount) for fee in fees] == [
        (at("2026-01-01"), at("2026-02-01"), D(1000)),
        (at("2026-02-01"), at("2026-02-20"), D(1000)),
        (at("2026-02-20"), at("2026-03-20"), D(1000)),
    ]


def test_with_usage_periods_of_their_own_the_date_waits_for_the_fee() -> None:
    month = {"usage_frequency_count": 1, "usage_frequency_interval": "Month"}
    subscription = sold(fee=1000, **month)
    with pytest.raises(DomainError, match="not billed yet"):
        move_next_billing_date(subscription=subscription, to=at("2026-02-20"), now=at("2026-02-01T00:30"))
    run("2026-02-01T01:00")
    move_next_billing_date(subscription=subscription, to=at("2026-02-20"), now=at("2026-02-01T02:00"))
    run("2026-03-20T01:00")
    fees = InvoiceLine.objects.filter(subscription=subscription, kind="fee").order_by("period_start")
    assert [fee.period_start for fee in fees] == [
        at("2026-01-01"),
        at("2026-02-01"),
        at("2026-02-20"),
        at("2026-03-20"),
    ]


def test_a_fee_from_before_the_date_was_moved_can_be_made_anew() -> None:
    """And a commitment that it counts towards is compared as it was billed: 900 of 1000 are the fee's."""
    subscription = sold(
        fee=900,
        commitment=D(1000),
        commitment_covers="all",
        usage_frequency_count=1,
        usage_frequency_interval="Month",
    )
    run("2026-02-01T01:00")
    move_next_billing_date(subscription=subscription, to=at("2026-02-20"), now=at("2026-02-10"))
    run("2026-03-20T01:00")
    send(subscription.customer, 4, on="2026-01-10", received="2026-03-25")
    run("2026-04-20T01:00")
    corrected = InvoiceLine.objects.filter(period_start=at("2026-01-01"), kind="adjustment").order_by("pk")
    assert [(line.adjusts, line.amount) for line in corrected] == [("usage", D(40)), ("commitment", D(-40))]
    start = Invoice.objects.get(reason="start")
    anew = regenerate_invoice(invoice=start, reason="wrong address", now=at("2026-04-21"))
    assert [(kind, amount) for kind, _, _, amount in lines_of(anew)] == [("fee", D(900))]
