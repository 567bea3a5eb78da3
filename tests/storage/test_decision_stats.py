"""Decision statistics: logins and denials of all workers in buckets of five minutes."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import peewee
import pytest
import time_machine

from authsvc.activity import decision_stats
from authsvc.activity.decision_stats import BUCKET, Bucket, DecisionStats
from authsvc.storage.database import session
from authsvc.storage.models import DecisionStatsRow
from tests.storage.environment import database_gone

if TYPE_CHECKING:
    from authsvc.settings import Settings

pytestmark = pytest.mark.usefixtures("prepared")

START = datetime(2026, 11, 20, 8, 5, tzinfo=UTC)
Counts = Counter[tuple[str, bool]]


class Worker:
    """A worker's counts and their storage."""

    def __init__(self, counted: Counts | None = None) -> None:
        self.counted = counted or Counts()
        self.history = DecisionStats(self.counted)

    def counts(self, at: datetime = START, **increases: int) -> None:
        """Count these decisions and store them."""
        kinds = {name: kind for kind, name in decision_stats.COUNTED.items()}
        for name, number in increases.items():
            self.counted[kinds[name]] += number
        with time_machine.travel(at, tick=False):
            self.history.store()


def last(hours: int = 1, at: datetime = START) -> list[Bucket]:
    with time_machine.travel(at, tick=False):
        return decision_stats.last_hours(hours)


def rows() -> int:
    with session():
        count: int = DecisionStatsRow.select().count()
        return count


def test_decision_is_counted_once_in_the_bucket_of_its_time() -> None:
    worker = Worker()
    worker.counts(START + timedelta(minutes=4, seconds=59), logins=3, denied_logins=2, accesses=7, denials=1)
    worker.counts(START + timedelta(minutes=4, seconds=59))
    assert last(at=START + timedelta(minutes=4))[-1] == Bucket(START, 3, 2, 7, 1)


def test_all_buckets_are_listed_oldest_first() -> None:
    Worker().counts(START - timedelta(minutes=30), logins=1)
    found = last(hours=2)
    assert [bucket.at for bucket in found] == [START - BUCKET * n for n in reversed(range(24))]
    assert [bucket.logins for bucket in found if bucket.at == START - timedelta(minutes=30)] == [1]
    assert sum(bucket.logins for bucket in found) == 1


def test_counts_of_workers_are_added() -> None:
    first, second = Worker(), Worker()
    first.counts(logins=1, denials=5)
    second.counts(logins=2)
    first.counts(denied_logins=4, denials=1)
    assert last()[-1] == Bucket(START, logins=3, denied_logins=4, denials=6)


def test_bucket_contains_only_decisions_since_the_previous_store() -> None:
    worker = Worker()
    worker.counts(logins=1)
    worker.counts(START + BUCKET, logins=10)
    assert [bucket.logins for bucket in last(at=START + BUCKET)[-2:]] == [1, 10]


def test_worker_without_new_decisions_writes_nothing() -> None:
    worker = Worker()
    worker.counts()
    worker.counted["superuser", False] += 1
    worker.counts()
    assert rows() == 0


def test_decisions_before_the_start_are_not_counted() -> None:
    worker = Worker(Counts({("user", True): 5}))
    worker.counts(logins=1)
    assert last()[-1].logins == 1


def test_decisions_during_an_outage_are_stored_later_in_their_bucket(prepared: Settings) -> None:
    worker = Worker()
    with database_gone(prepared):
        for minutes in (0, 1, 5):
            with pytest.raises(peewee.OperationalError):
                worker.counts(START + timedelta(minutes=minutes), logins=1)
    worker.counts(START + 2 * BUCKET)
    assert [bucket.logins for bucket in last(at=START + 2 * BUCKET)[-3:]] == [2, 1, 0]


def test_expired_buckets_are_deleted() -> None:
    Worker().counts(logins=1)
    Worker().counts(START - timedelta(hours=49), logins=1)
    with time_machine.travel(START, tick=False):
        decision_stats.delete_expired()
    assert rows() == 1
    assert len(last(hours=48)) == 48 * 12
