"""API keys: shown once, kept as a hash, found without a query, dead soon after they are revoked."""

import hashlib
import io
from datetime import UTC, datetime
from typing import Any

import pytest
import time_machine
from django.core.management import CommandError, call_command

from customers import keys
from customers.errors import DomainError
from customers.keys import CACHE_SECONDS, create_api_key, find_api_key, forget_cached_keys, revoke_api_key
from customers.models import ApiKey

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_only_a_hash_is_stored() -> None:
    row, full = create_api_key(name="shop")
    prefix, secret = full.rsplit("_", 1)
    assert (row.prefix, len(secret)) == (prefix, 43)
    assert bytes(row.secret_hash) == hashlib.sha256(full.encode()).digest()
    stored = ApiKey.objects.filter(pk=row.pk).values().get()
    assert secret not in repr(stored)
    assert secret not in repr(bytes(stored["secret_hash"]))


def test_a_key_is_found_by_itself_alone() -> None:
    row, full = create_api_key(name="shop")
    create_api_key(name="other")
    assert find_api_key(presented=full) == row
    prefix = row.prefix
    for wrong in (
        "",
        prefix,
        f"{prefix}_",
        full[:-1],
        full + "a",
        full.swapcase(),
        f" {full}",
        f"{full}\n",
        "mk_" * 99,
    ):
        assert find_api_key(presented=wrong) is None


def test_two_keys_never_share_a_secret() -> None:
    made = {create_api_key(name="shop")[1] for _ in range(20)}
    assert len({full.rsplit("_", 1)[1] for full in made}) == 20


def test_a_known_key_costs_one_query_in_five_seconds(django_assert_num_queries: Any) -> None:
    row, full = create_api_key(name="shop")
    forget_cached_keys()
    with django_assert_num_queries(1):
        for _ in range(10):
            assert find_api_key(presented=full) == row


def test_an_unknown_prefix_is_never_remembered() -> None:
    forget_cached_keys()
    for number in range(50):
        assert find_api_key(presented=f"mk_unknown{number:04d}_{'a' * 43}") is None
    assert keys._cache._rows == {}


def test_revoking_works_at_once_here(django_capture_on_commit_callbacks: Any) -> None:
    row, full = create_api_key(name="shop")
    assert find_api_key(presented=full)
    with django_capture_on_commit_callbacks(execute=True):
        revoke_api_key(key=row, now=NOW)
    assert find_api_key(presented=full) is None
    assert ApiKey.objects.get().revoked_at == NOW
    with pytest.raises(DomainError, match="is revoked already"):
        revoke_api_key(key=row, now=NOW)


def test_revoking_in_another_process_works_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    row, full = create_api_key(name="shop")
    assert find_api_key(presented=full)
    ApiKey.objects.filter(pk=row.pk).update(revoked_at=NOW)  # as another process does it
    read_at = keys._cache._rows[row.prefix][0]
    monkeypatch.setattr(keys.time, "monotonic", lambda: read_at + CACHE_SECONDS + 0.1)
    assert find_api_key(presented=full) is None
    assert CACHE_SECONDS <= 5


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"name": "  "}, "a name"),
        ({"name": "x" * 101}, "100 characters"),
        ({"name": "shop", "read_only": True, "backfill": True}, "cannot send events"),
    ],
)
def test_odd_keys_are_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(DomainError, match=said):
        create_api_key(**arguments)
    assert not ApiKey.objects.exists()


@time_machine.travel(NOW, tick=False)
def test_the_command_prints_the_key_alone_on_stdout() -> None:
    out, err = io.StringIO(), io.StringIO()
    call_command("create_api_key", "shop", "--backfill", stdout=out, stderr=err)
    key = find_api_key(presented=out.getvalue().rstrip("\n"))
    assert key is not None
    assert (key.name, key.read_only, key.backfill) == ("shop", False, True)
    assert "only a hash is stored" in err.getvalue()
    with pytest.raises(CommandError, match="cannot backfill"):
        call_command("create_api_key", "shop", "--backfill", "--read-only", stdout=out, stderr=err)
