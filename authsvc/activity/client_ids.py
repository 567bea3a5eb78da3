"""The client ids that users have used: noted in memory on the broker path, stored by a background thread."""

from __future__ import annotations

from collections import Counter, OrderedDict
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any, NamedTuple

from peewee import EXCLUDED, chunked, fn

from authsvc.activity import last_seen
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
# Another process's rows can become visible this much later than their time says, because clocks differ.
_OVERLAP = timedelta(seconds=30)


class SeenClientIds:
    """The client ids that this worker has seen and not yet stored; bounded. A known one costs one look-up.

    `known` holds the client ids that users have logged in with, here or, as of the last `load_stored`, elsewhere.
    """

    def __init__(self) -> None:
        self.known = KnownClientIds()
        self._noted: dict[tuple[str, str], bool] = {}
        self._noted_of_user: Counter[str] = Counter()
        self._stored: OrderedDict[tuple[str, str], bool] = OrderedDict()
        self._loaded_until = datetime.min.replace(tzinfo=UTC)
        self._all_stored_at = monotonic()

    @property
    def age(self) -> float:
        """Seconds that the oldest noted client id has waited to be stored, to half a second; 0 without one."""
        return monotonic() - self._all_stored_at if self._noted else 0.0

    def note(self, username: str, client_id: str, logged_in: bool = False) -> None:
        """Note an allowed client in memory; `logged_in` if it has proved to be the user."""
        if logged_in:
            self.known.add(username, client_id)
        key = (username, client_id)
        stored = self._stored.get(key)
        if stored is not None and stored >= logged_in:
            return
        earlier = self._noted.get(key)
        if earlier is None:
            # A user with ever new client ids must not use up the memory, nor the time to write, of others.
            if len(self._noted) >= MAX_NOTED or self._noted_of_user[username] >= MAX_NOTED_OF_USER:
                return
            if not 0 < len(client_id) <= MAX_CLIENT_ID:
                return
            self._noted_of_user[username] += 1
        self._noted[key] = logged_in or bool(earlier)

    def store(self) -> None:
        """Store the first `MAX_STORED_AT_ONCE` noted client ids; the others, and all after an error, stay noted."""
        try:
            self._store()
        finally:
            self._noted_of_user = Counter(username for username, _ in list(self._noted))

    def _store(self) -> None:
        started = monotonic()
        everything = list(self._noted.items())
        first = everything[:MAX_STORED_AT_ONCE]
        noted = [(key, logged_in) for key, logged_in in first if self._can_be_stored(key)]
        now = datetime.now(UTC)
        for batch in chunked(noted, _BATCH):
            rows = [
                {"username": username, "client_id": client_id, "seen_at": now, "logged_in": logged_in}
                for (username, client_id), logged_in in batch
            ]
            update = {
                ClientIdRow.seen_at: EXCLUDED.seen_at,
                ClientIdRow.logged_in: ClientIdRow.logged_in | EXCLUDED.logged_in,
            }
            with transaction():
                target = [ClientIdRow.username, ClientIdRow.client_id]
                ClientIdRow.insert_many(rows).on_conflict(conflict_target=target, update=update).execute()
                last_seen.record({key[0] for key, logged_in in batch if logged_in or self.known.knows(*key)}, now)
            for key, logged_in in batch:
                if self._noted.get(key) is logged_in:
                    del self._noted[key]
                self._stored[key] = logged_in
            while len(self._stored) > MAX_STORED:
                self._stored.popitem(last=False)
        if len(first) == len(everything):
            self._all_stored_at = started

    def _can_be_stored(self, key: tuple[str, str]) -> bool:
        try:
            key[1].encode()
        except UnicodeEncodeError:
            del self._noted[key]
            return False
        return True

    def load_stored(self) -> None:
        """Add to `known` the client ids that any process has stored since the last call; at the first call, all."""
        now = datetime.now(UTC)
        with session():
            query: Any = ClientIdRow.select(ClientIdRow.username, ClientIdRow.client_id)
            query = query.where(ClientIdRow.logged_in, ClientIdRow.seen_at > self._loaded_until)
            for username, client_id in query.order_by(ClientIdRow.seen_at).tuples().iterator():
                self.known.add(username, client_id)
        self._loaded_until = now - _OVERLAP

    def delete_expired(self) -> None:
        """Delete old rows, and let every client id be stored again so that its `seen_at` is updated."""
        self._stored = OrderedDict()
        with transaction():
            ClientIdRow.delete().where(ClientIdRow.seen_at < datetime.now(UTC) - _KEPT).execute()
            _delete_beyond(PER_USER, ~ClientIdRow.logged_in)
            _delete_beyond(known_client_ids.PER_USER, ClientIdRow.logged_in)


def _delete_beyond(most: int, condition: Any) -> None:
    """Delete all but the latest `most` rows of each user, among the rows that meet the condition."""
    query: Any = ClientIdRow.select(ClientIdRow.username).where(condition).group_by(ClientIdRow.username)
    for (username,) in list(query.having(fn.COUNT(ClientIdRow.client_id) > most).tuples()):
        of_user = condition & (ClientIdRow.username == username)
        latest = ClientIdRow.select(ClientIdRow.client_id).where(of_user).order_by(ClientIdRow.seen_at.desc())
        kept = [row.client_id for row in latest.limit(most)]
        ClientIdRow.delete().where(of_user, ClientIdRow.client_id.not_in(kept)).execute()


class SeenClientId(NamedTuple):
    """A client id and the approximate time of its last use by a user."""

    client_id: str
    at: datetime


def of_user(username: str) -> list[SeenClientId]:
    """Return up to `PER_USER` client ids that a user has used, the latest first."""
    with session():
        rows = ClientIdRow.select().where(ClientIdRow.username == username).order_by(ClientIdRow.seen_at.desc())
        return [SeenClientId(row.client_id, row.seen_at) for row in rows.limit(PER_USER)]


def has_other_user(client_id: str, username: str) -> bool:
    """Return whether another user has used this client id."""
    with session():
        others = ClientIdRow.select().where(ClientIdRow.client_id == client_id, ClientIdRow.username != username)
        return bool(others.exists())


def all_of_user(username: str) -> list[str]:
    """Return every stored client id of a user, the latest first: at most about 1,000."""
    with session():
        rows: Any = ClientIdRow.select(ClientIdRow.client_id).where(ClientIdRow.username == username)
        return [client_id for (client_id,) in rows.order_by(ClientIdRow.seen_at.desc()).tuples()]
