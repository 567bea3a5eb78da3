"""Refused CONNECTs of unknown usernames, from the broker's request until they are written: bounded, by username."""

from __future__ import annotations

import secrets
import threading
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from registry import records

if TYPE_CHECKING:
    from collections.abc import Iterable

    from registry.attempted_names import AttemptedNames

QUEUE_SIZE = 1000
# Enough that the password a preauthorization is bound to is among them when others try the name at the same time.
_MAX_PASSWORDS = 50


@dataclass(slots=True)
class Contact:
    """What was heard of one username since it was last written; passwords only until they are hashed.

    `earlier` is the number of attempts before these, which were counted and not written; `reported` is how many of
    the attempts the count of unknown names has already.
    """

    username: str
    passwords: Counter[str] = field(default_factory=Counter, repr=False)
    client_ids: list[str] = field(default_factory=list)
    address: str | None = None
    attempts: int = 0
    earlier: int = 0
    reported: int = 0

    @property
    def password(self) -> str:
        """The password offered first, which is the one that counts."""
        return next(iter(self.passwords))

    @property
    def total(self) -> int:
        """All attempts that are known of."""
        return self.attempts + self.earlier

    def add(self, password: str, client_id: str, address: str | None) -> None:
        """Count one more attempt, keeping a few of what differs."""
        self.attempts += 1
        if password in self.passwords or len(self.passwords) < _MAX_PASSWORDS:
            self.passwords[password] += 1
        shortened = client_id[: records.MAX_CLIENT_ID_LENGTH]
        if shortened not in self.client_ids and len(self.client_ids) < records.MAX_CLIENT_IDS:
            self.client_ids.append(shortened)
        self.address = self.address or address

    def merge(self, later: Contact) -> None:
        """Add what was heard since."""
        self.attempts += later.attempts
        self.earlier += later.earlier
        self.address = self.address or later.address
        self.client_ids = records.bounded_client_ids((*self.client_ids, *later.client_ids))
        for password, attempts in later.passwords.items():
            if password in self.passwords or len(self.passwords) < _MAX_PASSWORDS:
                self.passwords[password] += attempts


class ContactQueue:
    """Contacts by username, in order. When it is full, a random name that was heard once makes room for a new one.

    The attempts of an evicted name are counted in `attempted`, and the name has them again when it comes back. So a
    device that retries keeps its place the second time, also in a flood that fills the queue between two attempts.
    """

    def __init__(self, attempted: AttemptedNames) -> None:
        self._attempted = attempted
        self._waiting: OrderedDict[str, Contact] = OrderedDict()
        self._heard_once: dict[str, None] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._waiting)

    def hear(self, username: str, password: str, client_id: str, address: str | None) -> bool:
        """Add one attempt; return False if one had to be dropped for want of room. Never waits for long."""
        with self._lock:
            contact = self._waiting.get(username)
            if contact:
                self._heard_once.pop(username, None)
                contact.add(password, client_id, address)
                return True
            contact = self._waiting[username] = Contact(username)
            contact.add(password, client_id, address)
            contact.earlier = self._attempted.take_unrecorded(username)
            if contact.total == 1:
                self._heard_once[username] = None
            return self._evict(newest=username) == 0

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
