"""Names that users and roles may have, such that no name can be mistaken for a topic, a path or a wildcard."""

from __future__ import annotations

import re
import unicodedata

from authsvc.errors import invalid

USERNAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{2,63}")
ROLE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}")

# Letters that are taken for others, and what stands for all that look like it. No two digits share one, so that a fleet
# of numbered devices is not taken for copies of one another. Longer forms stand for shorter ones (rn for m), because
# only so every name comes to the same end however its letters are grouped.
_LOOKS_LIKE = str.maketrans(
    {"0": "o", "1": "l", "i": "l", "|": "l", "2": "z", "5": "s", "8": "b", "9": "g"}
    | {"q": "g", "m": "rn", "w": "vv", "d": "cl", "-": "", "_": "", ".": ""}
)


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


def skeleton(name: str) -> str:
    """Return the form that a name shares with all names that can be mistaken for it: `Bad-1`, `bad_l` and `BADI`."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return folded.translate(_LOOKS_LIKE)
