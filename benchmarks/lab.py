"""What the benchmarks share: a server of their own, the real web server in front of it, clients, and the record."""

import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import msgspec

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "var" / "bench"
_MARK = b"0123456789abcdef"


# -- the web server ------------------------------------------------------------------------------------------


@dataclass
class Web:
    """gunicorn with the options of `make run`, on loopback."""

    port: int
    process: "subprocess.Popen[bytes]"

    def resident(self) -> int:
        """Bytes of memory of its processes."""
        return sum(resident(pid) for pid in _family(self.process.pid))


@contextmanager
def web_server(*, without_database: bool = False) -> Iterator[Web]:
    """Start it; `without_database` serves the same view with its storing taken out."""
    from config.up.__main__ import gunicorn_options

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(512)
        port = int(listening.getsockname()[1])
        application = "benchmarks.without_database" if without_database else "config.wsgi"
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "gunicorn", application, *gunicorn_options(listening.fileno())],
            pass_fds=[listening.fileno()],
            cwd=ROOT,
            start_new_session=True,
        )
        try:
            # The backlog holds the question until a worker answers it.
            with socket.create_connection(("127.0.0.1", port), timeout=60) as asking:
                asking.sendall(b"GET /meters HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                assert b"401" in asking.recv(4096)
            yield Web(port, process)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def _family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in _family(int(child)))]


def resident(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


# -- clients -------------------------------------------------------------------------------------------------


@dataclass
class Answered:
    """What the clients of one run saw."""

    requests: int
    events: int
    seconds: float
    latencies: list[float] = field(default_factory=list)

    @property
    def events_per_second(self) -> float:
        return self.events / self.seconds

    @property
    def requests_per_second(self) -> float:
        return self.requests / self.seconds

    def milliseconds(self) -> dict[str, float]:
        return percentiles(self.latencies)


def percentiles(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    at = lambda part: round(ordered[min(len(ordered) - 1, int(len(ordered) * part))] * 1000, 3)  # noqa: E731
    return {"p50": at(0.5), "p90": at(0.9), "p99": at(0.99)}


def template(*, customer: str, size: int, event_name: str = "api.call") -> bytes:
    """A body as an application sends it: ids of 24 characters, four properties. The marked part of an id changes."""
    now = datetime.now(UTC).isoformat()
    events = [
        {
            "event_id": f"{_MARK.decode()}{number:08d}",
            "customer_id": customer,
            "event_name": event_name,
            "timestamp": now,
            "metadata": {"endpoint": "/v1/orders", "method": "GET", "region": "eu-west-1", "tokens": number},
        }
        for number in range(size)
    ]
    return msgspec.json.encode({"events": events})


def send(
    *, web: Web, key: str, body: bytes, size: int, clients: int, seconds: float, per_second: float | None = None
) -> Answered:
    """Load from a process of its own with `clients` kept connections, each with one request under way."""
    spawn = get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_clients, args=(theirs, web.port, key, body, size, clients, seconds, per_second))
    process.start()
    answered: Answered = ours.recv()
    process.join()
    return answered


@contextmanager
def sending(**arguments: Any) -> Iterator[list[Answered]]:
    """The same beside something else; what was answered is in the list at the end."""
    answered: list[Answered] = []
    thread = threading.Thread(target=lambda: answered.append(send(**arguments)))
    thread.start()
    time.sleep(1.5)
    yield answered
    thread.join()


def _clients(
    pipe: Any, port: int, key: str, body: bytes, size: int, clients: int, seconds: float, per_second: float | None
) -> None:
    total = Answered(0, 0, 0.0)
    lock = threading.Lock()
    head = (
        f"POST /events/ingest HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    wanted = b'{"ingested_count":%d}' % size
    begun = time.perf_counter()

    def one(number: int) -> None:
        latencies = []
        stem = f"{os.getpid():06d}{number}".encode()
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            turn = 0
            while (passed := time.perf_counter() - begun) < seconds:
                if per_second and (ahead := turn * clients / per_second - passed) > 0:
                    time.sleep(ahead)
                mine = stem + b"%0*d" % (len(_MARK) - len(stem), turn)
                request = head + body.replace(_MARK, mine)
                started = time.perf_counter()
                connection.sendall(request)
                answer = b""
                while not answer.endswith(b"}"):
                    part = connection.recv(4096)
                    assert part, "the server hung up"
                    answer += part
                latencies.append(time.perf_counter() - started)
                assert answer.startswith(b"HTTP/1.1 200"), answer
                assert answer.endswith(wanted), answer
                turn += 1
        with lock:
            total.requests += turn
            total.events += turn * size
            total.latencies += latencies

    threads = [threading.Thread(target=one, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    total.seconds = time.perf_counter() - begun
    pipe.send(total)


# -- measuring -----------------------------------------------------------------------------------------------


def rate(work: Callable[[], object], *, times: int) -> float:
    """How often a second, by the median of the runs."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return 1 / statistics.median(taken)


def record(name: str, result: dict[str, Any]) -> None:
    """Write a result where it can be compared with later ones."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    place = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
    }
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({**place, **result}, indent=2) + "\n")
    print(f"  written to {path.relative_to(ROOT)}", flush=True)


def say(line: str) -> None:
    print(line, flush=True)
