"""Notifies the broker processes of a policy change, and waits until each has reloaded.

Each broker process listens on a Unix socket of its own in `run/` below the data directory. The process that made a
change connects to every socket there; an answer means that the change is in force behind it. A killed process leaves a
socket on which nobody listens: the next process that connects to it removes it and does not wait. The time of a
socket's last modification is the time of its process's last policy refresh.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from contextlib import closing, suppress
from multiprocessing.connection import Client, Connection, Listener, wait
from pathlib import Path
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

# A process that is too busy to answer in this time reloads by itself within the poll interval.
_WAIT_SECONDS = 0.8
# A socket that was not touched for this long may belong to a killed process.
_SUSPECT_AFTER_SECONDS = 2.0
_RELOAD, _DONE, _FAILED = b"reload", b"done", b"failed"


class Propagation:
    """The sockets in one directory.

    Paths go through a descriptor of the directory (`/proc/self/fd/N/...`): a socket's path is limited to 107 bytes, a
    data directory's path is not.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = Path(f"/proc/self/fd/{os.open(directory, os.O_RDONLY | os.O_DIRECTORY)}")
        self._notified: Hashable = None
        self._listener: Listener | None = None
        self._own = self._path / f"{secrets.token_hex(8)}.sock"

    def notify(self, version: Hashable) -> None:
        """Let every broker process reload and wait until each has; do nothing if this version was notified before."""
        if version != self._notified and self.all_reloaded():
            self._notified = version

    def all_reloaded(self) -> bool:
        """Let every broker process reload; return False if one failed or took longer than 0.8 s."""
        waiting: list[Connection] = []
        try:
            for connection in self._connections():
                waiting.append(connection)
                connection.send_bytes(_RELOAD)
            return _all_answered(waiting)
        except OSError:
            return False
        finally:
            for connection in waiting:
                connection.close()

    @property
    def age(self) -> float:
        """Seconds since the broker process furthest behind refreshed its policy; 0 if there is no broker process."""
        ages = map(_age_of, self._path.iterdir())
        return max((age for age in ages if age is not None), default=0.0)

    def report(self, age: float) -> None:
        """Publish, if this is a broker process, that its policy was refreshed `age` seconds ago."""
        if self._listener:
            refreshed_at = time.time() - age
            os.utime(self._own, (refreshed_at, refreshed_at))

    def listen(self, reload: Callable[[], object]) -> None:
        """Become a broker process: call `reload` in a thread whenever another process asks for it."""
        self._listener = Listener(str(self._own), "AF_UNIX", backlog=64)
        answering = threading.Thread(target=_answer, args=(self._listener, reload), name="propagation", daemon=True)
        answering.start()

    def close(self) -> None:
        """Stop listening and remove the socket."""
        if self._listener:
            self._listener.close()
            self._listener = None
            self._own.unlink(missing_ok=True)

    def _connections(self) -> Iterator[Connection]:
        for path in self._path.iterdir():
            connection = _connect(path)
            if connection:
                yield connection


def _connect(path: Path) -> Connection | None:
    try:
        return Client(str(path), "AF_UNIX")
    except FileNotFoundError:  # ended since the directory was read
        return None
    except ConnectionRefusedError:  # killed
        path.unlink(missing_ok=True)
        return None


def _age_of(path: Path) -> float | None:
    try:
        age = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return None
    if age > _SUSPECT_AFTER_SECONDS:
        connection = _connect(path)
        if connection is None:
            return None
        connection.close()
    return max(age, 0.0)


def _all_answered(connections: list[Connection]) -> bool:
    deadline, waiting = time.monotonic() + _WAIT_SECONDS, list(connections)
    while waiting:
        ready = cast("list[Connection]", wait(waiting, max(0.0, deadline - time.monotonic())))
        if not ready:
            return False
        for connection in ready:
            waiting.remove(connection)
            with suppress(EOFError, ConnectionError):  # the process was killed while it reloaded
                if connection.recv_bytes() != _DONE:
                    return False
    return True


def _answer(listener: Listener, reload: Callable[[], object]) -> None:
    while True:
        try:
            connection = listener.accept()
        except OSError:
            return  # closed
        with closing(connection), suppress(OSError, EOFError):
            connection.recv_bytes()
            connection.send_bytes(_DONE if _succeeds(reload) else _FAILED)


def _succeeds(reload: Callable[[], object]) -> bool:
    try:
        reload()
    except Exception:  # noqa: BLE001 - the background thread meets the same error and logs it
        return False
    return True
