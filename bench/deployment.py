"""The measured service with its default settings, and a broker that calls a port."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.broker import Mosquitto, build_plugin, free_port, go_auth_config
from tests.service import Service

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# No log of packets, because it would be part of each measured time.
QUIET = "log_type none\nlog_type information"
_TESTS_OWN = ("AUTHSVC_BCRYPT_COST", "AUTHSVC_CONNECT_BUDGET_MS")


def default_service(directory: Path, environment: Mapping[str, str] | None = None) -> Service:
    """Return a service without the settings that make tests fast; `environment` adds or overrides settings."""
    service = Service(directory)
    service.as_command = True
    for name in _TESTS_OWN:
        del service.environment[name]
    service.environment |= environment or {}
    return service


def seconds_of(service: Service, *arguments: str) -> float:
    """Run a command of the service, which must succeed, and return its seconds."""
    begun = time.perf_counter()
    result = service.command(*arguments)
    assert result.returncode == 0, result.stderr
    return time.perf_counter() - begun


def broker(directory: Path, service_port: int, extra: str = "") -> Mosquitto:
    """Return a broker whose plugin calls this port and caches nothing."""
    directory.mkdir(exist_ok=True)
    config = go_auth_config(
        plugin=build_plugin(), service_port=service_port, listener_port=free_port(), extra=f"{QUIET}\n{extra}"
    )
    return Mosquitto(config, directory)
