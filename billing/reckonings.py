"""How a line's amount came about, for people: its stored explanation and evidence as rows and tables of text.

Nothing is computed here. What `billing.pricing` and the closing wrote down when the line was billed is put into words;
a part that this module has no words for is shown by its own name, so nothing that was written stays hidden.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any

from billing.models import InvoiceLine
from billing.money import format_amount, format_unit_price, format_units, to_decimal

DASH = "–"

# What each convention says where it applied, by its value as text.
_CONVENTIONS: Mapping[str, Mapping[str, str]] = {
    "tier_bound": {
        "inclusive": "A tier's upper bound belongs to it",
        "exclusive": "A tier's upper bound belongs to the next tier",
    },
    "first_tier_fee_at_zero": {
        "True": "The first tier's flat fee is charged without usage too",
        "False": "No usage, no flat fee of a tier",
    },
    "beyond_last_tier": {
        "refused": "Beyond the last tier nothing is priced",
        "last": "Beyond the last tier its price goes on",
        "free": "Beyond the last tier usage is free",
    },
    "below_zero": {
        "credited": "A quantity below zero is credited at its price",
        "free": "A quantity below zero costs nothing",
        "refused": "A quantity below zero is not priced",
    },
    "prorate_free_units": {
        "True": "Free units are cut in a partial period",
        "False": "Free units are whole in a partial period",
    },
    "prorate_flat": {
        "True": "Flat amounts are cut in a partial period",
        "False": "Flat amounts are whole in a partial period",
    },
    "prorate_tier_fees": {
        "True": "Flat fees of tiers are cut in a partial period",
        "False": "Flat fees of tiers are whole in a partial period",
    },
    "prorate_minimum": {
        "True": "The minimum is cut in a partial period",
        "False": "The minimum is whole in a partial period",
    },
    "prorate_maximum": {
        "True": "The maximum is cut in a partial period",
        "False": "The maximum is whole in a partial period",
    },
    "prorate_commitment": {
        "True": "The commitment is cut in a partial period",
        "False": "The commitment is whole in a partial period",
    },
    "rounding": {
        "line": "Rounded by line",
        "invoice": "Rounded by invoice",
        "component": "Rounded by part of the line",
    },
    "free_ends": {
        "first": "Free events or the free amount: what runs out first ends both",
        "amount": "The free amount decides when free events end",
        "last": "Free events or the free amount: what runs out last ends both",
    },
    "discount_base": {
        "left": "A discount is on what earlier ones left",
        "price": "A discount is on the price before any",
    },
    "prorate_discounts": {
        "True": "Discounts are cut in a partial period",
        "False": "Discounts are whole in a partial period",
    },
    "proration": {
        "second": "Parts of a period are counted by the second",
        "day": "Parts of a period are counted by day",
    },
    "charge_last_day": {
        "True": "The last day of a cancelled period is charged",
        "False": "The last day of a cancelled period is not charged",
    },
}
_ROUNDING = {
    "half_up": "Rounded once, half up",
    "half_even": "Rounded once, half to even",
    "up": "Rounded up once",
    "down": "Rounded down once",
}
_MODELS = {
    "per_unit": "Per unit",
    "graduated": "Graduated: each unit at the price of its tier",
    "volume": "Volume: all units at the price of the tier reached",
    "package": "Packages",
    "percentage": "Percentage",
    "flat": "Flat",
    "by_dimension": "A price per value",
    "fee": "Fee",
    "commitment": "Up to the commitment",
    "adjustment": "Adjustment of a period that was billed",
}
# Already said elsewhere on the page, or inside another row.
_SAID = {
    "should", "should_quantity", "should_amount", "billed_quantity", "billed_amount",
    "text", "quantity", "free_units", "billable_units", "unit_price", "amount", "currency", "unit",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Table:
    """A part that has rows of its own, such as the tiers that were used. `numeric` says which columns are figures."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Reckoning:
    """One line explained: a sentence, steps in order, tables, the conventions, and what it stands on."""

    line: InvoiceLine
    title: str
    text: str
    amount: str
    steps: tuple[tuple[str, str], ...]
    tables: tuple[Table, ...]
    conventions: tuple[str, ...]
    evidence: tuple[tuple[str, str], ...] = field(default=())


def reckonings(lines: Iterable[InvoiceLine], *, currency: str, for_customer: bool = False) -> list[Reckoning]:
    """Each line's way to its amount, in the order given. A customer is spared what only an operator can follow."""
    return [_Reckoner(line, currency, for_customer).reckoning() for line in lines]


class _Reckoner:
    """Puts one line's explanation into words, part by part, and remembers which parts it has said."""

    def __init__(self, line: InvoiceLine, currency: str, for_customer: bool) -> None:
        self.for_customer = for_customer
        self.line = line
        self.told: dict[str, Any] = dict(line.explanation or {})
        self.currency = currency

    def reckoning(self) -> Reckoning:
        line = self.line
        steps = [*self.before(), *self.model(self.told), *self.after(self.told), *self.adjusted()]
        tables = tuple(self.tables(self.told))
        conventions = tuple(self.conventions(self.told.get("conventions")))
        return Reckoning(
            line=line,
            title=line.description,
            text=str(self.told.get("text", "")),
            amount=self.money(line.amount),
            steps=(*steps, *self.unsaid(), *self.rounding(), *self.settled()),
            tables=tables,
            conventions=conventions,
            evidence=() if self.for_customer else tuple(self.evidence()),
        )

    # -- the steps, in the order in which they were taken -------------------------------------------------------

    def before(self) -> Iterable[tuple[str, str]]:
        line = self.line
        yield "Quantity", f"{format_units(line.quantity)} {line.measurement_unit}".strip()
        if line.free_units:
            yield "Free", format_units(line.free_units)
        if line.billable_units != line.quantity:
            yield "Chargeable", format_units(line.billable_units)
        if line.unit_price is not None:
            yield "Price per unit", format_unit_price(line.unit_price, self.currency)

    def adjusted(self) -> Iterable[tuple[str, str]]:
        """What the period should have cost by now, step by step, and what was billed for it so far."""
        told = self.told
        if isinstance(should := told.get("should"), dict):
            quantity = f"{self.units(told.get('should_quantity'))} {self.line.measurement_unit}".strip()
            yield "By now", quantity
            for name, value in [*self.model(should), *self.after(should)]:
                yield f"By now: {name[:1].lower()}{name[1:]}", value
            yield "By now it costs", self.money(told.get("should_amount"))
        if "billed_amount" in told:
            quantity = f"{self.units(told.get('billed_quantity'))} {self.line.measurement_unit}".strip()
            yield f"Billed so far, {quantity}", self.money(told["billed_amount"])

    def model(self, told: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        if model := told.get("model"):
            yield "Model", _MODELS.get(str(model), _words(model))
        if isinstance(packages := told.get("packages"), dict):
            yield (
                "Packages",
                f"{self.units(packages.get('count'))} of {self.units(packages.get('size'))} at "
                f"{self.price(packages.get('price'))}, rounded {packages.get('rounding', 'up')}",
            )
        if isinstance(share := told.get("percentage"), dict):
            free = f", {self.units(share['free'])} free" if _number(share.get("free")) else ""
            yield (
                f"{self.units(share.get('percent'))} % of {self.units(share.get('of'))}{free}",
                self.price(share.get("amount")),
            )
        if isinstance(events := told.get("events"), dict):
            free = f" after {events['free']} free" if events.get("free") else ""
            yield (
                f"{events.get('charged', events.get('count'))} events at {self.price(events.get('fixed_fee'))}{free}",
                self.price(events.get("amount")),
            )
        if isinstance(flat := told.get("flat"), dict):
            yield "Flat amount", self.price(flat.get("charged", flat.get("amount")))
        if fraction := told.get("fraction"):
            yield "Part of the period", str(fraction)

    def after(self, told: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        if "price" in told:
            yield "Price before discount and bounds", self.price(told["price"])
        for discount in told.get("discounts") or ():
            name = str(discount.get("name") or "Discount")
            percent = f" {self.units(discount['percent'])} %" if discount.get("percent") else ""
            yield f"{name}{percent}", self.price(f"-{discount.get('took', 0)}")
        for name, label, moved, sign in (
            ("maximum", "At most", "took", "-"),
            ("minimum", "At least", "added", ""),
        ):
            bound = told.get(name)
            if isinstance(bound, dict):
                yield (
                    f"{label} {self.price(bound.get('amount'))}",
                    self.price(f"{sign}{bound[moved]}") if _number(bound.get(moved)) else "did not apply",
                )
        if isinstance(committed := told.get("commitment"), dict):
            yield f"Committed to {self.price(committed.get('amount'))}", f"spent {self.price(committed.get('spent'))}"
            if _number(committed.get("added")):
                yield "Added up to the commitment", self.price(committed["added"])
            if _number(committed.get("overage")):
                yield f"Beyond it, times {committed.get('overage_factor')}", self.price(committed["overage"])

    def rounding(self) -> Iterable[tuple[str, str]]:
        line, told = self.line, self.told
        exact = self.price(line.exact_amount)
        yield "Exactly", f"{exact} ({told['exact']} in the minor unit)" if told.get("exact") else exact
        how = told.get("rounding")
        yield _ROUNDING.get(str(how), "Rounded once, half up"), self.money(line.amount)

    def settled(self) -> Iterable[tuple[str, str]]:
        line = self.line
        if line.credit:
            yield "Prepaid credit", self.money(-line.credit)
        for rate in line.taxes:
            included = ", included" if line.tax_inclusive else ""
            yield (
                f"{rate.get('name', 'Tax')} {self.units(rate.get('percent'))} %{included}",
                self.money(rate.get("amount")),
            )
        if line.tax_reason and not (self.for_customer and line.tax_reason.startswith("No tax")):
            yield "Tax", line.tax_reason
        if line.total != line.amount:
            yield "With credit and tax", self.money(line.total)

    # -- tables ---------------------------------------------------------------------------------------------------

    def tables(self, told: Mapping[str, Any], name: str = "") -> Iterable[Table]:
        of = f" of {name}" if name else ""
        if tiers := told.get("tiers"):
            yield Table(
                f"Tiers used{of}",
                ("Tier", "From", "Up to", "Units", "Price", "Flat fee", "Amount"),
                tuple(
                    (
                        str(tier.get("tier", "")),
                        self.units(tier.get("from")),
                        "and more" if tier.get("up_to") is None else self.units(tier["up_to"]),
                        self.units(tier.get("units")),
                        self.of_tier(tier),
                        self.price(tier["flat_fee"]) if _number(tier.get("flat_fee")) else DASH,
                        self.price(tier.get("amount")),
                    )
                    for tier in tiers
                ),
            )
        if values := told.get("values"):
            yield Table(
                f"By {', '.join(map(str, told.get('keys', ('value',))))}",
                ("Value", "Quantity", "Free", "Chargeable", "Price", "Amount"),
                (*map(self.of_value, values), *map(self.without_price, told.get("unpriced") or ())),
            )
            for one in values:
                yield from self.tables(one, _value(one.get("value")))
        if isinstance(should := told.get("should"), dict):
            yield from self.tables(should, "what it should have cost")

    def of_value(self, one: Mapping[str, Any]) -> tuple[str, ...]:
        return (
            _value(one.get("value")),
            self.units(one.get("quantity")),
            self.units(one.get("free_units", "0")),
            self.units(one.get("billable_units")),
            self.price(one["unit_price"]) if one.get("unit_price") else _words(one.get("model", "")),
            self.price(one.get("amount")),
        )

    def without_price(self, one: Mapping[str, Any]) -> tuple[str, ...]:
        return _value(one.get("value")), self.units(one.get("quantity")), DASH, DASH, "no price", DASH

    def of_tier(self, tier: Mapping[str, Any]) -> str:
        if tier.get("percent"):
            return f"{self.units(tier['percent'])} %"
        if tier.get("package_size"):
            return f"{self.price(tier.get('unit_price'))} per {self.units(tier['package_size'])}"
        return self.price(tier.get("unit_price"))

    def conventions(self, told: object) -> Iterable[str]:
        for name, value in told.items() if isinstance(told, dict) else ():
            yield _CONVENTIONS.get(name, {}).get(str(value), f"{_words(name)}: {_words(value)}")

    # -- what nobody has put into words yet -----------------------------------------------------------------------

    def unsaid(self) -> Iterable[tuple[str, str]]:
        said = _SAID | {
            "model", "packages", "percentage", "events", "flat", "fraction", "price", "discounts", "maximum", "minimum",
            "commitment", "exact", "exact_amount", "rounding", "tiers", "values", "unpriced", "keys", "conventions",
        }  # fmt: skip
        for name, value in self.told.items():
            if name not in said:
                yield from self.plainly(_words(name), value)

    def plainly(self, name: str, value: object, depth: int = 0) -> Iterable[tuple[str, str]]:
        if isinstance(value, dict) and depth < 2:
            for inner, what in value.items():
                if inner not in ("tiers", "values", "conventions"):
                    yield from self.plainly(f"{name}: {_words(inner).lower()}", what, depth + 1)
        elif isinstance(value, list) and all(not isinstance(item, dict | list) for item in value):
            yield name, ", ".join(map(str, value))
        elif not isinstance(value, dict | list):
            yield name, "yes" if value is True else "no" if value is False else DASH if value is None else str(value)

    def evidence(self) -> Iterable[tuple[str, str]]:
        line = self.line
        if line.charge is not None:
            yield "Meter", line.charge.meter.name
            yield "Price version", str(line.charge.price)
        if line.meter_version:
            yield "Meter version", line.meter_version
        if line.events_counted is not None:
            yield "Events counted", format_units(Decimal(line.events_counted))
        if line.watermark is not None:
            yield "Event log up to", str(line.watermark)
        if line.events_digest:
            yield "Digest of the events", line.events_digest

    # -- figures --------------------------------------------------------------------------------------------------

    def money(self, minor: object) -> str:
        number = _number(minor)
        return DASH if number is None else format_amount(to_decimal(number, digits=6), self.currency)

    def price(self, minor: object) -> str:
        """With all its digits, six at most where it has no end."""
        number = _number(minor)
        return DASH if number is None else format_unit_price(to_decimal(number, digits=6), self.currency)

    def units(self, value: object) -> str:
        number = _number(value)
        return DASH if number is None else format_units(to_decimal(number, digits=6))


def _number(value: object) -> Fraction | None:
    """A stored number: "5", "-0.25", "70000/31"; None for nothing or for what is no number."""
    if value is None or value == "":
        return None
    try:
        text = str(value)
        return Fraction(text[1:].lstrip()) if text.startswith("--") else Fraction(text)
    except (ValueError, ZeroDivisionError, InvalidOperation):
        return None


def _value(value: object) -> str:
    """A metadata value, or the values of several keys."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(str, value))
    return str(value)


def _words(name: object) -> str:
    text = str(name).replace("_", " ")
    return text[:1].upper() + text[1:]
