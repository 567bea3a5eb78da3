"""Logins and denials over time: counted in memory by each worker, summed up in the database in buckets of minutes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from peewee import EXCLUDED

from authsvc.storage.database import session, transaction
from authsvc.storage.models import DecisionStatsRow

if TYPE_CHECKING:
    from collections.abc import Mapping

BUCKET = timedelta(minutes=5)
KEPT = timedelta(hours=48)
# Which decisions a bucket counts under which name: the check, and whether it was allowed.
COUNTED = {
    ("user", True): "logins",
    ("user", False): "denied_logins",
    ("acl", True): "accesses",
    ("acl", False): "denials",
}


@dataclass(slots=True)
class Bucket:
    """How many decisions there were in the `BUCKET` from `at` on."""

    at: datetime
    logins: int = 0
    denied_logins: int = 0
    accesses: int = 0
    denials: int = 0


class DecisionStats:
    """What this worker has counted and not yet written down.

    `counted` are the worker's own counts since it started, by check and whether it was allowed; they only ever grow.
    """

    def __init__(self, counted: Mapping[tuple[str, bool], int]) -> None:
        self._counted = counted
        self._taken = {kind: counted.get(kind, 0) for kind in COUNTED}
        self._unwritten: dict[datetime, Bucket] = {}

    def store(self) -> None:
        """Add what was counted to the buckets of all workers; what a database error keeps from it is kept for later."""
        now = datetime.now(UTC)
        self._take(_start_of_bucket(now))
        for at, bucket in sorted(self._unwritten.items()):
            if at >= now - KEPT:
                _add(bucket)
            del self._unwritten[at]

    def _take(self, at: datetime) -> None:
        for kind, name in COUNTED.items():
            count = self._counted.get(kind, 0)
            news = count - self._taken[kind]
            if news:
                bucket = self._unwritten.setdefault(at, Bucket(at))
                setattr(bucket, name, getattr(bucket, name) + news)
                self._taken[kind] = count


def last(hours: int) -> list[Bucket]:
    """Return the buckets of the last hours, oldest first and none left out; the newest is still being filled."""
    newest = _start_of_bucket(datetime.now(UTC))
    count = timedelta(hours=hours) // BUCKET
    buckets = {at: Bucket(at) for at in (newest - BUCKET * place for place in reversed(range(count)))}
    oldest = newest - BUCKET * (count - 1)
    with session():
        for row in DecisionStatsRow.select().where(DecisionStatsRow.at.between(oldest, newest)):
            buckets[row.at] = Bucket(row.at, row.logins, row.denied_logins, row.accesses, row.denials)
    return list(buckets.values())


def forget_old() -> None:
    """Remove what nobody asks for any more."""
    with transaction():
        DecisionStatsRow.delete().where(DecisionStatsRow.at < datetime.now(UTC) - KEPT - BUCKET).execute()


def _add(bucket: Bucket) -> None:
    columns = [getattr(DecisionStatsRow, name) for name in COUNTED.values()]
    update = {column: column + getattr(EXCLUDED, column.name) for column in columns}
    with transaction():
        query = DecisionStatsRow.insert(**asdict(bucket))
        query.on_conflict(conflict_target=[DecisionStatsRow.at], update=update).execute()


def _start_of_bucket(now: datetime) -> datetime:
    return now - (now - datetime.min.replace(tzinfo=UTC)) % BUCKET
