"""The state of the service: versions, database, policy, authorities, listeners, brokers and settings."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING

from authsvc import __version__
from authsvc.activity import live_clients
from authsvc.pki import authorities
from authsvc.settings import shown
from authsvc.storage import schema
from authsvc.storage.database import DATABASE_ERRORS, database_version, is_sqlite, session

if TYPE_CHECKING:
    from authsvc.activity.live_clients import BrokerRecord
    from authsvc.pki.authorities import AuthorityRecord
    from authsvc.settings import Settings, ShownSetting
    from authsvc.web.request_context import Services


@dataclass(frozen=True, slots=True)
class DatabaseStatus:
    """The database; `version` and `migration`, the latest one that was applied, are None if it does not answer."""

    kind: str
    reachable: bool
    version: str | None
    migration: str | None


@dataclass(frozen=True, slots=True)
class PolicyStatus:
    """The policy in the memory of the process that answers; `stale` is about the broker processes too."""

    version: int
    age_seconds: float
    stale: bool
    users: int


@dataclass(frozen=True, slots=True)
class Listener:
    """A listener as it is configured; this does not tell whether a process runs it."""

    name: str
    address: str
    processes: int


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """The state of the service; `authorities` and `brokers` are empty if the database does not answer.

    `broker_processes_follow` is false if a broker process on this machine has not loaded the current policy.
    """

    version: str
    python: str
    database: DatabaseStatus
    policy: PolicyStatus
    listeners: tuple[Listener, ...]
    broker_processes_follow: bool
    authorities: tuple[AuthorityRecord, ...]
    brokers: tuple[BrokerRecord, ...]
    settings: tuple[ShownSetting, ...]


def status_of(services: Services) -> ServiceStatus:
    """Return the current state; an unreachable database is part of it and no error."""
    policy = services.policy
    try:
        with session():
            database, trusted, brokers = _database(), tuple(authorities.records()), tuple(live_clients.brokers())
    except DATABASE_ERRORS:
        database, trusted, brokers = DatabaseStatus(_kind(), False, None, None), (), ()
    return ServiceStatus(
        __version__,
        platform.python_version(),
        database,
        PolicyStatus(
            policy.snapshot.version, round(policy.age, 3), services.policy_is_stale, len(policy.snapshot.users)
        ),
        _listeners(services.settings),
        database.reachable and services.propagation.all_reloaded(),
        trusted,
        brokers,
        shown(services.settings),
    )


def _database() -> DatabaseStatus:
    return DatabaseStatus(_kind(), True, database_version(), schema.applied()[-1])


def _kind() -> str:
    return "SQLite" if is_sqlite() else "PostgreSQL"


def _listeners(settings: Settings) -> tuple[Listener, ...]:
    return (
        Listener("API and pages", settings.bind, settings.api_workers),
        Listener("brokers", settings.broker_bind, settings.workers),
    )
