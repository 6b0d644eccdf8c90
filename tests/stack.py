"""A whole running Meterbook for a test: the same `config.up` that `make run` starts, on a free port and data
of its own.

Used through the fixtures `start_stack` and `live_stack` of tests/conftest.py.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql

ROOT = Path(__file__).resolve().parent.parent
READY = "Meterbook is running."
START_SECONDS = 180.0  # a slow machine that does other things; a start takes 3 to 10


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def roomy_folder(prefix: str) -> Path:
    """A temporary folder that a server's own account may pass through (pytest's own are closed to it)."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    folder.chmod(0o711)
    return folder


class Stack:
    """One installation: its folder outlives a stop, so it can be started again over the same data."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.folder = roomy_folder("meterbook-stack-")
        self.var = self.folder / "var"
        self.port = free_port()
        self.base_url = f"http://localhost:{self.port}"
        self._own_database = ""
        self.environment = {
            **os.environ,
            # Named and empty, so that a developer's .env cannot fill them.
            "DATABASE_URL": "",
            "CELERY_BROKER_URL": "",
            "SECRET_KEY": "",
            "BASE_URL": self.base_url,
            "METERBOOK_VAR": str(self.var),
            "METERBOOK_DEMO": "off",
            "PORT": str(self.port),
            **{name: os.environ[name] for name in ("CELERY_BROKER_URL",) if name in os.environ},
            **environment,
        }
        if "DATABASE_URL" not in environment and os.environ.get("DATABASE_URL"):
            self.environment["DATABASE_URL"] = self._make_database(os.environ["DATABASE_URL"])
        self.process: subprocess.Popen[bytes] | None = None
        self._api_key = ""

    # -- life -------------------------------------------------------------------------------------------------

    def launch(self) -> "subprocess.Popen[bytes]":
        """Start it and do not wait."""
        self.folder.mkdir(exist_ok=True)
        with self.log.open("ab") as log:
            self._log_from = log.tell()
            self.process = subprocess.Popen(
                [sys.executable, "-m", "config.up", "--with-parent"],
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self.process

    def start(self) -> "Stack":
        """Start it and wait until it says that it runs."""
        process = self.launch()
        until = time.monotonic() + START_SECONDS
        while READY not in self.output():
            if process.poll() is not None or time.monotonic() > until:
                raise AssertionError(f"config.up did not come up (code {process.poll()}):\n{self.output()}")
            time.sleep(0.05)
        return self

    def refused(self) -> str:
        """Start it, expect it to give up by itself with exit code 1, and return all that it said."""
        process = self.launch()
        code = process.wait(START_SECONDS)
        assert code == 1, f"exit code {code}:\n{self.output()}"
        return self.output().strip()

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Stop it like a person does, and return its exit code."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(60)

    def kill_everything(self) -> None:
        """The power cut: every process at once, without a word."""
        for _ in range(20):  # whoever was being started meanwhile, too
            pids = self.pids()
            if not pids:
                break
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.05)
        if self.process is not None:
            self.process.wait(10)

    def discard(self) -> None:
        """Stop it and remove every trace."""
        self.stop()
        self.kill_everything()
        home = self.var / "postgres"
        if home.is_symlink():
            shutil.rmtree(home.resolve(), ignore_errors=True)
        if (home / "socket").is_symlink():
            shutil.rmtree((home / "socket").resolve(), ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        self._drop_database()

    # -- asking -----------------------------------------------------------------------------------------------

    @property
    def log(self) -> Path:
        return self.folder / "up.log"

    def output(self) -> str:
        """What it printed since it was last started."""
        try:
            return self.log.read_bytes()[self._log_from :].decode("utf-8", "replace")
        except FileNotFoundError:
            return ""

    def manage(self, *arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Run a manage.py command against it from another shell, as an operator does."""
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert not check or done.returncode == 0, f"{arguments}: {done.stdout}\n{done.stderr}"
        return done

    @property
    def api_key(self) -> str:
        """A key that may write and send events of any age, made on first use."""
        if not self._api_key:
            self._api_key = self.manage("create_api_key", "tests", "--backfill").stdout.strip()
        return self._api_key

    def pids(self) -> list[int]:
        """Every living process of this installation, however it was started and whoever its parent is."""
        mine = f"METERBOOK_VAR={self.var}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                belongs = mine in (entry / "environ").read_bytes().split(b"\0")
                # The database gets no environment of ours; its folder is in its command line or is where it stands.
                belongs = belongs or str(self.var) in (entry / "cmdline").read_bytes().decode("utf-8", "replace")
                belongs = belongs or Path(os.readlink(entry / "cwd")).is_relative_to(self.var.resolve())
            except (OSError, IndexError):
                continue
            if belongs and state not in "ZX":
                found.append(int(entry.name))
        return found

    def pids_of(self, part: str) -> list[int]:
        """Of those, the ones with `part` in their command line, oldest first."""
        return sorted(pid for pid in self.pids() if part in _command_line(pid))

    def wait_until_gone(self, seconds: float = 60) -> list[int]:
        """Wait for every process to end; returns those that did not."""
        until = time.monotonic() + seconds
        while (left := self.pids()) and time.monotonic() < until:
            time.sleep(0.1)
        return left

    # -- a database on somebody else's server ------------------------------------------------------------------

    def _make_database(self, url: str) -> str:
        name = f"meterbook_stack_{secrets.token_hex(4)}"
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
            self._own_database = name
            info = connection.info
            host = quote(info.host, safe="")
            login = quote(info.user, safe="") + (f":{quote(info.password, safe='')}" if info.password else "")
            port = info.port
        return f"postgres://{login}@{host}:{port}/{name}"

    def _drop_database(self) -> None:
        if self._own_database:
            with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
                connection.execute(
                    sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(self._own_database))
                )


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        return ""
