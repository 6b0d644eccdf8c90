"""One real PostgreSQL for the whole suite, started only when a test first asks for a database.

With `DATABASE_URL` that server is used, else an embedded one in a temporary folder, shared by all
pytest-xdist processes. Each process makes a database of its own in it (`PYTEST_DB_SUFFIX` keeps two suites
on one server apart).
"""

import os
import shutil
import unittest
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import hypothesis
import pytest

from config import embedded
from config.up.places import Places, account_to_run_as, make_private, readable_binaries
from config.up.postgres import ROLE, Cluster
from tests.stack import Stack, roomy_folder

# How long an example takes says nothing about whether it is right, and a busy machine takes longer.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

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
        self.folder = roomy_folder("meterbook-tests-")
        sockets = self.folder / "s"
        make_private(sockets, account)
        binaries = readable_binaries(account, self.folder)
        self.cluster = Cluster(Places(self.folder / "data", sockets, binaries, account, note=""), settings=NOT_DURABLE)
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


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None) -> Iterator[None]:
    """pytest-django's own; before it drops the database, the broker's connections to it must go."""
    yield
    from kombu import pools

    pools.reset()


# -- which tests run, and where -------------------------------------------------------------------------------

# Playwright keeps an event loop running in the thread of the tests, and Django then refuses to speak to the database
# from it. Nothing here is asynchronous: a test waits for its browser.
os.environ.setdefault("DJANGO_ALLOW_ASYNC_UNSAFE", "true")

_NEEDS_A_DATABASE = {"db", "transactional_db", "django_db_setup", "live_server", "start_stack", "live_stack"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fast", action="store_true", help="only tests that need no database and no process")


def _is_fast(item: pytest.Item) -> bool:
    if any(item.get_closest_marker(name) for name in ("django_db", "browser", "sdk", "faults")):
        return False
    test_class = getattr(item, "cls", None)
    if test_class is not None and issubclass(test_class, unittest.TestCase):
        from django.test import TransactionTestCase

        if issubclass(test_class, TransactionTestCase):
            return False
    return not _NEEDS_A_DATABASE.intersection(getattr(item, "fixturenames", ()))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        # Under `--dist loadgroup` these share one process, and with it one running stack.
        if item.get_closest_marker("faults"):
            item.add_marker(pytest.mark.xdist_group("faults"))
        elif "live_stack" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("live"))
    if config.getoption("--fast"):
        fast = [item for item in items if _is_fast(item)]
        config.hook.pytest_deselected(items=[item for item in items if item not in fast])
        items[:] = fast


def unavailable(what: str) -> NoReturn:
    """Skip the test that needs `what`, or fail it where nothing may be skipped."""
    if os.environ.get("METERBOOK_REQUIRE_ALL") == "1":
        pytest.fail(f"{what} (nothing may be skipped: METERBOOK_REQUIRE_ALL=1)", pytrace=False)
    pytest.skip(what)


@pytest.fixture(autouse=True)
def _empty_log(request: pytest.FixtureRequest) -> Iterator[None]:
    """After a test that commits: Django empties only tables it made itself, and log and buckets are made by hand."""
    marker = request.node.get_closest_marker("django_db")
    commits = "transactional_db" in request.fixturenames or (marker is not None and marker.kwargs.get("transaction"))
    if not commits:
        yield
        return
    request.getfixturevalue("transactional_db")
    yield
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE meters_event, meters_eventkey, meters_bucket, meters_bucketvalue")


# -- what other tests build on --------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def start_stack() -> Iterator[Callable[..., Stack]]:
    """A function that makes a running installation with an environment of its own; all are removed at the end."""
    made: list[Stack] = []

    def start(*, running: bool = True, **environment: str) -> Stack:
        stack = Stack(environment)
        made.append(stack)
        return stack.start() if running else stack

    yield start
    for stack in made:
        stack.discard()


@pytest.fixture(scope="session")
def live_stack(start_stack: Callable[..., Stack]) -> Stack:
    """One running Meterbook, empty of customers at first, shared by all tests of this process that ask for it."""
    return start_stack()


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium."""
    candidates = [os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome"]
    for name in candidates:
        if name and (path := shutil.which(name)):
            return path
    unavailable("Chromium is not installed; run `apt-get install chromium` or set CHROMIUM to its path")
