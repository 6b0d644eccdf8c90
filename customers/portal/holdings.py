"""What a customer holds, in words: their balance in each currency, their prepaid credit, and every movement of both."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from django.conf import settings
from django.db.models import F, QuerySet, Sum
from django.urls import reverse

from billing.credits import in_force
from billing.documents import day_in_words
from billing.models import BalanceEntry, BalanceEntryKind, CreditGrant, GrantEntry, GrantEntryKind
from billing.money import format_amount
from customers.models import Customer

# A grant's own movements are few; what is older stays in the operator's ledger.
MOVEMENTS_OF_A_GRANT = 24
GRANTS = 50
_MOVED: dict[str, str] = {
    BalanceEntryKind.INVOICE_PAID: "Used for invoice",
    BalanceEntryKind.INVOICE_RETURNED: "Given back by invoice",
    BalanceEntryKind.INVOICE_CREDIT: "Credit of invoice",
    BalanceEntryKind.CREDIT_NOTE: "Credit note",
    BalanceEntryKind.ADJUSTMENT: "Adjustment",
    GrantEntryKind.GRANTED: "Granted",
    GrantEntryKind.DRAWN: "Used for invoice",
    GrantEntryKind.RETURNED: "Given back by invoice",
    GrantEntryKind.EXPIRED: "Expired",
    GrantEntryKind.WITHDRAWN: "Withdrawn",
}


@dataclass(frozen=True, slots=True)
class MovementView:
    """One line of a ledger. `number` and `url` are the invoice's or credit note's behind it, if the customer has it."""

    on: str
    what: str
    number: str
    url: str
    reason: str
    amount: str
    left: str


@dataclass(frozen=True, slots=True)
class GrantView:
    """Prepaid credit, and what became of it."""

    key: int
    name: str
    status: str
    status_word: str
    left: str
    granted: str
    ends: str
    movements: list[MovementView]


@dataclass(frozen=True, slots=True)
class HoldingsView:
    """What is there now, one text a currency; empty where nothing is."""

    balances: list[str]
    credit: list[str]


def holdings_view(*, customer: Customer, now: datetime) -> HoldingsView:
    """Balances that hold something, and the prepaid credit that invoices could draw at this moment."""
    held = customer.balances.filter(amount__gt=0).order_by("currency").values_list("amount", "currency")
    usable = CreditGrant.objects.filter(in_force(now), customer=customer).order_by("currency").values("currency")
    credit = usable.annotate(held=Sum("remaining")).values_list("held", "currency")
    return HoldingsView(
        balances=[format_amount(amount, currency) for amount, currency in held],
        credit=[format_amount(amount, currency) for amount, currency in credit],
    )


def balance_entries(customer: Customer) -> QuerySet[BalanceEntry]:
    """The movements of all the customer's balances, newest first."""
    rows = BalanceEntry.objects.filter(balance__customer=customer).select_related("balance", "invoice", "credit_note")
    return rows.order_by("-created_at", "-id")


def movement_views(entries: Iterable[BalanceEntry | GrantEntry]) -> list[MovementView]:
    zone = ZoneInfo(settings.BILLING_TIME_ZONE)
    return [_movement(entry, zone) for entry in entries]


def _movement(entry: BalanceEntry | GrantEntry, zone: ZoneInfo) -> MovementView:
    currency = entry.balance.currency if isinstance(entry, BalanceEntry) else entry.grant.currency
    amount = format_amount(entry.amount, currency)
    what, number, url = _MOVED[entry.kind], "", ""
    if (note := entry.credit_note) is not None:
        what = "Credit note" if entry.kind == BalanceEntryKind.CREDIT_NOTE else "Given back by credit note"
        number, url = note.number, reverse("portal:credit_note", args=[note.public_id])
    elif (invoice := entry.invoice) is not None and invoice.number:
        number, url = invoice.number, reverse("portal:invoice", args=[invoice.public_id])
    return MovementView(
        on=day_in_words(entry.created_at, zone),
        what=what,
        number=number,
        url=url,
        reason=entry.reason,
        amount=f"+{amount}" if entry.amount > 0 else amount,
        left=format_amount(entry.after, currency),
    )


def grant_views(*, customer: Customer, now: datetime) -> list[GrantView]:
    """The customer's grants: first what will be drawn, in that order, then the others, newest first."""
    grants = CreditGrant.objects.filter(customer=customer)
    usable = grants.filter(in_force(now)).order_by(
        "priority", F("expires_at").asc(nulls_last=True), "created_at", "pk"
    )[:GRANTS]
    others = grants.exclude(in_force(now)).order_by("-created_at", "-pk")[:GRANTS]
    zone = ZoneInfo(settings.BILLING_TIME_ZONE)
    return [_grant(grant, now, zone) for grant in [*usable, *others][:GRANTS]]


def _grant(grant: CreditGrant, now: datetime, zone: ZoneInfo) -> GrantView:
    status, word = _status(grant, now)
    entries = grant.entries.select_related("grant", "invoice", "credit_note").order_by("-created_at", "-id")
    if status == "pending":
        ends = f"counts from {day_in_words(grant.starts_at, zone)}"
    elif grant.expires_at is None or status == "cancelled":
        ends = "" if status == "cancelled" else "never expires"
    else:
        ends = f"{'expired' if grant.expires_at <= now else 'expires'} on {day_in_words(grant.expires_at, zone)}"
    return GrantView(
        key=grant.pk,
        name=grant.name,
        status=status,
        status_word=word,
        left=format_amount(grant.remaining, grant.currency),
        granted=format_amount(grant.amount, grant.currency),
        ends=ends,
        movements=movement_views(entries[:MOVEMENTS_OF_A_GRANT]),
    )


def _status(grant: CreditGrant, now: datetime) -> tuple[str, str]:
    """The colour's name and the word."""
    if grant.withdrawn_at is not None:
        return "cancelled", "Withdrawn"
    if grant.expires_at is not None and grant.expires_at <= now:
        return "expired", "Expired"
    if grant.remaining == 0:
        return "expired", "Used up"
    if grant.starts_at > now:
        return "pending", "Not begun"
    return "active", "Active"
