"""Ending live sessions: a broker lets a session go on after its user was disabled or its certificate revoked.

From outside there is one way to end it: to connect under its client id, upon which the broker drops the older
connection (MQTT 5.0 section 3.1.4). An order to do so is written in the transaction of the change that calls for it;
one worker of one replica carries it out. Nothing is done without `AUTHSVC_BROKER_URL`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import sleep
from typing import TYPE_CHECKING

from authsvc import audit, sightings
from authsvc.actors import SERVICE
from authsvc.storage.database import database_time, transaction
from authsvc.storage.models import SessionEnding

if TYPE_CHECKING:
    from authsvc.actors import Actor
    from authsvc.takeover import Broker

_KEPT = timedelta(days=7)
_RIPENING = timedelta(seconds=0.8)
# A worker that died with an order in hand is given up after this long.
_ABANDONED = timedelta(minutes=2)


@dataclass(frozen=True, slots=True)
class Report:
    """Under which client ids a session was ended, and under which that failed."""

    ended: list[str]
    failed: list[str]


def order(username: str, cause: str) -> None:
    """Order the end of a user's sessions, inside the transaction of the change that calls for it."""
    # One that is about to be taken may miss whoever connects before this change is made.
    fresh = SessionEnding.requested_at > database_time() - _RIPENING / 2
    waiting = SessionEnding.select().where(SessionEnding.username == username, fresh)
    if not waiting.exists():
        SessionEnding.create(username=username, cause=cause, requested_at=database_time())


def carry_out(broker: Broker) -> int:
    """Carry out every order that waits, and return how many; each is taken by one worker only."""
    done = 0
    while (taken := _take()) is not None:
        report = end(broker, taken.username)
        with transaction():
            taken.finished_at, taken.ended, taken.failed = database_time(), report.ended, report.failed
            taken.save()
            facts = {"cause": taken.cause, "ended": report.ended, "failed": report.failed}
            audit.record(SERVICE, "user.disconnect", f"user:{taken.username}", after=facts)
        done += 1
    return done


def end_for(actor: Actor, broker: Broker, username: str) -> Report:
    """`end`, because somebody asked for it; takes a second longer."""
    sleep(_RIPENING.total_seconds())  # by then every worker has written down whom it has just seen
    report = end(broker, username)
    with transaction():
        facts = {"cause": "asked for", "ended": report.ended, "failed": report.failed}
        audit.record(actor, "user.disconnect", f"user:{username}", after=facts)
    return report


def end(broker: Broker, username: str) -> Report:
    """End the user's sessions under every client id it was lately seen with, each tried a few times."""
    outcome = {client_id: broker.take_over(client_id) for client_id in sightings.client_ids(username)}
    return Report(
        [client_id for client_id, ended in outcome.items() if ended],
        [client_id for client_id, ended in outcome.items() if not ended],
    )


def forget_old() -> None:
    """Drop orders that are long past, done or not."""
    with transaction():
        SessionEnding.delete().where(SessionEnding.requested_at < datetime.now(UTC) - _KEPT).execute()


def _take() -> SessionEnding | None:
    with transaction():
        now = database_time()
        # By then every worker has written down whom it has just seen.
        ripe = SessionEnding.requested_at <= now - _RIPENING
        free = SessionEnding.claimed_at.is_null() | (SessionEnding.claimed_at < now - _ABANDONED)
        waiting = (
            SessionEnding.select().where(SessionEnding.finished_at.is_null(), ripe, free).order_by(SessionEnding.id)
        )
        for row in list(waiting.limit(10)):
            claim = SessionEnding.update(claimed_at=now).where(SessionEnding.id == row.id, free)
            if claim.execute():
                row.claimed_at = now
                return row
    return None
