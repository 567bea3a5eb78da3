"""How many connections are taken: in all, and from one address."""

from __future__ import annotations

import pytest

from authsvc.addresses import read_networks
from authsvc.server.connection_limits import ConnectionLimits

HERE, THERE = "192.0.2.1", "192.0.2.2"


def limits_with(connections: dict[str, str], in_all: int = 10, per_address: int = 2) -> ConnectionLimits[str]:
    """Return limits that count these connections, each from its address."""
    limits = ConnectionLimits[str](in_all, per_address, read_networks("10.0.0.0/8,2001:db8:1::/48"))
    for connection, address in connections.items():
        limits.add(connection, address)
    return limits


def test_an_address_has_its_number_of_connections_and_others_are_not_affected() -> None:
    limits = limits_with({"a": HERE})
    assert not limits.is_full_for(HERE)
    limits.add("b", HERE)
    assert limits.is_full_for(HERE)
    assert not limits.is_full_for(THERE)
    limits.remove("a")
    assert not limits.is_full_for(HERE)


def test_the_oldest_connection_of_an_address_is_known() -> None:
    limits = limits_with({"a": HERE, "b": THERE, "c": HERE})
    assert limits.oldest_of(HERE) == "a"
    limits.remove("a")
    assert limits.oldest_of(HERE) == "c"


def test_all_connections_count_towards_the_total_whatever_their_address() -> None:
    limits = limits_with({"a": HERE, "b": THERE}, in_all=3)
    assert not limits.is_full
    limits.add("c", "10.0.0.1")
    assert limits.is_full
    limits.remove("b")
    assert not limits.is_full


def test_a_brokers_connection_counts_towards_the_total_only() -> None:
    limits = limits_with({"a": HERE, "b": HERE}, in_all=2)
    limits.count_no_longer_for_address("a")
    assert not limits.is_full_for(HERE)
    assert limits.oldest_of(HERE) == "b"
    assert limits.is_full
    limits.remove("a")
    assert not limits.is_full


def test_removing_twice_or_what_was_never_counted_changes_nothing() -> None:
    limits = limits_with({"a": HERE}, in_all=1)
    limits.remove("nobody")
    assert limits.is_full
    limits.remove("a")
    limits.remove("a")
    assert not limits.is_full


@pytest.mark.parametrize("address", ["10.1.2.3", "::ffff:10.1.2.3", "2001:db8:1::7"])
def test_a_trusted_proxy_has_as_many_connections_as_it_likes(address: str) -> None:
    limits = limits_with({str(number): address for number in range(5)})
    assert not limits.is_full_for(address)
