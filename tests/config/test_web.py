"""The web server's worker and its threads, in a real gunicorn: who is answered by whom, and who has to wait."""

import http.client
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

from config.settings import BASE_DIR
from config.up.__main__ import gunicorn_options
from config.web import LINGER_SECONDS


@contextmanager
def serving(*, threads: int) -> Iterator[int]:
    """One process of the real worker class; yields its port."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        options = [*gunicorn_options(listening.fileno()), "--workers=1", f"--threads={threads}"]
        process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "tests.config.answering_thread", *options],
            pass_fds=[listening.fileno()],
            cwd=BASE_DIR,
        )
        try:
            yield listening.getsockname()[1]
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0


def ask(client: http.client.HTTPConnection, path: str = "/") -> str:
    client.request("GET", path)
    answer = client.getresponse()
    assert answer.status == 200
    return answer.read().decode()


def connection(port: int) -> "closing[http.client.HTTPConnection]":
    return closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30))


def make_threads_of_all(port: int, *, threads: int) -> None:
    """A thread is only made when no other is idle, so keep them all busy once."""

    def slow() -> None:
        with connection(port) as client:
            answered.add(ask(client, "/slow"))

    answered: set[str] = set()
    asking = [threading.Thread(target=slow) for _ in range(threads)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert len(answered) == threads


def test_a_client_that_goes_on_is_answered_by_the_thread_that_knows_it() -> None:
    # gunicorn's own threads take turns: twenty answers by one of four would be a miracle.
    with serving(threads=4) as port, connection(port) as client:
        make_threads_of_all(port, threads=4)
        # The machine may pause for longer than a thread waits, so twenty in a row are looked for more than once.
        assert any(len({ask(client) for _ in range(20)}) == 1 for _ in range(20))


def test_a_client_that_pauses_is_answered_all_the_same() -> None:
    with serving(threads=2) as port, connection(port) as client:
        for _ in range(5):
            assert ask(client)
            time.sleep(4 * LINGER_SECONDS)


def test_a_client_that_leaves_is_let_go() -> None:
    with serving(threads=2) as port:
        for _ in range(50):
            with connection(port) as client:
                assert ask(client)


def test_no_client_keeps_a_thread_while_others_wait() -> None:
    # Three threads' worth of clients that never pause, and one that comes beside them, all with the same two threads.
    stop = threading.Event()
    answers = [0] * 6

    def insist(number: int, port: int) -> None:
        with connection(port) as client:
            while not stop.is_set():
                ask(client)
                answers[number] += 1

    with serving(threads=2) as port:
        insisting = [threading.Thread(target=insist, args=(number, port)) for number in range(len(answers))]
        for thread in insisting:
            thread.start()
        try:
            for _ in range(20):
                with connection(port) as newcomer:
                    assert ask(newcomer)
            until = time.monotonic() + 20
            while min(answers) < 20 and time.monotonic() < until:
                time.sleep(0.05)
        finally:
            stop.set()
            for thread in insisting:
                thread.join()
    assert min(answers) >= 20, answers


def test_two_requests_in_one_packet_are_both_answered() -> None:
    request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with serving(threads=2) as port, closing(socket.create_connection(("127.0.0.1", port), timeout=30)) as client:
        client.sendall(request + request[:-4] + b"\r\nConnection: close\r\n\r\n")
        answer = b""
        while part := client.recv(4096):
            answer += part
    assert answer.count(b"HTTP/1.1 200 OK") == 2


def test_a_stop_while_threads_wait_for_their_clients_ends_cleanly() -> None:
    # `serving` sends SIGTERM right after an answer and checks the exit code.
    for _ in range(3):
        with connection(0) as client, serving(threads=3) as port:
            client.port = port
            ask(client)


def test_what_the_application_brings_in_is_never_looked_through_for_garbage() -> None:
    # An interpreter with gunicorn alone holds some ten thousand objects.
    with serving(threads=2) as port, connection(port) as client:
        assert int(ask(client, "/kept")) > 5_000
