"""The ASGI application with clients that disconnect, idle connections, and slow requests to the API beside them."""

from __future__ import annotations

import asyncio
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import requests

from authsvc.broker.asgi import BrokerApplication
from authsvc.broker.signals import unknown_username
from tests.http.asgi_service import ALLOWED, MANY, QUESTION, started
from tests.http.broker import FORM, RecordingConnections, services_of
from tests.http.callers import basic
from tests.http.seed_data import ALICES_PASSWORD
from tests.http.wire import Connection, answer_on, logs_in, webhook_request, within

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping
    from pathlib import Path

    from flask_openapi3.openapi import OpenAPI

    from tests.service import Service

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def served(seed_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service with the seed data as a process; no test changes its data."""
    with started(seed_directory, tmp_path_factory.mktemp("served")) as service:
        yield service


# Clients that disconnect.

HALF_A_LOGIN = b"clientid=c1&password=let+me+in&username=press-"
LOGIN_HEAD = b"POST /auth/user HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-www-form-urlencoded\r\n"


def test_client_that_disconnects_during_its_body_affects_no_other(served: Service) -> None:
    for _ in range(20):
        with Connection(served) as connection:
            connection.sendall(webhook_request(**QUESTION)[:-5])
    with Connection(served) as connection:
        connection.sendall(webhook_request(**QUESTION))
        assert answer_on(connection) == ALLOWED
    assert "Traceback" not in served.log_text()


def test_incomplete_login_is_no_registration_attempt(served: Service) -> None:
    with Connection(served) as connection:
        connection.sendall(LOGIN_HEAD + b"Content-Length: 100\r\n\r\n" + HALF_A_LOGIN)
    assert logs_in(served, "somebody-else", "let me in") == "unknown-user"
    assert within(10, lambda: "somebody-else" in _pending(served))
    assert "press-" not in _pending(served)


def _pending(service: Service) -> list[str]:
    answer = service.call("GET", "/api/client-registry/registrations")
    return [each["username"] for each in answer.json()["items"]]


def messages_sent_by(app: OpenAPI, *messages: MutableMapping[str, Any]) -> list[MutableMapping[str, Any]]:
    """Pass these messages of one login to the ASGI application and return its messages."""
    scope = {
        "type": "http",
        "client": ("192.0.2.1", 50_000),
        "method": "POST",
        "path": "/auth/user",
        "query_string": b"",
        "headers": [(b"content-type", FORM.encode())],
    }
    sent: list[MutableMapping[str, Any]] = []
    left = iter(messages)

    async def receive() -> MutableMapping[str, Any]:
        return next(left)

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    services = services_of(app)
    asyncio.run(BrokerApplication(services.webhooks, services.plugin, RecordingConnections())(scope, receive, send))
    return sent


def test_login_in_several_parts_is_read_completely(app: OpenAPI) -> None:
    first = {"type": "http.request", "body": HALF_A_LOGIN, "more_body": True}
    last = {"type": "http.request", "body": b"7", "more_body": False}
    received: list[str] = []

    def listen(_sender: object, **words: Any) -> None:
        received.append(words["username"])

    with unknown_username.connected_to(listen):
        start, _ = messages_sent_by(app, first, last)
    assert (start["status"], received) == (403, ["press-7"])


def test_incomplete_login_is_not_signalled(app: OpenAPI) -> None:
    first = {"type": "http.request", "body": HALF_A_LOGIN, "more_body": True}
    received: list[str] = []

    def listen(_sender: object, **words: Any) -> None:
        received.append(words["username"])

    with unknown_username.connected_to(listen):
        messages_sent_by(app, first, {"type": "http.disconnect"})
    assert received == []


# Many connections, and slow requests to the API.


def test_a_thousand_idle_connections_delay_no_request(served: Service) -> None:
    question = webhook_request(**QUESTION)
    kept: list[socket.socket] = []
    try:
        for _ in range(MANY):
            kept.append(socket.create_connection(("127.0.0.1", served.broker_port), timeout=20))
            # A connection without a webhook request would count towards the limit of 256 per address.
            kept[-1].sendall(question)
            assert answer_on(kept[-1]) == ALLOWED
        with Connection(served) as another:
            another.sendall(question)
            assert answer_on(another) == ALLOWED
        assert requests.get(served.url + "/healthz", timeout=20).status_code == 200
        for connection in kept[:: MANY // 20]:
            connection.sendall(question)
            assert answer_on(connection) == ALLOWED
    finally:
        for connection in kept:
            connection.close()


def test_slow_logins_to_the_api_do_not_delay_brokers(served: Service) -> None:
    def slow_login(number: int) -> int:
        body = {"username": f"nobody-{number}", "password": "wrong"}
        return requests.post(served.url + "/api/login", json=body, timeout=60).status_code

    question = webhook_request(**QUESTION)
    with ThreadPoolExecutor(6) as pool, Connection(served) as connection:
        logins = [pool.submit(slow_login, number) for number in range(6)]
        answered = 0
        while not all(login.done() for login in logins):
            connection.sendall(question)
            assert answer_on(connection) == ALLOWED
            answered += 1
        assert {login.result() for login in logins} <= {401, 503}
    # The API's two threads hash nearly all the time. If webhooks waited, there would be one answer per login.
    assert answered > 60


def test_webhook_does_not_wait_for_a_password_hash_of_the_api(served: Service) -> None:
    begun = time.perf_counter()
    assert (
        requests.post(served.url + "/api/login", json={"username": "nobody", "password": "x"}, timeout=60).ok is False
    )
    one_hash = time.perf_counter() - begun
    question = webhook_request(**QUESTION)
    waits = []
    with ThreadPoolExecutor(1) as pool, Connection(served) as connection:
        headers = {"Authorization": basic("alice", ALICES_PASSWORD + "!")}
        login = pool.submit(requests.get, served.url + "/api/me", headers=headers, timeout=60)
        while not login.done():
            begun = time.perf_counter()
            connection.sendall(question)
            assert answer_on(connection) == ALLOWED
            waits.append(time.perf_counter() - begun)
    assert sorted(waits)[len(waits) // 2] < one_hash / 2
