"""When each user was last seen: connected to a broker, calling this service with a token, or at the page.

The time is a column of the user, so that an index filters and sorts lists by it. It is exact to about 10 minutes.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from peewee import chunked

from authsvc.storage.database import is_sqlite
from authsvc.storage.models import User

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

_RECORDED_EVERY = timedelta(minutes=5)
_BATCH = 1000


def record(usernames: Iterable[str], at: datetime) -> None:
    """Store that users were seen, inside the caller's transaction, but for those that were seen just before or later.

    On PostgreSQL users whom another transaction changes at the moment are left out: waiting could end in a deadlock.
    """
    for batch in chunked(usernames, _BATCH):
        due: Any = User.select(User.id).where(User.username.in_(batch), is_due(at))
        if not is_sqlite():
            due = due.for_update("FOR NO KEY UPDATE", skip_locked=True)
        User.update(last_seen_at=at).where(User.id.in_(due)).execute()


def is_due(at: datetime) -> Any:
    """Return the condition that `record` would store this time for a user."""
    return User.last_seen_at.is_null() | (User.last_seen_at < at - _RECORDED_EVERY)
