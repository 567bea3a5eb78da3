"""The implicit flow: a refused CONNECT becomes a pending registration, behind the broker's back.

`hear` runs inside the broker's request: it touches one bounded dictionary and returns. `drain` runs in a thread of
its own: it hashes and writes. A flood fills the dictionary, and the rest is dropped and counted.
"""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

import peewee

from authsvc import users
from authsvc.actors import SERVICE
from authsvc.errors import AuthsvcError, InvalidInput
from authsvc.passwords import MAX_BYTES, Verdict
from authsvc.storage.changes import policy_change
from authsvc.storage.database import session, transaction
from registry import decisions, preauthorization_match, records, window
from registry.records import Start
from registry.states import Status

if TYPE_CHECKING:
    from authsvc.authorities import Issuing
    from authsvc.passwords import PasswordHasher, PasswordVerifier
    from registry.attempted_names import AttemptedNames
    from registry.models import Registration
    from registry.preauthorization_match import Match

QUEUE_SIZE = 1000
# Enough that the password a preauthorization is bound to is among them when others try the name at the same time.
_MAX_PASSWORDS = 50
# Each costs a hash.
_MAX_COMPARED = 3


class Outcome(StrEnum):
    """What became of a refused CONNECT; a closed list, ready to label a metric."""

    RECORDED = "recorded"
    REPEATED = "repeated"
    GRANTED = "granted"
    QUEUE_FULL = "queue-full"
    REGISTRY_FULL = "registry-full"
    LOCKED = "locked"
    UNUSABLE_PASSWORD = "unusable-password"  # noqa: S105 - a word, not a secret
    FAILED = "failed"


@dataclass(slots=True)
class Contact:
    """What was heard of one username since the last drain; passwords only until they are hashed."""

    username: str
    passwords: Counter[str] = field(default_factory=Counter, repr=False)
    client_ids: list[str] = field(default_factory=list)
    attempts: int = 0

    @property
    def password(self) -> str:
        """The password offered first, which is the one that counts."""
        return next(iter(self.passwords))

    def add(self, password: str, client_id: str) -> None:
        """Count one more attempt, keeping a few of what differs."""
        self.attempts += 1
        if password in self.passwords or len(self.passwords) < _MAX_PASSWORDS:
            self.passwords[password] += 1
        shortened = client_id[: records.MAX_CLIENT_ID_LENGTH]
        if shortened not in self.client_ids and len(self.client_ids) < records.MAX_CLIENT_IDS:
            self.client_ids.append(shortened)


class Intake:
    """A bounded queue, coalesced by username, and its writer."""

    def __init__(
        self,
        hasher: PasswordHasher,
        verifier: PasswordVerifier,
        issuing: Issuing,
        max_pending: int,
        attempted: AttemptedNames,
        *,
        capture_while_locked: bool,
    ) -> None:
        self.counters: Counter[Outcome] = Counter()
        self._hasher = hasher
        self._verifier = verifier
        self._issuing = issuing
        self._max_pending = max_pending
        self._attempted = attempted
        self._capture_while_locked = capture_while_locked
        self._waiting: dict[str, Contact] = {}
        self._lock = threading.Lock()

    @property
    def waiting(self) -> int:
        """How many usernames wait to be written."""
        return len(self._waiting)

    def hear(self, _sender: object, username: str, password: str, client_id: str) -> None:
        """Note one refused CONNECT of an unknown username, or drop it; never waits, never raises."""
        self._attempted.note(username)
        with self._lock:
            if len(password) > MAX_BYTES:
                self.counters[Outcome.UNUSABLE_PASSWORD] += 1
                return
            contact = self._waiting.get(username)
            if contact is None:
                if len(self._waiting) >= QUEUE_SIZE:
                    self.counters[Outcome.QUEUE_FULL] += 1
                    return
                contact = self._waiting[username] = Contact(username)
            contact.add(password, client_id)

    def drain(self) -> None:
        """Write everything that was heard so far; what a database error keeps from it is dropped and counted."""
        with self._lock:
            contacts, self._waiting = self._waiting, {}
        for contact in contacts.values():
            self.counters[self._outcome(contact)] += 1

    def _outcome(self, contact: Contact) -> Outcome:
        try:
            with session():
                return self._take(contact)
        except (peewee.PeeweeException, AuthsvcError):
            return Outcome.FAILED

    def _take(self, contact: Contact) -> Outcome:
        row = records.current(contact.username)
        is_user = users.exists(contact.username)
        advance = None if is_user else self._advance(contact)
        if row and not (row.status == Status.PENDING and advance and advance.proves_holder):
            self._repeat(row, contact)
            return Outcome.REPEATED
        if is_user:
            return Outcome.REPEATED  # granted a moment ago, and the broker's snapshot not yet told
        opens = advance is not None and advance.opens
        locked = not window.state().admits(contact.username)
        if not opens and locked and not self._capture_while_locked:
            return Outcome.LOCKED
        if not (advance and advance.admits) and records.count_pending() >= self._max_pending:
            return Outcome.REGISTRY_FULL
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
        return records.Claim(
            contact.username,
            records.Kind.IMPLICIT,
            password_hash=password_hash,
            client_ids=tuple(contact.client_ids),
            attempts=contact.attempts,
            conflicts=contact.attempts - contact.passwords[password],
        )

    def _record(self, claim: records.Claim, advance: Match | None) -> Outcome:
        if advance and advance.admits:
            with policy_change():
                window.hold()
                if advance.proves_holder:
                    records.remove_pending(claim.username)
                row = records.write(claim, while_locked=False)
                decisions.admit(SERVICE, row, preauthorization_match.use(advance.record), self._issuing)
            return Outcome.GRANTED
        with transaction():
            state = window.hold()
            if records.count_pending() >= self._max_pending:
                return Outcome.REGISTRY_FULL
            if advance and advance.opens:
                records.write(claim, advance.start, while_locked=False)
                return Outcome.RECORDED
            admitted = state.admits(claim.username)
            start = Start(state.roles if admitted else (), held=advance.held if advance else None)
            records.write(claim, start, while_locked=not admitted)
            if admitted:
                window.count_one()
        return Outcome.RECORDED

    def _count_right(self, row: Registration, contact: Contact) -> int:
        """Return how many attempts offered the password of the registration."""
        for password, count in itertools.islice(contact.passwords.items(), _MAX_COMPARED):
            if self._verifier.verify(f"registration:{row.id}", password, row.password_hash or "") is Verdict.RIGHT:
                return count
        return 0

    def _repeat(self, row: Registration, contact: Contact) -> None:
        conflicts = 0
        if row.password_hash and row.status == Status.PENDING:
            conflicts = contact.attempts - self._count_right(row, contact)
        records.touch(row, contact.attempts, conflicts, tuple(contact.client_ids))
