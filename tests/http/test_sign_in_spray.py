"""Password guessing on many concurrent connections while others use the API."""

from __future__ import annotations

import json
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from statistics import median
from time import monotonic
from typing import TYPE_CHECKING

import bcrypt
import pytest

from tests.http.seed_data import ALICES_PASSWORD

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.service import Service

pytestmark = pytest.mark.slow

ATTACKERS = 60
COST = 10


def log_in(port: int, address: str, username: str, password: str) -> int:
    """Log in from an address of this machine and return the status."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60, source_address=(address, 0))
    body = json.dumps({"username": username, "password": password})
    connection.request("POST", "/api/login", body, {"Content-Type": "application/json"})
    status = connection.getresponse().status
    connection.close()
    return status


@contextmanager
def spray(service: Service) -> Iterator[Counter[int]]:
    """Guess passwords from sixty addresses concurrently until the end; return the number of responses by status."""
    statuses: Counter[int] = Counter()
    over, answered = threading.Event(), threading.Barrier(ATTACKERS + 1)

    def attack(number: int) -> None:
        guesses = 0
        while not over.is_set():
            statuses[log_in(service.port, f"127.0.1.{number}", "alice", f"guess {number} {guesses}")] += 1
            guesses += 1
            if guesses == 1:
                answered.wait(60)

    with ThreadPoolExecutor(ATTACKERS) as pool:
        running = [pool.submit(attack, number) for number in range(1, ATTACKERS + 1)]
        try:
            answered.wait(60)
            yield statuses
        finally:
            over.set()
        for each in running:
            each.result()


def seconds_of(service: Service, token: str) -> float:
    """Return the response times of a caller with a token."""
    started = monotonic()
    connection = HTTPConnection("127.0.0.1", service.port, timeout=60)
    connection.request("GET", "/api/me", headers={"Authorization": f"Bearer {token}"})
    assert connection.getresponse().status == 200
    connection.close()
    return monotonic() - started


@pytest.fixture
def sprayed(running: Service) -> Service:
    """A service with very high limits, so that each guess could cost a hash."""
    running.environment |= {"AUTHSVC_BCRYPT_COST": str(COST), "AUTHSVC_WRONG_PASSWORDS_PER_MINUTE": "1000000"}
    running.start()
    return running


def test_spray_of_sixty_connections_does_not_slow_the_api_for_others(sprayed: Service) -> None:
    login = sprayed.call("POST", "/api/login", json={"username": "alice", "password": ALICES_PASSWORD})
    started = monotonic()
    bcrypt.hashpw(b"a password", bcrypt.gensalt(COST))
    hashing = monotonic() - started
    with spray(sprayed) as statuses:
        waited = [seconds_of(sprayed, login.json()["token"]) for _ in range(20)]
        # Alice has signed in from this address, so places are reserved for her and her password is cached.
        signed_in = [log_in(sprayed.port, "127.0.0.1", "alice", ALICES_PASSWORD) for _ in range(3)]
    assert median(waited) < ATTACKERS * hashing / 4, "as long as a queue of everybody's hashes would be"
    assert signed_in == [200] * 3
    assert set(statuses) <= {401, 503}
    assert statuses[503] > 0, "more than there are places for are refused at once"


def test_spray_is_refused_at_the_limit_while_the_owner_signs_in(running: Service) -> None:
    running.start()
    assert log_in(running.port, "127.0.0.1", "alice", ALICES_PASSWORD) == 200
    with spray(running) as statuses:
        assert log_in(running.port, "127.0.0.1", "alice", ALICES_PASSWORD) == 200
    assert set(statuses) <= {401, 429, 503}
    assert statuses[401] <= 30 + 4, "the limit of a name, and those that were under way when it was reached"
