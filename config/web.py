"""The web server's worker: it refuses in JSON, and stays with a client that sends one request after the other.

gunicorn answers a request line that is too long, or HTTP that is none, with a page of HTML. An application that reads
`code` and `message` of every error would find neither.

After each answer gunicorn hands the connection back to its main thread, which waits for the next request and hands it
to a thread again. For an application that sends event after event the two handovers cost as much as the event.
"""

import gc
import json
import logging
import select
import threading
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


# How long a thread waits for the next request of the connection it has just answered.
LINGER_SECONDS = 0.005


class Worker(ThreadWorker):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._counting = threading.Lock()
        self._queued = 0  # connections that wait for a thread
        self._lingering = 0  # threads that wait for a connection's next request

    def init_process(self) -> None:
        """gunicorn's hook at a worker's start. Its logs have handlers of their own, also where they go to a file."""
        for name in ("gunicorn.access", "gunicorn.error"):
            logging.getLogger(name).addFilter(HideTokens())
        super().init_process()

    def load_wsgi(self) -> None:
        """gunicorn's hook that imports the application. What it brings in stays as long as the process does.

        Python would look through it for garbage time and again, for 60 ms, while the requests of all threads wait.
        """
        super().load_wsgi()
        gc.collect()
        gc.freeze()

    def enqueue_req(self, conn: Any) -> None:
        """gunicorn's hook for a connection that has something to read, called by its main thread."""
        with self._counting:
            self._queued += 1
        super().enqueue_req(conn)

    def handle(self, conn: Any) -> Any:
        """gunicorn's hook for one request, called by a thread; True gives the connection back to wait for the next."""
        with self._counting:
            self._queued -= 1
        kept = super().handle(conn)
        while kept is True and self._next_request_comes(conn):
            kept = super().handle(conn)
        return kept

    def _next_request_comes(self, conn: Any) -> bool:
        """Whether this thread should go on with the connection: its next request is here, and nobody else waits.

        One thread is always left for others, and whoever is queued goes first, so that no client keeps a thread.
        """
        with self._counting:
            if not self.alive or self._queued or self._lingering >= self.cfg.threads - 1:
                return False
            self._lingering += 1
        try:
            waiting = select.poll()
            waiting.register(conn.sock, select.POLLIN)
            return bool(waiting.poll(LINGER_SECONDS * 1000)) and self.alive and not self._queued
        finally:
            with self._counting:
                self._lingering -= 1

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
