"""Locks on the data directory: each listener of a data directory is run by one service at a time.

The kernel ends a lock with the last process that holds it, so a killed service leaves none behind. Workers inherit the
locks of their service: while one of them still runs, no other service starts.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from authsvc.errors import Conflict

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# The workers of a killed service notice its end within a second and have six more to end, on a machine with time.
_WAIT_FOR_WORKERS_SECONDS = 20.0
# A process that was killed a moment ago can still look as if it ran.
_WAIT_FOR_HOLDER_SECONDS = 2.0
_RETRY_SECONDS = 0.1


@contextmanager
def locked(directory: Path, listeners: Iterable[str]) -> Iterator[None]:
    """Hold the lock of each listener during the `with` block; create the directory if it is missing.

    `Conflict` names the process that holds a lock.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with ExitStack() as held:
        for listener in listeners:
            file = held.enter_context(_open(directory / f"serve-{listener}.lock"))
            _lock(file, directory, listener)
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
        yield


def _open(path: Path) -> IO[str]:
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+")


def _lock(file: IO[str], directory: Path, listener: str) -> None:
    began = time.monotonic()
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read()
        else:
            file.seek(0)
            return
        patience = _WAIT_FOR_HOLDER_SECONDS if _is_running(holder) else _WAIT_FOR_WORKERS_SECONDS
        if time.monotonic() > began + patience:
            raise Conflict(
                f"the {listener} listener of {directory} is run by process {holder}; "
                "stop it first, or give this service a directory of its own with AUTHSVC_DATA_DIR",
                "directory-in-use",
            )
        time.sleep(_RETRY_SECONDS)


def _is_running(pid: str) -> bool:
    """Return whether a process runs; one that has ended can stay in /proc as a zombie (Z) until its parent looks."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
