"""The client ids that users were seen with: noted on the broker path in memory, stored by a thread beside it."""

from __future__ import annotations

from collections import Counter, OrderedDict
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from peewee import EXCLUDED, fn

from authsvc.policy import known_client_ids
from authsvc.policy.known_client_ids import KnownClientIds
from authsvc.storage.database import session, transaction
from authsvc.storage.models import ClientIdRow

MAX_NOTED = 100_000
MAX_NOTED_OF_USER = 1000
MAX_STORED_AT_ONCE = 2000
MAX_STORED = 100_000
MAX_CLIENT_ID = known_client_ids.MAX_LENGTH
PER_USER = 20
_KEPT = timedelta(days=30)
_BATCH = 200
# What another process has stored may appear this much later than its time says, since clocks differ.
_OVERLAP = timedelta(seconds=30)


class SeenClientIds:
    """What this worker has seen since it last wrote it down: bounded, and one look-up when there is no news.

    `known` are the client ids that users have logged in with, here and, as of the last `learn_stored`, elsewhere.
    """

    def __init__(self) -> None:
        self.known = KnownClientIds()
        self._noted: dict[tuple[str, str], bool] = {}
        self._noted_of_user: Counter[str] = Counter()
        self._stored: OrderedDict[tuple[str, str], bool] = OrderedDict()
        self._learnt_until = datetime.min.replace(tzinfo=UTC)

    def note(self, username: str, client_id: str, logged_in: bool = False) -> None:
        """Note a client that was let in, or with `logged_in` one that has proved to be the user; memory only."""
        if logged_in:
            self.known.add(username, client_id)
        key = (username, client_id)
        stored = self._stored.get(key)
        if stored is not None and stored >= logged_in:
            return
        earlier = self._noted.get(key)
        if earlier is None:
            if not self._has_room_for(username) or not 0 < len(client_id) <= MAX_CLIENT_ID:
                return
            self._noted_of_user[username] += 1
        self._noted[key] = logged_in or bool(earlier)

    def _has_room_for(self, username: str) -> bool:
        # A user with ever new client ids must not take the room, nor the time to write, of others.
        return len(self._noted) < MAX_NOTED and self._noted_of_user[username] < MAX_NOTED_OF_USER

    def store(self) -> None:
        """Write the first `MAX_STORED_AT_ONCE` noted client ids; the rest, and those that met an error, stay."""
        try:
            self._store()
        finally:
            self._noted_of_user = Counter(username for username, _ in list(self._noted))

    def _store(self) -> None:
        first = list(self._noted.items())[:MAX_STORED_AT_ONCE]
        noted = [(key, logged_in) for key, logged_in in first if self._can_be_stored(key)]
        now = datetime.now(UTC)
        for start in range(0, len(noted), _BATCH):
            batch = noted[start : start + _BATCH]
            rows = [{"username": key[0], "client_id": key[1], "seen_at": now, "logged_in": way} for key, way in batch]
            with transaction():
                target = [ClientIdRow.username, ClientIdRow.client_id]
                update = {
                    ClientIdRow.seen_at: EXCLUDED.seen_at,
                    ClientIdRow.logged_in: ClientIdRow.logged_in | EXCLUDED.logged_in,
                }
                ClientIdRow.insert_many(rows).on_conflict(conflict_target=target, update=update).execute()
            for key, logged_in in batch:
                if self._noted.get(key) is logged_in:
                    del self._noted[key]
                self._stored[key] = logged_in
            while len(self._stored) > MAX_STORED:
                self._stored.popitem(last=False)

    def learn_stored(self) -> None:
        """Learn the client ids that any process has stored since this was last asked; the first time, all of them."""
        now = datetime.now(UTC)
        with session():
            rows: Any = ClientIdRow.select(ClientIdRow.username, ClientIdRow.client_id)
            rows = rows.where(ClientIdRow.logged_in, ClientIdRow.seen_at > self._learnt_until).order_by(
                ClientIdRow.seen_at
            )
            for username, client_id in rows.tuples().iterator():
                self.known.add(username, client_id)
        self._learnt_until = now - _OVERLAP

    def _can_be_stored(self, key: tuple[str, str]) -> bool:
        try:
            key[1].encode()
        except UnicodeEncodeError:
            del self._noted[key]
            return False
        return True

    def forget_stored(self) -> None:
        """Let everything be noted anew, so that the time of the last sighting moves on; and drop what is long past."""
        self._stored = OrderedDict()
        with transaction():
            ClientIdRow.delete().where(ClientIdRow.seen_at < datetime.now(UTC) - _KEPT).execute()
            _drop_beyond(PER_USER, ~ClientIdRow.logged_in)
            _drop_beyond(known_client_ids.PER_USER, ClientIdRow.logged_in)


def _drop_beyond(most: int, chosen: Any) -> None:
    """Keep the latest of the chosen sightings of each user, so many as are given."""
    query: Any = ClientIdRow.select(ClientIdRow.username).where(chosen).group_by(ClientIdRow.username)
    for (username,) in list(query.having(fn.COUNT(ClientIdRow.client_id) > most).tuples()):
        of_user = chosen & (ClientIdRow.username == username)
        latest = (
            ClientIdRow.select(ClientIdRow.client_id).where(of_user).order_by(ClientIdRow.seen_at.desc()).limit(most)
        )
        kept = [row.client_id for row in latest]
        ClientIdRow.delete().where(of_user, ClientIdRow.client_id.not_in(kept)).execute()


class SeenClientId(NamedTuple):
    """A client id, and about when a user was last seen with it."""

    client_id: str
    at: datetime


def of_user(username: str) -> list[SeenClientId]:
    """Return the client ids that a user was seen with, the latest first and not more than a few."""
    with session():
        rows = ClientIdRow.select().where(ClientIdRow.username == username).order_by(ClientIdRow.seen_at.desc())
        return [SeenClientId(row.client_id, row.seen_at) for row in rows.limit(PER_USER)]


def has_other_user(client_id: str, username: str) -> bool:
    """Return whether another user than this one was seen with a client id."""
    with session():
        others = ClientIdRow.select().where(ClientIdRow.client_id == client_id, ClientIdRow.username != username)
        return bool(others.exists())


def client_ids(username: str) -> list[str]:
    """Return every stored client id of a user, the latest first: about 1,000 at most."""
    with session():
        rows: Any = ClientIdRow.select(ClientIdRow.client_id).where(ClientIdRow.username == username)
        return [client_id for (client_id,) in rows.order_by(ClientIdRow.seen_at.desc()).tuples()]
