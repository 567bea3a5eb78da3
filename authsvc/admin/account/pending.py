"""A sign-in whose second factor is still missing: kept in the signed cookie of the browser for 5 minutes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from flask import session

from authsvc.accounts.sign_in.methods import How, Method, SignIn
from authsvc.policy.actors import Proof
from authsvc.policy.snapshot import password_credential
from authsvc.web.request_context import actor_for, services

if TYPE_CHECKING:
    from authsvc.policy.actors import Actor
    from authsvc.policy.snapshot import UserPolicy

_PENDING = "pending"
_LASTS = timedelta(minutes=5)


class PendingSignIn(NamedTuple):
    """A sign-in with a right password, and the path to go to afterwards."""

    sign_in: SignIn
    leads_to: str

    @property
    def actor(self) -> Actor:
        return actor_for(self.sign_in.user, self.sign_in.proof)

    @property
    def id_token(self) -> str | None:
        """An empty text after a sign-in at the OpenID provider, whose ID token is too long for the cookie."""
        return "" if self.sign_in.how.method is Method.OIDC else None


def remember(signed_in: SignIn, leads_to: str) -> None:
    """Keep a sign-in for the next step. The cookie has a digest of the password's hash, so a new password ends it."""
    user, began = signed_in.user, datetime.now(UTC).timestamp()
    session[_PENDING] = (user.username, signed_in.how.method, _credential(user), leads_to, began)


def present() -> PendingSignIn | None:
    """Return the sign-in that this browser began within the last 5 minutes; None if it is no longer valid."""
    if _PENDING not in session:
        return None
    username, method, credential, leads_to, began = session[_PENDING]
    user = services().policy.snapshot.users.get(username)
    late = datetime.now(UTC).timestamp() - began > _LASTS.total_seconds()
    if late or user is None or not user.enabled or _credential(user) != credential:
        return None
    proof = Proof(password_hash=user.password_hash)
    return PendingSignIn(SignIn(user, How(Method(method)), proof, services().sign_ins.missing(user)), leads_to)


def _credential(user: UserPolicy) -> str:
    return password_credential(user.password_hash) if user.password_hash else ""
