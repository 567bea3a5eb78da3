"""Passwords: the policy for new ones, hashing, and verification that a waiting broker can afford.

bcrypt reads 72 bytes and no more, so longer passwords are refused where they are set and never match where
they are checked. `docs/adr/0002-password-verification.md` says what is traded against what.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import unicodedata
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

import bcrypt

from authsvc.errors import Busy, invalid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_BYTES = 72

_CLASSES: dict[str, tuple[str, Callable[[str], bool]]] = {
    "lower": ("lower-case letter", lambda char: unicodedata.category(char) == "Ll"),
    "upper": ("upper-case letter", lambda char: unicodedata.category(char) == "Lu"),
    "numeric": ("digit", lambda char: unicodedata.category(char)[0] == "N"),
    "symbol": ("symbol", lambda char: unicodedata.category(char)[0] in "PSZ"),
}


@dataclass(frozen=True, slots=True)
class PasswordPolicy:
    """How many characters a new password needs, in all and of each Unicode class; 0 asks for none."""

    min: int = 5
    lower: int = 0
    upper: int = 0
    numeric: int = 0
    symbol: int = 0

    def check(self, password: str) -> None:
        """Raise `InvalidInput` for `password`, without repeating it, unless it may be set."""
        if len(password) < self.min:
            raise invalid("password", f"must have at least {self.min} characters")
        if "\0" in password:
            raise invalid("password", "must not contain a NUL character")
        if len(password.encode()) > MAX_BYTES:
            raise invalid("password", f"must be at most {MAX_BYTES} bytes in UTF-8")
        for name, (words, belongs) in _CLASSES.items():
            needed: int = getattr(self, name)
            if sum(map(belongs, password)) < needed:
                raise invalid("password", f"must have at least {needed} {words}{'s' * (needed > 1)}")


@dataclass(frozen=True, slots=True)
class PasswordHasher:
    """Makes the stored form of new passwords: bcrypt of the given cost, after the policy was asked."""

    policy: PasswordPolicy
    cost: int

    def hash(self, password: str) -> str:
        """Return the bcrypt hash of a password that the policy accepts; `InvalidInput` otherwise."""
        self.policy.check(password)
        return bcrypt.hashpw(password.encode(), bcrypt.gensalt(self.cost)).decode()


class Verdict(Enum):
    """What is known of an offered password. `BUSY`: nothing, since every hashing slot stayed taken."""

    RIGHT = auto()
    WRONG = auto()
    BUSY = auto()


@dataclass(slots=True)
class VerifierCounters:
    """What the verifier did since the process started; `waiting` is the queue for a hashing slot now."""

    hits: int = 0
    misses: int = 0
    busy: int = 0
    waiting: int = 0


class PasswordVerifier:
    """Checks offered passwords against stored hashes, remembering what a hash was already spent on.

    Of a password that proved right, a keyed digest stays in memory (the key lives and dies with the process):
    the same one is accepted and any other refused in microseconds. Of wrong ones the latest few are remembered,
    so that a misconfigured device in its retry loop costs one hash, not one an attempt. An entry counts
    only together with the stored hash it was proved against, so a changed password is in force at once.
    """

    def __init__(self, slots: int, max_entries: int, cost: int, patience: float = 2.0) -> None:
        self.counters = VerifierCounters()
        self._key = secrets.token_bytes(32)
        self._slots = threading.BoundedSemaphore(slots)
        self._patience = patience
        self._max_entries = max_entries
        self._right: dict[str, tuple[str, bytes]] = {}
        self._wrong: dict[tuple[str, bytes], None] = {}
        self._lock = threading.Lock()
        self._nobodys_hash = bcrypt.hashpw(secrets.token_bytes(16), bcrypt.gensalt(cost)).decode()

    @property
    def entries(self) -> int:
        """How many verified credentials are remembered."""
        return len(self._right)

    def verify(self, username: str, password: str, stored_hash: str) -> Verdict:
        """Say whether the password belongs to the stored hash of that user."""
        secret = password.encode("utf-8", "surrogatepass")
        if len(secret) > MAX_BYTES:
            return Verdict.WRONG
        digest = hmac.digest(self._key, secret, hashlib.sha256)
        remembered = self._recall(username, stored_hash, digest)
        if remembered is not None:
            return remembered
        matched = self._spend_a_hash(secret, stored_hash)
        if matched is None:
            return Verdict.BUSY
        self._remember(username, stored_hash, digest, matched=matched)
        return Verdict.RIGHT if matched else Verdict.WRONG

    def verify_nobody(self, password: str) -> Verdict:
        """Take as long as a wrong password takes, for a caller who must not learn that the name is unknown."""
        secret = password.encode("utf-8", "surrogatepass")[:MAX_BYTES]
        return Verdict.BUSY if self._spend_a_hash(secret, self._nobodys_hash) is None else Verdict.WRONG

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Hold one of the places in which hashing may run; `Busy` when none comes free in time."""
        with self._lock:
            self.counters.waiting += 1
        got_slot = self._slots.acquire(timeout=self._patience)
        with self._lock:
            self.counters.waiting -= 1
            self.counters.busy += not got_slot
        if not got_slot:
            raise Busy("too much hashing is under way; try again in a moment", "hashing-busy")
        try:
            yield
        finally:
            self._slots.release()

    def _recall(self, username: str, stored_hash: str, digest: bytes) -> Verdict | None:
        proven_hash, proven_digest = self._right.get(username, ("", b""))
        with self._lock:
            if proven_hash == stored_hash:
                self.counters.hits += 1
                return Verdict.RIGHT if hmac.compare_digest(proven_digest, digest) else Verdict.WRONG
            if (stored_hash, digest) in self._wrong:
                self.counters.hits += 1
                return Verdict.WRONG
            self.counters.misses += 1
            return None

    def _spend_a_hash(self, secret: bytes, stored_hash: str) -> bool | None:
        """Return whether they match, or None when no slot came free in time. bcrypt releases the GIL meanwhile."""
        try:
            with self.slot():
                return bcrypt.checkpw(secret, stored_hash.encode())
        except Busy:
            return None
        except ValueError:  # a damaged hash matches nothing
            return False

    def _remember(self, username: str, stored_hash: str, digest: bytes, *, matched: bool) -> None:
        with self._lock:
            if matched:
                self._right.pop(username, None)
                self._right[username] = (stored_hash, digest)
                _drop_oldest(self._right, self._max_entries)
            else:
                self._wrong[(stored_hash, digest)] = None
                _drop_oldest(self._wrong, min(self._max_entries, 1000))


def _drop_oldest(entries: dict[Any, Any], keep: int) -> None:
    while len(entries) > keep:
        del entries[next(iter(entries))]
