"""The periodic jobs of one process, one list for each background thread."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

import structlog

from authsvc.accounts import api_tokens, browser_sessions, throttle, users
from authsvc.accounts.sign_in import passwords
from authsvc.activity import decision_stats, denials, disconnects, live_clients, throttled_logins
from authsvc.notifications import outbox
from authsvc.notifications.sender import Sender
from authsvc.notifications.sender import observe as observe_outbox
from authsvc.observability import metrics
from authsvc.pki import authorities, expiry
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
_CLEANUP_EVERY = 600.0
_SEEN_EVERY = 300.0


def policy_jobs(services: Services) -> list[Job]:
    """Return the jobs that refresh the policy, and the cleanup of accounts. The first job makes the process ready."""
    return [
        Job(services.settings.policy_poll_ms / 1000, services.policy.catch_up),
        Job(5.0, lambda: api_tokens.store_uses(services.access.token_uses), run_at_stop=True),
        Job(_CLEANUP_EVERY, api_tokens.delete_expired),
        Job(_CLEANUP_EVERY, services.webhooks.clear_cache),
        Job(_CLEANUP_EVERY, throttle.delete_old),
        Job(_CLEANUP_EVERY, passwords.delete_old),
        Job(_CLEANUP_EVERY, lambda: browser_sessions.delete_expired(services.settings.session_lifetime)),
    ]


def client_id_jobs(services: Services) -> list[Job]:
    """Return the jobs that store and load client ids. In a thread of their own, long writes do not delay the policy."""
    return [
        Job(0.5, services.client_ids.store, run_at_stop=True),
        Job(15.0, services.client_ids.load_stored, run_at_start=True),
        Job(_CLEANUP_EVERY, services.client_ids.delete_expired),
    ]


class FreshnessWatch:
    """Logs once when the policy becomes stale, and reports this worker's last refresh to the other workers."""

    def __init__(self, policy: PolicyCache, propagation: Propagation) -> None:
        self._policy = policy
        self._propagation = propagation
        self._started_at = monotonic()
        self._stale = False

    def check(self) -> None:
        """Compare the policy's age with `STALE_AFTER_SECONDS`."""
        policy = self._policy
        if policy.is_loaded:
            self._propagation.report(policy.age)
        age = min(policy.age, monotonic() - self._started_at)
        stale = age > STALE_AFTER_SECONDS
        if stale and not self._stale:
            event = "policy cannot be refreshed" if policy.is_loaded else "policy is not loaded; brokers are refused"
            log.error(event, seconds=round(age, 1), version=policy.snapshot.version)
        elif self._stale and not stale:
            log.info("policy is refreshed again", version=policy.snapshot.version)
        self._stale = stale


def watch_jobs(services: Services) -> list[Job]:
    """Return the jobs that observe the process, in a thread that never waits for the database."""
    return [
        Job(0.5, FreshnessWatch(services.policy, services.propagation).check),
        Job(_METRICS_EVERY, lambda: observe_worker(services)),
    ]


def record_jobs(services: Services) -> list[Job]:
    """Return the jobs that store denials and statistics, and delete old records and silent brokers.

    In a thread of their own, a flood cannot delay the policy.
    """

    def store_stats() -> None:
        metrics.flush_decisions()
        services.decision_stats.store()

    return [
        Job(0.5, services.denials.store, run_at_stop=True),
        Job(0.5, services.failed_sign_ins.store, run_at_stop=True),
        Job(1.0, lambda: throttled_logins.store(services.access.guess_limit, outbox.login_throttled), run_at_stop=True),
        Job(5.0, store_stats, run_at_stop=True),
        Job(_METRICS_EVERY, lambda: metrics.DENIALS_DROPPED.follow(services.denials.dropped)),
        Job(_CLEANUP_EVERY, denials.delete_expired),
        Job(_CLEANUP_EVERY, decision_stats.delete_expired),
        Job(_CLEANUP_EVERY, live_clients.delete_expired),
        Job(_SEEN_EVERY, live_clients.record_seen),
    ]


def rehashing_jobs(services: Services) -> list[Job]:
    """Return the job that replaces password hashes of other systems, in a thread of its own: each hash takes time."""
    return [Job(0.5, lambda: services.rehashing.store(users.replace_hashes), run_at_stop=True)]


def certificate_jobs(services: Services) -> list[Job]:
    """Return the jobs that sign CRLs before they expire and delete old disconnect orders."""
    policy = signing_policy(services.settings)
    return [Job(1.0, lambda: authorities.revocation_lists(policy)), Job(_CLEANUP_EVERY, disconnects.delete_expired)]


def notification_jobs(services: Services) -> list[Job]:
    """Return the jobs that send notifications, in a thread of their own: a receiver can take 15 s to answer."""
    sender = Sender(services.settings)
    return [
        Job(0.5, sender.send_due),
        Job(15.0, observe_outbox),
        Job(60.0, expiry.announce, run_at_start=True),
        Job(_CLEANUP_EVERY, outbox.delete_expired),
    ]


def disconnect_jobs(broker: TakeoverBroker) -> list[Job]:
    """Return the job that ends MQTT sessions, in a thread of its own: a broker that does not answer delays no CRL."""
    return [Job(0.2, lambda: disconnects.run_due_orders(broker))]
