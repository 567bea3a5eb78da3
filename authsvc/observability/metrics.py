"""What `/metrics` shows: counts and times of decisions, and the state of each worker, for Prometheus.

No label ever holds a username, a client id or a topic: each label's values come from a closed list. Under
gunicorn the client library keeps the numbers of all workers in the directory that PROMETHEUS_MULTIPROC_DIR
names; it must be set before this module is imported.
"""

from __future__ import annotations

import os
from collections import Counter as Counts
from collections import deque
from functools import cache
from typing import TYPE_CHECKING

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from authsvc.policy.decision import ALLOW_REASONS

if TYPE_CHECKING:
    from authsvc.policy.decision import Decision, Reason

_DECISIONS = Counter("authsvc_decisions", "Webhook decisions", ["check", "decision", "reason"])
_SECONDS = Histogram(
    "authsvc_decision_seconds",
    "Time from a webhook's bytes to its answer",
    ["check"],
    buckets=(0.00002, 0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.01, 0.05, 0.1, 0.5, 1, 5),
)
_REQUESTS = Counter("authsvc_http_requests", "Requests to the API and pages", ["method", "status"])
POLICY_VERSION = Gauge("authsvc_policy_version", "Policy version of the snapshot", multiprocess_mode="livemin")
POLICY_AGE = Gauge(
    "authsvc_policy_snapshot_age_seconds",
    "Time since the snapshot was known to be fresh",
    multiprocess_mode="livemax",
)
POLICY_STALE = Gauge(
    "authsvc_policy_stale",
    "1 if a worker could not refresh its policy for more than 5 seconds, else 0",
    multiprocess_mode="livemax",
)
USERS = Gauge("authsvc_policy_users", "Users in the snapshot", multiprocess_mode="livemax")
CACHE = Gauge(
    "authsvc_credential_cache_lookups",
    "Password checks answered from memory (hit) or by a hash (miss) since the worker started",
    ["outcome"],
    multiprocess_mode="livesum",
)
CACHE_ENTRIES = Gauge("authsvc_credential_cache_entries", "Verified credentials in memory", multiprocess_mode="livesum")
ANSWERS = Gauge(
    "authsvc_answer_cache_lookups",
    "Webhooks answered from memory (hit) or decided anew (miss) since the worker started",
    ["outcome"],
    multiprocess_mode="livesum",
)
ANSWER_ENTRIES = Gauge("authsvc_answer_cache_entries", "Answers to webhooks in memory", multiprocess_mode="livesum")
HASHING_RUNNING = Gauge("authsvc_hashing_running", "Logins that are being hashed", multiprocess_mode="livesum")
HASHING_WAITING = Gauge("authsvc_hashing_waiting", "Logins waiting for a hashing slot", multiprocess_mode="livesum")
HASHING_REFUSED = Gauge(
    "authsvc_hashing_refused",
    "Logins refused for want of a hashing slot, or while another password for the same name was being hashed",
    multiprocess_mode="livesum",
)

THROTTLED = Gauge(
    "authsvc_throttled_windows",
    "Users and minutes in which logins were throttled for too many wrong passwords, since the worker started",
    multiprocess_mode="livesum",
)
KNOWN_CLIENT_IDS = Gauge(
    "authsvc_known_client_ids", "Client ids in memory that a user has logged in with", multiprocess_mode="livemax"
)
DENIALS_DROPPED = Gauge(
    "authsvc_denials_dropped", "Denials too many to be noted for the users' lists", multiprocess_mode="livesum"
)

counted: Counts[tuple[str, bool]] = Counts()
"""This worker's decisions since it started, by check and whether they were allowed, up to the last flush."""

_times_of = cache(_SECONDS.labels)

_MAX_UNCOUNTED = 10_000
_uncounted: deque[tuple[str, Reason, float]] = deque()


def observe_decision(check: str, decision: Decision, seconds: float) -> None:
    """Note one webhook decision and the time it took; cheap, for the library is told of it later."""
    _uncounted.append((check, decision.reason, seconds))
    if len(_uncounted) > _MAX_UNCOUNTED:
        flush_decisions()


def flush_decisions() -> None:
    """Hand what was noted to the library: once a second, at each scrape, and when much has come together."""
    decisions: Counts[tuple[str, Reason]] = Counts()
    while _uncounted:
        try:
            check, reason, seconds = _uncounted.popleft()
        except IndexError:  # another thread is at it too
            break
        decisions[check, reason] += 1
        _times_of(check).observe(seconds)
    for (check, reason), count in decisions.items():
        allowed = reason in ALLOW_REASONS
        counted[check, allowed] += count
        _DECISIONS.labels(check, "allowed" if allowed else "denied", reason).inc(count)


def observe_request(method: str, status: int) -> None:
    """Count one request to the API or a page; unknown methods are counted as one."""
    known = method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
    _REQUESTS.labels(method if known else "other", str(status)).inc()


def observe_dropped_denials(count: int) -> None:
    """Publish how many denials this worker did not note."""
    DENIALS_DROPPED.set(count)


def exposition() -> bytes:
    """Return the numbers of all workers in Prometheus' text format."""
    registry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)
