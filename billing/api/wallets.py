"""/customers/{id}/wallets: the balances of a customer under the contract's name, and their ledger."""

from datetime import datetime
from decimal import Decimal
from typing import Literal, TypedDict

from django.conf import settings
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing.balances import LARGEST_MOVEMENT, LONGEST_KEY, balance_of, move_balance
from billing.models import Balance, BalanceEntry, BalanceEntryKind
from customers.api.fields import Choice, Pattern, Query, Text, WholeNumber
from customers.api.fields import Request as Body
from customers.api.pagination import PAGE_PARAMETERS, page
from customers.api.schema import answer, page_answer
from customers.customers import get_customer
from customers.models import ApiKey, Customer

EventType = Literal[
    "payment",
    "payment_reversal",
    "refund",
    "refund_reversal",
    "dispute",
    "dispute_reversal",
    "merchant_adjustment",
]
# What moved the balance, in the contract's words.
_EVENT_TYPES: dict[str, EventType] = {
    BalanceEntryKind.INVOICE_PAID: "payment",
    BalanceEntryKind.INVOICE_RETURNED: "payment_reversal",
    BalanceEntryKind.INVOICE_CREDIT: "refund",
    BalanceEntryKind.CREDIT_NOTE: "refund",
    BalanceEntryKind.ADJUSTMENT: "merchant_adjustment",
}
LONGEST_REASON = 2000


class WalletObject(TypedDict):
    """What a customer holds in one currency."""

    customer_id: str
    currency: str
    balance: int
    created_at: datetime
    updated_at: datetime


class WalletsObject(TypedDict):
    """All wallets of a customer. The total is the balance held in USD: nothing is converted."""

    items: list[WalletObject]
    total_balance_usd: int


class WalletEntryObject(TypedDict):
    """One movement of a wallet. `amount` is positive; `is_credit` says which way it went."""

    id: str
    business_id: str
    customer_id: str
    currency: str
    amount: int
    is_credit: bool
    before_balance: int
    after_balance: int
    event_type: EventType
    reason: str | None
    reference_object_id: str | None
    created_at: datetime


class WalletEntryCreate(Body):
    amount = WholeNumber(
        min_value=1, max_value=int(LARGEST_MOVEMENT), help_text="In the currency's minor unit, always positive."
    )
    currency = Pattern(r"^[A-Z]{3}\Z", said="must be a currency code such as USD.")
    entry_type = Choice(choices=["credit", "debit"], help_text="`credit` is for the customer, `debit` against.")
    idempotency_key = Text(
        max_length=LONGEST_KEY,
        required=False,
        allow_null=True,
        trim_whitespace=False,
        help_text="The same key again moves nothing and answers the wallet; another request under it is a 409.",
    )
    reason = Text(max_length=LONGEST_REASON, required=False, allow_null=True, allow_blank=True)


class WalletEntryQuery(Query):
    currency = Pattern(r"^[A-Z]{3}\Z", said="must be a currency code such as USD.", required=False)


def wallet_object(balance: Balance, customer: Customer) -> WalletObject:
    return {
        "customer_id": customer.public_id,
        "currency": balance.currency,
        "balance": int(balance.amount),
        "created_at": balance.created_at,
        "updated_at": balance.updated_at,
    }


def wallet_entry_object(entry: BalanceEntry, customer: Customer) -> WalletEntryObject:
    return {
        "id": entry.public_id,
        "business_id": settings.BUSINESS_ID,
        "customer_id": customer.public_id,
        "currency": entry.balance.currency,
        "amount": int(abs(entry.amount)),
        "is_credit": entry.amount > 0,
        "before_balance": int(entry.after - entry.amount),
        "after_balance": int(entry.after),
        "event_type": _EVENT_TYPES[entry.kind],
        "reason": entry.reason or None,
        "reference_object_id": _reference(entry),
        "created_at": entry.created_at,
    }


def _reference(entry: BalanceEntry) -> str | None:
    """The credit note, or the invoice; an invoice by its payment, the only one of the two that the contract knows."""
    if entry.credit_note is not None:
        return entry.credit_note.public_id
    if entry.invoice is None:
        return None
    payment = getattr(entry.invoice, "payment", None)
    return str(payment.public_id if payment is not None else entry.invoice.public_id)


class WalletsView(APIView):
    @extend_schema(
        operation_id="customers_wallets_list",
        tags=["customers"],
        summary="What a customer holds, by currency",
        responses={200: answer(WalletsObject)},
    )
    def get(self, request: Request, customer_id: str) -> Response:
        customer = get_customer(customer_id=customer_id)
        held: WalletsObject = {
            "items": [wallet_object(balance, customer) for balance in customer.balances.order_by("currency")],
            "total_balance_usd": int(balance_of(customer=customer, currency="USD")),
        }
        return Response(held)


class WalletEntriesView(APIView):
    @extend_schema(
        operation_id="customers_wallets_ledger_entries_list",
        tags=["customers"],
        summary="The movements of a customer's wallets, newest first",
        parameters=[WalletEntryQuery, *PAGE_PARAMETERS],
        responses={200: page_answer(WalletEntryObject)},
    )
    def get(self, request: Request, customer_id: str) -> Response:
        customer = get_customer(customer_id=customer_id)
        wanted = WalletEntryQuery(data=request.query_params).read()
        entries = BalanceEntry.objects.filter(balance__customer=customer).order_by("-created_at", "-id")
        if currency := wanted.get("currency"):
            entries = entries.filter(balance__currency=currency)
        rows = entries.select_related("balance", "credit_note", "invoice__payment")
        return page(request, rows, lambda entry: wallet_entry_object(entry, customer))

    @extend_schema(
        operation_id="customers_wallets_ledger_entries_create",
        tags=["customers"],
        summary="Put money onto a wallet, or take some",
        description=(
            "Issued invoices are paid from the wallet of their currency first. A debit of more than the wallet holds "
            "is refused (400 `INSUFFICIENT_WALLET_FUNDS`). Any currency is possible; its wallet is made when it is "
            "first used."
        ),
        request=WalletEntryCreate,
        responses={200: answer(WalletObject)},
    )
    def post(self, request: Request, customer_id: str) -> Response:
        customer = get_customer(customer_id=customer_id)
        body = WalletEntryCreate(data=request.data)
        body.is_valid(raise_exception=True)
        given = body.validated_data
        amount = Decimal(given["amount"])
        entry = move_balance(
            customer=customer,
            currency=given["currency"],
            amount=amount if given["entry_type"] == "credit" else -amount,
            kind=BalanceEntryKind.ADJUSTMENT,
            reason=given.get("reason") or "",
            author=f"API key {request.auth.name}" if isinstance(request.auth, ApiKey) else "",
            idempotency_key=given.get("idempotency_key"),
            now=timezone.now(),
        )
        # As it is now: a repeated request may be answered long after its entry.
        return Response(wallet_object(Balance.objects.get(pk=entry.balance_id), customer))
