"""The page's cookie: signed, out of reach of scripts, and sent over TLS only, but for a browser on this machine."""

from __future__ import annotations

import hashlib
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from flask import request
from flask.sessions import SecureCookieSessionInterface
from itsdangerous import URLSafeTimedSerializer

from authsvc.web.request_context import services

if TYPE_CHECKING:
    from flask import Flask

_NAME = "authsvc"


class SignedCookie(SecureCookieSessionInterface):
    """Flask's own cookie, signed with the service's keys, so that all workers and replicas read it.

    The name's prefix `__Host-` makes browsers refuse it from anywhere but this host over TLS (RFC 6265bis 4.1.3).
    """

    salt = "authsvc page"
    digest_method = staticmethod(hashlib.sha256)

    def get_signing_serializer(self, _app: Flask) -> URLSafeTimedSerializer | None:
        """Sign with the newest key and read what any of them has signed."""
        keys = signing_secrets()
        if not keys:
            return None
        options: dict[str, Any] = {"key_derivation": self.key_derivation, "digest_method": self.digest_method}
        return URLSafeTimedSerializer(keys, salt=self.salt, serializer=self.serializer, signer_kwargs=options)

    def get_cookie_name(self, _app: Flask) -> str:
        """Return the name that fits how the browser came here."""
        return _NAME if is_plain_loopback() else f"__Host-{_NAME}"

    def get_cookie_secure(self, _app: Flask) -> bool:
        """Say whether the browser may send it over TLS only."""
        return not is_plain_loopback()

    def get_cookie_samesite(self, _app: Flask) -> str:
        """Let it come along when a link from elsewhere leads here, and with no form from elsewhere."""
        return "Lax"


def signing_secrets() -> list[bytes]:
    """Return what cookies and forms are signed with, oldest to newest; empty before the policy is loaded."""
    return [key.secret for key in services().policy.snapshot.signing_keys.values()]


def is_plain_loopback() -> bool:
    """Say whether the browser asked for this machine by name, without TLS."""
    if request.is_secure:
        return False
    host = request.host.rpartition(":")[0] if request.host.rpartition(":")[2].isdigit() else request.host
    host = host.strip("[]")
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
