"""The client ids with which each user has logged in: in memory, bounded, and read without a lock."""

from __future__ import annotations

import hashlib
import secrets
import threading

MAX_LENGTH = 200
"""A longer client id is never known, because the database table does not store it."""
PER_USER = 1000
MAX_ENTRIES = 500_000


class KnownClientIds:
    """Keyed 64-bit digests of client ids by username: the newest `PER_USER` of each user.

    At most `max_entries` are kept, in two generations. When the newer generation holds half of them, the older one is
    dropped, and with it the users that have not logged in for longest. Because of the limit for each user, a user that
    keeps changing its client id does not displace those of other users.
    """

    def __init__(self, max_entries: int = MAX_ENTRIES) -> None:
        self._key = secrets.token_bytes(32)
        self._half = max(max_entries // 2, PER_USER)
        self._newer: dict[str, tuple[int, ...]] = {}
        self._older: dict[str, tuple[int, ...]] = {}
        self._in_newer = self._in_older = 0
        self._adding = threading.Lock()

    @property
    def entries(self) -> int:
        """How many client ids are in memory; one that is in both generations counts twice."""
        return self._in_newer + self._in_older

    def knows(self, username: str, client_id: str) -> bool:
        """Return whether the user has logged in with this client id."""
        return self._digest(client_id) in self._of_user(username)

    def add(self, username: str, client_id: str) -> None:
        """Record that the user has logged in with this client id."""
        if not 0 < len(client_id) <= MAX_LENGTH:
            return
        digest = self._digest(client_id)
        with self._adding:
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
        digest = hashlib.blake2b(client_id.encode("utf-8", "surrogatepass"), key=self._key, digest_size=8).digest()
        return int.from_bytes(digest)
