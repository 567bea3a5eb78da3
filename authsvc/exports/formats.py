"""CSV and JSON texts in parts."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_PART = 64 * 1024
# A spreadsheet reads a cell that begins with one of these as a formula, which can run programs and send data away.
# Some read the full-width forms, U+FF1D, U+FF0B, U+FF0D and U+FF20, in the same way.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def csv_parts(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield a CSV text. A cell that a spreadsheet would read as a formula begins with an apostrophe.

    All cells have quotes: a program that takes a semicolon or a tab for the separator then divides none of them.
    """
    part = io.StringIO()
    writer = csv.writer(part, quoting=csv.QUOTE_ALL)
    writer.writerow(header)
    for row in rows:
        writer.writerow(map(harmless, row))
        if part.tell() >= _PART:
            yield part.getvalue()
            part.seek(0)
            part.truncate()
    yield part.getvalue()


def json_parts(items: Iterable[dict[str, Any]], limit: int) -> Iterator[str]:
    """Yield a JSON object with `items` and `complete`, which is false if there are as many items as the limit."""
    count, part = 0, '{"items":['
    for count, item in enumerate(items, 1):
        part += ("," if count > 1 else "") + "\n" + json.dumps(item, ensure_ascii=False)
        if len(part) >= _PART:
            yield part
            part = ""
    yield f'{part}\n],"complete":{"true" if count < limit else "false"}}}\n'


def harmless(cell: str) -> str:
    """Return the text of a CSV cell, with an apostrophe before the first character of a formula."""
    return f"'{cell}" if cell.startswith(_FORMULA) else cell
