"""Throttling that all workers and replicas agree on: attempts are counted in the database, by its clock."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING

from peewee import Case

from authsvc.errors import TooMany
from authsvc.storage.database import database_time, session, transaction
from authsvc.storage.models import Attempt

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

_PERIOD = timedelta(minutes=1)


def count(key: str, per_minute: int) -> None:
    """Count one attempt under a key; `TooMany` when there were more than so many in the minute that is running.

    Once there were that many, further attempts write nothing.
    """
    refuse_beyond({key: per_minute})
    with transaction():
        now = database_time()
        since, counted = _add_one(key, now)
        if counted > per_minute:
            raise _too_many(since, now)


def note(keys: Iterable[str]) -> None:
    """Count one attempt under each key, all or none; whether that is too many is for `refuse_beyond` to say."""
    with transaction():
        now = database_time()
        for key in sorted(keys):  # in one order, so that no two of these wait for each other
            _add_one(key, now)


def refuse_beyond(limits: Mapping[str, int]) -> None:
    """Raise `TooMany` if the attempts counted under any key have reached its limit a minute; counts none."""
    with session():
        counted = Attempt.select().where(Attempt.key.in_(sorted(limits)))
        reached = [row.since for row in counted if row.count >= limits[row.key]]
        if not reached:
            return
        now = database_time()
    running = [since for since in reached if now - since < _PERIOD]
    if running:
        raise _too_many(max(running), now)


def forget_old() -> None:
    """Remove counts of minutes long past."""
    with transaction():
        Attempt.delete().where(Attempt.since < database_time() - 10 * _PERIOD).execute()


def _too_many(since: datetime, now: datetime) -> TooMany:
    seconds = math.ceil((since + _PERIOD - now).total_seconds())
    return TooMany("too many attempts; wait a little", "too-many-attempts", max(seconds, 1))


def _add_one(key: str, now: datetime) -> tuple[datetime, int]:
    """Return since when and how often, this attempt included; one statement, so that none is lost."""
    over, naive = Attempt.since <= now - _PERIOD, Attempt.since.db_value(now)
    changes = {
        Attempt.since: Case(None, [(over, naive)], Attempt.since),
        Attempt.count: Case(None, [(over, 1)], Attempt.count + 1),
    }
    query = Attempt.insert(key=key, since=now, count=1).on_conflict(conflict_target=[Attempt.key], update=changes)
    query.execute()
    row = Attempt.get_by_id(key)
    return row.since, row.count
