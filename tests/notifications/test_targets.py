"""Which addresses a notification may have."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest

from authsvc.addresses import is_public
from authsvc.errors import InvalidInput
from authsvc.notifications import targets
from authsvc.notifications.targets import DeliveryError, RefusedAddress

if TYPE_CHECKING:
    from collections.abc import Callable

PUBLIC = "93.184.215.14"


@pytest.fixture
def resolves_to(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function that sets the addresses of every host name."""

    def resolve(*addresses: str) -> None:
        def found(_host: str, port: int, **_: Any) -> list[Any]:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

        monkeypatch.setattr(socket, "getaddrinfo", found)

    return resolve


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.9.9.9", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254"),
        *("100.64.0.1", "192.0.0.1", "198.18.0.1", "203.0.113.7", "224.0.0.1", "240.0.0.1", "255.255.255.255"),
        *("::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "fec0::1", "ff02::1", "2001:db8::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1"),
        *("64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::1", "2002:7f00:1::", "2002:a00:1::1", "2001::1"),
    ],
)
def test_address_of_this_machine_or_a_private_network_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", [PUBLIC, "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]
)
def test_address_of_the_internet_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        *("http://127.0.0.1/x", "http://localhost:9000", "https://[::1]/", "http://[::ffff:127.0.0.1]:80/"),
        *("http://127.1/", "http://2130706433/", "http://0x7f.0.0.1/", "http://0/", "http://169.254.169.254/latest"),
        *("http://10.0.0.1/", "https://192.168.0.7:8443/hook", "http://[fe80::1]/", "http://[fd00::1]/"),
    ],
)
def test_webhook_to_a_private_address_is_refused_unless_allowed(url: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        targets.check(url, allow_private=False, can_mail=True)
    assert refused.value.errors[0].field == "url"
    assert "AUTHSVC_NOTIFY_PRIVATE=yes" in refused.value.message
    targets.check(url, allow_private=True, can_mail=True)


def test_name_with_any_private_address_is_refused(resolves_to: Callable[..., None]) -> None:
    resolves_to(PUBLIC)
    targets.check("https://hooks.example.com/", allow_private=False, can_mail=False)
    assert targets.resolve("hooks.example.com", 443, allow_private=False) == [PUBLIC]
    for addresses in (["10.0.0.1"], [PUBLIC, "127.0.0.1"], ["::ffff:127.0.0.1"]):
        resolves_to(*addresses)
        with pytest.raises(RefusedAddress):
            targets.resolve("hooks.example.com", 443, allow_private=False)
        assert targets.resolve("hooks.example.com", 443, allow_private=True) == addresses


def test_public_address_of_this_machine_is_refused(
    monkeypatch: pytest.MonkeyPatch, resolves_to: Callable[..., None]
) -> None:
    resolves_to("127.0.0.1")
    monkeypatch.setattr(targets, "is_public", lambda _: True)
    with pytest.raises(RefusedAddress):
        targets.resolve("own.example.com", 443, allow_private=False)


def test_name_without_an_address_is_accepted_and_fails_at_delivery(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    targets.check("https://hooks.example.com/", allow_private=False, can_mail=False)
    with pytest.raises(DeliveryError, match="has no address"):
        targets.resolve("hooks.example.com", 443, allow_private=False)


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            "hooks.example.com",
            "ftp://example.com/",
            "file:///etc/passwd",
            "https://",
            "https:///x",
            "//example.com",
        ),
        *("https://user:secret@example.com/", "https://user@example.com/", "http://example.com:x/", "http://a:70000/"),
        *(
            "http://example.com:0/",
            "http://[::1/",
            "http://exa mple.com/",
            "http://example.com/a b",
            "http://ex\n.com/",
        ),
        *("http://münchen.example/", "http://example.com/\r\nX: y", "http://[fe80::1%25eth0]/", "http://" + "a" * 3000),
        *("mailto:", "mailto:operator", "mailto:a@b,c@d", "mailto:a@b?cc=c@d", "mailto:a@b\r\nBcc: c@d"),
        *("mailto:<a@b>", "mailto:a b@c", "mailto:a@b c", "mailto:ö@example.com", "mailto:a@b@c"),
    ],
)
def test_malformed_url_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        targets.check(url, allow_private=True, can_mail=True)
    assert refused.value.errors[0].field == "url"


def test_mail_address_needs_a_mail_server() -> None:
    targets.check("mailto:operator+1@plant.example", allow_private=False, can_mail=True)
    with pytest.raises(InvalidInput, match="AUTHSVC_SMTP_URL"):
        targets.check("mailto:operator@plant.example", allow_private=False, can_mail=False)


def test_parts_of_a_webhook_url() -> None:
    parts = targets.webhook("https://Hooks.Example.com:8443/a?b=c#d")
    assert parts == ("https", "hooks.example.com", 8443, "/a?b=c")
    assert parts.authority == "hooks.example.com:8443"
    assert targets.webhook("http://[2606:4700::1111]").authority == "[2606:4700::1111]"
