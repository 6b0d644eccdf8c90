"""A rated line in words: what pages, PDF and API show under an amount. It reads the explanation, computes nothing."""

from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

from billing.money import format_amount, format_unit_price, format_units, to_decimal
from billing.pricing.rating import RatedLine
from billing.pricing.values import exact_number

Words = Callable[[Any], str]


def explain(line: RatedLine, *, unit: str, currency: str, locale: str = "en") -> str:
    """The line as one sentence: "2,500 calls - 1,000 free = 1,500 x $0.02 = $30.00"."""
    told = line.explanation
    amount = format_amount(line.amount, currency, locale)
    quantity = f"{format_units(line.quantity, locale)} {unit}".rstrip()
    if "waived" in told:
        return f"{quantity}, {told['waived']}: {amount}"
    say = _Say(line, unit, currency, locale)
    if told["model"] == "fee":
        return say.fee()
    if told["model"] == "commitment":
        return say.commitment()
    if told["model"] == "per_unit" and say.is_plain() and "shares" not in told and "units" not in told:
        return say.per_unit()
    return say.steps()


class _Say:
    """The words for one line."""

    def __init__(self, line: RatedLine, unit: str, currency: str, locale: str) -> None:
        self.line = line
        self.told = line.explanation
        self.unit = unit
        self.currency = currency
        self.locale = locale

    def units(self, number: object) -> str:
        return format_units(to_decimal(exact_number(number, "units"), digits=6), self.locale)

    def money(self, number: object) -> str:
        """An amount with all its digits, at most six beyond the currency's where it has no end."""
        return format_unit_price(to_decimal(exact_number(number, "amount"), digits=6), self.currency, self.locale)

    @property
    def amount(self) -> str:
        return format_amount(self.line.amount, self.currency, self.locale)

    @property
    def quantity(self) -> str:
        return f"{format_units(self.line.quantity, self.locale)} {self.unit}".rstrip()

    def is_plain(self) -> bool:
        """Nothing but a price was applied."""
        return not any(
            name in self.told
            for name in ("discounts", "maximum", "minimum", "commitment", "before", "components", "each")
        ) and not self.told.get("prorated")

    def fee(self) -> str:
        line, told = self.line, self.told
        price = line.unit_price if line.unit_price is not None else Decimal(0)
        fee = format_amount(price, self.currency, self.locale)
        if self.is_plain() and "fraction" not in told:
            if line.quantity == 1:
                return self.amount
            return f"{format_units(line.quantity, self.locale)} × {fee} = {self.amount}"
        steps = [fee if line.quantity == 1 else f"{format_units(line.quantity, self.locale)} × {fee}"]
        if "fraction" in told:
            steps[0] += f" × {told['fraction']} of the period"
        steps += self.after()
        return self.joined(steps)

    def commitment(self) -> str:
        told = self.told["commitment"]
        if exact_number(told["added"], "added"):
            return f"{self.money(told['amount'])} committed − {self.money(told['spent'])} = {self.amount}"
        return (
            f"{self.money(told['spent'])} − {self.money(told['amount'])} committed, the rest at "
            f"{self.units(told['overage_factor'])} times its price: {self.amount} more"
        )

    def per_unit(self) -> str:
        line = self.line
        if line.billable_units == 0:
            if line.quantity <= 0:
                return f"{self.quantity}: {self.amount}"
            return f"{self.quantity}, all within the {format_units(line.free_units, self.locale)} free: {self.amount}"
        unit_price = line.unit_price if line.unit_price is not None else Decimal(0)
        price = format_unit_price(unit_price, self.currency, self.locale)
        units = format_units(line.billable_units, self.locale)
        taken = line.free_units if line.quantity > 0 else Decimal(0)
        free = f"{self.quantity} − {format_units(taken, self.locale)} free = {units}" if taken else self.quantity
        return f"{free} × {price}{self.rounded()} = {self.amount}"

    def rounded(self) -> str:
        if self.line.exact == self.line.amount:
            return ""
        return f" = {self.money(self.told.get('exact', self.told['exact_amount']))}, rounded"

    def steps(self) -> str:
        """Any price: what was used, what each part of it costs, what came after."""
        told = self.told
        start = self.quantity
        if "units" in told:
            factor = f" × {self.units(told['units']['factor'])}" if "factor" in told["units"] else ""
            start += f"{factor} ({self.units(told['units']['count'])} of {self.units(told['units']['size'])})"
        if exact_number(told["free_units"], "free_units") and self.line.quantity > 0:
            start += f" − {self.units(told['free_units'])} free = {self.units(told['billable_units'])}"
        priced, after = self.price(told), self.after()
        if self.line.amount == 0 and not self.line.billable_units and not after:
            free = exact_number(told["free_units"], "free_units")
            within = f", all within the {self.units(free)} free" if free and self.line.quantity > 0 else ""
            return f"{self.quantity}{within}: {self.amount}"
        return self.joined([start, *([priced] if priced else []), *after])

    def price(self, told: dict[str, Any]) -> str:
        """What the model made of the units."""
        model = told["model"]
        if "each" in told:
            return f"{len(told['each'])} values, each priced by itself"
        if model == "per_unit":
            share = " in shares of the period" if "shares" in told else ""
            return f"{self.units(told['billable_units'])} × {self.money(told['unit_price'])}{share}"
        if model in ("graduated", "volume"):
            return " + ".join(self.tier(tier) for tier in told["tiers"])
        if model == "package":
            packages = told["packages"]
            return (
                f"{self.units(packages['count'])} × {self.money(packages['price'])} per {self.units(packages['size'])}"
            )
        if model == "percentage":
            return self.percentage(told)
        if model == "flat":
            return f"{self.money(told['flat']['charged'])} flat"
        if model == "by_dimension":
            parts = [f"{' / '.join(value['value'])}: {self.money(value['amount'])}" for value in told["values"]]
            parts += [
                f"{' / '.join(value['value'])}: {self.units(value['quantity'])} without a price"
                for value in told["unpriced"]
            ]
            return ", ".join(parts)
        return ""

    def packages(self, count: object, price: object, size: object) -> str:
        return f"{self.units(count)} × {self.money(price)} per {self.units(size)}"

    def tier(self, tier: dict[str, Any]) -> str:
        if "packages" in tier:
            said = self.packages(tier["packages"], tier["unit_price"], tier["package_size"])
        elif "percent" in tier:
            said = f"{self.units(tier['percent'])} % of {self.units(tier['units'])}"
            if exact_number(tier["unit_price"], "unit_price"):
                said += f" and {self.units(tier['units'])} × {self.money(tier['unit_price'])}"
        else:
            said = f"{self.units(tier['units'])} × {self.money(tier['unit_price'])}"
        return said + (f" + {self.money(tier['flat_fee'])}" if exact_number(tier["flat_fee"], "flat_fee") else "")

    def percentage(self, told: dict[str, Any]) -> str:
        share, events = told["percentage"], told["events"]
        said = f"{self.units(share['percent'])} % of {self.units(share['of'])}"
        if exact_number(share["free"], "free"):
            said += f" ({self.units(share['free'])} free)"
        if exact_number(events["amount"], "amount"):
            said += f" + {events['charged']} × {self.money(events['fixed_fee'])}"
        if exact_number(events.get("raised", "0"), "raised"):
            said += f" + {self.money(events['raised'])} up to the minimum of each"
        if exact_number(events.get("cut", "0"), "cut"):
            said += f" − {self.money(events['cut'])} down to the maximum of each"
        return said

    def after(self) -> list[str]:
        """What came after the price."""
        told = self.told
        found = []
        if told.get("prorated"):
            found.append(f"× {told['prorated']} of the period")
        if "before" in told:
            found.append(f"− {self.money(told['before']['amount'])} billed before")
        for discount in told.get("discounts", []):
            name = discount.get("name") or "discount"
            percent = f" {self.units(discount['percent'])} %" if "percent" in discount else ""
            found.append(f"− {self.money(discount['took'])} ({name}{percent})")
        if exact_number(told.get("maximum", {}).get("took", "0"), "took"):
            found.append(f"at most {self.money(told['maximum']['amount'])}")
        if exact_number(told.get("minimum", {}).get("added", "0"), "added"):
            found.append(f"at least {self.money(told['minimum']['amount'])}")
        if exact_number(told.get("commitment", {}).get("added", "0"), "added"):
            found.append(f"up to the {self.money(told['commitment']['amount'])} committed")
        if exact_number(told.get("commitment", {}).get("overage", "0"), "overage"):
            factor = self.units(told["commitment"]["overage_factor"])
            found.append(f"above {self.money(told['commitment']['amount'])} at {factor} times the price")
        return found

    def joined(self, steps: list[str]) -> str:
        text = steps[0]
        for step in steps[1:]:
            text += f" {step}" if step.startswith(("×", "−")) else f", {step}"
        if self.line.exact != Fraction(self.line.amount):
            return f"{text}{self.rounded()} = {self.amount}"
        return f"{text} = {self.amount}"
