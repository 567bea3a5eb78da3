"""Users and audit events as rows of CSV."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from authsvc.record_json import rfc3339

if TYPE_CHECKING:
    from authsvc.accounts.users import UserRecord
    from authsvc.activity.audit import Event

USER_COLUMNS = (
    *("username", "enabled", "grantTypes", "roles", "groupRoles", "permissions", "clientIds"),
    *("hasPassword", "secondFactor", "origin", "createdAt", "updatedAt", "lastSeen"),
)
AUDIT_COLUMNS = ("id", "at", "actor", "via", "address", "requestId", "action", "target", "before", "after")


def of_user(user: UserRecord) -> tuple[str, ...]:
    """Return the cells of `USER_COLUMNS`."""
    rights = (user.roles, user.group_roles, user.permissions, user.client_ids)
    lists = ("; ".join(map(str, values)) for values in (sorted(user.grant_types), *rights))
    times = (rfc3339(at) if at else "" for at in (user.created_at, user.updated_at, user.last_seen))
    credentials = map(_yes, (user.has_password, user.second_factor))
    return (user.username, _yes(user.enabled), *lists, *credentials, user.origin, *times)


def of_audit_event(event: Event) -> tuple[str, ...]:
    """Return the cells of `AUDIT_COLUMNS`."""
    before, after = (
        json.dumps(values, ensure_ascii=False) if values is not None else "" for values in (event.before, event.after)
    )
    who = (event.actor, event.via, event.address or "", event.request_id or "")
    return (str(event.id), rfc3339(event.at), *who, event.action, event.target, before, after)


def _yes(value: bool) -> str:
    return "yes" if value else "no"
