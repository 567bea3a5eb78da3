"""The HTTP format of go-auth's requests and answers.

Bodies are JSON or a form. `client_id` is accepted for `clientid`, because other brokers' plugins send it.
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

from authsvc.credentials.usernames import MAX_USERNAME
from authsvc.policy.access import ACCESSES
from authsvc.policy.decision import Reason

if TYPE_CHECKING:
    from collections.abc import Mapping

    from authsvc.policy.guess_limit import Address

# JSON may escape each of the 65,535 bytes of a topic with six characters.
MAX_BODY = 512 * 1024
_MAX_FIELD_BYTES = 65_535
_SERIAL = re.compile("[0-9A-Fa-f]{1,64}")
_OK = b'{"ok":true,"error":""}'
_STATUS = {Reason.MALFORMED: 400, Reason.WRONG_WEBHOOK_SECRET: 401}


class WebhookRequest(NamedTuple):
    """One HTTP request of a broker. `check` is the last part of the path; `body` has at most MAX_BODY + 1 bytes.

    `query`, `content_type` and `authorization` are unchanged; HTTP allows no line break in them. `host` is the `Host`
    header, empty if there is none. `from_browser` says that the request has a header that only browsers send,
    `from_plugin` that it comes from authsvc's own plugin, whose logins are answered with the user's state.
    """

    check: str
    query: bytes
    content_type: bytes
    authorization: bytes
    body: bytes
    host: bytes = b""
    from_browser: bool = False
    from_plugin: bool = False


class Answer(NamedTuple):
    """One HTTP answer; `headers` in the form of ASGI."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class Malformed(Exception):
    """The request is not one that go-auth can send."""


class Fields:
    """The fields of a request; each method returns a checked value or raises `Malformed`."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._given = given

    def text(self, name: str) -> str:
        value = self._given.get(name)
        if not isinstance(value, str) or "\0" in value:
            raise Malformed(name)
        # A character has at least one byte, so longer text need not be encoded to be refused.
        if len(value) > _MAX_FIELD_BYTES or len(value.encode("utf-8", "surrogatepass")) > _MAX_FIELD_BYTES:
            raise Malformed(name)
        return value

    def username(self) -> str:
        username = self.text("username")
        if not 0 < len(username) <= MAX_USERNAME:
            raise Malformed("username")
        return username

    def client_id(self) -> str:
        name = "clientid" if "clientid" in self._given else "client_id"
        return self.text(name) if name in self._given else ""

    def address(self) -> Address | None:
        """Return the client's IP address; None if the broker does not send it."""
        if "address" not in self._given:
            return None
        try:
            return ip_address(self.text("address"))
        except ValueError:
            raise Malformed("address") from None

    def certificate_serial(self) -> str | None:
        """Return the serial of the client's certificate; None if the broker does not send it."""
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


def parse_fields(request: WebhookRequest) -> Fields:
    """Return the fields of a JSON or form body; `Malformed` if it is neither."""
    if len(request.body) > MAX_BODY:
        raise Malformed("body")
    if request.content_type.startswith(b"application/x-www-form-urlencoded"):
        return Fields(_parse_form(request.body))
    try:
        given = json.loads(request.body)
    except (ValueError, RecursionError):
        raise Malformed("body") from None
    if not isinstance(given, dict):
        raise Malformed("body")
    return Fields(given)


def _parse_form(body: bytes) -> dict[str, str | int]:
    try:
        values = parse_qs(body.decode(), keep_blank_values=True, errors="replace", max_num_fields=20)
    except ValueError:
        raise Malformed("body") from None
    fields: dict[str, str | int] = {name: given[-1] for name, given in values.items()}
    acc = fields.get("acc")
    if acc in ("1", "2", "3", "4"):  # a form has only text
        fields["acc"] = int(acc)
    return fields


@lru_cache(maxsize=64)  # a broker's configuration has a few different ones
def parse_query(query: bytes) -> dict[str, str]:
    """Return the query parameters, the last value of each name; none if there are more than 20."""
    try:
        return {name: given[-1] for name, given in parse_qs(query.decode("latin-1"), max_num_fields=20).items()}
    except ValueError:
        return {}


def basic_password(authorization: bytes) -> str:
    """Return the password of HTTP Basic; empty if there is none."""
    scheme, _, encoded = authorization.partition(b" ")
    if scheme.lower() != b"basic":
        return ""
    try:
        return base64.b64decode(encoded, validate=True).decode().partition(":")[2]
    except (binascii.Error, ValueError):
        return ""


@lru_cache  # there are few reasons, and so few answers
def render(allowed: bool, reason: Reason, *, text: bool) -> Answer:
    """Return the answer as text or JSON."""
    status = 200 if allowed else _STATUS.get(reason, 403)
    if text:
        content_type, body = b"text/plain", b"ok" if allowed else reason.encode()
    else:
        content_type = b"application/json"
        body = _OK if allowed else b'{"ok":false,"error":"%s"}' % reason.encode()
    return Answer(status, [(b"content-type", content_type), (b"content-length", b"%d" % len(body))], body)


def json_answer(status: int, body: bytes) -> Answer:
    """Return an answer with this JSON body."""
    return Answer(status, [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))], body)
