"""`/healthz`, `/readyz`, `/metrics` and request ids."""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from authsvc.web.status import status_of
from tests.actors import BOBS_PASSWORD
from tests.http.broker import Broker, broker_by
from tests.http.callers import Caller, basic
from tests.storage.environment import database_gone

if TYPE_CHECKING:
    from flask.testing import FlaskClient
    from flask_openapi3.openapi import OpenAPI
    from prometheus_client.samples import Sample

    from authsvc.settings import Settings
    from authsvc.web.request_context import Services


# Health and readiness.


def test_healthz_is_200_without_a_database(client: FlaskClient, settings: Settings) -> None:
    assert (client.get("/healthz").status_code, client.get("/healthz").get_json()) == (200, {"status": "ok"})
    (settings.data_dir / "authsvc.db").unlink()
    assert client.get("/healthz").status_code == 200


def test_status_without_a_database_says_so(client: FlaskClient, services: Services, settings: Settings) -> None:
    assert status_of(services).database.reachable
    with database_gone(settings):
        status = status_of(services)
    assert (status.database.reachable, status.database.version, status.database.migration) == (False, None, None)
    assert (status.authorities, status.brokers, status.broker_processes_follow) == ((), (), False)
    assert status.policy.version == services.policy.snapshot.version


def test_readyz_is_200_only_while_the_database_answers(
    client: FlaskClient, settings: Settings, services: Services
) -> None:
    file = settings.data_dir / "authsvc.db"
    _is_ready(client, services)
    elsewhere = file.rename(settings.data_dir / "elsewhere.db")
    _is_not_ready(client)
    elsewhere.rename(file)
    _is_ready(client, services)


def _is_ready(client: FlaskClient, services: Services) -> None:
    answer = client.get("/readyz")
    assert answer.status_code == 200
    body = answer.get_json()
    assert (body["status"], body["database"]) == ("ready", "ok")
    assert body["policyVersion"] == services.policy.snapshot.version
    assert 0 <= body["snapshotAgeSeconds"] < 60


def _is_not_ready(client: FlaskClient) -> None:
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert (answer.get_json()["status"], answer.get_json()["database"]) == ("not ready", "unreachable")


def test_readyz_is_503_before_the_policy_is_loaded(client: FlaskClient, services: Services) -> None:
    services.policy.snapshot = type(services.policy.snapshot)()
    answer = client.get("/readyz")
    assert (answer.status_code, answer.get_json()["database"]) == (503, "ok")


# Metrics. They count for the whole process, so tests compare values before and after.


def _samples(client: FlaskClient) -> list[Sample]:
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.content_type.startswith("text/plain; version=0.0.4")
    return [sample for family in text_string_to_metric_families(answer.text) for sample in family.samples]


def _value(client: FlaskClient, name: str, **labels: str) -> float:
    values = [sample.value for sample in _samples(client) if sample.name == name and sample.labels == labels]
    return sum(values)


def test_all_documented_metrics_exist(client: FlaskClient, app: OpenAPI) -> None:
    broker_by("view", app).logs_in("bob", BOBS_PASSWORD)
    names = {sample.name for sample in _samples(client)}
    assert names >= {
        "authsvc_decisions_total",
        "authsvc_decision_seconds_bucket",
        "authsvc_decision_seconds_sum",
        "authsvc_decision_seconds_count",
        "authsvc_http_requests_total",
        "authsvc_policy_version",
        "authsvc_policy_snapshot_age_seconds",
        "authsvc_policy_users",
        "authsvc_credential_cache_lookups",
        "authsvc_credential_cache_entries",
        "authsvc_answer_cache_lookups",
        "authsvc_answer_cache_entries",
        "authsvc_hashing_running",
        "authsvc_hashing_waiting",
        "authsvc_hashing_refused",
    }


@pytest.mark.parametrize(
    ("check", "fields", "decision", "reason"),
    [
        ("user", {"username": "bob", "password": BOBS_PASSWORD}, "allowed", "password"),
        ("user", {"username": "bob", "password": "wrong"}, "denied", "wrong-password"),
        ("user", {"username": "nemo", "password": "wrong"}, "denied", "unknown-user"),
        ("user", {}, "denied", "malformed"),
        ("acl", {"username": "bob", "topic": "devices/bob/up", "acc": 2}, "allowed", "permission"),
        ("acl", {"username": "bob", "topic": "elsewhere", "acc": 2}, "denied", "no-permission"),
        ("superuser", {"username": "bob"}, "denied", "no-superusers"),
    ],
)
def test_each_decision_is_counted_once_with_its_reason(
    broker: Broker, client: FlaskClient, check: str, fields: dict[str, Any], decision: str, reason: str
) -> None:
    labels = {"check": check, "decision": decision, "reason": reason}
    counted = _value(client, "authsvc_decisions_total", **labels)
    timed = _value(client, "authsvc_decision_seconds_count", check=check)
    broker.ask(check, **fields)
    assert _value(client, "authsvc_decisions_total", **labels) == counted + 1
    assert _value(client, "authsvc_decision_seconds_count", check=check) == timed + 1


def test_metrics_describe_the_policy(client: FlaskClient, services: Services, alice: Caller) -> None:
    users = _value(client, "authsvc_policy_users")
    version = _value(client, "authsvc_policy_version")
    alice.creates_user("press-7")
    assert _value(client, "authsvc_policy_users") == users + 1
    assert _value(client, "authsvc_policy_version") == services.policy.snapshot.version > version


def test_repeated_login_counts_as_a_cache_hit(client: FlaskClient, broker: Broker) -> None:
    broker.logs_in("bob", BOBS_PASSWORD)
    hits = _value(client, "authsvc_credential_cache_lookups", outcome="hit")
    misses = _value(client, "authsvc_credential_cache_lookups", outcome="miss")
    broker.logs_in("bob", BOBS_PASSWORD)
    assert _value(client, "authsvc_credential_cache_lookups", outcome="hit") == hits + 1
    assert _value(client, "authsvc_credential_cache_lookups", outcome="miss") == misses


def test_repeated_acl_request_counts_as_a_cache_hit(client: FlaskClient, broker: Broker) -> None:
    def counts() -> list[float]:
        lookups = [_value(client, "authsvc_answer_cache_lookups", outcome=outcome) for outcome in ("hit", "miss")]
        return [*lookups, _value(client, "authsvc_answer_cache_entries")]

    hits, misses, entries = counts()
    broker.acl("bob", "devices/bob/up", 2)
    assert counts() == [hits, misses + 1, entries + 1]
    broker.acl("bob", "devices/bob/up", 2)
    assert counts() == [hits + 1, misses + 1, entries + 1]


def test_metrics_count_queued_hashes(client: FlaskClient, services: Services) -> None:
    may_end = threading.Event()
    workers = services.settings.hash_workers
    for _ in range(workers + 3):
        services.broker_hashing.submit(lambda: may_end.wait(10))
    running, waiting = (_value(client, f"authsvc_hashing_{name}") for name in ("running", "waiting"))
    may_end.set()
    assert (running, waiting) == (workers, 3)


def test_requests_are_counted_by_method_and_status(client: FlaskClient, anonymous: Caller) -> None:
    before = _value(client, "authsvc_http_requests_total", method="DELETE", status="401")
    anonymous.delete("/api/users/bob")
    assert _value(client, "authsvc_http_requests_total", method="DELETE", status="401") == before + 1


def test_labels_contain_no_username_or_topic(client: FlaskClient, app: OpenAPI, alice: Caller) -> None:
    strange = ["weird-name", "weird/topic", "weird-client", "weird-password", "WEIRDMETHOD", "weird-request"]
    broker = broker_by("view", app)
    for check in ("user", "acl", "superuser", "weird-check"):
        broker.ask(check, username=strange[0], topic=strange[1], clientid=strange[2], password=strange[3], acc=1)
    alice.call(strange[4], "/api/users/weird-name", headers={"X-Request-Id": strange[5]})
    alice.get("/api/weird/path?weird=query")
    Caller(client, basic("weird-name", "weird-password")).get("/api/me")
    assert "weird" not in client.get("/metrics").text.lower()


def test_labels_have_a_fixed_set_of_values(client: FlaskClient, app: OpenAPI) -> None:
    broker_by("view", app).send("user", b"\xff")
    labels = {name for sample in _samples(client) if sample.name.startswith("authsvc_") for name in sample.labels}
    assert labels <= {"check", "decision", "reason", "method", "status", "outcome", "le"}


# Request ids.


@pytest.mark.parametrize("offered", ["order-66", "a", "A.b_c-1", "f" * 64])
def test_valid_request_id_is_kept(client: FlaskClient, offered: str) -> None:
    assert client.get("/api/me", headers={"X-Request-Id": offered}).headers["X-Request-Id"] == offered


@pytest.mark.parametrize("offered", ["", " ", "a b", "x" * 65, "ä", "a;b", "<script>", '{"a":1}', "../.."])
def test_invalid_request_id_is_replaced(client: FlaskClient, offered: str) -> None:
    given = client.get("/api/me", headers={"X-Request-Id": offered}).headers["X-Request-Id"]
    assert re.fullmatch(r"[0-9a-f]{32}", given)


def test_each_request_has_its_own_id(client: FlaskClient) -> None:
    ids = {client.get(path).headers["X-Request-Id"] for path in ("/api/me", "/healthz", "/no-such-thing") * 3}
    assert len(ids) == 9
