"""What the registry's forms share: fields as they are typed, turned into what the API's shapes expect."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from flask import request

from authsvc import roles
from authsvc.admin.forms import permission_rows
from authsvc.admin.pages import may

_MAX_ROLES = 1000
PERIODS = {
    "": "No end",
    "1": "An hour",
    "8": "8 hours",
    "24": "A day",
    "168": "A week",
    "720": "30 days",
    "8760": "A year",
}


def number(name: str) -> int | str | None:
    """Return a number that was typed, None for nothing, and what is no number as it is, for the shape to refuse."""
    typed = request.form.get(name, "").strip()
    return int(typed) if typed.isdecimal() and typed.isascii() and len(typed) <= len("1000000000") else typed or None


def text(name: str) -> str | None:
    """Return a text that was typed, None for nothing."""
    return request.form.get(name, "").strip() or None


def given() -> dict[str, Any]:
    """Return what somebody is to get."""
    return {"roles": request.form.getlist("roles"), "permissions": permission_rows(request.form)}


def end_of_period(name: str) -> str | None:
    """Return when a period of so many hours from now ends; what is none of `PERIODS` as it is."""
    hours = request.form.get(name, "")
    if hours not in PERIODS:
        return hours
    return (datetime.now(UTC) + timedelta(hours=int(hours))).isoformat() if hours else None


def roles_to_give() -> list[roles.RoleRecord]:
    """Return the roles that can be chosen from: none for whoever may not see them."""
    return roles.search("", 1, _MAX_ROLES).items if may("GET", "/api/roles") else []


def legible(said: str) -> str:
    r"""Return what a stranger says with everything spelled out that does not show, or that turns other text round.

    A username of `a\u202eb` is not to be taken for another one.
    """
    return "".join(letter if letter.isprintable() or letter == "\n" else _spelled(letter) for letter in said)


def legible_json(said: Any) -> str:
    """Return JSON to be read by people."""
    return legible(json.dumps(said, indent=2, ensure_ascii=False))


def _spelled(letter: str) -> str:
    return letter.encode("ascii", "backslashreplace").decode() if not letter.isascii() else f"\\x{ord(letter):02x}"
