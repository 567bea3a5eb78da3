"""Warnings about users and roles that can use the client ids of other users, and about names that fit no `%u`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from authsvc.credentials.usernames import special_characters
from authsvc.policy import allowed_client_ids
from authsvc.policy.snapshot import RolePolicy
from authsvc.storage import policy_reader
from authsvc.storage.database import session

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from authsvc.accounts.roles import RoleRecord
    from authsvc.accounts.users import UserRecord

_NAME_WITHOUT_TOPICS = "name-without-topics"
_MAX_NAMES = 20
_ADVICE = (
    "can use the client id of another device and with it the topics of that device; "
    "set allowed client ids, such as %u and %u:*"
)
_PREFIX_ADVICE = (
    "matches client ids of users with longer names, as %u-* of the user press matches press-7; "
    "write %u:* instead, since no registered username has a colon"
)


@dataclass(frozen=True, slots=True)
class PolicyWarning:
    """A weakness of a user or role that an administrator should remove; `code` is stable."""

    code: str
    message: str


def of_users(records: Sequence[UserRecord]) -> dict[str, tuple[PolicyWarning, ...]]:
    """Return the warnings about these users by username; the rules of their roles count too."""
    with session():
        policies = policy_reader.role_policies({role for record in records for role in record.all_roles})
    return {record.username: _warnings(record, policies) for record in records}


def of_user(record: UserRecord) -> tuple[PolicyWarning, ...]:
    return of_users([record])[record.username]


def of_new_names(usernames: Iterable[str]) -> tuple[PolicyWarning, ...]:
    """Return one warning that names the users of a file or batch whose names match no `%u`; none without such names."""
    special = [username for username in usernames if special_characters(username)]
    if not special:
        return ()
    others = len(special) - _MAX_NAMES
    shown = ", ".join(special[:_MAX_NAMES]) + (f" and {others:,} more" if others > 0 else "")
    message = (
        "usernames with + or # or /: no permission with %u matches them, and Mosquitto denies them every topic, those "
        f"with / only from version 2.1 on; use other names where you can: {shown}"
    )
    return (PolicyWarning(_NAME_WITHOUT_TOPICS, message),)


def of_role(record: RoleRecord) -> tuple[PolicyWarning, ...]:
    """Return the warnings about a role. They apply to each of its users without allowed client ids of its own."""
    if allowed_client_ids.restrict(record.client_ids):
        matches = allowed_client_ids.match_longer_usernames(record.client_ids)
        return (_prefix_warning("an allowed client id of the role"),) if matches else ()
    if not allowed_client_ids.depend_on_client_id(record.permissions):
        return ()
    return (_warning("a rule uses %c and the role allows any client id: each user with this role"),)


def _warnings(record: UserRecord, policies: Mapping[str, RolePolicy]) -> tuple[PolicyWarning, ...]:
    special = special_characters(record.username)
    if not special:
        return _client_id_warnings(record, policies)
    since = " from version 2.1 on" if special == "/" else ""
    message = (
        f"the username contains {' and '.join(special)}: no permission with %u matches it, and Mosquitto denies it "
        f"every topic{since}; use another name where you can"
    )
    return (PolicyWarning(_NAME_WITHOUT_TOPICS, message), *_client_id_warnings(record, policies))


def _client_id_warnings(record: UserRecord, policies: Mapping[str, RolePolicy]) -> tuple[PolicyWarning, ...]:
    # The message names the role and not the rule: a caller that may read the user may not be allowed to read its roles.
    sources = {"its own": RolePolicy(record.permissions, record.client_ids)}
    sources |= {f"the role {name}": policies[name] for name in record.all_roles if name in policies}
    if allowed_client_ids.restrict(pattern for source in sources.values() for pattern in source.client_ids):
        matching = [
            name for name, source in sources.items() if allowed_client_ids.match_longer_usernames(source.client_ids)
        ]
        return (_prefix_warning(f"an allowed client id of {matching[0]}"),) if matching else ()
    found = [name for name, source in sources.items() if allowed_client_ids.depend_on_client_id(source.permissions)]
    return (_warning(f"a rule of {found[0]} uses %c and any client id is allowed: this user"),) if found else ()


def _warning(finding: str) -> PolicyWarning:
    return PolicyWarning("any-client-id", f"{finding} {_ADVICE}")


def _prefix_warning(pattern: str) -> PolicyWarning:
    return PolicyWarning("prefix-client-id", f"{pattern} {_PREFIX_ADVICE}")
