"""Figure 7: response times for known devices while the service is attacked.

python -m bench.attacks [--rounds N] [--quick]
"""

from __future__ import annotations

import time
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from bench import command
from bench.broker_connection import BrokerConnection, acl_request, user_request
from bench.load import Load
from bench.population import PASSWORD, Population, populated_service, topic, username
from bench.report import Figure, Limit, number
from bench.turns import Times, in_turns

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.turns import Turns
    from tests.service import Service

_DEVICES = 100
_ALONE = "no attack"
_ATTACKS = {
    "wrong passwords for their names": "guesses",
    "logins of unknown usernames": "unknown",
    "sign-ins at the API": "signins",
    "requests to register": "registrations",
}
_SETTLE_SECONDS = 1.0
_RETURNING = 150
_RETRY_SECONDS = 1.0
_TIMEOUT_SECONDS = 60.0


class Taken(NamedTuple):
    """Response times of both webhooks, and the attacker's answered requests per second."""

    acl: Times
    login: Times
    attacks: float = 0.0


class Returned(NamedTuple):
    """Seconds from the first attempt to the login of the slowest and the median device, and guesses per second."""

    slowest: float
    median: float
    guesses: float


def measure(rounds: int, *, quick: bool) -> Figure:
    """Measure known devices alternately without and during each attack; then measure reconnecting devices."""
    seconds = 1.0 if quick else 4.0
    with populated_service(Population(_DEVICES, 5, 0)) as service, service:
        asking = _Measurement(service, seconds)
        asking.warm()
        attacked = {name: partial(asking.beside, kind) for name, kind in _ATTACKS.items()}
        turns = in_turns({_ALONE: asking.alone} | attacked, rounds)
    return _figure(turns, _devices_return())


def _devices_return() -> Returned:
    """Restart a service and let all its devices reconnect while their passwords are guessed."""
    logins = [user_request(username(each), PASSWORD) for each in range(_RETURNING)]
    with populated_service(Population(_RETURNING, 5, 0)) as service:
        with service, closing(BrokerConnection(service.broker_port)) as connection:
            for login in logins:
                connection.warm(login)
            service.stop()  # so that it stores the known client ids
        attack = Load()
        with service, attack.running("guesses", service.broker_port, _RETURNING):
            time.sleep(_SETTLE_SECONDS)
            waited = sorted(_seconds_until_accepted(service.broker_port, logins))
        return Returned(waited[-1], waited[len(waited) // 2], attack.rate)


def _seconds_until_accepted(port: int, logins: list[bytes]) -> list[float]:
    """Let each device try once per second, on one broker connection, until it is accepted."""
    waited: list[float] = []
    began = time.monotonic()
    due = dict.fromkeys(logins, began)
    with closing(BrokerConnection(port)) as connection:
        while due and time.monotonic() < began + _TIMEOUT_SECONDS:
            login = min(due, key=lambda each: due[each])
            time.sleep(max(0.0, due[login] - time.monotonic()))
            if connection.status(login) == b"200":
                waited.append(time.monotonic() - began)
                del due[login]
            else:
                due[login] = time.monotonic() + _RETRY_SECONDS
    return waited + [_TIMEOUT_SECONDS] * len(due)


class _Measurement:
    def __init__(self, service: Service, seconds: float) -> None:
        self._port, self._api_port, self._seconds = service.broker_port, service.port, seconds
        self._accesses = [acl_request(username(each), topic(each, each % 5, "state")) for each in range(_DEVICES)]
        self._logins = [user_request(username(each), PASSWORD) for each in range(_DEVICES)]

    def warm(self) -> None:
        """Let each device log in once, so that its password is cached and its client id is known."""
        with closing(BrokerConnection(self._port)) as connection:
            for login in self._logins:
                connection.warm(login)
        self.alone()

    def alone(self) -> Taken:
        """Send all requests of both kinds repeatedly for some seconds."""
        accesses: list[float] = []
        logins: list[float] = []
        end = time.monotonic() + self._seconds
        with closing(BrokerConnection(self._port)) as connection:
            while time.monotonic() < end:
                accesses += connection.times(self._accesses)
                logins += connection.times(self._logins)
        return Taken(Times.of(accesses), Times.of(logins))

    def beside(self, kind: str) -> Taken:
        """Measure during an attack."""
        attack = Load()
        with attack.running(kind, self._api_port if kind in ("signins", "registrations") else self._port, _DEVICES):
            time.sleep(_SETTLE_SECONDS)
            taken = self.alone()
        return taken._replace(attacks=attack.rate)


_FIGURES: dict[str, Callable[[Taken], float]] = {
    "`/auth/acl`, p50": lambda taken: taken.acl.p50,
    "`/auth/acl`, p99": lambda taken: taken.acl.p99,
    "`/auth/user`, p50": lambda taken: taken.login.p50,
    "`/auth/user`, p99": lambda taken: taken.login.p99,
}


def _figure(turns: Turns[Taken], returned: Returned) -> Figure:
    rows = [
        [
            name,
            *(f"{turns.median(name, by) * 1e6:.0f} us" for by in _FIGURES.values()),
            number(turns.median(name, lambda taken: taken.attacks)) if name in _ATTACKS else "",
        ]
        for name in (_ALONE, *_ATTACKS)
    ]
    return Figure(
        "7. Attacks",
        f"A broker asks about {_DEVICES} devices that have logged in before, on one kept connection, while somebody "
        "else sends up to 1,000 wrong passwords a second for their names, 200 logins of unknown usernames, 200 "
        "requests to register, or as many sign-ins at the API as are answered over 60 connections.",
        [["", *_FIGURES, "attacks a second"], *rows],
        [
            Limit(f"{what} beside {name} and without", turns.ratio(name, _ALONE, by), at_most=1.5)
            for name in _ATTACKS
            for what, by in _FIGURES.items()
        ]
        + [Limit(f"the last of {_RETURNING} devices is back after", returned.slowest, at_most=5, unit="s")],
        "The attackers are processes of their own at the lowest priority (nice 19, idle), so that their work is not "
        "taken from the service where there are few processors. After a restart, while "
        f"{returned.guesses:.0f} wrong passwords a second came for their names, {_RETURNING} devices that try once a "
        f"second were back after {returned.median:.1f} s (median) and {returned.slowest:.1f} s (the last).",
    )


if __name__ == "__main__":
    command.run(measure, __doc__)
