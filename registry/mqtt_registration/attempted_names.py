"""Names of unknown devices that this process has seen, kept in memory: a flood of made-up names writes nothing."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from time import monotonic

MAX_NAMES = 50_000


@dataclass(slots=True)
class _Attempts:
    first: float
    unrecorded: int = 0


class AttemptedNames:
    """When each name was first tried, and how often without being recorded.

    Beyond `MAX_NAMES` the name tried least recently is forgotten.
    """

    def __init__(self) -> None:
        self._names: OrderedDict[str, _Attempts] = OrderedDict()
        self._lock = threading.Lock()

    def note(self, username: str) -> None:
        """Remember that somebody tried this name, unless it was tried earlier."""
        with self._lock:
            self._noted(username)

    def tried_before(self, username: str, seconds_ago: float) -> bool:
        """Say whether somebody tried this name more than so many seconds ago."""
        with self._lock:
            known = self._names.get(username)
        return known is not None and monotonic() - known.first > seconds_ago

    def count_unrecorded(self, username: str, attempts: int) -> None:
        """Add attempts under this name that are written nowhere."""
        with self._lock:
            self._noted(username).unrecorded += attempts

    def take_unrecorded(self, username: str) -> int:
        """Return how many attempts under this name were counted and not recorded, and count from 0 again."""
        with self._lock:
            known = self._names.get(username)
            if known is None:
                return 0
            unrecorded, known.unrecorded = known.unrecorded, 0
            return unrecorded

    def _noted(self, username: str) -> _Attempts:
        known = self._names.setdefault(username, _Attempts(monotonic()))
        self._names.move_to_end(username)
        if len(self._names) > MAX_NAMES:
            self._names.popitem(last=False)
        return known
