"""Where a browser may be redirected to after sign-in: only to a path on this host."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

from authsvc.errors import InvalidInput, invalid
from authsvc.observability.redaction import cleaned_address

HOME = "/admin"
_MAX_LENGTH = 2000
# The characters that RFC 3986 permits in a path, query and fragment: no backslash, control or non-ASCII character.
_PATH = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@/?#%\[\]-]*")


def path_on_this_host(path: str) -> str:
    r"""Return the path without API tokens, or `/admin` if an encoded token cannot be removed as a whole.

    Raise `InvalidInput` if a browser could read the path as another host.

    Browsers read `//host`, `/\host` and their encoded forms as another host (WHATWG URL, "special authority"), so the
    path is checked in every stage of percent-decoding.
    """
    if len(path) > _MAX_LENGTH or not _PATH.fullmatch(path) or _names_another_host(path):
        raise invalid("redirect", "must be a path on this host, such as /admin/users")
    cleaned = cleaned_address(path)
    return HOME if cleaned is None else cleaned


def return_path(path: str, query: str) -> str:
    """Return the requested path and query to redirect to after sign-in, or `/admin` if it is not a safe target."""
    try:
        return path_on_this_host(quote(path) + (f"?{query}" if query else ""))
    except InvalidInput:
        return HOME


def _names_another_host(path: str) -> bool:
    while True:
        where = path.partition("?")[0].partition("#")[0]
        if where.startswith("//") or "\\" in where or not where.isprintable():
            return True
        decoded = unquote(path)
        if decoded == path:
            return False
        path = decoded
