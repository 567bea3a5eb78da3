"""The policy snapshot of this process, and how it is refreshed from the database.

`catch_up` reads the database's policy version and then only what changed since. It runs in the background, every 200 ms
by default, and before each request of an administrator. It also runs after each request that made a change, so the
change is in force when its response arrives. Decisions read only `snapshot`; while the database is gone they use the
last one. One assignment replaces the snapshot after everything was read, so it always holds one policy version.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog

from authsvc.policy.sharded_map import PackedTable, ShardedMap
from authsvc.policy.snapshot import CurrentPolicy, Snapshot, SnapshotChange
from authsvc.storage import policy_reader, user_records
from authsvc.storage.changes import Change, ChangeKind, Versions, changes_since, current_versions
from authsvc.storage.database import read_transaction, session

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from authsvc.policy.snapshot import RolePolicy, UserPolicy

log = structlog.get_logger()

_MAX_LOGGED = 20

STALE_AFTER_SECONDS = 5.0
"""The age from which the policy counts as stale; normally it is refreshed several times a second."""


class PolicyCache(CurrentPolicy):
    """The current policy of this process, refreshed from the database by `catch_up`.

    `inherited` is a snapshot that the parent process has read. The first refresh then reads only what changed since.
    Before that the policy is not loaded, because the parent may have read it long ago.
    """

    def __init__(self, inherited: Snapshot | None = None) -> None:
        super().__init__()
        self._inherited = inherited or self.snapshot
        self._refreshed_at = float("-inf")
        self._catching_up = threading.Lock()

    @property
    def refreshed_at(self) -> float:
        """The time at which the snapshot last matched the database, by the monotonic clock."""
        return self._refreshed_at

    @property
    def age(self) -> float:
        """Seconds since `refreshed_at`; infinite before the first refresh."""
        return time.monotonic() - self._refreshed_at

    @property
    def is_loaded(self) -> bool:
        """Whether the first refresh has ended; before that every request is denied, and `age` is infinite."""
        return self._refreshed_at > float("-inf")

    @property
    def is_loading(self) -> bool:
        """Whether the first snapshot is being read; with very many users this takes minutes."""
        return not self.is_loaded and self._catching_up.locked()

    def catch_up(self) -> None:
        """Refresh the snapshot if the database has another version; wait while another thread does so.

        Every error is raised, not only database errors, and `refreshed_at` then keeps its value. The snapshot is
        replaced only after the whole new version was read.
        """
        with self._catching_up, session():
            started_at = time.monotonic()
            if current_versions() != (self.snapshot.version, self.snapshot.token_version):
                with read_transaction():
                    self._move_to(current_versions())
            self._refreshed_at = started_at

    def _move_to(self, to: Versions) -> None:
        before = self.snapshot if self.is_loaded else self._inherited
        # The database has an older version if it was replaced, for example by one restored from a backup.
        is_successor = 0 < before.version <= to.policy and before.token_version <= to.tokens
        if before.version and not is_successor:
            log.warning("the database has an older policy than this process; reading everything")
        changes = changes_since(before.version) if is_successor else None
        if changes is None:
            after = _load(to)
            read: Iterable[str] = after.users.unpacked()
        else:
            after, change, read = _changed(before, changes, to)
        if changes is None or not self.is_loaded:
            change = SnapshotChange(after.revision, everything=True)
        # Everything was read: an error before this line leaves the policy unchanged.
        self.snapshot = after
        # New API tokens and ended connections change no earlier decision, so cached answers remain valid.
        if change.everything or any(each.kind is not ChangeKind.CLIENT for each in changes or ()):
            self.generation += 1
        self._tell_subscribers(change)
        _log_new_damage(before, after, read)


def snapshot_of(*usernames: str) -> Snapshot:
    """Return a snapshot of these users and their roles, read from the database, without users that do not exist."""
    with read_transaction():
        versions = current_versions()
        users = policy_reader.user_policies(usernames, datetime.now(UTC))
        names = {role for user in users.values() for role in user.roles}
        roles = policy_reader.role_policies(names)
        return Snapshot(ShardedMap(users.items()), roles, {}, *versions, _damage(roles))


def _changed(
    before: Snapshot, changes: Iterable[Change], to: Versions
) -> tuple[Snapshot, SnapshotChange, Iterable[str]]:
    """Return the snapshot with these changes applied, what changed, and the changed users that are not packed.

    It shares the rest with the previous snapshot.
    """
    names: dict[ChangeKind, set[str]] = defaultdict(set)
    for change in changes:
        names[change.kind].add(change.name)
    changed_users = names[ChangeKind.USER] | policy_reader.users_with_tokens_since(before.token_version)
    if ChangeKind.AUTHORITY in names:
        changed_users |= policy_reader.users_with_certificates()
    users = dict(user_records.read(changed_users, datetime.now(UTC))) if changed_users else {}
    roles = policy_reader.role_policies(names[ChangeKind.ROLE])
    unchanged = before.roles.keys() - names[ChangeKind.ROLE]
    after = replace(
        before,
        users=before.users.replaced(changed_users, users),
        roles={name: before.roles[name] for name in unchanged} | roles,
        damaged_roles={name: why for name, why in before.damaged_roles.items() if name in unchanged} | _damage(roles),
        signing_keys=policy_reader.signing_keys() if ChangeKind.SIGNING_KEYS in names else before.signing_keys,
        version=to.policy,
        token_version=to.tokens,
    )
    of_others = (frozenset(names[ChangeKind.ROLE]), frozenset(names[ChangeKind.CLIENT]))
    unpacked = [username for username, user in users.items() if not isinstance(user, bytes)]
    return after, SnapshotChange(after.revision, frozenset(changed_users), *of_others), unpacked


def _load(to: Versions) -> Snapshot:
    roles = policy_reader.role_policies(None)
    return Snapshot(
        users=_all_users(),
        roles=roles,
        signing_keys=policy_reader.signing_keys(),
        version=to.policy,
        token_version=to.tokens,
        damaged_roles=_damage(roles),
    )


def _all_users() -> ShardedMap[UserPolicy]:
    others: dict[str, UserPolicy] = {}

    def records() -> Iterator[tuple[str, bytes]]:
        for username, user in user_records.read(None, datetime.now(UTC)):
            if isinstance(user, bytes):
                yield username, user
            else:
                others[username] = user

    table = PackedTable(user_records.unpack, records())
    return ShardedMap(others.items(), table)


def _damage(roles: Mapping[str, RolePolicy]) -> dict[str, tuple[str, ...]]:
    return {name: role.damage for name, role in roles.items() if role.damage}


def _log_new_damage(before: Snapshot, after: Snapshot, usernames: Iterable[str]) -> None:
    """Log each damaged role, and each damaged user of these, when it is first read with this damage.

    A user that is packed has no damage.
    """
    new = [("role", name, why) for name, why in after.damaged_roles.items() if before.damaged_roles.get(name) != why]
    for name in usernames:
        user = after.users.get(name)
        if user and user.damage:
            earlier = before.users.get(name)
            if not (earlier and earlier.damage == user.damage):
                new.append(("user", name, user.damage))
    for kind, name, why in new[:_MAX_LOGGED]:
        log.error(
            "damaged policy: everything is denied until you repair it; run: authsvc check",
            owner=f"{kind}:{name}",
            damage=why,
        )
    if len(new) > _MAX_LOGGED:
        log.error("damaged policy of more users and roles; list all with: authsvc check", more=len(new) - _MAX_LOGGED)
