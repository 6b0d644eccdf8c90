"""Money: minor units everywhere, major units only where a person reads or types. Pure; amounts are `Decimal`.

Digits per currency come from CLDR through babel (JPY 0, USD 2, KWD 3).
"""

import re
from collections.abc import Sequence
from decimal import ROUND_HALF_UP, Context, Decimal, Inexact, InvalidOperation, Overflow, localcontext
from fractions import Fraction

from babel.core import Locale, UnknownLocaleError, get_global
from babel.numbers import format_currency, get_currency_precision, get_decimal_symbol

# Wide enough for every exact product or sum of ours; a result that still would not fit raises instead of rounding.
EXACT = Context(prec=2000, traps=[InvalidOperation, Overflow, Inexact])
_WIDE = Context(prec=2000, rounding=ROUND_HALF_UP, traps=[InvalidOperation, Overflow])

# What people pay with somewhere today: no currency of the past (DEM), none for accounts only (CLF), no code for tests
# (XTS) or for none at all (XXX).
IN_USE: frozenset[str] = frozenset(
    code
    for territory in get_global("territory_currencies").values()
    for code, _start, end, is_tender in territory
    if is_tender and end is None
)


def is_currency(code: str) -> bool:
    """Whether `code` is the three capital letters of a currency in use."""
    return code in IN_USE


def minor_digits(currency: str) -> int:
    """How many decimal digits the currency's smallest unit has."""
    return int(get_currency_precision(currency))


def to_minor(major: Decimal, currency: str) -> Decimal:
    """Exactly the same amount in minor units; may keep a fraction (a tenth of a cent)."""
    return EXACT.scaleb(major, minor_digits(currency))


def to_major(minor: Decimal, currency: str) -> Decimal:
    """Exactly the same amount in major units."""
    return EXACT.scaleb(minor, -minor_digits(currency))


def round_to_minor(amount: Decimal) -> Decimal:
    """An amount in minor units without a fraction, half away from zero. The only rounding on the way to an invoice."""
    return amount.quantize(Decimal(1), context=_WIDE)


# How a fraction between two whole numbers is decided; "up" and "down" mean away from and towards zero.
ROUNDING_MODES = ("half_up", "half_down", "half_even", "up", "down", "ceiling", "floor")


def round_fraction(amount: Fraction, mode: str = "half_up") -> Decimal:
    """The whole number an exact amount is rounded to. "half_up" is half away from zero, as on every invoice of ours."""
    size = abs(amount)
    whole, rest = divmod(size.numerator, size.denominator)
    twice = 2 * rest - size.denominator  # below, at or above the half
    if rest == 0:
        more = False
    elif mode == "up":
        more = True
    elif mode == "down":
        more = False
    elif mode == "ceiling":
        more = amount > 0
    elif mode == "floor":
        more = amount < 0
    elif mode == "half_up":
        more = twice >= 0
    elif mode == "half_down":
        more = twice > 0
    elif mode == "half_even":
        more = twice > 0 or (twice == 0 and whole % 2 == 1)
    else:
        raise ValueError(f"Unknown rounding mode {mode!r}; known are {', '.join(ROUNDING_MODES)}.")
    return Decimal((whole + more) * (-1 if amount < 0 else 1))


def round_together(amounts: Sequence[Fraction], mode: str = "half_up") -> list[Decimal]:
    """Whole amounts whose sum is the rounded exact sum: each is cut down, the units left go to the largest remainders.

    Of equal remainders the first in order gets the unit.
    """
    floors = [amount.numerator // amount.denominator for amount in amounts]
    left = int(round_fraction(sum(amounts, Fraction(0)), mode)) - sum(floors)
    remainders = [amount - floor for amount, floor in zip(amounts, floors, strict=True)]
    by_remainder = sorted(range(len(amounts)), key=lambda index: (-remainders[index], index))
    for index in by_remainder[:left]:
        floors[index] += 1
    return [Decimal(floor) for floor in floors]


def spread(total: Decimal, weights: Sequence[Decimal | Fraction | int]) -> list[Decimal]:
    """`total` in whole units, in proportion to the weights, by largest remainder. The shares always add up to it.

    Each share is first cut down (towards zero) to whole units; what is left goes unit by unit to the largest
    remainders, of equal ones to the first in order. A fraction that `total` itself has goes with the last of them. Only
    the size of a weight counts; without any weight all are equal. Nothing to spread over: an empty list, for a total of
    zero only.
    """
    if not weights:
        if total:
            raise ValueError(f"{plain(total)} cannot be spread over nothing.")
        return []
    exact = abs(Fraction(total))
    sizes = [abs(Fraction(weight)) for weight in weights]
    if not any(sizes):
        sizes = [Fraction(1)] * len(weights)
    whole = sum(sizes, Fraction(0))
    ideal = [exact * size / whole for size in sizes]
    shares = [Fraction(share.numerator // share.denominator) for share in ideal]
    left = exact - sum(shares, Fraction(0))
    for index in sorted(range(len(shares)), key=lambda index: (shares[index] - ideal[index], index)):
        if left <= 0:
            break
        unit = min(Fraction(1), left)
        shares[index] += unit
        left -= unit
    sign = -1 if total < 0 else 1
    return [sign * to_decimal(share) for share in shares]


def ends(number: Fraction) -> bool:
    """Whether a fraction can be written with a finite number of decimal digits."""
    rest = number.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return rest == 1


def to_decimal(number: Fraction, *, digits: int = 20) -> Decimal:
    """Exactly the same number where it ends; else rounded half up to `digits` after the point."""
    if ends(number):
        return EXACT.divide(Decimal(number.numerator), Decimal(number.denominator))
    return EXACT.scaleb(round_fraction(number * 10**digits), -digits)


def multiply(a: Decimal, b: Decimal) -> Decimal:
    """The exact product."""
    return EXACT.multiply(a, b)


def add(*amounts: Decimal) -> Decimal:
    """The exact sum."""
    with localcontext(EXACT):
        return sum(amounts, Decimal(0))


def plain(number: Decimal) -> str:
    """Digits without an exponent and without trailing zeros: "0.1", "1500", "-3"."""
    text = format(number, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def _locale(locale: str) -> Locale:
    try:
        return Locale.parse(locale.replace("-", "_"))
    except (UnknownLocaleError, ValueError, TypeError):
        return Locale("en")


def format_amount(minor: Decimal, currency: str, locale: str = "en") -> str:
    """An amount for people: "$30.00", "¥500", "-$0.50"."""
    with localcontext(_WIDE):
        return str(format_currency(to_major(minor, currency), currency, locale=_locale(locale)))


def format_unit_price(minor_per_unit: Decimal, currency: str, locale: str = "en") -> str:
    """A price per unit with all its digits and at least the currency's: "$0.02", "$0.00001"."""
    where = _locale(locale)
    pattern = where.currency_formats["standard"].pattern.split(";")[0]
    digits = minor_digits(currency)
    fraction = "0" * digits + "#" * 30
    whole = re.sub(r"0\.0+|0(?![.0])", "0." + fraction, pattern, count=1)
    with localcontext(_WIDE):
        return str(
            format_currency(
                to_major(minor_per_unit, currency),
                currency,
                format=whole,
                locale=where,
                currency_digits=False,
            )
        )


def format_units(quantity: Decimal, locale: str = "en") -> str:
    """A quantity for people, with all its digits: "1,500", "0.25"."""
    sign = "-" if quantity < 0 else ""
    whole, _, fraction = plain(abs(quantity)).partition(".")
    where = _locale(locale)
    separator = where.number_symbols["latn"].get("group", ",")
    grouped = re.sub(r"(?<=\d)(?=(\d{3})+$)", separator, whole)
    return f"{sign}{grouped}{get_decimal_symbol(where) + fraction if fraction else ''}"
