"""The thread beside the requests: keeps the policy snapshot fresh and writes down what need not be written at once."""

from __future__ import annotations

import threading
from collections.abc import Callable  # noqa: TC003 - a NamedTuple's field types are read when it is made
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

import peewee
import structlog

from authsvc.accounts import browser_sessions, api_tokens, sign_in, throttle
from authsvc.activity import denials, decision_stats, disconnects, throttled_logins
from authsvc.observability import metrics
from authsvc.pki import authorities
from authsvc.pki.authorities import signing_policy
from authsvc.storage.policy_cache import STALE_AFTER_SECONDS

if TYPE_CHECKING:
    from authsvc.web.request_context import Services
    from authsvc.storage.policy_cache import PolicyCache
    from authsvc.activity.mqtt_takeover import TakeoverBroker
    from authsvc.storage.propagation import Propagation

log = structlog.get_logger()

_METRICS_EVERY = 1.0
_WATCH_EVERY = 0.5
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


class BackgroundThread:
    """A thread that does what is due until it is stopped; a lost database is logged once, and once when it is back."""

    def __init__(self, name: str, jobs: list[Job]) -> None:
        self.name = name
        self._jobs = jobs
        self._stopping = threading.Event()
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._failed: Callable[[], object] | None = None

    def start(self) -> None:
        """Start the thread, which does at once what the process needs to be ready, and the first job last."""
        self._thread.start()

    def has_begun(self, within: float) -> bool:
        """Wait for the first job to be done, so that the process begins ready; return whether it was, in seconds."""
        return self._begun.wait(within)

    def stop(self) -> None:
        """End the thread, and do once more what would otherwise lose something."""
        self._stopping.set()
        self._thread.join(timeout=5)
        for job in self._jobs:
            if job.also_at_the_end:
                self._attempt(job.work)

    def _run(self) -> None:
        for job in [job for job in self._jobs if job.also_at_the_start] + self._jobs[:1]:
            self._attempt(job.work)
        self._begun.set()
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
        Job(_TOKEN_USES_EVERY, lambda: api_tokens.store_uses(services.access.token_uses), also_at_the_end=True),
        Job(_TIDY_EVERY, api_tokens.delete_expired),
        Job(_TIDY_EVERY, services.webhooks.forget),
        Job(_TIDY_EVERY, throttle.forget_old),
        Job(_TIDY_EVERY, sign_in.forget_old),
        Job(_TIDY_EVERY, lambda: browser_sessions.forget_ended(services.settings.session_lifetime)),
    ]


def client_id_jobs(services: Services) -> list[Job]:
    """Return what keeps client ids over a restart, in a thread of its own: writing many must not delay policy."""
    return [
        Job(_SIGHTINGS_EVERY, services.sightings.store, also_at_the_end=True),
        Job(_CLIENT_IDS_EVERY, services.sightings.learn_stored, also_at_the_start=True),
        Job(_TIDY_EVERY, services.sightings.forget_stored),
    ]


class FreshnessWatch:
    """Notices when policy cannot be refreshed: told once an outage in the log, and to the workers that draw pages."""

    def __init__(self, policy: PolicyCache, tidings: Propagation) -> None:
        self._policy = policy
        self._tidings = tidings
        self._started_at = monotonic()
        self._stale = False

    def look(self) -> None:
        """Compare the policy's age with what it may be."""
        policy = self._policy
        if policy.is_loaded:
            self._tidings.report(policy.refreshed_at)
        age = min(policy.age, monotonic() - self._started_at)
        stale = age > STALE_AFTER_SECONDS
        if stale and not self._stale:
            event = "policy cannot be refreshed" if policy.is_loaded else "policy is not loaded; brokers are refused"
            log.error(event, seconds=round(age, 1), version=policy.snapshot.version)
        elif self._stale and not stale:
            log.info("policy is refreshed again", version=policy.snapshot.version)
        self._stale = stale


def watch_jobs(services: Services) -> list[Job]:
    """Return what looks at the process itself, in a thread that waits for no database."""
    return [
        Job(_WATCH_EVERY, FreshnessWatch(services.policy, services.tidings).look),
        Job(_METRICS_EVERY, lambda: metrics.observe_worker(services)),
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
        Job(_TIDY_EVERY, decision_stats.forget_old),
    ]


def certificate_jobs(services: Services) -> list[Job]:
    """Return what revocation needs: lists that never run out."""
    issuing = signing_policy(services.settings)
    return [Job(1.0, lambda: authorities.refresh_if_due(issuing)), Job(_TIDY_EVERY, disconnects.forget_old)]


def session_jobs(broker: TakeoverBroker) -> list[Job]:
    """Return what ends MQTT sessions, in a thread of its own: a broker that does not answer must delay no list."""
    return [Job(_SESSIONS_EVERY, lambda: disconnects.carry_out(broker))]
