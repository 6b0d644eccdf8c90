"""How an invoice line is given back in parts. Pure: whole minor units in, whole minor units out, no row, no clock.

A part is measured by its *worth*: what it cost with its tax, before prepaid credit. Of a line worth 119 (100 and 19
tax) of which 50 were paid by prepaid credit, a part worth 60 carries its share of each, rounded half up. The shares are
those of everything given back so far minus those of everything given back before, so a line given back in any number of
steps gives back exactly what is printed on it, and two ways to the same sum arrive at the same split.

A line below zero is not given back: it has already taken its part off the others (`creditable`).
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction

from billing.money import add, spread

ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class Printed:
    """A line, or a part of one: whole minor units as printed. `like` says what a line below zero takes from first."""

    key: int
    amount: Decimal
    credit: Decimal = ZERO
    tax: Decimal = ZERO
    tax_inclusive: bool = False
    like: Hashable = None

    @property
    def worth(self) -> Decimal:
        """With its tax, before prepaid credit."""
        return self.amount if self.tax_inclusive else add(self.amount, self.tax)

    @property
    def total(self) -> Decimal:
        """What of it is money: the worth without the prepaid credit."""
        return add(self.worth, -self.credit)


def creditable(lines: Sequence[Printed]) -> tuple[Printed, ...]:
    """The lines that can be given back, each less what lines below zero took off it.

    A line below zero takes from lines like it first (the same charge), then from all, in proportion to their amounts.
    Together the result is the invoice: the same sums of amount, credit and tax. Nothing is left of an invoice that is
    not above zero.
    """
    above = [line for line in lines if line.worth > 0 and line.amount >= 0]
    below = [line for line in lines if line.worth < 0 or line.amount < 0]
    if not below:
        return tuple(above)
    amounts = {line.key: line.amount for line in above}
    for taker in below:
        alike = [line.key for line in above if taker.like is not None and line.like == taker.like]
        rest = -taker.amount
        for keys in (alike, [line.key for line in above]):
            taken = min(rest, add(*(amounts[key] for key in keys)))
            if taken <= 0:
                continue
            for key, part in zip(keys, spread(taken, [amounts[key] for key in keys]), strict=True):
                amounts[key] = add(amounts[key], -part)
            rest = add(rest, -taken)
    left = [replace(line, amount=amounts[line.key]) for line in above if amounts[line.key] > 0]
    if not left:
        return ()
    whole = {line.key: line for line in above}
    for inclusive in (False, True):
        group = [line for line in left if line.tax_inclusive is inclusive]
        net = max(add(*(line.tax for line in lines if line.tax_inclusive is inclusive)), ZERO)
        weights = [Fraction(line.tax) * Fraction(line.amount) / Fraction(whole[line.key].amount) for line in group]
        taxes = spread(net, weights) if group else []
        taxed = {line.key: tax for line, tax in zip(group, taxes, strict=True)}
        left = [replace(line, tax=taxed.get(line.key, line.tax)) for line in left]
    credit = min(max(add(*(line.credit for line in lines)), ZERO), add(*(line.worth for line in left)))
    drawn = [Fraction(line.credit) * Fraction(line.amount) / Fraction(whole[line.key].amount) for line in left]
    left = [replace(line, credit=part) for line, part in zip(left, _credits(credit, left, drawn), strict=True)]
    # Tax below zero that no line of its kind can bear (one contains its tax, the other does not) lowers the amounts.
    beyond = add(*(line.total for line in left), *(-line.total for line in lines))
    room = [max(add(line.amount, -line.credit), ZERO) for line in left]
    if beyond > 0:
        parts = spread(min(beyond, add(*room)), room)
        left = [replace(line, amount=add(line.amount, -part)) for line, part in zip(left, parts, strict=True)]
    return tuple(line for line in left if line.worth > 0)


def _credits(credit: Decimal, left: Sequence[Printed], drawn: Sequence[Fraction]) -> list[Decimal]:
    """Where it was drawn, if no line then has more of it than its amount; else by amounts, or by worth with its tax."""
    amounts = [line.amount for line in left]
    parts = spread(credit, drawn) if any(drawn) else spread(credit, amounts)
    if all(part <= amount for part, amount in zip(parts, amounts, strict=True)):
        return parts
    return spread(credit, amounts if credit <= add(*amounts) else [line.worth for line in left])


def part_of(line: Printed, *, given: Decimal, worth: Decimal) -> Printed:
    """The next part of a line of which parts worth `given` were given back before."""
    if not ZERO <= given <= add(given, worth) <= line.worth:
        raise ValueError(f"{worth} after {given} is not within a line worth {line.worth}")
    until = add(given, worth)
    credit = add(_share(line.credit, until, line.worth), -_share(line.credit, given, line.worth))
    tax = add(_share(line.tax, until, line.worth), -_share(line.tax, given, line.worth))
    amount = worth if line.tax_inclusive else add(worth, -tax)
    return replace(line, amount=amount, credit=credit, tax=tax)


def by_rate(tax: Decimal, amounts: Sequence[Decimal], given: Iterable[Sequence[Decimal]]) -> list[Decimal]:
    """A part's tax over the rates of its line: `amounts` as printed, less what earlier parts gave back of each."""
    left = list(amounts)
    for earlier in given:
        left = [add(rest, -part) for rest, part in zip(left, earlier, strict=True)]
    if not any(left):
        left = list(amounts)
    return spread(tax, left)


def _share(amount: Decimal, part: Decimal, whole: Decimal) -> Decimal:
    """`amount` * `part` / `whole`, rounded half up; never falls while `part` rises."""
    top, bottom = int(amount) * int(part), int(whole)
    return Decimal((2 * top + bottom) // (2 * bottom)) if bottom else ZERO


def worth_of_amount(line: Printed, *, given: Decimal, amount: Decimal) -> tuple[Decimal, Decimal]:
    """What a next part must be worth so that its amount, before tax, is `amount`, or as much of it as is left.

    Returns the worth and the amount. The amount of a part rises by at most 1 with each unit of worth, so every one is
    reached; a part may be worth more and have the same amount, and then the least is taken.
    """
    low, high = 0, int(add(line.worth, -given))
    while low < high:
        middle = (low + high) // 2
        if part_of(line, given=given, worth=Decimal(middle)).amount < amount:
            low = middle + 1
        else:
            high = middle
    worth = Decimal(low)
    return worth, part_of(line, given=given, worth=worth).amount
