"""A limit on log lines and audit events that an attacker could cause without end."""

from __future__ import annotations

import threading
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

_PERIOD_SECONDS = 60.0


class LogLimit:
    """Admits the first event of each key in a minute, for at most `max_keys` keys; counts the others."""

    def __init__(self, max_keys: int, clock: Callable[[], float] = monotonic) -> None:
        self._max_keys = max_keys
        self._clock = clock
        self._began = float("-inf")
        self._admitted: set[Hashable] = set()
        self._held_back = 0
        self._lock = threading.Lock()

    def admit(self, key: Hashable, count: int = 1) -> int | None:
        """Return how many events were held back since the last admitted one; None if this one is held back too.

        `count` is the number of equal events that this call stands for.
        """
        with self._lock:
            now = self._clock()
            if now - self._began >= _PERIOD_SECONDS:
                self._began = now
                self._admitted.clear()
            if key in self._admitted or len(self._admitted) >= self._max_keys:
                self._held_back += count
                return None
            self._admitted.add(key)
            held_back, self._held_back = self._held_back, 0
            return held_back
