"""By what a caller is counted."""

from __future__ import annotations

import pytest

from authsvc.addresses import address_of, network_of


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
