"""Limits per minute that all workers and replicas share: the database counts attempts, by its own clock."""

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

_PERIOD = timedelta(minutes=1)


def count(keys: Iterable[str]) -> None:
    """Count one attempt under each key, all or none; only `check_limits` refuses."""
    with transaction():
        now = database_time()
        over, naive = Attempt.since <= now - _PERIOD, Attempt.since.db_value(now)
        changes = {
            Attempt.since: Case(None, [(over, naive)], Attempt.since),
            Attempt.count: Case(None, [(over, 1)], Attempt.count + 1),
        }
        for key in sorted(keys):  # in one order, so that two transactions cannot wait for each other
            # One statement per key, so that concurrent attempts are all counted.
            query = Attempt.insert(key=key, since=now, count=1)
            query.on_conflict(conflict_target=[Attempt.key], update=changes).execute()


def check_limits(limits: Mapping[str, int]) -> None:
    """Raise `TooMany` if the attempts under any key have reached its limit per minute; does not count."""
    with session():
        counted = Attempt.select().where(Attempt.key.in_(sorted(limits)))
        reached = [row.since for row in counted if row.count >= limits[row.key]]
        if not reached:
            return
        now = database_time()
    running = [since for since in reached if now - since < _PERIOD]
    if running:
        seconds = math.ceil((max(running) + _PERIOD - now).total_seconds())
        raise TooMany("too many attempts; wait a little", "too-many-attempts", max(seconds, 1))


def delete_old() -> None:
    """Delete counts that are more than 10 minutes old."""
    with transaction():
        Attempt.delete().where(Attempt.since < database_time() - 10 * _PERIOD).execute()
