"""A file uploaded in the admin is read in by the workers; who may, what is shown, what is refused."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse

from customers.clock import database_now
from meters import tasks
from meters.imports import go_on, unfinished_uploads
from meters.models import Event, EventImport
from tests.base import acme

pytestmark = pytest.mark.django_db
UPLOAD = "/admin/meters/eventimport/upload/"


def operator(*permissions: str) -> Client:
    user = User.objects.create_user("ops", is_staff=True, is_superuser=not permissions)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def folder(tmp_path: Path, settings: Any) -> Path:
    settings.VAR_DIR = tmp_path
    return tmp_path / "imports"


@pytest.fixture
def queued(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What was handed to the workers; there are none here."""
    ids: list[int] = []
    monkeypatch.setattr(tasks.import_file, "delay", ids.append)
    return ids


def lines(*events: tuple[str, str]) -> bytes:
    return b"".join(
        json.dumps(
            {
                "event_id": event_id,
                "customer_id": customer_id,
                "event_name": "n",
                "timestamp": "2025-03-10T12:00:00Z",
            }
        ).encode()
        + b"\n"
        for event_id, customer_id in events
    )


def send(client: Client, content: bytes, name: str = "events.jsonl") -> Any:
    return client.post(UPLOAD, {"file": SimpleUploadedFile(name, content)}, follow=True)


def work(queued: list[int]) -> None:
    while queued:
        tasks.import_file(queued.pop(0))


def page(response: Any) -> str:
    return str(response.content.decode())


def test_an_uploaded_file_is_read_in_and_its_refused_lines_can_be_downloaded(folder: Path, queued: list[int]) -> None:
    acme(customer_id="cus_acme")
    client = operator()
    content = lines(("a", "cus_acme"), ("<b>", "cus_nobody"), ("c", "cus_acme"))
    shown = send(client, gzip.compress(content), "march.jsonl.gz")
    record = EventImport.objects.get()
    assert queued == [record.pk]
    assert "Running" in page(shown)
    assert "hx-get" in page(shown)
    assert Path(record.path) == folder / record.checksum
    assert str(record.started_by) == "ops"
    work(queued)
    record.refresh_from_db()
    assert (record.stored, record.repeated, record.refused) == (2, 0, 1)
    url = reverse("admin:meters_eventimport_change", args=[record.pk])
    shown = client.get(url)
    assert "Finished, 1 refused" in page(shown)
    assert "hx-get" not in page(shown).split('id="import"')[1].split("</section>")[0]
    assert "&lt;b&gt;" in page(shown)
    assert "there is no customer cus_nobody." in page(shown)
    download: Any = client.get(reverse("admin:meters_eventimport_refused", args=[record.pk]))
    assert download["Content-Disposition"] == 'attachment; filename="march.jsonl.gz.refused.jsonl"'
    (entry,) = [json.loads(line) for line in b"".join(download.streaming_content).splitlines()]
    assert (entry["line"], entry["event_id"], entry["code"]) == (2, "<b>", "CUSTOMER_NOT_FOUND")
    assert json.loads(entry["content"])["event_id"] == "<b>"
    assert "march.jsonl.gz" in page(client.get(reverse("admin:meters_eventimport_changelist")))


def test_the_same_file_twice_is_read_once_and_again_on_demand(folder: Path, queued: list[int]) -> None:
    acme(customer_id="cus_acme")
    client = operator()
    content = lines(("a", "cus_acme"), ("b", "cus_later"))
    send(client, content)
    work(queued)
    shown = send(client, content)
    assert "was read in before" in page(shown)
    assert queued == []
    assert EventImport.objects.count() == 1
    assert len(list(folder.iterdir())) == 2  # the file and its report
    acme(customer_id="cus_later")
    record = EventImport.objects.get()
    client.post(reverse("admin:meters_eventimport_try_again", args=[record.pk]))
    work(queued)
    record.refresh_from_db()
    assert (record.stored, record.repeated, record.refused) == (1, 1, 0)


def test_the_button_leads_to_the_upload_and_only_those_who_may(folder: Path) -> None:
    button = reverse("admin:meters_eventimport_import_a_file")
    client = operator()
    assert f'href="{button}"' in page(client.get(reverse("admin:meters_eventimport_changelist")))
    answer = client.get(button)
    assert (answer.status_code, answer["Location"]) == (302, UPLOAD)
    shown = client.get(UPLOAD)
    assert shown.status_code == 200
    assert 'enctype="multipart/form-data"' in page(shown)
    User.objects.all().delete()
    assert operator("view_eventimport").get(button).status_code == 403


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is empty"),
        (b"a,b\n1,2\n", "The header has no column event_id"),
        (b"\x1f\x8bnonsense", "cannot be read past line 0"),
        (b"x" * 5000, "larger than"),
    ],
)
def test_a_file_that_cannot_be_imported_is_refused_on_the_form_and_not_kept(
    content: bytes, why: str, folder: Path, queued: list[int], settings: Any
) -> None:
    settings.IMPORT_MAX_BYTES = 4000
    assert why in page(send(operator(), content))
    assert queued == []
    assert not EventImport.objects.exists()
    assert list(folder.iterdir()) == []


def test_who_may_not_import_sees_no_button_and_gets_no_page(folder: Path, queued: list[int]) -> None:
    client = operator("view_eventimport")
    listed = client.get(reverse("admin:meters_eventimport_changelist"))
    assert listed.status_code == 200
    assert "Import a file" not in page(listed).replace("press “Import a file” above", "")
    assert client.get(UPLOAD).status_code == 403
    assert send(client, lines(("a", "cus_acme"))).status_code == 403
    assert not folder.exists()
    stranger = Client()
    assert stranger.post(UPLOAD, {"file": SimpleUploadedFile("x", b"{}")}).status_code == 302
    assert not EventImport.objects.exists()


def test_who_may_not_look_gets_neither_page_nor_report(folder: Path, queued: list[int]) -> None:
    send(operator(), lines(("a", "cus_nobody")))
    work(queued)
    record = EventImport.objects.get()
    User.objects.all().delete()
    client = operator("view_event")
    for name in ("change", "progress", "refused"):
        assert client.get(reverse(f"admin:meters_eventimport_{name}", args=[record.pk])).status_code == 403


def test_a_file_goes_on_in_pieces_and_after_its_worker_was_killed(
    folder: Path, queued: list[int], settings: Any
) -> None:
    settings.MAX_EVENTS_PER_BATCH = 2
    acme(customer_id="cus_acme")
    send(operator(), lines(*[(f"e{index}", "cus_acme") for index in range(5)]))
    record = EventImport.objects.get()
    queued.clear()  # the message is lost with its worker
    assert unfinished_uploads() == [record.pk]
    assert not go_on(import_id=record.pk, clock=database_now, seconds=0)
    assert Event.objects.count() == 2
    tasks.resume_imports()
    assert queued == [record.pk]
    work(queued)
    record.refresh_from_db()
    assert (record.position, record.stored) == (5, 5)
    assert record.finished_at is not None
    assert unfinished_uploads() == []


def test_a_file_that_is_gone_says_so_on_its_page(folder: Path, queued: list[int]) -> None:
    client = operator()
    send(client, lines(("a", "cus_acme")))
    record = EventImport.objects.get()
    Path(record.path).unlink()
    work(queued)
    shown = page(client.get(reverse("admin:meters_eventimport_change", args=[record.pk])))
    assert "Stopped" in shown
    assert "cannot be read: No such file or directory" in shown
    assert unfinished_uploads() == []


def test_a_body_larger_than_any_upload_is_refused_before_it_is_read(settings: Any) -> None:
    settings.IMPORT_MAX_BYTES = 1000
    shown = operator().post(UPLOAD, {"file": SimpleUploadedFile("x", b"x" * 200_000)})
    assert shown.status_code == 413
    assert shown.json()["code"] == "PAYLOAD_TOO_LARGE"
