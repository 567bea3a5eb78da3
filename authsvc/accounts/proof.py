"""Check that an actor's credential is still valid, in the transaction that issues another credential."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from authsvc.credentials.password_hashes import password_version
from authsvc.errors import Unauthenticated
from authsvc.storage.database import is_sqlite
from authsvc.storage.models import BrowserSession, Token, User

if TYPE_CHECKING:
    from authsvc.policy.actors import Actor


def check_proof(actor: Actor) -> None:
    """Raise `Unauthenticated` if the actor's credential has ended since it was checked; call it inside a transaction.

    Without this, a request that began before a password change could get a token, session or certificate after it. An
    empty proof is that of a provider or directory; it ends when the user is disabled or deleted here.
    """
    if actor.proof is None:
        return
    password_hash, token_digest, session_digest = actor.proof
    query: Any = User.select().where(User.username == actor.username)
    if not is_sqlite():  # SQLite has one writer at a time anyway
        query = query.for_update("FOR NO KEY UPDATE")
    user = query.first()
    if password_hash is not None and not (user and user.enabled and _has_password(user, password_hash)):
        raise Unauthenticated("username or password is wrong", "wrong-credentials")
    if token_digest is not None and not (user and user.enabled and _exists(Token, user, token_digest)):
        raise Unauthenticated("the token is not valid", "invalid-token")
    if session_digest is not None and not (user and user.enabled and _exists(BrowserSession, user, session_digest)):
        raise Unauthenticated("the session has ended; sign in again")
    if not (user and user.enabled):
        raise Unauthenticated("your account is disabled here", "user-disabled")


def _has_password(user: User, password_hash: str) -> bool:
    # The hash may have been replaced by another one of the same password.
    stored = user.password_hash
    return stored is not None and password_version(stored) == password_version(password_hash)


def _exists(model: type[Token | BrowserSession], user: User, digest: str) -> bool:
    return model.select().where(model.user == user, model.digest == digest).exists()
