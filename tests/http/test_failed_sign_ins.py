"""Failed sign-ins and refused logins in the log and the audit trail."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from authsvc.activity import failed_sign_ins
from authsvc.observability.log_limit import LogLimit
from authsvc.storage.database import session
from authsvc.storage.models import AuditEvent
from tests.http.callers import Caller, basic

if TYPE_CHECKING:
    from flask.testing import FlaskClient

    from authsvc.web.request_context import Services
    from tests.http.broker import Broker

SECRET = "tr0ub4dor"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def events(services: Services) -> list[tuple[str, str | None, Any]]:
    """Store the failures, as the background thread does; return target, address and reason of each event."""
    services.failed_sign_ins.store()
    with session():
        rows = list(AuditEvent.select().where(AuditEvent.action == failed_sign_ins.ACTION).order_by(AuditEvent.id))
    assert not any(SECRET in str(row.__data__) for row in rows)
    return [(row.target, row.address, row.after["reason"]) for row in rows]


@pytest.fixture
def clock(services: Services) -> Clock:
    clock = Clock()
    services.failed_sign_ins._limit = LogLimit(100, clock)
    return clock


# Sign-ins.


def test_failed_sign_in_is_recorded_with_name_address_and_reason(client: FlaskClient, services: Services) -> None:
    from_elsewhere = {"REMOTE_ADDR": "192.0.2.7"}
    with capture_logs() as logged:
        client.post("/api/login", json={"username": "bob", "password": SECRET}, environ_base=from_elsewhere)
        client.get("/api/me", headers={"Authorization": basic("nemo", SECRET)}, environ_base=from_elsewhere)
        page = client.get("/admin/sign-in").text
        token = re.search(r'name="csrf_token"[^>]* value="([^"]+)"', page)
        assert token
        form = {"username": "charlie", "password": SECRET, "csrf_token": token[1]}
        client.post("/admin/sign-in", data=form, environ_base={"REMOTE_ADDR": "192.0.2.8"})
    recorded = [
        ("user:bob", "192.0.2.7", "wrong-password"),
        ("user:nemo", "192.0.2.7", "unknown-user"),
        ("user:charlie", "192.0.2.8", "wrong-password"),
    ]
    assert events(services) == recorded
    lines = [line for line in logged if line["event"] == "sign-in failed"]
    assert [(f"user:{line['user']}", line["address"], line["reason"]) for line in lines] == recorded
    assert SECRET not in str(logged)


def test_disabled_user_is_recorded_as_disabled_and_answered_like_any_other(
    anonymous: Caller, alice: Caller, services: Services
) -> None:
    alice.patch("/api/users/bob", {"enabled": False})
    services.policy.catch_up()
    answers = [
        anonymous.post("/api/login", {"username": name, "password": SECRET}).get_json()["detail"]
        for name in ("bob", "nemo")
    ]
    assert answers[0] == answers[1]
    assert [reason for _, _, reason in events(services)] == ["user-disabled", "unknown-user"]


def test_name_and_address_are_recorded_once_a_minute(anonymous: Caller, services: Services, clock: Clock) -> None:
    for _ in range(3):
        anonymous.post("/api/login", {"username": "bob", "password": SECRET})
    assert len(events(services)) == 1
    clock.now = 60.0
    anonymous.post("/api/login", {"username": "bob", "password": SECRET})
    assert len(events(services)) == 2
    with session():
        *_, last = AuditEvent.select().where(AuditEvent.action == failed_sign_ins.ACTION)
    assert last.after["notRecordedBefore"] == 2


def test_names_are_truncated_and_escaped(anonymous: Caller, services: Services) -> None:
    for name in ("a\u202eb", "c\nd", "x" * 200, "\u202e" * 100):
        anonymous.post("/api/login", {"username": name, "password": SECRET})
    names = [target.removeprefix("user:") for target, _, _ in events(services)]
    assert names[:3] == ["a\\u202eb", "c\\nd", "x" * 64]
    assert names[3].isascii()
    assert len(names[3]) == 64


def test_sign_in_beyond_the_limit_is_recorded(anonymous: Caller, services: Services, clock: Clock) -> None:
    services.sign_ins._per_minute = 2
    for _ in range(2):
        anonymous.post("/api/login", {"username": "bob", "password": SECRET})
    clock.now = 60.0
    assert anonymous.post("/api/login", {"username": "bob", "password": SECRET}).status_code == 429
    assert [reason for _, _, reason in events(services)] == ["wrong-password", "too-many-attempts"]


def test_many_names_cause_at_most_100_events_a_minute(services: Services, clock: Clock) -> None:
    for number in range(250):
        services.failed_sign_ins.note(f"name-{number}", "192.0.2.7", "unknown-user")
    assert len(events(services)) == 100
    clock.now = 60.0
    services.failed_sign_ins.note("last", "192.0.2.7", "unknown-user")
    services.failed_sign_ins.store()
    with session():
        last = AuditEvent.get(AuditEvent.target == "user:last")
    assert last.after["notRecordedBefore"] == 150


# Logins over MQTT.


def refused_logins(services: Services) -> list[dict[str, Any]]:
    with capture_logs() as logged:
        services.denials.store()
    assert SECRET not in str(logged)
    return [dict(line) for line in logged if line["event"] == "login over MQTT refused"]


def test_refused_login_is_logged_once_a_minute_for_each_user(broker: Broker, services: Services) -> None:
    for number in range(3):
        broker.ask("user", username="bob", password=f"{SECRET}{number}", clientid="press-7")
    (line,) = refused_logins(services)
    assert (line["log_level"], line["user"], line["client_id"]) == ("info", "bob", "press-7")
    assert (line["reason"], line["count"]) == ("wrong-password", 3)
    broker.ask("user", username="bob", password=SECRET, clientid="press-7")
    broker.ask("user", username="dora", password=SECRET, clientid="press-8")
    assert [line["user"] for line in refused_logins(services)] == ["dora"]


def test_refused_access_is_not_logged_as_a_login(broker: Broker, services: Services) -> None:
    broker.acl("bob", "elsewhere", 2)
    assert refused_logins(services) == []
