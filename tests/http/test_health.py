"""`/healthz`, `/readyz`, `/metrics`, request ids and the connections of a request."""

from __future__ import annotations

import asyncio
import json
import platform
import re
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import time_machine
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from authsvc import __version__
from authsvc.accounts import users
from authsvc.activity import disconnects
from authsvc.broker.plugin_routes import PluginRoutes, ReportReceivers
from authsvc.pki import authorities, certificates
from authsvc.pki.ca import RevocationReason
from authsvc.policy.decision import Denial, Reason
from authsvc.policy.snapshot import GrantType
from authsvc.storage.database import DATABASE_ERRORS, database, database_time, session
from authsvc.storage.models import DisconnectOrder
from authsvc.storage.policy_cache import PolicyCache
from authsvc.web.health import observe_worker
from authsvc.web.request_context import EXTENSION
from authsvc.web.status import status_here
from registry import lock, records
from registry.models import Registration
from tests.actors import ALICE, BOBS_PASSWORD
from tests.certificates.disconnects import age_orders, takeover_at
from tests.http.broker import Broker, broker_by, services_of
from tests.http.callers import Caller, basic
from tests.http.plugin import report as plugin_report
from tests.live_clients import OTHER_BOOT, age_reports, connected, report
from tests.registry.signing import new_key
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
    assert status_here(services).database.reachable
    with database_gone(settings):
        status = status_here(services)
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
    client.application.extensions[EXTENSION] = replace(services, policy=PolicyCache())
    answer = client.get("/readyz")
    assert (answer.status_code, answer.get_json()["database"]) == (503, "ok")
    assert (answer.get_json()["policy"], answer.get_json()["snapshotAgeSeconds"]) == ("loading", None)


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
        "authsvc_credential_cache_lookups_total",
        "authsvc_credential_cache_entries",
        "authsvc_answer_cache_lookups_total",
        "authsvc_answer_cache_entries",
        "authsvc_hashing_running",
        "authsvc_hashing_waiting",
        "authsvc_hashing_refused_total",
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
    hits = _value(client, "authsvc_credential_cache_lookups_total", outcome="hit")
    misses = _value(client, "authsvc_credential_cache_lookups_total", outcome="miss")
    broker.logs_in("bob", BOBS_PASSWORD)
    assert _value(client, "authsvc_credential_cache_lookups_total", outcome="hit") == hits + 1
    assert _value(client, "authsvc_credential_cache_lookups_total", outcome="miss") == misses


def test_repeated_acl_request_counts_as_a_cache_hit(client: FlaskClient, broker: Broker) -> None:
    def counts() -> list[float]:
        lookups = [_value(client, "authsvc_answer_cache_lookups_total", outcome=outcome) for outcome in ("hit", "miss")]
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


def test_requests_are_counted_by_method_route_and_status(client: FlaskClient, anonymous: Caller) -> None:
    labels = {"method": "DELETE", "route": "/api/users/{username}", "status": "401"}
    before = _value(client, "authsvc_http_requests_total", **labels)
    timed = _value(client, "authsvc_http_request_seconds_count", method="DELETE")
    anonymous.delete("/api/users/bob")
    assert _value(client, "authsvc_http_requests_total", **labels) == before + 1
    assert _value(client, "authsvc_http_request_seconds_count", method="DELETE") == timed + 1
    labels = {"method": "GET", "route": "unmatched", "status": "404"}
    before = _value(client, "authsvc_http_requests_total", **labels)
    anonymous.get("/no/such/path")
    assert _value(client, "authsvc_http_requests_total", **labels) == before + 1


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
    expected = {"check", "decision", "reason", "method", "route", "status", "outcome", "le", "queue"}
    assert labels <= expected | {"version", "python", "database"}
    routes = {sample.labels["route"] for sample in _samples(client) if "route" in sample.labels}
    templates = {re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule) for rule in app.url_map.iter_rules()}
    assert routes <= templates | {"unmatched"}


def test_names_follow_the_conventions(client: FlaskClient, services: Services) -> None:
    observe_worker(services)
    families = list(text_string_to_metric_families(client.get("/metrics").text))
    for family in families:
        assert family.documentation, family.name
        assert not any(unit in family.name for unit in ("_ms", "millis", "minutes", "percent")), family.name
        # A counter's samples end in _total; no other kind has this ending.
        totals = [sample.name for sample in family.samples if sample.name.endswith("_total")]
        assert bool(totals) is (family.type == "counter" and bool(family.samples)), family.name
    names = {family.name for family in families if family.name.startswith("authsvc_")}
    assert "authsvc_http_requests" in names
    assert {name for name in names if re.search("_(age|expiry|update)$", name)} == set()


# Metrics that are read from the database at each scrape.


def test_build_is_named(client: FlaskClient) -> None:
    (build,) = [sample for sample in _samples(client) if sample.name == "authsvc_build_info"]
    assert build.labels == {"version": __version__, "python": platform.python_version(), "database": "sqlite"}
    assert build.value == 1


def _stored(client: FlaskClient, name: str) -> float | None:
    """Return the value of a metric without labels; None if it is left out."""
    values = [sample.value for sample in _samples(client) if sample.name == name]
    assert len(values) <= 1
    return values[0] if values else None


def test_expiry_of_authority_certificates_and_crl_is_shown(client: FlaskClient, services: Services) -> None:
    assert _stored(client, "authsvc_crl_next_update_timestamp_seconds") is None
    assert _stored(client, "authsvc_certificate_expiry_timestamp_seconds") is None
    (authority,) = authorities.records()
    assert _stored(client, "authsvc_authority_expiry_timestamp_seconds") == authority.not_after.timestamp()
    policy = authorities.signing_policy(services.settings)
    (crl,) = authorities.revocation_lists(policy)
    shown = _stored(client, "authsvc_crl_next_update_timestamp_seconds")
    assert shown == pytest.approx(crl.next_update.timestamp())
    for username, days in (("carol", 20), ("carol", 40), ("tess", 30)):
        users.change(ALICE, username, {"grant_types": frozenset(GrantType)}, services.hasher)
        certificates.issue(ALICE, username, new_key().public_key(), policy._replace(days=days))
    first = min(record.not_after for record in _certificates() if record.username == "tess")
    assert _stored(client, "authsvc_certificate_expiry_timestamp_seconds") == first.timestamp()
    for record in _certificates():
        if record.username == "tess":
            certificates.revoke(ALICE, record.serial, RevocationReason.UNSPECIFIED)
    latest = max(record.not_after for record in _certificates() if record.username == "carol")
    assert _stored(client, "authsvc_certificate_expiry_timestamp_seconds") == latest.timestamp()


def _certificates() -> list[certificates.CertificateRecord]:
    return certificates.search(certificates.CertificateFilter(), 1, 50).items


def test_brokers_and_their_clients_are_counted(client: FlaskClient) -> None:
    def shown() -> list[float | None]:
        names = ("live_brokers", "silent_brokers", "connected_clients")
        return [_stored(client, f"authsvc_{name}") for name in names]

    assert shown() == [0, 0, 0]
    report(connected(1), connected(2))
    report(connected(1), boot=OTHER_BOOT, name="hall")
    assert shown() == [2, 0, 3]
    age_reports(timedelta(minutes=1))
    assert shown() == [1, 1, 1]


def test_pending_registrations_and_their_age_are_shown(client: FlaskClient) -> None:
    assert _stored(client, "authsvc_registry_pending_registrations") == 0
    assert _stored(client, "authsvc_registry_pending_age_seconds") == 0
    with session():
        records.create(records.NewRegistration("new-device", records.RegistrationKind.IMPLICIT), while_locked=True)
        Registration.update(first_seen=database_time() - timedelta(hours=1)).execute()
    assert _stored(client, "authsvc_registry_pending_registrations") == 1
    assert _stored(client, "authsvc_registry_pending_age_seconds") == pytest.approx(3600, abs=60)
    assert _stored(client, "authsvc_registry_unlocked") == 0
    lock.unlock(ALICE, 60, lock.Limits())
    assert _stored(client, "authsvc_registry_unlocked") == 1


def test_open_disconnect_orders_are_shown_if_they_are_carried_out(app: OpenAPI, client: FlaskClient) -> None:
    name = "authsvc_disconnect_order_age_seconds"
    disconnects.order("test", "bob")
    assert _stored(client, name) is None
    app.extensions[EXTENSION] = replace(services_of(app), broker=takeover_at(1))
    assert _stored(client, "authsvc_disconnect_orders") == 1
    age_orders(timedelta(minutes=5))
    assert _stored(client, name) == pytest.approx(300, abs=60)
    with session():
        DisconnectOrder.update(finished_at=database_time()).execute()
    assert (_stored(client, "authsvc_disconnect_orders"), _stored(client, name)) == (0, 0)


def test_unreachable_database_is_a_metric_and_no_error(client: FlaskClient, settings: Settings) -> None:
    assert _stored(client, "authsvc_database_up") == 1
    (settings.data_dir / "authsvc.db").unlink()
    assert _stored(client, "authsvc_database_up") == 0
    assert _stored(client, "authsvc_live_brokers") is None
    assert _stored(client, "authsvc_policy_users") is not None


# Ages of queues, and propagation.


def test_age_of_a_queue_grows_until_it_was_stored(client: FlaskClient, services: Services) -> None:
    def age(queue: str) -> float:
        return _value(client, "authsvc_queue_age_seconds", queue=queue)

    assert (age("denials"), age("client-ids"), age("reports")) == (0, 0, 0)
    with time_machine.travel(datetime.now(UTC) - timedelta(minutes=2)):
        services.denials.note(Denial("bob", "c", "a/b", 1, Reason.NO_PERMISSION))
    services.client_ids.note("bob", "c")
    assert age("denials") == pytest.approx(120, abs=60)
    assert age("client-ids") > 0
    services.denials.store()
    services.client_ids.store()
    assert (age("denials"), age("client-ids")) == (0, 0)


def test_client_ids_that_cannot_be_stored_grow_older(
    services: Services, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    services.client_ids.note("bob", "c")
    services.client_ids.store()
    services.client_ids.note("bob", "other")
    first = services.client_ids.age
    (settings.data_dir / "authsvc.db").unlink()
    with pytest.raises(DATABASE_ERRORS):
        services.client_ids.store()
    assert services.client_ids.age > first > 0


def test_report_ages_while_it_is_stored_and_is_counted() -> None:
    storing, may_end = threading.Event(), threading.Event()

    def store(_report: object) -> None:
        storing.set()
        assert may_end.wait(10)

    receivers = ReportReceivers(store, lambda *_: None, lambda _: None, lambda _: None)
    routes = PluginRoutes(None, None, receivers)  # type: ignore[arg-type]
    counted = _reports("stored")

    async def send() -> None:
        answer = asyncio.ensure_future(routes.report(json.dumps(plugin_report()).encode()))
        await asyncio.to_thread(storing.wait, 10)
        assert routes.report_age > 0
        may_end.set()
        assert (await answer).status == 200

    asyncio.run(send())
    assert routes.report_age == 0
    assert _reports("stored") == counted + 1


def _reports(outcome: str) -> float:
    return REGISTRY.get_sample_value("authsvc_broker_reports_total", {"outcome": outcome}) or 0


def test_propagation_of_a_change_is_timed(client: FlaskClient, alice: Caller) -> None:
    before = _value(client, "authsvc_propagation_seconds_count", outcome="complete")
    alice.creates_user("press-7")
    alice.get("/api/users")
    assert _value(client, "authsvc_propagation_seconds_count", outcome="complete") == before + 1


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


def test_request_opens_one_connection_to_sqlite_and_none_without_sql(
    alice: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[bool] = []
    connect = database.obj.connect

    def counted(*, reuse_if_open: bool) -> bool:
        opened.append(connect(reuse_if_open=reuse_if_open))
        return opened[-1]

    monkeypatch.setattr(database.obj, "connect", counted)
    assert alice.get("/healthz").status_code == 200
    assert opened == []
    assert alice.get("/api/users").status_code == 200
    assert (opened.count(True), len(opened) > 1) == (1, True)
    assert database.is_closed()
