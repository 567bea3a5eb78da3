"""The names that users and roles may have. No name contains a separator or wildcard of topics and paths."""

from __future__ import annotations

import re
import unicodedata

from authsvc.errors import invalid

USERNAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{2,63}")
ROLE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}")

# Characters and the form that they share with those that look like them. No two digits share a form, because a fleet of
# devices differs by numbers. The longer form replaces the shorter (rn for m), so that the result does not depend on how
# the characters are grouped.
_LOOKS_LIKE = str.maketrans(
    {"0": "o", "1": "l", "i": "l", "|": "l", "2": "z", "5": "s", "8": "b", "9": "g"}
    | {"q": "g", "m": "rn", "w": "vv", "d": "cl", "-": "", "_": "", ".": ""}
)


def is_username(name: str) -> bool:
    """Return whether a user may have this name."""
    return USERNAME.fullmatch(name) is not None


def validate_username(name: str) -> str:
    """Return the name; `InvalidInput` for `username` if it is not valid."""
    if not is_username(name):
        raise invalid("username", "must be 3 to 64 of A-Z a-z 0-9 _ . - and begin with a letter or digit")
    return name


def directory_username(given: str) -> str | None:
    """Return the username for a name that an OpenID provider, or a person for a directory, gave; None if there is none.

    It is in lower case and without the domain of a mail address. Names with other than ASCII letters are refused,
    because they could look like another name. So are names that look like `admin` and `authsvc`, which stand for the
    first administrator and for the service itself.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", given).casefold())
    name = folded.partition("@")[0]
    return name if is_username(name) and skeleton(name) not in _RESERVED else None


def validate_role_name(name: str) -> str:
    """Return the name; `InvalidInput` for `name` if it is not valid."""
    if not ROLE_NAME.fullmatch(name):
        raise invalid("name", "must be 1 to 64 of A-Z a-z 0-9 _ . - and begin with a letter or digit")
    return name


def skeleton(name: str) -> str:
    """Return the form that look-alike names share, such as `Bad-1`, `bad_l` and `BADI`."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return folded.translate(_LOOKS_LIKE)


_RESERVED = {skeleton("admin"), skeleton("authsvc")}
