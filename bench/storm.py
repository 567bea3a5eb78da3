"""Figure 3: a thousand devices reconnect at once, after a restart of the service and with cached passwords.

python -m bench.storm [--rounds N] [--quick]
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

import bcrypt

from bench import command
from bench.deployment import broker, default_service
from bench.fleet import PingingDevice, Storm, storm
from bench.report import Figure, Limit, number
from bench.wire import Fleet

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.service import Service

_STALL_MS = 250
_PASSWORDS = 20  # shared by many devices to save setup time; the service hashes once per username anyway
_BYSTANDER = ("pinging_device", "the pinging_device's secret")
_ADDED_AT = "2026-01-01 00:00:00"


class Round(NamedTuple):
    """One restart: seconds of pure hashing on all cores, both storms, and single warm logins per second."""

    pure: float
    cold: Storm
    warm: Storm
    login_rate: float


def measure(rounds: int, *, quick: bool) -> Figure:
    """Measure storms at both bcrypt costs; only once at the higher cost, which takes four times as long."""
    devices = 40 if quick else 1000
    return _figure(devices, {10: _rounds(10, devices, rounds), 12: _rounds(12, devices, 1)})


def _rounds(cost: int, devices: int, rounds: int) -> list[Round]:
    with tempfile.TemporaryDirectory() as directory:
        service = default_service(Path(directory), {"AUTHSVC_BCRYPT_COST": str(cost)})
        with service:
            service.create_user(*_BYSTANDER)
        credentials = _write_devices(service, cost, devices)
        with service, broker(Path(directory) / "broker", service.broker_port) as asking, Fleet(asking.port) as fleet:
            pinging_device = PingingDevice(fleet, fleet.logged_in_after_retries(*_BYSTANDER))
            return [_round(service, fleet, pinging_device, credentials, cost) for _ in range(rounds)]


def _write_devices(service: Service, cost: int, devices: int) -> dict[str, str]:
    """Write devices directly into the SQLite file of a stopped service; return passwords by username."""
    passwords = [f"s3cret-{number}" for number in range(_PASSWORDS)]
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        hashes = list(threads.map(lambda each: bcrypt.hashpw(each.encode(), bcrypt.gensalt(cost)).decode(), passwords))
    rows = [(f"press-{each}", hashes[each % _PASSWORDS], _ADDED_AT, _ADDED_AT) for each in range(devices)]
    with closing(sqlite3.connect(Path(service.environment["AUTHSVC_DATA_DIR"]) / "authsvc.db")) as file, file:
        file.executemany(
            "INSERT INTO users (username, password_hash, enabled, grant_types, created_at, updated_at) "
            "VALUES (?, ?, 1, 'password', ?, ?)",
            rows,
        )
    return {row[0]: passwords[each % _PASSWORDS] for each, row in enumerate(rows)}


def _round(
    service: Service, fleet: Fleet, pinging_device: PingingDevice, credentials: Mapping[str, str], cost: int
) -> Round:
    service.stop()
    pure = _pure(cost, len(credentials))
    service.start()
    cold = storm(fleet, pinging_device, credentials, 3 * pure + 30)
    warm = storm(fleet, pinging_device, credentials, 60)
    return Round(pure, cold, warm, _login_rate(fleet, credentials))


def _pure(cost: int, hashes: int) -> float:
    """Return the seconds for this number of hashes on all cores, extrapolated from a part of them."""
    part = max(4, min(hashes, 400 >> (cost - 8)))
    stored = bcrypt.hashpw(b"", bcrypt.gensalt(cost))
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        started = perf_counter()
        list(threads.map(lambda _: bcrypt.checkpw(b"", stored), range(part)))
        return (perf_counter() - started) * hashes / part


def _login_rate(fleet: Fleet, credentials: Mapping[str, str]) -> float:
    """Return the rate of warm logins, one after the other, per second."""
    some = list(credentials.items())[:300]
    started = perf_counter()
    for username, password in some:
        fleet.logged_in(username, username, password).close()
    return len(some) / (perf_counter() - started)


def _figure(devices: int, taken: Mapping[int, Sequence[Round]]) -> Figure:
    header = ["cost", "", "all in", "hashing alone", "refusals a device", "longest stall, median", "worst"]
    rows = [row for cost, rounds in taken.items() for row in _rows(cost, rounds, devices)]
    return Figure(
        "3. Reconnect storm",
        f"{devices} devices, each with a name of its own, connect at once, and after a refusal again 0.8 to 1.2 "
        "seconds later; no more than a hundred wait to be accepted, which is Mosquitto's backlog. A pinging_device, in "
        "before, sends a PINGREQ every 20 ms; a stall is the longest that one waits for its answer.",
        [header, *rows],
        [limit for cost, rounds in taken.items() for limit in _limits(cost, rounds, devices)],
        f"Cost 12 takes four times as long and is measured once. Hashing alone is that of {devices} passwords by "
        "bcrypt on all cores with nothing else running, from a part of them. Neither restart nor storm has cost the "
        "pinging_device its session.",
    )


def _rows(cost: int, rounds: Sequence[Round], devices: int) -> list[list[str]]:
    pure = f"{number(median(each.pure for each in rounds))} s"
    return [
        _row(cost, "cold: just restarted", [each.cold for each in rounds], pure, devices),
        _row(cost, "warm", [each.warm for each in rounds], "", devices),
    ]


def _row(cost: int, what: str, storms: Sequence[Storm], pure: str, devices: int) -> list[str]:
    stalls = [each.longest_stall * 1000 for each in storms]
    return [
        str(cost),
        what,
        f"{number(median(each.all_in for each in storms))} s",
        pure,
        number(median(each.refused for each in storms) / devices),
        f"{number(median(stalls))} ms",
        f"{number(max(stalls))} ms",
    ]


def _limits(cost: int, rounds: Sequence[Round], devices: int) -> list[Limit]:
    stall = median(each.cold.longest_stall for each in rounds) * 1000
    in_time = median(each.cold.all_in / each.pure for each in rounds)
    speed = median(devices / each.warm.all_in / each.login_rate for each in rounds)
    return [
        Limit(f"cost {cost}, cold: the pinging_device's longest stall", stall, at_most=_STALL_MS, unit="ms"),
        Limit(f"cost {cost}, cold: everybody in, beside hashing alone", in_time, at_most=1.3),
        Limit(f"cost {cost}, warm: logins a second, beside warm logins one by one", speed, at_least=1),
    ]


if __name__ == "__main__":
    command.run(measure, __doc__)
