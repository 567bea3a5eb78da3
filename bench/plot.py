"""SVG plots for light and dark backgrounds: bars for comparisons, lines for growth."""

from __future__ import annotations

from html import escape
from math import log10
from typing import TYPE_CHECKING, NamedTuple

from bench.report import number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_WIDTH = 720
_STYLE = """\
<style>
  text { font: 13px system-ui, sans-serif; fill: #333; stroke: none } rect { stroke: none }
  .title { font-weight: 600; font-size: 15px } .faint { fill: #777 }
  .axis { stroke: #999; stroke-width: 1 } .grid { stroke: #9994; stroke-width: 1 }
  .c0 { fill: #2f6fb5; stroke: #2f6fb5 } .c1 { fill: #c2571a; stroke: #c2571a }
  .c2 { fill: #3c8a4e; stroke: #3c8a4e }
  .c3 { fill: #8a55a8; stroke: #8a55a8 } .line { fill: none; stroke-width: 2 }
  @media (prefers-color-scheme: dark) { text { fill: #ddd } .faint { fill: #aaa } .axis { stroke: #888 } }
</style>"""
_COLOURS = 4
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 540, 44, 264  # the frame of a line plot


class Bar(NamedTuple):
    """A bar: label, value, and the index of one of four colours."""

    label: str
    value: float
    colour: int = 0


def bars(title: str, unit: str, rows: Sequence[Bar]) -> str:
    """Return horizontal bars that start at zero, each with its label and value."""
    label_width, height = 310, 26
    most = max((row.value for row in rows), default=0) or 1
    scale = (_WIDTH - label_width - 110) / most
    parts = [_text(12, 24, title, "title")]
    for line, row in enumerate(rows):
        y = 44 + line * height
        width = max(row.value * scale, 1)
        colour = f"c{row.colour % _COLOURS}"
        parts += [
            _text(label_width - 8, y + 14, row.label, anchor="end"),
            f'<rect class="{colour}" x="{label_width}" y="{y}" width="{width:.1f}" height="18" rx="2"/>',
            _text(label_width + width + 6, y + 14, f"{number(row.value)} {unit}", "faint"),
        ]
    return _svg(parts, 44 + len(rows) * height + 12, title)


def lines(title: str, x_unit: str, y_unit: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Return lines through points: x on a logarithmic scale, y on a linear scale from zero."""
    frame = _Frame.around([point for points in series.values() for point in points])
    parts = [_text(12, 24, title, "title"), *frame.axes(x_unit, y_unit)]
    for order, (name, points) in enumerate(series.items()):
        colour = f"c{order % _COLOURS}"
        places = [(frame.x(x), frame.y(y)) for x, y in sorted(points)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline class="{colour} line" points="{path}"/>')
        parts += [f'<circle class="{colour}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>' for x, y in places]
        legend = 50 + order * 18
        parts += [f'<rect class="{colour}" x="{_RIGHT + 16}" y="{legend - 10}" width="11" height="11" rx="2"/>']
        parts += [_text(_RIGHT + 32, legend, name)]
    return _svg(parts, _BOTTOM + 46, title)


class _Frame(NamedTuple):
    """Converts values to coordinates."""

    lowest: float
    highest: float
    most: float

    @classmethod
    def around(cls, points: Sequence[tuple[float, float]]) -> _Frame:
        decades = [log10(x) for x, _ in points] or [0.0]
        most = max((y for _, y in points), default=0) or 1
        return cls(min(decades), max(decades), most * 1.1)

    def x(self, value: float) -> float:
        span = self.highest - self.lowest or 1
        return _LEFT + 12 + (log10(value) - self.lowest) / span * (_RIGHT - _LEFT - 24)

    def y(self, value: float) -> float:
        return _BOTTOM - value / self.most * (_BOTTOM - _TOP)

    def axes(self, x_unit: str, y_unit: str) -> list[str]:
        parts = []
        for step in range(5):
            value = self.most * step / 4
            y, kind = self.y(value), "grid" if step else "axis"
            parts += [f'<line class="{kind}" x1="{_LEFT}" x2="{_RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>']
            parts += [_text(_LEFT - 8, y + 4, number(value), "faint", "end")]
        first, last = round(self.lowest), round(self.highest)
        for decade in range(first, last + 1):
            parts.append(_text(self.x(10**decade), _BOTTOM + 18, f"{10**decade:,}", "faint", "middle"))
        parts.append(_text((_LEFT + _RIGHT) / 2, _BOTTOM + 38, x_unit, "faint", "middle"))
        return [*parts, _text(_RIGHT, 36, y_unit, "faint", "end")]


def _text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'


def _svg(parts: Sequence[str], height: float, title: str) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}" role="img">'
    return "\n".join([head, f"<title>{escape(title)}</title>", _STYLE, *parts, "</svg>"]) + "\n"
