"""Refused CONNECTs of unknown usernames, from the broker's request until they are written: bounded, by username."""

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
# Enough that the password a preauthorization is bound to is among them when others try the name at the same time.
_MAX_PASSWORDS = 50
_MAX_LOGINS = 60


@dataclass(slots=True)
class Contact:
    """What was heard of one username since it was last written; passwords only until they are hashed.

    `earlier` is the number of attempts before these, which were counted and not written; `reported` is how many of
    the attempts the count of unknown names has already.
    `logins` are the first pairs of password and client id. A password with the digest `secret_digest` is always kept.
    """

    username: str
    passwords: Counter[str] = field(default_factory=Counter, repr=False)
    logins: Counter[tuple[str, str]] = field(default_factory=Counter, repr=False)
    address: str | None = None
    attempts: int = 0
    earlier: int = 0
    reported: int = 0
    secret_digest: str | None = None

    @property
    def password(self) -> str:
        """The password offered first, which is the one that counts."""
        return next(iter(self.passwords))

    @property
    def total(self) -> int:
        """All attempts that are known of."""
        return self.attempts + self.earlier

    @property
    def is_crowded(self) -> bool:
        """Whether passwords may have been left out."""
        return len(self.passwords) >= _MAX_PASSWORDS

    def add(self, password: str, client_id: str, address: str | None) -> None:
        """Count one more attempt, keeping a few of what differs."""
        self.attempts += 1
        self._count_password(password, 1)
        self._count_login((password, client_id[: records.MAX_CLIENT_ID_LENGTH]), 1)
        self.address = self.address or address

    def merge(self, later: Contact) -> None:
        """Add what was heard since."""
        self.attempts += later.attempts
        self.earlier += later.earlier
        self.address = self.address or later.address
        for password, attempts in later.passwords.items():
            self._count_password(password, attempts)
        for login, attempts in later.logins.items():
            self._count_login(login, attempts)

    def client_ids(self) -> tuple[str, ...]:
        """Return the client ids of all attempts, as far as they are kept."""
        return tuple(dict.fromkeys(client_id for _, client_id in self.logins))

    def client_ids_with(self, password: str) -> tuple[str, ...]:
        """Return the client ids that came with a password, and `records.NO_CLIENT_ID` if some attempt's is not kept."""
        found = {client_id: attempts for (offered, client_id), attempts in self.logins.items() if offered == password}
        unknown = sum(found.values()) < self.passwords[password]
        return (*found, records.NO_CLIENT_ID) if unknown else tuple(found)

    def _count_password(self, password: str, attempts: int) -> None:
        if password in self.passwords or not self.is_crowded or digest_of(password) == self.secret_digest:
            self.passwords[password] += attempts

    def _count_login(self, login: tuple[str, str], attempts: int) -> None:
        if login in self.logins or len(self.logins) < _MAX_LOGINS:
            self.logins[login] += attempts


class ContactQueue:
    """Contacts by username, in order. When it is full, a random name that was heard once makes room for a new one.

    It remembers the digests of one-time secrets of names that were tried with more passwords than are kept.

    The attempts of an evicted name are counted in `attempted`, and the name has them again when it comes back. So a
    device that retries keeps its place the second time, also in a flood that fills the queue between two attempts.
    """

    def __init__(self, attempted: AttemptedNames) -> None:
        self._attempted = attempted
        self._waiting: OrderedDict[str, Contact] = OrderedDict()
        self._heard_once: dict[str, None] = {}
        self._secret_digests: OrderedDict[str, str] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._waiting)

    def enqueue(self, username: str, password: str, client_id: str, address: str | None) -> bool:
        """Add one attempt; return False if one had to be dropped for want of room. Never waits for long."""
        with self._lock:
            contact = self._waiting.get(username)
            if contact:
                self._heard_once.pop(username, None)
                contact.add(password, client_id, address)
                return True
            contact = self._waiting[username] = Contact(username, secret_digest=self._secret_digests.get(username))
            contact.add(password, client_id, address)
            contact.earlier = self._attempted.take_unrecorded(username)
            if contact.total == 1:
                self._heard_once[username] = None
            return self._evict(newest=username) == 0

    def keep_secrets(self, digests: Mapping[str, str]) -> None:
        """Keep the password with this digest among the passwords of a name from now on, whatever others try."""
        with self._lock:
            for username, digest in digests.items():
                self._secret_digests[username] = digest
                self._secret_digests.move_to_end(username)
            while len(self._secret_digests) > QUEUE_SIZE:
                self._secret_digests.popitem(last=False)

    def take(self) -> list[Contact]:
        """Return all that was heard, names that came back first, and empty the queue."""
        with self._lock:
            taken, self._waiting = self._waiting, OrderedDict()
            self._heard_once = {}
        return sorted(taken.values(), key=lambda contact: contact.total == 1)

    def put_back(self, contacts: Iterable[Contact]) -> int:
        """Let contacts wait for longer, before those that were heard since; return how many had to be dropped."""
        with self._lock:
            heard, self._waiting = self._waiting, OrderedDict((one.username, one) for one in contacts)
            for contact in heard.values():
                earlier = self._waiting.setdefault(contact.username, contact)
                if earlier is not contact:
                    earlier.merge(contact)
            self._heard_once = {name: None for name, contact in self._waiting.items() if contact.total == 1}
            return self._evict()

    def _evict(self, newest: str | None = None) -> int:
        """Drop and count names until the rest fits; the newest one only if every other name came back."""
        dropped = 0
        while len(self._waiting) > QUEUE_SIZE:
            others = [name for name in self._heard_once or self._waiting if name != newest]
            victim = secrets.choice(others or list(self._heard_once))
            self._heard_once.pop(victim, None)
            self._attempted.count_unrecorded(victim, self._waiting.pop(victim).total)
            dropped += 1
        return dropped
