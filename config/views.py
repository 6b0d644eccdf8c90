"""The start page, and what is answered where no view of ours was reached.

An application gets JSON, always; a person in the admin or on a customer page gets a page.
"""

import sys

from django.core.exceptions import DisallowedHost
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.template.loader import render_to_string
from django.urls import Resolver404
from django.views import defaults
from django.views.decorators.csrf import csrf_exempt

from customers.api.errors import ITEM_NOT_FOUND

# Everything else belongs to the API.
_PAGES = ("/admin/", "/portal/", "/static/")
_PAGE = "/docs"


def is_page(request: HttpRequest) -> bool:
    """Whether this address is opened by people rather than by programs."""
    return request.path_info == _PAGE or request.path_info.startswith(_PAGES)


def json_error(status: int, code: str, message: str) -> JsonResponse:
    answer = JsonResponse({"code": code, "message": message}, status=status)
    answer["Content-Length"] = str(len(answer.content))  # not every answer from here passes CommonMiddleware
    return answer


@csrf_exempt  # so that a POST here is told 405 rather than about cookies
def start(request: HttpRequest) -> HttpResponse:
    """What this server is, and where to go from here."""
    if request.method not in ("GET", "HEAD"):
        answer = json_error(405, "METHOD_NOT_ALLOWED", f'Method "{request.method}" not allowed.')
        answer["Allow"] = "GET, HEAD"
        return answer
    return render(request, "start.html")


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    if is_page(request):
        return defaults.bad_request(request, exception)
    if isinstance(exception, DisallowedHost):
        return json_error(400, "INVALID_REQUEST_PARAMETERS", "This server does not answer to that host name.")
    return json_error(400, "INVALID_REQUEST_PARAMETERS", "The request is not valid.")


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    if is_page(request):
        return defaults.permission_denied(request, exception)
    return json_error(403, "FORBIDDEN", "This is not allowed.")


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    if is_page(request):
        return defaults.page_not_found(request, exception)
    if isinstance(exception, Resolver404):
        # Somebody who calls a route of the contract that is not built here should learn that it is the route.
        route = f"{request.method} {request.path[:200]}"
        return json_error(404, "NOT_FOUND", f"{ITEM_NOT_FOUND}: this server has no route {route}")
    return json_error(404, "NOT_FOUND", ITEM_NOT_FOUND)


def server_error(request: HttpRequest) -> HttpResponse:
    """Django has logged the exception; nothing of it is shown."""
    if isinstance(sys.exc_info()[1], OperationalError | InterfaceError):
        answer = _unavailable(request)
        answer["Retry-After"] = "1"
        return answer
    if is_page(request):
        return defaults.server_error(request)
    return json_error(500, "INTERNAL_SERVER_ERROR", "Something went wrong on our side. It has been logged.")


def _unavailable(request: HttpRequest) -> HttpResponse:
    if not is_page(request):
        return json_error(503, "SERVICE_UNAVAILABLE", "The database does not answer. Try again in a moment.")
    # Without the request: its session and its user would be asked from the same database.
    answer = HttpResponse(render_to_string("unavailable.html"), status=503)
    answer["Cache-Control"] = "no-store"
    return answer
