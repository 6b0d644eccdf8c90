"""Events and meters as the contract writes them."""

from datetime import datetime
from typing import Any, Literal, TypedDict

from django.conf import settings

from meters.events import StoredEvent
from meters.models import Meter


class EventObject(TypedDict):
    """An event as it was sent. A number in the metadata is answered digit for digit."""

    event_id: str
    business_id: str
    customer_id: str
    event_name: str
    timestamp: datetime
    metadata: dict[str, Any] | None


class IngestObject(TypedDict):
    """What became of a batch: how many of its events were new. The others had been stored before."""

    ingested_count: int


class MeterAggregationObject(TypedDict):
    """How the events of a billing period become one quantity; `key` is null for count."""

    type: Literal["count", "sum", "max", "last"]
    key: str | None


class MeterObject(TypedDict):
    """A meter."""

    id: str
    business_id: str
    name: str
    description: str | None
    event_name: str
    measurement_unit: str
    aggregation: MeterAggregationObject
    filter: dict[str, Any] | None
    created_at: datetime
    updated_at: datetime


def event_object(event: StoredEvent) -> EventObject:
    return {
        "event_id": event.event_id,
        "business_id": settings.BUSINESS_ID,
        "customer_id": event.customer_id,
        "event_name": event.event_name,
        "timestamp": event.timestamp,
        "metadata": event.metadata,
    }


def meter_object(meter: Meter) -> MeterObject:
    return {
        "id": meter.public_id,
        "business_id": settings.BUSINESS_ID,
        "name": meter.name,
        "description": meter.description,
        "event_name": meter.event_name,
        "measurement_unit": meter.measurement_unit,
        "aggregation": {
            "type": meter.aggregation,  # type: ignore[typeddict-item]
            "key": meter.property_key or None,
        },
        "filter": meter.filter,
        "created_at": meter.created_at,
        "updated_at": meter.updated_at,
    }
