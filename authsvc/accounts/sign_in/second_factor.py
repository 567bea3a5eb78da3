"""Second factors: codes of an authenticator app (TOTP, RFC 6238), and recovery codes for a lost phone.

A code is accepted once. After 10 wrong codes in succession the next ones have to wait, up to an hour each, so that
somebody who has the password cannot guess a code. Recovery codes are too long to be guessed and are not limited.
`docs/adr/0026-second-factor.md` has the reasons.
"""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from authsvc.accounts.proof import check_proof
from authsvc.accounts.sign_in.methods import Factor
from authsvc.activity import audit
from authsvc.credentials import encryption, one_time_codes
from authsvc.errors import Busy, Conflict, Forbidden, NotFound, TooMany, Unauthenticated
from authsvc.policy.actors import SERVICE
from authsvc.storage import policy_reader
from authsvc.storage.database import is_sqlite, session, transaction
from authsvc.storage.models import RecoveryCode, SecondFactor, User

if TYPE_CHECKING:
    from authsvc.policy.actors import Actor

_FREE_GUESSES = 10  # wrong codes in succession
_LONGEST_PAUSE = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Enrolment:
    """A second factor that is being set up: the secret for an authenticator app, and the URI for its QR code."""

    uri: str = field(repr=False)
    secret: str = field(repr=False)


class SecondFactors:
    """The second factors of all users; their secrets are stored as `credentials.encryption` says."""

    def __init__(self, passphrase: str | None) -> None:
        self._passphrase = passphrase

    def begin(self, actor: Actor) -> Enrolment:
        """Begin to set up the actor's own second factor; it replaces one that was begun before.

        `Conflict` if the actor has a second factor.
        """
        secret = one_time_codes.new_secret()
        with transaction():
            check_proof(actor)
            row = _row(actor.username)
            if row and row.confirmed_at:
                raise Conflict("there is a second factor already; remove it first", "otp-already-set")
            if row:
                row.delete_instance()
            SecondFactor.create(
                user=_user(actor.username),
                secret=encryption.encrypt(secret, self._passphrase),
                created_at=datetime.now(UTC),
            )
        return Enrolment(one_time_codes.uri(secret, actor.username), secret)

    def begun(self, username: str) -> Enrolment | None:
        """Return the second factor that is being set up; None if there is none, or a finished one."""
        with session():
            row = SecondFactor.get_or_none(_of(username), SecondFactor.confirmed_at.is_null())
        if row is None:
            return None
        secret = self._secret(row)
        return Enrolment(one_time_codes.uri(secret, username), secret)

    def confirm(self, actor: Actor, code: str) -> list[str]:
        """Finish the set-up with a code of the app, and return the recovery codes, which are stored as hashes only.

        `Conflict` if no set-up was begun, `Unauthenticated` if the code is wrong.
        """
        now, recovery_codes = datetime.now(UTC), one_time_codes.new_recovery_codes()
        with transaction():
            check_proof(actor)
            row = _row(actor.username)
            if row is None or row.confirmed_at:
                raise Conflict("begin with POST /api/me/otp", "otp-not-begun")
            step = one_time_codes.step_of(self._secret(row), one_time_codes.normalized(code), now)
            if step is None:
                raise _wrong()
            row.confirmed_at, row.last_step = now, step
            row.save()
            for each in recovery_codes:
                salt = secrets.token_hex(16)
                RecoveryCode.create(user=row.user, salt=salt, digest=one_time_codes.recovery_hash(each, salt))
            audit.record(actor, "second-factor.set", f"user:{actor.username}")
        return recovery_codes

    def check(self, actor: Actor, code: str) -> Factor:
        """Accept one of the actor's codes, which no later call accepts, and return which kind it is.

        `Unauthenticated` if it is wrong or was used, `TooMany` during the pause after many wrong codes.
        """
        code, now = one_time_codes.normalized(code), datetime.now(UTC)
        with transaction():
            row = _row(actor.username)
            if row is None or not row.confirmed_at:
                raise _wrong()
            if not one_time_codes.is_app_code(code):
                _use_recovery_code(actor, row, code)
                return Factor.RECOVERY_CODE
            _check_pause(row, now)
            step = one_time_codes.step_of(self._secret(row), code, now)
            if step is not None and step > row.last_step:
                row.last_step, row.wrong_codes = step, 0
                row.save()
                return Factor.CODE
            row.wrong_codes, row.wrong_at = row.wrong_codes + 1, now
            row.save()
        # Raised after the transaction, which would not count the wrong code otherwise.
        raise _wrong()

    def remove_own(self, actor: Actor, code: str) -> None:
        """Remove the actor's own second factor, given one of its codes."""
        if not is_set(actor.username):
            raise _not_set()
        self.check(actor, code)
        _delete(actor, actor.username)

    def _secret(self, row: SecondFactor) -> str:
        try:
            return encryption.decrypt(row.secret, self._passphrase)
        except ValueError as error:
            raise Busy(f"second factor: {error}", "second-factor-unreadable") from None


def is_set(username: str) -> bool:
    with session():
        return SecondFactor.select().where(_of(username), SecondFactor.confirmed_at.is_null(False)).exists()


def is_confirmed(user_id: Any) -> Any:
    """Return the SQL condition that the user with this id has a second factor."""
    return user_id.in_(SecondFactor.select(SecondFactor.user).where(SecondFactor.confirmed_at.is_null(False)))


def owners(condition: Any) -> frozenset[str]:
    """Return the names of the users that meet a condition and have a second factor; call it inside a session."""
    confirmed = SecondFactor.confirmed_at.is_null(False)
    rows: Any = SecondFactor.select(User.username).join(User).where(confirmed, condition).tuples()
    return frozenset(name for (name,) in rows)


def recovery_codes_left(username: str) -> int:
    with session():
        count: int = RecoveryCode.select().join(User).where(User.username == username).count()
    return count


def remove(actor: Actor, username: str) -> None:
    """Remove another user's second factor, as after the loss of a phone.

    `Forbidden` if the user has rights that the actor lacks, or is the actor, who must send a code instead.
    """
    with transaction():
        actor.must_hold(policy_reader.rights_of_user(_user(username).username))
        if actor.rules is not None and actor.username == username:
            raise Forbidden("remove your own second factor with one of its codes", "own-second-factor")
        if not is_set(username):
            raise _not_set()
        _delete(actor, username)


def encrypt_stored(passphrase: str | None) -> None:
    """Encrypt the secrets that were stored without a passphrase, inside the caller's transaction."""
    if not passphrase:
        return
    for row in SecondFactor.select(SecondFactor, User).join(User):
        if not encryption.is_encrypted(row.secret):
            row.secret = encryption.encrypt(row.secret, passphrase)
            row.save()
            audit.record(SERVICE, "second-factor.encrypt", f"user:{row.user.username}")


def _of(username: str) -> Any:
    return SecondFactor.user.in_(User.select(User.id).where(User.username == username))


def _row(username: str) -> SecondFactor | None:
    """Return the row, locked until the transaction ends, so that two requests cannot use one code."""
    query: Any = SecondFactor.select().where(_of(username))
    if not is_sqlite():  # SQLite has one writer at a time anyway
        query = query.for_update("FOR NO KEY UPDATE")
    row: SecondFactor | None = query.first()
    return row


def _user(username: str) -> User:
    row: User | None = User.get_or_none(User.username == username)
    if row is None:
        raise NotFound("no such user", "user-not-found")
    return row


def _check_pause(row: SecondFactor, now: datetime) -> None:
    if row.wrong_codes < _FREE_GUESSES or row.wrong_at is None:
        return
    minutes = 2 ** min(row.wrong_codes - _FREE_GUESSES, 6)
    left = row.wrong_at + min(timedelta(minutes=minutes), _LONGEST_PAUSE) - now
    if left > timedelta(0):
        message = "too many wrong codes; wait, or use a recovery code"
        raise TooMany(message, "too-many-attempts", math.ceil(left.total_seconds()))


def _use_recovery_code(actor: Actor, row: SecondFactor, code: str) -> None:
    unused = list(RecoveryCode.select().where(RecoveryCode.user == row.user))
    for each in unused:
        if one_time_codes.is_recovery_code(code, each.salt, each.digest):
            each.delete_instance()
            row.wrong_codes = 0
            row.save()
            left = {"recoveryCodesLeft": len(unused) - 1}
            audit.record(actor, "second-factor.recover", f"user:{actor.username}", after=left)
            return
    raise _wrong()


def _delete(actor: Actor, username: str) -> None:
    with transaction():
        SecondFactor.delete().where(_of(username)).execute()
        RecoveryCode.delete().where(RecoveryCode.user == _user(username)).execute()
        audit.record(actor, "second-factor.remove", f"user:{username}")


def _wrong() -> Unauthenticated:
    return Unauthenticated("the code is wrong or was used before", "otp-wrong")


def _not_set() -> NotFound:
    return NotFound("there is no second factor", "otp-not-set")
