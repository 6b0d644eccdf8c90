"""A customer's balance: it moves only by entries, never below zero, and a repeated request moves nothing."""

import threading
from decimal import Decimal
from typing import Any

import pytest
from django.db import IntegrityError, connections, transaction
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase as HypothesisTestCase

from billing.balances import (
    LARGEST_MOVEMENT,
    BalanceInvalid,
    IdempotencyKeyReused,
    InsufficientBalance,
    apply_balance,
    balance_of,
    move_balance,
)
from billing.models import Balance, BalanceEntry, BalanceEntryKind
from customers.models import Customer
from tests.base import acme, at, globex
from tests.billing.rivals import LONGEST_WAIT, together

D = Decimal
NOW = at("2026-03-10T12:00")


def move(customer: Customer, amount: int | str | Decimal, **changes: Any) -> BalanceEntry:
    return move_balance(
        **{
            "customer": customer,
            "currency": "USD",
            "amount": D(amount),
            "kind": BalanceEntryKind.ADJUSTMENT,
            "now": NOW,
            **changes,
        }
    )


def ledger(customer: Customer, currency: str = "USD") -> list[tuple[Decimal, Decimal]]:
    """Each entry as (amount, after), oldest first."""
    entries = BalanceEntry.objects.filter(balance__customer=customer, balance__currency=currency)
    return list(entries.order_by("pk").values_list("amount", "after"))


@pytest.mark.django_db
class TestMovements:
    def test_a_customer_who_never_held_anything_holds_zero_and_has_no_row(self) -> None:
        customer = acme()
        assert balance_of(customer=customer, currency="USD") == 0
        assert not Balance.objects.exists()

    def test_each_movement_is_an_entry_that_says_what_is_left(self) -> None:
        customer = acme()
        entry = move(customer, 1000, reason=" Goodwill ", author="ann")
        move(customer, -400)
        move(customer, -600)  # exactly to zero
        assert ledger(customer) == [(D(1000), D(1000)), (D(-400), D(600)), (D(-600), D(0))]
        assert balance_of(customer=customer, currency="USD") == 0
        assert (entry.kind, entry.reason, entry.author, entry.created_at) == ("adjustment", "Goodwill", "ann", NOW)
        assert entry.public_id.startswith("bal_")

    def test_one_minor_unit_too_much_is_refused_and_leaves_no_trace(self) -> None:
        customer = acme()
        move(customer, 1000)
        with pytest.raises(InsufficientBalance) as refused:
            move(customer, -1001)
        assert refused.value.code == "INSUFFICIENT_WALLET_FUNDS"
        assert refused.value.status == 400
        assert refused.value.message == "The balance holds $10.00, so $10.01 cannot be taken from it."
        assert ledger(customer) == [(D(1000), D(1000))]

    def test_currencies_and_customers_are_apart(self) -> None:
        customer, other = acme(), globex()
        move(customer, 1000)
        move(customer, 5, currency="JPY")
        move(other, 7)
        assert [
            balance_of(customer=who, currency=currency)
            for who, currency in [(customer, "USD"), (customer, "JPY"), (customer, "EUR"), (other, "USD")]
        ] == [D(1000), D(5), D(0), D(7)]
        with pytest.raises(InsufficientBalance):
            move(customer, -6, currency="JPY")

    @pytest.mark.parametrize(
        ("changes", "sentence"),
        [
            ({"amount": D(0)}, "The amount must not be zero."),
            ({"amount": D("0.5")}, "The amount must be a whole number of minor units."),
            ({"amount": D("NaN")}, "The amount must be a whole number of minor units."),
            ({"amount": D("Infinity")}, "The amount must be a whole number of minor units."),
            ({"amount": LARGEST_MOVEMENT + 1}, "The amount may be 1000000000000000000 minor units at most."),
            ({"currency": "usd"}, "'usd' is not a currency code such as USD."),
            ({"idempotency_key": ""}, "idempotency_key: use 1 to 255 characters."),
            ({"idempotency_key": "k" * 256}, "idempotency_key: use 1 to 255 characters."),
        ],
    )
    def test_nonsense_is_refused_with_a_sentence(self, changes: dict[str, Any], sentence: str) -> None:
        with pytest.raises(BalanceInvalid) as refused:
            move(acme(), **{"amount": 1, **changes})
        assert (refused.value.message, refused.value.status) == (sentence, 400)
        assert not Balance.objects.exists()

    @pytest.mark.parametrize("amount", [D(1), LARGEST_MOVEMENT])
    def test_the_smallest_and_the_largest_movement_are_possible(self, amount: Decimal) -> None:
        assert move(acme(), str(amount)).after == amount


@pytest.mark.django_db
class TestIdempotency:
    def test_the_same_key_again_is_the_same_entry(self) -> None:
        customer = acme()
        first = move(customer, 500, reason="Refund", idempotency_key="one", author="key A")
        move(customer, 100)
        again = move(customer, 500, reason="Refund ", idempotency_key="one", author="key B", now=at("2026-04-01"))
        assert again == first
        assert ledger(customer) == [(D(500), D(500)), (D(100), D(600))]

    def test_a_repeated_debit_is_answered_also_when_nothing_is_left(self) -> None:
        customer = acme()
        move(customer, 500)
        first = move(customer, -500, idempotency_key="all")
        assert move(customer, -500, idempotency_key="all") == first
        assert balance_of(customer=customer, currency="USD") == 0

    @pytest.mark.parametrize(
        "changes",
        [
            {"amount": D(501)},
            {"amount": D(-500)},
            {"reason": "Something else"},
            {"kind": BalanceEntryKind.INVOICE_CREDIT},
            {"currency": "EUR"},
        ],
    )
    def test_the_same_key_for_something_else_is_a_conflict(self, changes: dict[str, Any]) -> None:
        customer = acme()
        first = move(customer, 500, idempotency_key="one")
        with pytest.raises(IdempotencyKeyReused) as refused:
            move(customer, **{"amount": 500, "idempotency_key": "one", **changes})
        assert (refused.value.status, first.public_id in refused.value.message) == (409, True)
        assert list(BalanceEntry.objects.all()) == [first]

    def test_another_customer_may_use_the_same_key(self) -> None:
        assert move(acme(), 500, idempotency_key="one") != move(globex(), 500, idempotency_key="one")

    def test_a_refused_movement_does_not_use_its_key_up(self) -> None:
        customer = acme()
        with pytest.raises(InsufficientBalance):
            move(customer, -1, idempotency_key="one")
        move(customer, 1)
        assert move(customer, -1, idempotency_key="one").after == 0


@pytest.mark.django_db
class TestPayingWithIt:
    @pytest.mark.parametrize(
        ("held", "due", "used"),
        [
            (0, 0, 0),
            (0, 100, 0),
            (99, 100, 99),
            (100, 100, 100),
            (101, 100, 100),
            (100, 0, 0),
            (100, -30, -30),  # below zero: put onto the balance
            (0, -30, -30),
        ],
    )
    def test_it_pays_what_it_can(self, held: int, due: int, used: int) -> None:
        customer = acme()
        if held:
            move(customer, held)
        assert apply_balance(customer=customer, currency="USD", due=D(due), now=NOW) == used
        # Nothing moves yet: the movement names the invoice, which does not exist.
        assert balance_of(customer=customer, currency="USD") == held
        if used:
            move(customer, -used, kind=BalanceEntryKind.INVOICE_PAID)
        assert balance_of(customer=customer, currency="USD") == held - used

    def test_who_never_held_anything_gets_no_row(self) -> None:
        customer = acme()
        assert apply_balance(customer=customer, currency="USD", due=D(100), now=NOW) == 0
        assert not Balance.objects.exists()


@pytest.mark.django_db
class TestTheLedgerOnlyGrows:
    def test_an_entry_is_neither_edited_nor_deleted(self) -> None:
        entry = move(acme(), 500)
        with pytest.raises(IntegrityError, match="only grows"), transaction.atomic():
            BalanceEntry.objects.filter(pk=entry.pk).update(reason="x")
        with pytest.raises(IntegrityError, match="only grows"), transaction.atomic():
            BalanceEntry.objects.filter(pk=entry.pk).delete()

    def test_a_balance_that_is_not_its_ledger_is_refused_at_commit(self) -> None:
        entry = move(acme(), 500)
        with pytest.raises(IntegrityError, match="ends with 500"), transaction.atomic():
            Balance.objects.filter(pk=entry.balance_id).update(amount=501)
            with connections["default"].cursor() as cursor:
                cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")

    def test_an_entry_that_does_not_follow_from_the_one_before_is_refused_at_commit(self) -> None:
        entry = move(acme(), 500)
        with pytest.raises(IntegrityError, match="says 700 after 500 and 100"), transaction.atomic():
            BalanceEntry.objects.create(balance=entry.balance, kind="adjustment", amount=100, after=700)
            Balance.objects.filter(pk=entry.balance_id).update(amount=700)
            with connections["default"].cursor() as cursor:
                cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")


class TestConservation(HypothesisTestCase):
    @given(
        steps=st.lists(
            st.tuples(
                st.sampled_from(["USD", "EUR"]),
                st.integers(-50, 50).filter(bool),
                st.none() | st.sampled_from(["a", "b", "c"]),
            ),
            max_size=12,
        )
    )
    @settings(max_examples=60, deadline=None)
    def test_any_movements_leave_the_sum_of_what_was_accepted(self, steps: list[tuple[str, int, str | None]]) -> None:
        customer = acme()
        # The reference: plain numbers, and what each key was first used for.
        held = {"USD": 0, "EUR": 0}
        keys: dict[str, tuple[str, int]] = {}
        for currency, amount, key in steps:
            known = keys.get(key or "")
            try:
                move(customer, amount, currency=currency, idempotency_key=key)
            except InsufficientBalance:
                assert known is None
                assert held[currency] + amount < 0
            except IdempotencyKeyReused:
                assert known not in (None, (currency, amount))
            else:
                if known is None:
                    held[currency] += amount
                    if key is not None:
                        keys[key] = (currency, amount)
                else:
                    assert known == (currency, amount)
        for currency, amount in held.items():
            entries = ledger(customer, currency)
            assert balance_of(customer=customer, currency=currency) == amount
            assert sum(moved for moved, _ in entries) == amount
            assert [after for _, after in entries] == [
                sum(moved for moved, _ in entries[: n + 1]) for n in range(len(entries))
            ]
            assert all(after >= 0 for _, after in entries)


@pytest.mark.django_db(transaction=True)
class TestAtTheSameTime:
    def test_two_debits_of_one_balance_never_take_more_than_it_holds(self) -> None:
        customer = acme()
        move(customer, 100)
        for round_ in range(5):
            results = together(*[lambda: move(customer, -60)] * 4)
            taken = [result for result in results if isinstance(result, BalanceEntry)]
            refused = [result for result in results if isinstance(result, InsufficientBalance)]
            assert (len(taken), len(refused)) == (1, 3), (round_, results)
            assert balance_of(customer=customer, currency="USD") == 40
            move(customer, 60)

    def test_the_first_movements_of_a_customer_share_one_row(self) -> None:
        customer = acme()
        results = together(*[lambda: move(customer, 10)] * 4)
        assert [type(result) for result in results] == [BalanceEntry] * 4
        assert sorted(ledger(customer)) == [(D(10), D(10)), (D(10), D(20)), (D(10), D(30)), (D(10), D(40))]

    def test_one_key_sent_twice_at_once_moves_once(self) -> None:
        customer = acme()
        results = together(*[lambda: move(customer, 10, idempotency_key="one")] * 4)
        assert len({entry.pk for entry in results if isinstance(entry, BalanceEntry)}) == 1, results
        assert ledger(customer) == [(D(10), D(10))]

    def test_one_key_sent_at_once_for_two_currencies_moves_one_of_them(self) -> None:
        customer = acme()
        for key in ("one", "two", "three"):
            results = together(
                *[
                    lambda currency=currency, key=key: move(customer, 10, currency=currency, idempotency_key=key)
                    for currency in ("USD", "EUR")
                ]
            )
            kinds = sorted(type(result).__name__ for result in results)
            assert kinds == ["BalanceEntry", "IdempotencyKeyReused"], results

    def test_what_pays_for_an_invoice_is_held_until_it_is_issued(self) -> None:
        customer = acme()
        move(customer, 100)
        used, go_on = threading.Event(), threading.Event()

        def issue() -> Decimal:
            with transaction.atomic():
                amount = apply_balance(customer=customer, currency="USD", due=D(80), now=NOW)
                used.set()
                assert go_on.wait(LONGEST_WAIT)
                move(customer, -amount, kind=BalanceEntryKind.INVOICE_PAID)
                return amount

        def debit() -> BalanceEntry:
            assert used.wait(LONGEST_WAIT)
            threading.Timer(0.3, go_on.set).start()
            return move(customer, -80)

        issued, debited = together(issue, debit)
        assert issued == 80
        assert isinstance(debited, InsufficientBalance)
        assert ledger(customer) == [(D(100), D(100)), (D(-80), D(20))]
