"""The models: how units become money. One function a model, each telling what it did as plain data.

Units are laid out on a line behind the free ones, from 0 upwards, so that each model sees the same: where units lie,
how far they reach, and what part of their price each pays.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

from billing.money import plain, round_fraction
from billing.pricing.values import (
    NOTHING,
    ZERO,
    ByDimension,
    ChargeRule,
    Conventions,
    Flat,
    Graduated,
    Model,
    Package,
    Percentage,
    PerUnit,
    PricingInvalid,
    Tier,
    Usage,
    Volume,
    as_number,
    show,
)

ONE = Fraction(1)
NAMES: dict[type, str] = {
    PerUnit: "per_unit",
    Graduated: "graduated",
    Volume: "volume",
    Package: "package",
    Percentage: "percentage",
    Flat: "flat",
    ByDimension: "by_dimension",
}


@dataclass(slots=True)
class Priced:
    """What a model made of units: the parts that add up to the price, and what it has to tell."""

    parts: list[Fraction]
    told: dict[str, Any]
    # Where all units cost the same.
    unit_price: Decimal | None
    billable: Fraction
    # The conventions that mattered.
    uses: set[str] = field(default_factory=set)
    free: Fraction = NOTHING

    @property
    def amount(self) -> Fraction:
        return sum(self.parts, NOTHING)


@dataclass(frozen=True, slots=True)
class _Span:
    """Units from `low` to `high`, counted behind the free ones, that pay `weight` of their price."""

    low: Fraction
    high: Fraction
    weight: Fraction = ONE


@dataclass(frozen=True, slots=True)
class _Units:
    """The units to be priced: where they lie, how far they reached, and the usage they come from."""

    spans: tuple[_Span, ...]
    reach: Fraction
    usage: Usage
    # What is left at the end where units also left, and the free units before them all.
    held: Fraction = NOTHING
    free: Fraction = NOTHING
    weighted: bool = False

    @property
    def billable(self) -> Fraction:
        return sum(((span.high - span.low) * span.weight for span in self.spans), NOTHING)

    def between(self, low: Fraction, high: Fraction | None) -> Fraction:
        """How many units lie in (low, high], by weight."""
        found = NOTHING
        for span in self.spans:
            top = span.high if high is None else min(span.high, high)
            found += max(top - max(span.low, low), NOTHING) * span.weight
        return found


def price_usage(
    rule: ChargeRule, used: Usage, conventions: Conventions, part: Fraction, *, free: Fraction | None = None
) -> Priced:
    """What a usage costs before any discount: units, free units, model. `free` overrules the rule's own free units."""
    units = _counted(Fraction(used.total), rule)
    if units < 0 and conventions.below_zero == "refused":
        raise PricingInvalid(
            f"The quantity is {show(Fraction(used.total))}; by the convention below_zero none below zero is priced.",
            code="BELOW_ZERO",
            field="quantity",
        )
    if free is None:
        free = Fraction(rule.free_units) * (part if conventions.prorate_free_units else ONE)
    model = rule.price
    if isinstance(model, ByDimension):
        priced = _by_dimension(model, rule, used, free, conventions, part)
    elif _is_correction(model, units, used, conventions):
        priced = _below_zero(model, -units, used, conventions, part)
    else:
        priced = _price(model, _laid_out(used, units, free, rule), conventions, part)
    if rule.prorated and part != 1:
        priced.parts = [amount * part for amount in priced.parts]
    rounded = [Fraction(round_fraction(amount, conventions.rounding_mode)) for amount in priced.parts]
    if conventions.rounding == "component" and rounded != priced.parts:
        priced.told["components"] = {
            "exact": [show(one) for one in priced.parts],
            "rounded": [show(one) for one in rounded],
        }
        priced.parts = rounded
    told: dict[str, Any] = {"model": NAMES[type(model)], "quantity": show(Fraction(used.total))}
    if rule.unit_size != 1 or rule.unit_rounding != "exact" or rule.unit_factor != 1:
        told["units"] = {"size": plain(rule.unit_size), "rounding": rule.unit_rounding, "count": show(units)}
        if rule.unit_factor != 1:
            told["units"]["factor"] = plain(rule.unit_factor)
    told["free_units"] = show(free)
    told["billable_units"] = show(priced.billable)
    told["unit_price"] = None if priced.unit_price is None else plain(priced.unit_price)
    told |= priced.told
    if rule.prorated and part != 1:
        told["prorated"] = show(part)
    priced.told = told
    priced.free = free
    return priced


def _is_correction(model: Model, units: Fraction, used: Usage, conventions: Conventions) -> bool:
    """Whether the quantity is below zero as a whole, rather than made of parts that are priced one by one."""
    if units >= 0 or (isinstance(model, Percentage) and used.values is not None):
        return False
    return used.shares is None or conventions.below_zero == "free"


def _counted(quantity: Fraction, rule: ChargeRule) -> Fraction:
    """The quantity in the units of the price, rounded by its size, so that a correction mirrors what it corrects."""
    units = quantity * Fraction(rule.unit_factor) / Fraction(rule.unit_size)
    step = Fraction(10) ** rule.unit_digits
    return _blocks(abs(units) * step, rule.unit_rounding) / step * (-1 if units < 0 else 1)


def _blocks(units: Fraction, rounding: str) -> Fraction:
    return units if rounding == "exact" else Fraction(round_fraction(units, rounding))


def _below_zero(model: Model, size: Fraction, used: Usage, conventions: Conventions, part: Fraction) -> Priced:
    """A correction: the price of its size, without free units, taken off; or worth nothing."""
    if isinstance(model, Flat):  # the same whatever was used
        return _price(model, _Units((_Span(NOTHING, size),), size, used), conventions, part)
    if conventions.below_zero == "free":
        # Nothing at all: not even the fee that a tier has without any usage.
        none = replace(conventions, first_tier_fee_at_zero=False)
        return _price(model, _Units((), NOTHING, Usage(ZERO, events=0)), none, part)
    units = _Units((_Span(NOTHING, size),), size, Usage(as_number(size), events=used.events), held=size)
    priced = _price(model, units, conventions, part)
    priced.parts = [-amount for amount in priced.parts]
    priced.billable = -priced.billable
    return priced


def _laid_out(used: Usage, units: Fraction, free: Fraction, rule: ChargeRule) -> _Units:
    """Units placed one after the other behind the free ones; a value below zero takes back the topmost.

    Where tiers count the free units too, those leave a gap at the bottom instead.
    """
    shift = NOTHING if rule.free_units_in_tiers else free

    def placed(low: Fraction, high: Fraction, weight: Fraction) -> tuple[_Span, ...]:
        low, high = max(low, free) - shift, max(high, free) - shift
        return (_Span(low, high, weight),) if high > low else ()

    if used.shares is None or used.values is None:
        top = max(units - shift, NOTHING)
        return _Units(placed(NOTHING, max(units, NOTHING), ONE), top, used, held=top, free=free)
    spans: list[_Span] = []
    running, reach = NOTHING, NOTHING
    for value, share in zip(used.values, used.shares, strict=True):
        count = _counted(Fraction(value), rule)
        after = running + count
        spans += placed(min(running, after), max(running, after), Fraction(share) * (1 if count > 0 else -1))
        running = after
        reach = max(reach, running)
    return _Units(
        tuple(spans),
        max(reach - shift, NOTHING),
        used,
        held=max(running - shift, NOTHING),
        free=free,
        weighted=True,
    )


def _price(model: Model, units: _Units, conventions: Conventions, part: Fraction) -> Priced:
    if isinstance(model, PerUnit):
        amount = units.billable * Fraction(model.unit_price)
        return Priced([amount], _shares(units), model.unit_price, units.billable)
    if isinstance(model, Graduated):
        return _graduated(model, units, conventions, part)
    if isinstance(model, Volume):
        return _volume(model, units, conventions, part)
    if isinstance(model, Package):
        return _package(model, units)
    if isinstance(model, Percentage):
        return _percentage(model, units, conventions, part)
    if isinstance(model, Flat):
        return _flat(model, units, conventions, part)
    raise PricingInvalid(f"No price: {model!r}.", code="NOT_A_PRICE", field="price")


def _shares(units: _Units) -> dict[str, Any]:
    if not units.weighted or units.usage.shares is None or units.usage.values is None:
        return {}
    pairs = zip(units.usage.values, units.usage.shares, strict=True)
    return {"shares": [{"value": show(value), "share": show(share)} for value, share in pairs]}


def _unweighted(units: _Units, model: str) -> None:
    if units.weighted:
        raise PricingInvalid(
            f"Units of a {model} price cannot be paid for in shares of the period; only those of a per-unit, graduated "
            "or volume price without packages.",
            code="NOT_SUPPORTED",
            field="shares",
        )


def _tier_parts(
    tier: Tier, number: int, low: Fraction, count: Fraction, fee: Fraction | None, unit_value: Decimal, units: _Units
) -> tuple[list[Fraction], dict[str, Any]]:
    """What one tier costs: its units and its flat fee, and both told."""
    told: dict[str, Any] = {
        "tier": number,
        "from": show(low),
        "up_to": None if tier.up_to is None else plain(tier.up_to),
        "units": show(count),
        "unit_price": plain(tier.unit_price),
    }
    if tier.package_size is not None:
        _unweighted(units, "package")
        packages = _blocks(count / Fraction(tier.package_size), "up")
        amount = packages * Fraction(tier.unit_price)
        told |= {"package_size": plain(tier.package_size), "packages": show(packages)}
    else:
        amount = count * Fraction(tier.unit_price)
    if tier.percent:
        amount += count * Fraction(unit_value) * Fraction(tier.percent) / 100
        told["percent"] = plain(tier.percent)
    if tier.maximum is not None:
        told["maximum"] = plain(tier.maximum)
        amount = min(amount, Fraction(tier.maximum))
    if tier.minimum is not None:
        told["minimum"] = plain(tier.minimum)
        amount = max(amount, Fraction(tier.minimum))
    told["amount"] = show(amount)
    parts = [amount]
    told["flat_fee"] = "0"
    if fee is not None:
        told["flat_fee"] = show(fee)
        if fee:
            parts.append(fee)
    return parts, told


def _flat_fee(tier: Tier, conventions: Conventions, part: Fraction) -> Fraction:
    return Fraction(tier.flat_fee) * (part if conventions.prorate_tier_fees else ONE)


def _graduated(model: Graduated, units: _Units, conventions: Conventions, part: Fraction) -> Priced:
    """Each tier's units at its price. A flat fee is charged once usage reaches into its tier."""
    reach = units.reach
    parts: list[Fraction] = []
    tiers = []
    low = NOTHING
    for number, tier in enumerate(model.tiers, start=1):
        last = number == len(model.tiers)
        high = None if tier.up_to is None else Fraction(tier.up_to)
        if last and high is not None and reach > high:
            high = _beyond(model.tiers, reach, conventions)
        reached = reach > low
        if conventions.tier_bound == "exclusive" and number > 1:
            reached = reach >= low
        if number == 1 and not reached:
            reached = conventions.first_tier_fee_at_zero
        if not reached:
            break
        more, told = _tier_parts(
            tier,
            number,
            low,
            units.between(low, high),
            _flat_fee(tier, conventions, part),
            model.unit_value,
            units,
        )
        parts += more
        tiers.append(told)
        if high is None:
            break
        low = high
    uses = _tier_conventions(model.tiers, reach, part)
    return Priced(parts, {"tiers": tiers} | _shares(units), None, units.billable, uses)


def _volume(model: Volume, units: _Units, conventions: Conventions, part: Fraction) -> Priced:
    """All units at the price of the tier that the quantity reaches, and that tier's flat fee."""
    # The tier is that of the units held at the end; those that left have paid their share.
    reach = units.held
    low = NOTHING
    found: tuple[int, Tier, Fraction] | None = None
    for number, tier in enumerate(model.tiers, start=1):
        high = None if tier.up_to is None else Fraction(tier.up_to)
        if high is None or reach < high or (reach == high and conventions.tier_bound == "inclusive"):
            found = (number, tier, low)
            break
        low = high
    billable = units.billable
    if found is None:
        limit = _beyond(model.tiers, reach, conventions)
        number, tier = len(model.tiers), model.tiers[-1]
        low = Fraction(model.tiers[-2].up_to or 0) if number > 1 else NOTHING
        found = (number, tier, low)
        if limit is not None:
            billable = units.between(NOTHING, limit)
    number, tier, low = found
    fee: Fraction | None = _flat_fee(tier, conventions, part)
    if reach == 0 and not conventions.first_tier_fee_at_zero:
        fee = None
    parts, told = _tier_parts(tier, number, low, billable, fee, model.unit_value, units)
    price = tier.unit_price
    single = price if tier.package_size is None and not tier.percent and not told["flat_fee"].strip("0") else None
    uses = _tier_conventions(model.tiers, reach, part)
    tiers = [told] if billable or fee else []
    return Priced(parts, {"tiers": tiers} | _shares(units), single, units.billable, uses)


def _beyond(tiers: Sequence[Tier], reach: Fraction, conventions: Conventions) -> Fraction | None:
    """Where the units end that a closed last tier prices, once usage is above it."""
    bound = tiers[-1].up_to
    if conventions.beyond_last_tier == "last" or bound is None:
        return None
    if conventions.beyond_last_tier == "free":
        return Fraction(bound)
    raise PricingInvalid(
        f"The last tier ends at {plain(bound)}, and {show(reach)} units were used; leave it open, or say by the "
        "convention beyond_last_tier what more costs.",
        code="BEYOND_LAST_TIER",
        field="tiers",
    )


def _tier_conventions(tiers: Sequence[Tier], reach: Fraction, part: Fraction) -> set[str]:
    uses = {"tier_bound"}
    if tiers[0].flat_fee and not reach:
        uses.add("first_tier_fee_at_zero")
    if tiers[-1].up_to is not None:
        uses.add("beyond_last_tier")
    if part != 1 and any(tier.flat_fee for tier in tiers):
        uses.add("prorate_tier_fees")
    return uses


def _package(model: Package, units: _Units) -> Priced:
    _unweighted(units, "package")
    blocks = _blocks(units.billable / Fraction(model.size), model.rounding)
    if units.billable and blocks < model.at_least:
        blocks = Fraction(model.at_least)
    amount = blocks * Fraction(model.price)
    told = {
        "packages": {
            "size": plain(model.size),
            "price": plain(model.price),
            "count": show(blocks),
            "rounding": model.rounding,
        }
    }
    return Priced([amount], told, None, units.billable)


def _flat(model: Flat, units: _Units, conventions: Conventions, part: Fraction) -> Priced:
    used = units.usage.total != 0 or bool(units.usage.events)
    amount = Fraction(model.amount) * (part if conventions.prorate_flat else ONE)
    if model.only_when_used and not used:
        amount = NOTHING
    told: dict[str, Any] = {
        "flat": {"amount": plain(model.amount), "charged": show(amount), "only_when_used": model.only_when_used}
    }
    return Priced([amount], told, None, units.billable, {"prorate_flat"} if part != 1 else set())


# -- a share of money


def _percentage(model: Percentage, units: _Units, conventions: Conventions, part: Fraction) -> Priced:
    """A percent of the metered money, and a fixed fee an event. Event by event where that can make a difference."""
    _unweighted(units, "percentage")
    per_event = _paid_events(model, units, conventions, part)
    if per_event is None:
        raise PricingInvalid(
            "What this price costs depends on each event, so the usage needs their values: "
            + _why_values(model, units.usage)
            + ".",
            code="VALUES_NEEDED",
            field="values",
        )
    if model.free_events is not None and model.free_amount is not None:
        per_event.uses.add("free_ends")
    if model.free_amount is not None and model.fixed_fee:
        per_event.uses.add("free_amount_bound")
    if part != 1 and model.free_amount:
        per_event.uses.add("prorate_free_units")
    return per_event


def _why_values(model: Percentage, usage: Usage) -> str:
    if usage.events is None and model.fixed_fee:
        return "a fixed fee is for each event, and neither their number nor their values are given"
    if model.event_minimum is not None or model.event_maximum is not None:
        return "an event has a minimum or a maximum"
    if model.free_events:
        return "the first events are free"
    return "a free amount decides which events pay the fixed fee"


def _paid_events(model: Percentage, units: _Units, conventions: Conventions, part: Fraction) -> Priced | None:
    """The price, or None where the number and the sum of the events do not say it."""
    usage = units.usage
    rate_of = Fraction(model.percent) * Fraction(model.unit_value) / 100
    values: list[Fraction] | None = None
    if usage.values is not None:
        values = [Fraction(value) for value in usage.values]
    elif usage.events == 1:
        values = [units.billable]
    elif usage.events == 0 and not units.billable:
        values = []
    free_amount = None
    if model.free_amount is not None:
        free_amount = Fraction(model.free_amount) * (part if conventions.prorate_free_units else ONE)
    if values is not None:
        if usage.values is not None and units.free:
            values = _behind(values, units.free)
        return _event_by_event(model, values, free_amount, rate_of, conventions)
    money = units.billable
    events = usage.events
    bounded = model.event_minimum is not None or model.event_maximum is not None
    # Free events, free amounts and bounds below this line only count where every event is treated alike.
    if bounded and not (not money and events is None):
        return None
    if money == 0 and not events:
        return _together(model, money, NOTHING, 0, 0, rate_of, free_amount)
    free_events = model.free_events
    if model.fixed_fee and events is None:
        return None
    if free_events and events is not None and free_events >= events and free_amount is None:
        return _together(model, money, money, events, events, rate_of, free_amount)
    if free_events:
        if model.percent and money:
            return None
        if free_amount is not None:
            return None
        return _together(model, money, NOTHING, events or 0, free_events, rate_of, free_amount)
    if free_amount:
        all_free = money < free_amount or (money == free_amount and conventions.free_amount_bound == "inclusive")
        if model.fixed_fee and not all_free:
            return None
        free = min(money, free_amount)
        return _together(model, money, free, events or 0, (events or 0) if all_free else 0, rate_of, free_amount)
    return _together(model, money, NOTHING, events or 0, 0, rate_of, free_amount)


def _behind(values: list[Fraction], free: Fraction) -> list[Fraction]:
    """The values without the first `free` units of them."""
    left = free
    rest = []
    for value in values:
        taken = min(max(value, NOTHING), left)
        left -= taken
        rest.append(value - taken)
    return rest


def _together(
    model: Percentage,
    money: Fraction,
    free: Fraction,
    events: int,
    free_events: int,
    rate_of: Fraction,
    free_amount: Fraction | None,
) -> Priced:
    paid = money - free
    paid_events = events - min(free_events, events)
    share, fixed = paid * rate_of, paid_events * Fraction(model.fixed_fee)
    told = _percentage_told(model, paid, share, free, events, paid_events, fixed, NOTHING, NOTHING, free_amount)
    return Priced([share, fixed] if fixed else [share], told, None, paid)


def _event_by_event(
    model: Percentage,
    values: Sequence[Fraction],
    free_amount: Fraction | None,
    rate_of: Fraction,
    conventions: Conventions,
) -> Priced:
    events_left = model.free_events
    amount_left = free_amount
    fee = Fraction(model.fixed_fee)
    least = None if model.event_minimum is None else Fraction(model.event_minimum)
    most = None if model.event_maximum is None else Fraction(model.event_maximum)
    paid = raised = cut = free = NOTHING
    paid_events = net_events = 0
    for value in values:
        charged = value
        if value >= 0 and _still_free(events_left, amount_left, conventions):
            # An allowance of events covers an event whole, one of an amount as far as it goes.
            whole = bool(events_left) and (amount_left is None or conventions.free_ends == "last")
            covered = value if whole else min(value, amount_left or NOTHING)
            if events_left:
                events_left -= 1
            if amount_left is not None:
                amount_left -= min(covered, amount_left)
            free += covered
            charged = value - covered
            used_up = not whole and not amount_left and conventions.free_amount_bound == "exclusive"
            if not charged and not (used_up and value):
                continue
        if value < 0 and conventions.below_zero == "free":
            continue
        sign = -1 if charged < 0 else 1
        paid += charged
        paid_events += 1
        net_events += sign
        if least is None and most is None:
            continue
        cost = abs(charged) * rate_of + fee
        if least is not None and cost < least:
            raised += (least - cost) * sign
        elif most is not None and cost > most:
            cut += (cost - most) * sign
    share, fixed = paid * rate_of, fee * net_events
    told = _percentage_told(model, paid, share, free, len(values), paid_events, fixed, raised, cut, free_amount)
    parts = [share, *(amount for amount in (fixed, raised, -cut) if amount)]
    return Priced(parts, told, None, paid)


def _still_free(events_left: int | None, amount_left: Fraction | None, conventions: Conventions) -> bool:
    """Whether the next event begins free."""
    if events_left is None and amount_left is None:
        return False
    if events_left is None:
        return bool(amount_left)
    if amount_left is None:
        return events_left > 0
    if conventions.free_ends == "amount":
        return amount_left > 0
    if conventions.free_ends == "last":
        return events_left > 0 or amount_left > 0
    return events_left > 0 and amount_left > 0


def _percentage_told(
    model: Percentage,
    paid: Fraction,
    share: Fraction,
    free: Fraction,
    events: int,
    paid_events: int,
    fixed: Fraction,
    raised: Fraction,
    cut: Fraction,
    free_amount: Fraction | None,
) -> dict[str, Any]:
    told: dict[str, Any] = {
        "percentage": {
            "percent": plain(model.percent),
            "unit_value": plain(model.unit_value),
            "free": show(free),
            "of": show(paid),
            "amount": show(share),
        },
        "events": {
            "count": events,
            "free": events - paid_events,
            "charged": paid_events,
            "fixed_fee": plain(model.fixed_fee),
            "amount": show(fixed),
        },
    }
    if free_amount is not None:
        told["percentage"]["free_amount"] = show(free_amount)
    if model.free_events is not None:
        told["events"]["free_events"] = model.free_events
    if model.event_minimum is not None:
        told["events"] |= {"minimum": plain(model.event_minimum), "raised": show(raised)}
    if model.event_maximum is not None:
        told["events"] |= {"maximum": plain(model.event_maximum), "cut": show(cut)}
    return told


# -- a price per value


def _by_dimension(
    model: ByDimension, rule: ChargeRule, used: Usage, free: Fraction, conventions: Conventions, part: Fraction
) -> Priced:
    if used.by_value is None:
        if used.total:
            raise PricingInvalid(
                f"A price by {' / '.join(model.keys)} needs the usage of each value.", code="MISSING", field="by_value"
            )
        return Priced([], {"keys": list(model.keys), "values": [], "unpriced": []}, None, NOTHING)
    named = list(model.prices)
    order = sorted(used.by_value, key=lambda value: named.index(value) if value in named else len(named))
    counted = {value: _counted(Fraction(used.by_value[value].total), rule) for value in order}
    allowances = _allowances(counted, free, model.free_units_taken)
    parts: list[Fraction] = []
    told = []
    unpriced = []
    billable = NOTHING
    uses: set[str] = set()
    for value in order:
        price = model.price_of(value)
        text = list(value)
        if price is None:
            unpriced.append({"value": text, "quantity": show(Fraction(used.by_value[value].total))})
            continue
        alone = ChargeRule(
            price,
            unit_size=rule.unit_size,
            unit_factor=rule.unit_factor,
            unit_digits=rule.unit_digits,
            free_units_in_tiers=rule.free_units_in_tiers,
            unit_rounding=rule.unit_rounding,
        )
        one = price_usage(alone, used.by_value[value], conventions, part, free=allowances[value])
        parts.append(one.amount)
        billable += one.billable
        uses |= one.uses
        told.append({"value": text, **one.told, "amount": show(one.amount)})
    return Priced(parts, {"keys": list(model.keys), "values": told, "unpriced": unpriced}, None, billable, uses)


def _allowances(
    counted: dict[tuple[str, ...], Fraction], free: Fraction, taken: str
) -> dict[tuple[str, ...], Fraction]:
    """The free units of each value."""
    total = sum((max(units, NOTHING) for units in counted.values()), NOTHING)
    found = {}
    left = free
    for value, units in counted.items():
        size = max(units, NOTHING)
        if taken == "in_proportion":
            found[value] = min(free, total) * size / total if total else NOTHING
        else:
            found[value] = min(size, left)
            left -= found[value]
    return found
