"""Draw docs/dashboard.svg: `make dashboard`.

It shows the results of the dashboard's queries in a real Prometheus that scraped a real service for two minutes.
"""

from __future__ import annotations

import random
import re
import tempfile
import time
from html import escape
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import requests

from tests.http.plugin import CONNECTED, Plugin
from tests.prometheus import Prometheus, Query, Series, queries
from tests.registry.signing import new_key, signing_request
from tests.service import Service, permission

if TYPE_CHECKING:
    from collections.abc import Sequence

PICTURE = Path(__file__).parents[1] / "docs" / "dashboard.svg"
_SECONDS = 120.0
_COLUMNS, _WIDTH, _HEIGHT, _GAP = 3, 380, 190, 12
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 368, 34, 122  # the plot within a panel
_LEGEND_LINES = 4
_STYLE = """\
<style>
  text { font: 12px system-ui, sans-serif; fill: #333 } .title { font-weight: 600 }
  .faint { fill: #777; font-size: 11px } .value { font-size: 26px }
  .panel { fill: none; stroke: #9996 } .grid { stroke: #9994 }
  polyline { fill: none; stroke-width: 1.5 }
  .c0 { stroke: #2f6fb5 } .c1 { stroke: #c2571a } .c2 { stroke: #3c8a4e } .c3 { stroke: #8a55a8 } .c4 { stroke: #999 }
  @media (prefers-color-scheme: dark) { text { fill: #ddd } .faint { fill: #aaa } }
</style>"""
_COLOURS = 5
_UNITS = {"ops": "/s", "reqps": "/s"}


class Line(NamedTuple):
    """One series of a panel: its legend and its points."""

    legend: str
    points: list[tuple[float, float]]


def main() -> None:
    """Run and use a service for two minutes, and draw what Prometheus has stored."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        with Service(directory) as service, Prometheus(directory, service) as prometheus:
            _prepare(service)
            start = time.time()
            _use(service, until=start + _SECONDS)
            PICTURE.write_text(_picture(prometheus, start + 5, time.time()))
    print(PICTURE)  # noqa: T201


def _prepare(service: Service) -> None:
    for number in range(40):
        service.create_user(f"press-{number}", f"secret-{number}", "write devices/%u/#")
    service.create_user("scale", "secret", grantTypes=["certificate"])
    body = {"csr": signing_request("scale", new_key())}
    assert service.call("POST", "/api/users/scale/certificates", json=body).status_code == 201
    rule = {"name": "line", "description": "", "permissions": [permission("read line/#")]}
    assert service.call("POST", "/api/roles", json=rule).status_code == 201


def _use(service: Service, until: float) -> None:
    """Let 40 devices log in and publish, some of them without permission, and an administrator change users."""
    chance = random.Random(7)
    broker, plugin, clients = requests.Session(), Plugin(service), 0
    while time.time() < until:
        number = chance.randrange(44)  # the last four are unknown
        fields = {"username": f"press-{number}", "clientid": f"press-{number}"}
        if chance.random() < 0.2:
            broker.post(f"{service.broker_url}/auth/user", json={**fields, "password": f"secret-{number}"}, timeout=20)
        topic = "elsewhere" if chance.random() < 0.1 else f"devices/press-{number}/up"
        broker.post(f"{service.broker_url}/auth/acl", json={**fields, "topic": topic, "acc": 2}, timeout=20)
        if chance.random() < 0.05:
            clients += 1
            since = {"id": clients, "clientid": f"press-{clients}", "since": int(time.time())}
            assert plugin.report(connected=[CONNECTED | since]).status == 200
        if chance.random() < 0.01:
            service.call("PATCH", f"/api/users/press-{chance.randrange(40)}", json={"roles": ["line"]})
            service.call("GET", "/api/users")
        time.sleep(chance.uniform(0, 0.03))


def _picture(prometheus: Prometheus, start: float, end: float) -> str:
    panels: dict[str, tuple[Query, list[Line]]] = {}
    for query in queries():
        _, lines = panels.setdefault(query.panel, (query, []))
        lines.extend(_line(query, series) for series in prometheus.values(query.expression, start, end))
    parts = []
    for order, (title, (query, lines)) in enumerate(panels.items()):
        row, column = divmod(order, _COLUMNS)
        x, y = column * (_WIDTH + _GAP), row * (_HEIGHT + _GAP)
        drawn = _stat(query, lines) if query.kind == "stat" else _plot(query, lines, start, end)
        frame = f'<rect class="panel" width="{_WIDTH}" height="{_HEIGHT}" rx="4"/>'
        parts += [f'<g transform="translate({x},{y})">', frame, _text(12, 20, title, "title"), *drawn, "</g>"]
    width, height = _COLUMNS * (_WIDTH + _GAP), -(-len(panels) // _COLUMNS) * (_HEIGHT + _GAP)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-2 -2 {width} {height}" role="img">'
    return "\n".join([head, "<title>The panels of the dashboard</title>", _STYLE, *parts, "</svg>"]) + "\n"


def _line(query: Query, series: Series) -> Line:
    legend = re.sub(r"\{\{(\w+)\}\}", lambda found: series.labels.get(found[1], ""), query.legend)
    return Line(legend, [(at, value) for at, value in series.points if isfinite(value)])


def _stat(query: Query, lines: Sequence[Line]) -> list[str]:
    (line, *_) = lines or [Line("no data", [])]
    text = line.legend or (_number(line.points[-1][1], query.unit) if line.points else "no data")
    return [_text(_WIDTH / 2, 100, text, "value", "middle")]


def _plot(query: Query, lines: Sequence[Line], start: float, end: float) -> list[str]:
    most = max((value for line in lines for _, value in line.points), default=0) or 1
    parts = []
    for share in (0, 0.5, 1):
        y = _BOTTOM - share * (_BOTTOM - _TOP)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_RIGHT}" y1="{y:.0f}" y2="{y:.0f}"/>')
        parts.append(_text(_LEFT - 6, y + 4, _number(most * share, query.unit), "faint", "end"))
    for order, line in enumerate(lines):
        colour = f"c{order % _COLOURS}"
        places = (
            (
                _LEFT + (at - start) / (end - start) * (_RIGHT - _LEFT),
                _BOTTOM - value / most * (_BOTTOM - _TOP),
            )
            for at, value in line.points
        )
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline class="{colour}" points="{path}"/>')
        if order < 2 * _LEGEND_LINES:
            x, y = 14 + order // _LEGEND_LINES * 185, _BOTTOM + 18 + order % _LEGEND_LINES * 14
            parts.append(f'<line class="{colour}" x1="{x}" x2="{x + 12}" y1="{y - 4}" y2="{y - 4}" stroke-width="2"/>')
            parts.append(_text(x + 17, y, line.legend[:28], "faint"))
    return parts


def _number(value: float, unit: str) -> str:
    if unit == "percentunit":
        return f"{value:.0%}"
    if unit == "s":
        return _duration(value)
    return f"{value:.3g}{_UNITS.get(unit, '')}"


def _duration(seconds: float) -> str:
    for size, name in ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"), (0.001, "ms")):
        if seconds >= size:
            return f"{seconds / size:,.0f} {name}" if seconds >= 100 * size else f"{seconds / size:.3g} {name}"
    return f"{seconds * 1_000_000:.3g} µs" if seconds else "0"


def _text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'


if __name__ == "__main__":
    main()
