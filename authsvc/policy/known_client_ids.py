"""The client ids that each user has logged in with, in memory: compact, bounded, and read without a lock."""

from __future__ import annotations

import hashlib
import secrets
import threading

MAX_LENGTH = 200
"""A longer client id is never known: the table that survives a restart does not hold it."""
PER_USER = 1000
MAX_ENTRIES = 500_000


class KnownClientIds:
    """Keyed digests of 64 bits, by username; of each user the newest `PER_USER` are kept.

    In all there are at most `max_entries`, in two generations: when the newer one is half of that, the older one goes,
    and with it the users that have not logged in for longest. The limit for each user keeps a user with ever new
    client ids from displacing the client ids of others.
    """

    def __init__(self, max_entries: int = MAX_ENTRIES) -> None:
        self._key = secrets.token_bytes(32)
        self._half = max(max_entries // 2, PER_USER)
        self._newer: dict[str, tuple[int, ...]] = {}
        self._older: dict[str, tuple[int, ...]] = {}
        self._in_newer = self._in_older = 0
        self._learning = threading.Lock()

    @property
    def entries(self) -> int:
        """How many client ids are in memory, those twice that are in both generations."""
        return self._in_newer + self._in_older

    def knows(self, username: str, client_id: str) -> bool:
        """Return whether the user has logged in with this client id."""
        return self._digest(client_id) in self._of_user(username)

    def learn(self, username: str, client_id: str) -> None:
        """Note that the user has logged in with this client id."""
        if not 0 < len(client_id) <= MAX_LENGTH:
            return
        digest = self._digest(client_id)
        with self._learning:
            known = self._of_user(username)
            if digest not in known:
                known = (*known, digest)[-PER_USER:]
            if self._newer.get(username) is not known:
                self._in_newer += len(known) - len(self._newer.get(username, ()))
                self._newer[username] = known
            if self._in_newer >= self._half:
                self._older, self._newer = self._newer, {}
                self._in_older, self._in_newer = self._in_newer, 0

    def _of_user(self, username: str) -> tuple[int, ...]:
        return self._newer.get(username) or self._older.get(username, ())

    def _digest(self, client_id: str) -> int:
        told = hashlib.blake2b(client_id.encode("utf-8", "surrogatepass"), key=self._key, digest_size=8).digest()
        return int.from_bytes(told)
