"""The author of a change: recorded in the audit trail, and limited by its own permissions."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from authsvc.errors import Forbidden
from authsvc.policy.permissions import Context, first_beyond
from authsvc.policy.topics import path_identity

if TYPE_CHECKING:
    from collections.abc import Iterable

    from authsvc.policy.permissions import Permission, Rule


class Via(StrEnum):
    """The interface through which a change was made."""

    API = "api"
    PAGE = "page"
    COMMAND = "command"
    CERTIFICATE = "certificate"
    SERVICE = "service"


class Proof(NamedTuple):
    """The stored form of the credential that authenticated an actor.

    One of these is set, or none if a provider or directory has checked a credential that this service does not store.
    """

    password_hash: str | None = None
    token_digest: str | None = None
    session_digest: str | None = None


@dataclass(frozen=True, slots=True)
class Actor:
    """The author of a change. `rules` is None at the command line, which no permission limits.

    `proof` is checked again when the actor is given another credential. `policy_file` is the digest of the policy file
    that the change comes from.
    """

    username: str
    via: Via
    rules: tuple[Rule, ...] | None = None
    address: str | None = None
    request_id: str | None = None
    proof: Proof | None = field(default=None, repr=False, compare=False)
    policy_file: str | None = None

    def must_hold(self, permissions: Iterable[Permission]) -> None:
        """Raise `Forbidden` if one of these is an http permission that the actor does not hold.

        An administrator of users may give any mqtt permission. Http permissions are rights over the service itself:
        nobody may give more of them than they hold, or take them over by a new password.
        """
        if self.rules is None:
            return
        http = [permission for permission in permissions if permission.context is Context.HTTP]
        beyond = first_beyond(self.rules, http, path_identity(self.username))
        if beyond:
            raise Forbidden(f"your account needs the permission `{beyond}` to do this", "beyond-own-rights")


SERVICE = Actor("authsvc", Via.SERVICE)
"""The author of changes that the service makes by itself."""
