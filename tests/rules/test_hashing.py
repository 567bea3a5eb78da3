"""Hashing runs in few threads behind a short queue, and brokers wait for it no longer than they are allowed to."""

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

SOON = 10.0  # seconds to wait for what is already on its way


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    by_hand = Clock()
    monkeypatch.setattr(hashing, "monotonic", by_hand)
    return by_hand


class Work:
    """Something to hash that takes as long as the test wants."""

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


def test_what_is_run_comes_back_and_so_does_what_goes_wrong() -> None:
    pool = HashingPool(1, 1)
    assert pool.run(lambda: "hashed") == "hashed"
    with pytest.raises(ZeroDivisionError):
        pool.run(lambda: 1 // 0)
    assert pool.run(lambda: "hashed") == "hashed"


def test_no_more_run_at_once_than_there_are_workers(work: Work) -> None:
    pool = HashingPool(2, 10)
    begun = [pool.submit(work) for _ in range(5)]
    for _ in range(2):
        assert work.begun.acquire(timeout=SOON)
    assert not work.begun.acquire(timeout=0.05)
    work.may_end.set()
    assert [future.result(SOON) for future in begun] == ["hashed"] * 5


def test_what_finds_the_queue_full_is_told_at_once_and_there_is_room_again_afterwards(work: Work) -> None:
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


def test_who_waits_too_long_is_told_so_and_leaves_the_queue(work: Work) -> None:
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
def test_hashes_give_way_to_whoever_answers() -> None:
    def priority() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    assert HashingPool(1, 1).run(priority) == min(priority() + 10, 19)


def allowance_of(seconds: float, pool: HashingPool | None = None) -> WaitBudget:
    return WaitBudget(seconds, pool or HashingPool(1, 10))


def test_a_broker_waits_for_a_hash_that_runs_and_not_for_one_in_the_queue(work: Work) -> None:
    pool = HashingPool(1, 10)
    allowance = allowance_of(0.2, pool)
    first = pool.submit(work)
    assert allowance.left_for(first) == pytest.approx(0.2, abs=0.01)
    assert work.begun.acquire(timeout=SOON)
    second = pool.submit(work)
    assert allowance.left_for(second) == 0
    assert allowance.left_for(first) == pytest.approx(0.2, abs=0.01)


def test_a_broker_does_not_wait_for_what_has_always_taken_longer(clock: Clock, work: Work) -> None:
    pool = HashingPool(1, 10)

    def long_work() -> None:
        clock.now += 0.3

    pool.run(long_work)
    running = pool.submit(work)
    assert allowance_of(0.2, pool).left_for(running) == 0
    assert allowance_of(0.4, pool).left_for(running) == pytest.approx(0.4)


def test_brokers_may_wait_for_their_allowance_and_no_longer(clock: Clock) -> None:
    allowance = allowance_of(0.2)
    assert allowance.left() == pytest.approx(0.2)
    allowance.spend(0.15)
    assert allowance.left() == pytest.approx(0.05)
    allowance.spend(5)
    assert allowance.left() == 0


def test_an_allowance_comes_back_at_a_tenth_of_the_time_that_passes_and_never_beyond_itself(clock: Clock) -> None:
    allowance = allowance_of(0.2)
    allowance.spend(0.2)
    clock.now += 1
    assert allowance.left() == pytest.approx(0.1)
    assert allowance.left() == pytest.approx(0.1)
    clock.now += 60
    assert allowance.left() == pytest.approx(0.2)


def test_who_has_waited_too_long_pays_it_back_first(clock: Clock) -> None:
    allowance = allowance_of(0.2)
    allowance.spend(0.4)
    clock.now += 1.5
    assert allowance.left() == 0
    clock.now += 1.5
    assert allowance.left() == pytest.approx(0.1)


def test_whoever_hears_of_an_outcome_finds_its_place_free(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_hash_that_was_called_off_before_it_began_leaves_its_place() -> None:
    pool, may_end = HashingPool(1, 2), threading.Event()
    running, waiting = pool.submit(may_end.wait), pool.submit(may_end.wait)
    assert waiting.cancel()
    may_end.set()
    running.result(SOON)
    assert (pool.running, pool.waiting) == (0, 0)
