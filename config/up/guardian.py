"""Ends what a killed supervisor leaves behind, then ends itself.

The kernel already asks the supervisor's own children to stop when it dies (processes.py). What that cannot
reach are their children, such as Celery's, and a child that does not listen. This small process holds the
other end of a pipe from the supervisor; when the pipe closes without a `done`, it gives everything a moment
and then ends it, database last. It also keeps the lock file open, so a new start waits until the old one is
really gone.

Run as a plain file: it imports nothing of Meterbook and stays small.
"""

import contextlib
import os
import signal
import sys
import time

GRACE_SECONDS = 10.0
DATABASE_SECONDS = 30.0


def alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def tell(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def wait_for(groups: list[int], seconds: float) -> None:
    until = time.monotonic() + seconds
    while any(alive(group) for group in groups) and time.monotonic() < until:
        time.sleep(0.1)


def main(pipe: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    watched: dict[int, str] = {}
    with os.fdopen(pipe) as lines:
        for line in lines:
            word, _, rest = line.strip().partition(" ")
            if word == "done":
                return
            pid, _, name = rest.partition(" ")
            if word == "watch":
                watched[int(pid)] = name
            elif word == "forget":
                watched.pop(int(pid), None)
    programs = [pid for pid, name in watched.items() if name != "db"]
    databases = [pid for pid, name in watched.items() if name == "db"]
    wait_for(programs, GRACE_SECONDS)
    for group in programs:
        tell(group, signal.SIGKILL)
    for group in databases:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(group, signal.SIGINT)  # fast shutdown, should the kernel's word not have reached it
    wait_for(databases, DATABASE_SECONDS)
    for group in databases:
        tell(group, signal.SIGKILL)


if __name__ == "__main__":
    main(int(sys.argv[1]))
