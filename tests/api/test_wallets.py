"""Wallets over the API: the balance of a customer under the contract's name."""

from decimal import Decimal
from typing import Any

import pytest

from billing.api.wallets import _EVENT_TYPES
from billing.balances import balance_of, move_balance
from billing.models import BalanceEntry, BalanceEntryKind, Invoice, InvoiceReason, Payment
from customers.models import Customer
from tests.api.client import Answer, Api
from tests.api.test_subscriptions import make_customer
from tests.base import at

pytestmark = pytest.mark.django_db
D = Decimal


@pytest.fixture
def acme(api: Api) -> str:
    return make_customer(api)


def post(api: Api, customer: str, amount: Any, entry_type: str = "credit", **more: Any) -> Answer:
    body = {"amount": amount, "currency": "USD", "entry_type": entry_type, **more}
    return api.post(f"/customers/{customer}/wallets/ledger-entries", body)


def entries(api: Api, customer: str, query: str = "") -> list[dict[str, Any]]:
    return list(api.get(f"/customers/{customer}/wallets/ledger-entries{query}").body["items"])


def test_a_customer_without_money_has_no_wallet(api: Api, acme: str) -> None:
    assert api.get(f"/customers/{acme}/wallets").body == {"items": [], "total_balance_usd": 0}
    assert entries(api, acme) == []


def test_credit_and_debit_move_the_wallet_and_are_written_down(api: Api, acme: str) -> None:
    made = post(api, acme, 5000, reason="Prepayment")
    assert (made.status, made.body["balance"], made.body["currency"]) == (200, 5000, "USD")
    assert post(api, acme, 1200, "debit", idempotency_key="order-7").body["balance"] == 3800  # 5000 - 1200
    post(api, acme, 700, currency="JPY")
    wallets = api.get(f"/customers/{acme}/wallets").body
    assert [(wallet["currency"], wallet["balance"]) for wallet in wallets["items"]] == [("JPY", 700), ("USD", 3800)]
    assert wallets["total_balance_usd"] == 3800
    yen, debit, credit = entries(api, acme)
    assert {name: debit[name] for name in debit if name not in ("id", "created_at")} == {
        "business_id": "bus_meterbook",
        "customer_id": acme,
        "currency": "USD",
        "amount": 1200,
        "is_credit": False,
        "before_balance": 5000,
        "after_balance": 3800,
        "event_type": "merchant_adjustment",
        "reason": None,
        "reference_object_id": None,
    }
    assert (credit["is_credit"], credit["before_balance"], credit["after_balance"]) == (True, 0, 5000)
    assert (credit["reason"], yen["currency"]) == ("Prepayment", "JPY")
    assert [entry["amount"] for entry in entries(api, acme, "?currency=USD")] == [1200, 5000]
    assert [entry["amount"] for entry in entries(api, acme, "?page_size=1&page_number=1")] == [1200]
    assert entries(api, acme, "?currency=EUR") == []
    assert set(BalanceEntry.objects.values_list("author", flat=True)) == {"API key tests"}


def test_a_debit_beyond_the_wallet_is_refused(api: Api, acme: str) -> None:
    post(api, acme, 100)
    refused = post(api, acme, 101, "debit")
    assert (refused.status, refused.body["code"]) == (400, "INSUFFICIENT_WALLET_FUNDS")
    assert refused.body["message"] == "The balance holds $1.00, so $1.01 cannot be taken from it."
    assert post(api, acme, 100, "debit").body["balance"] == 0


def test_the_same_key_again_answers_the_wallet_and_moves_nothing(api: Api, acme: str) -> None:
    first = post(api, acme, 100, idempotency_key="once", reason="Gift")
    post(api, acme, 50)
    again = post(api, acme, 100, idempotency_key="once", reason="Gift")
    assert (first.status, again.status, again.body["balance"]) == (200, 200, 150)
    assert len(entries(api, acme)) == 2
    others: list[dict[str, Any]] = [{"amount": 101}, {"entry_type": "debit"}, {"currency": "EUR"}, {"reason": "Other"}]
    for other in others:
        clash = post(api, acme, **{"amount": 100, "idempotency_key": "once", "reason": "Gift", **other})
        assert (clash.status, clash.body["code"]) == (409, "CONFLICT"), other
        assert clash.headers["x-should-retry"] == "false"
    assert len(entries(api, acme)) == 2


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"amount": 0}, 422, "INVALID_REQUEST_BODY"),
        ({"amount": -5}, 422, "INVALID_REQUEST_BODY"),
        ({"amount": 1.5}, 422, "INVALID_REQUEST_BODY"),
        ({"amount": "5"}, 422, "INVALID_REQUEST_BODY"),
        ({"amount": 10**18 + 1}, 422, "INVALID_REQUEST_BODY"),
        ({"currency": "usd"}, 422, "INVALID_REQUEST_BODY"),
        ({"currency": "XXX"}, 400, "INVALID_REQUEST_PARAMETERS"),
        ({"entry_type": "gift"}, 422, "INVALID_REQUEST_BODY"),
        ({"idempotency_key": ""}, 422, "INVALID_REQUEST_BODY"),
        ({"idempotency_key": "k" * 256}, 422, "INVALID_REQUEST_BODY"),
        ({"note": "?"}, 422, "INVALID_REQUEST_BODY"),
    ],
)
def test_nonsense_is_refused(api: Api, acme: str, changes: dict[str, Any], status: int, code: str) -> None:
    answer = post(api, acme, **{"amount": 1, **changes})
    assert (answer.status, answer.body["code"]) == (status, code)
    assert not BalanceEntry.objects.exists()


def test_nulls_mean_not_given(api: Api, acme: str) -> None:
    assert post(api, acme, 10**18, idempotency_key=None, reason=None).body["balance"] == 10**18


def test_a_customer_sees_nothing_of_anothers(api: Api, acme: str) -> None:
    other = make_customer(api, "cus_globex")
    post(api, acme, 100, idempotency_key="one")
    assert post(api, other, 7, idempotency_key="one").body["balance"] == 7
    assert [entry["amount"] for entry in entries(api, other)] == [7]
    assert [entry["amount"] for entry in entries(api, acme)] == [100]


def test_what_invoices_moved_is_told_in_the_contracts_words(api: Api, acme: str) -> None:
    customer = Customer.objects.get(public_id=acme)
    invoice = Invoice.objects.create(
        customer=customer, reason=InvoiceReason.ONE_TIME, currency="USD", customer_name="Acme", customer_email="a@b.c"
    )
    payment = Payment.objects.create(invoice=invoice, customer=customer, amount=D(0), currency="USD")
    for amount, kind in [
        (100, BalanceEntryKind.INVOICE_CREDIT),
        (-60, BalanceEntryKind.INVOICE_PAID),
        (60, BalanceEntryKind.INVOICE_RETURNED),
    ]:
        move_balance(
            customer=customer, currency="USD", amount=D(amount), kind=kind, invoice=invoice, now=at("2026-03-01")
        )
    told = [(entry["event_type"], entry["amount"], entry["reference_object_id"]) for entry in entries(api, acme)]
    assert told == [
        ("payment_reversal", 60, payment.public_id),
        ("payment", 60, payment.public_id),
        ("refund", 100, payment.public_id),
    ]
    assert balance_of(customer=customer, currency="USD") == 100


def test_reading_asks_the_database_the_same_few_questions_for_any_number(
    api: Api, acme: str, django_assert_max_num_queries: Any
) -> None:
    for number in range(1, 21):
        post(api, acme, number)
    with django_assert_max_num_queries(6):
        assert len(entries(api, acme, "?page_size=20")) == 20


def test_every_kind_has_a_word() -> None:
    assert set(_EVENT_TYPES) == set(BalanceEntryKind.values)
