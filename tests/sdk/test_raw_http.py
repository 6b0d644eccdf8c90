"""What no client library would send: the answer is JSON all the same, and the server goes on."""

import json
import socket
from urllib.parse import urlsplit

import pytest

from tests.stack import Stack

# Needs the running server, like the SDKs do.
pytestmark = pytest.mark.sdk


def exchange(stack: Stack, sent: bytes) -> tuple[int, dict[str, str]]:
    """Send these bytes; status and JSON body of the answer."""
    address = urlsplit(stack.base_url)
    with socket.create_connection((str(address.hostname), address.port or 80), timeout=20) as connection:
        connection.sendall(sent)
        received = b""
        while b"\r\n\r\n" not in received or len(received.partition(b"\r\n\r\n")[2]) < _length(received):
            piece = connection.recv(65536)
            if not piece:
                break
            received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"application/json" in head, head
    return int(head.split()[1]), json.loads(body)


def _length(received: bytes) -> int:
    head = received.partition(b"\r\n\r\n")[0].lower()
    return int(head.partition(b"content-length:")[2].split(b"\r\n")[0])


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414, "URI_TOO_LONG"),
        (b"nonsense\r\n\r\n", 400, "INVALID_REQUEST_PARAMETERS"),
        (b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n", 400, "INVALID_REQUEST_PARAMETERS"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nA: " + b"a" * 20_000 + b"\r\n\r\n", 431, "HEADERS_TOO_LARGE"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nBad Name: x\r\n\r\n", 400, "INVALID_REQUEST_PARAMETERS"),
        (
            b"POST /customers HTTP/1.1\r\nHost: localhost\r\nContent-Length: many\r\n\r\n",
            400,
            "INVALID_REQUEST_PARAMETERS",
        ),
        (b"GET /customers\xff HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "INVALID_REQUEST_PARAMETERS"),
        (b"GET /customers/%00 HTTP/1.1\r\nHost: localhost\r\n\r\n", 404, "NOT_FOUND"),
        (b"GET /customers HTTP/1.1\r\nHost: localhost\r\n\r\n", 401, "UNAUTHORIZED"),
        (b"BREW /customers HTTP/1.1\r\nHost: localhost\r\n\r\n", 401, "UNAUTHORIZED"),
        (
            b"POST /customers HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
            411,
            "LENGTH_REQUIRED",
        ),
        (b"GET /customers HTTP/1.1\r\nHost: evil.example\r\n\r\n", 400, "INVALID_REQUEST_PARAMETERS"),
    ],
    ids=[
        "a long address",
        "nonsense",
        "HTTP 9.9",
        "a large header",
        "a broken header",
        "a length in words",
        "a raw byte in the path",
        "a null character in the path",
        "no key",
        "an unknown method",
        "chunks",
        "another host",
    ],
)
def test_odd_http_is_answered_in_json(live_stack: Stack, sent: bytes, status: int, code: str) -> None:
    answered, body = exchange(live_stack, sent)
    assert (answered, body["code"]) == (status, code)
    assert set(body) == {"code", "message"}
