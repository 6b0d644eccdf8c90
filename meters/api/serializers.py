"""What may be asked about events and meters, and how. An ingest body has a reader of its own (meters.ingestion)."""

from typing import Any

from django.conf import settings
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from customers.api.fields import Choice, Flag, Instant, Query, QueryFlag, Request, Text, WholeNumber
from meters import filters, ingestion
from meters.models import MAX_GROUP_KEYS, Aggregation
from meters.preview import MAX_DAYS
from meters.voids import MAX_REASON
from meters.windows import Window

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
    group_by = serializers.ListField(
        child=Text(max_length=100, trim_whitespace=False),
        max_length=MAX_GROUP_KEYS,
        required=False,
        help_text="Metadata keys by whose values usage can be read.",
    )
    carry_forward = Flag(
        required=False,
        help_text="last and weighted_sum only: a period begins with the value that held before it.",
    )

    def arguments(self) -> dict[str, Any]:
        """As `create_meter` takes them."""
        given = dict(self.validated_data)
        aggregation = given.pop("aggregation")
        return {**given, "aggregation": aggregation["type"], "property_key": aggregation.get("key") or ""}


class MeterPreview(MeterCreate):
    """A meter as it would be created (name and unit may be left out), and the time to try it on."""

    name = Text(max_length=255, required=False)
    measurement_unit = Text(max_length=100, required=False)
    days = WholeNumber(
        min_value=1, max_value=MAX_DAYS, required=False, help_text="How many days back, today included; 30."
    )
    time_zone = Text(required=False, help_text="Where the days begin at midnight; the server's billing time zone.")

    def arguments(self) -> dict[str, Any]:
        """As `build_meter` takes them."""
        given = {"name": "Preview", "measurement_unit": "units", **super().arguments()}
        return {name: value for name, value in given.items() if name not in ("days", "time_zone")}


# What invoices were computed with.
MEANING = ("event_name", "aggregation", "filter", "group_by", "carry_forward")


class MeterUpdate(Request):
    """Null leaves the name and the unit as they are, and removes the description."""

    default_error_messages = {
        "fixed": "cannot be changed, because invoices were computed with it; make a new meter instead.",
    }

    name = Text(max_length=255, required=False, allow_null=True)
    description = Text(max_length=10_000, required=False, allow_null=True, allow_blank=True)
    measurement_unit = Text(max_length=100, required=False, allow_null=True)

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if isinstance(data, dict) and (fixed := [name for name in MEANING if name in data]):
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


class EventVoidRequest(Request):
    reason = Text(max_length=MAX_REASON, help_text="Why it must not count; kept with the event.")


class BulkVoidRequest(Request):
    """Which events, [start, end), by at least one of event name, customer, meter and filter."""

    start = Instant()
    end = Instant()
    event_name = Text(required=False, trim_whitespace=False)
    customer_id = Text(required=False, trim_whitespace=False)
    meter_id = Text(
        required=False, trim_whitespace=False, help_text="Events that this meter's event name and filter match."
    )
    filter = FilterTree(required=False, help_text="Conditions on the metadata, as a meter has them.")
    reason = Text(max_length=MAX_REASON, required=False, help_text="Needed unless it is a dry run.")
    dry_run = Flag(required=False, help_text="true shows the effect in units and in money, and changes nothing.")


class ActivityQuery(Query):
    customer_id = Text(required=False, allow_blank=True, trim_whitespace=False, help_text="Only this customer's.")
    start = Instant(required=False, help_text="30 days ago.")
    end = Instant(required=False, help_text="Now.")


class UsageQuery(ActivityQuery):
    window = Choice(choices=[(str(window), str(window)) for window in Window], required=False, help_text="day")
    group_by = Text(
        required=False, allow_blank=True, trim_whitespace=False, help_text="All of the meter's group keys, with commas."
    )
    time_zone = Text(required=False, help_text="Whose hours, days and months; the server's billing time zone.")
    format = Choice(choices=[("json", "json"), ("csv", "csv")], required=False, help_text="json")
