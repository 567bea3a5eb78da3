"""Allowed client ids: patterns of literal text, `%u` for the username and `*` for any characters, none included.

A user and its roles may each have patterns. A client id is allowed if it matches one of them all, or if there is none.
So a pattern on a user or on any of its roles restricts the user, and a role without patterns never lifts that.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from authsvc.errors import FieldError, InvalidInput, invalid
from authsvc.policy.permissions import Context

if TYPE_CHECKING:
    from collections.abc import Iterable

    from authsvc.policy.permissions import Permission

MAX_PATTERNS = 100
MAX_LENGTH = 200

_USERNAME, _ANY = "%u", "*"
_CLIENT_ID = "%c"
# Characters that usernames may hold, or none, between %u and *.
_LONGER_USERNAME = re.compile(r"%u[A-Za-z0-9_.\-]*\*|\*[A-Za-z0-9_.\-]*%u")


def validate_client_ids(patterns: Iterable[str]) -> tuple[str, ...]:
    """Return the patterns, each once; raise `InvalidInput` that names each wrong one by position, as `clientIds[2]`."""
    wanted, wrong = tuple(patterns), []
    for position, pattern in enumerate(wanted):
        try:
            validate_client_id(pattern)
        except InvalidInput as error:
            wrong.append(FieldError(f"clientIds[{position}]", error.errors[0].message))
    unique = tuple(dict.fromkeys(wanted))
    if len(unique) > MAX_PATTERNS:
        wrong.append(FieldError("clientIds", f"must have at most {MAX_PATTERNS} entries"))
    if wrong:
        raise InvalidInput(*wrong)
    return unique


def validate_client_id(pattern: str) -> str:
    """Return the pattern; raise `InvalidInput` for `clientIds` otherwise."""
    if not 0 < len(pattern) <= MAX_LENGTH:
        raise invalid("clientIds", f"must be 1 to {MAX_LENGTH} characters")
    if not pattern.isprintable():
        raise invalid("clientIds", "must not contain control or invisible characters")
    if _CLIENT_ID in pattern:
        raise invalid("clientIds", "must not contain %c, which is the client id itself; write * for any characters")
    return pattern


def can_be_literal(client_id: str) -> bool:
    """Say whether a pattern that is spelled like this client id matches this client id and no other."""
    try:
        validate_client_id(client_id)
    except InvalidInput:
        return False
    return _USERNAME not in client_id and _ANY not in client_id


def allows(patterns: Iterable[str], username: str, client_id: str) -> bool:
    """Say whether a user with these patterns, its own and its roles', may use a client id; without any, it may."""
    unrestricted = True
    for pattern in patterns:
        unrestricted = False
        if _matches(pattern, username, client_id):
            return True
    return unrestricted


def restrict(patterns: Iterable[str]) -> bool:
    """Say whether these patterns together exclude some client id; none of them, or a `*` among them, excludes none."""
    given = tuple(patterns)
    return bool(given) and not any(set(pattern) == {_ANY} for pattern in given)


def match_longer_usernames(patterns: Iterable[str]) -> bool:
    """Say whether one of these patterns matches a longer username, as `%u-*` of the user press matches `press-7`."""
    return any(_LONGER_USERNAME.search(pattern) for pattern in patterns)


def depend_on_client_id(permissions: Iterable[Permission]) -> bool:
    """Say whether one of these rules names topics by the client id, which the client chooses."""
    return any(each.context is Context.MQTT and _CLIENT_ID in each.levels for each in permissions)


def _matches(pattern: str, username: str, client_id: str) -> bool:
    # The pattern is split before the username is filled in, so no name can add a wildcard. Each part is searched once
    # and to the right of the one before, so no client id makes this backtrack.
    first, *rest = (part.replace(_USERNAME, username) for part in pattern.split(_ANY))
    if not rest:
        return client_id == first
    *middle, last = rest
    position, end = len(first), len(client_id) - len(last)
    if position > end or not client_id.startswith(first) or not client_id.endswith(last):
        return False
    for part in middle:
        found = client_id.find(part, position, end)
        if found < 0:
            return False
        position = found + len(part)
    return True
