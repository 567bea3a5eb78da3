"""A bounded queue of refused CONNECTs with an unknown username, by username, until they are written."""

from __future__ import annotations

import secrets
import threading
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from registry import records
from registry.enrolment_keys import digest_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from registry.mqtt_registration.attempted_names import AttemptedNames

QUEUE_SIZE = 1000
# Enough that a preauthorization's secret is among them when others try the name at the same time.
_MAX_PASSWORDS = 50
_MAX_LOGINS = 60


@dataclass(slots=True)
class Contact:
    """Attempts under one username since it was last written. Passwords stay in memory only until they are hashed.

    `earlier_attempts` were counted but not recorded. `reported` of the attempts are already in `UnknownNames`.
    `logins` are the first pairs of password and client id. A password with the digest `secret_digest` is always kept.
    """

    username: str
    passwords: Counter[str] = field(default_factory=Counter, repr=False)
    logins: Counter[tuple[str, str]] = field(default_factory=Counter, repr=False)
    address: str | None = None
    attempts: int = 0
    earlier_attempts: int = 0
    reported: int = 0
    secret_digest: str | None = None

    @property
    def password(self) -> str:
        """The password of the first attempt, which a registration is recorded with."""
        return next(iter(self.passwords))

    @property
    def total(self) -> int:
        """All attempts, recorded or not."""
        return self.attempts + self.earlier_attempts

    @property
    def is_truncated(self) -> bool:
        """Whether passwords may have been dropped."""
        return len(self.passwords) >= _MAX_PASSWORDS

    def add(self, password: str, client_id: str, address: str | None) -> None:
        """Count one attempt."""
        self.attempts += 1
        self._count_password(password, 1)
        self._count_login((password, client_id[: records.MAX_CLIENT_ID_LENGTH]), 1)
        self.address = self.address or address

    def merge(self, later: Contact) -> None:
        """Add later attempts under the same username."""
        self.attempts += later.attempts
        self.earlier_attempts += later.earlier_attempts
        self.address = self.address or later.address
        for password, attempts in later.passwords.items():
            self._count_password(password, attempts)
        for login, attempts in later.logins.items():
            self._count_login(login, attempts)

    def client_ids(self) -> tuple[str, ...]:
        """Return the client ids of the logins that are kept."""
        return tuple(dict.fromkeys(client_id for _, client_id in self.logins))

    def client_ids_with(self, password: str) -> tuple[str, ...]:
        """Return the client ids sent with a password, and `records.NO_CLIENT_ID` if the login of any is not kept."""
        found = {client_id: attempts for (offered, client_id), attempts in self.logins.items() if offered == password}
        is_incomplete = sum(found.values()) < self.passwords[password]
        return (*found, records.NO_CLIENT_ID) if is_incomplete else tuple(found)

    def _count_password(self, password: str, attempts: int) -> None:
        if password in self.passwords or not self.is_truncated or digest_of(password) == self.secret_digest:
            self.passwords[password] += attempts

    def _count_login(self, login: tuple[str, str], attempts: int) -> None:
        if login in self.logins or len(self.logins) < _MAX_LOGINS:
            self.logins[login] += attempts


class ContactQueue:
    """Contacts by username, in order of arrival. A full queue evicts a random name with a single attempt.

    The attempts of an evicted name are counted in `attempted` and added when the name comes back. So a device that
    retries is not evicted the second time, even if a flood fills the queue between its attempts.

    The queue also keeps the digests of one-time secrets of names that were tried with too many passwords.
    """

    def __init__(self, attempted: AttemptedNames) -> None:
        self._attempted = attempted
        self._waiting: OrderedDict[str, Contact] = OrderedDict()
        self._seen_once: dict[str, None] = {}
        self._secret_digests: OrderedDict[str, str] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._waiting)

    def enqueue(self, username: str, password: str, client_id: str, address: str | None) -> bool:
        """Add one attempt without blocking on I/O. Return False if a contact was evicted."""
        with self._lock:
            contact = self._waiting.get(username)
            if contact:
                self._seen_once.pop(username, None)
                contact.add(password, client_id, address)
                return True
            contact = self._waiting[username] = Contact(username, secret_digest=self._secret_digests.get(username))
            contact.add(password, client_id, address)
            contact.earlier_attempts = self._attempted.pop_unrecorded(username)
            if contact.total == 1:
                self._seen_once[username] = None
            return self._evict(newest=username) == 0

    def protect_secrets(self, digests: Mapping[str, str]) -> None:
        """Keep the password with this digest for a name, however many other passwords are tried."""
        with self._lock:
            for username, digest in digests.items():
                self._secret_digests[username] = digest
                self._secret_digests.move_to_end(username)
            while len(self._secret_digests) > QUEUE_SIZE:
                self._secret_digests.popitem(last=False)

    def drain(self) -> list[Contact]:
        """Remove and return all contacts, those with several attempts first."""
        with self._lock:
            drained, self._waiting = self._waiting, OrderedDict()
            self._seen_once = {}
        return sorted(drained.values(), key=lambda contact: contact.total == 1)

    def requeue(self, contacts: Iterable[Contact]) -> int:
        """Put contacts back in front of those that arrived since; return how many were evicted."""
        with self._lock:
            arrived, self._waiting = self._waiting, OrderedDict((one.username, one) for one in contacts)
            for contact in arrived.values():
                earlier = self._waiting.setdefault(contact.username, contact)
                if earlier is not contact:
                    earlier.merge(contact)
            self._seen_once = {name: None for name, contact in self._waiting.items() if contact.total == 1}
            return self._evict()

    def _evict(self, newest: str | None = None) -> int:
        """Evict names until the queue fits; the newest one only if every other name has several attempts."""
        evicted = 0
        while len(self._waiting) > QUEUE_SIZE:
            others = [name for name in self._seen_once or self._waiting if name != newest]
            victim = secrets.choice(others or list(self._seen_once))
            self._seen_once.pop(victim, None)
            self._attempted.count_unrecorded(victim, self._waiting.pop(victim).total)
            evicted += 1
        return evicted
