"""What `/metrics` shows: counts and times of decisions, and the state of each worker, for Prometheus.

No label ever holds a username, a client id or a topic: each label's values come from a closed list. Under
gunicorn the client library keeps the numbers of all workers in the directory that PROMETHEUS_MULTIPROC_DIR
names; it must be set before this module is imported.
"""

from __future__ import annotations

import os
from collections import deque
from typing import TYPE_CHECKING

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from authsvc.decision import ALLOWING

if TYPE_CHECKING:
    from authsvc.decision import Decision, Reason
    from authsvc.hashing import HashingPool
    from authsvc.passwords import PasswordVerifier
    from authsvc.policy import Policy

_DECISIONS = Counter("authsvc_decisions", "Webhook decisions", ["check", "decision", "reason"])
_SECONDS = Histogram(
    "authsvc_decision_seconds",
    "Time from a webhook's bytes to its answer",
    ["check"],
    buckets=(0.00002, 0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.01, 0.05, 0.1, 0.5, 1, 5),
)
_REQUESTS = Counter("authsvc_http_requests", "Requests to the API and pages", ["method", "status"])
_POLICY_VERSION = Gauge("authsvc_policy_version", "Policy version of the snapshot", multiprocess_mode="livemin")
_POLICY_AGE = Gauge(
    "authsvc_policy_snapshot_age_seconds",
    "Time since the snapshot was known to be fresh",
    multiprocess_mode="livemax",
)
_USERS = Gauge("authsvc_policy_users", "Users in the snapshot", multiprocess_mode="livemax")
_CACHE = Gauge(
    "authsvc_credential_cache_lookups",
    "Password checks answered from memory (hit) or by a hash (miss) since the worker started",
    ["outcome"],
    multiprocess_mode="livesum",
)
_CACHE_ENTRIES = Gauge(
    "authsvc_credential_cache_entries", "Verified credentials in memory", multiprocess_mode="livesum"
)
_HASHING_WAITING = Gauge("authsvc_hashing_waiting", "Logins waiting for a hashing slot", multiprocess_mode="livesum")
_HASHING_REFUSED = Gauge(
    "authsvc_hashing_refused", "Logins refused for want of a hashing slot", multiprocess_mode="livesum"
)

_MAX_UNCOUNTED = 10_000
_uncounted: deque[tuple[str, Reason, float]] = deque()


def observe_decision(check: str, decision: Decision, seconds: float) -> None:
    """Note one webhook decision and the time it took; cheap, for the library is told of it later."""
    _uncounted.append((check, decision.reason, seconds))
    if len(_uncounted) > _MAX_UNCOUNTED:
        flush_decisions()


def flush_decisions() -> None:
    """Hand what was noted to the library: once a second, at each scrape, and when much has come together."""
    while _uncounted:
        try:
            check, reason, seconds = _uncounted.popleft()
        except IndexError:  # another thread is at it too
            return
        _DECISIONS.labels(check, "allowed" if reason in ALLOWING else "denied", reason).inc()
        _SECONDS.labels(check).observe(seconds)


def observe_request(method: str, status: int) -> None:
    """Count one request to the API or a page; unknown methods are counted as one."""
    known = method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
    _REQUESTS.labels(method if known else "other", str(status)).inc()


def observe_worker(policy: Policy, verifier: PasswordVerifier, hashing: HashingPool) -> None:
    """Publish this worker's state, for a scrape that may arrive at another worker."""
    flush_decisions()
    _POLICY_VERSION.set(policy.snapshot.version)
    _POLICY_AGE.set(policy.age)
    _USERS.set(len(policy.snapshot.users))
    _CACHE.labels("hit").set(verifier.counters.hits)
    _CACHE.labels("miss").set(verifier.counters.misses)
    _CACHE_ENTRIES.set(verifier.entries)
    _HASHING_WAITING.set(hashing.waiting)
    _HASHING_REFUSED.set(verifier.counters.busy)


def exposition() -> bytes:
    """Return the numbers of all workers in Prometheus' text format."""
    registry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)
