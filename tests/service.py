"""A running authsvc as a process of its own, for tests from the outside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import requests

from authsvc.settings import split_secrets
from tests import fork_server
from tests.broker import free_port

if TYPE_CHECKING:
    from collections.abc import Mapping

ADMIN_PASSWORD = "correct horse"
_PATIENCE = 20.0
# On a busy machine the imports alone can take half of this time.
_START_PATIENCE = 60.0


class Api:
    """The REST API of a running service, called as the administrator."""

    def __init__(self, url: str, admin_password: str) -> None:
        self.url = url
        self.api = requests.Session()
        self.api.auth = ("admin", admin_password)

    def call(self, method: str, path: str, **options: Any) -> requests.Response:
        """Call any path."""
        return self.api.request(method, self.url + path, timeout=_PATIENCE, **options)

    def create_user(self, username: str, password: str = "secret", *permissions: str, **fields: Any) -> None:
        """Create a user; permissions are spelled `write devices/#` or `deny read secret/#`."""
        body = {"username": username, "password": password, "permissions": list(map(permission, permissions)), **fields}
        answer = self.call("POST", "/api/users", json=body)
        assert answer.status_code == 201, answer.text


class Service(Api):
    """`authsvc serve` on free ports with a data directory of its own; `environment` adds or overrides settings.

    `patience` is the maximum duration of its start in seconds. The end of a `with` block kills it, which is fast;
    `stop` ends it with SIGTERM.
    """

    patience = _START_PATIENCE
    wait_for = "/readyz"
    """The address that a start waits for."""
    only: str | None = None
    """The one listener to run, `api` or `broker`; both unless given."""
    under: tuple[str, ...] = ()
    """A command to run the service under, such as one that limits what it may use."""
    as_command = False
    """Whether to run the installed command. If not, a process forks that has imported all of authsvc before."""

    def __init__(self, directory: Path, environment: Mapping[str, str] | None = None) -> None:
        self.log_file = directory / "authsvc.log"
        self.environment = {
            "AUTHSVC_DATA_DIR": str(directory / "data"),
            "AUTHSVC_ADMIN_PASSWORD": ADMIN_PASSWORD,
            "AUTHSVC_BCRYPT_COST": "4",
            # Even a cheap hash can take long on a busy machine, and tests expect no "verifying".
            "AUTHSVC_CONNECT_BUDGET_MS": "4000",
            "AUTHSVC_BIND": f"127.0.0.1:{free_port()}",
            "AUTHSVC_BROKER_BIND": f"127.0.0.1:{free_port()}",
            **(environment or {}),
        }
        self.process: subprocess.Popen[bytes] | fork_server.ForkedProcess | None = None
        self.port, self.broker_port = (
            _port(self.environment["AUTHSVC_BIND"]),
            _port(self.environment["AUTHSVC_BROKER_BIND"]),
        )
        self.broker_url = f"http://127.0.0.1:{self.broker_port}"
        super().__init__(f"http://127.0.0.1:{self.port}", self.environment["AUTHSVC_ADMIN_PASSWORD"])

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start the service and wait until it is ready."""
        self.launch()
        self.wait_until_ready()

    def launch(self) -> None:
        """Start the service without waiting until it is ready."""
        arguments = ["serve", *(["--only", self.only] if self.only else [])]
        if not (self.as_command or self.under):
            self.process = fork_server.start(arguments, self._environment_with_secret_files(), self.log_file)
            return
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.under, _command(), *arguments],
                env=self._full_environment(),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait_until_ready(self) -> None:
        """Wait until a launched service is ready."""
        assert self.process
        deadline = time.monotonic() + self.patience
        while not self._ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"authsvc did not start:\n{self.log_text()}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Send SIGTERM and wait for the end."""
        self.api.close()  # it waits for kept connections
        if self.process and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(_PATIENCE)
        self.process = None

    def kill(self) -> None:
        """Kill all its processes at once; some or all may have ended already."""
        self.api.close()
        if self.process is None:
            return
        group = self.process.pid
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
        self.process.wait(_PATIENCE)
        self.process = None
        deadline = time.monotonic() + _PATIENCE
        while processes_of_group(group):
            assert time.monotonic() < deadline, "killed processes are still there"
            time.sleep(0.005)

    def workers(self, listener: str | None = None) -> list[int]:
        """Return the process ids of the workers of one listener, `api` or `broker`, or of both."""
        assert self.process
        arbiters = [self.process.pid] if self.only else _children(self.process.pid)
        found = [pid for arbiter in arbiters for pid in _children(arbiter)]
        own = _niceness(self.process.pid)  # the API's workers have a lower priority
        return [pid for pid in found if listener in (None, "api" if _niceness(pid) > own else "broker")]

    def arbiter(self, listener: str) -> int:
        """Return the id of the process that runs one listener: the parent of its workers."""
        worker, *_ = self.workers(listener)
        return int(_stat(worker)[1])

    def command(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run `authsvc ...` with the service's own settings."""
        patience = max(_PATIENCE, self.patience)
        if not self.as_command:
            return fork_server.run(arguments, self._full_environment(), stdin, patience)
        return subprocess.run(
            [_command(), *arguments],
            env=self._full_environment(),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=patience,
            check=False,
        )

    def log_text(self) -> str:
        """Return the complete output and log of the service."""
        return self.log_file.read_text()

    def errors(self) -> list[str]:
        """Return the logged lines of level `error`."""
        return [line for line in self.log_text().splitlines() if '"level": "error"' in line]

    def _ready(self) -> bool:
        addresses = {"broker": self.broker_url + "/healthz", "api": self.url + self.wait_for}
        asked = [address for listener, address in addresses.items() if self.only in (None, listener)]
        try:
            return all(requests.get(address, timeout=1).status_code == 200 for address in asked)
        except (requests.ConnectionError, requests.Timeout):
            return False

    def _full_environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AUTHSVC_")}
        inherited.pop("PROMETHEUS_MULTIPROC_DIR", None)
        return inherited | self.environment

    def _environment_with_secret_files(self) -> dict[str, str]:
        """Return the environment with every secret in a file: with one in a variable, `serve` starts itself again."""
        others, secrets = split_secrets(self._full_environment())
        for name, secret in secrets.items():
            file = self.log_file.with_name(name)
            file.write_text(secret)
            others[f"{name}_FILE"] = str(file)
        return others


def processes_of_group(group: int) -> list[int]:
    """Return the ids of the running processes of a process group."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError):
            state, _, its_group, *_ = _stat(int(path.name))
            if int(its_group) == group and state != "Z":
                found.append(int(path.name))
    return found


def _stat(pid: int) -> list[str]:
    """Return the state, the parent, the process group and more of a process."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _port(bind: str) -> int:
    return int(bind.rpartition(":")[2])


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def _niceness(pid: int) -> int:
    try:
        return os.getpriority(os.PRIO_PROCESS, pid)
    except ProcessLookupError:
        return 0


def permission(words: str) -> dict[str, str]:
    """Return the API's form of a permission spelled `[deny] [http] operation resource`."""
    parts = words.split(" ")
    effect = parts.pop(0) if parts[0] in ("allow", "deny") else "allow"
    context = parts.pop(0) if parts[0] in ("mqtt", "http") else "mqtt"
    return {"context": context, "operation": parts[0], "resource": " ".join(parts[1:]), "effect": effect}


def _command() -> str:
    return str(Path(sys.executable).parent / "authsvc")
