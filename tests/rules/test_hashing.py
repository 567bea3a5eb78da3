"""The hashing pool has few threads and a bounded queue, and a wait budget limits how long brokers are blocked."""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from authsvc.credentials import hashing
from authsvc.credentials.hashing import HashingPool, WaitBudget
from authsvc.errors import Busy

if TYPE_CHECKING:
    from collections.abc import Iterator

SOON = 10.0  # timeout in seconds for results that are expected at once


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(hashing, "monotonic", clock)
    return clock


class Work:
    """Work that ends when the test allows it."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.may_end = threading.Event()

    def __call__(self) -> str:
        self.begun.release()
        assert self.may_end.wait(SOON)
        return "hashed"


@pytest.fixture
def work() -> Iterator[Work]:
    slow = Work()
    yield slow
    slow.may_end.set()


def test_run_returns_the_result_or_raises_the_exception() -> None:
    pool = HashingPool(1, 1)
    assert pool.run(lambda: "hashed") == "hashed"
    with pytest.raises(ZeroDivisionError):
        pool.run(lambda: 1 // 0)
    assert pool.run(lambda: "hashed") == "hashed"


def test_workers_limit_concurrent_hashes(work: Work) -> None:
    pool = HashingPool(2, 10)
    begun = [pool.submit(work) for _ in range(5)]
    for _ in range(2):
        assert work.begun.acquire(timeout=SOON)
    assert not work.begun.acquire(timeout=0.05)
    work.may_end.set()
    assert [future.result(SOON) for future in begun] == ["hashed"] * 5


def test_full_queue_is_busy_until_a_hash_is_done(work: Work) -> None:
    pool = HashingPool(1, 2)
    begun = [pool.submit(work) for _ in range(2)]
    assert (pool.running, pool.waiting) == (1, 1)
    for attempt in (pool.submit, pool.run):
        with pytest.raises(Busy) as error:
            attempt(work)
        assert error.value.code == "hashing-busy"
    work.may_end.set()
    assert [future.result(SOON) for future in begun] == ["hashed"] * 2
    assert pool.run(lambda: "hashed") == "hashed"


def test_hash_that_waits_too_long_is_busy_and_leaves_the_queue(work: Work) -> None:
    pool = HashingPool(1, 10, patience=0.01)
    begun = pool.submit(work)
    assert work.begun.acquire(timeout=SOON)
    for _ in range(3):
        with pytest.raises(Busy):
            pool.run(work)
    assert (pool.running, pool.waiting) == (1, 0)
    work.may_end.set()
    assert begun.result(SOON) == "hashed"
    assert not work.begun.acquire(blocking=False)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads have no priority of their own")
def test_hashing_threads_have_a_lower_priority() -> None:
    def priority() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    assert HashingPool(1, 1).run(priority) == min(priority() + 10, 19)


def budget_of(seconds: float, pool: HashingPool | None = None) -> WaitBudget:
    return WaitBudget(seconds, pool or HashingPool(1, 10))


def test_broker_waits_for_a_running_hash_and_not_for_a_queued_one(work: Work) -> None:
    pool = HashingPool(1, 10)
    budget = budget_of(0.2, pool)
    first = pool.submit(work)
    assert budget.left_for(first) == pytest.approx(0.2, abs=0.01)
    assert work.begun.acquire(timeout=SOON)
    second = pool.submit(work)
    assert budget.left_for(second) == 0
    assert budget.left_for(first) == pytest.approx(0.2, abs=0.01)


def test_broker_does_not_wait_for_a_hash_that_takes_longer_than_the_budget(clock: Clock, work: Work) -> None:
    pool = HashingPool(1, 10)

    def long_work() -> None:
        clock.now += 0.3

    pool.run(long_work)
    running = pool.submit(work)
    assert budget_of(0.2, pool).left_for(running) == 0
    assert budget_of(0.4, pool).left_for(running) == pytest.approx(0.4)


def test_time_of_a_hash_is_expected_by_its_estimate_and_the_pace_of_others(clock: Clock, work: Work) -> None:
    pool = HashingPool(1, 10)

    def hashing() -> None:
        clock.now += 0.1

    pool.submit(hashing, estimate=0.4).result(SOON)
    short, long = (pool.submit(work, estimate=estimate) for estimate in (0.2, 4.0))
    assert work.begun.acquire(timeout=SOON)
    assert pool.expected_seconds(short) == pytest.approx(0.05)
    assert pool.expected_seconds(long) == pytest.approx(1.0)
    assert budget_of(0.06, pool).left_for(short) == pytest.approx(0.06)
    assert budget_of(0.04, pool).left_for(short) == 0


def test_hashes_run_in_the_order_of_their_logins_and_those_of_known_clients_first() -> None:
    pool, may_end, order = HashingPool(1, 100), threading.Event(), []
    pool.submit(may_end.wait)
    begun = [pool.submit(lambda n=n: order.append(n), first=n >= 10) for n in range(20)]  # type: ignore[misc]
    may_end.set()
    for each in begun:
        each.result(SOON)
    assert order == [*range(10, 20), *range(10)]


def test_wait_budget_decreases_by_the_time_waited(clock: Clock) -> None:
    budget = budget_of(0.2)
    assert budget.left() == pytest.approx(0.2)
    budget.spend(0.15)
    assert budget.left() == pytest.approx(0.05)
    budget.spend(5)
    assert budget.left() == 0


def test_wait_budget_refills_by_100_ms_per_second_up_to_its_size(clock: Clock) -> None:
    budget = budget_of(0.2)
    budget.spend(0.2)
    clock.now += 1
    assert budget.left() == pytest.approx(0.1)
    assert budget.left() == pytest.approx(0.1)
    clock.now += 60
    assert budget.left() == pytest.approx(0.2)


def test_overspent_wait_budget_refills_from_below_zero(clock: Clock) -> None:
    budget = budget_of(0.2)
    budget.spend(0.4)
    clock.now += 1.5
    assert budget.left() == 0
    clock.now += 1.5
    assert budget.left() == pytest.approx(0.1)


def test_place_in_the_pool_is_free_when_the_result_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, may_end = HashingPool(1, 1), threading.Event()
    begun = pool.submit(may_end.wait)
    heard_before: list[bool] = []
    free_place = pool._free_place

    def watch() -> None:
        heard_before.append(begun.done())
        free_place()

    monkeypatch.setattr(pool, "_free_place", watch)
    may_end.set()
    assert begun.result(SOON)
    assert heard_before == [False]
    assert pool.run(lambda: "next") == "next"


def test_cancelled_hash_frees_its_place() -> None:
    pool, may_end = HashingPool(1, 2), threading.Event()
    running, waiting = pool.submit(may_end.wait), pool.submit(may_end.wait)
    assert waiting.cancel()
    may_end.set()
    running.result(SOON)
    assert (pool.running, pool.waiting) == (0, 0)
