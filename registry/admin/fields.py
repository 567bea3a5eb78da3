"""What the registry's forms share: fields as they are typed, turned into what the API's shapes expect."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import TYPE_CHECKING, Any

from flask import request

from authsvc.accounts import roles
from authsvc.admin.forms import permission_rows
from authsvc.admin.pages import may_call
from authsvc.web.escape import escape_invisible

if TYPE_CHECKING:
    from collections.abc import Iterable

    from registry import records

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
    return roles.search("", 1, _MAX_ROLES).items if may_call("GET", "/api/roles") else []


def risky_roles(shown: Iterable[records.Record], offered: Iterable[roles.RoleRecord] = ()) -> set[str]:
    """Return the roles with rights over this service, of those that are requested, started with or offered."""
    names = chain.from_iterable((*one.requested_roles, *one.starting_roles) for one in shown)
    return roles.with_http_rights(chain(names, (role.name for role in offered)))


def escape_invisible_json(said: Any) -> str:
    """Return JSON to be read by people."""
    return escape_invisible(json.dumps(said, indent=2, ensure_ascii=False))
