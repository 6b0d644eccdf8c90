"""How the values of a period become one quantity: the meaning, without a database.

`meters.usage` computes the same in SQL; a property test holds the two together.
"""

from collections.abc import Iterable
from decimal import Context, Decimal, localcontext

ZERO = Decimal(0)
# Wide enough for the exact sum of any numbers that ingestion accepts (308 digits before the point, 340 after, and
# room for the carries). Python's usual 28 digits would round.
EXACT = Context(prec=1000, Emin=-1_000_000, Emax=1_000_000)


def aggregate(kind: str, values: Iterable[Decimal | None]) -> Decimal:
    """The quantity of the matching events, whose values come oldest first.

    None stands for an event whose value is missing or not a number: `count` counts it, the others leave it out.
    Without a value the quantity is 0. The highest value may be negative.
    """
    found = list(values)
    if kind == "count":
        return Decimal(len(found))
    numbers = [value for value in found if value is not None]
    if not numbers:
        return ZERO
    match kind:
        case "sum":
            with localcontext(EXACT):
                return sum(numbers, ZERO)
        case "max":
            return max(numbers)
        case "last":
            return numbers[-1]
    raise ValueError(f"no aggregation named {kind!r}")
