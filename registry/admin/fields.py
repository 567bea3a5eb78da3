"""Conversion of form fields into fields of the REST API's schemas."""

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
    "": "No expiry",
    "1": "1 hour",
    "8": "8 hours",
    "24": "1 day",
    "168": "1 week",
    "720": "30 days",
    "8760": "1 year",
}


def text(name: str) -> str | None:
    """Return a text field without surrounding spaces, or None if it is empty."""
    return request.form.get(name, "").strip() or None


def rights() -> dict[str, Any]:
    """Return the roles and permissions of the form."""
    return {"roles": request.form.getlist("roles"), "permissions": permission_rows(request.form)}


def end_of_period(name: str) -> str | None:
    """Return the end of a period of `PERIODS` from now. Return any other value as it is: validation refuses it."""
    hours = request.form.get(name, "")
    if hours not in PERIODS:
        return hours
    return (datetime.now(UTC) + timedelta(hours=int(hours))).isoformat() if hours else None


def role_choices() -> list[roles.RoleRecord]:
    """Return the roles for a role picker; none if the caller lacks the permission to read roles."""
    return roles.search("", 1, _MAX_ROLES).items if may_call("GET", "/api/roles") else []


def risky_roles(shown: Iterable[records.RegistrationRecord], offered: Iterable[roles.RoleRecord] = ()) -> set[str]:
    """Return the requested, starting and offered roles that give rights over this service."""
    names = chain.from_iterable((*one.requested_roles, *one.starting_roles) for one in shown)
    return roles.with_http_rights(chain(names, (role.name for role in offered)))


def readable_json(value: Any) -> str:
    """Return indented JSON with invisible characters escaped."""
    return escape_invisible(json.dumps(value, indent=2, ensure_ascii=False))
