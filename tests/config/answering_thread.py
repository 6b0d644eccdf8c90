"""A WSGI application that says which thread answered; `/slow` takes a moment, `/kept` says what is kept for good."""

import gc
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    if environ["PATH_INFO"] == "/slow":
        time.sleep(0.3)
    told = gc.get_freeze_count() if environ["PATH_INFO"] == "/kept" else threading.get_native_id()
    body = str(told).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
