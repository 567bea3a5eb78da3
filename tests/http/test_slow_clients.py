"""Deadlines and limits for slow and silent clients, which must not delay others."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, cast

import pytest
import requests

from authsvc.server.connection_limits import ConnectionLimits, Connections, LimitedLoopPolicy
from tests.actors import ADMIN_PASSWORD
from tests.http.asgi_service import many_descriptors
from tests.http.test_connection_limits import is_open
from tests.http.wire import Connection, answer_on, publishes, webhook_request, within

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.service import Service

IDLE, HALF_SENT = 1500, 200
QUESTION = webhook_request(username="bob", topic="devices/bob/up", acc=2, clientid="c1")
YES = (200, b'{"ok":true,"error":""}')
LOGIN = json.dumps({"username": "admin", "password": ADMIN_PASSWORD}).encode()
LOGIN_HEAD = b"POST /api/login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


# The deadlines, in an event loop of this process.


class Answering(asyncio.Protocol):
    """Answers each line with `ok`, unless it asks to wait for it."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._client: tuple[str, int] = transport.get_extra_info("peername")

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._received.endswith(b"\n"):
            self._connections.request_complete(self._client)
            delay = 0.5 if b"later" in self._received else 0.0
            asyncio.get_running_loop().call_later(delay, self._transport.write, b"ok")
            self._received = b""


class Server:
    """A server with connection limits in an event loop in a thread; `close` closes it while the loop continues."""

    def __init__(self, limits: ConnectionLimits) -> None:
        connections = Connections(limits)
        self._loop = LimitedLoopPolicy(connections).new_event_loop()
        listening = self._loop.create_server(lambda: Answering(connections), "127.0.0.1", 0)
        self._server = self._loop.run_until_complete(listening)
        self._address = self._server.sockets[0].getsockname()
        self._connections = connections
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def connect(self) -> socket.socket:
        return socket.create_connection(self._address, timeout=10)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._server.close)

    def end(self) -> None:
        self.close()
        self._loop.call_soon_threadsafe(self._connections.close_all)
        self._loop.call_soon_threadsafe(self._loop.call_later, 0.1, self._loop.stop)
        self._thread.join()
        self._loop.close()


@contextmanager
def serving(limits: ConnectionLimits) -> Iterator[Server]:
    server = Server(limits)
    try:
        yield server
    finally:
        server.end()


def test_silent_connection_is_closed_and_one_with_a_complete_request_is_kept() -> None:
    limits = ConnectionLimits(10, 10, first_byte_seconds=0.1, whole_request_seconds=60)
    with serving(limits) as server, server.connect() as silent, server.connect() as kept:
        for _ in range(2):
            kept.sendall(b"question\n")
            assert kept.recv(100) == b"ok"
            assert within(10, lambda: not is_open(silent))


def test_connection_of_a_slow_request_is_closed_at_its_deadline() -> None:
    limits = ConnectionLimits(10, 10, first_byte_seconds=60, whole_request_seconds=0.2)

    def is_cut_off(slow: socket.socket) -> bool:
        try:
            slow.sendall(b"x")
        except ConnectionError:
            return True
        return False

    with serving(limits) as server, server.connect() as slow:
        assert within(10, lambda: is_cut_off(slow))


def test_closing_server_answers_received_requests_and_closes_all_connections(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("authsvc.server.connection_limits._LAST_ANSWERS_SECONDS", 2.0)
    with serving(ConnectionLimits(10, 10)) as server, server.connect() as asking, server.connect() as idle:
        asking.sendall(b"answer me later\n")
        time.sleep(0.1)
        server.close()
        assert asking.recv(100) == b"ok"
        assert within(10, lambda: not is_open(asking) and not is_open(idle))
        with pytest.raises(ConnectionRefusedError):
            server.connect()


# A real service.


BEGINNINGS = {
    "nothing": b"",
    "line": b"POST /auth/acl HT",
    "headers": b"POST /auth/acl HTTP/1.1\r\nHost: localhost\r\n",
    "body": b"POST /auth/acl HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{",
    "behind another": QUESTION + b"POST /auth/acl HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{",
    "whole": QUESTION,
}


@pytest.mark.slow
def test_connections_are_closed_after_10_seconds_of_silence_30_of_a_request_and_75_idle_ones_except_of_brokers(
    running: Service,
) -> None:
    running.start()
    open_for: dict[tuple[str, str], float] = {}
    with ExitStack() as opened:
        begun = time.monotonic()
        connections = {
            (listener, name): opened.enter_context(Connection(running, listener))
            for listener in ("api", "broker")
            for name in BEGINNINGS
        }
        for (_, name), connection in connections.items():
            connection.sendall(BEGINNINGS[name])
        while time.monotonic() < begun + 120 and ("api", "whole") not in open_for:
            for key, connection in connections.items():
                if key not in open_for and not is_open(connection):
                    open_for[key] = time.monotonic() - begun
            time.sleep(0.2)
        broker = connections["broker", "whole"]
        broker.setblocking(True)
        broker.sendall(QUESTION)
        assert answer_on(broker) == YES
    for listener in ("api", "broker"):
        assert 8 < open_for[listener, "nothing"] < 20
        for name in ("line", "headers", "body", "behind another"):
            assert 27 < open_for[listener, name] < 45, (listener, name)
    assert 65 < open_for["api", "whole"] < 100
    assert running.errors() == []


@pytest.mark.slow
def test_half_sent_logins_delay_no_other_request(running: Service) -> None:
    running.start()
    with many_descriptors(), ExitStack() as opened:
        for _ in range(HALF_SENT):
            connection = opened.enter_context(Connection(running, "api"))
            connection.sendall(LOGIN_HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(LOGIN), LOGIN[:-5]))
        for _ in range(5):
            for path in ("/api/me", "/admin/sign-in", "/readyz"):
                begun = time.monotonic()
                answer = requests.get(running.url + path, auth=("admin", ADMIN_PASSWORD), timeout=20)
                assert answer.status_code == 200
                assert time.monotonic() - begun < 2
        assert publishes(running, "bob", "devices/bob/up") == "ok"


@pytest.mark.slow
@pytest.mark.parametrize("listener", ["api", "broker"])
def test_idle_connections_leave_webhooks_answering_within_a_second_and_are_closed(
    running: Service, listener: str
) -> None:
    running.start()
    with many_descriptors(), ExitStack() as opened:
        idle = [opened.enter_context(Connection(running, listener)) for _ in range(IDLE)]
        for _ in range(20):
            begun = time.monotonic()
            assert publishes(running, "bob", "devices/bob/up") == "ok"
            assert time.monotonic() - begun < 1
        assert within(30, lambda: not any(map(is_open, idle)))
        assert running.call("GET", "/readyz").status_code == 200
    assert running.errors() == []


def test_chunked_body_is_accepted_by_the_api(running: Service) -> None:
    running.start()
    with Connection(running, "api") as connection:
        for size in (1, 7, len(LOGIN)):
            parts = [LOGIN[start : start + size] for start in range(0, len(LOGIN), size)]
            chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
            connection.sendall(LOGIN_HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
            status, body = answer_on(connection)
            assert (status, b'"token"' in body) == (200, True)


def test_slow_api_request_is_answered_and_delays_no_other(running: Service) -> None:
    running.environment["AUTHSVC_THREADS"] = "2"
    running.start()
    request = LOGIN_HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(LOGIN), LOGIN)
    with ExitStack() as opened:
        slow = [opened.enter_context(Connection(running, "api")) for _ in range(10)]
        for position in range(len(request) - 1):
            for connection in slow:
                connection.sendall(request[position : position + 1])
        assert requests.get(running.url + "/readyz", timeout=5).status_code == 200
        for connection in slow:
            connection.sendall(request[-1:])
            assert answer_on(connection)[0] == 200


def test_half_sent_large_bodies_do_not_block_small_requests(running: Service) -> None:
    running.start()
    with many_descriptors(), ExitStack() as opened:
        for sent in (*[4 * 1024 * 1024 - 1] * 20, *[100_000] * 100):
            connection = opened.enter_context(Connection(running, "api"))
            with suppress(OSError):  # beyond 64 MiB they are refused
                connection.sendall(LOGIN_HEAD + b"Content-Length: %d\r\n\r\n%s" % (sent + 1, b"x" * sent))
        for _ in range(5):
            answer = requests.post(
                running.url + "/api/login", LOGIN, headers={"Content-Type": "application/json"}, timeout=20
            )
            assert answer.status_code == 200


def test_body_that_is_too_large_for_the_api_is_refused(running: Service) -> None:
    running.start()
    with Connection(running, "api") as connection:
        connection.sendall(LOGIN_HEAD + b"Content-Length: 6000000\r\n\r\n")
        try:
            for _ in range(60):
                connection.sendall(b"x" * 100_000)
        except ConnectionError:
            return
        assert answer_on(connection)[0] == 413
