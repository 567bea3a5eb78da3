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

from authsvc.policy.sharded_map import ShardedMap
from authsvc.policy.snapshot import CurrentPolicy, Snapshot
from authsvc.storage import policy_reader
from authsvc.storage.changes import Change, ChangeKind, Versions, changes_since, current_versions
from authsvc.storage.database import reading, session

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from authsvc.policy.snapshot import RolePolicy

log = structlog.get_logger()

_LOGGED = 20


STALE_AFTER_SECONDS = 5.0
"""Policy is refreshed several times a second, so after this time without one something is wrong."""


class PolicyCache(CurrentPolicy):
    """The current policy of this process, and the means to read it again from the database."""

    def __init__(self) -> None:
        super().__init__()
        self._refreshed_at = float("-inf")
        self._catching_up = threading.Lock()

    @property
    def refreshed_at(self) -> float:
        """When the snapshot was last known to be what the database holds, by the system's monotonic clock."""
        return self._refreshed_at

    @property
    def age(self) -> float:
        """Seconds since then; infinite before the first time."""
        return time.monotonic() - self._refreshed_at

    @property
    def is_loaded(self) -> bool:
        """Whether there is a snapshot; before that every decision is a denial."""
        return self.snapshot.version > 0

    @property
    def is_loading(self) -> bool:
        """Whether the first snapshot is being read at the moment, which takes minutes with very many users."""
        return not self.is_loaded and self._catching_up.locked()

    def catch_up(self) -> None:
        """Bring the snapshot to the database's version; a database error leaves it as it was and is raised."""
        with self._catching_up, session():
            asked_at = time.monotonic()
            if current_versions() != (self.snapshot.version, self.snapshot.token_version):
                with reading():
                    self._move_to(current_versions())
            self._refreshed_at = asked_at

    def _move_to(self, to: Versions) -> None:
        before = self.snapshot
        went_on = 0 < before.version <= to.policy and before.token_version <= to.tokens
        changes = changes_since(before.version) if went_on else None
        if changes is None or any(change.kind is ChangeKind.AUTHORITY for change in changes):
            after = _load(to)
            read: Iterable[str] = after.users
        else:
            after = _changed(before, changes, to)
            read = {change.name for change in changes if change.kind is ChangeKind.USER}
        # Everything has been read: up to here an error leaves the policy wholly as it was.
        self.snapshot = after
        if changes is None or after.version != before.version:
            self.generation += 1
        _log_new_damage(before, after, read)


def snapshot_of(username: str) -> Snapshot:
    """Return a snapshot of one user and its roles, for a question asked outside the service; it may be empty."""
    with reading():
        versions = current_versions()
        users = policy_reader.user_policies([username], datetime.now(UTC))
        names = [role for user in users.values() for role in user.roles]
        roles = policy_reader.role_policies(names)
        return Snapshot(ShardedMap(users.items()), roles, {}, *versions, _damage(roles))


def _changed(before: Snapshot, changes: Iterable[Change], to: Versions) -> Snapshot:
    """Return the snapshot after these changes; it shares everything else with the one before."""
    names: dict[ChangeKind, set[str]] = defaultdict(set)
    for change in changes:
        names[change.kind].add(change.name)
    now = datetime.now(UTC)
    users = policy_reader.user_policies(names[ChangeKind.USER], now)
    for username, made in policy_reader.tokens_since(before.token_version, now).items():
        user = before.users.get(username)
        if user and username not in names[ChangeKind.USER]:
            valid = {digest: until for digest, until in user.tokens.items() if until > now}
            users[username] = replace(user, tokens=valid | made)
    roles = policy_reader.role_policies(names[ChangeKind.ROLE])
    unchanged = before.roles.keys() - names[ChangeKind.ROLE]
    return replace(
        before,
        users=before.users.replaced(names[ChangeKind.USER] | users.keys(), users),
        roles={name: before.roles[name] for name in unchanged} | roles,
        damaged_roles={name: why for name, why in before.damaged_roles.items() if name in unchanged} | _damage(roles),
        signing_keys=policy_reader.signing_keys() if ChangeKind.SIGNING_KEYS in names else before.signing_keys,
        version=to.policy,
        token_version=to.tokens,
    )


def _load(to: Versions) -> Snapshot:
    roles = policy_reader.role_policies(None)
    return Snapshot(
        users=ShardedMap(policy_reader.user_policies(None, datetime.now(UTC)).items()),
        roles=roles,
        signing_keys=policy_reader.signing_keys(),
        version=to.policy,
        token_version=to.tokens,
        damaged_roles=_damage(roles),
    )


def _damage(roles: Mapping[str, RolePolicy]) -> dict[str, tuple[str, ...]]:
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
