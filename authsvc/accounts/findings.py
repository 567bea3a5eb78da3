"""The findings of `authsvc check`: administrators that may log in to the broker, and damaged rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from authsvc.storage import policy_reader
from authsvc.storage.database import read_transaction
from authsvc.storage.models import PermissionRow, Role, User

if TYPE_CHECKING:
    from collections.abc import Iterator


class Finding(NamedTuple):
    """One finding: a stable `code`, the user or role, and what to do."""

    code: str
    target: str
    advice: str


def findings() -> list[Finding]:
    """Return all findings, read from the database now."""
    with read_transaction():
        return [*_administrators_on_broker(), *_damaged_users(), *_damaged_roles()]


def _administrators_on_broker() -> Iterator[Finding]:
    query = User.select(User.username).where(policy_reader.is_administrator_on_broker()).order_by(User.username)
    for row in query:
        advice = (
            "may change something in this service and log in to the broker: deny it the broker with "
            f"`authsvc users change {row.username} --no-grant-types`, or remove its http permissions to write"
        )
        yield Finding("administrator-on-broker", f"user:{row.username}", advice)


def _damaged_users() -> Iterator[Finding]:
    permissions = policy_reader.permissions_of(PermissionRow.user, User.id, None)
    query = User.select(User.id, User.username, User.grant_types, User.client_ids).order_by(User.username)
    for row in query.iterator():
        own = permissions.get(row.id, policy_reader.NO_STORED_PERMISSIONS)
        for damage in policy_reader.damage_of(row.grant_types, row.client_ids, own):
            advice = f"{damage}: everything is denied; set its permissions, grant types and client ids again"
            yield Finding("damaged-policy", f"user:{row.username}", advice)


def _damaged_roles() -> Iterator[Finding]:
    policies = policy_reader.role_policies(None)
    for row in Role.select(Role.name, Role.built_in).order_by(Role.name):
        repair = "restart the service, which repairs it" if row.built_in else "set its permissions and client ids again"
        for damage in policies[row.name].damage:
            advice = f"{damage}: everything is denied to its users; {repair}"
            yield Finding("damaged-policy", f"role:{row.name}", advice)
