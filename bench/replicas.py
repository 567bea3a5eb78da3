"""Figure 5: two services on one PostgreSQL, each with a broker: propagation time and losses.

python -m bench.replicas [--rounds N] [--quick]
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import requests

from bench import command, deployment, postgres
from bench.losses import Outage, acknowledged_before_a_kill, missing_at
from bench.report import Figure, Limit
from tests.devices import V5, Device
from tests.registry.signing import signing_request
from tests.service import permission

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.broker import Mosquitto
    from tests.service import Service

_A_SECOND, _PASSWORD = 1.0, "s3cret-7"
_PATIENCE, _COMES_AGAIN_AFTER = 10.0, 0.5
_ATTEMPTS, _LET_PASS = 80, 60  # each replica allows AUTHSVC_REGISTRY_ATTEMPTS_PER_MINUTE, by default 30


class Replica:
    """A service and the broker that calls it."""

    def __init__(self, service: Service, broker: Mosquitto) -> None:
        self.service, self.broker = service, broker

    def call(self, method: str, path: str, **options: object) -> requests.Response:
        """Call the API as the administrator; any error ends the figure."""
        answer = self.service.call(method, path, **options)
        if not answer.ok:
            raise RuntimeError(f"{method} {path}: {answer.status_code} {answer.text}")
        return answer

    def asks(self, check: str, query: str = "", **fields: str | int) -> bool:
        """Call a webhook as a broker does."""
        url = f"{self.service.broker_url}/auth/{check}?{query}"
        return requests.post(url, json={"clientid": "c1", **fields}, timeout=20).ok

    def device(self, username: str, client_id: str = "") -> Device:
        """Return a connected device; it retries while its password is being verified."""
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            device = Device(username, _PASSWORD, client_id or username, V5)
            device.start(self.broker.port)
            if device.connack() == 0:
                return device
            device.stop()
            time.sleep(_COMES_AGAIN_AFTER)
        raise ConnectionRefusedError(username)


def measure(rounds: int, *, quick: bool) -> Figure:
    """Measure propagation and losses; each round makes four changes."""
    seconds_away = 5 if quick else 60
    with ExitStack() as running, TemporaryDirectory() as name:
        server = running.enter_context(postgres.running())
        here, there = (_replica(running, Path(name) / which, postgres.address(server)) for which in ("here", "there"))
        changes = _changes(here, there, max(10, 4 * rounds))
        states = _states(here, there)
        let_pass = _attempts_let_pass(here, there)
        acknowledged = acknowledged_before_a_kill(here.service, 3 if quick else 8)
        lost = missing_at(there.service, acknowledged)
        here.service.start()
        with Outage([here, there], 5) as outage, postgres.away(server):
            outage.watch(seconds_away)
    rows = [
        ["a permission, felt by a connected device", *_spread(changes)],
        *([what, *_spread([taken])] for what, taken in states.items()),
    ]
    limits = [
        Limit(
            "the longest time until a change is in force on the other one", max(changes), at_most=_A_SECOND, unit="s"
        ),
        *(Limit(what, taken, at_most=_A_SECOND, unit="s") for what, taken in states.items()),
        Limit(f"of {_ATTEMPTS} guesses at one name, to and fro, let pass", let_pass, at_most=_LET_PASS, unit=""),
        Limit(f"lost of {len(acknowledged)} acknowledged users and registrations", lost, at_most=0, unit=""),
        *outage.limits(),
    ]
    return Figure(
        "5. Replicas",
        _QUESTION,
        [["until in force on the other one", "median", "longest"], *rows],
        limits,
        outage.note(),
    )


_QUESTION = (
    "Two services with default settings on one PostgreSQL, a Mosquitto on each. A change is made through one "
    "and awaited on the other, in turns; then one is killed (SIGKILL to all of its processes) while it is written to; "
    "then PostgreSQL is stopped."
)


def _replica(running: ExitStack, directory: Path, database_url: str) -> Replica:
    directory.mkdir()
    service = deployment.default_service(directory, {"AUTHSVC_DATABASE_URL": database_url})
    running.enter_context(service)
    return Replica(service, running.enter_context(deployment.broker(directory / "broker", service.broker_port)))


def _spread(taken: list[float]) -> list[str]:
    return [f"{median(taken) * 1000:.0f} ms", f"{max(taken) * 1000:.0f} ms"]


def _seconds_until(condition: Callable[[], bool]) -> float:
    """Return the seconds until the condition is true, or a value above every limit."""
    started = time.perf_counter()
    while not condition():
        if time.perf_counter() - started > 10:
            return float("inf")
    return time.perf_counter() - started


def _changes(here: Replica, there: Replica, count: int) -> list[float]:
    """Grant a permission at one replica and publish at the other's broker until it is allowed."""
    here.service.create_user("press-1", _PASSWORD)
    _seconds_until(lambda: there.asks("user", username="press-1", password=_PASSWORD))
    taken = []
    for number in range(count):
        near, far = (here, there) if number % 2 else (there, here)
        device = far.device("press-1")
        near.call("PATCH", "/api/users/press-1", json={"permissions": [permission(f"write news/{number}")]})
        taken.append(_seconds_until(lambda: device.publish(f"news/{number}") == 0))  # noqa: B023 - called at once
        device.stop()
    return taken


def _states(here: Replica, there: Replica) -> dict[str, float]:
    """Return the seconds until the other replica has a change, by kind of change."""
    here.service.create_user("press-2", _PASSWORD, "write news/#", grantTypes=["token", "certificate", "password"])
    sign_in = {"username": "press-2", "password": _PASSWORD}
    _seconds_until(lambda: requests.post(f"{there.service.url}/api/login", json=sign_in, timeout=20).ok)
    token = there.call("POST", "/api/login", json=sign_in).json()
    issued = here.call("POST", "/api/users/press-2/certificates", json={"csr": signing_request("press-2")}).json()
    question: dict[str, str | int] = {"username": "press-2", "topic": "news/1", "acc": 2}

    def by_certificate() -> bool:
        return there.asks("acl", "grant=certificate", **question)

    def by_token() -> bool:
        return here.asks("user", username="press-2", password=token["token"])

    _seconds_until(lambda: by_certificate() and by_token())
    taken = {}
    here.call("POST", f"/api/certificates/{issued['serial']}/revoke", json={})
    taken["a certificate revoked"] = _seconds_until(lambda: not by_certificate())
    there.call("DELETE", f"/api/tokens/{token['id']}")
    taken["a token revoked"] = _seconds_until(lambda: not by_token())
    for path, locked in (("unlock", False), ("lock", True)):
        here.call("POST", f"/api/client-registry/{path}", json={})
        taken[f"the registry {path}ed"] = _seconds_until(
            lambda: there.call("GET", "/api/client-registry").json()["locked"] is locked  # noqa: B023
        )
    return taken


def _attempts_let_pass(here: Replica, there: Replica) -> int:
    """Return how many registration requests for one name, alternating between replicas, were not throttled."""
    answers = [
        requests.post(
            f"{(here, there)[number % 2].service.url}/api/client-registry/register",
            json={"username": "press-3", "password": f"{_PASSWORD} {number}"},
            timeout=20,
        )
        for number in range(_ATTEMPTS)
    ]
    return sum(answer.status_code != requests.codes.too_many_requests for answer in answers)


if __name__ == "__main__":
    command.run(measure, __doc__)
