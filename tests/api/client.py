"""A client of the API that holds every answer against the OpenAPI description it is served with."""

import json
import re
from datetime import datetime
from decimal import Decimal
from functools import cache
from typing import Any

from django.test import Client
from drf_spectacular.generators import SchemaGenerator

from customers.keys import create_api_key


@cache
def schema() -> dict[str, Any]:
    """The description as it is served."""
    generator = SchemaGenerator()
    return dict(json.loads(json.dumps(generator.get_schema(public=True), default=str)))


def operations() -> list[tuple[str, str]]:
    """Every (method, path) of the description."""
    return sorted(
        (method.upper(), path)
        for path, of_path in schema()["paths"].items()
        for method in of_path
        if method in ("get", "post", "put", "patch", "delete")
    )


def operation_of(method: str, path: str) -> dict[str, Any] | None:
    """The described operation that answers this address; a path without a parameter goes first, a longer one too."""
    for template in sorted(schema()["paths"], key=lambda template: (template.count("{"), -len(template))):
        # An event id may hold slashes; no other id does.
        pattern = re.sub(r"\\{event_id\\}", ".+", re.escape(template))
        pattern = re.sub(r"\\{\w+\\}", "[^/]+", pattern)
        if re.fullmatch(pattern, path) and method.lower() in schema()["paths"][template]:
            return dict(schema()["paths"][template][method.lower()])
    return None


class Mismatch(AssertionError):
    pass


def hold_against(value: Any, wanted: dict[str, Any], place: str = "answer") -> None:
    """Refuse an answer that its description does not describe: a missing field, an unknown one, another type."""
    if "$ref" in wanted:
        name = wanted["$ref"].rpartition("/")[2]
        hold_against(value, schema()["components"]["schemas"][name], place)
        return
    for one_of in ("oneOf", "anyOf"):
        if one_of in wanted:
            _one_of(value, wanted[one_of], place)
            return
    if "enum" in wanted and value not in wanted["enum"]:
        raise Mismatch(f"{place}: {value!r} is none of {wanted['enum']}")
    kinds = wanted.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(_is(value, kind) for kind in kinds):
        raise Mismatch(f"{place}: {value!r} is no {kinds}")
    if wanted.get("format") == "date-time" and isinstance(value, str) and not _is_utc(value):
        raise Mismatch(f"{place}: {value!r} is no instant in UTC")
    if isinstance(value, list):
        for index, item in enumerate(value):
            hold_against(item, wanted.get("items", {}), f"{place}[{index}]")
    if isinstance(value, dict):
        properties = wanted.get("properties", {})
        if missing := set(wanted.get("required", ())) - set(value):
            raise Mismatch(f"{place}: lacks {sorted(missing)}")
        others = wanted.get("additionalProperties", not properties)
        for name, inner in value.items():
            if name in properties:
                hold_against(inner, properties[name], f"{place}.{name}")
            elif isinstance(others, dict):
                hold_against(inner, others, f"{place}.{name}")
            elif not others:
                raise Mismatch(f"{place}: {name} is not described")


def _is_utc(text: str) -> bool:
    return text.endswith("Z") and datetime.fromisoformat(text).tzinfo is not None


def _one_of(value: Any, choices: list[dict[str, Any]], place: str) -> None:
    told: list[str] = []
    for choice in choices:
        try:
            hold_against(value, choice, place)
        except Mismatch as mismatch:
            told.append(str(mismatch))
        else:
            return
    raise Mismatch(" / ".join(told))


def _is(value: Any, kind: str) -> bool:
    match kind:
        case "null":
            return value is None
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            return isinstance(value, int | Decimal) and not isinstance(value, bool)
        case "string":
            return isinstance(value, str)
        case "array":
            return isinstance(value, list)
        case "object":
            return isinstance(value, dict)
    raise Mismatch(f"unknown type {kind} in the description")


class Answer:
    """Status, headers and decoded body of one answer."""

    def __init__(self, response: Any) -> None:
        self.status: int = response.status_code
        self.headers = response.headers
        self.content: bytes = response.content
        is_json = response.headers.get("Content-Type", "").startswith("application/json")
        self.body: Any = json.loads(self.content, parse_float=Decimal) if is_json and self.content else None

    def __repr__(self) -> str:
        return f"{self.status} {self.content[:500]!r}"


class Api:
    """Calls the API like an application does. Each answer is checked against the description."""

    def __init__(self, key: str | None) -> None:
        self.key = key
        self._client = Client(raise_request_exception=False)

    def call(self, method: str, path: str, body: Any = None, *, content_type: str = "application/json") -> Answer:
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        if body is None:
            data = b""
        elif isinstance(body, bytes):
            data = body
        else:
            data = json.dumps(body).encode()
        response = self._client.generic(method, path, data, content_type=content_type, headers=headers)
        answer = Answer(response)
        self._check(method, path.partition("?")[0], answer)
        return answer

    def _check(self, method: str, path: str, answer: Answer) -> None:
        if answer.status >= 400:
            assert set(answer.body) in ({"code", "message"}, {"code", "message", "errors"}), answer
            assert re.fullmatch(r"[A-Z_]+", answer.body["code"]), answer
            assert answer.body["message"], answer
        operation = operation_of(method, path)
        if operation is None:
            assert answer.status in (400, 401, 404, 405, 411, 413), answer
            return
        if answer.status in (405, 411):
            return  # a method that is not described; a transport error before any route
        described = operation["responses"].get(str(answer.status))
        assert described is not None, f"{method} {path} answered {answer!r}, which is not described"
        content = described.get("content")
        if content is None:
            assert answer.content == b"", answer
        elif "application/json" in content:
            hold_against(answer.body, content["application/json"]["schema"], f"{method} {path}")

    def get(self, path: str) -> Answer:
        return self.call("GET", path)

    def post(self, path: str, body: Any = None) -> Answer:
        return self.call("POST", path, body)

    def patch(self, path: str, body: Any) -> Answer:
        return self.call("PATCH", path, body)

    def delete(self, path: str) -> Answer:
        return self.call("DELETE", path)


def api(**of_the_key: Any) -> Api:
    """A client with a fresh key."""
    _, key = create_api_key(name="tests", **of_the_key)
    return Api(key)
