"""`python -m config.up`: everything Meterbook needs, from one command, in the foreground.

In order: the folder and its lock, the settings, the port, the database, migrations, static files, the demo;
then the web server, a Celery worker and Celery beat, each started again when it dies, until Ctrl-C, SIGTERM
or SIGHUP.
"""

import argparse
import contextlib
import fcntl
import hashlib
import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module, metadata
from pathlib import Path
from types import FrameType, ModuleType
from typing import IO, NoReturn

import environ

from config.up import guardian, outside
from config.up.places import find_places, sentence_for
from config.up.postgres import Cluster
from config.up.problems import CannotStart
from config.up.processes import Child, say, signal_me_when_parent_dies

BASE_DIR = Path(__file__).resolve().parent.parent.parent
STOP_SECONDS = 15.0  # for a request or a task that is being worked on; a task that is cut off runs again
LONGEST_PAUSE = 30.0
STEADY_SECONDS = 30.0  # a child that lived this long is started again at once


class Stop(BaseException):
    """Somebody asked us to end."""


class Service:
    """A child that must always be there."""

    def __init__(self, name: str, start: Callable[[], Child]) -> None:
        self.name = name
        self._start = start
        self.child: Child | None = None
        self.began = 0.0
        self.pause = 0.0
        self.not_before = 0.0

    def start(self) -> Child:
        self.began = time.monotonic()
        self.child = self._start()
        return self.child

    def plan_restart(self) -> float:
        """After a death: when to start again, later and later while it keeps dying young."""
        now = time.monotonic()
        self.pause = 0.0 if now - self.began > STEADY_SECONDS else min(max(self.pause * 2, 0.5), LONGEST_PAUSE)
        self.not_before = now + self.pause
        self.child = None
        return self.pause


class Supervisor:
    def __init__(self) -> None:
        self.services: list[Service] = []
        self.step: Child | None = None
        self.cluster: Cluster | None = None
        self.stopping = False
        self.hurry = False
        self._lock: IO[str] | None = None
        self._guardian: subprocess.Popen[bytes] | None = None
        self._listening: socket.socket | None = None

    # -- from the first line to the last
    # ----------------------------------------------------------------------

    def run(self) -> None:
        signal.signal(signal.SIGINT, self._asked_to_stop)  # also where a shell's `&` had it ignored
        signal.signal(signal.SIGTERM, self._asked_to_stop)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup means it
            signal.signal(signal.SIGHUP, self._asked_to_stop)
        try:
            var_dir = self._open_var()
            settings = load_settings(var_dir)
            self._listening = outside.take_port(settings.BIND_ADDRESS, settings.PORT)
            self._start_guardian()
            self._prepare(settings, var_dir)
            self._start_services(settings)
            self._watch(self._first_answer(settings, lambda: announce(settings, var_dir)))
        except Stop:
            pass
        finally:
            self.stopping = True
            self._stop_all()

    def _asked_to_stop(self, number: int, frame: FrameType | None) -> None:
        if self.stopping:
            self.hurry = True
            return
        self.stopping = True
        raise Stop

    # -- the ground
    # -------------------------------------------------------------------------------------------

    def _open_var(self) -> Path:
        """The folder for everything that outlives a restart, ours alone, and the key in it."""
        environ.Env.read_env(BASE_DIR / ".env")
        var_dir = Path(os.environ.get("METERBOOK_VAR") or BASE_DIR / "var").resolve()
        os.environ["METERBOOK_VAR"] = str(var_dir)
        try:
            if not var_dir.exists():
                # Root's database account must pass through; nobody can list it, and each file guards itself.
                var_dir.mkdir(parents=True)
                var_dir.chmod(0o711 if os.geteuid() == 0 else 0o700)
            self._take_lock(var_dir)
            keep_secret_key(var_dir)
        except OSError as error:
            raise CannotStart(sentence_for(error, var_dir)) from error
        return var_dir

    def _take_lock(self, var_dir: Path) -> None:
        file = (var_dir / "up.lock").open("a+")
        told = False
        until = time.monotonic() + guardian.GRACE_SECONDS + guardian.DATABASE_SECONDS + 5
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                file.seek(0)
                holder = file.read().strip()
                if (holder.isdigit() and is_alive(int(holder))) or time.monotonic() > until:
                    raise CannotStart(
                        f"Meterbook is already running on {var_dir} (process {holder}); stop that one "
                        f"first, or set "
                        "METERBOOK_VAR to another folder."
                    ) from None
                if not told:
                    say("Waiting for what is left of an earlier start to end.")
                    told = True
                time.sleep(0.2)
        file.seek(0)
        file.truncate()
        file.write(f"{os.getpid()}\n")
        file.flush()
        self._lock = file

    def _start_guardian(self) -> None:
        lock = self._lock.fileno() if self._lock else -1
        reading, writing = os.pipe()
        self._guardian_pipe = os.fdopen(writing, "w", buffering=1)
        self._guardian = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(guardian.__file__)), str(reading)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=(reading, lock),
        )
        os.close(reading)

    def _tell_guardian(self, line: str) -> None:
        with contextlib.suppress(OSError, AttributeError, ValueError):
            self._guardian_pipe.write(line + "\n")

    # -- before the services
    # ----------------------------------------------------------------------------------

    def _prepare(self, settings: ModuleType, var_dir: Path) -> None:
        if os.environ.get("DATABASE_URL"):
            outside.check_database(settings.DATABASES["default"])
        else:
            self._start_database(var_dir)
        if broker := os.environ.get("CELERY_BROKER_URL"):
            outside.check_broker(broker)
        self._manage("migrate", "--noinput", "--verbosity=0", what="The database could not be brought up to date")
        self._collect_static(settings, var_dir)
        self._seed_demo(settings, var_dir)

    def _start_database(self, var_dir: Path) -> None:
        try:
            places = find_places(var_dir)
            if places.note:
                say(places.note)
            if not places.data.exists():
                say("Making a new database.")
            self.cluster = Cluster(places, output=prefixed("db"), say=say)
            self.cluster.create()
            self._database_up()
            self.cluster.ensure_database("meterbook")
        except OSError as error:
            raise CannotStart(sentence_for(error, var_dir)) from error

    def _database_up(self) -> Child:
        if self.cluster is None:
            raise RuntimeError("there is no embedded database to start")
        self.cluster.start()
        child = self.cluster.child
        if child is None:
            raise RuntimeError("a started cluster has a process")
        self._tell_guardian(f"watch {child.pid} db")
        return child

    def _manage(self, *arguments: str, what: str) -> list[str]:
        """Run one management command to its end; its last line is the reason when it fails."""
        self.step = Child(
            [sys.executable, BASE_DIR / "manage.py", *arguments],
            name="setup",
            at_parents_death=signal.SIGTERM,
            environment={**os.environ, "PYTHONUNBUFFERED": "1"},
            directory=BASE_DIR,
        )
        self._tell_guardian(f"watch {self.step.pid} setup")
        while not self.step.wait(0.5):
            pass
        words, code = self.step.last_words(), self.step.process.returncode
        self._tell_guardian(f"forget {self.step.pid}")
        self.step = None
        if code != 0:
            reason = next((line.strip() for line in reversed(words) if line.strip()), f"exit code {code}")
            if "No space left on device" in " ".join(words):
                reason = "the disk is full; make room and start again"
            raise CannotStart(f"{what}: {reason.rstrip('.')}. (`manage.py {' '.join(arguments)}` shows all of it.)")
        return words

    def _collect_static(self, settings: ModuleType, var_dir: Path) -> None:
        """Only when something changed: compressing two megabytes of scripts takes longer than all the
        rest."""
        stamp = var_dir / "static.stamp"
        now = static_fingerprint(settings)
        if stamp.exists() and stamp.read_text() == now and Path(settings.STATIC_ROOT).is_dir():
            return
        self._manage(
            "collectstatic",
            "--noinput",
            "--clear",
            "--verbosity=0",
            what="The pages' files could not be collected",
        )
        stamp.write_text(now)

    def _seed_demo(self, settings: ModuleType, var_dir: Path) -> None:
        """On the first start; later the demo customer's link, which expires, is made again."""
        seeded, seeding = var_dir / "seeded", var_dir / "seeding"
        demo = var_dir / "demo.json"
        if not seeded.exists():
            if not settings.SEED_DEMO:
                return
            interrupted = seeding.exists()
            seeding.touch()
            say("Making the demo (only this once).")
            words = self._manage("demo", what="The demo could not be made")
            seeding.unlink()
            seeded.touch()
            if interrupted and not demo.exists():
                # Not done by ourselves: what is in the database now might be somebody's own.
                words = ["The demo was interrupted while it was made; `make demo-reset` makes it anew."]
            for line in words:
                say(line)
        elif demo.exists():
            with contextlib.suppress(CannotStart):  # an expired link is no reason not to start
                self._manage("demo", "--links", what="The demo customer's link could not be renewed")

    # -- the services
    # -----------------------------------------------------------------------------------------

    def _start_services(self, settings: ModuleType) -> None:
        def starter(name: str, command: Sequence[str | Path], fds: Sequence[int] = ()) -> Callable[[], Child]:
            def start() -> Child:
                child = Child(
                    command,
                    name=name,
                    at_parents_death=signal.SIGTERM,
                    output=prefixed(name),
                    environment={
                        **os.environ,
                        "PYTHONUNBUFFERED": "1",
                        # Root in a container is usual, and messages are JSON; Celery's warning is about
                        # pickle.
                        "PYTHONWARNINGS": "ignore:You're running the worker with superuser privileges",
                    },
                    directory=BASE_DIR,
                    pass_fds=fds,
                )
                self._tell_guardian(f"watch {child.pid} {name}")
                return child

            return start

        if self.cluster is not None:
            database = Service("db", self._database_up)
            database.child, database.began = self.cluster.child, time.monotonic()
            self.services.append(database)
        if self._listening is None:
            raise RuntimeError("the port was taken before")
        fd = self._listening.fileno()
        python = sys.executable
        for name, command, fds in (
            ("web", [python, "-m", "gunicorn", "config.wsgi", *gunicorn_options(fd)], [fd]),
            ("worker", [python, "-m", "celery", "-A", "config", "--quiet", "worker", *worker_options()], []),
            ("beat", [python, "-m", "celery", "-A", "config", "--quiet", "beat", "--loglevel=WARNING"], []),
        ):
            service = Service(name, starter(name, command, fds))
            self.services.append(service)
            service.start()

    def _first_answer(self, settings: ModuleType, then: Callable[[], None]) -> Iterator[None]:
        """Step by step: ask the web server until it answers, then say so once."""
        while not answers(settings):
            yield
        then()

    def _watch(self, until_it_answers: Iterator[None]) -> NoReturn:
        while True:
            next(until_it_answers, None)
            now = time.monotonic()
            for service in self.services:
                if service.child is None:
                    if now >= service.not_before:
                        self._start_again(service)
                elif service.child.ended():
                    self._bury(service, service.child)
            if self._guardian is not None and self._guardian.poll() is not None:
                self._start_guardian()
                for service in self.services:
                    if service.child is not None:
                        self._tell_guardian(f"watch {service.child.pid} {service.name}")
            time.sleep(0.2)

    def _bury(self, service: Service, child: Child) -> None:
        child.kill_group()  # a killed Celery leaves its pool behind
        self._tell_guardian(f"forget {child.pid}")
        pause = service.plan_restart()
        say(
            f"ended ({describe_end(child.process.returncode)}); starting again"
            + (f" in {pause:g} s." if pause else "."),
            prefix=prefix_of(service.name),
        )

    def _start_again(self, service: Service) -> None:
        try:
            service.start()
        except (CannotStart, OSError) as error:
            pause = service.plan_restart()
            say(f"{error} Trying again in {pause:g} s.", prefix=prefix_of(service.name))

    # -- the end
    # ----------------------------------------------------------------------------------------------

    def _stop_all(self) -> None:
        children = [s.child for s in self.services if s.child is not None and s.name != "db"]
        if self.step is not None:
            children.append(self.step)
        if children or self.cluster is not None:
            say("Stopping.")
        for child in children:
            child.signal(signal.SIGTERM)
        until = time.monotonic() + STOP_SECONDS
        while any(not child.ended() for child in children) and time.monotonic() < until and not self.hurry:
            time.sleep(0.05)
        for child in children:
            child.kill_group()
            child.wait(5)
        if self.cluster is not None:
            self.cluster.stop()
        if self._listening is not None:
            self._listening.close()
        self._tell_guardian("done")
        if self._guardian is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._guardian.wait(5)


# -- small parts
# ----------------------------------------------------------------------------------------------


def load_settings(var_dir: Path) -> ModuleType:
    """The settings, as every part will read them; a wrong one stops us here with its own sentence."""
    from django.core.exceptions import ImproperlyConfigured

    try:
        return import_module("config.settings")
    except ImproperlyConfigured as error:
        raise CannotStart(str(error)) from error


def keep_secret_key(var_dir: Path) -> None:
    """Make the installation's key on its first start. Written beside and renamed, so it is never half a
    key."""
    file = var_dir / "secret_key"
    if os.environ.get("SECRET_KEY") or (file.exists() and file.read_text().strip()):
        return
    fresh = var_dir / "secret_key.new"
    fresh.unlink(missing_ok=True)
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(secrets.token_urlsafe(50) + "\n")
        out.flush()
        os.fsync(out.fileno())
    fresh.rename(file)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state not in "ZX"


def static_fingerprint(settings: ModuleType) -> str:
    """Changes when a file that is served, or a package that brings some, changes."""
    seen = hashlib.sha256()
    for package in (
        "Django",
        "django-unfold",
        "djangorestframework",
        "drf-spectacular-sidecar",
        "whitenoise",
    ):
        seen.update(f"{package} {metadata.version(package)}\n".encode())
    for folder in settings.STATICFILES_DIRS:
        for file in sorted(Path(folder).rglob("*")):
            if file.is_file():
                facts = file.stat()
                seen.update(f"{file} {facts.st_size} {facts.st_mtime_ns}\n".encode())
    return seen.hexdigest()


def gunicorn_options(fd: int) -> list[str]:
    return [
        f"--bind=fd://{fd}",
        "--worker-class=config.web.Worker",
        "--workers=2",
        "--threads=4",
        "--limit-request-line=8190",
        "--timeout=60",
        "--graceful-timeout=10",
        "--no-control-socket",
        "--log-level=warning",
        *(["--worker-tmp-dir=/dev/shm"] if os.access("/dev/shm", os.W_OK) else []),  # noqa: S108
    ]


def worker_options() -> list[str]:
    return [
        "--concurrency=2",
        "--loglevel=WARNING",
        "--without-gossip",
        "--without-mingle",
        "--without-heartbeat",
    ]


def prefix_of(name: str) -> str:
    return f"{name} | "


def prefixed(name: str) -> Callable[[str], None]:
    def output(line: str) -> None:
        say(line, prefix=prefix_of(name))

    return output


def describe_end(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"


def answers(settings: ModuleType) -> bool:
    """Whether the web server answers anything at all."""
    host = settings.BIND_ADDRESS.strip("[]")
    connection = http.client.HTTPConnection(
        {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host),  # noqa: S104  (compared with, not bound)
        settings.PORT,
        timeout=10,
    )
    try:
        connection.request("GET", "/admin/login/", headers={"Host": "localhost"})
        connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return True


def announce(settings: ModuleType, var_dir: Path) -> None:
    """Where everything is, and how to get in."""
    base = settings.BASE_URL
    lines = ["", "Meterbook is running. Ctrl-C stops it.", "", f"  Admin              {base}/admin/"]
    demo: dict[str, str] = {}
    with contextlib.suppress(OSError, ValueError):
        demo = json.loads((var_dir / "demo.json").read_text())
    if demo.get("admin_username"):
        lines.append(f"                     demo operator {demo['admin_username']}, password {demo['admin_password']}")
    else:
        lines.append("                     make an operator with `.venv/bin/python manage.py createsuperuser`")
    lines.append(f"  API documentation  {base}/docs")
    if demo.get("api_key"):
        lines.append(f"  API key            {demo['api_key']}")
    else:
        lines.append("  API key            make one with `.venv/bin/python manage.py create_api_key NAME`")
    if demo.get("portal_link"):
        lines.append(f"  Customer's page    {demo['portal_link']}")
    lines += [f"  Data               {var_dir}", ""]
    for line in lines:
        say(line)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m config.up", description="Run all of Meterbook.")
    parser.add_argument("--with-parent", action="store_true", help="stop when the process that started this one ends")
    if parser.parse_args().with_parent:
        signal_me_when_parent_dies(signal.SIGTERM)
    try:
        Supervisor().run()
    except CannotStart as problem:
        print(problem, file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        print(sentence_for(error, BASE_DIR), file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
