"""What a provider or directory confirms about a user."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import timedelta

    from authsvc.accounts.users import Origin

MAX_SUBJECT = 255


class ConfirmedIdentity(NamedTuple):
    """A user as a provider or directory has just confirmed it.

    `issuer` and `subject` identify the user forever. `username` is the name that it gets at its first sign-in, None if
    the given one cannot be used here. `roles` are those of its groups, and `lasts` is how long its API tokens are valid
    without another sign-in.
    """

    origin: Origin
    issuer: str
    subject: str
    username: str | None
    roles: tuple[str, ...]
    lasts: timedelta


def roles_of(groups: Iterable[str], roles_by_group: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Return the roles of these groups, sorted, each once."""
    return tuple(sorted({role for group in groups for role in roles_by_group.get(group, ())}))
