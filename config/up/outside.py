"""Checks of what lies outside: the port, and the servers that replace an embedded part.

Each finds out before anything is started, and says in one sentence what is in the way.
"""

import errno
import os
import socket
from typing import Any

import kombu
import psycopg
from kombu.exceptions import KombuError

from config import embedded
from config.up.problems import CannotStart

OLDEST_POSTGRESQL = 15


def take_port(address: str, port: int) -> socket.socket:
    """The socket the web server will listen on, bound but not yet listening."""
    if port > 65535:
        raise CannotStart(f"PORT={port} is not a port; choose one from 1 to 65535.")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((address.strip("[]"), port))
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            other = port + 1 if port < 65535 else 8000
            raise CannotStart(
                f"Port {port} is taken by another program; stop that one, or choose another port: "
                f"`make run PORT={other}`."
            ) from error
        if error.errno == errno.EACCES:
            raise CannotStart(
                f"Port {port} needs more rights than user id {os.geteuid()} has; choose one above 1023: "
                "`make run PORT=8000`."
            ) from error
        raise CannotStart(f"Cannot listen on {address}:{port} (BIND_ADDRESS, PORT): {error.strerror}.") from error
    return bound


def check_database(database: dict[str, Any]) -> None:
    """That DATABASE_URL names a PostgreSQL which is there, lets us in, is new enough, and lets us make
    tables."""
    place = f"{database.get('HOST') or 'localhost'}:{database.get('PORT') or 5432}"
    name, user = database.get("NAME"), database.get("USER")
    try:
        connection = psycopg.connect(embedded.conninfo(database), autocommit=True)
    except psycopg.OperationalError as error:
        raise CannotStart(f"DATABASE_URL: {_reason(str(error), place, str(name), str(user))}") from error
    with connection:
        version = connection.info.server_version // 10000
        if version < OLDEST_POSTGRESQL:
            raise CannotStart(
                f"DATABASE_URL: the server at {place} is PostgreSQL {version}; Meterbook needs "
                f"{OLDEST_POSTGRESQL} or newer."
            )
        row = connection.execute(
            "SELECT has_database_privilege(current_database(), 'CREATE'), "
            "has_schema_privilege('public', 'CREATE'),"
            " current_setting('server_encoding')"
        ).fetchone()
        can_add_schemas, can_add_tables, encoding = row or (False, False, "")
        if not (can_add_schemas and can_add_tables):
            raise CannotStart(
                f"DATABASE_URL: user {user} may not make tables in database {name}; make it the owner: "
                f"`ALTER DATABASE {name} OWNER TO {user}`."
            )
        if encoding != "UTF8":
            raise CannotStart(f"DATABASE_URL: database {name} is encoded in {encoding}; make one in UTF8.")


def _reason(text: str, place: str, name: str, user: str) -> str:
    if "password authentication failed" in text or "no password supplied" in text:
        return f"the server at {place} refuses the password of user {user}."
    if f'database "{name}" does not exist' in text:
        return f"the server at {place} has no database {name}; make it with `createdb {name}`."
    if f'role "{user}" does not exist' in text:
        return f"the server at {place} knows no user {user}; make it with `createuser {user}`."
    lines = [line.strip() for line in text.splitlines() if line.strip() and "Is the server running" not in line]
    last = lines[-1] if lines else "no answer"
    last = last.rpartition("failed:")[2].replace("FATAL:", "")
    return f"the server at {place} cannot be reached ({last.strip().rstrip('.')})."


def check_broker(url: str) -> None:
    """That CELERY_BROKER_URL names a broker that answers."""
    try:
        connection = kombu.Connection(url, connect_timeout=5)
        shown = str(connection.as_uri())  # without the password
    except (KombuError, ValueError, KeyError, TypeError) as error:
        raise CannotStart(f"CELERY_BROKER_URL is not the address of a broker: {error}.") from error
    try:
        connection.ensure_connection(max_retries=1, interval_start=0, timeout=5, reraise_as_library_errors=False)
    except Exception as error:  # each transport brings errors of its own; all of them mean the same here
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise CannotStart(f"CELERY_BROKER_URL: the broker at {shown} cannot be reached ({reason}).") from error
    finally:
        connection.release()
