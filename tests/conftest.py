"""One real PostgreSQL for the whole suite, started only when a test first asks for a database.

With `DATABASE_URL` that server is used, else an embedded one in a temporary folder, shared by all
pytest-xdist processes. Each process makes a database of its own in it (`PYTEST_DB_SUFFIX` keeps two suites
on one server apart).
"""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest

from config import embedded
from config.up.places import Places, account_to_run_as, make_private, readable_binaries
from config.up.postgres import ROLE, Cluster

# A test's data is worth nothing after the test, so only here does the server skip the disk.
NOT_DURABLE = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "max_connections": "200",
}


class SuiteServer:
    """The embedded server of one run of the suite; it ends with the pytest process that started it."""

    def __init__(self) -> None:
        account = account_to_run_as()
        self.folder = Path(tempfile.mkdtemp(prefix="meterbook-tests-"))
        self.folder.chmod(0o711)
        sockets = self.folder / "s"
        make_private(sockets, account)
        binaries = readable_binaries(account, self.folder)
        self.cluster = Cluster(
            Places(self.folder / "data", sockets, binaries, account, note=""), settings=NOT_DURABLE
        )
        try:
            self.cluster.create()
            self.cluster.start()
            self.cluster.ensure_database("meterbook")
            self.cluster.allow_making_databases()
        except BaseException:
            self.stop()
            raise

    def address(self) -> dict[str, Any]:
        return {
            "HOST": str(self.cluster.places.sockets),
            "PORT": "",
            "USER": ROLE,
            "PASSWORD": "",
            "NAME": "meterbook",
        }

    def stop(self) -> None:
        self.cluster.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


_suite_server: SuiteServer | None = None


def _suite_address(config: pytest.Config) -> dict[str, Any]:
    """Where this run's server is; starts it if this is the first to ask."""
    global _suite_server
    if given := getattr(config, "workerinput", {}).get("meterbook_database"):
        return dict(given)
    if _suite_server is None:
        _suite_server = SuiteServer()
    return _suite_server.address()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """The controller of pytest-xdist starts the server and tells each of its processes."""
    if not os.environ.get("DATABASE_URL"):
        node.workerinput["meterbook_database"] = _suite_address(node.config)


def pytest_unconfigure(config: pytest.Config) -> None:
    global _suite_server
    if _suite_server is not None:
        _suite_server.stop()
        _suite_server = None


@pytest.fixture(scope="session")
def django_db_modify_db_settings(
    request: pytest.FixtureRequest, django_db_modify_db_settings_parallel_suffix: None
) -> None:
    """Point Django, and the broker that lives in the same database, at this run's server and database."""
    from django.conf import settings
    from django.db import connections

    database = connections.settings["default"]
    if not os.environ.get("DATABASE_URL"):
        database.update(_suite_address(request.config))
    names = [str(database["NAME"]), os.environ.get("PYTEST_DB_SUFFIX", "")]
    if process := os.environ.get("PYTEST_XDIST_WORKER"):
        names.append(process)
    database["TEST"]["NAME"] = "test_" + "_".join(name for name in names if name)
    options = settings.CELERY_BROKER_TRANSPORT_OPTIONS
    if "conn_string" in options:
        options["conn_string"] = embedded.conninfo({**database, "NAME": database["TEST"]["NAME"]})
