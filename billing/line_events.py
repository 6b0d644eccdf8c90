"""From an invoice line to its very events: those that counted when it was billed, whatever came or was voided since.

They add up to the line. For an adjustment they are the events of the corrected period: what it should have cost is
theirs, and the line is that less what was billed before.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from io import StringIO

from billing.models import InvoiceLine, LineKind
from billing.money import add, plain
from billing.products import charge_rule
from billing.quantities import group_keys
from customers.errors import NotFound
from customers.models import Customer
from meters.aggregation import EXACT, ZERO
from meters.evidence import (
    EACH_ALONE,
    CountedEvent,
    Evidence,
    Recount,
    added_up,
    counted_events,
    recount,
    void_instants,
)
from meters.models import Aggregation, Meter

METERED = (LineKind.USAGE, LineKind.ADJUSTMENT)
PER_PAGE = 100
# Where events are compared with one another, each page reads all of them: beyond this there is only the file.
MOST_TO_TURN_PAGES = 300_000
# Rows of the file sent at once.
_ROWS_AT_ONCE = 500
# Voids near the instant of issue are told apart by trying; so many are tried at most.
MOST_TRIES = 12
_TICK = timedelta(microseconds=1)
# A spreadsheet takes a text that begins so for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class NoEvents(NotFound):
    """The line stands on no events, or does not say which."""


@dataclass(frozen=True, slots=True)
class LineSource:
    """Where a line's events are found: the span, the watermark, and the instant at which voids are looked at."""

    line: InvoiceLine
    meter: Meter
    customer: Customer
    start: datetime
    end: datetime
    keys: list[str] | None
    up_to: int
    as_of: datetime


def pinned(line: InvoiceLine) -> bool:
    """Whether the line says which events it stands on."""
    return line.charge is not None and line.kind in METERED and line.watermark is not None


def source_of(line: InvoiceLine) -> LineSource:
    """The question whose answer is the line's events. NoEvents for a fee, or a line that kept no evidence."""
    if line.kind not in METERED or line.charge is None or line.period_start is None or line.period_end is None:
        raise NoEvents(f"“{line.description}” was not metered, so no events stand behind it.")
    if line.watermark is None:
        raise NoEvents(
            f"“{line.description}” does not say which events it stands on: it was billed before lines kept that, or "
            "when a month of them had left the log."
        )
    issued = line.invoice.issued_at or line.invoice.created_at
    return LineSource(
        line=line,
        meter=line.charge.meter,
        customer=line.invoice.customer,
        start=line.period_start,
        end=line.period_end,
        keys=group_keys(charge_rule(line.charge), line.charge.meter),
        up_to=line.watermark,
        as_of=issued,
    )


def recounted(source: LineSource, *, as_of: datetime | None = None) -> Recount:
    """The line's quantity from the raw log."""
    return recount(
        meter=source.meter,
        customer=source.customer,
        start=source.start,
        end=source.end,
        up_to=source.up_to,
        voided_before=as_of or source.as_of,
        keys=source.keys,
    )


def find_instant(source: LineSource) -> tuple[LineSource, Recount]:
    """The source with the instant at which the line's events counted, and the recount as of then.

    Usually that is when the invoice was issued. A void is stamped with the clock of whoever made it and seen when it
    commits, and a draft may have been counted a while before it was issued; so where the digest differs, the instants
    between the voids nearby are tried. Only the very same events have the same digest: a hit is a proof. Without a hit,
    it stays with the instant of issue, and the recount shows the difference.
    """
    first = recounted(source)
    kept = kept_evidence(source.line)
    if _same(first.evidence, kept):
        return source, first
    drafted = source.line.invoice.created_at
    if drafted != source.as_of and _same((found := recounted(source, as_of=drafted)).evidence, kept):
        return replace(source, as_of=drafted), found
    near = void_instants(
        meter=source.meter,
        customer=source.customer,
        start=source.start,
        end=source.end,
        up_to=source.up_to,
        near=source.as_of,
        limit=MOST_TRIES - 1,
    )
    if near:
        # As of a void's instant it had not happened yet; just after the last of them all had.
        for instant in [*near, max(near) + _TICK]:
            found = recounted(source, as_of=instant)
            if _same(found.evidence, kept):
                return replace(source, as_of=instant), found
    return source, first


def kept_evidence(line: InvoiceLine) -> Evidence:
    """What the line itself says."""
    return Evidence(line.meter_version, line.watermark or 0, line.events_counted or 0, line.events_digest)


def events_of(
    source: LineSource, *, after: tuple[datetime, int] | None = None, limit: int | None = None
) -> Iterator[CountedEvent]:
    """The events, oldest first, each with what it brings to the quantity. See `meters.evidence.counted_events`."""
    return counted_events(
        meter=source.meter,
        customer=source.customer,
        start=source.start,
        end=source.end,
        up_to=source.up_to,
        voided_before=source.as_of,
        keys=source.keys,
        after=after,
        limit=limit,
    )


def settled_source(line: InvoiceLine) -> LineSource:
    """`source_of` with the right instant. Counts again only where an event of the line was voided at some time."""
    source = source_of(line)
    voided = void_instants(
        meter=source.meter,
        customer=source.customer,
        start=source.start,
        end=source.end,
        up_to=source.up_to,
        near=source.as_of,
        limit=1,
    )
    return find_instant(source)[0] if voided else source


# -- page by page --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EventsPage:
    """Some of a line's events; `following` is the place behind the last of them, as text, where there are more."""

    source: LineSource
    events: tuple[CountedEvent, ...]
    following: str


def events_page(line: InvoiceLine, *, after: str = "") -> EventsPage:
    """The page of events behind a place (`EventsPage.following`); the first one for a place that makes no sense.

    NoEvents for a line without any to show, or with too many to turn pages in.
    """
    source = settled_source(line)
    many = line.events_counted or 0
    if source.meter.aggregation not in EACH_ALONE and many > MOST_TO_TURN_PAGES:
        raise NoEvents(f"{many:,} events are too many to turn pages in; take the file.")
    found = list(events_of(source, after=_place(after), limit=PER_PAGE + 1))
    shown = found[:PER_PAGE]
    following = f"{shown[-1].timestamp.astimezone(UTC).isoformat()}~{shown[-1].id}" if len(found) > PER_PAGE else ""
    return EventsPage(source, tuple(shown), following)


def _place(text: str) -> tuple[datetime, int] | None:
    instant, _, number = text.partition("~")
    try:
        at = datetime.fromisoformat(instant)
        place = at.astimezone(UTC), int(number)
    except (ValueError, OverflowError):
        return None
    return place if at.tzinfo is not None and 0 <= place[1] < 2**62 else None


# -- as a file -----------------------------------------------------------------------------------------------


def events_csv(source: LineSource) -> Iterator[str]:
    """The file in pieces: a row an event, then how they add up to the line. Memory does not grow with the events.

    Whatever stands against reading the events is raised here, before the first piece.
    """
    list(events_of(source, limit=1))
    return _pieces(source)


def _pieces(source: LineSource) -> Iterator[str]:
    text = StringIO()
    write = csv.writer(text).writerow
    write(["event_id", "timestamp", "value", *map(safe, source.keys or ()), brings_heading(source.meter)])
    total = _Total(source)
    for number, event in enumerate(events_of(source), start=1):
        total.take(event)
        write(
            [
                safe(event.event_id),
                event.timestamp.astimezone(UTC).isoformat(),
                safe(shown_value(source.meter, event)),
                *[safe(word or "") for word in key_values(source, event)],
                plain(event.brings),
            ]
        )
        if number % _ROWS_AT_ONCE == 0:
            yield text.getvalue()
            text.seek(0)
            text.truncate()
    width = 2 + len(source.keys or ())
    for words, number_shown in total.steps():
        write([words, *[""] * width, plain(number_shown)])
    yield text.getvalue()


class _Total:
    """Adds up what events bring, value by value of the price's keys, without keeping the events."""

    def __init__(self, source: LineSource) -> None:
        self.source = source
        self.brought: dict[tuple[str | None, ...], tuple[Decimal, int]] = {}

    def take(self, event: CountedEvent) -> None:
        place = key_values(self.source, event)
        total, events = self.brought.get(place, (ZERO, 0))
        self.brought[place] = (EXACT.add(total, event.brings), events + 1)

    def steps(self) -> list[tuple[str, Decimal]]:
        """From the sum to the line's quantity."""
        meter, line = self.source.meter, self.source.line
        brought = add(*(total for total, _ in self.brought.values()))
        events = sum(count for _, count in self.brought.values())
        used = add(*(added_up(meter, total, count) for total, count in self.brought.values()))
        steps = [("Events", Decimal(events)), (f"Sum of {brings_heading(meter)}", brought)]
        steps += [("Quantity", used)]
        if line.kind == LineKind.ADJUSTMENT:
            steps += [("Billed before", -add(used, -line.quantity)), ("Quantity of this line", line.quantity)]
        return steps


def brings_heading(meter: Meter) -> str:
    """What the last column is called."""
    return "value_times_seconds" if meter.aggregation == Aggregation.WEIGHTED_SUM else "counts"


_FOLLOWS = {
    Aggregation.COUNT: "Each event is 1; the quantity is how many there are.",
    Aggregation.SUM: "The quantity is the sum of the values.",
    Aggregation.MAX: "The quantity is the highest value; the event that has it counts, the others lie below.",
    Aggregation.MIN: "The quantity is the lowest value; the event that has it counts, the others lie above.",
    Aggregation.LAST: "The quantity is the value of the latest event; the others came before it.",
    Aggregation.UNIQUE: "The quantity is how many different values there are; the first event of each counts 1.",
    Aggregation.AVG: "The quantity is the sum of the values, divided by how many events there are.",
    Aggregation.WEIGHTED_SUM: (
        "Each value holds until the next event; the quantity is the sum of value times seconds, divided by 3,600."
    ),
}


def how_it_follows(source: LineSource) -> str:
    """How the quantity comes from the events, in a sentence or two."""
    words = [_FOLLOWS[Aggregation(source.meter.aggregation)]]
    if source.keys:
        words.append(f"Each value of {', '.join(source.keys)} is a quantity of its own, and they are added up.")
    if source.meter.carry_forward:
        words.append("What held when the period began comes from the last event before it.")
    if source.line.kind == LineKind.ADJUSTMENT:
        words.append("The line is that quantity less what was billed for the period before.")
    return " ".join(words)


def shown_value(meter: Meter, event: CountedEvent) -> str:
    """What the meter reads in the event: a number, or the text that tells it from others."""
    return event.text or "" if meter.aggregation == Aggregation.UNIQUE else plain(event.value)


def key_values(source: LineSource, event: CountedEvent) -> tuple[str | None, ...]:
    """The event's values of the keys that the price is by."""
    return tuple(event.groups[source.meter.group_by.index(key)] for key in source.keys or ())


def safe(text: str) -> str:
    """A text that no spreadsheet takes for a formula; a number stays one."""
    if not text.startswith(_FORMULA):
        return text
    try:
        Decimal(text)
    except ArithmeticError:
        return f"'{text}"
    return text


def _same(found: Evidence, kept: Evidence) -> bool:
    return (found.events, found.digest) == (kept.events, kept.digest)
