"""Unknown usernames that this process has seen; in memory, so that a flood of made-up names writes nothing."""

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
    """The time of the first attempt under each name, and the number of attempts that were not recorded.

    Beyond `MAX_NAMES` the least recently used name is evicted.
    """

    def __init__(self) -> None:
        self._names: OrderedDict[str, _Attempts] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, username: str) -> None:
        """Store the time of this attempt if the name is new."""
        with self._lock:
            self._entry(username)

    def tried_before(self, username: str, seconds_ago: float) -> bool:
        """Return whether the first attempt under this name is more than this many seconds ago."""
        with self._lock:
            known = self._names.get(username)
        return known is not None and monotonic() - known.first > seconds_ago

    def count_unrecorded(self, username: str, attempts: int) -> None:
        """Add attempts under this name that are not written to the database."""
        with self._lock:
            self._entry(username).unrecorded += attempts

    def pop_unrecorded(self, username: str) -> int:
        """Return the number of unrecorded attempts under this name and reset it to 0."""
        with self._lock:
            known = self._names.get(username)
            if known is None:
                return 0
            unrecorded, known.unrecorded = known.unrecorded, 0
            return unrecorded

    def _entry(self, username: str) -> _Attempts:
        known = self._names.setdefault(username, _Attempts(monotonic()))
        self._names.move_to_end(username)
        if len(self._names) > MAX_NAMES:
            self._names.popitem(last=False)
        return known
