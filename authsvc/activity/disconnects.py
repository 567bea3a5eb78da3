"""Ends MQTT sessions: by itself a broker keeps a connection whose user was disabled or whose certificate was revoked.

The only way to end it from outside is to connect with the same client id: the broker then drops the older connection
(MQTT 5.0 section 3.1.4). An order to do so is written in the transaction of the change that requires it. One worker of
one replica claims the order and repeats the attempt until it succeeds or a day has passed. Orders are carried out only
if `AUTHSVC_BROKER_URL` is set.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import inf
from secrets import token_hex
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

import peewee
import structlog
from peewee import chunked, fn

from authsvc.activity import audit, client_ids
from authsvc.errors import Conflict
from authsvc.policy.actors import SERVICE
from authsvc.storage.database import database_time, session, transaction
from authsvc.storage.models import DisconnectOrder

if TYPE_CHECKING:
    from collections.abc import Collection

    from authsvc.activity.mqtt_takeover import TakeoverBroker
    from authsvc.policy.actors import Actor

_KEPT = timedelta(days=7)
# After this time every worker has stored the client ids that it has just seen.
_DELAY = timedelta(seconds=0.8)
# Renewed before each client id, which takes at most about 20 s. Another worker may claim an order after this time.
_LEASE = timedelta(minutes=1)
_LONGEST_PAUSE = timedelta(minutes=5)
_MAX_AGE = timedelta(days=1)
USER_REMOVED = "user removed"
_REQUESTED = "asked for"
_BATCH = 200  # orders in one statement
_TIMEOUT_SECONDS = 20.0  # while an administrator waits for the result

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class DisconnectResult:
    """The client ids whose MQTT session was ended, and those for which that failed."""

    ended: list[str]
    failed: list[str]


def order(cause: str, *usernames: str) -> None:
    """Order the end of users' MQTT sessions. Call it inside the transaction of the change that requires it.

    An open order for a user starts again with the new cause, because it may have missed a client that connected since.
    """
    values = _new_order(cause)
    for batch in chunked(usernames, _BATCH):
        _insert(DisconnectOrder.insert_many([{DisconnectOrder.username: name, **values} for name in batch]), values)


def order_selected(cause: str, users: Any, username: peewee.Field) -> None:
    """Like `order`, for the users that a query selects: the database copies their names, also very many."""
    values = _new_order(cause)
    rows = users.select(username, *(field.to_value(value) for field, value in values.items()))
    _insert(DisconnectOrder.insert_from(rows, [DisconnectOrder.username, *values]), values)


def _new_order(cause: str) -> dict[peewee.Field, Any]:
    now, row = database_time(), DisconnectOrder
    begun = {row.requested_at: now, row.due_at: now + _DELAY, row.attempts: 0, row.ended: [], row.failed: []}
    return {row.cause: cause, **begun}


def _insert(orders: Any, update: dict[peewee.Field, Any]) -> None:
    orders.on_conflict(
        conflict_target=[DisconnectOrder.username],
        conflict_where=DisconnectOrder.finished_at.is_null(),
        update=update,
    ).execute()


def run_due_orders(broker: TakeoverBroker) -> int:
    """Claim and attempt each due order and return their number; no other worker attempts a claimed one."""
    attempted = 0
    while True:
        with transaction():
            now = database_time()
            claimed = _claim(DisconnectOrder.due_at <= now, now)
        if claimed is None:
            return attempted
        _attempt(broker, claimed)
        attempted += 1


def disconnect_now(
    actor: Actor, broker: TakeoverBroker, username: str, already_ended: Collection[str] = ()
) -> DisconnectResult:
    """Order the end of a user's MQTT sessions, attempt it and return the result; takes 0.8 to about 40 s.

    Client ids that have already ended are not attempted and not in the result.
    After 20 s no further client id is attempted; the rest counts as failed. Workers attempt failed ones again.
    `Conflict` while another worker attempts an order for this user; that order then starts again.
    """
    with transaction():
        order(_REQUESTED, username)
        claimed = _claim(DisconnectOrder.username == username, database_time())
    if claimed is None:
        raise Conflict(f"the MQTT sessions of {username} are being ended; try again in a minute", "being-ended")
    sleep(_DELAY.total_seconds())
    return _attempt(broker, claimed, actor, monotonic() + _TIMEOUT_SECONDS, already_ended)


def delete_expired() -> None:
    """Delete the orders that are older than 7 days, finished or not."""
    with transaction():
        DisconnectOrder.delete().where(DisconnectOrder.requested_at < datetime.now(UTC) - _KEPT).execute()


@dataclass(frozen=True, slots=True)
class OpenOrders:
    """The number of orders that are not finished, and the time of the oldest in seconds; 0 without one."""

    count: int
    age: float


def open_orders() -> OpenOrders:
    with session():
        query: Any = DisconnectOrder.select(fn.COUNT(DisconnectOrder.id), fn.MIN(DisconnectOrder.requested_at))
        count, oldest = query.where(DisconnectOrder.finished_at.is_null()).tuples().get()
        return OpenOrders(count, (database_time() - oldest).total_seconds() if oldest else 0.0)


def _claim(condition: Any, now: datetime) -> DisconnectOrder | None:
    """Claim and return the oldest open order that meets the condition and is not claimed; None if there is none."""
    free = DisconnectOrder.claimed_until.is_null() | (DisconnectOrder.claimed_until <= now)
    claimable = DisconnectOrder.finished_at.is_null() & condition & free
    for row in list(DisconnectOrder.select(DisconnectOrder.id).where(claimable).order_by(DisconnectOrder.id).limit(10)):
        # A single statement, so that only one of several workers that read this row gets it.
        claiming = DisconnectOrder.update(claim=token_hex(16), claimed_until=now + _LEASE)
        if claiming.where(DisconnectOrder.id == row.id, claimable).execute():
            claimed: DisconnectOrder = DisconnectOrder.get_by_id(row.id)
            return claimed
    return None


def _attempt(
    broker: TakeoverBroker,
    claimed: DisconnectOrder,
    actor: Actor = SERVICE,
    deadline: float = inf,
    already_ended: Collection[str] = (),
) -> DisconnectResult:
    """End the user's sessions, on later attempts only those that failed before; store and return the result."""
    is_ours = (DisconnectOrder.id == claimed.id) & (DisconnectOrder.claim == claimed.claim)
    ended: list[str] = list(claimed.ended)
    failed: list[str] = []
    wanted = claimed.failed if claimed.attempts else client_ids.all_of_user(claimed.username)
    waiting = [client_id for client_id in wanted if client_id not in already_ended]
    while waiting and monotonic() < deadline:
        with transaction():
            renewed = DisconnectOrder.update(claimed_until=database_time() + _LEASE).where(is_ours).execute()
        if not renewed:
            # This worker was suspended for longer than the lease, and another one has the order now.
            return DisconnectResult(ended, failed + waiting)
        client_id = waiting.pop(0)
        keep = claimed.cause != USER_REMOVED or client_ids.has_other_user(client_id, claimed.username)
        (ended if broker.take_over(client_id, keep_session=keep) else failed).append(client_id)
    failed += waiting
    with transaction():
        now = database_time()
        finished = not failed or now - claimed.requested_at >= _MAX_AGE
        result = DisconnectOrder.update(
            ended=ended,
            failed=failed,
            attempts=claimed.attempts + 1,
            due_at=now + min(timedelta(seconds=2 ** min(claimed.attempts, 16)), _LONGEST_PAUSE),
            finished_at=now if finished else None,
        )
        if result.where(is_ours, DisconnectOrder.requested_at == claimed.requested_at).execute() and (
            finished or claimed.attempts == 0
        ):
            after = {"cause": claimed.cause, "ended": ended, "failed": failed}
            audit.record(actor, "user.disconnect", f"user:{claimed.username}", after=after)
        DisconnectOrder.update(claim=None, claimed_until=None).where(is_ours).execute()
    if failed:
        log.warning(
            "MQTT sessions could not be ended", failed=len(failed), attempts=claimed.attempts + 1, last=finished
        )
    return DisconnectResult(ended, failed)
