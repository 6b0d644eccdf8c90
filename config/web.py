"""The web server's worker: what is refused before Django sees it is refused in JSON, too.

gunicorn answers a request line that is too long, or HTTP that is none, with a page of HTML. An application that reads
`code` and `message` of every error would find neither.
"""

import json
import logging
from http import HTTPStatus
from typing import Any

from gunicorn import util
from gunicorn.http import errors
from gunicorn.workers.gthread import ThreadWorker

from config.logs import HideTokens

logger = logging.getLogger(__name__)

_REFUSED: tuple[tuple[type[Exception], int, str], ...] = (
    (errors.LimitRequestLine, 414, "The address is too long."),
    (errors.LimitRequestHeaders, 431, "The headers are too large."),
    (errors.ExpectationFailed, 417, "Only `Expect: 100-continue` is understood."),
    (errors.UnsupportedTransferCoding, 501, "That transfer coding is not supported."),
    (errors.ParseException, 400, "That is not an HTTP request."),
)
_CODES = {
    400: "INVALID_REQUEST_PARAMETERS",
    414: "URI_TOO_LONG",
    417: "EXPECTATION_FAILED",
    431: "HEADERS_TOO_LARGE",
    500: "INTERNAL_SERVER_ERROR",
    501: "NOT_IMPLEMENTED",
}


def refusal(exc: BaseException) -> tuple[int, str]:
    """Status and sentence for what went wrong outside of the application."""
    for kind, status, message in _REFUSED:
        if isinstance(exc, kind):
            return status, message
    return 500, "Something went wrong on our side. It has been logged."


class Worker(ThreadWorker):
    def init_process(self) -> None:
        """gunicorn's hook at a worker's start. Its logs have handlers of their own, also where they go to a file."""
        for name in ("gunicorn.access", "gunicorn.error"):
            logging.getLogger(name).addFilter(HideTokens())
        super().init_process()

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """gunicorn's hook for a request that never became one; the connection is closed behind the answer."""
        status, message = refusal(exc)
        if status == 500:
            logger.error("Error handling a request", exc_info=exc)
        body = json.dumps({"code": _CODES[status], "message": message}).encode()
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        try:
            util.write_nonblock(client, head.encode() + body)
        except OSError:
            logger.debug("The client did not wait for its answer.")
