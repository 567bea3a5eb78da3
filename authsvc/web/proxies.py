"""Who is calling when proxies stand in between: the address that the outermost trusted one has seen.

`X-Forwarded-For` grows to the right, each proxy adding whom it was asked by, so what stands right of the first address
that nobody trusted has written is true, and all that stands left of it may be made up.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

from authsvc.addresses import is_within

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from authsvc.addresses import Network


class TrustedProxies:
    """Puts the caller's own address in the place of a trusted proxy's; what others forward counts for nothing."""

    def __init__(self, app: WSGIApplication, trusted: tuple[Network, ...]) -> None:
        self._app = app
        self._trusted = trusted

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        forwarded = environ.get("HTTP_X_FORWARDED_FOR", "")
        if forwarded:
            environ["REMOTE_ADDR"] = self._caller(environ.get("REMOTE_ADDR", ""), forwarded.split(","))
        return self._app(environ, start_response)

    def _caller(self, peer: str, forwarded: list[str]) -> str:
        for address in reversed(forwarded):
            if not is_within(peer, self._trusted) or not _is_address(address):
                break
            peer = address.strip()
        return peer


def _is_address(text: str) -> bool:
    try:
        ip_address(text.strip())
    except ValueError:
        return False
    return True
