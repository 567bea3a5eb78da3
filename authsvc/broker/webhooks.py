"""The broker's webhooks: one function from request bytes to a status and bytes.

It touches memory only, and whatever it is given it answers 2xx or 4xx: to go-auth a 5xx is an error, for which
the broker drops clients, even the publisher of a message that somebody else may not read.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import hmac
import secrets
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

import structlog

from authsvc.addresses import is_loopback_header
from authsvc.broker.goauth_protocol import Answer, Malformed, basic_password, last_values, read_fields, render
from authsvc.broker.signals import unknown_username
from authsvc.credentials.passwords import Verdict
from authsvc.credentials.usernames import is_username
from authsvc.errors import InvalidInput
from authsvc.observability import metrics
from authsvc.policy.decision import Decision, Denial, Denied, Reason, denial_of
from authsvc.policy.guess_limit import Login

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from authsvc.broker.goauth_protocol import Fields, WebhookRequest
    from authsvc.credentials.hashing import WaitBudget
    from authsvc.policy.access import AccessControl

log = structlog.get_logger()


class CachedResponse(NamedTuple):
    """An answer that holds as long as the policy snapshot stays in this generation."""

    generation: int
    decision: Decision
    answer: Answer
    denial: Denial | None = None
    login: Login | None = None


class Decided(NamedTuple):
    """A decision, and whether it holds until policy changes: a decision that depends on the time does not.

    `denial` is what to note of it, each time that it is given. `login` is set of a login that was allowed by its
    password: it does not hold while the limit for wrong passwords is reached.
    """

    decision: Decision
    lasting: bool = False
    denial: Denial | None = None
    login: Login | None = None


class Hashing(NamedTuple):
    """A login that takes a hash, and whether the user has logged in with its client id before."""

    login: Login
    future: Future[Verdict]
    known: bool


_MAX_REMEMBERED_TOPIC = 256

_MALFORMED = Decided(Denied(Reason.MALFORMED))
_STILL_VERIFYING = Decided(Denied(Reason.VERIFYING))


class PendingLogin(NamedTuple):
    """A login that takes a hash: wait for `future`, for at most `patience` seconds, then `finish`.

    The wait is taken off `allowance`.
    """

    request: WebhookRequest
    login: Login
    future: Future[Verdict]
    patience: float
    started: float
    allowance: WaitBudget


class WaitBudgets(NamedTuple):
    """How long brokers may wait for hashes: of logins with a client id that the user has logged in with, and others.

    Apart, so that guesses use up nothing of what is for the devices that a user is known to have.
    """

    known: WaitBudget
    unknown: WaitBudget


@dataclass(slots=True)
class AnswerCounters:
    """How many answers came from memory, and how many did not, since the process started."""

    hits: int = 0
    misses: int = 0


class Webhooks:
    """Answers `/auth/user`, `/auth/superuser` and `/auth/acl`.

    A decision that depends on nothing but the request and the policy is remembered with the generation of the policy
    snapshot it was made with, so the same question is decided once a generation: devices ask the same few things over
    and over.
    """

    def __init__(
        self,
        access: AccessControl,
        note_denial: Callable[[Denial], None],
        webhook_secret: str | None,
        allowances: WaitBudgets,
        max_remembered: int,
        *,
        on_loopback: bool,
    ) -> None:
        self._access = access
        self._note_denial = note_denial
        self._secret = webhook_secret.encode() if webhook_secret else None
        self._on_loopback = on_loopback
        self._allowances = allowances
        self.counters = AnswerCounters()
        self._remembered: dict[bytes, CachedResponse] = {}
        self._max_remembered = max_remembered
        self._memory_key = secrets.token_bytes(32)
        self._checks: dict[str, Callable[[Fields, Mapping[str, str]], Decided | Hashing]] = {
            "user": self._user,
            "superuser": self._superuser,
            "acl": self._acl,
        }

    @property
    def entries(self) -> int:
        """How many answers are remembered, those of former generations included."""
        return len(self._remembered)

    def answer(self, request: WebhookRequest) -> Answer:
        """Return the answer to any request whatever, and never raise; waits for a hash while brokers may wait."""
        begun = self.begin(request)
        if isinstance(begun, Answer):
            return begun
        concurrent.futures.wait([begun.future], begun.patience)
        return self.finish(begun)

    def begin(self, request: WebhookRequest) -> Answer | PendingLogin:
        """Answer at once, or return what is to be waited for, so long and no longer, before `finish`; never raises."""
        started = perf_counter()
        refused = self._refused(request)
        if refused is not None:
            metrics.observe_decision(request.check, refused, perf_counter() - started)
            return _rendered(request, refused)
        key = self._key(request)
        generation = self._access.policy_generation
        known = self._remembered.get(key)
        if known is not None and known.generation == generation and not self._is_throttled(known.login):
            self.counters.hits += 1
            if known.denial:
                self._note_denial(known.denial)
            metrics.observe_decision(request.check, known.decision, perf_counter() - started)
            return known.answer
        self.counters.misses += 1
        decided = self._decide(request)
        if isinstance(decided, Hashing):
            allowance = self._allowances.known if decided.known else self._allowances.unknown
            patience = allowance.left_for(decided.future)
            return PendingLogin(request, decided.login, decided.future, patience, started, allowance)
        answer = _rendered(request, decided.decision)
        if decided.lasting:
            self._remember(key, CachedResponse(generation, decided.decision, answer, decided.denial, decided.login))
        if decided.denial:
            self._note_denial(decided.denial)
        metrics.observe_decision(request.check, decided.decision, perf_counter() - started)
        return answer

    def finish(self, begun: PendingLogin) -> Answer:
        """Answer by the hash if it is there by now, with the policy as it is by then; otherwise refuse for now."""
        spent = perf_counter() - begun.started
        begun.allowance.spend(spent)
        decided = self._decide_hashed(begun) if begun.future.done() else _STILL_VERIFYING
        if decided.denial:
            self._note_denial(decided.denial)
        metrics.observe_decision(begun.request.check, decided.decision, spent)
        return _rendered(begun.request, decided.decision)

    def _decide_hashed(self, begun: PendingLogin) -> Decided:
        if begun.future.exception() is None and begun.future.result() is Verdict.WRONG:
            # Not decided again: it would be refused as one too many, if it was the last within the limit.
            decision = Denied(Reason.WRONG_PASSWORD)
            return Decided(decision, denial=denial_of(decision, begun.login.username, begun.login.client_id))
        decided = self._decide(begun.request)
        return _STILL_VERIFYING if isinstance(decided, Hashing) else decided

    def forget(self) -> None:
        """Decide everything anew, so that what is noted behind a decision is noted again."""
        self._remembered.clear()

    def _refused(self, request: WebhookRequest) -> Denied | None:
        """Return why a request comes from a browser, by its headers, or None; nobody means to ask from there."""
        if request.from_browser:
            return Denied(Reason.BROWSER_REQUEST)
        # A web page does not know the secret, and a proxy that does may pass on a `Host` of its own.
        if self._on_loopback and self._secret is None and not is_loopback_header(request.host):
            return Denied(Reason.UNKNOWN_HOST)
        return None

    def _key(self, request: WebhookRequest) -> bytes:
        """Return what stands for a request whole, password and secret included, and tells nothing of them."""
        check, query, content_type, authorization, body, *_ = request
        whole = b"\n".join((check.encode(), query, content_type, authorization, body))
        return hashlib.blake2b(whole, key=self._memory_key, digest_size=16).digest()

    def _remember(self, key: bytes, answer: CachedResponse) -> None:
        if len(self._remembered) >= self._max_remembered:
            self._remembered.clear()
        self._remembered[key] = answer

    def _decide(self, request: WebhookRequest) -> Decided | Hashing:
        query = last_values(request.query)
        if not self._is_our_broker(request, query):
            return Decided(Denied(Reason.WRONG_WEBHOOK_SECRET))
        try:
            return self._checks[request.check](read_fields(request), query)
        except (Malformed, InvalidInput):
            return _MALFORMED
        except Exception as error:  # noqa: BLE001 - a denial is the only answer left that harms nobody
            # Its words may repeat a password, so its name has to do.
            log.error("webhook failed", check=request.check, error=type(error).__name__)
            return Decided(Denied(Reason.INTERNAL_ERROR))

    def _is_throttled(self, login: Login | None) -> bool:
        return login is not None and self._access.guess_limit.refuses(login)

    def _user(self, fields: Fields, _query: Mapping[str, str]) -> Decided | Hashing:
        username, password, client_id = fields.username(), fields.text("password"), fields.client_id()
        fields.certificate_serial()  # not needed to decide, but refused if it is none
        login = Login(username, client_id, fields.address())
        decision = self._access.may_log_in(username, client_id, password, datetime.now(UTC), login.address)
        if isinstance(decision, Future):
            return Hashing(login, decision, self._access.knows(login))
        if decision.reason is Reason.UNKNOWN_USER and is_username(username) and password:
            unknown_username.send(None, username=username, password=password, client_id=client_id)
        denial = denial_of(decision, username, client_id)
        # Tokens expire, wrong passwords are counted, and the registry must see each attempt by an unknown username.
        return Decided(decision, decision.reason is Reason.PASSWORD, denial, login)

    def _superuser(self, fields: Fields, _query: Mapping[str, str]) -> Decided:
        fields.username()
        return Decided(Denied(Reason.NO_SUPERUSERS))

    def _acl(self, fields: Fields, query: Mapping[str, str]) -> Decided:
        by_certificate = query.get("grant") == "certificate"
        username, client_id = fields.username(), fields.client_id()
        fields.address(), fields.certificate_serial()  # not needed to decide, but refused if they are none
        topic, access = fields.text("topic"), fields.access()
        decision = self._access.may_access(username, client_id, topic, access, by_certificate=by_certificate)
        denial = denial_of(decision, username, client_id, topic, access)
        # Certificates expire; and memory is for answers by the thousand, not for topics of thousands of characters.
        lasting = not by_certificate and not (denial and len(topic) > _MAX_REMEMBERED_TOPIC)
        return Decided(decision, lasting, denial)

    def _is_our_broker(self, request: WebhookRequest, query: Mapping[str, str]) -> bool:
        if self._secret is None:
            return True
        offered = query["key"] if "key" in query else basic_password(request.authorization)
        return hmac.compare_digest(offered.encode("utf-8", "surrogatepass"), self._secret)


def _rendered(request: WebhookRequest, decision: Decision) -> Answer:
    text = last_values(request.query).get("response") == "text"
    return render(bool(decision), decision.reason, text=text)
