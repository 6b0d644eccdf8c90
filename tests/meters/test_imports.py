"""Files of events: what is read, what is refused and why, and that a kill neither loses nor doubles anything."""

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connection
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from customers.clock import database_now
from customers.models import Customer
from meters.events import get_event, list_events
from meters.import_files import MAX_BLANK_LINES, MAX_LINE_BYTES, EventFile, ImportFailed
from meters.imports import IMPORT_LOCK, MAX_PROBLEMS, ImportBusy, begin_import, report_path, run_import
from meters.models import Backfill, Event, EventImport, EventKey
from tests.base import acme, at

pytestmark = pytest.mark.django_db
ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def customer() -> Customer:
    return acme(customer_id="cus_acme")


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., Path]:
    def write(*lines: Any, name: str = "events.jsonl", packed: bool = False) -> Path:
        content = b"".join(
            line if isinstance(line, bytes) else (line if isinstance(line, str) else json.dumps(line)).encode() + b"\n"
            for line in lines
        )
        path = tmp_path / name
        path.write_bytes(gzip.compress(content) if packed else content)
        return path

    return write


def line(event_id: str = "e1", **changes: Any) -> dict[str, Any]:
    return {
        "event_id": event_id,
        "customer_id": "cus_acme",
        "event_name": "api.call",
        "timestamp": "2025-03-10T12:00:00Z",
        **changes,
    }


def read_in(path: Path, *, again: bool = False) -> EventImport:
    record = begin_import(path=path, name=path.name, now=database_now(), again=again)
    run_import(record=record, path=path, report=report_path(path), clock=database_now)
    record.refresh_from_db()
    return record


def counts(record: EventImport) -> tuple[int, int, int]:
    return record.stored, record.repeated, record.refused


def stored() -> set[str]:
    return set(Event.objects.values_list("event_id", flat=True))


def refused(path: Path) -> list[dict[str, Any]]:
    report = report_path(path)
    return [json.loads(text) for text in report.read_text().splitlines()] if report.exists() else []


# -- what is stored ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
def test_json_lines_are_stored_digit_for_digit(customer: Customer, file: Any, packed: bool) -> None:
    path = file(
        '{"event_id":"a","customer_id":"cus_acme","event_name":"n","timestamp":"2025-03-10T12:00:00.123456+02:00",'
        '"metadata":{"price":12345678901234567890.1234567890,"ok":true,"text":"héé"}}',
        "",
        line("b"),
        packed=packed,
    )
    record = read_in(path)
    assert counts(record) == (2, 0, 0)
    assert record.finished_at is not None
    found = get_event(event_id="a")
    assert found.metadata == {"price": Decimal("12345678901234567890.1234567890"), "ok": True, "text": "héé"}
    assert found.timestamp == at("2025-03-10T10:00:00.123456")
    assert get_event(event_id="b").metadata is None
    assert not report_path(path).exists()


def test_old_events_are_a_backfill_that_billing_is_told_of(customer: Customer, file: Any) -> None:
    read_in(file(line("a"), line("b", timestamp="2025-04-01T00:00:00Z")))
    (backfill,) = Backfill.objects.all()
    assert (backfill.customer, backfill.events) == (customer, 2)
    assert (backfill.first, backfill.last) == (at("2025-03-10T12:00:00"), at("2025-04-01"))


def test_csv_columns_beside_the_four_are_metadata_and_stay_texts(customer: Customer, file: Any) -> None:
    path = file(
        "timestamp,event_id,customer_id,event_name,tokens,model",
        "2025-03-10T12:00:00Z,a,cus_acme,n,007,gpt",
        '2025-03-10 12:00,b,cus_acme,n,,"say ""hi"", twice"',
        '2025-03-10 12:00,c,cus_acme,n,1,"two\nlines"',
        "2025-03-10 12:00,d,cus_acme,n,,",
        name="events.csv",
    )
    assert counts(read_in(path)) == (4, 0, 0)
    assert get_event(event_id="a").metadata == {"tokens": "007", "model": "gpt"}
    assert get_event(event_id="b").metadata == {"model": 'say "hi", twice'}
    assert get_event(event_id="c").metadata == {"tokens": "1", "model": "two\nlines"}
    assert get_event(event_id="d").metadata is None


def test_a_csv_metadata_column_is_json(customer: Customer, file: Any) -> None:
    path = file(
        "event_id,customer_id,event_name,timestamp,metadata",
        'a,cus_acme,n,2025-03-10T12:00:00Z,"{""tokens"": 0.10, ""ok"": true}"',
        "b,cus_acme,n,2025-03-10T12:00:00Z,",
        'c,cus_acme,n,2025-03-10T12:00:00Z,"{""a"": 1},""event_id"":""other"""',
        "d,cus_acme,n,2025-03-10T12:00:00Z,[1]",
        'e,cus_acme,n,2025-03-10T12:00:00Z,"{""a"": 1}},{"',
        name="events.csv",
    )
    assert counts(read_in(path)) == (2, 0, 3)
    assert stored() == {"a", "b"}
    assert get_event(event_id="a").metadata == {"tokens": Decimal("0.10"), "ok": True}
    assert [entry["line"] for entry in refused(path)] == [4, 5, 6]


def test_a_spreadsheets_mark_and_semicolons_and_line_ends_are_read(customer: Customer, file: Any) -> None:
    path = file(
        b"\xef\xbb\xbfevent_id;customer_id;event_name;timestamp;size\r\n",
        b"a;cus_acme;n;2025-03-10T12:00:00Z;1,5\r\n",
        b"b;cus_acme;n;2025-03-10T12:00:00Z;2",
        name="events.csv",
    )
    assert counts(read_in(path)) == (2, 0, 0)
    assert get_event(event_id="a").metadata == {"size": "1,5"}
    assert get_event(event_id="b").metadata == {"size": "2"}


# -- what is refused -----------------------------------------------------------------------------------------


def test_a_bad_line_is_reported_and_the_lines_beside_it_are_stored(customer: Customer, file: Any) -> None:
    path = file(
        line("a"),
        "no json",
        line("b", customer_id="cus_nobody"),
        line("c", timestamp="yesterday"),
        line("d", timestamp=None),
        line("e", metadata={"list": []}),
        line("f", extra=1),
        '{"event_id":"g","event_id":"h","customer_id":"cus_acme","event_name":"n","timestamp":"2025-03-10T12:00Z"}',
        f"{json.dumps(line('i'))},{json.dumps(line('j'))}",
        b'{"event_id":"\xff"}\n',
        line(""),
        line("k", timestamp="2199-01-01T00:00:00Z"),
        "7",
        line("z"),
    )
    record = read_in(path)
    assert counts(record) == (2, 0, 12)
    assert stored() == {"a", "z"}
    entries = refused(path)
    assert [(entry["line"], entry["event_id"], entry["code"]) for entry in entries] == [
        (2, None, "UNREADABLE_LINE"),
        (3, "b", "CUSTOMER_NOT_FOUND"),
        (4, "c", "INVALID_TIMESTAMP"),
        (5, "d", "UNREADABLE_LINE"),
        (6, "e", "INVALID_METADATA"),
        (7, "f", "UNREADABLE_LINE"),
        (8, None, "UNREADABLE_LINE"),
        (9, None, "UNREADABLE_LINE"),
        (10, None, "UNREADABLE_LINE"),
        (11, "", "INVALID_EVENT_ID"),
        (12, "k", "INVALID_TIMESTAMP"),
        (13, None, "UNREADABLE_LINE"),
    ]
    assert entries[0]["message"] == "The line is not JSON: Expecting value (character 0)."
    assert entries[0]["content"] == "no json"
    assert entries[1]["message"] == "there is no customer cus_nobody."
    assert "twice" in entries[6]["message"]
    assert all("events[" not in entry["message"] and "$.events" not in entry["message"] for entry in entries)
    assert record.problems == [
        {name: entry[name] for name in ("line", "event_id", "code", "message")} for entry in entries
    ]


def test_the_row_keeps_the_first_refused_lines_and_the_report_all(customer: Customer, file: Any) -> None:
    path = file(line("a"), *["x"] * (MAX_PROBLEMS + 500))
    record = read_in(path)
    assert counts(record) == (1, 0, MAX_PROBLEMS + 500)
    assert [problem["line"] for problem in record.problems] == list(range(2, MAX_PROBLEMS + 2))
    assert [entry["line"] for entry in refused(path)] == list(range(2, MAX_PROBLEMS + 502))


def test_a_csv_line_with_other_cells_or_another_encoding_is_refused(customer: Customer, file: Any) -> None:
    path = file(
        "event_id,customer_id,event_name,timestamp,place",
        "a,cus_acme,n,2025-03-10T12:00:00Z",
        "b,cus_acme,n,2025-03-10T12:00:00Z,x,y",
        b"b,cus_acme,\xe9,2025-03-10T12:00:00Z,x\n",
        "c,cus_acme,n,2025-03-10T12:00:00Z,\0",
        "d,cus_acme,n,2025-03-10T12:00:00Z,x",
        name="events.csv",
    )
    assert counts(read_in(path)) == (1, 0, 4)
    assert [(entry["line"], entry["message"]) for entry in refused(path)[:3]] == [
        (2, "The line has 4 cells and the header 5."),
        (3, "The line has 6 cells and the header 5."),
        (4, "The line is not UTF-8."),
    ]
    assert refused(path)[3]["code"] == "INVALID_METADATA"


def test_an_endless_line_is_refused_without_being_kept(customer: Customer, file: Any) -> None:
    path = file(line("a"), "x" * (3 * MAX_LINE_BYTES), line("b"))
    assert counts(read_in(path)) == (2, 0, 1)
    (entry,) = refused(path)
    assert (entry["line"], entry["message"]) == (2, f"The line is longer than {MAX_LINE_BYTES} bytes.")
    assert len(entry["content"]) == 1000


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        ('{"event_id":"a"}'.encode("utf-16"), "UTF-16"),
        (b'[{"event_id":"a"}]', "one JSON list"),
        (b"PK\x03\x04\x00\x00", "is no text"),
        (b"\x1f\x8b\x08\x00garbage", "cannot be read past line 0"),
        (b"event_id,customer_id,event_name\na,b,c\n", "no column timestamp"),
        (b"id,customer\na,b\n", "no column event_id and no customer_id"),
        (b"event_id,customer_id,event_name,timestamp,a,a\n", "“a” twice"),
        (b"event_id,customer_id,event_name,timestamp,metadata,a\n", "the one or the other"),
        (b"event_id,customer_id,event_name,timestamp,\n", "Column 5"),
        (b",,,\n", "no column event_id"),
        (
            b'event_id,customer_id,event_name,timestamp\n"a,' + b"line\n" * 300_000,
            "is a quotation mark left open?",
        ),
    ],
)
def test_a_file_that_cannot_be_read_says_so_in_one_sentence(content: bytes, why: str, tmp_path: Path) -> None:
    path = tmp_path / "events"
    path.write_bytes(content)
    with pytest.raises(ImportFailed) as caught:
        read_in(path)
    assert why in caught.value.message
    assert "\n" not in caught.value.message
    assert EventImport.objects.filter(finished_at__isnull=False).count() == 0


def test_a_gzip_file_that_breaks_off_stores_what_came_before(customer: Customer, file: Any, tmp_path: Path) -> None:
    whole = file(*[line(f"e{index}", metadata={"r": random.random()}) for index in range(20_000)], packed=True)
    path = tmp_path / "half.gz"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(ImportFailed, match="ends too early"):
        read_in(path)
    record = EventImport.objects.get(name="half.gz")
    assert record.finished_at is None
    assert "ends too early" in record.failure
    assert 0 < record.stored == record.position == len(stored()) < 20_000
    # The whole file is another file; what is there is passed over.
    assert counts(read_in(whole)) == (20_000 - record.stored, record.stored, 0)


# -- once, whatever happens ----------------------------------------------------------------------------------


def test_the_same_file_again_is_done_and_says_so(customer: Customer, file: Any) -> None:
    path = file(line("a"), line("b", customer_id="cus_later"))
    out = StringIO()
    call_command("import_events", path, stdout=out)
    assert "1 events stored, 0 were there already, 1 refused, 2 lines" in out.getvalue()
    assert str(report_path(path)) in out.getvalue()
    out = StringIO()
    call_command("import_events", path, stdout=out)
    assert "Nothing was done" in out.getvalue()
    # Once the reason is gone, it may be read again.
    acme(customer_id="cus_later")
    out = StringIO()
    call_command("import_events", path, "--again", stdout=out)
    assert "1 events stored, 1 were there already, 0 refused" in out.getvalue()
    assert not report_path(path).exists()
    assert stored() == {"a", "b"}


@pytest.mark.parametrize("trouble", ["nothing.jsonl", "."])
def test_a_missing_file_is_one_sentence(trouble: str, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="cannot be read"):
        call_command("import_events", tmp_path / trouble)


def test_it_goes_on_where_it_was_stopped_with_a_true_report(customer: Customer, file: Any) -> None:
    path = file(*[line(f"e{index}") if index % 3 else "bad" for index in range(4500)])
    record = begin_import(path=path, name="x", now=database_now())
    while not run_import(record=record, path=path, report=report_path(path), clock=database_now, seconds=0):
        # As a kill between the report and the commit would leave it.
        with report_path(path).open("ab") as report:
            report.write(b'{"line": 99999}\n{"li')
    assert counts(record) == (3000, 0, 1500)
    assert [entry["line"] for entry in refused(path)] == list(range(1, 4501, 3))
    assert Event.objects.count() == 3000


def test_what_is_stored_and_how_far_it_is_move_together(customer: Customer, file: Any, tmp_path: Path) -> None:
    """Something fails after the events were written and before the commit: then neither has happened."""
    path = file(*[line(f"e{index}") for index in range(1000)], line("x"), "bad")
    record = begin_import(path=path, name="x", now=database_now())
    nowhere = tmp_path / "missing" / "report"
    with pytest.raises(ImportFailed, match="cannot be written: No such file"):
        run_import(record=record, path=path, report=nowhere, clock=database_now)
    record = EventImport.objects.get()
    assert (record.position, record.stored, record.refused) == (1000, 1000, 0)
    assert Event.objects.count() == EventKey.objects.count() == 1000
    assert "cannot be written" in record.failure
    record = read_in(path)
    assert (counts(record), record.failure) == ((1001, 0, 1), "")
    assert Event.objects.count() == 1001


def test_a_csv_goes_on_after_a_cell_of_several_lines(customer: Customer, file: Any) -> None:
    rows = [f'e{index},cus_acme,n,2025-03-10T12:00:00Z,"{index}\n\n,"' for index in range(2500)]
    path = file("event_id,customer_id,event_name,timestamp,note", *rows, name="e.csv")
    record = begin_import(path=path, name="x", now=database_now())
    while not run_import(record=record, path=path, report=report_path(path), clock=database_now, seconds=0):
        pass
    assert counts(record) == (2500, 0, 0)
    assert get_event(event_id="e1800").metadata == {"note": "1800\n\n,"}


IDS = st.sampled_from(["a", "b", "c", "d", "e"])
LINES = st.lists(
    st.one_of(st.builds(line, IDS), st.builds(lambda i: line(i, timestamp="no"), IDS), st.just("x")), max_size=12
)


@hypothesis_settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=LINES, size=st.integers(1, 5), other=st.integers(1, 12))
def test_any_split_gives_the_same_store_and_the_same_counts(
    content: list[Any], size: int, other: int, customer: Customer, file: Any, settings: Any
) -> None:
    found = []
    for batch in (size, other):
        with connection.cursor() as cursor:
            cursor.execute("DELETE FROM meters_event; DELETE FROM meters_eventkey")
        EventImport.objects.all().delete()
        settings.MAX_EVENTS_PER_BATCH = batch
        path = file(*content, '{"event_id":"last"}')
        found.append((counts(read_in(path)), stored(), EventKey.objects.count(), [e["line"] for e in refused(path)]))
        report_path(path).unlink()
    assert found[0] == found[1]
    good = [entry["event_id"] for entry in content if isinstance(entry, dict) and entry["timestamp"] != "no"]
    assert found[0][:2] == ((len(set(good)), len(good) - len(set(good)), len(content) - len(good) + 1), set(good))


@pytest.mark.django_db(transaction=True)
def test_two_processes_do_not_read_one_file_at_once(file: Any) -> None:
    acme(customer_id="cus_acme")
    path = file(*[line(f"e{index}") for index in range(1500)])
    record = begin_import(path=path, name="x", now=database_now())
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    rival = connection.copy()
    try:
        with rival.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(%s, %s)", [IMPORT_LOCK, record.pk])
        with pytest.raises(ImportBusy):
            run_import(record=record, path=path, report=report_path(path), clock=database_now)
    finally:
        rival.close()
    until_no_process_reads()
    assert run_import(record=record, path=path, report=report_path(path), clock=database_now)
    assert counts(record) == (1500, 0, 0)


@pytest.mark.faults
@pytest.mark.django_db(transaction=True)
def test_a_killed_import_goes_on_and_every_event_is_there_once(file: Any) -> None:
    acme(customer_id="cus_acme")
    total = 40_000
    path = file(*[line(f"e{index}") if index % 1000 else "bad" for index in range(total)], packed=True)
    environment = {**os.environ, "DATABASE_URL": _database_url(), "SECRET_KEY": "for-this-test"}
    kills = 0
    for _ in range(20):
        process = subprocess.Popen(
            [sys.executable, "manage.py", "import_events", str(path)],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        before = _position()
        while process.poll() is None and _position() < before + 9000:
            time.sleep(0.005)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        _, errors = process.communicate()
        until_no_process_reads()
        assert process.returncode in (0, -signal.SIGKILL), errors.decode()
        record = EventImport.objects.get()
        assert record.stored == Event.objects.count(), "what was read and what was stored move together"
        if process.returncode == 0:
            break
    assert kills >= 3
    assert record.finished_at is not None
    assert counts(record) == (total - 40, 0, 40)
    assert Event.objects.count() == EventKey.objects.count() == total - 40
    assert [entry["line"] for entry in refused(path)] == list(range(1, total + 1, 1000))


def until_no_process_reads() -> None:
    """The server notices a moment later that a client has gone, ends what it did for it, then gives its lock back."""
    latest = time.monotonic() + 30
    while True:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid = %s AND objsubid = 2"
                " AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))",
                [IMPORT_LOCK],
            )
            (held,) = cursor.fetchone()
        if not held:
            return
        assert time.monotonic() < latest, "the lock of a process that is gone was not given back within 30 s"
        time.sleep(0.005)


def _position() -> int:
    return EventImport.objects.values_list("position", flat=True).first() or 0


def _database_url() -> str:
    """The test's own database, for a process of its own."""
    from urllib.parse import quote

    given = connection.settings_dict
    user = quote(str(given["USER"] or ""), safe="")
    secret = f":{quote(str(given['PASSWORD']), safe='')}" if given.get("PASSWORD") else ""
    port = f":{given['PORT']}" if given.get("PORT") else ""
    return f"postgres://{user}{secret}@{quote(str(given['HOST']), safe='')}{port}/{given['NAME']}"


def test_the_lines_are_read_lazily(file: Any) -> None:
    """The first line is there before the last is read: memory does not grow with the file."""
    path = file(*[line(f"e{index}") for index in range(50_000)])
    with EventFile(path) as opened:
        first = next(opened.lines())
        assert first.line == 1
        assert opened.bytes_read < opened.size / 4
    assert list_events(offset=0, limit=1) == []
    assert settings.MAX_EVENTS_PER_BATCH == 1000


def packed(path: Path, *parts: bytes) -> Path:
    with gzip.open(path, "wb") as file:
        for part in parts:
            file.write(part)
    return path


@pytest.mark.parametrize(
    ("head", "filling", "times", "said"),
    [
        (b'{"event_id":"', b"a" * MAX_LINE_BYTES, 18, "Line 1 does not end within"),
        (b"{}\n", b"\n" * 1000, 101, "empty lines follow one another up to line 100002"),
        (b"event_id,customer_id,event_name,timestamp\n", b",,,\r\n" * 1000, 101, "empty lines follow one another"),
    ],
)
def test_a_small_file_that_unpacks_to_endlessly_much_is_given_up(
    customer: Customer, tmp_path: Path, head: bytes, filling: bytes, times: int, said: str
) -> None:
    path = packed(tmp_path / "bomb.gz", head, *[filling] * times)
    with pytest.raises(ImportFailed, match=said):
        read_in(path)
    assert said in EventImport.objects.get().failure


def test_blank_lines_between_events_are_passed_over(customer: Customer, tmp_path: Path) -> None:
    blank = b"\r\n" * (MAX_BLANK_LINES - 1)
    first, second = ((json.dumps(line(event_id)) + "\n").encode() for event_id in "ab")
    path = packed(tmp_path / "e.gz", first, blank, second, blank)
    assert counts(read_in(path)) == (2, 0, 0)


def test_a_file_that_is_being_read_is_not_set_back_to_its_start(customer: Customer, file: Any) -> None:
    path = file(line("a"))
    record = read_in(path)
    rival = connection.copy()
    try:
        with rival.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(%s, %s)", [IMPORT_LOCK, record.pk])
        with pytest.raises(ImportBusy):
            begin_import(path=path, name="x", now=database_now(), again=True)
    finally:
        rival.close()
    until_no_process_reads()
    record.refresh_from_db()
    assert (record.position, record.finished_at is None) == (1, False)
    assert begin_import(path=path, name="x", now=database_now(), again=True).position == 0
