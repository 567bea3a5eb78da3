"""The client's address behind trusted proxies.

Each proxy appends the address of its own client to `X-Forwarded-For`. Read from the right, the entries are true up to
the first address that is no trusted proxy; any client could have invented the entries left of it.
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
    """WSGI middleware that replaces a trusted proxy's address by that of its client; ignores all other proxies."""

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
