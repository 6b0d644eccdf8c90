"""What was used, as a price asks for it: the quantity, and where the price needs them its parts.

Closing calls `proved_usage`: the usage it bills comes from the buckets and the tail, as on every page, and the evidence
from the raw log. Both must say the same, so that an invoice is checked against its events before it is issued.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from billing.models import Charge
from billing.money import plain
from billing.pricing import ByDimension, ChargeRule, Percentage, Usage
from billing.products import charge_rule
from customers.errors import Conflict, DomainError
from customers.models import Customer
from meters.aggregation import EXACT, ZERO
from meters.evidence import NEWEST, Evidence, Recount, event_values, known_watermark, newest_watermark, recount
from meters.models import Aggregation, Meter
from meters.partitions import MonthArchived
from meters.usage import Measured, measure

# Something is voided between two readings now and then; that many times in a row it is no accident.
ATTEMPTS = 5
# For these the quantities of several values of a key add up to the quantity of all.
_ADDITIVE = (Aggregation.COUNT, Aggregation.SUM)


class UsageNotProved(Conflict):
    """The buckets say something else than the log."""


@dataclass(frozen=True, slots=True)
class ProvedUsage:
    """What is billed, and what it stands on; no evidence where a month of it has left the log."""

    usage: Usage
    evidence: Evidence | None


def usage_of(*, charge: Charge, customer: Customer, start: datetime, end: datetime) -> Usage:
    """What the customer used of the charge's meter in the span, with the parts that the charge's rule prices.

    Quantities by value are one statement, so of one snapshot. A price that needs every event's own value (percentages
    with terms per event) reads the events one by one, oldest first.
    """
    rule, meter = charge_rule(charge), charge.meter
    keys = group_keys(rule, meter)
    rows, values = _read(meter, customer, start, end, keys), None
    if needs_values(rule):
        for _ in range(ATTEMPTS):
            values = event_values(meter=meter, customer=customer, start=start, end=end)
            if len(values) == sum(row.events for row in rows):
                break
            # An event came or was voided in between.
            rows = _read(meter, customer, start, end, keys)
    return _usage(meter, keys, [(row.groups, row.quantity, row.events) for row in rows], values)


def _read(meter: Meter, customer: Customer, start: datetime, end: datetime, keys: list[str] | None) -> list[Measured]:
    return measure(meter=meter, customer=customer, bounds=[start, end], grouped=keys is not None)


def proved_usage(*, charge: Charge, customer: Customer, start: datetime, end: datetime) -> ProvedUsage:
    """`usage_of` with its evidence, once both speak of the same events. UsageNotProved where the buckets are wrong.

    The evidence is one statement that counts the raw events up to a settled watermark, quantity and digest together. If
    its quantities and numbers of events are those of the buckets, the digest is of the very events that are billed.
    Where they differ because events keep coming, what lies below the watermark is billed: the rest came later, and is
    corrected as any late event. For that the watermark is taken here, after whatever this transaction has locked.
    """
    rule, meter = charge_rule(charge), charge.meter
    asked = _Question(meter, customer, start, end, group_keys(rule, meter))
    for attempt in range(ATTEMPTS):
        try:
            counted = _agreed(asked) if attempt == 0 else None
            counted = counted or _settled(asked)
        except MonthArchived:
            return ProvedUsage(usage_of(charge=charge, customer=customer, start=start, end=end), None)
        values = None
        if needs_values(rule):
            up_to = counted.evidence.watermark
            values = event_values(meter=meter, customer=customer, start=start, end=end, up_to=up_to)
            if len(values) != counted.events:
                # One was voided in between.
                continue
        return ProvedUsage(usage_from(recount=counted, meter=meter, rule=rule, values=values), counted.evidence)
    raise UsageNotProved(f"Events of the meter “{meter.name}” are being voided all the time; bill again in a moment.")


@dataclass(frozen=True, slots=True)
class _Question:
    meter: Meter
    customer: Customer
    start: datetime
    end: datetime
    keys: list[str] | None

    def measured(self) -> Mapping[tuple[str | None, ...], tuple[Decimal, int]]:
        """By buckets and tail, as every page has it."""
        return _by_groups(self.meter, self.keys, _read(self.meter, self.customer, self.start, self.end, self.keys))

    def recounted(self, up_to: int) -> Recount:
        return recount(
            meter=self.meter, customer=self.customer, start=self.start, end=self.end, up_to=up_to, keys=self.keys
        )


def _agreed(asked: _Question) -> Recount | None:
    """The recount up to the watermark at hand, if that is all there is; it waits for nobody."""
    billed = asked.measured()
    counted = asked.recounted(known_watermark())
    return counted if _by_group(counted) == billed else None


def _settled(asked: _Question) -> Recount:
    """The recount up to the newest settled watermark, once the buckets are seen to agree, or to have been overtaken."""
    counted = asked.recounted(newest_watermark())
    billed = asked.measured()
    if _by_group(counted) != billed:
        after = asked.recounted(NEWEST)
        if (after.evidence.events, after.evidence.digest) == (counted.evidence.events, counted.evidence.digest):
            # The log stood still while the buckets said something else.
            raise UsageNotProved(
                f"The meter “{asked.meter.name}” has {_words(billed)} in its buckets and "
                f"{_words(_by_group(counted))} in the log for {asked.customer.name}, {asked.start:%Y-%m-%d} to "
                f"{asked.end:%Y-%m-%d}. Reconcile the meter, then bill again."
            )
    return counted


def _by_group(counted: Recount) -> Mapping[tuple[str | None, ...], tuple[Decimal, int]]:
    return {group.groups: (group.quantity, group.events) for group in counted.groups}


def usage_from(
    *,
    recount: Recount,
    meter: Meter,
    rule: ChargeRule,
    values: list[tuple[tuple[str | None, ...], Decimal]] | None = None,
) -> Usage:
    """The usage that a recount of the raw log shows, with the values of each event where the rule needs them."""
    keys = group_keys(rule, meter)
    if keys is not None and values is not None:
        # A recount has the keys in the order of the price already.
        values = [(_in_order(meter, keys, groups), number) for groups, number in values]
    rows = [(group.groups, group.quantity, group.events) for group in recount.groups]
    return _shaped(keys is not None, rows, values)


# -- what a rule asks for ------------------------------------------------------------------------------------


def group_keys(rule: ChargeRule, meter: Meter) -> list[str] | None:
    """The keys whose values the rule prices, in its order; None for a rule that prices the whole.

    Refuses keys by which the meter's usage is not kept, and those that it cannot be added up over.
    """
    if not isinstance(rule.price, ByDimension):
        return None
    keys = list(rule.price.keys)
    if missing := [key for key in keys if key not in meter.group_by]:
        raise DomainError(
            f"The price is by {', '.join(keys)}, and the meter “{meter.name}” does not keep its usage by "
            f"{', '.join(missing)}."
        )
    if len(keys) < len(meter.group_by) and meter.aggregation not in _ADDITIVE:
        raise DomainError(
            f"The meter “{meter.name}” keeps its usage by {', '.join(meter.group_by)}, and what it measures does not "
            "add up over them; the price must be by all of them."
        )
    return keys


def needs_values(rule: ChargeRule) -> bool:
    """Whether the rule prices every event by itself."""
    prices = [rule.price]
    if isinstance(rule.price, ByDimension):
        prices = [*rule.price.prices.values(), *([rule.price.default] if rule.price.default is not None else [])]
    return rule.each or any(
        isinstance(price, Percentage)
        and (price.free_events, price.free_amount, price.event_minimum, price.event_maximum) != (None,) * 4
        for price in prices
    )


# -- pieces --------------------------------------------------------------------------------------------------

_Row = tuple[tuple[str | None, ...], Decimal, int]
_Values = list[tuple[tuple[str | None, ...], Decimal]]


def _in_order(meter: Meter, keys: list[str], groups: tuple[str | None, ...]) -> tuple[str | None, ...]:
    """The values of the price's keys out of those of the meter's."""
    return tuple(groups[meter.group_by.index(key)] for key in keys)


def _by_groups(
    meter: Meter, keys: list[str] | None, rows: list[Measured]
) -> Mapping[tuple[str | None, ...], tuple[Decimal, int]]:
    found: dict[tuple[str | None, ...], tuple[Decimal, int]] = {}
    for row in rows:
        place = () if keys is None else _in_order(meter, keys, row.groups)
        quantity, events = found.get(place, (ZERO, 0))
        found[place] = (EXACT.add(quantity, row.quantity), events + row.events)
    return found


def _usage(meter: Meter, keys: list[str] | None, rows: list[_Row], values: _Values | None) -> Usage:
    """A `Usage` of rows and values with the groups of the meter."""
    if keys is None:
        return _shaped(False, rows, values)
    return _shaped(
        True,
        [(_in_order(meter, keys, groups), quantity, events) for groups, quantity, events in rows],
        None if values is None else [(_in_order(meter, keys, groups), number) for groups, number in values],
    )


def _shaped(by_value: bool, rows: list[_Row], values: _Values | None) -> Usage:
    """A `Usage` of these rows; a value that is missing in the events is priced as the empty text."""
    if not by_value:
        return _added(rows, values)
    places: dict[tuple[str, ...], tuple[list[_Row], _Values | None]] = {}
    for row in rows:
        place = tuple(word or "" for word in row[0])
        places.setdefault(place, ([], None if values is None else []))[0].append(row)
    for groups, number in values or []:
        place = tuple(word or "" for word in groups)
        kept = places.setdefault(place, ([], []))[1]
        if kept is not None:
            kept.append((groups, number))
    by = {place: _added(*found) for place, found in sorted(places.items())}
    total, events = ZERO, 0
    for used in by.values():
        total, events = EXACT.add(total, used.decimal), events + (used.events or 0)
    return Usage(quantity=total, events=events, by_value=by)


def _added(rows: list[_Row], values: _Values | None) -> Usage:
    total, events = ZERO, 0
    for _, quantity, count in rows:
        total, events = EXACT.add(total, quantity), events + count
    return Usage(quantity=total, events=events, values=None if values is None else [number for _, number in values])


def _words(found: Mapping[tuple[str | None, ...], tuple[Decimal, int]]) -> str:
    total, events = ZERO, 0
    for quantity, count in found.values():
        total, events = EXACT.add(total, quantity), events + count
    return f"{plain(total)} ({events:,} event{'' if events == 1 else 's'})"
