"""Making, renaming and archiving meters. What a meter counts never changes: invoices were computed with it."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import Enum

from django.db import connection, transaction

from customers.errors import DomainError, NotFound
from meters.filters import ORDERING, FilterError, FilterGroup, parse_filter, read_number, read_text
from meters.models import CARRIED, MAX_GROUP_KEYS, Aggregation, Meter

# Any constant will do; it only has to differ from the other advisory locks of this software.
_NEW_METER_LOCK = 0x4D425F4E45574D31


class InvalidMeter(DomainError):
    code = "INVALID_REQUEST_BODY"
    status = 422


class MeterNotFound(NotFound):
    pass


class Unset(Enum):
    """Not given, where None means something of its own."""

    UNSET = "unset"


UNSET = Unset.UNSET


def get_meter(*, meter_id: str) -> Meter:
    """The meter of this public id, archived or not."""
    # PostgreSQL cannot even be asked about a NUL character.
    meter = None if "\0" in meter_id else Meter.objects.filter(public_id=meter_id).first()
    if meter is None:
        raise MeterNotFound("Item not found")
    return meter


def create_meter(
    *,
    name: str,
    event_name: str,
    aggregation: str,
    property_key: str = "",
    measurement_unit: str,
    description: str | None = None,
    filter: Mapping[str, object] | None = None,
    group_by: Sequence[str] = (),
    carry_forward: bool = False,
) -> Meter:
    """Make a meter. It counts events from now on and those that are in the log already.

    A property key given with count says nothing and is dropped. `group_by` names up to three metadata keys by whose
    values usage can be read; `carry_forward` lets a period of `last` or `weighted_sum` begin with the value that held
    before it.
    """
    meter = build_meter(
        name=name,
        event_name=event_name,
        aggregation=aggregation,
        property_key=property_key,
        measurement_unit=measurement_unit,
        description=description,
        filter=filter,
        group_by=group_by,
        carry_forward=carry_forward,
    )
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock_shared(%s)", [_NEW_METER_LOCK])
        meter.save(force_insert=True)
    return meter


def keep_meters_from_appearing() -> None:
    """Until this transaction ends, no meter is made: whoever changes the log behind the watermarks knows them all.

    Take it first in the transaction. Meters that are just being made are waited for.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_NEW_METER_LOCK])


def build_meter(
    *,
    name: str,
    event_name: str,
    aggregation: str,
    property_key: str = "",
    measurement_unit: str,
    description: str | None = None,
    filter: Mapping[str, object] | None = None,
    group_by: Sequence[str] = (),
    carry_forward: bool = False,
) -> Meter:
    """A meter that `create_meter` would make, checked and not saved."""
    if aggregation not in Aggregation.values:
        raise InvalidMeter(f"aggregation.type: must be one of {', '.join(Aggregation.values)}.")
    if aggregation == Aggregation.COUNT:
        property_key = ""
    else:
        if not property_key:
            raise InvalidMeter(f"aggregation.key: {aggregation} needs the metadata key that it reads.")
        _check_text("aggregation.key", property_key, 100)
    _check_text("event_name", event_name, 255)
    if carry_forward and aggregation not in CARRIED:
        raise InvalidMeter(f"carry_forward: only {' and '.join(CARRIED)} carry a value into the next period.")
    if len(group_by) > MAX_GROUP_KEYS or len(set(group_by)) < len(group_by):
        raise InvalidMeter(f"group_by: name up to {MAX_GROUP_KEYS} metadata keys, each once.")
    for key in group_by:
        _check_text("group_by", key, 100)
    tree = None if filter is None else read_filter(filter)
    return Meter(
        name=_label("name", name, 255),
        event_name=event_name,
        aggregation=aggregation,
        property_key=property_key,
        measurement_unit=_label("measurement_unit", measurement_unit, 100),
        description=_description(description),
        filter=None if tree is None else tree.as_json(),
        group_by=list(group_by),
        carry_forward=carry_forward,
    )


def update_meter(
    *,
    meter: Meter,
    name: str | Unset = UNSET,
    description: str | Unset | None = UNSET,
    measurement_unit: str | Unset = UNSET,
) -> Meter:
    """Change what people read; None clears the description. What is counted cannot be changed."""
    changed = ["updated_at"]
    if not isinstance(name, Unset):
        meter.name = _label("name", name, 255)
        changed.append("name")
    if not isinstance(description, Unset):
        meter.description = _description(description)
        changed.append("description")
    if not isinstance(measurement_unit, Unset):
        meter.measurement_unit = _label("measurement_unit", measurement_unit, 100)
        changed.append("measurement_unit")
    meter.save(update_fields=changed)
    return meter


def archive_meter(*, meter: Meter, now: datetime) -> Meter:
    """No new product may use it; running subscriptions and counting go on. Archiving twice changes nothing."""
    if meter.archived_at is None:
        meter.archived_at = now
        meter.save(update_fields=["archived_at", "updated_at"])
    return meter


def unarchive_meter(*, meter: Meter) -> Meter:
    if meter.archived_at is not None:
        meter.archived_at = None
        meter.save(update_fields=["archived_at", "updated_at"])
    return meter


def read_filter(raw: object) -> FilterGroup:
    """A filter for a new meter; refuses also what is well-formed and could never match."""
    try:
        tree = parse_filter(raw)
    except FilterError as error:
        raise InvalidMeter(str(error)) from error
    for condition in tree.conditions():
        if condition.operator in ORDERING and read_number(condition.value) is None:
            raise InvalidMeter(
                f"filter: {condition.key} {condition.operator} “{read_text(condition.value)}” could never match,"
                " because that is not a number."
            )
    return tree


def _label(field: str, text: str, longest: int) -> str:
    text = text.strip()
    _check_text(field, text, longest)
    return text


def _description(text: str | None) -> str | None:
    text = text.strip() if text else None
    if text:
        _check_text("description", text, 10_000)
    return text or None


def _check_text(field: str, text: str, longest: int) -> None:
    if not 1 <= len(text) <= longest:
        raise InvalidMeter(f"{field}: must have 1 to {longest} characters.")
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise InvalidMeter(f"{field}: contains a character that cannot be stored.")
