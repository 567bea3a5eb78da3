"""Which host names and addresses stand for this machine alone.

A web page can let a name of its own resolve to 127.0.0.1 (DNS rebinding) and then call a service on loopback from the
browser of a visitor. Its requests carry that name in the `Host` header, so a service on loopback recognises them.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import ip_address

_HOST_HEADER = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[^\[\]:]+))(?::[0-9]*)?")


def is_loopback(host: str) -> bool:
    """Return whether only this machine can connect to a host: `localhost`, 127.0.0.0/8 or ::1."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


@lru_cache(maxsize=64)  # every broker sends the same few again and again
def is_loopback_header(header: bytes) -> bool:
    """Return whether a `Host` header, with or without a port, names loopback; True for none, which no browser omits."""
    if not header:
        return True
    match = _HOST_HEADER.fullmatch(header.decode("latin-1"))
    return match is not None and is_loopback(match["v6"] or match["name"])
