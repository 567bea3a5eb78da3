"""The session cookie of the web interface: signed, hidden from scripts, and TLS-only except on loopback."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from flask import request
from flask.sessions import SecureCookieSessionInterface
from itsdangerous import URLSafeTimedSerializer

from authsvc.addresses import is_loopback_header
from authsvc.web.request_context import services

if TYPE_CHECKING:
    from flask import Flask

_NAME = "authsvc"


class SignedCookie(SecureCookieSessionInterface):
    """Flask's session cookie, signed with the keys in the database so that all workers and replicas can read it.

    With the prefix `__Host-` browsers accept the cookie only from this host and over TLS (RFC 6265bis 4.1.3).
    """

    salt = "authsvc page"
    digest_method = staticmethod(hashlib.sha256)

    def get_signing_serializer(self, _app: Flask) -> URLSafeTimedSerializer | None:
        """Return a serializer that signs with the newest key and accepts signatures by any of the keys."""
        keys = signing_secrets()
        if not keys:
            return None
        options: dict[str, Any] = {"key_derivation": self.key_derivation, "digest_method": self.digest_method}
        return URLSafeTimedSerializer(keys, salt=self.salt, serializer=self.serializer, signer_kwargs=options)

    def get_cookie_name(self, _app: Flask) -> str:
        return _NAME if is_plain_loopback() else f"__Host-{_NAME}"

    def get_cookie_secure(self, _app: Flask) -> bool:
        return not is_plain_loopback()

    def get_cookie_samesite(self, _app: Flask) -> str:
        """Return Lax: the browser sends the cookie with a link from another site, but not with a form from there."""
        return "Lax"


def signing_secrets() -> list[bytes]:
    """Return the secrets that sign cookies and form tokens, oldest first; none before the policy is loaded."""
    return [key.secret for key in services().policy.snapshot.signing_keys.values()]


def is_plain_loopback() -> bool:
    """Return whether the request came without TLS and names localhost or a loopback address as its host."""
    host = request.host.encode()
    return not request.is_secure and host != b"" and is_loopback_header(host)
