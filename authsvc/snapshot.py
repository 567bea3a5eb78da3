"""The policy snapshot: everything a decision needs, in memory, read without a lock.

What is known of a user or role is immutable and replaced whole by one assignment, so a reader sees the old
or the new and nothing between. Users name their roles instead of copying them: a changed role costs one
assignment however many users have it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

from authsvc import allowed_client_ids
from authsvc.permissions import Permission, Request, Rule
from authsvc.rule_index import FEW, RuleIndex

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from authsvc.tokens import SigningKey

NO_TOKENS: Mapping[str, datetime] = MappingProxyType({})


class GrantType(StrEnum):
    """The ways in which a user may prove who it is to the broker."""

    PASSWORD = "password"  # noqa: S105 - a name, not a secret
    CERTIFICATE = "certificate"
    TOKEN = "token"  # noqa: S105


@dataclass(frozen=True, slots=True)
class UserPolicy:
    """One user as decisions see it. `tokens` maps the digest of each API token to its expiry.

    `certificate_until` is when the last of its valid certificates expires; None without any.
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

    def has_certificate_at(self, now: datetime) -> bool:
        """Say whether it may log in with a certificate and has one that is valid."""
        until = self.certificate_until
        return GrantType.CERTIFICATE in self.grant_types and until is not None and until > now


@dataclass(frozen=True, slots=True)
class RolePolicy:
    """One role as decisions see it."""

    permissions: tuple[Permission, ...] = ()
    client_ids: tuple[str, ...] = ()


_NO_ROLE = RolePolicy()


@dataclass(slots=True)
class Snapshot:
    """Users and roles by name, and the signing keys by id, as of a policy version. Version 0 is nothing at all."""

    users: dict[str, UserPolicy] = field(default_factory=dict)
    roles: dict[str, RolePolicy] = field(default_factory=dict)
    signing_keys: dict[str, SigningKey] = field(default_factory=dict)
    version: int = 0
    _indexes: dict[tuple[str, str], tuple[tuple[Permission, ...], RuleIndex]] = field(default_factory=dict)

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
            index = RuleIndex(permissions)
            self._indexes[kind, name] = (permissions, index)
        return index.candidates(request.levels)
