"""The address of a caller behind proxies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from authsvc.addresses import parse_networks
from authsvc.web.proxies import TrustedProxies

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse


def caller(trusted: str, peer: str, forwarded: str | None) -> str:
    """Return the address that an application behind these proxies sees."""
    seen: list[str] = []

    def app(environ: dict[str, Any], _start_response: StartResponse) -> Iterable[bytes]:
        seen.append(environ["REMOTE_ADDR"])
        return []

    environ = {"REMOTE_ADDR": peer} | ({"HTTP_X_FORWARDED_FOR": forwarded} if forwarded is not None else {})
    networks = parse_networks(trusted) if trusted else ()
    TrustedProxies(app, networks)(environ, lambda *_: lambda _: None)
    return seen[0]


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded", "expected"),
    [
        ("", "198.51.100.7", None, "198.51.100.7"),
        ("", "198.51.100.7", "203.0.113.1", "198.51.100.7"),
        ("127.0.0.1", "127.0.0.1", None, "127.0.0.1"),
        ("127.0.0.1", "127.0.0.1", "203.0.113.1", "203.0.113.1"),
        ("127.0.0.1", "127.0.0.1", "10.9.9.9, 203.0.113.1", "203.0.113.1"),
        ("127.0.0.1,10.0.0.0/8", "127.0.0.1", "203.0.113.1, 10.9.9.9", "203.0.113.1"),
        ("127.0.0.1,10.0.0.0/8", "127.0.0.1", "1.2.3.4, 203.0.113.1, 10.9.9.9", "203.0.113.1"),
        ("127.0.0.1", "198.51.100.7", "203.0.113.1", "198.51.100.7"),
        ("::1", "::1", "2001:db8::1", "2001:db8::1"),
        ("127.0.0.0/8", "::ffff:127.0.0.1", "203.0.113.1", "203.0.113.1"),
        ("127.0.0.1,10.0.0.0/8", "127.0.0.1", "203.0.113.1, ::ffff:10.9.9.9", "203.0.113.1"),
        ("127.0.0.1", "127.0.0.1", "unknown", "127.0.0.1"),
        ("127.0.0.1", "127.0.0.1", "203.0.113.1, ", "127.0.0.1"),
        ("127.0.0.1", "127.0.0.1", '10.0.0.1" OR 1=1', "127.0.0.1"),
    ],
)
def test_address_is_taken_from_trusted_proxies_only(
    trusted: str, peer: str, forwarded: str | None, expected: str
) -> None:
    assert caller(trusted, peer, forwarded) == expected


@pytest.mark.parametrize("text", ["", "localhost", "10.0.0.0/40", "10.0.0.1/8", "127.0.0.1,,::1"])
def test_invalid_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_networks(text)
