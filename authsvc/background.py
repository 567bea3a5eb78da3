"""The thread beside the requests: keeps the policy snapshot fresh and writes down what need not be written at once."""

from __future__ import annotations

import threading
from collections.abc import Callable  # noqa: TC003 - a NamedTuple's field types are read when it is made
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

import peewee
import structlog

from authsvc import (
    authorities,
    browser_sessions,
    denials,
    history,
    logins,
    metrics,
    sessions,
    throttle,
    throttled_logins,
)
from authsvc.authorities import issuing_under

if TYPE_CHECKING:
    from authsvc.edge import Services

log = structlog.get_logger()

_METRICS_EVERY = 1.0
_TOKEN_USES_EVERY = 5.0
_TIDY_EVERY = 600.0
_SIGHTINGS_EVERY = 0.5
_CLIENT_IDS_EVERY = 15.0
_THROTTLED_EVERY = 1.0
_DENIALS_EVERY = 0.5
_HISTORY_EVERY = 5.0
_SESSIONS_EVERY = 0.2


class Job(NamedTuple):
    """Work that is due every so many seconds."""

    every: float
    work: Callable[[], object]
    also_at_the_end: bool = False
    also_at_the_start: bool = False


class Background:
    """A thread that does what is due until it is stopped; a lost database is logged once, and once when it is back."""

    def __init__(self, name: str, jobs: list[Job]) -> None:
        self.name = name
        self._jobs = jobs
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._failed: Callable[[], object] | None = None

    def start(self) -> None:
        """Do now what the process needs to begin ready, the first job at least, and go on in the thread."""
        for place, job in enumerate(self._jobs):
            if place == 0 or job.also_at_the_start:
                self._attempt(job.work)
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and do once more what would otherwise lose something."""
        self._stopping.set()
        self._thread.join(timeout=5)
        for job in self._jobs:
            if job.also_at_the_end:
                self._attempt(job.work)

    def _run(self) -> None:
        due = {job: monotonic() + job.every for job in self._jobs}
        while not self._stopping.wait(max(0.0, min(due.values()) - monotonic())):
            for job in self._jobs:
                if due[job] <= monotonic():
                    self._attempt(job.work)
                    due[job] = monotonic() + job.every

    def _attempt(self, work: Callable[[], object]) -> None:
        try:
            work()
        except peewee.PeeweeException as error:
            if not self._failed:
                log.warning("database lost; answering brokers from memory", error=type(error).__name__)
            self._failed = work
        except Exception as error:  # noqa: BLE001 - this thread must outlive any surprise
            log.error("background work failed", error=type(error).__name__)
        else:
            # Other work may have succeeded because there was nothing to write.
            if work == self._failed:
                self._failed = None
                log.info("database is back")


def policy_jobs(services: Services) -> list[Job]:
    """Return what keeps decisions fresh; the first job is the one that matters."""
    return [
        Job(services.settings.policy_poll_ms / 1000, services.policy.catch_up),
        Job(_METRICS_EVERY, lambda: metrics.observe_worker(services)),
        Job(_TOKEN_USES_EVERY, lambda: logins.store_uses(services.access.token_uses), also_at_the_end=True),
        Job(_TIDY_EVERY, logins.delete_expired),
        Job(_SIGHTINGS_EVERY, services.sightings.store, also_at_the_end=True),
        Job(_CLIENT_IDS_EVERY, services.sightings.learn_stored, also_at_the_start=True),
        Job(_TIDY_EVERY, services.sightings.forget_stored),
        Job(_TIDY_EVERY, services.webhooks.forget),
        Job(_TIDY_EVERY, throttle.forget_old),
        Job(_TIDY_EVERY, lambda: browser_sessions.forget_ended(services.settings.session_lifetime)),
    ]


def record_jobs(services: Services) -> list[Job]:
    """Return what writes down how it went, in a thread of its own: a flood of denials must not delay policy."""

    def store_history() -> None:
        metrics.flush_decisions()
        services.history.store()

    return [
        Job(_DENIALS_EVERY, services.denials.store, also_at_the_end=True),
        Job(_THROTTLED_EVERY, lambda: throttled_logins.store(services.access.guess_limit), also_at_the_end=True),
        Job(_HISTORY_EVERY, store_history, also_at_the_end=True),
        Job(_METRICS_EVERY, lambda: metrics.observe_dropped_denials(services.denials.dropped)),
        Job(_TIDY_EVERY, denials.forget_old),
        Job(_TIDY_EVERY, history.forget_old),
    ]


def certificate_jobs(services: Services) -> list[Job]:
    """Return what revocation needs: lists that never run out, and an end to sessions that should not go on."""
    issuing = issuing_under(services.settings)
    jobs = [Job(1.0, lambda: authorities.refresh_if_due(issuing)), Job(_TIDY_EVERY, sessions.forget_old)]
    broker = services.broker
    if broker is not None:
        jobs.append(Job(_SESSIONS_EVERY, lambda: sessions.carry_out(broker)))
    return jobs
