"""Under which client ids a user was lately seen: noted on the broker path in memory, written down behind it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from peewee import EXCLUDED, fn

from authsvc.storage.database import session, transaction
from authsvc.storage.models import Sighting

MAX_NOTED = 100_000
MAX_CLIENT_ID = 200
PER_USER = 20
_KEPT = timedelta(days=30)
_BATCH = 200


class Sightings:
    """What this worker has seen since it last wrote it down: bounded, and one look-up when there is no news."""

    def __init__(self) -> None:
        self._noted: dict[tuple[str, str], None] = {}
        self._stored: set[tuple[str, str]] = set()

    def note(self, username: str, client_id: str) -> None:
        """Note a client that was let in; touches memory only."""
        key = (username, client_id)
        if key not in self._stored and len(self._noted) < MAX_NOTED and 0 < len(client_id) <= MAX_CLIENT_ID:
            self._noted[key] = None

    def store(self) -> None:
        """Write down what was noted; what a database error keeps from it stays noted."""
        noted = [key for key in list(self._noted) if self._can_be_stored(key)]
        now = datetime.now(UTC)
        for start in range(0, len(noted), _BATCH):
            batch = noted[start : start + _BATCH]
            rows = [{"username": username, "client_id": client_id, "seen_at": now} for username, client_id in batch]
            with transaction():
                target = [Sighting.username, Sighting.client_id]
                update = {Sighting.seen_at: EXCLUDED.seen_at}
                Sighting.insert_many(rows).on_conflict(conflict_target=target, update=update).execute()
            for key in batch:
                self._noted.pop(key, None)
                self._stored.add(key)

    def _can_be_stored(self, key: tuple[str, str]) -> bool:
        try:
            key[1].encode()
        except UnicodeEncodeError:
            del self._noted[key]
            return False
        return True

    def forget_stored(self) -> None:
        """Let everything be noted anew, so that the time of the last sighting moves on; and drop what is long past."""
        self._stored = set()
        with transaction():
            Sighting.delete().where(Sighting.seen_at < datetime.now(UTC) - _KEPT).execute()
            for username in _users_with_too_many():
                latest = client_ids(username)
                Sighting.delete().where(Sighting.username == username, Sighting.client_id.not_in(latest)).execute()


def _users_with_too_many() -> list[str]:
    counted = fn.COUNT(Sighting.client_id)
    query: Any = Sighting.select(Sighting.username).group_by(Sighting.username).having(counted > PER_USER).tuples()
    return [username for (username,) in query]


class Seen(NamedTuple):
    """A client id, and about when a user was last seen with it."""

    client_id: str
    at: datetime


def of_user(username: str) -> list[Seen]:
    """Return the client ids that a user was seen with, the latest first and not more than a few."""
    with session():
        rows = Sighting.select().where(Sighting.username == username).order_by(Sighting.seen_at.desc())
        return [Seen(row.client_id, row.seen_at) for row in rows.limit(PER_USER)]


def client_ids(username: str) -> list[str]:
    """Return those of `of_user` alone."""
    return [seen.client_id for seen in of_user(username)]
