"""Failed sign-ins at the page, the API and EST: logged at once, and written to the audit trail by a background thread.

For each name and address at most one a minute is recorded, and at most 100 in total per process.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from datetime import UTC, datetime
from typing import NamedTuple

import structlog

from authsvc.activity import audit
from authsvc.observability.log_limit import LogLimit
from authsvc.policy.actors import SERVICE, Actor
from authsvc.storage.database import DATABASE_ERRORS, transaction

log = structlog.get_logger()

ACTION = "sign-in.failed"
MAX_NAME = 64
_MAX_A_MINUTE = 100
# While the database is unreachable; newer ones are only logged.
_MAX_WAITING = 1000


class _Failure(NamedTuple):
    actor: Actor
    target: str
    after: audit.Fields


class FailedSignIns:
    """The failed sign-ins of this process that are not yet in the audit trail."""

    def __init__(self) -> None:
        self._limit = LogLimit(_MAX_A_MINUTE)
        self._waiting: deque[_Failure] = deque()

    def note(self, username: str, address: str | None, reason: str) -> None:
        """Log a failed sign-in and remember it for the audit trail, unless the limit is reached. Never blocks."""
        name = _shown(username)
        not_recorded = self._limit.admit((name, address))
        if not_recorded is None:
            return
        log.warning("sign-in failed", user=name, address=address, reason=reason, not_recorded_before=not_recorded)
        if len(self._waiting) < _MAX_WAITING:
            request_id = structlog.contextvars.get_contextvars().get("request_id")
            actor = replace(SERVICE, address=address, request_id=request_id)
            after = {
                "reason": reason,
                "at": datetime.now(UTC).isoformat(timespec="seconds"),
                "notRecordedBefore": not_recorded,
            }
            self._waiting.append(_Failure(actor, f"user:{name}", after))

    def store(self) -> None:
        """Write the audit events; after a database error the next call writes the rest."""
        while self._waiting:
            failure = self._waiting.popleft()
            try:
                with transaction():
                    audit.record(failure.actor, ACTION, failure.target, after=failure.after)
            except DATABASE_ERRORS:
                self._waiting.appendleft(failure)
                raise


def _shown(username: str) -> str:
    """Return the beginning of a name that anybody can make up, with invisible characters escaped."""
    escaped = (each if each.isprintable() else each.encode("unicode-escape").decode() for each in username[:MAX_NAME])
    return "".join(escaped)[:MAX_NAME]
