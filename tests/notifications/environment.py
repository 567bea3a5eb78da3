"""What the tests of notifications share: notifications, events, a clock, and stored messages."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from authsvc.notifications import outbox, subscriptions
from authsvc.notifications.outbox import EVENTS, EventType
from authsvc.notifications.sender import Sender
from authsvc.storage.database import session, transaction
from authsvc.storage.models import Delivery
from tests.actors import ALICE

if TYPE_CHECKING:
    from authsvc.notifications.subscriptions import CreatedNotification
    from authsvc.settings import Settings


class Clock:
    """A clock that begins a second after the present and stands still until it is advanced."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC) + timedelta(seconds=1)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **passed: float) -> None:
        self.now += timedelta(**passed)


def private(settings: Settings, **changes: Any) -> Settings:
    """Return settings that allow receivers on this machine."""
    return replace(settings, notify_private=True, **changes)


def notify(settings: Settings, url: str, *events: str, name: str = "operators") -> CreatedNotification:
    """Create a notification about these events, by default all."""
    return subscriptions.create(ALICE, name, url, events or EVENTS, private(settings))


def sender(settings: Settings, clock: Clock | None = None, **changes: Any) -> Sender:
    """Return a sender that may send to this machine."""
    return Sender(private(settings, **changes), clock or Clock())


def deny(username: str = "press-7") -> None:
    """Publish a `registration.denied`."""
    with transaction():
        outbox.publish(EventType.REGISTRATION_DENIED, {"username": username})


def register(username: str = "press-7") -> None:
    """Publish a `registration.pending`."""
    with transaction():
        outbox.publish_in_digest(EventType.REGISTRATION_PENDING, {"username": username})


def stored() -> list[Delivery]:
    """Return all messages, oldest first."""
    with session():
        return list(Delivery.select().order_by(Delivery.id))
