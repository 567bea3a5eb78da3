"""The service, a broker that calls it, and the devices of one test."""

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
        answer = self.service.call("PATCH", f"/api/users/{device.username}", json=fields)
        assert answer.status_code == 200, answer.text

    def permit(self, device: Device, *permissions: str) -> None:
        """Replace the permissions of the device's user."""
        self.change(device, permissions=list(map(permission, permissions)))
