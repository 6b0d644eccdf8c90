"""The conventions of a price as choices in words, the default named on each."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from billing.pricing import Conventions, conventions_from_data, conventions_to_data
from customers.admin.forms import choice, width

PREFIX = "convention_"
NO, YES = "no", "yes"

# What the choice is about, and each answer in words. The first group stands open in the form.
CONVENTIONS: dict[str, tuple[str, dict[str, str]]] = {
    "tier_bound": (
        "The unit at a tier's upper bound",
        {"inclusive": "belongs to that tier", "exclusive": "belongs to the next tier"},
    ),
    "first_tier_fee_at_zero": (
        "The first tier's fee without usage",
        {NO: "is not charged", YES: "is charged"},
    ),
    "prorate_free_units": (
        "Free units of a partial period",
        {NO: "are those of a whole one", YES: "are their share of it"},
    ),
    "rounding": (
        "Amounts are rounded",
        {
            "line": "line by line",
            "invoice": "together, so that the sum is the rounded exact sum",
            "component": "at each step of a line",
        },
    ),
    "charge_last_day": (
        "The last day of a cancelled period",
        {NO: "is charged up to the moment", YES: "is charged whole"},
    ),
    "proration": (
        "A partial period's share is counted",
        {"second": "by the second", "day": "by calendar days"},
    ),
}
FINER: dict[str, tuple[str, dict[str, str]]] = {
    "rounding_mode": (
        "A fraction of the smallest unit is rounded",
        {
            "half_up": "from the half on away from zero",
            "half_down": "above the half away from zero",
            "half_even": "at the half to the even one",
            "up": "away from zero",
            "down": "towards zero",
            "ceiling": "up",
            "floor": "down",
        },
    ),
    "below_zero": (
        "A negative quantity",
        {
            "credited": "is credited at the price of its size",
            "free": "costs nothing",
            "refused": "stops the billing",
        },
    ),
    "beyond_last_tier": (
        "Usage beyond a last tier with a bound",
        {"refused": "stops the billing", "last": "costs what the last tier costs", "free": "costs nothing"},
    ),
    "free_ends": (
        "Free events and a free amount end",
        {"first": "with whichever ends first", "amount": "with the amount", "last": "with whichever ends last"},
    ),
    "free_amount_bound": (
        "The event that reaches the free amount",
        {"inclusive": "is free up to it", "exclusive": "is not free"},
    ),
    "prorate_flat": ("A flat amount in a partial period", {YES: "is its share", NO: "is whole"}),
    "prorate_tier_fees": ("A tier's fee in a partial period", {NO: "is whole", YES: "is its share"}),
    "prorate_minimum": ("The least of a partial period", {YES: "is its share", NO: "is whole"}),
    "prorate_maximum": ("The most of a partial period", {NO: "is whole", YES: "is its share"}),
    "prorate_commitment": ("The commitment of a partial period", {YES: "is its share", NO: "is whole"}),
    "prorate_discounts": ("A discount's amount in a partial period", {NO: "is whole", YES: "is its share"}),
    "discount_rounding": (
        "What a discount in per cent takes of a line",
        {"exact": "stays exact until the line is rounded", "rounded": "is rounded by itself"},
    ),
    "discount_base": (
        "A discount in per cent is taken",
        {"left": "of what earlier discounts left", "price": "of the whole price"},
    ),
    "period_discounts": (
        "The subscription's discounts are taken",
        {"before_limits": "before the least and the most", "last": "after them and the commitment"},
    ),
    "credit": ("Prepaid credit is drawn", {"before_tax": "before tax", "after_tax": "after tax"}),
    "tax_rounding": (
        "Tax is rounded",
        {
            "line": "on each line",
            "invoice": "once for all lines taxed alike",
            "total": "once for all taxes of the invoice",
            "invoice_net": "on the sum, and each net amount stays",
            "invoice_gross": "on the sum, and prices stay where they can",
        },
    ),
    "inclusive_rounds": (
        "Where a price includes its tax",
        {"tax": "the tax is rounded, the net is the rest", "net": "the net is rounded, the tax is the rest"},
    ),
    "spread": (
        "What is left when an amount is spread goes",
        {
            "largest_remainder": "to the largest remainders",
            "largest_amount": "to the largest line",
            "in_order": "to the first line, then the next",
        },
    ),
}
# Answers that an invoice cannot be printed by; a price that has one over the API keeps it.
NOT_OFFERED = frozenset({("spread", "exact")})


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return YES if value else NO
    return str(value)


def _value(word: str) -> Any:
    return word == YES if word in (YES, NO) else word


def convention_fields(stored: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A choice for each convention of a price, its default first; one that is stored is always among them."""
    found = {}
    shown = conventions_shown(stored or {})
    for name, (label, answers) in (CONVENTIONS | FINER).items():
        default = _word(getattr(Conventions(), name))
        choices = [(word, f"{said} (default)" if word == default else said) for word, said in answers.items()]
        choices.sort(key=lambda one: one[0] != default)
        if shown[PREFIX + name] not in answers:
            choices.append((shown[PREFIX + name], shown[PREFIX + name]))
        found[PREFIX + name] = width(choice(label, choices, required=False, initial=default), "mb-third")
    return found


def conventions_shown(stored: Mapping[str, Any]) -> dict[str, str]:
    """What the choices show for the conventions of a price."""
    conventions = conventions_from_data(stored)
    return {PREFIX + name: _word(getattr(conventions, name)) for name in CONVENTIONS | FINER}


def conventions_typed(values: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    """What differs from the defaults, as a price keeps it; what the form does not show stays as it was stored."""
    said = {name: _value(values[PREFIX + name]) for name in CONVENTIONS | FINER if values.get(PREFIX + name)}
    return conventions_to_data(conventions_from_data({**stored, **said}))


def conventions_in_words(stored: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(what it is about, the answer) of each convention that differs from its default."""
    conventions = conventions_from_data(stored)
    differing = conventions_to_data(conventions)
    words = CONVENTIONS | FINER
    return [
        (words[name][0], words[name][1].get(_word(value), _word(value))) if name in words else (name, _word(value))
        for name, value in differing.items()
    ]


def all_answers() -> set[tuple[str, str]]:
    """Every (convention, answer) that pricing knows."""
    found = set()
    for one in fields(Conventions):
        found |= {(one.name, _word(word)) for word in one.metadata.get("known", (False, True))}
    return found
