"""A real Mosquitto for tests, with a plugin that calls the webhooks as go-auth does."""

import hashlib
import itertools
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlencode

PLUGIN_SOURCE = Path(__file__).parent / "mosquitto_plugin" / "webhook_plugin.c"
BUILD_DIR = Path(__file__).parent / ".build"
COMPILE = ("gcc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC")
PATIENCE = 10.0  # seconds for anything the broker does at once; longer means that it never will


class BrokerError(Exception):
    """Mosquitto did not do what was asked of it; the text ends with its log."""


def build_plugin(target_dir: Path = BUILD_DIR) -> Path:
    """Compile the plugin into `target_dir`, or return the one that this very source already gave.

    Safe in several processes at once: each compiles under a name of its own and renames.
    """
    fingerprint = hashlib.sha256(PLUGIN_SOURCE.read_bytes() + repr(COMPILE).encode()).hexdigest()
    plugin = target_dir / f"webhook_plugin-{fingerprint[:16]}.so"
    if not plugin.exists():
        target_dir.mkdir(parents=True, exist_ok=True)
        unfinished = plugin.with_suffix(f".{os.getpid()}")
        subprocess.run([*COMPILE, "-o", unfinished, PLUGIN_SOURCE, "-lcurl"], check=True)
        unfinished.replace(plugin)
    return plugin


# Below the range from which Linux takes the ports of outgoing connections.
_FIRST_PORT, _LAST_PORT = 20_000, 31_999
_PORTS_OF_ONE_WORKER = 1_500


@cache
def _ports() -> Iterator[int]:
    """Yield the ports of this test process, each once before any comes again; no other worker has the same."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = _FIRST_PORT + worker * _PORTS_OF_ONE_WORKER % (_LAST_PORT + 1 - _FIRST_PORT)
    start = secrets.randbelow(_PORTS_OF_ONE_WORKER)
    return itertools.cycle(first + (start + offset) % _PORTS_OF_ONE_WORKER for offset in range(_PORTS_OF_ONE_WORKER))


def free_port() -> int:
    """Return a loopback port on which nothing listens, and which no test of this run uses."""
    for port in _ports():
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("unreachable")


def go_auth_config(
    *,
    plugin: Path,
    service_port: int,
    listener_port: int,
    webhook_secret: str | None = None,
    response_mode: str = "json",
    params_mode: str = "json",
    extra: str = "",
) -> str:
    """Write a `mosquitto.conf` with the recommended settings; of a repeated option the one in `extra` wins."""
    wanted = {"key": webhook_secret, "response": "text" if response_mode == "text" else None}
    query = urlencode({name: value for name, value in wanted.items() if value is not None})
    suffix = f"?{query}" if query else ""
    return f"""\
listener {listener_port} 127.0.0.1
allow_anonymous false
persistence false
check_retain_source true

auth_plugin {plugin}
auth_opt_backends http
auth_opt_http_host 127.0.0.1
auth_opt_http_port {service_port}
auth_opt_http_getuser_uri /auth/user{suffix}
auth_opt_http_aclcheck_uri /auth/acl{suffix}
auth_opt_http_params_mode {params_mode}
auth_opt_http_response_mode {response_mode}
auth_opt_http_timeout 2
auth_opt_retry_count 1
auth_opt_cache false
{extra}
"""


class Mosquitto:
    """One broker process; as a context manager it runs inside the block.

    `config` names its own ports in `listener` lines; the configuration and the log are kept in `directory`. The
    variables in `environment` are added to those of this process.
    """

    host = "127.0.0.1"

    def __init__(self, config: str, directory: Path, environment: Mapping[str, str] | None = None) -> None:
        self.ports = [int(port) for port in re.findall(r"^listener (\d+)", config, re.MULTILINE)]
        self._config_file = directory / "mosquitto.conf"
        self._log_file = directory / "mosquitto.log"
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._config_file.write_text(_preamble(config) + config)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def port(self) -> int:
        """The port of the first listener."""
        return self.ports[0]

    def log_text(self) -> str:
        """Everything logged so far, at every level, earlier starts in the same directory included."""
        return self._log_file.read_text(errors="replace") if self._log_file.exists() else ""

    def start(self) -> None:
        """Run the broker and wait until its listeners accept; raise `BrokerError` if it ends instead."""
        seen = self.log_text().count(" running\n")
        with self._log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [_executable(), "-c", self._config_file],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env=self._environment and {**os.environ, **self._environment},
            )
        # The log, and not a probe of the port: another program could have taken the port first.
        self._wait_until(lambda: self.log_text().count(" running\n") > seen, "start")

    def reload(self) -> None:
        """Send SIGHUP and wait until the broker is at it: a connection made now is served when it is done."""
        seen = self.log_text().count("Reloading config.")
        self._running().send_signal(signal.SIGHUP)
        self._wait_until(lambda: self.log_text().count("Reloading config.") > seen, "reload")

    def wait_for_log(self, text: str) -> None:
        """Wait until the broker has written this into its log."""
        self._wait_until(lambda: text in self.log_text(), f"log {text!r}")

    @property
    def pid(self) -> int:
        return self._running().pid

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """End the process, if it runs, and wait for it."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:  # stuck in a webhook that never answers
            self._process.kill()
            self._process.wait()
        self._process = None

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._process is None:
            raise BrokerError("the broker does not run")
        return self._process

    def _wait_until(self, reached: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not reached():
            if self._running().poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise BrokerError(f"mosquitto did not {what}:\n{self.log_text()}")
            time.sleep(0.005)


def _preamble(config: str) -> str:
    """Settings in front of any configuration.

    Everything is logged to stderr, since Mosquitto writes to a redirected stdout in blocks. Started as root it
    stays root: user `mosquitto` may not read the directories of root's tests.
    """
    names_a_user = re.search(r"^user ", config, re.MULTILINE)
    stay_root = "user root\n" if os.geteuid() == 0 and not names_a_user else ""
    return f"log_dest stderr\nlog_type all\n{stay_root}"


def _executable() -> str:
    """Find Mosquitto, also where Debian puts it and an ordinary user's PATH does not look."""
    path = shutil.which("mosquitto", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")
    if path is None:
        raise BrokerError("mosquitto is not installed")
    return path
