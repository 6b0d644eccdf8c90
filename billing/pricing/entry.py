"""The one entry for a caller with plain numbers: data in, data out. `docs/pricing.md` shows it model by model."""

from collections.abc import Mapping
from dataclasses import fields, replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

from billing.money import is_currency, minor_digits, plain, to_decimal
from billing.periods import Period as Span
from billing.periods import PeriodInvalid, fraction, period_at, whole_period
from billing.periods import rule_from_data as period_rule_from_data
from billing.pricing.data import (
    Scale,
    commitment_from_data,
    credits_from_data,
    discounts_from_data,
    fee_from_data,
    instant_from_data,
    items,
    mapping,
    only_known,
    rule_from_data,
    taxes_from_data,
    to_minor_exactly,
    usage_from_data,
)
from billing.pricing.period import Item, rate_period
from billing.pricing.rating import ONE, RatedLine, rate_fee
from billing.pricing.settling import LineToSettle, Settlement, TaxAmount, settle
from billing.pricing.values import (
    KINDS,
    NOTHING,
    Conventions,
    FeeRule,
    PricingInvalid,
    conventions_from_data,
    exact_number,
    one_of,
    show,
    whole_number,
    yes_or_no,
)
from billing.pricing.words import explain

# About one charge or fee; at the top level of the data, or in each of its items.
OF_ITEM = (
    "key",
    "kind",
    "name",
    "rule",
    "usage",
    "fee",
    "amount",
    "fraction",
    "taxes",
    "tax_inclusive",
    "tax_reason",
    "unit",
)
OF_PERIOD = (
    "items",
    "discounts",
    "commitment",
    "conventions",
    "fraction",
    "credits",
    "taxes",
    "tax_inclusive",
    "tax_reason",
    "at",
    "currency",
    "amounts",
    "round_to",
    "locale",
)
OF_FRACTION = ("part", "whole", "periods", "time_zone", "by", "charge_last_day", "days", "day_count")
# The amounts of an explanation, which are written in the unit that was asked for; no quantity has one of these names.
TOLD_MONEY = {
    "unit_price",
    "unit_value",
    "amount",
    "flat_fee",
    "price",
    "fixed_fee",
    "exact_amount",
    "exact",
    "rounded",
    "took",
    "added",
    "charged",
    "raised",
    "cut",
    "minimum",
    "maximum",
    "spent",
    "overage",
}
# As many as are printed of a number without an end.
MOST_ROUNDED_DIGITS = 20
KNOWN = tuple(dict.fromkeys((*OF_PERIOD, *OF_ITEM)))


def price(data: Mapping[str, Any]) -> dict[str, Any]:
    """Price plain data: one charge or fee, or all of a period, with discounts, commitment, credit and tax.

    Takes and gives only what JSON can hold (numbers may also be `Decimal` or `Fraction`; a float is refused). Amounts
    are minor units in both directions unless `amounts` is "major". Raises `PricingInvalid`, which names the field.
    """
    given = mapping(data, "data")
    only_known(given, KNOWN, "data")
    currency, locale = str(given.get("currency") or "USD"), str(given.get("locale") or "en")
    if not is_currency(currency):
        raise PricingInvalid(f"{currency!r} is no currency in use.", code="UNKNOWN_WORD", field="currency")
    major = one_of(given.get("amounts", "minor"), ("minor", "major"), "amounts") == "major"
    digits = minor_digits(currency)
    # What is computed in: one unit is what amounts are rounded to, by default the currency's minor unit.
    kept = digits if given.get("round_to") is None else whole_number(given["round_to"], "round_to")
    if kept > MOST_ROUNDED_DIGITS:
        raise PricingInvalid(
            f"round_to must be at most {MOST_ROUNDED_DIGITS} digits, not {kept}.", code="TOO_LONG", field="round_to"
        )
    shift = kept if major else kept - digits
    scale = to_minor_exactly(shift)
    how = conventions_from_data(given.get("conventions"))
    part = _fraction(given.get("fraction"), how, "fraction")
    if "items" in given:
        for name in OF_ITEM:
            if name in given and name not in OF_PERIOD:
                raise PricingInvalid(f"{name} belongs into each of the items.", code="CONTRADICTION", field=name)
        rows = [mapping(row, f"items[{number}]") for number, row in enumerate(items(given["items"], "items"))]
        for number, row in enumerate(rows):
            only_known(row, OF_ITEM, f"items[{number}]")
    else:
        rows = [{name: value for name, value in given.items() if name in OF_ITEM and name != "fraction"}]
    made = [
        _item(row, number, how, scale, f"items[{number}]" if "items" in given else "data")
        for number, row in enumerate(rows)
    ]
    commitment = given.get("commitment")
    lines = rate_period(
        made,
        discounts=discounts_from_data(given.get("discounts") or (), scale=scale),
        commitment=None if commitment is None else commitment_from_data(commitment, scale=scale),
        conventions=how,
        fraction=part,
    )
    at = given.get("at")
    settled = settle(
        [_to_settle(line, rows[index] if index < len(rows) else {}, given) for index, line in enumerate(lines)],
        credits=credits_from_data(given.get("credits") or (), scale=scale),
        conventions=how,
        at=None if at is None else instant_from_data(at, "at"),
    )
    units = [str(row.get("unit") or "") for row in rows] + [""] * (len(lines) - len(rows))
    in_minor = _Out(kept - digits, currency, "minor")
    texts = [
        explain(in_minor.line(line), unit=unit, currency=currency, locale=locale)
        for line, unit in zip(lines, units, strict=True)
    ]
    return _told(lines, texts, settled, how, part, _Out(shift, currency, "major" if major else "minor"))


def _item(row: Mapping[str, Any], number: int, how: Conventions, scale: Scale, field: str) -> Item:
    ways = [name for name in ("rule", "fee", "amount") if row.get(name) is not None]
    if len(ways) != 1:
        raise PricingInvalid(
            f"{field} needs exactly one of rule (with usage), fee, or amount.", code="CONTRADICTION", field=field
        )
    key = str(row.get("key") or number + 1)
    name = str(row.get("name") or "")
    fraction = row.get("fraction")
    own = None if fraction is None else _fraction(fraction, how, f"{field}.fraction")
    if ways == ["rule"]:
        kind = one_of(row.get("kind", "usage"), KINDS, f"{field}.kind")
        rule = rule_from_data(row["rule"], scale=scale, field="rule")
        if "usage" not in row:
            raise PricingInvalid(f"{field} needs its usage.", code="MISSING", field="usage")
        return Item(key, kind, rule, usage_from_data(row["usage"]), fraction=own, name=name)
    if "usage" in row:
        raise PricingInvalid(f"{field} has a usage and no rule.", code="CONTRADICTION", field="usage")
    kind = one_of(row.get("kind", "fee"), KINDS, f"{field}.kind")
    if ways == ["fee"]:
        return Item(key, kind, fee_from_data(row["fee"], scale=scale), fraction=own, name=name)
    return Item(key, kind, rated=_given_line(row["amount"], key, kind, name, how, scale))


def _given_line(amount: object, key: str, kind: str, name: str, how: Conventions, scale: Scale) -> RatedLine:
    """An amount that needs no rating: it is rounded, taxed and paid by credit like the others."""
    exact = exact_number(scale(amount, "amount"), "amount")
    rule = FeeRule(to_decimal(exact))
    line = rate_fee(rule, conventions=how, key=key)
    told = {**line.explanation, "model": "fee"}
    if name:
        told["name"] = name
    return RatedLine(
        quantity=line.quantity,
        free_units=line.free_units,
        billable_units=line.billable_units,
        unit_price=line.unit_price,
        exact_amount=line.exact_amount,
        amount=line.amount,
        explanation=told,
        kind=kind,
        key=key,
        exact=line.exact,
    )


def _fraction(data: object, how: Conventions, field: str) -> Fraction:
    """A part of a period: a number, or two spans to be compared as the conventions say."""
    if data is None:
        return ONE
    if not isinstance(data, Mapping):
        return exact_number(data, field)
    only_known(data, OF_FRACTION, field)
    part = _span(data.get("part"), f"{field}.part")
    options = {name: data[name] for name in ("time_zone", "days", "day_count") if data.get(name) is not None}
    try:
        if data.get("periods") is not None:
            rule = period_rule_from_data(mapping(data["periods"], f"{field}.periods"))
            whole = whole_period(rule, period_at(rule, part.start))
            options.setdefault("time_zone", rule.time_zone)
        else:
            whole = _span(data.get("whole"), f"{field}.whole")
        return fraction(
            part,
            whole,
            by=data.get("by", how.proration),
            charge_last_day=yes_or_no(data.get("charge_last_day", how.charge_last_day), f"{field}.charge_last_day"),
            **options,
        )
    except PeriodInvalid as wrong:
        raise PricingInvalid(f"{field}: {wrong}", code="PERIOD", field=field) from None
    except OverflowError:
        raise PricingInvalid(f"{field} reaches beyond the year 9999.", code="PERIOD", field=field) from None


def _span(data: object, field: str) -> Span:
    """A span of time: [start, end], or both by name."""
    if isinstance(data, Mapping):
        only_known(data, ("start", "end"), field)
        ends = [data.get("start"), data.get("end")]
    else:
        ends = items(data, field)
    if len(ends) != 2:
        raise PricingInvalid(f"{field} needs its start and its end.", code="MISSING", field=field)
    start, end = (instant_from_data(moment, field) for moment in ends)
    if not start < end:
        raise PricingInvalid(f"{field} must end after it starts.", code="CONTRADICTION", field=field)
    return Span(start, end)


def _to_settle(line: RatedLine, row: Mapping[str, Any], given: Mapping[str, Any]) -> LineToSettle:
    """The line with its own taxes, or those of all."""
    taxes = row["taxes"] if "taxes" in row else given.get("taxes")
    inclusive = row["tax_inclusive"] if "tax_inclusive" in row else given.get("tax_inclusive", False)
    reason = row["tax_reason"] if "tax_reason" in row else given.get("tax_reason", "")
    return LineToSettle(
        line.key,
        line.amount,
        taxes=() if taxes is None else taxes_from_data(taxes),
        tax_inclusive=yes_or_no(inclusive, "tax_inclusive"),
        reason=str(reason or ""),
        kind=line.kind,
    )


class _Out:
    """Writes amounts in the unit that was asked for."""

    def __init__(self, digits: int, currency: str, amounts: str) -> None:
        self.digits = digits
        self.currency = currency
        self.amounts = amounts

    def __call__(self, amount: Fraction | Decimal) -> str:
        """Digits; of a number without an end 20 after the point of what amounts are rounded to."""
        return plain(self.decimal(Fraction(amount)))

    def decimal(self, amount: Fraction) -> Decimal:
        return to_decimal(self.moved(amount), digits=20 + max(self.digits, 0))

    def moved(self, amount: Fraction) -> Fraction:
        return amount / Fraction(10) ** self.digits

    def exact(self, amount: Fraction) -> str:
        return show(self.moved(amount))

    def line(self, line: RatedLine) -> RatedLine:
        """The line with its amounts in the unit that was asked for."""
        if not self.digits:
            return line
        return replace(
            line,
            unit_price=None if line.unit_price is None else self.decimal(Fraction(line.unit_price)),
            exact=self.moved(line.exact),
            exact_amount=self.decimal(line.exact),
            amount=self.decimal(Fraction(line.amount)),
            discount=self.decimal(Fraction(line.discount)),
            explanation=self.told(line.explanation),
        )

    def told(self, told: Any, name: str = "") -> Any:
        """An explanation with its amounts in the unit that was asked for."""
        if not self.digits:
            return told
        if isinstance(told, Mapping):
            return {key: self.told(value, key) for key, value in told.items()}
        if isinstance(told, list):
            return [self.told(value, name) for value in told]
        if isinstance(told, str) and name in TOLD_MONEY:
            return self.exact(exact_number(told, name))
        return told


def _told(
    lines: tuple[RatedLine, ...],
    texts: list[str],
    settled: Settlement,
    how: Conventions,
    part: Fraction,
    out: _Out,
) -> dict[str, Any]:
    rated = []
    for line, text, done in zip(lines, texts, settled.lines, strict=True):
        rated.append(
            {
                "key": line.key,
                "kind": line.kind,
                "quantity": plain(line.quantity),
                "free_units": plain(line.free_units),
                "billable_units": plain(line.billable_units),
                "unit_price": None if line.unit_price is None else out(line.unit_price),
                "effective_unit_price": out(line.exact / Fraction(line.quantity)) if line.quantity else None,
                "discount": out(line.discount),
                "exact": out.exact(line.exact),
                "exact_amount": out(line.exact),
                "amount": out(done.amount),
                "credit": out(done.credit),
                "net": out(done.net),
                "tax": out(done.tax),
                "taxes": [_tax(tax, out) for tax in done.taxes],
                "total": out(done.total),
                "text": text,
                "explanation": out.told(line.explanation),
            }
        )
    exact = sum((line.exact for line in lines), NOTHING)
    return {
        "currency": out.currency,
        "amounts": out.amounts,
        "exact": out.exact(exact),
        "exact_amount": out(exact),
        "amount": out(settled.subtotal),
        "credit": out(settled.credit),
        "net": out(settled.net),
        "tax": out(settled.tax),
        "total": out(settled.total),
        "lines": rated,
        "credits": [
            {"key": drawn.key, "drawn": out(drawn.drawn), "remaining": out(drawn.remaining)}
            | ({"untouched": drawn.untouched} if drawn.untouched else {})
            for drawn in settled.credits
        ],
        "taxes": [_tax(tax, out) for tax in settled.taxes],
        "fraction": show(part),
        "conventions": {one.name: getattr(how, one.name) for one in fields(how)},
    }


def _tax(tax: TaxAmount, out: _Out) -> dict[str, str]:
    return {"name": tax.name, "percent": plain(tax.percent), "on": out(tax.base), "amount": out(tax.amount)}
