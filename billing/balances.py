"""What a customer holds with us, per currency: a balance that only moves by entries of its ledger.

All amounts are whole minor units, positive for the customer. Where several things are locked in one transaction the
order is: grants of prepaid credit (billing.credits), then the balance, then the number series.
"""

from datetime import datetime
from decimal import Decimal

from django.db import connection, transaction

from billing.models import Balance, BalanceEntry, BalanceEntryKind, CreditNote, Invoice
from billing.money import add, format_amount, is_currency
from customers.errors import Conflict, DomainError
from customers.models import Customer

# Far above any movement, and far below what the column holds.
LARGEST_MOVEMENT = Decimal(10) ** 18
LONGEST_KEY = 255


class BalanceInvalid(DomainError):
    pass


class InsufficientBalance(DomainError):
    """The balance would fall below zero."""

    code = "INSUFFICIENT_WALLET_FUNDS"


class IdempotencyKeyReused(Conflict):
    """The key belongs to a movement that says something else."""


def balance_of(*, customer: Customer, currency: str) -> Decimal:
    """What the customer holds in this currency; zero where nothing ever moved."""
    held = Balance.objects.filter(customer=customer, currency=currency).values_list("amount", flat=True).first()
    return held if held is not None else Decimal(0)


@transaction.atomic
def move_balance(
    *,
    customer: Customer,
    currency: str,
    amount: Decimal,
    kind: str,
    now: datetime,
    invoice: Invoice | None = None,
    credit_note: CreditNote | None = None,
    reason: str = "",
    author: str = "",
    idempotency_key: str | None = None,
) -> BalanceEntry:
    """Add a movement to the ledger: positive for the customer. `InsufficientBalance` where it would leave less than 0.

    With an `idempotency_key` that the customer used before the first entry is returned and nothing moves;
    `IdempotencyKeyReused` where that entry says something else.
    """
    _check(currency, amount, kind, idempotency_key)
    if idempotency_key is not None:
        # The key is the customer's, not the currency's: the same request with another currency is a mistake. Two at
        # once in two currencies would lock two balances and not see each other.
        with connection.cursor() as cursor:
            lock = f"balance entry {customer.pk} {idempotency_key}"
            cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [lock])
    balance = _locked(customer, currency, now)
    if idempotency_key is not None:
        earlier = BalanceEntry.objects.filter(
            balance__customer=customer, idempotency_key=idempotency_key
        ).select_related("balance")
        if (entry := earlier.first()) is not None:
            _must_be_same(entry, currency, amount, kind, invoice, credit_note, reason)
            return entry
    after = add(balance.amount, amount)
    if after < 0:
        raise InsufficientBalance(
            f"The balance holds {format_amount(balance.amount, currency)}, so {format_amount(-amount, currency)} "
            "cannot be taken from it."
        )
    balance.amount = after
    balance.save(update_fields=["amount", "updated_at"])
    return BalanceEntry.objects.create(
        balance=balance,
        kind=kind,
        amount=amount,
        after=after,
        invoice=invoice,
        credit_note=credit_note,
        reason=reason.strip(),
        author=author,
        idempotency_key=idempotency_key,
        created_at=now,
    )


def apply_balance(*, customer: Customer, currency: str, due: Decimal, now: datetime) -> Decimal:
    """How much of the balance pays for `due`; what Invoice.balance becomes. Must run inside a transaction.

    The balance stays locked until that ends; the caller moves minus the answer once the invoice exists. What is due
    below zero goes onto the balance whole, so the answer is then negative.
    """
    if due <= 0:
        if due < 0:
            _locked(customer, currency, now)
        return due
    # No row, nothing to use: none is made for a customer who never held anything.
    balance = Balance.objects.select_for_update().filter(customer=customer, currency=currency).first()
    return min(balance.amount, due) if balance is not None else Decimal(0)


def _locked(customer: Customer, currency: str, now: datetime) -> Balance:
    held = Balance.objects.select_for_update().filter(customer=customer, currency=currency)
    if (balance := held.first()) is not None:
        return balance
    # Two at once may both come here: one makes the row, both lock it.
    Balance.objects.bulk_create([Balance(customer=customer, currency=currency, created_at=now)], ignore_conflicts=True)
    return held.get()


def _check(currency: str, amount: Decimal, kind: str, idempotency_key: str | None) -> None:
    if kind not in BalanceEntryKind.values:
        raise TypeError(f"not a kind of movement: {kind!r}")
    if not is_currency(currency):
        raise BalanceInvalid(f"{currency!r} is not a currency code such as USD.")
    if not amount.is_finite() or amount != amount.to_integral_value():
        raise BalanceInvalid("The amount must be a whole number of minor units.")
    if amount == 0:
        raise BalanceInvalid("The amount must not be zero.")
    if abs(amount) > LARGEST_MOVEMENT:
        raise BalanceInvalid(f"The amount may be {LARGEST_MOVEMENT:f} minor units at most.")
    if idempotency_key is not None and not 1 <= len(idempotency_key) <= LONGEST_KEY:
        raise BalanceInvalid(f"idempotency_key: use 1 to {LONGEST_KEY} characters.")


def _must_be_same(
    entry: BalanceEntry,
    currency: str,
    amount: Decimal,
    kind: str,
    invoice: Invoice | None,
    credit_note: CreditNote | None,
    reason: str,
) -> None:
    """The author may differ: who repeats a request need not be who made it."""
    asked = (
        currency,
        amount,
        kind,
        invoice.pk if invoice else None,
        credit_note.pk if credit_note else None,
        reason.strip(),
    )
    made = (entry.balance.currency, entry.amount, entry.kind, entry.invoice_id, entry.credit_note_id, entry.reason)
    if asked != made:
        raise IdempotencyKeyReused(
            f"The idempotency key {entry.idempotency_key} belongs to {entry.public_id}, which moved "
            f"{format_amount(entry.amount, entry.balance.currency)}; use another key for another movement."
        )
