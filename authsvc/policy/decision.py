"""A decision is a value: `Allowed` or `Denied`, true or false, and always with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from authsvc.policy.permissions import Permission


class Reason(StrEnum):
    """Every reason a decision can have: a closed list, so that it may label a metric."""

    PASSWORD = "password"  # noqa: S105 - a reason, not a secret
    TOKEN = "token"  # noqa: S105
    PERMISSION = "permission"
    UNKNOWN_USER = "unknown-user"
    USER_DISABLED = "user-disabled"
    GRANT_TYPE_MISSING = "grant-type-missing"
    WRONG_PASSWORD = "wrong-password"  # noqa: S105
    INVALID_TOKEN = "invalid-token"  # noqa: S105
    CLIENT_ID_NOT_ALLOWED = "client-id-not-allowed"
    HASHING_BUSY = "hashing-busy"
    VERIFYING = "verifying"
    THROTTLED = "throttled"
    NO_VALID_CERTIFICATE = "no-valid-certificate"
    NO_PERMISSION = "no-permission"
    DENIED_BY_PERMISSION = "denied-by-permission"
    SHARE_REACHES_DENIED = "share-reaches-denied-topics"
    NO_SUPERUSERS = "no-superusers"
    MALFORMED = "malformed"
    BROWSER_REQUEST = "browser-request"
    UNKNOWN_HOST = "unknown-host"
    WRONG_WEBHOOK_SECRET = "wrong-webhook-secret"  # noqa: S105
    DAMAGED_POLICY = "damaged-policy"
    POLICY_NOT_LOADED = "policy-not-loaded"
    INTERNAL_ERROR = "internal-error"


ALLOWING = frozenset({Reason.PASSWORD, Reason.TOKEN, Reason.PERMISSION})
"""The reasons to say yes; every other says no."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """Yes, and the permission and role that say so where one does."""

    reason: Reason
    permission: Permission | None = None
    role: str | None = None

    def __bool__(self) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class Denied:
    """No, and the permission and role that forbid it where one does."""

    reason: Reason
    permission: Permission | None = None
    role: str | None = None

    def __bool__(self) -> bool:
        return False


Decision = Allowed | Denied


# How much of a topic and of a client id is kept of a denial; clients may send 65,535 bytes of each.
MAX_DENIED_TOPIC = 1000
MAX_DENIED_CLIENT_ID = 200

_OF_USERS = frozenset(
    {
        Reason.USER_DISABLED,
        Reason.GRANT_TYPE_MISSING,
        Reason.WRONG_PASSWORD,
        Reason.INVALID_TOKEN,
        Reason.THROTTLED,
        Reason.CLIENT_ID_NOT_ALLOWED,
        Reason.NO_VALID_CERTIFICATE,
        Reason.NO_PERMISSION,
        Reason.DENIED_BY_PERMISSION,
        Reason.SHARE_REACHES_DENIED,
        Reason.DAMAGED_POLICY,
    }
)


class Denial(NamedTuple):
    """What a user was denied: a login, or with a topic an access to it, `access` being the broker's number for which.

    Of a topic that is not `whole` there is only the beginning.
    """

    username: str
    client_id: str
    topic: str
    access: int
    reason: Reason
    whole: bool = True


def denial_of(decision: Decision, username: str, client_id: str, topic: str = "", access: int = 0) -> Denial | None:
    """Return what is to be remembered of a decision: a denial that a user's administrator could do something about."""
    if decision.reason not in _OF_USERS:
        return None
    whole = len(topic) <= MAX_DENIED_TOPIC
    kept = topic if whole else topic[:MAX_DENIED_TOPIC]
    return Denial(username, client_id[:MAX_DENIED_CLIENT_ID], kept, access, decision.reason, whole)
