"""A Mosquitto with authsvc's plugin, the stand-in for the service behind it, and devices."""

from __future__ import annotations

import itertools
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any, Self

from tests.broker import Mosquitto, free_port
from tests.devices import V5, Device
from tests.plugin.fake_service import FakeService, FakeUser, wait_for
from tests.plugin.in_broker.build import SANITIZER_REPORTS
from tests.plugin.in_broker.raw_mqtt import RawClient, login_code

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.plugin.in_broker.build import Build

NAME = "press-hall"


class Site:
    """The service, the broker and devices. All end with the `with` block; the log may hold no sanitizer report.

    `before` are lines of mosquitto.conf, `options` those of the plugin; `{dir}` in them is the broker's directory.
    Names of users and client ids are never used twice, so tests can share a site.
    """

    def __init__(
        self, build: Build, directory: Path, *options: str, before: str = "", service: FakeService | None = None
    ) -> None:
        self.build = build
        self.directory = directory
        self._given = service
        self._options = options
        self._before = before
        self._numbers = itertools.count(1)
        self._running = ExitStack()
        self._devices = ExitStack()

    def __enter__(self) -> Self:
        self.service = self._given or self._running.enter_context(FakeService())
        self.config = self.new_config()
        self.broker = Mosquitto(self.config, self.directory, self.build.environment)
        self._running.callback(self._check_log)
        self._running.enter_context(self.broker)
        return self

    def __exit__(self, *_: object) -> None:
        self.end_devices()
        self._running.close()

    def new_config(self) -> str:
        options = (f"url {self.url}", f"name {NAME}", *self._options)
        lines = [
            f"listener {free_port()} 127.0.0.1",
            "allow_anonymous false",
            self._before or "persistence false",
            f"plugin {self.build.plugin}",
            *(f"plugin_opt_{option}" for option in options),
        ]
        return "\n".join(lines).replace("{dir}", str(self.directory)) + "\n"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.service.server_port}"

    def _check_log(self) -> None:
        log = self.broker.log_text()
        for report in SANITIZER_REPORTS:
            assert report not in log, log[log.index(report) - 200 :]

    # ---- users ----

    def new_name(self, stem: str = "name") -> str:
        return f"{stem}-{next(self._numbers)}"

    def user(self, *rules: str, **fields: Any) -> str:
        """Create a user, with the password "secret" unless another is given, and return its name."""
        username = self.new_name("user")
        self.service.users[username] = FakeUser(rules=list(rules), **fields)
        return username

    # ---- devices ----

    def device(
        self, username: str | None, password: str | bytes | None = "secret", *, port: int | None = None, **options: Any
    ) -> Device:
        """Start a device without a look at what becomes of it; it speaks MQTT 5 unless told otherwise."""
        client_id = options.pop("client_id", None) or self.new_name("client")
        device = Device(username, password, client_id, options.pop("protocol", V5), **options)
        self._devices.callback(device.stop)
        device.start(port or self.broker.port)
        return device

    def connected(self, username: str | None, password: str | bytes | None = "secret", **options: Any) -> Device:
        """Start a device that is let in."""
        device = self.device(username, password, **options)
        assert device.connack() == 0
        return device

    def raw(self) -> RawClient:
        client = RawClient(self.broker.port)
        self._devices.callback(client.close)
        return client

    def code(self, username: str | None, password: str | None = "secret", client_id: str | None = None) -> int | None:
        """Return the CONNACK code of one login with MQTT 3.1.1."""
        given = [text if text is None else text.encode() for text in (username, password)]
        return login_code(self.broker.port, client_id or self.new_name("client"), given[0], given[1])

    def end_devices(self) -> None:
        self._devices.close()
        self._devices = ExitStack()

    # ---- what the service was asked ----

    def logins_asked(self, username: str) -> list[dict[str, Any]]:
        return [fields for fields in self.service.asked("/auth/user") if fields["username"] == username]

    def fetches(self, username: str) -> int:
        return sum(username in fields["usernames"] for fields in self.service.asked("/auth/plugin/users"))

    def reported(self, key: str) -> list[Any]:
        """Return all entries of one list of the reports so far."""
        return list(itertools.chain.from_iterable(report[key] for report in list(self.service.reports)))

    def denials(self, username: str) -> list[dict[str, Any]]:
        return [denial for denial in self.reported("denials") if denial["username"] == username]

    def connections(self, username: str) -> list[dict[str, Any]]:
        return [client for client in self.reported("connected") if client["username"] == username]

    # ---- the plugin's state ----

    def wait_until_up(self) -> None:
        """Wait until the plugin has an open stream."""
        wait_for(lambda: self.service.streams, 10)
        wait_for(self.reports_arrive, 10)

    def reports_arrive(self) -> bool:
        return bool(self.service.reports)

    def wait_until_down(self) -> None:
        """Wait until the plugin has noticed that the service does not answer."""
        self.broker.wait_for_log("does not answer")


def seconds_until(reached: Callable[[], Any], within: float = 5.0) -> float:
    """Wait until a condition holds and return how long that took."""
    began = time.monotonic()
    wait_for(reached, within)
    return time.monotonic() - began


def in_one_minute(attempt: Callable[[], None]) -> None:
    """Repeat something until all of it happened in the same minute of the clock."""
    while True:
        minute = int(time.time()) // 60
        attempt()
        if int(time.time()) // 60 == minute:
            return


def new_sites(build: Build, base: Path) -> Iterator[Callable[..., Site]]:
    """Yield a function that starts a site with options of its own."""
    with ExitStack() as running:

        def start(*options: str, **settings: Any) -> Site:
            return running.enter_context(Site(build, Path(mkdtemp(dir=base)), *options, **settings))

        yield start
