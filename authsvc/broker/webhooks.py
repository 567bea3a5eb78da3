"""The broker's webhooks, independent of the HTTP server: a `WebhookRequest` in, an `Answer` out.

They use memory only and answer every request with 2xx or 4xx. For go-auth a 5xx is an error upon which the broker
drops clients, even the publisher of a message that another client may not read.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import hmac
import secrets
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

import structlog

from authsvc.addresses import is_loopback_header
from authsvc.broker.goauth_protocol import (
    Answer,
    Malformed,
    basic_password,
    json_answer,
    parse_fields,
    parse_query,
    render,
)
from authsvc.broker.signals import unknown_username
from authsvc.credentials.passwords import Verdict
from authsvc.credentials.usernames import MAX_USERNAME
from authsvc.errors import InvalidInput
from authsvc.observability import metrics
from authsvc.policy.decision import Decision, Denial, Denied, Reason, denial_of
from authsvc.policy.guess_limit import Login

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from authsvc.broker.goauth_protocol import Fields, WebhookRequest
    from authsvc.broker.plugin_protocol import UserStates
    from authsvc.credentials.hashing import WaitBudget
    from authsvc.policy.access import AccessControl

log = structlog.get_logger()


class CachedResponse(NamedTuple):
    """An answer that is valid for one generation of the policy snapshot."""

    generation: int
    answer: Answer
    decided: Decided


class Decided(NamedTuple):
    """A decision, and whether it may be cached until the policy changes.

    `denial` is recorded each time that the answer is given. `login` is set for logins: a cached answer is not used
    while the limit of wrong passwords is reached.
    """

    decision: Decision
    cacheable: bool = False
    denial: Denial | None = None
    login: Login | None = None


class HashNeeded(NamedTuple):
    """A login whose password is being hashed, and whether the user has logged in with this client id before."""

    login: Login
    future: Future[Verdict]
    known: bool


_MAX_CACHED_TOPIC = 256

_MALFORMED = Decided(Denied(Reason.MALFORMED))
_STILL_VERIFYING = Decided(Denied(Reason.VERIFYING))


class PendingLogin(NamedTuple):
    """A login whose password is being hashed: wait for `future`, at most `patience` seconds, then call `finish`.

    `finish` subtracts the wait from `budget`.
    """

    request: WebhookRequest
    login: Login
    future: Future[Verdict]
    patience: float
    started: float
    budget: WaitBudget


class WaitBudgets(NamedTuple):
    """How long brokers may wait for hashes, separately for known and unknown client ids of the user.

    So password guesses with other client ids do not use up the budget of known devices.
    """

    known: WaitBudget
    unknown: WaitBudget


@dataclass(slots=True)
class AnswerCounters:
    """The number of answers from the cache (hits) and of others (misses) since the process started."""

    hits: int = 0
    misses: int = 0


class Webhooks:
    """Answers `/auth/user`, `/auth/superuser` and `/auth/acl`.

    An answer that depends only on the request and the policy is cached for one generation of the policy snapshot,
    because devices repeat the same few requests.
    """

    def __init__(
        self,
        access: AccessControl,
        user_states: UserStates,
        record_denial: Callable[[Denial], None],
        webhook_secret: str | None,
        budgets: WaitBudgets,
        max_cached: int,
        *,
        on_loopback: bool,
    ) -> None:
        self._access = access
        self._user_states = user_states
        self._record_denial = record_denial
        self._secret = webhook_secret.encode() if webhook_secret else None
        self._on_loopback = on_loopback
        self._budgets = budgets
        self.counters = AnswerCounters()
        self._cache: dict[bytes, CachedResponse] = {}
        self._max_cached = max_cached
        self._cache_key_secret = secrets.token_bytes(32)
        self._checks: dict[str, Callable[[Fields, Mapping[str, str]], Decided | HashNeeded]] = {
            "user": self._user,
            "superuser": self._superuser,
            "acl": self._acl,
        }

    @property
    def is_ready(self) -> bool:
        """Whether clients can be allowed, which needs a loaded policy; it may be old while the database is gone."""
        return self._access.is_ready

    @property
    def entries(self) -> int:
        """The number of cached answers, including those of former generations."""
        return len(self._cache)

    def answer(self, request: WebhookRequest) -> Answer:
        """Return the answer to a request; wait for a hash within the wait budget. It never raises."""
        answer = self.begin(request)
        if isinstance(answer, Answer):
            return answer
        concurrent.futures.wait([answer.future], answer.patience)
        return self.finish(answer)

    def begin(self, request: WebhookRequest) -> Answer | PendingLogin:
        """Return the answer, or a pending login to wait for and pass to `finish`. It never raises."""
        started = perf_counter()
        refused = self._refused(request)
        if refused is not None:
            return self._reply(request, Decided(refused), perf_counter() - started)
        key = self._cache_key(request)
        generation = self._access.policy_generation
        cached = self._cache.get(key)
        if cached is not None and cached.generation == generation and not self._is_throttled(cached.decided.login):
            self.counters.hits += 1
            return self._reply(request, cached.decided, perf_counter() - started, cached.answer)
        self.counters.misses += 1
        decided = self._decide(request)
        if isinstance(decided, HashNeeded):
            budget = self._budgets.known if decided.known else self._budgets.unknown
            patience = budget.left_for(decided.future)
            return PendingLogin(request, decided.login, decided.future, patience, started, budget)
        answer = self._reply(request, decided, perf_counter() - started)
        if decided.cacheable:
            if len(self._cache) >= self._max_cached:
                self._cache.clear()
            plain = _rendered(request, decided) if request.from_plugin else answer
            self._cache[key] = CachedResponse(generation, plain, decided)
        return answer

    def finish(self, pending: PendingLogin) -> Answer:
        """Return the answer by the hash and the current policy if the hash is done; otherwise "refused, try again"."""
        spent = perf_counter() - pending.started
        pending.budget.spend(spent)
        decided = self._decide_hashed(pending) if pending.future.done() else _STILL_VERIFYING
        return self._reply(pending.request, decided, spent)

    def _reply(self, request: WebhookRequest, decided: Decided, seconds: float, cached: Answer | None = None) -> Answer:
        """Record a decision and the seconds that it took; return its answer."""
        if decided.denial:
            self._record_denial(decided.denial)
        metrics.observe_decision(request.check, decided.decision, seconds)
        if request.from_plugin and decided.login and decided.decision.credential:
            return json_answer(
                HTTPStatus.OK, self._user_states.login_body(decided.login.username, decided.decision.credential)
            )
        return _rendered(request, decided) if cached is None else cached

    def _decide_hashed(self, pending: PendingLogin) -> Decided:
        if pending.future.exception() is None and pending.future.result() is Verdict.WRONG:
            # Deciding again would answer `throttled` if this password was the last within the limit.
            decision = Denied(Reason.WRONG_PASSWORD)
            return Decided(decision, denial=denial_of(decision, pending.login.username, pending.login.client_id))
        decided = self._decide(pending.request)
        return _STILL_VERIFYING if isinstance(decided, HashNeeded) else decided

    def clear_cache(self) -> None:
        """Drop all cached answers, so that the next decisions record their client ids again."""
        self._cache.clear()

    def refusal(self, request: WebhookRequest) -> Answer | None:
        """Return the answer to a request of a browser or without the webhook secret; None for one of a broker."""
        denied = self._refused(request)
        if denied is None and not self._is_our_broker(request, parse_query(request.query)):
            denied = Denied(Reason.WRONG_WEBHOOK_SECRET)
        return None if denied is None else render(False, denied.reason, text=False)

    def _refused(self, request: WebhookRequest) -> Denied | None:
        """Return the denial of a request that a browser has sent, by its headers, or None."""
        if request.from_browser:
            return Denied(Reason.BROWSER_REQUEST)
        # A web page does not know the secret. A proxy that does may send another `Host`.
        if self._on_loopback and self._secret is None and not is_loopback_header(request.host):
            return Denied(Reason.UNKNOWN_HOST)
        return None

    def _cache_key(self, request: WebhookRequest) -> bytes:
        """Return a keyed digest of the whole request, so that the cache holds no password or secret."""
        check, query, content_type, authorization, body, *_ = request
        whole = b"\n".join((check.encode(), query, content_type, authorization, body))
        return hashlib.blake2b(whole, key=self._cache_key_secret, digest_size=16).digest()

    def _decide(self, request: WebhookRequest) -> Decided | HashNeeded:
        query = parse_query(request.query)
        if not self._is_our_broker(request, query):
            return Decided(Denied(Reason.WRONG_WEBHOOK_SECRET))
        try:
            return self._checks[request.check](parse_fields(request), query)
        except (Malformed, InvalidInput):
            return _MALFORMED
        except Exception as error:  # noqa: BLE001 - any other answer than a denial could let a client in
            # The message of the exception may contain a password, so only its type is logged.
            log.error("webhook failed", check=request.check, error=type(error).__name__)
            return Decided(Denied(Reason.INTERNAL_ERROR))

    def _is_throttled(self, login: Login | None) -> bool:
        return login is not None and self._access.guess_limit.refuses(login)

    def _user(self, fields: Fields, _query: Mapping[str, str]) -> Decided | HashNeeded:
        given, password, client_id = fields.text("username"), fields.text("password"), fields.client_id()
        if len(given) > MAX_USERNAME and password:
            unknown_username.send(None, username=given, password=password, client_id=client_id)
        username = fields.username()
        fields.certificate_serial()  # not used for the decision, but checked
        login = Login(username, client_id, fields.address())
        decision = self._access.may_log_in(username, client_id, password, datetime.now(UTC), login.address)
        if isinstance(decision, Future):
            return HashNeeded(login, decision, self._access.knows(login))
        if decision.reason is Reason.UNKNOWN_USER and password:
            unknown_username.send(None, username=username, password=password, client_id=client_id)
        denial = denial_of(decision, username, client_id)
        # Only right passwords are cached: tokens expire, wrong passwords are counted, and the registry must see every
        # attempt by an unknown username.
        return Decided(decision, decision.reason is Reason.PASSWORD, denial, login)

    def _superuser(self, fields: Fields, _query: Mapping[str, str]) -> Decided:
        fields.username()
        return Decided(Denied(Reason.NO_SUPERUSERS))

    def _acl(self, fields: Fields, query: Mapping[str, str]) -> Decided:
        by_certificate = query.get("grant") == "certificate"
        username, client_id = fields.username(), fields.client_id()
        fields.address(), fields.certificate_serial()  # not used for the decision, but checked
        topic, access = fields.text("topic"), fields.access()
        decision = self._access.may_access(username, client_id, topic, access, by_certificate=by_certificate)
        denial = denial_of(decision, username, client_id, topic, access)
        # An answer by certificate depends on the time. Denials of long topics would fill the memory.
        cacheable = not by_certificate and not (denial and len(topic) > _MAX_CACHED_TOPIC)
        return Decided(decision, cacheable, denial)

    def _is_our_broker(self, request: WebhookRequest, query: Mapping[str, str]) -> bool:
        if self._secret is None:
            return True
        offered = query["key"] if "key" in query else basic_password(request.authorization)
        return hmac.compare_digest(offered.encode("utf-8", "surrogatepass"), self._secret)


def _rendered(request: WebhookRequest, decided: Decided) -> Answer:
    text = parse_query(request.query).get("response") == "text"
    return render(bool(decided.decision), decided.decision.reason, text=text)
