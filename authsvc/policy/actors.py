"""Who is changing something: named in the audit trail, and bound by its own rights."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from authsvc.errors import Forbidden
from authsvc.policy.permissions import Context, first_beyond
from authsvc.policy.topics import Identity

if TYPE_CHECKING:
    from collections.abc import Iterable

    from authsvc.policy.permissions import Permission, Rule


class Via(StrEnum):
    """The way by which a change came in."""

    API = "api"
    PAGE = "page"
    COMMAND = "command"
    CERTIFICATE = "certificate"
    SERVICE = "service"


class Proof(NamedTuple):
    """The stored form of the credential that an actor was authenticated by; one of these is set."""

    password_hash: str | None = None
    token_digest: str | None = None
    session_digest: str | None = None


@dataclass(frozen=True, slots=True)
class Actor:
    """The author of a change. `rules` None: an operator at the command line, whom no permission binds.

    `proof` is checked again when the actor is given another credential.
    """

    username: str
    via: Via
    rules: tuple[Rule, ...] | None = None
    address: str | None = None
    request_id: str | None = None
    proof: Proof | None = field(default=None, repr=False, compare=False)

    def must_hold(self, permissions: Iterable[Permission]) -> None:
        """Raise `Forbidden` if one of these rights over this service reaches beyond the actor's own.

        Who may administer users decides about topics freely, for that is the job. Rights over the service itself
        (http) are different: nobody may hand out, or take over by a new password, more than they hold.
        """
        if self.rules is None:
            return
        over_the_service = [permission for permission in permissions if permission.context is Context.HTTP]
        beyond = first_beyond(self.rules, over_the_service, Identity(self.username))
        if beyond:
            message = f"you lack http {beyond.operation} on {beyond.resource} and so may not give or touch it"
            raise Forbidden(message, "beyond-own-rights")


SERVICE = Actor("authsvc", Via.SERVICE)
"""The service itself, at its first start."""
