"""A site: the service, a broker that asks it, and the devices of one test."""

from __future__ import annotations

import itertools
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol, Self

from tests.devices import Device
from tests.service import permission

if TYPE_CHECKING:
    from tests.service import Api

PASSWORD = "secret"
_numbers = itertools.count(1)


class Broker(Protocol):
    """Whatever listens for devices."""

    host: str

    @property
    def port(self) -> int: ...


class Site:
    """Devices end with the `with` block; users are new in each test, under names of their own."""

    def __init__(self, service: Api, broker: Broker) -> None:
        self.service = service
        self.broker = broker
        self._running = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def add_user(self, name: str, *permissions: str, password: str = PASSWORD, **fields: Any) -> str:
        """Make a user and return the name it really got; permissions are spelled `write devices/#`."""
        username = f"{name}-{next(_numbers)}"
        self.service.create_user(username, password, *permissions, **fields)
        return username

    def device(
        self, username: str, password: str | bytes = PASSWORD, client_id: str | None = None, **options: Any
    ) -> Device:
        """Return a device that was not started; its client id is its username unless said otherwise."""
        device = Device(username, password, username if client_id is None else client_id, **options)
        self._running.callback(device.stop)
        return device

    def try_to_connect(
        self, username: str, password: str | bytes = PASSWORD, client_id: str | None = None, **options: Any
    ) -> int:
        """Return what the broker answers a device with these credentials."""
        device = self.device(username, password, client_id, **options)
        device.start(self.broker.port, self.broker.host)
        return device.connack()

    def connect(self, username: str, client_id: str | None = None, **options: Any) -> Device:
        """Return a device that this user has connected."""
        device = self.device(username, PASSWORD, client_id, **options)
        device.start(self.broker.port, self.broker.host)
        assert device.connack() == 0
        return device

    def connected(self, name: str, *permissions: str, **options: Any) -> Device:
        """Return a device that a new user with these permissions has connected."""
        return self.connect(self.add_user(name, *permissions), **options)

    def change(self, device: Device, **fields: Any) -> None:
        """Let the administrator change the device's user."""
        answer = self.service.call("PATCH", f"/api/users/{device.username}", json=fields)
        assert answer.status_code == 200, answer.text

    def permit(self, device: Device, *permissions: str) -> None:
        """Give the device's user these permissions in place of those it had."""
        self.change(device, permissions=list(map(permission, permissions)))
