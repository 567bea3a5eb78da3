"""Notifications: which webhook or mail address receives messages about which events."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from time import monotonic, sleep
from typing import TYPE_CHECKING, NamedTuple, TypedDict

from authsvc.activity import audit
from authsvc.credentials import encryption
from authsvc.errors import Conflict, NotFound, invalid
from authsvc.notifications import outbox, signing_secrets, targets
from authsvc.notifications.outbox import EVENTS, DeliveryRecord, EventType
from authsvc.storage import policy_reader
from authsvc.storage.database import session, transaction
from authsvc.storage.models import Notification
from authsvc.storage.paging import Page, fetch_page

if TYPE_CHECKING:
    from collections.abc import Iterable

    from authsvc.policy.actors import Actor
    from authsvc.settings import Settings

MAX_NAME = 100
MAX_NOTIFICATIONS = 100
TESTED_WITHIN_SECONDS = 5.0
_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class NotificationRecord:
    """A notification without its secret."""

    id: str
    name: str
    url: str
    events: tuple[str, ...]
    enabled: bool
    created_at: datetime
    updated_at: datetime

    @property
    def version(self) -> str:
        """The ETag of the stored version."""
        return policy_reader.version_tag(self.updated_at)

    @property
    def is_mail(self) -> bool:
        return targets.mail_address(self.url) is not None

    @property
    def host(self) -> str:
        """The mail address, or scheme and host: the rest of a webhook's URL may be a secret."""
        return _without_path(self.url)


class CreatedNotification(NamedTuple):
    """A new notification and the secret that signs its webhooks; None for mail, which is not signed."""

    record: NotificationRecord
    secret: str | None


class NotificationChanges(TypedDict, total=False):
    """The changes of a PATCH; a field whose key is absent keeps its value."""

    name: str
    url: str
    events: Iterable[str]
    enabled: bool


def create(
    actor: Actor, name: str, url: str, events: Iterable[str], settings: Settings, *, enabled: bool = True
) -> CreatedNotification:
    """Create a notification; `Conflict` if the name exists, `InvalidInput` for a URL that is not allowed."""
    chosen = _checked_events(events)
    _check_name(name)
    _check_url(url, settings)
    secret = None if targets.mail_address(url) else signing_secrets.create()
    now = datetime.now(UTC)
    with transaction():
        _require_free_name(name)
        if Notification.select().count() >= MAX_NOTIFICATIONS:
            raise Conflict(f"there are {MAX_NOTIFICATIONS} notifications; delete one first", "too-many-notifications")
        row = Notification.create(
            id=uuid.uuid4().hex,
            name=name,
            url=url,
            events=chosen,
            enabled=enabled,
            secret=secret and encryption.encrypt(secret, settings.ca_key_passphrase),
            created_at=now,
            updated_at=now,
        )
        record = _record(row)
        audit.record(actor, "notification.create", f"notification:{name}", after=_audited(record))
    return CreatedNotification(record, secret)


def change(
    actor: Actor,
    notification_id: str,
    changes: NotificationChanges,
    settings: Settings,
    expected: frozenset[str] | None = None,
) -> NotificationRecord:
    """Change the given fields of a notification; `PreconditionFailed` if its version is not an expected one."""
    if "name" in changes:
        _check_name(changes["name"])
    if "url" in changes:
        _check_url(changes["url"], settings)
    with transaction():
        # This update locks the row: of two editors who expect the same version, the second one fails.
        Notification.update(enabled=Notification.enabled).where(Notification.id == notification_id).execute()
        row = _row(notification_id)
        policy_reader.require_version(expected, row.updated_at)
        before = _record(row)
        if changes.get("name", row.name) != row.name:
            _require_free_name(changes["name"])
        row.name = changes.get("name", row.name)
        row.url = changes.get("url", row.url)
        if (targets.mail_address(row.url) is None) != (targets.mail_address(before.url) is None):
            raise invalid("url", "must stay a webhook or a mail address; create another notification instead")
        if "events" in changes:
            row.events = _checked_events(changes["events"])
        row.enabled = changes.get("enabled", row.enabled)
        row.updated_at = policy_reader.next_update(row.updated_at)
        row.save()
        after = _record(row)
        earlier, later = audit.difference(_audited(before), _audited(after))
        if before.url != after.url:
            # Audited without its path: the host may be the same.
            earlier["url"], later["url"] = before.host, after.host
        if later:
            audit.record(actor, "notification.change", f"notification:{before.name}", earlier, later)
    return after


def delete(actor: Actor, notification_id: str) -> None:
    """Delete a notification and its messages."""
    with transaction():
        row = _row(notification_id)
        record = _record(row)
        row.delete_instance()
        audit.record(actor, "notification.delete", f"notification:{record.name}", before=_audited(record))


def send_test(actor: Actor, notification_id: str) -> DeliveryRecord:
    """Write a test message, which a process of the API listener sends within a second, also if disabled."""
    with transaction():
        row = _row(notification_id)
        content = {"message": "This is a test message of authsvc.", "requestedBy": actor.username}
        delivery = outbox.write(row, EventType.TEST, content)
        audit.record(actor, "notification.test", f"notification:{row.name}", after={"delivery": delivery.webhook_id})
        return outbox.record(delivery)


def wait_for_attempt(delivery: DeliveryRecord) -> DeliveryRecord:
    """Return a message once it was attempted, or after 5 s as it is then."""
    deadline = monotonic() + TESTED_WITHIN_SECONDS
    while not (current := outbox.delivery(delivery.id)).attempts and monotonic() < deadline:
        sleep(_POLL_SECONDS)
    return current


def get(notification_id: str) -> NotificationRecord:
    with session():
        return _record(_row(notification_id))


def search(text: str, page: int, per_page: int) -> Page[NotificationRecord]:
    """Return one page of notifications, sorted by name. `text` is part of the name."""
    query = Notification.select().order_by(Notification.name)
    if text:
        query = query.where(Notification.name.contains(text))
    return fetch_page(query, page, per_page, convert=partial(map, _record))


def named(name_or_id: str) -> NotificationRecord:
    """Return the notification with this id or name; `NotFound` if there is none."""
    with session():
        row = Notification.get_or_none((Notification.id == name_or_id) | (Notification.name == name_or_id))
        return _record(row or _row(name_or_id))


def _row(notification_id: str) -> Notification:
    row: Notification | None = Notification.get_or_none(Notification.id == notification_id)
    if row is None:
        raise NotFound("no such notification", "notification-not-found")
    return row


def _record(row: Notification) -> NotificationRecord:
    return NotificationRecord(row.id, row.name, row.url, tuple(row.events), row.enabled, row.created_at, row.updated_at)


def _require_free_name(name: str) -> None:
    if Notification.select().where(Notification.name == name).exists():
        raise Conflict(f"a notification named {name} exists", "notification-exists")


def _check_name(name: str) -> None:
    if not name.strip() or name != name.strip() or not name.isprintable() or len(name) > MAX_NAME:
        raise invalid("name", f"must have 1 to {MAX_NAME} printable characters, without spaces around them")


def _check_url(url: str, settings: Settings) -> None:
    targets.check(url, allow_private=settings.notify_private, can_mail=settings.smtp_url is not None)


def _checked_events(events: Iterable[str]) -> list[str]:
    chosen = sorted(set(events))
    if not chosen:
        raise invalid("events", "must name at least one event")
    for event in chosen:
        if event not in EVENTS:
            raise invalid("events", f"must be of {', '.join(EVENTS)}")
    return chosen


def _audited(record: NotificationRecord) -> audit.Fields:
    return {"name": record.name, "url": record.host, "events": list(record.events), "enabled": record.enabled}


def _without_path(url: str) -> str:
    if targets.mail_address(url) is not None:
        return url
    webhook = targets.webhook(url)
    return f"{webhook.scheme}://{webhook.authority}"
