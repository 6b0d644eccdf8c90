"""Fields that take exactly what the contract says: a number is no text, `true` is no number, nothing is guessed."""

import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from customers.api.errors import InvalidQueryParameters

LARGEST_BIGINT = 2**63 - 1

METADATA_SCHEMA = {
    "type": "object",
    "maxProperties": 50,
    "additionalProperties": {"oneOf": [{"type": "string"}, {"type": "number"}, {"type": "boolean"}]},
}


class Text(serializers.CharField):
    """A JSON string."""

    default_error_messages = {"invalid": "must be a string."}

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return str(super().to_internal_value(data))


class Pattern(serializers.RegexField):
    """A JSON string of a fixed shape, taken as it is: `"1\\n"` is not `"1"`."""

    def __init__(self, regex: str, *, said: str, **kwargs: Any) -> None:
        super().__init__(regex, trim_whitespace=False, error_messages={"invalid": said}, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return str(super().to_internal_value(data))


class Email(serializers.EmailField):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=254, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return str(super().to_internal_value(data))


class WholeNumber(serializers.IntegerField):
    """A JSON integer: neither `"5"`, nor `5.0`, nor `true`."""

    default_error_messages = {"invalid": "must be a whole number."}

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("max_value", LARGEST_BIGINT)
        super().__init__(**kwargs)

    def to_internal_value(self, data: Any) -> int:
        if not isinstance(data, int) or isinstance(data, bool):
            self.fail("invalid")
        return data


class Flag(serializers.BooleanField):
    """`true` or `false`."""

    default_error_messages = {"invalid": "must be true or false."}

    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            self.fail("invalid")
        return data


class Choice(serializers.ChoiceField):
    default_error_messages = {"invalid_choice": "must be one of {choices}."}

    def to_internal_value(self, data: Any) -> str:
        if data == "" and self.allow_blank:
            return ""
        if not isinstance(data, str) or data not in self.choices:
            self.fail("invalid_choice", choices=", ".join(str(choice) for choice in self.choices))
        return data


_FULL_INSTANT = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d([.,]\d{1,9})?)?(Z|z|[+-]\d\d:?\d\d)?)?", re.ASCII)


def read_instant(text: str) -> datetime | None:
    """An ISO 8601 instant as UTC; without a zone it is UTC, without a time it is midnight. None if unreadable."""
    if not _FULL_INSTANT.fullmatch(text):
        return None
    try:
        instant = datetime.fromisoformat(text)
        if instant.tzinfo is None:
            return instant.replace(tzinfo=UTC)
        return instant.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


@extend_schema_field(OpenApiTypes.DATETIME)
class Instant(serializers.Field):
    """ISO 8601; a time without a zone is read as UTC."""

    default_error_messages = {"invalid": "must be an ISO 8601 time such as 2026-01-31T12:00:00Z."}

    def to_internal_value(self, data: Any) -> datetime:
        instant = read_instant(data) if isinstance(data, str) else None
        if instant is None:
            self.fail("invalid")
        return instant

    def to_representation(self, value: datetime) -> datetime:
        return value.astimezone(UTC)


@extend_schema_field(METADATA_SCHEMA)
class Metadata(serializers.Field):
    """Free pairs of the caller: at most 50, keys to 40 characters, values text, number or boolean."""

    default_error_messages = {
        "invalid": "must be an object of strings, numbers and booleans.",
        "pairs": "may have 50 pairs at most.",
        "key": "the key {name!r} must have 1 to 40 characters.",
        "value": "the value of {name!r} must be a string, a number or a boolean.",
        "length": "the value of {name!r} may have 500 characters at most.",
        "number": "the value of {name!r} is too large a number.",
    }

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if not isinstance(data, dict):
            self.fail("invalid")
        if len(data) > 50:
            self.fail("pairs")
        result: dict[str, Any] = {}
        for key, value in data.items():
            if not 1 <= len(key) <= 40:
                self.fail("key", name=key[:41])
            if not isinstance(value, str | int | Decimal):
                self.fail("value", name=key)
            if isinstance(value, str) and len(value) > 500:
                self.fail("length", name=key)
            result[key] = self._number(key, value) if isinstance(value, Decimal) else value
            if isinstance(value, int) and abs(value) > LARGEST_BIGINT:
                self.fail("number", name=key)
        return result

    def _number(self, key: str, value: Decimal) -> int | float:
        """Notes, not amounts: kept as JSON's ordinary number."""
        number = float(value)
        if number in (float("inf"), float("-inf")):
            self.fail("number", name=key)
        return int(number) if number.is_integer() and abs(number) < 2**53 else number


class Request(serializers.Serializer):
    """A request body. What it does not name is refused, so that a misspelt field is never silently lost."""

    # Fields of the contract that need nothing done here (they concern a hosted pay page, a brand, a card).
    harmless: frozenset[str] = frozenset()
    # Fields of the contract that mean something we do not do: refused unless they say nothing (null, false, 0, empty).
    unsupported: frozenset[str] = frozenset()

    default_error_messages = {
        "invalid": "must be an object.",
        "unknown": "is not a field of this request.",
        "unsupported": "is not supported by this server; leave it out.",
    }

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if not isinstance(data, dict):
            self.fail("invalid")
        errors: dict[str, list[str]] = {}
        for name, value in data.items():
            if name in self.fields or name in self.harmless:
                continue
            if name not in self.unsupported:
                errors[name[:100]] = [str(self.error_messages["unknown"])]
            elif not (value is None or value is False or value == 0 or value == "" or value == [] or value == {}):
                errors[name] = [str(self.error_messages["unsupported"])]
        try:
            given = dict(super().to_internal_value(data))
        except serializers.ValidationError as error:
            if isinstance(error.detail, dict):
                raise serializers.ValidationError({**error.detail, **errors}) from error
            raise
        if errors:
            raise serializers.ValidationError(errors)
        return given


class Query(serializers.Serializer):
    """Query parameters. Unknown ones are let through: pagers and proxies add their own."""

    def read(self) -> dict[str, Any]:
        if not self.is_valid():
            raise InvalidQueryParameters(self.errors)
        return dict(self.validated_data)


@extend_schema_field(OpenApiTypes.BOOL)
class QueryFlag(serializers.Field):
    """`true` or `false` in a query string; empty or `null` means not given."""

    default_error_messages = {"invalid": "must be true or false."}

    def to_internal_value(self, data: Any) -> bool | None:
        words: dict[str, bool | None] = {"true": True, "false": False, "": None, "null": None}
        word = str(data).lower()
        if word not in words:
            self.fail("invalid")
        return words[word]
