"""Registration over REST: a client sends the same request again until it is granted or denied."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import peewee

from authsvc.accounts import users
from authsvc.credentials.hashing import slot
from authsvc.credentials.passwords import Verdict
from authsvc.credentials.usernames import RegistrationNames, validate_registration_name
from authsvc.errors import AuthsvcError, Busy, Conflict, Forbidden, Locked, TooMany
from authsvc.pki import certificates
from authsvc.policy.actors import SERVICE
from authsvc.storage.changes import policy_change
from authsvc.storage.database import session, transaction
from registry import decisions, enrolment_keys, lock, preauthorizations, records
from registry.decisions import Grant
from registry.limits import LimitExceeded, RequestLimits
from registry.records import StartingRights
from registry.states import Status

if TYPE_CHECKING:
    from threading import BoundedSemaphore

    from authsvc.credentials.passwords import PasswordHasher, PasswordVerifier
    from authsvc.pki.authorities import SigningPolicy
    from authsvc.pki.csr import SigningRequest
    from registry.enrolment_keys import EnrolmentKeyRecord
    from registry.models import Registration
    from registry.mqtt_registration.attempted_names import AttemptedNames
    from registry.mqtt_registration.contacts import ContactWriter
    from registry.mqtt_registration.unknown_names import UnknownNames
    from registry.preauthorizations import Match


@dataclass(frozen=True, slots=True)
class RegistrationRequest:
    """A registration as a client sends it: with a password, a CSR or both."""

    username: str
    password: str | None
    csr: SigningRequest | None
    context: Any = None
    requested_roles: tuple[str, ...] = ()
    requested_permissions: tuple[dict[str, str], ...] = ()
    enrolment_key: str | None = None
    address: str | None = None

    def __repr__(self) -> str:
        return f"RegistrationRequest({self.username!r})"  # without the password

    @property
    def csr_fingerprint(self) -> str | None:
        return self.csr.fingerprint if self.csr else None


class Pending(NamedTuple):
    """The registration is recorded and waits for an administrator."""

    id: str
    pairing_code: str | None


class Granted(NamedTuple):
    """The client is a user; it has a certificate if it sent a CSR."""

    username: str
    certificate: str | None
    ca_certificate: str | None


class Admission(NamedTuple):
    """Why an unknown client may register: its enrolment key, its preauthorization, or (neither) the unlock window."""

    key: EnrolmentKeyRecord | None
    preauthorization: Match | None
    starting: StartingRights

    @property
    def grants_at_once(self) -> bool:
        if self.key:
            return not self.key.approval_required and self.starting.held_reason is None
        return self.preauthorization is not None and self.preauthorization.grants_at_once


@dataclass(frozen=True, slots=True)
class RestRegistration:
    """Answers registration requests.

    `hash_slots` limits the number of concurrent password hashes in this process. A request beyond it fails with `Busy`,
    so that a flood of requests leaves threads and hashes for sign-ins.
    """

    hasher: PasswordHasher
    verifier: PasswordVerifier
    signing: SigningPolicy
    max_pending: int
    limits: RequestLimits
    contacts: ContactWriter
    unknown_names: UnknownNames
    attempted: AttemptedNames
    hash_slots: BoundedSemaphore
    names: RegistrationNames = RegistrationNames.RESTRICTED

    def register(self, request: RegistrationRequest) -> Pending | Granted:
        """Record the registration, or return the state of the recorded one.

        Errors: `InvalidInput` for a username that cannot register; `Locked` while the client cannot register;
        `Forbidden` if it was denied, if its enrolment key is not valid, or if the granted user or certificate has lost
        its access; `Conflict`, always with the same text, if the name is a user's or was registered with another
        password or key; `TooMany` beyond the limits. Clients whose credentials were accepted before are not counted.
        """
        validate_registration_name(request.username, self.names)
        self.attempted.add(request.username)
        digest = self.limits.digest_of(request.username, request.password, request.csr_fingerprint)
        try:
            self._count(request, digest)
            outcome = self._answer(request)
        except TooMany:
            # The name was not looked up, so it may be a user's.
            self.unknown_names.count_refused(request.address)
            raise
        except (Conflict, Forbidden, Locked):
            self.limits.unmark_verified(digest)
            raise
        self.limits.mark_verified(digest)
        return outcome

    def _count(self, request: RegistrationRequest, digest: bytes) -> None:
        try:
            self.limits.count(request.username, request.address, digest)
        except LimitExceeded:
            with session(), suppress(Busy):
                row = records.current(request.username)
                if row is not None and row.status != Status.DENIED and self._has_credentials(row, request):
                    return
            raise

    def _answer(self, request: RegistrationRequest) -> Pending | Granted:
        with session():
            # Read before the registration: a grant in between certifies this very key and deletes the preauthorization.
            is_used = request.csr_fingerprint is not None and certificates.is_used(request.csr_fingerprint)
            match = preauthorizations.find_match(
                request.username,
                request.csr_fingerprint,
                (request.enrolment_key, request.password),
                self.attempted,
                has_password=request.password is not None,
            )
            row = records.current(request.username)
            if row is None and users.exists(request.username):
                # It may have been granted between the two queries.
                row = records.current(request.username)
                if row is None:
                    raise _taken()
            if row and not (records.is_replaceable(row) and match and match.proves_binding):
                return self._poll(row, request)
            if request.enrolment_key is None:
                self.unknown_names.count(request.username, address=request.address)
            if is_used:
                raise Conflict("this key was certified before; make a new one", "key-used")
            admission = self._admission(request, match)
        new = self._new_registration(request)
        try:
            return self._record(new, admission)
        except peewee.IntegrityError:
            # The name was registered concurrently, by this client or by another one.
            with session():
                row = records.current(request.username)
                if row is None:
                    raise
                return self._poll(row, request)

    def _poll(self, row: Registration, request: RegistrationRequest) -> Pending | Granted:
        if row.status == Status.DENIED:
            raise Forbidden("the registration was denied", "registration-denied")
        if not self._has_credentials(row, request):
            self.contacts.add(row, attempts=0, conflicts=1, address=request.address)
            raise _taken()
        if row.status != Status.GRANTED and users.exists(row.username):
            granted = records.current(row.username)
            if granted is None or granted.status != Status.GRANTED:
                raise _taken()
            row = granted
        if row.status == Status.GRANTED:
            _must_still_have_access(row)
            return Granted(row.username, row.certificate, row.ca_certificate)
        self.contacts.add(row, attempts=1, conflicts=0, client_ids=(records.NO_CLIENT_ID,))
        return Pending(row.id, row.pairing_code)

    def _has_credentials(self, row: Registration, request: RegistrationRequest) -> bool:
        """Return whether the request has the registered password and key; raise `Busy` if no hash slot is free."""
        if row.csr_fingerprint != request.csr_fingerprint or (row.password_hash is None) != (request.password is None):
            return False
        if request.password is None or row.password_hash is None:
            return True
        # Cached under the id, because a user may have the same name.
        name = f"registration:{row.id}"
        verdict = self.verifier.cached_verdict(name, request.password, row.password_hash)
        if verdict is None:
            with slot(self.hash_slots, _busy()):
                verdict = self.verifier.verify(name, request.password, row.password_hash)
        if verdict is Verdict.BUSY:
            raise _busy()
        return verdict is Verdict.RIGHT

    def _admission(self, request: RegistrationRequest, match: Match | None) -> Admission:
        if match and match.proves_binding:
            return Admission(None, match, records.NO_STARTING_RIGHTS)
        held_reason = match.held_reason if match else None
        if request.enrolment_key is not None:
            key = enrolment_keys.check(request.enrolment_key)
            if match and not match.bypasses_lock:
                raise _taken()
            return Admission(key, None, StartingRights(tuple(key.roles), held_reason=held_reason))
        if match and match.bypasses_lock:
            return Admission(None, match, match.starting_rights)
        state = lock.state()
        if not state.admits(request.username):
            raise _locked()
        return Admission(None, None, StartingRights(state.roles, held_reason=held_reason))

    def _new_registration(self, request: RegistrationRequest) -> records.NewRegistration:
        password_hash = None
        if request.password is not None:
            with slot(self.hash_slots, _busy()):
                password_hash = self.hasher.hash(request.password)
        return records.NewRegistration(
            username=request.username,
            kind=records.RegistrationKind.EXPLICIT,
            password_hash=password_hash,
            public_key=request.csr.public_key_pem if request.csr else None,
            csr_fingerprint=request.csr_fingerprint,
            address=request.address,
            context=request.context,
            requested_roles=request.requested_roles,
            requested_permissions=request.requested_permissions,
        )

    def _record(self, new: records.NewRegistration, admission: Admission) -> Pending | Granted:
        if not admission.grants_at_once:
            with transaction():
                row = self._insert(new, admission)
                records.announce_pending(row)
                return Pending(row.id, row.pairing_code)
        with policy_change():
            row = self._insert(new, admission)
            match = admission.preauthorization
            grant = preauthorizations.consume(match.record) if match else Grant()
            decisions.create_user(SERVICE, row, grant, self.signing)
            return Granted(row.username, row.certificate, row.ca_certificate)

    def _insert(self, new: records.NewRegistration, admission: Admission) -> Registration:
        state = lock.state_for_update()
        by_window = not (admission.key or admission.preauthorization)
        if admission.key:
            enrolment_keys.use(admission.key)
        elif by_window and not state.admits(new.username):
            raise _locked()
        if not admission.grants_at_once:
            records.evict_excess(self.max_pending, while_locked=False)
        if admission.preauthorization and admission.preauthorization.proves_binding:
            records.delete_replaceable(new.username)
        opened_at = state.opened_at if by_window else None
        return records.create(new, admission.starting, while_locked=False, window_opened_at=opened_at)


def _must_still_have_access(row: Registration) -> None:
    """Raise `Forbidden` if the granted client can no longer log in with what it was granted."""
    if not users.get(row.username).enabled:
        raise Forbidden("the registration was granted, but the user is disabled now", "user-disabled")
    if row.certificate is None:
        return
    certificate = certificates.of_pem(row.certificate)
    status = certificate.status_at(datetime.now(UTC))
    if status != "valid":
        why = f" ({certificate.reason})" if status == "revoked" else ""
        raise Forbidden(
            f"the certificate of this registration is {status}{why}; an administrator can certify a new key with: "
            f"authsvc certificates issue {row.username} --csr FILE",
            f"certificate-{status}",
        )


def _taken() -> AuthsvcError:
    # The same error for a user's name and for another client's registration, so that it does not reveal which.
    return Conflict("the username is taken", "username-taken")


def _busy() -> Busy:
    return Busy("too many passwords are being hashed; try again in a few seconds", "hashing-busy")


def _locked() -> AuthsvcError:
    return Locked("the client registry is locked", "registry-locked")
