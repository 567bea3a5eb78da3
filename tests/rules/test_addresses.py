"""By what a caller is counted."""

from __future__ import annotations

import pytest

from authsvc.addresses import address_of, binds_loopback, host_of, network_of


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
    ],
)
def test_ipv6_addresses_of_a_subscriber_count_as_one(one: str, other: str, same: bool) -> None:
    assert (network_of(one) == network_of(other)) is same


def test_a_network_is_spelled_as_people_know_it() -> None:
    assert network_of("2001:db8:1:2:3:4:5:6") == "2001:db8:1:2::/64"
    assert network_of("::ffff:192.0.2.1") == "192.0.2.1"
    assert network_of(None) == ""
    assert network_of("x" * 1000) == "x" * 64


def test_an_address_has_no_zone_and_one_form() -> None:
    assert address_of(f"fe80::1%{'x' * 100}") == "fe80::1"
    assert address_of("::FFFF:192.0.2.1") == "192.0.2.1"
    assert address_of("nonsense") is None
    assert address_of(None) is None


@pytest.mark.parametrize(
    ("bind", "host", "loopback"),
    [
        ("127.0.0.1:8080", "127.0.0.1", True),
        ("127.1.2.3:1", "127.1.2.3", True),
        ("localhost:8080", "localhost", True),
        ("[::1]:8080", "::1", True),
        ("0.0.0.0:8080", "0.0.0.0", False),
        ("[::]:8080", "::", False),
        ("192.0.2.1:8080", "192.0.2.1", False),
        ("authsvc.example.com:8080", "authsvc.example.com", False),
        ("localhost.example.com:8080", "localhost.example.com", False),
    ],
)
def test_only_an_address_that_nobody_else_can_reach_is_loopback(bind: str, host: str, loopback: bool) -> None:
    assert (host_of(bind), binds_loopback(bind)) == (host, loopback)


def test_a_host_name_that_looks_like_loopback_is_not() -> None:
    assert not binds_loopback("127.example.com:8080")
