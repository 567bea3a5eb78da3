"""Floods of connections: webhooks, the API and the database keep working."""

from __future__ import annotations

import resource
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests

from tests.actors import ADMIN_PASSWORD
from tests.http.asgi_service import many_descriptors
from tests.http.wire import Connection, answer_on, publishes, webhook_request, within

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from tests.service import Service

FLOOD = 1500
FEW_DESCRIPTORS = 700
QUESTION = webhook_request(username="bob", topic="devices/bob/up", acc=2, clientid="c1")
YES = (200, b'{"ok":true,"error":""}')


@contextmanager
def flood(service: Service, said: bytes, connections: int = FLOOD, listener: str = "broker") -> Iterator[None]:
    """Keep this number of connections to a listener open after sending these bytes on each."""
    with many_descriptors(), ExitStack() as opened:
        for _ in range(connections):
            connection = opened.enter_context(Connection(service, listener))
            try:
                connection.sendall(said)
            except ConnectionError:  # refused already
                continue
        yield


def changes_take_effect(service: Service) -> None:
    """Disable and enable Bob as the administrator and check that each change takes effect at once."""
    for enabled in (False, True):
        changed = service.call("PATCH", "/api/users/bob", json={"enabled": enabled})
        assert changed.status_code == 200
        assert within(5, lambda expected=enabled: (publishes(service, "bob", "devices/bob/up") == "ok") is expected)  # type: ignore[misc]


def test_the_soft_limit_of_descriptors_is_raised_at_the_start(running: Service) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    running.under = ("prlimit", "--nofile=256:")
    running.start()
    expected = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
    assert expected > 256
    for pid in running.workers():
        (line,) = [line for line in Path(f"/proc/{pid}/limits").read_text().splitlines() if "open files" in line]
        assert line.split()[3] == str(expected)


@pytest.mark.slow
def test_idle_connections_of_one_address_disturb_neither_webhooks_nor_the_database(running: Service) -> None:
    running.under = ("prlimit", f"--nofile={FEW_DESCRIPTORS}:{FEW_DESCRIPTORS}")
    running.start()
    with Connection(running) as kept:
        kept.sendall(QUESTION)
        assert answer_on(kept) == YES
        with flood(running, b""), flood(running, b"POST /au", 300):
            kept.sendall(QUESTION)
            assert answer_on(kept) == YES
            changes_take_effect(running)
            fresh = requests.get(running.url + "/api/me", auth=("admin", ADMIN_PASSWORD), timeout=20)
            assert fresh.status_code == 200
            assert running.call("GET", "/readyz").status_code == 200
    assert running.errors() == []


@pytest.mark.slow
def test_idle_connections_to_the_api_disturb_neither_brokers_nor_kept_connections(running: Service) -> None:
    running.under = ("prlimit", f"--nofile={FEW_DESCRIPTORS}:{FEW_DESCRIPTORS}")
    running.start()
    assert running.call("GET", "/api/me").status_code == 200
    with flood(running, b"", listener="api"):
        changes_take_effect(running)
    assert running.errors() == []


@pytest.mark.slow
def test_connections_with_one_webhook_request_leave_descriptors_for_the_database(running: Service) -> None:
    running.under = ("prlimit", f"--nofile={FEW_DESCRIPTORS}:{FEW_DESCRIPTORS}")
    running.start()
    assert running.call("GET", "/api/me").status_code == 200
    with Connection(running) as kept:
        kept.sendall(QUESTION)
        assert answer_on(kept) == YES
        with flood(running, b"POST /auth/acl HTTP/1.1\r\nHost: localhost\r\n"):
            for enabled in (False, True):
                assert running.call("PATCH", "/api/users/bob", json={"enabled": enabled}).status_code == 200
                kept.sendall(QUESTION)
                assert (answer_on(kept) == YES) is enabled
            with Connection(running) as another:
                another.sendall(QUESTION)
                assert answer_on(another) == YES
        assert within(10, lambda: requests.get(running.url + "/readyz", timeout=10).status_code == 200)
    assert "cannot be refreshed" not in running.log_text()


def test_connections_to_the_api_are_limited_for_each_address(running: Service) -> None:
    running.environment["AUTHSVC_CONNECTIONS_PER_ADDRESS"] = "20"
    running.start()
    request = b"GET /pki/none HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with ExitStack() as opened:
        held = [opened.enter_context(Connection(running, "api")) for _ in range(20)]
        for connection in held:
            connection.sendall(request)
            assert answer_on(connection)[0] == 404
        with Connection(running, "api") as one_more:
            assert answer_on(one_more)[0] == 503
        held[0].sendall(request)
        assert answer_on(held[0])[0] == 404
        for _ in range(30):
            broker = opened.enter_context(Connection(running))
            broker.sendall(QUESTION)
            assert answer_on(broker) == YES
    assert within(10, lambda: requests.get(running.url + "/pki/none", timeout=10).status_code == 404)


@pytest.mark.slow
@pytest.mark.parametrize("said", [b"", b"POST /auth/", b"GET /healthz"])
def test_connections_with_an_incomplete_webhook_request_count_for_their_address(running: Service, said: bytes) -> None:
    running.environment["AUTHSVC_CONNECTIONS_PER_ADDRESS"] = "20"
    running.start()
    with ExitStack() as opened:
        broker = opened.enter_context(Connection(running))
        broker.sendall(QUESTION)
        assert answer_on(broker) == YES
        held = [opened.enter_context(Connection(running)) for _ in range(200)]
        for connection in held:
            with suppress(ConnectionError):
                connection.sendall(said)
        assert within(10, lambda: sum(map(is_open, held)) <= 20)
        broker.sendall(QUESTION)
        assert answer_on(broker) == YES


@pytest.mark.parametrize("path", ["/healthz", "/api/me"])
def test_broker_listener_closes_a_connection_that_asked_no_webhook(running: Service, path: str) -> None:
    running.start()
    with Connection(running) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        answer_on(connection)
        connection.settimeout(5)
        assert connection.recv(1) == b""


def is_open(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        while connection.recv(4096):
            pass
    except BlockingIOError:
        return True
    except ConnectionError:
        pass
    return False


@pytest.mark.slow
def test_trusted_proxy_may_have_more_connections(running: Service) -> None:
    running.environment |= {"AUTHSVC_CONNECTIONS_PER_ADDRESS": "5", "AUTHSVC_TRUSTED_PROXIES": "127.0.0.1"}
    running.start()
    with ExitStack() as opened:
        for connection in [opened.enter_context(Connection(running, "api")) for _ in range(30)]:
            connection.sendall(b"GET /pki/none HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert answer_on(connection)[0] == 404
