"""What would cure a denial: the narrowest permission that allows what was asked for, or why no permission does."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from authsvc.errors import InvalidInput
from authsvc.policy.decision import Denial, Denied, Reason
from authsvc.policy.permissions import Context, Operation, Permission, Request, Rule, decide

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from authsvc.policy.snapshot import UserPolicy
    from authsvc.policy.topics import Levels

_PLACEHOLDERS = ("%u", "%c")
# Whoever may publish there steers the broker itself; no click should give that away.
_BROKERS_OWN = "$CONTROL"
_OF_LOGINS = {
    Reason.WRONG_PASSWORD: "the password was wrong; set a new one if the client cannot be corrected",
    Reason.THROTTLED: "too many wrong passwords were tried for this user within a minute; find out who tries them",
    Reason.INVALID_TOKEN: "the token was wrong, expired or revoked; issue a new one",
    Reason.USER_DISABLED: "the user was disabled then and is enabled by now",
    Reason.DAMAGED_POLICY: "a stored row of the user or of one of its roles was damaged then and is repaired by now",
    Reason.CLIENT_ID_NOT_ALLOWED: "the user may use this client id by now",
    Reason.GRANT_TYPE_MISSING: "the user has no password, or not the grant type for what it offered",
}


class DenialAdvice(NamedTuple):
    """A permission to add, if one helps, and what there is to say; `rule` is the deny rule that stands in the way.

    `cured` says that the same request is allowed by now.
    """

    permission: Permission | None
    note: str
    rule: Rule | None = None
    cured: bool = False


def advice_for(
    denial: Denial,
    requests: Sequence[Request],
    user: UserPolicy,
    rules: Sequence[Rule],
    now: datetime,
    *,
    client_id_allowed: bool = True,
) -> DenialAdvice:
    """Return what would cure a denial by a user's rules as they are now.

    `requests` are what the denied access asked for, none for a login or a topic that is not whole. The permission
    allows them and no other topic. `client_id_allowed`: whether the user may use the denied client id by now.
    """
    if not user.enabled:
        return DenialAdvice(None, "the user is disabled; enable it first")
    if denial.reason is Reason.CLIENT_ID_NOT_ALLOWED and not client_id_allowed:
        return DenialAdvice(
            None, "the client id is none of its allowed client ids; add it to them, or correct the client"
        )
    if not denial.topic:
        return DenialAdvice(None, _OF_LOGINS.get(denial.reason, "no permission helps with that"))
    if denial.reason is Reason.NO_VALID_CERTIFICATE and not user.has_certificate_at(now):
        return DenialAdvice(None, "the user has no valid certificate, or not the grant type for it; issue one")
    if not denial.whole:
        return DenialAdvice(None, "the topic is too long to be kept whole; write the rule by hand")
    return _by_rules(requests, rules)


def narrowest(requests: Sequence[Request]) -> Permission | None:
    """Return the permission that allows these requests for one topic or topic filter and nothing else, if it exists."""
    levels = requests[0].levels
    operations = {request.operation for request in requests}
    operation = Operation.READ_WRITE if len(operations) > 1 else operations.pop()
    if levels[0] == _BROKERS_OWN or any(level in _PLACEHOLDERS for level in levels):
        return None
    try:
        return Permission(Context.MQTT, operation, "/".join(levels))
    except InvalidInput:
        return None


def _by_rules(requests: Sequence[Request], rules: Sequence[Rule]) -> DenialAdvice:
    decisions = [(request, decide(rules, request)) for request in requests]
    refused = [(request, decision) for request, decision in decisions if isinstance(decision, Denied)]
    if not refused:
        return DenialAdvice(None, "it is allowed by now", cured=True)
    for _, decision in refused:
        if decision.permission:
            return _stopped_by(Rule(decision.permission, decision.role), decision.reason)
    lacking = [request for request, _ in refused]
    permission = narrowest(lacking)
    return DenialAdvice(permission, _words_for(permission) if permission else _why_none(lacking[0].levels))


def _stopped_by(rule: Rule, reason: Reason) -> DenialAdvice:
    permission, role = rule
    named = f"`{permission}`"
    named += f" of role {role}" if role else " of the user's own"
    if reason is Reason.SHARE_REACHES_DENIED:
        words = "reaches into this shared subscription, and a member that is refused a message would swallow it"
    else:
        words = "forbids it, and deny wins over allow; change or remove that rule"
    return DenialAdvice(None, f"{named} {words}", rule)


def _words_for(permission: Permission) -> str:
    wide = permission.resource.split("/")
    if wide in (["#"], ["+", "#"]):
        return "this lets it read every topic there is"
    if "#" in wide or "+" in wide:
        return f"this lets it read every topic that {permission.resource} matches"
    return f"this lets it {_VERBS[permission.operation]} this one topic"


_VERBS = {
    Operation.READ: "read",
    Operation.WRITE: "publish to",
    Operation.READ_WRITE: "read and publish to",
}


def _why_none(levels: Levels) -> str:
    if levels[0] == _BROKERS_OWN:
        return "topics below $CONTROL steer the broker itself; write such a rule by hand"
    for placeholder in _PLACEHOLDERS:
        if any(placeholder in level for level in levels):
            return f"a rule cannot spell this topic: {placeholder} in a rule stands for a name"
    return "a rule cannot spell this topic"
