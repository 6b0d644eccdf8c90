"""Prepaid credit: grants that pay for invoices before tax, and the ledger of each.

Whole minor units. A grant is drawn by priority, then by what expires first, then by age; which grant pays how much of
which line is decided by billing.pricing, here it is written down. Locks are taken in the order of the grants' keys,
before those of a balance.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal

from django.db import connection, transaction
from django.db.models import Q, Sum

from billing.models import Balance, CreditGrant, CreditNote, GrantEntry, GrantEntryKind, Invoice
from billing.money import add, format_amount, is_currency
from billing.pricing import Credit
from customers.errors import Conflict, DomainError
from customers.ids import id_of_request, new_grant_id
from customers.models import Customer

LARGEST_GRANT = Decimal(10) ** 18
LONGEST_NAME = 255
LARGEST_PRIORITY = 2**31 - 1
# How many grants expire in one transaction.
_CHUNK = 200


class GrantInvalid(DomainError):
    pass


class CreditNotDrawable(Conflict):
    """The grant has less left than is asked for, or may not be drawn now."""


class GrantNotWithdrawable(Conflict):
    pass


class CreditNotReturnable(Conflict):
    """More would be given back than the invoice still holds."""


@transaction.atomic
def grant_credit(
    *,
    customer: Customer,
    name: str,
    amount: Decimal,
    currency: str,
    now: datetime,
    priority: int = 0,
    starts_at: datetime | None = None,
    expires_at: datetime | None = None,
    author: str = "",
    once: str = "",
) -> CreditGrant:
    """Give the customer prepaid credit; it counts from `starts_at` (now) until just before `expires_at` (never).

    `once` names the request: the same one again gives the grant that it made.
    """
    said = (once, customer.pk, name, amount, currency, priority, starts_at, expires_at)
    starts_at = starts_at or now
    if not (name := name.strip()) or len(name) > LONGEST_NAME:
        raise GrantInvalid(f"name: use 1 to {LONGEST_NAME} characters; the customer reads it.")
    if not is_currency(currency):
        raise GrantInvalid(f"currency: {currency!r} is not a currency code such as USD.")
    if not amount.is_finite() or amount != amount.to_integral_value() or not 0 < amount <= LARGEST_GRANT:
        raise GrantInvalid(f"amount: use a whole number of minor units from 1 to {LARGEST_GRANT:f}.")
    if not 0 <= priority <= LARGEST_PRIORITY:
        raise GrantInvalid(f"priority: use 0 to {LARGEST_PRIORITY}; the lowest is drawn first.")
    if expires_at is not None and expires_at <= starts_at:
        raise GrantInvalid("expires_at: the credit must expire after it starts.")
    if expires_at is not None and expires_at <= now:
        raise GrantInvalid("expires_at: the credit would have expired already.")
    grant, is_new = CreditGrant.objects.get_or_create(
        public_id=id_of_request("cgr", *said) if once else new_grant_id(),
        defaults={
            "customer": customer,
            "name": name,
            "currency": currency,
            "amount": amount,
            "remaining": amount,
            "priority": priority,
            "starts_at": starts_at,
            "expires_at": expires_at,
            "author": author,
            "created_at": now,
        },
    )
    if not is_new:
        return grant
    GrantEntry.objects.create(grant=grant, kind=GrantEntryKind.GRANTED, amount=amount, after=amount, created_at=now)
    return grant


def in_force(at: datetime) -> Q:
    """Grants that could pay at this instant: begun, unexpired, not withdrawn, with something left."""
    unexpired = Q(expires_at__isnull=True) | Q(expires_at__gt=at)
    return Q(remaining__gt=0, starts_at__lte=at, withdrawn_at__isnull=True) & unexpired


def credit_of(*, customer: Customer, currency: str, at: datetime) -> Decimal:
    """What the customer's grants could pay at this instant, together."""
    grants = CreditGrant.objects.filter(in_force(at), customer=customer, currency=currency)
    return grants.aggregate(held=Sum("remaining"))["held"] or Decimal(0)


def lock_holdings(*, customer: Customer, currency: str) -> None:
    """Keep others from the customer's credit and balance until the transaction ends.

    First of all that is locked for a customer's money, then the invoice, and number series last: whoever takes several
    of these takes them in this order, so that no two wait for each other. An advisory lock comes before the rows, since
    a first balance has no row yet.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"holdings {customer.pk} {currency}"])
    grants = CreditGrant.objects.select_for_update().filter(customer=customer, currency=currency)
    list(grants.order_by("pk").values_list("pk", flat=True))
    list(Balance.objects.select_for_update().filter(customer=customer, currency=currency).values_list("pk", flat=True))


def drawable(*, customer: Customer, currency: str, at: datetime) -> list[Credit]:
    """The grants that may be drawn at this instant, in drawing order, as values for billing.pricing.

    Must run inside a transaction: the rows stay locked until it ends, so what is drawn afterwards is still there.
    """
    locked = CreditGrant.objects.select_for_update().filter(in_force(at), customer=customer, currency=currency)
    grants = list(locked.order_by("pk"))
    grants.sort(key=_drawing_order)
    return [_as_value(grant) for grant in grants]


def _drawing_order(grant: CreditGrant) -> tuple[int, bool, float, datetime, int]:
    expires = grant.expires_at.timestamp() if grant.expires_at else 0.0
    return grant.priority, grant.expires_at is None, expires, grant.created_at, grant.pk


@transaction.atomic
def draw(*, invoice: Invoice, drawn: Mapping[int, Decimal] | Mapping[str, Decimal], now: datetime) -> None:
    """Take from each grant what the invoice uses of it, by the keys of `drawable`; drawn in the mapping's order.

    `CreditNotDrawable` where a grant has less left, is not this customer's, or may not be drawn at `now`.
    """
    wanted = {int(key): amount for key, amount in drawn.items() if amount}
    grants = {
        grant.pk: grant
        for grant in CreditGrant.objects.select_for_update().filter(pk__in=wanted).order_by("pk")
        if grant.customer_id == invoice.customer_id and grant.currency == invoice.currency
    }
    entries = []
    for key, amount in wanted.items():
        grant = grants.get(key)
        if grant is None:
            raise CreditNotDrawable(f"{invoice} cannot draw grant {key}: it is another customer's or currency's.")
        if amount < 0 or amount != amount.to_integral_value():
            raise CreditNotDrawable(
                f"{amount} of “{grant}” cannot be drawn: use a positive whole number of minor units."
            )
        if grant.withdrawn_at or grant.starts_at > now or (grant.expires_at and grant.expires_at <= now):
            raise CreditNotDrawable(f"“{grant}” cannot be drawn now: it has not begun, has expired or was withdrawn.")
        if amount > grant.remaining:
            left = format_amount(grant.remaining, grant.currency)
            raise CreditNotDrawable(f"“{grant}” has {left} left, less than {format_amount(amount, grant.currency)}.")
        entries.append(_move(grant, GrantEntryKind.DRAWN, -amount, now, invoice=invoice))
    _write(grants.values(), entries)


def drawn_by(invoice: Invoice) -> Decimal:
    """The prepaid credit that the invoice has drawn and not given back."""
    moved = invoice.grant_entries.filter(kind__in=_OF_INVOICES).aggregate(sum=Sum("amount"))["sum"]
    return -moved if moved is not None else Decimal(0)


_OF_INVOICES = (GrantEntryKind.DRAWN, GrantEntryKind.RETURNED)


@transaction.atomic
def give_back(
    *, invoice: Invoice, now: datetime, amount: Decimal | None = None, credit_note: CreditNote | None = None
) -> Decimal:
    """Put back what the invoice has drawn: all that is left of it, or `amount`, the grant drawn last first.

    The answer is what was given back. A grant that has expired or was withdrawn meanwhile gets it back and loses it
    in the next entry, so the ledger shows where it went. `CreditNotReturnable` for more than is left.
    """
    # A first look only says which grants to lock; what is left is read again behind the locks.
    keys = invoice.grant_entries.filter(kind=GrantEntryKind.DRAWN).values("grant")
    grants = {grant.pk: grant for grant in CreditGrant.objects.select_for_update().filter(pk__in=keys).order_by("pk")}
    held: dict[int, Decimal] = {}
    last: dict[int, int] = {}
    for entry in invoice.grant_entries.filter(kind__in=_OF_INVOICES).order_by("pk"):
        held[entry.grant_id] = add(held.get(entry.grant_id, Decimal(0)), -entry.amount)
        if entry.kind == GrantEntryKind.DRAWN:
            last[entry.grant_id] = entry.pk
    whole = add(*held.values())
    wanted = whole if amount is None else amount
    if wanted < 0 or wanted != wanted.to_integral_value() or wanted > whole:
        raise CreditNotReturnable(
            f"{invoice} holds {format_amount(whole, invoice.currency)} of prepaid credit; {wanted:f} minor units of it "
            "cannot be given back."
        )
    left, entries = wanted, []
    for key in sorted(held, key=lambda key: last[key], reverse=True):
        part = min(held[key], left)
        if part <= 0:
            continue
        left = add(left, -part)
        grant = grants[key]
        entries.append(_move(grant, GrantEntryKind.RETURNED, part, now, invoice=invoice, credit_note=credit_note))
        if grant.withdrawn_at is not None:
            entries.append(_move(grant, GrantEntryKind.WITHDRAWN, -part, now, reason="Withdrawn before it came back"))
        elif grant.expires_at is not None and grant.expires_at <= now:
            entries.append(_move(grant, GrantEntryKind.EXPIRED, -part, now, reason="Expired before it came back"))
    _write(grants.values(), entries)
    return wanted


def expire_grants(*, now: datetime) -> int:
    """Take away what is left of grants whose end has come; how many those were.

    Whatever runs at the same time may hold some of them: those are left for the next call.
    """
    count = 0
    while True:
        with transaction.atomic():
            due = CreditGrant.objects.filter(remaining__gt=0, expires_at__lte=now)
            grants = list(due.select_for_update(skip_locked=True).order_by("pk")[:_CHUNK])
            entries = [_move(grant, GrantEntryKind.EXPIRED, -grant.remaining, now) for grant in grants]
            _write(grants, entries)
        count += len(grants)
        if len(grants) < _CHUNK:
            return count


@transaction.atomic
def withdraw_grant(*, grant: CreditGrant, reason: str, now: datetime) -> None:
    """Take back what is left of a grant; what invoices drew stays theirs. `GrantNotWithdrawable` where nothing is."""
    if not (reason := reason.strip()):
        raise GrantInvalid("reason: say why the credit is withdrawn; the customer reads it.")
    locked = CreditGrant.objects.select_for_update().get(pk=grant.pk)
    if locked.withdrawn_at is not None:
        raise GrantNotWithdrawable(f"“{grant}” was withdrawn already.")
    if locked.remaining == 0:
        raise GrantNotWithdrawable(f"Nothing is left of “{grant}”, so there is nothing to withdraw.")
    entry = _move(locked, GrantEntryKind.WITHDRAWN, -locked.remaining, now, reason=reason)
    locked.withdrawn_at = now
    locked.save(update_fields=["withdrawn_at"])
    _write([locked], [entry])
    grant.refresh_from_db()


def _move(
    grant: CreditGrant,
    kind: str,
    amount: Decimal,
    now: datetime,
    *,
    invoice: Invoice | None = None,
    credit_note: CreditNote | None = None,
    reason: str = "",
) -> GrantEntry:
    """The entry of a movement; the grant in memory is moved too, the rows are written by `_write`."""
    grant.remaining = add(grant.remaining, amount)
    return GrantEntry(
        grant=grant,
        kind=kind,
        amount=amount,
        after=grant.remaining,
        invoice=invoice,
        credit_note=credit_note,
        reason=reason,
        created_at=now,
    )


def _write(grants: Iterable[CreditGrant], entries: list[GrantEntry]) -> None:
    CreditGrant.objects.bulk_update(grants, ["remaining"])
    # In this order: the keys of the entries say which came first.
    GrantEntry.objects.bulk_create(entries)


def _as_value(grant: CreditGrant) -> Credit:
    return Credit(
        key=str(grant.pk),
        amount=grant.remaining,
        priority=grant.priority,
        expires_at=grant.expires_at,
        granted_at=grant.created_at,
        starts_at=grant.starts_at,
    )
