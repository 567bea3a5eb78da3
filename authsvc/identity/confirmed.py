"""What a provider or directory confirms about a user, and the rules that turn it into a username and roles here."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, NamedTuple

from authsvc.credentials.usernames import is_username, skeleton
from authsvc.errors import Unauthenticated

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import timedelta

    from authsvc.accounts.users import Origin

MAX_SUBJECT = 255
# Names that stand for more than a person: the first administrator, and the service itself in the audit trail.
_RESERVED = {skeleton("admin"), skeleton("authsvc")}


class ConfirmedIdentity(NamedTuple):
    """A user as a provider or directory has just confirmed it.

    `issuer` and `subject` identify the user forever; `username` is only what the user is called at its first sign-in.
    `roles` are those of its groups, and `lasts` is how long its API tokens are valid without another sign-in.
    """

    origin: Origin
    issuer: str
    subject: str
    username: str
    roles: tuple[str, ...]
    lasts: timedelta


def username_from(given: str) -> str:
    """Return the username for a name that a provider or a person gave; `Unauthenticated` if none can be made of it.

    It is in lower case and without the domain of a mail address. Names of more than ASCII are refused, because they
    could look like another name, and so are `admin`, `authsvc` and names that look like these.
    """
    name = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", given).casefold()).partition("@")[0]
    if not is_username(name):
        message = "your username has characters or a length that authsvc does not allow: 3 to 64 of a-z 0-9 _ . -"
        raise Unauthenticated(message, "unusable-username")
    if skeleton(name) in _RESERVED:
        raise Unauthenticated("your username is reserved for accounts of this service", "username-taken")
    return name


def roles_of(groups: Iterable[str], roles_by_group: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Return the roles of these groups, sorted, each once."""
    return tuple(sorted({role for group in groups for role in roles_by_group.get(group, ())}))
