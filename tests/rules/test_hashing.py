"""Hashing runs in few threads behind a short queue, and brokers wait for it no longer than they are allowed to."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from authsvc import hashing
from authsvc.errors import Busy
from authsvc.hashing import Allowance, HashingPool

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
    assert pool.waiting == 2
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
    assert pool.waiting == 1
    work.may_end.set()
    assert begun.result(SOON) == "hashed"
    assert not work.begun.acquire(blocking=False)


def test_brokers_may_wait_for_their_allowance_and_no_longer(clock: Clock) -> None:
    allowance = Allowance(0.2)
    assert allowance.left() == pytest.approx(0.2)
    allowance.spend(0.15)
    assert allowance.left() == pytest.approx(0.05)
    allowance.spend(5)
    assert allowance.left() == 0


def test_an_allowance_comes_back_at_half_of_the_time_that_passes_and_never_beyond_itself(clock: Clock) -> None:
    allowance = Allowance(0.2)
    allowance.spend(0.2)
    clock.now += 0.2
    assert allowance.left() == pytest.approx(0.1)
    assert allowance.left() == pytest.approx(0.1)
    clock.now += 60
    assert allowance.left() == pytest.approx(0.2)


def test_who_has_waited_too_long_pays_it_back_first(clock: Clock) -> None:
    allowance = Allowance(0.2)
    allowance.spend(0.4)
    clock.now += 0.3
    assert allowance.left() == 0
    clock.now += 0.3
    assert allowance.left() == pytest.approx(0.1)
