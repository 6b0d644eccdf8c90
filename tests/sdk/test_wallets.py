"""Wallets with the official SDK: nothing changed but key and base URL."""

import dodopayments
import pytest
from dodopayments import DodoPayments

pytestmark = pytest.mark.sdk


def test_the_python_sdk_moves_and_reads_a_wallet(dodo: DodoPayments) -> None:
    customer = dodo.customers.create(name="Initech", email="pay@initech.example")
    assert dodo.customers.wallets.list(customer.customer_id).items == []
    entries = dodo.customers.wallets.ledger_entries
    made = entries.create(
        customer.customer_id, amount=5000, currency="USD", entry_type="credit", reason="Prepaid", idempotency_key="a"
    )
    assert (made.balance, made.currency, made.customer_id) == (5000, "USD", customer.customer_id)
    # A timed-out request is sent again with its key: nothing moves twice.
    again = entries.create(
        customer.customer_id, amount=5000, currency="USD", entry_type="credit", reason="Prepaid", idempotency_key="a"
    )
    assert again == made
    taken = entries.create(customer.customer_id, amount=1200, currency="USD", entry_type="debit")
    assert taken.balance == 3800  # 5000 - 1200

    with pytest.raises(dodopayments.BadRequestError) as short:
        entries.create(customer.customer_id, amount=3801, currency="USD", entry_type="debit")
    assert isinstance(short.value.body, dict)
    assert short.value.body["code"] == "INSUFFICIENT_WALLET_FUNDS"
    with pytest.raises(dodopayments.ConflictError):
        entries.create(customer.customer_id, amount=1, currency="USD", entry_type="credit", idempotency_key="a")

    held = dodo.customers.wallets.list(customer.customer_id)
    assert [(wallet.currency, wallet.balance) for wallet in held.items] == [("USD", 3800)]
    assert held.total_balance_usd == 3800
    debit, credit = entries.list(customer.customer_id, currency="USD").items
    assert (debit.amount, debit.is_credit, debit.before_balance, debit.after_balance) == (1200, False, 5000, 3800)
    assert (credit.amount, credit.is_credit, credit.before_balance, credit.after_balance) == (5000, True, 0, 5000)
    assert (credit.event_type, credit.reason) == ("merchant_adjustment", "Prepaid")
    assert debit.id.startswith("bal_")
    assert entries.list(customer.customer_id, page_number=1).items == []
