"""Sign-ins with a password at the API, the page and EST: limits on guessing, and failures that take equally long.

Wrong passwords are counted per minute under three keys: the network that tries together with the name, the network,
and the name. A network from which the name has signed in before is exempt from the third, so that guesses from
elsewhere do not keep the owner out. `docs/adr/0017-sign-ins.md` says what an attacker can still do.
"""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from threading import BoundedSemaphore
from time import monotonic, sleep
from typing import TYPE_CHECKING, NoReturn

from peewee import EXCLUDED

from authsvc.accounts import throttle
from authsvc.addresses import network_of
from authsvc.errors import Busy, Unauthenticated
from authsvc.policy.decision import Denied, Reason
from authsvc.storage.database import session, transaction
from authsvc.storage.models import SignInAddress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from authsvc.policy.access import AccessControl
    from authsvc.policy.snapshot import UserPolicy

# The limits of a network and of a name, in multiples of the limit of both together.
TIMES_PER_NETWORK = 3
TIMES_PER_NAME = 3
MAX_NETWORKS = 20  # remembered for one name
REMEMBERED = timedelta(days=90)
# Signing in from the same network again is written down once a day: a request should seldom cost a write.
_NOTED_EVERY = timedelta(days=1)


class SignIns:
    """Checks passwords within the limits.

    `per_minute` wrong ones may be tried for one name from one network. `places` sign-ins that take a hash may be under
    way at a time from networks that are known for their name, and as many from all others, so that a flood from
    elsewhere leaves the places of known networks free. The hashes of known networks run before all others. Whoever
    finds no place is `Busy` at once.
    """

    def __init__(self, access: AccessControl, per_minute: int, places: int) -> None:
        self._access = access
        self._per_minute = per_minute
        self._places = {known: BoundedSemaphore(places) for known in (True, False)}

    def check_password(self, username: str, password: str, address: str | None) -> UserPolicy:
        """Return the user with these credentials; `Unauthenticated` otherwise, the same for every cause.

        A wrong password is answered no sooner than `failure_seconds` after it came. `TooMany` at once when a limit is
        reached, also for the right password.
        """
        started = monotonic()
        attempt = SignInAttempt(_digest(username), network_of(address))
        with session():
            last_seen = attempt.last_seen()
            known = last_seen is not None
            limits = attempt.limits(self._per_minute, known=known)
            throttle.refuse_beyond(limits)
        user = self._access.authenticate_cached_password(username, password)
        if user is None:
            with self._place(known=known):
                outcome = self._access.authenticate_password(username, password, first=known)
                if isinstance(outcome, Denied):
                    self._refuse(outcome, attempt, started)
            user = outcome
            # Of many that are tried side by side, none was counted when this one began.
            throttle.refuse_beyond(limits)
        if last_seen is None or last_seen < datetime.now(UTC) - _NOTED_EVERY:
            attempt.remember()
        return user

    def _refuse(self, denied: Denied, attempt: SignInAttempt, started: float) -> NoReturn:
        if denied.reason is Reason.HASHING_BUSY:
            raise _busy()
        throttle.note(attempt.limits(self._per_minute, known=False))
        sleep(max(0.0, started + self._access.failure_seconds - monotonic()))
        raise Unauthenticated("username or password is wrong", "wrong-credentials")

    @contextmanager
    def _place(self, *, known: bool) -> Iterator[None]:
        places = self._places[known]
        if not places.acquire(blocking=False):
            raise _busy()
        try:
            yield
        finally:
            places.release()


@dataclass(frozen=True, slots=True)
class SignInAttempt:
    """Who signs in from where: the digest of a name, which may be anything, and a network."""

    name: str
    network: str

    def limits(self, per_minute: int, *, known: bool) -> dict[str, int]:
        """Return how many wrong passwords a minute may be tried under each key that this attempt counts under."""
        limits = {
            f"password {self.network} {self.name}": per_minute,
            f"password from {self.network}": per_minute * TIMES_PER_NETWORK,
        }
        if not known:
            limits[f"password of {self.name}"] = per_minute * TIMES_PER_NAME
        return limits

    def last_seen(self) -> datetime | None:
        """Return about when the name last signed in from this network; None if it never did, or too long ago."""
        here = (SignInAddress.name == self.name) & (SignInAddress.network == self.network)
        with session():
            at: datetime | None = SignInAddress.select(SignInAddress.last_seen).where(here).scalar()
        return at if at and at > datetime.now(UTC) - REMEMBERED else None

    def remember(self) -> None:
        """Note that the name has signed in from this network; of more than a few the latest are kept."""
        now = datetime.now(UTC)
        with transaction():
            target, update = [SignInAddress.name, SignInAddress.network], {SignInAddress.last_seen: EXCLUDED.last_seen}
            row = SignInAddress.insert(name=self.name, network=self.network, last_seen=now)
            row.on_conflict(conflict_target=target, update=update).execute()
            of_name = SignInAddress.name == self.name
            latest = SignInAddress.select(SignInAddress.network).where(of_name).order_by(SignInAddress.last_seen.desc())
            kept = [each.network for each in latest.limit(MAX_NETWORKS)]
            SignInAddress.delete().where(of_name, SignInAddress.network.not_in(kept)).execute()


def forget_old() -> None:
    """Remove networks from which nobody has signed in for a long time."""
    with transaction():
        SignInAddress.delete().where(SignInAddress.last_seen < datetime.now(UTC) - REMEMBERED).execute()


def _digest(username: str) -> str:
    return hashlib.sha256(username.encode("utf-8", "replace")).hexdigest()


def _busy() -> Busy:
    return Busy("too many logins are under way; try again in a moment", "hashing-busy")
