"""Names that users and roles may have, such that no name can be mistaken for a topic, a path or a wildcard."""

from __future__ import annotations

import re

from authsvc.errors import invalid

USERNAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{2,63}")
ROLE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}")


def is_username(name: str) -> bool:
    """Say whether a user of that name could exist."""
    return USERNAME.fullmatch(name) is not None


def validate_username(name: str) -> str:
    """Return the name; raise `InvalidInput` for `username` otherwise."""
    if not is_username(name):
        raise invalid("username", "must be 3 to 64 of A-Z a-z 0-9 _ . - and begin with a letter or digit")
    return name


def validate_role_name(name: str) -> str:
    """Return the name; raise `InvalidInput` for `name` otherwise."""
    if not ROLE_NAME.fullmatch(name):
        raise invalid("name", "must be 1 to 64 of A-Z a-z 0-9 _ . - and begin with a letter or digit")
    return name
