"""Audit events about users whose logins over MQTT were throttled, written by the thread beside the webhooks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from authsvc.activity import audit
from authsvc.policy.actors import SERVICE
from authsvc.storage.database import DATABASE_ERRORS, transaction
from authsvc.storage.models import AuditEvent

if TYPE_CHECKING:
    from authsvc.policy.guess_limit import Attempt, GuessLimit

ACTION = "login.throttled"
ALL_OTHERS = "users"
"""The target of the event that tells how many more users were throttled than are named."""
_WINDOW = timedelta(minutes=1)


def store(guess_limit: GuessLimit) -> None:
    """Write one event for each reported user and minute, over all processes, and one for the number of all others.

    A database error leaves the rest to be written.
    """
    while guess_limit.reports:
        try:
            attempt = guess_limit.reports.popleft()
        except IndexError:  # another thread took it
            break
        try:
            _write(attempt)
        except DATABASE_ERRORS:
            guess_limit.reports.appendleft(attempt)
            raise
    count = guess_limit.unreported
    # If there is such an event already in this minute, the users stay counted for the next one.
    if count and _write_once_a_minute(ALL_OTHERS, {"users": count}):
        guess_limit.drop_unreported(count)


def _write(attempt: Attempt) -> None:
    username, client_id, address = attempt.login
    # Of client ids that nobody has logged in with, an attacker makes up a new one each time.
    facts = {"knownClientId": client_id if attempt.known else None, "address": str(address) if address else None}
    _write_once_a_minute(f"user:{username}", facts)


def _write_once_a_minute(target: str, facts: audit.Facts) -> bool:
    """Write an event unless there is one of this target within the last minute; return whether it was written."""
    with transaction():
        recent = AuditEvent.at > datetime.now(UTC) - _WINDOW
        written = AuditEvent.select().where(AuditEvent.action == ACTION, AuditEvent.target == target, recent)
        if written.exists():
            return False
        audit.record(SERVICE, ACTION, target, after=facts)
        return True
