"""Prices and subscriptions as sentences."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from billing.models import Alignment, Charge, Covers, Price, PriceType
from billing.money import format_amount, format_unit_price, minor_digits, multiply, plain
from billing.pricing import (
    ByDimension,
    ChargeRule,
    Discount,
    Flat,
    Graduated,
    Package,
    Percentage,
    PerUnit,
    Tier,
    Volume,
)
from billing.products import ChargeTerms, PriceTerms, charge_rule
from customers.admin.formats import grouped

# What one minor unit is called, where people have a word for it.
_MINOR_WORDS = {"USD": "cent", "EUR": "cent", "CAD": "cent", "AUD": "cent", "SGD": "cent", "GBP": "penny"}

# A sentence names so many tiers or values and counts the rest.
_NAMED = 4


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
    if price.alignment == Alignment.CALENDAR:
        period = f"a calendar {each}" if price.payment_frequency_count == 1 else f"every {each} of the calendar"
    parts = [f"{fee} {period}"] if price.fixed_amount or not charges else []
    parts += [charge_sentence(charge, price.currency) for charge in charges]
    sentence = " + ".join(parts)
    usage = every(price.usage_frequency_count, price.usage_frequency_interval)
    if price.commitment is not None:
        least = format_amount(price.commitment, price.currency)
        sentence += f", at least {least} {'with the fee' if price.commitment_covers == Covers.ALL else 'of usage'}"
    if usage:
        sentence += f", usage billed every {usage}"
    elif not price.fixed_amount and charges:
        calendar = "calendar " if price.alignment == Alignment.CALENDAR else ""
        sentence += f", billed every {calendar}{each}"
    return sentence


def charge_sentence(charge: Charge | ChargeTerms, currency: str) -> str:
    """ "$0.001 per call after 1,000 free"; units keep the operator's own word."""
    rule = charge_rule(charge) if isinstance(charge, Charge) else charge.rule
    return rule_sentence(rule, unit=charge.meter.measurement_unit, currency=currency)


def rule_sentence(rule: ChargeRule, *, unit: str, currency: str) -> str:
    """How a quantity is priced: "$0.40 per 1,000 calls after 100,000 free, at least $5.00"."""
    sentence = _model_sentence(rule.price, unit, currency)
    if rule.unit_factor != 1:
        sentence += f", each counted {plain(rule.unit_factor)} times"
    if rule.unit_size != 1:
        sentence += f", counted in {grouped(rule.unit_size)} {unit}"
    if rule.free_units:
        sentence += f" after {grouped(rule.free_units)} free"
    sentence += "".join(f", {_discount_words(discount, currency)}" for discount in rule.discounts)
    if rule.minimum:
        sentence += f", at least {_money(rule.minimum, currency)}"
    if rule.maximum is not None:
        sentence += f", at most {_money(rule.maximum, currency)}"
    if rule.each:
        sentence += ", each event by itself"
    return sentence


def _model_sentence(model: Any, unit: str, currency: str) -> str:
    one = one_of(unit)
    if isinstance(model, PerUnit):
        return f"{_money(model.unit_price, currency)} per {one}"
    if isinstance(model, Graduated):
        return _tiers_sentence(model.tiers, one, currency, "{} up to {}", "then {}")
    if isinstance(model, Volume):
        return _tiers_sentence(model.tiers, one, currency, "{} for all up to {}", "{} for all above")
    if isinstance(model, Package):
        begun = {"up": "", "down": ", only full ones", "half_up": ", from half a one on", "exact": ", in part"}
        return (
            f"{_money(model.price, currency)} per {grouped(model.size)} {one if model.size == 1 else unit}"
            + begun[model.rounding]
        )
    if isinstance(model, Percentage):
        return _percentage_sentence(model, currency)
    if isinstance(model, Flat):
        return f"{_money(model.amount, currency)} flat{' if used' if model.only_when_used else ''}"
    return _dimension_sentence(model, unit, currency)


def _tiers_sentence(tiers: Sequence[Tier], one: str, currency: str, bounded: str, beyond: str) -> str:
    """ "$0.10 per call up to 100, $0.05 up to 1,000, then $0.01"."""
    said = []
    for number, tier in enumerate(tiers[:_NAMED]):
        price = tier_price(tier, currency, f" per {one}" if number == 0 else "")
        if tier.up_to is not None:
            said.append(bounded.format(price, grouped(tier.up_to)))
        else:
            said.append(beyond.format(price) if number else price)
    if len(tiers) > _NAMED:
        said.append(f"{len(tiers) - _NAMED} more tiers")
    return ", ".join(said)


def tier_price(tier: Tier, currency: str, per: str = "") -> str:
    """What a tier costs: "$0.05", "$5.00 + $0.05 per call", "$3.00 per 100"."""
    parts = []
    if tier.flat_fee:
        parts.append(f"{_money(tier.flat_fee, currency)}{' flat' if not tier.unit_price and not tier.percent else ''}")
    if tier.percent:
        parts.append(f"{plain(tier.percent)}%")
    if tier.package_size is not None:
        parts.append(f"{_money(tier.unit_price, currency)} per {grouped(tier.package_size)}")
    elif tier.unit_price or not parts:
        parts.append(f"{_money(tier.unit_price, currency)}{per}")
    return " + ".join(parts)


def _percentage_sentence(model: Percentage, currency: str) -> str:
    sentence = f"{plain(model.percent)}%"
    if model.fixed_fee:
        sentence += f" + {_money(model.fixed_fee, currency)} each"
    limits = [
        f"{word} {_money(amount, currency)}"
        for word, amount in (("at least", model.event_minimum), ("at most", model.event_maximum))
        if amount is not None
    ]
    if limits:
        sentence += f" ({', '.join(limits)} an event)"
    free = []
    if model.free_events:
        free.append(f"{grouped(model.free_events)} events")
    if model.free_amount:
        free.append(_money(multiply(model.free_amount, model.unit_value), currency))
    return sentence + (f" after {' or '.join(free)} free" if free else "")


def _dimension_sentence(model: ByDimension, unit: str, currency: str) -> str:
    shown = list(model.prices.items())[:_NAMED]
    named = [f"{'/'.join(key)} {_model_sentence(price, unit, currency)}" for key, price in shown]
    if len(model.prices) > _NAMED:
        named.append(f"{len(model.prices) - _NAMED} more")
    if model.default is not None:
        named.append(f"others {_model_sentence(model.default, unit, currency)}")
    return f"by {' and '.join(model.keys)}: {', '.join(named)}"


def _discount_words(discount: Discount, currency: str) -> str:
    less = f"{plain(discount.percent)}%" if discount.percent is not None else _money(discount.amount or 0, currency)
    return f"less {less}" + (f" ({discount.name})" if discount.name else "")


def _money(minor: Decimal | int, currency: str) -> str:
    return format_unit_price(Decimal(minor), currency)


def model_name(rule: ChargeRule) -> str:
    """The word for a rule's model, as the form and the API have it."""
    return MODEL_NAMES[type(rule.price)]


MODEL_NAMES: dict[type, str] = {
    PerUnit: "per unit",
    Graduated: "graduated",
    Volume: "volume",
    Package: "package",
    Percentage: "percentage",
    Flat: "flat",
    ByDimension: "by dimension",
}


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
