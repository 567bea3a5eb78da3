"""Changes of many users or registrations at once, each in its own transaction with its own audit event."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from authsvc.accounts import users
from authsvc.errors import AuthsvcError, Busy
from authsvc.storage.changes import policy_change
from authsvc.storage.database import DATABASE_GONE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from authsvc.credentials.passwords import PasswordHasher
    from authsvc.policy.actors import Actor

MAX_AT_ONCE = 1000
Result = TypeVar("Result")


class BulkAction(StrEnum):
    """A change that can be made to many users at once."""

    ENABLE = "enable"
    DISABLE = "disable"
    DELETE = "delete"
    ADD_ROLE = "addRole"
    REMOVE_ROLE = "removeRole"

    @property
    def needs_role(self) -> bool:
        return self in (BulkAction.ADD_ROLE, BulkAction.REMOVE_ROLE)


class Failure(NamedTuple):
    """The id of something that was not changed, and why."""

    id: str
    error: AuthsvcError


def apply_to_each(ids: Iterable[str], action: Callable[[str], Result]) -> tuple[list[Result], list[Failure]]:
    """Apply an action to each id in its own transaction; return the results and the failures.

    If the database is lost after some were changed, the remaining ones are failures, so that the caller still learns
    what was done.
    """
    done: list[Result] = []
    failed: list[Failure] = []
    remaining = list(dict.fromkeys(ids))
    while remaining:
        try:
            done.append(action(remaining[0]))
        except AuthsvcError as error:
            failed.append(Failure(remaining[0], error))
        except DATABASE_GONE:
            if not done:
                raise
            lost = "the database cannot be reached"
            failed.append(Failure(remaining[0], Busy(f"{lost}; check whether it was changed", "database-unavailable")))
            unchanged = Busy(f"{lost}; it was not changed", "database-unavailable")
            return done, failed + [Failure(id_, unchanged) for id_ in remaining[1:]]
        del remaining[0]
    return done, failed


def change_user(actor: Actor, username: str, action: BulkAction, role: str, hasher: PasswordHasher) -> str:
    """Make one change and return the username; the errors are those of `users.change` and `users.delete`.

    A user that is already as the change would make it stays as it is, without an audit event.
    """
    if action is BulkAction.DELETE:
        users.delete(actor, username)
    elif _changes(users.get(username), action, role):
        with policy_change():
            # Read again, because no other change can be made from here on.
            changes = _changes(users.get(username), action, role)
            if changes:
                users.change(actor, username, changes, hasher)
    return username


def _changes(record: users.UserRecord, action: BulkAction, role: str) -> users.UserChanges:
    if action is BulkAction.ADD_ROLE:
        return {"roles": (*record.roles, role)} if role not in record.roles else {}
    if action is BulkAction.REMOVE_ROLE:
        return {"roles": tuple(each for each in record.roles if each != role)} if role in record.roles else {}
    enabled = action is BulkAction.ENABLE
    return {"enabled": enabled} if record.enabled != enabled else {}
