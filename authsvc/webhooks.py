"""The broker's webhooks: one function from request bytes to a status and bytes.

It touches memory only, and whatever it is given it answers 2xx or 4xx: to go-auth a 5xx is an error, for which
the broker drops clients, even the publisher of a message that somebody else may not read.
Bodies are JSON or form, as go-auth sends them; `client_id` is taken for `clientid`.
"""

from __future__ import annotations

import base64
import binascii
import concurrent.futures
import hashlib
import hmac
import json
import secrets
from concurrent.futures import Future
from datetime import UTC, datetime
from functools import lru_cache
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs

import structlog

from authsvc import metrics
from authsvc.access import ACCESSES, decided
from authsvc.decision import Decision, Denied, Reason
from authsvc.errors import InvalidInput
from authsvc.hashing import Allowance
from authsvc.signals import unknown_username
from authsvc.usernames import is_username

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from authsvc.access import AccessControl
    from authsvc.passwords import Verdict

log = structlog.get_logger()

# A topic of 65,535 bytes may be spelled with six-byte JSON escapes throughout.
MAX_BODY = 512 * 1024
_MAX_FIELD_BYTES = 65_535
_MAX_USERNAME = 64
_OK = b'{"ok":true,"error":""}'
_STATUS = {Reason.MALFORMED: 400, Reason.WRONG_WEBHOOK_SECRET: 401}
# Of logins only those by a right password last: tokens expire, and of strangers each attempt is to be heard.
_LASTING = frozenset(
    {
        Reason.PASSWORD,
        Reason.PERMISSION,
        Reason.NO_PERMISSION,
        Reason.DENIED_BY_PERMISSION,
        Reason.SHARE_REACHES_DENIED,
    }
)
_MALFORMED = Denied(Reason.MALFORMED)
_STILL_VERIFYING: Decision = Denied(Reason.VERIFYING)


class WebhookRequest(NamedTuple):
    """What an adapter hands over: `check` is the last part of the path; `body` is at most MAX_BODY + 1 bytes.

    The three in the middle are as they came over HTTP, which lets none of them hold a line break.
    """

    check: str
    query: bytes
    content_type: bytes
    authorization: bytes
    body: bytes


class Answer(NamedTuple):
    """What the adapter sends back; `headers` as ASGI wants them."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class Remembered(NamedTuple):
    """An answer that holds as long as policy stays at this version."""

    version: int
    decision: Decision
    answer: Answer


class Unfinished(NamedTuple):
    """A login that takes a hash: wait for `future`, for at most `patience` seconds, then `finish`."""

    check: str
    future: Future[Verdict]
    patience: float
    started: float
    text: bool


class Malformed(Exception):
    """The request is none that go-auth could have sent."""


class Webhooks:
    """Answers `/auth/user`, `/auth/superuser` and `/auth/acl`.

    A decision that depends on nothing but the request and the policy is remembered with the policy version it was made
    at, so the same question is decided once a version: devices ask the same few things over and over.
    """

    def __init__(
        self, access: AccessControl, webhook_secret: str | None, connect_budget: float, max_remembered: int
    ) -> None:
        self._access = access
        self._secret = webhook_secret.encode() if webhook_secret else None
        self._allowance = Allowance(connect_budget)
        self._remembered: dict[bytes, Remembered] = {}
        self._max_remembered = max_remembered
        self._memory_key = secrets.token_bytes(32)
        self._checks: dict[str, Callable[[Fields, Mapping[str, str]], Decision | Future[Verdict]]] = {
            "user": self._user,
            "superuser": self._superuser,
            "acl": self._acl,
        }

    def answer(self, request: WebhookRequest) -> Answer:
        """Return the answer to any request whatever, and never raise; waits for a hash while brokers may wait."""
        begun = self.begin(request)
        if isinstance(begun, Answer):
            return begun
        concurrent.futures.wait([begun.future], begun.patience)
        return self.finish(begun)

    def begin(self, request: WebhookRequest) -> Answer | Unfinished:
        """Answer at once, or return what is to be waited for, so long and no longer, before `finish`; never raises."""
        started = perf_counter()
        key = self._key(request)
        version = self._access.policy_version
        known = self._remembered.get(key)
        if known is not None and known.version == version:
            metrics.observe_decision(request.check, known.decision, perf_counter() - started)
            return known.answer
        query = _last_values(request.query)
        decision = self._decide(request, query)
        text = query.get("response") == "text"
        if isinstance(decision, Future):
            return Unfinished(request.check, decision, self._allowance.left(), started, text)
        answer = _render(bool(decision), decision.reason, text=text)
        if decision.reason in _LASTING and query.get("grant") != "certificate":
            self._remember(key, Remembered(version, decision, answer))
        metrics.observe_decision(request.check, decision, perf_counter() - started)
        return answer

    def forget(self) -> None:
        """Decide everything anew, so that what is noted behind a decision is noted again."""
        self._remembered.clear()

    def _key(self, request: WebhookRequest) -> bytes:
        """Return what stands for a request whole, password and secret included, and tells nothing of them."""
        check, query, content_type, authorization, body = request
        whole = b"\n".join((check.encode(), query, content_type, authorization, body))
        return hashlib.blake2b(whole, key=self._memory_key, digest_size=16).digest()

    def _remember(self, key: bytes, answer: Remembered) -> None:
        if len(self._remembered) >= self._max_remembered:
            self._remembered.clear()
        self._remembered[key] = answer

    def finish(self, begun: Unfinished) -> Answer:
        """Answer by the hash's verdict if it is there by now; otherwise refuse for the moment, while it goes on."""
        spent = perf_counter() - begun.started
        self._allowance.spend(spent)
        decision = _STILL_VERIFYING
        if begun.future.done():
            decision = Denied(Reason.INTERNAL_ERROR) if begun.future.exception() else decided(begun.future.result())
        metrics.observe_decision(begun.check, decision, spent)
        return _render(bool(decision), decision.reason, text=begun.text)

    def _decide(self, request: WebhookRequest, query: Mapping[str, str]) -> Decision | Future[Verdict]:
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

    def _user(self, fields: Fields, _query: Mapping[str, str]) -> Decision | Future[Verdict]:
        username, password, client_id = fields.username(), fields.text("password"), fields.client_id()
        decision = self._access.may_log_in(username, password, datetime.now(UTC))
        if isinstance(decision, Future):
            return decision
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

    def access(self) -> int:
        acc = self._given.get("acc")
        if isinstance(acc, str) and len(acc) == 1 and acc in "1234":
            acc = int(acc)
        if type(acc) is not int or acc not in ACCESSES:
            raise Malformed("acc")
        return acc


def _fields(request: WebhookRequest) -> Fields:
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


def _form(body: bytes) -> dict[str, str]:
    try:
        values = parse_qs(body.decode(), keep_blank_values=True, errors="replace", max_num_fields=20)
    except ValueError:
        raise Malformed("body") from None
    return {name: given[-1] for name, given in values.items()}


@lru_cache(maxsize=64)  # a broker's configuration has a handful
def _last_values(query: bytes) -> dict[str, str]:
    try:
        return {name: given[-1] for name, given in parse_qs(query.decode("latin-1"), max_num_fields=20).items()}
    except ValueError:
        return {}


def _basic_password(authorization: bytes) -> str:
    scheme, _, encoded = authorization.partition(b" ")
    if scheme.lower() != b"basic":
        return ""
    try:
        return base64.b64decode(encoded, validate=True).decode().partition(":")[2]
    except (binascii.Error, ValueError):
        return ""


@lru_cache  # reasons are few, and so are answers
def _render(allowed: bool, reason: Reason, *, text: bool) -> Answer:
    status = 200 if allowed else _STATUS.get(reason, 403)
    if text:
        content_type, body = b"text/plain", b"ok" if allowed else reason.encode()
    else:
        content_type = b"application/json"
        body = _OK if allowed else b'{"ok":false,"error":"%s"}' % reason.encode()
    return Answer(status, [(b"content-type", content_type), (b"content-length", b"%d" % len(body))], body)
