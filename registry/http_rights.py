"""Rights over this service (http) that a registration would get: nobody gives those without saying so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from authsvc.storage import policy_reader
from authsvc.policy.permissions import Context, Effect
from authsvc.storage.database import session

if TYPE_CHECKING:
    from collections.abc import Iterable

    from authsvc.policy.permissions import Permission


def is_http_right(permission: Permission) -> bool:
    """Say whether a permission gives something over this service; one that denies gives nothing."""
    return permission.context is Context.HTTP and permission.effect is Effect.ALLOW


def roles_with_http_rights(names: Iterable[str]) -> set[str]:
    """Return those of the roles that give something over this service, such as `admin`."""
    with session():
        given = policy_reader.role_policies(set(names))
    return {name for name, role in given.items() if any(map(is_http_right, role.rights))}
