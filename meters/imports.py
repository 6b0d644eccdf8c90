"""Reading a file of events into the log: in batches, each stored together with how far the file was read.

So a kill at any moment loses nothing and doubles nothing: whoever reads the same file again goes on after the last
batch that was committed. A line that cannot be stored is refused and reported; the others of its batch are stored.
"""

import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import connection, transaction

from customers.errors import Conflict
from meters.import_files import BadLine, EventFile, GoodLine, ImportFailed, Line, report_line
from meters.ingestion import EventsRefused, enter_ingestion, store_events
from meters.models import EventImport

# Refused lines that are kept in the row; the report has them all.
MAX_PROBLEMS = 1000
# Any constant will do; it only has to differ from the other advisory locks of this software.
IMPORT_LOCK = 0x4D42494D


class ImportBusy(Conflict):
    pass


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an import is. `read` and `size` are bytes of the file as it lies on the disk."""

    lines: int
    read: int
    size: int


def report_path(path: Path) -> Path:
    return path.with_name(path.name + ".refused.jsonl")


def begin_import(
    *,
    path: Path,
    name: str,
    now: datetime,
    again: bool = False,
    keep: bool = False,
    started_by: Any = None,
) -> EventImport:
    """The import of this file: a new one, or the one that read it before, recognised by the file's SHA-256.

    `again` reads a finished file once more from its first line: what is stored already is passed over, and what was
    refused may be accepted now. `keep` remembers where the file lies, for the workers.
    """
    with EventFile(path) as file:
        size = file.size
    found, _ = EventImport.objects.get_or_create(
        checksum=checksum(path),
        defaults={"name": name[:255], "size": size, "started_by": started_by, "started_at": now},
    )
    if again:
        # Whoever is reading it goes on from a position of its own, and would write that over this one.
        with _alone(found):
            return _prepare(found, path=path, now=now, again=again, keep=keep)
    return _prepare(found, path=path, now=now, again=again, keep=keep)


def _prepare(found: EventImport, *, path: Path, now: datetime, again: bool, keep: bool) -> EventImport:
    changed = []
    if again:
        found.position = found.stored = found.repeated = found.refused = 0
        found.problems, found.finished_at, found.started_at = [], None, now
        changed += ["position", "stored", "repeated", "refused", "problems", "finished_at", "started_at"]
    if keep and not (found.path and Path(found.path).exists()):
        found.path = str(path)
        changed.append("path")
    if found.failure:
        found.failure = ""
        changed.append("failure")
    if changed:
        found.save(update_fields=changed)
    return found


def checksum(path: Path) -> str:
    """SHA-256 of a file, in bounded memory."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ImportFailed(f"{path} cannot be read: {error.strerror}.") from error


def run_import(
    *,
    record: EventImport,
    path: Path,
    report: Path,
    clock: Callable[[], datetime],
    progress: Callable[[Progress], None] = lambda progress: None,
    seconds: float | None = None,
) -> bool:
    """Read on from where the import stands; True when the end was reached, False when `seconds` were over before.

    ImportFailed says why it cannot go on; what stands before that place is stored.
    """
    with _alone(record):
        record.refresh_from_db()
        if record.finished_at is not None:
            return True
        until = None if seconds is None else time.monotonic() + seconds
        try:
            with EventFile(path) as file, _report(report, record.refused) as refusals:
                lines = file.lines(after=record.position)
                while True:
                    batch, failure = _next_batch(lines)
                    if batch:
                        _store_batch(record, batch, refusals)
                        progress(Progress(record.position, file.bytes_read, file.size))
                    if failure is not None:
                        raise failure
                    if not batch:
                        break
                    if until is not None and time.monotonic() > until:
                        return False
        except ImportFailed as error:
            EventImport.objects.filter(pk=record.pk).update(failure=error.message)
            record.failure = error.message
            raise
        record.finished_at = clock()
        record.save(update_fields=["finished_at"])
        return True


def _next_batch(lines: Iterator[Line]) -> tuple[list[Line], ImportFailed | None]:
    """As many lines as one batch may have, and what ended the reading before that, if something did."""
    batch: list[Line] = []
    try:
        for line in islice(lines, settings.MAX_EVENTS_PER_BATCH):
            batch.append(line)
    except ImportFailed as failure:
        return batch, failure
    return batch, None


def _store_batch(record: EventImport, batch: Sequence[Line], refusals: "_Report") -> None:
    """Store what can be stored and move the position, in one transaction."""
    with transaction.atomic():
        now = enter_ingestion()
        stored, repeated, bad = _store_good(batch, now=now)
        record.position = batch[-1].line
        record.stored += stored
        record.repeated += repeated
        record.refused += len(bad)
        fields = ["position", "stored", "repeated", "refused"]
        if bad and len(record.problems) < MAX_PROBLEMS:
            record.problems = [*record.problems, *map(_problem, bad)][:MAX_PROBLEMS]
            fields.append("problems")
        # Before the commit: lines that a kill leaves over are cut off by whoever goes on.
        refusals.add(bad)
        record.save(update_fields=fields)


def _store_good(batch: Sequence[Line], *, now: datetime) -> tuple[int, int, list[BadLine]]:
    """Store the good lines; returns how many were new, how many were repeated, and the bad lines in order.

    Lines that repeat an id go in rounds: each is judged, and the first good one is stored. So the result does not
    depend on where batches begin and end.
    """
    bad = [line for line in batch if isinstance(line, BadLine)]
    good = [line for line in batch if isinstance(line, GoodLine)]
    stored = repeated = 0
    while good:
        seen: set[str] = set()
        firsts: list[GoodLine] = []
        rest: list[GoodLine] = []
        for line in good:
            (rest if line.event.event_id in seen else firsts).append(line)
            seen.add(line.event.event_id)
        new, accepted, refused = _store_what_is_right(firsts, now=now)
        stored += new
        repeated += accepted - new
        bad += refused
        good = rest
    return stored, repeated, sorted(bad, key=lambda line: line.line)


def _store_what_is_right(lines: list[GoodLine], *, now: datetime) -> tuple[int, int, list[BadLine]]:
    """The log refuses a batch as a whole: take out the lines it names, and offer the rest again.

    Returns how many were new, how many were accepted, and those it refused.
    """
    bad: list[BadLine] = []
    while True:
        try:
            with transaction.atomic():
                new = store_events(events=[line.event for line in lines], now=now, backfill=True)
        except EventsRefused as refused:
            errors = {error["index"]: error for error in refused.errors or ()}
            if not errors:
                raise
            bad += [_refused(lines[index], error) for index, error in errors.items()]
            lines = [line for index, line in enumerate(lines) if index not in errors]
        else:
            return new, len(lines), bad


def _refused(line: GoodLine, error: dict[str, Any]) -> BadLine:
    return BadLine(line.line, error["event_id"], error["code"], error["message"], line.text)


def _problem(bad: BadLine) -> dict[str, Any]:
    return {"line": bad.line, "event_id": bad.event_id, "code": bad.code, "message": bad.message}


@contextmanager
def _alone(record: EventImport) -> Iterator[None]:
    """Only one process reads a file; the lock goes when its process is killed."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s, %s)", [IMPORT_LOCK, record.pk])
        if not cursor.fetchone()[0]:
            raise ImportBusy("Another process is reading this file just now.")
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_unlock(%s, %s)", [IMPORT_LOCK, record.pk])


class _Report:
    """The refused lines of a file, beside it. It is made when there is a first one."""

    def __init__(self, path: Path, kept: int) -> None:
        self._path = path
        try:
            self._cut(kept)
        except OSError as error:
            raise self._failed(error) from error

    def _cut(self, kept: int) -> None:
        """Keep the lines of committed batches only."""
        if not self._path.exists():
            return
        with self._path.open("r+b") as file:
            for _ in range(kept):
                if not file.readline():
                    break
            file.truncate(file.tell())
        if not kept:
            self._path.unlink()

    def add(self, bad: Sequence[BadLine]) -> None:
        if not bad:
            return
        try:
            with self._path.open("ab") as file:
                file.write(b"".join(map(report_line, bad)))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> ImportFailed:
        return ImportFailed(f"The report {self._path} cannot be written: {error.strerror}.")


@contextmanager
def _report(path: Path, kept: int) -> Iterator[_Report]:
    yield _Report(path, kept)


# -- files that operators upload -----------------------------------------------------------------------------


def accept_upload(
    *,
    chunks: Iterable[bytes],
    name: str,
    folder: Path,
    now: datetime,
    started_by: Any = None,
) -> EventImport:
    """Keep an uploaded file in `folder`, under its SHA-256, and begin (or find) its import."""
    digest = hashlib.sha256()
    size = 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix="upload-", delete=False) as file:
            part = Path(file.name)
            try:
                for chunk in chunks:
                    size += len(chunk)
                    if size > settings.IMPORT_MAX_BYTES:
                        most = settings.IMPORT_MAX_BYTES // (1024 * 1024)
                        raise ImportFailed(f"{name} is larger than {most} MB; use the command import_events for it.")
                    digest.update(chunk)
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
                with EventFile(part, name=name) as readable:
                    # The header of a CSV is judged here, while there is somebody to be told. More is not unpacked:
                    # a small file can hold endlessly much.
                    if readable.is_csv:
                        next(readable.lines(), None)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
        path = folder / digest.hexdigest()
        os.replace(part, path)
    except OSError as error:
        raise ImportFailed(f"The file cannot be kept in {folder}: {error.strerror}.") from error
    return begin_import(path=path, name=name, now=now, keep=True, started_by=started_by)


def unfinished_uploads() -> list[int]:
    """The imports that workers should go on with, oldest first."""
    waiting = EventImport.objects.filter(finished_at__isnull=True, failure="").exclude(path="")
    return list(waiting.order_by("pk").values_list("pk", flat=True))


def go_on(*, import_id: int, clock: Callable[[], datetime], seconds: float) -> bool:
    """Read on in an uploaded file for a while; True when there is nothing more to do for it.

    What stands against it is written to the import, for its page. Whoever comes second finds it busy and leaves.
    """
    record = EventImport.objects.filter(pk=import_id, finished_at__isnull=True).exclude(path="").first()
    if record is None:
        return True
    path = Path(record.path)
    try:
        return run_import(record=record, path=path, report=report_path(path), clock=clock, seconds=seconds)
    except (ImportBusy, ImportFailed):
        return True
