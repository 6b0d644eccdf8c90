"""From rated lines to what is asked for: prepaid credit, then tax. Sums are sums of printed lines."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

from billing.money import plain, round_fraction, spread, to_decimal
from billing.pricing.rating import RatedLine, spread_below
from billing.pricing.values import (
    NOTHING,
    ZERO,
    Conventions,
    Credit,
    PricingInvalid,
    Tax,
    decimal_number,
    show,
    yes_or_no,
)


@dataclass(frozen=True, slots=True)
class LineToSettle:
    """A printed amount and its taxes. `tax_inclusive`: the amount contains them. `reason` says why these, or none."""

    key: str
    amount: Decimal
    taxes: tuple[Tax, ...] = ()
    tax_inclusive: bool = False
    reason: str = ""
    kind: str = "usage"

    def __post_init__(self) -> None:
        yes_or_no(self.tax_inclusive, "tax_inclusive")
        if isinstance(self.taxes, Tax):
            object.__setattr__(self, "taxes", (self.taxes,))
        taxes = tuple(self.taxes)
        for tax in taxes:
            if not isinstance(tax, Tax):
                raise PricingInvalid(f"No tax: {tax!r}.", code="NOT_A_TAX", field="taxes")
        object.__setattr__(self, "taxes", taxes)
        object.__setattr__(self, "amount", decimal_number(self.amount, "amount"))


@dataclass(frozen=True, slots=True)
class TaxAmount:
    """What one tax makes on a line, or on the whole."""

    name: str
    percent: Decimal
    amount: Decimal
    # What it was computed on: without this tax.
    base: Decimal


@dataclass(frozen=True, slots=True)
class SettledLine:
    """A line with its share of the credit and its tax. `total` is what it adds to what is asked for."""

    key: str
    amount: Decimal
    credit: Decimal
    net: Decimal
    tax: Decimal
    total: Decimal
    taxes: tuple[TaxAmount, ...]
    tax_inclusive: bool
    reason: str
    explanation: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CreditDrawn:
    """What was taken of one prepaid credit, and what remains. `untouched` says why it could not be drawn at all."""

    key: str
    drawn: Decimal
    remaining: Decimal
    untouched: str = ""


@dataclass(frozen=True, slots=True)
class Settlement:
    """Lines, each credit in the order of drawing (those that could not be drawn last), and the sums over the lines."""

    lines: tuple[SettledLine, ...]
    credits: tuple[CreditDrawn, ...]
    subtotal: Decimal
    credit: Decimal
    net: Decimal
    tax: Decimal
    total: Decimal
    taxes: tuple[TaxAmount, ...]
    conventions: dict[str, Any] = field(default_factory=dict)


def settle(
    lines: Iterable[LineToSettle | RatedLine | tuple[Any, ...]],
    *,
    credits: Sequence[Credit] = (),
    conventions: Conventions | None = None,
    at: datetime | None = None,
    currency: str = "",
) -> Settlement:
    """Draw prepaid credit, then tax each line. `at` is the instant it happens, which decides what has expired.

    A line is a `LineToSettle`, a tuple of its fields (key, amount, taxes, tax_inclusive, reason, kind), or a rated line
    without tax. By the convention credit="after_tax", or where a credit itself says so, it pays totals that contain the
    tax; those that pay before tax are drawn first. `currency` changes nothing, as amounts are in minor units; it is
    taken for callers that have it at hand.
    """
    how = conventions or Conventions()
    found = [_line(line) for line in lines]
    usable, untouched = _in_order(credits, at)
    early = [credit for credit in usable if (credit.applies or how.credit) == "before_tax"]
    late = [credit for credit in usable if (credit.applies or how.credit) == "after_tax"]
    before, drawn_before = _draw(found, [Fraction(line.amount) for line in found], early, how)
    amounts, taxed = _taxed(found, before, how)
    room = [
        Fraction(amount) + (NOTHING if line.tax_inclusive else _sum(taxes)) - share
        for line, amount, taxes, share in zip(found, amounts, taxed, before, strict=True)
    ]
    after, drawn_after = _draw(found, room, late, how)
    settled = tuple(
        _settled(line, amount, early_share, late_share, taxes)
        for line, amount, early_share, late_share, taxes in zip(found, amounts, before, after, taxed, strict=True)
    )
    # From what was spread, not from what is shown of it: shares without an end add up to the whole all the same.
    subtotal, tax = _added(line.amount for line in settled), _added(line.tax for line in settled)
    credit_before, credit_after = sum(before, NOTHING), sum(after, NOTHING)
    inside = sum((Fraction(line.tax) for line in settled if line.tax_inclusive), NOTHING)
    net = Fraction(subtotal) - inside - credit_before
    return Settlement(
        lines=settled,
        credits=(*drawn_before, *drawn_after, *untouched),
        subtotal=subtotal,
        credit=to_decimal(credit_before + credit_after),
        net=to_decimal(net),
        tax=tax,
        total=to_decimal(net + Fraction(tax) - credit_after),
        taxes=_by_rate(settled),
        conventions={
            "credit": how.credit,
            "tax_rounding": how.tax_rounding,
            "rounding_mode": how.rounding_mode,
            "spread": how.spread,
        },
    )


def _line(line: LineToSettle | RatedLine | tuple[Any, ...]) -> LineToSettle:
    if isinstance(line, LineToSettle):
        return line
    if isinstance(line, RatedLine):
        return LineToSettle(line.key, line.amount, kind=line.kind)
    return LineToSettle(*line)


def _added(amounts: Iterable[Decimal]) -> Decimal:
    return to_decimal(sum((Fraction(amount) for amount in amounts), NOTHING))


def _sum(taxes: Sequence[TaxAmount]) -> Fraction:
    return sum((Fraction(tax.amount) for tax in taxes), NOTHING)


# -- credit


def _draw(
    lines: Sequence[LineToSettle],
    amounts: Sequence[Fraction],
    usable: Sequence[Credit],
    conventions: Conventions,
) -> tuple[list[Fraction], list[CreditDrawn]]:
    """What each line is paid ahead for, and what each credit gives. Never more than all lines together come to."""
    shares = [NOTHING for _ in lines]
    drawn = []
    # Lines below zero have made the whole smaller already; credit must not pay for what they give back.
    ceiling = max(sum(amounts, NOTHING), NOTHING)
    for credit in usable:
        room = [
            max(amount - share, NOTHING) if _covers(credit, line) else NOTHING
            for line, amount, share in zip(lines, amounts, shares, strict=True)
        ]
        give = min(Fraction(credit.amount), sum(room, NOTHING), ceiling)
        for index, took in enumerate(spread_below(room, give, conventions.spread)):
            shares[index] += took
        ceiling -= give
        drawn.append(CreditDrawn(credit.key, to_decimal(give), to_decimal(Fraction(credit.amount) - give)))
    return shares, drawn


def _covers(credit: Credit, line: LineToSettle) -> bool:
    return credit.covers in ("all", line.kind) and (credit.only is None or line.key in credit.only)


def _in_order(credits: Sequence[Credit], at: datetime | None) -> tuple[list[Credit], list[CreditDrawn]]:
    """Those that may be drawn at that instant, in their order, and the others with the reason why not.

    Lowest priority first, then the first to expire, then the oldest, then as given. One without an expiry expires last,
    one without a date is the newest.
    """
    usable = []
    untouched = []
    for index, credit in enumerate(credits):
        if at is None and (credit.expires_at is not None or credit.starts_at is not None):
            raise PricingInvalid(
                f"Credit {credit.key} has a time, so the settlement needs the instant it happens at.",
                code="MISSING",
                field="at",
            )
        if at is not None and credit.expires_at is not None and credit.expires_at <= at:
            untouched.append(CreditDrawn(credit.key, ZERO, credit.amount, "expired"))
        elif at is not None and credit.starts_at is not None and credit.starts_at > at:
            untouched.append(CreditDrawn(credit.key, ZERO, credit.amount, "not started"))
        else:
            far = datetime.max.replace(tzinfo=UTC)
            usable.append((credit.priority, credit.expires_at or far, credit.granted_at or far, index))
    return [credits[index] for *_, index in sorted(usable)], untouched


# -- tax


def _taxed(
    lines: Sequence[LineToSettle], shares: Sequence[Fraction], conventions: Conventions
) -> tuple[list[Decimal], list[list[TaxAmount]]]:
    """The amount of each line (which some conventions move by a unit) and its taxes."""
    amounts = [line.amount for line in lines]
    bases = [Fraction(line.amount) - share for line, share in zip(lines, shares, strict=True)]
    exact = [_exact_taxes(line, base) for line, base in zip(lines, bases, strict=True)]
    rounded = [_rounded(line, base, taxes, conventions) for line, base, taxes in zip(lines, bases, exact, strict=True)]
    if conventions.tax_rounding == "total":
        _all_together(lines, exact, rounded, conventions)
    elif conventions.tax_rounding != "line":
        for group in _groups(lines):
            _together(group, lines, amounts, bases, exact, rounded, conventions)
    taxed = []
    for line, base, taxes in zip(lines, bases, rounded, strict=True):
        net = base - sum(taxes, NOTHING) if line.tax_inclusive else base
        below = net
        found = []
        for tax, amount in zip(line.taxes, taxes, strict=True):
            found.append(
                TaxAmount(tax.name, tax.percent, to_decimal(amount), to_decimal(below if tax.compound else net))
            )
            below += amount
        taxed.append(found)
    return amounts, taxed


def _exact_taxes(line: LineToSettle, base: Fraction) -> list[Fraction]:
    """Each tax, unrounded."""
    factors = []
    so_far = NOTHING
    for tax in line.taxes:
        factor = Fraction(tax.percent) / 100 * (1 + so_far if tax.compound else 1)
        factors.append(factor)
        so_far += factor
    net = base / (1 + so_far) if line.tax_inclusive else base
    return [net * factor for factor in factors]


def _rounded(line: LineToSettle, base: Fraction, taxes: Sequence[Fraction], conventions: Conventions) -> list[Fraction]:
    """Each tax of a line as printed, by itself."""
    mode = conventions.rounding_mode
    if line.tax_inclusive and conventions.inclusive_rounds == "net":
        net = Fraction(round_fraction(base - sum(taxes, NOTHING), mode))
        return _parts_of(base - net, taxes)
    return [Fraction(round_fraction(tax, mode)) for tax in taxes]


def _parts_of(whole: Fraction, taxes: Sequence[Fraction]) -> list[Fraction]:
    """A tax in one sum, divided between its rates."""
    return [Fraction(part) for part in spread(to_decimal(whole), taxes)] if taxes else []


def _groups(lines: Sequence[LineToSettle]) -> list[list[int]]:
    """Lines that are taxed alike, and so have one base on the whole."""
    found: dict[tuple[Any, ...], list[int]] = {}
    for index, line in enumerate(lines):
        if line.taxes:
            found.setdefault((line.taxes, line.tax_inclusive), []).append(index)
    return list(found.values())


def _together(
    group: list[int],
    lines: Sequence[LineToSettle],
    amounts: list[Decimal],
    bases: list[Fraction],
    exact: Sequence[Sequence[Fraction]],
    rounded: list[list[Fraction]],
    conventions: Conventions,
) -> None:
    """Tax on the sum of the group's lines, spread over them again."""
    mode = conventions.rounding_mode
    inclusive = lines[group[0]].tax_inclusive
    if inclusive and conventions.tax_rounding in ("invoice_net", "invoice_gross"):
        _by_net(group, lines, amounts, bases, exact, rounded, conventions)
        return
    columns = range(len(lines[group[0]].taxes))
    for column in columns:
        column_exact = [exact[index][column] for index in group]
        whole = Fraction(round_fraction(sum(column_exact, NOTHING), mode))
        if inclusive and conventions.inclusive_rounds == "net" and len(columns) == 1:
            gross = sum((bases[index] for index in group), NOTHING)
            whole = gross - Fraction(round_fraction(gross - sum(column_exact, NOTHING), mode))
        if conventions.spread == "largest_amount":
            single = [rounded[index][column] for index in group]
            parts = _nudged(single, whole, [bases[index] for index in group])
        else:
            parts = _largest_remainder(column_exact, whole)
        for index, part in zip(group, parts, strict=True):
            rounded[index][column] = part


def _all_together(
    lines: Sequence[LineToSettle],
    exact: Sequence[Sequence[Fraction]],
    rounded: list[list[Fraction]],
    conventions: Conventions,
) -> None:
    """All taxes of all lines as one sum, rounded once; spread over the taxes, and what each gets over its lines."""
    cells: dict[tuple[str, Decimal], list[tuple[int, int]]] = {}
    for index, line in enumerate(lines):
        for column, tax in enumerate(line.taxes):
            cells.setdefault((tax.name, tax.percent), []).append((index, column))
    sums = [sum((exact[index][column] for index, column in each), NOTHING) for each in cells.values()]
    whole = Fraction(round_fraction(sum(sums, NOTHING), conventions.rounding_mode))
    for each, total in zip(cells.values(), _largest_remainder(sums, whole), strict=True):
        parts = _largest_remainder([exact[index][column] for index, column in each], total)
        for (index, column), part in zip(each, parts, strict=True):
            rounded[index][column] = part


def _largest_remainder(exact: Sequence[Fraction], whole: Fraction) -> list[Fraction]:
    """Whole units near each exact amount that add up to `whole`."""
    floors = [Fraction(one.numerator // one.denominator) for one in exact]
    left = whole - sum(floors, NOTHING)
    order = sorted(range(len(exact)), key=lambda index: (floors[index] - exact[index], index))
    return _handed_out(floors, left, order)


def _nudged(
    single: Sequence[Fraction], whole: Fraction, sizes: Sequence[Fraction], *, begin: int = 0
) -> list[Fraction]:
    """Amounts rounded one by one, then moved by a unit each from the largest line on, until they add up to `whole`."""
    parts = list(single)
    left = whole - sum(parts, NOTHING)
    order = sorted(range(len(parts)), key=lambda index: (-abs(sizes[index]), index))
    return _handed_out(parts, left, order, begin=begin)


def _handed_out(parts: Sequence[Fraction], left: Fraction, order: Sequence[int], *, begin: int = 0) -> list[Fraction]:
    """The parts with what is left given to them in this order, a unit each, from the top again until nothing is."""
    given = list(parts)
    position = begin
    while left and order:
        unit = min(Fraction(1), left) if left > 0 else max(Fraction(-1), left)
        given[order[position % len(order)]] += unit
        left -= unit
        position += 1
    return given


def _by_net(
    group: list[int],
    lines: Sequence[LineToSettle],
    amounts: list[Decimal],
    bases: list[Fraction],
    exact: Sequence[Sequence[Fraction]],
    rounded: list[list[Fraction]],
    conventions: Conventions,
) -> None:
    """Prices that contain the tax, while the tax has to be the rate on the sum of the nets.

    "invoice_net" keeps each line's rounded net, so a price may move by a unit. "invoice_gross" keeps the prices
    wherever some net gives them, and lets nets and taxes move.
    """
    mode = conventions.rounding_mode
    factor = _rate(lines[group[0]])
    grosses = [bases[index] for index in group]
    nets = [Fraction(round_fraction(gross / (1 + factor), mode)) for gross in grosses]
    gross = sum(grosses, NOTHING)
    net = sum(nets, NOTHING)
    if conventions.tax_rounding == "invoice_net":
        wanted = net
    else:
        wanted = Fraction(round_fraction(gross / (1 + factor), mode))
    target = Fraction(round_fraction(wanted * (1 + factor), mode))
    new_grosses = _nudged(grosses, target, grosses)
    # A line whose price moved keeps its net, so that no line is changed twice where there are enough.
    moved_already = sum(1 for old, new in zip(grosses, new_grosses, strict=True) if old != new)
    new_nets = _nudged(nets, wanted, grosses, begin=moved_already)
    for position, index in enumerate(group):
        moved = new_grosses[position] - grosses[position]
        amounts[index] = to_decimal(Fraction(amounts[index]) + moved)
        bases[index] += moved
        rounded[index] = _parts_of(new_grosses[position] - new_nets[position], exact[index])


def _rate(line: LineToSettle) -> Fraction:
    """All taxes of a line as one factor on the net."""
    return sum(_exact_taxes(LineToSettle(line.key, Decimal(1), line.taxes), Fraction(1)), NOTHING)


def _settled(
    line: LineToSettle, amount: Decimal, before: Fraction, after: Fraction, taxes: Sequence[TaxAmount]
) -> SettledLine:
    """The line with the credit that pays before tax, and the one that pays after it."""
    tax = _sum(taxes)
    share = before + after
    gross = Fraction(amount) + (NOTHING if line.tax_inclusive else tax)
    taxed = Fraction(amount) - before
    net = taxed - tax if line.tax_inclusive else taxed
    total = gross - share
    told: dict[str, Any] = {
        "amount": plain(amount),
        "credit": show(share),
        "net": show(net),
        "taxes": [
            {"name": one.name, "percent": plain(one.percent), "on": plain(one.base), "amount": plain(one.amount)}
            for one in taxes
        ],
        "tax_inclusive": line.tax_inclusive,
        "total": show(total),
    }
    if line.reason:
        told["reason"] = line.reason
    if amount != line.amount:
        told["moved"] = show(Fraction(amount) - Fraction(line.amount))
    return SettledLine(
        key=line.key,
        amount=amount,
        credit=to_decimal(share),
        net=to_decimal(net),
        tax=to_decimal(tax),
        total=to_decimal(total),
        taxes=tuple(taxes),
        tax_inclusive=line.tax_inclusive,
        reason=line.reason,
        explanation=told,
    )


def _by_rate(lines: Sequence[SettledLine]) -> tuple[TaxAmount, ...]:
    """What each tax comes to on the whole, in the order in which they first appear."""
    found: dict[tuple[str, Decimal], tuple[Fraction, Fraction]] = {}
    for line in lines:
        for tax in line.taxes:
            amount, base = found.get((tax.name, tax.percent), (NOTHING, NOTHING))
            found[tax.name, tax.percent] = (amount + Fraction(tax.amount), base + Fraction(tax.base))
    return tuple(
        TaxAmount(name, percent, to_decimal(amount), to_decimal(base))
        for (name, percent), (amount, base) in found.items()
    )
