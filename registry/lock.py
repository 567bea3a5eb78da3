"""The lock of the registry: locked by default, unlocked for a limited time by the database's clock."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from pydantic.alias_generators import to_camel

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
    """The latest unlock window and its limits; None means no limit.

    `granted` is the number of registrations that were granted in this window; None if `max_registrations` is None.
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
        return self.seconds_left == 0

    @property
    def is_full(self) -> bool:
        """Whether `max_registrations` registrations are granted in this window."""
        return self.max_registrations is not None and (self.granted or 0) >= self.max_registrations

    def admits(self, username: str) -> bool:
        """Return whether a device with this username can register now."""
        return (
            not self.locked
            and not self.is_full
            and (self.username_pattern is None or fnmatchcase(username, self.username_pattern))
        )


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of an unlock window: number of registrations, pattern of usernames, and roles that each of them gets."""

    max_registrations: int | None = None
    username_pattern: str | None = None
    roles: tuple[str, ...] = ()


def state() -> LockState:
    with session():
        row, now = Window.get(), database_time()
        left = math.ceil((row.unlocked_until - now).total_seconds()) if row.unlocked_until else 0
        in_window = (Registration.window_opened_at == row.opened_at) & (Registration.status == Status.GRANTED)
        is_limited = row.max_registrations is not None
        return LockState(
            opened_at=row.opened_at,
            unlocked_until=row.unlocked_until if left > 0 else None,
            seconds_left=max(left, 0),
            max_registrations=row.max_registrations,
            username_pattern=row.username_pattern,
            roles=tuple(row.roles),
            granted=Registration.select().where(in_window).count() if is_limited else None,
        )


def unlock(actor: Actor, seconds: int, limits: Limits) -> LockState:
    """Unlock the registry for this many seconds from now. This replaces an open unlock window and its limits."""
    if not 1 <= seconds <= MAX_SECONDS:
        raise invalid("durationSeconds", f"must be from 1 to {MAX_SECONDS}")
    with transaction():
        check_starting_roles(actor, limits.roles)
        now = database_time()
        Window.update(opened_at=now, unlocked_until=now + timedelta(seconds=seconds), **asdict(limits)).execute()
        after = {"seconds": seconds} | {to_camel(name): value for name, value in asdict(limits).items()}
        audit.record(actor, "registry.unlock", "registry", after=after)
        return state()


def lock(actor: Actor) -> LockState:
    with transaction():
        Window.update(unlocked_until=None).execute()
        audit.record(actor, "registry.lock", "registry")
        return state()


def state_for_update() -> LockState:
    """Return the state and block every other change of registrations until the caller's transaction ends.

    SQLite has no SELECT FOR UPDATE; an UPDATE that changes nothing locks the row on both databases.
    """
    Window.update(opened_at=Window.opened_at).execute()
    return state()


def require_capacity(now: LockState, opened_at: datetime | None) -> None:
    """Raise `Locked` if a registration counts towards this unlock window, and the window is full."""
    if now.is_full and opened_at == now.opened_at:
        counts = f"{now.granted} of at most {now.max_registrations} registrations are granted in this unlock window"
        raise Locked(f"{counts}; unlock the registry again to grant more", "window-full")


def check_starting_roles(actor: Actor, names: Sequence[str]) -> None:
    """Check the roles that an unlock window or an enrolment key gives to every device.

    Raise `InvalidInput` for a role that does not exist or gives rights over this service (http), and `Forbidden` if
    the actor lacks any of the rights.
    """
    found = policy_reader.role_policies(names)
    for position, name in enumerate(names):
        if name not in found:
            raise invalid(f"roles[{position}]", "no such role")
    actor.must_hold([right for role in found.values() for right in role.rights])
    for position, name in enumerate(names):
        if any(right.is_http_right for right in found[name].rights):
            raise invalid(f"roles[{position}]", "gives rights over this service (http), give it to single users")
