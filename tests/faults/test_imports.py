"""An upload on a running installation: every process is killed in the middle, and it goes on by itself afterwards."""

import json
import re
import time
from collections.abc import Callable
from contextlib import closing

import httpx
import pytest

from tests.stack import Stack

pytestmark = pytest.mark.faults

SECONDS = 180.0
TOTAL = 60_000
PREPARE = """
from django.contrib.auth.models import User
from customers.customers import create_customer
User.objects.create_superuser("ops", "", "pw")
create_customer(name="Acme", email="a@acme.example", customer_id="cus_acme")
"""
COUNT = """
from meters.models import Event, EventImport, EventKey
row = EventImport.objects.get()
print(row.stored, row.repeated, row.refused, Event.objects.count(), EventKey.objects.count())
"""


def lines() -> bytes:
    event = {"customer_id": "cus_acme", "event_name": "n", "timestamp": "2025-03-10T12:00:00Z"}
    return b"".join(
        b"bad\n" if number % 1000 == 1 else json.dumps({**event, "event_id": f"e{number}"}).encode() + b"\n"
        for number in range(TOTAL)
    )


def come_in(stack: Stack) -> httpx.Client:
    client = httpx.Client(base_url=stack.base_url, follow_redirects=True, timeout=60)
    client.get("/admin/login/")
    answer = client.post(
        "/admin/login/",
        data={"username": "ops", "password": "pw", "csrfmiddlewaretoken": client.cookies["csrftoken"]},
        headers={"Referer": stack.base_url},
    )
    assert answer.status_code == 200
    assert "logout" in answer.text
    return client


def stored(client: httpx.Client, page: str) -> tuple[int, bool]:
    """How many the import's page says are stored, and whether it is done."""
    text = client.get(page.replace("/change/", "/progress/")).text
    found = re.search(r"<dt>Stored</dt><dd[^>]*>([\d,]+)", text)
    assert found, text
    return int(found[1].replace(",", "")), "Finished" in text


def test_an_upload_goes_on_after_kill_9_of_every_process(start_stack: Callable[..., Stack]) -> None:
    stack = start_stack()
    stack.manage("shell", "-v", "0", "-c", PREPARE)
    with closing(come_in(stack)) as client:
        answer = client.post(
            "/admin/meters/eventimport/upload/",
            data={"csrfmiddlewaretoken": client.cookies["csrftoken"]},
            files={"file": ("usage.jsonl", lines())},
            headers={"Referer": stack.base_url},
        )
        assert answer.status_code == 200
        page = answer.url.path
        deadline = time.monotonic() + SECONDS
        count, done = stored(client, page)
        while count < 5000 and time.monotonic() < deadline:
            time.sleep(0.02)
            count, done = stored(client, page)
    assert 5000 <= count < TOTAL, "it was to be killed in the middle"
    assert not done
    stack.kill_everything()
    stack.start()
    with closing(come_in(stack)) as client:
        deadline = time.monotonic() + SECONDS
        while not done and time.monotonic() < deadline:
            time.sleep(0.5)
            count, done = stored(client, page)
        assert done, f"{count} stored"
        refused = client.get(page.replace("/change/", "/refused/")).text.splitlines()
    good = TOTAL - TOTAL // 1000
    assert stack.manage("shell", "-v", "0", "-c", COUNT).stdout.split() == [str(n) for n in (good, 0, 60, good, good)]
    assert [json.loads(line)["line"] for line in refused] == list(range(2, TOTAL, 1000))
