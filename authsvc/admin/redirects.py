"""Where a sign-in may lead: to a path of this host and nowhere else."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

from authsvc.errors import InvalidInput, invalid
from authsvc.observability.redaction import cleaned_address

HOME = "/admin"
_MAX_LENGTH = 2000
# What RFC 3986 lets stand in a path, a query and a fragment; no backslash, no control character, nothing beyond ASCII.
_PATH = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@/?#%\[\]-]*")


def path_on_this_host(path: str) -> str:
    r"""Return the path without API tokens; the first page if one is encoded so that part of it would remain.

    `InvalidInput` for anything that some browser could take for another host.

    Browsers read `//host`, `/\host` and their encoded forms as another host (WHATWG URL, "special authority"). What the
    path says in any decoding counts.
    """
    if len(path) > _MAX_LENGTH or not _PATH.fullmatch(path) or _leads_away(path):
        raise invalid("redirect", "must be a path on this host, such as /admin/users")
    cleaned = cleaned_address(path)
    return HOME if cleaned is None else cleaned


def way_back(path: str, query: str) -> str:
    """Return an address that was asked for, to be led back to; the first page if nobody should be led there."""
    try:
        return path_on_this_host(quote(path) + (f"?{query}" if query else ""))
    except InvalidInput:
        return HOME


def _leads_away(path: str) -> bool:
    while True:
        where = path.partition("?")[0].partition("#")[0]
        if where.startswith("//") or "\\" in where or not where.isprintable():
            return True
        decoded = unquote(path)
        if decoded == path:
            return False
        path = decoded
