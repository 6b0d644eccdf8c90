"""What stands in the log: errors, but no token of a portal link, and nothing that a stranger may repeat at will."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
from django.conf import settings
from django.db import OperationalError
from django.test import Client
from django.utils.log import configure_logging

from config.logs import HideTokens, without_tokens
from customers.portal import access, views

LINK = "/portal/s/Sec-ret_0123"
GONE = "the database is away"


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """All that the settings' own handler writes."""
    configure_logging(settings.LOGGING_CONFIG, settings.LOGGING)
    (handler,) = [h for h in logging.getLogger().handlers if h.name == "stderr"]
    assert isinstance(handler, logging.StreamHandler)
    text = io.StringIO()
    before = handler.setStream(text)
    yield text
    handler.setStream(before)


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(**_: object) -> None:
        raise OperationalError(GONE)

    monkeypatch.setattr(views, "find_portal_link", gone)
    monkeypatch.setattr(access, "find_open_link", gone)


def test_a_link_opened_while_the_database_is_away_is_a_page_and_its_token_is_not_logged(
    written: io.StringIO, away: None
) -> None:
    answer = Client(raise_request_exception=False).get(LINK)
    assert (answer.status_code, answer["Content-Type"]) == (503, "text/html; charset=utf-8")
    assert (answer["Retry-After"], answer["Cache-Control"]) == ("1", "no-store")
    assert "load this page again" in answer.content.decode()
    assert "Service Unavailable: /portal/s/(token)" in written.getvalue()
    assert GONE in written.getvalue()
    assert "Sec-ret" not in written.getvalue()


@pytest.mark.parametrize(
    ("said", "written_as"),
    [
        (f"GET {LINK} HTTP/1.1", "GET /portal/s/(token) HTTP/1.1"),
        (f'"GET {LINK}?x=1" 302', '"GET /portal/s/(token)" 302'),
        (f"http://localhost{LINK}/", "http://localhost/portal/s/(token)"),
        ("/portal/sales", "/portal/sales"),
        ("/portal/s/", "/portal/s/"),
    ],
)
def test_only_the_token_is_left_out(said: str, written_as: str) -> None:
    assert without_tokens(said) == written_as


def test_gunicorns_own_logs_leave_it_out_too() -> None:
    record = logging.LogRecord("gunicorn.access", 20, "", 0, "%(h)s %(r)s", ({"h": "::1", "r": f"GET {LINK}"},), None)
    assert HideTokens().filter(record)
    assert record.getMessage() == "::1 GET /portal/s/(token)"


def test_a_foreign_host_is_refused_without_a_word_in_the_log(written: io.StringIO) -> None:
    answer = Client(raise_request_exception=False).get("/customers", headers={"host": "elsewhere.example"})
    assert (answer.status_code, json.loads(answer.content)["code"]) == (400, "INVALID_REQUEST_PARAMETERS")
    assert written.getvalue() == ""


def test_what_merely_begins_like_a_page_is_the_apis(db: None) -> None:
    for path in ("/docsx", "/docs/x", "/adminx", "/portals"):
        answer = Client().get(path)
        assert (answer.status_code, answer["Content-Type"]) == (404, "application/json"), path
