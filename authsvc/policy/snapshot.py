"""The policy snapshot: everything a decision needs, in memory, read without a lock.

A snapshot never changes. A change of policy makes a new one that shares the unchanged parts, and replaces the old one
by one assignment. So a decision sees either the old policy or the new one. Users refer to their roles by name, so a
changed role changes one entry and not those of its users.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from authsvc.credentials.password_hashes import password_version
from authsvc.policy import allowed_client_ids
from authsvc.policy.permissions import EVERY_RIGHT, Permission, Request, Rule
from authsvc.policy.rule_index import MAX_SCANNED, RuleIndex
from authsvc.policy.sharded_map import ShardedMap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime

    from authsvc.credentials.jwt import SigningKey

NO_TOKENS: Mapping[str, datetime] = MappingProxyType({})
NO_CERTIFICATES: Mapping[str, datetime] = MappingProxyType({})
MAX_INDEXES = 8_192
"""The maximum number of rule indexes in memory, of users and roles together."""

_CREDENTIAL_DIGITS = 32


class GrantType(StrEnum):
    """The ways in which a user may authenticate at the broker."""

    PASSWORD = "password"  # noqa: S105 - a name, not a secret
    CERTIFICATE = "certificate"
    TOKEN = "token"  # noqa: S105


@dataclass(frozen=True, slots=True)
class UserPolicy:
    """One user. `tokens` maps the digest of each API token to its expiry.

    `certificates` maps the serial of each valid certificate, in upper-case hexadecimal without leading zeros, to the
    time from which it is not valid any more: its expiry or an earlier revocation. `damage` lists the stored rows that
    could not be read: a user with any damage is denied everything.
    """

    username: str
    enabled: bool
    grant_types: frozenset[GrantType]
    password_hash: str | None = field(repr=False)
    permissions: tuple[Permission, ...] = ()
    roles: tuple[str, ...] = ()
    tokens: Mapping[str, datetime] = field(default_factory=lambda: NO_TOKENS, repr=False)
    certificates: Mapping[str, datetime] = field(default_factory=lambda: NO_CERTIFICATES)
    client_ids: tuple[str, ...] = ()
    damage: tuple[str, ...] = ()

    @property
    def may_sign_in(self) -> bool:
        """Whether it may sign in to the API and the pages with its password.

        A user without any grant type is an administrator that cannot log in to the broker. A user with grant types but
        without `password` may not use its password here either, because it could get an API token with it.
        """
        allowed = not self.grant_types or GrantType.PASSWORD in self.grant_types
        return self.enabled and not self.damage and self.password_hash is not None and allowed

    @property
    def certificate_until(self) -> datetime | None:
        """When the last of its valid certificates ends; None if it has none."""
        return max(self.certificates.values(), default=None)

    def credentials_at(self, now: datetime) -> dict[str, datetime | None]:
        """Return the names of the credentials with which it may log in to a broker, and until when; None for always.

        A name is made by `password_credential`, `token_credential` or `certificate_credential`.
        """
        found: dict[str, datetime | None] = {}
        if GrantType.PASSWORD in self.grant_types and self.password_hash is not None:
            found[password_credential(self.password_hash)] = None
        if GrantType.TOKEN in self.grant_types:
            found |= {token_credential(digest): until for digest, until in self.tokens.items() if until > now}
        if GrantType.CERTIFICATE in self.grant_types:
            found |= {certificate_credential(name): until for name, until in self.certificates.items() if until > now}
        return found

    def has_certificate_at(self, now: datetime) -> bool:
        """Return whether it has the grant type `certificate` and a valid certificate."""
        until = self.certificate_until
        return GrantType.CERTIFICATE in self.grant_types and until is not None and until > now


def password_credential(stored_hash: str) -> str:
    """Return the name of a password as a credential. It changes with each new password and reveals no hash.

    It stays the same when the hash of another system is replaced, so that no client is disconnected.
    """
    return "p:" + password_version(stored_hash)


def token_credential(digest: str) -> str:
    """Return the name of an API token as a credential."""
    return "t:" + digest[:_CREDENTIAL_DIGITS]


def certificate_credential(serial: str) -> str:
    """Return the name of a certificate as a credential; `serial` as in `UserPolicy.certificates`."""
    return "c:" + serial


@dataclass(frozen=True, slots=True)
class RolePolicy:
    """One role. `damage` lists the stored rows that could not be read."""

    permissions: tuple[Permission, ...] = ()
    client_ids: tuple[str, ...] = ()
    damage: tuple[str, ...] = ()

    @property
    def rights(self) -> tuple[Permission, ...]:
        """The permissions that an actor must hold to give or change the role; all, if a row could not be read."""
        return (*self.permissions, EVERY_RIGHT) if self.damage else self.permissions


_NO_ROLE = RolePolicy()


@dataclass(slots=True)
class Snapshot:
    """Users and roles by name, and signing keys by id, at a policy version. Version 0 is not loaded yet.

    `token_version` is the version of the API tokens. `damaged_roles` holds the damage by role name.
    """

    users: ShardedMap[UserPolicy] = field(default_factory=ShardedMap)
    roles: dict[str, RolePolicy] = field(default_factory=dict)
    signing_keys: dict[str, SigningKey] = field(default_factory=dict)
    version: int = 0
    token_version: int = 0
    damaged_roles: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _indexes: dict[tuple[str, str], tuple[tuple[Permission, ...], RuleIndex]] = field(default_factory=dict)

    @property
    def revision(self) -> int:
        """A number that grows with every policy change and every new API token; 0 is not loaded yet."""
        return self.version + self.token_version if self.version else 0

    def is_damaged(self, user: UserPolicy) -> bool:
        """Return whether a row of a user or of one of its roles could not be read. Such a user is denied everything.

        The unreadable row may have been a deny rule.
        """
        return bool(user.damage) or (bool(self.damaged_roles) and not self.damaged_roles.keys().isdisjoint(user.roles))

    def rules_of(self, user: UserPolicy) -> list[Rule]:
        """Return the user's own permissions, then those of its roles with the role's name."""
        rules = [Rule(permission, None) for permission in user.permissions]
        for role in user.roles:
            rules += [Rule(permission, role) for permission in self.roles.get(role, _NO_ROLE).permissions]
        return rules

    def allows_client_id(self, user: UserPolicy, client_id: str) -> bool:
        """Return whether the user may use this client id, by its own patterns and those of its roles."""
        patterns = [*user.client_ids]
        for role in user.roles:
            patterns += self.roles.get(role, _NO_ROLE).client_ids
        return allowed_client_ids.allows(patterns, user.username, client_id)

    def rules_for(self, user: UserPolicy, request: Request) -> list[Rule]:
        """Return the user's rules that can match a request, and possibly some that cannot."""
        if request.shared:
            return self.rules_of(user)  # a deny rule that only overlaps the filter matters too
        rules = [
            Rule(permission, None) for permission in self._candidates("user", user.username, user.permissions, request)
        ]
        for role in user.roles:
            candidates = self._candidates("role", role, self.roles.get(role, _NO_ROLE).permissions, request)
            rules += [Rule(permission, role) for permission in candidates]
        return rules

    def _candidates(
        self, kind: str, name: str, permissions: tuple[Permission, ...], request: Request
    ) -> Iterable[Permission]:
        if len(permissions) <= MAX_SCANNED:
            return permissions
        indexed, index = self._indexes.get((kind, name), ((), None))
        if index is None or indexed is not permissions:
            if (kind, name) not in self._indexes and len(self._indexes) >= MAX_INDEXES:
                self._indexes.clear()
            # A user may have been unpacked again, with equal permissions.
            if index is None or indexed != permissions:
                index = RuleIndex(permissions)
            self._indexes[kind, name] = (permissions, index)
        return index.candidates(request.levels)


class SnapshotChange(NamedTuple):
    """What a new snapshot changed: users and roles by name, or everything, and its `Snapshot.revision`.

    `clients` are connections to end, as `BOOT/NUMBER` of `BrokerReport` and `ConnectedClient`; they are no policy.
    """

    revision: int
    users: frozenset[str] = frozenset()
    roles: frozenset[str] = frozenset()
    clients: frozenset[str] = frozenset()
    everything: bool = False


class CurrentPolicy:
    """The snapshot in use.

    `generation` grows with every change of the snapshot. Unlike the database's version it never decreases, not even
    when an older database is restored under the running service. So a cached answer is valid for one generation.
    """

    def __init__(self) -> None:
        self.snapshot = Snapshot()
        self.generation = 0
        self._subscribers: list[Callable[[SnapshotChange], object]] = []

    def subscribe(self, notify: Callable[[SnapshotChange], object]) -> None:
        """Call `notify` after each replacement of the snapshot, in any thread; it must return at once, never raise."""
        self._subscribers.append(notify)

    def _tell_subscribers(self, change: SnapshotChange) -> None:
        for notify in self._subscribers:
            notify(change)
