"""JSON bodies, read exactly: nothing that a number, a name or a character means is lost or guessed."""

import codecs
import decimal
import json
import sys
import zlib
from collections.abc import Mapping
from decimal import Decimal
from typing import IO, Any, Protocol

from django.conf import settings
from rest_framework.exceptions import ParseError
from rest_framework.parsers import BaseParser
from rest_framework.request import Request

from customers.api.errors import BodyTooLarge, InvalidBody, UnknownEncoding

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

# Deeper than anything the contract knows (a filter of three levels within a request is nine).
MAX_DEPTH = 32
# What a zstd frame may ask us to remember while it is unpacked: 8 MB, the format's own recommendation.
_ZSTD_WINDOW_LOG = 23
# Members of one packed body; each costs a copy of what follows it.
_MAX_MEMBERS = 128


def read_body(request: Request) -> bytes:
    """The request's body as plain bytes; 413 where it is too large, packed or unpacked, before it is held in memory."""
    try:
        length = int(request.META.get("CONTENT_LENGTH") or 0)
    except ValueError:
        length = 0
    if length > settings.MAX_REQUEST_BYTES:
        raise BodyTooLarge
    try:
        body = bytes(request.body)
    except OSError as error:  # the client went away, or sent less than it promised
        raise ParseError("The request body ended early.") from error
    encoding = request.META.get("HTTP_CONTENT_ENCODING", "")
    return unpack(body, encoding=encoding, limit=settings.MAX_REQUEST_BYTES) if encoding else body


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def unpack(body: bytes, *, encoding: str, limit: int) -> bytes:
    """The body without its Content-Encoding (gzip or zstd). Never makes more than `limit` bytes and one of it.

    Both formats allow several members in a row, and both are read to the end: what is cut short is refused, so is
    anything behind it that is no member.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return body
    if name not in ("gzip", "x-gzip", "zstd"):
        raise UnknownEncoding
    parts: list[bytes] = []
    room = limit + 1
    rest = body
    while rest:
        if len(parts) == _MAX_MEMBERS:
            raise InvalidBody(f"The body has more than {_MAX_MEMBERS} pieces of {name} data.")
        try:
            member = _decompressor(name)
            part = member.decompress(rest, room)
        except (zlib.error, zstd.ZstdError) as error:
            raise InvalidBody(f"The body is not {name}, as its Content-Encoding says.") from error
        parts.append(part)
        room -= len(part)
        if room <= 0:
            raise BodyTooLarge
        if not member.eof:
            raise InvalidBody(f"The body ends in the middle of its {name} data.")
        rest = member.unused_data
    return b"".join(parts)


def _decompressor(name: str) -> _Decompressor:
    if name == "zstd":
        return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG})
    return zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)


class ExactJSONParser(BaseParser):
    """`application/json` whose body is one object."""

    media_type = "application/json"

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        request = (parser_context or {}).get("request")
        if request is None:
            return parse_object(stream.read())
        return parse_object(read_body(request))


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`: fractions as Decimal, whole numbers as int; 422 for anything doubtful."""
    if body.startswith(codecs.BOM_UTF8):
        raise InvalidBody("The body begins with a byte order mark; send plain UTF-8.")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidBody(f"The body is not UTF-8 (byte {error.start}).") from error
    try:
        value = json.loads(
            text,
            parse_float=Decimal,
            parse_constant=_refuse_constant,
            object_pairs_hook=_object_without_repeats,
        )
    except json.JSONDecodeError as error:
        raise InvalidBody(f"The body is not JSON: {error.msg} at character {error.pos}.") from error
    except RecursionError as error:
        raise InvalidBody("The body is nested too deeply.") from error
    except (
        ValueError,
        decimal.DecimalException,
    ) as error:  # more digits, or a larger exponent, than can be read
        raise InvalidBody("The body holds a number that cannot be read.") from error
    if not isinstance(value, dict):
        raise InvalidBody("The body must be a JSON object.")
    _refuse_odd_text(value)
    return value


def _refuse_constant(name: str) -> None:
    raise InvalidBody(f"{name} is not a JSON number.")


def _object_without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                shown = name[:100].encode("utf-8", "backslashreplace").decode()
                raise InvalidBody(f"The name {json.dumps(shown)} stands twice in one object.")
            seen.add(name)
    return result


def _refuse_odd_text(value: Any) -> None:
    """PostgreSQL cannot keep a NUL character, and half a surrogate pair is not a character at all."""
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        deeper: list[Any] = []
        for item in level:
            if isinstance(item, str):
                _refuse_odd_string(item)
            elif isinstance(item, dict):
                for name in item:
                    _refuse_odd_string(name)
                deeper.extend(item.values())
            elif isinstance(item, list):
                deeper.extend(item)
        if not deeper:
            return
        level = deeper
    raise InvalidBody(f"The body is nested more than {MAX_DEPTH} levels deep.")


def _refuse_odd_string(text: str) -> None:
    if "\x00" in text:
        raise InvalidBody("The body holds a null character, which cannot be stored.")
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise InvalidBody("The body holds half of a surrogate pair, which is not a character.")
