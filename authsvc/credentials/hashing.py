"""Where hashing runs: a few threads and a bounded queue, so that no flood of logins takes every core or all memory."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotInTime
from time import monotonic, thread_time
from typing import TYPE_CHECKING, TypeVar

from authsvc.errors import Busy

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_NICER, _NICEST = 10, 19


class HashingPool:
    """Runs hashes in so many threads; what finds the queue full, or is not done in time, is `Busy`.

    What is submitted with `first` runs before all else that waits, and has as many places again in the queue, so that
    no flood of other work delays it by more than the hashes that run already. `shortest` is the least that any took so
    far, in seconds; 0 before the first.
    """

    def __init__(self, workers: int, max_waiting: int, patience: float = 5.0) -> None:
        self.shortest = 0.0
        self._workers = workers
        self._max_waiting = max_waiting
        self._patience = patience
        self._unfinished = 0
        self._lock = threading.Lock()
        self._first: deque[Callable[[], None]] = deque()
        self._rest: deque[Callable[[], None]] = deque()
        self._executor = ThreadPoolExecutor(workers, "hashing", _step_back)

    @property
    def running(self) -> int:
        """How many hashes have a thread."""
        return min(self._unfinished, self._workers)

    @property
    def waiting(self) -> int:
        """How many hashes wait for a thread."""
        return max(self._unfinished - self._workers, 0)

    def is_running(self, hashing: Future[T]) -> bool:
        """Say whether a hash has a thread, or gets one in this very moment, since nothing else is waiting."""
        return hashing.running() or self._unfinished <= self._workers

    def submit(self, work: Callable[[], T], *, first: bool = False) -> Future[T]:
        """Begin some hashing and return at once."""
        hashing: Future[T] = Future()
        with self._lock:
            if self._unfinished >= self._max_waiting * (2 if first else 1):
                raise _busy()
            self._unfinished += 1
            (self._first if first else self._rest).append(lambda: self._complete(hashing, work))
        hashing.add_done_callback(self._done)
        self._executor.submit(self._run_next)
        return hashing

    def run(self, work: Callable[[], T], *, first: bool = False) -> T:
        """Hash and wait for the outcome; `Busy` when that would take too long."""
        future = self.submit(work, first=first)
        try:
            return future.result(self._patience)
        except NotInTime:
            future.cancel()
            raise _busy() from None

    def _run_next(self) -> None:
        # There are as many calls of this as hashes in both queues, so one of them has a hash.
        with self._lock:
            complete = (self._first or self._rest).popleft()
        complete()

    def _complete(self, hashing: Future[T], work: Callable[[], T]) -> None:
        if not hashing.set_running_or_notify_cancel():
            return
        started = monotonic()
        try:
            outcome = work()
        except BaseException as error:  # noqa: BLE001 - whoever waits for the outcome gets it
            self._free_place()
            hashing.set_exception(error)
            return
        self._free_place()  # before the outcome is known to a caller who may ask for the place at once
        taken = monotonic() - started
        self.shortest = min(self.shortest or taken, taken)
        hashing.set_result(outcome)

    def _done(self, future: Future[T]) -> None:
        if future.cancelled():
            self._free_place()

    def _free_place(self) -> None:
        with self._lock:
            self._unfinished -= 1


class WaitBudget:
    """How long brokers may be kept waiting for a pool's hashes: so long at once, regained at a tenth of what passes.

    A broker that waits serves nobody. One login may wait for its hash; a thousand at once may not, each for its own:
    when the allowance is spent, logins are refused for the moment while their hashes go on behind them. Nor is any of
    it spent on what it could not buy: a hash that has no thread yet, or takes longer than what is left.
    """

    REGAINED = 0.1

    def __init__(self, seconds: float, pool: HashingPool) -> None:
        self._pool = pool
        self._full = seconds
        self._left = seconds
        self._asked_at = monotonic()

    def left(self) -> float:
        """Return for how many seconds a broker may wait now."""
        now = monotonic()
        self._left = min(self._full, self._left + (now - self._asked_at) * self.REGAINED)
        self._asked_at = now
        return max(self._left, 0.0)

    def left_for(self, hashing: Future[T]) -> float:
        """Return for how many seconds a broker may wait now for this hash: for none, if in vain."""
        left = self.left()
        return left if self._pool.is_running(hashing) and self._pool.shortest <= left else 0.0

    def spend(self, seconds: float) -> None:
        """Take what a broker has waited off the allowance."""
        self._left -= seconds


def measured(work: Callable[[], T]) -> tuple[T, float]:
    """Run `work` here and return its outcome and its processor seconds, in which nothing else on the machine counts."""
    started = thread_time()
    outcome = work()
    return outcome, thread_time() - started


def _step_back() -> None:
    """Let whoever answers go first when there are fewer processors than threads."""
    if sys.platform == "linux":  # where each thread has a priority of its own
        here = os.getpriority(os.PRIO_PROCESS, 0)
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(here + _NICER, _NICEST))


def _busy() -> Busy:
    return Busy("too much hashing is under way; try again in a moment", "hashing-busy")
