"""How a quantity becomes money. Pure functions over values; every rated line explains itself.

Amounts and prices are in the currency's minor unit. `exact_amount` is the product as computed, `amount` the same
rounded once, half up, as it is printed and added.
"""

from dataclasses import dataclass, field
from decimal import Decimal

from billing.money import add, format_amount, format_unit_price, format_units, multiply, plain, round_to_minor

ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class RatedLine:
    """A priced quantity. `amount` is `exact_amount` rounded; `explanation` is plain data for pages, PDF and API."""

    quantity: Decimal
    free_units: Decimal
    billable_units: Decimal
    unit_price: Decimal
    exact_amount: Decimal
    amount: Decimal
    explanation: dict[str, str] = field(default_factory=dict)


def rate_per_unit(*, quantity: Decimal, free_units: Decimal, price_per_unit: Decimal) -> RatedLine:
    """Price each unit beyond the free ones. A quantity at or below the threshold, or below zero, costs nothing."""
    billable = max(add(quantity, -free_units), ZERO)
    exact = multiply(billable, price_per_unit)
    return _line("per_unit", quantity, free_units, billable, price_per_unit, exact)


def rate_fee(*, quantity: Decimal, fee: Decimal) -> RatedLine:
    """A fee for each of `quantity` seats or licences."""
    return _line("fee", quantity, ZERO, quantity, fee, multiply(quantity, fee))


def waive(line: RatedLine, *, because: str) -> RatedLine:
    """The same quantity for nothing, with the reason kept."""
    return RatedLine(
        quantity=line.quantity,
        free_units=line.quantity,
        billable_units=ZERO,
        unit_price=line.unit_price,
        exact_amount=ZERO,
        amount=ZERO,
        explanation={
            **line.explanation,
            "billable_units": "0",
            "exact_amount": "0",
            "amount": "0",
            "waived": because,
        },
    )


def _line(
    model: str, quantity: Decimal, free: Decimal, billable: Decimal, unit_price: Decimal, exact: Decimal
) -> RatedLine:
    amount = round_to_minor(exact)
    return RatedLine(
        quantity=quantity,
        free_units=free,
        billable_units=billable,
        unit_price=unit_price,
        exact_amount=exact,
        amount=amount,
        explanation={
            "model": model,
            "quantity": plain(quantity),
            "free_units": plain(free),
            "billable_units": plain(billable),
            "unit_price": plain(unit_price),
            "exact_amount": plain(exact),
            "amount": plain(amount),
            "rounding": "half_up",
        },
    )


def explain(line: RatedLine, *, unit: str, currency: str, locale: str = "en") -> str:
    """The line as one sentence: "2,500 calls - 1,000 free = 1,500 x $0.02 = $30.00"."""
    amount = format_amount(line.amount, currency, locale)
    quantity = f"{format_units(line.quantity, locale)} {unit}".rstrip()
    if "waived" in line.explanation:
        return f"{quantity}, {line.explanation['waived']}: {amount}"
    if line.explanation["model"] == "fee":
        fee = format_amount(line.unit_price, currency, locale)
        return amount if line.quantity == 1 else f"{format_units(line.quantity, locale)} × {fee} = {amount}"
    if line.billable_units == 0:
        if line.quantity <= 0:
            return f"{quantity}: {amount}"
        return f"{quantity}, all within the {format_units(line.free_units, locale)} free: {amount}"
    price = format_unit_price(line.unit_price, currency, locale)
    units = format_units(line.billable_units, locale)
    free = f"{quantity} − {format_units(line.free_units, locale)} free = {units}" if line.free_units else quantity
    exact = (
        ""
        if line.exact_amount == line.amount
        else f" = {format_unit_price(line.exact_amount, currency, locale)}, rounded"
    )
    return f"{free} × {price}{exact} = {amount}"
