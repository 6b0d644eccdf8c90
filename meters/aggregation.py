"""How the values of a period become one quantity: the meaning, without a database.

`meters.usage` computes the same in SQL; a property test holds the two together.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import Context, Decimal, localcontext
from fractions import Fraction

ZERO = Decimal(0)
# Wide enough for the exact sum of any numbers that ingestion accepts (308 digits before the point, 340 after, and
# room for the carries). Python's usual 28 digits would round.
EXACT = Context(prec=1000, Emin=-1_000_000, Emax=1_000_000)


# `avg` and `weighted_sum` divide: their quantity has this many decimals, half away from zero.
RATIO_DECIMALS = 12
SECONDS_PER_HOUR = 3600


def aggregate(kind: str, values: Iterable[Decimal | None]) -> Decimal:
    """The quantity of the matching events, whose values come oldest first.

    None stands for an event whose value is missing or not a number: `count` counts it, the others leave it out.
    Without a value the quantity is 0. The highest value may be negative. `unique` and `weighted_sum` need more than
    numbers: see `count_unique` and `weigh`.
    """
    found = list(values)
    if kind == "count":
        return Decimal(len(found))
    numbers = [value for value in found if value is not None]
    if not numbers:
        return ZERO
    match kind:
        case "sum":
            return _sum(numbers)
        case "avg":
            return ratio(_sum(numbers), len(numbers))
        case "max":
            return max(numbers)
        case "min":
            return min(numbers)
        case "last":
            return numbers[-1]
    raise ValueError(f"no aggregation named {kind!r}")


def count_unique(texts: Iterable[str | None]) -> Decimal:
    """How many different values there are; None, an event without the value, is left out."""
    return Decimal(len({text for text in texts if text is not None}))


def weigh(levels: Iterable[tuple[datetime, Decimal]], *, start: datetime, end: datetime, before: Decimal) -> Decimal:
    """Value times the hours it held in [start, end). `levels` are (since, value), oldest first, all inside.

    `before` holds until the first of them; of two at one instant the later in the list holds.
    """
    since, level, total = start, before, ZERO
    with localcontext(EXACT):
        for instant, value in levels:
            total += level * _seconds(instant - since)
            since, level = instant, value
        total += level * _seconds(end - since)
    return ratio(total, SECONDS_PER_HOUR)


def ratio(numerator: Decimal, denominator: int) -> Decimal:
    """The quotient with RATIO_DECIMALS decimals, half away from zero, as if computed without limit and rounded once."""
    exact = Fraction(numerator) / denominator * 10**RATIO_DECIMALS
    whole = (2 * abs(exact.numerator) + exact.denominator) // (2 * exact.denominator)
    return EXACT.scaleb(Decimal(whole if exact >= 0 else -whole), -RATIO_DECIMALS)


def _sum(numbers: list[Decimal]) -> Decimal:
    with localcontext(EXACT):
        return sum(numbers, ZERO)


def _seconds(span: timedelta) -> Decimal:
    """Exactly: a timedelta has whole microseconds."""
    return EXACT.scaleb(Decimal(span // timedelta(microseconds=1)), -6)
