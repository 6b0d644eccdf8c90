"""Events and meters as the contract writes them."""

from datetime import datetime
from typing import Any, Literal, TypedDict

from django.conf import settings

from billing.corrections import Correction
from billing.money import plain
from meters.events import StoredEvent, exact_metadata
from meters.models import EventVoid, Meter
from meters.preview import Preview
from meters.usage import MeterActivity, Verdict
from meters.voids import Voided
from meters.windows import WindowUsage


class EventObject(TypedDict):
    """An event as it was sent. A number in the metadata is answered digit for digit.

    `voided_at` says since when it counts for nothing; null for all but voided events.
    """

    event_id: str
    business_id: str
    customer_id: str
    event_name: str
    timestamp: datetime
    metadata: dict[str, Any] | None
    voided_at: datetime | None


class IngestObject(TypedDict):
    """What became of a batch: how many of its events were new. The others had been stored before."""

    ingested_count: int


class MeterAggregationObject(TypedDict):
    """How the events of a billing period become one quantity; `key` is null for count."""

    type: Literal["count", "sum", "max", "last", "unique", "min", "avg", "weighted_sum"]
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
    group_by: list[str]
    carry_forward: bool
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
        "voided_at": event.voided_at,
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
        "group_by": meter.group_by,
        "carry_forward": meter.carry_forward,
        "created_at": meter.created_at,
        "updated_at": meter.updated_at,
    }


# -- corrections -----------------------------------------------------------------------------------------------


class EventVoidObject(TypedDict):
    """Why an event counts for nothing, who said so and when."""

    event_id: str
    customer_id: str
    reason: str
    author: str
    voided_at: datetime


class VoidUnitsObject(TypedDict):
    """What a meter says of a customer over the whole span that was named, before and after."""

    meter_id: str
    customer_id: str
    before: str
    after: str


class VoidMoneyObject(TypedDict):
    """How much a period changes, in the currency's minor unit. A closed one is adjusted on the next invoice."""

    subscription_id: str
    customer_id: str
    meter_id: str
    period_start: datetime
    period_end: datetime
    closed: bool
    currency: str
    change: int


class BulkVoidObject(TypedDict):
    """What a bulk void did, or in a dry run would do.

    `money` is answered by a dry run only; `money_complete` is false where there were too many periods to rate all.
    """

    dry_run: bool
    events: int
    customers: int
    units: list[VoidUnitsObject]
    money: list[VoidMoneyObject] | None
    money_complete: bool | None


def void_object(void: EventVoid) -> EventVoidObject:
    return {
        "event_id": void.event_id,
        "customer_id": void.customer.public_id,
        "reason": void.reason,
        "author": void.author,
        "voided_at": void.voided_at,
    }


def bulk_void_object(voided: Voided, correction: Correction | None) -> BulkVoidObject:
    return {
        "dry_run": correction is not None,
        "events": voided.events,
        "customers": voided.customers,
        "units": [
            {
                "meter_id": unit.meter.public_id,
                "customer_id": unit.customer.public_id,
                "before": plain(unit.before),
                "after": plain(unit.after),
            }
            for unit in voided.units
        ],
        "money": None
        if correction is None
        else [
            {
                "subscription_id": effect.period.subscription.public_id,
                "customer_id": effect.period.subscription.customer.public_id,
                "meter_id": effect.charge.meter.public_id,
                "period_start": effect.period.start,
                "period_end": effect.period.end,
                "closed": effect.closed,
                "currency": effect.currency,
                "change": int(effect.change),
            }
            for effect in correction.money
        ],
        "money_complete": None if correction is None else correction.complete,
    }


# -- why -------------------------------------------------------------------------------------------------------


class VerdictObject(TypedDict):
    """What a meter makes of an event. `value` is what the event brings to it; null if it is not counted."""

    meter_id: str
    meter_name: str
    archived: bool
    outcome: Literal["counted", "voided", "other_name", "filtered_out", "missing", "unreadable"]
    value: str | None
    reason: str


class VerdictsObject(TypedDict):
    """The verdict of every meter, those that read the event's name first."""

    event_id: str
    items: list[VerdictObject]


class ActivityObject(TypedDict):
    """What became of the events with the meter's name: `seen` is the sum of the others."""

    seen: int
    counted: int
    voided: int
    filtered_out: int
    missing: int
    unreadable: int


class MeterActivityObject(ActivityObject):
    """What became of the events of [start, end) with the meter's name: `seen` is the sum of the other counts."""

    meter_id: str
    customer_id: str | None
    start: datetime
    end: datetime


def verdict_object(meter: Meter, verdict: Verdict) -> VerdictObject:
    return {
        "meter_id": meter.public_id,
        "meter_name": meter.name,
        "archived": meter.is_archived(),
        "outcome": verdict.outcome.value,
        "value": None if verdict.value is None else plain(verdict.value),
        "reason": verdict.reason,
    }


def activity_object(activity: MeterActivity) -> ActivityObject:
    return {
        "seen": activity.seen,
        "counted": activity.counted,
        "voided": activity.voided,
        "filtered_out": activity.filtered_out,
        "missing": activity.missing,
        "unreadable": activity.unreadable,
    }


# -- how much --------------------------------------------------------------------------------------------------


class UsageRowObject(TypedDict):
    """The quantity of one window, [start, end); `groups` holds the value of each group key, null for none."""

    start: datetime
    end: datetime
    groups: dict[str, str | None]
    quantity: str
    events: int


class UsageObject(TypedDict):
    """Usage of one customer, or of all together (`customer_id` null), oldest window first."""

    meter_id: str
    customer_id: str | None
    measurement_unit: str
    window: Literal["hour", "day", "month"]
    time_zone: str
    items: list[UsageRowObject]


def usage_row_object(meter: Meter, row: WindowUsage) -> UsageRowObject:
    return {
        "start": row.start,
        "end": row.end,
        "groups": dict(zip(meter.group_by, row.groups, strict=True)) if row.groups else {},
        "quantity": plain(row.quantity),
        "events": row.events,
    }


class PreviewDayObject(TypedDict):
    """One day in the time zone that was asked for."""

    day: str
    quantity: str
    events: int


class PreviewExampleObject(TypedDict):
    """An event of the log and what the meter would make of it."""

    event_id: str
    customer_id: str
    timestamp: datetime
    metadata: dict[str, Any] | None
    outcome: Literal["counted", "voided", "other_name", "filtered_out", "missing", "unreadable"]
    value: str | None
    reason: str


class PreviewObject(TypedDict):
    """What a meter would give, over all customers.

    `complete` is false where not all could be read (too many events, or a month that was archived and dropped): then
    `start` is later than was asked for, or a level that held before it was not carried forward.
    `similar_names` are event names in the log that differ in upper and lower case only.
    """

    start: datetime
    end: datetime
    complete: bool
    quantity: str
    days: list[PreviewDayObject]
    activity: ActivityObject
    counted: list[PreviewExampleObject]
    left_out: list[PreviewExampleObject]
    similar_names: list[str]


def preview_object(preview: Preview) -> PreviewObject:
    examples = [*preview.counted, *preview.left_out]
    metadata = exact_metadata([event for event, _ in examples])
    objects: list[PreviewExampleObject] = [
        {
            "event_id": event.event_id,
            "customer_id": event.customer.public_id,
            "timestamp": event.timestamp,
            "metadata": metadata.get(event.pk),
            "outcome": verdict.outcome.value,
            "value": None if verdict.value is None else plain(verdict.value),
            "reason": verdict.reason,
        }
        for event, verdict in examples
    ]
    return {
        "start": preview.start,
        "end": preview.end,
        "complete": preview.complete,
        "quantity": plain(preview.quantity),
        "days": [
            {"day": day.day.isoformat(), "quantity": plain(day.quantity), "events": day.events} for day in preview.days
        ],
        "activity": activity_object(preview.activity),
        "counted": objects[: len(preview.counted)],
        "left_out": objects[len(preview.counted) :],
        "similar_names": list(preview.similar_names),
    }
