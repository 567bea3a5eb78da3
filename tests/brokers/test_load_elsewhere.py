"""Slow clients and floods of clients do not delay connected devices.

The broker has one thread and drops a device if an answer takes longer than its timeout.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from socket import create_connection
from typing import TYPE_CHECKING

import pytest
import requests

from tests.devices import NOT_AUTHORIZED, V5
from tests.service import Service

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.brokers.site import Site
    from tests.devices import Device

pytestmark = pytest.mark.slow

MORE_THAN_THREADS = 40
STORM = 20
ATTEMPTS = 10
ROUNDS = 25
PASSWORD_CHECKED_WITHIN = 10.0


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with the default bcrypt cost and connect budget."""
    environment = {"AUTHSVC_BCRYPT_COST": "10", "AUTHSVC_CONNECT_BUDGET_MS": "200"}
    with Service(tmp_path_factory.mktemp("service"), environment) as service:
        yield service


def connected(site: Site, *permissions: str) -> Device:
    """Return a connected device of a new user; it connects once the password was hashed."""
    username = site.add_user("bob", *permissions)
    deadline = time.monotonic() + PASSWORD_CHECKED_WITHIN
    while site.try_to_connect(username) != 0:
        assert time.monotonic() < deadline
    return site.connect(username, protocol=V5)


def devices_are_served(site: Site) -> None:
    """Check repeatedly that a device can publish, is denied, and can connect again."""
    bob = connected(site, "write line/1")
    for number in range(ROUNDS):
        assert bob.publish("line/1") == 0
        assert bob.publish("line/2") == NOT_AUTHORIZED
        assert site.try_to_connect(bob.username, client_id=f"{bob.username}-{number}") == 0
    assert bob.stayed_connected()


@pytest.mark.parametrize("path", ["/auth/acl", "/auth/user", "/api/login", "/nowhere"])
def test_devices_are_served_during_requests_that_never_end(site: Site, service: Service, path: str) -> None:
    beginning = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\nContent-Type: application/json\r\n\r\n{{"
    )
    with ExitStack() as connections:
        for _ in range(MORE_THAN_THREADS):
            connection = connections.enter_context(create_connection(("127.0.0.1", service.broker_port)))
            connection.sendall(beginning.encode())
        devices_are_served(site)


def test_devices_are_served_during_wrong_passwords_at_the_api(site: Site, service: Service) -> None:
    with guessing(service):
        devices_are_served(site)


def test_many_first_logins_are_all_accepted_and_delay_no_device(site: Site) -> None:
    bob = connected(site, "write line/1")
    newcomers = [site.device(site.add_user("carol"), returns=True) for _ in range(STORM)]
    for newcomer in newcomers:
        newcomer.start(site.broker.port)
        assert bob.publish("line/1") == 0

    for newcomer in newcomers:
        assert any(newcomer.connack(PASSWORD_CHECKED_WITHIN) == 0 for _ in range(ATTEMPTS))
    assert bob.stayed_connected()


@contextmanager
def guessing(service: Service) -> Iterator[None]:
    """Try names and passwords from many callers during the block."""
    enough = threading.Event()

    def guess(caller: int) -> None:
        with requests.Session() as session:
            for number in range(1000):
                answer = session.get(f"{service.url}/api/me", auth=(f"mallory-{caller}", f"guess {number}"), timeout=60)
                assert answer.status_code in (401, 429, 503), answer.text
                if enough.is_set():
                    return

    with ThreadPoolExecutor(MORE_THAN_THREADS) as callers:
        guesses = [callers.submit(guess, caller) for caller in range(MORE_THAN_THREADS)]
        try:
            yield
        finally:
            enough.set()
        for each in guesses:
            each.result()
