"""What the tests of the plugin itself run on: Mosquitto with the plugin, before a server that only records."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

import pytest

from tests.broker import Mosquitto, build_plugin, free_port, go_auth_config
from tests.devices import Device
from tests.mosquitto_plugin.webhooks import Webhooks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Site:
    """The recording server, a broker in front of it, and devices; all end with the `with` block.

    The broker starts at its first use, or in `configure` with other options than the recommended ones.
    """

    def __init__(self, plugin: Path, directory: Path) -> None:
        self._plugin = plugin
        self._directory = directory
        self._broker: Mosquitto | None = None
        self._running = ExitStack()

    def __enter__(self) -> Self:
        self.webhooks = self._running.enter_context(Webhooks())
        server = threading.Thread(target=self.webhooks.serve_forever, args=(0.01,))
        server.start()
        self._running.callback(server.join)
        self._running.callback(self.webhooks.shutdown)
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def configure(self, *options: str, **settings: str) -> None:
        config = go_auth_config(
            plugin=self._plugin,
            service_port=self.webhooks.server_port,
            listener_port=free_port(),
            extra="\n".join(f"auth_opt_{option}" for option in options),
            **settings,
        )
        self._broker = self._running.enter_context(Mosquitto(config, self._directory))

    @property
    def broker(self) -> Mosquitto:
        if self._broker is None:
            self.configure()
        assert self._broker
        return self._broker

    def device(
        self, username: str | None = "bob", password: str | bytes | None = "pw", client_id: str = "c1", **options: Any
    ) -> Device:
        """Start a device without a look at what becomes of it."""
        device = Device(username, password, client_id, **options)
        port = self.broker.port
        self._running.callback(device.stop)
        device.start(port)
        return device

    def connected(self, *credentials: Any, **options: Any) -> Device:
        """Start a device that is let in."""
        device = self.device(*credentials, **options)
        assert device.connack() == 0
        return device


@pytest.fixture(scope="session")
def plugin() -> Path:
    return build_plugin()


@pytest.fixture
def site(plugin: Path, tmp_path: Path) -> Iterator[Site]:
    with Site(plugin, tmp_path) as site:
        yield site
