"""The implicit flow: a refused CONNECT becomes a pending registration, behind the broker's back.

`hear` runs inside the broker's request: it touches one bounded dictionary and returns. `drain` runs in a thread of
its own: it hashes and writes. A flood fills the dictionary, and the rest is dropped and counted.
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

import peewee

from authsvc import users
from authsvc.actors import SERVICE
from authsvc.errors import Busy, Conflict, InvalidInput
from authsvc.passwords import Verdict
from authsvc.storage.changes import policy_change
from authsvc.storage.database import session, transaction
from registry import decisions, preauthorizations, records, window
from registry.states import Status

if TYPE_CHECKING:
    from authsvc.authorities import Issuing
    from authsvc.passwords import PasswordHasher, PasswordVerifier
    from registry.models import Registration

QUEUE_SIZE = 1000


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
    """What was heard of one username since the last drain; the password only until it is hashed."""

    username: str
    password: str = field(repr=False)
    client_ids: list[str] = field(default_factory=list)
    attempts: int = 0
    conflicts: int = 0

    def add(self, password: str, client_id: str) -> None:
        """Count one more attempt; another password than the first is a conflict and is not kept."""
        self.attempts += 1
        self.conflicts += password != self.password
        if client_id not in self.client_ids and len(self.client_ids) < records.MAX_CLIENT_IDS:
            self.client_ids.append(client_id)


class Intake:
    """A bounded queue, coalesced by username, and its writer."""

    def __init__(
        self,
        hasher: PasswordHasher,
        verifier: PasswordVerifier,
        issuing: Issuing,
        max_pending: int,
        *,
        capture_while_locked: bool,
    ) -> None:
        self.counters: Counter[Outcome] = Counter()
        self._hasher = hasher
        self._verifier = verifier
        self._issuing = issuing
        self._max_pending = max_pending
        self._capture_while_locked = capture_while_locked
        self._waiting: dict[str, Contact] = {}
        self._lock = threading.Lock()

    @property
    def waiting(self) -> int:
        """How many usernames wait to be written."""
        return len(self._waiting)

    def hear(self, _sender: object, username: str, password: str, client_id: str) -> None:
        """Note one refused CONNECT of an unknown username, or drop it; never waits, never raises."""
        with self._lock:
            contact = self._waiting.get(username)
            if contact is None:
                if len(self._waiting) >= QUEUE_SIZE:
                    self.counters[Outcome.QUEUE_FULL] += 1
                    return
                contact = self._waiting[username] = Contact(username, password)
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
        except (peewee.PeeweeException, Busy, Conflict):
            return Outcome.FAILED

    def _take(self, contact: Contact) -> Outcome:
        row = records.current(contact.username)
        if row and row.status != Status.EXPIRED:
            self._repeat(row, contact)
            return Outcome.REPEATED
        if users.exists(contact.username):
            return Outcome.REPEATED  # granted a moment ago, and the broker's snapshot not yet told
        advance = preauthorizations.find(contact.username, None)
        locked = not window.state().admits(contact.username)
        if not advance and locked and not self._capture_while_locked:
            return Outcome.LOCKED
        if not advance and records.count_pending() >= self._max_pending:
            return Outcome.REGISTRY_FULL
        try:
            password_hash = self._hasher.hash(contact.password)
        except InvalidInput:
            return Outcome.UNUSABLE_PASSWORD
        return self._record(contact, password_hash, advance)

    def _record(self, contact: Contact, password_hash: str, advance: preauthorizations.AdvanceRecord | None) -> Outcome:
        claim = records.Claim(
            contact.username,
            records.Kind.IMPLICIT,
            password_hash=password_hash,
            client_ids=tuple(contact.client_ids),
            attempts=contact.attempts,
            conflicts=contact.conflicts,
        )
        if advance:
            with policy_change():
                window.hold()
                row = records.write(claim, while_locked=False)
                decisions.admit(SERVICE, row, preauthorizations.use(advance), self._issuing)
            return Outcome.GRANTED
        with transaction():
            state = window.hold()
            if records.count_pending() >= self._max_pending:
                return Outcome.REGISTRY_FULL
            admitted = state.admits(contact.username)
            records.write(claim, while_locked=not admitted, starting_roles=state.roles if admitted else ())
            if admitted:
                window.count_one()
        return Outcome.RECORDED

    def _repeat(self, row: Registration, contact: Contact) -> None:
        conflicts = contact.conflicts
        if row.password_hash and row.status == Status.PENDING:
            verdict = self._verifier.verify(f"registration:{row.id}", contact.password, row.password_hash)
            conflicts += verdict is Verdict.WRONG
        records.touch(row, contact.attempts, conflicts, tuple(contact.client_ids))
