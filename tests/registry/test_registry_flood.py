"""Ten thousand unknown devices: all are refused, known devices do not wait, and memory is bounded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import pytest

from tests.registry.environment import wait_until
from tests.registry.flood import Asking, unknown_device
from tests.service import Service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.slow

UNKNOWN_DEVICES = 10_000
MAX_PENDING = 100
LOGIN: dict[str, str | int] = {"username": "bob", "password": "bob's very own secret", "clientid": "press-7"}
ACL: dict[str, str | int] = {"username": "bob", "clientid": "press-7", "topic": "presses/bob/state", "acc": 2}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A service with realistic settings, room for 100 pending registrations, and one known device."""
    environment = {"AUTHSVC_BCRYPT_COST": "10", "AUTHSVC_REGISTRY_MAX_LOCKED": str(MAX_PENDING)}
    with Service(tmp_path, environment) as service:
        service.create_user("bob", str(LOGIN["password"]), "write presses/%u/#")
        yield service


class Bob:
    """A known device that logs in and publishes repeatedly."""

    def __init__(self, service: Service) -> None:
        self._connection = Asking(service.broker_port)
        wait_until(lambda: self._connection.ask("/auth/user", LOGIN)[0] == 200)

    def goes_on_while(self, busy: Callable[[], bool]) -> dict[str, list[float]]:
        """Return the duration of each webhook request; every answer must be allowed."""
        times: dict[str, list[float]] = {"login": [], "acl": []}
        while busy():
            for check, path, fields in (("login", "/auth/user", LOGIN), ("acl", "/auth/acl", ACL)):
                status, seconds = self._connection.ask(path, fields)
                assert status == 200
                times[check].append(seconds)
        self._connection.close()
        return times


def memory(service: Service) -> int:
    """Return the bytes that the worker which answers brokers has in memory."""
    (worker,) = service.workers("broker")
    return int(Path(f"/proc/{worker}/statm").read_text().split()[1]) * 4096


def percentile(seconds: list[float], share: int) -> float:
    """Return a percentile of the durations in microseconds."""
    return sorted(seconds)[len(seconds) * share // 100] * 1e6


def registry(service: Service) -> dict[str, Any]:
    state: dict[str, Any] = service.call("GET", "/api/client-registry").json()
    return state


def test_ten_thousand_unknown_devices_do_not_slow_known_ones(service: Service) -> None:
    until = monotonic() + 2
    quiet = Bob(service).goes_on_while(lambda: monotonic() < until)
    before = memory(service)
    bob = Bob(service)
    flood = subprocess.Popen(
        [sys.executable, "-m", "tests.registry.flood", str(service.broker_port), str(UNKNOWN_DEVICES)],
        stdout=subprocess.PIPE,
    )
    flooded = bob.goes_on_while(lambda: flood.poll() is None)
    printed, _ = flood.communicate()
    outcome = json.loads(printed)
    assert outcome["statuses"] == {"403": UNKNOWN_DEVICES}
    wait_until(lambda: registry(service)["pending"] == MAX_PENDING, within=40)
    listed = service.call("GET", "/api/client-registry/registrations", params={"perPage": 1000}).json()
    assert listed["total"] == MAX_PENDING
    grown = memory(service) - before
    words = [f"{UNKNOWN_DEVICES} unknown devices in {outcome['seconds']:.1f} s"]
    for check in ("login", "acl"):
        for share in (50, 99):
            slow, usual = percentile(flooded[check], share), percentile(quiet[check], share)
            words.append(
                f"{check}: p{share} {slow:.0f} us in the flood, {usual:.0f} us before: {slow / usual:.1f} times"
            )
    words.append(f"memory: {before / 1e6:.0f} MB before the flood, {grown / 1e6:+.1f} MB since")
    print("", *words, sep="\n")  # noqa: T201 - figures to look at
    assert grown < 50_000_000
    service.kill()  # another test covers the stop


def test_service_stops_in_time_during_a_flood(tmp_path: Path) -> None:
    with Service(tmp_path, {"AUTHSVC_BCRYPT_COST": "10"}) as service:
        connection = Asking(service.broker_port)
        for number in range(1000):
            assert connection.ask("/auth/user", unknown_device(number))[0] == 403
        connection.close()
        assert service.process
        service.process.terminate()
        try:
            assert service.process.wait(8) == 0
        except subprocess.TimeoutExpired:
            service.kill()
            raise
