"""Prometheus metrics of the registry. No label holds a name: outcomes and statuses are closed lists."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter

from authsvc.observability.metrics import Total, gauge
from authsvc.web.stored_metrics import StoredMetric
from registry import lock, records

if TYPE_CHECKING:
    from registry.mqtt_registration.registration import MqttRegistration
    from registry.mqtt_registration.unknown_names import UnknownNames

_ANSWERS = Counter("authsvc_registry_answers", "Answers to registrations over REST", ["status"])
_CONTACTS = Total("authsvc_registry_contacts", "Refused CONNECTs of unknown usernames, by outcome", ["outcome"])
_WAITING = gauge("authsvc_registry_waiting", "Unknown usernames not written yet")
_UNKNOWN = gauge(
    "authsvc_registry_unknown_names", "Different unknown usernames of the last minute that were not recorded before"
)
_UNKNOWN_ATTEMPTS = gauge(
    "authsvc_registry_unknown_attempts",
    "Attempts of the last minute under unknown usernames that were not recorded before",
)


def count_answer(status: int) -> None:
    """Count one answer to a registration over REST."""
    _ANSWERS.labels(str(status)).inc()


def update(mqtt_registration: MqttRegistration, unknown_names: UnknownNames) -> None:
    """Set the gauges of this worker."""
    unknown = unknown_names.summary()
    _UNKNOWN.set(unknown.names)
    _UNKNOWN_ATTEMPTS.set(unknown.attempts)
    for outcome, number in mqtt_registration.counters.items():
        _CONTACTS.follow(number, outcome)
    _WAITING.set(mqtt_registration.waiting)


def stored() -> list[StoredMetric]:
    """Return the metrics that are read from the database."""
    pending = records.pending()
    return [
        StoredMetric("authsvc_registry_pending_registrations", "Pending registrations", pending.count),
        StoredMetric(
            "authsvc_registry_pending_age_seconds",
            "Time since the oldest pending registration was first seen, 0 without one",
            pending.age,
        ),
        StoredMetric(
            "authsvc_registry_unlocked", "1 while the registry is unlocked, else 0", float(not lock.state().locked)
        ),
    ]
