"""The broker's webhooks: one function from request bytes to a status and bytes.

It touches memory only, and whatever it is given it answers 2xx or 4xx: to go-auth a 5xx is an error, for which
the broker drops clients, even the publisher of a message that somebody else may not read.
Bodies are JSON or form, as go-auth sends them; `client_id` is taken for `clientid`.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
from datetime import UTC, datetime
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs

import structlog

from authsvc import metrics
from authsvc.access import ACCESSES, Access
from authsvc.decision import Decision, Denied, Reason
from authsvc.errors import InvalidInput
from authsvc.signals import unknown_username
from authsvc.usernames import is_username

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from authsvc.access import AccessControl

log = structlog.get_logger()

# A topic of 65,535 bytes may be spelled with six-byte JSON escapes throughout.
MAX_BODY = 512 * 1024
_MAX_FIELD_BYTES = 65_535
_MAX_USERNAME = 64
_OK = b'{"ok":true,"error":""}'
_STATUS = {Reason.MALFORMED: 400, Reason.WRONG_WEBHOOK_SECRET: 401}
_MALFORMED = Denied(Reason.MALFORMED)


class WebhookRequest(NamedTuple):
    """What an adapter hands over: `check` is the last part of the path; `body` is at most MAX_BODY + 1 bytes."""

    check: str
    query: str
    content_type: str
    authorization: str
    body: bytes


class Answer(NamedTuple):
    """What the adapter sends back."""

    status: int
    content_type: str
    body: bytes


class Malformed(Exception):
    """The request is none that go-auth could have sent."""


class Webhooks:
    """Answers `/auth/user`, `/auth/superuser` and `/auth/acl`."""

    def __init__(self, access: AccessControl, webhook_secret: str | None) -> None:
        self._access = access
        self._secret = webhook_secret.encode() if webhook_secret else None
        self._checks: dict[str, Callable[[Fields, Mapping[str, str]], Decision]] = {
            "user": self._user,
            "superuser": self._superuser,
            "acl": self._acl,
        }

    def answer(self, request: WebhookRequest) -> Answer:
        """Return the answer to any request whatever, and never raise."""
        started = perf_counter()
        query = _last_values(request.query)
        decision = self._decide(request, query)
        metrics.observe_decision(request.check, decision, perf_counter() - started)
        return _render(decision, text=query.get("response") == "text")

    def _decide(self, request: WebhookRequest, query: Mapping[str, str]) -> Decision:
        if not self._is_our_broker(request, query):
            return Denied(Reason.WRONG_WEBHOOK_SECRET)
        try:
            return self._checks[request.check](_fields(request), query)
        except (Malformed, InvalidInput):
            return _MALFORMED
        except Exception as error:  # noqa: BLE001 - a denial is the only answer left that harms nobody
            # Its words may repeat a password, so its name has to do.
            log.error("webhook failed", check=request.check, error=type(error).__name__)
            return Denied(Reason.INTERNAL_ERROR)

    def _user(self, fields: Fields, _query: Mapping[str, str]) -> Decision:
        username, password, client_id = fields.username(), fields.text("password"), fields.client_id()
        decision = self._access.may_log_in(username, password, datetime.now(UTC))
        if decision.reason is Reason.UNKNOWN_USER and is_username(username) and password:
            unknown_username.send(None, username=username, password=password, client_id=client_id)
        return decision

    def _superuser(self, fields: Fields, _query: Mapping[str, str]) -> Decision:
        fields.username()
        return Denied(Reason.NO_SUPERUSERS)

    def _acl(self, fields: Fields, query: Mapping[str, str]) -> Decision:
        by_certificate = query.get("grant") == "certificate"
        username, client_id, topic, access = (
            fields.username(),
            fields.client_id(),
            fields.text("topic"),
            fields.access(),
        )
        return self._access.may_access(username, client_id, topic, access, by_certificate=by_certificate)

    def _is_our_broker(self, request: WebhookRequest, query: Mapping[str, str]) -> bool:
        if self._secret is None:
            return True
        offered = query["key"] if "key" in query else _basic_password(request.authorization)
        return hmac.compare_digest(offered.encode("utf-8", "surrogatepass"), self._secret)


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

    def access(self) -> Access:
        acc = self._given.get("acc")
        if isinstance(acc, str) and len(acc) == 1 and acc in "1234":
            acc = int(acc)
        if type(acc) is not int or acc not in ACCESSES:
            raise Malformed("acc")
        return Access(acc)


def _fields(request: WebhookRequest) -> Fields:
    if len(request.body) > MAX_BODY:
        raise Malformed("body")
    if request.content_type.startswith("application/x-www-form-urlencoded"):
        return Fields(_form(request.body))
    try:
        given = json.loads(request.body)
    except (ValueError, RecursionError):
        raise Malformed("body") from None
    if not isinstance(given, dict):
        raise Malformed("body")
    return Fields(given)


def _form(body: bytes) -> dict[str, str]:
    try:
        values = parse_qs(body.decode(), keep_blank_values=True, errors="replace", max_num_fields=20)
    except ValueError:
        raise Malformed("body") from None
    return {name: given[-1] for name, given in values.items()}


def _last_values(query: str) -> dict[str, str]:
    if not query:
        return {}
    try:
        return {name: given[-1] for name, given in parse_qs(query, max_num_fields=20).items()}
    except ValueError:
        return {}


def _basic_password(authorization: str) -> str:
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(encoded, validate=True).decode().partition(":")[2]
    except (binascii.Error, ValueError):
        return ""


def _render(decision: Decision, *, text: bool) -> Answer:
    if decision:
        return Answer(200, "text/plain", b"ok") if text else Answer(200, "application/json", _OK)
    status = _STATUS.get(decision.reason, 403)
    if text:
        return Answer(status, "text/plain", decision.reason.encode())
    return Answer(status, "application/json", b'{"ok":false,"error":"%s"}' % decision.reason.encode())
