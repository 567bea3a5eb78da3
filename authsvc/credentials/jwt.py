"""API tokens: JSON Web Tokens (RFC 7519), signed with HMAC-SHA256 by a key that the header names (`kid`).

The claim `jti` is a random secret that the database knows only as a SHA-256 digest: a token counts while
its digest is stored, so it can be revoked, and neither a copy of the database nor of the signing keys alone
makes a token.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import jwt

from authsvc.errors import Unauthenticated

if TYPE_CHECKING:
    from collections.abc import Mapping

_ALGORITHM = "HS256"
_ISSUER = "authsvc"
MAX_LENGTH = 4096


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One key in the list, oldest to newest; the newest signs, all of them verify. `secret` is 32 random bytes."""

    kid: str
    secret: bytes

    def __repr__(self) -> str:
        return f"SigningKey({self.kid!r})"


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token says: for whom, until when, and the digest under which it is known."""

    username: str
    digest: str
    expires_at: datetime


def new_signing_key() -> SigningKey:
    """Return a fresh key with a random id."""
    return SigningKey(secrets.token_hex(8), secrets.token_bytes(32))


def issue(username: str, issued_at: datetime, expires_at: datetime, key: SigningKey) -> tuple[str, str]:
    """Return a new token and the digest to store for it; the token itself is stored nowhere."""
    jti = secrets.token_urlsafe(24)
    claims = {
        "iss": _ISSUER,
        "sub": username,
        "jti": jti,
        "iat": int(issued_at.timestamp()),
        "exp": int(expires_at.timestamp()),
    }
    token = jwt.encode(claims, key.secret, algorithm=_ALGORITHM, headers={"kid": key.kid})
    return token, _digest(jti)


def looks_like_token(text: str) -> bool:
    """Say whether a password could be a token: three dotted parts, the first a JSON object in base64."""
    return len(text) <= MAX_LENGTH and text.startswith("eyJ") and text.count(".") == 2  # noqa: PLR2004 - RFC 7515


def verify(token: str, keys: Mapping[str, SigningKey], now: datetime) -> Claims:
    """Return what a token says after its signature and expiry were checked; `Unauthenticated` otherwise.

    Whether it was revoked, and whether its user still exists, is for the caller to look up.
    """
    if not looks_like_token(token):
        raise Unauthenticated("the token is not valid", "invalid-token")
    try:
        kid = jwt.get_unverified_header(token).get("kid")
        claims = _decode(token, keys[str(kid)])
        expires_at = datetime.fromtimestamp(claims["exp"], UTC)
    except (jwt.InvalidTokenError, KeyError, ValueError, OverflowError, OSError, TypeError):
        raise Unauthenticated("the token is not valid", "invalid-token") from None
    if expires_at <= now:
        raise Unauthenticated("the token has expired", "expired-token")
    return Claims(claims["sub"], _digest(claims["jti"]), expires_at)


def _decode(token: str, key: SigningKey) -> dict[str, Any]:
    # The clock is the caller's, and replicas' clocks differ: an `iat` a moment ahead is no reason to refuse.
    return jwt.decode(
        token,
        key.secret,
        algorithms=[_ALGORITHM],
        issuer=_ISSUER,
        options={"require": ["exp", "sub", "jti"], "verify_exp": False, "verify_iat": False},
    )


def _digest(jti: str) -> str:
    return hashlib.sha256(jti.encode()).hexdigest()
