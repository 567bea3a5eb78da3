"""How a webhook's bytes are read and written: go-auth's format on the one side, values and reasons on the other.

Bodies are JSON or form; `client_id` is taken for `clientid`, as other brokers' plugins spell it.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from functools import lru_cache
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs

from authsvc.policy.access import ACCESSES
from authsvc.policy.decision import Reason

if TYPE_CHECKING:
    from collections.abc import Mapping

    from authsvc.policy.guess_limit import Address

# A topic of 65,535 bytes may be spelled with six-byte JSON escapes throughout.
MAX_BODY = 512 * 1024
_MAX_FIELD_BYTES = 65_535
_MAX_USERNAME = 64
_SERIAL = re.compile("[0-9A-Fa-f]{1,64}")
_OK = b'{"ok":true,"error":""}'
_STATUS = {Reason.MALFORMED: 400, Reason.WRONG_WEBHOOK_SECRET: 401}


class WebhookRequest(NamedTuple):
    """What an adapter hands over: `check` is the last part of the path; `body` is at most MAX_BODY + 1 bytes.

    The three in the middle are as they came over HTTP, which lets none of them hold a line break. `host` is the `Host`
    header, empty if there was none; `from_browser` is whether a header came that browsers add and brokers do not send.
    """

    check: str
    query: bytes
    content_type: bytes
    authorization: bytes
    body: bytes
    host: bytes = b""
    from_browser: bool = False


class Answer(NamedTuple):
    """What the adapter sends back; `headers` as ASGI wants them."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class Malformed(Exception):
    """The request is none that go-auth could have sent."""


class Fields:
    """A request's fields, each read with the checks it needs; `Malformed` for what go-auth never sends."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._given = given

    def text(self, name: str) -> str:
        value = self._given.get(name)
        if not isinstance(value, str) or "\0" in value:
            raise Malformed(name)
        # A character is at least a byte, so only short enough text is worth encoding.
        if len(value) > _MAX_FIELD_BYTES or len(value.encode("utf-8", "surrogatepass")) > _MAX_FIELD_BYTES:
            raise Malformed(name)
        return value

    def username(self) -> str:
        username = self.text("username")
        if not 0 < len(username) <= _MAX_USERNAME:
            raise Malformed("username")
        return username

    def client_id(self) -> str:
        name = "clientid" if "clientid" in self._given else "client_id"
        return self.text(name) if name in self._given else ""

    def address(self) -> Address | None:
        """Return the client's IP address; None from a caller that does not tell it."""
        if "address" not in self._given:
            return None
        try:
            return ip_address(self.text("address"))
        except ValueError:
            raise Malformed("address") from None

    def certificate_serial(self) -> str | None:
        """Return the serial of the client's certificate; None from a caller that does not tell it."""
        if "certificateSerial" not in self._given:
            return None
        serial = self.text("certificateSerial")
        if not _SERIAL.fullmatch(serial):
            raise Malformed("certificateSerial")
        return serial

    def access(self) -> int:
        acc = self._given.get("acc")
        if type(acc) is not int or acc not in ACCESSES:
            raise Malformed("acc")
        return acc


def read_fields(request: WebhookRequest) -> Fields:
    """Return a body's fields, whichever form it has; `Malformed` when it has none."""
    if len(request.body) > MAX_BODY:
        raise Malformed("body")
    if request.content_type.startswith(b"application/x-www-form-urlencoded"):
        return Fields(_form(request.body))
    try:
        given = json.loads(request.body)
    except (ValueError, RecursionError):
        raise Malformed("body") from None
    if not isinstance(given, dict):
        raise Malformed("body")
    return Fields(given)


def _form(body: bytes) -> dict[str, str | int]:
    try:
        values = parse_qs(body.decode(), keep_blank_values=True, errors="replace", max_num_fields=20)
    except ValueError:
        raise Malformed("body") from None
    fields: dict[str, str | int] = {name: given[-1] for name, given in values.items()}
    acc = fields.get("acc")
    if acc in ("1", "2", "3", "4"):  # a form knows no numbers
        fields["acc"] = int(acc)
    return fields


@lru_cache(maxsize=64)  # a broker's configuration has a handful
def last_values(query: bytes) -> dict[str, str]:
    """Return what stands behind the `?`, the last value of each name."""
    try:
        return {name: given[-1] for name, given in parse_qs(query.decode("latin-1"), max_num_fields=20).items()}
    except ValueError:
        return {}


def basic_password(authorization: bytes) -> str:
    """Return the password of HTTP Basic; nothing when there is none."""
    scheme, _, encoded = authorization.partition(b" ")
    if scheme.lower() != b"basic":
        return ""
    try:
        return base64.b64decode(encoded, validate=True).decode().partition(":")[2]
    except (binascii.Error, ValueError):
        return ""


@lru_cache  # reasons are few, and so are answers
def render(allowed: bool, reason: Reason, *, text: bool) -> Answer:
    """Return the answer in the form that was asked for."""
    status = 200 if allowed else _STATUS.get(reason, 403)
    if text:
        content_type, body = b"text/plain", b"ok" if allowed else reason.encode()
    else:
        content_type = b"application/json"
        body = _OK if allowed else b'{"ok":false,"error":"%s"}' % reason.encode()
    return Answer(status, [(b"content-type", content_type), (b"content-length", b"%d" % len(body))], body)
