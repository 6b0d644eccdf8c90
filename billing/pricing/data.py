"""Rules as plain data: what a price version stores, and what the API and `price` take. Numbers are decimal text.

Reading is forgiving in numbers (text, int, Decimal, Fraction) and strict in everything else: an unknown key or word is
refused with a sentence that names it, because a price that was half understood is a wrong price.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

from billing.money import plain
from billing.pricing.values import (
    ByDimension,
    ChargeRule,
    Commitment,
    Credit,
    Discount,
    FeeRule,
    Flat,
    Graduated,
    Model,
    Package,
    Percentage,
    PerUnit,
    PricingInvalid,
    Tax,
    Tier,
    Usage,
    Volume,
    as_key,
    exact_number,
    show,
)

MODELS: dict[str, type] = {
    "per_unit": PerUnit,
    "graduated": Graduated,
    "volume": Volume,
    "package": Package,
    "percentage": Percentage,
    "flat": Flat,
    "by_dimension": ByDimension,
}
MODEL_NAMES = {model: name for name, model in MODELS.items()}
# Always written, so that a stored rule reads without knowing the defaults.
ALWAYS = {
    "per_unit": ("unit_price",),
    "graduated": ("tiers",),
    "volume": ("tiers",),
    "package": ("price", "size", "rounding"),
    "percentage": ("percent",),
    "flat": ("amount",),
    "by_dimension": ("keys", "prices"),
}
AROUND = tuple(one.name for one in fields(ChargeRule) if one.name != "price")
# What is money, and is therefore converted where amounts are stated in major units.
MONEY = {
    "unit_price",
    "flat_fee",
    "amount",
    "price",
    "fixed_fee",
    "unit_value",
    "event_minimum",
    "event_maximum",
    "minimum",
    "maximum",
    "at_most",
}
Scale = Callable[[object, str], object]


def _same(value: object, _field: str) -> object:
    return value


def mapping(data: object, field: str) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        raise PricingInvalid(f"{field} must be an object, not {data!r}.", code="NOT_A_MAPPING", field=field)
    return data


def items(data: object, field: str) -> list[Any]:
    if isinstance(data, str | bytes | Mapping) or not isinstance(data, Iterable):
        raise PricingInvalid(f"{field} must be a list, not {data!r}.", code="NOT_A_LIST", field=field)
    return list(data)


def only_known(data: Mapping[str, Any], known: Iterable[str], field: str) -> None:
    """Refuses a key that nobody would read."""
    names = list(known)
    for key in data:
        if key not in names:
            raise PricingInvalid(
                f"{field} has an unknown key {key!r}; known are {', '.join(names)}.",
                code="UNKNOWN_KEY",
                field=f"{field}.{key}",
            )


def scaled(data: Mapping[str, Any], scale: Scale, field: str) -> dict[str, Any]:
    """The same with its money in minor units."""
    return {
        key: scale(value, f"{field}.{key}") if key in MONEY and value is not None else value
        for key, value in data.items()
    }


def made(kind: Callable[..., Any], data: Mapping[str, Any], field: str) -> Any:
    """The value of that data; an error names where it is."""
    try:
        return kind(**data)
    except PricingInvalid as wrong:
        where = f"{field}.{wrong.field}" if wrong.field else field
        raise PricingInvalid(f"{field}: {wrong.message}", code=wrong.code, field=where) from None
    except TypeError:
        required = [one.name for one in fields(kind) if one.name not in data and _required(one)]  # type: ignore[arg-type]
        raise PricingInvalid(
            f"{field} needs {', '.join(required) or 'other keys'}.", code="MISSING", field=field
        ) from None


def _required(one: Any) -> bool:
    return one.default is MISSING and one.default_factory is MISSING


# -- reading


def rule_from_data(data: Mapping[str, Any], *, scale: Scale = _same, field: str = "rule") -> ChargeRule:
    """The rule that `rule_to_data` wrote, or that somebody typed. `PricingInvalid` says what is wrong, and where."""
    given = mapping(data, field)
    around = {key: value for key, value in given.items() if key in AROUND}
    inner = {key: value for key, value in given.items() if key not in AROUND}
    around = scaled({key: value for key, value in around.items() if value is not None}, scale, field)
    if "discounts" in around:
        around["discounts"] = discounts_from_data(around["discounts"], scale=scale, field=f"{field}.discounts")
    if "commitment" in around:
        around["commitment"] = commitment_from_data(around["commitment"], scale=scale, field=f"{field}.commitment")
    model = model_from_data(inner, scale=scale, field=field, also=AROUND)
    found: ChargeRule = made(ChargeRule, {"price": model, **around}, field)
    return found


def model_from_data(
    data: Mapping[str, Any], *, scale: Scale = _same, field: str = "price", also: Iterable[str] = ()
) -> Model:
    """The model of a rule, or of one value of a dimension."""
    given = dict(mapping(data, field))
    name = given.pop("model", None)
    if name is None:
        raise PricingInvalid(f"{field} needs its model: {', '.join(MODELS)}.", code="MISSING", field=f"{field}.model")
    if not isinstance(name, str) or name not in MODELS:
        raise PricingInvalid(
            f"{field} has an unknown model {name!r}; known are {', '.join(MODELS)}.",
            code="UNKNOWN_WORD",
            field=f"{field}.model",
        )
    kind = MODELS[name]
    only_known(given, ["model", *(one.name for one in fields(kind)), *also], field)
    given = {key: value for key, value in given.items() if value is not None}
    if kind in (Graduated, Volume):
        given = scaled(given, scale, field)
        given.setdefault("unit_value", scale(1, "unit_value"))
        if "tiers" in given:
            given["tiers"] = _tiers(given["tiers"], scale, f"{field}.tiers")
    elif kind is ByDimension:
        return _dimension(given, scale, field)
    else:
        given = scaled(given, scale, field)
        if kind is Percentage:
            given.setdefault("unit_value", scale(1, "unit_value"))
    model: Model = made(kind, given, field)
    return model


def _tiers(data: object, scale: Scale, field: str) -> list[Tier]:
    found = []
    known = [one.name for one in fields(Tier)]
    for number, tier in enumerate(items(data, field)):
        where = f"{field}[{number}]"
        given = mapping(tier, where)
        only_known(given, known, where)
        given = {key: value for key, value in given.items() if value is not None or key == "up_to"}
        found.append(made(Tier, {"up_to": None, **scaled(given, scale, where)}, where))
    return found


def _dimension(given: dict[str, Any], scale: Scale, field: str) -> ByDimension:
    prices: dict[Any, Model] = {}
    data = given.get("prices", {})
    rows = (
        [{"value": value, **_price_row(price)} for value, price in data.items()]
        if isinstance(data, Mapping)
        else [
            dict(mapping(row, f"{field}.prices[{number}]")) for number, row in enumerate(items(data, f"{field}.prices"))
        ]
    )
    for number, row in enumerate(rows):
        where = f"{field}.prices[{number}]"
        if "value" not in row:
            raise PricingInvalid(f"{where} needs the value it prices.", code="MISSING", field=f"{where}.value")
        key = as_key(row.pop("value"), f"{where}.value")
        if key in prices:
            raise PricingInvalid(
                f"{where}: {' / '.join(key)} has a price already.", code="TWICE", field=f"{where}.value"
            )
        prices[key] = model_from_data({"model": "per_unit", **row}, scale=scale, field=where)
    default = given.get("default")
    made_default = (
        None
        if default is None
        else model_from_data({"model": "per_unit", **_price_row(default)}, scale=scale, field=f"{field}.default")
    )
    rest = {key: value for key, value in given.items() if key not in ("prices", "default")}
    found: ByDimension = made(ByDimension, {**rest, "prices": prices, "default": made_default}, field)
    return found


def _price_row(price: object) -> dict[str, Any]:
    """A price per unit may stand alone as a number."""
    return dict(price) if isinstance(price, Mapping) else {"model": "per_unit", "unit_price": price}


def discounts_from_data(data: object, *, scale: Scale = _same, field: str = "discounts") -> tuple[Discount, ...]:
    """Discounts, in the order in which they are taken."""
    found = []
    for number, entry in enumerate(items(data, field)):
        where = f"{field}[{number}]"
        given = mapping(entry, where)
        only_known(given, [one.name for one in fields(Discount)], where)
        found.append(made(Discount, scaled(_given(given), scale, where), where))
    return tuple(found)


def commitment_from_data(data: object, *, scale: Scale = _same, field: str = "commitment") -> Commitment:
    given = mapping(data, field)
    only_known(given, [one.name for one in fields(Commitment)], field)
    found: Commitment = made(Commitment, scaled(_given(given), scale, field), field)
    return found


def fee_from_data(data: object, *, scale: Scale = _same, field: str = "fee") -> FeeRule:
    """A fee: an amount alone, or with its quantity and discounts."""
    given = dict(data) if isinstance(data, Mapping) else {"amount": data}
    only_known(given, [one.name for one in fields(FeeRule)], field)
    given = scaled(_given(given), scale, field)
    if "discounts" in given:
        given["discounts"] = discounts_from_data(given["discounts"], scale=scale, field=f"{field}.discounts")
    found: FeeRule = made(FeeRule, given, field)
    return found


def usage_from_data(data: object, *, field: str = "usage") -> Usage:
    """A quantity alone, or everything a `Usage` knows."""
    if isinstance(data, Usage):
        return data
    if not isinstance(data, Mapping):
        alone: Usage = made(Usage, {"quantity": data}, field)
        return alone
    only_known(data, [one.name for one in fields(Usage)], field)
    given = _given(data)
    if "by_value" in given:
        raw = given["by_value"]
        if isinstance(raw, Mapping):
            rows = list(raw.items())
        else:
            rows = []
            for number, one in enumerate(items(raw, f"{field}.by_value")):
                entry = dict(mapping(one, f"{field}.by_value[{number}]"))
                if "value" not in entry:
                    raise PricingInvalid(
                        f"{field}.by_value[{number}] needs its value.", code="MISSING", field=f"{field}.by_value"
                    )
                rows.append((entry.pop("value"), entry))
        by_value: dict[tuple[str, ...], Usage] = {}
        for value, row in rows:
            key = as_key(value, f"{field}.by_value")
            if key in by_value:
                raise PricingInvalid(
                    f"{field}.by_value has {' / '.join(key)} twice.", code="TWICE", field=f"{field}.by_value"
                )
            by_value[key] = usage_from_data(row, field=f"{field}.by_value")
        given["by_value"] = by_value
    for name in ("values", "shares"):
        if name in given:
            given[name] = items(given[name], f"{field}.{name}")
    used: Usage = made(Usage, given, field)
    return used


def taxes_from_data(data: object, *, field: str = "taxes") -> tuple[Tax, ...]:
    """Taxes: a percent alone, or rates with names."""
    entries = [data] if isinstance(data, Mapping | str | int | Decimal | Fraction) else items(data, field)
    found = []
    for number, entry in enumerate(entries):
        where = f"{field}[{number}]"
        given = dict(entry) if isinstance(entry, Mapping) else {"percent": entry}
        only_known(given, [one.name for one in fields(Tax)], where)
        found.append(made(Tax, {"name": "Tax", **_given(given)}, where))
    return tuple(found)


def credits_from_data(data: object, *, scale: Scale = _same, field: str = "credits") -> tuple[Credit, ...]:
    """Prepaid credits; an amount alone is one without a limit in time."""
    found = []
    for number, entry in enumerate(items(data, field)):
        where = f"{field}[{number}]"
        given = dict(entry) if isinstance(entry, Mapping) else {"amount": entry}
        only_known(given, [one.name for one in fields(Credit)], where)
        given = scaled(_given(given), scale, where)
        for name in ("expires_at", "granted_at", "starts_at"):
            if name in given:
                given[name] = instant_from_data(given[name], f"{where}.{name}")
        found.append(made(Credit, {"key": str(number + 1), **given}, where))
    return tuple(found)


def instant_from_data(value: object, field: str) -> datetime:
    """An ISO 8601 instant; one without a zone is UTC."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise PricingInvalid(
                f"{field} must be an ISO 8601 instant, not {value!r}.", code="NOT_AN_INSTANT", field=field
            ) from None
    if not isinstance(value, datetime):
        raise PricingInvalid(f"{field} must be an ISO 8601 instant, not {value!r}.", code="NOT_AN_INSTANT", field=field)
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value


def _given(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in data.items() if value is not None}


# -- writing


def rule_to_data(rule: ChargeRule) -> dict[str, Any]:
    """The canonical form of a rule, as it is stored. `rule_from_data` gives the same rule back."""
    data = model_to_data(rule.price)
    for one in fields(ChargeRule):
        value = getattr(rule, one.name)
        if one.name == "price" or value == one.default:
            continue
        if one.name == "discounts":
            data["discounts"] = [_plain(discount) for discount in value]
        elif one.name == "commitment":
            data["commitment"] = _plain(value)
        else:
            data[one.name] = _text(value)
    return data


def model_to_data(model: Model) -> dict[str, Any]:
    """A model with its name first."""
    name = MODEL_NAMES[type(model)]
    data: dict[str, Any] = {"model": name}
    for one in fields(model):
        value = getattr(model, one.name)
        if value == one.default and one.name not in ALWAYS[name]:
            continue
        if one.name == "tiers":
            data["tiers"] = [_tier_to_data(tier) for tier in value]
        elif isinstance(model, ByDimension) and one.name == "prices":
            data["prices"] = [{"value": list(key), **model_to_data(price)} for key, price in model.prices.items()]
        elif isinstance(model, ByDimension) and one.name == "default":
            data["default"] = model_to_data(value)
        elif one.name == "keys":
            data["keys"] = list(value)
        else:
            data[one.name] = _text(value)
    return data


def _tier_to_data(tier: Tier) -> dict[str, Any]:
    data: dict[str, Any] = {
        "up_to": None if tier.up_to is None else plain(tier.up_to),
        "unit_price": plain(tier.unit_price),
        "flat_fee": plain(tier.flat_fee),
    }
    if tier.package_size is not None:
        data["package_size"] = plain(tier.package_size)
    if tier.percent:
        data["percent"] = plain(tier.percent)
    for name in ("minimum", "maximum"):
        if getattr(tier, name) is not None:
            data[name] = plain(getattr(tier, name))
    return data


def _plain(value: Any) -> dict[str, Any]:
    """A value's fields that differ from their defaults."""
    return {
        one.name: _text(getattr(value, one.name)) for one in fields(value) if getattr(value, one.name) != one.default
    }


def _text(value: object) -> object:
    if isinstance(value, tuple):
        return [_text(one) for one in value]
    return show(value) if isinstance(value, Decimal | Fraction) else value


def to_minor_exactly(digits: int) -> Scale:
    """Moves the point of stated amounts by so many digits, exactly: dollars to cents by two."""

    def scale(value: object, field: str) -> object:
        return exact_number(value, field) * Fraction(10) ** digits

    return scale
