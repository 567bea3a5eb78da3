"""Health checks and metrics for orchestrators and Prometheus."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

from flask import Blueprint, Response, current_app, jsonify

from authsvc import __version__
from authsvc.observability import metrics
from authsvc.storage.changes import current_version
from authsvc.storage.database import DATABASE_ERRORS, is_sqlite, session
from authsvc.web import stored_metrics
from authsvc.web.request_context import services

if TYPE_CHECKING:
    from authsvc.web.request_context import Services

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
def healthz() -> Response:
    """Return 200: the process answers. The database does not matter, because brokers are answered from memory."""
    return jsonify(status="ok")


@blueprint.get("/readyz")
def readyz() -> tuple[Response, int]:
    """Return 200 if a change can be stored and take effect, otherwise 503.

    The database must answer, and this worker and the broker workers must have loaded a current policy.
    """
    policy = services().policy
    loaded = policy.is_loaded
    freshness = "loading" if not loaded else "stale" if services().policy_is_stale else "ok"
    database = _database_answers()
    brokers = database and services().propagation.all_reloaded()
    ready = database and freshness == "ok" and brokers
    body = jsonify(
        status="ready" if ready else "not ready",
        database="ok" if database else "unreachable",
        policy=freshness,
        brokerWorkers="ok" if brokers else "behind",
        policyVersion=policy.snapshot.version,
        snapshotAgeSeconds=round(policy.age, 3) if loaded else None,
    )
    return body, 200 if ready else 503


@blueprint.get("/metrics")
def exposition() -> Response:
    """Return the metrics of all workers and of the database in the Prometheus format."""
    observe_worker(services())
    text = metrics.exposition() + stored_metrics.exposition(current_app)
    return Response(text, content_type="text/plain; version=0.0.4; charset=utf-8")


def observe_worker(services: Services) -> None:
    """Publish the state of this worker, because another worker may answer the scrape."""
    metrics.flush_decisions()
    policy, webhooks = services.policy, services.webhooks
    verifier, hashing = services.verifier, services.broker_hashing
    metrics.BUILD.labels(__version__, platform.python_version(), "sqlite" if is_sqlite() else "postgresql").set(1)
    metrics.POLICY_VERSION.set(policy.snapshot.version)
    metrics.POLICY_AGE.set(policy.age)
    metrics.POLICY_STALE.set(services.policy_is_stale)
    metrics.USERS.set(len(policy.snapshot.users))
    metrics.CACHE.follow(verifier.counters.hits, "hit")
    metrics.CACHE.follow(verifier.counters.misses, "miss")
    metrics.CACHE_ENTRIES.set(verifier.entries)
    metrics.ANSWERS.follow(webhooks.counters.hits, "hit")
    metrics.ANSWERS.follow(webhooks.counters.misses, "miss")
    metrics.ANSWER_ENTRIES.set(webhooks.entries)
    metrics.HASHING_RUNNING.set(hashing.running)
    metrics.HASHING_WAITING.set(hashing.waiting)
    metrics.HASHING_REFUSED.follow(verifier.counters.busy)
    metrics.THROTTLED.follow(services.access.guess_limit.throttled_windows)
    metrics.QUEUE_AGE.labels("denials").set(services.denials.age)
    metrics.QUEUE_AGE.labels("client-ids").set(services.client_ids.age)
    metrics.QUEUE_AGE.labels("reports").set(services.plugin.report_age)
    metrics.KNOWN_CLIENT_IDS.set(services.client_ids.known.entries)


def _database_answers() -> bool:
    try:
        with session():
            current_version()
    except DATABASE_ERRORS:
        return False
    return True
