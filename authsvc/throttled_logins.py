"""Audit events about users whose logins over MQTT were throttled, written by the thread beside the webhooks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import peewee

from authsvc import audit
from authsvc.actors import SERVICE
from authsvc.storage.database import transaction
from authsvc.storage.models import AuditEvent

if TYPE_CHECKING:
    from authsvc.guess_limit import Attempt, GuessLimit

ACTION = "login.throttled"
_WINDOW = timedelta(minutes=1)


def store(guess_limit: GuessLimit) -> None:
    """Write one event for each user and minute, over all processes; a database error leaves the rest to be written."""
    while guess_limit.reports:
        try:
            attempt = guess_limit.reports.popleft()
        except IndexError:  # another thread took it
            break
        try:
            _write(attempt)
        except peewee.PeeweeException:
            guess_limit.reports.appendleft(attempt)
            raise


def _write(attempt: Attempt) -> None:
    username, client_id, address = attempt.login
    target = f"user:{username}"
    # Of client ids that nobody has logged in with, an attacker makes up a new one each time.
    facts = {"knownClientId": client_id if attempt.known else None, "address": str(address) if address else None}
    with transaction():
        recent = AuditEvent.at > datetime.now(UTC) - _WINDOW
        written = AuditEvent.select().where(AuditEvent.action == ACTION, AuditEvent.target == target, recent)
        if not written.exists():
            audit.record(SERVICE, ACTION, target, after=facts)
