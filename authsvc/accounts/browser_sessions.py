"""Who is signed in at the administrator's page: sessions that live in the database, so that they can be ended.

The browser keeps a random secret and the database its digest. A session ends by itself when it was not used for a
while, at the latest after some hours, with the token it was begun with, and with a new password of its user.
"""

from __future__ import annotations

import hashlib
import secrets
import uuid
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from peewee import JOIN

from authsvc.accounts.proof import check_proof
from authsvc.activity import audit
from authsvc.errors import NotFound, Unauthenticated
from authsvc.policy.actors import Proof
from authsvc.storage.database import session, transaction
from authsvc.storage.models import BrowserSession, Token, User
from authsvc.storage.paging import Page, fetch_page

if TYPE_CHECKING:
    from peewee import ModelSelect

    from authsvc.policy.actors import Actor
    from authsvc.settings import Lifetime

# A use is written down only so often: reading a page should not cost a write.
_NOTED_EVERY = timedelta(seconds=30)
_MAX_BROWSER = 200


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """One session as administrators see it."""

    id: str
    username: str
    created_at: datetime
    last_seen_at: datetime
    expires_at: datetime
    address: str | None
    browser: str
    by_token: bool


def begin(actor: Actor, lifetime: Lifetime, browser: str, token_digest: str | None = None) -> str:
    """Begin a session of the actor's own and return its secret; with a token's digest it lasts no longer than that.

    `Unauthenticated` if the token or the actor's own credential has ended since it was checked.
    """
    secret = secrets.token_urlsafe(32)
    now = datetime.now(UTC)
    with transaction():
        check_proof(actor)
        token = _token(token_digest) if token_digest else None
        ends = now + lifetime.absolute
        row = BrowserSession.create(
            id=uuid.uuid4().hex,
            user=User.get(User.username == actor.username),
            token=token,
            digest=_digest(secret),
            created_at=now,
            last_seen_at=now,
            expires_at=min(ends, token.expires_at) if token else ends,
            address=actor.address,
            browser=browser[:_MAX_BROWSER],
        )
        audit.record(actor, "session.begin", f"session:{row.id}", after={"byToken": token is not None})
    return secret


def proof_of(secret: str) -> Proof:
    """Return the proof of an actor that was authenticated by the session with that secret."""
    return Proof(session_digest=_digest(secret))


def holder_of(secret: str, lifetime: Lifetime, *, noted: bool = True) -> str | None:
    """Return whose session that is, noting that it was used; None when there is none, or it has ended."""
    now = datetime.now(UTC)
    with session():
        row = _alive(now, lifetime).where(BrowserSession.digest == _digest(secret)).first()
        if row is None:
            return None
        if noted and row.last_seen_at < now - _NOTED_EVERY:
            with transaction():
                BrowserSession.update(last_seen_at=now).where(BrowserSession.id == row.id).execute()
        username: str = row.user.username
    return username


def sign_out(actor: Actor, secret: str) -> None:
    """End the session with that secret, if there is one.

    If the actor replaces the session of another user in the same browser, the event names that user as its actor and
    the actor as `replacedBy`: no other person acted on the session from elsewhere.
    """
    with transaction():
        row = BrowserSession.get_or_none(BrowserSession.digest == _digest(secret))
        if row and row.user.username != actor.username:
            _end(replace(actor, username=row.user.username), row, {"replacedBy": actor.username})
        elif row:
            _end(actor, row)


def end(actor: Actor, session_id: str) -> None:
    """End a session; its browser is out at its next click. `NotFound` when there is none of that id."""
    with transaction():
        row = BrowserSession.get_or_none(BrowserSession.id == session_id)
        if row is None:
            raise NotFound("no such session", "session-not-found")
        _end(actor, row)


def end_all(username: str) -> None:
    """End every session of a user; to be called inside the transaction of the change that calls for it."""
    whose = User.select(User.id).where(User.username == username)
    BrowserSession.delete().where(BrowserSession.user.in_(whose)).execute()


def search(username: str, lifetime: Lifetime, page: int, per_page: int) -> Page[SessionRecord]:
    """Return one page of the sessions that go on, latest use first: of one user, or of all for an empty name."""
    query = _alive(datetime.now(UTC), lifetime)
    if username:
        query = query.where(User.username == username)
    return fetch_page(
        query.order_by(BrowserSession.last_seen_at.desc(), BrowserSession.id),
        page,
        per_page,
        convert=partial(map, _record),
    )


def forget_ended(lifetime: Lifetime) -> None:
    """Remove what has ended by itself."""
    now = datetime.now(UTC)
    over = (BrowserSession.expires_at <= now) | (BrowserSession.last_seen_at <= now - lifetime.idle)
    with transaction():
        BrowserSession.delete().where(over).execute()


def _alive(now: datetime, lifetime: Lifetime) -> ModelSelect[BrowserSession]:
    rows = BrowserSession.select(BrowserSession, User, Token).join(User)
    rows = rows.switch(BrowserSession).join(Token, JOIN.LEFT_OUTER, on=BrowserSession.token == Token.id)
    return rows.where(BrowserSession.expires_at > now, BrowserSession.last_seen_at > now - lifetime.idle)


def _token(digest: str) -> Token:
    token: Token | None = Token.get_or_none(Token.digest == digest)
    if token is None:
        raise Unauthenticated("the token is not valid", "invalid-token")
    return token


def _end(actor: Actor, row: BrowserSession, after: audit.Fields | None = None) -> None:
    audit.record(actor, "session.end", f"session:{row.id}", {"username": row.user.username}, after)
    row.delete_instance()


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def _record(row: BrowserSession) -> SessionRecord:
    return SessionRecord(
        row.id,
        row.user.username,
        row.created_at,
        row.last_seen_at,
        row.expires_at,
        row.address,
        row.browser,
        bool(row.token),
    )
