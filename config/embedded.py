"""Where the embedded PostgreSQL listens and keeps its key: the few facts that settings and `config.up` share.

Imports no Django, so that settings can use it.
"""

import os
from pathlib import Path
from typing import Any

from psycopg.conninfo import make_conninfo

# Of Django's OPTIONS, those that are libpq's and so mean the same to another client of the same database.
_LIBPQ_OPTIONS = {
    "connect_timeout",
    "keepalives_idle",
    "options",
    "passfile",
    "service",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "target_session_attrs",
    "tcp_user_timeout",
}


def stored_secret_key(var_dir: Path) -> str:
    """The key `config.up` made on its first start, or '' where there is none yet."""
    try:
        return (var_dir / "secret_key").read_text().strip()
    except OSError:
        return ""


def database_config(var_dir: Path) -> dict[str, Any]:
    """Django's settings for the embedded server under `var_dir`, running or not.

    The socket's folder can be a link to a shorter path (config/up/places.py), and libpq measures the path it
    is given, so the link is followed here.
    """
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "meterbook",
        "USER": "meterbook",
        "HOST": os.path.realpath(var_dir / "postgres" / "socket"),
        "OPTIONS": {},
    }


def conninfo(database: dict[str, Any]) -> str:
    """libpq's key=value form of a Django database, which kombu's pgmq transport wants."""
    parts = {
        "host": database.get("HOST"),
        "port": database.get("PORT"),
        "dbname": database.get("NAME"),
        "user": database.get("USER"),
        "password": database.get("PASSWORD"),
    }
    options = {key: value for key, value in database.get("OPTIONS", {}).items() if key in _LIBPQ_OPTIONS}
    return make_conninfo("", **{key: value for key, value in {**options, **parts}.items() if value})


def sentence_about_connection(error: Exception) -> str:
    """What a person at the shell should know when the database could not be connected to."""
    if not os.environ.get("DATABASE_URL"):
        return "The embedded database is not running; start it with `make run` and try again in another shell."
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "no answer")
    return f"The database that DATABASE_URL names cannot be reached: {reason}"
