"""Filters and values rendered as SQL: the same meaning as meters.filters, run by PostgreSQL.

Everything that comes from a person (property names, values) travels as a parameter; the texts here are constants.
`meters_event` is the table's own name on purpose: a property test puts a row of its own under that name.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import LiteralString

from meters.filters import NUMBER_PATTERN, Clause, FilterGroup, Operator, read_number, read_text
from meters.models import Aggregation, Meter

# What may stand in for a placeholder.
Param = str | int | Decimal | datetime | list[datetime] | list[int] | None


@dataclass(frozen=True, slots=True)
class Sql:
    """A piece of SQL and the values of its placeholders, in order."""

    text: str
    params: tuple[Param, ...] = ()


def value(given: Param) -> Sql:
    return Sql("%s", (given,))


def compose(template: LiteralString, *parts: Sql) -> Sql:
    """Put pieces into the template's `{}` from left to right; their values go along in the same order."""
    texts = template.split("{}")
    if len(texts) != len(parts) + 1:
        raise ValueError(f"{len(texts) - 1} places for {len(parts)} pieces")
    text = texts[0] + "".join(part.text + rest for part, rest in zip(parts, texts[1:], strict=True))
    return Sql(text, tuple(param for part in parts for param in part.params))


def join(separator: LiteralString, parts: list[Sql]) -> Sql:
    return Sql(separator.join(part.text for part in parts), tuple(param for part in parts for param in part.params))


TRUE = Sql("true")
_SCALAR: LiteralString = (
    "coalesce(jsonb_typeof(meters_event.metadata -> {}::text) IN ('string', 'number', 'boolean'), false)"
)
_TEXT: LiteralString = "(meters_event.metadata ->> {}::text)"
# CASE decides before the cast is tried, so a text that is no number is never cast.
_NUMBER: LiteralString = (
    "(CASE jsonb_typeof(meters_event.metadata -> {}::text)"
    " WHEN 'number' THEN (meters_event.metadata -> {}::text)::numeric"
    " WHEN 'string' THEN CASE WHEN (meters_event.metadata ->> {}::text) ~ {}"
    " THEN (meters_event.metadata ->> {}::text)::numeric END END)"
)
_ORDER: dict[Operator, LiteralString] = {
    Operator.GREATER_THAN: "coalesce({} > {}::numeric, false)",
    Operator.GREATER_THAN_OR_EQUALS: "coalesce({} >= {}::numeric, false)",
    Operator.LESS_THAN: "coalesce({} < {}::numeric, false)",
    Operator.LESS_THAN_OR_EQUALS: "coalesce({} <= {}::numeric, false)",
}


def present(key: str) -> Sql:
    """Whether the event has a value under this key."""
    return compose(_SCALAR, value(key))


def number(key: str) -> Sql:
    """The number under this key, or NULL."""
    name = value(key)
    return compose(_NUMBER, name, name, name, value(f"^({NUMBER_PATTERN})$"), name)


def matches(node: FilterGroup | Clause | None) -> Sql:
    """Whether the event matches: true or false, never NULL."""
    if node is None:
        return TRUE
    if isinstance(node, Clause):
        return compose("(CASE WHEN {} THEN {} ELSE false END)", present(node.key), _comparison(node))
    parts = [matches(clause) for clause in node.clauses]
    return compose("({})", join(" AND ", parts) if node.conjunction == "and" else join(" OR ", parts))


def _comparison(clause: Clause) -> Sql:
    """The comparison of a value that is there.

    Only the filter's side decides how to compare. When it reads as a number, an event's value that does not can never
    be equal to it as text either; a boolean's text is `true` or `false` on both sides.
    """
    wanted = read_number(clause.value)
    text = compose(_TEXT, value(clause.key))
    match clause.operator:
        case Operator.EQUALS | Operator.NOT_EQUALS if wanted is not None:
            equal = compose("coalesce({} = {}::numeric, false)", number(clause.key), value(_plain(wanted)))
        case Operator.EQUALS | Operator.NOT_EQUALS:
            equal = compose("({} = {}::text)", text, value(read_text(clause.value)))
        case Operator.CONTAINS:
            return compose("(strpos({}, {}::text) > 0)", text, value(read_text(clause.value)))
        case Operator.DOES_NOT_CONTAIN:
            return compose("(strpos({}, {}::text) = 0)", text, value(read_text(clause.value)))
        case _:
            if wanted is None:
                return Sql("false")
            return compose(_ORDER[clause.operator], number(clause.key), value(_plain(wanted)))
    return equal if clause.operator == Operator.EQUALS else compose("(NOT {})", equal)


def _plain(wanted: Decimal) -> str:
    return format(wanted, "f")


def reading(meter: Meter) -> Sql:
    """What one matching event brings to the meter: 1 for count, else its number or NULL."""
    if meter.aggregation == Aggregation.COUNT:
        return Sql("1::numeric")
    if meter.aggregation == Aggregation.UNIQUE:
        return compose("(CASE WHEN {} THEN 1::numeric END)", present(meter.property_key))
    return number(meter.property_key)


def canonical(key: str) -> Sql:
    """The value under this key as the text by which values are told apart, or NULL: "5", 5 and 5.0 are one value."""
    return compose("(CASE WHEN {} THEN coalesce(trim_scale({})::text, {}) END)", present(key), number(key), _text(key))


def groups(meter: Meter) -> Sql:
    """The values of the meter's group keys, as an array of texts; NULL where the event has none."""
    if not meter.group_by:
        return Sql("'{}'::text[]")
    return compose("ARRAY[{}]::text[]", join(", ", [canonical(key) for key in meter.group_by]))


def _text(key: str) -> Sql:
    return compose(_TEXT, value(key))
