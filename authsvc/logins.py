"""Logins to the API, and the tokens that come of them."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from authsvc import audit, stored, throttle, tokens
from authsvc.decision import Denied, Reason
from authsvc.errors import Busy, Conflict, NotFound, Unauthenticated, invalid
from authsvc.paging import Page
from authsvc.storage.changes import Kind, policy_change
from authsvc.storage.database import session, transaction
from authsvc.storage.models import Token, User

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from authsvc.access import AccessControl
    from authsvc.actors import Actor
    from authsvc.snapshot import UserPolicy

DEFAULT_HOURS = 12
MAX_LABEL = 200
MAX_HOURS = 876_000  # a century; beyond it the calendar itself runs out


class Guesses(NamedTuple):
    """How many wrong passwords a minute are let pass from one address for one name."""

    address: str | None
    per_minute: int

    def key(self, username: str) -> str:
        """Return what they are counted under; of a name that may be anything, a digest."""
        return f"password {self.address} {hashlib.sha256(username.encode('utf-8', 'replace')).hexdigest()}"


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """An API token as administrators see it; the token itself is shown once, where it is made."""

    id: str
    username: str
    label: str
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A fresh token with its record."""

    token: str
    record: TokenRecord

    def __repr__(self) -> str:
        return f"IssuedToken({self.record!r})"


def check_password(access: AccessControl, username: str, password: str, limit: Guesses) -> UserPolicy:
    """Return the user with these credentials; `Unauthenticated` otherwise, the same for every cause.

    `TooMany` for a while, also for the right password, after too many wrong ones for that name from that address.
    """
    key = limit.key(username)
    throttle.refuse_beyond(key, limit.per_minute)
    outcome = access.holder_of_password(username, password)
    if not isinstance(outcome, Denied):
        # Of many that are tried side by side, none was counted when this one began.
        throttle.refuse_beyond(key, limit.per_minute)
        return outcome
    if outcome.reason is Reason.HASHING_BUSY:
        raise Busy("too many logins are under way; try again in a moment", "hashing-busy")
    throttle.count(key, limit.per_minute)
    raise Unauthenticated("username or password is wrong", "wrong-credentials")


def issue_token(actor: Actor, username: str, label: str, hours: float) -> IssuedToken:
    """Make a token that speaks for the user, with the rights it has at each request, for so many hours."""
    if len(label) > MAX_LABEL:
        raise invalid("label", f"must be at most {MAX_LABEL} characters")
    issued_at = datetime.now(UTC).replace(microsecond=0)
    expires_at = issued_at + timedelta(seconds=int(hours * 3600))  # which is how finely a token can say it
    with policy_change() as announce:
        user = _user(username)
        keys = list(stored.signing_keys().values())
        if not keys:
            raise Conflict("no signing key can be read; make one with: authsvc tokens rotate-key", "no-signing-key")
        token, digest = tokens.issue(username, issued_at, expires_at, keys[-1])
        row = Token.create(
            id=uuid.uuid4().hex,
            user=user,
            digest=digest,
            label=label,
            created_at=issued_at,
            expires_at=expires_at,
        )
        target = f"token:{row.id}"
        facts = {"username": username, "label": label, "expiresAt": expires_at.isoformat()}
        audit.record(actor, "token.create", target, after=facts)
        announce(Kind.USER, username)
    return IssuedToken(token, _record(row))


def revoke_token(actor: Actor, token_id: str) -> None:
    """Make a token stop working, at once; `NotFound` when there is none of that id."""
    with policy_change() as announce:
        row = Token.select(Token, User).join(User).where(Token.id == token_id).first()
        if row is None:
            raise NotFound("no such token", "token-not-found")
        row.delete_instance()
        audit.record(actor, "token.revoke", f"token:{row.id}", {"username": row.user.username, "label": row.label})
        announce(Kind.USER, row.user.username)


def list_tokens(username: str, text: str, page: int, per_page: int) -> Page[TokenRecord]:
    """Return one page of tokens, newest first: those of one user, or of all for an empty name, by label."""
    query = Token.select(Token, User).join(User)
    if username:
        query = query.where(User.username == username)
    if text:
        query = query.where(Token.label.contains(text) | User.username.contains(text))
    with session():
        rows = query.order_by(Token.created_at.desc(), Token.id).paginate(page, per_page)
        return Page([_record(row) for row in rows], page, per_page, query.count())


def store_uses(uses: MutableMapping[str, datetime]) -> None:
    """Write down when tokens were last used, and empty the map; what a database error keeps from it stays there."""
    if not uses:
        return
    seen = dict(uses)
    with transaction():
        for digest, at in seen.items():
            Token.update(last_used_at=at).where(Token.digest == digest).execute()
    for digest, at in seen.items():
        if uses.get(digest) == at:
            del uses[digest]


def delete_expired() -> int:
    """Forget tokens that ran out more than a day ago, and return how many; they work no more in any case."""
    with transaction():
        count: int = Token.delete().where(Token.expires_at < datetime.now(UTC) - timedelta(days=1)).execute()
        return count


def _user(username: str) -> User:
    user: User | None = User.get_or_none(User.username == username)
    if user is None:
        raise NotFound("no such user", "user-not-found")
    return user


def _record(row: Token) -> TokenRecord:
    return TokenRecord(row.id, row.user.username, row.label, row.created_at, row.expires_at, row.last_used_at)
