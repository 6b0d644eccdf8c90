"""What may be asked about events and meters, and how. An ingest body has a reader of its own (meters.ingestion)."""

from typing import Any

from django.conf import settings
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from customers.api.fields import Choice, Instant, Query, QueryFlag, Request, Text
from meters import filters, ingestion
from meters.models import Aggregation

# Written out by hand because the body never becomes a serializer: a thousand of them would cost more than storing.
INGEST_BODY: dict[str, Any] = {
    "type": "object",
    "required": ["events"],
    "additionalProperties": False,
    "properties": {
        "events": {
            "type": "array",
            "minItems": 1,
            "maxItems": settings.MAX_EVENTS_PER_BATCH,
            "items": {
                "type": "object",
                "required": ["event_id", "customer_id", "event_name"],
                "additionalProperties": False,
                "properties": {
                    "event_id": {
                        "type": "string",
                        "minLength": 1,
                        "maxLength": ingestion.MAX_ID_LENGTH,
                        "description": "Counted once, for ever. Compared byte by byte.",
                    },
                    "customer_id": {"type": "string", "description": "An existing customer."},
                    "event_name": {
                        "type": "string",
                        "minLength": 1,
                        "maxLength": ingestion.MAX_NAME_LENGTH,
                        "description": "Meters match it exactly.",
                    },
                    "timestamp": {
                        "type": ["string", "null"],
                        "format": "date-time",
                        "description": "When it happened; left out or null: now. Without a zone it is UTC.",
                    },
                    "metadata": {
                        "type": ["object", "null"],
                        "maxProperties": ingestion.MAX_PAIRS,
                        "propertyNames": {"minLength": 1, "maxLength": ingestion.MAX_KEY_LENGTH},
                        "additionalProperties": {
                            "oneOf": [
                                {"type": "string", "maxLength": ingestion.MAX_TEXT_LENGTH},
                                {"type": "number"},
                                {"type": "boolean"},
                            ]
                        },
                    },
                },
            },
        }
    },
}

_CONDITION_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["key", "operator", "value"],
    "additionalProperties": False,
    "properties": {
        "key": {"type": "string", "minLength": 1, "maxLength": filters.MAX_KEY_LENGTH},
        "operator": {"type": "string", "enum": [str(operator) for operator in filters.Operator]},
        "value": {
            "oneOf": [
                {"type": "string", "maxLength": filters.MAX_TEXT_LENGTH},
                {"type": "number"},
                {"type": "boolean"},
            ]
        },
    },
}


def _filter_schema(levels: int) -> dict[str, Any]:
    clauses = [_CONDITION_SCHEMA] if levels == 1 else [_CONDITION_SCHEMA, _filter_schema(levels - 1)]
    return {
        "type": "object",
        "required": ["conjunction", "clauses"],
        "additionalProperties": False,
        "properties": {
            "conjunction": {"type": "string", "enum": ["and", "or"]},
            "clauses": {
                "type": "array",
                "minItems": 1,
                "maxItems": filters.MAX_CLAUSES,
                "items": {"oneOf": clauses},
            },
        },
    }


@extend_schema_field(_filter_schema(filters.MAX_LEVELS))
class FilterTree(serializers.Field):
    """Conditions on an event's metadata; meters.meters reads and refuses it."""

    def to_internal_value(self, data: Any) -> Any:
        return data


class MeterAggregation(Request):
    type = Choice(choices=Aggregation.choices)
    key = Text(
        max_length=100,
        required=False,
        allow_null=True,
        allow_blank=True,
        trim_whitespace=False,
        help_text="The metadata key whose value is read. Needed for all but count.",
    )


class MeterCreate(Request):
    name = Text(max_length=255)
    event_name = Text(max_length=255, trim_whitespace=False, help_text="Matched exactly.")
    measurement_unit = Text(max_length=100, help_text="A label, such as calls. Nothing is converted.")
    aggregation = MeterAggregation()
    description = Text(max_length=10_000, required=False, allow_null=True, allow_blank=True)
    filter = FilterTree(required=False, allow_null=True)

    def arguments(self) -> dict[str, Any]:
        """As `create_meter` takes them."""
        given = dict(self.validated_data)
        aggregation = given.pop("aggregation")
        return {**given, "aggregation": aggregation["type"], "property_key": aggregation.get("key") or ""}


class MeterUpdate(Request):
    """Null leaves the name and the unit as they are, and removes the description."""

    default_error_messages = {
        "fixed": "cannot be changed, because invoices were computed with it; make a new meter instead.",
    }

    name = Text(max_length=255, required=False, allow_null=True)
    description = Text(max_length=10_000, required=False, allow_null=True, allow_blank=True)
    measurement_unit = Text(max_length=100, required=False, allow_null=True)

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if isinstance(data, dict) and (
            fixed := [name for name in ("event_name", "aggregation", "filter") if name in data]
        ):
            raise serializers.ValidationError({name: [self.error_messages["fixed"]] for name in fixed})
        return super().to_internal_value(data)

    def changes(self) -> dict[str, Any]:
        """As `update_meter` takes them."""
        return {
            name: given for name, given in self.validated_data.items() if given is not None or name == "description"
        }


class MeterQuery(Query):
    archived = QueryFlag(required=False, help_text="true lists the archived meters, anything else the others.")


class EventQuery(Query):
    customer_id = Text(required=False, allow_blank=True, trim_whitespace=False)
    event_name = Text(required=False, allow_blank=True, trim_whitespace=False)
    meter_id = Text(
        required=False,
        allow_blank=True,
        trim_whitespace=False,
        help_text="Only events that this meter's event name and filter match.",
    )
    start = Instant(required=False, help_text="Events at or after this time.")
    end = Instant(required=False, help_text="Events before this time.")
