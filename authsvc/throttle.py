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
    from datetime import datetime

_PERIOD = timedelta(minutes=1)


def count(key: str, per_minute: int) -> None:
    """Count one attempt under a key; `TooMany` when there were more than so many in the minute that is running.

    Once there were that many, further attempts write nothing.
    """
    refuse_beyond(key, per_minute)
    with transaction():
        now = database_time()
        since, counted = _add_one(key, now)
        if counted > per_minute:
            raise _too_many(since, now)


def refuse_beyond(key: str, per_minute: int) -> None:
    """Raise `TooMany` when so many attempts were counted under a key in the minute that is running; counts none."""
    with session():
        row = Attempt.get_or_none(Attempt.key == key)
        if row is None or row.count < per_minute:
            return
        now = database_time()
    if now - row.since < _PERIOD:
        raise _too_many(row.since, now)


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
