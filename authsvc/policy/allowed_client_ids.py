"""Allowed client ids: patterns of literal text, `%u` for the username and `*` for zero or more characters.

A user and its roles may each have patterns. A client id is allowed if it matches any of them, or if there are none.
So one pattern on a user or on any of its roles restricts the user, and a role without patterns does not lift that.
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
# Only characters that a username may have, or none, stand between %u and *.
_LONGER_USERNAME = re.compile(r"%u[A-Za-z0-9_.\-]*\*|\*[A-Za-z0-9_.\-]*%u")


def validate_client_ids(patterns: Iterable[str]) -> tuple[str, ...]:
    """Return the patterns without duplicates; `InvalidInput` names each wrong one by position, as `clientIds[2]`."""
    given, wrong = tuple(patterns), []
    for position, pattern in enumerate(given):
        try:
            validate_client_id(pattern)
        except InvalidInput as error:
            wrong.append(FieldError(f"clientIds[{position}]", error.errors[0].message))
    unique = tuple(dict.fromkeys(given))
    if len(unique) > MAX_PATTERNS:
        wrong.append(FieldError("clientIds", f"must have at most {MAX_PATTERNS} entries"))
    if wrong:
        raise InvalidInput(*wrong)
    return unique


def validate_client_id(pattern: str) -> str:
    """Return the pattern; `InvalidInput` for `clientIds` if it is not valid."""
    if not 0 < len(pattern) <= MAX_LENGTH:
        raise invalid("clientIds", f"must be 1 to {MAX_LENGTH} characters")
    if not pattern.isprintable():
        raise invalid("clientIds", "must not contain control or invisible characters")
    if _CLIENT_ID in pattern:
        raise invalid("clientIds", "must not contain %c, which is the client id itself; write * for any characters")
    return pattern


def can_be_literal(client_id: str) -> bool:
    """Return whether this client id, used as a pattern, matches itself and nothing else."""
    try:
        validate_client_id(client_id)
    except InvalidInput:
        return False
    return _USERNAME not in client_id and _ANY not in client_id


def allows(patterns: Iterable[str], username: str, client_id: str) -> bool:
    """Return whether a client id matches one of a user's patterns, its own and its roles'; True if there are none."""
    unrestricted = True
    for pattern in patterns:
        unrestricted = False
        if _matches(pattern, username, client_id):
            return True
    return unrestricted


def restrict(patterns: Iterable[str]) -> bool:
    """Return whether these patterns exclude any client id. No patterns, or a `*` among them, exclude none."""
    given = tuple(patterns)
    return bool(given) and not any(set(pattern) == {_ANY} for pattern in given)


def match_longer_usernames(patterns: Iterable[str]) -> bool:
    """Return whether a pattern matches another, longer username, as `%u-*` of the user press matches `press-7`."""
    return any(_LONGER_USERNAME.search(pattern) for pattern in patterns)


def depend_on_client_id(permissions: Iterable[Permission]) -> bool:
    """Return whether an mqtt permission contains `%c`, the client id, which the client chooses."""
    return any(each.context is Context.MQTT and _CLIENT_ID in each.levels for each in permissions)


def _matches(pattern: str, username: str, client_id: str) -> bool:
    # The pattern is split before the username replaces %u, so no username can add a wildcard. Each part is searched
    # once, to the right of the part before, so the match never backtracks.
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
