from collections.abc import Iterator
from typing import Any

import pytest
from django.db import transaction
from django.test import Client

from tests.admin.house import House, build_house, superuser


@pytest.fixture(scope="module")
def built(django_db_setup: None, django_db_blocker: Any) -> Iterator[House]:
    """The house of a whole module, built once; each test works in a savepoint inside and leaves nothing behind."""
    with django_db_blocker.unblock(), transaction.atomic():
        yield build_house()
        transaction.set_rollback(True)


@pytest.fixture
def house(built: House, db: None) -> House:
    return built


@pytest.fixture
def root(db: None) -> Client:
    """A client of somebody who may do everything."""
    return superuser()
