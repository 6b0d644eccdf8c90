"""Every error of the API is `{"code", "message"}` with the right status; `errors` lists several."""

import logging
from typing import Any

from django.conf import settings
from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.db import InterfaceError, OperationalError
from django.http import Http404
from rest_framework import exceptions, status
from rest_framework.response import Response

from customers.errors import DomainError

logger = logging.getLogger(__name__)

ITEM_NOT_FOUND = "Item not found"


class ApiError(exceptions.APIException):
    """An error that the edge itself raises, with the contract's code."""

    status_code: int = status.HTTP_400_BAD_REQUEST
    default_code = "INVALID_REQUEST_PARAMETERS"
    default_detail = "The request is not valid."


class InvalidBody(ApiError):
    """The body is not JSON as it should be, or not the object this route takes."""

    status_code = status.HTTP_422_UNPROCESSABLE_ENTITY
    default_code = "INVALID_REQUEST_BODY"
    default_detail = "The request body is not valid."


class InvalidQuery(ApiError):
    status_code = status.HTTP_422_UNPROCESSABLE_ENTITY
    default_code = "INVALID_QUERY_PARAMS"
    default_detail = "The query parameters are not valid."


class NotSupported(ApiError):
    """A part of the contract that this server does not do, asked for in so many words."""

    status_code = status.HTTP_422_UNPROCESSABLE_ENTITY
    default_code = "UNSUPPORTED_ACTION"
    default_detail = "This is not supported."


class BodyTooLarge(ApiError):
    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE
    default_code = "PAYLOAD_TOO_LARGE"

    def __init__(self) -> None:
        super().__init__(too_large_message())


class UnknownEncoding(ApiError):
    status_code = status.HTTP_415_UNSUPPORTED_MEDIA_TYPE
    default_code = "UNSUPPORTED_MEDIA_TYPE"
    default_detail = "Send the body plain, or with `Content-Encoding: gzip` or `zstd`."


class ReadOnlyKey(ApiError):
    status_code = status.HTTP_403_FORBIDDEN
    default_code = "FORBIDDEN"
    default_detail = "This API key may only read."


class BackfillKeyNeeded(ApiError):
    """What changes the past, also of closed periods, is not for every key that may write."""

    status_code = status.HTTP_403_FORBIDDEN
    default_code = "FORBIDDEN"
    default_detail = "This needs an API key that may backfill."


def too_large_message() -> str:
    return f"The request body is larger than {settings.MAX_REQUEST_BYTES} bytes."


def error_body(code: str, message: str, errors: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    body: dict[str, Any] = {"code": code, "message": message}
    if errors:
        body["errors"] = errors
    return body


def flatten(detail: Any, place: str = "") -> list[dict[str, str]]:
    """A serializer's nested errors as a list; a field reads `price.meters[0].meter_id`."""
    if isinstance(detail, dict):
        found = []
        for name, inner in detail.items():
            if name == "non_field_errors":
                inner_place = place
            elif isinstance(name, int):  # a ListField's errors are keyed by index
                inner_place = f"{place}[{name}]"
            else:
                inner_place = f"{place}.{name}" if place else str(name)
            found += flatten(inner, inner_place)
        return found
    if isinstance(detail, list):
        found = []
        for index, inner in enumerate(detail):
            if isinstance(inner, dict | list):
                found += flatten(inner, f"{place}[{index}]")
            else:
                found.append({"field": place, "message": str(inner)})
        return found
    return [{"field": place, "message": str(detail)}]


def _sentence(error: dict[str, str]) -> str:
    return f"{error['field']}: {error['message']}" if error["field"] else error["message"]


_CODES = {
    400: "INVALID_REQUEST_PARAMETERS",
    401: "UNAUTHORIZED",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    406: "NOT_ACCEPTABLE",
    413: "PAYLOAD_TOO_LARGE",
    415: "UNSUPPORTED_MEDIA_TYPE",
    422: "INVALID_REQUEST_BODY",
    429: "TOO_MANY_REQUESTS",
}


def exception_handler(exc: Exception, context: dict[str, Any]) -> Response | None:
    """DRF's hook. Returns None for what nobody foresaw: it is logged, and `config.views` answers 500."""
    if isinstance(exc, DomainError):
        answer = Response(error_body(exc.code, exc.message, exc.errors), status=exc.status)
        if exc.status == status.HTTP_409_CONFLICT:
            # The SDKs would send it twice more; the same request can only meet the same conflict.
            answer["x-should-retry"] = "false"
        return answer
    if isinstance(exc, Http404):
        return Response(error_body("NOT_FOUND", ITEM_NOT_FOUND), status=status.HTTP_404_NOT_FOUND)
    if isinstance(exc, RequestDataTooBig):
        exc = BodyTooLarge()
    if isinstance(exc, PermissionDenied):
        exc = exceptions.PermissionDenied()
    if isinstance(exc, SuspiciousOperation):
        exc = exceptions.APIException(detail="The request is not valid.")
        exc.status_code = status.HTTP_400_BAD_REQUEST
    if isinstance(exc, OperationalError | InterfaceError):
        # The database is away, restarting, or gave up waiting: nothing was kept, and a retry is right.
        logger.error("database not available: %s", exc)
        return Response(
            error_body("SERVICE_UNAVAILABLE", "The database does not answer. Try again in a moment."),
            status=status.HTTP_503_SERVICE_UNAVAILABLE,
            headers={"Retry-After": "1"},
        )
    if not isinstance(exc, exceptions.APIException):
        return None

    errors: list[dict[str, str]] = []
    if isinstance(exc, exceptions.ValidationError):
        exc.status_code = getattr(exc, "answer_status", status.HTTP_422_UNPROCESSABLE_ENTITY)
        code = getattr(exc, "answer_code", "INVALID_REQUEST_BODY")
        errors = flatten(exc.detail)
        message = "; ".join(_sentence(error).rstrip(".") for error in errors[:3])
        message += f"; and {len(errors) - 3} more." if len(errors) > 3 else "."
    elif isinstance(exc, exceptions.UnsupportedMediaType):
        code = _CODES[exc.status_code]
        message = "Send the body as JSON, with the header `Content-Type: application/json`."
    elif isinstance(exc, ApiError):
        code = str(exc.get_codes())
        message = str(exc.detail)
    else:
        code = _CODES.get(exc.status_code, "INVALID_REQUEST_PARAMETERS")
        message = str(exc.detail)
    headers = {}
    if getattr(exc, "auth_header", None):
        headers["WWW-Authenticate"] = exc.auth_header  # type: ignore[attr-defined]
    if getattr(exc, "wait", None):
        headers["Retry-After"] = str(exc.wait)  # type: ignore[attr-defined]
    return Response(error_body(code, message, errors), status=exc.status_code, headers=headers)


class InvalidQueryParameters(exceptions.ValidationError):
    """A serializer's errors over query parameters rather than the body."""

    answer_code = "INVALID_QUERY_PARAMS"
