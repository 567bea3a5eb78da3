"""Reports of brokers for tests, stored in the database of this process or of a running service."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from authsvc.activity import live_clients
from authsvc.policy.broker_report import BrokerReport, ConnectedClient
from authsvc.storage.database import connect_to, database, database_time, session
from authsvc.storage.models import Broker

if TYPE_CHECKING:
    from tests.service import Service

BOOT = "0123456789abcdef" * 2
OTHER_BOOT = "fedcba9876543210" * 2
SINCE = datetime(2026, 11, 20, 8, 0, tzinfo=UTC)


def connected(number: int, username: str = "bob", client_id: str | None = None, **fields: Any) -> ConnectedClient:
    """Return a client whose connection began `number` seconds after `SINCE`, by default with the id `c-NUMBER`."""
    values = {"address": "10.0.0.7", "protocol": "MQTT 5.0", "credential": "password", **fields}
    since = values.pop("since", SINCE + timedelta(seconds=number))
    return ConnectedClient(number, username, f"c-{number}" if client_id is None else client_id, since=since, **values)


def report(
    *clients: ConnectedClient, boot: str = BOOT, name: str = "plant", generation: int = 1, **fields: Any
) -> None:
    """Store a report of the broker `plant` with these connected clients."""
    live_clients.store(BrokerReport(boot, name, "0.1.0", generation, clients, **fields))


def age_reports(passed: timedelta, boot: str = BOOT) -> None:
    """Set the time of a broker's last report to this long ago."""
    with session():
        Broker.update(reported_at=database_time() - passed).where(Broker.boot == boot).execute()


def report_to(service: Service, *clients: ConnectedClient, **fields: Any) -> None:
    """Store a report in the SQLite database of a running service; the broker counts as live from then on."""
    connect_to(f"sqlite:///{service.environment['AUTHSVC_DATA_DIR']}/authsvc.db")
    try:
        report(*clients, **fields)
        age_reports(timedelta(days=-1), fields.get("boot", BOOT))
    finally:
        database.initialize(None)
