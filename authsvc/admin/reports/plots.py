"""Bar charts of the overview, computed here and rendered as SVG by a template."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

_WIDTH, _HEIGHT = 640, 140
_MAX_BARS = 96


class Series(NamedTuple):
    """Values that are plotted in one colour, oldest first; `url` lists what was counted."""

    label: str
    values: list[int]
    bad: bool = False
    url: str | None = None


class Bar(NamedTuple):
    """A rectangle in the plot's own units; `series` is the index of its series."""

    x: float
    y: float
    width: float
    height: float
    series: int


@dataclass(frozen=True, slots=True)
class Plot:
    """Stacked bars, each the sum of `values_per_bar` values; `peak` is the highest bar, `totals` the sum per series."""

    series: list[Series]
    bars: list[Bar]
    peak: int
    totals: list[int]
    values_per_bar: int
    width: int = _WIDTH
    height: int = _HEIGHT


def plot(series: list[Series]) -> Plot:
    """Return these series as at most 96 stacked bars."""
    per_bar = max(1, -(-len(series[0].values) // _MAX_BARS))
    sums = ([sum(one.values[at : at + per_bar]) for at in range(0, len(one.values), per_bar)] for one in series)
    columns = list(zip(*sums, strict=True))
    peak = max(map(sum, columns), default=0)
    step = _WIDTH / max(len(columns), 1)
    bars = []
    for position, column in enumerate(columns):
        top = float(_HEIGHT)
        for index, value in enumerate(column):
            if value:
                height = _HEIGHT * value / peak
                top -= height
                x, width = round(position * step, 2), round(step * 0.8, 2)
                bars.append(Bar(x, round(top, 2), width, round(height, 2), index))
    return Plot(series, bars, peak, [sum(one.values) for one in series], per_bar)
