"""Runs `authsvc` quickly: a process that has already imported all of it forks, and the child runs one command.

One such process belongs to each test process. prometheus_client decides at its import to keep metrics in files; the
processes of a service open theirs later, in the directory that the service names, as after any fork.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import NoReturn

# What `authsvc serve` imports, by itself and when it prepares a database or starts a worker.
_MODULES = (
    *("authsvc.app", "authsvc.broker.asgi", "authsvc.cli.main", "authsvc.cli.serve", "authsvc.server.serve"),
    *("authsvc.web.asgi", "gunicorn.workers.gasgi", "multiprocessing.popen_fork", "uvloop"),
)
_METRICS = "PROMETHEUS_MULTIPROC_DIR"
_CHECKOUT = Path(__file__).parents[1]


class ForkedProcess:
    """A forked service, with the methods of `subprocess.Popen` that tests use."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code if the process has ended, as `subprocess.Popen` does."""
        if self.returncode is None:
            self.returncode = _fork_server().ask({"poll": self.pid})
        return self.returncode

    def wait(self, timeout: float = 60.0) -> int:
        """Return the exit code once the process has ended; raise `TimeoutExpired` after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("authsvc serve", timeout)
            time.sleep(0.01)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal if the process has not ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask the process to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the process at once."""
        self.send_signal(signal.SIGKILL)


def start(arguments: Sequence[str], environment: Mapping[str, str], log_file: Path) -> ForkedProcess:
    """Start `authsvc` with these arguments in a session of its own; its output is appended to `log_file`."""
    return _start(arguments, environment, (Path(os.devnull), log_file, log_file))


def run(
    arguments: Sequence[str], environment: Mapping[str, str], stdin: str, timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run `authsvc` with these arguments to its end, as `subprocess.run` does."""
    with tempfile.TemporaryDirectory() as name:
        files = Path(name, "stdin"), Path(name, "stdout"), Path(name, "stderr")
        files[0].write_text(stdin)
        process = _start(arguments, {**environment, _METRICS: name}, files)
        try:
            code = process.wait(timeout)
        finally:
            process.kill()
        return subprocess.CompletedProcess(["authsvc", *arguments], code, files[1].read_text(), files[2].read_text())


def _start(arguments: Sequence[str], environment: Mapping[str, str], files: tuple[Path, Path, Path]) -> ForkedProcess:
    request = {
        "start": list(arguments),
        "environment": dict(environment),
        "directory": str(Path.cwd()),
        "files": [str(file) for file in files],
    }
    return ForkedProcess(_fork_server().ask(request))


class _ForkServer:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", "tests.fork_server", str(theirs.fileno())]
        self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], cwd=_CHECKOUT, start_new_session=True)
        theirs.close()
        self._socket, self._stream = ours, ours.makefile("rw")
        atexit.register(self._close)

    def ask(self, request: dict[str, Any]) -> Any:
        """Return the answer to one request."""
        with self._lock:
            self._stream.write(json.dumps(request) + "\n")
            self._stream.flush()
            return json.loads(self._stream.readline())

    def _close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._stream.close()
        self._socket.close()


@cache
def _fork_server() -> _ForkServer:
    return _ForkServer()


def _serve_requests(connection: socket.socket) -> None:
    with tempfile.TemporaryDirectory() as directory:
        os.environ[_METRICS] = directory
        for module in _MODULES:
            importlib.import_module(module)
    stream = connection.makefile("rw")
    for line in stream:
        request = json.loads(line)
        answer = _exit_code(request["poll"]) if "poll" in request else _forked(request, connection)
        stream.write(json.dumps(answer) + "\n")
        stream.flush()


def _exit_code(pid: int) -> int | None:
    ended, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None


def _forked(request: dict[str, Any], connection: socket.socket) -> int:
    pid = os.fork()
    if pid == 0:
        connection.close()
        _run_authsvc(request)
    return pid


def _run_authsvc(request: dict[str, Any]) -> NoReturn:
    os.setsid()
    os.chdir(request["directory"])
    for descriptor, file in enumerate(request["files"]):
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND if descriptor else os.O_RDONLY
        os.dup2(os.open(file, flags, 0o644), descriptor)
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = ["authsvc", *request["start"]]
    code: object = 1
    try:
        importlib.import_module("authsvc.cli.main").main()
    except SystemExit as end:
        code = end.code
        if isinstance(code, str):
            sys.stderr.write(code + "\n")
    except Exception:  # noqa: BLE001 - as the interpreter does
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    _serve_requests(socket.socket(fileno=int(sys.argv[1])))
