"""Files of events, read line by line in bounded memory: JSON Lines or CSV with a header, plain or gzip.

What kind a file is says its content, not its name. A line that cannot be read becomes a BadLine and the next one is
read; what makes every further line doubtful (broken gzip, a header without the needed columns) is an ImportFailed.
"""

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from customers.errors import DomainError
from meters.ingestion import EventInput, MalformedBatch, decode_batch

# 50 pairs of the longest keys and texts, escaped and quoted twice, fit.
MAX_LINE_BYTES = 1024 * 1024
# What no file of events has, and a small gzip file can unpack to without end.
MAX_SKIPPED_BYTES = 16 * MAX_LINE_BYTES
MAX_BLANK_LINES = 100_000
_NEEDED = ("event_id", "customer_id", "event_name", "timestamp")
_WRAP = b'{"events":['
_GZIP = b"\x1f\x8b"
_UTF8_MARK = b"\xef\xbb\xbf"


class ImportFailed(DomainError):
    """The file cannot be read, or not further."""

    code = "IMPORT_FAILED"


@dataclass(frozen=True, slots=True)
class GoodLine:
    """An event and where it stands. `line` is the last physical line of it; a quoted CSV cell may hold several."""

    line: int
    event: EventInput
    text: str


@dataclass(frozen=True, slots=True)
class BadLine:
    line: int
    event_id: str | None
    code: str
    message: str
    text: str


Line = GoodLine | BadLine


class EventFile:
    """An open file of events. `lines` reads on; `bytes_read` says how far it is in the file as it lies on the disk."""

    def __init__(self, path: Path, *, name: str = "") -> None:
        try:
            self.size = path.stat().st_size
            self._raw: io.BufferedReader = path.open("rb")
        except OSError as error:
            raise ImportFailed(f"{path} cannot be read: {error.strerror}.") from error
        try:
            packed = self._raw.read(2) == _GZIP
            self._raw.seek(0)
            unpacked: Any = gzip.GzipFile(fileobj=self._raw) if packed else None
            self._data = io.BufferedReader(unpacked, 256 * 1024) if packed else self._raw
            self._read = self._blank = 0
            self._head = self._first_bytes(name or path.name)
        except BaseException:
            self._raw.close()
            raise

    def __enter__(self) -> "EventFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._raw.close()

    @property
    def bytes_read(self) -> int:
        return min(self._raw.tell(), self.size)

    @property
    def is_csv(self) -> bool:
        first = self._head.split(b"\n", 1)[0]
        # JSON Lines may begin with a line that is broken; then it is no header either.
        return not first.startswith(b"{") and (b"event_id" in first or b"\n{" not in self._head)

    def lines(self, *, after: int = 0) -> Iterator[Line]:
        """Every line that holds an event, past the first `after` physical lines."""
        return self._csv_lines(after) if self.is_csv else self._json_lines(after)

    # -- bytes -------------------------------------------------------------------------------------------------

    def _first_bytes(self, name: str) -> bytes:
        """The first text of the file, without moving on; refuses what is no file of events at all."""
        head = self._peek()
        if head.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise ImportFailed(f"{name} is UTF-16; save it as UTF-8.")
        if head.startswith(_UTF8_MARK):
            self._data.read(len(_UTF8_MARK))
            head = head[len(_UTF8_MARK) :]
        head = head.lstrip()
        if not head:
            raise ImportFailed(f"{name} is empty.")
        if head.startswith(b"["):
            raise ImportFailed(f"{name} is one JSON list; JSON Lines has one event on each line, without brackets.")
        if b"\0" in head[:100]:
            raise ImportFailed(f"{name} is no text: expected JSON Lines or CSV in UTF-8, plain or gzip.")
        return head

    def _peek(self) -> bytes:
        try:
            return self._data.peek(4096)[:4096]
        except (OSError, EOFError, zlib.error) as error:
            raise self._broken(error) from error

    def _readline(self) -> bytes | None:
        """The next physical line, at the end None. Of an endless one only as much as tells that it is too long."""
        try:
            line = self._data.readline(MAX_LINE_BYTES + 1)
            rest, skipped = line, 0
            while rest and len(rest) > MAX_LINE_BYTES and not rest.endswith(b"\n"):
                rest = self._data.readline(MAX_LINE_BYTES + 1)
                skipped += len(rest)
                if skipped > MAX_SKIPPED_BYTES:
                    raise ImportFailed(f"Line {self._read + 1} does not end within {MAX_SKIPPED_BYTES} bytes.")
        except (OSError, EOFError, zlib.error) as error:
            raise self._broken(error) from error
        if not line:
            return None
        self._read += 1
        self._blank = 0 if line.strip(b" \t\r\n,;") else self._blank + 1
        if self._blank > MAX_BLANK_LINES:
            raise ImportFailed(f"More than {MAX_BLANK_LINES} empty lines follow one another up to line {self._read}.")
        return line

    def _broken(self, error: Exception) -> ImportFailed:
        what = "its gzip data ends too early" if isinstance(error, EOFError) else f"its data is broken ({error})"
        return ImportFailed(f"The file cannot be read past line {self._read}: {what}.")

    def _skip(self, lines: int) -> None:
        while self._read < lines and self._readline() is not None:
            pass

    # -- JSON Lines --------------------------------------------------------------------------------------------

    def _json_lines(self, after: int) -> Iterator[Line]:
        self._skip(after)
        while (raw := self._readline()) is not None:
            if len(raw) > MAX_LINE_BYTES:
                yield _bad(self._read, None, f"The line is longer than {MAX_LINE_BYTES} bytes.", raw[:1000])
            elif raw.strip():
                yield _read_event(self._read, raw.strip(), raw)

    # -- CSV ---------------------------------------------------------------------------------------------------

    def _texts(self) -> Iterator[str]:
        """Physical lines as text, for the CSV reader; counts how much one record swallows."""
        while (raw := self._readline()) is not None:
            self._record += len(raw)
            if self._record > MAX_LINE_BYTES:
                raise ImportFailed(
                    f"The record that ends at line {self._read} or later is longer than {MAX_LINE_BYTES} bytes;"
                    " is a quotation mark left open?"
                )
            yield raw.decode("utf-8", "surrogateescape")

    def _csv_lines(self, after: int) -> Iterator[Line]:
        self._record = 0
        first = self._head.split(b"\n", 1)[0]
        delimiter = max(",;\t", key=lambda mark: first.count(mark.encode()))
        csv.field_size_limit(MAX_LINE_BYTES)
        reader = csv.reader(self._texts(), delimiter=delimiter)
        header = self._header(reader)
        self._skip(after)
        while True:
            self._record = 0
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield _bad(self._read, None, f"The line is no CSV: {error}.", b"")
                continue
            if cells and any(cells):
                yield self._read_record(header, cells)

    def _header(self, reader: Iterator[list[str]]) -> list[str]:
        try:
            header = [cell.strip() for cell in next((cells for cells in reader if any(cells)), [])]
        except csv.Error as error:
            raise ImportFailed(f"The header is no CSV: {error}.") from error
        found = ", ".join(name or "(no name)" for name in header[:20])[:300]
        found = found.encode("utf-8", "backslashreplace").decode()
        if missing := [name for name in _NEEDED if name not in header]:
            raise ImportFailed(
                f"The header has no column {' and no '.join(missing)}. It begins with {found}; needed are"
                f" {', '.join(_NEEDED)}, and then either metadata (as JSON) or a column for each metadata key."
            )
        if twice := next((name for name in header if header.count(name) > 1), None):
            raise ImportFailed(f"The header names the column “{twice}” twice.")
        if "metadata" in header and len(header) > len(_NEEDED) + 1:
            raise ImportFailed("The header has a metadata column and columns beside it; use the one or the other.")
        if "" in header:
            raise ImportFailed(f"Column {header.index('') + 1} of the header has no name.")
        return header

    def _read_record(self, header: list[str], cells: list[str]) -> Line:
        raw = ",".join(cells).encode("utf-8", "surrogateescape")
        if len(cells) != len(header):
            return _bad(self._read, None, f"The line has {len(cells)} cells and the header {len(header)}.", raw)
        row = dict(zip(header, cells, strict=True))
        event_id = row["event_id"]
        if any("\ud800" <= character <= "\udfff" for cell in cells for character in cell):
            return _bad(self._read, _shown(event_id), "The line is not UTF-8.", raw)
        event: dict[str, object] = {name: row[name] for name in _NEEDED}
        event["timestamp"] = row["timestamp"].strip() or None
        # Always there, so that a cell which smuggles in a second one is seen as the repetition it is.
        event["metadata"] = None
        if cell := row.get("metadata", "").strip():
            event["metadata"] = msgspec.Raw(cell.encode())
        elif further := {name: cell for name, cell in row.items() if name not in (*_NEEDED, "metadata") and cell}:
            event["metadata"] = further
        return _read_event(self._read, msgspec.json.encode(event), raw)


# -- one event -------------------------------------------------------------------------------------------------


def _read_event(line: int, encoded: bytes, raw: bytes) -> Line:
    """One JSON object as the API would read it."""
    if encoded.startswith(ARCHIVED):
        return _read_archived(line, encoded, raw)
    try:
        events = decode_batch(_WRAP + encoded + b"]}")
    except MalformedBatch as error:
        if error.errors:
            first = error.errors[0]
            return _bad(line, first["event_id"], first["message"], raw)
        return _bad(line, None, _about_the_line(error.message), raw)
    except DomainError as error:
        return _bad(line, None, error.message, raw)
    if len(events) != 1:
        return _bad(line, None, "The line holds several events; JSON Lines has one on each line.", raw)
    if events[0].timestamp is None:
        return _bad(
            line, _shown(events[0].event_id), "timestamp is missing: an imported event says when it happened.", raw
        )
    return GoodLine(line, events[0], _text(raw))


# How a line of an archive begins (meters.retention).
ARCHIVED = b'{"log_id":'


def _read_archived(line: int, encoded: bytes, raw: bytes) -> Line:
    """A line of an archived month: the event without what only the log knows. A voided one is not counted anew."""
    try:
        fields = msgspec.json.decode(encoded, type=dict[str, msgspec.Raw])
        event = {name: fields[name] for name in (*_NEEDED, "metadata") if name in fields}
        event_id = msgspec.json.decode(fields.get("event_id", msgspec.Raw(b"null")), type=str)
    except msgspec.MsgspecError:
        return _bad(line, None, "The line is no event of an archive.", raw)
    if bytes(fields.get("voided_at", b"null")) != b"null":
        return _bad(line, _shown(event_id), "The event was voided before it was archived.", raw, code="VOIDED")
    return _read_event(line, msgspec.json.encode(event), raw)


def _about_the_line(message: str) -> str:
    """The API's words about a body, said of a line."""
    message = message.replace("The body", "The line")
    return re.sub(
        r"\((character|byte) (\d+)\)",
        lambda found: f"({found[1]} {max(int(found[2]) - len(_WRAP), 0)})",
        message,
    )


def _bad(line: int, event_id: str | None, message: str, raw: bytes, *, code: str = "UNREADABLE_LINE") -> BadLine:
    return BadLine(line, event_id, code, message, _text(raw))


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace").rstrip("\r\n")


def _shown(text: str) -> str:
    short = text if len(text) <= 100 else text[:99] + "…"
    return short.encode("utf-8", "backslashreplace").decode().replace("\0", "\\u0000")


def report_line(bad: BadLine) -> bytes:
    """A refused line for the report, with what stood there, so that it can be mended and imported."""
    entry = {
        "line": bad.line,
        "event_id": bad.event_id,
        "code": bad.code,
        "message": bad.message,
        "content": bad.text,
    }
    return json.dumps(entry).encode() + b"\n"
