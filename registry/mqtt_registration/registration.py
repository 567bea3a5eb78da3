"""Registration over MQTT: a refused CONNECT with an unknown username becomes a pending registration.

`enqueue` runs inside the broker's webhook and only appends to a bounded queue. `flush` runs in a background thread: it
hashes passwords and writes. For the limits on a flood see `contact_queue`, `locked_attempts` and `contacts`.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from authsvc.accounts import users
from authsvc.credentials.passwords import MAX_BYTES, GeneratedPassword, Verdict
from authsvc.credentials.usernames import RegistrationNames, registration_problem
from authsvc.errors import AuthsvcError, InvalidInput
from authsvc.policy.actors import SERVICE
from authsvc.storage.changes import policy_change
from authsvc.storage.database import DATABASE_ERRORS, session, transaction
from registry import decisions, lock, preauthorizations, records
from registry.mqtt_registration.contact_queue import Contact, ContactQueue
from registry.mqtt_registration.locked_attempts import LockedAttempts
from registry.mqtt_registration.refused_names import RefusedNames
from registry.records import StartingRights
from registry.states import Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from authsvc.credentials.passwords import PasswordHasher, PasswordVerifier
    from authsvc.pki.authorities import SigningPolicy
    from registry.models import Registration
    from registry.mqtt_registration.attempted_names import AttemptedNames
    from registry.mqtt_registration.contacts import ContactWriter
    from registry.mqtt_registration.unknown_names import UnknownNames
    from registry.preauthorizations import Match

# After this time the remaining contacts are queued again, so that new contacts with several attempts overtake them.
_FLUSH_SECONDS = 1.0
# Passwords of one contact that are compared; each costs a hash.
_MAX_COMPARED = 3


class Outcome(StrEnum):
    """The outcome of a refused CONNECT, used as a metric label."""

    RECORDED = "recorded"
    REPEATED = "repeated"
    GRANTED = "granted"
    QUEUE_FULL = "queue-full"
    NOT_RECORDED = "not-recorded"
    EVICTED = "evicted"
    LOCKED = "locked"
    UNUSABLE_PASSWORD = "unusable-password"  # noqa: S105 - an outcome, not a secret
    FAILED = "failed"


class Capacity(NamedTuple):
    """Maximum numbers of pending registrations recorded while unlocked and while locked (0 records none)."""

    unlocked: int
    locked: int


@dataclass(eq=False)
class MqttRegistration:
    hasher: PasswordHasher
    verifier: PasswordVerifier
    signing: SigningPolicy
    capacity: Capacity
    contacts: ContactWriter
    unknown_names: UnknownNames
    attempted: AttemptedNames
    clock: Callable[[], float] = monotonic
    names: RegistrationNames = RegistrationNames.RESTRICTED
    refused_names: RefusedNames = field(default_factory=RefusedNames)

    def __post_init__(self) -> None:
        self.counters: Counter[Outcome] = Counter()
        self._queue = ContactQueue(self.attempted)
        self._locked_attempts = LockedAttempts(self.capacity.locked, self.attempted, self.clock)

    @property
    def waiting(self) -> int:
        """The number of usernames in the queue."""
        return len(self._queue)

    def enqueue(
        self, _sender: object, username: str, password: str, client_id: str, address: str | None = None
    ) -> None:
        """Queue a refused CONNECT with an unknown username, or note that it cannot register.

        Never blocks on I/O and never raises.
        """
        if problem := registration_problem(username, self.names):
            self.refused_names.note(username, problem, client_id)
            return
        self.attempted.add(username)
        if len(password) > MAX_BYTES:
            self.counters[Outcome.UNUSABLE_PASSWORD] += 1
        elif not self._queue.enqueue(username, password, client_id, address):
            self.counters[Outcome.QUEUE_FULL] += 1

    def flush(self) -> None:
        """Write queued contacts for up to `_FLUSH_SECONDS`. Contacts that meet a database error are dropped."""
        contacts = self._queue.drain()
        if not contacts:
            return
        try:
            with session():
                due = self._select(contacts)
                truncated = [contact.username for contact in contacts if contact.is_truncated]
                self._queue.protect_secrets(preauthorizations.secret_digests(truncated))
        except DATABASE_ERRORS:
            self.counters[Outcome.FAILED] += len(contacts)
            return
        deadline = self.clock() + _FLUSH_SECONDS
        for position, contact in enumerate(due):
            if self.clock() > deadline:
                if evicted := self._queue.requeue(due[position:]):
                    self.counters[Outcome.QUEUE_FULL] += evicted
                return
            try:
                with session():
                    outcome = self._write(contact)
            except (*DATABASE_ERRORS, AuthsvcError, ValueError):
                # ValueError: a stored value cannot be read. It must not stop the other contacts.
                outcome = Outcome.FAILED
            self.counters[outcome] += 1

    def _select(self, contacts: list[Contact]) -> list[Contact]:
        """Return the contacts to write, in order; count the others in memory."""
        known = records.known_names([contact.username for contact in contacts])
        bypassing = preauthorizations.names_bypassing_lock({one.username: one.passwords for one in contacts})
        state = lock.state()
        first: list[Contact] = []
        while_locked: list[Contact] = []
        for contact in contacts:
            if contact.username in bypassing:
                first.append(contact)
            elif contact.username not in known:
                self._count_unknown(contact)
                if self._is_usable(contact):
                    (first if state.admits(contact.username) else while_locked).append(contact)
        chosen = self._locked_attempts.choose(while_locked) if self.capacity.locked else []
        if len(chosen) < len(while_locked):
            left_out = Outcome.NOT_RECORDED if self.capacity.locked else Outcome.LOCKED
            self.counters[left_out] += len(while_locked) - len(chosen)
        return [*first, *chosen, *(one for one in contacts if one.username in known - bypassing)]

    def _count_unknown(self, contact: Contact) -> None:
        client_id = next(iter(contact.client_ids()), "")
        attempts = contact.attempts - contact.reported
        self.unknown_names.count(contact.username, attempts, client_id, contact.address)
        contact.reported = contact.attempts

    def _is_usable(self, contact: Contact) -> bool:
        try:
            self.hasher.policy.check(contact.password)
        except InvalidInput:
            self.counters[Outcome.UNUSABLE_PASSWORD] += 1
            return False
        return True

    def _write(self, contact: Contact) -> Outcome:
        row = records.current(contact.username)
        is_user = users.exists(contact.username)
        match = None
        if not is_user:
            has_conflicts = contact.passwords[contact.password] < contact.attempts
            match = preauthorizations.find_match(
                contact.username, None, contact.passwords, self.attempted, has_conflicts=has_conflicts
            )
        if row and not (records.is_replaceable(row) and match and match.proves_binding):
            self._count_repeated(row, contact)
            return Outcome.REPEATED
        if is_user:
            return Outcome.REPEATED  # granted a moment ago; the broker worker's snapshot is older
        password = GeneratedPassword(match.secret) if match and match.secret else contact.password
        try:
            password_hash = self.hasher.hash(password)
        except InvalidInput:
            return Outcome.UNUSABLE_PASSWORD
        client_ids = contact.client_ids_with(password)
        new = records.NewRegistration(
            contact.username,
            records.RegistrationKind.IMPLICIT,
            password_hash=password_hash,
            address=contact.address,
            client_ids=(*client_ids, records.NO_CLIENT_ID) if contact.earlier_attempts else client_ids,
            attempts=contact.total,
            conflicts=contact.attempts - contact.passwords[password],
        )
        return self._grant(new, match) if match and match.grants_at_once else self._record(new, match)

    def _grant(self, new: records.NewRegistration, match: Match) -> Outcome:
        with policy_change():
            lock.state_for_update()
            if match.proves_binding:
                records.delete_replaceable(new.username)
            row = records.create(new, while_locked=False)
            decisions.create_user(SERVICE, row, preauthorizations.consume(match.record), self.signing)
        return Outcome.GRANTED

    def _record(self, new: records.NewRegistration, match: Match | None) -> Outcome:
        with transaction():
            state = lock.state_for_update()
            bypasses_lock = match is not None and match.bypasses_lock
            by_window = not bypasses_lock and state.admits(new.username)
            while_locked = not (bypasses_lock or by_window)
            if while_locked and not self.capacity.locked:
                return Outcome.LOCKED
            limit = self.capacity.locked if while_locked else self.capacity.unlocked
            evicted = records.evict_excess(limit, while_locked=while_locked)
            if match and bypasses_lock:
                starting = match.starting_rights
            else:
                roles = () if while_locked else state.roles
                starting = StartingRights(roles, held_reason=match.held_reason if match else None)
            opened_at = state.opened_at if by_window else None
            row = records.create(new, starting, while_locked=while_locked, window_opened_at=opened_at)
            records.announce_pending(row)
        if evicted:
            self.counters[Outcome.EVICTED] += evicted
        return Outcome.RECORDED

    def _compare(self, row: Registration, contact: Contact) -> tuple[str | None, int]:
        """Return the registration's password if it was sent, and the number of attempts known to have another one."""
        wrong = 0
        for password, count in itertools.islice(contact.passwords.items(), _MAX_COMPARED):
            verdict = self.verifier.verify(f"registration:{row.id}", password, row.password_hash or "")
            if verdict is Verdict.RIGHT:
                return password, contact.attempts - count
            if verdict is Verdict.WRONG:
                wrong += count
        return None, wrong

    def _count_repeated(self, row: Registration, contact: Contact) -> None:
        conflicts = 0
        client_ids = contact.client_ids()
        if row.password_hash and row.status == Status.PENDING:
            right, conflicts = self._compare(row, contact)
            if right is not None:
                client_ids = contact.client_ids_with(right)
            else:
                # An attempt that was not compared may come from the registered device, with any client id.
                client_ids = (records.NO_CLIENT_ID,) if conflicts < contact.attempts else ()
        # If some attempts had the right password, the address may be the registered device's own.
        address = contact.address if conflicts == contact.attempts else None
        self.contacts.add(row, contact.total, conflicts, client_ids, address)
