"""Audit events about users whose MQTT logins were throttled, written by a background thread."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from authsvc.activity import audit
from authsvc.policy.actors import SERVICE
from authsvc.storage.database import DATABASE_ERRORS, transaction
from authsvc.storage.models import AuditEvent

if TYPE_CHECKING:
    from authsvc.policy.guess_limit import GuessLimit

ACTION = "login.throttled"
ALL_OTHERS = "users"
"""The target of the event with the number of throttled users that have no event of their own."""
_WINDOW = timedelta(minutes=1)


Announce = Callable[[audit.Fields | None, int], None]
"""Notifies of throttled users: of one with its username and address, or of a number without."""


def store(guess_limit: GuessLimit, announce: Announce = lambda _item, _count: None) -> None:
    """Write at most one event per reported user and minute, over all processes, and one with the number of others.

    `announce` is called in the transaction of each event. After a database error the next call writes the rest.
    """
    while guess_limit.reports:
        try:
            attempt = guess_limit.reports.popleft()
        except IndexError:  # another thread took it
            break
        username, client_id, address = attempt.login
        # An attacker makes up new client ids, so only those that the user has logged in with are recorded.
        known_client_id = client_id if attempt.known else None
        after = {"knownClientId": known_client_id, "address": str(address) if address else None}
        try:
            item = {"username": username, "address": after["address"]}
            _write_once_a_minute(f"user:{username}", after, partial(announce, item, 1))
        except DATABASE_ERRORS:
            guess_limit.reports.appendleft(attempt)
            raise
    count = guess_limit.unreported
    # If this minute has such an event already, the users are counted in the next minute's event.
    if count and _write_once_a_minute(ALL_OTHERS, {"users": count}, partial(announce, None, count)):
        guess_limit.drop_unreported(count)


def _write_once_a_minute(target: str, after: audit.Fields, announce: Callable[[], None]) -> bool:
    """Write an event unless this target has one within the last minute; return whether it was written."""
    with transaction():
        recent = AuditEvent.at > datetime.now(UTC) - _WINDOW
        written = AuditEvent.select().where(AuditEvent.action == ACTION, AuditEvent.target == target, recent)
        if written.exists():
            return False
        audit.record(SERVICE, ACTION, target, after=after)
        announce()
        return True
