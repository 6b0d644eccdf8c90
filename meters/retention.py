"""Old months of the log: written to a file, proven, dropped, and brought back.

An archive is gzip JSON Lines, an event a line in the order of the log, every number digit for digit, with what only the
log knows (its id, when it was received, whether it was voided and why). A month may leave the log only when its archive
holds all of it, every meter has it in its buckets, and no billing period still needs it. The keys of its events stay,
so an id that was ever accepted is refused for ever; the buckets stay, so usage of whole hours stays exact.
"""

import gzip
import hashlib
import os
import zlib
from collections.abc import Callable, Iterator
from datetime import date, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
from django.db import OperationalError, connection, transaction

from customers.errors import Conflict, NotFound
from meters.import_files import ARCHIVED
from meters.imports import checksum
from meters.meters import keep_meters_from_appearing
from meters.models import ArchivedMonth, EventVoid, Meter
from meters.partitions import (
    dropped_months,
    ensure_partitions,
    missing_partitions,
    month_of,
    month_span,
    partition_name,
    stored_months,
)
from meters.rollups import recount_span, settled_event_id

_ROWS = 5000
# Whoever reads or stores events waits behind a drop that waits: so it soon gives up, and is tried another time.
_LOCK_TIMEOUT = "2s"


class ArchiveRefused(Conflict):
    code = "ARCHIVE_REFUSED"


class MonthNotFound(NotFound):
    pass


def months_to_archive(*, now: datetime, keep_months: int) -> list[date]:
    """The months in the log, oldest first, that are over and lie before the `keep_months` last whole ones."""
    first_kept = month_of(now)
    for _ in range(keep_months):
        first_kept = month_before(first_kept)
    return [month for month in stored_months() if month < first_kept and _has_events(month)]


def month_before(month: date) -> date:
    return month.replace(year=month.year - 1, month=12) if month.month == 1 else month.replace(month=month.month - 1)


# -- writing -------------------------------------------------------------------------------------------------


def archive_month(*, month: date, folder: Path, now: datetime) -> ArchivedMonth:
    """Write the month to a file in `folder`, read it back, and record it. A month that grew since is written anew."""
    _, end = month_span(month)
    if end > now:
        raise ArchiveRefused(f"{_name(month)} is not over yet.")
    if month in dropped_months(months=[month]):
        raise ArchiveRefused(f"{_name(month)} is archived and no longer in the log.")
    if missing_partitions(months=[month]):
        raise MonthNotFound(f"There are no events of {_name(month)}.")
    path = folder / f"events-{month:%Y-%m}.jsonl.gz"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        written = _write(part, month)
        if _read_back(part) != written:
            raise ArchiveRefused(f"{part} does not hold what was written to it; is the disk sound?")
        os.replace(part, path)
        _sync_folder(folder)
    except OSError as error:
        raise ArchiveRefused(f"The archive cannot be written to {folder}: {error.strerror}.") from error
    record, _ = ArchivedMonth.objects.update_or_create(
        month=month,
        defaults={"path": str(path), "events": written[0], "checksum": checksum(path), "archived_at": now},
    )
    return record


_SELECT = """
SELECT event.id, event.event_id, customer.public_id, event.event_name, event.timestamp, event.metadata::text,
       event.received_at, event.voided_at, void.reason, void.author
FROM meters_event AS event
JOIN customers_customer AS customer ON customer.id = event.customer_id
LEFT JOIN meters_eventvoid AS void ON void.event = event.id
WHERE event.timestamp >= %s AND event.timestamp < %s
ORDER BY event.timestamp, event.id
"""


def _write(path: Path, month: date) -> tuple[int, str]:
    """Write the month's events; returns how many and the SHA-256 of their lines."""
    count, digest = 0, hashlib.sha256()
    encode = msgspec.json.Encoder().encode
    with path.open("wb") as file, gzip.GzipFile("", "wb", 6, file, mtime=0) as packed:
        # One statement, one snapshot; read in pieces from a cursor on the server.
        with transaction.atomic(), connection.chunked_cursor() as cursor:
            cursor.execute(_SELECT, month_span(month))
            while rows := cursor.fetchmany(_ROWS):
                lines = b"".join(encode(_line(row)) + b"\n" for row in rows)
                digest.update(lines)
                packed.write(lines)
                count += len(rows)
        packed.close()
        file.flush()
        os.fsync(file.fileno())
    return count, digest.hexdigest()


def _line(row: tuple[Any, ...]) -> dict[str, Any]:
    log_id, event_id, customer_id, event_name, timestamp, metadata, received_at, voided_at, reason, author = row
    return {
        # First: a reader knows an archive by it (meters.import_files.ARCHIVED).
        "log_id": log_id,
        "event_id": event_id,
        "customer_id": customer_id,
        "event_name": event_name,
        "timestamp": timestamp,
        "metadata": None if metadata is None else msgspec.Raw(metadata.encode()),
        "received_at": received_at,
        "voided_at": voided_at,
        "void_reason": reason,
        "void_author": author,
    }


def _read_back(path: Path) -> tuple[int, str]:
    count, digest = 0, hashlib.sha256()
    for line in _archived_lines(path):
        count += 1
        digest.update(line)
    return count, digest.hexdigest()


def _archived_lines(path: Path) -> Iterator[bytes]:
    try:
        with gzip.open(path, "rb") as file:
            for line in file:
                if not line.startswith(ARCHIVED):
                    raise ArchiveRefused(f"{path} holds a line that is no archived event.")
                yield line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ArchiveRefused(f"{path} is broken: {error}.") from error


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# -- dropping ------------------------------------------------------------------------------------------------


def drop_month(*, month: date, now: datetime, in_use: Callable[[date], str]) -> ArchivedMonth:
    """Take an archived month out of the log; ArchiveRefused says what stands against it, and nothing has changed then.

    `in_use` says why billing still needs the month, or nothing: this app knows no billing periods.
    """
    record = _proven(month)
    if record.dropped_at is not None:
        raise ArchiveRefused(f"{_name(month)} is no longer in the log.")
    settled = settled_event_id()
    if settled is None:
        raise ArchiveRefused("Events are being stored that take long; try again later.")
    count, last = _count(month, settled)
    if count != record.events:
        raise ArchiveRefused(
            f"{_name(month)} has {count} events in the log and {record.events} in its archive; archive it again."
        )
    voided = sum(_is_voided(line) for line in _archived_lines(Path(record.path)))
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
        try:
            # In the order in which the roller and whoever corrects take them: the meters, then the log.
            keep_meters_from_appearing()
            meters = list(Meter.objects.select_for_update().order_by("pk"))
            cursor.execute("LOCK TABLE meters_event IN ACCESS EXCLUSIVE MODE")
        except OperationalError as error:
            raise ArchiveRefused("The log is busy; try again later.") from error
        start, end = month_span(month)
        cursor.execute(
            "SELECT EXISTS (SELECT FROM meters_event WHERE timestamp >= %s AND timestamp < %s AND id > %s)",
            [start, end, settled],
        )
        if cursor.fetchone()[0]:
            raise ArchiveRefused(f"{_name(month)} has just received events; archive it again.")
        # A void that came while the archive was written, or since.
        known = ArchivedMonth.objects.select_for_update().filter(pk=record.pk, checksum=record.checksum).exists()
        if not known or EventVoid.objects.filter(timestamp__gte=start, timestamp__lt=end).count() != voided:
            raise ArchiveRefused(f"Events of {_name(month)} were voided after it was archived; archive it again.")
        if behind := next((meter for meter in meters if meter.rolled_up_to < last), None):
            raise ArchiveRefused(f"The meter “{behind.name}” has not read all of {_name(month)} yet; try again later.")
        if reason := in_use(month):
            raise ArchiveRefused(reason)
        name = connection.ops.quote_name(partition_name(month))
        cursor.execute(f"ALTER TABLE meters_event DETACH PARTITION {name}")
        cursor.execute(f"DROP TABLE {name}")
        record.dropped_at = now
        record.save(update_fields=["dropped_at"])
    return record


def _proven(month: date) -> ArchivedMonth:
    """The month's record, once its file is found to be what was written."""
    record = ArchivedMonth.objects.filter(month=month).first()
    if record is None:
        raise ArchiveRefused(f"{_name(month)} is not archived.")
    path = Path(record.path)
    if not path.is_file():
        raise ArchiveRefused(f"The archive of {_name(month)} is not at {path}.")
    if checksum(path) != record.checksum:
        raise ArchiveRefused(f"The archive {path} was changed: its SHA-256 is no longer {record.checksum}.")
    return record


class _Voidable(msgspec.Struct):
    voided_at: str | None


_read_voidable = msgspec.json.Decoder(_Voidable).decode


def _is_voided(line: bytes) -> bool:
    return _read_voidable(line).voided_at is not None


def _count(month: date, settled: int) -> tuple[int, int]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*), coalesce(max(id), 0) FROM meters_event"
            " WHERE timestamp >= %s AND timestamp < %s AND id <= %s",
            [*month_span(month), settled],
        )
        count, last = cursor.fetchone()
    return count, last


def _has_events(month: date) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT EXISTS (SELECT FROM meters_event WHERE timestamp >= %s AND timestamp < %s)", month_span(month)
        )
        return bool(cursor.fetchone()[0])


# -- bringing back -------------------------------------------------------------------------------------------

_INSERT = """
INSERT INTO meters_event (id, event_id, customer_id, event_name, timestamp, metadata, received_at, voided_at)
SELECT event.log_id, event.event_id, customer.id, event.event_name, event.timestamp, event.metadata,
       event.received_at, event.voided_at
FROM jsonb_to_recordset(%s::jsonb) AS event(log_id bigint, event_id text, customer_id text, event_name text,
    timestamp timestamptz, metadata jsonb, received_at timestamptz, voided_at timestamptz)
JOIN customers_customer AS customer ON customer.public_id = event.customer_id
ORDER BY event.log_id
"""


def restore_month(*, month: date) -> ArchivedMonth:
    """Put a dropped month back into the log from its archive, as it was; meters count it again from there.

    A meter made since the drop counts it then, too.
    """
    record = _proven(month)
    if record.dropped_at is None:
        raise ArchiveRefused(f"{_name(month)} is in the log.")
    with transaction.atomic():
        keep_meters_from_appearing()
        meters = list(Meter.objects.select_for_update().order_by("pk"))
        ensure_partitions(months=[month])
        lines = _archived_lines(Path(record.path))
        restored = 0
        with connection.cursor() as cursor:
            while rows := list(islice(lines, _ROWS)):
                cursor.execute(_INSERT, [f"[{b','.join(rows).decode()}]"])
                restored += cursor.rowcount
        if restored != record.events:
            raise ArchiveRefused(f"{restored} of {record.events} events can be restored, so none was.")
        # First, because a month that is not in the log is never counted again.
        record.dropped_at = None
        record.save(update_fields=["dropped_at"])
        start, end = month_span(month)
        for meter in meters:
            recount_span(meter=meter, start=start, end=end)
    return record


def _name(month: date) -> str:
    return f"{month:%B %Y}"
