"""The outbox: messages are written in the transaction of their event, and sent by `sender`.

Many events of `DIGESTED` become one message a minute for each notification, with their count and the first of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from secrets import token_hex
from typing import TYPE_CHECKING, Any, NamedTuple

from peewee import fn

from authsvc.errors import NotFound
from authsvc.record_json import json_value
from authsvc.storage.database import database_time, session, transaction
from authsvc.storage.models import Delivery, Notification
from authsvc.storage.paging import Page, fetch_page

if TYPE_CHECKING:
    from collections.abc import Collection

DIGEST_EVERY = timedelta(minutes=1)
MAX_LISTED = 10
"""The first events that a digest lists."""
LEASE = timedelta(minutes=3)
"""Longer than one attempt can take. Another worker may claim a message after this time."""
FIRST_PAUSE = timedelta(seconds=30)
LONGEST_PAUSE = timedelta(hours=6)
GIVEN_UP_AFTER = timedelta(days=3)
_KEPT = timedelta(days=7)


class EventType(StrEnum):
    """The events that a notification can be about; `TEST` is sent on request only."""

    REGISTRATION_PENDING = "registration.pending"
    REGISTRATION_GRANTED = "registration.granted"
    REGISTRATION_DENIED = "registration.denied"
    CERTIFICATE_EXPIRING = "certificate.expiring"
    CERTIFICATE_REVOKED = "certificate.revoked"
    LOGIN_THROTTLED = "login.throttled"
    AUTHORITY_EXPIRING = "authority.expiring"
    TEST = "notification.test"


class Status(StrEnum):
    """The state of a message. `FAILED` means given up."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


EVENTS = tuple(event for event in EventType if event is not EventType.TEST)
DIGESTED = {EventType.REGISTRATION_PENDING: "registrations", EventType.LOGIN_THROTTLED: "users"}
"""The events that come in floods, and the name of their list in a message."""


@dataclass(frozen=True, slots=True)
class DeliveryRecord:
    """A message and the state of its delivery; `id` is its `webhook-id`. `next_attempt_at` is None once it ended."""

    id: str
    event: str
    status: str
    attempts: int
    error: str | None
    created_at: datetime
    next_attempt_at: datetime | None
    finished_at: datetime | None


class Claimed(NamedTuple):
    """A message that this worker alone may send now."""

    id: int
    claim: str
    webhook_id: str
    event: EventType
    content: dict[str, Any]
    created_at: datetime
    scheduled_at: datetime
    attempts: int
    notification_id: str
    name: str
    url: str
    secret: str | None


def publish(event: EventType, content: dict[str, Any]) -> None:
    """Write a message for each enabled notification about this event. Call it inside the transaction of the event."""
    for notification in _subscribed(event):
        write(notification, event, content)


def publish_in_digest(event: EventType, item: dict[str, Any] | None, count: int = 1) -> None:
    """Add an event of `DIGESTED` to the next digest of each notification about it, inside the event's transaction.

    `item` describes the event, in JSON. Without one, `count` further events are counted.
    """
    for notification in _subscribed(event):
        # This update locks the row: concurrent events do not begin two digests.
        Notification.update(enabled=Notification.enabled).where(Notification.id == notification.id).execute()
        latest = Delivery.select().where(Delivery.notification == notification, Delivery.event == event)
        row: Delivery | None = latest.order_by(Delivery.id.desc()).first()
        if row is None or not _added(row, event, item, count):
            now = database_time()
            due_at = max(now, row.scheduled_at + DIGEST_EVERY) if row else now
            content = {"count": count, DIGESTED[event]: [item] if item else []}
            write(notification, event, content, due_at)


def is_wanted(event: EventType) -> bool:
    """Return whether an enabled notification is about this event."""
    return any(_subscribed(event))


def login_throttled(item: dict[str, Any] | None, count: int) -> None:
    """Notify of throttled users, for `throttled_logins.store`."""
    publish_in_digest(EventType.LOGIN_THROTTLED, item, count)


def write(
    notification: Notification, event: EventType, content: dict[str, Any], due_at: datetime | None = None
) -> Delivery:
    """Write a message to one notification, due now unless given, inside the caller's transaction."""
    now = database_time()
    row: Delivery = Delivery.create(
        webhook_id=f"msg_{token_hex(16)}",
        notification=notification,
        event=event,
        content={name: json_value(value) for name, value in content.items()},
        created_at=now,
        scheduled_at=due_at or now,
        due_at=due_at or now,
        status=Status.PENDING,
    )
    return row


def claim(now: datetime, paused: Collection[str] = ()) -> Claimed | None:
    """Claim and return the message that is due for longest; None if there is none.

    Messages to disabled and paused notifications wait, but tests are sent.
    """
    free = Delivery.claimed_until.is_null() | (Delivery.claimed_until <= now)
    claimable = (Delivery.status == Status.PENDING) & (Delivery.due_at <= now) & free
    may_be_sent = Notification.enabled & Notification.id.not_in(list(paused)) | (Delivery.event == EventType.TEST)
    query = Delivery.select(Delivery, Notification).join(Notification).where(claimable, may_be_sent)
    with transaction():
        for row in list(query.order_by(Delivery.due_at, Delivery.id).limit(10)):
            token = token_hex(16)
            # A single statement, so that only one of several workers that read this row gets it.
            claiming = Delivery.update(claim=token, claimed_until=now + LEASE).where(Delivery.id == row.id, claimable)
            if claiming.execute():
                # Read again: an event may have been added to a digest in between.
                return _claimed(Delivery.get_by_id(row.id), token, row.notification)
    return None


def finish(claimed: Claimed, error: str | None, now: datetime) -> Status:
    """Store the result of an attempt, unless the claim was lost, and return the status.

    A failed attempt is repeated after a pause that doubles each time, and given up after three days.
    """
    attempts = claimed.attempts + 1
    gives_up_at = claimed.scheduled_at + GIVEN_UP_AFTER
    pause = min(FIRST_PAUSE * 2 ** min(claimed.attempts, 16), LONGEST_PAUSE)
    status = Status.DELIVERED if error is None else Status.FAILED if now >= gives_up_at else Status.PENDING
    with transaction():
        Delivery.update(
            status=status,
            attempts=attempts,
            error=error,
            due_at=min(now + pause, gives_up_at) if status is Status.PENDING else Delivery.due_at,
            finished_at=None if status is Status.PENDING else now,
            claim=None,
            claimed_until=None,
        ).where(Delivery.id == claimed.id, Delivery.claim == claimed.claim).execute()
    return status


def deliveries(notification_id: str, status: str, page: int, per_page: int) -> Page[DeliveryRecord]:
    """Return one page of the messages to a notification, newest first. An empty `status` matches all."""
    query = Delivery.select().where(Delivery.notification == notification_id).order_by(Delivery.id.desc())
    if status:
        query = query.where(Delivery.status == status)
    return fetch_page(query, page, per_page, convert=partial(map, record))


def delivery(webhook_id: str) -> DeliveryRecord:
    """Return a message; `NotFound` if it was deleted with its notification."""
    with session():
        row = Delivery.get_or_none(Delivery.webhook_id == webhook_id)
        if row is None:
            raise NotFound("the notification was deleted", "delivery-not-found")
        return record(row)


def oldest_age() -> float:
    """Return for how many seconds the oldest message that is not delivered has been due; 0 if there is none."""
    with session():
        waiting = Delivery.select(Delivery.scheduled_at).where(Delivery.status == Status.PENDING)
        row = waiting.join(Notification).where(Notification.enabled).order_by(Delivery.scheduled_at).first()
        return max(0.0, (database_time() - row.scheduled_at).total_seconds()) if row else 0.0


def delete_expired() -> None:
    """Give up messages that waited too long for a disabled notification, and delete those that ended 7 days ago."""
    with transaction():
        now = database_time()
        Delivery.update(status=Status.FAILED, finished_at=now, error=fn.COALESCE(Delivery.error, "not sent")).where(
            Delivery.status == Status.PENDING,
            Delivery.due_at <= now,
            Delivery.scheduled_at < now - GIVEN_UP_AFTER - LEASE,
            Delivery.claim.is_null(),
        ).execute()
        Delivery.delete().where(Delivery.finished_at < now - _KEPT).execute()


def record(row: Delivery) -> DeliveryRecord:
    is_pending = row.status == Status.PENDING
    return DeliveryRecord(
        row.webhook_id,
        row.event,
        row.status,
        row.attempts,
        row.error,
        row.created_at,
        row.due_at if is_pending else None,
        row.finished_at,
    )


def _subscribed(event: EventType) -> list[Notification]:
    rows = Notification.select().where(Notification.enabled).order_by(Notification.id)
    return [row for row in rows if event in row.events]


def _added(row: Delivery, event: EventType, item: dict[str, Any] | None, count: int) -> bool:
    """Add an event to a digest and return True, unless the digest has been sent or is being sent."""
    # Counted first, which locks the row against a sender that claims it.
    is_open = (Delivery.id == row.id) & (Delivery.attempts == 0) & Delivery.claim.is_null()
    is_open &= Delivery.status == Status.PENDING
    if not Delivery.update(due_at=Delivery.due_at).where(is_open).execute():
        return False
    content = Delivery.get_by_id(row.id).content
    listed = content[DIGESTED[event]]
    if item and len(listed) < MAX_LISTED:
        listed = [*listed, item]
    Delivery.update(content={"count": content["count"] + count, DIGESTED[event]: listed}).where(
        Delivery.id == row.id
    ).execute()
    return True


def _claimed(row: Delivery, token: str, notification: Notification) -> Claimed:
    return Claimed(
        row.id,
        token,
        row.webhook_id,
        EventType(row.event),
        row.content,
        row.created_at,
        row.scheduled_at,
        row.attempts,
        notification.id,
        notification.name,
        notification.url,
        notification.secret,
    )
