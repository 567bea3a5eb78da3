"""Plots of the overview: numbers over time as bars, computed here and drawn by a template as SVG."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_WIDTH, _HEIGHT = 640, 140
_BARS = 96


class Series(NamedTuple):
    """What is plotted in one colour, oldest first."""

    label: str
    values: list[int]
    bad: bool = False


class Bar(NamedTuple):
    """One bar in a plot's own units, of the series at `place`."""

    x: float
    y: float
    width: float
    height: float
    place: int


@dataclass(frozen=True, slots=True)
class Plot:
    """Stacked bars of `gathered` values each; `peak` is what the axis ends at, the totals are over all of the time."""

    series: list[Series]
    bars: list[Bar]
    peak: int
    totals: list[int]
    gathered: int
    width: int = _WIDTH
    height: int = _HEIGHT


def plot(series: list[Series]) -> Plot:
    """Return the bars that show these series, stacked, at most so many side by side."""
    gathered = max(1, -(-len(series[0].values) // _BARS))
    columns = list(zip(*(_gathered(one.values, gathered) for one in series), strict=True))
    peak = max(map(sum, columns), default=0)
    step = _WIDTH / max(len(columns), 1)
    bars = [bar for position, column in enumerate(columns) for bar in _stacked(position * step, step, column, peak)]
    return Plot(series, bars, peak, [sum(one.values) for one in series], gathered)


def _stacked(x: float, step: float, column: tuple[int, ...], peak: int) -> Iterator[Bar]:
    top = float(_HEIGHT)
    for place, value in enumerate(column):
        if value:
            height = _HEIGHT * value / peak
            top -= height
            yield Bar(round(x, 2), round(top, 2), round(step * 0.8, 2), round(height, 2), place)


def _gathered(values: list[int], each: int) -> list[int]:
    return [sum(values[start : start + each]) for start in range(0, len(values), each)]
