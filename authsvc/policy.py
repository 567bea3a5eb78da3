"""The policy: the snapshot in memory, and how it stays fresh.

`catch_up` asks the database for its policy version and reads again just what has changed. It runs in the
background several times a second, and once around each request of an administrator, so that a change is
in force when its answer arrives. Decisions read `snapshot` and nothing else; when the database is gone they
go on with the last good one.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from authsvc import stored
from authsvc.snapshot import Snapshot
from authsvc.storage.changes import Change, Kind, changes_since, current_version
from authsvc.storage.database import reading, session

if TYPE_CHECKING:
    from collections.abc import Iterable


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
        changes = changes_since(self.snapshot.version) if 0 < self.snapshot.version < version else None
        if changes is None or any(change.kind is Kind.AUTHORITY for change in changes):
            self.snapshot = _load(version)
            return
        self._apply(changes)
        self.snapshot.version = version

    def _apply(self, changes: Iterable[Change]) -> None:
        names: dict[Kind, set[str]] = defaultdict(set)
        for change in changes:
            names[change.kind].add(change.name)
        now = datetime.now(UTC)
        # Roles first: a user that is new in a role must never be seen with the role still missing.
        _replace(self.snapshot.roles, names[Kind.ROLE], stored.role_policies(names[Kind.ROLE]))
        _replace(self.snapshot.users, names[Kind.USER], stored.user_policies(names[Kind.USER], now))
        if Kind.SIGNING_KEYS in names:
            self.snapshot.signing_keys = stored.signing_keys()


def snapshot_of(username: str) -> Snapshot:
    """Return a snapshot of one user and its roles, for a question asked outside the service; it may be empty."""
    with reading():
        version = current_version()
        users = stored.user_policies([username], datetime.now(UTC))
        names = [role for user in users.values() for role in user.roles]
        return Snapshot(users, stored.role_policies(names), {}, version)


def _load(version: int) -> Snapshot:
    return Snapshot(
        users=stored.user_policies(None, datetime.now(UTC)),
        roles=stored.role_policies(None),
        signing_keys=stored.signing_keys(),
        version=version,
    )


def _replace(entries: dict[str, Any], names: set[str], fresh: dict[str, Any]) -> None:
    for name in names:
        if name in fresh:
            entries[name] = fresh[name]
        else:
            entries.pop(name, None)
