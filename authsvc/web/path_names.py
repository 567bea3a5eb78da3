"""Names in paths that may contain a slash: usernames, client ids, and the names of brokers.

WSGI decodes a path before it is routed, so that `a%2Fb` would become two levels. Below the paths of `_PREFIXES` an
encoded slash and an encoded percent sign stay encoded until a route's argument is read.
Permissions for these paths see the same form: the client id `a/b` is the one level `a%2Fb`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote_to_bytes

from werkzeug.routing import BaseConverter

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from flask import Flask

_PREFIXES = ("/api/clients/", "/admin/clients/", "/api/users/", "/admin/users/")
_KEPT = re.compile("(%2f|%25)", re.IGNORECASE)


class EncodedSlashes:
    """WSGI middleware that keeps encoded slashes in a path, if the server passes the path as it was sent."""

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        sent = _path_as_sent(environ)
        if path.startswith(_PREFIXES) and _decoded(sent) == path:
            pieces = _KEPT.split(sent)
            environ["PATH_INFO"] = "".join(
                piece.upper() if number % 2 else _decoded(piece) for number, piece in enumerate(pieces)
            )
        return self._app(environ, start_response)


class NameConverter(BaseConverter):
    """The converter `name` of a route: one level of the path, as `EncodedSlashes` passes it."""

    def to_python(self, value: str) -> str:
        return value.replace("%2F", "/").replace("%25", "%")

    def to_url(self, value: str) -> str:
        return quote(value, safe="")


def register(app: Flask) -> None:
    """Install the converter; call it before routes with it are added. The app needs `EncodedSlashes` too."""
    app.url_map.converters["name"] = NameConverter


def _path_as_sent(environ: WSGIEnvironment) -> str:
    scope = environ.get("asgi.scope")
    if scope:
        path: bytes = scope.get("raw_path") or b""
        return path.decode("latin-1")
    address: str = environ.get("REQUEST_URI", "")
    return address.partition("?")[0]


def _decoded(path: str) -> str:
    return unquote_to_bytes(path.encode("latin-1")).decode("latin-1")
