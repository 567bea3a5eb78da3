"""Passwords: the policy for new ones, hashing, and verification with a cache, because brokers wait for the answer.

bcrypt reads only 72 bytes, so longer passwords cannot be set and match only hashes of other systems.
`docs/adr/0002-password-verification.md` explains the cache.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import string
import threading
import unicodedata
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from enum import Enum, auto
from math import ceil, log2
from typing import TYPE_CHECKING, Any

import bcrypt

from authsvc.credentials.hashing import measured
from authsvc.credentials.password_hashes import (
    BCRYPT_MAX_BYTES,
    PasswordHash,
    Scheme,
    UnusableHash,
    hash_generated,
    is_foreign,
    parse_stored,
    password_version,
)
from authsvc.errors import Busy, invalid

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from authsvc.credentials.hashing import HashingPool

MAX_BYTES = BCRYPT_MAX_BYTES
_RANDOM_BITS = 96
_MAX_WRONG = 1000
# Hashes that need more memory are computed one at a time. Mosquitto's own argon2id hashes need 46 MiB.
_MUCH_MEMORY_KIB = 64 * 1024

_CLASSES: dict[str, tuple[str, Callable[[str], bool]]] = {
    "lower": ("lower-case letter", lambda char: unicodedata.category(char) == "Ll"),
    "upper": ("upper-case letter", lambda char: unicodedata.category(char) == "Lu"),
    "numeric": ("digit", lambda char: unicodedata.category(char)[0] == "N"),
    "symbol": ("symbol", lambda char: unicodedata.category(char)[0] in "PSZ"),
}


@dataclass(frozen=True, slots=True)
class PasswordPolicy:
    """The least number of characters of a new password, in total and of each Unicode class."""

    min: int = 5
    lower: int = 0
    upper: int = 0
    numeric: int = 0
    symbol: int = 0

    def check(self, password: str) -> None:
        """Raise `InvalidInput` for `password`, without repeating it, if the policy does not accept it."""
        if len(password) < self.min:
            raise invalid("password", f"must have at least {self.min} characters")
        if "\0" in password:
            raise invalid("password", "must not contain a NUL character")
        try:
            size = len(password.encode())
        except UnicodeEncodeError:
            raise invalid("password", "must be valid Unicode") from None
        if size > MAX_BYTES:
            raise invalid("password", f"must be at most {MAX_BYTES} bytes in UTF-8")
        for name, (words, belongs) in _CLASSES.items():
            needed: int = getattr(self, name)
            if sum(map(belongs, password)) < needed:
                raise invalid("password", f"must have at least {needed} {words}{'s' * (needed > 1)}")


class GeneratedPassword(str):
    """A random password of at least 96 bits that `generate` has made. It needs no slow hash."""

    __slots__ = ()


def generate(policy: PasswordPolicy) -> GeneratedPassword:
    """Return a random password of at least 96 bits that satisfies the policy."""
    needed = {
        string.ascii_lowercase: policy.lower,
        string.ascii_uppercase: policy.upper,
        string.digits: policy.numeric,
        "-_.+": policy.symbol,
    }
    characters = [secrets.choice(alphabet) for alphabet, count in needed.items() for _ in range(count)]
    bits = sum(count * log2(len(alphabet)) for alphabet, count in needed.items())
    alphabet = string.ascii_letters + string.digits
    more = max(ceil((_RANDOM_BITS - bits) / log2(len(alphabet))), policy.min - len(characters), 0)
    characters += [secrets.choice(alphabet) for _ in range(more)]
    secrets.SystemRandom().shuffle(characters)
    return GeneratedPassword("".join(characters))


@dataclass(frozen=True, slots=True)
class PasswordHasher:
    """Hashes new passwords after checking them against the policy: generated ones fast, all others with bcrypt."""

    policy: PasswordPolicy
    cost: int
    pool: HashingPool

    def hash(self, password: str) -> str:
        """Return the hash to store; `InvalidInput` if the policy does not accept the password, or `Busy`."""
        self.policy.check(password)
        if isinstance(password, GeneratedPassword):
            return hash_generated(password)
        return self.pool.run(lambda: bcrypt.hashpw(password.encode(), bcrypt.gensalt(self.cost)).decode())


class Verdict(Enum):
    """The result of a password check. `BUSY`: it was not checked, because too many hashes were running."""

    RIGHT = auto()
    WRONG = auto()
    BUSY = auto()


@dataclass(slots=True)
class VerifierCounters:
    """Checks answered from the cache, by a hash, and with `BUSY`, since the process started."""

    hits: int = 0
    misses: int = 0
    busy: int = 0


@dataclass(frozen=True, slots=True)
class _RunningHash:
    """A submitted hash, and the functions to call if the password is right."""

    version: str
    digest: bytes
    future: Future[Verdict]
    on_right: list[Callable[[], object]]


class PasswordVerifier:
    """Checks passwords against stored hashes, with a cache of results.

    For each user the cache holds a digest of the right password, made with a random key of this process. The same
    password is then accepted, and any other refused, within microseconds. It also holds up to 1,000 wrong passwords, so
    a misconfigured device that retries costs one hash and not one for each attempt. An entry is valid only for the
    version of the password that it was checked against, so a changed password takes effect at once. Generated passwords
    are checked within microseconds without the cache.

    If a password is right and its hash is one of another system, `on_foreign` is called with the username, the stored
    hash and the password. It must return at once. Hashes that need more than 64 MiB are computed one at a time.

    Brokers and the API have separate pools, so that neither waits for the other.

    `failure_seconds` is twice the time of a hash, measured at the start: the least time that a failed sign-in should
    take, so that its duration does not reveal the reason.
    """

    def __init__(
        self,
        brokers: HashingPool,
        api: HashingPool,
        max_entries: int,
        cost: int,
        on_foreign: Callable[[str, str, bytes], object] | None = None,
    ) -> None:
        self.counters = VerifierCounters()
        self._key = secrets.token_bytes(32)
        self._brokers = brokers
        self._api = api
        self._max_entries = max_entries
        self._right: dict[str, tuple[str, bytes]] = {}
        self._wrong: dict[tuple[str, bytes], None] = {}
        self._running: dict[tuple[str, str | None], _RunningHash] = {}
        self._lock = threading.Lock()
        self._memory = threading.Lock()
        self._on_foreign = on_foreign
        unknown_users_hash, seconds = measured(lambda: bcrypt.hashpw(secrets.token_bytes(16), bcrypt.gensalt(cost)))
        self._unknown_users_hash = unknown_users_hash
        self.failure_seconds = 2 * seconds

    @property
    def entries(self) -> int:
        """The number of users whose right password is cached."""
        return len(self._right)

    def cached_verdict(self, username: str, password: str, stored_hash: str) -> Verdict | None:
        """Return the verdict on a password if no hash is needed, otherwise None."""
        verdict = self._lookup(username, _to_bytes(password), stored_hash)
        return verdict if isinstance(verdict, Verdict) else None

    def start(
        self,
        username: str,
        password: str,
        stored_hash: str,
        known_client_id: str | None = None,
        on_right: Callable[[], object] = lambda: None,
    ) -> Verdict | Future[Verdict]:
        """Return the verdict on a password if it is cached, otherwise the future of its hash; for brokers.

        The hash continues when the caller stops waiting, and its result is cached. For each username, one hash runs at
        a time for each known client id, before all others, and one for all other client ids together. So an attacker
        who knows a username cannot fill the queue with guesses; further attempts get `BUSY`. If the password is right,
        the hash calls the `on_right` of each login that waits for it, and then sets the verdict.
        """
        secret = _to_bytes(password)
        found = self._lookup(username, secret, stored_hash)
        if isinstance(found, Verdict):
            return found
        digest, version = self._digest(secret), password_version(stored_hash)
        login = (username, known_client_id)

        def check() -> Verdict:
            try:
                verdict = self._check_hash(username, secret, stored_hash, found)
            finally:
                # Before the verdict is set: the caller may try again at once.
                with self._lock:
                    ended = self._running.pop(login)
            if verdict is Verdict.RIGHT:
                for call in ended.on_right:
                    call()
            return verdict

        with self._lock:
            running = self._running.get(login)
            if running and (running.version, running.digest) == (version, digest):
                running.on_right.append(on_right)
                return running.future
            future = None
            if not running:
                with suppress(Busy):
                    future = self._brokers.submit(check, first=known_client_id is not None, estimate=found.seconds)
            if future is None:
                self.counters.busy += 1
                return Verdict.BUSY
            self._running[login] = _RunningHash(version, digest, future, [on_right])
        return future

    def verify(self, username: str, password: str, stored_hash: str, *, first: bool = False) -> Verdict:
        """Return the verdict on a password and wait for its hash; with `first` before all others. For the API."""
        secret = _to_bytes(password)
        found = self._lookup(username, secret, stored_hash)
        if isinstance(found, Verdict):
            return found
        try:
            return self._api.run(lambda: self._check_hash(username, secret, stored_hash, found), first=first)
        except Busy:
            self.counters.busy += 1
            return Verdict.BUSY

    def verify_unknown_user(self, password: str, *, first: bool = False) -> Verdict:
        """Spend the time of a wrong password, so that the caller cannot tell that the username is unknown."""
        secret = _to_bytes(password)[:MAX_BYTES]
        try:
            self._api.run(lambda: bcrypt.checkpw(secret, self._unknown_users_hash), first=first)
        except Busy:
            return Verdict.BUSY
        return Verdict.WRONG

    def _lookup(self, username: str, secret: bytes, stored_hash: str) -> Verdict | PasswordHash:
        """Return the verdict if it is cached or needs no slow hash, otherwise the hash to check."""
        if len(secret) > MAX_BYTES and not is_foreign(stored_hash):
            return Verdict.WRONG
        digest, version = self._digest(secret), password_version(stored_hash)
        right_version, right_digest = self._right.get(username, ("", b""))
        if right_version == version:
            self.counters.hits += 1
            matched = hmac.compare_digest(right_digest, digest)
            return self._right_verdict(username, secret, stored_hash) if matched else Verdict.WRONG
        if (version, digest) in self._wrong:
            self.counters.hits += 1
            return Verdict.WRONG
        try:
            password_hash = parse_stored(stored_hash)
        except UnusableHash:  # a damaged hash matches nothing
            return Verdict.WRONG
        if password_hash.scheme is not Scheme.GENERATED:
            return password_hash
        self.counters.hits += 1
        return Verdict.RIGHT if password_hash.verify(secret) else Verdict.WRONG

    def _digest(self, secret: bytes) -> bytes:
        return hmac.digest(self._key, secret, hashlib.sha256)

    def _check_hash(self, username: str, secret: bytes, stored_hash: str, password_hash: PasswordHash) -> Verdict:
        digest, version = self._digest(secret), password_version(stored_hash)
        with self._memory if password_hash.memory_kib > _MUCH_MEMORY_KIB else nullcontext():
            matched = password_hash.verify(secret)  # releases the GIL
        with self._lock:
            self.counters.misses += 1
            if matched:
                self._right.pop(username, None)
                self._right[username] = (version, digest)
                _drop_oldest(self._right, self._max_entries)
            else:
                self._wrong[(version, digest)] = None
                _drop_oldest(self._wrong, min(self._max_entries, _MAX_WRONG))
        return self._right_verdict(username, secret, stored_hash) if matched else Verdict.WRONG

    def _right_verdict(self, username: str, secret: bytes, stored_hash: str) -> Verdict:
        if self._on_foreign and is_foreign(stored_hash):
            self._on_foreign(username, stored_hash, secret)
        return Verdict.RIGHT


def _to_bytes(password: str) -> bytes:
    return password.encode("utf-8", "surrogatepass")


def _drop_oldest(entries: dict[Any, Any], keep: int) -> None:
    while len(entries) > keep:
        del entries[next(iter(entries))]
