"""Voiding: an event that should not count stays in the log and counts for nothing from then on.

The mark, its reason and the buckets change in one transaction. Billing learns of it as of a backfill: a row names the
span, and closed periods in it are compared with what was billed.

A month that was archived and dropped is settled and cannot be voided, unless it is brought back. One that was archived
and is still in the log can; its archive then no longer tells the truth and has to be written again.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.db import connection, transaction

from customers.errors import Conflict, DomainError
from customers.models import Customer
from meters.events import find_event, find_place
from meters.filters import FilterError, FilterGroup, parse_filter
from meters.meters import keep_meters_from_appearing
from meters.models import ArchivedMonth, Backfill, Event, EventVoid, Meter
from meters.partitions import dropped_months, month_of, next_month
from meters.rollups import Hour, recompute
from meters.sql import compose, join, matches, value
from meters.usage import ZERO, floor_hour, measure

# One transaction voids them all, and holds up the roller meanwhile.
MAX_VOIDS = 100_000
MAX_REASON = 500


class EventAlreadyVoided(Conflict):
    code = "EVENT_ALREADY_VOIDED"


class SelectionChanged(Conflict):
    """What would be voided is not what the dry run showed."""


class EventArchived(Conflict):
    code = "EVENT_ARCHIVED"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which events: those of [start, end) that meet every condition given. Name at least one of the other four."""

    start: datetime
    end: datetime
    event_name: str | None = None
    customer: Customer | None = None
    # Events of the meter's name that pass the meter's filter.
    meter: Meter | None = None
    # A filter tree as a meter has it.
    filter: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """One event to be voided."""

    pk: int
    event_id: str
    customer_id: int
    event_name: str
    timestamp: datetime


@dataclass(frozen=True, slots=True)
class UnitEffect:
    """What a meter says of a customer over the selection's span, before and after."""

    meter: Meter
    customer: Customer
    before: Decimal
    after: Decimal


@dataclass(frozen=True, slots=True)
class Voided:
    """What a bulk void did, or would do."""

    events: int
    customers: int
    units: tuple[UnitEffect, ...]
    # Says which events these are: two selections of the same events have the same.
    fingerprint: str


# -- doing it ------------------------------------------------------------------------------------------------


def void_event(*, event_id: str, reason: str, author: str, operator: Any | None = None, now: datetime) -> EventVoid:
    """Void one event. EventAlreadyVoided if it is void already: the first reason stands."""
    reason = check_reason(reason)
    with transaction.atomic():
        keep_meters_from_appearing()
        event = _find(event_id)
        if event.voided_at is not None:
            raise _already(event)
        target = Target(event.pk, event.event_id, event.customer_id, event.event_name, event.timestamp)
        _void([target], reason=reason, author=author, operator=operator, now=now)
        return EventVoid.objects.get(event=event.pk)


def void_events(
    *,
    where: Selection,
    reason: str,
    author: str,
    operator: Any | None = None,
    dry_run: bool = False,
    shown: str | None = None,
    now: datetime,
) -> Voided:
    """Void every event of the selection that is not void yet; all of them, or none.

    A dry run does the same and takes it back, so what it shows is what would be. With the `shown` fingerprint of one,
    SelectionChanged if other events match by now.
    """
    reason = check_reason(reason)
    with transaction.atomic():
        keep_meters_from_appearing()
        targets = select_events(where=where)
        fingerprint = _fingerprint(targets)
        if shown is not None and shown != fingerprint:
            raise SelectionChanged("Other events match now than the dry run showed: look again.")
        meters = list(Meter.objects.filter(event_name__in={target.event_name for target in targets}).order_by("pk"))
        before = _measured(meters, targets, where)
        _void(targets, reason=reason, author=author, operator=operator, now=now)
        after = _measured(meters, targets, where)
        if dry_run:
            transaction.set_rollback(True)
    customers = Customer.objects.in_bulk({customer for _, customer in before.keys() | after.keys()})
    by_pk = {meter.pk: meter for meter in meters}
    units = [
        UnitEffect(by_pk[meter], customers[customer], before.get(place, ZERO), after.get(place, ZERO))
        for place in sorted(before.keys() | after.keys())
        for meter, customer in [place]
        if before.get(place, ZERO) != after.get(place, ZERO)
    ]
    return Voided(len(targets), len({target.customer_id for target in targets}), tuple(units), fingerprint)


def select_events(*, where: Selection) -> list[Target]:
    """The events that a bulk void of this selection would void, oldest first. Refuses what is too wide."""
    _check(where)
    conditions = [
        compose("timestamp >= {} AND timestamp < {} AND voided_at IS NULL", value(where.start), value(where.end))
    ]
    if where.customer is not None:
        conditions.append(compose("customer_id = {}", value(where.customer.pk)))
    if where.event_name is not None:
        conditions.append(compose("event_name = {}::text", value(where.event_name)))
    if where.meter is not None:
        conditions.append(compose("event_name = {}::text", value(where.meter.event_name)))
        conditions.append(matches(None if where.meter.filter is None else parse_filter(where.meter.filter)))
    conditions.append(matches(_tree(where)))
    sql = compose(
        "SELECT id, event_id, customer_id, event_name, timestamp FROM meters_event WHERE {}"
        " ORDER BY timestamp, id LIMIT {}",
        join(" AND ", conditions),
        value(MAX_VOIDS + 1),
    )
    with connection.cursor() as cursor:
        cursor.execute(sql.text, sql.params)
        targets = [Target(*row) for row in cursor.fetchall()]
    if len(targets) > MAX_VOIDS:
        raise DomainError(
            f"More than {MAX_VOIDS:,} events match; void them in several steps, each over a shorter time."
        )
    return targets


def check_reason(reason: str) -> str:
    reason = reason.strip()
    if not 1 <= len(reason) <= MAX_REASON or "\0" in reason:
        raise DomainError(f"reason: say in 1 to {MAX_REASON} characters why the event must not count.")
    return reason


# -- pieces --------------------------------------------------------------------------------------------------


def _fingerprint(targets: Sequence[Target]) -> str:
    return hashlib.sha256(",".join(str(target.pk) for target in targets).encode()).hexdigest()


def _find(event_id: str) -> Event:
    month = month_of(find_place(event_id=event_id).timestamp)
    if dropped_months(months=[month]):
        raise EventArchived(
            f"The event is of {month:%B %Y}, which was archived and is no longer in the log; it cannot be voided."
        )
    return find_event(event_id=event_id)


def _already(event: Event) -> EventAlreadyVoided:
    row = EventVoid.objects.filter(event=event.pk).first()
    if row is None:
        return EventAlreadyVoided("This event is void already.")
    return EventAlreadyVoided(
        f"This event was voided on {row.voided_at:%Y-%m-%d %H:%M} UTC by {row.author}: {row.reason}"
    )


def _check(where: Selection) -> None:
    if where.start >= where.end:
        raise DomainError("end: must lie after start.")
    if where.event_name is None and where.customer is None and where.meter is None and where.filter is None:
        raise DomainError("Name an event name, a customer, a meter or a filter; a time alone is too wide.")
    if where.event_name is not None and "\0" in where.event_name:
        raise DomainError("event_name: contains a character that no event has.")
    if where.meter is not None and where.event_name not in (None, where.meter.event_name):
        raise DomainError(f"event_name: the meter reads events named “{where.meter.event_name}”.")
    _tree(where)
    first, last = month_of(where.start), month_of(where.end - timedelta(microseconds=1))
    dropped = ArchivedMonth.objects.filter(month__gte=first, month__lte=last, dropped_at__isnull=False)
    if (archived := dropped.order_by("-month").first()) is not None:
        raise EventArchived(
            f"The events of {archived.month:%B %Y} were archived and are no longer in the log;"
            f" begin at {next_month(archived.month)} or later."
        )


def _tree(where: Selection) -> FilterGroup | None:
    if where.filter is None:
        return None
    try:
        return parse_filter(where.filter)
    except FilterError as error:
        raise DomainError(str(error)) from error


def _void(targets: Sequence[Target], *, reason: str, author: str, operator: Any | None, now: datetime) -> None:
    """Mark, say why, count the touched hours again, and tell billing."""
    if not targets:
        return
    # The roller holds a meter's row while it merges events into buckets, so from here on it waits, or passes by.
    names = {target.event_name for target in targets}
    meters = list(Meter.objects.select_for_update(no_key=True).filter(event_name__in=names).order_by("pk"))
    _mark(targets, now)
    EventVoid.objects.bulk_create(
        [
            EventVoid(
                event=target.pk,
                event_id=target.event_id,
                customer_id=target.customer_id,
                timestamp=target.timestamp,
                reason=reason,
                author=author[:150],
                operator=operator,
                voided_at=now,
            )
            for target in targets
        ],
        batch_size=2000,
    )
    ArchivedMonth.objects.filter(month__in={month_of(target.timestamp) for target in targets}).delete()
    for meter in meters:
        touched = {
            Hour(target.customer_id, floor_hour(target.timestamp))
            for target in targets
            if target.event_name == meter.event_name and target.pk <= meter.rolled_up_to
        }
        recompute(
            meter=meter,
            hours=sorted(touched, key=lambda place: (place.customer_id, place.hour)),
            upto=meter.rolled_up_to,
        )
    _tell_billing(targets, carried={meter.event_name for meter in meters if meter.carry_forward}, now=now)


def _mark(targets: Sequence[Target], now: datetime) -> None:
    sql = compose(
        "UPDATE meters_event SET voided_at = {} FROM unnest({}::timestamptz[], {}::bigint[]) AS chosen (at, pk)"
        " WHERE meters_event.timestamp = chosen.at AND meters_event.id = chosen.pk AND voided_at IS NULL"
        " AND meters_event.timestamp >= {} AND meters_event.timestamp <= {}",
        value(now),
        value([target.timestamp for target in targets]),
        value([target.pk for target in targets]),
        value(min(target.timestamp for target in targets)),
        value(max(target.timestamp for target in targets)),
    )
    with connection.cursor() as cursor:
        cursor.execute(sql.text, sql.params)
        if cursor.rowcount != len(targets):
            raise Conflict("Some of these events were changed at the same moment; try again.")


def _tell_billing(targets: Iterable[Target], *, carried: set[str], now: datetime) -> None:
    """A span for each customer. A level that is carried forward changes every period after it as well."""
    of_customer: dict[int, list[Target]] = defaultdict(list)
    for target in targets:
        of_customer[target.customer_id].append(target)
    spans = []
    for customer, theirs in sorted(of_customer.items()):
        first, last = min(target.timestamp for target in theirs), max(target.timestamp for target in theirs)
        if any(target.event_name in carried for target in theirs):
            last = max(last, now)
        spans.append(Backfill(customer_id=customer, events=len(theirs), first=first, last=last))
    Backfill.objects.bulk_create(spans)


def _measured(meters: Sequence[Meter], targets: Sequence[Target], where: Selection) -> dict[tuple[int, int], Decimal]:
    touched = {target.customer_id for target in targets}
    # One customer's buckets are found at once; several are read together.
    customer = Customer.objects.get(pk=next(iter(touched))) if len(touched) == 1 else None
    return {
        (meter.pk, row.customer_id): row.quantity
        for meter in meters
        for row in measure(meter=meter, customer=customer, bounds=[where.start, where.end])
        if row.customer_id in touched
    }
