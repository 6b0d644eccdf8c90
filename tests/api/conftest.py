import pytest

from tests.api.client import Api, api


@pytest.fixture(name="api")
def _api(db: None) -> Api:
    """A client with a key that may read and write."""
    return api()
