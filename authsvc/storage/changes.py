"""How a change of policy is announced: a version, raised in the transaction of the change, and what it touched.

Raising the version comes first and takes the row's lock until the transaction ends, so versions become visible
in order and without gaps: whoever has seen version n has seen everything up to n.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from authsvc.storage.database import database, transaction
from authsvc.storage.models import PolicyChange, PolicyVersion

if TYPE_CHECKING:
    from collections.abc import Iterator

# A reader further behind than this reads everything again, which is cheaper by then.
KEPT_VERSIONS = 10_000


class ChangeKind(StrEnum):
    """What a change of policy can touch."""

    USER = "user"
    ROLE = "role"
    SIGNING_KEYS = "signing-keys"
    AUTHORITY = "authority"


class Change(NamedTuple):
    """One snapshot entry to read again."""

    kind: ChangeKind
    name: str


class Versions(NamedTuple):
    """How many changes of policy there were, and how many API tokens were made."""

    policy: int
    tokens: int


class Announce(Protocol):
    """Says, inside the transaction of a change, which snapshot entry to read again."""

    def __call__(self, kind: ChangeKind, name: str) -> None: ...


_announce_in_progress: ContextVar[Announce | None] = ContextVar("announce_in_progress", default=None)


@contextmanager
def policy_change() -> Iterator[Announce]:
    """Change policy in one transaction, alone: no other change of policy runs between its reads and its writes.

    Inside another one it is a part of it: done or undone on its own, and announced under the same version.
    """
    outer = _announce_in_progress.get()
    if outer:
        with database.atomic():
            yield outer
        return
    with transaction():
        PolicyVersion.update(version=PolicyVersion.version + 1).execute()
        version = current_version()

        def announce(kind: ChangeKind, name: str) -> None:
            PolicyChange.create(version=version, kind=kind, name=name)

        token = _announce_in_progress.set(announce)
        try:
            yield announce
        finally:
            _announce_in_progress.reset(token)
        if version % 1000 == 0:
            PolicyChange.delete().where(PolicyChange.version <= version - KEPT_VERSIONS).execute()


@contextmanager
def token_change() -> Iterator[int]:
    """Make API tokens in one transaction, alone as in `policy_change`; give the version that announces them.

    A new token changes no decision that was made before, so the policy version stays and remembered answers hold.
    """
    with transaction():
        PolicyVersion.update(token_version=PolicyVersion.token_version + 1).execute()
        yield current_versions().tokens


def current_versions() -> Versions:
    """Return both versions that the database is at, read at one moment."""
    row: Any = PolicyVersion.select(PolicyVersion.version, PolicyVersion.token_version).tuples().get()
    return Versions(*row)


def current_version() -> int:
    """Return the policy version that the database is at."""
    version: int = PolicyVersion.select(PolicyVersion.version).scalar()
    return version


def changes_since(version: int) -> set[Change] | None:
    """Return what has changed since a version; None if that is unknown, and everything has to be read again.

    It is unknown if the version is so long ago that it was forgotten, or a change is of an unknown kind.
    """
    if version < current_version() - KEPT_VERSIONS:
        return None
    rows: Any = PolicyChange.select(PolicyChange.kind, PolicyChange.name).where(PolicyChange.version > version).tuples()
    try:
        return {Change(ChangeKind(kind), name) for kind, name in rows}
    except ValueError:
        return None
