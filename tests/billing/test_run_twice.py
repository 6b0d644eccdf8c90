"""Whatever happens in whatever order, what stands is what should have been billed, and asking twice changes nothing."""

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase

from billing.balances import balance_of
from billing.corrections import pending_corrections
from billing.cycles import close_subscription, issue_due_drafts, preview_subscription, regenerate_invoice
from billing.models import CreditNoteLine, IgnoredCorrection, Invoice, InvoiceLine, InvoiceStatus, Subscription
from billing.money import add
from billing.pricing import ChargeRule, Flat, Graduated, PerUnit, Tier
from billing.products import ChargeTerms, PriceTerms, create_product, update_product
from billing.profiles import set_profile
from billing.proposals import usage_lines
from billing.subscriptions import move_next_billing_date
from meters.ingestion import EventInput, store_events
from meters.models import Event, EventVoid
from meters.voids import void_event
from tests.base import acme, at, send, subscribed, token_meter

D = Decimal
START = at("2026-01-01")
RULES = {
    "graduated": ChargeRule(Graduated((Tier(D(10), D("1.7"), D(5)), Tier(None, D("0.9"), D(3)))), free_units=D(2)),
    "flat and minimum": ChargeRule(Flat(D(7)), minimum=D(9)),
    "per unit": ChargeRule(PerUnit(D("0.35")), maximum=D(12)),
}

# What may happen: usage of today, usage of earlier days, a void, a closing, an invoice made anew, days that pass.
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("use"), st.integers(1, 12)),
        st.tuples(st.just("late"), st.integers(1, 12), st.integers(1, 60)),
        st.tuples(st.just("void"), st.integers(0, 30)),
        st.tuples(st.just("close")),
        st.tuples(st.just("anew"), st.integers(0, 5)),
        st.tuples(st.just("wait"), st.integers(1, 40)),
    ),
    min_size=4,
    max_size=22,
)


def _plan(rule: ChargeRule, **changes: Any) -> Subscription:
    terms = {
        "type": "usage_based_price",
        "currency": "USD",
        "fixed_amount": D(31),
        "payment_frequency_count": 1,
        "payment_frequency_interval": "Month",
        "subscription_period_count": 20,
        "subscription_period_interval": "Year",
        "charges": (ChargeTerms.of(token_meter(), rule),),
        **changes,
    }
    return subscribed(acme(), create_product(name="P", terms=PriceTerms(**terms)), on="2026-01-01")


class History:
    """One subscription and a day that only goes forward."""

    def __init__(self, subscription: Subscription) -> None:
        self.subscription = subscription
        self.now = START + timedelta(hours=12)
        self.sent = 0

    def use(self, tokens: int, on: datetime) -> None:
        self.sent += 1
        event = EventInput(
            event_id=f"e{self.sent}",
            customer_id=self.subscription.customer.public_id,
            event_name="token.usage",
            timestamp=on.isoformat(),
            metadata={"tokens": tokens},
        )
        assert store_events(events=[event], now=self.now, backfill=True) == 1

    def step(self, what: tuple[Any, ...]) -> None:
        match what:
            case ("use", tokens):
                self.use(tokens, self.now)
            case ("late", tokens, days):
                self.use(tokens, max(START, self.now - timedelta(days=days)))
            case ("void", which):
                events = list(Event.objects.filter(voided_at__isnull=True).order_by("pk"))
                if events:
                    void_event(event_id=events[which % len(events)].event_id, reason="r", author="a", now=self.now)
            case ("close",):
                self.close()
            case ("anew", which):
                open_ones = Invoice.objects.filter(status=InvoiceStatus.ISSUED, credit_notes=None).order_by("pk")
                if open_ones:
                    regenerate_invoice(invoice=open_ones[which % len(open_ones)], reason="r", now=self.now)
            case ("wait", days):
                self.now += timedelta(days=days)

    def close(self) -> list[Invoice]:
        made = close_subscription(subscription_id=self.subscription.pk, until=self.now, now=self.now)
        issue_due_drafts(clock=lambda: self.now)
        return made

    def check(self) -> None:
        """Bill, and see that nothing more is proposed, and that what stands is what should be.

        A correction waits for the next invoice: until then it is on the list of what is pending, to the cent.
        """
        self.settle(3)
        pending = defaultdict[int, Decimal](Decimal)
        for correction in pending_corrections().corrections:
            pending[correction.period.pk] += correction.amount
        self.stand(pending)
        self.settle(32)
        self.settle(3)
        issued = Invoice.objects.count()
        shown = preview_subscription(subscription_id=self.subscription.pk, until=self.now, now=self.now)
        again = self.close()
        assert (shown, again, Invoice.objects.count()) == ([], [], issued)
        assert pending_corrections().corrections == ()
        self.stand({})
        for invoice in Invoice.objects.exclude(status=InvoiceStatus.VOID):
            assert invoice.total == sum(line.total for line in invoice.lines.all())
        fees = InvoiceLine.objects.filter(kind="fee", live=True)
        assert len({fee.period_start for fee in fees}) == len(fees)
        balance = balance_of(customer=self.subscription.customer, currency="USD")
        invoices = Invoice.objects.exclude(status=InvoiceStatus.VOID)
        assert balance == -sum(invoice.balance for invoice in invoices) + sum(
            note.to_balance for invoice in invoices for note in invoice.credit_notes.all()
        )

    def settle(self, days: int) -> None:
        """Bill, wait, and bill again: whatever was a draft is issued."""
        self.close()
        self.now += timedelta(days=days)
        self.close()

    def stand(self, pending: Mapping[int, Decimal]) -> None:
        """What stands for the usage of each closed period, with what is pending, is what should be billed for it."""
        for period in self.subscription.periods.filter(closed_at__isnull=False):
            should = sum(line.amount for line in usage_lines(self.subscription, period))
            lines = InvoiceLine.objects.filter(period_start=period.start, live=True).exclude(kind="fee")
            of_usage = [
                line for line in lines if line.charge_id is not None or "commitment" in (line.kind, line.adjusts)
            ]
            stands = add(*(line.amount for line in of_usage))
            given = CreditNoteLine.objects.filter(invoice_line__in=lines, credit_note__cause="correction")
            ignored = IgnoredCorrection.objects.filter(period=period)
            stands = add(stands, *(-note.amount for note in given), *(row.amount for row in ignored))
            waits = pending.get(period.pk, Decimal(0))
            assert stands + waits == should, f"{period}: {stands} stands, {waits} waits, {should} should"


class RunTwice(TestCase):
    @settings(max_examples=15, suppress_health_check=list(HealthCheck))
    @given(
        steps=STEPS,
        rule=st.sampled_from(sorted(RULES)),
        choice=st.sampled_from(["adjust", "credit_note", "ignore"]),
        grace=st.sampled_from([0, 60]),
        commitment=st.sampled_from([None, D(25)]),
        alignment=st.sampled_from(["anniversary", "calendar"]),
    )
    @example(  # one of three events is void after they were billed: within the free units by then
        steps=[("use", 1), ("use", 1), ("use", 1), ("wait", 31), ("close",), ("void", 0)],
        rule="graduated",
        choice="adjust",
        grace=0,
        commitment=None,
        alignment="anniversary",
    )
    def test_what_stands_is_what_should_have_been_billed(
        self,
        steps: list[tuple[Any, ...]],
        rule: str,
        choice: str,
        grace: int,
        commitment: Decimal | None,
        alignment: str,
    ) -> None:
        subscription = _plan(RULES[rule], commitment=commitment, alignment=alignment)
        update_product(product=subscription.price.product, corrections=choice)
        set_profile(customer=subscription.customer, grace_hours=grace)
        history = History(subscription)
        for step in steps:
            history.step(step)
        history.check()


@pytest.mark.django_db
@pytest.mark.parametrize("cut", ["2026-01-02T00:00", "2026-01-10T13:30", "2026-01-31T23:59:59.999999"])
def test_splitting_the_period_of_an_additive_meter_changes_nothing_but_rounding(cut: str) -> None:
    subscription = _plan(ChargeRule(PerUnit(D("0.35"))), fixed_amount=D(0))
    for day, tokens in enumerate((3, 5, 7, 11, 13), start=1):
        send(subscription.customer, on=f"2026-01-{day * 5:02}", name="token.usage", metadata={"tokens": tokens})
    move_next_billing_date(subscription=subscription, to=at(cut), now=at("2026-01-01T12:00"))
    move_next_billing_date(subscription=subscription, to=at("2026-02-01"), now=at(cut))
    made = close_subscription(subscription_id=subscription.pk, until=at("2026-02-01T01:00"), now=at("2026-02-01T01:00"))
    lines = [line for invoice in made for line in invoice.lines.all()]
    assert len(lines) == 2
    # 39 x 0.35
    assert sum(line.exact_amount for line in lines) == D("13.65")
    assert sum(line.quantity for line in lines) == D(39)
    assert EventVoid.objects.count() == 0
