"""All charges of one billing period of one subscription, in the order that discounts, limits and commitment need."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

from billing.money import plain, round_fraction, round_together, to_decimal
from billing.pricing.rating import (
    ONE,
    RatedLine,
    Stage,
    apply_limits,
    checked_fraction,
    finish,
    stage_charge,
    stage_fee,
    take_discounts,
)
from billing.pricing.values import (
    KINDS,
    NOTHING,
    ZERO,
    ChargeRule,
    Commitment,
    Conventions,
    Discount,
    FeeRule,
    Model,
    PricingInvalid,
    Usage,
    one_of,
    show,
)


@dataclass(frozen=True, slots=True)
class Item:
    """One charge or fee of a period, to be rated; or one that is `rated` already and is taken as it is.

    `fraction` is this one's part of its whole period, where it is not that of the others.
    """

    key: str
    kind: str = "usage"
    rule: "ChargeRule | FeeRule | Model | None" = None
    usage: Usage | Decimal | int | str | None = None
    fraction: Fraction | Decimal | int | str | None = None
    rated: RatedLine | None = None
    name: str = ""

    def __post_init__(self) -> None:
        one_of(self.kind, KINDS, "kind")
        if (self.rule is None) == (self.rated is None):
            raise PricingInvalid(
                f"{self.key or 'An item'} needs a rule, or a line that is rated already; exactly one of them.",
                code="CONTRADICTION",
                field="rule",
            )
        if self.rule is not None and not isinstance(self.rule, FeeRule) and self.usage is None:
            raise PricingInvalid(f"{self.key or 'An item'} needs its usage.", code="MISSING", field="usage")


def rate_period(
    items: Sequence[Item],
    *,
    discounts: Sequence[Discount] = (),
    commitment: Commitment | None = None,
    conventions: Conventions | None = None,
    fraction: Fraction | Decimal | int | str = ONE,
) -> tuple[RatedLine, ...]:
    """Rate all items of one period, in their order; a commitment that is not reached adds a line of its own at the end.

    1. each item's price and its own discounts
    2. these discounts, one after the other (a percent of what is left; an amount spread by largest remainder)
    3. each item's maximum, then its minimum
    4. the commitment: what the covered lines lack becomes a line of kind "commitment"
    5. rounding: each line by itself, or all together so that their sum is the rounded sum

    By the convention period_discounts="last", step 2 comes after step 4.
    """
    how = conventions or Conventions()
    part = checked_fraction(fraction)
    stages: list[Stage | RatedLine] = [_stage(item, how, part) for item in items]
    open_stages = [stage for stage in stages if isinstance(stage, Stage)]
    last = how.period_discounts == "last"
    if not last:
        take_discounts(open_stages, discounts, how, part, of="period")
    for stage in open_stages:
        apply_limits(stage)
    if commitment is not None:
        added = _commit(stages, commitment, how, part)
        if added is not None:
            stages.append(added)
            open_stages.append(added)
    if last:
        take_discounts(open_stages, discounts, how, part, of="period")
        if discounts:
            for stage in open_stages:
                stage.conventions.add("period_discounts")
    return _rounded(stages, how)


def _stage(item: Item, conventions: Conventions, part: Fraction) -> Stage | RatedLine:
    if item.rated is not None:
        return item.rated
    own = part if item.fraction is None else checked_fraction(item.fraction)
    if isinstance(item.rule, FeeRule):
        stage = stage_fee(item.rule, conventions=conventions, fraction=own)
        stage.kind = "fee" if item.kind == "usage" else item.kind
    elif item.rule is not None and item.usage is not None:
        stage = stage_charge(item.rule, item.usage, conventions=conventions, fraction=own, kind=item.kind)
    else:
        raise PricingInvalid(f"{item.key} cannot be rated.", code="MISSING", field="rule")
    stage.key = item.key
    if item.name:
        stage.told["name"] = item.name
    return stage


def _commit(
    stages: Sequence[Stage | RatedLine], commitment: Commitment, conventions: Conventions, part: Fraction
) -> Stage | None:
    """The line that makes up a commitment, or that charges what is above it at its factor."""
    if commitment.amount is None:
        raise PricingInvalid(
            "A whole period can commit to an amount only; a quantity is of one charge.",
            code="CONTRADICTION",
            field="commitment.quantity",
        )
    amount = Fraction(commitment.amount) * (part if conventions.prorate_commitment else ONE)
    spent = NOTHING
    for stage in stages:
        if commitment.covers not in ("all", stage.kind):
            continue
        if isinstance(stage, RatedLine):
            spent += Fraction(stage.amount)
        elif conventions.rounding == "invoice":
            spent += stage.left
        else:
            # What is printed is what counts, so that the lines add up to the commitment.
            spent += Fraction(round_fraction(stage.left, conventions.rounding_mode))
    missing = max(amount - spent, NOTHING) if commitment.true_up else NOTHING
    over = max(spent - amount, NOTHING) * (Fraction(commitment.overage_factor) - 1)
    if not missing and not over:
        return None
    told: dict[str, Any] = {
        "model": "commitment",
        "quantity": "1",
        "free_units": "0",
        "billable_units": "1",
        "unit_price": None,
        "commitment": {
            "amount": show(amount),
            "covers": commitment.covers,
            "spent": show(spent),
            "added": show(missing),
            "overage_factor": plain(commitment.overage_factor),
            "overage": show(over),
        },
    }
    if commitment.name:
        told["name"] = commitment.name
    if part != 1:
        told["fraction"] = show(part)
    line = Stage("commitment", ONE, NOTHING, ONE, None, missing + over, told, price=missing + over)
    line.key = "commitment"
    if part != 1:
        line.conventions.add("prorate_commitment")
    return line


def _rounded(stages: Sequence[Stage | RatedLine], conventions: Conventions) -> tuple[RatedLine, ...]:
    """The lines, rounded one by one, or those that were not rated before together."""
    if conventions.rounding != "invoice":
        return tuple(stage if isinstance(stage, RatedLine) else finish(stage, conventions) for stage in stages)
    together = round_together([stage.left for stage in stages if isinstance(stage, Stage)], conventions.rounding_mode)
    printed = iter(together)
    return tuple(
        stage if isinstance(stage, RatedLine) else finish(stage, conventions, amount=next(printed)) for stage in stages
    )


def total(lines: Sequence[RatedLine]) -> Decimal:
    """The sum of the printed lines."""
    return to_decimal(sum((Fraction(line.amount) for line in lines), NOTHING)) if lines else ZERO
