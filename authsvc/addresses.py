"""Callers' IP addresses: in one form however they are written, and the network by which callers are counted."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from ipaddress import IPv4Network

_IPV6_PREFIX = 64
_MAX_OTHER = 64


def address_of(text: str | None) -> str | None:
    """Return an IP address in its usual form, without a zone; None for anything else."""
    parsed = _parsed(text or "")
    return str(parsed) if parsed else None


@lru_cache(maxsize=4096)
def network_of(text: str | None) -> str:
    """Return what a caller is counted by: its IPv4 address, or the /64 of its IPv6 address, which is one subscriber's.

    An IPv4 address is the same however it is written (`::ffff:192.0.2.1`); what is no address stands for itself.
    """
    parsed = _parsed(text or "")
    if isinstance(parsed, IPv6Address):
        return str(IPv6Network((int(parsed), _IPV6_PREFIX), strict=False))
    return str(parsed) if parsed else (text or "")[:_MAX_OTHER]


def is_within(text: str | None, networks: Iterable[IPv4Network | IPv6Network]) -> bool:
    """Return whether an address is in one of the networks; `::ffff:10.0.0.1` is in 10.0.0.0/8, other text in none."""
    parsed = _parsed(text or "")
    return parsed is not None and any(parsed in network for network in networks)


def _parsed(text: str) -> IPv4Address | IPv6Address | None:
    try:
        parsed = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (parsed.ipv4_mapped or parsed) if isinstance(parsed, IPv6Address) else parsed
