"""The service, a broker that calls it, and the devices of one test."""

from __future__ import annotations

import itertools
import re
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Protocol, Self

import pytest
import requests

from tests.broker import (
    Mosquitto,
    authsvc_plugin_config,
    build_authsvc_plugin,
    build_plugin,
    free_port,
    go_auth_config,
)
from tests.devices import Device
from tests.service import Service, permission

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.service import Api

THROUGH_BOTH = pytest.mark.parametrize(
    "broker", [pytest.param("go-auth", marks=pytest.mark.slow), "authsvc"], indirect=True
)
"""Runs a test through authsvc's own plugin and, with the slow tests, through the one that stands for go-auth."""

PASSWORD = "secret"
_numbers = itertools.count(1)


def broker_for(service: Service, directory: Path, plugin: str) -> Mosquitto:
    """Return a broker with the recommended settings and the plugin `go-auth` or `authsvc`, not started."""
    port, listener_port = service.broker_port, free_port()
    if plugin == "authsvc":
        config = authsvc_plugin_config(plugin=build_authsvc_plugin(), service_port=port, listener_port=listener_port)
    else:
        config = go_auth_config(plugin=build_plugin(), service_port=port, listener_port=listener_port)
    return Mosquitto(config, directory)


class Broker(Protocol):
    """A broker to which devices connect."""

    host: str

    @property
    def port(self) -> int: ...


class Site:
    """The service and broker of one test. Devices stop at the end of the `with` block; each user has a new name."""

    def __init__(self, service: Api, broker: Broker) -> None:
        self.service = service
        self.broker = broker
        self._running = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def add_user(self, name: str, *permissions: str, password: str = PASSWORD, **fields: Any) -> str:
        """Create a user and return its unique username. Permissions are spelled `write devices/#`."""
        username = f"{name}-{next(_numbers)}"
        self.service.create_user(username, password, *permissions, **fields)
        return username

    def device(
        self, username: str, password: str | bytes = PASSWORD, client_id: str | None = None, **options: Any
    ) -> Device:
        """Return a device that is not started. Its client id is its username by default."""
        device = Device(username, password, username if client_id is None else client_id, **options)
        self._running.callback(device.stop)
        return device

    def try_to_connect(
        self, username: str, password: str | bytes = PASSWORD, client_id: str | None = None, **options: Any
    ) -> int:
        """Connect with these credentials and return the broker's reason code."""
        device = self.device(username, password, client_id, **options)
        device.start(self.broker.port, self.broker.host)
        return device.connack()

    def connect(self, username: str, client_id: str | None = None, **options: Any) -> Device:
        """Return a connected device of this user."""
        device = self.device(username, PASSWORD, client_id, **options)
        device.start(self.broker.port, self.broker.host)
        assert device.connack() == 0
        return device

    def connected(self, name: str, *permissions: str, **options: Any) -> Device:
        """Return a connected device of a new user with these permissions."""
        return self.connect(self.add_user(name, *permissions), **options)

    def change(self, device: Device, **fields: Any) -> None:
        """Change the device's user as the administrator."""
        with self.in_force(device.username):
            answer = self.service.call("PATCH", f"/api/users/{device.username}", json=fields)
        assert answer.status_code == 200, answer.text

    def permit(self, device: Device, *permissions: str) -> None:
        """Replace the permissions of the device's user."""
        self.change(device, permissions=list(map(permission, permissions)))

    @contextmanager
    def in_force(self, username: str) -> Iterator[None]:
        """Wait, after the block, until a change in it is in force in the broker.

        authsvc's own plugin reads a changed user after the API has answered. It logs that, for a user that it knows.
        """
        yield
        if self._versions(username):
            changed = self._version_at_service(username)
            assert isinstance(self.broker, Mosquitto)
            self.broker.wait_until(lambda: max(self._versions(username)) >= changed, f"read the user {username} again")

    def _versions(self, username: str) -> list[int]:
        """Return the versions of a user that authsvc's own plugin has logged."""
        log = self.broker.log_text() if isinstance(self.broker, Mosquitto) else ""
        return [int(version) for version in re.findall(rf"authsvc: user {re.escape(username)} at version (\d+)", log)]

    def _version_at_service(self, username: str) -> int:
        assert isinstance(self.service, Service)
        url = f"{self.service.broker_url}/auth/plugin/users"
        secret = ("broker", self.service.environment.get("AUTHSVC_WEBHOOK_SECRET", ""))
        headers = {"Authsvc-Plugin": "1"}
        answer = requests.post(url, json={"usernames": [username]}, headers=headers, auth=secret, timeout=5)
        version: int = answer.json()["version"]
        return version
