"""Which `Host` headers name this machine's own loopback."""

from __future__ import annotations

import pytest

from authsvc.addresses import is_loopback_header


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
def test_loopback_is_recognised_with_and_without_a_port(header: bytes) -> None:
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
def test_every_other_name_is_not_loopback(header: bytes) -> None:
    assert not is_loopback_header(header)
