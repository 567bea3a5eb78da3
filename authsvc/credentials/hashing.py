"""A thread pool with a bounded queue for password hashing, and the time that brokers may wait for it."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager
from time import monotonic, thread_time
from typing import TYPE_CHECKING, Any, TypeVar

from authsvc.errors import Busy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")

_NICE_INCREMENT, _MAX_NICE = 10, 19
_LEAST_ESTIMATE = 0.001  # seconds; below it, the time that a thread needs to begin counts


class HashingPool:
    """Computes hashes in `workers` threads; raises `Busy` if the queue is full or a hash takes too long.

    Work submitted with `first` runs before all other waiting work, and the queue has as many additional places for it.
    So a flood of other work delays it only by the hashes that are running. Within each of the two queues, work runs in
    the order in which it was submitted. `patience` is how many seconds `run` waits.

    Hashes of different kinds take different times. So work comes with an estimate in seconds on any machine, and the
    pool measures the least ratio of the real time to it.
    """

    def __init__(self, workers: int, max_waiting: int, patience: float = 5.0) -> None:
        self._pace = 0.0  # the least ratio of the time of a hash to its estimate
        self._estimates: dict[Future[Any], float] = {}  # of the hashes that wait or run
        self._workers = workers
        self._max_waiting = max_waiting
        self._patience = patience
        self._unfinished = 0
        self._lock = threading.Lock()
        self._first: deque[Callable[[], None]] = deque()
        self._rest: deque[Callable[[], None]] = deque()
        self._executor = ThreadPoolExecutor(workers, "hashing", _lower_priority)

    @property
    def running(self) -> int:
        """The number of hashes that have a thread."""
        return min(self._unfinished, self._workers)

    @property
    def waiting(self) -> int:
        """The number of hashes that wait for a thread."""
        return max(self._unfinished - self._workers, 0)

    def is_running(self, hashing: Future[T]) -> bool:
        """Return whether a hash has a thread, or gets one at once because no hash is waiting."""
        return hashing.running() or self._unfinished <= self._workers

    def expected_seconds(self, hashing: Future[T]) -> float:
        """Return how long a hash will run at least; 0 before the first hash has ended, or if this one has."""
        return self._estimates.get(hashing, 0.0) * self._pace

    def submit(self, work: Callable[[], T], *, first: bool = False, estimate: float = 1.0) -> Future[T]:
        """Queue a hash and return its future."""
        hashing: Future[T] = Future()
        with self._lock:
            if self._unfinished >= self._max_waiting * (2 if first else 1):
                raise _busy()
            self._unfinished += 1
            self._estimates[hashing] = max(estimate, _LEAST_ESTIMATE)
            (self._first if first else self._rest).append(lambda: self._complete(hashing, work))
        hashing.add_done_callback(self._end)
        self._executor.submit(self._run_next)
        return hashing

    def run(self, work: Callable[[], T], *, first: bool = False) -> T:
        """Return the result of a hash; `Busy` if it takes longer than `patience`."""
        future = self.submit(work, first=first)
        try:
            return future.result(self._patience)
        except FutureTimeoutError:
            future.cancel()
            raise _busy() from None

    def _run_next(self) -> None:
        # This is called once for each hash in the two queues, so one of them is not empty.
        with self._lock:
            complete = (self._first or self._rest).popleft()
        complete()

    def _complete(self, hashing: Future[T], work: Callable[[], T]) -> None:
        if not hashing.set_running_or_notify_cancel():
            return
        started = monotonic()
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - the future raises it again
            self._free_place()
            hashing.set_exception(error)
            return
        self._free_place()  # before the result is set: the caller may submit again at once
        pace = (monotonic() - started) / self._estimates[hashing]
        self._pace = min(self._pace or pace, pace)
        hashing.set_result(result)

    def _end(self, future: Future[T]) -> None:
        del self._estimates[future]
        if future.cancelled():
            self._free_place()

    def _free_place(self) -> None:
        with self._lock:
            self._unfinished -= 1


class WaitBudget:
    """How long password hashing may block a broker: `seconds` at once, refilled by 100 ms per second.

    While a broker waits for an answer, it serves no client. When the budget is used up, logins are answered "refused,
    try again" while their hashes continue in the pool. No time is spent on a hash that would not be done in time: one
    that has no thread yet, or that takes longer than the rest of the budget.
    """

    REFILL_PER_SECOND = 0.1

    def __init__(self, seconds: float, pool: HashingPool) -> None:
        self._pool = pool
        self._full = seconds
        self._left = seconds
        self._asked_at = monotonic()

    def left(self) -> float:
        """Return the seconds that a broker may wait now."""
        now = monotonic()
        self._left = min(self._full, self._left + (now - self._asked_at) * self.REFILL_PER_SECOND)
        self._asked_at = now
        return max(self._left, 0.0)

    def left_for(self, hashing: Future[T]) -> float:
        """Return the seconds that a broker may wait now for this hash: 0 if it would not be done in time."""
        left = self.left()
        return left if self._pool.is_running(hashing) and self._pool.expected_seconds(hashing) <= left else 0.0

    def spend(self, seconds: float) -> None:
        """Subtract the time that a broker has waited."""
        self._left -= seconds


def measured(work: Callable[[], T]) -> tuple[T, float]:
    """Return the result of `work` and the processor seconds that it took in this thread."""
    started = thread_time()
    result = work()
    return result, thread_time() - started


@contextmanager
def slot(slots: threading.BoundedSemaphore, busy: Busy) -> Iterator[None]:
    """Take a slot for the length of the block; raise `busy` if none is free."""
    if not slots.acquire(blocking=False):
        raise busy
    try:
        yield
    finally:
        slots.release()


def _lower_priority() -> None:
    """Let the threads that answer requests run before this one."""
    if sys.platform == "linux":  # elsewhere the priority belongs to the process
        nice = os.getpriority(os.PRIO_PROCESS, 0)
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(nice + _NICE_INCREMENT, _MAX_NICE))


def _busy() -> Busy:
    return Busy("too many passwords are being hashed; try again in a few seconds", "hashing-busy")
