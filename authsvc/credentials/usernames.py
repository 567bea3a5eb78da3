"""The names that users and roles may have. Roles and restricted registrations have no separator or wildcard in them."""

from __future__ import annotations

import re
import unicodedata
from enum import StrEnum

from authsvc.errors import invalid

MAX_USERNAME = 255
# Control characters, and the code points that Unicode reserves; Mosquitto refuses both.
UNUSABLE = r"\x00-\x1f\x7f-\x9f\ufdd0-\ufdef\ufffe\uffff"
_UNUSABLE = re.compile(f"[{UNUSABLE}]")
_RESTRICTED = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{2,63}")
_SPECIAL = "+#/"
ROLE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}")

# Characters and the form that they share with those that look like them. No two digits share a form, because a fleet of
# devices differs by numbers. The longer form replaces the shorter (rn for m), so that the result does not depend on how
# the characters are grouped.
_LOOKS_LIKE = str.maketrans(
    {"0": "o", "1": "l", "i": "l", "|": "l", "2": "z", "5": "s", "8": "b", "9": "g"}
    | {"q": "g", "m": "rn", "w": "vv", "d": "cl", "-": "", "_": "", ".": ""}
)


class RegistrationNames(StrEnum):
    """Which usernames can register: 3 to 64 of `A-Z a-z 0-9 _ . -`, or any that a user may have."""

    RESTRICTED = "restricted"
    ANY = "any"


def validate_username(name: str) -> str:
    """Return the name; `InvalidInput` for `username` if no user may have it, because MQTT or Mosquitto refuse it."""
    return _checked(name, _problem(name))


def validate_registration_name(name: str, allowed: RegistrationNames) -> str:
    """Return the name; `InvalidInput` for `username` if it cannot register."""
    return _checked(name, registration_problem(name, allowed))


def registration_problem(name: str, allowed: RegistrationNames) -> str | None:
    """Return why a name cannot register, None if it can."""
    if allowed is RegistrationNames.ANY or _problem(name):
        return _problem(name)
    if not _RESTRICTED.fullmatch(name):
        return "must be 3 to 64 of A-Z a-z 0-9 _ . - and begin with a letter or digit"
    return None


def special_characters(name: str) -> str:
    """Return the characters of a username that make it match no topic filter with `%u`."""
    return "".join(each for each in _SPECIAL if each in name)


def _problem(name: str) -> str | None:
    if not 1 <= len(name) <= MAX_USERNAME:
        return f"must have 1 to {MAX_USERNAME} characters"
    if _UNUSABLE.search(name):
        return "must not contain control characters"
    if name in {".", ".."}:
        return "must not be . or .., which browsers leave out of an address"
    try:
        name.encode()
    except UnicodeEncodeError:
        return "must be valid Unicode"
    return None


def _checked(name: str, problem: str | None) -> str:
    if problem:
        raise invalid("username", problem)
    return name


def directory_username(given: str) -> str | None:
    """Return the username for a name that an OpenID provider, or a person for a directory, gave; None if there is none.

    It is in lower case, without the domain of a mail address, and one that a restricted registration may have: other
    characters could make it look like another name. Names that look like `admin` or `authsvc` are refused, because they
    stand for the first administrator and for the service itself.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", given).casefold())
    name = folded.partition("@")[0]
    return name if _RESTRICTED.fullmatch(name) and skeleton(name) not in _RESERVED else None


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
