"""Figure 10: a million users with five permissions each: start, memory, a killed worker, changes.

python -m bench.million [--rounds N] [--quick]
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from math import inf
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from bench import command, postgres
from bench.broker_connection import BrokerConnection, acl_request
from bench.growth import Grown, seconds_until_in_force
from bench.population import Population, populated_service, role, topic, username
from bench.report import Figure, Limit
from bench.turns import in_turns
from tests.service import permission

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bench.turns import Times
    from tests.service import Service

_KINDS = _, _KNOWN = "never asked before", "asked before"
_PERMISSIONS = 5
_UNCHANGED = 50  # a user whose permissions no measurement changes


def measure(rounds: int, *, quick: bool) -> Figure:
    """Start services of all sizes on SQLite, the largest on PostgreSQL too, and ask the first and the last in turns."""
    asked, of, large, largest = (200, 1_000, 2_000, 10_000) if quick else (1_000, 20_000, 100_000, 1_000_000)
    with ExitStack() as running:
        _, many, most = started = [running.enter_context(_started(number)) for number in (100, large, largest)]
        grown = [Grown(*one[:3], of) for one in started]
        names = [f"{one.population.users:,} users" for one in started]
        # Many short turns, because other work of the machine comes and goes.
        turns = in_turns(
            {
                f"{name}, {kind}": partial(one.times, kind, asked)
                for name, one in zip(names, grown, strict=True)
                for kind in _KINDS
            },
            10 * rounds,
        )
        beside = in_turns(
            {
                name: partial(one.times_while_changing, _KNOWN, 10 * asked)
                for name, one in zip(names[1:], grown[1:], strict=True)
            },
            rounds,
        )
        in_force = [seconds_until_in_force(most.service, number) for number in range(20)]
        of_all = [_seconds_until_role_in_force(most.service, number) for number in range(5)]
        after_asking = processes_memory(most.service)
        back = [_seconds_until_back(most.service) for _ in range(3)]
    with postgres.running() as server, _started(largest, {"AUTHSVC_DATABASE_URL": postgres.address(server)}) as there:
        pass

    def p50(kind: str) -> float:
        return turns.ratio(f"{names[-1]}, {kind}", f"{names[0]}, {kind}", _p50)

    rows = [
        [f"{one.population.users:,} users{database}", f"{one.seconds_to_ready:.1f} s", f"{one.memory:.0f} MB"]
        for one, database in [*((each, "") for each in started), (there, ", PostgreSQL")]
    ]
    for row, name in zip(rows, names, strict=False):
        row.extend(f"{turns.median(f'{name}, {kind}', _p50) * 1e6:.0f} us" for kind in _KINDS)
        row.append(f"{beside.median(name, _p99) * 1e6:.0f} us" if name in names[1:] else "")
    return Figure(
        "10. A million users",
        f"Each user has five permissions of its own, with its name in them, and one role that all have. Default "
        f"settings. Memory is the sum of all processes after the start, in which shared pages count once (Pss). "
        f"Questions are about up to {of:,} users in turn. Load of the machine during the run: "
        f"{os.getloadavg()[2]:.1f} on {os.cpu_count()} cores.",
        [
            ["", "start to ready", "memory", *(f"p50, {kind}" for kind in _KINDS), "p99, ten changes a second"],
            *([*row, "", "", ""][:6] for row in rows),
        ],
        [
            Limit(f"{largest:,} users on SQLite: start to ready", most.seconds_to_ready, at_most=20, unit="s"),
            Limit(f"{largest:,} users on PostgreSQL: start to ready", there.seconds_to_ready, at_most=20, unit="s"),
            Limit(f"{largest:,} users: memory, after {of:,} were asked", after_asking, at_most=1500, unit="MB"),
            Limit(f"{largest:,} users on PostgreSQL: memory", there.memory, at_most=1500, unit="MB"),
            Limit(f"{large:,} users: start to ready", many.seconds_to_ready, at_most=3, unit="s"),
            Limit(f"{large:,} users: memory", many.memory, at_most=250, unit="MB"),
            Limit("the only broker worker is killed: seconds until it answers", max(back), at_most=1, unit="s"),
            *(Limit(f"p50 beside 100 users, {kind}", p50(kind), at_most=1.1) for kind in _KINDS),
            Limit("the time until a change is in force, the longest of 20", max(in_force), at_most=1, unit="s"),
            Limit("a role of all users is changed: in force, the longest of 5", max(of_all), at_most=1, unit="s"),
            Limit(
                f"p99 with ten changes a second beside {names[1]}", beside.ratio(names[2], names[1], _p99), at_most=1.26
            ),
        ],
        f"A change of one user is in force after {median(in_force) * 1000:.0f} ms at the median, of the role that all "
        f"have after {median(of_all) * 1000:.0f} ms, from the sending of the request.",
    )


class Started(NamedTuple):
    """A running service, the seconds until it was ready, and its memory then in megabytes."""

    service: Service
    population: Population
    seconds_to_ready: float
    memory: float


@contextmanager
def _started(users: int, environment: Mapping[str, str] | None = None) -> Iterator[Started]:
    population = Population(users, _PERMISSIONS, 1)
    with populated_service(population, environment) as service:
        begun = time.monotonic()
        with service:
            seconds = time.monotonic() - begun
            yield Started(service, population, seconds, processes_memory(service))


def processes_memory(service: Service) -> float:
    """Return the memory of all processes of a service in megabytes; pages that several share count once."""
    assert service.process
    return sum(map(_proportional, _with_children(service.process.pid)))


def _with_children(pid: int) -> Iterator[int]:
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from _with_children(int(child))


def _proportional(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    (kilobytes,) = (line.split()[1] for line in lines if line.startswith("Pss:"))
    return int(kilobytes) * 1024 / 1e6


def _seconds_until_role_in_force(service: Service, number: int) -> float:
    """Return the seconds from sending a change of the role that all have until the webhook answers by it."""
    rights = [permission(f"write everybody/{number}")]
    asked = acl_request(username(number), f"everybody/{number}")
    with closing(BrokerConnection(service.broker_port)) as broker:
        sent = time.perf_counter()
        answer = service.call("PATCH", f"/api/roles/{role(0)}", json={"permissions": rights})
        assert answer.status_code == 200, answer.text
        while broker.status(asked) != b"200":
            if time.perf_counter() - sent > 30:
                return inf
        return time.perf_counter() - sent


def _seconds_until_back(service: Service) -> float:
    """Kill the only worker of the broker listener; return the seconds until a new connection is answered."""
    (worker,) = service.workers("broker")
    asked = acl_request(username(_UNCHANGED), topic(_UNCHANGED, 1, "back"))
    killed = time.perf_counter()
    os.kill(worker, signal.SIGKILL)
    while time.perf_counter() - killed < 60:
        try:
            with closing(BrokerConnection(service.broker_port)) as broker:
                if broker.status(asked) == b"200":
                    return time.perf_counter() - killed
        except (OSError, RuntimeError):  # a connection of the killed worker
            pass
        time.sleep(0.005)
    return inf


def _p50(times: Times) -> float:
    return times.p50


def _p99(times: Times) -> float:
    return times.p99


if __name__ == "__main__":
    command.run(measure, __doc__)
