"""Guesses at devices' names, more than a thousand a second: the devices come back through Mosquitto all the same."""

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
TRIES = 30  # one a second; where nothing else runs a device needs one to three
ANSWERED_WITHIN = 10.0
GUESSED_BEFORE = 300


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose hashes cost, and which lets a broker wait for them, as much as usual."""
    environment = {"AUTHSVC_BCRYPT_COST": "10", "AUTHSVC_CONNECT_BUDGET_MS": "150"}
    with Service(tmp_path_factory.mktemp("service"), environment) as service:
        yield service


class Guesses:
    """What was answered to guesses at these names, each with a password and a client id of its own."""

    def __init__(self, port: int, usernames: Sequence[str]) -> None:
        self.answers: Counter[bytes] = Counter()
        self.enough = threading.Event()
        self.begun = threading.Event()
        self._port = port
        self._usernames = usernames

    def make(self) -> None:
        """Guess until it is enough."""
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
    """Guess for the length of a block, with many guesses made before it begins."""
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


def test_devices_that_logged_in_before_a_restart_come_back_at_once_while_others_guess(
    site: Site, service: Service
) -> None:
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


def test_a_guesser_with_a_client_id_that_is_new_does_not_get_in_with_the_right_password_either(
    site: Site, service: Service
) -> None:
    bob = site.add_user("bob")
    device = site.device(bob, returns=True)
    device.start(site.broker.port)
    assert gets_in(device)
    with guessing(service.broker_port, [bob]):
        assert site.try_to_connect(bob, client_id="made-up") != 0
        assert site.try_to_connect(bob, client_id=bob) == 0
