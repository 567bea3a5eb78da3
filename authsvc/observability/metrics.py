"""The Prometheus metrics of `/metrics`: counts and times of decisions, and the state of each worker.

`web/stored_metrics` adds what is read from the database at each scrape.

The values of each label come from a closed list: no label holds a username, client id or topic. Under gunicorn the
client library stores the values of all workers in the directory PROMETHEUS_MULTIPROC_DIR, which must be set before this
module is imported.
"""

from __future__ import annotations

import os
import threading
from collections import Counter as Counts
from collections import deque
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from authsvc.policy.decision import ALLOW_REASONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from authsvc.policy.decision import Decision, Reason

    _Mode = Literal["livesum", "livemax", "livemin", "mostrecent"]

_DECISIONS = Counter("authsvc_decisions", "Webhook decisions", ["check", "decision", "reason"])
_SECONDS = Histogram(
    "authsvc_decision_seconds",
    "Time from receiving a webhook's body to its answer",
    ["check"],
    buckets=(0.00002, 0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.01, 0.05, 0.1, 0.5, 1, 5),
)
_REQUESTS = Counter(
    "authsvc_http_requests",
    "Requests to the API and pages, by the template of their route",
    ["method", "route", "status"],
)
_REQUEST_SECONDS = Histogram(
    "authsvc_http_request_seconds",
    "Time to answer a request to the API or a page",
    ["method"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
_PROPAGATION = Histogram(
    "authsvc_propagation_seconds",
    "Time until all broker workers of this data directory had reloaded after a change (complete), or until waiting for "
    "them ended (incomplete; they follow by polling)",
    ["outcome"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)
_REPORTS = Counter("authsvc_broker_reports", "Reports of brokers' plugins, by outcome", ["outcome"])
# A series that begins at 0 shows its first increase.
for _labelled, _outcomes in ((_PROPAGATION, ("complete", "incomplete")), (_REPORTS, ("stored", "failed", "malformed"))):
    for _outcome in _outcomes:
        _labelled.labels(_outcome)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def gauge(name: str, documentation: str, mode: _Mode = "livesum", labels: Sequence[str] = ()) -> Gauge:
    """Return a gauge whose value is combined from those of all workers by this mode of the client library."""
    return Gauge(name, documentation, labels, multiprocess_mode=mode)


class Total:
    """A counter that follows a total which this process counts elsewhere."""

    def __init__(self, name: str, documentation: str, labels: Sequence[str] = ()) -> None:
        self._counter = Counter(name, documentation, labels)
        self._followed: dict[tuple[str, ...], int] = {}
        self._lock = threading.Lock()

    def follow(self, total: int, *labels: str) -> None:
        """Raise the counter by what was added to the total since the last call."""
        with self._lock:
            before = self._followed.get(labels, 0)
            self._followed[labels] = total
        counter = self._counter.labels(*labels) if labels else self._counter
        # A smaller total is that of a new application in this process, which counts from 0.
        counter.inc(total - before if total >= before else total)


BUILD = gauge(
    "authsvc_build_info",
    "1, with the versions of authsvc and Python and the kind of database as labels",
    "livemax",
    ["version", "python", "database"],
)
POLICY_VERSION = gauge("authsvc_policy_version", "Policy version of the snapshot", "livemin")
POLICY_AGE = gauge(
    "authsvc_policy_snapshot_age_seconds", "Time since the snapshot last matched the database", "livemax"
)
POLICY_STALE = gauge(
    "authsvc_policy_stale", "1 if a worker could not refresh its policy for more than 5 seconds, else 0", "livemax"
)
USERS = gauge("authsvc_policy_users", "Users in the snapshot", "livemax")
CACHE = Total(
    "authsvc_credential_cache_lookups", "Password checks answered from memory (hit) or by a hash (miss)", ["outcome"]
)
CACHE_ENTRIES = gauge("authsvc_credential_cache_entries", "Verified credentials in memory")
ANSWERS = Total(
    "authsvc_answer_cache_lookups", "Webhooks answered from the answer cache (hit) or decided (miss)", ["outcome"]
)
ANSWER_ENTRIES = gauge("authsvc_answer_cache_entries", "Answers to webhooks in memory")
HASHING_RUNNING = gauge("authsvc_hashing_running", "Logins that are being hashed")
HASHING_WAITING = gauge("authsvc_hashing_waiting", "Logins waiting for a hashing slot")
HASHING_REFUSED = Total(
    "authsvc_hashing_refused",
    "Logins refused because no hashing slot was free, or another password of the user was being hashed",
)
THROTTLED = Total("authsvc_throttled_windows", "One-minute windows in which the logins of a user were throttled")
KNOWN_CLIENT_IDS = gauge("authsvc_known_client_ids", "Client ids in memory that a user has logged in with", "livemax")
QUEUE_AGE = gauge(
    "authsvc_queue_age_seconds",
    "Time that the oldest entry of a queue in memory has waited for the database, 0 if the queue is empty; reports: of "
    "brokers' plugins",
    "livemax",
    ["queue"],
)
DENIALS_DROPPED = Total("authsvc_denials_dropped", "Denials that were not recorded because too many occurred at once")

counted: Counts[tuple[str, bool]] = Counts()
"""The decisions of this worker up to the last flush, by check and whether they were allowed."""

_times_of = cache(_SECONDS.labels)

_MAX_UNCOUNTED = 10_000
_uncounted: deque[tuple[str, Reason, float]] = deque()


def observe_decision(check: str, decision: Decision, seconds: float) -> None:
    """Record one webhook decision and its time in seconds; `flush_decisions` later updates the metrics."""
    _uncounted.append((check, decision.reason, seconds))
    if len(_uncounted) > _MAX_UNCOUNTED:
        flush_decisions()


def flush_decisions() -> None:
    """Update the metrics with the recorded decisions: every second, at each scrape, and when 10,000 are waiting."""
    decisions: Counts[tuple[str, Reason]] = Counts()
    while _uncounted:
        try:
            check, reason, seconds = _uncounted.popleft()
        except IndexError:  # another thread flushes too
            break
        decisions[check, reason] += 1
        _times_of(check).observe(seconds)
    for (check, reason), count in decisions.items():
        allowed = reason in ALLOW_REASONS
        counted[check, allowed] += count
        _DECISIONS.labels(check, "allowed" if allowed else "denied", reason).inc(count)


def observe_request(method: str, route: str, status: int, seconds: float) -> None:
    """Count one request to the API or the web interface; `route` is a template, never a path.

    All unknown methods share one label.
    """
    known = method if method in _METHODS else "other"
    _REQUESTS.labels(known, route, str(status)).inc()
    _REQUEST_SECONDS.labels(known).observe(seconds)


def observe_propagation(seconds: float, *, complete: bool) -> None:
    """Record how long the broker workers took to reload after a change, or how long they were waited for."""
    _PROPAGATION.labels("complete" if complete else "incomplete").observe(seconds)


def count_report(outcome: Literal["stored", "failed", "malformed"]) -> None:
    """Count one report of a broker's plugin."""
    _REPORTS.labels(outcome).inc()


def exposition() -> bytes:
    """Return the metrics of all workers in Prometheus' text format."""
    registry = REGISTRY
    directory = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if directory:
        _forget_ended_processes(Path(directory))
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)


def _forget_ended_processes(directory: Path) -> None:
    """Remove the gauges of processes that have ended; a killed listener does not do so for its workers.

    Files are named `gauge_live*_PID.db`. Counters stay, because they must not decrease.
    """
    for file in directory.glob("gauge_live*.db"):
        if not Path(f"/proc/{file.stem.rpartition('_')[2]}").exists():
            file.unlink(missing_ok=True)
