"""The processes that serve a data directory: each announces itself by a file in `run/` that it keeps locked.

The kernel ends a lock with its process, so the file of a killed process is recognized and removed, also in another
container that shares the directory.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_ENDING = ".serving"


@dataclass(frozen=True, slots=True)
class Worker:
    """A process that answers at a listener, `api` or `broker`; its id is that in its own container."""

    listener: str
    pid: int
    addresses: tuple[str, ...]
    started_at: datetime


class Announcement:
    """The announcement that this process serves; it ends with `end` or with the process."""

    def __init__(self, directory: Path, listener: str, addresses: Iterable[str]) -> None:
        self._path = directory / f"{listener}-{secrets.token_hex(8)}{_ENDING}"
        unlocked = self._path.with_suffix(".new")
        self._file: IO[str] = os.fdopen(os.open(unlocked, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        fields = [listener, os.getpid(), list(addresses), datetime.now(UTC).isoformat()]
        self._file.write(json.dumps(fields))
        self._file.flush()
        # Under its final name only now: a file that is not locked would be removed.
        unlocked.rename(self._path)

    def end(self) -> None:
        """Remove the announcement."""
        self._path.unlink(missing_ok=True)
        self._file.close()


def workers(directory: Path) -> list[Worker]:
    """Return the processes that answer now, the oldest first."""
    found = []
    for path in directory.glob(f"*{_ENDING}"):
        # A process may end, and remove its file, at any moment.
        with suppress(FileNotFoundError), path.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                listener, pid, addresses, started_at = json.load(file)
                found.append(Worker(listener, pid, tuple(addresses), datetime.fromisoformat(started_at)))
            else:
                path.unlink()
    return sorted(found, key=lambda each: each.started_at)
