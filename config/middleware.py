"""What must be refused before any view is chosen."""

import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Any

from django.conf import settings
from django.contrib.auth import middleware as auth
from django.contrib.messages import middleware as messages
from django.contrib.sessions import middleware as sessions
from django.http import HttpRequest, HttpResponse, HttpResponsePermanentRedirect, JsonResponse
from django.http.response import HttpResponseBase
from django.middleware import common

from config.views import is_page, json_error
from customers.api.errors import ITEM_NOT_FOUND, too_large_message

# An oversized body is read on and thrown away after the answer, within these bounds: closing a connection on a
# client that is still sending would make its system drop the answer unread.
DRAIN_BYTES = 256 * 1024 * 1024
DRAIN_SECONDS = 10.0
_CHUNK = 64 * 1024
# What a form may have around an uploaded file.
FORM_BYTES = 64 * 1024


class DrainingResponse(JsonResponse):
    """An answer given before the request's body was read; the rest of the body is discarded behind it."""

    def __init__(self, request: HttpRequest, body: dict[str, Any], status: int) -> None:
        super().__init__(body, status=status)
        self["Content-Length"] = str(len(self.content))
        self._request = request

    def close(self) -> None:
        super().close()
        socket = self._request.META.get("gunicorn.socket")
        until = time.monotonic() + DRAIN_SECONDS
        read = 0
        # A client that stalls must not hold the thread; one that is gone has nothing to be told.
        with contextlib.suppress(OSError):
            before = None if socket is None else socket.gettimeout()
            try:
                if socket is not None:
                    socket.settimeout(1.0)
                while read < DRAIN_BYTES and time.monotonic() < until:
                    chunk = self._request.read(_CHUNK)
                    if not chunk:
                        return
                    read += len(chunk)
            finally:
                if socket is not None:
                    socket.settimeout(before)


class RefuseEarly:
    """413 for a body over the limit, before it is read; 411 for one without a length; 404 for a path no row can have.

    Pages take as much as the largest upload: anyone may send to them before it is asked who it is.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if "\x00" in request.path_info:
            return json_error(404, "NOT_FOUND", ITEM_NOT_FOUND)
        length = _content_length(request)
        if is_page(request):
            if length > settings.IMPORT_MAX_BYTES + FORM_BYTES:
                message = f"That is too large. Send at most {settings.IMPORT_MAX_BYTES // (1024 * 1024)} MB."
                return DrainingResponse(request, {"code": "PAYLOAD_TOO_LARGE", "message": message}, status=413)
            return self._get_response(request)
        if length > settings.MAX_REQUEST_BYTES:
            return DrainingResponse(request, {"code": "PAYLOAD_TOO_LARGE", "message": too_large_message()}, status=413)
        if length == 0 and "chunked" in request.META.get("HTTP_TRANSFER_ENCODING", "").lower():
            # WSGI has no word for a body of unknown length: Django would see an empty one and mislead the caller.
            return json_error(411, "LENGTH_REQUIRED", "Send the body with a Content-Length header, not in chunks.")
        return self._get_response(request)


def _content_length(request: HttpRequest) -> int:
    try:
        return int(request.META.get("CONTENT_LENGTH") or 0)
    except ValueError:
        return 0


# -- what only pages need -------------------------------------------------------------------------------------
#
# An application has a key and no session; each of these would cost every request of the API some of its time.


class SessionMiddleware(sessions.SessionMiddleware):
    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        return super().__call__(request) if is_page(request) else self.get_response(request)


class AuthenticationMiddleware(auth.AuthenticationMiddleware):
    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        return super().__call__(request) if is_page(request) else self.get_response(request)


class MessageMiddleware(messages.MessageMiddleware):
    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        return super().__call__(request) if is_page(request) else self.get_response(request)


class CommonMiddleware(common.CommonMiddleware):
    def process_request(self, request: HttpRequest) -> HttpResponsePermanentRedirect | None:
        """A body is not sent on to an address with a slash, so there is no need to look whether there is one."""
        if request.method in ("GET", "HEAD") or is_page(request):
            return super().process_request(request)
        request.get_host()  # refuses a host that is not ours
        return None
