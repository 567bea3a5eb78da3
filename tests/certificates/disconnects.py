"""Orders to end sessions, as the tests that look at them give and carry them out."""

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


def broker_at(port: int) -> TakeoverBroker:
    return TakeoverBroker("127.0.0.1", port, "authsvc-sessions", "se/cret", tls=False, ca_file=None)


def seen(username: str, *client_ids: str) -> None:
    """Let brokers have let a user in under these client ids, one after the other."""
    for client_id in client_ids:
        noted = SeenClientIds()
        noted.note(username, client_id)
        noted.store()


def time_passes(passed: timedelta) -> None:
    """Let all orders have been given, and taken, so much earlier."""
    with session():
        for row in DisconnectOrder.select():
            row.requested_at -= passed
            row.due_at -= passed
            row.claimed_until = row.claimed_until and row.claimed_until - passed
            row.save()


def claims_age(passed: timedelta) -> None:
    """Let all claims have been made, or renewed, so much earlier."""
    with session():
        for row in DisconnectOrder.select().where(DisconnectOrder.claimed_until.is_null(False)):
            until = row.claimed_until - passed
            DisconnectOrder.update(claimed_until=until).where(DisconnectOrder.id == row.id).execute()


def carry_out(broker: TakeoverBroker) -> int:
    """Carry out what was ordered, once every worker has had the time to write down whom it saw."""
    time_passes(SECOND)
    return disconnects.run_due_orders(broker)


def reports() -> list[Event]:
    return [each for each in events() if each.action == "user.disconnect"]
