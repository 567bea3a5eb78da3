"""The metrics that are read from the database at each scrape, so that they are right whichever worker answers it.

A metric without a value, such as the next expiry when there is no certificate, is left out. If the database cannot be
read, only `authsvc_database_up` is there, with the value 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily

from authsvc.activity import disconnects, live_clients
from authsvc.pki import authorities, certificates
from authsvc.storage.database import DATABASE_ERRORS, session
from authsvc.web.request_context import services

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from flask import Flask

_EXTENSION = "authsvc.stored_metrics"


class StoredMetric(NamedTuple):
    """A gauge without labels."""

    name: str
    documentation: str
    value: float


def add(app: Flask, read: Callable[[], list[StoredMetric]]) -> None:
    """Add metrics that are read from the database at each scrape."""
    app.extensions.setdefault(_EXTENSION, []).append(read)


def exposition(app: Any) -> bytes:
    """Return the stored metrics in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Collector(_read(app.extensions.get(_EXTENSION, []))))
    return generate_latest(registry)


class _Collector:
    def __init__(self, read: list[StoredMetric]) -> None:
        self._read = read

    def collect(self) -> Iterator[GaugeMetricFamily]:
        for metric in self._read:
            yield GaugeMetricFamily(*metric)


def _read(others: list[Callable[[], list[StoredMetric]]]) -> list[StoredMetric]:
    up = "1 if the database can be read, else 0"
    try:
        with session():
            found = [metric for read in (_expiries, _clients, _orders, *others) for metric in read()]
    except DATABASE_ERRORS:
        return [StoredMetric("authsvc_database_up", up, 0)]
    return [StoredMetric("authsvc_database_up", up, 1), *found]


def _expiries() -> list[StoredMetric]:
    trusted = authorities.records()
    lists = [(each.crl_next_update, each.crl_this_update) for each in trusted if each.crl_next_update]
    next_update, this_update = min(lists, default=(None, None))
    moments = {
        "crl_next_update": (
            next_update,
            "Time before which brokers need a newer CRL, the soonest of all trusted authorities",
        ),
        "crl_this_update": (this_update, "Time at which it was signed; it is signed again after half of its validity"),
        "authority_expiry": (
            min((each.not_after for each in trusted), default=None),
            "Time at which the first trusted certificate authority expires",
        ),
        "certificate_expiry": (
            certificates.first_expiry(),
            "Time at which the first user is left without a valid client certificate",
        ),
    }
    return [
        StoredMetric(f"authsvc_{name}_timestamp_seconds", documentation, moment.timestamp())
        for name, (moment, documentation) in moments.items()
        if moment
    ]


def _clients() -> list[StoredMetric]:
    brokers = live_clients.brokers()
    live = [broker for broker in brokers if broker.is_live]
    return [
        StoredMetric("authsvc_live_brokers", "Brokers whose plugin has reported in the last 15 seconds", len(live)),
        StoredMetric(
            "authsvc_silent_brokers",
            "Brokers whose plugin has reported in the last hour and not in the last 15 seconds",
            len(brokers) - len(live),
        ),
        StoredMetric(
            "authsvc_connected_clients",
            "Clients that are connected to these live brokers",
            sum(b.clients for b in live),
        ),
    ]


def _orders() -> list[StoredMetric]:
    if services().broker is None:
        return []  # nobody carries them out
    orders = disconnects.open_orders()
    return [
        StoredMetric("authsvc_disconnect_orders", "Orders to end MQTT sessions that are not finished", orders.count),
        StoredMetric("authsvc_disconnect_order_age_seconds", "Age of the oldest of these, 0 without one", orders.age),
    ]
