"""Logins and denials over time: workers count in memory and add their counts to 5-minute buckets in the database."""

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
# The column that counts a decision, by the check and whether it was allowed.
COUNTED = {
    ("user", True): "logins",
    ("user", False): "denied_logins",
    ("acl", True): "accesses",
    ("acl", False): "denials",
}


@dataclass(slots=True)
class Bucket:
    """The number of decisions in the `BUCKET` that begins at `at`."""

    at: datetime
    logins: int = 0
    denied_logins: int = 0
    accesses: int = 0
    denials: int = 0


class DecisionStats:
    """The decisions of this worker that are not yet stored.

    `counted` holds the worker's counts since it started, by check and whether it was allowed; they only increase.
    """

    def __init__(self, counted: Mapping[tuple[str, bool], int]) -> None:
        self._counted = counted
        self._taken = {kind: counted.get(kind, 0) for kind in COUNTED}
        self._unwritten: dict[datetime, Bucket] = {}

    def store(self) -> None:
        """Add the new counts to the stored buckets; after a database error the next call adds the rest."""
        now = datetime.now(UTC)
        at = _start_of_bucket(now)
        for kind, name in COUNTED.items():
            count = self._counted.get(kind, 0)
            if increase := count - self._taken[kind]:
                bucket = self._unwritten.setdefault(at, Bucket(at))
                setattr(bucket, name, getattr(bucket, name) + increase)
                self._taken[kind] = count
        for start, bucket in sorted(self._unwritten.items()):
            if start >= now - KEPT:
                _add(bucket)
            del self._unwritten[start]


def last_hours(hours: int) -> list[Bucket]:
    """Return the buckets of the last hours, oldest first, empty ones included; the newest one is still growing."""
    newest = _start_of_bucket(datetime.now(UTC))
    count = timedelta(hours=hours) // BUCKET
    buckets = {at: Bucket(at) for at in (newest - BUCKET * place for place in reversed(range(count)))}
    oldest = newest - BUCKET * (count - 1)
    with session():
        for row in DecisionStatsRow.select().where(DecisionStatsRow.at.between(oldest, newest)):
            buckets[row.at] = Bucket(**row.__data__)
    return list(buckets.values())


def delete_expired() -> None:
    """Delete the buckets that are older than `KEPT`."""
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
