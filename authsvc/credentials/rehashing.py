"""Hashes of other systems, replaced by bcrypt after the first right password, while no login waits for a hash."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from authsvc.credentials.hashing import HashingPool
from authsvc.credentials.password_hashes import BCRYPT_MAX_BYTES, rehash

if TYPE_CHECKING:
    from collections.abc import Callable

_MAX_WAITING = 10_000
_SECONDS_PER_RUN = 0.5


class Rehashed(NamedTuple):
    """A stored hash of a user and the one that replaces it."""

    username: str
    stored: str
    replacement: str


class _Right(NamedTuple):
    stored: str
    password: bytes


class Rehashing:
    """Holds right passwords until they are hashed with bcrypt at this cost.

    It holds up to 10,000 users; a user beyond that is held at a later login. A password of more than 72 bytes, which
    bcrypt cannot read, keeps its hash. `logins` is the pool that has precedence.
    """

    def __init__(self, logins: HashingPool, cost: int) -> None:
        self._logins = logins
        self._own = HashingPool(1, 1, patience=600)  # a thread of low priority
        self._cost = cost
        self._waiting: dict[str, _Right] = {}
        self._rehashed: dict[str, Rehashed] = {}

    def note(self, username: str, stored: str, password: bytes) -> None:
        """Hold a right password. It returns at once."""
        if len(password) <= BCRYPT_MAX_BYTES and len(self._waiting) < _MAX_WAITING:
            done = self._rehashed.get(username)
            if done is None or done.stored != stored:
                self._waiting[username] = _Right(stored, password)

    def store(self, write: Callable[[list[Rehashed]], object]) -> None:
        """Hash passwords for up to half a second and `write` the result; if it raises, the next call writes it."""
        until = monotonic() + _SECONDS_PER_RUN
        while self._waiting and monotonic() < until and not self._logins.waiting:
            username, (stored, password) = next(iter(self._waiting.items()))
            replacement = self._own.run(lambda stored=stored, password=password: rehash(stored, password, self._cost))  # type: ignore[misc]
            self._rehashed[username] = Rehashed(username, stored, replacement)
            del self._waiting[username]
        if self._rehashed:
            write(list(self._rehashed.values()))
            self._rehashed.clear()
