"""Figure 6: response times while administrators page through all users and devices log in.

python -m bench.beside [--rounds N] [--quick]
"""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

from bench import command
from bench.broker_connection import BrokerConnection, acl_request
from bench.load import Load
from bench.population import Population, administrators_token, populated_service, topic, username
from bench.report import Figure, Limit
from bench.turns import Times, in_turns

if TYPE_CHECKING:
    from bench.turns import Turns
    from tests.service import Service

ADMINISTRATORS = 50
_PER_PAGE = 100
_QUESTIONS = 2_000
_ALONE, _BESIDE = "nobody else asks", "50 administrators and ten logins a second"


class Taken(NamedTuple):
    """Response times, and the other answered requests per second."""

    times: Times
    pages: float = 0.0
    logins: float = 0.0


def measure(rounds: int, *, quick: bool) -> Figure:
    """Measure alternately with and without administrators and logins."""
    users, seconds = (5_000, 1.0) if quick else (100_000, 4.0)
    with populated_service(Population(users, 5, 1_000)) as service, service:
        asking = _Asking(service, users, seconds)
        asking.alone()  # warm up
        turns = in_turns({_ALONE: asking.alone, _BESIDE: asking.beside}, rounds)
    return _figure(turns, users)


class _Asking:
    def __init__(self, service: Service, users: int, seconds: float) -> None:
        self._port, self._api_port, self._users, self._seconds = service.broker_port, service.port, users, seconds
        self._token = administrators_token(service)
        numbers = [number * users // _QUESTIONS for number in range(_QUESTIONS)]
        self._questions = [acl_request(username(number), topic(number, number % 5, "state")) for number in numbers]

    def alone(self) -> Taken:
        """Send all requests repeatedly for some seconds."""
        times: list[float] = []
        end = time.monotonic() + self._seconds
        with closing(BrokerConnection(self._port)) as connection:
            while time.monotonic() < end:
                times += connection.times(self._questions[:500])
                self._questions = self._questions[500:] + self._questions[:500]
        return Taken(Times.of(times))

    def beside(self) -> Taken:
        """Measure with administrators and logins."""
        pages, logins = Load(), Load()
        paging = pages.running("administrators", self._api_port, self._token, ADMINISTRATORS, self._users // _PER_PAGE)
        with paging, logins.running("logins", self._port, self._users):
            time.sleep(1.0)  # until all have started
            times = self.alone().times
        return Taken(times, pages.rate, logins.rate)


def _figure(turns: Turns[Taken], users: int) -> Figure:
    def p50(taken: Taken) -> float:
        return taken.times.p50

    def p99(taken: Taken) -> float:
        return taken.times.p99

    rows = [
        [name, f"{turns.median(name, p50) * 1e6:.0f} us", f"{turns.median(name, p99) * 1e6:.0f} us"]
        for name in (_ALONE, _BESIDE)
    ]
    rows[0] += ["", ""]
    rows[1] += [f"{turns.median(_BESIDE, lambda taken: taken.pages):.0f}"]
    rows[1] += [f"{turns.median(_BESIDE, lambda taken: taken.logins):.1f}"]
    return Figure(
        "6. The API beside it",
        f"A broker asks `/auth/acl` on one kept connection while {ADMINISTRATORS} administrators page through "
        f"{users:,} users, {_PER_PAGE} a page, as fast as they are answered, and devices log in for the first time, "
        "each costing a hash at bcrypt cost 10.",
        [["", "p50", "p99", "pages a second", "logins a second"], *rows],
        [
            Limit("p99 beside them and alone", turns.ratio(_BESIDE, _ALONE, p99), at_most=2),
            Limit("p50 beside them and alone", turns.ratio(_BESIDE, _ALONE, p50), at_most=1.5),
        ],
        "The administrators are a process of its own at the lowest priority (nice 19, idle), so that their work is "
        "not taken from the service where there are few processors; so are the logins, at the usual one.",
    )


if __name__ == "__main__":
    command.run(measure, __doc__)
