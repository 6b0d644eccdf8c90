"""Reading single events back: by id, and as a list, with their numbers exactly as they were sent."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, LiteralString

import msgspec
from django.db import connection
from django.db.models import TextField
from django.db.models.functions import Cast

from customers.errors import NotFound
from meters.filters import parse_filter
from meters.ingestion import event_key
from meters.models import Event, EventKey, Meter
from meters.partitions import dropped_months, month_of
from meters.sql import Sql, compose, join, matches, value

_decode = msgspec.json.Decoder(float_hook=Decimal).decode


class EventNotFound(NotFound):
    pass


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event as it was sent: fractions are Decimal, whole numbers int."""

    event_id: str
    customer_id: str
    event_name: str
    timestamp: datetime
    metadata: dict[str, Any] | None
    # When it was voided; it counts for nothing from then on.
    voided_at: datetime | None = None


# Takes the events to show under the log's own name, so that customers are joined to no more than those.
_SELECT: LiteralString = (
    "SELECT meters_event.event_id, customers_customer.public_id, meters_event.event_name, meters_event.timestamp,"
    " meters_event.metadata::text, meters_event.voided_at"
    " FROM (SELECT * FROM meters_event WHERE {}) AS meters_event"
    " JOIN customers_customer ON customers_customer.id = meters_event.customer_id"
    " ORDER BY meters_event.timestamp DESC, meters_event.id DESC"
)


def get_event(*, event_id: str) -> StoredEvent:
    """The event of this id, byte for byte; EventNotFound if it was never accepted, or its month was dropped."""
    place = find_place(event_id=event_id)
    found = _read(compose("timestamp = {} AND id = {}", value(place.timestamp), value(place.event)))
    if found and found[0].event_id == event_id:
        return found[0]
    raise _missing(place, gone=not found)


def find_event(*, event_id: str) -> Event:
    """The same event as its row in the log."""
    place = find_place(event_id=event_id)
    event = Event.objects.filter(timestamp=place.timestamp, pk=place.event).select_related("customer").first()
    if event is None or event.event_id != event_id:
        raise _missing(place, gone=event is None)
    return event


def find_place(*, event_id: str) -> EventKey:
    """Where in the log an event lies, or lay before its month was dropped; EventNotFound if it was never accepted."""
    try:
        place = EventKey.objects.filter(key=event_key(event_id)).first()
    except UnicodeEncodeError:
        place = None
    if place is None:
        raise EventNotFound("Item not found")
    return place


def _missing(place: EventKey, *, gone: bool) -> EventNotFound:
    month = month_of(place.timestamp)
    if gone and dropped_months(months=[month]):
        return EventNotFound(f"The event is of {month:%B %Y}, which was archived and is no longer in the log.")
    return EventNotFound("Item not found")


def list_events(
    *,
    offset: int,
    limit: int,
    customer_id: str | None = None,
    event_name: str | None = None,
    meter: Meter | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
) -> list[StoredEvent]:
    """Events newest first, in [start, end); with a meter only those that its event name and filter match."""
    if any(text is not None and "\0" in text for text in (customer_id, event_name)):
        return []
    conditions = [Sql("true")]
    if customer_id is not None:
        conditions.append(
            compose(
                "meters_event.customer_id = (SELECT id FROM customers_customer WHERE public_id = {}::text)",
                value(customer_id),
            )
        )
    if event_name is not None:
        conditions.append(compose("meters_event.event_name = {}::text", value(event_name)))
    if meter is not None:
        conditions.append(compose("meters_event.event_name = {}::text", value(meter.event_name)))
        conditions.append(matches(None if meter.filter is None else parse_filter(meter.filter)))
    if start is not None:
        conditions.append(compose("meters_event.timestamp >= {}", value(start)))
    if end is not None:
        conditions.append(compose("meters_event.timestamp < {}", value(end)))
    return _read(
        compose(
            "{} ORDER BY timestamp DESC, id DESC LIMIT {} OFFSET {}",
            join(" AND ", conditions),
            value(limit),
            value(offset),
        )
    )


def exact_metadata(events: Sequence[Event]) -> dict[int, dict[str, Any] | None]:
    """The metadata of stored events by primary key, with every number exact (Django's JSON reader makes floats)."""
    # The times let the database look into the right months only.
    rows = (
        Event.objects.filter(pk__in=[event.pk for event in events], timestamp__in={event.timestamp for event in events})
        .annotate(text=Cast("metadata", TextField()))
        .values_list("pk", "text")
    )
    return {pk: None if text is None else _decode(text.encode()) for pk, text in rows}


def _read(condition: Sql) -> list[StoredEvent]:
    sql = compose(_SELECT, condition)
    with connection.cursor() as cursor:
        cursor.execute(sql.text, sql.params)
        return [
            StoredEvent(
                event_id, customer_id, name, timestamp, None if text is None else _decode(text.encode()), voided_at
            )
            for event_id, customer_id, name, timestamp, text, voided_at in cursor.fetchall()
        ]
