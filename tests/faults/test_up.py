"""`make run` itself: it starts, stops, is killed, comes back, and says in one sentence what is in its way."""

import os
import pwd
import shutil
import signal
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.stack import Stack, roomy_folder

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def installed(start_stack: Callable[..., Stack]) -> Stack:
    """An embedded installation that has been started once and stopped; tests start it again over its data."""
    stack = start_stack(DATABASE_URL="")
    stack.manage("create_api_key", "kept")
    assert stack.stop(signal.SIGINT) == 0
    return stack


@pytest.fixture
def stack(installed: Stack) -> Iterator[Stack]:
    """That installation, put to rest after the test whatever it did."""
    yield installed
    installed.kill_everything()


def keys(stack: Stack) -> list[str]:
    names = "ApiKey.objects.order_by('name').values_list('name', flat=True)"
    code = f"from customers.models import ApiKey; print(*{names}, sep='\\n')"
    return stack.manage("shell", "--no-imports", "-c", code).stdout.splitlines()


FORGET_ALL_BUT_KEPT = "from customers.models import ApiKey; ApiKey.objects.exclude(name='kept').delete()"


def status(stack: Stack, path: str = "/admin/login/") -> int:
    with urllib.request.urlopen(stack.base_url + path, timeout=10) as answer:  # noqa: S310  (our own server)
        return int(answer.status)


def one_sentence(output: str) -> str:
    """The last line of a refused start, which must be the only complaint."""
    assert "Traceback" not in output
    *before, last = output.splitlines()
    routine = ("Making a new database.", "Stopping.", "db | ", "Stopping a database")
    assert [line for line in before if not line.startswith(routine)] == []
    return last


def test_ctrl_c_leaves_no_process_and_the_next_start_keeps_the_data(stack: Stack) -> None:
    stack.start()
    assert status(stack) == 200
    assert len(stack.pids_of("celery")) >= 4  # worker, its two children, beat
    assert stack.stop(signal.SIGINT) == 0
    assert stack.pids() == []
    stack.start()
    assert keys(stack) == ["kept"]
    assert stack.stop(signal.SIGTERM) == 0
    assert stack.pids() == []


def test_a_second_start_on_the_same_data_is_refused_and_the_first_goes_on(stack: Stack) -> None:
    stack.start()
    first = stack.process
    assert first is not None
    second = stack.refused()
    assert one_sentence(second) == (
        f"Meterbook is already running on {stack.var} (process {first.pid}); stop that one first, or set "
        "METERBOOK_VAR to another folder."
    )
    assert first.poll() is None
    assert status(stack) == 200
    stack.process = first
    assert stack.stop() == 0


def test_killing_the_supervisor_ends_everything_and_the_next_start_waits_for_it(stack: Stack) -> None:
    process = stack.start().process
    assert process is not None
    process.kill()
    process.wait()
    stack.start()  # at once: what is left of the first is still ending
    assert keys(stack) == ["kept"]
    assert stack.stop() == 0
    assert stack.pids() == []


def test_after_kill_9_of_every_process_it_simply_comes_back(stack: Stack) -> None:
    stack.start()
    stack.manage("create_api_key", "written just before")
    stack.kill_everything()
    assert stack.pids() == []
    assert (stack.var / "postgres" / "data" / "postmaster.pid").exists()
    stack.start()
    assert keys(stack) == ["kept", "written just before"]
    stack.manage("shell", "--no-imports", "-c", FORGET_ALL_BUT_KEPT)
    assert stack.stop() == 0


def test_a_postmaster_pid_that_names_a_living_stranger_does_not_stop_it(stack: Stack) -> None:
    """After a container's restart the old server's process id usually belongs to somebody else."""
    file = stack.var / "postgres" / "data" / "postmaster.pid"
    file.write_text(f"{os.getpid()}\n{file.parent}\n1\n5432\n\n\n 1 1\nready\n")
    shutil.chown(file, (stack.var / "postgres" / "data").stat().st_uid)
    stack.start()
    assert keys(stack) == ["kept"]
    assert stack.stop() == 0


def test_each_part_that_dies_is_started_again(stack: Stack) -> None:
    stack.start()
    parts = ["gunicorn", "celery -A config --quiet worker", "celery -A config --quiet beat", "postgres -D"]
    before = {part: stack.pids_of(part)[0] for part in parts}
    worker_children = stack.pids_of(parts[1])[1:]
    for part in parts:
        os.kill(before[part], signal.SIGKILL)
    until = time.monotonic() + 60
    while time.monotonic() < until:
        now = {part: pids[0] for part in parts if (pids := stack.pids_of(part))}
        if now.keys() == before.keys() and all(now[part] != before[part] for part in parts):
            break
        time.sleep(0.1)
    assert now.keys() == before.keys()
    assert not set(now.values()) & set(before.values())
    assert not set(worker_children) & set(stack.pids())  # the killed worker's children went with it
    while time.monotonic() < until:
        try:
            assert keys(stack) == ["kept"]
            assert status(stack) == 200
            break
        except (AssertionError, OSError):
            time.sleep(0.5)
    assert status(stack) == 200
    assert stack.stop() == 0
    assert stack.pids() == []


def test_no_other_user_can_reach_the_database(stack: Stack) -> None:
    data, sockets = stack.var / "postgres" / "data", stack.var / "postgres" / "socket"
    assert [folder.stat().st_mode & 0o777 for folder in (data, sockets)] == [0o700, 0o700]
    assert (stack.var / "secret_key").stat().st_mode & 0o777 == 0o600
    rules = [line.split() for line in (data / "pg_hba.conf").read_text().splitlines()]
    assert rules == [["local", "all", role, "peer", "map=operators"] for role in ("postgres", "meterbook")]
    mapped = {line.split()[1].strip('"') for line in (data / "pg_ident.conf").read_text().splitlines()}
    assert mapped == {"root", pwd.getpwuid(os.geteuid()).pw_name}


def test_manage_py_says_that_the_database_is_not_running(stack: Stack) -> None:
    done = stack.manage("showmigrations", check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.strip() == (
        "The embedded database is not running; start it with `make run` and try again in another shell."
    )


def test_a_taken_port_is_one_sentence(stack: Stack) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", stack.port))
        other.listen()
        said = stack.refused()
    assert said == (
        f"Port {stack.port} is taken by another program; stop that one, or choose another port: "
        f"`make run PORT={stack.port + 1}`."
    )


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"BILLING_TIME_ZONE": "Mars/Olympus"}, "BILLING_TIME_ZONE='Mars/Olympus' is not a time zone"),
        ({"PORT": "eighty"}, "PORT must be a whole number."),
        ({"PORT": "70000"}, "PORT=70000 is not a port; choose one from 1 to 65535."),
        (
            {"DATABASE_URL": "mysql://a@localhost/a"},
            "DATABASE_URL must name a PostgreSQL 15 or newer (postgres://…).",
        ),
        (
            {"DATABASE_URL": "postgres://a:secret@127.0.0.1:1/a"},
            "DATABASE_URL: the server at 127.0.0.1:1 cannot be reached (Connection refused).",
        ),
        (
            {"CELERY_BROKER_URL": "redis://:secret@127.0.0.1:1/0"},
            "CELERY_BROKER_URL: the broker at redis://:**@127.0.0.1:1/0 cannot be reached (",
        ),
        (
            {"CELERY_BROKER_URL": "amqp://guest:secret@127.0.0.1:1//"},
            "CELERY_BROKER_URL: the broker at amqp://guest:**@127.0.0.1:1// cannot be reached (",
        ),
        ({"CELERY_BROKER_URL": "carrier-pigeon://x"}, "CELERY_BROKER_URL"),
    ],
)
def test_a_wrong_setting_is_one_sentence(stack: Stack, environment: dict[str, str], sentence: str) -> None:
    usual = dict(stack.environment)
    stack.environment.update(environment)
    try:
        said = one_sentence(stack.refused())
    finally:
        stack.environment.clear()
        stack.environment.update(usual)
    assert said.startswith(sentence)
    assert "secret" not in said
    assert stack.pids() == []


def test_a_database_of_another_major_version_is_one_sentence(stack: Stack) -> None:
    version = stack.var / "postgres" / "data" / "PG_VERSION"
    usual = version.read_text()
    version.write_text("16\n")
    try:
        said = one_sentence(stack.refused())
    finally:
        version.write_text(usual)
    assert said.startswith(
        f"The database in {version.parent} was made by PostgreSQL 16 and this one is {usual.strip()}; move it"
    )


@pytest.mark.parametrize("missing", ["PG_VERSION", "global/pg_control", "global", "pg_wal"])
def test_a_broken_database_is_one_sentence(stack: Stack, missing: str) -> None:
    lost = stack.var / "postgres" / "data" / missing
    aside = stack.folder / "aside"
    lost.rename(aside)
    try:
        said = one_sentence(stack.refused())
    finally:
        if lost.is_dir():
            shutil.rmtree(lost)
        aside.rename(lost)
    assert str(stack.var / "postgres" / "data") in said
    assert "estore a backup into it" in said or "Restore a backup" in said
    assert stack.pids() == []


def test_a_folder_that_may_not_be_written_is_one_sentence(start_stack: Callable[..., Stack]) -> None:
    """Root may write everywhere, so there a file stands where the folder should be."""
    closed = roomy_folder("meterbook-closed-")
    var = closed / "var"
    if os.geteuid() == 0:
        (closed / "file").touch()
        var = closed / "file" / "var"
        reason = f"{var}: Not a directory."
    else:
        closed.chmod(0o500)
        reason = f"No permission to use {var};"
    stack = start_stack(running=False, DATABASE_URL="", METERBOOK_VAR=str(var))
    try:
        assert one_sentence(stack.refused()).startswith(reason)
    finally:
        closed.chmod(0o700)
        shutil.rmtree(closed)


def test_a_path_too_long_for_a_socket_is_no_obstacle(start_stack: Callable[..., Stack]) -> None:
    stack = start_stack(running=False, DATABASE_URL="")
    stack.var = stack.folder / ("long-" * 20) / "var"
    stack.var.parent.mkdir(mode=0o711)
    stack.environment["METERBOOK_VAR"] = str(stack.var)
    stack.start()
    sockets = stack.var / "postgres" / "socket"
    assert sockets.is_symlink()
    assert Path(sockets).stat().st_mode & 0o777 == 0o700
    assert keys(stack) == [""]
    assert stack.stop() == 0
