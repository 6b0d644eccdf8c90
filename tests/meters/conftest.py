"""What the tests of the event log share."""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
import time_machine
from rest_framework.test import APIClient

from customers.keys import create_api_key
from tests.base import at

Caller = Callable[..., APIClient]


@pytest.fixture
def call() -> Caller:
    """A client of the API with a key of its own: `call()`, `call(read_only=True)`, `call(backfill=True)`."""

    def make(**rights: Any) -> APIClient:
        _, key = create_api_key(name="tests", **rights)
        client = APIClient(raise_request_exception=False)
        client.credentials(HTTP_AUTHORIZATION=f"Bearer {key}")
        return client

    return make


def encode(document: object) -> bytes:
    """JSON with every Decimal digit for digit."""
    return msgspec.json.Encoder(decimal_format="number").encode(document)


@pytest.fixture
def time_machine_at() -> Iterator[Callable[[str], None]]:
    """Set this process's clock (not the database's)."""
    travels: list[Any] = []

    def go(text: str) -> None:
        travel = time_machine.travel(at(text), tick=False)
        travel.start()
        travels.append(travel)

    yield go
    for travel in reversed(travels):
        travel.stop()
