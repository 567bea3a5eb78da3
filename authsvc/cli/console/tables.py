"""Tables as wide as the terminal, and in full in a pipe."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

import click
from rich.cells import cell_len, set_cell_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_GAP = 2
_EMPTY = "-"


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table. At a terminal cells are cut with an ellipsis until it fits into COLUMNS; in a pipe never."""
    lines = [tuple(map(cell, row)) for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(columns, *lines, strict=True)]
    is_terminal = sys.stdout.isatty()
    if is_terminal:
        widths = fitting(widths, shutil.get_terminal_size().columns - _GAP * (len(columns) - 1))
    click.secho(_line(columns, widths), bold=is_terminal or None)
    for line in lines:
        click.echo(_line(line, widths))


def cell(value: object) -> str:
    """Return a value as a table shows it: yes or no, a dash for nothing, lists with commas, no control characters."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple, frozenset)):
        value = ", ".join(map(str, value))
    return printable(str(value)) if value not in (None, "") else _EMPTY


def printable(text: str) -> str:
    """Return text with control characters escaped: unknown devices choose names, and a terminal obeys controls."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def fitting(widths: list[int], available: int) -> list[int]:
    """Return widths whose sum is at most `available`, by reducing the widest columns only; each keeps 1 character."""
    limit = max(widths, default=0)
    while limit > 1 and sum(min(width, limit) for width in widths) > available:
        limit -= 1
    spare = available - sum(min(width, limit) for width in widths)
    fitted = []
    for width in widths:
        extra = 1 if width > limit and spare > 0 else 0
        spare -= extra
        fitted.append(min(width, limit + extra))
    return fitted


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return (" " * _GAP).join(map(_sized, cells, widths)).rstrip()


def _sized(text: str, width: int) -> str:
    return set_cell_size(text, width) if cell_len(text) <= width else set_cell_size(text, width - 1) + "…"
