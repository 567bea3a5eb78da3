"""Lists as files to download: CSV and JSON, written row by row, so that no list is in memory as a whole."""

from __future__ import annotations

import csv
import io
import json
from itertools import chain
from typing import TYPE_CHECKING, Any

from flask import Response

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_CHUNK = 64 * 1024
# A spreadsheet reads a cell that begins with one of these as a formula, which can run programs and send data away.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def csv_file(name: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> Response:
    """Return a CSV file. A cell that a spreadsheet would read as a formula begins with an apostrophe."""
    lines = (_line(map(harmless, row)) for row in rows)
    return _file(name, "text/csv; charset=utf-8", chain([_line(header)], lines))


def json_file(name: str, items: Iterable[dict[str, Any]], limit: int) -> Response:
    """Return a JSON file with `items` and `complete`, which is false if there are as many items as the limit."""
    return _file(name, "application/json", _json_parts(items, limit))


def harmless(cell: str) -> str:
    """Return the text of a CSV cell, with an apostrophe before the first character of a formula."""
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


def _line(cells: Iterable[str]) -> str:
    line = io.StringIO()
    csv.writer(line).writerow(cells)
    return line.getvalue()


def _json_parts(items: Iterable[dict[str, Any]], limit: int) -> Iterator[str]:
    count = 0
    yield '{"items":['
    for count, item in enumerate(items, 1):
        yield ("," if count > 1 else "") + "\n" + json.dumps(item, ensure_ascii=False)
    yield f'\n],"complete":{"true" if count < limit else "false"}}}\n'


def _file(name: str, content_type: str, parts: Iterator[str]) -> Response:
    chunks = _chunks(parts)
    # The first rows are read here, so that an error of the database is answered as on any other page.
    first = next(chunks, b"")
    response = Response(chain([first], chunks), content_type=content_type)
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    response.headers["Cache-Control"] = "no-store"
    return response


def _chunks(parts: Iterable[str]) -> Iterator[bytes]:
    waiting, size = [], 0
    for part in parts:
        waiting.append(part)
        size += len(part)
        if size >= _CHUNK:
            yield "".join(waiting).encode("utf-8", "replace")
            waiting, size = [], 0
    if waiting:
        yield "".join(waiting).encode("utf-8", "replace")
