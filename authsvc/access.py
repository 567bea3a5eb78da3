"""Access decisions from memory alone: may this client log in, reach this topic, call this path."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from authsvc import tokens, topics
from authsvc.decision import Allowed, Decision, Denied, Reason
from authsvc.errors import Unauthenticated
from authsvc.passwords import Verdict
from authsvc.permissions import Context, Operation, Request, decide
from authsvc.snapshot import GrantType, UserPolicy
from authsvc.topics import Identity

if TYPE_CHECKING:
    from concurrent.futures import Future

    from authsvc.passwords import PasswordVerifier
    from authsvc.policy import Policy
    from authsvc.sightings import Sightings
    from authsvc.snapshot import Snapshot


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

    def __init__(self, policy: Policy, verifier: PasswordVerifier, sightings: Sightings) -> None:
        self._sightings = sightings
        self.token_uses: dict[str, datetime] = {}
        self._policy = policy
        self._verifier = verifier

    @property
    def policy_version(self) -> int:
        """The policy version that decisions are made at; read it before deciding."""
        return self._policy.snapshot.version

    def may_log_in(self, username: str, client_id: str, password: str, now: datetime) -> Decision | Future[Verdict]:
        """Decide whether these credentials, a password or one of the user's API tokens, let a client connect.

        When it takes a hash to know, that has begun; ask again once it is done.
        """
        decision = self._check_login(username, password, now)
        if isinstance(decision, Allowed):
            decision = self._check_client_id(decision, username, client_id)
        if isinstance(decision, Allowed):
            self._sightings.note(username, client_id)
        return decision

    def _check_login(self, username: str, password: str, now: datetime) -> Decision | Future[Verdict]:
        snapshot = self._policy.snapshot
        if not snapshot.version:
            return Denied(Reason.POLICY_NOT_LOADED)
        user = snapshot.users.get(username)
        if user is None:
            return Denied(Reason.UNKNOWN_USER)
        if not user.enabled:
            return Denied(Reason.USER_DISABLED)
        if GrantType.TOKEN in user.grant_types and tokens.looks_like_token(password):
            return self._check_token(user, password, now)
        if GrantType.PASSWORD not in user.grant_types or user.password_hash is None:
            return Denied(Reason.GRANT_TYPE_MISSING)
        verdict = self._verifier.begin(username, password, user.password_hash)
        return _VERDICTS[verdict] if isinstance(verdict, Verdict) else verdict

    def _check_client_id(self, decision: Decision, username: str, client_id: str) -> Decision:
        """Return the decision on right credentials, or a denial if the user may not use this client id.

        Only right credentials come this far: for wrong ones, neither the answer nor its time depends on the client id.
        """
        snapshot = self._policy.snapshot
        user = snapshot.users.get(username)
        allowed = user is not None and snapshot.allows_client_id(user, client_id)
        return decision if allowed else Denied(Reason.CLIENT_ID_NOT_ALLOWED)

    def check_password(self, user: UserPolicy, password: str) -> Decision:
        """Decide whether the password is that user's, who must have the grant type for it, however long it takes."""
        if GrantType.PASSWORD not in user.grant_types or user.password_hash is None:
            return Denied(Reason.GRANT_TYPE_MISSING)
        return _VERDICTS[self._verifier.verify(user.username, password, user.password_hash)]

    def may_access(
        self, username: str, client_id: str | None, topic: str, access: int, *, by_certificate: bool = False
    ) -> Decision:
        """Decide one ACL question of the broker; raise `InvalidInput` for a topic no client could name.

        The client id is checked again, for a CONNECT with a certificate does not ask us, and an MQTT session may be
        older than the user's allowed client ids. None, which no broker sends, asks for any client id that is allowed.
        """
        snapshot = self._policy.snapshot
        if not snapshot.version:
            return Denied(Reason.POLICY_NOT_LOADED)
        user = snapshot.users.get(username)
        if user is None:
            return Denied(Reason.UNKNOWN_USER)
        refusal = _refusal_of_client(snapshot, user, client_id, by_certificate=by_certificate)
        if refusal:
            return Denied(refusal)
        decision: Decision = Denied(Reason.NO_PERMISSION)
        for request in requests_for(topic, access, Identity(username, client_id or "")):
            decision = decide(snapshot.rules_for(user, request), request)
            if not decision:
                return decision
        self._sightings.note(username, client_id or "")
        return decision

    def may_call(self, user: UserPolicy, method: str, path: str) -> Decision:
        """Decide one HTTP request to this service."""
        request = Request(Context.HTTP, operation_of(method), tuple(path.split("/")), Identity(user.username))
        return decide(self._policy.snapshot.rules_of(user), request)

    def holder_of(self, token: str, now: datetime) -> UserPolicy:
        """Return the user an API token speaks for; `Unauthenticated` when it is wrong, expired or revoked."""
        return self.holder_and_digest(token, now)[0]

    def holder_and_digest(self, token: str, now: datetime) -> tuple[UserPolicy, str]:
        """`holder_of`, with the digest under which the token is stored."""
        claims = tokens.verify(token, self._policy.snapshot.signing_keys, now)
        user = self._policy.snapshot.users.get(claims.username)
        if user is None or not user.enabled or claims.digest not in user.tokens:
            raise Unauthenticated("the token is not valid", "invalid-token")
        self.token_uses[claims.digest] = now
        return user, claims.digest

    def holder_of_password(self, username: str, password: str) -> UserPolicy | Denied:
        """Return the enabled user with that password, taking as long to refuse an unknown name as a known one."""
        user = self._policy.snapshot.users.get(username)
        if user and user.enabled:
            decision = self.check_password(user, password)
            if decision:
                return user
            if decision.reason is not Reason.GRANT_TYPE_MISSING:
                return Denied(decision.reason)
        self._verifier.verify_nobody(password)
        return Denied(Reason.WRONG_PASSWORD)

    def _check_token(self, user: UserPolicy, token: str, now: datetime) -> Decision:
        try:
            holder = self.holder_of(token, now)
        except Unauthenticated:
            return Denied(Reason.INVALID_TOKEN)
        return Allowed(Reason.TOKEN) if holder.username == user.username else Denied(Reason.INVALID_TOKEN)


def _refusal_of_client(
    snapshot: Snapshot, user: UserPolicy, client_id: str | None, *, by_certificate: bool
) -> Reason | None:
    """Return why this client may not act as the user at all, whatever it asks for; None if it may."""
    if not user.enabled:
        return Reason.USER_DISABLED
    if by_certificate and not user.has_certificate_at(datetime.now(UTC)):
        return Reason.NO_VALID_CERTIFICATE
    if client_id is not None and not snapshot.allows_client_id(user, client_id):
        return Reason.CLIENT_ID_NOT_ALLOWED
    return None


def requests_for(topic: str, access: int, identity: Identity) -> list[Request]:
    """Return what the broker's question asks of the rules; `InvalidInput` for a topic no client could name."""
    if access == SUBSCRIBE:
        group, topic_filter = topics.parse_subscription(topic)
        levels = topics.validate_topic_filter(topic_filter)
        return [Request(Context.MQTT, Operation.READ, levels, identity, group is not None)]
    levels = topics.validate_topic(topic)
    wanted = ((WRITE, Operation.WRITE), (READ, Operation.READ))
    return [Request(Context.MQTT, operation, levels, identity) for bit, operation in wanted if access & bit]
