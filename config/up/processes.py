"""Child processes that say who is speaking, and that cannot outlive the process that started them."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

PR_SET_PDEATHSIG = 1
# Loaded before any fork: the code that runs between fork and exec must not import or allocate much.
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None
_print_lock = threading.Lock()


def signal_me_when_parent_dies(number: signal.Signals) -> None:
    """Ask the kernel for `number` when our parent's thread ends, however it ends (Linux only)."""
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, int(number))


def say(line: str, *, prefix: str = "") -> None:
    """Print one whole line, never half of one between another's halves."""
    with _print_lock, contextlib.suppress(BrokenPipeError, ValueError):
        sys.stdout.write(f"{prefix}{line}\n")
        sys.stdout.flush()


class Child:
    """One child process in a session of its own, so that Ctrl-C reaches it only through us and its whole
    group (gunicorn's and Celery's own children) can be ended together."""

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        name: str,
        at_parents_death: signal.Signals,
        output: Callable[[str], None] | None = None,
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
        user: tuple[int, int] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.name = name
        self.tail: deque[str] = deque(maxlen=40)
        self._output = output
        parent = os.getpid()

        def before_exec() -> None:
            signal_me_when_parent_dies(at_parents_death)
            if os.getppid() != parent:  # it died before we could ask
                os._exit(1)

        self.process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=None if environment is None else dict(environment),
            cwd=directory,
            start_new_session=True,
            pass_fds=tuple(pass_fds),
            user=user[0] if user else None,
            group=user[1] if user else None,
            extra_groups=[] if user else None,
            preexec_fn=before_exec,
        )
        self._reader = threading.Thread(target=self._read, name=f"{name}-output", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    def _read(self) -> None:
        stream = self.process.stdout
        if stream is None:  # never: we asked for a pipe
            return
        for raw in stream:
            line = raw.decode("utf-8", "replace").rstrip("\r\n")
            self.tail.append(line)
            if self._output is not None:
                self._output(line)

    def ended(self) -> bool:
        return self.process.poll() is not None

    def last_words(self) -> list[str]:
        """What it printed at the end, complete once it has ended."""
        if self.ended():
            self._reader.join(timeout=2)
        return list(self.tail)

    def signal(self, number: signal.Signals) -> None:
        """To the process itself, not to its children: it passes on what they must know."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    def wait(self, timeout: float) -> bool:
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill_group(self) -> None:
        """End what is left of its session: the process itself and children that lost their parent."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
