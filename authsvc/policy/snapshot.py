"""The policy snapshot: everything a decision needs, in memory, read without a lock.

A snapshot never changes. A change of policy makes another one, which shares with the old one all that stayed the
same, and puts it in place by one assignment: a decision sees the old policy or the new one and nothing between.
Users name their roles instead of copying them: a changed role costs one entry however many users have it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

from authsvc.policy import allowed_client_ids
from authsvc.policy.permissions import EVERY_RIGHT, Permission, Request, Rule
from authsvc.policy.rule_index import FEW, RuleIndex
from authsvc.policy.sharded_map import ShardedMap

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from authsvc.credentials.jwt import SigningKey

NO_TOKENS: Mapping[str, datetime] = MappingProxyType({})


class GrantType(StrEnum):
    """The ways in which a user may prove who it is to the broker."""

    PASSWORD = "password"  # noqa: S105 - a name, not a secret
    CERTIFICATE = "certificate"
    TOKEN = "token"  # noqa: S105


@dataclass(frozen=True, slots=True)
class UserPolicy:
    """One user as decisions see it. `tokens` maps the digest of each API token to its expiry.

    `certificate_until` is when the last of its valid certificates expires; None without any. `damage` says what
    could not be read of its stored rows: with any damage it is denied everything.
    """

    username: str
    enabled: bool
    grant_types: frozenset[GrantType]
    password_hash: str | None = field(repr=False)
    permissions: tuple[Permission, ...] = ()
    roles: tuple[str, ...] = ()
    tokens: Mapping[str, datetime] = field(default_factory=lambda: NO_TOKENS, repr=False)
    certificate_until: datetime | None = None
    client_ids: tuple[str, ...] = ()
    damage: tuple[str, ...] = ()

    @property
    def may_sign_in(self) -> bool:
        """Whether it may sign in to the API and the page with its password.

        A user without any grant type is an administrator that stays off the broker. A user with grant types but
        without `password` has been told to use no password: through the API it could get a token with one.
        """
        allowed = not self.grant_types or GrantType.PASSWORD in self.grant_types
        return self.enabled and not self.damage and self.password_hash is not None and allowed

    def has_certificate_at(self, now: datetime) -> bool:
        """Say whether it may log in with a certificate and has one that is valid."""
        until = self.certificate_until
        return GrantType.CERTIFICATE in self.grant_types and until is not None and until > now


@dataclass(frozen=True, slots=True)
class RolePolicy:
    """One role as decisions see it. `damage` says what could not be read of its stored rows."""

    permissions: tuple[Permission, ...] = ()
    client_ids: tuple[str, ...] = ()
    damage: tuple[str, ...] = ()

    @property
    def rights(self) -> tuple[Permission, ...]:
        """What an actor must hold to give or touch the role: a row that cannot be read may have been any right."""
        return (*self.permissions, EVERY_RIGHT) if self.damage else self.permissions


_NO_ROLE = RolePolicy()


@dataclass(slots=True)
class Snapshot:
    """Users and roles by name, and the signing keys by id, as of a policy version. Version 0 is nothing at all.

    `token_version` is the same for API tokens made since. `damaged_roles` holds the damage of the roles that
    have some.
    """

    users: ShardedMap[UserPolicy] = field(default_factory=ShardedMap)
    roles: dict[str, RolePolicy] = field(default_factory=dict)
    signing_keys: dict[str, SigningKey] = field(default_factory=dict)
    version: int = 0
    token_version: int = 0
    damaged_roles: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _indexes: dict[tuple[str, str], tuple[tuple[Permission, ...], RuleIndex]] = field(default_factory=dict)

    def is_damaged(self, user: UserPolicy) -> bool:
        """Say whether the rows of a user or of one of its roles could not all be read: it is denied everything.

        What could not be read may have been a rule that denies.
        """
        return bool(user.damage) or (bool(self.damaged_roles) and not self.damaged_roles.keys().isdisjoint(user.roles))

    def rules_of(self, user: UserPolicy) -> list[Rule]:
        """Return the user's own permissions, then those of its roles, each with the role it came through."""
        rules = [Rule(permission, None) for permission in user.permissions]
        for role in user.roles:
            rules += [Rule(permission, role) for permission in self.roles.get(role, _NO_ROLE).permissions]
        return rules

    def allows_client_id(self, user: UserPolicy, client_id: str) -> bool:
        """Say whether the user may use this client id, by its own allowed client ids and those of its roles."""
        patterns = [*user.client_ids]
        for role in user.roles:
            patterns += self.roles.get(role, _NO_ROLE).client_ids
        return allowed_client_ids.allows(patterns, user.username, client_id)

    def rules_for(self, user: UserPolicy, request: Request) -> list[Rule]:
        """Return those of the user's rules that can matter to a request, and maybe some that cannot."""
        if request.shared:
            return self.rules_of(user)  # where a rule that merely overlaps matters too
        rules = [
            Rule(permission, None) for permission in self._narrowed("user", user.username, user.permissions, request)
        ]
        for role in user.roles:
            narrowed = self._narrowed("role", role, self.roles.get(role, _NO_ROLE).permissions, request)
            rules += [Rule(permission, role) for permission in narrowed]
        return rules

    def _narrowed(
        self, kind: str, name: str, permissions: tuple[Permission, ...], request: Request
    ) -> Iterable[Permission]:
        if len(permissions) <= FEW:
            return permissions
        indexed, index = self._indexes.get((kind, name), ((), None))
        if index is None or indexed is not permissions:
            # Deleted users and roles leave their indexes behind; so there are at most as many as users and roles.
            if (kind, name) not in self._indexes and len(self._indexes) >= len(self.users) + len(self.roles):
                self._indexes.clear()
            index = RuleIndex(permissions)
            self._indexes[kind, name] = (permissions, index)
        return index.candidates(request.levels)


class CurrentPolicy:
    """The snapshot that decisions are made with.

    `generation` grows with every change of the snapshot. Unlike the database's version it never goes back, not even
    when an older database is restored under the running service, so a cached answer is valid for one generation.
    """

    def __init__(self) -> None:
        self.snapshot = Snapshot()
        self.generation = 0
