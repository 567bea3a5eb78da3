"""How long a broker waits for `/auth/acl` and a warm `/auth/user`, beside a bare callable on the same worker class.

    python -m bench.webhook [--rounds 5] [--requests 3000]

Everything is measured in turns: a round asks the bare callable, then the service, and the medians of all rounds are
compared. Only the ratios mean anything; run it again on your machine.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

import requests

from bench.broker_connection import BrokerConnection
from tests.broker import free_port
from tests.service import Service

if TYPE_CHECKING:
    from collections.abc import Iterator

_GUNICORN = str(Path(sys.executable).parent / "gunicorn")
_QUESTIONS: dict[str, dict[str, str | int]] = {
    "/auth/acl": {"acc": 2, "clientid": "press-7", "topic": "devices/press-7/state", "username": "press-7"},
    "/auth/user": {"clientid": "press-7", "password": "s3cret-7", "username": "press-7"},
}


class Figures(NamedTuple):
    """Seconds a broker waits, at the median and at the 99th of a hundred."""

    p50: float
    p99: float


def main() -> None:
    """Measure, print a table, and leave nothing behind."""
    arguments = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--requests", type=int, default=3000)
    chosen = arguments.parse_args()
    with ExitStack() as running, tempfile.TemporaryDirectory() as directory:
        bare_port = running.enter_context(_bare_callable())
        service = running.enter_context(Service(Path(directory), {"AUTHSVC_BCRYPT_COST": "10"}))
        service.create_user("press-7", "s3cret-7", "readWrite devices/%u/#")
        _print_table(_measure(bare_port, service.port, chosen.rounds, chosen.requests))


def _measure(bare_port: int, service_port: int, rounds: int, count: int) -> dict[str, tuple[Figures, Figures]]:
    taken: dict[str, list[tuple[Figures, Figures]]] = {path: [] for path in _QUESTIONS}
    for _ in range(rounds):
        for path in _QUESTIONS:
            taken[path].append((_figures(bare_port, path, count), _figures(service_port, path, count)))
    return {
        path: (_median([bare for bare, _ in each]), _median([ours for _, ours in each])) for path, each in taken.items()
    }


def _figures(port: int, path: str, count: int) -> Figures:
    connection = BrokerConnection(port)
    try:
        connection.times(path, _QUESTIONS[path], 200)  # warm
        times = connection.times(path, _QUESTIONS[path], count)
    finally:
        connection.close()
    return Figures(times[len(times) // 2], times[len(times) * 99 // 100])


def _median(figures: list[Figures]) -> Figures:
    return Figures(median(one.p50 for one in figures), median(one.p99 for one in figures))


def _print_table(results: dict[str, tuple[Figures, Figures]]) -> None:
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, one kept connection, one request in flight\n")
    print(f"{'':12}{'bare p50':>10}{'ours p50':>10}{'ratio':>8}{'bare p99':>11}{'ours p99':>10}{'p99/p50':>9}")
    for path, (bare, ours) in results.items():
        print(
            f"{path:12}{bare.p50 * 1e6:8.0f}us{ours.p50 * 1e6:8.0f}us{ours.p50 / bare.p50:7.2f}x"
            f"{bare.p99 * 1e6:9.0f}us{ours.p99 * 1e6:8.0f}us{ours.p99 / ours.p50:8.1f}x"
        )


@contextmanager
def _bare_callable() -> Iterator[int]:
    port = free_port()
    command = [_GUNICORN, "-k", "asgi", "--keep-alive", "3600", "--no-control-socket"]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen([*command, "-b", f"127.0.0.1:{port}", "bench.bare:asgi"], stdout=log, stderr=log)
        try:
            _wait_for(f"http://127.0.0.1:{port}/")
            yield port
        finally:
            process.terminate()
            process.wait(20)


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            requests.get(url, timeout=1)
        except requests.ConnectionError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError("the bare callable did not start")


if __name__ == "__main__":
    main()
