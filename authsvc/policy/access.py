"""Access decisions from memory alone: may this client log in, reach this topic, call this path."""

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
from authsvc.policy.snapshot import GrantType, UserPolicy
from authsvc.policy.topics import Identity

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from authsvc.credentials.passwords import PasswordVerifier
    from authsvc.policy.guess_limit import Address
    from authsvc.policy.known_client_ids import KnownClientIds
    from authsvc.policy.snapshot import CurrentPolicy, Snapshot

    # Called with a username, a client id, and whether this connection proved the user's credentials.
    NoteSeen = Callable[[str, str, bool], object]

# The broker's own numbers for what a client wants of a topic; read and write at once is 3.
READ, WRITE, SUBSCRIBE = 1, 2, 4
ACCESSES = frozenset({READ, WRITE, READ | WRITE, SUBSCRIBE})

AccessName = Literal["read", "write", "readWrite", "subscribe"]

_OPERATIONS: dict[AccessName, int] = {
    "read": READ,
    "write": WRITE,
    "readWrite": READ | WRITE,
    "subscribe": SUBSCRIBE,
}

_VERDICTS: dict[Verdict, Decision] = {
    Verdict.RIGHT: Allowed(Reason.PASSWORD),
    Verdict.WRONG: Denied(Reason.WRONG_PASSWORD),
    Verdict.BUSY: Denied(Reason.HASHING_BUSY),
}


def access_for(operation: AccessName, topic: str) -> int:
    """Return what the broker would ask for this operation: to read a topic filter is to subscribe to it."""
    is_filter = "+" in topic or "#" in topic or topic.startswith(topics.SHARE_PREFIX + "/")
    return SUBSCRIBE if operation == "read" and is_filter else _OPERATIONS[operation]


def operation_for(access: int) -> AccessName:
    """Return what the broker's number for an access is called."""
    return next(name for name, number in _OPERATIONS.items() if number == access)


def operation_of(method: str) -> Operation:
    """Return what an HTTP method does to a path: GET and HEAD read, every other method writes."""
    return Operation.READ if method in ("GET", "HEAD") else Operation.WRITE


class AccessControl:
    """Answers from the policy's snapshot; `token_uses` collects when API tokens were last used, to be stored later."""

    def __init__(
        self, policy: CurrentPolicy, verifier: PasswordVerifier, known_client_ids: KnownClientIds, note_seen: NoteSeen
    ) -> None:
        self._known_client_ids = known_client_ids
        self._note_seen = note_seen
        self.guess_limit = GuessLimit(known_client_ids)
        self.token_uses: dict[str, datetime] = {}
        self._policy = policy
        self._verifier = verifier

    @property
    def policy_generation(self) -> int:
        """The generation of the policy snapshot that decisions are made with; read it before deciding."""
        return self._policy.generation

    def may_log_in(
        self, username: str, client_id: str, password: str, now: datetime, address: Address | None = None
    ) -> Decision | Future[Verdict]:
        """Decide whether these credentials, a password or one of the user's API tokens, let a client connect.

        When it takes a hash to know, that has begun; ask again once it is done.
        """
        decision = self._check_login(Login(username, client_id, address), password, now)
        if isinstance(decision, Allowed):
            decision = self._check_client_id(decision, username, client_id)
        if isinstance(decision, Allowed):
            self._note_seen(username, client_id, True)
        return decision

    def _check_login(self, login: Login, password: str, now: datetime) -> Decision | Future[Verdict]:
        snapshot = self._policy.snapshot
        user = _user_in(snapshot, login.username)
        if isinstance(user, Denied):
            return user
        if GrantType.TOKEN in user.grant_types and jwt.looks_like_token(password):
            return self._check_token(user, password, now)
        if GrantType.PASSWORD not in user.grant_types or user.password_hash is None:
            return Denied(Reason.GRANT_TYPE_MISSING)
        return self._check_within_limit(login, password, user.password_hash)

    def _check_within_limit(self, login: Login, password: str, stored_hash: str) -> Decision | Future[Verdict]:
        """Count the password before it is checked, so that passwords that are checked at the same time count too."""
        attempt = self.guess_limit.attempt(login)
        counted = self.guess_limit.count(attempt, password)
        if counted is None:
            return Denied(Reason.THROTTLED)

        def note_right() -> None:
            # The client id is known from here on, so that nobody else's guesses refuse the client when it comes again.
            self._known_client_ids.learn(login.username, login.client_id)
            self.guess_limit.take_back(counted)

        known_client_id = login.client_id if attempt.known else None
        verdict = self._verifier.begin(login.username, password, stored_hash, known_client_id, note_right)
        if not isinstance(verdict, Verdict):
            return verdict
        if verdict is not Verdict.WRONG:
            self.guess_limit.take_back(counted)
        return _VERDICTS[verdict]

    def knows(self, login: Login) -> bool:
        """Return whether the user has logged in with this client id before."""
        return self._known_client_ids.knows(login.username, login.client_id)

    def _check_client_id(self, decision: Decision, username: str, client_id: str) -> Decision:
        """Return the decision on right credentials, or a denial if the user may not use this client id.

        Only right credentials come this far: for wrong ones, neither the answer nor its time depends on the client id.
        """
        snapshot = self._policy.snapshot
        user = snapshot.users.get(username)
        allowed = user is not None and snapshot.allows_client_id(user, client_id)
        return decision if allowed else Denied(Reason.CLIENT_ID_NOT_ALLOWED)

    def may_access(
        self, username: str, client_id: str | None, topic: str, access: int, *, by_certificate: bool = False
    ) -> Decision:
        """Return the decision of `decide_access` on the current policy; note the client as seen if it is allowed."""
        decision = decide_access(
            self._policy.snapshot, username, client_id, topic, access, by_certificate=by_certificate
        )
        if decision:
            self._note_seen(username, client_id or "", by_certificate)
        return decision

    def may_call(self, user: UserPolicy, method: str, path: str) -> Decision:
        """Decide one HTTP request to this service."""
        snapshot = self._policy.snapshot
        # The caller was authenticated by an older snapshot: a user and its roles must be of the same version.
        current = _user_in(snapshot, user.username)
        if isinstance(current, Denied):
            return current
        request = Request(Context.HTTP, operation_of(method), tuple(path.split("/")), Identity(user.username))
        return decide(snapshot.rules_of(current), request)

    def holder_of(self, token: str, now: datetime) -> UserPolicy:
        """Return the user an API token speaks for; `Unauthenticated` when it is wrong, expired or revoked."""
        return self.holder_and_digest(token, now)[0]

    def holder_and_digest(self, token: str, now: datetime) -> tuple[UserPolicy, str]:
        """`holder_of`, with the digest under which the token is stored."""
        claims = jwt.verify(token, self._policy.snapshot.signing_keys, now)
        user = self._policy.snapshot.users.get(claims.username)
        if user is None or not user.enabled or claims.digest not in user.tokens:
            raise Unauthenticated("the token is not valid", "invalid-token")
        self.token_uses[claims.digest] = now
        return user, claims.digest

    @property
    def failure_seconds(self) -> float:
        """How long a failed sign-in should take at least, so that its duration tells nothing."""
        return self._verifier.failure_seconds

    def holder_of_remembered_password(self, username: str, password: str) -> UserPolicy | None:
        """Return the enabled user if its password proved right before, which takes no hash; None otherwise."""
        user = self._user_with_password(username)
        if user and self._verifier.recall(username, password, user.password_hash or "") is Verdict.RIGHT:
            return user
        return None

    def holder_of_password(self, username: str, password: str, *, first: bool = False) -> UserPolicy | Denied:
        """Return the enabled user with that password, however long it takes; with `first` before others that wait.

        Every refusal costs one hash: for an unknown name, a user without a password and a password known to be wrong.
        """
        user = self._user_with_password(username)
        stored_hash = user.password_hash or "" if user else ""
        verdict = self._verifier.recall(username, password, stored_hash) if user else Verdict.WRONG
        if verdict is None:
            verdict = self._verifier.verify(username, password, stored_hash, first=first)
        elif verdict is Verdict.WRONG:
            verdict = self._verifier.verify_nobody(password, first=first)
        decision = _VERDICTS[verdict]
        return user if user and decision else Denied(decision.reason)

    def _user_with_password(self, username: str) -> UserPolicy | None:
        user = _user_in(self._policy.snapshot, username)
        return user if isinstance(user, UserPolicy) and user.may_sign_in and user.password_hash is not None else None

    def _check_token(self, user: UserPolicy, token: str, now: datetime) -> Decision:
        try:
            holder = self.holder_of(token, now)
        except Unauthenticated:
            return Denied(Reason.INVALID_TOKEN)
        return Allowed(Reason.TOKEN) if holder.username == user.username else Denied(Reason.INVALID_TOKEN)


def decide_access(
    snapshot: Snapshot, username: str, client_id: str | None, topic: str, access: int, *, by_certificate: bool = False
) -> Decision:
    """Return the decision on one ACL request of the broker; raise `InvalidInput` for a topic no client could name.

    The client id is checked here as well as at CONNECT: the service is not asked about a CONNECT with a certificate,
    and an MQTT session can be older than the user's allowed client ids. The client id None, which no broker sends,
    stands for any client id that is allowed.
    """
    user = _user_in(snapshot, username)
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


def _user_in(snapshot: Snapshot, username: str) -> UserPolicy | Denied:
    """Return the user if decisions may go on to its credentials and rules; otherwise why everything is denied."""
    if not snapshot.version:
        return Denied(Reason.POLICY_NOT_LOADED)
    user = snapshot.users.get(username)
    if user is None:
        return Denied(Reason.UNKNOWN_USER)
    if not user.enabled:
        return Denied(Reason.USER_DISABLED)
    return Denied(Reason.DAMAGED_POLICY) if snapshot.is_damaged(user) else user


def requests_for(topic: str, access: int, identity: Identity) -> list[Request]:
    """Return what the broker's question asks of the rules; `InvalidInput` for a topic no client could name."""
    if access == SUBSCRIBE:
        group, topic_filter = topics.parse_subscription(topic)
        levels = topics.validate_topic_filter(topic_filter)
        return [Request(Context.MQTT, Operation.READ, levels, identity, group is not None)]
    levels = topics.validate_topic(topic)
    wanted = ((WRITE, Operation.WRITE), (READ, Operation.READ))
    return [Request(Context.MQTT, operation, levels, identity) for bit, operation in wanted if access & bit]
