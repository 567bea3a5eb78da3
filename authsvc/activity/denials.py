"""The latest denied requests of each user, with advice: noted in memory on the broker path, stored by a thread."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import structlog
from peewee import EXCLUDED, Select, fn

from authsvc.errors import InvalidInput, NotFound
from authsvc.observability.log_limit import LogLimit
from authsvc.policy.access import access_name, requests_for
from authsvc.policy.decision import Denial, Reason
from authsvc.policy.denial_advice import DenialAdvice, advice_for
from authsvc.policy.topics import Identity
from authsvc.storage.database import is_sqlite, session, transaction
from authsvc.storage.models import DenialRow, User
from authsvc.storage.paging import Page, fetch_page
from authsvc.storage.policy_cache import snapshot_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from authsvc.policy.access import AccessName
    from authsvc.policy.snapshot import Snapshot

log = structlog.get_logger()

# Storing this many takes some 10 ms, in which webhooks share the interpreter.
MAX_NOTED = 500
PER_USER = 20
_MAX_LOGGED_A_MINUTE = 100
_KEPT = timedelta(days=7)
_BATCH = 200


class DenialKey(NamedTuple):
    """The fields that identify a denial. The client id is not one, because a device may use a new one each time."""

    username: str
    topic: str
    access: int
    reason: Reason
    whole: bool


@dataclass(slots=True)
class Tally:
    """The number of equal denials, their first and last time, and the last client id."""

    client_id: str
    first_seen: datetime
    last_seen: datetime
    count: int = 1


@dataclass(frozen=True, slots=True)
class DenialRecord:
    """A denial as administrators see it, with advice on what would allow the request."""

    denial: Denial
    count: int
    first_seen: datetime
    last_seen: datetime
    advice: DenialAdvice

    @property
    def topic(self) -> str | None:
        """The topic, with an ellipsis if only its beginning is stored; None for a login."""
        return (self.denial.topic if self.denial.whole else self.denial.topic + "…") or None

    @property
    def operation(self) -> AccessName | Literal["login"]:
        return access_name(self.denial.access) if self.denial.topic else "login"


@dataclass(frozen=True, slots=True)
class DenialFilter:
    """The denials to list; an empty field matches all.

    `username` is exact, `text` is part of a username, client id or topic. `kind` is `login` or `topic`. `after` and
    `before` compare with the last time of the denial.
    """

    username: str = ""
    text: str = ""
    reason: str = ""
    kind: Literal["", "login", "topic"] = ""
    after: datetime | None = None
    before: datetime | None = None


class _Noted:
    def __init__(self) -> None:
        self.tallies: dict[DenialKey, Tally] = {}
        self.of_user: Counter[str] = Counter()


class Denials:
    """The denials of this worker that are not yet stored; bounded. `dropped` counts the denials beyond the bound."""

    def __init__(self) -> None:
        self._noted = _Noted()
        self._log_limit = LogLimit(_MAX_LOGGED_A_MINUTE)
        self.dropped = 0

    def note(self, denial: Denial) -> None:
        """Note a denial in memory."""
        now = datetime.now(UTC)
        key = DenialKey(denial.username, denial.topic, denial.access, denial.reason, denial.whole)
        self._add(key, Tally(denial.client_id, now, now))

    def count_dropped(self, count: int) -> None:
        """Count denials that a broker's plugin has dropped."""
        self.dropped += count

    @property
    def age(self) -> float:
        """Seconds since the oldest noted denial was first seen; 0 without one."""
        oldest = min((tally.first_seen for tally in list(self._noted.tallies.values())), default=None)
        return (datetime.now(UTC) - oldest).total_seconds() if oldest else 0.0

    def store(self) -> None:
        """Store the noted denials and log the refused logins; after a database error the rest stays noted.

        At most one refused login per user and minute is logged, and at most 100 in total.
        """
        # A denial that another thread notes at this moment may be lost, which is acceptable.
        noted, self._noted = self._noted, _Noted()
        unwritten = sorted(noted.tallies.items())
        for key, tally in unwritten:
            self._log_login(key, tally)
        try:
            while unwritten:
                _write(unwritten[:_BATCH])
                del unwritten[:_BATCH]
        finally:
            for key, tally in unwritten:
                self._add(key, tally)

    def _log_login(self, key: DenialKey, tally: Tally) -> None:
        if key.topic or key.access:
            return  # an access
        not_logged = self._log_limit.admit(key.username, tally.count)
        if not_logged is not None:
            log.info(
                "login over MQTT refused",
                user=key.username,
                client_id=tally.client_id,
                reason=key.reason.value,
                count=tally.count,
                not_logged_before=not_logged,
            )

    def _add(self, key: DenialKey, tally: Tally) -> None:
        noted = self._noted
        known = noted.tallies.get(key)
        if known is not None:
            known.count += tally.count
            known.first_seen = min(known.first_seen, tally.first_seen)
            if tally.last_seen >= known.last_seen:
                known.last_seen, known.client_id = tally.last_seen, tally.client_id
        elif len(noted.tallies) >= MAX_NOTED or noted.of_user[key.username] >= PER_USER:
            self.dropped += tally.count
        else:
            noted.tallies[key] = tally
            noted.of_user[key.username] += 1


def of_user(username: str) -> list[DenialRecord]:
    """Return up to `PER_USER` denials of a user in the last 7 days, the latest first; `NotFound` without the user."""
    with session():
        if not User.select().where(User.username == username).exists():
            raise NotFound("no such user", "user-not-found")
        return _records(list(_recent().where(User.username == username).limit(PER_USER)))


def search(wanted: DenialFilter, page: int, per_page: int) -> Page[DenialRecord]:
    """Return one page of the denials of all users in the last 7 days, the latest first."""
    query = _recent()
    if wanted.username:
        query = query.where(User.username == wanted.username)
    if wanted.text:
        columns = (User.username, DenialRow.client_id, DenialRow.topic)
        username, client_id, topic = (column.contains(wanted.text) for column in columns)
        query = query.where(username | client_id | topic)
    if wanted.reason:
        query = query.where(DenialRow.reason == wanted.reason)
    if wanted.kind:
        query = query.where(DenialRow.topic == "" if wanted.kind == "login" else DenialRow.topic != "")
    if wanted.after is not None:
        query = query.where(DenialRow.last_seen >= wanted.after)
    if wanted.before is not None:
        query = query.where(DenialRow.last_seen < wanted.before)
    return fetch_page(query, page, per_page, convert=_records)


def delete_expired() -> None:
    """Delete the denials that are older than 7 days."""
    with transaction():
        DenialRow.delete().where(DenialRow.last_seen < datetime.now(UTC) - _KEPT).execute()


def _recent() -> Any:
    """Return the query for the denials of the last 7 days, with their users, the latest first."""
    query = DenialRow.select(DenialRow, User.username).join(User)
    query = query.where(DenialRow.last_seen > datetime.now(UTC) - _KEPT)
    return query.order_by(DenialRow.last_seen.desc(), DenialRow.digest)


def _records(rows: list[Any]) -> list[DenialRecord]:
    now = datetime.now(UTC)
    snapshot = snapshot_of(*{row.user.username for row in rows})
    records = []
    for row in rows:
        username = row.user.username
        if username in snapshot.users:  # it may have been deleted since the rows were read
            denial = Denial(username, row.client_id, row.topic, row.access, Reason(row.reason), row.whole)
            advice = _advice(denial, snapshot, now)
            records.append(DenialRecord(denial, row.count, row.first_seen, row.last_seen, advice))
    return records


def _write(batch: Sequence[tuple[DenialKey, Tally]]) -> None:
    with transaction():
        ids = _lock_users({key.username for key, _ in batch})
        rows = [_row(ids[key.username], key, tally) for key, tally in batch if key.username in ids]
        if rows:
            update = {
                DenialRow.count: DenialRow.count + EXCLUDED.count,
                DenialRow.last_seen: EXCLUDED.last_seen,
                DenialRow.client_id: EXCLUDED.client_id,
            }
            query = DenialRow.insert_many(rows)
            query.on_conflict(conflict_target=[DenialRow.digest], update=update).execute()
            _delete_beyond(ids.values())


def _lock_users(names: set[str]) -> dict[str, int]:
    """Return the ids of those users that exist; until the transaction ends, no other one deletes them or does this."""
    query: Any = User.select(User.id, User.username).where(User.username.in_(names)).order_by(User.id)
    if not is_sqlite():  # SQLite has one writer at a time anyway
        query = query.for_update("FOR NO KEY UPDATE")
    return {username: user_id for user_id, username in query.tuples()}


def _row(user_id: int, key: DenialKey, tally: Tally) -> dict[str, Any]:
    topic = _storable(key.topic)
    text = "\n".join((key.username, str(key.access), key.reason, str(key.whole), key.topic))
    return {
        "digest": hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest(),
        "user": user_id,
        "client_id": _storable(tally.client_id),
        "topic": topic,
        "whole": key.whole and topic == key.topic,
        "access": key.access,
        "reason": key.reason,
        "count": tally.count,
        "first_seen": tally.first_seen,
        "last_seen": tally.last_seen,
    }


def _delete_beyond(users: Iterable[int]) -> None:
    """Delete all but the latest `PER_USER` denials of each user."""
    latest_first = [DenialRow.last_seen.desc(), DenialRow.digest]
    place = fn.ROW_NUMBER().over(partition_by=[DenialRow.user], order_by=latest_first).alias("place")
    ranked = DenialRow.select(DenialRow.digest, place).where(DenialRow.user.in_(list(users)))
    beyond = Select([ranked], [ranked.c.digest]).where(ranked.c.place > PER_USER)
    DenialRow.delete().where(DenialRow.digest.in_(beyond)).execute()


def _storable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _advice(denial: Denial, snapshot: Snapshot, now: datetime) -> DenialAdvice:
    user = snapshot.users[denial.username]
    if snapshot.is_damaged(user):
        return DenialAdvice(
            None, "a stored row of the user or of one of its roles is damaged; set its permissions again"
        )
    try:
        identity = Identity(denial.username, denial.client_id)
        requests = requests_for(denial.topic, denial.access, identity) if denial.topic and denial.whole else []
    except InvalidInput as error:
        return DenialAdvice(None, f"no client can use this topic: it {error.errors[0].message}")
    allowed = snapshot.allows_client_id(user, denial.client_id)
    return advice_for(denial, requests, user, snapshot.rules_of(user), now, client_id_allowed=allowed)
