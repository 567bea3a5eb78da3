"""Transactions that announce a change of policy: each raises the policy version and records which entries changed.

The new version is written first and locks its row until the transaction ends. So versions become visible in order and
without gaps: a process that has read version n has read every change up to n.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from authsvc.storage.database import database, insert_rows, transaction
from authsvc.storage.models import PolicyChange, PolicyVersion

if TYPE_CHECKING:
    from collections.abc import Iterator

# For a process that is further behind, reading everything again is cheaper.
KEPT_VERSIONS = 10_000


class ChangeKind(StrEnum):
    """The part of the policy that a change affects. `CLIENT` affects none: its name is a connection to end.

    That name is `BOOT/NUMBER`, of `BrokerReport` and `ConnectedClient`.
    """

    USER = "user"
    ROLE = "role"
    SIGNING_KEYS = "signing-keys"
    AUTHORITY = "authority"
    CLIENT = "client"


class Change(NamedTuple):
    """One snapshot entry to read again, or a connection to end."""

    kind: ChangeKind
    name: str


class Versions(NamedTuple):
    """The number of policy changes and the number of API tokens created."""

    policy: int
    tokens: int


class Announce(Protocol):
    """Records, in the transaction of a change, snapshot entries to read again or connections to end."""

    def __call__(self, kind: ChangeKind, *names: str) -> None: ...


_announce_in_progress: ContextVar[Announce | None] = ContextVar("announce_in_progress", default=None)


@contextmanager
def policy_change() -> Iterator[Announce]:
    """Change policy in one transaction; other policy changes wait until it ends.

    A nested one is a savepoint of the outer one: it is rolled back on its own and announced under the same version.
    """
    outer = _announce_in_progress.get()
    if outer:
        with database.atomic():
            yield outer
        return
    with transaction():
        PolicyVersion.update(version=PolicyVersion.version + 1).execute()
        version = current_version()

        def announce(kind: ChangeKind, *names: str) -> None:
            insert_rows(PolicyChange, ({"version": version, "kind": kind, "name": name} for name in names))

        token = _announce_in_progress.set(announce)
        try:
            yield announce
        finally:
            _announce_in_progress.reset(token)
        if version % 1000 == 0:
            PolicyChange.delete().where(PolicyChange.version <= version - KEPT_VERSIONS).execute()


@contextmanager
def token_change() -> Iterator[int]:
    """Create API tokens in one transaction, exclusive like `policy_change`; yield the token version to store with them.

    A new token changes no earlier decision, so the policy version stays and cached answers remain valid.
    """
    with transaction():
        PolicyVersion.update(token_version=PolicyVersion.token_version + 1).execute()
        yield current_versions().tokens


def current_versions() -> Versions:
    """Return both versions of the database, read together."""
    row: Any = PolicyVersion.select(PolicyVersion.version, PolicyVersion.token_version).tuples().get()
    return Versions(*row)


def current_version() -> int:
    """Return the policy version of the database."""
    version: int = PolicyVersion.select(PolicyVersion.version).scalar()
    return version


def changes_since(version: int) -> set[Change] | None:
    """Return the changes after a version, or None if everything has to be read again.

    That is the case if changes after this version were deleted, or if a change is of an unknown kind.
    """
    if version < current_version() - KEPT_VERSIONS:
        return None
    rows: Any = PolicyChange.select(PolicyChange.kind, PolicyChange.name).where(PolicyChange.version > version).tuples()
    try:
        return {Change(ChangeKind(kind), name) for kind, name in rows}
    except ValueError:
        return None
