"""Which taxes a customer pays: rates by place and product category that the operator entered, and why none.

Of several rates of one name the most specific counts: first by place (region, then country, then everywhere), then by
category (this one before any). So a rate for a place beats a rate for a category that is wider in place. Rates of
different names add up. Whether a price contains the tax is the price's business (Price.tax_inclusive).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from babel.core import get_global
from django.db import connection, transaction
from django.db.models import Q

from billing.models import TaxCategory, TaxRate
from billing.money import plain
from billing.pricing import Tax
from billing.profiles import profile_of
from customers.errors import Conflict, DomainError
from customers.models import Customer

# Any constant will do; it only has to differ from the other advisory locks of this software.
_NEW_RATE_LOCK = 7_201_604
# Where people pay with something today; EU is a currency's territory and nobody's address.
COUNTRIES: frozenset[str] = frozenset(
    code
    for code, currencies in get_global("territory_currencies").items()
    if len(code) == 2 and code != "EU" and any(tender and end is None for _, _, end, tender in currencies)
)


class TaxRateInvalid(DomainError):
    pass


class TaxRateOverlaps(Conflict):
    """Another rate of this name, place and category is in force at the same time."""


class TaxRateEnded(Conflict):
    pass


@dataclass(frozen=True, slots=True)
class TaxDecision:
    """The taxes of one line, and the sentence printed beside them: "VAT for DE", "Exempt: charity"."""

    taxes: tuple[Tax, ...]
    reason: str


def tax_for(*, customer: Customer, address: Mapping[str, Any], tax_category: str, now: datetime) -> TaxDecision:
    """The taxes on something of this category sold to this customer at this address (the one on the invoice)."""
    profile = profile_of(customer)
    if profile.tax_exempt:
        return TaxDecision((), f"Exempt: {profile.exemption_reason}")
    if profile.reverse_charge:
        return TaxDecision((), f"Reverse charge, tax id {profile.tax_id}")
    country, region = _word(address, "country"), _word(address, "state")
    # The narrower a rate, the later it comes; the last of each name stays.
    candidates = [rate for rate in _in_force(now) if _applies(rate, country, region, tax_category)]
    chosen = {rate.name.casefold(): rate for rate in sorted(candidates, key=_narrowness)}
    if not chosen:
        return TaxDecision((), f"No tax rate for {country}" if country else "No tax rate: the address has no country")
    rates = sorted(chosen.values(), key=lambda rate: (rate.name.casefold(), rate.pk))
    return TaxDecision(
        tuple(Tax(name=rate.name, percent=rate.percent) for rate in rates),
        "; ".join(_words(rate) for rate in rates),
    )


def _word(address: Mapping[str, Any], key: str) -> str:
    """What the address says, in capitals; addresses come from applications and may hold anything."""
    value = address.get(key)
    return value.strip().upper() if isinstance(value, str) else ""


def _in_force(at: datetime) -> list[TaxRate]:
    begun = Q(starts_at__isnull=True) | Q(starts_at__lte=at)
    return list(TaxRate.objects.filter(begun, Q(ends_at__isnull=True) | Q(ends_at__gt=at)))


def _applies(rate: TaxRate, country: str, region: str, tax_category: str) -> bool:
    return (
        rate.country.upper() in ("", country)
        and rate.region.upper() in ("", region)
        and rate.tax_category in ("", tax_category)
    )


def _narrowness(rate: TaxRate) -> tuple[bool, bool, bool, int]:
    """Of two that are equally narrow, which nothing but a hand in the database can enter, the newer one counts."""
    return bool(rate.region), bool(rate.country), bool(rate.tax_category), rate.pk


def _words(rate: TaxRate) -> str:
    place = ", ".join(part for part in (rate.country, rate.region) if part)
    words = f"{rate.name} for {place}" if place else f"{rate.name} everywhere"
    return f"{words}, {TaxCategory(rate.tax_category).label}" if rate.tax_category else words


@transaction.atomic
def create_tax_rate(
    *,
    name: str,
    percent: Decimal,
    country: str = "",
    region: str = "",
    tax_category: str = "",
    starts_at: datetime | None = None,
    ends_at: datetime | None = None,
) -> TaxRate:
    """A rate for invoices issued in [starts_at, ends_at). `TaxRateOverlaps` where one like it is in force in between.

    Invoices keep the tax they were issued with, so a rate may begin in the past; only later invoices feel it.
    """
    rate = TaxRate(
        name=" ".join(name.split()),
        percent=percent,
        country=country.strip().upper(),
        region=" ".join(region.split()),
        tax_category=tax_category,
        starts_at=starts_at,
        ends_at=ends_at,
    )
    _check(rate)
    # Two at once would not see each other's row.
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_NEW_RATE_LOCK])
    alike = TaxRate.objects.filter(
        name__iexact=rate.name,
        country__iexact=rate.country,
        region__iexact=rate.region,
        tax_category=rate.tax_category,
    )
    if starts_at is not None:
        alike = alike.filter(Q(ends_at__isnull=True) | Q(ends_at__gt=starts_at))
    if ends_at is not None:
        alike = alike.filter(Q(starts_at__isnull=True) | Q(starts_at__lt=ends_at))
    if (other := alike.first()) is not None:
        until = f"until {other.ends_at:%Y-%m-%d %H:%M} UTC" if other.ends_at else "with no end"
        raise TaxRateOverlaps(f"“{other}” is in force at the same time, {until}: end it, and begin this one there.")
    rate.save()
    return rate


def _check(rate: TaxRate) -> None:
    if not 1 <= len(rate.name) <= 50:
        raise TaxRateInvalid("name: use 1 to 50 characters, such as VAT; it is printed on the invoice.")
    if not rate.percent.is_finite() or not 0 <= rate.percent <= 100 or len(plain(rate.percent)) > 20:
        raise TaxRateInvalid("percent: use a number from 0 to 100, such as 19.")
    if rate.country and rate.country not in COUNTRIES:
        raise TaxRateInvalid(f"country: {rate.country} is not a country's code of two letters such as DE.")
    if rate.region and not rate.country:
        raise TaxRateInvalid("region: say the country too.")
    if len(rate.region) > 100:
        raise TaxRateInvalid("region: may have 100 characters at most.")
    if rate.tax_category and rate.tax_category not in TaxCategory.values:
        raise TaxRateInvalid(f"tax_category: {rate.tax_category!r} is none of {', '.join(TaxCategory.values)}.")
    if rate.starts_at is not None and rate.ends_at is not None and rate.ends_at <= rate.starts_at:
        raise TaxRateInvalid("ends_at: the rate must end after it starts.")


@transaction.atomic
def end_tax_rate(*, rate: TaxRate, now: datetime, at: datetime | None = None) -> None:
    """Let a rate count no more from `at` (now). Rates are ended, never edited: a new percentage is a new rate.

    The end may lie ahead, and may be moved as long as it does; never into the past, where invoices were issued by it.
    A rate that has not begun by its end is removed: no invoice ever knew it.
    """
    at = at or now
    if at < now:
        raise TaxRateInvalid("ends_at: the end must not lie in the past, where invoices were issued by this rate.")
    locked = TaxRate.objects.select_for_update().get(pk=rate.pk)
    if locked.ends_at is not None and locked.ends_at <= now:
        raise TaxRateEnded(f"“{locked}” has ended already.")
    if locked.ends_at is not None and at > locked.ends_at:
        raise TaxRateInvalid("ends_at: a rate can end earlier than it says, not later; enter a new rate that follows.")
    if locked.starts_at is not None and locked.starts_at >= at:
        locked.delete()
        return
    locked.ends_at = at
    locked.save(update_fields=["ends_at"])
    rate.refresh_from_db()


@transaction.atomic
def replace_tax_rate(*, rate: TaxRate, percent: Decimal, now: datetime, at: datetime | None = None) -> TaxRate:
    """Another percentage from `at` (now) on: the rate ends there and a new one of its name and place follows."""
    at = at or now
    locked = TaxRate.objects.select_for_update().get(pk=rate.pk)
    end_tax_rate(rate=locked, now=now, at=at)
    return create_tax_rate(
        name=rate.name,
        percent=percent,
        country=rate.country,
        region=rate.region,
        tax_category=rate.tax_category,
        starts_at=at,
        ends_at=rate.ends_at,
    )
