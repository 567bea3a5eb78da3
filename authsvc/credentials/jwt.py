"""API tokens: JSON Web Tokens (RFC 7519), signed with HMAC-SHA256 by the key named in the header (`kid`).

The claim `jti` is a random secret of which the database stores only the SHA-256 digest. A token is valid while its
digest is stored, so it can be revoked. Neither the database nor the signing keys alone are enough to make a token.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import jwt

from authsvc.errors import Unauthenticated

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jwt.types import Options

_ALGORITHM = "HS256"
_ISSUER = "authsvc"
MAX_LENGTH = 4096


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A signing key with a secret of 32 random bytes. The newest key signs, all keys verify."""

    kid: str
    secret: bytes

    def __repr__(self) -> str:
        return f"SigningKey({self.kid!r})"


@dataclass(frozen=True, slots=True)
class Claims:
    """The claims of a verified token; `digest` is that of its `jti`."""

    username: str
    digest: str
    expires_at: datetime


def new_signing_key() -> SigningKey:
    """Return a new key with a random id."""
    return SigningKey(secrets.token_hex(8), secrets.token_bytes(32))


def issue(username: str, issued_at: datetime, expires_at: datetime, key: SigningKey) -> tuple[str, str]:
    """Return a new token and the digest to store for it; the token itself is not stored."""
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
    """Return whether a password has the form of a token: three dotted parts, the first a JSON object in base64."""
    return len(text) <= MAX_LENGTH and text.startswith("eyJ") and text.count(".") == 2  # noqa: PLR2004 - RFC 7515


def verify(token: str, keys: Mapping[str, SigningKey], now: datetime) -> Claims:
    """Return the claims of a token; `Unauthenticated` if its signature is wrong or it has expired.

    The caller checks whether the token was revoked and its user still exists.
    """
    if not looks_like_token(token):
        raise Unauthenticated("the token is not valid", "invalid-token")
    try:
        kid = jwt.get_unverified_header(token).get("kid")
        # `exp` is checked against the caller's clock. `iat` is not checked, because the clocks of replicas differ.
        options: Options = {"require": ["exp", "sub", "jti"], "verify_exp": False, "verify_iat": False}
        claims = jwt.decode(token, keys[str(kid)].secret, algorithms=[_ALGORITHM], issuer=_ISSUER, options=options)
        expires_at = datetime.fromtimestamp(claims["exp"], UTC)
    except (jwt.InvalidTokenError, KeyError, ValueError, OverflowError, OSError, TypeError):
        raise Unauthenticated("the token is not valid", "invalid-token") from None
    if expires_at <= now:
        raise Unauthenticated("the token has expired", "expired-token")
    return Claims(claims["sub"], _digest(claims["jti"]), expires_at)


def _digest(jti: str) -> str:
    return hashlib.sha256(jti.encode()).hexdigest()
