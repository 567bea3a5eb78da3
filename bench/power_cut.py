"""Figure 9: a power cut. Broker and service have just restarted, and 10,000 devices come at once.

python -m bench.power_cut [--rounds N] [--quick]
"""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from authsvc.credentials.password_hashes import hash_generated
from authsvc.credentials.passwords import PasswordPolicy, generate
from authsvc.server.connection_limits import raise_descriptor_limit
from bench import command
from bench.deployment import QUIET, broker, default_service
from bench.fleet import PingingDevice, Storm, storm
from bench.report import Figure, Limit, number
from bench.wire import Fleet
from tests.broker import Mosquitto, authsvc_plugin_config, build_authsvc_plugin, free_port

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.service import Service

_ALL_IN_SECONDS = 10
_STALL_MS = 250
_PATIENCE = 120
_BYSTANDER = "bystander"
_ADDED_AT = "2026-01-01 00:00:00"
_PLUGINS = ("authsvc's plugin", "go-auth")


def measure(rounds: int, *, quick: bool) -> Figure:
    """Measure the time until all devices with generated passwords are connected, through both plugins."""
    raise_descriptor_limit()  # the broker, which this process starts, has the same limit
    devices = 500 if quick else 10_000
    with tempfile.TemporaryDirectory() as directory:
        service = default_service(Path(directory))
        with service:
            pass
        passwords = _write_devices(service, devices)
        taken: dict[str, list[Storm]] = {plugin: [] for plugin in _PLUGINS}
        for _ in range(rounds):
            for plugin, storms in taken.items():
                storms.append(_power_cut(service, plugin, Path(directory) / "broker", passwords))
    return _figure(devices, taken)


def _write_devices(service: Service, devices: int) -> dict[str, str]:
    """Write devices and a bystander into the SQLite file of a stopped service; return passwords by username."""
    names = [_BYSTANDER, *(f"press-{each}" for each in range(devices))]
    passwords = {name: generate(PasswordPolicy()) for name in names}
    rows = [(name, hash_generated(password), _ADDED_AT, _ADDED_AT) for name, password in passwords.items()]
    with closing(sqlite3.connect(Path(service.environment["AUTHSVC_DATA_DIR"]) / "authsvc.db")) as file, file:
        file.executemany(
            "INSERT INTO users (username, password_hash, enabled, grant_types, created_at, updated_at) "
            "VALUES (?, ?, 1, 'password', ?, ?)",
            rows,
        )
    return dict(passwords)


def _power_cut(service: Service, plugin: str, directory: Path, passwords: Mapping[str, str]) -> Storm:
    devices = {name: password for name, password in passwords.items() if name != _BYSTANDER}
    with service, _broker(plugin, directory, service.broker_port) as asking, Fleet(asking.port) as fleet:
        bystander = fleet.logged_in_after_retries(_BYSTANDER, passwords[_BYSTANDER])
        return storm(fleet, PingingDevice(fleet, bystander), devices, _PATIENCE)


def _broker(plugin: str, directory: Path, service_port: int) -> Mosquitto:
    if plugin == "go-auth":
        return broker(directory, service_port)
    directory.mkdir(exist_ok=True)
    config = authsvc_plugin_config(
        plugin=build_authsvc_plugin(), service_port=service_port, listener_port=free_port(), extra=QUIET
    )
    return Mosquitto(config, directory)


def _figure(devices: int, taken: Mapping[str, Sequence[Storm]]) -> Figure:
    rows = [["plugin", "all in, median", "slowest", "refusals a device", "longest stall, median", "worst"]]
    limits = []
    for plugin, storms in taken.items():
        seconds, stalls = [each.all_in for each in storms], [each.longest_stall * 1000 for each in storms]
        rows.append(
            [
                plugin,
                f"{number(median(seconds))} s",
                f"{number(max(seconds))} s",
                number(median(each.refused for each in storms) / devices),
                f"{number(median(stalls))} ms",
                f"{number(max(stalls))} ms",
            ]
        )
        limits += [
            Limit(f"{plugin}: everybody in", median(seconds), at_most=_ALL_IN_SECONDS, unit="s"),
            Limit(f"{plugin}: the bystander's longest stall", median(stalls), at_most=_STALL_MS, unit="ms"),
        ]
    return Figure(
        "9. A power cut",
        f"Broker and service have just been started; {devices:,} devices with generated passwords connect at once, and "
        "after a refusal again 0.8 to 1.2 seconds later. No more than a hundred wait to be accepted. A bystander, in "
        "before, sends a PINGREQ every 20 ms; a stall is the longest that one waits for its answer.",
        rows,
        limits,
        "No password is remembered. Each is checked against a salted SHA-256 in the event loop, so no login waits for "
        "a hash.",
    )


if __name__ == "__main__":
    command.run(measure, __doc__)
