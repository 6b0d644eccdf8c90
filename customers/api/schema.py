"""The OpenAPI description: answers from the types that the presenting functions return, errors on every route.

An answer is a TypedDict. mypy holds the function that builds it to its fields, and `answer()` turns the same fields
into the schema, so the two cannot drift.
"""

import types
import typing
from datetime import datetime
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

from drf_spectacular.extensions import OpenApiAuthenticationExtension, OpenApiSerializerExtension
from drf_spectacular.utils import OpenApiResponse

_components: dict[str, dict[str, Any]] = {}


def schema_of(hint: Any) -> dict[str, Any]:
    """The JSON schema of a type. A TypedDict becomes a named component and is referred to."""
    if is_typeddict(hint):
        return {"$ref": f"#/components/schemas/{_component(hint)}"}
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return {"type": "string", "enum": list(inner)}
    if origin in (Union, types.UnionType):
        others = [schema_of(part) for part in inner if part is not type(None)]
        if type(None) in inner:
            others.append({"type": "null"})
        return others[0] if len(others) == 1 else {"oneOf": others}
    if origin is list:
        return {"type": "array", "items": schema_of(inner[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": schema_of(inner[1]) if inner[1] is not Any else True}
    return dict(_SIMPLE[hint])


_SIMPLE: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    datetime: {"type": "string", "format": "date-time"},
}


def _component(hint: Any) -> str:
    name = str(hint.__name__).removesuffix("Object")
    if name not in _components:
        _components[name] = {}  # claimed first: a type may mention itself
        _components[name] = {
            "type": "object",
            "description": typing.cast(str, hint.__doc__ or ""),
            "required": sorted(hint.__required_keys__),
            "properties": {field: schema_of(of) for field, of in get_type_hints(hint).items()},
        }
    return name


def answer(hint: Any, description: str = "") -> OpenApiResponse:
    """An answer of this type, for `extend_schema(responses={200: answer(…)})`."""
    return OpenApiResponse(schema_of(hint), description=description)


def page_answer(hint: Any) -> OpenApiResponse:
    """A page of these."""
    return OpenApiResponse(
        {
            "type": "object",
            "required": ["items"],
            "properties": {"items": {"type": "array", "items": schema_of(hint)}},
        },
        description="A page; past the end it is empty.",
    )


def nothing(description: str) -> OpenApiResponse:
    return OpenApiResponse(None, description=description)


def refusal(description: str) -> OpenApiResponse:
    """An error that an operation may answer beside those that every one of its kind may."""
    return OpenApiResponse({"$ref": "#/components/schemas/Error"}, description=description)


_components["Error"] = {
    "type": "object",
    "required": ["code", "message"],
    "properties": {
        "code": {"type": "string", "description": "An upper-case word for programs."},
        "message": {"type": "string", "description": "A sentence for people."},
        "errors": {
            "type": "array",
            "description": "Each thing that is wrong, where there can be several.",
            "items": {"type": "object", "additionalProperties": True},
        },
    },
}

_MEANINGS = {
    "400": "A rule of the business forbids it.",
    "401": "No API key, or one that is unknown or revoked.",
    "403": "The API key may only read.",
    "404": "There is no such item.",
    "409": "It clashes with what is there already. Sent with `x-should-retry: false`.",
    "410": "A meter or product that it needs is archived.",
    "413": "The body is too large.",
    "415": "The body is not `application/json`.",
    "422": "The body or the query parameters are not as described.",
    "503": "The database does not answer for the moment; nothing was changed.",
}


class RequestSchema(OpenApiSerializerExtension):
    """A request body: no field beside those it names, and what becomes of the contract's other fields."""

    target_class = "customers.api.fields.Request"
    match_subclasses = True

    def map_serializer(self, auto_schema: Any, direction: Any) -> dict[str, Any]:
        body: dict[str, Any] = auto_schema._map_serializer(self.target, direction, bypass_extensions=True)
        properties = body.setdefault("properties", {})
        for name in sorted(self.target.harmless):
            properties.setdefault(name, {"description": "Accepted; it changes nothing here."})
        for name in sorted(self.target.unsupported):
            properties.setdefault(name, {"description": "Not supported: refused unless null, false, 0 or empty."})
        return {**body, "additionalProperties": False}


class BearerKeyScheme(OpenApiAuthenticationExtension):
    target_class = "customers.api.authentication.BearerKeyAuthentication"
    name = "bearerKey"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        return {
            "type": "http",
            "scheme": "bearer",
            "description": "An API key, made in the admin or with `manage.py create_api_key NAME`.",
        }


def complete(result: dict[str, Any], generator: Any, request: Any, public: bool) -> dict[str, Any]:
    """Postprocessing hook: add the components above, and to every operation the errors it may answer."""
    result.setdefault("components", {}).setdefault("schemas", {}).update(_components)
    for path, operations in result.get("paths", {}).items():
        for method, operation in operations.items():
            if not isinstance(operation, dict) or "responses" not in operation:
                continue
            for status in _possible(path, method, operation):
                operation["responses"].setdefault(
                    status,
                    {
                        "description": _MEANINGS[status],
                        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
                    },
                )
            operation["responses"] = dict(sorted(operation["responses"].items()))
    return result


def _possible(path: str, method: str, operation: dict[str, Any]) -> list[str]:
    statuses = ["401", "503"]
    if "{" in path:
        statuses.append("404")
    if method != "get":
        statuses += ["400", "403", "404", "409", "410"]
    if operation.get("requestBody"):
        statuses += ["413", "415", "422"]
    if any(parameter["in"] == "query" for parameter in operation.get("parameters", [])):
        statuses += ["400", "404", "422"]
    return statuses
