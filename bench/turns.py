"""Measuring in turns: what else a machine is doing then falls on all subjects alike, and ratios stay true."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

T = TypeVar("T")


class Times(NamedTuple):
    """Seconds that an answer took, at the median and at the 99th of a hundred."""

    p50: float
    p99: float

    @classmethod
    def of(cls, taken: Sequence[float]) -> Times:
        """Return both of any number of measured times."""
        ordered = sorted(taken)
        return cls(ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100])


class Turns(Generic[T]):
    """What was measured: in each round, of each subject by its name."""

    def __init__(self, rounds: Sequence[Mapping[str, T]]) -> None:
        self.rounds = rounds

    def median(self, subject: str, by: Callable[[T], float]) -> float:
        """Return the median over the rounds of a number taken of the subject."""
        return median(by(one[subject]) for one in self.rounds)

    def ratio(self, subject: str, beside: str, by: Callable[[T], float]) -> float:
        """Return the median over the rounds of a subject's number divided by another's of the same round."""
        return median(by(one[subject]) / by(one[beside]) for one in self.rounds)


def in_turns(subjects: Mapping[str, Callable[[], T]], rounds: int) -> Turns[T]:
    """Measure each subject once a round, the other way round in every second one, so that none is always first."""
    taken = []
    for number in range(rounds):
        names = list(subjects)[:: -1 if number % 2 else 1]
        measured = {name: subjects[name]() for name in names}
        taken.append({name: measured[name] for name in subjects})
    return Turns(taken)
