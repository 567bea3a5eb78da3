"""Functions that tests of disconnect orders share."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from authsvc.activity import disconnects
from authsvc.activity.client_ids import SeenClientIds
from authsvc.activity.mqtt_takeover import TakeoverBroker
from authsvc.storage.database import session
from authsvc.storage.models import DisconnectOrder
from tests.storage.environment import events

if TYPE_CHECKING:
    from authsvc.activity.audit import Event


SECOND = timedelta(seconds=1)


def takeover_at(port: int) -> TakeoverBroker:
    return TakeoverBroker("127.0.0.1", port, "authsvc-sessions", "se/cret", tls=False, ca_file=None)


def store_seen(username: str, *client_ids: str) -> None:
    """Store these client ids of a user, as if it had used them one after the other."""
    for client_id in client_ids:
        noted = SeenClientIds()
        noted.note(username, client_id)
        noted.store()


def age_orders(passed: timedelta) -> None:
    """Move the times of all orders and claims back."""
    with session():
        for row in DisconnectOrder.select():
            row.requested_at -= passed
            row.due_at -= passed
            row.claimed_until = row.claimed_until and row.claimed_until - passed
            row.save()


def age_claims(passed: timedelta) -> None:
    """Move the times of all claims back."""
    with session():
        for row in DisconnectOrder.select().where(DisconnectOrder.claimed_until.is_null(False)):
            until = row.claimed_until - passed
            DisconnectOrder.update(claimed_until=until).where(DisconnectOrder.id == row.id).execute()


def run_due_orders(broker: TakeoverBroker) -> int:
    """Run the orders as if the delay for storing client ids had passed; return their number."""
    age_orders(SECOND)
    return disconnects.run_due_orders(broker)


def disconnect_events() -> list[Event]:
    return [each for each in events() if each.action == "user.disconnect"]
