"""Alternating measurements: other load of the machine affects all subjects equally, so ratios stay comparable."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

T = TypeVar("T")


class Times(NamedTuple):
    """Response times in seconds: median and 99th percentile."""

    p50: float
    p99: float

    @classmethod
    def of(cls, taken: Sequence[float]) -> Times:
        """Return the percentiles of measured times."""
        ordered = sorted(taken)
        return cls(ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100])


class Turns(Generic[T]):
    """The measured values of each round by subject."""

    def __init__(self, rounds: Sequence[Mapping[str, T]]) -> None:
        self.rounds = rounds

    def median(self, subject: str, by: Callable[[T], float]) -> float:
        """Return the median over all rounds of a subject's value."""
        return median(by(one[subject]) for one in self.rounds)

    def ratio(self, subject: str, beside: str, by: Callable[[T], float]) -> float:
        """Return the median over all rounds of the ratio of two subjects' values in the same round."""
        return median(by(one[subject]) / by(one[beside]) for one in self.rounds)


def in_turns(subjects: Mapping[str, Callable[[], T]], rounds: int) -> Turns[T]:
    """Measure each subject once per round, in reverse order in every second round."""
    taken = []
    for number in range(rounds):
        names = list(subjects)[:: -1 if number % 2 else 1]
        measured = {name: subjects[name]() for name in names}
        taken.append({name: measured[name] for name in subjects})
    return Turns(taken)
