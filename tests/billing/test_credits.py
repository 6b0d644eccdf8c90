"""Prepaid credit: granted, drawn, given back, expired and withdrawn; each grant is the sum of its ledger."""

import threading
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import IntegrityError, connections, transaction
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase as HypothesisTestCase

from billing.credits import (
    LARGEST_GRANT,
    CreditNotDrawable,
    CreditNotReturnable,
    GrantInvalid,
    GrantNotWithdrawable,
    credit_of,
    draw,
    drawable,
    drawn_by,
    expire_grants,
    give_back,
    grant_credit,
    withdraw_grant,
)
from billing.models import CreditGrant, GrantEntry, Invoice, InvoiceReason
from billing.tasks import expire_credit
from customers.models import Customer
from tests.base import acme, at, globex
from tests.billing.rivals import LONGEST_WAIT, together

D = Decimal
NOW = at("2026-03-10T12:00")
SOON = at("2026-04-01")
LATER = at("2026-06-01")


def grant(customer: Customer, amount: int, **changes: Any) -> CreditGrant:
    return grant_credit(
        **{"customer": customer, "name": "Prepaid", "amount": D(amount), "currency": "USD", "now": NOW, **changes}
    )


def invoice_of(customer: Customer, currency: str = "USD") -> Invoice:
    """A draft is enough to draw for."""
    return Invoice.objects.create(
        customer=customer,
        reason=InvoiceReason.ONE_TIME,
        currency=currency,
        customer_name=customer.name,
        customer_email=customer.email,
    )


def keys(customer: Customer, when: datetime, currency: str = "USD") -> list[int]:
    with transaction.atomic():
        return [int(credit.key) for credit in drawable(customer=customer, currency=currency, at=when)]


def ledger(of: CreditGrant) -> list[tuple[str, Decimal, Decimal]]:
    """Each entry as (kind, amount, after), oldest first."""
    return list(of.entries.order_by("pk").values_list("kind", "amount", "after"))


def left(*grants: CreditGrant) -> list[Decimal]:
    return [CreditGrant.objects.get(pk=each.pk).remaining for each in grants]


@pytest.mark.django_db
class TestGranting:
    def test_a_grant_begins_its_own_ledger(self) -> None:
        made = grant(acme(), 5000, name=" Welcome ", priority=3, expires_at=SOON, author="ann")
        assert (made.name, made.amount, made.remaining, made.priority) == ("Welcome", D(5000), D(5000), 3)
        assert (made.starts_at, made.expires_at, made.created_at, made.author) == (NOW, SOON, NOW, "ann")
        assert ledger(made) == [("granted", D(5000), D(5000))]
        assert made.public_id.startswith("cgr_")

    @pytest.mark.parametrize(
        ("changes", "begins"),
        [
            ({"name": "  "}, "name: "),
            ({"name": "n" * 256}, "name: "),
            ({"amount": D(0)}, "amount: "),
            ({"amount": D(-1)}, "amount: "),
            ({"amount": D("1.5")}, "amount: "),
            ({"amount": D("NaN")}, "amount: "),
            ({"amount": LARGEST_GRANT + 1}, "amount: "),
            ({"currency": "XXX"}, "currency: "),
            ({"priority": -1}, "priority: "),
            ({"priority": 2**31}, "priority: "),
            ({"starts_at": SOON, "expires_at": SOON}, "expires_at: the credit must expire after it starts."),
            ({"starts_at": at("2026-01-01"), "expires_at": NOW}, "expires_at: the credit would have expired already."),
        ],
    )
    def test_nonsense_is_refused_by_field(self, changes: dict[str, Any], begins: str) -> None:
        with pytest.raises(GrantInvalid) as refused:
            grant(acme(), **{"amount": 1, **changes})
        assert (refused.value.message.startswith(begins), refused.value.status) == (True, 400)
        assert not CreditGrant.objects.exists()


@pytest.mark.django_db
class TestWhatCanBeDrawn:
    def test_by_priority_then_what_expires_first_then_the_older(self) -> None:
        customer = acme()
        never = grant(customer, 1)
        younger = grant(customer, 1, expires_at=LATER, now=NOW + timedelta(seconds=2))
        older = grant(customer, 1, expires_at=LATER, now=NOW + timedelta(seconds=1))
        sooner = grant(customer, 1, expires_at=SOON, now=NOW + timedelta(seconds=3))
        last = grant(customer, 1, priority=1, expires_at=at("2026-03-11"))
        drawn_in_order = keys(customer, NOW + timedelta(minutes=1))
        assert drawn_in_order == [sooner.pk, older.pk, younger.pk, never.pk, last.pk]

    @pytest.mark.parametrize(
        ("when", "there"),
        [
            (at("2026-03-31T23:59:59"), False),
            (SOON, True),  # from its start on
            (at("2026-05-31T23:59:59"), True),
            (LATER, False),  # its end is out
        ],
    )
    def test_from_its_start_until_just_before_its_end(self, when: datetime, there: bool) -> None:
        customer = acme()
        made = grant(customer, 100, starts_at=SOON, expires_at=LATER)
        assert keys(customer, when) == ([made.pk] if there else [])
        assert credit_of(customer=customer, currency="USD", at=when) == (100 if there else 0)

    def test_only_what_is_left_of_this_customer_and_currency(self) -> None:
        customer = acme()
        made = grant(customer, 100)
        grant(customer, 100, currency="EUR")
        grant(globex(), 100)
        used_up, withdrawn = grant(customer, 10), grant(customer, 10)
        draw(invoice=invoice_of(customer), drawn={used_up.pk: D(10), made.pk: D(30)}, now=NOW)
        withdraw_grant(grant=withdrawn, reason="A mistake", now=NOW)
        with transaction.atomic():
            (only,) = drawable(customer=customer, currency="USD", at=NOW)
        assert (only.key, only.amount, only.priority) == (str(made.pk), D(70), 0)
        assert (only.expires_at, only.granted_at, only.starts_at) == (None, NOW, NOW)
        assert credit_of(customer=customer, currency="USD", at=NOW) == 70


@pytest.mark.django_db
class TestDrawing:
    def test_each_grant_is_less_by_what_the_invoice_used(self) -> None:
        customer = acme()
        first, second = grant(customer, 100), grant(customer, 100)
        invoice = invoice_of(customer)
        draw(invoice=invoice, drawn={str(second.pk): D(100), str(first.pk): D(1)}, now=NOW)
        assert left(first, second) == [D(99), D(0)]
        assert ledger(second) == [("granted", D(100), D(100)), ("drawn", D(-100), D(0))]
        # Written in the order of drawing, which says what goes back first.
        drawn = invoice.grant_entries.order_by("pk").values_list("grant", "amount")
        assert list(drawn) == [(second.pk, D(-100)), (first.pk, D(-1))]
        assert drawn_by(invoice) == 101

    def test_drawing_nothing_leaves_no_entry(self) -> None:
        made = grant(acme(), 100)
        draw(invoice=invoice_of(made.customer), drawn={made.pk: D(0)}, now=NOW)
        draw(invoice=invoice_of(made.customer), drawn={}, now=NOW)
        assert ledger(made) == [("granted", D(100), D(100))]

    @pytest.mark.parametrize(
        ("amount", "when", "changes"),
        [
            (101, NOW, {}),  # one more than is left
            (-1, NOW, {}),
            ("0.5", NOW, {}),
            (1, NOW, {"starts_at": SOON}),
            (1, SOON, {"expires_at": SOON}),
        ],
    )
    def test_what_may_not_be_drawn_is_refused_whole(self, amount: Any, when: datetime, changes: dict[str, Any]) -> None:
        customer = acme()
        good, bad = grant(customer, 100), grant(customer, 100, **changes)
        with pytest.raises(CreditNotDrawable):
            draw(invoice=invoice_of(customer), drawn={good.pk: D(1), bad.pk: D(amount)}, now=when)
        assert left(good, bad) == [D(100), D(100)]
        assert GrantEntry.objects.filter(kind="drawn").count() == 0

    def test_neither_another_customers_nor_another_currencys_nor_a_withdrawn_one(self) -> None:
        customer = acme()
        withdrawn = grant(customer, 100)
        withdraw_grant(grant=withdrawn, reason="A mistake", now=NOW)
        for wrong in (grant(globex(), 100), grant(customer, 100, currency="EUR"), withdrawn):
            with pytest.raises(CreditNotDrawable):
                draw(invoice=invoice_of(customer), drawn={wrong.pk: D(1)}, now=NOW)
        with pytest.raises(CreditNotDrawable):
            draw(invoice=invoice_of(customer), drawn={2**40: D(1)}, now=NOW)


@pytest.mark.django_db
class TestGivingBack:
    def test_a_void_invoice_gives_everything_back(self) -> None:
        customer = acme()
        first, second = grant(customer, 100), grant(customer, 50)
        invoice, other = invoice_of(customer), invoice_of(customer)
        draw(invoice=invoice, drawn={first.pk: D(80), second.pk: D(50)}, now=NOW)
        draw(invoice=other, drawn={first.pk: D(20)}, now=NOW)
        assert give_back(invoice=invoice, now=SOON) == 130
        assert left(first, second) == [D(80), D(50)]  # the other invoice keeps its 20
        assert ledger(second) == [("granted", D(50), D(50)), ("drawn", D(-50), D(0)), ("returned", D(50), D(50))]
        assert (drawn_by(invoice), drawn_by(other)) == (D(0), D(20))
        # Again there is nothing left to give back.
        assert give_back(invoice=invoice, now=SOON) == 0
        assert left(first, second) == [D(80), D(50)]

    def test_a_part_goes_back_to_what_was_drawn_last(self) -> None:
        customer = acme()
        first, second = grant(customer, 100), grant(customer, 50)
        invoice = invoice_of(customer)
        draw(invoice=invoice, drawn={second.pk: D(50), first.pk: D(80)}, now=NOW)
        assert give_back(invoice=invoice, now=NOW, amount=D(30)) == 30
        assert left(first, second) == [D(50), D(0)]  # 100 - 80 + 30
        assert give_back(invoice=invoice, now=NOW, amount=D(60)) == 60
        assert left(first, second) == [D(100), D(10)]  # 50 more of the last, then 10 of the first
        assert give_back(invoice=invoice, now=NOW, amount=D(0)) == 0
        assert give_back(invoice=invoice, now=NOW) == 40
        assert left(first, second) == [D(100), D(50)]

    @pytest.mark.parametrize("amount", [D(81), D(-1), D("0.5")])
    def test_never_more_than_was_drawn(self, amount: Decimal) -> None:
        customer = acme()
        made = grant(customer, 100)
        invoice = invoice_of(customer)
        draw(invoice=invoice, drawn={made.pk: D(80)}, now=NOW)
        with pytest.raises(CreditNotReturnable):
            give_back(invoice=invoice, now=NOW, amount=amount)
        assert left(made) == [D(20)]

    @pytest.mark.parametrize(("when", "expired"), [(at("2026-03-31T23:59:59"), False), (SOON, True)])
    def test_what_has_expired_meanwhile_expires_at_once(self, when: datetime, expired: bool) -> None:
        customer = acme()
        made = grant(customer, 100, expires_at=SOON)
        invoice = invoice_of(customer)
        draw(invoice=invoice, drawn={made.pk: D(80)}, now=NOW)
        expire_grants(now=when)
        assert give_back(invoice=invoice, now=when) == 80
        start = [("granted", D(100), D(100)), ("drawn", D(-80), D(20))]
        if expired:
            assert ledger(made) == [
                *start,
                ("expired", D(-20), D(0)),
                ("returned", D(80), D(80)),
                ("expired", D(-80), D(0)),
            ]
        else:
            assert ledger(made) == [*start, ("returned", D(80), D(100))]

    def test_what_was_withdrawn_meanwhile_does_not_come_back_to_life(self) -> None:
        customer = acme()
        made = grant(customer, 100)
        invoice = invoice_of(customer)
        draw(invoice=invoice, drawn={made.pk: D(80)}, now=NOW)
        withdraw_grant(grant=made, reason="A mistake", now=NOW)
        assert give_back(invoice=invoice, now=SOON) == 80
        assert ledger(made)[2:] == [
            ("withdrawn", D(-20), D(0)),
            ("returned", D(80), D(80)),
            ("withdrawn", D(-80), D(0)),
        ]
        assert left(made) == [D(0)]


@pytest.mark.django_db
class TestExpiring:
    def test_beat_takes_away_what_is_left_when_the_end_has_come(self) -> None:
        customer = acme()
        now_over, over, running, never = (
            grant(customer, 100, expires_at=SOON),
            grant(customer, 100, expires_at=at("2026-03-20")),
            grant(customer, 100, expires_at=SOON + timedelta(microseconds=1)),
            grant(customer, 100),
        )
        draw(invoice=invoice_of(customer), drawn={over.pk: D(30)}, now=NOW)
        assert expire_grants(now=SOON) == 2
        assert left(now_over, over, running, never) == [D(0), D(0), D(100), D(100)]
        assert ledger(over) == [("granted", D(100), D(100)), ("drawn", D(-30), D(70)), ("expired", D(-70), D(0))]
        assert expire_grants(now=SOON) == 0

    def test_a_used_up_one_expires_without_an_entry(self) -> None:
        made = grant(acme(), 100, expires_at=SOON)
        draw(invoice=invoice_of(made.customer), drawn={made.pk: D(100)}, now=NOW)
        assert expire_grants(now=LATER) == 0
        assert [kind for kind, _, _ in ledger(made)] == ["granted", "drawn"]

    def test_more_than_one_transaction_holds(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("billing.credits._CHUNK", 2)
        customer = acme()
        for count in (0, 1, 2, 3, 4, 5):
            for _ in range(count):
                grant(customer, 1, expires_at=SOON)
            assert expire_grants(now=SOON) == count

    def test_the_task_asks_the_database_what_time_it_is(self) -> None:
        made = grant(acme(), 100, now=at("2020-01-01"), expires_at=at("2020-02-01"))
        expire_credit()
        assert left(made) == [D(0)]


@pytest.mark.django_db
class TestWithdrawing:
    def test_what_is_left_is_taken_back_with_the_reason(self) -> None:
        made = grant(acme(), 100)
        draw(invoice=invoice_of(made.customer), drawn={made.pk: D(30)}, now=NOW)
        withdraw_grant(grant=made, reason=" Entered twice ", now=SOON)
        assert (made.remaining, made.withdrawn_at) == (D(0), SOON)
        entry = made.entries.latest("pk")
        assert (entry.kind, entry.amount, entry.reason, entry.created_at) == (
            "withdrawn",
            D(-70),
            "Entered twice",
            SOON,
        )

    def test_once_with_a_reason_and_only_what_there_is(self) -> None:
        made, used_up = grant(acme(), 100), grant(globex(), 100)
        draw(invoice=invoice_of(used_up.customer), drawn={used_up.pk: D(100)}, now=NOW)
        with pytest.raises(GrantInvalid, match="reason"):
            withdraw_grant(grant=made, reason=" ", now=NOW)
        with pytest.raises(GrantNotWithdrawable, match="Nothing is left"):
            withdraw_grant(grant=used_up, reason="x", now=NOW)
        withdraw_grant(grant=made, reason="x", now=NOW)
        with pytest.raises(GrantNotWithdrawable, match="already"):
            withdraw_grant(grant=made, reason="x", now=NOW)
        assert expire_grants(now=LATER) == 0


@pytest.mark.django_db
class TestTheLedgerOnlyGrows:
    def test_an_entry_is_neither_edited_nor_deleted(self) -> None:
        entry = grant(acme(), 100).entries.get()
        with pytest.raises(IntegrityError, match="only grows"), transaction.atomic():
            GrantEntry.objects.filter(pk=entry.pk).update(amount=200)
        with pytest.raises(IntegrityError, match="only grows"), transaction.atomic():
            GrantEntry.objects.filter(pk=entry.pk).delete()

    def test_a_grant_that_is_not_its_ledger_is_refused_at_commit(self) -> None:
        made = grant(acme(), 100)
        with pytest.raises(IntegrityError, match="ends with 100"), transaction.atomic():
            CreditGrant.objects.filter(pk=made.pk).update(remaining=99)
            with connections["default"].cursor() as cursor:
                cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")


def draw_up_to(invoice: Invoice, wanted: int, now: datetime) -> Decimal:
    """What issuing does: draw the grants in their order until `wanted` is paid."""
    with transaction.atomic():
        drawn, missing = {}, D(wanted)
        for credit in drawable(customer=invoice.customer, currency=invoice.currency, at=now):
            drawn[credit.key] = min(credit.amount, missing)
            missing -= drawn[credit.key]
        draw(invoice=invoice, drawn=drawn, now=now)
        return wanted - missing


STEPS = st.one_of(
    st.tuples(st.just("grant"), st.integers(1, 40), st.none() | st.integers(1, 8), st.integers(0, 2)),
    st.tuples(st.just("draw"), st.integers(0, 60), st.none(), st.just(0)),
    st.tuples(st.just("give back"), st.integers(0, 60), st.none(), st.integers(0, 5)),
    st.tuples(st.just("give all back"), st.just(0), st.none(), st.integers(0, 5)),
    st.tuples(st.just("withdraw"), st.just(0), st.none(), st.integers(0, 5)),
    st.tuples(st.just("expire"), st.just(0), st.none(), st.just(0)),
    st.tuples(st.just("a day passes"), st.just(0), st.none(), st.just(0)),
)


class TestConservation(HypothesisTestCase):
    @given(steps=st.lists(STEPS, max_size=14))
    @settings(max_examples=80, deadline=None)
    def test_any_sequence_keeps_every_minor_unit(self, steps: list[tuple[str, int, int | None, int]]) -> None:
        customer, now = acme(), NOW
        grants: list[CreditGrant] = []
        invoices: list[Invoice] = []
        used: dict[int, Decimal] = {}
        for what, amount, days, which in steps:
            if what == "grant":
                expires_at = now + timedelta(days=days) if days else None
                grants.append(grant(customer, amount, now=now, expires_at=expires_at, priority=which))
            elif what == "draw":
                able = credit_of(customer=customer, currency="USD", at=now)
                invoices.append(invoice_of(customer))
                used[invoices[-1].pk] = draw_up_to(invoices[-1], amount, now)
                assert used[invoices[-1].pk] == min(able, amount)
            elif what.startswith("give") and invoices:
                invoice = invoices[which % len(invoices)]
                wanted = None if "all" in what else D(amount)
                if wanted is not None and wanted > used[invoice.pk]:
                    with pytest.raises(CreditNotReturnable):
                        give_back(invoice=invoice, now=now, amount=wanted)
                else:
                    back = give_back(invoice=invoice, now=now, amount=wanted)
                    assert back == (used[invoice.pk] if wanted is None else wanted)
                    used[invoice.pk] -= back
            elif what == "withdraw" and grants:
                chosen = grants[which % len(grants)]
                chosen.refresh_from_db()
                if chosen.remaining and chosen.withdrawn_at is None:
                    withdraw_grant(grant=chosen, reason="x", now=now)
            elif what == "expire":
                expire_grants(now=now)
            elif what == "a day passes":
                now += timedelta(days=1)
        for made in grants:
            made.refresh_from_db()
            entries = ledger(made)
            assert made.remaining == sum(moved for _, moved, _ in entries)
            assert all(0 <= after <= made.amount for _, _, after in entries)
            # Nothing was drawn at or after the end.
            late = made.entries.filter(kind="drawn", created_at__gte=made.expires_at) if made.expires_at else None
            assert not (late and late.exists())
        # What was granted is left, in invoices, expired or withdrawn: nothing else can become of it.
        total = sum((made.amount for made in grants), D(0))
        gone = GrantEntry.objects.filter(kind__in=["expired", "withdrawn"]).values_list("amount", flat=True)
        assert total == sum(left(*grants), D(0)) + sum(used.values(), D(0)) - sum(gone, D(0))
        assert {invoice.pk: drawn_by(invoice) for invoice in invoices} == used


@pytest.mark.django_db(transaction=True)
class TestAtTheSameTime:
    def test_one_request_sent_four_times_grants_once(self) -> None:
        customer = acme()
        made = together(*[lambda: grant(customer, 60, once="a form")] * 4)
        assert made == [CreditGrant.objects.get()] * 4
        assert [(entry.amount, entry.after) for entry in GrantEntry.objects.all()] == [(D(60), D(60))]

    def test_two_invoices_never_draw_the_same_money(self) -> None:
        customer = acme()
        first, second = grant(customer, 60), grant(customer, 40)
        invoices = [invoice_of(customer) for _ in range(4)]
        drawn = together(*[lambda invoice=invoice: draw_up_to(invoice, 70, NOW) for invoice in invoices])
        # 100 were there: one got 70, another 30, the rest nothing.
        assert sorted(drawn, key=str) == [D(0), D(0), D(30), D(70)]
        assert left(first, second) == [D(0), D(0)]

    def test_a_grant_expires_or_is_drawn_never_both(self) -> None:
        customer = acme()
        made = grant(customer, 100, expires_at=SOON)
        invoice = invoice_of(customer)
        locked, go_on = threading.Event(), threading.Event()

        def issue() -> None:
            with transaction.atomic():
                drawable(customer=customer, currency="USD", at=NOW)
                locked.set()
                assert go_on.wait(LONGEST_WAIT)
                draw(invoice=invoice, drawn={made.pk: D(100)}, now=NOW)

        def expire() -> int:
            assert locked.wait(LONGEST_WAIT)
            try:
                return expire_grants(now=SOON)  # waits for nobody
            finally:
                go_on.set()

        assert together(issue, expire) == [None, 0]
        assert ledger(made) == [("granted", D(100), D(100)), ("drawn", D(-100), D(0))]

    def test_giving_back_twice_at_once_gives_back_once(self) -> None:
        customer = acme()
        made = grant(customer, 100)
        invoice = invoice_of(customer)
        draw(invoice=invoice, drawn={made.pk: D(80)}, now=NOW)
        back = together(*[lambda: give_back(invoice=invoice, now=NOW)] * 3)
        assert sorted(back, key=str) == [D(0), D(0), D(80)]
        assert left(made) == [D(100)]

    def test_drawing_and_giving_back_in_any_order_do_not_lock_each_other_out(self) -> None:
        customer = acme()
        first, second = grant(customer, 1000), grant(customer, 1000)
        invoices = [invoice_of(customer) for _ in range(2)]

        def there_and_back(invoice: Invoice, order: list[CreditGrant]) -> None:
            for _ in range(10):
                draw(invoice=invoice, drawn={each.pk: D(5) for each in order}, now=NOW)
                give_back(invoice=invoice, now=NOW)

        results = together(
            lambda: there_and_back(invoices[0], [first, second]), lambda: there_and_back(invoices[1], [second, first])
        )
        assert results == [None, None]
        assert left(first, second) == [D(1000), D(1000)]
