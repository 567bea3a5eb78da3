"""IP addresses, the network for rate limits, and `Host` headers that name loopback."""

from __future__ import annotations

import pytest

from authsvc.addresses import binds_loopback, host_of, is_loopback_header, network_of, normalize_address


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
def test_ipv6_addresses_of_one_64_network_count_as_one(one: str, other: str, same: bool) -> None:
    assert (network_of(one) == network_of(other)) is same


def test_network_of_returns_the_usual_notation() -> None:
    assert network_of("2001:db8:1:2:3:4:5:6") == "2001:db8:1:2::/64"
    assert network_of("::ffff:192.0.2.1") == "192.0.2.1"
    assert network_of(None) == ""
    assert network_of("x" * 1000) == "x" * 64


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
def test_loopback_addresses(bind: str, host: str, loopback: bool) -> None:
    assert (host_of(bind), binds_loopback(bind)) == (host, loopback)


def test_host_name_that_begins_like_loopback_is_not_loopback() -> None:
    assert not binds_loopback("127.example.com:8080")


def test_normalized_address_has_no_zone() -> None:
    assert normalize_address(f"fe80::1%{'x' * 100}") == "fe80::1"
    assert normalize_address("::FFFF:192.0.2.1") == "192.0.2.1"
    assert normalize_address("nonsense") is None
    assert normalize_address(None) is None


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"localhost",
        b"LocalHost:8080",
        b"127.0.0.1",
        b"127.0.0.1:8080",
        b"127.255.255.254:1",
        b"[::1]",
        b"[::1]:8080",
        b"[0:0:0:0:0:0:0:1]:8080",
    ],
)
def test_loopback_names_with_and_without_a_port(header: bytes) -> None:
    assert is_loopback_header(header)


@pytest.mark.parametrize(
    "header",
    [
        b"evil.example",
        b"evil.example:8080",
        b"localhost.evil.example",
        b"evil.example:127.0.0.1",
        b"127.0.0.1.evil.example",
        b"127.0.0.1:8080:80",
        b"127.0.0.1@evil.example",
        b"128.0.0.1",
        b"0.0.0.0:8080",
        b"10.0.0.7:8080",
        b"[::2]:8080",
        b"[::1",
        b"::1",
        b"[localhost]",
        b"[127.0.0.1]evil",
        b" localhost",
        b"localhost\x00",
        b"\xff\xfe",
        b":8080",
    ],
)
def test_other_names_are_not_loopback(header: bytes) -> None:
    assert not is_loopback_header(header)
