"""`/api/audit`: actor, action, time and changed fields of every change, without secrets."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import peewee
import pytest

from authsvc.activity import audit
from authsvc.storage.database import database, transaction
from authsvc.storage.models import AuditEvent
from tests.http.callers import Caller, problem_of, refused_fields
from tests.http.seed_data import ALICES_PASSWORD
from tests.service import permission

if TYPE_CHECKING:
    from werkzeug.test import TestResponse

SECRETS = ["press seven's secret", "press seven's next secret", "$2b$"]


def _latest(alice: Caller, **query: str) -> dict[str, Any]:
    answer = alice.get("/api/audit", query_string={"perPage": "1", **query})
    event: dict[str, Any] = answer.get_json()["items"][0]
    return event


def _creates_press(alice: Caller, **options: Any) -> TestResponse:
    body = {"username": "press-7", "password": SECRETS[0], "roles": ["line"], "permissions": [permission("read a")]}
    answer = alice.post("/api/users", body, **options)
    assert answer.status_code == 201
    return answer


def test_creating_a_user_is_audited_with_actor_way_and_time(alice: Caller) -> None:
    _creates_press(alice, headers={"X-Request-Id": "order-66"})
    event = _latest(alice)
    assert (event["actor"], event["via"], event["address"]) == ("alice", "api", "127.0.0.1")
    assert (event["action"], event["target"], event["requestId"]) == ("user.create", "user:press-7", "order-66")
    assert event["before"] is None
    assert event["after"]["roles"] == ["line"]
    assert event["after"]["permissions"] == [permission("read a")]
    age = datetime.now(UTC) - datetime.fromisoformat(event["at"])
    assert age.total_seconds() < 60


def test_changing_a_user_is_audited_with_the_changed_fields(alice: Caller) -> None:
    _creates_press(alice)
    alice.patch("/api/users/press-7", {"enabled": False, "roles": ["line"]})
    event = _latest(alice)
    assert (event["action"], event["target"]) == ("user.change", "user:press-7")
    assert (event["before"], event["after"]) == ({"enabled": True}, {"enabled": False})


def test_password_change_is_audited_without_the_password(alice: Caller) -> None:
    _creates_press(alice)
    alice.patch("/api/users/press-7", {"password": SECRETS[1]})
    assert _latest(alice)["after"] == {"password": "changed"}
    whole = alice.get("/api/audit?perPage=1000").text
    assert not [secret for secret in SECRETS if secret in whole]


def test_deleting_a_user_is_audited_with_its_last_fields(alice: Caller) -> None:
    _creates_press(alice)
    alice.delete("/api/users/press-7")
    event = _latest(alice)
    assert (event["action"], event["after"]) == ("user.delete", None)
    assert (event["before"]["roles"], event["before"]["enabled"]) == (["line"], True)


def test_role_changes_are_audited(alice: Caller) -> None:
    alice.post("/api/roles", {"name": "queue", "permissions": [permission("read a")]})
    alice.patch("/api/roles/queue", {"description": "waiting"})
    alice.delete("/api/roles/queue")
    items = alice.get("/api/audit?target=role:queue").get_json()["items"]
    assert [event["action"] for event in items] == ["role.delete", "role.change", "role.create"]
    assert (items[1]["before"], items[1]["after"]) == ({"description": ""}, {"description": "waiting"})


def test_token_revocation_is_audited(alice: Caller, charlie: Caller) -> None:
    (item,) = alice.get("/api/tokens?username=charlie").get_json()["items"]
    alice.delete(f"/api/tokens/{item['id']}")
    event = _latest(alice)
    assert (event["action"], event["target"]) == ("token.revoke", f"token:{item['id']}")
    assert event["before"]["username"] == "charlie"


def test_first_start_is_audited_with_the_service_as_actor(alice: Caller) -> None:
    items = alice.get("/api/audit?actor=authsvc").get_json()["items"]
    assert {event["via"] for event in items} == {"service"}
    assert "user:admin" in {event["target"] for event in items}


def test_reads_and_refused_changes_are_not_audited(alice: Caller, charlie: Caller) -> None:
    before = alice.get("/api/audit").get_json()["total"]
    assert alice.get("/api/users").status_code == 200
    assert charlie.get("/api/audit").status_code == 403
    assert alice.post("/api/users", {"username": "bob"}).status_code == 409
    assert alice.delete("/api/users/nemo").status_code == 404
    assert alice.get("/api/audit").get_json()["total"] == before


def test_a_change_without_effect_is_not_audited(alice: Caller) -> None:
    before = alice.get("/api/audit").get_json()["total"]
    assert alice.patch("/api/users/bob", {}).status_code == 200
    assert alice.patch("/api/roles/line", {}).status_code == 200
    assert alice.get("/api/audit").get_json()["total"] == before


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"actor": "alice"}, ["user.delete", "user.change", "user.create", "token.create"]),
        ({"actor": "alice", "action": "user.change"}, ["user.change"]),
        ({"target": "user:press-7"}, ["user.delete", "user.change", "user.create"]),
        ({"target": "user:press-7", "actor": "charlie"}, []),
        ({"action": "no.such.action"}, []),
        ({"target": "user:press-%"}, []),
    ],
)
def test_audit_events_can_be_filtered(anonymous: Caller, query: dict[str, str], expected: list[str]) -> None:
    alice = anonymous.signs_in("alice", ALICES_PASSWORD)
    _creates_press(alice)
    alice.patch("/api/users/press-7", {"enabled": False})
    alice.delete("/api/users/press-7")
    body = alice.get("/api/audit", query_string=query).get_json()
    assert [event["action"] for event in body["items"]] == expected
    assert body["total"] == len(expected)


def test_audit_events_are_listed_newest_first_in_pages(alice: Caller) -> None:
    for number in range(5):
        alice.creates_user(f"press-{number}")
    pages = [
        alice.get(f"/api/audit?actor=alice&action=user.create&perPage=2&page={page}").get_json() for page in (1, 2, 3)
    ]
    targets = [event["target"] for page in pages for event in page["items"]]
    assert targets == [f"user:press-{number}" for number in (4, 3, 2, 1, 0)]
    assert {page["total"] for page in pages} == {5}
    ids = [event["id"] for page in pages for event in page["items"]]
    assert ids == sorted(ids, reverse=True)


@pytest.mark.parametrize(
    ("query", "field"),
    [("actor=%00", "actor"), ("since=today", "since"), ("page=0", "page"), ("action=" + "x" * 201, "action")],
)
def test_an_impossible_filter_is_refused(alice: Caller, query: str, field: str) -> None:
    assert refused_fields(alice.get(f"/api/audit?{query}")) == [field]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_no_http_method_changes_audit_events(alice: Caller, method: str) -> None:
    problem_of(alice.call(method, "/api/audit"), 405, "method-not-allowed")


@pytest.mark.parametrize("statement", ["UPDATE audit_events SET actor = 'nobody'", "DELETE FROM audit_events"])
def test_database_refuses_changes_of_audit_events(alice: Caller, statement: str) -> None:
    alice.creates_user("press-7")
    with pytest.raises(peewee.IntegrityError, match="append-only"), transaction():
        database.execute_sql(statement)
    with transaction():
        assert AuditEvent.select().where(AuditEvent.actor == "alice").count() > 0


def test_a_change_that_cannot_be_audited_is_rolled_back(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise peewee.OperationalError("disk full")

    monkeypatch.setattr(audit, "insert_rows", refuse)
    problem_of(alice.post("/api/users", {"username": "press-7"}), 503, "database-unavailable")
    monkeypatch.undo()
    problem_of(alice.get("/api/users/press-7"), 404, "user-not-found")
