"""Notifies the broker processes of a policy change, and waits until each has reloaded.

Each broker process listens on a Unix socket of its own in `run/` below the data directory. The process that made a
change connects to every socket there; an answer means that the change is in force behind it. A killed process leaves a
socket on which nobody listens: the next process that connects to it removes it and does not wait. The time of a
socket's last modification is the time of its process's last policy refresh.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator
    from pathlib import Path

# A process that is too busy to answer in this time reloads by itself within the poll interval.
_WAIT_SECONDS = 0.8
# A socket that was not touched for this long may belong to a killed process.
_SUSPECT_AFTER_SECONDS = 2.0
_WAITING_NOTIFICATIONS = 64
_RETRY_SECONDS = 0.1
_RELOAD, _DONE, _FAILED = b"r", b"d", b"f"


class Propagation:
    """The sockets in one directory."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory
        self._notified: Hashable = None
        self._listening: socket.socket | None = None
        self._own = directory / f"{secrets.token_hex(8)}.sock"

    def notify(self, version: Hashable) -> bool | None:
        """Let every broker process reload and return whether all have; None if this version was notified before."""
        if version == self._notified:
            return None
        complete = self.all_reloaded()
        if complete:
            self._notified = version
        return complete

    def all_reloaded(self) -> bool:
        """Let every broker process reload; return False if one failed, took longer than 0.8 s or cannot be reached."""
        all_asked, asked = True, []
        with ExitStack() as opened:
            for path in self._sockets():
                try:
                    connection = _connect(path)
                    if connection:
                        asked.append(opened.enter_context(connection))
                        connection.sendall(_RELOAD)
                except OSError:
                    all_asked = False
            return _all_answered(asked) and all_asked

    @property
    def age(self) -> float:
        """Seconds since the broker process furthest behind refreshed its policy; 0 if there is no broker process."""
        try:
            ages = list(map(_age_of, self._sockets()))
        except OSError:  # too many open files
            return 0.0
        return max((age for age in ages if age is not None), default=0.0)

    def report(self, age: float) -> None:
        """Publish, if this is a broker process, that its policy was refreshed `age` seconds ago."""
        if self._listening:
            refreshed_at = time.time() - age
            os.utime(self._own, (refreshed_at, refreshed_at))

    def listen(self, reload: Callable[[], object]) -> None:
        """Become a broker process: call `reload` in a thread whenever another process asks for it."""
        self._listening = listening = socket.socket(socket.AF_UNIX)
        unlistened = self._own.with_suffix(".new")
        with _short(unlistened) as address:
            listening.bind(address)
        listening.listen(_WAITING_NOTIFICATIONS)
        # Under its final name only now: a socket on which nobody listens would be removed.
        unlistened.rename(self._own)
        threading.Thread(target=_answer, args=(listening, reload), name="propagation", daemon=True).start()

    def close(self) -> None:
        """Stop listening and remove the socket."""
        if self._listening:
            self._own.unlink(missing_ok=True)
            self._listening.close()
            self._listening = None

    def _sockets(self) -> Iterator[Path]:
        return self._directory.glob("*.sock")


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """Yield an address for a socket's path: an address is limited to 107 bytes, a path is not."""
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def _connect(path: Path) -> socket.socket | None:
    """Return a connection to a broker process, None if the process has ended.

    Raise `BlockingIOError` if the process's queue of waiting notifications is full.
    """
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(_WAIT_SECONDS)
        with _short(path) as address:
            connection.connect(address)
    except FileNotFoundError:
        connection.close()
        return None
    except ConnectionRefusedError:  # killed
        connection.close()
        path.unlink(missing_ok=True)
        return None
    except OSError:
        connection.close()
        raise
    return connection


def _age_of(path: Path) -> float | None:
    try:
        age = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return None
    if age > _SUSPECT_AFTER_SECONDS:
        with suppress(OSError):
            connection = _connect(path)
            if connection is None:
                return None
            connection.close()
    return max(age, 0.0)


def _all_answered(connections: list[socket.socket]) -> bool:
    deadline, all_done = time.monotonic() + _WAIT_SECONDS, True
    for connection in connections:
        connection.settimeout(max(deadline - time.monotonic(), 0.001))
        try:
            all_done &= connection.recv(1) != _FAILED
        except TimeoutError:
            all_done = False
        except ConnectionError:
            continue  # the process was killed while it reloaded
    return all_done


def _answer(listening: socket.socket, reload: Callable[[], object]) -> None:
    while True:
        try:
            connection, _ = listening.accept()
        except OSError:
            if listening.fileno() < 0:
                return  # closed
            # Too many open files, which may pass.
            time.sleep(_RETRY_SECONDS)
            continue
        with connection, suppress(OSError):
            connection.settimeout(_WAIT_SECONDS)
            if connection.recv(1):
                connection.sendall(_DONE if _succeeds(reload) else _FAILED)


def _succeeds(reload: Callable[[], object]) -> bool:
    try:
        reload()
    except Exception:  # noqa: BLE001 - the background thread meets the same error and logs it
        return False
    return True
