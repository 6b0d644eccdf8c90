"""Prices and subscriptions as sentences."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from billing.models import Price, PriceType
from billing.money import format_amount, format_unit_price, minor_digits, plain
from billing.products import PriceTerms
from customers.admin.formats import grouped

# What one minor unit is called, where people have a word for it.
_MINOR_WORDS = {"USD": "cent", "EUR": "cent", "CAD": "cent", "AUD": "cent", "SGD": "cent", "GBP": "penny"}


def every(count: int | None, interval: str | None) -> str:
    """ "month", or "3 months"."""
    if not interval:
        return ""
    return interval.lower() if count == 1 else f"{count} {interval.lower()}s"


def price_sentence(price: Price) -> str:
    """ "$49.00 a month + $0.01 per call after 10,000 free"."""
    return _sentence(price, list(price.charges.all()))


def terms_sentence(terms: PriceTerms) -> str:
    """The same of a price that is not stored yet."""
    return _sentence(terms, terms.charges)


def _sentence(price: Price | PriceTerms, charges: Sequence[Any]) -> str:
    fee = format_amount(price.fixed_amount, price.currency)
    if price.type == PriceType.ONE_TIME:
        return f"{fee} once"
    each = every(price.payment_frequency_count, price.payment_frequency_interval)
    period = f"a {each}" if price.payment_frequency_count == 1 else f"every {each}"
    parts = [f"{fee} {period}"] if price.fixed_amount or not charges else []
    parts += [charge_sentence(charge, price.currency) for charge in charges]
    sentence = " + ".join(parts)
    if not price.fixed_amount and charges:
        sentence += f", billed every {each}"
    return sentence


def charge_sentence(charge: Any, currency: str) -> str:
    """ "$0.001 per call after 1,000 free"; units keep the operator's own word."""
    sentence = f"{format_unit_price(charge.price_per_unit, currency)} per {one_of(charge.meter.measurement_unit)}"
    if charge.free_threshold:
        sentence += f" after {grouped(charge.free_threshold)} free"
    return sentence


def one_of(unit: str) -> str:
    """ "call" of "calls": the label without a plural s; anything else stays as it is."""
    return unit[:-1] if len(unit) > 3 and unit.endswith("s") and not unit.endswith("ss") else unit


def in_minor_words(minor: Any, currency: str) -> str:
    """ "0.1 cents on the API": what the same price is called over REST."""
    word = _MINOR_WORDS.get(currency)
    if minor_digits(currency) == 0:
        return f"“{plain(minor)}” on the API, which counts {currency}"
    if word is None:
        return f"“{plain(minor)}” on the API, which counts 1/{10 ** minor_digits(currency)} {currency}"
    plural = {"penny": "pence"}.get(word, f"{word}s")
    return f"“{plain(minor)}” on the API, which counts {plural}"


def period_progress(*, start: datetime, end: datetime, now: datetime) -> int:
    """How much of a period is over, in whole per cent."""
    whole = (end - start).total_seconds()
    return int(min(max((now - start).total_seconds() / whole, 0), 1) * 100) if whole else 100


def listed(words: Sequence[str]) -> str:
    return ", ".join(words[:-1]) + " and " + words[-1] if len(words) > 1 else "".join(words)
