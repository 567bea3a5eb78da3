"""Browser sessions of the administrator's page, stored in the database so that an administrator can end them.

The browser keeps a random secret, the database its digest. A session ends after its idle or absolute lifetime, with the
API token it was started with, and when its user gets a new password.
"""

from __future__ import annotations

import hashlib
import secrets
import uuid
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from peewee import JOIN, chunked

from authsvc.accounts.proof import check_proof
from authsvc.accounts.sign_in.methods import How, Method
from authsvc.activity import audit, last_seen
from authsvc.errors import NotFound, Unauthenticated
from authsvc.policy.actors import Proof
from authsvc.record_json import from_row
from authsvc.storage.database import session, transaction
from authsvc.storage.identifiers import find_id
from authsvc.storage.models import BrowserSession, Identity, Token, User
from authsvc.storage.paging import Page, fetch_page

if TYPE_CHECKING:
    from peewee import ModelSelect

    from authsvc.policy.actors import Actor
    from authsvc.settings import Lifetime

# `last_seen_at` is written at most once in this time, so that most page views cost no database write.
_LAST_SEEN_EVERY = timedelta(seconds=30)
_BATCH = 500  # usernames in one statement
_MAX_BROWSER = 200  # characters of a User-Agent


@dataclass(frozen=True, slots=True)
class SessionRecord:
    id: str
    username: str
    created_at: datetime
    last_seen: datetime
    expires_at: datetime
    address: str | None
    browser: str
    by_token: bool
    signed_in_by: str


def begin(actor: Actor, how: How, lifetime: Lifetime, browser: str, id_token: str | None = None) -> str:
    """Start a session for the actor and return its secret. A session by a token, the actor's proof, ends with it.

    `id_token` is that of a sign-in at the OpenID provider, empty if it was not kept. No session lasts longer than a
    provider's confirmation.
    `Unauthenticated` if the token or the actor's own credential has ended since it was checked.
    """
    secret = secrets.token_urlsafe(32)
    token_digest = actor.proof.token_digest if how.method is Method.TOKEN and actor.proof else None
    now = datetime.now(UTC)
    with transaction():
        check_proof(actor)
        token = Token.get_or_none(Token.digest == token_digest) if token_digest else None
        if token_digest and token is None:
            raise Unauthenticated("the token is not valid", "invalid-token")
        user = User.get(User.username == actor.username)
        identity = Identity.get_or_none(Identity.user == user)
        ends = [now + lifetime.absolute]
        ends += [token.expires_at] if token else []
        ends += [identity.confirmed_until] if identity else []
        row = BrowserSession.create(
            id=uuid.uuid4().hex,
            user=user,
            token=token,
            digest=_digest(secret),
            created_at=now,
            last_seen_at=now,
            expires_at=min(ends),
            address=actor.address,
            browser=browser[:_MAX_BROWSER],
            id_token=id_token,
            signed_in_by=how.method,
        )
        last_seen.record([actor.username], now)
        audit.record(actor, "session.begin", f"session:{row.id}", after=how.audit_fields())
    return secret


def proof_of(secret: str) -> Proof:
    """Return the proof for an actor that the session with this secret authenticated."""
    return Proof(session_digest=_digest(secret))


def id_of(secret: str) -> str | None:
    """Return the id of the session with this secret; None if there is none."""
    with session():
        found: str | None = (
            BrowserSession.select(BrowserSession.id).where(BrowserSession.digest == _digest(secret)).scalar()
        )
    return found


def username_of(secret: str, lifetime: Lifetime, *, record_use: bool = True) -> str | None:
    """Return the username of a session and record its use; None if there is no such session or it has ended."""
    now = datetime.now(UTC)
    with session():
        row = _running(now, lifetime).where(BrowserSession.digest == _digest(secret)).first()
        if row is None:
            return None
        if record_use and row.last_seen_at < now - _LAST_SEEN_EVERY:
            with transaction():
                BrowserSession.update(last_seen_at=now).where(BrowserSession.id == row.id).execute()
                last_seen.record([row.user.username], now)
        username: str = row.user.username
    return username


def sign_out(actor: Actor, secret: str) -> str | None:
    """End the session with this secret, if there is one; return its ID token, maybe empty, if it began at the provider.

    If the actor signs in with a browser in which another user was signed in, the audit event names that user as its
    actor and the new one as `replacedBy`: nobody ended the session from another browser.
    """
    with transaction():
        row = BrowserSession.get_or_none(BrowserSession.digest == _digest(secret))
        if row and row.user.username != actor.username:
            _end(replace(actor, username=row.user.username), row, {"replacedBy": actor.username})
        elif row:
            _end(actor, row)
    return row.id_token if row else None


def end(actor: Actor, session_id: str, username: str | None = None) -> None:
    """End a session, effective with the next request of its browser; `NotFound` if no session has that id.

    With a username it must be a session of that user.
    """
    with transaction():
        row = BrowserSession.get_or_none(BrowserSession.id == session_id)
        if row is None or username not in (None, row.user.username):
            raise NotFound("no such session", "session-not-found")
        _end(actor, row)


def end_all(*usernames: str) -> None:
    """End every session of these users; to be called inside the transaction of the change that requires it."""
    for batch in chunked(usernames, _BATCH):
        whose = User.select(User.id).where(User.username.in_(batch))
        BrowserSession.delete().where(BrowserSession.user.in_(whose)).execute()


def search(username: str, lifetime: Lifetime, page: int, per_page: int) -> Page[SessionRecord]:
    """Return one page of the running sessions, latest use first; an empty username means all users."""
    query = _running(datetime.now(UTC), lifetime)
    if username:
        query = query.where(User.username == username)
    return fetch_page(
        query.order_by(BrowserSession.last_seen_at.desc(), BrowserSession.id),
        page,
        per_page,
        convert=partial(map, _record),
    )


def find(given: str, lifetime: Lifetime) -> str:
    """Return the id of the running session with this id, this beginning of its id, or of this user's only one."""
    running = _running(datetime.now(UTC), lifetime)
    return find_id(running, BrowserSession.id, User.username == given, given, "session")


def delete_expired(lifetime: Lifetime) -> None:
    """Delete sessions whose idle or absolute lifetime is over."""
    now = datetime.now(UTC)
    expired = (BrowserSession.expires_at <= now) | (BrowserSession.last_seen_at <= now - lifetime.idle)
    with transaction():
        BrowserSession.delete().where(expired).execute()


def _running(now: datetime, lifetime: Lifetime) -> ModelSelect[BrowserSession]:
    rows = BrowserSession.select(BrowserSession, User, Token).join(User)
    rows = rows.switch(BrowserSession).join(Token, JOIN.LEFT_OUTER, on=BrowserSession.token == Token.id)
    return rows.where(BrowserSession.expires_at > now, BrowserSession.last_seen_at > now - lifetime.idle)


def _end(actor: Actor, row: BrowserSession, after: audit.Fields | None = None) -> None:
    audit.record(actor, "session.end", f"session:{row.id}", {"username": row.user.username}, after)
    row.delete_instance()


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def _record(row: BrowserSession) -> SessionRecord:
    return from_row(
        SessionRecord, row, username=row.user.username, by_token=bool(row.token), last_seen=row.last_seen_at
    )
