"""Access decisions, made from memory alone: may a client log in, use a topic or call a path."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from authsvc.credentials import jwt
from authsvc.credentials.passwords import Verdict
from authsvc.errors import Unauthenticated
from authsvc.policy import topics
from authsvc.policy.decision import Allowed, Decision, Denied, Reason
from authsvc.policy.guess_limit import GuessLimit, Login
from authsvc.policy.permissions import Context, Operation, Request, decide
from authsvc.policy.snapshot import GrantType, UserPolicy, password_credential, token_credential
from authsvc.policy.topics import Identity

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from authsvc.credentials.passwords import PasswordVerifier
    from authsvc.policy.guess_limit import Address
    from authsvc.policy.known_client_ids import KnownClientIds
    from authsvc.policy.snapshot import CurrentPolicy, Snapshot

    # Called with a username, a client id, and whether this connection proved the user's credentials.
    RecordClientId = Callable[[str, str, bool], object]

# `acc` of go-auth: the access that a client asks for. READ | WRITE is 3.
READ, WRITE, SUBSCRIBE = 1, 2, 4
ACCESSES = frozenset({READ, WRITE, READ | WRITE, SUBSCRIBE})

OWN_ACCOUNT = "/api/me/"
"""Below this path users manage their own account, for which they need no permission; a deny rule forbids it."""

AccessName = Literal["read", "write", "readWrite", "subscribe"]

_ACCESS_NUMBERS: dict[AccessName, int] = {
    "read": READ,
    "write": WRITE,
    "readWrite": READ | WRITE,
    "subscribe": SUBSCRIBE,
}
_ACCESS_NAMES = {number: name for name, number in _ACCESS_NUMBERS.items()}

_DECISIONS: dict[Verdict, Decision] = {
    Verdict.RIGHT: Allowed(Reason.PASSWORD),
    Verdict.WRONG: Denied(Reason.WRONG_PASSWORD),
    Verdict.BUSY: Denied(Reason.HASHING_BUSY),
}


def access_number(operation: AccessName, topic: str) -> int:
    """Return the `acc` that a broker sends for this operation; for `read` of a topic filter it is SUBSCRIBE."""
    is_filter = "+" in topic or "#" in topic or topic.startswith(topics.SHARE_PREFIX + "/")
    return SUBSCRIBE if operation == "read" and is_filter else _ACCESS_NUMBERS[operation]


def access_name(access: int) -> AccessName:
    return _ACCESS_NAMES[access]


def http_operation(method: str) -> Operation:
    """Return `read` for GET and HEAD, `write` for every other HTTP method."""
    return Operation.READ if method in ("GET", "HEAD") else Operation.WRITE


class AccessControl:
    """Decides by the current policy snapshot.

    `token_uses` maps the digest of each API token used to the time of its last use, until a background thread stores
    it.
    """

    def __init__(
        self,
        policy: CurrentPolicy,
        verifier: PasswordVerifier,
        known_client_ids: KnownClientIds,
        record_client_id: RecordClientId,
    ) -> None:
        self._known_client_ids = known_client_ids
        self._record_client_id = record_client_id
        self.guess_limit = GuessLimit(known_client_ids)
        self.token_uses: dict[str, datetime] = {}
        self._policy = policy
        self._verifier = verifier

    @property
    def is_ready(self) -> bool:
        """Whether a policy was loaded; before that every request is denied."""
        return self._policy.snapshot.version > 0

    @property
    def policy_generation(self) -> int:
        """The generation of the current policy snapshot. Read it before the decision that you cache under it."""
        return self._policy.generation

    def may_log_in(
        self, username: str, client_id: str, password: str, now: datetime, address: Address | None = None
    ) -> Decision | Future[Verdict]:
        """Decide whether a client may log in with this password, which may also be one of the user's API tokens.

        Return a future if a password hash has to be computed; call again when it is done.
        """
        decision = self._check_credentials(Login(username, client_id, address), password, now)
        if isinstance(decision, Allowed):
            # The client id is checked after the credentials. So neither the answer to wrong credentials nor its time
            # depends on the client id.
            snapshot = self._policy.snapshot
            user = snapshot.users.get(username)
            if user is None or not snapshot.allows_client_id(user, client_id):
                return Denied(Reason.CLIENT_ID_NOT_ALLOWED)
            self._record_client_id(username, client_id, True)
        return decision

    def _check_credentials(self, login: Login, password: str, now: datetime) -> Decision | Future[Verdict]:
        user = active_user(self._policy.snapshot, login.username)
        if isinstance(user, Denied):
            return user
        if GrantType.TOKEN in user.grant_types and jwt.looks_like_token(password):
            try:
                holder, digest = self.authenticate_token(password, now)
            except Unauthenticated:
                return Denied(Reason.INVALID_TOKEN)
            if holder.username != user.username:
                return Denied(Reason.INVALID_TOKEN)
            return Allowed(Reason.TOKEN, credential=token_credential(digest))
        if GrantType.PASSWORD not in user.grant_types or user.password_hash is None:
            return Denied(Reason.GRANT_TYPE_MISSING)
        return self._check_password(login, password, user.password_hash)

    def _check_password(self, login: Login, password: str, stored_hash: str) -> Decision | Future[Verdict]:
        # The password is counted before the check, so that passwords checked at the same time count too.
        attempt = self.guess_limit.attempt(login)
        counted = self.guess_limit.count(attempt, password)
        if counted is None:
            return Denied(Reason.THROTTLED)

        def on_right() -> None:
            # From now on the client id is known, so guesses with other client ids do not throttle this client.
            self._known_client_ids.add(login.username, login.client_id)
            self.guess_limit.uncount(counted)

        known_client_id = login.client_id if attempt.known else None
        verdict = self._verifier.start(login.username, password, stored_hash, known_client_id, on_right)
        if not isinstance(verdict, Verdict):
            return verdict
        if verdict is not Verdict.WRONG:
            self.guess_limit.uncount(counted)
        if verdict is Verdict.RIGHT:
            return Allowed(Reason.PASSWORD, credential=password_credential(stored_hash))
        return _DECISIONS[verdict]

    def knows(self, login: Login) -> bool:
        """Return whether the user has logged in with this client id before."""
        return self._known_client_ids.knows(login.username, login.client_id)

    def may_access(
        self, username: str, client_id: str | None, topic: str, access: int, *, by_certificate: bool = False
    ) -> Decision:
        """Return the decision of `decide_access` by the current policy; record the client id if it is allowed."""
        decision = decide_access(
            self._policy.snapshot, username, client_id, topic, access, by_certificate=by_certificate
        )
        if decision:
            self._record_client_id(username, client_id or "", by_certificate)
        return decision

    def may_call(self, user: UserPolicy, method: str, path: str) -> Decision:
        """Decide one HTTP request to this service by an authenticated user."""
        snapshot = self._policy.snapshot
        # `user` may come from an older snapshot; a user and its roles must be of the same version.
        current = active_user(snapshot, user.username)
        if isinstance(current, Denied):
            return current
        request = Request(Context.HTTP, http_operation(method), topics.split(path), topics.path_identity(user.username))
        decision = decide(snapshot.rules_of(current), request)
        if decision.reason is Reason.NO_PERMISSION and path.startswith(OWN_ACCOUNT):
            return Allowed(Reason.OWN_ACCOUNT)
        return decision

    def writes(self, user: UserPolicy) -> bool:
        """Return whether the user has a permission to change anything in this service."""
        return any(rule.permission.writes_to_the_service for rule in self._policy.snapshot.rules_of(user))

    def authenticate_token(self, token: str, now: datetime) -> tuple[UserPolicy, str]:
        """Return the user of an API token and the token's digest; `Unauthenticated` if it is not valid."""
        claims = jwt.verify(token, self._policy.snapshot.signing_keys, now)
        user = self._policy.snapshot.users.get(claims.username)
        until = user.tokens.get(claims.digest) if user and user.enabled else None
        if user is None or until is None or until <= now:
            raise Unauthenticated("the token is not valid", "invalid-token")
        self.token_uses[claims.digest] = now
        return user, claims.digest

    @property
    def failure_seconds(self) -> float:
        """The least time that a failed sign-in should take, so that its duration does not reveal the reason."""
        return self._verifier.failure_seconds

    def authenticate_cached_password(self, username: str, password: str) -> UserPolicy | None:
        """Return the user if this password is cached as right, without a hash; otherwise None."""
        user = self._user_who_may_sign_in(username)
        if isinstance(user, Denied):
            return None
        right = self._verifier.cached_verdict(username, password, user.password_hash or "") is Verdict.RIGHT
        return user if right else None

    def authenticate_password(self, username: str, password: str, *, first: bool = False) -> UserPolicy | Denied:
        """Return the user with that password, or a denial. It waits for a hash; with `first` before all others.

        Every denial costs one hash: for an unknown username, a user without a password and a cached wrong password.
        """
        user = self._user_who_may_sign_in(username)
        stored_hash = ""
        verdict: Verdict | None = Verdict.WRONG
        if not isinstance(user, Denied):
            stored_hash = user.password_hash or ""
            verdict = self._verifier.cached_verdict(username, password, stored_hash)
        if verdict is None:
            verdict = self._verifier.verify(username, password, stored_hash, first=first)
        elif verdict is Verdict.WRONG:
            verdict = self._verifier.verify_unknown_user(password, first=first)
        decision = _DECISIONS[verdict]
        if isinstance(user, Denied) and verdict is not Verdict.BUSY:
            return user
        return user if decision else Denied(decision.reason)

    def _user_who_may_sign_in(self, username: str) -> UserPolicy | Denied:
        user = active_user(self._policy.snapshot, username)
        return user if isinstance(user, Denied) or user.may_sign_in else Denied(Reason.GRANT_TYPE_MISSING)


def decide_access(
    snapshot: Snapshot, username: str, client_id: str | None, topic: str, access: int, *, by_certificate: bool = False
) -> Decision:
    """Return the decision on one ACL request of a broker; `InvalidInput` for a topic that MQTT does not allow.

    The client id is checked here as well as at CONNECT. Brokers do not ask about a CONNECT with a certificate, and an
    MQTT session can be older than the user's allowed client ids. The client id None, which no broker sends, stands for
    any allowed client id.
    """
    user = active_user(snapshot, username)
    if isinstance(user, Denied):
        return user
    if by_certificate and not user.has_certificate_at(datetime.now(UTC)):
        return Denied(Reason.NO_VALID_CERTIFICATE)
    if client_id is not None and not snapshot.allows_client_id(user, client_id):
        return Denied(Reason.CLIENT_ID_NOT_ALLOWED)
    decision: Decision = Denied(Reason.NO_PERMISSION)
    for request in requests_for(topic, access, Identity(username, client_id or "")):
        decision = decide(snapshot.rules_for(user, request), request)
        if not decision:
            break
    return decision


def active_user(snapshot: Snapshot, username: str) -> UserPolicy | Denied:
    """Return the user, or the denial of all its requests if it is unknown, disabled or damaged."""
    if not snapshot.version:
        return Denied(Reason.POLICY_NOT_LOADED)
    user = snapshot.users.get(username)
    if user is None:
        return Denied(Reason.UNKNOWN_USER)
    if not user.enabled:
        return Denied(Reason.USER_DISABLED)
    return Denied(Reason.DAMAGED_POLICY) if snapshot.is_damaged(user) else user


def requests_for(topic: str, access: int, identity: Identity) -> list[Request]:
    """Return the requests that an ACL request stands for; `InvalidInput` for a topic that MQTT does not allow."""
    if access == SUBSCRIBE:
        group, topic_filter = topics.parse_subscription(topic)
        levels = topics.validate_topic_filter(topic_filter)
        return [Request(Context.MQTT, Operation.READ, levels, identity, group is not None)]
    levels = topics.validate_topic(topic)
    operations = ((WRITE, Operation.WRITE), (READ, Operation.READ))
    return [Request(Context.MQTT, operation, levels, identity) for bit, operation in operations if access & bit]
