"""Bodies that come packed: gzip and zstd, unpacked within bounds."""

import gzip
import json
import sys
import zlib
from collections.abc import Callable

import pytest
from django.conf import settings
from django.test import Client

from customers.api.errors import ApiError
from customers.api.parsers import unpack
from customers.keys import create_api_key
from customers.models import Customer
from meters.models import Event
from tests.base import acme

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PACKED: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "zstd": zstd.compress}
TEXT = b"it is what it is, " * 1000


@pytest.mark.parametrize("encoding", ["", "identity", " Identity "])
def test_a_body_that_is_not_packed_stays_as_it_is(encoding: str) -> None:
    assert unpack(TEXT, encoding=encoding, limit=5) == TEXT


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "GZIP", " gzip ", "zstd", "ZSTD"])
def test_a_packed_body_is_unpacked(encoding: str) -> None:
    pack = PACKED["zstd" if "zstd" in encoding.lower() else "gzip"]
    assert unpack(pack(TEXT), encoding=encoding, limit=len(TEXT)) == TEXT
    assert unpack(pack(b""), encoding=encoding, limit=5) == b""
    assert unpack(b"", encoding=encoding, limit=5) == b""
    assert unpack(pack(b"in ") + pack(b"two ") + pack(b"pieces"), encoding=encoding, limit=13) == b"in two pieces"


@pytest.mark.parametrize("encoding", PACKED)
def test_it_unpacks_to_the_limit_and_not_to_one_byte_more(encoding: str) -> None:
    pack = PACKED[encoding]
    assert unpack(pack(b"x" * 5000), encoding=encoding, limit=5000) == b"x" * 5000
    for bomb in (pack(b"x" * 5001), pack(b"x" * 50_000_000), pack(b"x" * 2501) * 2):
        with pytest.raises(ApiError) as refused:
            unpack(bomb, encoding=encoding, limit=5000)
        assert refused.value.status_code == 413


@pytest.mark.parametrize("encoding", PACKED)
def test_data_that_is_broken_is_refused(encoding: str) -> None:
    whole = PACKED[encoding](TEXT)
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    for broken in (
        b"{}",
        whole[:-1],
        whole[:10],
        whole + b"more",
        bytes(flipped) if encoding == "gzip" else b"\x28",
        TEXT,
    ):
        with pytest.raises(ApiError) as refused:
            unpack(broken, encoding=encoding, limit=10 * len(TEXT))
        assert (refused.value.status_code, refused.value.get_codes()) == (422, "INVALID_REQUEST_BODY")


@pytest.mark.parametrize("encoding", PACKED)
def test_a_body_of_a_great_many_pieces_is_refused(encoding: str) -> None:
    piece = PACKED[encoding](b"")
    assert unpack(piece * 128, encoding=encoding, limit=100) == b""
    with pytest.raises(ApiError, match="more than 128 pieces"):
        unpack(piece * 200_000, encoding=encoding, limit=100)


def test_a_zstd_frame_may_not_ask_for_much_memory() -> None:
    far = zstd.compress(
        TEXT, options={zstd.CompressionParameter.window_log: 27, zstd.CompressionParameter.content_size_flag: 0}
    )
    streamed = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 27})
    far = streamed.compress(TEXT) + streamed.flush()
    with pytest.raises(ApiError) as refused:
        unpack(far, encoding="zstd", limit=10 * len(TEXT))
    assert refused.value.status_code == 422


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip, zstd", "compress", "*"])
def test_other_encodings_are_refused_and_the_answer_says_what_is_taken(encoding: str) -> None:
    with pytest.raises(ApiError, match="gzip") as refused:
        unpack(zlib.compress(TEXT), encoding=encoding, limit=10 * len(TEXT))
    assert refused.value.status_code == 415


@pytest.fixture
def send() -> Callable[..., tuple[int, dict[str, object]]]:
    _, key = create_api_key(name="tests")
    client = Client(raise_request_exception=False)

    def call(path: str, body: bytes, encoding: str) -> tuple[int, dict[str, object]]:
        answer = client.post(
            path,
            body,
            content_type="application/json",
            headers={"Authorization": f"Bearer {key}", "Content-Encoding": encoding},
        )
        return answer.status_code, answer.json()

    return call


@pytest.mark.django_db
@pytest.mark.parametrize("encoding", PACKED)
def test_events_and_everything_else_may_be_sent_packed(
    send: Callable[..., tuple[int, dict[str, object]]], encoding: str
) -> None:
    customer = acme()
    events = [{"event_id": str(n), "customer_id": customer.public_id, "event_name": "n"} for n in range(1000)]
    body = PACKED[encoding](json.dumps({"events": events}).encode())
    assert send("/events/ingest", body, encoding) == (200, {"ingested_count": 1000})
    assert Event.objects.count() == 1000
    status, made = send("/customers", PACKED[encoding](b'{"name": "Packed", "email": "p@example.com"}'), encoding)
    assert (status, made["name"]) == (201, "Packed")
    assert Customer.objects.filter(name="Packed").count() == 1


@pytest.mark.django_db
@pytest.mark.parametrize("encoding", PACKED)
def test_a_bomb_gets_413_and_rubbish_422_over_http(
    send: Callable[..., tuple[int, dict[str, object]]], encoding: str
) -> None:
    bomb = PACKED[encoding](b" " * (settings.MAX_REQUEST_BYTES + 1))
    for path in ("/events/ingest", "/customers"):
        status, answer = send(path, bomb, encoding)
        assert (status, answer["code"]) == (413, "PAYLOAD_TOO_LARGE")
        status, answer = send(path, b'{"events": []}', encoding)
        assert (status, answer["code"]) == (422, "INVALID_REQUEST_BODY")
        status, answer = send(path, b"{}", "br")
        assert (status, answer["code"]) == (415, "UNSUPPORTED_MEDIA_TYPE")
