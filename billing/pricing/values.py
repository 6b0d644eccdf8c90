"""What a price is made of, as values that refuse to be wrong: numbers, usage, tiers, models, rules, conventions.

Amounts are in the currency's minor unit and may keep any fraction. Every number may be given as `Decimal`, `int`,
`Fraction` or text; a float is refused, because it has lost digits before it comes here.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any

from billing.money import ROUNDING_MODES, ends, plain, to_decimal

ZERO = Decimal(0)
NOTHING = Fraction(0)
# No number of ours has more digits before or after the point; without a limit "1e999999999" would fill the memory.
MOST_DIGITS = 500
# Words for a tier without an upper bound.
OPEN = ("", "inf", "+inf", "infinity", "∞")
DISCOUNTED = ("all", "usage", "fee")
KINDS = ("usage", "fee", "other")
APPLIES = ("before_tax", "after_tax")


class PricingInvalid(ValueError):
    """A price, a convention or a usage that makes no sense: `code` is one word, `field` where, the message why."""

    def __init__(self, message: str, *, code: str = "INVALID", field: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.field = field


def exact_number(value: object, field: str) -> Fraction:
    """A number without any loss, from `Decimal`, `int`, `Fraction` or text ("12.5", "1e3", "31/365")."""
    if isinstance(value, bool) or value is None:
        raise PricingInvalid(f"{field} must be a number, not {value!r}.", code="NOT_A_NUMBER", field=field)
    if isinstance(value, float):
        raise PricingInvalid(
            f"{field} is a float, which has lost digits already; give it as text or as a Decimal.",
            code="FLOAT",
            field=field,
        )
    if isinstance(value, int | Fraction):
        return Fraction(value)
    if isinstance(value, Decimal | str):
        text = str(value).strip().replace("_", "")
        if isinstance(value, str) and text.count("/") == 1:
            above, below = (exact_number(part, field) for part in text.split("/"))
            if below == 0:
                raise PricingInvalid(f"{field} divides by zero: {value!r}.", code="NOT_A_NUMBER", field=field)
            return above / below
        try:
            number = Decimal(text)
        except InvalidOperation:
            number = Decimal("NaN")
        if not number.is_finite():
            raise PricingInvalid(f"{field} must be a number, not {value!r}.", code="NOT_A_NUMBER", field=field)
        if len(number.as_tuple().digits) > MOST_DIGITS or abs(number.adjusted()) > MOST_DIGITS:
            raise PricingInvalid(
                f"{field} has more than {MOST_DIGITS} digits before or after the point.", code="TOO_LONG", field=field
            )
        return Fraction(number)
    raise PricingInvalid(f"{field} must be a number, not {type(value).__name__}.", code="NOT_A_NUMBER", field=field)


def decimal_number(value: object, field: str, *, least: int | None = None, above: int | None = None) -> Decimal:
    """A number with an end, as a price or a bound has to be; at least `least`, or above `above`."""
    number = exact_number(value, field)
    if not ends(number):
        raise PricingInvalid(
            f"{field} must have a finite number of digits; {show(number)} has no end.", code="NO_END", field=field
        )
    if least is not None and number < least:
        raise PricingInvalid(f"{field} must be at least {least}, not {show(number)}.", code="TOO_SMALL", field=field)
    if above is not None and number <= above:
        raise PricingInvalid(f"{field} must be above {above}, not {show(number)}.", code="TOO_SMALL", field=field)
    return value if isinstance(value, Decimal) else to_decimal(number)


def optional(value: object, field: str) -> Decimal | None:
    """A number of at least 0, where there is one."""
    return None if value is None else decimal_number(value, field, least=0)


def _in_order(minimum: Decimal | None, maximum: Decimal | None, field: str) -> None:
    if minimum is not None and maximum is not None and minimum > maximum:
        raise PricingInvalid(
            f"The minimum, {plain(minimum)}, is above the maximum, {plain(maximum)}.", code="CONTRADICTION", field=field
        )


def whole_number(value: object, field: str, *, least: int | None = 0) -> int:
    """A count; with `least=None` also one below zero."""
    number = exact_number(value, field)
    if number.denominator != 1 or (least is not None and number < least):
        at_least = "" if least is None else f" of at least {least}"
        raise PricingInvalid(
            f"{field} must be a whole number{at_least}, not {show(number)}.", code="NOT_WHOLE", field=field
        )
    return int(number)


def show(number: Fraction | Decimal | int) -> str:
    """Digits where the number ends ("0.125"), else the fraction ("1/3"); `exact_number` reads both back."""
    exact = Fraction(number)
    return plain(to_decimal(exact)) if ends(exact) else f"{exact.numerator}/{exact.denominator}"


def one_of(value: object, known: Sequence[str], field: str) -> str:
    if not isinstance(value, str) or value not in known:
        raise PricingInvalid(
            f"{field} must be one of {', '.join(known)}, not {value!r}.", code="UNKNOWN_WORD", field=field
        )
    return value


def yes_or_no(value: object, field: str) -> bool:
    if not isinstance(value, bool):
        raise PricingInvalid(f"{field} must be true or false, not {value!r}.", code="NOT_A_BOOLEAN", field=field)
    return value


def as_text(value: object, field: str) -> str:
    """A name, which may be empty."""
    if not isinstance(value, str):
        raise PricingInvalid(f"{field} must be text, not {value!r}.", code="NOT_TEXT", field=field)
    return value


def as_key(value: object, field: str) -> tuple[str, ...]:
    """The metadata values one price or one usage stands for: one word for one key, a sequence for several."""
    if isinstance(value, str):
        return (value,)
    if isinstance(value, Iterable) and not isinstance(value, bytes | Mapping):
        words = tuple(value)
        if words and all(isinstance(word, str) for word in words):
            return words
    raise PricingInvalid(f"{field} must be text, or a list of texts, not {value!r}.", code="NOT_TEXT", field=field)


def _set(instance: object, **values: Any) -> None:
    for name, value in values.items():
        object.__setattr__(instance, name, value)


# -- what was used


@dataclass(frozen=True, slots=True)
class Usage:
    """What a meter counted in one period.

    `quantity` may be left out where `values` (each event's own, in order) or `by_value` (per value of the metadata
    keys) add up to it. `shares` says for each of the values what part of the period it lasted; units are then placed in
    tiers whole and paid for in that part. `before` is what was billed earlier in the same period: only what comes on
    top is priced, and until the `last` part of the period no minimum is filled up.
    """

    quantity: Decimal | Fraction | None = None
    events: int | None = None
    values: Sequence[Decimal | Fraction] | None = None
    shares: Sequence[Decimal | Fraction] | None = None
    by_value: Mapping[Any, "Usage"] | None = None
    before: Decimal | Fraction | None = None
    last: bool = True

    def __post_init__(self) -> None:
        values = self.values
        if values is not None:
            if isinstance(values, str) or not isinstance(values, Iterable):
                raise PricingInvalid("values must be a list of numbers.", code="NOT_A_LIST", field="values")
            values = tuple(_quantity(value, f"values[{index}]") for index, value in enumerate(values))
        shares = self.shares
        if shares is not None:
            if values is None:
                raise PricingInvalid("shares need the values they belong to.", code="MISSING", field="shares")
            shares = tuple(_quantity(share, f"shares[{index}]") for index, share in enumerate(shares))
            if len(shares) != len(values):
                raise PricingInvalid(
                    f"There are {len(shares)} shares for {len(values)} values; each value needs its own.",
                    code="NOT_AS_MANY",
                    field="shares",
                )
        by_value = self.by_value
        if by_value is not None:
            if not isinstance(by_value, Mapping):
                raise PricingInvalid("by_value must map values to usages.", code="NOT_A_MAPPING", field="by_value")
            by_value = {
                as_key(key, "by_value"): used if isinstance(used, Usage) else Usage(used)
                for key, used in by_value.items()
            }
        parts: list[Fraction] | None = None
        if values is not None:
            parts = [Fraction(value) for value in values]
        elif by_value is not None:
            parts = [Fraction(used.total) for used in by_value.values()]
        added = sum(parts, NOTHING) if parts is not None else None
        quantity = self.quantity
        if quantity is None:
            if added is None:
                raise PricingInvalid(
                    "A usage needs a quantity, or values that add up to one.", code="MISSING", field="quantity"
                )
            quantity = as_number(added)
        else:
            quantity = _quantity(quantity, "quantity")
        events = self.events
        if events is None:
            if values is not None:
                events = len(values)
            elif by_value is not None and all(used.events is not None for used in by_value.values()):
                events = sum(used.events or 0 for used in by_value.values())
        else:
            events = whole_number(events, "events")
            if values is not None and events != len(values):
                raise PricingInvalid(
                    f"There are {events} events and {len(values)} values; each event has one.",
                    code="NOT_AS_MANY",
                    field="events",
                )
        before = None if self.before is None else _quantity(self.before, "before")
        yes_or_no(self.last, "last")
        _set(self, quantity=quantity, events=events, values=values, shares=shares, by_value=by_value, before=before)

    @property
    def total(self) -> Decimal | Fraction:
        """The quantity, which is always known once the value exists."""
        return ZERO if self.quantity is None else self.quantity

    @property
    def decimal(self) -> Decimal:
        """The quantity as it is printed: exact where it ends."""
        return self.total if isinstance(self.total, Decimal) else to_decimal(self.total)


def as_number(number: Fraction) -> Decimal | Fraction:
    """A `Decimal` where the number ends, else the fraction."""
    return to_decimal(number) if ends(number) else number


def _quantity(value: object, field: str) -> Decimal | Fraction:
    number = exact_number(value, field)
    return value if isinstance(value, Decimal) else as_number(number)


# -- models


@dataclass(frozen=True, slots=True)
class Tier:
    """Units up to a bound, from the bound of the tier below on. `None` as bound: all that is above.

    `unit_price` is for each unit in the tier, or for each begun package of `package_size` units in it. `percent` is of
    the units' worth, for prices that take a share of money. `flat_fee` is charged once usage reaches into the tier.
    `minimum` and `maximum` bound what the units of a tier that was reached cost, its flat fee not counted.
    """

    up_to: Decimal | None
    unit_price: Decimal = ZERO
    flat_fee: Decimal = ZERO
    package_size: Decimal | None = None
    percent: Decimal = ZERO
    minimum: Decimal | None = None
    maximum: Decimal | None = None

    def __post_init__(self) -> None:
        bound = self.up_to
        if isinstance(bound, str) and bound.strip().lower() in OPEN:
            bound = None
        if isinstance(bound, Decimal) and bound.is_infinite() and bound > 0:
            bound = None
        _set(
            self,
            up_to=None if bound is None else decimal_number(bound, "up_to", above=0),
            unit_price=decimal_number(self.unit_price, "unit_price", least=0),
            flat_fee=decimal_number(self.flat_fee, "flat_fee", least=0),
            package_size=(
                None if self.package_size is None else decimal_number(self.package_size, "package_size", above=0)
            ),
            percent=decimal_number(self.percent, "percent", least=0),
            minimum=optional(self.minimum, "minimum"),
            maximum=optional(self.maximum, "maximum"),
        )
        _in_order(self.minimum, self.maximum, "minimum")
        if self.package_size is not None and self.percent:
            raise PricingInvalid(
                "A tier is priced by packages or by percent, not by both.", code="CONTRADICTION", field="percent"
            )


def _checked_tiers(tiers: object) -> tuple[Tier, ...]:
    if isinstance(tiers, str | Mapping) or not isinstance(tiers, Iterable):
        raise PricingInvalid("tiers must be a list.", code="NOT_A_LIST", field="tiers")
    found = tuple(tiers)
    if not found:
        raise PricingInvalid("There must be at least one tier.", code="MISSING", field="tiers")
    last = NOTHING
    for number, tier in enumerate(found, start=1):
        if not isinstance(tier, Tier):
            raise PricingInvalid(f"Tier {number} is no Tier: {tier!r}.", code="NOT_A_TIER", field="tiers")
        if tier.up_to is None:
            if number != len(found):
                raise PricingInvalid(
                    f"Only the last tier may be open; tier {number} of {len(found)} is.",
                    code="OPEN_TIER",
                    field="tiers",
                )
        elif Fraction(tier.up_to) <= last:
            raise PricingInvalid(
                f"The bounds of the tiers must rise; tier {number} ends at {plain(tier.up_to)}, "
                f"the one below it at {show(last)}.",
                code="TIERS_DO_NOT_RISE",
                field="tiers",
            )
        else:
            last = Fraction(tier.up_to)
    return found


@dataclass(frozen=True, slots=True)
class PerUnit:
    """Each unit costs the same."""

    unit_price: Decimal

    def __post_init__(self) -> None:
        _set(self, unit_price=decimal_number(self.unit_price, "unit_price", least=0))


@dataclass(frozen=True, slots=True)
class Graduated:
    """Each unit costs what its tier costs. `unit_value`: what a unit is worth, for tiers by percent."""

    tiers: tuple[Tier, ...]
    unit_value: Decimal = Decimal(1)

    def __post_init__(self) -> None:
        _set(
            self,
            tiers=_checked_tiers(self.tiers),
            unit_value=decimal_number(self.unit_value, "unit_value", above=0),
        )


@dataclass(frozen=True, slots=True)
class Volume:
    """All units cost what the tier costs that the whole quantity reaches."""

    tiers: tuple[Tier, ...]
    unit_value: Decimal = Decimal(1)

    def __post_init__(self) -> None:
        _set(
            self,
            tiers=_checked_tiers(self.tiers),
            unit_value=decimal_number(self.unit_value, "unit_value", above=0),
        )


BLOCKS = ("up", "down", "half_up", "exact")


@dataclass(frozen=True, slots=True)
class Package:
    """Packages of `size` units, each at `price`. A begun one counts whole ("up"), not at all ("down") or in part."""

    price: Decimal
    size: Decimal
    rounding: str = "up"
    # As soon as anything is used, at least so many are paid for.
    at_least: int = 0

    def __post_init__(self) -> None:
        one_of(self.rounding, BLOCKS, "rounding")
        _set(
            self,
            price=decimal_number(self.price, "price", least=0),
            size=decimal_number(self.size, "size", above=0),
            at_least=whole_number(self.at_least, "at_least"),
        )


@dataclass(frozen=True, slots=True)
class Percentage:
    """A share of money that was metered, and what each event costs beside it.

    `unit_value` says how many minor units one unit of the quantity is worth: 1 where cents are metered, 100 where
    dollars are. `free_amount` is in units of the quantity; the other amounts are money. `event_minimum` and
    `event_maximum` bound what one paid event costs, its fixed fee included.
    """

    percent: Decimal
    fixed_fee: Decimal = ZERO
    free_events: int | None = None
    free_amount: Decimal | None = None
    event_minimum: Decimal | None = None
    event_maximum: Decimal | None = None
    unit_value: Decimal = Decimal(1)

    def __post_init__(self) -> None:
        _set(
            self,
            percent=decimal_number(self.percent, "percent", least=0),
            fixed_fee=decimal_number(self.fixed_fee, "fixed_fee", least=0),
            # None of them free is the same as no such allowance.
            free_events=(None if self.free_events is None else whole_number(self.free_events, "free_events")) or None,
            free_amount=(None if self.free_amount is None else decimal_number(self.free_amount, "free_amount", least=0))
            or None,
            event_minimum=None
            if self.event_minimum is None
            else decimal_number(self.event_minimum, "event_minimum", least=0),
            event_maximum=None
            if self.event_maximum is None
            else decimal_number(self.event_maximum, "event_maximum", least=0),
            unit_value=decimal_number(self.unit_value, "unit_value", above=0),
        )
        _in_order(self.event_minimum, self.event_maximum, "event_minimum")


@dataclass(frozen=True, slots=True)
class Flat:
    """The same in every period, whatever was used; or only where something was."""

    amount: Decimal
    only_when_used: bool = False

    def __post_init__(self) -> None:
        yes_or_no(self.only_when_used, "only_when_used")
        _set(self, amount=decimal_number(self.amount, "amount", least=0))


SHARED = ("in_proportion", "in_order")


@dataclass(frozen=True, slots=True)
class ByDimension:
    """A price of its own for each value of one or more metadata keys.

    `prices` maps a value (for several keys a tuple, where "*" stands for any) to a model; `default` prices what is not
    named, and without it that costs nothing and is named in the explanation. The free units of the charge are taken
    from the values in proportion to their usage, or in the order of `prices`.
    """

    keys: tuple[str, ...]
    prices: Mapping[Any, "Model"]
    default: "Model | None" = None
    free_units_taken: str = "in_proportion"

    def __post_init__(self) -> None:
        keys = as_key(self.keys, "keys")
        one_of(self.free_units_taken, SHARED, "free_units_taken")
        if not isinstance(self.prices, Mapping):
            raise PricingInvalid("prices must map values to prices.", code="NOT_A_MAPPING", field="prices")
        prices = {}
        for value, model in self.prices.items():
            key = as_key(value, "prices")
            if len(key) != len(keys):
                raise PricingInvalid(
                    f"The price of {' / '.join(key)} has {len(key)} values for {len(keys)} keys.",
                    code="NOT_AS_MANY",
                    field="prices",
                )
            prices[key] = self._priced(model, "prices")
        default = None if self.default is None else self._priced(self.default, "default")
        if not prices and default is None:
            raise PricingInvalid("There must be a price for some value.", code="MISSING", field="prices")
        _set(self, keys=keys, prices=prices, default=default)

    @staticmethod
    def _priced(model: object, field: str) -> "Model":
        if isinstance(model, ByDimension):
            raise PricingInvalid(
                "A price by dimension cannot hold another; name several keys instead.", code="NESTED", field=field
            )
        if isinstance(model, PerUnit | Graduated | Volume | Package | Percentage | Flat):
            return model
        return PerUnit(decimal_number(model, field))

    def price_of(self, value: tuple[str, ...]) -> "Model | None":
        """The price for a value: the one that names most of it, of equal ones the first, else the default."""
        fitting = [
            key for key in self.prices if all(word in ("*", given) for word, given in zip(key, value, strict=False))
        ]
        if not fitting:
            return self.default
        named = min(fitting, key=lambda key: key.count("*"))
        found: Model = self.prices[named]
        return found


Model = PerUnit | Graduated | Volume | Package | Percentage | Flat | ByDimension


# -- around a price


@dataclass(frozen=True, slots=True)
class Discount:
    """A share of what is left, or an amount; of usage, of the fee, or of both. `at_most` bounds what it takes.

    A period's discount may be limited to the lines of certain keys (`only`).
    """

    percent: Decimal | None = None
    amount: Decimal | None = None
    on: str = "all"
    name: str = ""
    at_most: Decimal | None = None
    only: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if (self.percent is None) == (self.amount is None):
            raise PricingInvalid(
                "A discount takes a percent or an amount, exactly one of them.", code="CONTRADICTION", field="percent"
            )
        one_of(self.on, DISCOUNTED, "on")
        as_text(self.name, "name")
        _set(
            self,
            percent=optional(self.percent, "percent"),
            amount=optional(self.amount, "amount"),
            at_most=optional(self.at_most, "at_most"),
            only=None if self.only is None else as_key(self.only, "only"),
        )
        if self.percent is not None and self.percent > 100:
            raise PricingInvalid(
                f"A discount of {plain(self.percent)} percent would pay the customer.",
                code="TOO_LARGE",
                field="percent",
            )


@dataclass(frozen=True, slots=True)
class Commitment:
    """What a period costs at least. What is missing becomes a line of its own (the true-up).

    `covers` says what counts towards it; `overage_factor` is what each unit of money above it costs. A commitment of a
    charge may be a `quantity` instead: to the price of so many units.
    """

    amount: Decimal | None = None
    covers: str = "usage"
    name: str = ""
    overage_factor: Decimal = Decimal(1)
    true_up: bool = True
    quantity: Decimal | None = None

    def __post_init__(self) -> None:
        one_of(self.covers, DISCOUNTED, "covers")
        yes_or_no(self.true_up, "true_up")
        as_text(self.name, "name")
        if (self.amount is None) == (self.quantity is None):
            raise PricingInvalid(
                "A commitment is to an amount or to a quantity, exactly one of them.",
                code="CONTRADICTION",
                field="amount",
            )
        _set(
            self,
            amount=optional(self.amount, "amount"),
            quantity=optional(self.quantity, "quantity"),
            overage_factor=decimal_number(self.overage_factor, "overage_factor", least=0),
        )


def _discounts(found: object) -> tuple[Discount, ...]:
    if isinstance(found, Discount):
        return (found,)
    if isinstance(found, str | Mapping) or not isinstance(found, Iterable):
        raise PricingInvalid("discounts must be a list.", code="NOT_A_LIST", field="discounts")
    discounts = tuple(found)
    for discount in discounts:
        if not isinstance(discount, Discount):
            raise PricingInvalid(f"No discount: {discount!r}.", code="NOT_A_DISCOUNT", field="discounts")
        if discount.only is not None:
            raise PricingInvalid(
                "A discount of one charge or fee is on that one; keys are named by a discount of the period.",
                code="CONTRADICTION",
                field="discounts.only",
            )
    return discounts


@dataclass(frozen=True, slots=True)
class ChargeRule:
    """How one metered quantity becomes an amount.

    The quantity is first multiplied by `unit_factor` and counted in units of `unit_size` (rounded as `unit_rounding`
    says), then the free units are taken off, then comes the price, then each of the discounts, then the maximum, then
    the minimum. `each` prices every one of the usage's values by itself and adds up; with `limits_each` the maximum,
    the minimum and the commitment are each value's own. `prorated` multiplies the price by the fraction of a partial
    period.
    """

    price: Model
    free_units: Decimal = ZERO
    discounts: tuple[Discount, ...] = ()
    maximum: Decimal | None = None
    minimum: Decimal | None = None
    unit_size: Decimal = Decimal(1)
    unit_rounding: str = "exact"
    unit_factor: Decimal = Decimal(1)
    # Digits after the point that the rounding keeps.
    unit_digits: int = 0
    # Whether tiers count from the first unit of all, or from the first that is not free.
    free_units_in_tiers: bool = False
    each: bool = False
    limits_each: bool = False
    prorated: bool = False
    # What this charge alone commits to, after its minimum; its own amount is raised, no line is added.
    commitment: Commitment | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.price, PerUnit | Graduated | Volume | Package | Percentage | Flat | ByDimension):
            raise PricingInvalid(f"No price: {self.price!r}.", code="NOT_A_PRICE", field="price")
        one_of(self.unit_rounding, BLOCKS, "unit_rounding")
        yes_or_no(self.each, "each")
        yes_or_no(self.limits_each, "limits_each")
        yes_or_no(self.free_units_in_tiers, "free_units_in_tiers")
        if self.limits_each and not self.each:
            raise PricingInvalid(
                "Limits for each value need each value priced by itself.", code="CONTRADICTION", field="limits_each"
            )
        yes_or_no(self.prorated, "prorated")
        _set(
            self,
            free_units=decimal_number(self.free_units, "free_units", least=0),
            discounts=_discounts(self.discounts),
            maximum=optional(self.maximum, "maximum"),
            minimum=optional(self.minimum, "minimum"),
            unit_size=decimal_number(self.unit_size, "unit_size", above=0),
            unit_factor=decimal_number(self.unit_factor, "unit_factor", above=0),
            unit_digits=whole_number(self.unit_digits, "unit_digits"),
        )
        if self.unit_digits > MOST_DIGITS:
            raise PricingInvalid(
                f"unit_digits can be {MOST_DIGITS} at most, not {self.unit_digits}.",
                code="TOO_LARGE",
                field="unit_digits",
            )
        _in_order(self.minimum, self.maximum, "minimum")
        if self.commitment is not None and not isinstance(self.commitment, Commitment):
            raise PricingInvalid(f"No commitment: {self.commitment!r}.", code="NOT_A_COMMITMENT", field="commitment")


@dataclass(frozen=True, slots=True)
class FeeRule:
    """A fixed fee for each of `quantity` seats or licences. A negative amount gives money back."""

    amount: Decimal
    quantity: Decimal = Decimal(1)
    discounts: tuple[Discount, ...] = ()

    def __post_init__(self) -> None:
        _set(
            self,
            amount=decimal_number(self.amount, "amount"),
            quantity=decimal_number(self.quantity, "quantity"),
            discounts=_discounts(self.discounts),
        )


@dataclass(frozen=True, slots=True)
class Credit:
    """Money a customer has paid ahead. Drawn by priority (lowest first), then expiry, then age; never beyond expiry.

    `covers` limits it to lines of that kind, `only` to lines of those keys. Before `starts_at` it is not touched.
    `applies` says whether it pays before or after tax, where that is not what the convention `credit` says for all.
    """

    key: str
    amount: Decimal
    priority: int = 0
    expires_at: datetime | None = None
    granted_at: datetime | None = None
    starts_at: datetime | None = None
    covers: str = "all"
    only: tuple[str, ...] | None = None
    applies: str | None = None

    def __post_init__(self) -> None:
        one_of(self.covers, DISCOUNTED, "covers")
        as_text(self.key, "key")
        if self.applies is not None:
            one_of(self.applies, APPLIES, "applies")
        _set(
            self,
            amount=decimal_number(self.amount, "amount", least=0),
            priority=whole_number(self.priority, "priority", least=None),
            only=None if self.only is None else as_key(self.only, "only"),
        )
        for name in ("expires_at", "granted_at", "starts_at"):
            instant = getattr(self, name)
            if instant is not None and (not isinstance(instant, datetime) or instant.tzinfo is None):
                raise PricingInvalid(f"{name} must be an instant with a time zone.", code="NOT_AN_INSTANT", field=name)


@dataclass(frozen=True, slots=True)
class Tax:
    """A rate on a line. A `compound` one is also on the taxes before it."""

    name: str
    percent: Decimal
    compound: bool = False

    def __post_init__(self) -> None:
        yes_or_no(self.compound, "compound")
        as_text(self.name, "name")
        _set(self, percent=decimal_number(self.percent, "percent", least=0))


def _choice(default: str, *known: str) -> Any:
    return field(default=default, metadata={"known": (default, *known)})


@dataclass(frozen=True, slots=True)
class Conventions:
    """What billing systems do differently. The defaults are ours; `docs/pricing.md` says what each one means."""

    tier_bound: str = _choice("inclusive", "exclusive")
    first_tier_fee_at_zero: bool = False
    beyond_last_tier: str = _choice("refused", "last", "free")
    below_zero: str = _choice("credited", "free", "refused")
    free_ends: str = _choice("first", "amount", "last")
    free_amount_bound: str = _choice("inclusive", "exclusive")
    proration: str = _choice("second", "day")
    charge_last_day: bool = False
    prorate_free_units: bool = False
    prorate_flat: bool = True
    prorate_tier_fees: bool = False
    prorate_minimum: bool = True
    prorate_maximum: bool = False
    prorate_commitment: bool = True
    prorate_discounts: bool = False
    discount_base: str = _choice("left", "price")
    discount_rounding: str = _choice("exact", "rounded")
    period_discounts: str = _choice("before_limits", "last")
    rounding: str = _choice("line", "invoice", "component")
    rounding_mode: str = field(default="half_up", metadata={"known": ROUNDING_MODES})
    credit: str = _choice(*APPLIES)
    tax_rounding: str = _choice("line", "invoice", "total", "invoice_net", "invoice_gross")
    inclusive_rounds: str = _choice("tax", "net")
    spread: str = _choice("largest_remainder", "largest_amount", "in_order", "exact")

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if "known" in one.metadata:
                one_of(value, one.metadata["known"], one.name)
            else:
                yes_or_no(value, one.name)


def conventions_to_data(conventions: Conventions) -> dict[str, Any]:
    """Those that differ from the defaults, as plain data. No difference: an empty dict."""
    return {
        one.name: getattr(conventions, one.name)
        for one in fields(conventions)
        if getattr(conventions, one.name) != one.default
    }


def conventions_from_data(data: Mapping[str, Any] | None) -> Conventions:
    """The conventions that plain data names, the defaults for the others."""
    if data is None:
        return Conventions()
    if not isinstance(data, Mapping):
        raise PricingInvalid("conventions must be a mapping.", code="NOT_A_MAPPING", field="conventions")
    known = {one.name for one in fields(Conventions)}
    for name in data:
        if name not in known:
            raise PricingInvalid(
                f"There is no convention {name!r}; known are {', '.join(sorted(known))}.",
                code="UNKNOWN_KEY",
                field=f"conventions.{name}",
            )
    return Conventions(**data)
