"""Counts acknowledged changes that are lost when a replica is killed or the database is stopped."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Self

import requests

from bench.report import Limit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.replicas import Replica
    from tests.service import Service

_PASSWORD = "s3cret-7"
_BETWEEN_MESSAGES, _BETWEEN_RECONNECTS = 0.2, 5.0


def acknowledged_before_a_kill(service: Service, seconds: float) -> set[str]:
    """Create users and registrations, kill the service during that, and return the acknowledged names."""
    service.call("POST", "/api/client-registry/unlock", json={})
    acknowledged: set[str] = set()
    writers = [
        threading.Thread(target=_write, args=(service, path, status, prefix, acknowledged))
        for path, status, prefix in (
            ("/api/users", 201, "made"),
            ("/api/users", 201, "also-made"),
            ("/api/client-registry/register", 202, "registered"),
        )
    ]
    for writer in writers:
        writer.start()
    time.sleep(seconds)
    service.kill()
    for writer in writers:
        writer.join()
    return acknowledged


def missing_at(service: Service, names: set[str]) -> int:
    """Return how many of these names are neither users nor registrations."""
    known = {user["username"] for user in _all(service, "/api/users")}
    known |= {entry["username"] for entry in _all(service, "/api/client-registry/registrations")}
    return len(names - known)


def _all(service: Service, path: str) -> list[dict[str, str]]:
    items: list[dict[str, str]] = []
    while True:
        page = service.call("GET", path, params={"page": len(items) // 1000 + 1, "perPage": 1000}).json()
        items += page["items"]
        if not page["items"] or len(items) >= page["total"]:
            return items


def _write(service: Service, path: str, status: int, prefix: str, acknowledged: set[str]) -> None:
    with requests.Session() as session:
        session.auth = service.api.auth
        for number in range(100_000):
            username = f"{prefix}-{number}"
            try:
                answer = session.post(
                    service.url + path, json={"username": username, "password": _PASSWORD}, timeout=20
                )
            except requests.RequestException:  # killed; the user may or may not exist
                return
            if answer.status_code == status:
                acknowledged.add(username)


class Outage:
    """Devices on each replica's broker: some publish all the time, one subscribes, some reconnect."""

    def __init__(self, replicas: Sequence[Replica], devices: int) -> None:
        self._replicas = replicas
        self._published = self._refused = self._attempts = self._turned_away = self._ended = self._heard = 0
        self._seconds = 0.0
        for number in range(devices):
            replicas[0].service.create_user(f"line-{number}", _PASSWORD, "write state/%u")
            # Their passwords are not cached: each first login needs a hash while the database is stopped.
            replicas[0].service.create_user(f"late-{number}", _PASSWORD, "write state/%u")
        replicas[0].service.create_user("listener", _PASSWORD, "read state/#")
        time.sleep(1.0)  # wait until both replicas have the change
        self._listeners = [replica.device("listener") for replica in replicas]
        for listener in self._listeners:
            listener.subscribe("state/#")
        self._devices = [replica.device(f"line-{number}") for replica in replicas for number in range(devices)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for device in [*self._devices, *self._listeners]:
            device.stop()

    def watch(self, seconds: float) -> None:
        """Publish and reconnect for some seconds, and count failures."""
        started = came = time.monotonic()
        while time.monotonic() - started < seconds:
            for device in self._devices:
                self._published += 1
                self._refused += device.publish(f"state/{device.username}") != 0
            if time.monotonic() - came > _BETWEEN_RECONNECTS or not self._attempts:
                self._come_and_go()
                came = time.monotonic()
            time.sleep(_BETWEEN_MESSAGES)
        self._seconds = time.monotonic() - started
        self._heard = sum(len(listener.received_so_far()) for listener in self._listeners)
        self._ended = sum(not device.ends.empty() for device in [*self._devices, *self._listeners])

    def _come_and_go(self) -> None:
        for place, replica in enumerate(self._replicas):
            for kind in ("line", "late"):
                username = f"{kind}-{self._attempts % (len(self._devices) // len(self._replicas))}"
                self._attempts += 1
                try:
                    replica.device(username, f"{username}-again-{place}").stop()
                except ConnectionRefusedError:
                    self._turned_away += 1

    def limits(self) -> list[Limit]:
        """Return the counted failures, with the limit 0."""
        lost = self._published - self._refused - self._heard
        return [
            Limit("while PostgreSQL was away: sessions ended", self._ended, at_most=0, unit=""),
            Limit("while PostgreSQL was away: messages refused or lost", self._refused + lost, at_most=0, unit=""),
            Limit("while PostgreSQL was away: known devices kept out", self._turned_away, at_most=0, unit=""),
        ]

    def note(self) -> str:
        """Return a sentence with the number of attempts."""
        return (
            f"PostgreSQL was away for {self._seconds:.0f} s, in which {len(self._devices)} connected devices published "
            f"{self._published} messages to a subscriber, and known devices came {self._attempts} times, some of them "
            "for the first time ever."
        )
