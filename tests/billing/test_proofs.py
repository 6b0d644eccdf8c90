"""An invoice proves itself: from the very events to what was asked for, whatever came later; no tampering passes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from billing.credit_notes import credit_invoice
from billing.credits import grant_credit
from billing.cycles import (
    close_subscription,
    issue_due_drafts,
    issue_now,
    regenerate_invoice,
    start_run,
    work_run,
)
from billing.discounts import add_discount
from billing.invoices import charge_once, void_invoice
from billing.line_events import NoEvents, events_csv, events_of, find_instant, settled_source, source_of
from billing.management.commands import demo
from billing.models import (
    CreditNote,
    IgnoredCorrection,
    Interval,
    Invoice,
    InvoiceLine,
    InvoiceStatus,
    LineKind,
    Product,
    Subscription,
)
from billing.pricing import ByDimension, ChargeRule, Flat, Graduated, Package, Percentage, PerUnit, Tier, Volume
from billing.products import ChargeTerms, PriceTerms, create_product
from billing.profiles import set_profile
from billing.proofs import Outcome, Verification, sentences, verify_invoice
from billing.subscriptions import cancel_now, move_next_billing_date, unpark
from billing.taxes import create_tax_rate
from customers.errors import DomainError
from customers.models import Customer
from meters.ingestion import EventInput, store_events
from meters.models import ArchivedMonth, Event, Meter
from meters.reconciliation import reconcile
from meters.retention import archive_month, drop_month, restore_month
from meters.rollups import roll_up
from meters.voids import void_event
from tests.base import acme, at, call_meter, globex, invoices_of, send, subscribed, token_meter

D = Decimal
pytestmark = pytest.mark.django_db
TIERS = (Tier(D(10), D(5), D(100)), Tier(None, D(3), D(50)))
LATER = at("2026-06-01")


def product(*charges: tuple[Meter, ChargeRule], fee: int = 0, corrections: str = "adjust", **changes: Any) -> Product:
    terms = {
        "type": "usage_based_price",
        "currency": "USD",
        "fixed_amount": D(fee),
        "payment_frequency_count": 1,
        "payment_frequency_interval": Interval.MONTH,
        "subscription_period_count": 20,
        "subscription_period_interval": Interval.YEAR,
        "charges": tuple(ChargeTerms.of(meter, rule) for meter, rule in charges),
        **changes,
    }
    made = create_product(name="P", terms=PriceTerms(**terms))
    Product.objects.filter(pk=made.pk).update(corrections=corrections)
    made.refresh_from_db()
    return made


def close(subscription: Subscription, on: str) -> list[Invoice]:
    made = close_subscription(subscription_id=subscription.pk, until=at(on), now=at(on))
    subscription.refresh_from_db()
    return made


def verify(invoice: Invoice) -> Verification:
    invoice.refresh_from_db()
    return verify_invoice(invoice=invoice, now=LATER)


def told(invoice: Invoice) -> list[str]:
    """What verifying says of each line and of the sums."""
    return [text for _, text in sentences(verify(invoice))]


SUMS = "Sums: lines, prepaid credit, tax, balance and credit notes add up."


GUARDED = ("billing_invoice", "billing_invoiceline", "billing_creditnoteline", "billing_charge")


@contextmanager
def unguarded() -> Iterator[None]:
    """As whoever owns the database and wants to cheat."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        for table in GUARDED:
            cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        yield
        for table in GUARDED:
            cursor.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")


def sql(statement: str, *given: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, given)


def january(rule: ChargeRule, *amounts: str, meter: Meter | None = None, **terms: Any) -> Invoice:
    """Acme's invoice of January for these token events."""
    customer = acme()
    subscription = subscribed(customer, product((meter or token_meter(), rule), **terms), on="2026-01-01")
    for number, amount in enumerate(amounts):
        send(customer, on=f"2026-01-{5 + number:02}", name="token.usage", metadata={"tokens": amount, "model": "a"})
    (invoice,) = close(subscription, "2026-02-01T01:00")
    return invoice


# -- nothing happened: identical ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rule",
    [
        ChargeRule(PerUnit(D("0.1")), free_units=D(3)),
        ChargeRule(Graduated(TIERS)),
        ChargeRule(Volume(TIERS)),
        ChargeRule(Package(price=D(70), size=D(3)), free_units=D(2)),
        ChargeRule(Flat(D(999))),
        ChargeRule(Percentage(D(2), fixed_fee=D(30))),
        ChargeRule(Percentage(D(2), free_events=1, event_minimum=D(10))),
        ChargeRule(PerUnit(D(2)), minimum=D(50)),
        ChargeRule(PerUnit(D(2)), maximum=D(20)),
        ChargeRule(ByDimension(("model",), {"a": PerUnit(D(2))}, default=PerUnit(D(1)))),
        ChargeRule(ByDimension(("model",), {"a": Percentage(D(1), event_maximum=D(3))}, default=Graduated(TIERS))),
    ],
)
@pytest.mark.parametrize("rolled", [True, False])
def test_an_invoice_of_any_model_is_identical(rule: ChargeRule, rolled: bool) -> None:
    if rolled:
        roll_up()
    invoice = january(rule, "7.5", "400", "0.25", meter=token_meter(group_by=["model"]), fee=2900)
    assert verify(invoice).outcome == Outcome.IDENTICAL
    assert told(invoice) == ["1. P: identical.", "2. Tokens: identical as of issue.", SUMS]


@pytest.mark.parametrize(
    ("aggregation", "changes", "quantity"),
    [
        ("count", {}, 4),
        ("sum", {}, 16),
        ("max", {}, 8),
        ("min", {}, 1),
        ("last", {}, 8),
        ("last", {"carry_forward": True}, 8),
        ("unique", {}, 4),
        ("avg", {}, 4),
        # Every day at noon from the 5th: 5, 2 and 1 hold a day each, 8 until the end of the month, 23.5 days.
        ("weighted_sum", {}, (5 + 2 + 1) * 24 + 8 * 24 * 23 + 8 * 12),
        # What held before, 3 since December, holds until noon of the 5th.
        ("weighted_sum", {"carry_forward": True}, 3 * 108 + (5 + 2 + 1) * 24 + 8 * 24 * 23 + 8 * 12),
    ],
)
def test_a_line_of_any_meter_is_identical_and_its_events_add_up_to_it(
    aggregation: str, changes: dict[str, Any], quantity: int
) -> None:
    customer = acme()
    meter = token_meter(aggregation=aggregation, **({"property_key": ""} if aggregation == "count" else {}), **changes)
    subscription = subscribed(customer, product((meter, ChargeRule(PerUnit(D(2))))), on="2026-01-01")
    send(customer, on="2025-12-31T12:00", name="token.usage", metadata={"tokens": 3})
    for number, amount in enumerate(("5", "2", "1", "8")):
        send(customer, on=f"2026-01-{5 + number:02}T12:00", name="token.usage", metadata={"tokens": amount})
    (invoice,) = close(subscription, "2026-02-01T01:00")
    (line,) = invoice.lines.all()
    assert line.quantity == quantity
    assert told(invoice) == ["1. Tokens: identical as of issue.", SUMS]
    carried = "carry_forward" in changes
    assert line.events_counted == 4 + carried
    rows = "".join(events_csv(source_of(line))).splitlines()
    assert len(rows) == 1 + line.events_counted + 3
    assert rows[-1].startswith("Quantity,,,")
    assert D(rows[-1].rpartition(",")[2]) == quantity
    assert rows[-3] == f"Events,,,{4 + carried}"


def test_fee_discount_commitment_tax_credit_and_balance_are_added_up_too() -> None:
    customer = acme(billing_address={"country": "DE"})
    create_tax_rate(name="VAT", percent=D(19), country="DE")
    calls, tokens = call_meter(), token_meter()
    plan = product(
        (calls, ChargeRule(PerUnit(D(5)))),
        (tokens, ChargeRule(Graduated(TIERS))),
        fee=4900,
        commitment=D(2000),
    )
    subscription = subscribed(customer, plan, on="2026-01-01")
    add_discount(subscription=subscription, name="friends", now=at("2026-01-01"), percent=D("12.5"))
    grant_credit(customer=customer, name="prepaid", amount=D(777), currency="USD", now=at("2026-01-10"))
    send(customer, 33, on="2026-01-05")
    send(customer, on="2026-01-05", name="token.usage", metadata={"tokens": "12.5"})
    (invoice,) = close(subscription, "2026-02-01T01:00")
    assert (invoice.credit, invoice.tax > 0, invoice.lines.count()) == (D(777), True, 4)
    assert told(invoice) == [
        "1. P: identical.",
        "2. API calls: identical as of issue.",
        "3. Tokens: identical as of issue.",
        "4. P, up to the commitment: identical.",
        SUMS,
    ]
    line = invoice.lines.get(position=2)
    credit_invoice(invoice=invoice, reason="kind", now=LATER, lines={line.pk: D(20)})
    assert verify(invoice).outcome == Outcome.IDENTICAL


@pytest.mark.parametrize("inclusive", [True, False])
def test_a_one_time_charge_is_identical(inclusive: bool) -> None:
    create_tax_rate(name="VAT", percent=D(19))
    once = create_product(
        name="Setup",
        terms=PriceTerms(type="one_time_price", currency="USD", fixed_amount=D(999), tax_inclusive=inclusive),
    )
    invoice = charge_once(customer=acme(), product=once, now=at("2026-01-05"), quantity=3)
    assert told(invoice) == ["1. Setup: identical.", SUMS]


def test_a_trial_a_partial_period_and_a_cancellation_are_identical() -> None:
    customer = acme()
    plan = product((call_meter(), ChargeRule(Flat(D(3100)))), fee=3100, trial_period_days=10, alignment="calendar")
    subscription = subscribed(customer, plan, on="2026-01-01")
    send(customer, 3, on="2026-01-05")
    send(customer, 3, on="2026-01-15")
    close(subscription, "2026-02-10")
    cancel_now(subscription=subscription, now=at("2026-02-15"))
    close(subscription, "2026-02-16T02:00")
    assert len(invoices_of(subscription)) >= 3
    for invoice in invoices_of(subscription):
        assert verify(invoice).outcome == Outcome.IDENTICAL, told(invoice)


def test_a_draft_that_was_refreshed_and_an_invoice_made_anew_are_identical() -> None:
    customer = acme()
    set_profile(customer=customer, grace_hours=48)
    subscription = subscribed(customer, product((call_meter(), ChargeRule(PerUnit(D(5))))), on="2026-01-01")
    send(customer, 3, on="2026-01-05")
    (draft,) = close(subscription, "2026-02-01T01:00")
    assert draft.status == InvoiceStatus.DRAFT
    assert told(draft) == ["1. API calls: identical as of issue.", SUMS]
    send(customer, 2, on="2026-01-06", received="2026-02-01T05:00")
    issue_now(invoice=draft, now=at("2026-02-02"))
    assert draft.lines.get().quantity == 5
    assert told(draft) == ["1. API calls: identical as of issue.", SUMS]
    send(customer, on="2026-01-07", received="2026-02-03")
    again = regenerate_invoice(invoice=draft, reason="wrong address", now=at("2026-02-04"))
    assert again.lines.get().quantity == 6
    assert told(again) == ["1. API calls: identical as of issue.", SUMS]
    # The void one still proves what it billed then.
    assert told(draft) == [
        "1. API calls: identical as of issue; since then 1 event arrived late; nothing pending.",
        SUMS,
    ]


def test_a_discount_given_after_the_fee_was_billed_is_no_difference() -> None:
    customer = acme()
    plan = product((call_meter(), ChargeRule(PerUnit(D(5)))), fee=1000)
    subscription = subscribed(customer, plan, on="2026-01-01")
    send(customer, 10, on="2026-01-05")
    # From the running period on: its fee was billed in advance, its usage is 50 - 10 %.
    add_discount(subscription=subscription, name="late", now=at("2026-01-10"), percent=D(10))
    close(subscription, "2026-02-01T01:00")
    (start, january_invoice) = invoices_of(subscription)
    assert [line.amount for line in january_invoice.lines.all()] == [900, 45]
    assert (verify(start).outcome, verify(january_invoice).outcome) == (Outcome.IDENTICAL, Outcome.IDENTICAL)


def test_a_month_that_was_archived_and_brought_back_proves_the_same(tmp_path: Any) -> None:
    invoice = january(ChargeRule(PerUnit(D(2))), "5", "6", "2.50")
    void_event(event_id=Event.objects.order_by("id")[2].event_id, reason="r", author="a", now=at("2026-02-05"))
    before = told(invoice)
    roll_up()
    month = at("2026-01-01").date()
    archive_month(month=month, folder=tmp_path, now=LATER)
    drop_month(month=month, now=LATER, in_use=lambda month: "")
    assert verify(invoice).outcome == Outcome.NOT_PROVABLE
    restore_month(month=month)
    assert told(invoice) == before
    assert before[0].startswith("1. Tokens: identical as of issue; since then 1 event voided; pending -$0.05")


def test_one_invoice_for_several_subscriptions_and_usage_periods_of_their_own() -> None:
    customer = acme()
    set_profile(customer=customer, combine_invoices=True)
    meter = call_meter()
    yearly: dict[str, Any] = {"payment_frequency_interval": Interval.YEAR, "usage_frequency_count": 1}
    first = subscribed(
        customer,
        product(
            (meter, ChargeRule(PerUnit(D(3)))),
            fee=12000,
            commitment=D(500),
            usage_frequency_interval=Interval.MONTH,
            **yearly,
        ),
        on="2026-01-01",
    )
    subscribed(customer, product((meter, ChargeRule(Graduated(TIERS)))), on="2026-01-01")
    send(customer, 12, on="2026-01-05")
    run = start_run(trigger="manual", until=at("2026-02-01T02:00"), now=at("2026-02-01T02:00"))
    work_run(run=run, clock=lambda: at("2026-02-01T02:00"))
    issue_due_drafts(clock=lambda: at("2026-02-01T02:00"))
    combined = Invoice.objects.get(reason="cycle")
    assert combined.lines.count() == 3
    for invoice in [*invoices_of(first), combined]:
        assert verify(invoice).outcome == Outcome.IDENTICAL, told(invoice)


def test_buckets_that_disagree_with_the_log_park_the_subscription_until_they_are_mended() -> None:
    customer = acme()
    subscription = subscribed(customer, product((token_meter(), ChargeRule(PerUnit(D(2))))), on="2026-01-01")
    send(customer, on="2026-01-05", name="token.usage", metadata={"tokens": 5})
    roll_up()
    sql("UPDATE meters_bucket SET total = 500")
    now = at("2026-02-01T02:00")
    work_run(run=start_run(trigger="manual", until=now, now=now), clock=lambda: now)
    subscription.refresh_from_db()
    assert "has 500 (1 event) in its buckets and 5 (1 event) in the log" in subscription.parked_reason
    assert invoices_of(subscription) == []
    reconcile(trigger="command", fix=True, now=now)
    unpark(subscription=subscription)
    work_run(run=start_run(trigger="manual", until=now, now=now), clock=lambda: now)
    (invoice,) = invoices_of(subscription)
    assert (invoice.total, verify(invoice).outcome) == (D(10), Outcome.IDENTICAL)


# -- what came later is named, and changes nothing -----------------------------------------------------------------


def test_voids_and_late_events_are_named_with_what_they_will_change() -> None:
    customer = acme()
    subscription = subscribed(customer, product((call_meter(), ChargeRule(PerUnit(D(20))))), on="2026-01-01")
    send(customer, 10, on="2026-01-05")
    (invoice,) = close(subscription, "2026-02-01T01:00")
    for event in Event.objects.order_by("id")[:4]:
        void_event(event_id=event.event_id, reason="r", author="a", now=at("2026-02-02"))
    send(customer, 2, on="2026-01-06", received="2026-02-03")
    # 10 were billed; by now 10 - 4 + 2 = 8, so 2 x $0.20 too much.
    assert told(invoice) == [
        "1. API calls: identical as of issue; since then 4 events voided, 2 events arrived late; pending -$0.40.",
        SUMS,
    ]
    (_, following) = [invoice, *close(subscription, "2026-03-01T01:00")]
    assert [(line.kind, line.quantity, line.amount) for line in following.lines.all()] == [
        ("usage", D(0), D(0)),
        ("adjustment", D(-2), D(-40)),
    ]
    assert told(following) == [
        "1. API calls: identical as of issue.",
        "2. API calls, adjustment: identical as of issue.",
        SUMS,
    ]
    assert told(invoice)[0].endswith("4 events voided, 2 events arrived late; nothing pending.")


def test_an_adjustment_is_proved_as_should_minus_billed_also_when_it_is_adjusted_again() -> None:
    customer = acme()
    subscription = subscribed(
        customer, product((call_meter(), ChargeRule(Graduated(TIERS))), fee=5000), on="2026-01-01"
    )
    send(customer, 9, on="2026-01-05")
    close(subscription, "2026-02-01T01:00")
    # 9 x 5 + 100 = 145; 12 are 10 x 5 + 100 + 2 x 3 + 50 = 206; 11 are 203
    send(customer, 3, on="2026-01-06", received="2026-02-03")
    (february,) = close(subscription, "2026-03-01T01:00")
    assert february.lines.get(kind="adjustment").amount == 206 - 145
    void_event(event_id=Event.objects.order_by("id")[0].event_id, reason="r", author="a", now=at("2026-03-02"))
    (march,) = close(subscription, "2026-04-01T01:00")
    assert march.lines.get(kind="adjustment").amount == 203 - 206
    for invoice in invoices_of(subscription):
        assert verify(invoice).outcome == Outcome.IDENTICAL, told(invoice)
    rows = "".join(events_csv(settled_source(march.lines.get(kind="adjustment")))).splitlines()
    # 11 events stand behind it, of which 12 were billed before.
    assert rows[-3:] == ["Quantity,,,11", "Billed before,,,-12", "Quantity of this line,,,-1"]
    # As of the February invoice the void one counted.
    assert len(list(events_of(settled_source(february.lines.get(kind="adjustment"))))) == 12


def test_a_commitment_is_proved_where_the_usage_it_goes_with_stands_on_other_invoices() -> None:
    customer = acme()
    calls, tokens = call_meter(), token_meter()
    plan = product((calls, ChargeRule(PerUnit(D(10)))), (tokens, ChargeRule(PerUnit(D(1)))), commitment=D(300))
    subscription = subscribed(customer, plan, on="2026-01-01")
    (january,) = close(subscription, "2026-02-01T01:00")
    assert [line.amount for line in january.lines.all()] == [D(0), D(0), D(300)]
    send(customer, 7, on="2026-01-05", received="2026-02-02")
    (february,) = close(subscription, "2026-03-01T01:00")
    assert [line.amount for line in february.lines.filter(kind="adjustment")] == [D(70), D(-70)]
    # Made anew, the commitment stands alone beside the tokens, of which there are none: 230 minus the -70 of February.
    anew = regenerate_invoice(invoice=january, reason="wrong address", now=at("2026-03-02"))
    assert [(line.kind, line.adjusts, line.amount) for line in anew.lines.all()] == [
        ("usage", "", D(0)),
        ("adjustment", "commitment", D(300)),
    ]
    # What is void later had counted then.
    void_event(event_id=Event.objects.order_by("id")[0].event_id, reason="r", author="a", now=at("2026-03-03"))
    (march,) = close(subscription, "2026-04-01T01:00")
    assert [line.amount for line in march.lines.filter(kind="adjustment")] == [D(-10), D(10)]
    for invoice in invoices_of(subscription):
        assert verify(invoice).outcome == Outcome.IDENTICAL, told(invoice)


def test_a_commitment_is_proved_where_the_usage_was_given_back_by_credit_note() -> None:
    customer = acme()
    plan = product((call_meter(), ChargeRule(PerUnit(D(10)))), commitment=D(300), corrections="credit_note")
    subscription = subscribed(customer, plan, on="2026-01-01")
    send(customer, 40, on="2026-01-05")
    (january,) = close(subscription, "2026-02-01T01:00")
    assert [line.amount for line in january.lines.all()] == [D(400)]
    for months, (voided, day) in enumerate([(15, "2026-02-02"), (5, "2026-03-02")], start=2):
        for event in Event.objects.filter(voided_at__isnull=True).order_by("id")[:voided]:
            void_event(event_id=event.event_id, reason="r", author="a", now=at(day))
        close(subscription, f"2026-{months + 1:02}-01T01:00")
    # 25 are 250, so 150 came back and 50 are missing to the commitment; then 20 are 200: 50 back and 50 more missing.
    lines = InvoiceLine.objects.filter(subscription=subscription, period_start=at("2026-01-01")).order_by("pk")
    assert [(line.kind, line.amount) for line in lines] == [
        ("usage", D(400)),
        ("commitment", D(50)),
        ("adjustment", D(50)),
    ]
    assert [note.subtotal for note in january.credit_notes.order_by("pk")] == [D(150), D(50)]
    for invoice in invoices_of(subscription):
        assert verify(invoice).outcome == Outcome.IDENTICAL, told(invoice)


@pytest.mark.parametrize("grace", [0, 36])
def test_what_was_billed_early_of_a_period_that_never_began_is_proved_too(grace: int) -> None:
    customer = acme()
    set_profile(customer=customer, grace_hours=grace)
    plan = product((call_meter(), ChargeRule(Flat(D(40)))), fee=100, commitment=D(300))
    subscription = subscribed(customer, plan, on="2026-01-01")
    early = close_subscription(subscription_id=subscription.pk, until=at("2026-03-02"), now=at("2026-01-10"))
    assert [[line.amount for line in invoice.lines.all()] for invoice in early] == [[D(100), D(40), D(260)]] * 2
    cancel_now(subscription=subscription, now=at("2026-01-20"))
    assert subscription.periods.count() == 1
    for invoice in early:
        assert verify(invoice).outcome == Outcome.IDENTICAL, told(invoice)
    # A draft was made anew without it; what was issued is taken back on the last invoice, line by line.
    close_subscription(subscription_id=subscription.pk, until=at("2026-01-20T02:00"), now=at("2026-01-20T02:00"))
    taken_back = InvoiceLine.objects.filter(description__endswith="a period that did not begin")
    amounts = [] if grace else [D(-100), D(-40), D(-260), D(-100)]
    assert [line.amount for line in taken_back.order_by("period_start", "pk")] == amounts
    for invoice in Invoice.objects.all():
        assert verify(invoice).outcome == Outcome.IDENTICAL, told(invoice)


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("SET quantity = 4", "quantity: the invoice says 4, found 3"),
        ("SET amount = 62", "amount: the invoice says $0.62, found $0.61"),
        (
            """SET explanation = jsonb_set(explanation, '{billed_amount}', '"144"')""",
            "billed before: the invoice says $1.44, found $1.45",
        ),
        (
            """SET explanation = jsonb_set(explanation, '{should_amount}', '"207"')""",
            "should have cost: the invoice says $2.07, found $2.06",
        ),
    ],
)
def test_an_adjustment_that_was_changed_is_noticed(statement: str, says: str) -> None:
    customer = acme()
    plan = product((call_meter(), ChargeRule(Graduated(TIERS))), fee=5000)
    subscription = subscribed(customer, plan, on="2026-01-01")
    send(customer, 9, on="2026-01-05")
    close(subscription, "2026-02-01T01:00")
    send(customer, 3, on="2026-01-06", received="2026-02-03")
    (february,) = close(subscription, "2026-03-01T01:00")
    with unguarded():
        sql(f"UPDATE billing_invoiceline {statement} WHERE kind = 'adjustment'")
    assert f"API calls, adjustment: different. {says}" in " ".join(told(february))


@pytest.mark.parametrize("corrections", ["credit_note", "ignore"])
def test_a_correction_by_credit_note_or_on_record_is_verified(corrections: str) -> None:
    customer = acme()
    plan = product((call_meter(), ChargeRule(PerUnit(D(20)))), corrections=corrections)
    subscription = subscribed(customer, plan, on="2026-01-01")
    send(customer, 10, on="2026-01-05")
    (invoice,) = close(subscription, "2026-02-01T01:00")
    for event in Event.objects.order_by("id")[:4]:
        void_event(event_id=event.event_id, reason="r", author="a", now=at("2026-02-02"))
    assert told(invoice)[0].endswith("since then 4 events voided; pending -$0.80.")
    close(subscription, "2026-03-01T01:00")
    assert (CreditNote.objects.count(), IgnoredCorrection.objects.count()) == (
        (1, 0) if corrections == "credit_note" else (0, 1)
    )
    # A later difference counts from there.
    send(customer, 3, on="2026-01-06", received="2026-03-03")
    close(subscription, "2026-04-01T01:00")
    for one in invoices_of(subscription):
        assert verify(one).outcome == Outcome.IDENTICAL, told(one)
    if corrections == "credit_note":
        with unguarded():
            sql("UPDATE billing_creditnoteline SET amount = amount + 1")
        number = CreditNote.objects.get().number
        assert f"subtotal of credit note {number}: the invoice says $0.80, found $0.81" in told(invoice)[-1]
        assert (
            f"given back by credit note {number}: the invoice says $0.81, found $0.80 billed too much"
            in told(invoice)[-1]
        )


def test_a_void_by_a_clock_that_is_off_is_told_apart_by_the_digest() -> None:
    """Voided before the issue by the clocks, and committed after it: the events themselves say which it was."""
    customer = acme()
    subscription = subscribed(customer, product((call_meter(), ChargeRule(PerUnit(D(20))))), on="2026-01-01")
    send(customer, 5, on="2026-01-05")
    first, second, third = Event.objects.order_by("id")[:3]
    void_event(event_id=third.event_id, reason="r", author="a", now=at("2026-01-20"))
    (invoice,) = close(subscription, "2026-02-01T01:00")
    assert invoice.lines.get().quantity == 4
    void_event(event_id=first.event_id, reason="r", author="a", now=at("2026-02-01T00:59"))
    void_event(event_id=second.event_id, reason="r", author="a", now=at("2026-02-02"))
    # Two of the four count no more: 2 x $0.20.
    assert told(invoice)[0] == "1. API calls: identical as of issue; since then 2 events voided; pending -$0.40."
    source, found = find_instant(source_of(invoice.lines.get()))
    assert (found.quantity, source.as_of) == (D(4), at("2026-02-01T00:59"))


# -- tampering -------------------------------------------------------------------------------------------------


def test_a_changed_value_shows_in_digest_quantity_and_amount() -> None:
    invoice = january(ChargeRule(PerUnit(D(2))), "5", "6")
    line = invoice.lines.get()
    sql("""UPDATE meters_event SET metadata = '{"tokens": 9}' WHERE id = %s""", Event.objects.order_by("id")[0].pk)
    (proof,) = verify(invoice).lines
    assert [difference.what for difference in proof.differences] == [
        "digest of the events",
        "quantity",
        "chargeable units",
        "exact amount",
        "amount",
    ]
    text = told(invoice)[0]
    assert text.startswith(f"1. Tokens: different. digest of the events: the invoice says {line.events_digest}, found ")
    assert "; quantity: the invoice says 11, found 15; " in text
    assert text.endswith("amount: the invoice says $0.22, found $0.30.")


def test_a_removed_event_shows_as_one_event_less() -> None:
    invoice = january(ChargeRule(PerUnit(D(2))), "5", "6")
    sql("DELETE FROM meters_event WHERE id = %s", Event.objects.order_by("id")[0].pk)
    assert "different. events: the invoice says 2, found 1; digest" in told(invoice)[0]
    assert "; quantity: the invoice says 11, found 6; " in told(invoice)[0]


def test_an_event_that_was_slipped_in_below_the_watermark_is_noticed() -> None:
    customer = globex()
    send(customer, on="2026-01-06", name="token.usage", metadata={"tokens": 4})
    other = Event.objects.get()
    invoice = january(ChargeRule(PerUnit(D(2))), "5", "6")
    assert verify(invoice).outcome == Outcome.IDENTICAL
    sql("UPDATE meters_event SET customer_id = %s WHERE id = %s", invoice.customer_id, other.pk)
    assert "different. events: the invoice says 2, found 3; digest" in told(invoice)[0]


def test_a_change_that_costs_nothing_is_noticed_all_the_same() -> None:
    invoice = january(ChargeRule(Flat(D(999))), "5", "6")
    sql("UPDATE meters_event SET timestamp = timestamp + interval '1 hour'")
    (proof,) = verify(invoice).lines
    assert [difference.what for difference in proof.differences] == ["digest of the events"]


def test_a_meter_that_was_changed_is_named() -> None:
    invoice = january(ChargeRule(PerUnit(D(2))), "5", "6")
    sql("UPDATE meters_meter SET aggregation = 'max'")
    (proof,) = verify(invoice).lines
    assert [difference.what for difference in proof.differences][:2] == ["meter definition", "quantity"]


def test_a_price_that_was_changed_shows_in_the_amount() -> None:
    invoice = january(ChargeRule(PerUnit(D(2))), "5", "6")
    with unguarded():
        sql("UPDATE billing_charge SET price_per_unit = 3")
    assert told(invoice)[0] == (
        "1. Tokens: different. price per unit: the invoice says 2, found 3; exact amount: the invoice says 22, "
        "found 33; amount: the invoice says $0.22, found $0.33."
    )


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("UPDATE billing_invoiceline SET amount = amount + 1", "amount: the invoice says $0.23, found $0.22"),
        ("UPDATE billing_invoiceline SET quantity = 12", "quantity: the invoice says 12, found 11"),
        ("UPDATE billing_invoiceline SET discount = 1", "discount: the invoice says 1, found 0"),
        ("UPDATE billing_invoiceline SET free_units = 1", "free units: the invoice says 1, found 0"),
        ("UPDATE billing_invoiceline SET tax = 7", "tax: the invoice says $0.07, found $0.00"),
        (
            "UPDATE billing_invoiceline SET events_digest = repeat('0', 64)",
            "digest of the events: the invoice says 0000",
        ),
        ("UPDATE billing_invoice SET subtotal = 23", "Sums: subtotal: the invoice says $0.23, found $0.22"),
        ("UPDATE billing_invoice SET total = 23", "Sums: total: the invoice says $0.23, found $0.22"),
        ("UPDATE billing_invoice SET tax = 1", "Sums: tax: the invoice says $0.01, found $0.00"),
        ("UPDATE billing_invoice SET credit = 1", "Sums: prepaid credit: the invoice says $0.01, found $0.00"),
        ("UPDATE billing_invoice SET balance = 1", "Sums: paid from the balance: the invoice says $0.01, found $0.00"),
    ],
)
def test_an_invoice_that_was_changed_is_noticed(statement: str, says: str) -> None:
    invoice = january(ChargeRule(PerUnit(D(2))), "5", "6")
    with unguarded():
        sql(statement)
    found = verify(invoice)
    assert found.outcome == Outcome.DIFFERENT
    assert says in " ".join(text for _, text in sentences(found))


@pytest.mark.parametrize(
    "statement",
    [
        """UPDATE billing_charge SET price_per_unit = NULL, terms = '{"model": "nonsense"}'""",
        """UPDATE billing_invoiceline SET taxes = '[{"name": "VAT", "percent": "x", "amount": "NaN"}]'""",
        "UPDATE billing_invoiceline SET explanation = '{}'",
        "UPDATE billing_invoiceline SET period_end = period_start",
        "UPDATE billing_invoiceline SET watermark = -1",
        "UPDATE billing_invoiceline SET events_counted = 9223372036854775807",
        "UPDATE billing_invoiceline SET kind = 'adjustment', adjusts = 'usage', explanation = '{\"should_amount\": 7}'",
        """UPDATE billing_invoiceline SET kind = 'adjustment', explanation = '{"should_amount": "x"}'""",
        "UPDATE billing_invoiceline SET charge_id = NULL",
        "UPDATE billing_invoiceline SET period_start = NULL, period_end = NULL",
    ],
)
def test_nonsense_in_the_rows_is_a_result_and_no_crash(statement: str) -> None:
    create_tax_rate(name="VAT", percent=D(19))
    invoice = january(ChargeRule(PerUnit(D(20))), "5", "6")
    with unguarded():
        sql(statement)
    assert told(invoice)
    assert command("--all")[0] in (0, 1)


def test_a_tax_that_was_changed_consistently_is_noticed_by_its_rate() -> None:
    create_tax_rate(name="VAT", percent=D(19))
    invoice = january(ChargeRule(PerUnit(D(20))), "5", "6")
    assert verify(invoice).outcome == Outcome.IDENTICAL
    with unguarded():
        sql("""UPDATE billing_invoiceline SET tax = tax + 1, taxes = jsonb_set(taxes, '{0,amount}', '"43"')""")
        sql("UPDATE billing_invoice SET tax = tax + 1, total = total + 1")
    # 19 % of 220 are 41.8
    assert told(invoice)[-1] == "Sums: tax of line 1: the invoice says $0.43, found $0.42."


# -- what cannot be proved ---------------------------------------------------------------------------------------


def test_a_month_that_left_the_log_has_to_be_restored() -> None:
    invoice = january(ChargeRule(PerUnit(D(2))), "5", "6")
    roll_up()
    ArchivedMonth.objects.create(
        month=at("2026-01-01").date(), path="x", events=2, checksum="", archived_at=LATER, dropped_at=LATER
    )
    assert verify(invoice).outcome == Outcome.NOT_PROVABLE
    assert told(invoice)[0] == (
        "1. Tokens: not provable. January 2026 was archived and dropped. Restore it to count its events one by one."
    )


def test_a_line_without_evidence_says_so_and_its_amount_is_checked() -> None:
    invoice = january(ChargeRule(PerUnit(D(2))), "5", "6")
    with unguarded():
        sql("UPDATE billing_invoiceline SET watermark = NULL, events_digest = '', events_counted = NULL")
    assert verify(invoice).outcome == Outcome.NOT_PROVABLE
    assert "not provable. “Tokens” does not say which events it stands on" in told(invoice)[0]
    with unguarded():
        sql("UPDATE billing_invoiceline SET amount = 23")
    assert "different. amount: the invoice says $0.23, found $0.22; not provable. " in told(invoice)[0]
    with pytest.raises(NoEvents):
        source_of(invoice.lines.get())


def test_a_fee_has_no_events() -> None:
    invoice = january(ChargeRule(PerUnit(D(2))), "5", fee=100)
    with pytest.raises(NoEvents, match="was not metered"):
        source_of(invoice.lines.get(kind=LineKind.FEE))


# -- the command ---------------------------------------------------------------------------------------------------


def command(*given: str) -> tuple[int, str]:
    out = StringIO()
    try:
        call_command("verify_invoice", *given, stdout=out)
    except SystemExit as end:
        return int(end.code or 0), out.getvalue()
    return 0, out.getvalue()


def test_the_command_says_identical_or_ends_with_1() -> None:
    invoice = january(ChargeRule(PerUnit(D(2))), "5", "6")
    number = str(invoice.number)
    code, text = command(number)
    assert (code, text.splitlines()[0]) == (0, f"{number}: identical")
    sql("DELETE FROM meters_event WHERE id = %s", Event.objects.order_by("id")[0].pk)
    code, text = command(number)
    assert (code, text.splitlines()[0]) == (1, f"{number}: different")
    assert "events: the invoice says 2, found 1" in text
    code, text = command("--all")
    assert code == 1
    assert text.splitlines()[-1] == "1 invoice verified: 0 identical, 1 different, 0 not provable."
    with pytest.raises(CommandError, match="no invoice “INV-9”"):
        command("INV-9")
    with pytest.raises(CommandError, match="Name an invoice"):
        command()


def test_all_takes_every_invoice_that_was_issued() -> None:
    january(ChargeRule(PerUnit(D(2))), "5", "6", fee=100)
    code, text = command("--all")
    assert (code, text.splitlines()[-1]) == (0, "2 invoices verified: 2 identical, 0 different, 0 not provable.")


# -- every event of a billed customer lands in exactly one line ------------------------------------------------------

minutes = st.integers(0, 90 * 24 * 60 - 1)
sends = st.lists(st.tuples(minutes, st.sampled_from("ab")), min_size=1, max_size=8)
steps = st.lists(
    st.one_of(
        sends.map(lambda batch: ("send", batch)),
        st.integers(0, 20).map(lambda back: ("void", back)),
        st.just(("roll", None)),
        st.integers(1, 3).map(lambda month: ("close", month)),
    ),
    min_size=3,
    max_size=10,
)


@settings(
    max_examples=25,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(steps)
def test_every_event_lands_in_exactly_one_line(script: list[tuple[str, Any]]) -> None:
    with transaction.atomic():
        point = transaction.savepoint()
        try:
            _play(script)
        finally:
            transaction.savepoint_rollback(point)


def _play(script: Sequence[tuple[str, Any]]) -> None:
    """Two meters of different events, three months; events of any time, voids, rolls and closings in any order."""
    customer = acme()
    calls = call_meter(event_name="a")
    tokens = call_meter(event_name="b", aggregation="sum", property_key="n", name="Tokens")
    plan = product((calls, ChargeRule(PerUnit(D(1)))), (tokens, ChargeRule(PerUnit(D(2)))), fee=1000)
    begin = at("2026-01-01")
    subscription = subscribed(customer, plan, on="2026-01-01")
    clock, sent, void = begin, 0, set[str]()
    for step, what in [*script, ("close", 1), ("close", 2), ("close", 3), ("close", 4)]:
        clock += timedelta(minutes=1)
        if step == "send":
            events = []
            for minute, name in what:
                sent += 1
                instant = (begin + timedelta(minutes=minute)).isoformat()
                events.append(EventInput(f"evt_{sent}", customer.public_id, name, instant, {"n": sent}))
            store_events(events=events, now=max(clock, at("2026-04-02")), backfill=True)
        elif step == "void":
            if sent > what and (chosen := f"evt_{sent - what}") not in void:
                void_event(event_id=chosen, reason="r", author="a", now=clock)
                void.add(chosen)
        elif step == "roll":
            roll_up()
        else:
            # Up to the end of that month, and what came late for earlier ones.
            month = at(f"2026-{what + 1:02}-01T01:00")
            close_subscription(subscription_id=subscription.pk, until=month, now=max(clock, month))
            clock = max(clock, month)
    _check_lines(customer, subscription, void, sent)


def _check_lines(customer: Customer, subscription: Subscription, void: set[str], sent: int) -> None:
    lines = list(InvoiceLine.objects.filter(subscription=subscription, charge__isnull=False).order_by("pk"))
    places: dict[tuple[int | None, datetime | None], list[InvoiceLine]] = {}
    for line in lines:
        places.setdefault((line.charge_id, line.period_start), []).append(line)
    landed: list[str] = []
    for place in places.values():
        assert place[0].kind == LineKind.USAGE
        assert [line.kind for line in place[1:]] == [LineKind.ADJUSTMENT] * (len(place) - 1)
        # Each later one stands on the period as it was by then, and the last on what counts now.
        found = [event.event_id for event in events_of(settled_source(place[-1]))]
        landed += found
        values = [D(event_id.removeprefix("evt_")) for event_id in found]
        whole = sum(values, D(0)) if place[0].description == "Tokens" else D(len(found))
        assert sum((line.quantity for line in place), D(0)) == whole
    # None twice, none left out that counts; what was voided is in none of the latest.
    assert len(landed) == len(set(landed))
    live = {f"evt_{number}" for number in range(1, sent + 1)} - void
    counted = set(landed)
    assert counted <= live | void
    # A difference that changes no amount makes no line, so what came after the last line of its place may be missing
    # only where nothing is due for it; here every event costs something.
    assert counted == live
    for invoice in invoices_of(subscription):
        assert verify(invoice).outcome == Outcome.IDENTICAL, told(invoice)


# -- whatever billing itself does, its invoices stay provable ----------------------------------------------------

deeds = st.lists(
    st.one_of(
        sends.map(lambda batch: ("send", batch)),
        st.integers(0, 20).map(lambda back: ("void", back)),
        st.just(("roll", None)),
        st.integers(1, 4).map(lambda month: ("close", month)),
        st.integers(0, 3).map(lambda which: ("void invoice", which)),
        st.integers(0, 3).map(lambda which: ("regenerate", which)),
        st.tuples(st.integers(0, 3), st.integers(1, 60)).map(lambda much: ("credit", much)),
        st.integers(1, 50).map(lambda percent: ("discount", percent)),
        st.integers(1, 500).map(lambda amount: ("grant", amount)),
        st.just(("issue drafts", None)),
        st.integers(1, 40).map(lambda days: ("move", days)),
        st.just(("cancel", None)),
        # Before the periods are over.
        st.integers(10, 50).map(lambda days: ("close early", days)),
    ),
    min_size=4,
    max_size=14,
)


@settings(
    max_examples=40,
    deadline=None,
    database=None,
    # Making an example smaller takes minutes here.
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(deeds, st.sampled_from(["adjust", "credit_note", "ignore"]), st.booleans())
def test_whatever_billing_does_every_invoice_verifies(
    script: list[tuple[str, Any]], corrections: str, drafts: bool
) -> None:
    with transaction.atomic():
        point = transaction.savepoint()
        try:
            _do(script, corrections, drafts)
        finally:
            transaction.savepoint_rollback(point)


def _do(script: Sequence[tuple[str, Any]], corrections: str, drafts: bool) -> None:
    customer = acme(billing_address={"country": "DE"})
    create_tax_rate(name="VAT", percent=D(19), country="DE")
    set_profile(customer=customer, grace_hours=36 if drafts else None)
    calls = call_meter(event_name="a")
    tokens = call_meter(event_name="b", aggregation="max", property_key="n", name="Tokens")
    plan = product(
        (calls, ChargeRule(Graduated(TIERS), free_units=D(1))),
        (tokens, ChargeRule(PerUnit(D(7)))),
        fee=1000,
        commitment=D(300),
        corrections=corrections,
    )
    begin = at("2026-01-01")
    subscription = subscribed(customer, plan, on="2026-01-01")
    clock, sent, void = begin, 0, set[str]()
    for step, what in [*script, ("close", 1), ("close", 2), ("close", 3), ("close", 4)]:
        clock += timedelta(minutes=1)
        try:
            with transaction.atomic():
                if step == "send":
                    events = []
                    for minute, name in what:
                        sent += 1
                        instant = (begin + timedelta(minutes=minute)).isoformat()
                        events.append(EventInput(f"evt_{sent}", customer.public_id, name, instant, {"n": sent}))
                    store_events(events=events, now=max(clock, at("2026-04-02")), backfill=True)
                elif step == "void" and sent > what and (chosen := f"evt_{sent - what}") not in void:
                    void_event(event_id=chosen, reason="r", author="a", now=clock)
                    void.add(chosen)
                elif step == "roll":
                    roll_up()
                elif step == "close":
                    month = at(f"2026-{what + 1:02}-01T01:00")
                    clock = max(clock, month)
                    close_subscription(subscription_id=subscription.pk, until=month, now=clock)
                elif step == "discount":
                    add_discount(subscription=subscription, name="less", now=clock, percent=D(what))
                elif step == "grant":
                    grant_credit(customer=customer, name="paid ahead", amount=D(what), currency="USD", now=clock)
                elif step == "issue drafts":
                    clock += timedelta(hours=40)
                    issue_due_drafts(clock=partial(_same, clock))
                elif step == "close early":
                    until = clock + timedelta(days=what)
                    close_subscription(subscription_id=subscription.pk, until=until, now=clock)
                elif step == "move":
                    subscription.refresh_from_db()
                    move_next_billing_date(subscription=subscription, to=clock + timedelta(days=what), now=clock)
                elif step == "cancel":
                    subscription.refresh_from_db()
                    cancel_now(subscription=subscription, now=clock)
                elif step in ("void invoice", "regenerate", "credit"):
                    _change_an_invoice(step, what, customer, clock)
        except DomainError:
            # It may well be refused; then nothing of it happened.
            pass
    for invoice in Invoice.objects.order_by("pk"):
        assert verify(invoice).outcome == Outcome.IDENTICAL, (invoice.status, invoice.reason, told(invoice))


def _same(clock: datetime) -> datetime:
    return clock


def _change_an_invoice(step: str, what: Any, customer: Customer, now: datetime) -> None:
    which = what[0] if step == "credit" else what
    invoices = list(Invoice.objects.exclude(status="draft").order_by("-pk")[which : which + 1])
    if not invoices:
        return
    if step == "void invoice":
        void_invoice(invoice=invoices[0], reason="wrong", now=now)
    elif step == "regenerate":
        regenerate_invoice(invoice=invoices[0], reason="wrong", now=now)
    else:
        credit_invoice(invoice=invoices[0], reason="kind", now=now, amount=D(what[1]))


def test_verifying_only_reads() -> None:
    invoice = january(ChargeRule(Percentage(D(2), free_events=1)), "5", "6", fee=100)
    with CaptureQueriesContext(connection) as asked:
        verify(invoice)
        list(events_csv(settled_source(invoice.lines.get(charge__isnull=False))))
    statements = [query["sql"].lstrip("(").split()[0].upper() for query in asked.captured_queries]
    assert set(statements) <= {"SELECT", "WITH", "SAVEPOINT", "RELEASE", "DECLARE", "CLOSE", "FETCH"}


def test_every_invoice_of_the_demo_verifies(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "CREDENTIALS", tmp_path / "demo.json")
    call_command("demo", stdout=StringIO())
    code, text = command("--all", "--quiet")
    assert (code, len(text.splitlines())) == (0, 1), text
    assert text.endswith(" identical, 0 different, 0 not provable.\n")
