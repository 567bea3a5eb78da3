"""Decisions: `Allowed` (true) or `Denied` (false), each with a reason; and the denials that are stored."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from authsvc.policy.permissions import Permission


class Reason(StrEnum):
    """Every reason of a decision. The list is closed, so a reason may label a metric."""

    PASSWORD = "password"  # noqa: S105 - a reason, not a secret
    TOKEN = "token"  # noqa: S105
    PERMISSION = "permission"
    OWN_ACCOUNT = "own-account"
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


ALLOW_REASONS = frozenset({Reason.PASSWORD, Reason.TOKEN, Reason.PERMISSION, Reason.OWN_ACCOUNT})
"""The reasons of `Allowed`; every other is one of `Denied`."""


@dataclass(frozen=True, slots=True)
class _Decided:
    """`permission` and `role` are those of the rule that decided, if one did.

    `credential` names the credential of an allowed login, as in `UserPolicy.credentials_at`.
    """

    reason: Reason
    permission: Permission | None = None
    role: str | None = None
    credential: str | None = field(default=None, compare=False, repr=False)


class Allowed(_Decided):
    __slots__ = ()

    def __bool__(self) -> bool:
        return True


class Denied(_Decided):
    __slots__ = ()

    def __bool__(self) -> bool:
        return False


Decision = Allowed | Denied


# Characters of a topic and a client id that are stored of a denial; clients may send 65,535 bytes of each.
MAX_DENIED_TOPIC = 1000
MAX_DENIED_CLIENT_ID = 200

_STORED_REASONS = frozenset(
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
    """A denied login, or with a topic a denied access. `access` is the broker's `acc`.

    If `whole` is false, `topic` is only the beginning of the topic.
    """

    username: str
    client_id: str
    topic: str
    access: int
    reason: Reason
    whole: bool = True


def denial_of(decision: Decision, username: str, client_id: str, topic: str = "", access: int = 0) -> Denial | None:
    """Return the denial to store, or None for a decision that an administrator of the user cannot change."""
    if decision.reason not in _STORED_REASONS:
        return None
    whole = len(topic) <= MAX_DENIED_TOPIC
    kept = topic if whole else topic[:MAX_DENIED_TOPIC]
    return Denial(username, client_id[:MAX_DENIED_CLIENT_ID], kept, access, decision.reason, whole)
