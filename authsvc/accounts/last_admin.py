"""The rule that at least one administrator remains: without one, only the command line could change anything."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from authsvc.errors import Conflict
from authsvc.policy.permissions import Context, Operation, Request, decide
from authsvc.policy.snapshot import Snapshot
from authsvc.policy.topics import path_identity, path_level, split
from authsvc.storage import policy_reader
from authsvc.storage.models import Role, User, UserRole

if TYPE_CHECKING:
    from collections.abc import Iterator

    from authsvc.policy.snapshot import RolePolicy, UserPolicy

ROLE = "admin"


@contextmanager
def keep_last_administrator() -> Iterator[None]:
    """Wrap a change inside its transaction; raise `Conflict` if it removes the last administrator."""
    before = _administrator_exists()
    yield
    if before and not _administrator_exists():
        raise lost()


def lost() -> Conflict:
    """Return the error for a change that removes the last administrator."""
    message = "this would remove the last administrator; give another user the role admin first"
    return Conflict(message, "last-administrator")


def usernames() -> list[str]:
    """Return the enabled users with the role of administrators. Not each of them can administrate; see below."""
    query = User.select(User.username).join(UserRole).join(Role).where(Role.name == ROLE, User.enabled)
    return [row.username for row in query]


def can_administrate(user: UserPolicy, roles: dict[str, RolePolicy]) -> bool:
    """Return whether a user can sign in with a password and change its own rights, and with them anything.

    `roles` are those of the user.
    """
    if not user.may_sign_in or any(role.damage for role in roles.values()):
        return False
    snapshot = Snapshot(roles=roles)
    path = split(f"/api/users/{path_level(user.username)}")
    request = Request(Context.HTTP, Operation.WRITE, path, path_identity(user.username))
    return bool(decide(snapshot.rules_of(user), request))


def _administrator_exists() -> bool:
    for username in usernames():
        (user,) = policy_reader.user_policies([username], datetime.now(UTC)).values()
        if can_administrate(user, policy_reader.role_policies(user.roles)):
            return True
    return False
