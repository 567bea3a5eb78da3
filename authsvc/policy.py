"""The policy: the snapshot in memory, and how it stays fresh.

`catch_up` asks the database for its policy version and reads again just what has changed. It runs in the
background several times a second, and once around each request of an administrator, so that a change is
in force when its answer arrives. Decisions read `snapshot` and nothing else; when the database is gone they
continue with the last good one. A snapshot is replaced by one assignment after everything was read, so it is always
the policy of one version: never a changed role together with a user as it was before.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog

from authsvc import stored
from authsvc.sharded_map import ShardedMap
from authsvc.snapshot import Snapshot
from authsvc.storage.changes import Change, Kind, changes_since, current_version
from authsvc.storage.database import reading, session

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from authsvc.permissions import Permission
    from authsvc.stored import OwnerPermissions

log = structlog.get_logger()

_LOGGED = 20


class Policy:
    """Holds the one snapshot of this process and brings it up to date."""

    def __init__(self) -> None:
        self.snapshot = Snapshot()
        self._refreshed_at = float("-inf")
        self._catching_up = threading.Lock()

    @property
    def age(self) -> float:
        """Seconds since the snapshot was last known to be what the database holds."""
        return time.monotonic() - self._refreshed_at

    def catch_up(self) -> None:
        """Bring the snapshot to the database's version; a database error leaves it as it was and is raised."""
        with self._catching_up, session():
            asked_at = time.monotonic()
            version = current_version()
            if version != self.snapshot.version:
                with reading():
                    self._move_to(current_version())
            self._refreshed_at = asked_at

    def _move_to(self, version: int) -> None:
        before = self.snapshot
        changes = changes_since(before.version) if 0 < before.version < version else None
        if changes is None or any(change.kind is Kind.AUTHORITY for change in changes):
            after = _load(version)
            read: Iterable[str] = after.users
        else:
            after = _changed(before, changes, version)
            read = {change.name for change in changes if change.kind is Kind.USER}
        # Everything has been read: up to here an error leaves the policy wholly as it was.
        self.snapshot = after
        _log_new_damage(before, after, read)


def snapshot_of(username: str) -> Snapshot:
    """Return a snapshot of one user and its roles, for a question asked outside the service; it may be empty."""
    with reading():
        version = current_version()
        users = stored.user_policies([username], datetime.now(UTC))
        names = [role for user in users.values() for role in user.roles]
        roles = stored.role_policies(names)
        return Snapshot(ShardedMap(users.items()), _permissions(roles), {}, version, _damage(roles))


def _changed(before: Snapshot, changes: Iterable[Change], version: int) -> Snapshot:
    """Return the snapshot after these changes; it shares everything else with the one before."""
    names: dict[Kind, set[str]] = defaultdict(set)
    for change in changes:
        names[change.kind].add(change.name)
    users = stored.user_policies(names[Kind.USER], datetime.now(UTC))
    roles = stored.role_policies(names[Kind.ROLE])
    unchanged = before.roles.keys() - names[Kind.ROLE]
    return replace(
        before,
        users=before.users.replaced(names[Kind.USER], users),
        roles={name: before.roles[name] for name in unchanged} | _permissions(roles),
        damaged_roles={name: why for name, why in before.damaged_roles.items() if name in unchanged} | _damage(roles),
        signing_keys=stored.signing_keys() if Kind.SIGNING_KEYS in names else before.signing_keys,
        version=version,
    )


def _load(version: int) -> Snapshot:
    roles = stored.role_policies(None)
    return Snapshot(
        users=ShardedMap(stored.user_policies(None, datetime.now(UTC)).items()),
        roles=_permissions(roles),
        signing_keys=stored.signing_keys(),
        version=version,
        damaged_roles=_damage(roles),
    )


def _permissions(roles: Mapping[str, OwnerPermissions]) -> dict[str, tuple[Permission, ...]]:
    return {name: role.permissions for name, role in roles.items()}


def _damage(roles: Mapping[str, OwnerPermissions]) -> dict[str, tuple[str, ...]]:
    return {name: role.damage for name, role in roles.items() if role.damage}


def _log_new_damage(before: Snapshot, after: Snapshot, usernames: Iterable[str]) -> None:
    """Log each damaged one of these users, and each damaged role, once: when it is first read with this damage."""
    fresh = [("role", name, why) for name, why in after.damaged_roles.items() if before.damaged_roles.get(name) != why]
    for name in usernames:
        user, earlier = after.users.get(name), before.users.get(name)
        if user and user.damage and not (earlier and earlier.damage == user.damage):
            fresh.append(("user", name, user.damage))
    for kind, name, why in fresh[:_LOGGED]:
        log.error("damaged policy: everything is denied until it is repaired", owner=f"{kind}:{name}", damage=why)
    if len(fresh) > _LOGGED:
        log.error("damaged policy of more users and roles; list all with: authsvc check", more=len(fresh) - _LOGGED)
