"""Where hashing runs: a few threads and a bounded queue, so that no flood of logins takes every core or all memory."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotInTime
from time import monotonic
from typing import TYPE_CHECKING, TypeVar

from authsvc.errors import Busy

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class HashingPool:
    """Runs hashes in so many threads; what finds the queue full, or is not done in time, is `Busy`."""

    def __init__(self, workers: int, max_waiting: int, patience: float = 5.0) -> None:
        self._max_waiting = max_waiting
        self._patience = patience
        self._unfinished = 0
        self._lock = threading.Lock()
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="hashing")

    @property
    def waiting(self) -> int:
        """How many hashes are running or wait for a thread."""
        return self._unfinished

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Begin some hashing and return at once."""
        with self._lock:
            if self._unfinished >= self._max_waiting:
                raise _busy()
            self._unfinished += 1
        future = self._executor.submit(work)
        future.add_done_callback(self._done)
        return future

    def run(self, work: Callable[[], T]) -> T:
        """Hash and wait for the outcome; `Busy` when that would take too long."""
        future = self.submit(work)
        try:
            return future.result(self._patience)
        except NotInTime:
            future.cancel()
            raise _busy() from None

    def _done(self, _future: Future[T]) -> None:
        with self._lock:
            self._unfinished -= 1


class Allowance:
    """How long brokers may be kept waiting for hashes: so long at once, regained at half of the time that passes.

    A broker that waits serves nobody. One login may wait for its hash; a thousand at once may not, each for its own:
    when the allowance is spent, logins are refused for the moment while their hashes go on behind them.
    """

    REGAINED = 0.5

    def __init__(self, seconds: float) -> None:
        self._full = seconds
        self._left = seconds
        self._asked_at = monotonic()

    def left(self) -> float:
        """Return for how many seconds a broker may wait now."""
        now = monotonic()
        self._left = min(self._full, self._left + (now - self._asked_at) * self.REGAINED)
        self._asked_at = now
        return max(self._left, 0.0)

    def spend(self, seconds: float) -> None:
        """Take what a broker has waited off the allowance."""
        self._left -= seconds


def _busy() -> Busy:
    return Busy("too much hashing is under way; try again in a moment", "hashing-busy")
