"""A real Mosquitto for tests, with a plugin that calls the webhooks as go-auth does."""

import hashlib
import itertools
import math
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
PATIENCE = 10.0  # seconds to wait for an event of the broker


class BrokerError(Exception):
    """Mosquitto failed; the text ends with its log."""


def build_plugin(target_dir: Path = BUILD_DIR) -> Path:
    """Compile the plugin into `target_dir`, unless it was compiled from the same source before; return its path.

    Several processes can call this at once: each compiles to its own file name and renames the file.
    """
    fingerprint = hashlib.sha256(PLUGIN_SOURCE.read_bytes() + repr(COMPILE).encode()).hexdigest()
    plugin = target_dir / f"webhook_plugin-{fingerprint[:16]}.so"
    if not plugin.exists():
        target_dir.mkdir(parents=True, exist_ok=True)
        unfinished = plugin.with_suffix(f".{os.getpid()}")
        subprocess.run([*COMPILE, "-o", unfinished, PLUGIN_SOURCE, "-lcurl"], check=True)
        unfinished.replace(plugin)
    return plugin


# Below the port range that Linux uses for outgoing connections.
_FIRST_PORT, _LAST_PORT = 20_000, 31_999
_PORTS_OF_ONE_WORKER = 1_500


@cache
def _ports() -> Iterator[int]:
    """Yield the ports of this test process in rotation; no other test process uses them."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = _FIRST_PORT + worker * _PORTS_OF_ONE_WORKER % (_LAST_PORT + 1 - _FIRST_PORT)
    start = secrets.randbelow(_PORTS_OF_ONE_WORKER)
    return itertools.cycle(first + (start + offset) % _PORTS_OF_ONE_WORKER for offset in range(_PORTS_OF_ONE_WORKER))


def free_port() -> int:
    """Return a free loopback port that no other test of this run uses."""
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
    """Write a `mosquitto.conf` with the recommended settings; options in `extra` override the others."""
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


AUTHSVC_PLUGIN_DIR = Path(__file__).parents[1] / "deploy" / "mosquitto" / "plugin"


def build_authsvc_plugin(*options: str, target_dir: Path = BUILD_DIR) -> Path:
    """Compile authsvc's own plugin, or return it if it was compiled from the same sources with the same options.

    `options` are variables of its Makefile, as in `CFLAGS=-g`. Safe in several processes at once.
    """
    sources = sorted(path for path in AUTHSVC_PLUGIN_DIR.iterdir() if path.suffix in (".c", ".h", ".map", ""))
    content = b"".join(path.read_bytes() for path in sources) + repr(options).encode()
    plugin = target_dir / f"mosquitto_authsvc-{hashlib.sha256(content).hexdigest()[:16]}.so"
    if not plugin.exists():
        target_dir.mkdir(parents=True, exist_ok=True)
        unfinished = plugin.with_suffix(f".{os.getpid()}")
        command: list[str | Path] = [
            "make",
            "--silent",
            "-C",
            AUTHSVC_PLUGIN_DIR,
            "-B",
            f"PLUGIN={unfinished.absolute()}",
            *options,
        ]
        subprocess.run(command, check=True)
        unfinished.replace(plugin)
    return plugin


def authsvc_plugin_config(*, plugin: Path, service_port: int, listener_port: int, extra: str = "") -> str:
    """Write a `mosquitto.conf` for authsvc's own plugin."""
    return f"""\
listener {listener_port} 127.0.0.1
allow_anonymous false
persistence false
check_retain_source true

plugin {plugin}
plugin_opt_url http://127.0.0.1:{service_port}
{extra}
"""


class Mosquitto:
    """A broker process; as a context manager it runs inside the block.

    `config` has the ports in `listener` lines. The configuration and the log are in `directory`. The
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
        """The complete log, including earlier starts in the same directory."""
        return self._log_file.read_text(errors="replace") if self._log_file.exists() else ""

    def start(self) -> None:
        """Start the broker and wait until its listeners accept connections; raise `BrokerError` if it ends."""
        seen = self.log_text().count(" running\n")
        with self._log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [_executable(), "-c", self._config_file],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env=self._environment and {**os.environ, **self._environment},
            )
        # Read the log instead of probing the port, because another program could have taken the port.
        self.wait_until(lambda: self.log_text().count(" running\n") > seen, "start")

    def reload(self) -> None:
        """Send SIGHUP and wait until the broker has begun to reload; later connections are served after the reload.

        Mosquitto forgets a SIGHUP that arrives during an earlier reload, so the signal is repeated each second.
        """
        seen, sent_at = self.log_text().count("Reloading config."), -math.inf

        def begun() -> bool:
            nonlocal sent_at
            if time.monotonic() > sent_at + 1:
                self._running().send_signal(signal.SIGHUP)
                sent_at = time.monotonic()
            return self.log_text().count("Reloading config.") > seen

        self.wait_until(begun, "reload")

    def wait_for_log(self, text: str) -> None:
        """Wait until the log contains this text."""
        self.wait_until(lambda: text in self.log_text(), f"log {text!r}")

    @property
    def pid(self) -> int:
        return self._running().pid

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """Stop the process, if it runs, and wait for its end."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:  # blocked in a webhook that never answers
            self._process.kill()
            self._process.wait()
        self._process = None

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._process is None:
            raise BrokerError("the broker does not run")
        return self._process

    def wait_until(self, reached: Callable[[], bool], what: str) -> None:
        """Wait for a condition while the broker runs; raise `BrokerError` with `what` it did not do."""
        deadline = time.monotonic() + PATIENCE
        while not reached():
            if self._running().poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise BrokerError(f"mosquitto did not {what}:\n{self.log_text()}")
            time.sleep(0.005)


def _preamble(config: str) -> str:
    """Return the settings that precede each configuration.

    Mosquitto logs to stderr, because it buffers a redirected stdout. If started as root it
    stays root, because the user `mosquitto` cannot read the directories of root's tests.
    """
    names_a_user = re.search(r"^user ", config, re.MULTILINE)
    stay_root = "user root\n" if os.geteuid() == 0 and not names_a_user else ""
    return f"log_dest stderr\nlog_type all\n{stay_root}"


def _executable() -> str:
    """Return the path of Mosquitto, also from /usr/sbin, which is not in the PATH of an ordinary user."""
    path = shutil.which("mosquitto", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")
    if path is None:
        raise BrokerError("mosquitto is not installed")
    return path
