"""Passwords: the policy for new ones, hashing, and verification that a waiting broker can afford.

bcrypt reads 72 bytes and no more, so longer passwords are refused where they are set and never match where
they are checked. `docs/adr/0002-password-verification.md` says what is traded against what.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import string
import threading
import unicodedata
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

import bcrypt

from authsvc.credentials.hashing import measured
from authsvc.errors import Busy, invalid

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from authsvc.credentials.hashing import HashingPool

MAX_BYTES = 72
_RANDOM_CHARACTERS = 17

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
        if len(_encoded(password)) > MAX_BYTES:
            raise invalid("password", f"must be at most {MAX_BYTES} bytes in UTF-8")
        for name, (words, belongs) in _CLASSES.items():
            needed: int = getattr(self, name)
            if sum(map(belongs, password)) < needed:
                raise invalid("password", f"must have at least {needed} {words}{'s' * (needed > 1)}")


def generate(policy: PasswordPolicy) -> str:
    """Return a random password that satisfies the policy, of 96 bits or more."""
    needed = {
        string.ascii_lowercase: policy.lower,
        string.ascii_uppercase: policy.upper,
        string.digits: policy.numeric,
        "-_.+": policy.symbol,
    }
    characters = [secrets.choice(alphabet) for alphabet, count in needed.items() for _ in range(count)]
    alphabet = string.ascii_letters + string.digits
    characters += [secrets.choice(alphabet) for _ in range(max(_RANDOM_CHARACTERS, policy.min) - len(characters))]
    secrets.SystemRandom().shuffle(characters)
    return "".join(characters)


def _encoded(password: str) -> bytes:
    try:
        return password.encode()
    except UnicodeEncodeError:
        raise invalid("password", "must be valid Unicode") from None


@dataclass(frozen=True, slots=True)
class PasswordHasher:
    """Makes the stored form of new passwords: bcrypt of the given cost, after the policy was asked."""

    policy: PasswordPolicy
    cost: int
    pool: HashingPool

    def hash(self, password: str) -> str:
        """Return the bcrypt hash of a password that the policy accepts; `InvalidInput` otherwise, or `Busy`."""
        self.policy.check(password)
        return self.pool.run(lambda: bcrypt.hashpw(password.encode(), bcrypt.gensalt(self.cost)).decode())


class Verdict(Enum):
    """What is known of an offered password. `BUSY`: nothing, since too much hashing was under way."""

    RIGHT = auto()
    WRONG = auto()
    BUSY = auto()


@dataclass(slots=True)
class VerifierCounters:
    """What was answered from memory, by a hash, and not at all, since the process started."""

    hits: int = 0
    misses: int = 0
    busy: int = 0


@dataclass(frozen=True, slots=True)
class _Running:
    """A hash that has begun, and what to call if it proves the password right."""

    stored_hash: str
    digest: bytes
    future: Future[Verdict]
    on_right: list[Callable[[], object]]


class PasswordVerifier:
    """Checks offered passwords against stored hashes, remembering what a hash was already spent on.

    Of a password that proved right, a keyed digest stays in memory (the key lives and dies with the process): the
    same one is accepted and any other refused in microseconds. Of wrong ones the latest few are remembered, so that
    a misconfigured device in its retry loop costs one hash, not one an attempt. An entry counts only together with
    the stored hash it was proved against, so a changed password is in force at once.

    Brokers and the API hash in pools of their own, so that neither waits for the other's queue.

    `failure_seconds` is twice what a hash of the configured cost takes, measured here: for how long a failed sign-in
    should take at least, so that its duration tells nothing.
    """

    def __init__(self, brokers: HashingPool, api: HashingPool, max_entries: int, cost: int) -> None:
        self.counters = VerifierCounters()
        self._key = secrets.token_bytes(32)
        self._brokers = brokers
        self._api = api
        self._max_entries = max_entries
        self._right: dict[str, tuple[str, bytes]] = {}
        self._wrong: dict[tuple[str, bytes], None] = {}
        self._running: dict[tuple[str, str | None], _Running] = {}
        self._lock = threading.Lock()
        nobodys_hash, seconds = measured(lambda: bcrypt.hashpw(secrets.token_bytes(16), bcrypt.gensalt(cost)))
        self._nobodys_hash = nobodys_hash.decode()
        self.failure_seconds = 2 * seconds

    @property
    def entries(self) -> int:
        """How many verified credentials are remembered."""
        return len(self._right)

    def recall(self, username: str, password: str, stored_hash: str) -> Verdict | None:
        """Say what is known of the password without a hash; None when it takes one to know."""
        secret = password.encode("utf-8", "surrogatepass")
        if len(secret) > MAX_BYTES:
            return Verdict.WRONG
        return self._recall(username, stored_hash, hmac.digest(self._key, secret, hashlib.sha256))

    def begin(
        self,
        username: str,
        password: str,
        stored_hash: str,
        known_client_id: str | None = None,
        on_right: Callable[[], object] = lambda: None,
    ) -> Verdict | Future[Verdict]:
        """Say at once whether the password is right, or begin to find out, for a broker that must not be kept waiting.

        The hash runs on behind whoever gives up waiting for it, and is remembered. One runs at a time for each username
        and client id that it has logged in with, before all others, and one for all other client ids together: an
        attacker who knows a name can fill no queue with guesses, and is told `BUSY`. A hash that proves the password
        right calls the `on_right` of each login that waits for it before its verdict is there.
        """
        secret = password.encode("utf-8", "surrogatepass")
        if len(secret) > MAX_BYTES:
            return Verdict.WRONG
        digest = hmac.digest(self._key, secret, hashlib.sha256)
        remembered = self._recall(username, stored_hash, digest)
        if remembered is not None:
            return remembered

        login = (username, known_client_id)

        def hash_it() -> Verdict:
            try:
                verdict = self._spend_a_hash(username, secret, stored_hash, digest)
            finally:
                # Before the verdict is known to a caller who may try again at once.
                with self._lock:
                    ended = self._running.pop(login)
            if verdict is Verdict.RIGHT:
                for call in ended.on_right:
                    call()
            return verdict

        with self._lock:
            running = self._running.get(login)
            if running and (running.stored_hash, running.digest) == (stored_hash, digest):
                running.on_right.append(on_right)
                return running.future
            future = None if running else self._submit(hash_it, first=known_client_id is not None)
            if future is None:
                self.counters.busy += 1
                return Verdict.BUSY
            self._running[login] = _Running(stored_hash, digest, future, [on_right])
        return future

    def verify(self, username: str, password: str, stored_hash: str, *, first: bool = False) -> Verdict:
        """Say whether the password belongs to the stored hash, waiting for as long as it takes; for the API.

        With `first` it is hashed before all others that wait.
        """
        secret = password.encode("utf-8", "surrogatepass")
        if len(secret) > MAX_BYTES:
            return Verdict.WRONG
        digest = hmac.digest(self._key, secret, hashlib.sha256)
        remembered = self._recall(username, stored_hash, digest)
        if remembered is not None:
            return remembered
        try:
            return self._api.run(lambda: self._spend_a_hash(username, secret, stored_hash, digest), first=first)
        except Busy:
            self.counters.busy += 1
            return Verdict.BUSY

    def verify_nobody(self, password: str, *, first: bool = False) -> Verdict:
        """Take as long as a wrong password takes, for a caller who must not learn that the name is unknown."""
        secret = password.encode("utf-8", "surrogatepass")[:MAX_BYTES]
        try:
            self._api.run(lambda: bcrypt.checkpw(secret, self._nobodys_hash.encode()), first=first)
        except Busy:
            return Verdict.BUSY
        return Verdict.WRONG

    def _recall(self, username: str, stored_hash: str, digest: bytes) -> Verdict | None:
        proven_hash, proven_digest = self._right.get(username, ("", b""))
        if proven_hash == stored_hash:
            self.counters.hits += 1
            return Verdict.RIGHT if hmac.compare_digest(proven_digest, digest) else Verdict.WRONG
        if (stored_hash, digest) in self._wrong:
            self.counters.hits += 1
            return Verdict.WRONG
        return None

    def _submit(self, work: Callable[[], Verdict], *, first: bool) -> Future[Verdict] | None:
        try:
            return self._brokers.submit(work, first=first)
        except Busy:
            return None

    def _spend_a_hash(self, username: str, secret: bytes, stored_hash: str, digest: bytes) -> Verdict:
        try:
            matched = bcrypt.checkpw(secret, stored_hash.encode())  # without the GIL
        except ValueError:  # a damaged hash matches nothing
            matched = False
        with self._lock:
            self.counters.misses += 1
            if matched:
                self._right.pop(username, None)
                self._right[username] = (stored_hash, digest)
                _drop_oldest(self._right, self._max_entries)
            else:
                self._wrong[(stored_hash, digest)] = None
                _drop_oldest(self._wrong, min(self._max_entries, 1000))
        return Verdict.RIGHT if matched else Verdict.WRONG


def _drop_oldest(entries: dict[Any, Any], keep: int) -> None:
    while len(entries) > keep:
        del entries[next(iter(entries))]
