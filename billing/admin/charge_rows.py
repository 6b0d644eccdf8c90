"""A meter's row in the form of a price: a field for each part of each model, typed in the major unit.

The form knows the usual shapes. A rule that the API made with more than these (packages by tier, several keys) is kept
as it is until another model is chosen.
"""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from django import forms

from billing.admin.row_fields import Column, RowsField, exact_number
from billing.models.products import LARGEST_THRESHOLD
from billing.money import is_currency, plain, to_major, to_minor
from billing.pricing import (
    ByDimension,
    ChargeRule,
    Discount,
    Flat,
    Graduated,
    Package,
    Percentage,
    PerUnit,
    PricingInvalid,
    Tier,
    Volume,
)
from customers.admin.forms import MajorAmountField, check_major_digits, choice, model_choice, switch, text, whole_number
from customers.admin.forms import width as wide
from meters.models import Meter

# A price per unit has 12 digits after the point in the minor unit; so may every amount of a charge.
UNIT_PRICE_DIGITS = 12

# The contract's price per unit has five digits before the point, in minor units.
LARGEST_UNIT_PRICE = Decimal(100_000)
# The choice for a rule that the form cannot say.
KEPT = "kept"
MODELS = [
    ("per_unit", "Per unit: each costs the same"),
    ("graduated", "Graduated: each unit at its tier's price"),
    ("volume", "Volume: all units at the price of the tier reached"),
    ("package", "Package: blocks of units"),
    ("percentage", "Percentage of a metered amount"),
    ("flat", "Flat: one amount each period"),
    ("by_dimension", "By dimension: a price for each value of a metadata key"),
]
ROUNDINGS = [
    ("up", "counts whole"),
    ("down", "does not count"),
    ("half_up", "counts from its half on"),
    ("exact", "counts in part"),
]
WORTH = [("major", "whole currency units, such as dollars"), ("minor", "the smallest unit, such as cents")]

TIERS = (
    Column("up_to", "Up to", blank="∞"),
    Column("unit_price", "Price per unit", "money", blank="0"),
    Column("flat_fee", "Fee of the tier", "money", blank="0"),
)
PRICES = (Column("value", "Value", "text"), Column("unit_price", "Price per unit", "money"))
DISCOUNTS = (Column("percent", "Per cent"), Column("amount", "or amount", "money"), Column("name", "Called", "text"))


def amount_field(label: str, *, help_text: str = "", required: bool = False, means: bool = False) -> Any:
    field = MajorAmountField(
        label=label,
        required=required,
        min_value=Decimal(0),
        max_digits=40,
        decimal_places=None,
        help_text=help_text,
    )
    field.mb_means = means  # type: ignore[attr-defined]
    return field


def major_text(minor: Decimal | None, currency: str) -> str:
    """A minor amount as it would be typed: "0.001", "49"; nothing for none."""
    return "" if minor is None else plain(to_major(minor, currency))


class ChargeRow(forms.Form):
    """One meter of the price."""

    meter = wide(model_choice("Meter", Meter.objects.none()), "mb-half")
    model = wide(choice("How it is priced", MODELS, required=False, initial="per_unit"), "mb-half")
    price_per_unit = wide(
        amount_field("Price per unit", means=True, help_text="In the major unit, such as 0.001."), "mb-third"
    )
    tiers = RowsField(
        label="Tiers",
        columns=TIERS,
        add="Add a tier",
        help_text="A tier goes from the bound of the one before it up to its own; leave the last bound empty. Its fee "
        "is charged once usage reaches into it.",
    )
    package_price = wide(amount_field("Price of a package"), "mb-third")
    package_size = wide(exact_number("Units in a package"), "mb-third")
    package_rounding = wide(choice("A begun package", ROUNDINGS, required=False, initial="up"), "mb-third")
    percent = wide(exact_number("Per cent", help_text="Of the amount that the meter adds up."), "mb-third")
    worth = wide(choice("The meter counts", WORTH, required=False, initial="major"), "mb-third")
    fixed_fee = wide(amount_field("Fixed part of each event"), "mb-third")
    free_events = wide(
        whole_number("Free events", required=False, most=LARGEST_THRESHOLD, help_text="The first of each period."),
        "mb-third",
    )
    free_amount = wide(
        exact_number("Free amount", help_text="As the meter counts; with free events, whichever ends first."),
        "mb-third",
    )
    event_minimum = wide(amount_field("An event costs at least"), "mb-third")
    event_maximum = wide(amount_field("An event costs at most"), "mb-third")
    flat_amount = wide(amount_field("Amount of each period"), "mb-third")
    only_when_used = switch("Only in periods with usage")
    dimension = wide(
        text(
            "Metadata key",
            required=False,
            max_length=100,
            help_text="One by which the meter groups its usage.",
            attrs={"placeholder": "region"},
        ),
        "mb-third",
    )
    default_price = wide(
        amount_field("Price of any other value", help_text="Empty: other values cost nothing."), "mb-third"
    )
    prices = RowsField(label="Prices", columns=PRICES, add="Add a value")
    free_threshold = wide(
        whole_number(
            "Free units each period",
            required=False,
            most=LARGEST_THRESHOLD,
            initial=0,
            help_text="Only units beyond these cost something.",
            attrs={"max": str(LARGEST_THRESHOLD)},
        ),
        "mb-third",
    )
    minimum = wide(amount_field("At least, each period"), "mb-third")
    maximum = wide(amount_field("At most, each period"), "mb-third")
    discounts = RowsField(
        label="Discounts",
        columns=DISCOUNTS,
        add="Add a discount",
        help_text="Taken off one after the other, each from what the ones before it left.",
    )

    # What of the row belongs to which models; the page shows only those of the chosen one.
    SECTIONS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
        (("per_unit",), ("price_per_unit",)),
        (("graduated", "volume"), ("tiers",)),
        (("package",), ("package_price", "package_size", "package_rounding")),
        (
            ("percentage",),
            ("percent", "worth", "fixed_fee", "free_events", "free_amount", "event_minimum", "event_maximum"),
        ),
        (("flat",), ("flat_amount", "only_when_used")),
        (("by_dimension",), ("dimension", "default_price", "prices")),
        (("per_unit", "graduated", "volume", "package", "by_dimension"), ("free_threshold",)),
    )
    AROUND = ("minimum", "maximum", "discounts")

    def __init__(self, *args: Any, meters: Any, kept: Mapping[int, ChargeRule] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field: Any = self.fields["meter"]
        field.queryset = meters
        field.label_from_instance = lambda meter: (
            f"{meter.name} ({meter.measurement_unit}){' – archived' if meter.is_archived() else ''}"
        )
        self.kept = kept or {}
        if self.kept:
            model: Any = self.fields["model"]
            model.choices = [*MODELS, (KEPT, "As the API set it, unchanged")]
        self.rule: ChargeRule | None = None

    @property
    def sections(self) -> list[tuple[str, list[Any]]]:
        """(the models that show it, its fields) of each part of the row below the meter."""
        return [(" ".join(models), [self[name] for name in names]) for models, names in self.SECTIONS]

    @property
    def around(self) -> list[Any]:
        return [self[name] for name in self.AROUND]

    @property
    def opens_around(self) -> bool:
        """Whether the limits and discounts of the row say anything."""
        return any(self[name].errors or self[name].value() for name in self.AROUND)

    def read(self, currency: str) -> bool:
        """Make the rule of a valid row in a currency; False, with the reason beside its field, where it makes none."""
        if not self.cleaned_data.get("meter"):
            return True
        if not self._digits_fit(currency):
            return False
        try:
            self.rule = self._rule(currency)
        except PricingInvalid as error:
            self.add_error(_FIELDS.get(error.field, "model"), error.message)
        except _Missing as missing:
            self.add_error(missing.args[0], missing.args[1])
        price = self.rule.price if self.rule else None
        if isinstance(price, PerUnit) and price.unit_price >= LARGEST_UNIT_PRICE:
            largest = plain(to_major(LARGEST_UNIT_PRICE, currency))
            self.add_error("price_per_unit", f"A price per unit must be below {largest} {currency}.")
        return self.rule is not None and not self.errors

    def _digits_fit(self, currency: str) -> bool:
        if not is_currency(currency):
            return False
        for name, field in self.fields.items():
            found = self.cleaned_data.get(name)
            if isinstance(field, RowsField):
                amounts = [row[column.name] for row in found or [] for column in field.columns if column.money]
            else:
                amounts = [found] if getattr(field, "mb_affix", "") else []
            for amount in amounts:
                if problem := check_major_digits(amount, currency, digits=UNIT_PRICE_DIGITS):
                    self.add_error(name, problem)
        return not self.errors

    def _rule(self, currency: str) -> ChargeRule:
        values = self.cleaned_data
        chosen = values.get("model") or "per_unit"
        if chosen == KEPT:
            if values["meter"].pk not in self.kept:
                raise _Missing("model", "This meter has no price that could be kept; choose how it is priced.")
            return self.kept[values["meter"].pk]

        def minor(amount: Decimal | None) -> Decimal | None:
            return None if amount is None else to_minor(amount, currency)

        if values["minimum"] is not None and values["maximum"] is not None and values["minimum"] > values["maximum"]:
            raise _Missing("minimum", "The least is more than the most.")
        free = chosen in self.SECTIONS[-1][0]
        return ChargeRule(
            price=_READ[chosen](values, minor),
            free_units=Decimal(values["free_threshold"] or 0) if free else Decimal(0),
            discounts=tuple(_discount(row, minor) for row in values["discounts"]),
            maximum=minor(values["maximum"]),
            minimum=minor(values["minimum"]),
        )


class _Missing(Exception):
    """A field that the chosen model needs: its name and what to say beside it."""


Minor = Callable[[Decimal | None], Any]
# Where the page shows what the rule says of one of its fields.
_FIELDS = {
    "tiers": "tiers",
    "up_to": "tiers",
    "size": "package_size",
    "prices": "prices",
    "keys": "dimension",
    "percent": "percent",
    "discounts": "discounts",
}


def _needed(values: Mapping[str, Any], name: str) -> Any:
    if values.get(name) in (None, "", []):
        raise _Missing(name, "This field is required.")
    return values[name]


def _per_unit(values: Mapping[str, Any], minor: Minor) -> PerUnit:
    price = _needed(values, "price_per_unit")
    if price <= 0:
        raise _Missing("price_per_unit", "The price per unit must be above zero.")
    return PerUnit(minor(price))


def _tiers(values: Mapping[str, Any], minor: Minor) -> tuple[Tier, ...]:
    return tuple(
        Tier(row["up_to"], minor(row["unit_price"]) or Decimal(0), minor(row["flat_fee"]) or Decimal(0))
        for row in _needed(values, "tiers")
    )


def _package(values: Mapping[str, Any], minor: Minor) -> Package:
    price = minor(_needed(values, "package_price"))
    return Package(price, _needed(values, "package_size"), values["package_rounding"] or "up")


def _percentage(values: Mapping[str, Any], minor: Minor) -> Percentage:
    least, most = values["event_minimum"], values["event_maximum"]
    if least is not None and most is not None and least > most:
        raise _Missing("event_minimum", "The least is more than the most.")
    return Percentage(
        _needed(values, "percent"),
        fixed_fee=minor(values["fixed_fee"]) or Decimal(0),
        free_events=values["free_events"],
        free_amount=values["free_amount"],
        event_minimum=minor(least),
        event_maximum=minor(most),
        unit_value=Decimal(1) if values["worth"] == "minor" else minor(Decimal(1)),
    )


def _flat(values: Mapping[str, Any], minor: Minor) -> Flat:
    return Flat(minor(_needed(values, "flat_amount")), only_when_used=values["only_when_used"])


def _by_dimension(values: Mapping[str, Any], minor: Minor) -> ByDimension:
    prices = {}
    for row in _needed(values, "prices"):
        if not row["value"] or row["unit_price"] is None:
            raise _Missing("prices", "Each row needs a value and its price.")
        if row["value"] in prices:
            raise _Missing("prices", f"The value “{row['value']}” has two prices.")
        prices[row["value"]] = PerUnit(minor(row["unit_price"]))
    default = minor(values["default_price"])
    return ByDimension((_needed(values, "dimension"),), prices, default=None if default is None else PerUnit(default))


def _discount(row: Mapping[str, Any], minor: Minor) -> Discount:
    if (row["percent"] is None) == (row["amount"] is None):
        raise _Missing("discounts", "Each discount needs a percentage or an amount, not both.")
    try:
        return Discount(percent=row["percent"], amount=minor(row["amount"]), name=row["name"])
    except PricingInvalid as error:
        raise _Missing("discounts", error.message) from error


_READ: dict[str, Callable[[Mapping[str, Any], Minor], Any]] = {
    "per_unit": _per_unit,
    "graduated": lambda values, minor: Graduated(_tiers(values, minor)),
    "volume": lambda values, minor: Volume(_tiers(values, minor)),
    "package": _package,
    "percentage": _percentage,
    "flat": _flat,
    "by_dimension": _by_dimension,
}


# -- and back -------------------------------------------------------------------------------------------------


def row_of(rule: ChargeRule, currency: str) -> dict[str, Any]:
    """What would be typed for a rule; the model is KEPT where the form cannot say all of it."""
    row = _typed(rule, currency)
    return row if _says_all(row, rule, currency) else {"model": KEPT}


def _typed(rule: ChargeRule, currency: str) -> dict[str, Any]:
    def shown(amount: Decimal | None) -> str:
        return major_text(amount, currency)

    def number(value: Decimal | int | None) -> str:
        return "" if value is None else plain(Decimal(value))

    row: dict[str, Any] = {"minimum": shown(rule.minimum), "maximum": shown(rule.maximum)}
    row["free_threshold"] = int(rule.free_units)
    row["discounts"] = [
        {"percent": number(one.percent), "amount": shown(one.amount), "name": one.name} for one in rule.discounts
    ]
    price = rule.price
    if isinstance(price, PerUnit):
        return row | {"model": "per_unit", "price_per_unit": shown(price.unit_price)}
    if isinstance(price, Graduated | Volume):
        tiers = [
            {"up_to": number(tier.up_to), "unit_price": shown(tier.unit_price), "flat_fee": shown(tier.flat_fee)}
            for tier in price.tiers
        ]
        return row | {"model": "graduated" if isinstance(price, Graduated) else "volume", "tiers": tiers}
    if isinstance(price, Package):
        return row | {
            "model": "package",
            "package_price": shown(price.price),
            "package_size": number(price.size),
            "package_rounding": price.rounding,
        }
    if isinstance(price, Percentage):
        return row | {
            "model": "percentage",
            "percent": number(price.percent),
            "worth": "minor" if price.unit_value == 1 else "major",
            "fixed_fee": shown(price.fixed_fee),
            "free_events": price.free_events,
            "free_amount": number(price.free_amount),
            "event_minimum": shown(price.event_minimum),
            "event_maximum": shown(price.event_maximum),
        }
    if isinstance(price, Flat):
        return row | {
            "model": "flat",
            "flat_amount": shown(price.amount),
            "only_when_used": price.only_when_used,
        }
    return row | {
        "model": "by_dimension",
        "dimension": price.keys[0],
        "default_price": shown(price.default.unit_price) if isinstance(price.default, PerUnit) else "",
        "prices": [
            {"value": key[0], "unit_price": shown(model.unit_price)}
            for key, model in price.prices.items()
            if isinstance(model, PerUnit)
        ],
    }


def _says_all(row: dict[str, Any], rule: ChargeRule, currency: str) -> bool:
    """Whether reading the typed row gives the very rule."""
    data: Any = _Data()
    for name, value in row.items():
        if isinstance(value, list):
            for cells in value:
                for column, cell in cells.items():
                    data.setdefault(f"{name}_{column}", []).append(cell)
        elif value not in (None, "", False):
            data[name] = [str(value)]
    form = _Unbound(data)
    return form.is_valid() and form.read_alone(currency) == rule


class _Data(dict[str, list[str]]):
    """Typed values as a request has them."""

    def get(self, name: str, default: Any = None) -> Any:
        return self[name][-1] if name in self else default

    def getlist(self, name: str) -> list[str]:
        return super().get(name, [])


class _Unbound(ChargeRow):
    """A row without its meter."""

    def __init__(self, data: Any) -> None:
        super().__init__(data, meters=Meter.objects.none())
        del self.fields["meter"]

    def read_alone(self, currency: str) -> ChargeRule | None:
        try:
            return self._rule(currency) if self._digits_fit(currency) else None
        except (PricingInvalid, _Missing):
            return None
