"""What every route shares: JSON read exactly, errors always as code and message, pages only for people."""

import io
import json
from decimal import Decimal
from typing import Any

import pytest
from django.conf import settings
from django.core.handlers.wsgi import WSGIRequest
from django.db import OperationalError
from django.test import Client, RequestFactory
from rest_framework.exceptions import Throttled

from config.middleware import RefuseEarly
from customers.api import views
from customers.api.errors import InvalidBody, exception_handler
from customers.api.parsers import MAX_DEPTH, parse_object
from customers.api.renderers import ExactJSONRenderer
from customers.models import Customer
from tests.api.client import Api

ODD_BODIES: list[tuple[str, bytes, str]] = [
    ("nothing but space", b"  ", "not JSON"),
    ("cut short", b'{"name": "Acme"', "not JSON"),
    ("trailing data", b'{"name": "Acme"} {}', "not JSON"),
    ("single quotes", b"{'name': 'Acme'}", "not JSON"),
    ("a list", b"[]", "must be a JSON object"),
    ("a string", b'"name"', "must be a JSON object"),
    ("null", b"null", "must be a JSON object"),
    ("a repeated name", b'{"name": "Acme", "name": "Globex"}', '"name" stands twice'),
    ("a repeated name inside", b'{"metadata": {"a": 1, "a": 2}}', '"a" stands twice'),
    ("a null character", b'{"name": "A\\u0000"}', "null character"),
    ("a null character inside", b'{"metadata": {"a": ["\\u0000"]}}', "null character"),
    ("a null character in a name", b'{"a\\u0000": 1}', "null character"),
    ("half a surrogate pair", b'{"name": "\\ud83d"}', "surrogate"),
    ("half a surrogate pair inside", b'{"metadata": {"a": {"b": "\\udc00"}}}', "surrogate"),
    ("half a surrogate pair, repeated", b'{"\\ud83d": 1, "\\ud83d": 2}', "twice"),
    ("not a number", b'{"name": NaN}', "NaN is not a JSON number"),
    ("infinity", b'{"name": -Infinity}', "-Infinity is not a JSON number"),
    ("5,000 digits", b'{"name": ' + b"9" * 5000 + b"}", "number that cannot be read"),
    ("an absurd exponent", b'{"name": 1e9999999999999999999}', "number that cannot be read"),
    ("deep arrays", b'{"name": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested"),
    ("deep objects", b'{"a":' * 500 + b"1" + b"}" * 500, "nested more than"),
    ("a byte order mark", b"\xef\xbb\xbf{}", "byte order mark"),
    ("UTF-16", '{"name": "Acme"}'.encode("utf-16"), "not UTF-8"),
    ("broken UTF-8", b'{"name": "\xff"}', "not UTF-8 (byte 10)"),
    ("a raw surrogate", b'{"name": "\xed\xa0\x80"}', "not UTF-8"),
    ("a raw control character", b'{"name": "a\x00b"}', "not JSON"),
]


@pytest.mark.django_db
@pytest.mark.parametrize(("body", "said"), [case[1:] for case in ODD_BODIES], ids=[case[0] for case in ODD_BODIES])
def test_odd_bodies_are_refused_with_a_reason(api: Api, body: bytes, said: str) -> None:
    for path in ("/customers", "/products", "/subscriptions", "/meters"):
        answer = api.call("POST", path, body)
        assert (answer.status, answer.body["code"]) == (422, "INVALID_REQUEST_BODY")
        assert said in answer.body["message"]
    ingest = api.call("POST", "/events/ingest", body)
    assert (ingest.status, ingest.body["code"]) in [(422, "INVALID_REQUEST_BODY"), (400, "INVALID_REQUEST_BODY")]


def test_numbers_are_read_exactly() -> None:
    assert parse_object(b'{"a": 0.1, "b": 123456789012345678901234567890, "c": -0.0, "d": 1e400, "e": 1}') == {
        "a": Decimal("0.1"),
        "b": 123456789012345678901234567890,
        "c": Decimal("-0.0"),
        "d": Decimal("1e400"),
        "e": 1,
    }


def test_text_is_read_whole() -> None:
    text = {"a": "\U0001f600 \u202e ü \u200b", "b": "\ud7ff\ue000"}
    assert parse_object(json.dumps(text).encode()) == text
    assert parse_object(json.dumps(text, ensure_ascii=False).encode()) == text


def test_depth_is_bounded_to_the_level() -> None:
    def nested(levels: int) -> bytes:
        return b'{"a":' * levels + b"1" + b"}" * levels

    assert parse_object(nested(MAX_DEPTH - 1))
    with pytest.raises(InvalidBody):
        parse_object(nested(MAX_DEPTH))


def test_decimals_are_written_digit_for_digit() -> None:
    value = {"a": Decimal("0.10"), "b": Decimal("12345678901234567890.123456789012345678901"), "c": 2**70}
    assert ExactJSONRenderer().render(value) == (
        b'{"a":0.10,"b":12345678901234567890.123456789012345678901,"c":1180591620717411303424}'
    )


@pytest.mark.django_db
class TestErrorsAroundTheViews:
    def test_an_unknown_route_is_named(self, api: Api) -> None:
        for method, path in [
            ("POST", "/subscriptions/sub_1/change-plan"),
            ("GET", "/v1/events"),
            ("GET", "/events/"),
            ("POST", "/customers/"),
            ("DELETE", "/%2e%2e/etc/passwd"),
        ]:
            answer = api.call(method, path)
            assert (answer.status, answer.body["code"]) == (404, "NOT_FOUND"), path
            assert answer.body["message"].startswith("Item not found")
        assert (
            "no route POST /subscriptions/sub_1/change-plan"
            in (api.call("POST", "/subscriptions/sub_1/change-plan").body["message"])
        )

    def test_a_wrong_method_is_405(self, api: Api) -> None:
        for method, path in [
            ("DELETE", "/customers"),
            ("PUT", "/customers/cus_1"),
            ("POST", "/payments"),
            ("POST", "/"),
        ]:
            answer = api.call(method, path)
            assert (answer.status, answer.body["code"]) == (405, "METHOD_NOT_ALLOWED")
            assert "GET" in answer.headers["Allow"]

    @pytest.mark.parametrize(
        "part", ["%00", "a%00b", "%ff", "%ed%a0%80", "..%2f..", "' OR 1=1--", "x" * 5000, "💥", "%0a"]
    )
    def test_odd_ids_are_not_found(self, api: Api, part: str) -> None:
        for path in ("/customers/{}", "/products/{}", "/subscriptions/{}", "/payments/{}/line-items", "/meters/{}"):
            answer = api.get(path.format(part.replace(" ", "%20")))
            assert (answer.status, answer.body["code"]) == (404, "NOT_FOUND"), path
        assert api.get(f"/invoices/payments/{part.replace(' ', '%20')}").status == 404

    @pytest.mark.parametrize(
        "content_type", ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data", ""]
    )
    def test_another_media_type_is_415(self, api: Api, content_type: str) -> None:
        for path in ("/customers", "/events/ingest"):
            answer = api.call("POST", path, b'{"name": "Acme"}', content_type=content_type)
            assert (answer.status, answer.body["code"]) == (415, "UNSUPPORTED_MEDIA_TYPE")
            assert "application/json" in answer.body["message"]

    def test_json_with_a_charset_is_json(self, api: Api) -> None:
        body = b'{"name": "Acme", "email": "pay@acme.example"}'
        assert api.call("POST", "/customers", body, content_type="Application/JSON; charset=UTF-8").status == 201

    def test_a_body_over_the_limit_is_413_before_it_is_read(self, api: Api) -> None:
        class Endless(io.RawIOBase):
            """A body that nobody should hold in memory."""

            read_bytes = 0
            largest = 0

            def read(self, size: int = -1) -> bytes:
                self.read_bytes += size
                self.largest = max(self.largest, size if size >= 0 else 2**63)
                return b"a" * size

        length = 100 * 1024 * 1024
        for path in ("/events/ingest", "/customers", "/unknown"):
            body = Endless()
            request = RequestFactory().generic("POST", path, b"", content_type="application/json")
            request = WSGIRequest({**request.META, "CONTENT_LENGTH": str(length), "wsgi.input": body})
            answer = RefuseEarly(lambda _: pytest.fail("a view was asked"))(request)
            assert (answer.status_code, json.loads(answer.content)["code"]) == (413, "PAYLOAD_TOO_LARGE")
            assert body.read_bytes == 0
            # Behind the answer the rest is thrown away in small pieces, so that the client gets to see the answer.
            answer.close()
            assert (body.read_bytes, body.largest) == (length, 64 * 1024)

    def test_the_limit_is_exact(self, api: Api, settings: Any) -> None:
        body = b'{"name": "Acme", "email": "pay@acme.example"}'
        settings.MAX_REQUEST_BYTES = settings.DATA_UPLOAD_MAX_MEMORY_SIZE = len(body)
        assert api.call("POST", "/customers", body).status == 201
        assert api.call("POST", "/customers", body + b" ").status == 413

    def test_a_body_without_a_length_is_411(self) -> None:
        response = Client().generic("POST", "/customers", b"", headers={"Transfer-Encoding": "chunked"})
        assert (response.status_code, json.loads(response.content)["code"]) == (411, "LENGTH_REQUIRED")

    def test_another_host_is_400(self) -> None:
        for host in ("evil.example", "a b", "localhost:port"):
            response = Client(raise_request_exception=False).get("/customers", headers={"Host": host})
            assert response.status_code == 400
            assert set(json.loads(response.content)) == {"code", "message"}

    def test_too_many_query_parameters_are_400(self, api: Api) -> None:
        assert api.get("/customers?" + "&".join(f"a{n}=1" for n in range(2000))).status == 400

    def test_an_internal_error_tells_nothing_about_itself(self, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(**_: Any) -> Customer:
            raise RuntimeError("the password is hunter2")

        monkeypatch.setattr(views, "get_customer", broken)
        response = Client(raise_request_exception=False).get(
            "/customers/cus_1", headers={"Authorization": f"Bearer {api.key}"}
        )
        assert response.status_code == 500
        assert json.loads(response.content) == {
            "code": "INTERNAL_SERVER_ERROR",
            "message": "Something went wrong on our side. It has been logged.",
        }

    def test_a_database_that_is_away_is_503_and_worth_a_retry(self, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
        def away(**_: Any) -> Customer:
            raise OperationalError("server closed the connection unexpectedly")

        monkeypatch.setattr(views, "get_customer", away)
        answer = api.get("/customers/cus_1")
        assert (answer.status, answer.body["code"]) == (503, "SERVICE_UNAVAILABLE")
        assert answer.headers["Retry-After"] == "1"
        assert "x-should-retry" not in answer.headers

    def test_the_accept_header_changes_nothing(self, api: Api) -> None:
        for accept in ("*/*", "text/html", "application/pdf", "nonsense"):
            response = Client().get("/customers", headers={"Authorization": f"Bearer {api.key}", "Accept": accept})
            assert (response.status_code, response.json()) == (200, {"items": []})

    def test_people_get_pages(self, client: Client) -> None:
        start = client.get("/")
        assert start.status_code == 200
        assert "/docs" in start.content.decode()
        for path in ("/docs", "/static/nothing.css", "/portal/s/nothing"):
            assert "application/json" not in client.get(path).headers["Content-Type"], path


def test_throttling_says_when_to_come_back() -> None:
    response = exception_handler(Throttled(wait=3), {})
    assert response is not None
    assert (response.status_code, response.data["code"], response["Retry-After"]) == (429, "TOO_MANY_REQUESTS", "3")


def test_the_body_limit_is_one_setting() -> None:
    assert settings.DATA_UPLOAD_MAX_MEMORY_SIZE == settings.MAX_REQUEST_BYTES
