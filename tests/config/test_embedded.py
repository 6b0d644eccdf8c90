"""The facts that settings and `config.up` share, and the sentences a failed start is told in."""

import errno
import socket
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from config import embedded
from config.up import outside
from config.up.__main__ import describe_end, keep_secret_key
from config.up.places import sentence_for
from config.up.problems import CannotStart


def test_a_password_with_odd_characters_survives_the_way_to_the_broker() -> None:
    database = {
        "HOST": "/var/run/a b",
        "PORT": "5433",
        "NAME": "it's",
        "USER": "o'brien",
        "PASSWORD": r"a\b c'd=\'",
        "OPTIONS": {"connect_timeout": 3, "sslmode": "require", "pool": True, "isolation_level": 4},
    }
    assert conninfo_to_dict(embedded.conninfo(database)) == {
        "host": "/var/run/a b",
        "port": "5433",
        "dbname": "it's",
        "user": "o'brien",
        "password": r"a\b c'd=\'",
        "connect_timeout": "3",
        "sslmode": "require",
    }


def test_what_is_not_given_is_left_to_libpq() -> None:
    assert conninfo_to_dict(embedded.conninfo({"NAME": "a", "HOST": "", "PORT": None})) == {"dbname": "a"}


def test_the_socket_is_found_where_its_link_leads(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "var" / "postgres").mkdir(parents=True)
    (tmp_path / "var" / "postgres" / "socket").symlink_to(tmp_path / "elsewhere")
    assert embedded.database_config(tmp_path / "var")["HOST"] == str((tmp_path / "elsewhere").resolve())


def test_the_key_is_made_once_and_only_its_owner_may_read_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SECRET_KEY", raising=False)
    assert embedded.stored_secret_key(tmp_path) == ""
    keep_secret_key(tmp_path)
    key = embedded.stored_secret_key(tmp_path)
    keep_secret_key(tmp_path)
    assert embedded.stored_secret_key(tmp_path) == key
    assert len(key) >= 50
    assert [(file.name, file.stat().st_mode & 0o777) for file in tmp_path.iterdir()] == [("secret_key", 0o600)]


def test_no_key_is_stored_where_one_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "given")
    keep_secret_key(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(errno.ENOSPC, "x", "/a/b"), "The disk is full (/a/b); make room and start again."),
        (OSError(errno.ENOSPC, "x"), "The disk is full (/var/x); make room and start again."),
        (OSError(errno.EROFS, "x", "/a"), "/a is on a read-only file system; set METERBOOK_VAR to a folder that"),
        (OSError(errno.EACCES, "x", "/a"), "No permission to use /a; give user "),
        (OSError(errno.ENOTDIR, "Not a directory", "/a"), "/a: Not a directory."),
    ],
)
def test_an_error_of_the_file_system_is_one_sentence(error: OSError, sentence: str) -> None:
    said = sentence_for(error, Path("/var/x"))
    assert said.startswith(sentence)
    assert "\n" not in said


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            'connection failed: connection to server at "10.0.0.1", port 5432 failed: Connection refused\n'
            "\tIs the server running on that host and accepting TCP/IP connections?",
            "the server at db:5432 cannot be reached (Connection refused).",
        ),
        (
            'connection failed: FATAL:  password authentication failed for user "me"',
            "the server at db:5432 refuses the password of user me.",
        ),
        ("fe_sendauth: no password supplied", "the server at db:5432 refuses the password of user me."),
        (
            'connection failed: FATAL:  database "shop" does not exist',
            "the server at db:5432 has no database shop; make it with `createdb shop`.",
        ),
        (
            'connection failed: FATAL:  role "me" does not exist',
            "the server at db:5432 knows no user me; make it with `createuser me`.",
        ),
        (
            "connection failed: FATAL:  sorry, too many clients already",
            "the server at db:5432 cannot be reached (sorry, too many clients already).",
        ),
        ("", "the server at db:5432 cannot be reached (no answer)."),
    ],
)
def test_a_database_that_does_not_let_us_in_is_one_sentence(text: str, reason: str) -> None:
    assert outside._reason(text, "db:5432", "shop", "me") == reason


def test_a_port_is_taken_before_anything_is_started() -> None:
    taken = outside.take_port("127.0.0.1", 0)
    try:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(CannotStart, match=f"Port {port} is taken by another program"):
            outside.take_port("127.0.0.1", port)
    finally:
        taken.close()
    again = outside.take_port("127.0.0.1", port)  # a closed one may be taken at once
    assert again.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 0  # bound, and refusing until gunicorn listens
    again.close()


@pytest.mark.parametrize(
    ("address", "said"), [("256.0.0.1", "Cannot listen on 256.0.0.1:8000"), ("192.0.2.1", "Cannot listen on 192.0.2.1")]
)
def test_an_address_that_is_not_ours_is_one_sentence(address: str, said: str) -> None:
    with pytest.raises(CannotStart, match=said):
        outside.take_port(address, 8000)


@pytest.mark.parametrize(
    ("code", "said"), [(0, "exit code 0"), (3, "exit code 3"), (-9, "signal SIGKILL"), (-99, "exit code -99")]
)
def test_an_end_is_told_in_words(code: int, said: str) -> None:
    assert describe_end(code) == said


def test_no_database_is_said_for_the_one_that_is_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    error = Exception('connection failed: connection to server on socket "/x" failed: No such file\n\tIs the server')
    monkeypatch.delenv("DATABASE_URL", raising=False)
    assert embedded.sentence_about_connection(error).startswith("The embedded database is not running; start it with")
    monkeypatch.setenv("DATABASE_URL", "postgres://me:secret@db/shop")
    said = embedded.sentence_about_connection(error)
    assert said.startswith("The database that DATABASE_URL names cannot be reached: connection failed")
    assert "secret" not in said
    assert "\n" not in said
