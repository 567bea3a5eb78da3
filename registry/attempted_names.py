"""Names of unknown devices that this process has seen, kept in memory: a flood of made-up names writes nothing."""

from __future__ import annotations

import threading
from collections import OrderedDict
from time import monotonic

MAX_NAMES = 50_000


class AttemptedNames:
    """When each name was first tried; beyond `MAX_NAMES` the one tried least recently is forgotten."""

    def __init__(self) -> None:
        self._first: OrderedDict[str, float] = OrderedDict()
        self._lock = threading.Lock()

    def note(self, username: str) -> None:
        """Remember that somebody tried this name, unless it was tried earlier."""
        with self._lock:
            self._first.setdefault(username, monotonic())
            self._first.move_to_end(username)
            if len(self._first) > MAX_NAMES:
                self._first.popitem(last=False)

    def tried_before(self, username: str, seconds_ago: float) -> bool:
        """Say whether somebody tried this name more than so many seconds ago."""
        with self._lock:
            first = self._first.get(username)
        return first is not None and monotonic() - first > seconds_ago
