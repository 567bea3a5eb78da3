"""What the surroundings of the service ask: does it live, is it ready, how is it doing."""

from __future__ import annotations

import peewee
from flask import Blueprint, Response, jsonify

from authsvc import metrics
from authsvc.edge import services
from authsvc.storage.changes import current_version
from authsvc.storage.database import session

blueprint = Blueprint("ops", __name__)


@blueprint.get("/healthz")
def healthz() -> Response:
    """Say that the process answers; brokers are served from memory whatever the database does."""
    return jsonify(status="ok")


@blueprint.get("/readyz")
def readyz() -> tuple[Response, int]:
    """Say whether changes can be made: 200 if the database answers and policy is loaded, otherwise 503."""
    policy = services().policy
    loaded = policy.snapshot.version > 0
    database = _database_answers()
    ready = database and loaded
    body = jsonify(
        status="ready" if ready else "not ready",
        database="ok" if database else "unreachable",
        policyVersion=policy.snapshot.version,
        snapshotAgeSeconds=round(policy.age, 3) if loaded else None,
    )
    return body, 200 if ready else 503


@blueprint.get("/metrics")
def exposition() -> Response:
    """Show the numbers of all workers to Prometheus."""
    metrics.observe_worker(services().policy, services().verifier, services().broker_hashing)
    return Response(metrics.exposition(), content_type="text/plain; version=0.0.4; charset=utf-8")


def _database_answers() -> bool:
    try:
        with session():
            current_version()
    except peewee.PeeweeException:
        return False
    return True
