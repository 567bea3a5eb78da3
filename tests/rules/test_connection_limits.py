"""Connection limits, in total and by address."""

from __future__ import annotations

import pytest

from authsvc.addresses import parse_networks
from authsvc.server.connection_limits import ConnectionLimits

HERE, THERE = "192.0.2.1", "192.0.2.2"


def limits_with(connections: dict[str, str], in_all: int = 10, per_address: int = 2) -> ConnectionLimits[str]:
    """Return limits that count these connections, each from its address."""
    limits = ConnectionLimits[str](in_all, per_address, parse_networks("10.0.0.0/8,2001:db8:1::/48"))
    for connection, address in connections.items():
        limits.add(connection, address)
    return limits


def test_limit_of_one_address_does_not_affect_others() -> None:
    limits = limits_with({"a": HERE})
    assert not limits.is_full_for(HERE)
    limits.add("b", HERE)
    assert limits.is_full_for(HERE)
    assert not limits.is_full_for(THERE)
    limits.remove("a")
    assert not limits.is_full_for(HERE)


def test_oldest_connection_of_an_address() -> None:
    limits = limits_with({"a": HERE, "b": THERE, "c": HERE})
    assert limits.oldest_of(HERE) == "a"
    limits.remove("a")
    assert limits.oldest_of(HERE) == "c"


def test_connections_of_all_addresses_count_towards_the_total() -> None:
    limits = limits_with({"a": HERE, "b": THERE}, in_all=3)
    assert not limits.is_full
    limits.add("c", "10.0.0.1")
    assert limits.is_full
    limits.remove("b")
    assert not limits.is_full


def test_connection_of_a_broker_counts_towards_the_total_only() -> None:
    limits = limits_with({"a": HERE, "b": HERE}, in_all=2)
    limits.count_no_longer_for_address("a")
    assert not limits.is_full_for(HERE)
    assert limits.oldest_of(HERE) == "b"
    assert limits.is_full
    limits.remove("a")
    assert not limits.is_full


def test_removing_an_unknown_connection_changes_nothing() -> None:
    limits = limits_with({"a": HERE}, in_all=1)
    limits.remove("nobody")
    assert limits.is_full
    limits.remove("a")
    limits.remove("a")
    assert not limits.is_full


@pytest.mark.parametrize("address", ["10.1.2.3", "::ffff:10.1.2.3", "2001:db8:1::7"])
def test_trusted_proxy_has_no_limit_by_address(address: str) -> None:
    limits = limits_with({str(number): address for number in range(5)})
    assert not limits.is_full_for(address)
