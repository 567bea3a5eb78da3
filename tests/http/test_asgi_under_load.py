"""The front of a real service when clients leave, say nothing, come by the thousand, or ask the API for what
takes long."""

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
from tests.http.broker import FORM, NotedConnections, services_of
from tests.http.callers import basic
from tests.http.fronted import ALLOWED, MANY, QUESTION, started
from tests.http.seed_data import ALICES_PASSWORD
from tests.http.wire import Connection, answer_on, logs_in, webhook_request, within

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping
    from pathlib import Path

    from flask_openapi3.openapi import OpenAPI

    from tests.service import Service


@pytest.fixture(scope="module")
def served(village: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The inhabited service as a process; nobody changes anything in it."""
    with started(village, tmp_path_factory.mktemp("served")) as service:
        yield service


# Clients that leave.

HALF_A_LOGIN = b"clientid=c1&password=let+me+in&username=press-"
LOGIN_HEAD = b"POST /auth/user HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-www-form-urlencoded\r\n"


def test_a_client_that_leaves_in_the_middle_of_its_body_harms_nobody(served: Service) -> None:
    for _ in range(20):
        with Connection(served) as connection:
            connection.sendall(webhook_request(**QUESTION)[:-5])
    with Connection(served) as connection:
        connection.sendall(webhook_request(**QUESTION))
        assert answer_on(connection) == ALLOWED
    assert "Traceback" not in served.log_text()


def test_a_login_that_breaks_off_is_nobodys_attempt_on_the_wire(served: Service) -> None:
    with Connection(served) as connection:
        connection.sendall(LOGIN_HEAD + b"Content-Length: 100\r\n\r\n" + HALF_A_LOGIN)
    assert logs_in(served, "somebody-else", "let me in") == "unknown-user"
    assert within(10, lambda: "somebody-else" in _strangers(served))
    assert "press-" not in _strangers(served)


def _strangers(service: Service) -> list[str]:
    answer = service.call("GET", "/api/client-registry/registrations")
    return [each["username"] for each in answer.json()["items"]]


def told_by(app: OpenAPI, *messages: MutableMapping[str, Any]) -> list[MutableMapping[str, Any]]:
    """Let the front receive these messages of one login, and return what it sends."""
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
    asyncio.run(BrokerApplication(services.webhooks, services.plugin, NotedConnections())(scope, receive, send))
    return sent


def test_a_login_in_parts_is_read_whole(app: OpenAPI) -> None:
    first = {"type": "http.request", "body": HALF_A_LOGIN, "more_body": True}
    last = {"type": "http.request", "body": b"7", "more_body": False}
    heard: list[str] = []

    def listen(_sender: object, **words: Any) -> None:
        heard.append(words["username"])

    with unknown_username.connected_to(listen):
        start, _ = told_by(app, first, last)
    assert (start["status"], heard) == (403, ["press-7"])


def test_a_login_that_breaks_off_is_nobodys_attempt(app: OpenAPI) -> None:
    first = {"type": "http.request", "body": HALF_A_LOGIN, "more_body": True}
    heard: list[str] = []

    def listen(_sender: object, **words: Any) -> None:
        heard.append(words["username"])

    with unknown_username.connected_to(listen):
        told_by(app, first, {"type": "http.disconnect"})
    assert heard == []


# Many, and slow ones beside them.


def test_a_thousand_connections_that_say_nothing_are_in_nobodys_way(served: Service) -> None:
    question = webhook_request(**QUESTION)
    kept: list[socket.socket] = []
    try:
        for _ in range(MANY):
            kept.append(socket.create_connection(("127.0.0.1", served.broker_port), timeout=20))
            # Connections that never asked a webhook would count for their address, which may have 256.
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


def test_logins_to_the_api_that_take_their_time_do_not_hold_up_brokers(served: Service) -> None:
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
    # Two threads for the API, both taken by a hash nearly all the time; one answer for each login would mean waiting.
    assert answered > 60


def test_the_longest_wait_beside_them_is_shorter_than_one_hash(served: Service) -> None:
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
