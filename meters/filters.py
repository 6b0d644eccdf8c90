"""Which events a meter counts: the contract's filter tree, read and evaluated without a database.

This module is the meaning. `meters.sql` renders the same meaning for PostgreSQL, and a property test holds the two
together, so whoever changes one changes both.

A clause compares the event's value and the filter's value as numbers when both read as numbers, else as booleans when
both read as booleans, else as text. A key that the event does not have never matches, whatever the operator.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

MAX_LEVELS = 3
MAX_CLAUSES = 10
MAX_KEY_LENGTH = 100
MAX_TEXT_LENGTH = 500

# What a text must look like to count as a number: ASCII digits only, no spaces, an exponent of two digits at most, so
# that a text of a few characters cannot stand for a number of a million digits. Also used by PostgreSQL (meters.sql).
NUMBER_PATTERN = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,2})?"
_NUMBER = re.compile(NUMBER_PATTERN)

Value = str | bool | Decimal


class FilterError(ValueError):
    """A filter that cannot be used. The message begins with the place, such as `filter.clauses[2].key`."""


class Operator(StrEnum):
    EQUALS = "equals"
    NOT_EQUALS = "not_equals"
    GREATER_THAN = "greater_than"
    GREATER_THAN_OR_EQUALS = "greater_than_or_equals"
    LESS_THAN = "less_than"
    LESS_THAN_OR_EQUALS = "less_than_or_equals"
    CONTAINS = "contains"
    DOES_NOT_CONTAIN = "does_not_contain"


# These compare numbers and nothing else.
ORDERING = frozenset(
    {
        Operator.GREATER_THAN,
        Operator.GREATER_THAN_OR_EQUALS,
        Operator.LESS_THAN,
        Operator.LESS_THAN_OR_EQUALS,
    }
)

_WORDS = {
    Operator.EQUALS: "is not",
    Operator.NOT_EQUALS: "is",
    Operator.GREATER_THAN: "is not greater than",
    Operator.GREATER_THAN_OR_EQUALS: "is less than",
    Operator.LESS_THAN: "is not less than",
    Operator.LESS_THAN_OR_EQUALS: "is greater than",
    Operator.CONTAINS: "does not contain",
    Operator.DOES_NOT_CONTAIN: "contains",
}


def read_number(value: object) -> Decimal | None:
    """The exact number that a metadata value stands for, or None. `True` is not 1; `"1500"` is 1500."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        return Decimal(value) if _NUMBER.fullmatch(value) else None
    if isinstance(value, int):
        return Decimal(value)
    if isinstance(value, float):
        # The shortest decimal that reads back as this float: what the sender wrote, not its binary neighbour.
        value = Decimal(repr(value))
    if isinstance(value, Decimal):
        return value if value.is_finite() else None
    return None


def read_boolean(value: object) -> bool | None:
    if isinstance(value, bool):
        return value
    return {"true": True, "false": False}.get(value) if isinstance(value, str) else None


def read_text(value: object) -> str:
    """A metadata value as text; a number in plain digits, as PostgreSQL writes it."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    number = read_number(value)
    if number is None:
        raise TypeError(f"{type(value).__name__} is not a metadata value")
    return format(abs(number) if number.is_zero() else number, "f")


def read_identity(value: object) -> str:
    """The text by which values are told apart: "5", 5 and "5.0" are one value, "05 " is another."""
    number = read_number(value)
    if number is None:
        return read_text(value)
    text = read_text(number)
    return text.rstrip("0").rstrip(".") if "." in text else text


def is_present(metadata: Mapping[str, object] | None, key: str) -> bool:
    """Whether the event has a value of one of the kinds that metadata may hold."""
    return metadata is not None and isinstance(metadata.get(key), (str, int, float, Decimal))


@dataclass(frozen=True, slots=True)
class Clause:
    """One condition on one metadata key."""

    key: str
    operator: Operator
    value: Value

    def matches(self, metadata: Mapping[str, object] | None) -> bool:
        if metadata is None or not is_present(metadata, self.key):
            return False
        given = metadata[self.key]
        match self.operator:
            case Operator.EQUALS:
                return _equal(given, self.value)
            case Operator.NOT_EQUALS:
                return not _equal(given, self.value)
            case Operator.CONTAINS:
                return read_text(self.value) in read_text(given)
            case Operator.DOES_NOT_CONTAIN:
                return read_text(self.value) not in read_text(given)
        left, right = read_number(given), read_number(self.value)
        if left is None or right is None:
            return False
        match self.operator:
            case Operator.GREATER_THAN:
                return left > right
            case Operator.GREATER_THAN_OR_EQUALS:
                return left >= right
            case Operator.LESS_THAN:
                return left < right
            case Operator.LESS_THAN_OR_EQUALS:
                return left <= right
        raise AssertionError(f"no rule for {self.operator}")

    def explain(self, metadata: Mapping[str, object] | None) -> str:
        """Why this clause refuses the event; empty when it does not."""
        if self.matches(metadata):
            return ""
        if metadata is None or not is_present(metadata, self.key):
            return f"{self.key} is missing"
        given, wanted = read_text(metadata[self.key]), read_text(self.value)
        if self.operator in ORDERING and read_number(metadata[self.key]) is None:
            return f"{self.key} is “{given}”, which is not a number"
        return f"{self.key} is “{given}” and {_WORDS[self.operator]} “{wanted}”"

    def as_json(self) -> dict[str, object]:
        return {"key": self.key, "operator": str(self.operator), "value": _json_value(self.value)}


@dataclass(frozen=True, slots=True)
class FilterGroup:
    """Clauses and further groups, all of which (and) or one of which (or) must match."""

    conjunction: str
    clauses: tuple["Clause | FilterGroup", ...]

    def matches(self, metadata: Mapping[str, object] | None) -> bool:
        found = (clause.matches(metadata) for clause in self.clauses)
        return all(found) if self.conjunction == "and" else any(found)

    def explain(self, metadata: Mapping[str, object] | None) -> str:
        """Why the filter refuses the event, in words for a person; empty when it does not."""
        if self.matches(metadata):
            return ""
        reasons = [reason for clause in self.clauses if (reason := clause.explain(metadata))]
        return ", and ".join(reasons)

    def as_json(self) -> dict[str, object]:
        """The filter as the contract writes it, for storing and for answering."""
        return {"conjunction": self.conjunction, "clauses": [clause.as_json() for clause in self.clauses]}

    def conditions(self) -> list[Clause]:
        """Every condition of the tree, from left to right."""
        found: list[Clause] = []
        for clause in self.clauses:
            found.extend([clause] if isinstance(clause, Clause) else clause.conditions())
        return found


def _equal(given: object, wanted: Value) -> bool:
    left, right = read_number(given), read_number(wanted)
    if left is not None and right is not None:
        return left == right
    yes, no = read_boolean(given), read_boolean(wanted)
    if yes is not None and no is not None:
        return yes is no
    return read_text(given) == read_text(wanted)


def _json_value(value: Value) -> str | bool | int | float:
    if not isinstance(value, Decimal):
        return value
    if value == value.to_integral_value():
        return int(value)
    # parse_filter has made sure that this float reads back as the very same decimal.
    return float(value)


def parse_filter(raw: object) -> FilterGroup:
    """Read a filter tree as it comes from JSON. Raises FilterError, whose message names the place."""
    return _group(raw, "filter", 1)


def _group(raw: object, place: str, level: int) -> FilterGroup:
    if level > MAX_LEVELS:
        raise FilterError(f"{place}: filters nest at most {MAX_LEVELS} levels deep.")
    if not isinstance(raw, Mapping):
        raise FilterError(f"{place}: must be an object with conjunction and clauses.")
    _only(raw, {"conjunction", "clauses"}, place)
    conjunction = raw.get("conjunction")
    if conjunction not in ("and", "or"):
        raise FilterError(f"{place}.conjunction: must be “and” or “or”.")
    clauses = raw.get("clauses")
    if not isinstance(clauses, list) or not 1 <= len(clauses) <= MAX_CLAUSES:
        raise FilterError(f"{place}.clauses: must be a list of 1 to {MAX_CLAUSES} clauses.")
    return FilterGroup(
        conjunction=str(conjunction),
        clauses=tuple(
            _clause_or_group(clause, f"{place}.clauses[{index}]", level) for index, clause in enumerate(clauses)
        ),
    )


def _clause_or_group(raw: object, place: str, level: int) -> Clause | FilterGroup:
    if not isinstance(raw, Mapping):
        raise FilterError(f"{place}: must be a condition or a nested filter.")
    if "conjunction" in raw or "clauses" in raw:
        return _group(raw, place, level + 1)
    _only(raw, {"key", "operator", "value"}, place)
    key = raw.get("key")
    if not isinstance(key, str) or not 1 <= len(key) <= MAX_KEY_LENGTH:
        raise FilterError(f"{place}.key: must be a text of 1 to {MAX_KEY_LENGTH} characters.")
    _storable(key, f"{place}.key")
    operator = raw.get("operator")
    if not isinstance(operator, str) or operator not in Operator.__members__.values():
        raise FilterError(f"{place}.operator: must be one of {', '.join(Operator)}.")
    return Clause(key=key, operator=Operator(operator), value=_value(raw.get("value"), f"{place}.value"))


def _value(raw: object, place: str) -> Value:
    if isinstance(raw, bool):
        return raw
    if isinstance(raw, str):
        if len(raw) > MAX_TEXT_LENGTH:
            raise FilterError(f"{place}: must be no longer than {MAX_TEXT_LENGTH} characters.")
        _storable(raw, place)
        return raw
    number = read_number(raw)
    if number is None:
        raise FilterError(f"{place}: must be a text, a number or true/false.")
    if number.adjusted() > 307 or number.adjusted() < -307:
        raise FilterError(f"{place}: is beyond what a number here may be (1e±307).")
    # Stored filters are JSON and come back as floats; a number that would not survive that is refused, because a
    # text does survive and means the same.
    if number != number.to_integral_value() and Decimal(repr(float(number))) != number:
        raise FilterError(f"{place}: has more digits than a JSON number keeps; write it as a text.")
    return number


def _only(raw: Mapping[object, object], allowed: set[str], place: str) -> None:
    if unknown := sorted(str(key) for key in raw if key not in allowed):
        raise FilterError(f"{place}: has no field {', '.join(unknown)}.")


def _storable(text: str, place: str) -> None:
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise FilterError(f"{place}: contains a character that cannot be stored.")
