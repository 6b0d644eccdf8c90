"""What invoices do with prepaid credit, taxes and the balance: stories, with the arithmetic beside the assertion.

The order is always: lines, prepaid credit, tax on what is left, the balance on the total.
"""

from contextlib import suppress
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase as HypothesisTestCase

from billing.balances import balance_of, move_balance
from billing.credit_notes import InvoiceNotCreditable, credit_invoice
from billing.credits import expire_grants, grant_credit
from billing.cycles import close_subscription
from billing.invoices import (
    InvoiceNotPayable,
    InvoiceNotVoidable,
    charge_once,
    issue_draft,
    mark_paid,
    void_invoice,
)
from billing.models import (
    BalanceEntry,
    CreditGrant,
    CreditNote,
    GrantEntry,
    Invoice,
    InvoiceStatus,
    PaymentStatus,
    Product,
)
from billing.products import PriceTerms, create_product
from billing.profiles import set_profile
from billing.taxes import create_tax_rate, replace_tax_rate
from customers.models import Customer
from tests.base import acme, at, call_meter, globex, send, subscribed, usage_product
from tests.billing.rivals import together

D = Decimal
NOW = at("2026-03-10T12:00")


def german(**changes: Any) -> Customer:
    return acme(billing_address={"country": "DE"}, **changes)


def once(minor: int, *, name: str = "Setup", tax_inclusive: bool = False, tax_category: str = "saas") -> Product:
    terms = PriceTerms(type="one_time_price", currency="USD", fixed_amount=D(minor), tax_inclusive=tax_inclusive)
    return create_product(name=name, terms=terms, tax_category=tax_category)


def charged(customer: Customer, minor: int, *, now: datetime = NOW, **changes: Any) -> Invoice:
    return charge_once(customer=customer, product=once(minor, **changes), now=now)


def vat(percent: str = "19", **changes: Any) -> Any:
    return create_tax_rate(**{"name": "VAT", "percent": D(percent), "country": "DE", **changes})


def prepaid(customer: Customer, minor: int, **changes: Any) -> CreditGrant:
    given: dict[str, Any] = {"name": "Prepaid", "currency": "USD", "now": at("2026-01-01"), **changes}
    return grant_credit(customer=customer, amount=D(minor), **given)


def put(customer: Customer, minor: int) -> None:
    move_balance(customer=customer, currency="USD", amount=D(minor), kind="adjustment", now=at("2026-01-01"))


def sums(invoice: Invoice) -> tuple[int, ...]:
    """(subtotal, credit, tax, total, balance, due)"""
    invoice.refresh_from_db()
    figures = (invoice.subtotal, invoice.credit, invoice.tax, invoice.total, invoice.balance, invoice.due)
    return tuple(int(figure) for figure in figures)


def left(grant: CreditGrant) -> int:
    return int(CreditGrant.objects.get(pk=grant.pk).remaining)


def held(customer: Customer) -> int:
    return int(balance_of(customer=customer, currency="USD"))


@pytest.mark.django_db
class TestTheOrder:
    def test_credit_then_tax_then_balance(self) -> None:
        customer = german()
        vat()
        grant = prepaid(customer, 3000)
        put(customer, 2000)
        invoice = charged(customer, 10_000)
        # 10000 - 3000 = 7000; 19 % of 7000 = 1330; 7000 + 1330 = 8330; 8330 - 2000 = 6330
        assert sums(invoice) == (10_000, 3000, 1330, 8330, 2000, 6330)
        line = invoice.lines.get()
        assert (line.amount, line.credit, line.tax, line.total, line.tax_reason) == (
            D(10_000),
            D(3000),
            D(1330),
            D(8330),
            "VAT for DE",
        )
        assert invoice.status == InvoiceStatus.ISSUED
        assert (invoice.payment.amount, invoice.payment.status) == (
            D(6330),
            PaymentStatus.REQUIRES_PAYMENT_METHOD,
        )
        assert (left(grant), held(customer)) == (0, 0)
        drawn = GrantEntry.objects.get(invoice=invoice)
        used = BalanceEntry.objects.get(invoice=invoice)
        assert (drawn.kind, drawn.amount, used.kind, used.amount) == ("drawn", D(-3000), "invoice_paid", D(-2000))

    def test_voiding_gives_both_back_and_the_ledgers_say_so(self) -> None:
        customer = german()
        vat()
        grant = prepaid(customer, 3000)
        put(customer, 2000)
        invoice = charged(customer, 10_000)
        void_invoice(invoice=invoice, reason="A mistake", now=NOW + timedelta(hours=1))
        assert (left(grant), held(customer)) == (3000, 2000)
        assert list(grant.entries.order_by("pk").values_list("kind", "amount")) == [
            ("granted", D(3000)),
            ("drawn", D(-3000)),
            ("returned", D(3000)),
        ]
        entries = BalanceEntry.objects.filter(invoice=invoice).order_by("pk").values_list("kind", "amount")
        assert list(entries) == [("invoice_paid", D(-2000)), ("invoice_returned", D(2000))]
        assert sums(invoice) == (10_000, 3000, 1330, 8330, 2000, 6330)  # a void invoice says what it said

    def test_what_prepaid_credit_pays_whole_is_paid_at_once_and_can_be_voided(self) -> None:
        customer = german()
        vat()
        grant = prepaid(customer, 50_000)
        invoice = charged(customer, 10_000)
        assert sums(invoice) == (10_000, 10_000, 0, 0, 0, 0)
        assert (invoice.status, left(grant)) == (InvoiceStatus.PAID, 40_000)
        void_invoice(invoice=invoice, reason="A mistake", now=NOW)
        assert (invoice.status, left(grant)) == (InvoiceStatus.VOID, 50_000)

    def test_what_the_balance_pays_whole_is_paid_at_once_and_can_be_voided(self) -> None:
        customer = german()
        vat()
        put(customer, 11_900)
        invoice = charged(customer, 10_000)
        assert sums(invoice) == (10_000, 0, 1900, 11_900, 11_900, 0)
        assert (invoice.status, invoice.payment.status, held(customer)) == (
            InvoiceStatus.PAID,
            PaymentStatus.SUCCEEDED,
            0,
        )
        void_invoice(invoice=invoice, reason="A mistake", now=NOW)
        assert (invoice.status, held(customer)) == (InvoiceStatus.VOID, 11_900)

    def test_other_currencies_pay_nothing(self) -> None:
        customer = acme()
        prepaid(customer, 3000, currency="EUR")
        move_balance(customer=customer, currency="EUR", amount=D(500), kind="adjustment", now=NOW)
        assert sums(charged(customer, 10_000)) == (10_000, 0, 0, 10_000, 0, 10_000)


@pytest.mark.django_db
class TestTaxes:
    def test_a_price_that_contains_the_tax_stays_what_it_is(self) -> None:
        customer = german()
        vat()
        invoice = charged(customer, 11_900, tax_inclusive=True)
        assert sums(invoice) == (11_900, 0, 1900, 11_900, 0, 11_900)  # 11900 / 1.19 = 10000

    def test_prepaid_credit_makes_the_contained_tax_less(self) -> None:
        customer = german()
        vat()
        prepaid(customer, 5950)
        invoice = charged(customer, 11_900, tax_inclusive=True)
        assert sums(invoice) == (11_900, 5950, 950, 5950, 0, 5950)  # 5950 / 1.19 = 5000

    def test_two_taxes_stand_beside_each_other_on_the_line(self) -> None:
        customer = acme(billing_address={"country": "CA", "state": "QC"})
        create_tax_rate(name="GST", percent=D(5), country="CA")
        create_tax_rate(name="QST", percent=D("9.975"), country="CA", region="QC")
        invoice = charged(customer, 10_000)
        line = invoice.lines.get()
        assert [(tax["name"], tax["percent"], tax["amount"]) for tax in line.taxes] == [
            ("GST", "5", "500"),
            ("QST", "9.975", "998"),  # 997.5
        ]
        assert sums(invoice) == (10_000, 0, 1498, 11_498, 0, 11_498)
        assert line.tax_reason == "GST for CA; QST for CA, QC"

    @pytest.mark.parametrize(
        ("fields", "reason"),
        [
            ({"tax_exempt": True, "exemption_reason": "charity"}, "Exempt: charity"),
            ({"reverse_charge": True, "tax_id": "FR1"}, "Reverse charge, tax id FR1"),
        ],
    )
    def test_no_tax_has_its_reason_on_the_line(self, fields: dict[str, Any], reason: str) -> None:
        customer = german()
        vat()
        set_profile(customer=customer, **fields)
        invoice = charged(customer, 10_000)
        assert sums(invoice) == (10_000, 0, 0, 10_000, 0, 10_000)
        assert (invoice.lines.get().tax_reason, invoice.lines.get().taxes) == (reason, [])

    def test_each_line_has_the_rate_of_its_own_product(self) -> None:
        customer = german()
        vat()
        vat("7", tax_category="e_book")
        assert sums(charged(customer, 10_000))[2] == 1900
        assert sums(charged(customer, 10_000, tax_category="e_book"))[2] == 700

    @pytest.mark.parametrize(("now", "tax"), [("2026-06-30T23:59:59", 1900), ("2026-07-01", 1600)])
    def test_the_rate_is_that_of_the_instant_of_issue(self, now: str, tax: int) -> None:
        customer = german()
        replace_tax_rate(rate=vat(), percent=D(16), now=NOW, at=at("2026-07-01"))
        assert sums(charged(customer, 10_000, now=at(now)))[2] == tax

    def test_an_issued_invoice_keeps_its_tax_when_rates_and_customer_change(self) -> None:
        customer = german()
        rate = vat()
        invoice = charged(customer, 10_000)
        before = (sums(invoice), invoice.lines.get().taxes, invoice.lines.get().tax_reason)
        replace_tax_rate(rate=rate, percent=D(16), now=NOW)
        set_profile(customer=customer, tax_exempt=True, exemption_reason="charity")
        assert (sums(invoice), invoice.lines.get().taxes, invoice.lines.get().tax_reason) == before


@pytest.mark.django_db
class TestCredit:
    def test_by_priority_then_what_expires_first_then_the_older(self) -> None:
        customer = acme()
        reserve = prepaid(customer, 1000, priority=1, expires_at=at("2026-03-11"))
        never = prepaid(customer, 1000)
        later = prepaid(customer, 1000, expires_at=at("2026-09-01"))
        sooner = prepaid(customer, 1000, expires_at=at("2026-06-01"))
        charged(customer, 1500)
        assert [left(grant) for grant in (sooner, later, never, reserve)] == [0, 500, 1000, 1000]
        charged(customer, 2000)
        assert [left(grant) for grant in (sooner, later, never, reserve)] == [0, 0, 0, 500]

    @pytest.mark.parametrize(("now", "credit"), [("2026-03-31T23:59:59.999999", 1000), ("2026-04-01", 0)])
    def test_never_beyond_its_end_also_before_beat_has_noticed(self, now: str, credit: int) -> None:
        customer = acme()
        prepaid(customer, 1000, expires_at=at("2026-04-01"))
        assert sums(charged(customer, 5000, now=at(now)))[1] == credit

    def test_given_back_after_its_end_it_is_gone_and_the_ledger_shows_where(self) -> None:
        customer = acme()
        grant = prepaid(customer, 1000, expires_at=at("2026-04-01"))
        invoice = charged(customer, 700)
        expire_grants(now=at("2026-04-01"))
        void_invoice(invoice=invoice, reason="A mistake", now=at("2026-04-02"))
        assert list(grant.entries.order_by("pk").values_list("kind", "amount")) == [
            ("granted", D(1000)),
            ("drawn", D(-700)),
            ("expired", D(-300)),
            ("returned", D(700)),
            ("expired", D(-700)),
        ]
        assert left(grant) == 0

    def test_the_next_invoice_draws_what_the_first_left(self) -> None:
        customer = acme()
        product = usage_product((call_meter(), "2", 0), fee=0)
        first = subscribed(customer, product, on="2026-02-01")
        second = subscribed(customer, product, on="2026-02-01")
        send(customer, 400, on="2026-02-05")  # 400 x 2 = 800 on each
        grant = prepaid(customer, 1000)
        then = at("2026-03-01T02:00")
        (one,) = close_subscription(subscription_id=first.pk, until=then, now=then)
        (two,) = close_subscription(subscription_id=second.pk, until=then, now=then)
        assert [sums(one)[:4], sums(two)[:4]] == [(800, 800, 0, 0), (800, 200, 0, 600)]
        assert left(grant) == 0

    def test_a_draft_shows_what_issuing_will_draw_and_takes_nothing_yet(self) -> None:
        customer = acme()
        set_profile(customer=customer, grace_hours=24)
        subscription = subscribed(customer, usage_product((call_meter(), "2", 0)), on="2026-02-01")
        send(customer, 400, on="2026-02-05")
        grant = prepaid(customer, 1000)
        put(customer, 100)
        then = at("2026-03-01T02:00")
        close_subscription(subscription_id=subscription.pk, until=then, now=then)
        draft = Invoice.objects.get(customer=customer, status=InvoiceStatus.DRAFT)
        assert (left(grant), held(customer)) == (1000, 100)
        assert sums(draft)[:4] == (800, 800, 0, 0)
        # Meanwhile somebody else's invoice draws most of it.
        charged(customer, 900, now=then + timedelta(hours=1))
        assert left(grant) == 100
        issue_draft(invoice=draft, now=then + timedelta(days=1))
        assert sums(draft) == (800, 100, 0, 700, 100, 600)  # 800 - 100 - 100
        assert (left(grant), held(customer)) == (0, 0)

    def test_nobody_pays_with_anothers(self) -> None:
        customer, other = acme(), globex()
        grant = prepaid(other, 1000)
        put(other, 1000)
        assert sums(charged(customer, 500)) == (500, 0, 0, 500, 0, 500)
        assert (left(grant), held(other)) == (1000, 1000)


WHAT = ["grant", "put", "bill", "bill", "void", "credit", "pay", "expire", "a day passes"]


class TestConservation(HypothesisTestCase):
    @given(
        steps=st.lists(
            st.tuples(st.sampled_from(WHAT), st.integers(1, 3000), st.integers(0, 3)), min_size=3, max_size=12
        ),
        percent=st.sampled_from(["0", "7", "19", "33.333"]),
        tax_inclusive=st.booleans(),
    )
    @settings(max_examples=40, deadline=None)
    def test_whatever_happens_every_cent_is_somewhere(
        self, steps: list[tuple[str, int, int]], percent: str, tax_inclusive: bool
    ) -> None:
        customer, now = german(), NOW
        vat(percent)
        granted, adjusted = D(0), D(0)
        invoices: list[Invoice] = []
        for what, amount, which in steps:
            invoice = invoices[which % len(invoices)] if invoices else None
            if what == "grant":
                ends = now + timedelta(days=which) if which else None
                prepaid(customer, amount, now=now, priority=which, expires_at=ends)
                granted += amount
            elif what == "put":
                put(customer, amount)
                adjusted += amount
            elif what == "bill":
                invoices.append(charged(customer, amount, now=now, tax_inclusive=tax_inclusive))
            elif what == "expire":
                expire_grants(now=now)
            elif what == "a day passes":
                now += timedelta(days=1)
            elif invoice is not None:
                # What an invoice's state does not allow is refused, and must leave everything as it was.
                with suppress(InvoiceNotVoidable, InvoiceNotPayable, InvoiceNotCreditable):
                    if what == "void":
                        void_invoice(invoice=invoice, reason="x", now=now)
                    elif what == "pay":
                        mark_paid(invoice=invoice, now=now)
                    else:
                        credit_invoice(invoice=invoice, reason="x", now=now, amount=D(amount) if which else None)

        live = Invoice.objects.exclude(status=InvoiceStatus.VOID)
        notes = CreditNote.objects.all()
        # Prepaid: granted = left + in live invoices - given back by credit notes + expired.
        remaining = sum((grant.remaining for grant in CreditGrant.objects.all()), D(0))
        in_invoices = sum((invoice.credit for invoice in live), D(0)) - sum((note.credit for note in notes), D(0))
        expired = -sum((entry.amount for entry in GrantEntry.objects.filter(kind="expired")), D(0))
        assert granted == remaining + in_invoices + expired
        # Balance: what was put in, less what live invoices used, more what credit notes put there.
        used = sum((invoice.balance for invoice in live), D(0))
        returned = sum((note.to_balance for note in notes), D(0))
        assert held(customer) == adjusted - used + returned
        # And of each invoice: nothing was given back that it did not take.
        for invoice in live:
            back = sum((note.credit for note in invoice.credit_notes.all()), D(0))
            assert 0 <= back <= invoice.credit
            assert invoice.total == invoice.subtotal - invoice.credit + (0 if tax_inclusive else invoice.tax)


@pytest.mark.django_db(transaction=True)
class TestAtTheSameTime:
    def test_two_invoices_share_one_grant_and_one_balance(self) -> None:
        customer = acme()
        grant = prepaid(customer, 1000)
        put(customer, 500)
        product = once(1200)
        made = together(*[lambda: charge_once(customer=customer, product=product, now=NOW)] * 3)
        invoices = [invoice for invoice in made if isinstance(invoice, Invoice)]
        assert len(invoices) == 3, made
        figures = sorted(sums(invoice) for invoice in invoices)
        # 3 x 1200 = 3600; 1000 of it by credit, 500 by the balance, 2100 to pay
        assert sum(figure[1] for figure in figures) == 1000
        assert sum(figure[4] for figure in figures) == 500
        assert sum(figure[5] for figure in figures) == 2100
        assert (left(grant), held(customer)) == (0, 0)
        assert len({invoice.number for invoice in invoices}) == 3

    def test_issuing_and_voiding_at_once_lose_nothing(self) -> None:
        customer = acme()
        grant = prepaid(customer, 1000)
        put(customer, 500)
        product = once(1200)
        invoice = charge_once(customer=customer, product=product, now=NOW)
        made = together(
            lambda: void_invoice(invoice=invoice, reason="x", now=NOW),
            lambda: charge_once(customer=customer, product=product, now=NOW),
            lambda: move_balance(customer=customer, currency="USD", amount=D(50), kind="adjustment", now=NOW),
        )
        assert not [result for result in made if isinstance(result, Exception)], made
        (other,) = Invoice.objects.exclude(pk=invoice.pk)
        figures = sums(other)
        assert left(grant) == 1000 - figures[1]
        assert held(customer) == 550 - figures[4]

    def test_everything_at_once_in_any_order_neither_locks_up_nor_loses_a_cent(self) -> None:
        customer = acme()
        grants = [prepaid(customer, 5000, expires_at=NOW + timedelta(hours=hour)) for hour in (1, 2, 3)]
        put(customer, 5000)
        product = once(900)
        later = NOW + timedelta(hours=1)

        def bill_and_take_back() -> None:
            for number in range(4):
                invoice = charge_once(customer=customer, product=product, now=NOW)
                if number % 2:
                    void_invoice(invoice=invoice, reason="x", now=later)

        def bill_and_credit() -> None:
            for _ in range(4):
                invoice = charge_once(customer=customer, product=product, now=NOW)
                credit_invoice(invoice=invoice, reason="x", now=NOW, amount=D(450))

        def adjust() -> None:
            for number in range(12):
                move_balance(
                    customer=customer,
                    currency="USD",
                    amount=D(7),
                    kind="adjustment",
                    idempotency_key=f"key {number}",
                    now=NOW,
                )

        def expire() -> None:
            for _ in range(6):
                expire_grants(now=later)

        results = together(bill_and_take_back, bill_and_take_back, bill_and_credit, adjust, adjust, expire)
        assert [result for result in results if result is not None] == []
        expire_grants(now=later)
        # The balance and each grant are the sums of their ledgers: the database checked that at each commit. What is
        # left to see is that every invoice's share stands in them.
        for invoice in Invoice.objects.all():
            moved = sum(entry.amount for entry in BalanceEntry.objects.filter(invoice=invoice, credit_note=None))
            drawn = sum(entry.amount for entry in GrantEntry.objects.filter(invoice=invoice, credit_note=None))
            alive = invoice.status != InvoiceStatus.VOID
            assert (moved, drawn) == ((-invoice.balance, -invoice.credit) if alive else (0, 0))
        adjusted = BalanceEntry.objects.filter(kind="adjustment", idempotency_key__isnull=False)
        assert adjusted.count() == 12
        assert left(grants[0]) == 0
