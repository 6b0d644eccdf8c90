"""Storing events: read the bytes exactly, refuse the batch if anything in it is wrong, write it in one statement.

Two ways lead into the log. `ingest_events` is for requests: when nothing is wrong with the batch, lock, clock, checks,
writing and commit are one round trip. `store_events` is the long way, in a transaction of the caller's: it explains
what is wrong, makes the months that are missing, and notes what is late. The first gives up in favour of the second.

An event is stored once for ever: its id's hash is the key of meters_eventkey, and an id that is there already is passed
over in silence, so that a client may send a batch again after a time-out.
"""

import hashlib
import json
import math
import re
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal, DecimalException
from typing import Any, LiteralString

import msgspec
import psycopg
from django.conf import settings
from django.db import IntegrityError, connection, transaction

from customers.errors import DomainError
from meters.models import Backfill, EventKey, Meter
from meters.partitions import dropped_months, ensure_partitions, missing_partitions, month_of, partition_name

# Any constants will do; they only have to differ from the other advisory locks of this software.
INGESTION_LOCK = 0x4D425F494E474553
_POLL_SECONDS = 0.002

MAX_ID_LENGTH = 255
MAX_NAME_LENGTH = 255
MAX_PAIRS = 50
MAX_KEY_LENGTH = 100
MAX_TEXT_LENGTH = 500
# A number is kept digit for digit, but only where a double could hold its size; and no more decimals than the smallest
# double has, so that nobody can make PostgreSQL add up numbers of a megabyte each.
NUMBER_LIMIT = 10**308
MAX_DECIMALS = 340
_LONGEST_NUMBER = 700

# An event before this is a mistake, also in a backfill (a month of events is a partition of the log).
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)


class EventInput(msgspec.Struct, forbid_unknown_fields=True):
    """One event as an application sends it. Without a timestamp it happened now."""

    event_id: str
    customer_id: str
    event_name: str
    timestamp: str | datetime | None = None
    metadata: dict[str, Any] | None = None


class _WireEvent(EventInput, forbid_unknown_fields=True):
    # On the wire a time is a text; it is read later, so that a wrong one can be named together with its event.
    timestamp: str | None = None


class _WireBatch(msgspec.Struct, forbid_unknown_fields=True):
    events: list[_WireEvent]


class MalformedBatch(DomainError):
    code = "INVALID_REQUEST_BODY"
    status = 422


class EventsRefused(DomainError):
    """Something in the batch is wrong, so nothing of it was stored. `errors` names every such event."""


# -- the order of ingestion and closing ----------------------------------------------------------------------


def enter_ingestion() -> datetime:
    """The database's clock, read under the writers' lock.

    Call it first in the transaction that stores events, and pass the result on as `now`. Whoever waits for the writers
    of a moment (`wait_for_writers`) then knows two things: every batch that read an earlier clock is visible or gone,
    and so is every event with a lower id.
    """
    _require_transaction()
    with connection.cursor() as cursor:
        # The clock is read from the row that taking the lock produced, so never before it.
        cursor.execute(
            "WITH entered AS MATERIALIZED (SELECT pg_advisory_xact_lock_shared(%s))"
            " SELECT clock_timestamp() FROM entered",
            [INGESTION_LOCK],
        )
        (now,) = cursor.fetchone()
    return now


def writers_in_flight() -> set[tuple[int, str]]:
    """The other transactions of this database that hold the writers' lock, as (process, virtual transaction)."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pid, virtualtransaction FROM pg_locks"
            " WHERE locktype = 'advisory' AND granted AND pid <> pg_backend_pid()"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            " AND classid = (%s::bigint >> 32)::oid AND objid = (%s::bigint & 4294967295)::oid AND objsubid = 1",
            [INGESTION_LOCK, INGESTION_LOCK],
        )
        return set(cursor.fetchall())


def wait_for_writers(*, patience: float | None = None) -> bool:
    """Wait until everything that was being stored at the call is visible or gone; False when `patience` (seconds) ends.

    It only looks, and stands in nobody's way: a writer that hangs delays whoever waits here, and no other writer. (An
    exclusive lock on the same key would be shorter, and the writers behind it would queue.)
    """
    begun = time.monotonic()
    writers = writers_in_flight()
    while writers:
        if patience is not None and time.monotonic() - begun > patience:
            return False
        time.sleep(_POLL_SECONDS)
        writers &= writers_in_flight()
    return True


def wait_for_ingestion_in_flight() -> None:
    """Return when every batch that was being stored at the call is visible, or gone.

    A batch that starts afterwards reads the clock afterwards. So what is read after this call holds every event that
    was accepted as of any earlier moment: the lateness window is kept to the instant, however slow a batch was.
    """
    wait_for_writers()


def _require_transaction() -> None:
    if not connection.in_atomic_block:
        raise transaction.TransactionManagementError("Events are stored inside transaction.atomic().")


# -- reading -------------------------------------------------------------------------------------------------


def _read_float(literal: str) -> Decimal:
    """A JSON number with a point or an exponent, exactly; NaN (refused later, with its place) if it is absurd."""
    if len(literal) > _LONGEST_NUMBER:
        return Decimal("NaN")
    try:
        return Decimal(literal)
    except DecimalException:
        return Decimal("NaN")


_decoder = msgspec.json.Decoder(_WireBatch, float_hook=_read_float)


def decode_batch(body: bytes) -> list[EventInput]:
    """Read a request body. Raises MalformedBatch (422) for what is no JSON or has the wrong shape.

    The fast reader stops at the first fault and lets the last of two equal keys win. When it stumbles, or when
    there may be equal keys, the slow one reads again: it only ever refuses more, and can say where.
    """
    try:
        events = _decoder.decode(body).events
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _explain(body, error) from error
    if _may_repeat_keys(body, events):
        _read_slowly(body)
    if not 1 <= len(events) <= settings.MAX_EVENTS_PER_BATCH:
        raise DomainError(f"events: send 1 to {settings.MAX_EVENTS_PER_BATCH} events, not {len(events)}.")
    return list(events)


def _may_repeat_keys(body: bytes, events: Sequence[EventInput]) -> bool:
    """Whether the body may name a key twice in one object. Never wrong when it says no.

    Each key ends with a quote and a colon. The two also occur inside texts and after a field that is null, so more of
    them than keys only means "look closely"; fewer cannot be, unless white space stands between the two.
    """
    # One byte is looked for a hundred times faster than two, and most bodies have none of these.
    if any(blank in body and blank + b":" in body for blank in (b" ", b"\n", b"\t", b"\r")):
        return True
    keys = 1
    for event in events:
        keys += 3 + (event.timestamp is not None)
        if event.metadata is not None:
            keys += 1 + len(event.metadata)
    return body.count(b'":') != keys


@dataclass(frozen=True, slots=True)
class _Unreadable:
    """A JSON value that the slow reader could not take, in the place where it stood."""

    reason: str


def _read_whole(literal: str) -> object:
    return int(literal) if len(literal) <= _LONGEST_NUMBER else _Unreadable("a number with too many digits")


def _read_object(pairs: list[tuple[str, Any]]) -> object:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    names = [name for name, _ in pairs]
    twice = next(name for name in names if names.count(name) > 1)
    event_id = found.get("event_id")
    return _Unreadable(
        f"the key {_shown(twice)} stands twice in one object"
        + (f" (event_id {_shown(event_id)})" if isinstance(event_id, str) else "")
    )


def _read_slowly(body: bytes) -> Any:
    """The body by Python's reader, which keeps what msgspec cannot: lone surrogates, endless numbers, equal keys."""
    try:
        document = json.loads(
            body.decode("utf-8"),
            parse_float=_read_float,
            parse_int=_read_whole,
            parse_constant=lambda name: _Unreadable(f"{name}, which is not JSON"),
            object_pairs_hook=_read_object,
        )
    except UnicodeDecodeError as error:
        raise MalformedBatch(f"The body is not UTF-8 (byte {error.start}).") from error
    except json.JSONDecodeError as error:
        raise MalformedBatch(f"The body is not JSON: {error.msg} (character {error.pos}).") from error
    except RecursionError as error:
        raise MalformedBatch("The body is nested too deeply.") from error
    if isinstance(document, _Unreadable):
        raise MalformedBatch(f"The body contains {document.reason}.")
    errors = []
    events = document.get("events") if isinstance(document, dict) else None
    if isinstance(events, list):
        for index, event in enumerate(events):
            if reason := _find_unreadable(event):
                errors.append(_error(index, event, "INVALID_REQUEST_BODY", f"contains {reason}."))
            elif reason := _wrong_shape(event):
                errors.append(_error(index, event, "INVALID_REQUEST_BODY", reason))
    if errors:
        raise MalformedBatch(_summary(errors), errors=errors)
    return document


def _find_unreadable(value: object) -> str:
    """What in a value cannot be read or kept. One level of nesting is all that events have."""
    if isinstance(value, _Unreadable):
        return value.reason
    if isinstance(value, str) and _has_surrogates(value):
        return "half of a surrogate pair, which is not a character"
    if isinstance(value, dict):
        for key, inner in value.items():
            if reason := _find_unreadable(key) or _find_unreadable(inner):
                return reason
    return ""


def _wrong_shape(event: object) -> str:
    try:
        msgspec.convert(event, _WireEvent)
    except msgspec.ValidationError as error:
        return f"{error}."
    return ""


def _explain(body: bytes, error: Exception) -> DomainError:
    """What is wrong with a body that the fast reader refused: in detail if it is the events, else in its words."""
    if isinstance(error, RecursionError):
        return MalformedBatch("The body is nested too deeply.")
    if not body.strip():
        return MalformedBatch('The body is empty; send {"events": […]}.')
    if body.startswith(b"\xef\xbb\xbf"):
        return MalformedBatch("The body begins with a byte order mark; send plain UTF-8.")
    try:
        _read_slowly(body)
    except DomainError as found:
        return found
    return MalformedBatch(f"The body cannot be read: {error}.")


# -- checking ------------------------------------------------------------------------------------------------


class _Row(msgspec.Struct, array_like=True):
    """A checked event on its way into the statement: a list there, which PostgreSQL takes apart by place."""

    k: str
    e: str
    c: int
    n: str
    t: datetime | None  # None: the clock under the lock, which only the statement knows
    m: dict[str, Any] | None


class _Problem(Exception):
    """What is wrong with one event."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


# RFC 3339, with what common libraries make of it: no seconds (Java), a blank instead of T (SQL), an offset without a
# colon, more than six digits of a second (Go), no zone at all (Python).
_INSTANT = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(?::\d\d(?:[.,]\d{1,9})?)?(?:[Zz]|[+-]\d\d(?::?\d\d)?)?", re.ASCII)


def _read_instant(given: str) -> datetime | None:
    # What nearly all send, RFC 3339 to the microsecond, is read in half the time. The place of the seventh digit of a
    # second must have none: msgspec would round it, and an event could move into the next hour.
    if not given[26:27].isdigit():
        try:
            return msgspec.convert(given, datetime)
        except msgspec.ValidationError:
            pass
    return datetime.fromisoformat(given.upper()) if _INSTANT.fullmatch(given) else None


def read_timestamp(given: str | datetime) -> datetime | None:
    """An instant in UTC; a time without a zone is UTC. None if it is not one."""
    try:
        instant = _read_instant(given) if isinstance(given, str) else given
        if instant is None or instant.tzinfo is UTC:
            return instant
        return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _has_surrogates(text: str) -> bool:
    return not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)


def _shown(text: str) -> str:
    """A text of the sender, short and harmless enough for a message."""
    short = text if len(text) <= 100 else text[:99] + "…"
    return short.encode("utf-8", "backslashreplace").decode().replace("\0", "\\u0000")


def _check_text(field: str, code: str, text: object, longest: int) -> None:
    if type(text) is not str:
        raise _Problem(code, f"{field} must be a text.")
    if not 1 <= len(text) <= longest:
        raise _Problem(code, f"{field} must have 1 to {longest} characters.")
    if "\0" in text or _has_surrogates(text):
        raise _Problem(code, f"{field} contains a character that cannot be stored (NUL or half a surrogate pair).")


def _check_metadata(metadata: dict[str, Any], *, good_keys: set[str]) -> None:
    """`good_keys` are those that were found good before; what is found good here is added."""
    if not isinstance(metadata, dict):
        raise _Problem("INVALID_METADATA", "metadata must be an object or null.")
    if len(metadata) > MAX_PAIRS:
        raise _Problem("INVALID_METADATA", f"metadata may have {MAX_PAIRS} pairs at most, not {len(metadata)}.")
    for key, value in metadata.items():
        if key not in good_keys:
            _check_text("a metadata key", "INVALID_METADATA", key, MAX_KEY_LENGTH)
            good_keys.add(key)
        kind = type(value)
        if kind is str:
            if len(value) > MAX_TEXT_LENGTH:
                raise _Problem(
                    "INVALID_METADATA", f"metadata[{_shown(key)}] may have {MAX_TEXT_LENGTH} characters at most."
                )
            if "\0" in value or (not value.isascii() and _has_surrogates(value)):
                raise _Problem(
                    "INVALID_METADATA",
                    f"metadata[{_shown(key)}] contains a character that cannot be stored"
                    " (NUL or half a surrogate pair).",
                )
        elif kind is not bool and not _is_storable_number(value):
            what = (
                "is beyond what a number may be here (308 digits before the point, 340 after)"
                if isinstance(value, int | float | Decimal)
                else "must be a text, a number or true/false; null, objects and lists are not allowed"
            )
            raise _Problem("INVALID_METADATA", f"metadata[{_shown(key)}] {what}.")


def _is_storable_number(value: object) -> bool:
    if type(value) is int:
        return -NUMBER_LIMIT < value < NUMBER_LIMIT
    if type(value) is float:
        return math.isfinite(value)
    if type(value) is not Decimal or not value.is_finite():
        return False
    exponent = value.as_tuple().exponent
    # `adjusted` of a zero is its exponent, so `0e99999` is refused as well.
    return value.adjusted() < 308 and isinstance(exponent, int) and exponent >= -MAX_DECIMALS


def _check_timestamp(given: object, *, now: datetime | None, backfill: bool) -> datetime | None:
    """The event's time. Without `now` nothing is compared with the clock: the statement does that."""
    if given is None:
        return now
    instant = read_timestamp(given) if isinstance(given, str | datetime) else None
    if instant is None:
        raise _Problem("INVALID_TIMESTAMP", "timestamp must be an ISO 8601 time such as 2026-01-31T12:00:00Z.")
    if instant < EARLIEST:
        raise _Problem("INVALID_TIMESTAMP", f"timestamp is before {EARLIEST.year}.")
    if now is None:
        return instant
    if instant > now + settings.EVENT_CLOCK_TOLERANCE:
        minutes = int(settings.EVENT_CLOCK_TOLERANCE.total_seconds() // 60)
        raise _Problem("INVALID_TIMESTAMP", f"timestamp is more than {minutes} minutes ahead of {_utc(now)}.")
    if not backfill and instant < now - settings.LATENESS_WINDOW:
        minutes = int(settings.LATENESS_WINDOW.total_seconds() // 60)
        raise _Problem(
            "INVALID_TIMESTAMP",
            f"timestamp is more than {minutes} minutes before {_utc(now)}; older events need a key that may backfill.",
        )
    return instant


def _utc(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def event_key(event_id: str) -> str:
    """The key of an event id in meters_eventkey: 16 bytes of its SHA-256, written as a UUID's hex digits."""
    return hashlib.sha256(event_id.encode()).hexdigest()[:32]


def _error(index: int, event: object, code: str, message: str) -> dict[str, Any]:
    event_id = event.get("event_id") if isinstance(event, dict) else getattr(event, "event_id", None)
    return {
        "index": index,
        "event_id": _shown(event_id) if isinstance(event_id, str) else None,
        "code": code,
        "message": message,
    }


def _summary(errors: Sequence[dict[str, Any]]) -> str:
    """One sentence that names the first bad event: `events[731] (evt_9): timestamp is …`."""
    first = errors[0]
    named = f" ({first['event_id']})" if first["event_id"] is not None else ""
    more = f" {len(errors) - 1} more of the batch cannot be stored either." if len(errors) > 1 else ""
    return f"events[{first['index']}]{named}: {first['message']}{more}"


# -- storing -------------------------------------------------------------------------------------------------

_encode: Callable[[object], bytes] = msgspec.json.Encoder(decimal_format="number").encode

# The partitions are looked up as meters.partitions does, in the same round trip. It also takes the writers' lock, for
# callers that did not read the clock: no id may be taken without it (meters.rollups).
_LOOK_UP = """
SELECT (SELECT jsonb_object_agg(public_id, id) FROM customers_customer WHERE public_id = ANY(%s::text[])),
       EXISTS (
           SELECT FROM unnest(%s::text[]) AS month WHERE month NOT IN (
               SELECT relname::text FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
               WHERE inhparent = 'meters_event'::regclass
           )
       ),
       pg_advisory_xact_lock_shared(%s)
"""

# One statement, so that a batch costs one round trip:
# 1. `incoming` numbers the events in the order they were sent, so that of two events with one timestamp the one
#    sent last is the last.
# 2. `fresh` claims the keys, in the keys' own order, so that two batches that share ids wait for one another rather
#    than deadlock. A key that another transaction is just claiming is waited for: exactly one stores the event.
# 3. The log takes the events whose key was claimed.
_STORE = """
WITH incoming AS MATERIALIZED (
    SELECT nextval((SELECT pg_get_serial_sequence('meters_event', 'id')::regclass)) AS id,
           (sent ->> 0)::uuid AS k, sent ->> 1 AS e, (sent ->> 2)::bigint AS c, sent ->> 3 AS n,
           (sent ->> 4)::timestamptz AS t, nullif(sent -> 5, 'null') AS m
    FROM jsonb_array_elements(%s::jsonb) AS event (sent)
), fresh AS (
    INSERT INTO meters_eventkey (key, event, timestamp)
    SELECT k, id, t FROM incoming ORDER BY k
    ON CONFLICT DO NOTHING
    RETURNING event
), stored AS (
    INSERT INTO meters_event (id, event_id, customer_id, event_name, timestamp, metadata)
    SELECT id, e, c, n, t, m FROM incoming WHERE id IN (SELECT event FROM fresh)
    RETURNING customer_id, timestamp
)
SELECT customer_id, count(*), count(late), min(late), max(late)
FROM (SELECT customer_id, CASE WHEN timestamp < %s THEN timestamp END AS late FROM stored) AS event
GROUP BY customer_id
"""


# The same for a batch with nothing wrong, from the lock to the commit: what is wrong is only noticed. The lock comes
# first because every later step reads what the one before it made: the clock, then the ids, then the rows.
# The names stand behind a subquery, for PostgreSQL looks into a list that it can see while planning, finds the plan for
# this list cheaper than one for any, and would plan every request anew.
_STORE_AT_ONCE = """
WITH entered AS MATERIALIZED (
    SELECT pg_advisory_xact_lock_shared(%s)
), moment AS MATERIALIZED (
    SELECT clock_timestamp() AS now FROM entered
), known AS MATERIALIZED (
    SELECT array_agg((SELECT id FROM customers_customer WHERE public_id = given) ORDER BY place) AS ids
    FROM unnest((SELECT %s::text[])) WITH ORDINALITY AS named (given, place)
), incoming AS MATERIALIZED (
    SELECT nextval((SELECT pg_get_serial_sequence('meters_event', 'id')::regclass)) AS id,
           (sent ->> 0)::uuid AS k, sent ->> 1 AS e, (SELECT ids FROM known)[(sent ->> 2)::int] AS c, sent ->> 3 AS n,
           coalesce((sent ->> 4)::timestamptz, now) AS t, nullif(sent -> 5, 'null') AS m, now
    FROM moment CROSS JOIN jsonb_array_elements(%s::jsonb) AS event (sent)
), verdict AS MATERIALIZED (
    SELECT coalesce(bool_and(c IS NOT NULL AND t >= now - %s::interval AND t <= now + %s::interval), false) AS fine
    FROM incoming
), fresh AS (
    INSERT INTO meters_eventkey (key, event, timestamp)
    SELECT k, id, t FROM incoming WHERE (SELECT fine FROM verdict) ORDER BY k
    ON CONFLICT DO NOTHING
    RETURNING event
), stored AS (
    INSERT INTO meters_event (id, event_id, customer_id, event_name, timestamp, metadata)
    SELECT id, e, c, n, t, m FROM incoming WHERE id IN (SELECT event FROM fresh)
    RETURNING id
)
SELECT CASE WHEN fine THEN (SELECT count(*) FROM stored) END FROM verdict
"""


def ingest_events(*, events: Sequence[EventInput], backfill: bool = False) -> int:
    """Store all events or none, durably; returns how many were new. Raises as `store_events` does.

    Not to be called inside a transaction: what it returns is on disk.
    """
    stored = _store_at_once(events)
    if stored is None:
        with transaction.atomic(durable=True):
            stored = store_events(events=events, now=enter_ingestion(), backfill=backfill)
    return stored


def _store_at_once(events: Sequence[EventInput]) -> int | None:
    """Store a batch with which nothing is wrong; None, with nothing stored, where it needs a closer look."""
    rows, errors = _check(events, now=None, backfill=True)
    if errors:
        return None
    places: dict[str, int] = {}
    for index, row in rows.items():
        name = events[index].customer_id
        row.c = places.setdefault(name, len(places) + 1)
    document = _encode(list(rows.values())).decode()
    given = [INGESTION_LOCK, list(places), document, settings.LATENESS_WINDOW, settings.EVENT_CLOCK_TOLERANCE]
    try:
        # Only a test's own transaction may stand around this; a real one is refused.
        with transaction.atomic(durable=True) if connection.in_atomic_block else nullcontext():
            return _execute_prepared(_STORE_AT_ONCE, given)
    except IntegrityError as error:
        if isinstance(error.__cause__, psycopg.errors.CheckViolation):
            return None  # the event's month has no partition yet
        raise


def _execute_prepared(statement: LiteralString, given: Sequence[object]) -> int | None:
    """One statement, planned once per connection; Django's own cursors send a text that is planned each time."""
    connection.close_if_health_check_failed()
    connection.ensure_connection()
    with connection.wrap_database_errors, psycopg.Cursor(connection.connection) as cursor:
        row = cursor.execute(statement, given, prepare=True).fetchone()
    return None if row is None else row[0]


def store_events(*, events: Sequence[EventInput], now: datetime, backfill: bool = False) -> int:
    """Store all events or none; returns how many were new.

    An id that is stored already is passed over. Raises EventsRefused when anything is wrong with any event; its
    `errors` name each one. `backfill` lifts the limit on age and notes, for each customer, the span of the events
    beyond the lateness window, so that billing looks at it again. Must run inside a transaction.
    """
    _require_transaction()
    if not events:
        return 0
    rows, errors = _check(events, now=now, backfill=backfill)
    # Also when something is wrong already: one answer names everything.
    months = {month_of(row.t) for row in rows.values() if row.t is not None}
    customers, missing = _look_up({events[index].customer_id for index in rows}, months)
    for index, row in rows.items():
        row.c = customers.get(events[index].customer_id, 0)
        if not row.c:
            message = f"there is no customer {_shown(events[index].customer_id)}."
            errors.append(_error(index, events[index], "CUSTOMER_NOT_FOUND", message))
    if errors:
        errors.sort(key=lambda error: error["index"])
        raise EventsRefused(_summary(errors), code=errors[0]["code"], errors=errors)
    if missing:
        # In this order: a month that is dropped in the meantime is not made anew, empty.
        absent = set(missing_partitions(months=months))
        if gone := dropped_months(months=months):
            rows = _without_dropped(events, rows, gone)
        ensure_partitions(months=absent - gone)
    stored = _write(events, rows, now - settings.LATENESS_WINDOW)
    if late := [found for found in stored if found[2]]:
        # A level that is carried forward changes every period after it, too.
        names = {event.event_name for event in events}
        carried = Meter.objects.filter(carry_forward=True, event_name__in=names).exists()
        Backfill.objects.bulk_create(
            Backfill(customer_id=customer, events=count, first=first, last=max(last, now) if carried else last)
            for customer, _, count, first, last in late
        )
    return sum(found[1] for found in stored)


def _write(
    events: Sequence[EventInput], rows: dict[int, _Row], late_before: datetime
) -> list[tuple[int, int, int, datetime, datetime]]:
    """Run the statement; where a month was dropped since it was looked for, say so as for one dropped long ago.

    A customer, how many were stored, how many of them are late, and from when to when (NULL where none is).
    """
    while True:
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute(_STORE, [_encode(list(rows.values())).decode(), late_before])
                return list(cursor.fetchall())
        except IntegrityError as error:
            if not isinstance(error.__cause__, psycopg.errors.CheckViolation):
                raise
            gone = dropped_months(months={month_of(row.t) for row in rows.values() if row.t is not None})
            if not gone:
                raise
            rows = _without_dropped(events, rows, gone)


def _without_dropped(events: Sequence[EventInput], rows: dict[int, _Row], gone: set[date]) -> dict[int, _Row]:
    """The rows but for repeats of what lay in the dropped months. What would be new there is refused."""
    there = {index: row for index, row in rows.items() if row.t is not None and month_of(row.t) in gone}
    known = {key.hex for key in EventKey.objects.in_bulk([row.k for row in there.values()])}
    errors = [
        _error(
            index,
            events[index],
            "MONTH_ARCHIVED",
            f"{row.t:%B %Y} was archived and dropped; restore it to add events to it.",
        )
        for index, row in there.items()
        if row.k not in known
    ]
    if errors:
        raise EventsRefused(_summary(errors), code=errors[0]["code"], errors=errors)
    return {index: row for index, row in rows.items() if index not in there}


def _check(
    events: Sequence[EventInput], *, now: datetime | None, backfill: bool
) -> tuple[dict[int, _Row], list[dict[str, Any]]]:
    """What can be told without the database: the rows by index (the customer still open) and the bad events."""
    rows: dict[int, _Row] = {}
    errors: list[dict[str, Any]] = []
    first_with: dict[str, int] = {}
    # A batch repeats these: each is looked at once.
    good_customers: set[str] = set()
    good_names: set[str] = set()
    good_keys: set[str] = set()
    for index, event in enumerate(events):
        event_id = event.event_id
        try:
            _check_text("event_id", "INVALID_EVENT_ID", event_id, MAX_ID_LENGTH)
            first = first_with.setdefault(event_id, index)
            if first != index:
                raise _Problem("DUPLICATE_EVENT_ID", f"the same event_id as events[{first}].")
            if event.customer_id not in good_customers:
                _check_text("customer_id", "INVALID_CUSTOMER_ID", event.customer_id, MAX_ID_LENGTH)
                good_customers.add(event.customer_id)
            if event.event_name not in good_names:
                _check_text("event_name", "INVALID_EVENT_NAME", event.event_name, MAX_NAME_LENGTH)
                good_names.add(event.event_name)
            instant = _check_timestamp(event.timestamp, now=now, backfill=backfill)
            if event.metadata is not None:
                _check_metadata(event.metadata, good_keys=good_keys)
        except _Problem as problem:
            errors.append(_error(index, event, problem.code, problem.message))
            continue
        rows[index] = _Row(event_key(event_id), event_id, 0, event.event_name, instant, event.metadata)
    return rows, errors


def _look_up(customer_ids: set[str], months: set[date]) -> tuple[dict[str, int], bool]:
    """The keys of the customers that exist, and whether a month of these has no partition yet."""
    with connection.cursor() as cursor:
        names = [partition_name(month) for month in sorted(months)]
        cursor.execute(_LOOK_UP, [sorted(customer_ids), names, INGESTION_LOCK])
        found, missing, _ = cursor.fetchone()
    return json.loads(found) if isinstance(found, str) else found or {}, missing
