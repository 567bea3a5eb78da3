"""What the surroundings of the service ask: does it live, is it ready, how is it doing."""

from __future__ import annotations

import peewee
from flask import Blueprint, Response, jsonify

from authsvc.observability import metrics
from authsvc.web.request_context import services
from authsvc.storage.changes import current_version
from authsvc.storage.database import session

blueprint = Blueprint("ops", __name__)


@blueprint.get("/healthz")
def healthz() -> Response:
    """Say that the process answers; brokers are served from memory whatever the database does."""
    return jsonify(status="ok")


@blueprint.get("/readyz")
def readyz() -> tuple[Response, int]:
    """Say whether changes can be made and be in force: 200 if so, otherwise 503.

    That takes a database that answers, and policy that is loaded and fresh here and in the workers that answer brokers.
    """
    policy = services().policy
    loaded = policy.is_loaded
    freshness = "loading" if not loaded else "stale" if services().policy_is_stale else "ok"
    database = _database_answers()
    brokers = database and services().tidings.all_catch_up()
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
    """Show the numbers of all workers to Prometheus."""
    metrics.observe_worker(services())
    return Response(metrics.exposition(), content_type="text/plain; version=0.0.4; charset=utf-8")


def _database_answers() -> bool:
    try:
        with session():
            current_version()
    except peewee.PeeweeException:
        return False
    return True
