"""The periodic jobs of one process, a list per background thread."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

import structlog

from authsvc.accounts import api_tokens, browser_sessions, sign_in, throttle
from authsvc.activity import decision_stats, denials, disconnects, throttled_logins
from authsvc.observability import metrics
from authsvc.pki import authorities
from authsvc.pki.authorities import signing_policy
from authsvc.storage.background import Job
from authsvc.storage.policy_cache import STALE_AFTER_SECONDS
from authsvc.web.health import observe_worker

if TYPE_CHECKING:
    from authsvc.activity.mqtt_takeover import TakeoverBroker
    from authsvc.storage.policy_cache import PolicyCache
    from authsvc.storage.propagation import Propagation
    from authsvc.web.request_context import Services

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


def policy_jobs(services: Services) -> list[Job]:
    """Return what keeps decisions fresh; the first job is the one that matters."""
    return [
        Job(services.settings.policy_poll_ms / 1000, services.policy.catch_up),
        Job(_TOKEN_USES_EVERY, lambda: api_tokens.store_uses(services.access.token_uses), also_at_the_end=True),
        Job(_TIDY_EVERY, api_tokens.delete_expired),
        Job(_TIDY_EVERY, services.webhooks.forget),
        Job(_TIDY_EVERY, throttle.delete_old),
        Job(_TIDY_EVERY, sign_in.delete_old),
        Job(_TIDY_EVERY, lambda: browser_sessions.delete_expired(services.settings.session_lifetime)),
    ]


def client_id_jobs(services: Services) -> list[Job]:
    """Return what keeps client ids over a restart, in a thread of its own: writing many must not delay policy."""
    return [
        Job(_SIGHTINGS_EVERY, services.client_ids.store, also_at_the_end=True),
        Job(_CLIENT_IDS_EVERY, services.client_ids.learn_stored, also_at_the_start=True),
        Job(_TIDY_EVERY, services.client_ids.forget_stored),
    ]


class FreshnessWatch:
    """Notices when policy cannot be refreshed: told once an outage in the log, and to the workers that draw pages."""

    def __init__(self, policy: PolicyCache, propagation: Propagation) -> None:
        self._policy = policy
        self._propagation = propagation
        self._started_at = monotonic()
        self._stale = False

    def look(self) -> None:
        """Compare the policy's age with what it may be."""
        policy = self._policy
        if policy.is_loaded:
            self._propagation.report(policy.refreshed_at)
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
        Job(_WATCH_EVERY, FreshnessWatch(services.policy, services.propagation).look),
        Job(_METRICS_EVERY, lambda: observe_worker(services)),
    ]


def record_jobs(services: Services) -> list[Job]:
    """Return what writes down how it went, in a thread of its own: a flood of denials must not delay policy."""

    def store_history() -> None:
        metrics.flush_decisions()
        services.decision_stats.store()

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
