"""Lists as files to download, sent while they are read."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

from flask import Response

from authsvc.exports.formats import csv_parts, json_parts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


def csv_file(name: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> Response:
    """Return a CSV file."""
    return _file(name, "text/csv; charset=utf-8", csv_parts(header, rows))


def json_file(name: str, items: Iterable[dict[str, Any]], limit: int) -> Response:
    """Return a JSON file with `items` and `complete`, which is false if there are as many items as the limit."""
    return _file(name, "application/json", json_parts(items, limit))


def _file(name: str, content_type: str, parts: Iterator[str]) -> Response:
    # The first part is read here, so that an error of the database is answered as on any other page.
    first = next(parts)
    encoded = (part.encode("utf-8", "replace") for part in chain([first], parts))
    response = Response(encoded, content_type=content_type)
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    response.headers["Cache-Control"] = "no-store"
    return response
