"""Subjects are measured in turns, and ratios are taken within a turn."""

from __future__ import annotations

import pytest

from bench.turns import Times, Turns, in_turns


def test_each_is_measured_once_a_round_and_every_second_round_goes_backwards() -> None:
    order: list[str] = []
    turns = in_turns({name: lambda name=name: order.append(name) or len(order) for name in "abc"}, 3)  # type: ignore[misc, func-returns-value]
    assert "".join(order) == "abccbaabc"
    assert turns.rounds == [{"a": 1, "b": 2, "c": 3}, {"a": 6, "b": 5, "c": 4}, {"a": 7, "b": 8, "c": 9}]


def test_a_ratio_is_the_median_of_those_within_each_round() -> None:
    # In the last round the machine was busy with something else, for both alike.
    turns = Turns([{"bare": 1.0, "ours": 1.1}, {"bare": 1.0, "ours": 1.2}, {"bare": 9.0, "ours": 9.9}])
    assert turns.ratio("ours", "bare", float) == pytest.approx(1.1)
    assert turns.median("ours", float) == pytest.approx(1.2)


def test_times_are_known_by_their_middle_and_their_slowest_hundredth() -> None:
    assert Times.of(list(reversed(range(100)))) == Times(50, 99)
    assert Times.of([3.0]) == Times(3.0, 3.0)
