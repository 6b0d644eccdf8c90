"""What a price costs, drawn: the price of a unit by tier, the amount of a period by quantity. All amounts are rated."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from billing.admin.words import tier_price
from billing.money import format_amount, to_major
from billing.pricing import (
    ByDimension,
    ChargeRule,
    Conventions,
    Flat,
    Graduated,
    Package,
    PricingInvalid,
    Tier,
    Usage,
    Volume,
    rate,
)
from customers.admin.charts import HEIGHT, WIDTH, Tick, round_top, short, svg_number
from customers.admin.formats import grouped

# Between two bounds a straight line, but packages rise in steps: enough points to see them.
_POINTS = 120


@dataclass(frozen=True)
class TierRow:
    """A line of the table of tiers."""

    reach: str
    price: str


@dataclass(frozen=True)
class PriceChart:
    """A line over quantities, with the same numbers as a table."""

    title: str
    unit: str
    currency: str
    points: str
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    rows: Sequence[tuple[str, str]]
    summary: str


def tier_rows(rule: ChargeRule, *, unit: str, currency: str) -> list[TierRow]:
    """The tiers of a graduated or volume price; nothing for other models."""
    if not isinstance(rule.price, Graduated | Volume):
        return []
    rows, floor = [], Decimal(0)
    for tier in rule.price.tiers:
        if tier.up_to is None:
            reach = f"above {grouped(floor)} {unit}" if floor else f"all {unit}"
        else:
            reach = f"{grouped(floor)} to {grouped(tier.up_to)} {unit}"
            floor = tier.up_to
        rows.append(TierRow(reach, tier_price(tier, currency)))
    return rows


def unit_price_chart(rule: ChargeRule, *, unit: str, currency: str) -> PriceChart | None:
    """The price of a unit, tier by tier, as steps; None where there are no tiers, or they charge no price per unit."""
    model = rule.price
    if not isinstance(model, Graduated | Volume) or len(model.tiers) < 2:
        return None
    if any(tier.package_size is not None or tier.percent for tier in model.tiers):
        return None
    last = _last_bound(model.tiers)
    points: list[tuple[Decimal, Decimal]] = []
    floor = Decimal(0)
    for tier in model.tiers:
        ceiling = round_top(last * Decimal("1.3")) if tier.up_to is None else tier.up_to
        points += [(floor, tier.unit_price), (ceiling, tier.unit_price)]
        floor = ceiling
    return _chart(
        "Price per unit by tier",
        points,
        unit=unit,
        currency=currency,
        rows=[(row.reach, row.price) for row in tier_rows(rule, unit=unit, currency=currency)],
    )


def cost_chart(rule: ChargeRule, conventions: Conventions, *, unit: str, currency: str) -> PriceChart | None:
    """What a whole period costs by its quantity. None where the quantity alone does not say it, or nothing happens."""
    if isinstance(rule.price, ByDimension) or (isinstance(rule.price, Flat) and not rule.price.only_when_used):
        return None
    marks = _marks(rule)
    top = round_top(max(marks) * Decimal("1.3")) if marks else Decimal(100)
    steps = {top * index / _POINTS for index in range(_POINTS + 1)}
    # A jump is seen as one where the points on both sides of it are close.
    close = top / 100_000
    around = {mark + side for mark in marks for side in (-close, Decimal(0), close) if mark + side >= 0}
    try:
        points = [
            (quantity, rate(rule, Usage(quantity), conventions=conventions).exact_amount)
            for quantity in sorted(steps | around)
        ]
        shown = sorted({Decimal(0), *marks, _nice(top)})
        rows = [
            (
                f"{grouped(quantity)} {unit}",
                format_amount(rate(rule, Usage(quantity), conventions=conventions).amount, currency),
            )
            for quantity in shown
        ]
    except PricingInvalid:
        return None
    return _chart("What a period costs", points, unit=unit, currency=currency, rows=rows)


def _marks(rule: ChargeRule) -> list[Decimal]:
    """The quantities at which something happens, free units included."""
    model, free = rule.price, rule.free_units
    found: list[Decimal] = [free] if free else []
    if isinstance(model, Graduated | Volume):
        found += [free + tier.up_to for tier in model.tiers if tier.up_to is not None][:20]
    if isinstance(model, Package):
        found += [free + model.size * count for count in range(1, 6)]
    return [mark * rule.unit_size / rule.unit_factor for mark in found]


def _last_bound(tiers: Sequence[Tier]) -> Decimal:
    return max((tier.up_to for tier in tiers if tier.up_to is not None), default=Decimal(1))


def _nice(top: Decimal) -> Decimal:
    """A round number near the right end."""
    return top.quantize(Decimal(1).scaleb(top.adjusted() - 1))


def _chart(
    title: str,
    points: Sequence[tuple[Decimal, Decimal]],
    *,
    unit: str,
    currency: str,
    rows: Sequence[tuple[str, str]],
) -> PriceChart:
    right = max(x for x, _ in points) or Decimal(1)
    high = round_top(max(to_major(y, currency) for _, y in points))
    line = " ".join(
        f"{svg_number(WIDTH * x / right)},{svg_number(HEIGHT - HEIGHT * to_major(y, currency) / high)}"
        for x, y in points
    )
    return PriceChart(
        title=title,
        unit=unit,
        currency=currency,
        points=line,
        x_ticks=[Tick(short(right * n / 4), str(n * 25)) for n in range(5)],
        y_ticks=[Tick(short(high * n / 4), str(n * 25)) for n in range(5)],
        rows=rows,
        summary=f"{title}, by {unit}: " + "; ".join(f"{at}: {costs}" for at, costs in rows[:8]),
    )
