"""Ending MQTT sessions: a broker lets a connection go on after its user was disabled or its certificate revoked.

From outside there is one way to end it: to connect under its client id, upon which the broker drops the older
connection (MQTT 5.0 section 3.1.4). An order to do so is written in the transaction of the change that calls for it.
One worker of one replica claims it, and attempts it again and again until it is done. Nothing is done without
`AUTHSVC_BROKER_URL`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import inf
from secrets import token_hex
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

import structlog

from authsvc.activity import audit, client_ids
from authsvc.errors import Conflict
from authsvc.policy.actors import SERVICE
from authsvc.storage.database import database_time, transaction
from authsvc.storage.models import DisconnectOrder

if TYPE_CHECKING:
    from authsvc.activity.mqtt_takeover import TakeoverBroker
    from authsvc.policy.actors import Actor

_KEPT = timedelta(days=7)
# By then every worker has written down which client ids it has just seen.
_RIPENING = timedelta(seconds=0.8)
# Renewed before each client id, which takes some 20 seconds at most. A worker that died is succeeded after this time.
_LEASE = timedelta(minutes=1)
_LONGEST_PAUSE = timedelta(minutes=5)
_GIVEN_UP_AFTER = timedelta(days=1)
USER_REMOVED = "user removed"
_ASKED_FOR = "asked for"
_PATIENCE_SECONDS = 20.0  # of an administrator who waits for the outcome

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Report:
    """Under which client ids a session was ended, and under which that failed."""

    ended: list[str]
    failed: list[str]


def order(username: str, cause: str) -> None:
    """Order the end of a user's MQTT sessions, inside the transaction of the change that calls for it.

    If an order for this user is open, it begins again with the new cause: it may have missed a client that connected
    since.
    """
    now = database_time()
    anew: dict[str, Any] = {"requested_at": now, "due_at": now + _RIPENING, "attempts": 0, "ended": [], "failed": []}
    anew["cause"] = cause
    DisconnectOrder.insert(username=username, **anew).on_conflict(
        conflict_target=[DisconnectOrder.username], conflict_where=DisconnectOrder.finished_at.is_null(), update=anew
    ).execute()


def carry_out(broker: TakeoverBroker) -> int:
    """Attempt every order that is due, and return how many were attempted here; no other worker has them meanwhile."""
    attempted = 0
    while (taken := _claim()) is not None:
        _attempt(broker, taken)
        attempted += 1
    return attempted


def end_for(actor: Actor, broker: TakeoverBroker, username: str) -> Report:
    """Order the end of a user's MQTT sessions, attempt it at once, and return the outcome; takes at least 0.8 s.

    Client ids that are not reached within 20 s count as failed. Workers attempt failed ones again.
    `Conflict` while another worker attempts an order for this user; that order then begins again.
    """
    with transaction():
        order(username, _ASKED_FOR)
        taken = _claim_one(DisconnectOrder.username == username, database_time())
    if taken is None:
        raise Conflict(f"the MQTT sessions of {username} are being ended; look again in a minute", "being-ended")
    sleep(_RIPENING.total_seconds())  # by then every worker has stored the client ids that it has just seen
    return _attempt(broker, taken, actor, monotonic() + _PATIENCE_SECONDS)


def forget_old() -> None:
    """Drop orders that are long past, done or not."""
    with transaction():
        DisconnectOrder.delete().where(DisconnectOrder.requested_at < datetime.now(UTC) - _KEPT).execute()


def _claim() -> DisconnectOrder | None:
    """Claim the oldest order that is due and that nobody has claimed; None if there is none."""
    with transaction():
        now = database_time()
        return _claim_one(DisconnectOrder.due_at <= now, now)


def _claim_one(chosen: Any, now: datetime) -> DisconnectOrder | None:
    """Claim the oldest of the chosen open orders that nobody has claimed; None if there is none."""
    free = DisconnectOrder.claimed_until.is_null() | (DisconnectOrder.claimed_until <= now)
    claimable = DisconnectOrder.finished_at.is_null() & chosen & free
    for row in list(DisconnectOrder.select(DisconnectOrder.id).where(claimable).order_by(DisconnectOrder.id).limit(10)):
        # One statement, so that of several workers that read the same row one gets it.
        claiming = DisconnectOrder.update(claim=token_hex(16), claimed_until=now + _LEASE)
        if claiming.where(DisconnectOrder.id == row.id, claimable).execute():
            claimed: DisconnectOrder = DisconnectOrder.get_by_id(row.id)
            return claimed
    return None


def _attempt(broker: TakeoverBroker, taken: DisconnectOrder, actor: Actor = SERVICE, deadline: float = inf) -> Report:
    """End the user's sessions, on a later attempt those that failed before; store and return the outcome."""
    ended: list[str] = list(taken.ended)
    failed: list[str] = []
    waiting = list(taken.failed if taken.attempts else client_ids.client_ids(taken.username))
    while waiting and monotonic() < deadline:
        if not _renew_claim(taken):
            # This worker stood still for so long that another one has the order now.
            return Report(ended, failed + waiting)
        client_id = waiting.pop(0)
        keep = taken.cause != USER_REMOVED or client_ids.has_other_user(client_id, taken.username)
        (ended if broker.take_over(client_id, keep_session=keep) else failed).append(client_id)
    failed += waiting
    with transaction():
        now = database_time()
        finished = not failed or now - taken.requested_at >= _GIVEN_UP_AFTER
        outcome = DisconnectOrder.update(
            ended=ended,
            failed=failed,
            attempts=taken.attempts + 1,
            due_at=now + min(timedelta(seconds=2 ** min(taken.attempts, 16)), _LONGEST_PAUSE),
            finished_at=now if finished else None,
        )
        if outcome.where(_is_ours(taken), DisconnectOrder.requested_at == taken.requested_at).execute() and (
            finished or taken.attempts == 0
        ):
            _audit(actor, taken.username, taken.cause, Report(ended, failed))
        DisconnectOrder.update(claim=None, claimed_until=None).where(_is_ours(taken)).execute()
    if failed:
        log.warning("MQTT sessions could not be ended", failed=len(failed), attempts=taken.attempts + 1, last=finished)
    return Report(ended, failed)


def _renew_claim(taken: DisconnectOrder) -> bool:
    with transaction():
        renewal = DisconnectOrder.update(claimed_until=database_time() + _LEASE).where(_is_ours(taken))
        return bool(renewal.execute())


def _is_ours(taken: DisconnectOrder) -> Any:
    return (DisconnectOrder.id == taken.id) & (DisconnectOrder.claim == taken.claim)


def _audit(actor: Actor, username: str, cause: str, report: Report) -> None:
    facts = {"cause": cause, "ended": report.ended, "failed": report.failed}
    audit.record(actor, "user.disconnect", f"user:{username}", after=facts)
