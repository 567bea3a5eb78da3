"""API tokens: issued at a login or for another user, listed and revoked."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from peewee import chunked

from authsvc.accounts import throttle
from authsvc.accounts.proof import check_proof
from authsvc.activity import audit, last_seen
from authsvc.credentials import jwt
from authsvc.errors import Conflict, NotFound, invalid
from authsvc.record_json import from_row
from authsvc.storage import policy_reader
from authsvc.storage.changes import ChangeKind, policy_change, token_change
from authsvc.storage.database import session, transaction
from authsvc.storage.identifiers import find_id
from authsvc.storage.models import Identity, Token, User
from authsvc.storage.paging import Page, fetch_page

if TYPE_CHECKING:
    from collections.abc import Iterable, MutableMapping

    from authsvc.policy.actors import Actor

DEFAULT_HOURS = 12
MAX_LABEL = 200
_BATCH = 500
MAX_HOURS = 876_000  # 100 years; a `datetime` ends with the year 9999
MAX_TOKENS = 100  # valid ones of one user


class TokenLimits(NamedTuple):
    """How many tokens per minute one user may get, and the longest lifetime in days (None: no limit)."""

    per_minute: int = 30
    max_days: int | None = None

    def check_lifetime(self, hours: float) -> None:
        """Raise `InvalidInput` for `expireTimeInHours` if the lifetime exceeds the limit."""
        if self.max_days is not None and hours > self.max_days * 24:
            limit = f"must be at most {self.max_days * 24} hours: AUTHSVC_TOKEN_MAX_DAYS is {self.max_days}"
            raise invalid("expireTimeInHours", limit)


DEFAULT_LIMITS = TokenLimits()


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """An API token without its secret, which only `IssuedToken` has.

    `expires_at` is when it stops working: a user of a provider or directory has to be confirmed for that long too.
    """

    id: str
    username: str
    label: str
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A new token, the only place where it can be read, and its record."""

    token: str
    record: TokenRecord

    def __repr__(self) -> str:
        return f"IssuedToken({self.record!r})"


def issue_token(
    actor: Actor,
    username: str,
    label: str,
    hours: float,
    limits: TokenLimits = DEFAULT_LIMITS,
    *,
    within_own_rights: bool = False,
    also_audited: audit.Fields | None = None,
) -> IssuedToken:
    """Issue a token with which a caller has the user's rights, as they are at each request.

    With `within_own_rights` it raises `Forbidden` if the user has more rights than the actor. Otherwise it raises
    `Unauthenticated` if the actor's own credential has ended since it was checked, `Conflict` if the user has
    `MAX_TOKENS` valid tokens, and `TooMany` if more tokens were issued or refused in a minute than the limit.
    The limit per minute does not apply to the command line. `also_audited` is added to the audit event.
    """
    if len(label) > MAX_LABEL:
        raise invalid("label", f"must be at most {MAX_LABEL} characters")
    limits.check_lifetime(hours)
    issued_at = datetime.now(UTC).replace(microsecond=0)
    expires_at = issued_at + timedelta(seconds=int(hours * 3600))  # a token's `exp` has whole seconds
    counted_as = None if actor.rules is None else f"tokens {username}"

    def check() -> User:
        user = _user(username)
        if within_own_rights:
            actor.must_hold(policy_reader.rights_of_user(user.username))
        if counted_as:
            throttle.check_limits({counted_as: limits.per_minute})
        if Token.select().where(Token.user == user, Token.expires_at > issued_at).count() >= MAX_TOKENS:
            raise Conflict(f"{username} has {MAX_TOKENS} tokens; revoke one that is not in use", "too-many-tokens")
        return user

    # Checked before the transaction too: a refusal then waits for no other change, and no rollback loses its count.
    try:
        with session():
            check()
    except Conflict:
        if counted_as:
            throttle.count([counted_as])
        raise
    with token_change() as version:
        check_proof(actor)
        user = check()
        if counted_as:
            throttle.count([counted_as])
        keys = list(policy_reader.signing_keys().values())
        if not keys:
            raise Conflict("no signing key can be read; create one with: authsvc tokens rotate-key", "no-signing-key")
        token, digest = jwt.issue(username, issued_at, expires_at, keys[-1])
        row = Token.create(
            id=uuid.uuid4().hex,
            user=user,
            digest=digest,
            label=label,
            created_at=issued_at,
            expires_at=expires_at,
            version=version,
        )
        after = {"username": username, "label": label, "expiresAt": expires_at.isoformat(), **(also_audited or {})}
        audit.record(actor, "token.create", f"token:{row.id}", after=after)
        (record,) = _records([row])
    return IssuedToken(token, record)


def revoke_token(actor: Actor, token_id: str, username: str | None = None) -> None:
    """Revoke a token, effective at once; `NotFound` if no token has that id.

    With a username it must be a token of that user.
    """
    with policy_change() as announce:
        row = Token.select(Token, User).join(User).where(Token.id == token_id).first()
        if row is None or username not in (None, row.user.username):
            raise NotFound("no such token", "token-not-found")
        _revoke(actor, row)
        announce(ChangeKind.USER, row.user.username)


def revoke_all(actor: Actor, username: str) -> int:
    """Revoke every token of a user and return their number; the caller's policy change must announce the user."""
    rows = list(Token.select(Token, User).join(User).where(User.username == username))
    for row in rows:
        _revoke(actor, row)
    return len(rows)


def list_tokens(username: str, text: str, page: int, per_page: int) -> Page[TokenRecord]:
    """Return one page of tokens, newest first. An empty username means all; `text` is part of label or username."""
    query = Token.select(Token, User).join(User)
    if username:
        query = query.where(User.username == username)
    if text:
        query = query.where(Token.label.contains(text) | User.username.contains(text))
    return fetch_page(query.order_by(Token.created_at.desc(), Token.id), page, per_page, convert=_records)


def find(given: str) -> str:
    """Return the id of the token with this id, this beginning of its id, or this user if it is the user's only one."""
    return find_id(Token.select(Token, User).join(User), Token.id, User.username == given, given, "token")


def store_uses(uses: MutableMapping[str, datetime]) -> None:
    """Store when tokens, given by digest, were last used and remove the stored entries; after an error all stay."""
    if not uses:
        return
    seen = dict(uses)
    with transaction():
        for digest, at in seen.items():
            Token.update(last_used_at=at).where(Token.digest == digest).execute()
        for batch in chunked(seen, _BATCH):
            owners: Any = Token.select(User.username).join(User).where(Token.digest.in_(batch)).distinct()
            last_seen.record([name for (name,) in owners.tuples()], max(map(seen.__getitem__, batch)))
    for digest, at in seen.items():
        if uses.get(digest) == at:  # not used again since
            del uses[digest]


def delete_expired() -> int:
    """Delete tokens that expired more than a day ago and return their number."""
    with transaction():
        count: int = Token.delete().where(Token.expires_at < datetime.now(UTC) - timedelta(days=1)).execute()
        return count


def _revoke(actor: Actor, row: Token) -> None:
    row.delete_instance()
    audit.record(actor, "token.revoke", f"token:{row.id}", {"username": row.user.username, "label": row.label})


def _user(username: str) -> User:
    user: User | None = User.get_or_none(User.username == username)
    if user is None:
        raise NotFound("no such user", "user-not-found")
    return user


def _records(rows: Iterable[Token]) -> list[TokenRecord]:
    found = list(rows)
    whose = Identity.user.in_({row.user.id for row in found})
    identities: Any = Identity.select(Identity.user, Identity.confirmed_until).where(whose).tuples()
    confirmed: dict[int, datetime] = dict(identities)
    ends = [min(row.expires_at, confirmed.get(row.user.id, row.expires_at)) for row in found]
    return [
        from_row(TokenRecord, row, username=row.user.username, expires_at=end)
        for row, end in zip(found, ends, strict=True)
    ]
