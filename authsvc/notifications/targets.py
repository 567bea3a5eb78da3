"""The addresses of notifications: which URLs are valid, and to which hosts a webhook may be sent.

A webhook to this machine or to a private network could reach services that trust their own network. So an address is
checked when a notification is saved and at each attempt, and the connection goes to the address that was checked.
"""

from __future__ import annotations

import re
import socket
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import urlsplit

from authsvc.addresses import is_public
from authsvc.errors import invalid
from authsvc.settings import MAIL_ADDRESS

MAX_URL = 2000
_MAILTO = "mailto:"
_PORTS = {"http": 80, "https": 443}
_PRINTABLE_ASCII = re.compile(r"[!-~]+")
_HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+")
_DISCARD_PORT = 9


class DeliveryError(Exception):
    """A message could not be delivered. The text contains no part of a URL and no secret."""


class RefusedAddress(DeliveryError):
    """The address belongs to this machine or to a private network."""


class Webhook(NamedTuple):
    """The parts of a webhook's URL; `path` includes the query."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """The host, in brackets if it is an IPv6 address, with a port that is not the scheme's own."""
        host = bracketed(self.host)
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


def mail_address(url: str) -> str | None:
    """Return the address of a `mailto:` URL; None for a webhook."""
    return url[len(_MAILTO) :] if url.lower().startswith(_MAILTO) else None


def webhook(url: str) -> Webhook:
    """Return the parts of a webhook's URL; `InvalidInput` if it is none."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise invalid("url", "must be a valid URL") from None
    if parts.scheme not in _PORTS or not _PRINTABLE_ASCII.fullmatch(url):
        raise invalid("url", "must begin with https://, http:// or mailto: and contain only printable ASCII characters")
    if "@" in parts.netloc:
        raise invalid("url", "must contain no username and password; the signature authenticates the message")
    if not _HOST.fullmatch(parts.hostname or "") or port == 0:
        raise invalid("url", "must contain a host name or an IP address, such as https://hooks.example.com/authsvc")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Webhook(parts.scheme, parts.hostname or "", port or _PORTS[parts.scheme], path)


def check(url: str, *, allow_private: bool, can_mail: bool) -> None:
    """Raise `InvalidInput` unless a notification may have this URL. A host name without an address is accepted."""
    if len(url) > MAX_URL:
        raise invalid("url", f"must have at most {MAX_URL} characters")
    address = mail_address(url)
    if address is None:
        parts = webhook(url)
        try:
            resolve(parts.host, parts.port, allow_private=allow_private)
        except RefusedAddress as error:
            raise invalid("url", str(error)) from None
        except DeliveryError:
            pass  # DNS may be unavailable now; each attempt resolves the name again
    elif not MAIL_ADDRESS.fullmatch(address):
        raise invalid("url", "must contain one mail address, such as mailto:operator@plant.example")
    elif not can_mail:
        raise invalid("url", "needs a mail server; set AUTHSVC_SMTP_URL")


def resolve(host: str, port: int, *, allow_private: bool) -> list[str]:
    """Return the IP addresses of a host; `RefusedAddress` if one of them is not allowed."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise DeliveryError("the host name of the URL has no address") from None
    addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
    if not allow_private:
        for address in addresses:
            if not is_public(address) or _is_own(address):
                raise RefusedAddress(
                    "leads to this machine or to a private network; "
                    "to allow such addresses, start authsvc with AUTHSVC_NOTIFY_PRIVATE=yes"
                )
    return addresses


def bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _is_own(address: str) -> bool:
    """Return whether a public address belongs to this machine. Nothing is sent."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        # Linux sends to an address of its own from that same address.
        probe.connect((address, _DISCARD_PORT))
        return bool(probe.getsockname()[0] == address)
    return False
