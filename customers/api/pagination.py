"""The contract's page: `{"items": […]}` and nothing else.

`page_number` counts from 0; `page_size` is 10, at most 100.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter
from rest_framework.pagination import BasePagination
from rest_framework.request import Request
from rest_framework.response import Response

from customers.api.errors import InvalidQuery

if TYPE_CHECKING:  # that module reads the settings, which name this one
    from rest_framework.views import APIView

DEFAULT_PAGE_SIZE = 10
MAX_PAGE_SIZE = 100
# PostgreSQL's OFFSET is 64-bit; nobody reads this far.
MAX_PAGE_NUMBER = 2**31 - 1

PAGE_PARAMETERS = [
    OpenApiParameter(
        "page_number",
        {"type": "integer", "minimum": 0, "maximum": MAX_PAGE_NUMBER, "default": 0},
        OpenApiParameter.QUERY,
        description="Counts from 0.",
    ),
    OpenApiParameter(
        "page_size",
        {"type": "integer", "minimum": 1, "maximum": MAX_PAGE_SIZE, "default": DEFAULT_PAGE_SIZE},
        OpenApiParameter.QUERY,
        description="Items on a page.",
    ),
]


def _whole(request: Request, name: str, *, default: int, least: int, most: int) -> int:
    raw = request.query_params.get(name)
    if raw is None or raw == "":
        return default
    if not (raw.isascii() and raw.isdigit() and len(raw) <= 19 and least <= int(raw) <= most):
        raise InvalidQuery(f"{name}: must be a whole number from {least} to {most}.")
    return int(raw)


def page_bounds(request: Request) -> tuple[int, int]:
    """First and last (exclusive) position of the page that was asked for."""
    number = _whole(request, "page_number", default=0, least=0, most=MAX_PAGE_NUMBER)
    size = _whole(request, "page_size", default=DEFAULT_PAGE_SIZE, least=1, most=MAX_PAGE_SIZE)
    return number * size, number * size + size


def page(request: Request, rows: "QuerySet[Any] | Sequence[Any]", present: Callable[[Any], Any]) -> Response:
    """One page of `rows`. Past the end it is empty, which is how the SDKs' pagers stop."""
    first, end = page_bounds(request)
    return Response({"items": [present(row) for row in rows[first:end]]})


class PageNumberFromZero(BasePagination):
    """The same for DRF's generic views."""

    def paginate_queryset(self, queryset: Any, request: Request, view: "APIView | None" = None) -> list[Any]:
        first, end = page_bounds(request)
        return list(queryset[first:end])

    def get_paginated_response(self, data: Any) -> Response:
        return Response({"items": data})

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        return {
            "type": "object",
            "required": ["items"],
            "properties": {"items": {"type": "array", "items": schema}},
        }

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        return [
            {
                "name": parameter.name,
                "in": "query",
                "required": False,
                "description": parameter.description,
                "schema": parameter.type,
            }
            for parameter in PAGE_PARAMETERS
        ]
