"""The calculator of a product's page: typed quantities in, the lines of one whole period out. It only rates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django.core.exceptions import ValidationError

from billing.admin.row_fields import ExactNumberField
from billing.admin.words import charge_sentence
from billing.models import Charge, Price
from billing.money import add, format_amount
from billing.pricing import (
    ByDimension,
    ChargeRule,
    Commitment,
    FeeRule,
    Item,
    Percentage,
    PricingInvalid,
    Usage,
    conventions_from_data,
    explain,
    rate_period,
)
from billing.products import charge_rule

# A customer of a price by dimension may have values that nobody named.
_ANY_OTHER = "any other"
_MOST_VALUES = 500


@dataclass(frozen=True)
class Input:
    """One number to type: its name in the request, its label, what was typed, what was wrong with it."""

    name: str
    label: str
    help_text: str
    typed: str
    problem: str = ""


@dataclass(frozen=True)
class Result:
    """A line of the period: what for, how it came about, how much."""

    name: str
    text: str
    amount: str


@dataclass(frozen=True)
class Calculation:
    inputs: Sequence[tuple[str, str, Sequence[Input]]]
    results: Sequence[Result]
    total: str = ""
    problem: str = ""


def calculate(price: Price, typed: Mapping[str, str]) -> Calculation:
    """One whole period of the price with the typed quantities; an empty input is zero. Nothing asked: no result."""
    asked, items, units = [], [], {}
    currency = price.currency
    for charge in price.charges.all():
        rule = charge_rule(charge)
        inputs, usage = _read(charge, rule, typed)
        asked.append((charge.meter.name, charge_sentence(charge, currency), inputs))
        units[str(charge.pk)] = (charge.meter.name, charge.meter.measurement_unit)
        if usage is not None:
            items.append((str(charge.pk), rule, usage))
    if not any(name in typed for _, _, inputs in asked for name in [one.name for one in inputs]):
        return Calculation(asked, [])
    if any(one.problem for _, _, inputs in asked for one in inputs):
        return Calculation(asked, [], problem="Please look at the numbers marked above.")
    try:
        lines = rate_period(
            [*_fee(price), *(Item(key, rule=rule, usage=usage) for key, rule, usage in items)],
            commitment=_commitment(price),
            conventions=conventions_from_data(price.conventions),
        )
    except PricingInvalid as error:
        return Calculation(asked, [], problem=error.message)
    results = []
    for line in lines:
        name, unit = units.get(line.key, ("Fee" if line.kind == "fee" else "Commitment", ""))
        text = explain(line, unit=unit, currency=currency)
        results.append(Result(name, text, format_amount(line.amount, currency)))
    return Calculation(asked, results, total=format_amount(add(*(line.amount for line in lines)), currency))


def _fee(price: Price) -> list[Item]:
    """The fee, where it is of the same period as usage."""
    if price.usage_frequency_count is not None or not price.fixed_amount:
        return []
    return [Item("fee", kind="fee", rule=FeeRule(price.fixed_amount))]


def _commitment(price: Price) -> Commitment | None:
    return None if price.commitment is None else Commitment(price.commitment, covers=price.commitment_covers)


def _read(charge: Charge, rule: ChargeRule, typed: Mapping[str, str]) -> tuple[list[Input], Usage | None]:
    """The inputs of one charge and the usage they say; None where one of them is no number."""
    unit, name = charge.meter.measurement_unit, f"q{charge.pk}"
    if isinstance(rule.price, ByDimension):
        named = [*rule.price.prices, (_ANY_OTHER,) * len(rule.price.keys)]
        inputs, used = [], {}
        for number, key in enumerate(named):
            one, usage = _input(f"{name}-{number}", f"{' / '.join(key)}, {unit}", "", typed)
            inputs.append(one)
            if usage is not None and usage.quantity:
                used[key] = usage
        broken = any(one.problem for one in inputs)
        return inputs, None if broken else Usage(by_value=used) if used else Usage(Decimal(0))
    help_text = ""
    if isinstance(rule.price, Percentage) or rule.each:
        help_text = "The amount of each event, with spaces between them: 20 35.50 100."
    one, found = _input(name, f"Quantity, {unit}", help_text, typed)
    return [one], found


def _input(name: str, label: str, help_text: str, typed: Mapping[str, str]) -> tuple[Input, Usage | None]:
    text = str(typed.get(name, ""))
    words = text.replace(";", " ").split()
    try:
        if len(words) > _MOST_VALUES:
            raise ValidationError(f"At most {_MOST_VALUES} numbers.")
        numbers = [_number(word) for word in words] or [Decimal(0)]
    except ValidationError as error:
        return Input(name, label, help_text, text[:1000], " ".join(error.messages)), None
    usage = Usage(values=numbers) if words and help_text else Usage(numbers[0], events=0 if not words else None)
    if len(words) > 1 and not help_text:
        return Input(name, label, help_text, text[:1000], "One number here."), None
    return Input(name, label, help_text, text[:1000]), usage


def _number(word: str) -> Any:
    return ExactNumberField(max_digits=60, decimal_places=None).clean(word)
