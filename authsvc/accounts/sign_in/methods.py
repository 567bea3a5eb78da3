"""What a sign-in has proved: who signs in, how, and whether a second factor is still missing."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from authsvc.policy.actors import Proof
    from authsvc.policy.snapshot import UserPolicy


class Method(StrEnum):
    """How a user signs in."""

    PASSWORD = "password"  # noqa: S105 - a name, not a secret
    TOKEN = "token"  # noqa: S105
    OIDC = "oidc"
    LDAP = "ldap"


class Factor(StrEnum):
    """The second factor that a user has used."""

    CODE = "code"
    RECOVERY_CODE = "recovery-code"


class Missing(StrEnum):
    """What a sign-in still needs before it gives any right: a code, or a second factor that is yet to be set up."""

    NOTHING = "nothing"
    CODE = "code"
    ENROLMENT = "enrolment"


class How(NamedTuple):
    """How somebody signed in, for the audit trail."""

    method: Method
    second_factor: Factor | None = None

    def audit_fields(self) -> dict[str, str | None]:
        return {"signedInBy": self.method, "secondFactor": self.second_factor}


@dataclass(frozen=True, slots=True)
class SignIn:
    """A user whose first credential was checked.

    Nothing may be given to it, no session, token or certificate, while anything is `missing`. `proof` is the credential
    to check again when something is given.
    """

    user: UserPolicy
    how: How
    proof: Proof = field(repr=False)
    missing: Missing = Missing.NOTHING
