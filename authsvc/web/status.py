"""The state of the service: versions, database, policy, authorities, listeners, brokers and settings."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING

from authsvc import __version__
from authsvc.activity import live_clients
from authsvc.observability import serving
from authsvc.pki import authorities
from authsvc.settings import shown
from authsvc.storage import schema
from authsvc.storage.database import DATABASE_ERRORS, database_version, is_sqlite, session

if TYPE_CHECKING:
    from authsvc.activity.live_clients import BrokerRecord
    from authsvc.observability.serving import Worker
    from authsvc.pki.authorities import AuthorityRecord
    from authsvc.settings import Settings, ShownSetting
    from authsvc.storage.propagation import Propagation
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
    """The policy in the memory of the process that answers, or in the database if no process does.

    `age_seconds` is the time since it was last compared with the database, `stale` is about the broker processes too.
    """

    version: int
    age_seconds: float
    stale: bool
    users: int


@dataclass(frozen=True, slots=True)
class Listener:
    """A listener: what is configured, and the processes of this data directory that run it.

    Processes of other containers and machines are listed only if they share the data directory.
    """

    name: str
    configured_address: str
    configured_processes: int
    processes: tuple[Worker, ...]


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


def status_here(services: Services) -> ServiceStatus:
    """Return the current state as the process that answers sees it."""
    policy = services.policy
    snapshot = policy.snapshot
    here = PolicyStatus(snapshot.version, round(policy.age, 3), services.policy_is_stale, len(snapshot.users))
    return status_of(services.settings, here, services.propagation)


def status_of(settings: Settings, policy: PolicyStatus, propagation: Propagation) -> ServiceStatus:
    """Return the current state; an unreachable database is part of it and no error."""
    try:
        with session():
            database, trusted, brokers = _database(), tuple(authorities.records()), tuple(live_clients.brokers())
    except DATABASE_ERRORS:
        database, trusted, brokers = DatabaseStatus(_kind(), False, None, None), (), ()
    return ServiceStatus(
        __version__,
        platform.python_version(),
        database,
        policy,
        _listeners(settings),
        database.reachable and propagation.all_reloaded(),
        trusted,
        brokers,
        shown(settings),
    )


def _database() -> DatabaseStatus:
    return DatabaseStatus(_kind(), True, database_version(), schema.applied()[-1])


def _kind() -> str:
    return "SQLite" if is_sqlite() else "PostgreSQL"


def _listeners(settings: Settings) -> tuple[Listener, ...]:
    configured = (("api", settings.bind, settings.api_workers), ("broker", settings.broker_bind, settings.workers))
    running = serving.workers(settings.run_dir)
    return tuple(
        Listener(name, address, count, tuple(one for one in running if one.listener == name))
        for name, address, count in configured
    )
