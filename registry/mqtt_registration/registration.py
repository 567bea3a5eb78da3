"""The implicit flow: a refused CONNECT becomes a pending registration, outside the broker's request.

`enqueue` runs inside the broker's request: it touches one bounded queue and returns. `flush` runs in a thread of its
own: it hashes and writes. Of a flood it writes little: see `contact_queue`, `locked_attempts` and `contacts`.
"""

from __future__ import annotations

import itertools
from collections import Counter
from enum import StrEnum
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from authsvc.accounts import users
from authsvc.credentials.passwords import MAX_BYTES, Verdict
from authsvc.errors import AuthsvcError, InvalidInput
from authsvc.policy.actors import SERVICE
from authsvc.storage.changes import policy_change
from authsvc.storage.database import DATABASE_ERRORS, session, transaction
from registry import decisions, lock, preauthorization_match, records
from registry.mqtt_registration.contact_queue import Contact, ContactQueue
from registry.mqtt_registration.locked_attempts import LockedAttempts
from registry.records import Start
from registry.states import Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from authsvc.credentials.passwords import PasswordHasher, PasswordVerifier
    from authsvc.pki.authorities import SigningPolicy
    from registry.models import Registration
    from registry.mqtt_registration.attempted_names import AttemptedNames
    from registry.mqtt_registration.contacts import Contacts
    from registry.mqtt_registration.unknown_names import UnknownNames
    from registry.preauthorization_match import Match

# Longer than this nobody who comes later waits for those before it.
_DRAIN_SECONDS = 1.0
# Each costs a hash.
_MAX_COMPARED = 3


class Outcome(StrEnum):
    """What became of a refused CONNECT; a closed list, ready to label a metric."""

    RECORDED = "recorded"
    REPEATED = "repeated"
    GRANTED = "granted"
    QUEUE_FULL = "queue-full"
    NOT_RECORDED = "not-recorded"
    EVICTED = "evicted"
    LOCKED = "locked"
    UNUSABLE_PASSWORD = "unusable-password"  # noqa: S105 - a word, not a secret
    FAILED = "failed"


class Capacity(NamedTuple):
    """How many registrations may be pending: recorded while unlocked, and while locked (0 records none)."""

    unlocked: int
    locked: int


class MqttRegistration:
    """A bounded queue by username, and its writer."""

    def __init__(
        self,
        hasher: PasswordHasher,
        verifier: PasswordVerifier,
        issuing: SigningPolicy,
        capacity: Capacity,
        contacts: Contacts,
        unknown_names: UnknownNames,
        attempted: AttemptedNames,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.counters: Counter[Outcome] = Counter()
        self._hasher = hasher
        self._verifier = verifier
        self._issuing = issuing
        self._capacity = capacity
        self._contacts = contacts
        self._unknown_names = unknown_names
        self._attempted = attempted
        self._queue = ContactQueue(attempted)
        self._locked_attempts = LockedAttempts(capacity.locked, attempted, clock)
        self._clock = clock

    @property
    def waiting(self) -> int:
        """How many usernames wait to be written."""
        return len(self._queue)

    def enqueue(
        self, _sender: object, username: str, password: str, client_id: str, address: str | None = None
    ) -> None:
        """Note one refused CONNECT of an unknown username, or drop one; never waits, never raises."""
        self._attempted.note(username)
        if len(password) > MAX_BYTES:
            self.counters[Outcome.UNUSABLE_PASSWORD] += 1
        elif not self._queue.enqueue(username, password, client_id, address):
            self.counters[Outcome.QUEUE_FULL] += 1

    def flush(self) -> None:
        """Write what was heard so far, as far as it fits a second; what a database error keeps from it is dropped."""
        contacts = self._queue.take()
        if not contacts:
            return
        try:
            with session():
                due = self._due(contacts)
                crowded = [contact.username for contact in contacts if contact.is_crowded]
                self._queue.keep_secrets(preauthorization_match.secret_digests(crowded))
        except DATABASE_ERRORS:
            self.counters[Outcome.FAILED] += len(contacts)
            return
        deadline = self._clock() + _DRAIN_SECONDS
        for position, contact in enumerate(due):
            if self._clock() > deadline:
                if dropped := self._queue.put_back(due[position:]):
                    self.counters[Outcome.QUEUE_FULL] += dropped
                return
            self.counters[self._outcome(contact)] += 1

    def _due(self, contacts: list[Contact]) -> list[Contact]:
        """Return the contacts to be written, in order; the others are counted in memory."""
        names = [contact.username for contact in contacts]
        known = records.known_names(names)
        opened = preauthorization_match.opened_names({contact.username: contact.passwords for contact in contacts})
        state = lock.state()
        first: list[Contact] = []
        while_locked: list[Contact] = []
        for contact in contacts:
            if contact.username in opened:
                first.append(contact)
            elif contact.username not in known:
                self._count_unknown(contact)
                if self._is_usable(contact):
                    (first if state.admits(contact.username) else while_locked).append(contact)
        return [*first, *self._chosen(while_locked), *(one for one in contacts if one.username in known - opened)]

    def _chosen(self, contacts: list[Contact]) -> list[Contact]:
        chosen = self._locked_attempts.choose(contacts) if self._capacity.locked else []
        if len(chosen) < len(contacts):
            left_out = Outcome.NOT_RECORDED if self._capacity.locked else Outcome.LOCKED
            self.counters[left_out] += len(contacts) - len(chosen)
        return chosen

    def _count_unknown(self, contact: Contact) -> None:
        client_id = next(iter(contact.client_ids()), "")
        attempts = contact.attempts - contact.reported
        self._unknown_names.count(contact.username, attempts, client_id, contact.address)
        contact.reported = contact.attempts

    def _is_usable(self, contact: Contact) -> bool:
        try:
            self._hasher.policy.check(contact.password)
        except InvalidInput:
            self.counters[Outcome.UNUSABLE_PASSWORD] += 1
            return False
        return True

    def _outcome(self, contact: Contact) -> Outcome:
        try:
            with session():
                return self._take(contact)
        except (*DATABASE_ERRORS, AuthsvcError, ValueError):
            # A ValueError: a stored value cannot be read. The next contact must not suffer from it.
            return Outcome.FAILED

    def _take(self, contact: Contact) -> Outcome:
        row = records.current(contact.username)
        is_user = users.exists(contact.username)
        advance = None if is_user else self._advance(contact)
        if row and not (records.yields_to_holder(row) and advance and advance.proves_holder):
            self._repeat(row, contact)
            return Outcome.REPEATED
        if is_user:
            return Outcome.REPEATED  # granted a moment ago, and the broker's snapshot not yet told
        password = advance.secret if advance and advance.secret else contact.password
        try:
            password_hash = self._hasher.hash(password)
        except InvalidInput:
            return Outcome.UNUSABLE_PASSWORD
        return self._record(self._claim(contact, password, password_hash), advance)

    def _advance(self, contact: Contact) -> Match | None:
        several = contact.passwords[contact.password] < contact.attempts
        return preauthorization_match.match(
            contact.username, None, contact.passwords, self._attempted, has_conflicts=several
        )

    def _claim(self, contact: Contact, password: str, password_hash: str) -> records.Claim:
        client_ids = contact.client_ids_with(password)
        return records.Claim(
            contact.username,
            records.RegistrationKind.IMPLICIT,
            password_hash=password_hash,
            address=contact.address,
            client_ids=(*client_ids, records.NO_CLIENT_ID) if contact.earlier else client_ids,
            attempts=contact.total,
            conflicts=contact.attempts - contact.passwords[password],
        )

    def _record(self, claim: records.Claim, advance: Match | None) -> Outcome:
        if advance and advance.admits:
            with policy_change():
                lock.hold()
                if advance.proves_holder:
                    records.remove_for_holder(claim.username)
                row = records.write(claim, while_locked=False)
                decisions.admit(SERVICE, row, preauthorization_match.use(advance.record), self._issuing)
            return Outcome.GRANTED
        with transaction():
            state = lock.hold()
            opened = advance is not None and advance.opens
            by_window = not opened and state.admits(claim.username)
            admitted = opened or by_window
            if not admitted and not self._capacity.locked:
                return Outcome.LOCKED
            most = self._capacity.unlocked if admitted else self._capacity.locked
            evicted = records.make_room(most, while_locked=not admitted)
            if advance and advance.opens:
                start = advance.start
            else:
                start = Start(state.roles if admitted else (), held=advance.held if advance else None)
            opened_at = state.opened_at if by_window else None
            records.write(claim, start, while_locked=not admitted, window_opened_at=opened_at)
        if evicted:
            self.counters[Outcome.EVICTED] += evicted
        return Outcome.RECORDED

    def _compare(self, row: Registration, contact: Contact) -> tuple[str | None, int]:
        """Return the password of the registration, if it was offered, and how many attempts certainly had another."""
        wrong = 0
        for password, count in itertools.islice(contact.passwords.items(), _MAX_COMPARED):
            verdict = self._verifier.verify(f"registration:{row.id}", password, row.password_hash or "")
            if verdict is Verdict.RIGHT:
                return password, contact.attempts - count
            if verdict is Verdict.WRONG:
                wrong += count
        return None, wrong

    def _repeat(self, row: Registration, contact: Contact) -> None:
        conflicts = 0
        client_ids = contact.client_ids()
        if row.password_hash and row.status == Status.PENDING:
            right, conflicts = self._compare(row, contact)
            if right is not None:
                client_ids = contact.client_ids_with(right)
            else:
                # An attempt that was not compared may have been the holder's, with any client id.
                client_ids = (records.NO_CLIENT_ID,) if conflicts < contact.attempts else ()
        # Of attempts with and without the right password the address may be the holder's own.
        address = contact.address if conflicts == contact.attempts else None
        self._contacts.add(row, contact.total, conflicts, client_ids, address)
