"""Rows named by an administrator: by their id, by the first characters of the id, or by a name."""

from __future__ import annotations

import re
from typing import Any

from authsvc.errors import Conflict, InvalidInput, NotFound, invalid
from authsvc.storage.database import session

MIN_CHARACTERS = 4
_SHOWN = 5


def find_id(query: Any, column: Any, by_name: Any, given: str, noun: str) -> str:
    """Return the id of the only row that `given` names.

    `query` selects the rows, `column` is their id in hexadecimal and `by_name` the condition for a row whose name is
    `given`. A whole id takes precedence. `NotFound` without a match; `Conflict` if it names several rows, because a
    device can choose a username that begins like the id of another one.
    """
    code = f"{noun.replace(' ', '-')}-not-found"
    typed = given.rstrip("…")  # a table at a terminal cuts ids
    with session():
        if query.where(column == typed).exists():
            return typed
        is_prefix = re.fullmatch(rf"[0-9a-f]{{{MIN_CHARACTERS},}}", typed) is not None
        condition = by_name | column.startswith(typed) if is_prefix else by_name
        found: list[str] = [row.get_id() for row in query.where(condition).order_by(column).limit(_SHOWN + 1)]
    if not found and re.fullmatch(r"[0-9a-f]{1,3}", typed):
        raise _too_short(noun)
    if not found:
        raise NotFound(f"no such {noun}", code)
    if len(found) > 1:
        ids = ", ".join(each[:12] for each in found[:_SHOWN]) + (", ..." if len(found) > _SHOWN else "")
        raise Conflict(f"'{given}' names several {noun}s; use the beginning of one id: {ids}", "ambiguous-id")
    return found[0]


def _too_short(noun: str) -> InvalidInput:
    return invalid("id", f"give at least {MIN_CHARACTERS} characters of the {noun}'s id")
