"""Where the embedded PostgreSQL listens and keeps its key: the few facts that settings and `config.up` share.

Imports no Django, so that settings can use it.
"""

from pathlib import Path
from typing import Any


def stored_secret_key(var_dir: Path) -> str:
    """The key `config.up` made on its first start, or '' where there is none yet."""
    try:
        return (var_dir / "secret_key").read_text().strip()
    except OSError:
        return ""


def database_config(var_dir: Path) -> dict[str, Any]:
    """Django's settings for the embedded server under `var_dir`, running or not."""
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "meterbook",
        "USER": "meterbook",
        "HOST": str(var_dir / "postgres" / "socket"),
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
    quoted = {key: str(value).replace("\\", "\\\\").replace("'", "\\'") for key, value in parts.items() if value}
    return " ".join(f"{key}='{value}'" for key, value in quoted.items())
