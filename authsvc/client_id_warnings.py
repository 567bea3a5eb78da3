"""Warnings about users and roles whose rules depend on the client id while any client id is allowed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from authsvc import allowed_client_ids, stored
from authsvc.storage.database import session

if TYPE_CHECKING:
    from collections.abc import Sequence

    from authsvc.allowed_client_ids import PolicyWarning
    from authsvc.roles import RoleRecord
    from authsvc.users import UserRecord


def of_users(records: Sequence[UserRecord]) -> dict[str, tuple[PolicyWarning, ...]]:
    """Return the warnings about each of these users by username, by its own rules and those of its roles."""
    with session():
        policies = stored.role_policies({role for record in records for role in record.roles})
    found = {}
    for record in records:
        roles = [policies[name] for name in record.roles if name in policies]
        patterns = [*record.client_ids, *(pattern for role in roles for pattern in role.client_ids)]
        permissions = [*record.permissions, *(each for role in roles for each in role.permissions)]
        found[record.username] = allowed_client_ids.warnings(patterns, permissions, "this user")
    return found


def of_user(record: UserRecord) -> tuple[PolicyWarning, ...]:
    """Return the warnings about one user."""
    return of_users([record])[record.username]


def of_role(record: RoleRecord) -> tuple[PolicyWarning, ...]:
    """Return the warnings about a role: what holds for each of its users that has no allowed client ids of its own."""
    owner = "a user with this role and without allowed client ids of its own"
    return allowed_client_ids.warnings(record.client_ids, record.permissions, owner)
