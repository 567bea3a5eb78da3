"""The explicit flow: a client asks over REST, and repeats the same request until it has its answer."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import peewee

from authsvc.accounts import users
from authsvc.credentials.passwords import Verdict
from authsvc.errors import AuthsvcError, Busy, Conflict, Forbidden, Locked, TooMany
from authsvc.pki import certificates
from authsvc.policy.actors import SERVICE
from authsvc.storage.changes import policy_change
from authsvc.storage.database import session, transaction
from registry import decisions, enrolment_keys, lock, preauthorization_match, records
from registry.decisions import Grant
from registry.limits import BeyondLimit, RequestLimits
from registry.records import Start
from registry.states import Status

if TYPE_CHECKING:
    from collections.abc import Iterator
    from threading import BoundedSemaphore

    from authsvc.credentials.passwords import PasswordHasher, PasswordVerifier
    from authsvc.pki.authorities import SigningPolicy
    from authsvc.pki.csr import SigningRequest
    from registry.enrolment_keys import KeyRecord
    from registry.models import Registration
    from registry.mqtt_registration.attempted_names import AttemptedNames
    from registry.mqtt_registration.contacts import Contacts
    from registry.mqtt_registration.unknown_names import UnknownNames
    from registry.preauthorization_match import Match


@dataclass(frozen=True, slots=True)
class RegistrationRequest:
    """What a client sends: who it wants to be, the password, key or both that it holds, and what it asks for."""

    username: str
    password: str | None
    request: SigningRequest | None
    context: Any = None
    requested_roles: tuple[str, ...] = ()
    requested_permissions: tuple[dict[str, str], ...] = ()
    enrolment_key: str | None = None
    address: str | None = None

    def __repr__(self) -> str:
        return f"Application({self.username!r})"


class Pending(NamedTuple):
    """The request was recorded, and an administrator has yet to decide."""

    id: str
    pairing_code: str | None


class Granted(NamedTuple):
    """The client is a user now; with a certificate if it sent a signing request."""

    username: str
    certificate: str | None
    ca_certificate: str | None


class Admission(NamedTuple):
    """Why an unknown client may be recorded: an enrolment key, a grant in advance, or the open window (neither)."""

    key: KeyRecord | None
    advance: Match | None
    start: Start

    @property
    def at_once(self) -> bool:
        """Whether nobody needs to decide any more."""
        if self.key:
            return not self.key.approval_required and self.start.held is None
        return self.advance is not None and self.advance.admits


@dataclass(frozen=True, slots=True)
class RestRegistration:
    """Answers applications under the registry's settings.

    `places` limits how many hashes of applications may be under way in this process: one more is `Busy` at once, so
    that a flood of applications leaves threads and hashes for sign-ins.
    """

    hasher: PasswordHasher
    verifier: PasswordVerifier
    issuing: SigningPolicy
    max_pending: int
    limits: RequestLimits
    contacts: Contacts
    unknown_names: UnknownNames
    attempted: AttemptedNames
    places: BoundedSemaphore

    def register(self, application: RegistrationRequest) -> Pending | Granted:
        """Record the application, or say where the one recorded earlier stands.

        `Locked` while nobody may register; `Forbidden` once denied, or for a bad enrolment key; `Conflict`, always
        the same, when the name is taken or belongs to a client with another password or key; `TooMany` when asked
        too often. A client that was answered 202 or 201 before is not counted.
        """
        self.attempted.note(application.username)
        fingerprint = application.request.fingerprint if application.request else None
        proof = self.limits.proof_of(application.username, application.password, fingerprint)
        try:
            self._count(application, proof)
            outcome = self._answer(application, fingerprint)
        except TooMany:
            # The name may be a user's: nobody has looked.
            self.unknown_names.count_refused(application.address)
            raise
        except (Conflict, Forbidden, Locked):
            self.limits.forget(proof)
            raise
        self.limits.remember(proof)
        return outcome

    def _count(self, application: RegistrationRequest, proof: bytes) -> None:
        try:
            self.limits.count(application.username, application.address, proof)
        except BeyondLimit:
            if not self._is_holder(application):
                raise

    def _is_holder(self, application: RegistrationRequest) -> bool:
        with session(), suppress(Busy):
            row = records.current(application.username)
            return row is not None and row.status != Status.DENIED and self._same_holder(row, application)
        return False

    def _answer(self, application: RegistrationRequest, fingerprint: str | None) -> Pending | Granted:
        with session():
            # Before the registration is looked for: one granted in between has certified this very key, and used up
            # the preauthorization.
            is_used = fingerprint is not None and certificates.is_used(fingerprint)
            advance = self._advance(application, fingerprint)
            row = records.current(application.username)
            if row is None and users.exists(application.username):
                # It may have been granted between the two looks.
                row = records.current(application.username)
                if row is None:
                    raise _taken()
            if row and not (records.yields_to_holder(row) and advance and advance.proves_holder):
                return self._poll(row, application)
            if application.enrolment_key is None:
                self.unknown_names.count(application.username, address=application.address)
            if is_used:
                raise Conflict("this key was certified before; make a new one", "key-used")
            admission = self._admission(application, advance)
        claim = self._claim(application)
        try:
            return self._record(claim, admission)
        except peewee.IntegrityError:
            # Somebody recorded the same name meanwhile; whether it was this client shows now.
            with session():
                row = records.current(application.username)
                if row is None:
                    raise
                return self._poll(row, application)

    def _poll(self, row: Registration, application: RegistrationRequest) -> Pending | Granted:
        if row.status == Status.DENIED:
            raise Forbidden("the registration was denied", "registration-denied")
        if not self._same_holder(row, application):
            self.contacts.add(row, attempts=0, conflicts=1, address=application.address)
            raise _taken()
        if row.status == Status.GRANTED:
            return Granted(row.username, row.certificate, row.ca_certificate)
        if users.exists(row.username):
            granted = records.current(row.username)
            if granted is None or granted.status != Status.GRANTED:
                raise _taken()
            return Granted(granted.username, granted.certificate, granted.ca_certificate)
        self.contacts.add(row, attempts=1, conflicts=0, client_ids=(records.NO_CLIENT_ID,))
        return Pending(row.id, row.pairing_code)

    def _same_holder(self, row: Registration, application: RegistrationRequest) -> bool:
        fingerprint = application.request.fingerprint if application.request else None
        if row.csr_fingerprint != fingerprint or (row.password_hash is None) != (application.password is None):
            return False
        if application.password is None or row.password_hash is None:
            return True
        # Remembered apart from users, who may have the same name.
        name, password = f"registration:{row.id}", application.password
        verdict = self.verifier.cached_verdict(name, password, row.password_hash)
        if verdict is None:
            with self._place():
                verdict = self.verifier.verify(name, password, row.password_hash)
        if verdict is Verdict.BUSY:
            raise _busy()
        return verdict is Verdict.RIGHT

    def _advance(self, application: RegistrationRequest, fingerprint: str | None) -> Match | None:
        secrets = (application.enrolment_key, application.password)
        has_password = application.password is not None
        return preauthorization_match.match(
            application.username, fingerprint, secrets, self.attempted, has_password=has_password
        )

    def _admission(self, application: RegistrationRequest, advance: Match | None) -> Admission:
        if advance and advance.proves_holder:
            return Admission(None, advance, records.NOTHING)
        if application.enrolment_key is not None:
            key = enrolment_keys.check(application.enrolment_key)
            if advance and not advance.opens:
                raise _taken()
            return Admission(key, None, Start(key.roles, held=advance.held if advance else None))
        if advance and advance.opens:
            return Admission(None, advance, advance.start)
        state = lock.state()
        if not state.admits(application.username):
            raise _locked()
        return Admission(None, None, Start(state.roles, held=advance.held if advance else None))

    def _claim(self, application: RegistrationRequest) -> records.Claim:
        password_hash = None
        if application.password is not None:
            with self._place():
                password_hash = self.hasher.hash(application.password)
        request = application.request
        return records.Claim(
            username=application.username,
            kind=records.RegistrationKind.EXPLICIT,
            password_hash=password_hash,
            public_key=request.public_key_pem if request else None,
            csr_fingerprint=request.fingerprint if request else None,
            address=application.address,
            context=application.context,
            requested_roles=application.requested_roles,
            requested_permissions=application.requested_permissions,
        )

    @contextmanager
    def _place(self) -> Iterator[None]:
        if not self.places.acquire(blocking=False):
            raise _busy()
        try:
            yield
        finally:
            self.places.release()

    def _record(self, claim: records.Claim, admission: Admission) -> Pending | Granted:
        if not admission.at_once:
            with transaction():
                row = self._write(claim, admission)
                return Pending(row.id, row.pairing_code)
        with policy_change():
            row = self._write(claim, admission)
            given = preauthorization_match.use(admission.advance.record) if admission.advance else Grant()
            decisions.admit(SERVICE, row, given, self.issuing)
            return Granted(row.username, row.certificate, row.ca_certificate)

    def _write(self, claim: records.Claim, admission: Admission) -> Registration:
        state = lock.hold()
        by_window = not (admission.key or admission.advance)
        if admission.key:
            enrolment_keys.use(admission.key)
        elif by_window and not state.admits(claim.username):
            raise _locked()
        if not admission.at_once:
            records.make_room(self.max_pending, while_locked=False)
        if admission.advance and admission.advance.proves_holder:
            records.remove_for_holder(claim.username)
        opened_at = state.opened_at if by_window else None
        return records.write(claim, admission.start, while_locked=False, window_opened_at=opened_at)


def _taken() -> AuthsvcError:
    # One answer for a user's name and for another client's registration: which it is, is nobody's business.
    return Conflict("the username is taken", "username-taken")


def _busy() -> AuthsvcError:
    return Busy("too many passwords are being hashed; try again in a few seconds", "hashing-busy")


def _locked() -> AuthsvcError:
    return Locked("the client registry is locked", "registry-locked")
