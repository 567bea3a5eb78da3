"""Known devices log in through Mosquitto during more than 1,000 password guesses per second."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import closing, contextmanager
from itertools import count
from typing import TYPE_CHECKING

import pytest

from bench.broker_connection import BrokerConnection, user_request
from tests.service import Service

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.brokers.site import Site
    from tests.devices import Device

pytestmark = pytest.mark.slow

DEVICES = 6
TRIES = 30  # one per second; on an idle machine a device needs one to three
ANSWERED_WITHIN = 10.0
GUESSED_BEFORE = 300


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with the default bcrypt cost and connect budget."""
    environment = {"AUTHSVC_BCRYPT_COST": "10", "AUTHSVC_CONNECT_BUDGET_MS": "150"}
    with Service(tmp_path_factory.mktemp("service"), environment) as service:
        yield service


class Guesses:
    """Guesses passwords for these usernames, each with a new client id, and counts the answers."""

    def __init__(self, port: int, usernames: Sequence[str]) -> None:
        self.answers: Counter[bytes] = Counter()
        self.enough = threading.Event()
        self.begun = threading.Event()
        self._port = port
        self._usernames = usernames

    def make(self) -> None:
        """Guess passwords until the event is set."""
        with closing(BrokerConnection(self._port)) as connection:
            for number in count():
                username = self._usernames[number % len(self._usernames)]
                self.answers[connection.status(user_request(username, f"guess {number}", f"made-up-{number}"))] += 1
                if number == GUESSED_BEFORE:
                    self.begun.set()
                if self.enough.is_set():
                    return


@contextmanager
def guessing(port: int, usernames: Sequence[str]) -> Iterator[Guesses]:
    """Guess passwords during the block. Many guesses are made before it begins."""
    guesses = Guesses(port, usernames)
    making = threading.Thread(target=guesses.make)
    making.start()
    try:
        assert guesses.begun.wait(30)
        yield guesses
    finally:
        guesses.enough.set()
        making.join()


def gets_in(device: Device) -> bool:
    return any(device.connack(ANSWERED_WITHIN) == 0 for _ in range(TRIES))


def test_known_devices_log_in_after_a_restart_during_guessing(site: Site, service: Service) -> None:
    names = [site.add_user("press") for _ in range(DEVICES)]
    for name in names:
        device = site.device(name, returns=True)
        device.start(site.broker.port)
        assert gets_in(device)
        device.stop()
    service.stop()
    service.start()
    with guessing(service.broker_port, names) as guesses:
        devices = [site.device(name, returns=True) for name in names]
        for device in devices:
            device.start(site.broker.port)
        assert all(gets_in(device) for device in devices)
    assert set(guesses.answers) == {b"403"}


def test_right_password_with_an_unknown_client_id_is_refused_during_guessing(site: Site, service: Service) -> None:
    bob = site.add_user("bob")
    device = site.device(bob, returns=True)
    device.start(site.broker.port)
    assert gets_in(device)
    with guessing(service.broker_port, [bob]):
        assert site.try_to_connect(bob, client_id="made-up") != 0
        assert site.try_to_connect(bob, client_id=bob) == 0
