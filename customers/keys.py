"""API keys: made once, kept as a hash, looked up on every request.

A key reads `mk_<10 characters>_<43 characters>`. What stands before the second underscore is its prefix:
public, shown in lists, and how a presented key finds its row. The rest is 256 random bits.
"""

import hashlib
import hmac
import re
import secrets
import string
import threading
import time
from datetime import datetime

from django.db import transaction

from customers.errors import DomainError
from customers.models import ApiKey

_ALPHABET = string.ascii_letters + string.digits
_PREFIX_CHARACTERS = 10
_SECRET_CHARACTERS = 43  # 43 x log2(62) = 256 bits
_SHAPE = re.compile(r"(mk_[A-Za-z0-9]{8,29})_[A-Za-z0-9]{20,100}", re.ASCII)

# How long a process may go on believing what it last read about a key: a revoke works everywhere within this.
CACHE_SECONDS = 5.0
_NO_HASH = bytes(32)


class ApiKeyAlreadyRevoked(DomainError):
    code = "API_KEY_ALREADY_REVOKED"
    status = 409


class _Cache:
    """Keys that exist, by prefix, for a few seconds, so that an ordinary request costs no query for its key.

    An unknown prefix is never kept: guessing must not fill the memory.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows: dict[str, tuple[float, ApiKey]] = {}

    def get(self, prefix: str) -> ApiKey | None:
        with self._lock:
            read_at, key = self._rows.get(prefix, (0.0, None))
            if key is None or time.monotonic() - read_at > CACHE_SECONDS:
                return None
            return key

    def put(self, key: ApiKey, *, read_at: float) -> None:
        with self._lock:
            self._rows[key.prefix] = (read_at, key)

    def drop(self, prefix: str) -> None:
        with self._lock:
            self._rows.pop(prefix, None)

    def clear(self) -> None:
        with self._lock:
            self._rows.clear()


_cache = _Cache()


def _random(characters: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(characters))


def _hash(presented: str) -> bytes:
    return hashlib.sha256(presented.encode()).digest()


def create_api_key(*, name: str, read_only: bool = False, backfill: bool = False) -> tuple[ApiKey, str]:
    """Make a key. Returns its row and the whole key, which nobody can read again afterwards."""
    name = name.strip()
    if not name:
        raise DomainError("Give the key a name that says which application uses it.")
    if len(name) > 100:
        raise DomainError("The name of a key has at most 100 characters.")
    if read_only and backfill:
        raise DomainError("A read-only key cannot send events, so it cannot backfill either.")
    prefix = f"mk_{_random(_PREFIX_CHARACTERS)}"
    full_key = f"{prefix}_{_random(_SECRET_CHARACTERS)}"
    key = ApiKey.objects.create(
        name=name, prefix=prefix, secret_hash=_hash(full_key), read_only=read_only, backfill=backfill
    )
    return key, full_key


def revoke_api_key(*, key: ApiKey, now: datetime) -> None:
    """End a key for good. This process refuses it from the commit on, the others within `CACHE_SECONDS`."""
    changed = ApiKey.objects.filter(pk=key.pk, revoked_at__isnull=True).update(revoked_at=now)
    if not changed:
        raise ApiKeyAlreadyRevoked(f"The key {key.prefix}… is revoked already.")
    key.revoked_at = now
    transaction.on_commit(lambda: _cache.drop(key.prefix))


def find_api_key(*, presented: str) -> ApiKey | None:
    """The active key that was presented, or None. The secret is compared in constant time."""
    shape = _SHAPE.fullmatch(presented)
    if shape is None:
        return None
    prefix = shape.group(1)
    key = _cache.get(prefix)
    if key is None:
        read_at = time.monotonic()
        key = ApiKey.objects.filter(prefix=prefix).first()
        if key is not None:
            _cache.put(key, read_at=read_at)
    # An unknown prefix costs the same comparison, so that timing does not tell which prefixes exist.
    expected = _NO_HASH if key is None else bytes(key.secret_hash)
    matches = hmac.compare_digest(expected, _hash(presented))
    if key is None or not matches or not key.is_active():
        return None
    return key


def forget_cached_keys() -> None:
    """Read every key afresh from now on (tests that replace the database under a running process)."""
    _cache.clear()
