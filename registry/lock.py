"""The lock: closed by default, opened for a while, closing by itself by the database's clock."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from authsvc.activity import audit
from authsvc.errors import Locked, invalid
from authsvc.storage import policy_reader
from authsvc.storage.database import database_time, session, transaction
from registry.models import Registration, Window
from registry.states import Status

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from authsvc.policy.actors import Actor

DEFAULT_SECONDS = 300
MAX_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class LockState:
    """Whether the registry is open, since when and for how long, and within which limits; None for no limit.

    `granted` counts the registrations that took a place in this window; None if there is no limit to them.
    """

    opened_at: datetime | None
    unlocked_until: datetime | None
    seconds_left: int
    max_registrations: int | None
    username_pattern: str | None
    roles: tuple[str, ...]
    granted: int | None

    @property
    def locked(self) -> bool:
        """Whether nothing new may be granted or registered."""
        return self.seconds_left == 0

    @property
    def is_full(self) -> bool:
        """Whether as many registrations are granted as the limit says."""
        return self.max_registrations is not None and (self.granted or 0) >= self.max_registrations

    def admits(self, username: str) -> bool:
        """Say whether this name may be registered now."""
        return (
            not self.locked
            and not self.is_full
            and (self.username_pattern is None or fnmatchcase(username, self.username_pattern))
        )


@dataclass(frozen=True, slots=True)
class Limits:
    """What an administrator may narrow a window to.

    How many registrations are granted, which names may register, and with what roles all of them start.
    """

    max_registrations: int | None = None
    username_pattern: str | None = None
    roles: tuple[str, ...] = ()


def state() -> LockState:
    """Return the state of the lock at this moment."""
    with session():
        row, now = Window.get(), database_time()
        left = math.ceil((row.unlocked_until - now).total_seconds()) if row.unlocked_until else 0
        limited = row.max_registrations is not None
        return LockState(
            opened_at=row.opened_at,
            unlocked_until=row.unlocked_until if left > 0 else None,
            seconds_left=max(left, 0),
            max_registrations=row.max_registrations,
            username_pattern=row.username_pattern,
            roles=tuple(row.roles),
            granted=_count_granted(row.opened_at) if limited else None,
        )


def unlock(actor: Actor, seconds: int, limits: Limits) -> LockState:
    """Open the registry for so many seconds from now, whatever was before."""
    if not 1 <= seconds <= MAX_SECONDS:
        raise invalid("durationSeconds", f"must be from 1 to {MAX_SECONDS}")
    with transaction():
        check_starting_roles(actor, limits.roles)
        now = database_time()
        Window.update(
            opened_at=now,
            unlocked_until=now + timedelta(seconds=seconds),
            max_registrations=limits.max_registrations,
            username_pattern=limits.username_pattern,
            roles=list(limits.roles),
        ).execute()
        facts: audit.Fields = {"seconds": seconds, "maxRegistrations": limits.max_registrations}
        facts |= {"usernamePattern": limits.username_pattern, "roles": list(limits.roles)}
        audit.record(actor, "registry.unlock", "registry", after=facts)
        return state()


def lock(actor: Actor) -> LockState:
    """Close the registry at once."""
    with transaction():
        Window.update(unlocked_until=None).execute()
        audit.record(actor, "registry.lock", "registry")
        return state()


def hold() -> LockState:
    """Return the state and let nobody else record, grant or unlock until the caller's transaction ends."""
    Window.update(opened_at=Window.opened_at).execute()
    return state()


def require_unlocked() -> None:
    """Raise `Locked` while the registry is locked."""
    if state().locked:
        raise Locked("the client registry is locked", "registry-locked")


def require_place(now: LockState, opened_at: datetime | None) -> None:
    """Raise `Locked` if a registration takes a place in this window, and as many are granted as its limit says."""
    if now.is_full and opened_at == now.opened_at:
        words = f"{now.granted} of at most {now.max_registrations} registrations are granted in this unlock window"
        raise Locked(f"{words}; unlock the registry again to grant more", "window-full")


def check_starting_roles(actor: Actor, names: Sequence[str]) -> None:
    """Check the roles that a window or an enrolment key gives to whoever comes.

    `InvalidInput` for the first that does not exist or gives rights over this service (http); `Forbidden` for rights
    that the actor lacks.
    """
    given = policy_reader.role_policies(names)
    for position, name in enumerate(names):
        if name not in given:
            raise invalid(f"roles[{position}]", "no such role")
    actor.must_hold([each for role in given.values() for each in role.rights])
    for position, name in enumerate(names):
        if any(right.is_http_right for right in given[name].rights):
            raise invalid(f"roles[{position}]", "gives rights over this service (http), give it to single users")


def _count_granted(opened_at: datetime) -> int:
    of_window = Registration.window_opened_at == opened_at
    count: int = Registration.select().where(of_window, Registration.status == Status.GRANTED).count()
    return count
