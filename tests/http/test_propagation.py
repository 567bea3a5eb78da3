"""Word to workers that something is new: whoever brings it knows when all have it, or that somebody has not."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from authsvc.storage.propagation import Propagation

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def told(listeners: int) -> Iterator[Propagation]:
    propagation = Propagation(listeners)
    yield propagation
    propagation.close()


class Listener:
    """Counts how often it caught up; one that is `lost` never can."""

    def __init__(self, propagation: Propagation, place: int, *, lost: bool = False) -> None:
        self.caught_up = 0
        self._lost = lost
        propagation.listen(place, self._catch_up)

    def _catch_up(self) -> None:
        if self._lost:
            raise OSError("no database")
        self.caught_up += 1


def test_with_nobody_to_tell_all_know() -> None:
    assert Propagation().all_catch_up()


def test_all_have_caught_up_when_it_returns() -> None:
    with told(3) as propagation:
        listeners = [Listener(propagation, place) for place in range(3)]
        for times in range(1, 50):
            assert propagation.all_catch_up()
            assert [listener.caught_up for listener in listeners] == [times] * 3


def test_one_that_cannot_is_noticed_and_keeps_nobody_from_it() -> None:
    with told(2) as propagation:
        able, _ = Listener(propagation, 0), Listener(propagation, 1, lost=True)
        for times in (1, 2):
            assert not propagation.all_catch_up()
            assert able.caught_up == times


def test_one_that_is_not_there_is_not_waited_for_long_and_hears_it_when_it_comes() -> None:
    with told(1) as propagation:
        begun = time.monotonic()
        assert not propagation.all_catch_up()
        assert time.monotonic() - begun < 5
        late = Listener(propagation, 0)
        assert propagation.all_catch_up()
        assert late.caught_up == 2


def test_however_much_it_is_told_one_that_is_not_there_holds_nobody_up() -> None:
    with told(1) as propagation:
        begun = time.monotonic()
        answers = {propagation.all_catch_up() for _ in range(3)}
        assert answers == {False}
        assert time.monotonic() - begun < 10


def test_a_version_is_told_once_and_again_until_it_is_known() -> None:
    with told(1) as propagation:
        propagation.tell(7)
        listener = Listener(propagation, 0)
        propagation.tell(7)
        assert listener.caught_up == 2, "what waited, and what was told again"
        propagation.tell(7)
        assert listener.caught_up == 2
        for version in (8, 6):
            propagation.tell(version)
        assert listener.caught_up == 4
