"""Advice on a denial: the narrowest permission that allows the denied request, or why no permission does."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from authsvc.errors import InvalidInput
from authsvc.policy.decision import Denial, Reason
from authsvc.policy.permissions import Context, Operation, Permission, Request, Rule, decide

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from authsvc.policy.snapshot import UserPolicy

_PLACEHOLDERS = ("%u", "%c")
# A client that may publish there controls the broker itself, so this is never suggested.
_BROKER_CONTROL = "$CONTROL"
_VERBS = {
    Operation.READ: "read",
    Operation.WRITE: "publish to",
    Operation.READ_WRITE: "read and publish to",
}
_LOGIN_ADVICE = {
    Reason.WRONG_PASSWORD: "the password was wrong; set a new one if the client cannot be corrected",
    Reason.THROTTLED: "too many wrong passwords for this user within a minute; find out which client sends them",
    Reason.INVALID_TOKEN: "the token was wrong, expired or revoked; issue a new one",
    Reason.USER_DISABLED: "the user was disabled then and is enabled now",
    Reason.DAMAGED_POLICY: "a stored row of the user or of one of its roles was damaged then and is repaired now",
    Reason.CLIENT_ID_NOT_ALLOWED: "the user may use this client id now",
    Reason.GRANT_TYPE_MISSING: "the user has no password, or lacks the grant type for the credential it sent",
}


class DenialAdvice(NamedTuple):
    """A permission to add, if one helps, and a note for the administrator. `rule` is the deny rule that decided.

    `cured` says that the same request would be allowed now.
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
    """Return advice on a denial by the user's current rules.

    `requests` are those of the denied access; none for a login or a topic that is not whole. The suggested permission
    allows exactly them. `client_id_allowed` says whether the user may use the client id of the denial now.
    """
    if not user.enabled:
        return DenialAdvice(None, "the user is disabled; enable it first")
    if denial.reason is Reason.CLIENT_ID_NOT_ALLOWED and not client_id_allowed:
        return DenialAdvice(
            None, "the client id is not among the user's allowed client ids; add it to them, or correct the client"
        )
    if not denial.topic:
        return DenialAdvice(None, _LOGIN_ADVICE.get(denial.reason, "no permission changes this"))
    if denial.reason is Reason.NO_VALID_CERTIFICATE and not user.has_certificate_at(now):
        return DenialAdvice(None, "the user has no valid certificate, or not the grant type for it; issue one")
    if not denial.whole:
        return DenialAdvice(None, "the topic is too long to be stored whole; write the rule by hand")
    return _by_rules(requests, rules)


def _by_rules(requests: Sequence[Request], rules: Sequence[Rule]) -> DenialAdvice:
    decisions = [(request, decide(rules, request)) for request in requests]
    denied = [(request, decision) for request, decision in decisions if not decision]
    if not denied:
        return DenialAdvice(None, "it is allowed now", cured=True)
    for _, decision in denied:
        if decision.permission:
            owner = f"of role {decision.role}" if decision.role else "of the user's own"
            if decision.reason is Reason.SHARE_REACHES_DENIED:
                why = "overlaps this shared subscription; a message that a member may not read would be lost"
            else:
                why = "denies it, and deny wins over allow; change or remove that rule"
            rule = Rule(decision.permission, decision.role)
            return DenialAdvice(None, f"`{decision.permission}` {owner} {why}", rule)
    return _narrowest([request for request, _ in denied])


def _narrowest(requests: Sequence[Request]) -> DenialAdvice:
    """Suggest the permission that allows exactly these requests, all for one topic or topic filter."""
    levels = requests[0].levels
    if levels[0] == _BROKER_CONTROL:
        return DenialAdvice(None, "topics below $CONTROL control the broker itself; write such a rule by hand")
    for placeholder in _PLACEHOLDERS:
        if any(placeholder in level for level in levels):
            return DenialAdvice(None, f"no rule can name this topic: in a rule {placeholder} stands for another text")
    operations = {request.operation for request in requests}
    operation = Operation.READ_WRITE if len(operations) > 1 else operations.pop()
    try:
        permission = Permission(Context.MQTT, operation, "/".join(levels))
    except InvalidInput:
        return DenialAdvice(None, "no rule can name this topic")
    if levels in (("#",), ("+", "#")):
        scope = "read every topic, except those that begin with $"
    elif "#" in levels or "+" in levels:
        scope = f"read every topic that {permission.resource} matches"
    else:
        scope = f"{_VERBS[operation]} this one topic"
    return DenialAdvice(permission, f"this lets it {scope}")
