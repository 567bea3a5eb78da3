"""Figure 11: eight brokers that ask four replicas on one PostgreSQL.

python -m bench.scale [--rounds N] [--quick]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack, closing
from itertools import count
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

from bench import command, postgres
from bench.broker_connection import BrokerConnection, acl_request
from bench.deployment import default_service
from bench.million import processes_memory
from bench.population import Population, role, topic, username, write_population
from bench.report import Figure, Limit
from tests.service import permission

if TYPE_CHECKING:
    from tests.service import Service

_REPLICAS, _BROKERS = 4, 8
_CHANGES = 40
_CONNECTED = "connected\n"  # what the process of a broker prints; it asks when it is sent a line
_SHARE = 0.5  # of the highest rate, for which docs/performance.md recommends to plan


class Asked(NamedTuple):
    """What all brokers together were answered: requests per second, and the percentiles of one answer in seconds."""

    rate: float
    p50: float
    p99: float


def measure(rounds: int, *, quick: bool) -> Figure:
    """Start four replicas at once and let eight brokers ask; then let an administrator make changes beside them."""
    users, seconds = (2_000, 2) if quick else (100_000, 10)
    with ExitStack() as running, TemporaryDirectory() as name:
        server = running.enter_context(postgres.running())
        url = {"AUTHSVC_DATABASE_URL": postgres.address(server)}
        replicas = []
        for number in range(_REPLICAS):
            directory = Path(name) / str(number)
            directory.mkdir()
            replicas.append(default_service(directory, url))
        write_population(replicas[0].environment, Population(users, 5, 1))
        started = time.monotonic()
        for replica in replicas:
            replica.patience = 600
            running.enter_context(_launched(replica))
        for replica in replicas:
            replica.wait_until_ready()
        ready = time.monotonic() - started
        memory = [processes_memory(replica) for replica in replicas]
        asked = [_ask(replicas, users, seconds) for _ in range(rounds)]
        most = median(one.rate for one in asked)
        brokers = _start(replicas, users, 3600, pause=_BROKERS / (most * _SHARE))
        for replica in replicas:
            replica.call("GET", "/api/roles")  # which verifies the password of the administrator there
        began = time.monotonic()
        delays = [_seconds_until_everywhere(replicas, number) for number in range(_CHANGES)]
        rate = _CHANGES / (time.monotonic() - began)
        for broker in brokers:
            broker.kill()
            broker.wait()
    rows = [
        ["all four ready, started together", f"{ready:.1f} s"],
        ["memory of one replica, the largest", f"{max(memory):.0f} MB"],
        ["answers of all brokers together, as fast as they are given", f"{most:,.0f} a second"],
        ["one answer, p50", f"{median(one.p50 for one in asked) * 1e3:.1f} ms"],
        ["one answer, p99", f"{median(one.p99 for one in asked) * 1e3:.1f} ms"],
        ["changes one after the other, while the brokers ask at half of this rate", f"{rate:.1f} a second"],
        ["a change is in force at all replicas, median", f"{median(delays) * 1e3:.0f} ms"],
    ]
    return Figure(
        "11. Eight brokers, four replicas",
        f"{users:,} users with five permissions, PostgreSQL and everything else on the same {os.cpu_count()} cores "
        f"(load during the run: {os.getloadavg()[1]:.1f}). Each of eight connections asks for another topic of another "
        "user as soon as it was answered; two connections are on each replica.",
        [["", ""], *rows],
        [Limit("a change is in force at all replicas, the longest", max(delays), at_most=1, unit="s")],
    )


def _launched(service: Service) -> ExitStack:
    service.launch()
    stack = ExitStack()
    stack.callback(service.kill)
    return stack


def _start(replicas: list[Service], users: int, seconds: int, pause: float = 0.0) -> list[subprocess.Popen[str]]:
    ports = [replicas[number % len(replicas)].broker_port for number in range(_BROKERS)]
    brokers = [
        subprocess.Popen(
            [sys.executable, "-m", "bench.scale", "ask", *map(str, (port, users, seconds, number, pause))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        for number, port in enumerate(ports)
    ]
    for broker in brokers:
        assert broker.stdout
        assert broker.stdout.readline() == _CONNECTED
    for broker in brokers:
        assert broker.stdin
        broker.stdin.write("\n")
        broker.stdin.flush()
    return brokers


def _ask(replicas: list[Service], users: int, seconds: int) -> Asked:
    answered: list[float] = []
    for broker in _start(replicas, users, seconds):
        output, _ = broker.communicate()
        answered += json.loads(output)
    answered.sort()
    return Asked(len(answered) / seconds, answered[len(answered) // 2], answered[len(answered) * 99 // 100])


def _broker(port: int, users: int, seconds: int, first: int, pause: float) -> list[float]:
    """Ask for other users and topics for some seconds, once in `pause` seconds; return the times of the answers."""
    times: list[float] = []
    with closing(BrokerConnection(port)) as connection:
        print(_CONNECTED, end="", flush=True)
        sys.stdin.readline()
        until = time.monotonic() + seconds
        for number in count(first * 9973):
            user = number * 7919 % users
            times += connection.times([acl_request(username(user), topic(user, number % 5, f"job/{number}"))])
            time.sleep(max(0.0, pause - times[-1]))
            if time.monotonic() > until:
                return times
    return times


def _seconds_until_everywhere(replicas: list[Service], number: int) -> float:
    """Return the seconds from sending a change of the role of all users until the webhooks of all replicas know it."""
    asked = acl_request(username(number), f"news/{number}")
    with ExitStack() as opened:
        brokers = [opened.enter_context(closing(BrokerConnection(replica.broker_port))) for replica in replicas]
        sent = time.perf_counter()
        body = {"permissions": [permission(f"write news/{number}")]}
        answer = replicas[number % len(replicas)].call("PATCH", f"/api/roles/{role(0)}", json=body)
        assert answer.status_code == 200, answer.text
        while not all(broker.status(asked) == b"200" for broker in brokers):
            if time.perf_counter() - sent > 10:
                return float("inf")
        return time.perf_counter() - sent


if __name__ == "__main__":
    if sys.argv[1:2] == ["ask"]:
        port, users, seconds, first = map(int, sys.argv[2:6])
        print(json.dumps(_broker(port, users, seconds, first, float(sys.argv[6]))))
    else:
        command.run(measure, __doc__)
