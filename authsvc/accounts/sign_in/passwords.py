"""Sign-ins with a password at the API, the page and EST: limits on guessing, and failures that take equally long.

Wrong passwords are counted per minute under three keys: network and name, network, name. The third does not apply to a
network from which the name has signed in before, so that guesses from other networks do not lock out the owner.
`docs/adr/0017-sign-ins.md` says what an attacker can still do.
"""

from __future__ import annotations

import hashlib
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from threading import BoundedSemaphore
from time import monotonic, sleep
from typing import TYPE_CHECKING, NoReturn

from peewee import EXCLUDED

from authsvc.accounts import throttle
from authsvc.accounts.sign_in import second_factor
from authsvc.accounts.sign_in.methods import How, Method, Missing, SignIn
from authsvc.addresses import is_loopback, network_of
from authsvc.credentials.hashing import slot
from authsvc.credentials.usernames import directory_username, skeleton
from authsvc.errors import Busy, TooMany, Unauthenticated
from authsvc.policy.actors import Proof
from authsvc.policy.decision import Denied, Reason
from authsvc.storage.database import session, transaction
from authsvc.storage.models import SignInAddress, User

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from authsvc.accounts.sign_in.second_factor import SecondFactors
    from authsvc.activity.failed_sign_ins import FailedSignIns
    from authsvc.policy.access import AccessControl
    from authsvc.policy.actors import Actor
    from authsvc.policy.snapshot import UserPolicy

# The limit of a network and of a name, as a multiple of the limit of network and name.
TIMES_PER_NETWORK = 3
TIMES_PER_NAME = 3
MAX_NETWORKS = 20  # remembered for one name
REMEMBERED = timedelta(days=90)
# A sign-in from a known network is written at most once a day, so that most requests cost no database write.
_LAST_SEEN_EVERY = timedelta(days=1)


class SignIns:
    """Checks passwords within the limits, codes of second factors, and API tokens.

    `per_minute` is the limit of wrong passwords for one name from one network. Up to `slots` sign-ins that need a hash
    run concurrently from networks that are known for their name, and as many from all other networks, so that a flood
    from unknown networks leaves the slots of known ones free. The hashes of known networks run first. Without a free
    slot a sign-in is `Busy` at once. With `factor_required` a user that may change anything in this service needs a
    second factor.

    `ask_directory` returns the user of a directory with this name and password, admitted from this address; None if
    they are wrong. With `local_on_loopback` users with passwords of this service that may change something in it sign
    in from this machine only.
    """

    def __init__(
        self,
        access: AccessControl,
        per_minute: int,
        slots: int,
        failures: FailedSignIns,
        second_factors: SecondFactors,
        *,
        factor_required: bool = False,
        ask_directory: Callable[[str, str, str | None], UserPolicy | None] | None = None,
        local_on_loopback: bool = False,
    ) -> None:
        self._access = access
        self._second_factors = second_factors
        self._factor_required = factor_required
        self._failures = failures
        self._per_minute = per_minute
        self._slots = {known: BoundedSemaphore(slots) for known in (True, False)}
        self._ask_directory = ask_directory
        self._local_on_loopback = local_on_loopback

    def with_token(self, token: str) -> SignIn:
        """Return the sign-in of an API token's user; `Unauthenticated` if the token is not valid."""
        user, digest = self._access.authenticate_token(token, datetime.now(UTC))
        return SignIn(user, How(Method.TOKEN), Proof(token_digest=digest))

    def with_password(
        self, username: str, password: str, address: str | None, *, directory_too: bool = False
    ) -> SignIn:
        """Return the sign-in with these credentials; `Unauthenticated`, with the same message for every cause, if none.

        With `directory_too` the directory is asked for names that no user kept here has. A name without a user must not
        look like that of one either. A failure takes at least `failure_seconds`. If a limit is reached, `TooMany` at
        once, also for the right password.
        """
        name = directory_username(username) if directory_too and self._ask_directory else None
        by_directory = name is not None and not _is_kept_here(username, name)
        try:
            user = self._check_password(username, password, address, by_directory=by_directory)
        except TooMany as error:
            self._failures.note(username, address, error.code)
            raise
        if by_directory:
            return self.confirmed_by(Method.LDAP, user)
        return SignIn(user, How(Method.PASSWORD), Proof(password_hash=user.password_hash), self.missing(user))

    def confirmed_by(self, method: Method, user: UserPolicy) -> SignIn:
        """Return the sign-in of a user that a provider or directory has just confirmed."""
        return SignIn(user, How(method), Proof(), self.missing(user))

    def missing(self, user: UserPolicy) -> Missing:
        """Return what a sign-in still needs after a right password or the provider's confirmation."""
        if second_factor.is_set(user.username):
            return Missing.CODE
        return Missing.ENROLMENT if self._factor_required and self._access.writes(user) else Missing.NOTHING

    def complete(self, signed_in: SignIn, actor: Actor, code: str) -> SignIn:
        """Return the sign-in with nothing missing; the actor is its user.

        `Unauthenticated` with code `otp-required`, `otp-wrong` or `otp-enrolment-required`; `TooMany` during the pause
        after many wrong codes.
        """
        if signed_in.missing is Missing.NOTHING:
            return signed_in
        if signed_in.missing is Missing.ENROLMENT:
            message = "this account needs a second factor first; set it up at /admin/sign-in"
            if signed_in.how.method is Method.PASSWORD:
                message += " or by POST /api/me/otp and POST /api/me/otp/confirm with HTTP Basic"
            raise Unauthenticated(message, "otp-enrolment-required")
        if not code:
            message = "this account has a second factor; send its code as `otp` to POST /api/login to get a token"
            raise Unauthenticated(message, "otp-required")
        with self._noting_refusals(actor):
            used = self._second_factors.check(actor, code)
        return replace(signed_in, how=How(signed_in.how.method, used), missing=Missing.NOTHING)

    def remove_second_factor(self, actor: Actor, code: str) -> None:
        """Remove the actor's own second factor, given one of its codes; wrong ones count as failed sign-ins."""
        with self._noting_refusals(actor):
            self._second_factors.remove_own(actor, code)

    @contextmanager
    def _noting_refusals(self, actor: Actor) -> Iterator[None]:
        try:
            yield
        except (Unauthenticated, TooMany) as error:
            self._failures.note(actor.username, actor.address, error.code)
            raise

    def _check_password(self, username: str, password: str, address: str | None, *, by_directory: bool) -> UserPolicy:
        started = monotonic()
        # A directory ignores case, so all spellings of a name count as one.
        name = (directory_username(username) or username) if by_directory else username
        digest = hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()
        attempt = SignInAttempt(digest, network_of(address))
        with session():
            last_seen = attempt.last_seen()
            known = last_seen is not None
            limits = attempt.limits(self._per_minute, known=known)
            throttle.check_limits(limits)
        user = None if by_directory else self._access.authenticate_cached_password(username, password)
        if user is None or self._is_away_from_home(user, address):
            # The directory has slots of its own, so that it takes none of local users while it does not answer.
            with nullcontext() if by_directory else slot(self._slots[known], _busy()):
                outcome = self._verify(username, password, address, known=known, by_directory=by_directory)
                if isinstance(outcome, Denied):
                    if outcome.reason is not Reason.HASHING_BUSY:
                        self._failures.note(username, address, outcome.reason)
                    self._refuse(outcome, attempt, started)
            user = outcome
            # Concurrent wrong passwords may have been counted since this sign-in started.
            throttle.check_limits(limits)
        if last_seen is None or last_seen < datetime.now(UTC) - _LAST_SEEN_EVERY:
            attempt.remember()
        return user

    def _verify(
        self, username: str, password: str, address: str | None, *, known: bool, by_directory: bool
    ) -> UserPolicy | Denied:
        if by_directory and self._ask_directory:
            return self._ask_directory(username, password, address) or Denied(Reason.WRONG_PASSWORD)
        outcome = self._access.authenticate_password(username, password, first=known)
        if not isinstance(outcome, Denied) and self._is_away_from_home(outcome, address):
            return Denied(Reason.WRONG_PASSWORD)
        return outcome

    def _is_away_from_home(self, user: UserPolicy, address: str | None) -> bool:
        """Return whether this user's password counts on the service's own machine only, and this is another one."""
        remote = self._local_on_loopback and not is_loopback(address or "")
        return remote and self._access.writes(user)

    def _refuse(self, denied: Denied, attempt: SignInAttempt, started: float) -> NoReturn:
        if denied.reason is Reason.HASHING_BUSY:
            raise _busy()
        throttle.count(attempt.limits(self._per_minute, known=False))
        sleep(max(0.0, started + self._access.failure_seconds - monotonic()))
        # The same for everybody, so that it does not reveal whose password is right.
        where = "; local administrators sign in on the machine of the service" if self._local_on_loopback else ""
        raise Unauthenticated(f"username or password is wrong{where}", "wrong-credentials")


@dataclass(frozen=True, slots=True)
class SignInAttempt:
    """The digest of the given name, which may be any text, and the network of the client."""

    name: str
    network: str

    def limits(self, per_minute: int, *, known: bool) -> dict[str, int]:
        """Return the limit of wrong passwords per minute by key, for the keys under which this attempt counts."""
        limits = {
            f"password {self.network} {self.name}": per_minute,
            f"password from {self.network}": per_minute * TIMES_PER_NETWORK,
        }
        if not known:
            limits[f"password of {self.name}"] = per_minute * TIMES_PER_NAME
        return limits

    def last_seen(self) -> datetime | None:
        """Return the last sign-in of the name from this network, to the day; None if there is none within 90 days."""
        here = (SignInAddress.name == self.name) & (SignInAddress.network == self.network)
        with session():
            at: datetime | None = SignInAddress.select(SignInAddress.last_seen).where(here).scalar()
        return at if at and at > datetime.now(UTC) - REMEMBERED else None

    def remember(self) -> None:
        """Store a sign-in of the name from this network, and delete all but the latest `MAX_NETWORKS` of the name."""
        now = datetime.now(UTC)
        with transaction():
            target, update = [SignInAddress.name, SignInAddress.network], {SignInAddress.last_seen: EXCLUDED.last_seen}
            row = SignInAddress.insert(name=self.name, network=self.network, last_seen=now)
            row.on_conflict(conflict_target=target, update=update).execute()
            of_name = SignInAddress.name == self.name
            latest = SignInAddress.select(SignInAddress.network).where(of_name).order_by(SignInAddress.last_seen.desc())
            kept = [each.network for each in latest.limit(MAX_NETWORKS)]
            SignInAddress.delete().where(of_name, SignInAddress.network.not_in(kept)).execute()


def delete_old() -> None:
    """Delete networks without a sign-in for 90 days."""
    with transaction():
        SignInAddress.delete().where(SignInAddress.last_seen < datetime.now(UTC) - REMEMBERED).execute()


def _is_kept_here(*names: str) -> bool:
    """Return whether the user with the first of these names that has one is not of the directory.

    If none has one, return whether a user that is not of the directory has a name that looks like these.
    """
    with session():
        for name in names:
            origin = User.select(User.origin).where(User.username == name).scalar()
            if origin is not None:
                return bool(origin != Method.LDAP)
        same = User.skeleton.in_([skeleton(name) for name in names])
        return User.select().where(same, User.origin != Method.LDAP).exists()


def _busy() -> Busy:
    return Busy("too many logins are under way; try again in a moment", "hashing-busy")
