"""From one quantity to one rated line: quantity, units, free units, price, discounts, maximum, minimum, rounding.

Everything is computed with fractions and rounded once, at the end. What happened on the way is kept as plain data.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

from billing.money import plain, round_fraction, to_decimal
from billing.pricing.models import NAMES, ONE, price_usage
from billing.pricing.values import (
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
    as_number,
    exact_number,
    show,
)

# How the fraction of a partial period was counted, which its line names.
PRORATED = frozenset({"proration", "charge_last_day"})


@dataclass(frozen=True, slots=True)
class RatedLine:
    """A priced quantity. `amount` is `exact` rounded; `explanation` is plain data for pages, PDF and API.

    `unit_price` is None where units do not all cost the same. `exact_amount` is `exact` as a decimal number: exactly
    where it ends, else with 20 digits after the point (the explanation then has the fraction).
    """

    quantity: Decimal
    free_units: Decimal
    billable_units: Decimal
    unit_price: Decimal | None
    exact_amount: Decimal
    amount: Decimal
    explanation: dict[str, Any] = field(default_factory=dict)
    kind: str = "usage"
    key: str = ""
    exact: Fraction = NOTHING
    discount: Decimal = ZERO


@dataclass(slots=True)
class Stage:
    """One charge or fee between its steps, so that a period can take its own discounts before the limits."""

    kind: str
    quantity: Fraction
    free: Fraction
    billable: Fraction
    unit_price: Decimal | None
    left: Fraction
    told: dict[str, Any]
    key: str = ""
    # Before any discount, and what discounts took of it so far.
    price: Fraction = NOTHING
    discount: Fraction = NOTHING
    # Billed earlier in the same period, after its discounts and its maximum.
    earlier: Fraction = NOTHING
    maximum: Fraction | None = None
    minimum: Fraction | None = None
    commitment: Commitment | None = None
    committed: Fraction = NOTHING
    conventions: set[str] = field(default_factory=set)


def rate(
    rule: ChargeRule | Model,
    usage: Usage | Decimal | int | str,
    *,
    conventions: Conventions | None = None,
    fraction: Fraction | Decimal | int | str = ONE,
    key: str = "",
) -> RatedLine:
    """Price what was used in one period: free units, price, the rule's discounts, maximum, minimum; rounded once.

    `fraction` is the part of a whole period that this one is; what it cuts, the conventions say.
    """
    how = conventions or Conventions()
    stage = stage_charge(rule, usage, conventions=how, fraction=fraction)
    stage.key = key
    apply_limits(stage)
    return finish(stage, how)


def rate_fee(
    rule: FeeRule | None = None,
    *,
    quantity: Decimal | None = None,
    fee: Decimal | None = None,
    conventions: Conventions | None = None,
    fraction: Fraction | Decimal | int | str = ONE,
    key: str = "",
) -> RatedLine:
    """A fee for each of `quantity` seats or licences, in a partial period its fraction, less the rule's discounts."""
    if rule is None:
        if fee is None:
            raise PricingInvalid("A fee needs a rule, or an amount.", code="MISSING", field="fee")
        rule = FeeRule(fee, quantity=Decimal(1) if quantity is None else quantity)
    how = conventions or Conventions()
    stage = stage_fee(rule, conventions=how, fraction=fraction)
    stage.key = key
    return finish(stage, how)


def waive(line: RatedLine, *, because: str) -> RatedLine:
    """The same quantity for nothing, with the reason kept."""
    return replace(
        line,
        free_units=line.quantity,
        billable_units=ZERO,
        exact_amount=ZERO,
        exact=NOTHING,
        discount=ZERO,
        amount=ZERO,
        explanation={
            **{name: told for name, told in line.explanation.items() if name != "exact"},
            "billable_units": "0",
            "exact_amount": "0",
            "amount": "0",
            "waived": because,
        },
    )


# -- one charge, step by step


def stage_charge(
    rule: ChargeRule | Model,
    usage: Usage | Decimal | int | str,
    *,
    conventions: Conventions,
    fraction: Fraction | Decimal | int | str = ONE,
    kind: str = "usage",
) -> Stage:
    """Quantity, units, free units, price, and the rule's own discounts. The limits are still to come."""
    rule = rule if isinstance(rule, ChargeRule) else ChargeRule(rule)
    used = usage if isinstance(usage, Usage) else Usage(usage)  # type: ignore[arg-type]
    part = checked_fraction(fraction)
    if used.before is not None:
        return _stage_on_top(rule, used, conventions, part, kind)
    stage = _stage_each(rule, used, conventions, part) if rule.each else _stage_whole(rule, used, conventions, part)
    stage.kind = kind
    take_discounts([stage], rule.discounts, conventions, part, of="charge")
    if not rule.limits_each:
        _set_limits(stage, rule, conventions, part, last=used.last)
    if part != 1:
        stage.told["fraction"] = show(part)
        stage.conventions |= PRORATED
        for limit, convention in (
            (rule.free_units, "prorate_free_units"),
            (rule.maximum, "prorate_maximum"),
            (rule.minimum, "prorate_minimum"),
        ):
            if limit:
                stage.conventions.add(convention)
    if used.total < 0:
        stage.conventions.add("below_zero")
    return stage


def _set_limits(stage: Stage, rule: ChargeRule, conventions: Conventions, part: Fraction, *, last: bool) -> None:
    if rule.maximum is not None:
        stage.maximum = Fraction(rule.maximum) * (part if conventions.prorate_maximum else ONE)
    if not last:
        return
    if rule.minimum is not None:
        stage.minimum = Fraction(rule.minimum) * (part if conventions.prorate_minimum else ONE)
    if rule.commitment is not None:
        stage.commitment = rule.commitment
        cut = part if conventions.prorate_commitment else ONE
        if rule.commitment.amount is not None:
            stage.committed = Fraction(rule.commitment.amount) * cut
        elif rule.commitment.quantity is not None:
            alone = replace(rule, each=False, limits_each=False)
            usage = Usage(rule.commitment.quantity)
            stage.committed = price_usage(alone, usage, conventions, part, free=NOTHING).amount * cut
        if part != 1:
            stage.conventions.add("prorate_commitment")


def _stage_on_top(rule: ChargeRule, used: Usage, conventions: Conventions, part: Fraction, kind: str) -> Stage:
    """What comes on top of what the same period was billed for before: the whole price less the earlier one."""
    if used.values is not None or used.by_value is not None:
        raise PricingInvalid(
            "A usage with a quantity billed before has no values and no dimensions; price the whole and the earlier "
            "usage, and take the difference.",
            code="NOT_SUPPORTED",
            field="before",
        )
    if used.before is None:
        raise PricingInvalid("Nothing was billed before.", code="MISSING", field="before")
    before = Fraction(used.before)
    total = before + Fraction(used.total)
    whole = stage_charge(
        rule, Usage(as_number(total), last=used.last), conventions=conventions, fraction=part, kind=kind
    )
    earlier = stage_charge(
        rule, Usage(as_number(before), last=False), conventions=conventions, fraction=part, kind=kind
    )
    charged = earlier.left if earlier.maximum is None else min(earlier.left, earlier.maximum)
    whole.earlier = charged
    whole.told["before"] = {"quantity": show(before), "amount": show(charged), "total_quantity": show(total)}
    whole.told["quantity"] = show(Fraction(used.total))
    whole.quantity = Fraction(used.total)
    whole.billable -= earlier.billable
    whole.told["billable_units"] = show(whole.billable)
    whole.left -= charged
    whole.price -= earlier.price
    whole.discount -= earlier.discount
    return whole


def _stage_each(rule: ChargeRule, used: Usage, conventions: Conventions, part: Fraction) -> Stage:
    """Each value priced by itself, as if it were all of a period, and added up."""
    if used.values is None:
        raise PricingInvalid(
            "A rule that prices each value by itself needs the values.", code="MISSING", field="values"
        )
    priced = [price_usage(rule, Usage(value, events=1), conventions, part) for value in used.values]
    costs = []
    for one in priced:
        alone = Stage("usage", NOTHING, NOTHING, NOTHING, None, one.amount, one.told)
        if rule.limits_each:
            _set_limits(alone, rule, conventions, part, last=True)
            apply_limits(alone)
        costs.append(alone.left)
    price = sum(costs, NOTHING)
    billable = sum((one.billable for one in priced), NOTHING)
    shown = ("quantity", "billable_units", "tiers", "packages", "maximum", "minimum", "commitment")
    told = {
        "model": NAMES[type(rule.price)],
        "quantity": show(Fraction(used.total)),
        "free_units": show(Fraction(rule.free_units)),
        "billable_units": show(billable),
        "unit_price": None,
        "each": [
            {name: one.told[name] for name in shown if name in one.told} | {"amount": show(cost)}
            for one, cost in zip(priced, costs, strict=True)
        ],
    }
    stage = Stage("usage", Fraction(used.total), Fraction(rule.free_units), billable, None, price, told, price=price)
    for one in priced:
        stage.conventions |= one.uses
    return stage


def _stage_whole(rule: ChargeRule, used: Usage, conventions: Conventions, part: Fraction) -> Stage:
    priced = price_usage(rule, used, conventions, part)
    stage = Stage(
        "usage",
        Fraction(used.total),
        priced.free,
        priced.billable,
        priced.unit_price,
        priced.amount,
        priced.told,
        price=priced.amount,
    )
    stage.conventions = set(priced.uses)
    return stage


# -- fees


def stage_fee(rule: FeeRule, *, conventions: Conventions, fraction: Fraction | Decimal | int | str = ONE) -> Stage:
    """A fixed fee, prorated, less its own discounts."""
    part = checked_fraction(fraction)
    quantity = Fraction(rule.quantity)
    price = quantity * Fraction(rule.amount) * part
    told: dict[str, Any] = {
        "model": "fee",
        "quantity": show(quantity),
        "free_units": "0",
        "billable_units": show(quantity),
        "unit_price": plain(rule.amount),
    }
    if part != 1:
        told["fraction"] = show(part)
    stage = Stage("fee", quantity, NOTHING, quantity, rule.amount, price, told, price=price)
    if part != 1:
        stage.conventions |= PRORATED
    take_discounts([stage], rule.discounts, conventions, part, of="charge")
    return stage


# -- what comes after the price


def checked_fraction(fraction: Fraction | Decimal | int | str) -> Fraction:
    part = exact_number(fraction, "fraction")
    if not part >= 0:
        raise PricingInvalid(f"A fraction of a period cannot be {show(part)}.", code="TOO_SMALL", field="fraction")
    return part


def _fits(discount: Discount, stage: Stage) -> bool:
    return discount.on in ("all", stage.kind) and (discount.only is None or stage.key in discount.only)


def take_discounts(
    stages: Sequence[Stage],
    discounts: Sequence[Discount],
    conventions: Conventions,
    part: Fraction,
    *,
    of: str,
) -> None:
    """Take each discount in its order: a percent of what is left of each, an amount spread over what is left of all.

    An amount is spread in whole minor units by largest remainder and takes nothing below zero.
    """
    for discount in discounts:
        fitting = [stage for stage in stages if _fits(discount, stage)]
        for stage, took in zip(fitting, _taken(discount, fitting, conventions, part), strict=True):
            stage.left -= took
            stage.discount += took
            told: dict[str, Any] = {"name": discount.name} if discount.name else {}
            if discount.percent is not None:
                told["percent"] = plain(discount.percent)
                if len(discounts) > 1:
                    stage.conventions.add("discount_base")
            else:
                told["amount"] = plain(discount.amount or ZERO)
                stage.conventions |= {"prorate_discounts"} if part != 1 else set()
            if conventions.discount_rounding == "rounded":
                stage.conventions.add("discount_rounding")
            stage.told.setdefault("discounts", []).append(told | {"on": discount.on, "of": of, "took": show(took)})


def _taken(discount: Discount, stages: Sequence[Stage], conventions: Conventions, part: Fraction) -> Sequence[Fraction]:
    """What one discount takes of each."""
    cut = part if conventions.prorate_discounts else ONE
    most = None if discount.at_most is None else Fraction(discount.at_most) * cut
    if discount.percent is None:
        amount = Fraction(discount.amount or 0) * cut
        room = [max(stage.left, NOTHING) for stage in stages]
        return spread_below(room, amount if most is None else min(amount, most), conventions.spread)
    share = Fraction(discount.percent) / 100
    taken = []
    for stage in stages:
        take = share * (stage.left if conventions.discount_base == "left" else stage.price)
        if conventions.discount_rounding == "rounded":
            take = Fraction(round_fraction(take, conventions.rounding_mode))
        # Of the price it may ask for more than an earlier discount left.
        taken.append(min(take, stage.left) if stage.left >= 0 else take)
    if most is not None and sum(taken, NOTHING) > most:
        return spread_below([max(take, NOTHING) for take in taken], most, conventions.spread)
    return taken


def spread_below(room: Sequence[Fraction], amount: Fraction, method: str = "largest_remainder") -> list[Fraction]:
    """`amount` spread over `room` in proportion, in whole units by largest remainder, none above its own room.

    More than there is room for: each is filled. By method "largest_amount" the units left over go to the largest ones
    first, by "in_order" the first is filled before the next gets anything, by "exact" nothing is made whole.
    """
    total = sum(room, NOTHING)
    if amount >= total:
        return list(room)
    if not total:
        return [NOTHING for _ in room]
    if method == "in_order":
        shares = []
        for one in room:
            shares.append(min(one, amount))
            amount -= shares[-1]
        return shares
    ideal = [amount * one / total for one in room]
    if method == "exact":
        return ideal
    shares = [Fraction(share.numerator // share.denominator) for share in ideal]
    left = amount - sum(shares, NOTHING)
    if method == "largest_amount":
        order = sorted(range(len(room)), key=lambda index: (-room[index], index))
    else:
        order = sorted(range(len(room)), key=lambda index: (shares[index] - ideal[index], index))
    # Round by round, because a line with less than one unit of room cannot take a whole one.
    while left > 0:
        for index in order:
            more = min(ONE, left, room[index] - shares[index])
            shares[index] += more
            left -= more
    return shares


def apply_limits(stage: Stage) -> None:
    """The maximum, then the minimum, then what the charge alone commits to."""
    total = stage.left + stage.earlier
    if stage.maximum is not None:
        took = max(total - stage.maximum, NOTHING)
        stage.told["maximum"] = {"amount": show(stage.maximum), "took": show(took)}
        total -= took
    if stage.minimum is not None:
        added = max(stage.minimum - total, NOTHING)
        stage.told["minimum"] = {"amount": show(stage.minimum), "added": show(added)}
        total += added
    if stage.commitment is not None:
        amount, factor = stage.committed, stage.commitment.overage_factor
        over = max(total - amount, NOTHING) * (Fraction(factor) - 1)
        added = max(amount - total, NOTHING) if stage.commitment.true_up else NOTHING
        stage.told["commitment"] = {
            "amount": show(amount),
            "added": show(added),
            "overage_factor": plain(factor),
            "overage": show(over),
        }
        total += over + added
    stage.left = total - stage.earlier


def finish(stage: Stage, conventions: Conventions, amount: Decimal | None = None) -> RatedLine:
    """The line: rounded once, unless `amount` says what it was rounded to together with others."""
    exact = stage.left
    printed = round_fraction(exact, conventions.rounding_mode) if amount is None else amount
    told = dict(stage.told)
    if "discounts" in told or "maximum" in told or "minimum" in told:
        told["price"] = show(stage.price)
    exact_amount = to_decimal(exact)
    told["exact_amount"] = plain(exact_amount)
    if show(exact) != plain(exact_amount):
        told["exact"] = show(exact)
    told["amount"] = plain(printed)
    told["rounding"] = conventions.rounding_mode
    if conventions.rounding != "line":
        stage.conventions.add("rounding")
    applied = {name: getattr(conventions, name) for name in sorted(stage.conventions)}
    if applied:
        told["conventions"] = applied
    return RatedLine(
        quantity=to_decimal(stage.quantity),
        free_units=to_decimal(stage.free),
        billable_units=to_decimal(stage.billable),
        unit_price=stage.unit_price,
        exact_amount=exact_amount,
        amount=printed,
        explanation=told,
        kind=stage.kind,
        key=stage.key,
        exact=exact,
        discount=to_decimal(stage.discount),
    )
