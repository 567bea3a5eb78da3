"""IP addresses and `Host` headers: normal form, the network for rate limits, and loopback.

A web page can make a host name of its own resolve to 127.0.0.1 (DNS rebinding) and call a service on loopback from a
visitor's browser. Such requests have that name in the `Host` header, so a service on loopback can refuse them.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

Network = IPv4Network | IPv6Network

_IPV6_PREFIX = 64
_NAT64 = IPv6Network("64:ff9b::/96")
_LOCAL_NAT64 = IPv6Network("64:ff9b:1::/48")
_SITE_LOCAL = IPv6Network("fec0::/10")
_MAX_TEXT = 64
_HOST_HEADER = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[^\[\]:]+))(?::[0-9]*)?")


def normalize_address(text: str | None) -> str | None:
    """Return an IP address in its normal form, without a zone; None for anything else."""
    parsed = _parsed(text or "")
    return str(parsed) if parsed else None


@lru_cache(maxsize=4096)
def network_of(text: str | None) -> str:
    """Return the key for rate limits: the IPv4 address, or the /64 of an IPv6 address, because a subscriber has a /64.

    `::ffff:192.0.2.1` is the IPv4 address 192.0.2.1. Other text is returned as it is, up to 64 characters.
    """
    parsed = _parsed(text or "")
    if isinstance(parsed, IPv6Address):
        return str(IPv6Network((int(parsed), _IPV6_PREFIX), strict=False))
    return str(parsed) if parsed else (text or "")[:_MAX_TEXT]


def parse_networks(text: str) -> tuple[Network, ...]:
    """Return the networks and addresses of a comma-separated list; `ValueError` if one is invalid."""
    return tuple(ip_network(part.strip()) for part in text.split(","))


def is_within(text: str | None, networks: Iterable[Network]) -> bool:
    """Return whether an address is in one of the networks; `::ffff:10.0.0.1` is in 10.0.0.0/8."""
    parsed = _parsed(text or "")
    return parsed is not None and any(parsed in network for network in networks)


def is_loopback(host: str) -> bool:
    """Return whether only this machine can connect to a host: `localhost`, 127.0.0.0/8 or ::1."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def is_public(text: str) -> bool:
    """Return whether an address belongs to the public internet: no loopback, private, link-local or multicast address.

    An IPv6 address that carries an IPv4 address (mapped, NAT64, 6to4) is as public as the latter.
    """
    address = ip_address(text.partition("%")[0])
    if isinstance(address, IPv6Address):
        carried = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            carried = IPv4Address(int(address) & 0xFFFF_FFFF)
        if carried:
            return is_public(str(carried))
        if address in _LOCAL_NAT64 or address in _SITE_LOCAL:
            return False
    return address.is_global and not (address.is_multicast or address.is_reserved)


def host_of(bind: str) -> str:
    """Return the host of `HOST:PORT`, without the brackets of an IPv6 address."""
    return bind.rpartition(":")[0].strip("[]")


def binds_loopback(bind: str) -> bool:
    """Return whether only this machine can connect to a listener on `HOST:PORT`."""
    return is_loopback(host_of(bind))


@lru_cache(maxsize=64)  # every broker sends the same few again and again
def is_loopback_header(header: bytes) -> bool:
    """Return whether a `Host` header names loopback. True for an empty one: every browser sends a `Host`."""
    if not header:
        return True
    match = _HOST_HEADER.fullmatch(header.decode("latin-1"))
    return match is not None and is_loopback(match["v6"] or match["name"])


def _parsed(text: str) -> IPv4Address | IPv6Address | None:
    try:
        parsed = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (parsed.ipv4_mapped or parsed) if isinstance(parsed, IPv6Address) else parsed
