"""Figure 4: the cost of more users and permissions: response times, start, memory, changes.

python -m bench.growth [--rounds N] [--quick]
"""

from __future__ import annotations

import time
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from itertools import count, islice
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from bench import command
from bench.broker_connection import BrokerConnection, acl_request
from bench.load import Load
from bench.plot import lines
from bench.population import Population, administrators_token, populated_service, topic, username
from bench.report import Figure, Limit
from bench.turns import Times, in_turns
from tests.service import permission

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.turns import Turns
    from tests.service import Service

_OFTEN = 200
_ASKED_USERS = 1_000
_NEW, _KNOWN = "never asked before", "asked before"
_STILL, _CHANGING = "nothing changes", "ten changes a second"
_STATUS = {200: True, 403: False}


class Size(NamedTuple):
    """Seconds until a service is ready, and the memory of its larger worker in megabytes."""

    seconds_to_ready: float
    resident: float
    unshared: float


class Grown:
    """A running service, its users, and the duration of its start."""

    def __init__(
        self, service: Service, population: Population, seconds_to_ready: float, asked: int = _ASKED_USERS
    ) -> None:
        self._asked = min(population.users, asked)
        self.service, self.population, self.seconds_to_ready = service, population, seconds_to_ready
        self._numbers = count()
        # Note all client ids first: storing a new client id does not depend on the number of users.
        with closing(BrokerConnection(service.broker_port)) as connection:
            connection.times(islice(self._new(), self._asked))

    def times(self, kind: str, asked: int) -> Times:
        """Send webhook requests on one kept connection and return their times."""
        questions = self._new() if kind == _NEW else self._known()
        with closing(BrokerConnection(self.service.broker_port)) as connection:
            connection.times(islice(questions, _OFTEN))  # warm up
            return Times.of(connection.times(list(islice(questions, asked))))

    def times_while_changing(self, kind: str, asked: int) -> Times:
        """Send webhook requests while an administrator makes changes."""
        load = Load().running("changes", self.service.port, administrators_token(self.service), self.population.users)
        with load:
            time.sleep(0.5)
            return self.times(kind, asked)

    def size(self) -> Size:
        """Return the start time and memory of the service."""
        resident, unshared = zip(*map(_memory, self.service.workers()), strict=True)
        return Size(self.seconds_to_ready, max(resident), max(unshared))

    def _known(self) -> Iterator[bytes]:
        asked = list(islice(self._new(), _OFTEN))
        while True:
            yield from asked

    def _new(self) -> Iterator[bytes]:
        """Yield different requests, spread over all users and permissions."""
        users, permissions, _ = self.population
        for number in self._numbers:
            user = number % self._asked * (users // self._asked)
            yield acl_request(username(user), topic(user, number * 31 % permissions, f"job/{number}"))


def measure(rounds: int, *, quick: bool) -> Figure:
    """Run services of all sizes and measure them alternately."""
    asked, most = (200, 2_000) if quick else (2_000, 100_000)
    users = {_users(number): Population(number, 5, 1_000) for number in (100, 1_000, most)}
    permissions = {_permissions(number): Population(100, number, 0) for number in (1, 30, 1_000)}
    with ExitStack() as running:
        grown = {name: running.enter_context(_grown(kind)) for name, kind in (users | permissions).items()}
        turns = in_turns(
            {
                f"{name} {kind}": partial(one.times, kind, asked)
                for name, one in grown.items()
                for kind in (_NEW, _KNOWN)
            },
            rounds,
        )
        biggest = grown[_users(most)]
        beside = in_turns(
            {
                _STILL: partial(biggest.times, _KNOWN, 5 * asked),
                _CHANGING: partial(biggest.times_while_changing, _KNOWN, 5 * asked),
            },
            rounds,
        )
        in_force = [seconds_until_in_force(biggest.service, number) for number in range(20)]
        sizes = {name: one.size() for name, one in grown.items()}
    return _figure(list(users), list(permissions), turns, beside, in_force, sizes)


@contextmanager
def _grown(population: Population) -> Iterator[Grown]:
    with populated_service(population) as service:
        started = time.monotonic()
        with service:
            yield Grown(service, population, time.monotonic() - started)


def _memory(pid: int) -> tuple[float, float]:
    """Return the resident and the unshared memory of a process in megabytes."""
    lines_ = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    kilobytes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines_)}
    own = kilobytes["Private_Clean"] + kilobytes["Private_Dirty"]
    return kilobytes["Rss"] * 1024 / 1e6, own * 1024 / 1e6


def seconds_until_in_force(service: Service, number: int) -> float:
    """Return the seconds from sending a change to the API until it takes effect at the webhook."""
    rights = [permission(f"write news/{number}")]
    with closing(BrokerConnection(service.broker_port)) as broker:
        sent = time.perf_counter()
        answer = service.call("PATCH", f"/api/users/{username(number)}", json={"permissions": rights})
        assert answer.status_code == 200, answer.text
        while not _is_allowed(broker, number):
            if time.perf_counter() - sent > 5:
                return float("inf")
        return time.perf_counter() - sent


def _is_allowed(broker: BrokerConnection, number: int) -> bool:
    try:
        broker.times([acl_request(username(number), f"news/{number}")])
    except RuntimeError:
        return False
    return True


def _users(number: int) -> str:
    return f"{number:,} users with 5 permissions"


def _permissions(number: int) -> str:
    return f"100 users with {number:,} permission{'s' if number > 1 else ''}"


def _p50(times: Times) -> float:
    return times.p50


def _p99(times: Times) -> float:
    return times.p99


def _figure(
    users: list[str],
    permissions: list[str],
    turns: Turns[Times],
    beside: Turns[Times],
    in_force: list[float],
    sizes: dict[str, Size],
) -> Figure:
    rows = [
        [
            name,
            *(f"{turns.median(f'{name} {kind}', _p50) * 1e6:.0f} us" for kind in (_NEW, _KNOWN)),
            f"{size.seconds_to_ready:.1f} s",
            f"{size.resident:.0f} MB",
            f"{size.unshared:.0f} MB",
        ]
        for name, size in sizes.items()
    ]
    biggest = sizes[users[-1]]
    return Figure(
        "4. Growth",
        "`/auth/acl` on one kept connection, asked of a thousand users all over the population, or of all if there are "
        "fewer. Beside the users with five permissions there are 1,000 roles, of which each has one. Memory is that of "
        "the bigger one of two workers, once all was asked.",
        [["", f"p50, {_NEW}", f"p50, {_KNOWN}", "start to ready", "resident", "its own"], *rows],
        [
            *(
                Limit(
                    f"{what}, {kind}: p50 of the most beside the fewest",
                    turns.ratio(f"{names[-1]} {kind}", f"{names[0]} {kind}", _p50),
                    at_most=most,
                )
                for what, names, most in (("users", users, 1.1), ("permissions", permissions, 2))
                for kind in (_NEW, _KNOWN)
            ),
            Limit(f"memory of a worker with {users[-1]}", biggest.resident, at_most=300, unit="MB"),
            Limit("the time until a change is in force, the longest of 20", max(in_force), at_most=1, unit="s"),
            Limit(
                "p99 while there are ten changes a second, beside none",
                beside.ratio(_CHANGING, _STILL, _p99),
                at_most=2,
            ),
        ],
        f"A change is in force after {median(in_force) * 1000:.0f} ms at the median, from the sending of its request. "
        "Each one makes the workers forget all answers, so the questions that were asked before are decided again.",
        {"growth.svg": _plot(users, permissions, turns)},
    )


def _plot(users: list[str], permissions: list[str], turns: Turns[Times]) -> str:
    def along(names: list[str], word: int) -> list[tuple[float, float]]:
        return [
            (float(name.split()[word].replace(",", "")), turns.median(f"{name} {_NEW}", _p50) * 1e6) for name in names
        ]

    series = {"users": along(users, 0), "permissions a user": along(permissions, 3)}
    return lines("How long a broker waits for an answer never asked before (p50)", "how many", "us", series)


if __name__ == "__main__":
    command.run(measure, __doc__)
