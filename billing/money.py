"""Money: minor units everywhere, major units only where a person reads or types. Pure; amounts are `Decimal`.

Digits per currency come from CLDR through babel (JPY 0, USD 2, KWD 3).
"""

import re
from decimal import ROUND_HALF_UP, Context, Decimal, Inexact, InvalidOperation, Overflow, localcontext

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
