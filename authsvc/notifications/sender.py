"""Sends the messages of the outbox, one at a time in each API process.

A message is sent at least once. A worker that is killed after sending and before storing the result leaves its claim,
and after the lease another worker sends the message again, under the same `webhook-id`.
"""

from __future__ import annotations

import json
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

import structlog
from prometheus_client import Counter

from authsvc.errors import InvalidInput
from authsvc.notifications import mail, outbox, signing_secrets, targets, webhook
from authsvc.notifications.outbox import FIRST_PAUSE, Status
from authsvc.notifications.targets import DeliveryError
from authsvc.observability.metrics import gauge
from authsvc.record_json import rfc3339
from authsvc.storage.database import database_time, session

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from authsvc.notifications.mail import MailServer
    from authsvc.notifications.outbox import Claimed
    from authsvc.settings import Settings

# After this time the background thread can end, or run its other jobs.
_ROUND_SECONDS = 2.0
_ATTEMPTS = Counter("authsvc_notification_attempts", "Attempts to deliver a notification, by result", ["outcome"])
_OLDEST = gauge(
    "authsvc_notification_oldest_seconds",
    "Time since the oldest undelivered notification was due",
    "mostrecent",
)
_OUTCOMES = {Status.DELIVERED: "delivered", Status.PENDING: "failed", Status.FAILED: "given-up"}

log = structlog.get_logger()


class Result(NamedTuple):
    """The result of an attempt; `error` is None if the message was delivered."""

    claimed: Claimed
    error: str | None


class Sender:
    """Sends due messages. `clock` decides when a message is due; it is the database's own by default."""

    def __init__(self, settings: Settings, clock: Callable[[], datetime] | None = None) -> None:
        self._mail_server: MailServer | None = mail.mail_server(settings)
        self._allow_private = settings.notify_private
        self._passphrase = settings.ca_key_passphrase
        self._clock = clock or _now
        self._paused: dict[str, datetime] = {}
        self._unstored: list[Result] = []

    def send_due(self) -> int:
        """Send due messages for about 2 s, each to one notification, and return their number.

        After a failed attempt this process leaves the notification alone for 30 s, so that a receiver that does not
        answer delays the messages to others only once.
        """
        self._store_results()
        deadline, sent = monotonic() + _ROUND_SECONDS, 0
        while monotonic() < deadline:
            now = self._clock()
            self._paused = {name: until for name, until in self._paused.items() if until > now}
            claimed = outbox.claim(now, self._paused)
            if claimed is None:
                break
            self._unstored.append(Result(claimed, self._attempt(claimed)))
            # If the database is lost now, the result is kept, and stored when it is back.
            self._store_results()
            sent += 1
        return sent

    def _attempt(self, claimed: Claimed) -> str | None:
        """Send a message and return the error, None if it was delivered."""
        try:
            self._deliver(claimed)
        except DeliveryError as error:
            return str(error)
        except InvalidInput as error:
            return error.errors[0].message
        except Exception as error:  # noqa: BLE001 - an error of one message must not stop the others
            return f"internal error: {type(error).__name__}"
        return None

    def _deliver(self, claimed: Claimed) -> None:
        address = targets.mail_address(claimed.url)
        if address is None:
            body = {"type": claimed.event, "timestamp": rfc3339(claimed.created_at), "data": claimed.content}
            secret = signing_secrets.decrypt(claimed.secret or "", self._passphrase)
            webhook.post(claimed.url, claimed.webhook_id, secret, json.dumps(body), allow_private=self._allow_private)
            return
        if self._mail_server is None:
            raise DeliveryError("there is no mail server; set AUTHSVC_SMTP_URL")
        message = mail.compose(
            self._mail_server.sender,
            address,
            claimed.webhook_id,
            claimed.event,
            claimed.content,
            claimed.created_at,
            claimed.name,
        )
        self._mail_server.send(message)

    def _store_results(self) -> None:
        while self._unstored:
            claimed, error = self._unstored[0]
            now = self._clock()
            status = outbox.finish(claimed, error, now)
            self._unstored.pop(0)
            _ATTEMPTS.labels(_OUTCOMES[status]).inc()
            if error is not None:
                self._paused[claimed.notification_id] = now + FIRST_PAUSE
                level = log.error if status is Status.FAILED else log.warning
                level(
                    "notification not delivered",
                    notification=claimed.name,
                    message=claimed.webhook_id,
                    attempts=claimed.attempts + 1,
                    error=error,
                    given_up=status is Status.FAILED,
                )


def observe() -> None:
    """Set the gauge of the oldest undelivered message."""
    _OLDEST.set(outbox.oldest_age())


def _now() -> datetime:
    with session():
        return database_time()
