"""The audit trail: each change writes one event, which cannot be altered."""

from __future__ import annotations

import json
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import peewee
import pytest
import time_machine

from authsvc.accounts import api_tokens, roles, signing_keys, users
from authsvc.activity import audit
from authsvc.errors import AuthsvcError
from authsvc.storage.database import is_sqlite, session
from authsvc.storage.models import Token
from authsvc.storage.policy_cache import PolicyCache
from tests.actors import ADMIN_PASSWORD, ALICE, BOBS_PASSWORD, CHARLIE, HASHER, http, mqtt
from tests.storage.environment import (
    all_rows,
    change_user,
    create_bob,
    create_role,
    create_user,
    events,
    execute,
    versions,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.usefixtures("prepared")

STATE = mqtt("write", "devices/%u/state")
STATE_FACTS = {"context": "mqtt", "operation": "write", "resource": "devices/%u/state", "effect": "allow"}


class UseCase(NamedTuple):
    """A change by alice, with the action and the beginning of the target of its event."""

    action: str
    target: str
    act: Callable[[], object]


def token_id() -> str:
    with session():
        name: str = Token.get().id
    return name


USE_CASES = [
    UseCase("user.create", "user:bertha", lambda: users.create(ALICE, "bertha", {"permissions": (STATE,)}, HASHER)),
    UseCase("user.change", "user:bob", lambda: change_user("bob", password="next secret", roles=("minimum-access",))),
    UseCase("user.delete", "user:bob", lambda: users.delete(ALICE, "bob")),
    UseCase("role.create", "role:screens", lambda: create_role("screens", STATE)),
    UseCase("role.change", "role:devices", lambda: roles.change(ALICE, "devices", {"permissions": ()})),
    UseCase("role.delete", "role:devices", lambda: roles.delete(ALICE, "devices")),
    UseCase("token.create", "token:", lambda: api_tokens.issue_token(ALICE, "bob", "wall", 12)),
    UseCase("token.revoke", "token:", lambda: api_tokens.revoke_token(ALICE, token_id())),
    UseCase("signing-key.create", "signing-key:", lambda: signing_keys.rotate(ALICE)),
]
each_use_case = pytest.mark.parametrize(
    "use_case", USE_CASES, ids=[f"{n}-{case.action}" for n, case in enumerate(USE_CASES)]
)


@pytest.fixture
def _scene(prepared: object) -> None:
    create_bob(permissions=(STATE,))
    create_role("devices", STATE)
    api_tokens.issue_token(ALICE, "bob", "", 12)


@contextmanager
def audit_table_missing() -> Iterator[None]:
    """Rename the table of events, so that no event can be written."""
    execute("ALTER TABLE audit_events RENAME TO audit_events_away")
    yield
    execute("ALTER TABLE audit_events_away RENAME TO audit_events")


@pytest.mark.usefixtures("_scene")
@each_use_case
def test_each_change_writes_one_event_and_raises_the_version(use_case: UseCase) -> None:
    before, earlier_versions = events(), versions()
    use_case.act()
    *earlier, event = events()
    assert earlier == before
    assert event.action == use_case.action
    assert event.target.startswith(use_case.target)
    assert (event.actor, event.via) == ("alice", "api")
    # A new token raises the token version.
    policy, tokens = earlier_versions
    announced = (policy, tokens + 1) if use_case.action == "token.create" else (policy + 1, tokens)
    assert versions() == announced


@pytest.mark.usefixtures("_scene")
@each_use_case
def test_change_is_rolled_back_if_its_event_cannot_be_written(use_case: UseCase) -> None:
    before = all_rows()
    with audit_table_missing(), pytest.raises(peewee.DatabaseError):
        use_case.act()
    assert all_rows() == before


@pytest.mark.usefixtures("_scene")
def test_events_contain_no_secret() -> None:
    issued = api_tokens.issue_token(ALICE, "bob", "wall", 12)
    change_user("bob", password="bob's next secret")
    change_user("bob", password=None)
    signing_keys.rotate(ALICE)
    policy = PolicyCache()
    policy.catch_up()
    recorded = json.dumps([[event.before, event.after, event.target, event.action] for event in events()])
    for secret in (ADMIN_PASSWORD, BOBS_PASSWORD, "bob's next secret", issued.token, "$2b$", *issued.token.split(".")):
        assert json.dumps(secret)[1:-1] not in recorded
    for key in policy.snapshot.signing_keys.values():
        assert key.secret.hex() not in recorded
    for user in policy.snapshot.users.values():
        assert not any(digest in recorded for digest in user.tokens)


def test_event_has_actor_time_channel_and_address() -> None:
    now = datetime(2026, 11, 20, 8, 0, tzinfo=UTC)
    with time_machine.travel(now, tick=False):
        create_bob()
    event = events()[-1]
    assert (event.at, event.actor, event.via) == (now, "alice", "api")
    assert (event.address, event.request_id) == ("192.0.2.1", "request-1")


def test_events_of_creation_and_deletion_contain_all_fields() -> None:
    create_bob(permissions=(STATE,), roles=("minimum-access",))
    users.delete(ALICE, "bob")
    created, deleted = events()[-2:]
    facts = {
        "enabled": True,
        "grantTypes": ["password"],
        "roles": ["minimum-access"],
        "permissions": [STATE_FACTS],
        "clientIds": [],
        "hasPassword": True,
    }
    assert (created.before, created.after) == (None, facts)
    assert (deleted.before, deleted.after) == (facts, None)


@pytest.mark.parametrize(
    ("changes", "before", "after"),
    [
        ({"enabled": False}, {"enabled": True}, {"enabled": False}),
        ({"permissions": (STATE,)}, {"permissions": []}, {"permissions": [STATE_FACTS]}),
        ({"password": "bob's next secret"}, {}, {"password": "changed"}),
        ({"password": None}, {"hasPassword": True}, {"hasPassword": False}),
    ],
)
def test_event_of_a_user_change_contains_the_changed_fields(
    changes: dict[str, Any], before: dict[str, Any], after: dict[str, Any]
) -> None:
    create_bob()
    change_user("bob", **changes)
    event = events()[-1]
    assert (event.before, event.after) == (before, after)


def test_event_of_a_role_change_contains_the_changed_fields() -> None:
    create_role("devices", description="old")
    roles.change(ALICE, "devices", {"description": "new", "permissions": (STATE,)})
    event = events()[-1]
    assert event.before == {"description": "old", "permissions": []}
    assert event.after == {"description": "new", "permissions": [STATE_FACTS]}


@pytest.mark.usefixtures("_scene")
def test_refused_change_writes_no_event() -> None:
    before = all_rows()
    for attempt in (
        create_bob,
        lambda: create_user("x\n"),
        lambda: change_user("charlie", enabled=False),
        lambda: create_role("devices"),
        lambda: api_tokens.revoke_token(ALICE, "none"),
        lambda: users.create(CHARLIE, "bertha", {"permissions": (http("read", "/#"),)}, HASHER),
    ):
        with pytest.raises(AuthsvcError):
            attempt()
    assert all_rows() == before


@pytest.mark.usefixtures("_scene")
def test_database_refuses_to_change_or_delete_events() -> None:
    before = all_rows()
    statements = [
        "UPDATE audit_events SET actor = 'nobody'",
        "DELETE FROM audit_events",
        "DELETE FROM audit_events WHERE id = 1",
    ]
    if not is_sqlite():
        statements += [
            "TRUNCATE audit_events",
            "INSERT INTO audit_events SELECT * FROM audit_events ON CONFLICT (id) DO UPDATE SET actor = 'nobody'",
        ]
    for statement in statements:
        with pytest.raises(peewee.DatabaseError, match="append-only"):
            execute(statement)
    assert all_rows() == before


def test_events_are_listed_newest_first_and_filtered() -> None:
    create_bob()
    users.create(CHARLIE, "bertha", {}, HASHER)
    change_user("bob", enabled=False)

    def listed(**filters: Any) -> list[tuple[str, str, str]]:
        return [
            (event.actor, event.action, event.target)
            for event in audit.events(1, 3, audit.AuditFilter(**filters)).items
        ]

    bob_changed = ("alice", "user.change", "user:bob")
    bertha_made = ("charlie", "user.create", "user:bertha")
    bob_made = ("alice", "user.create", "user:bob")
    assert listed() == [bob_changed, bertha_made, bob_made]
    assert listed(actor="charlie") == [bertha_made]
    assert listed(actor="alice", action="user.create") == [bob_made]
    assert listed(target="user:bob") == [bob_changed, bob_made]
    assert listed(target="user:%") == []
    second = audit.events(2, 2, audit.AuditFilter(actor="alice"))
    assert (second.total, second.items) == (2, [])


def test_events_are_filtered_by_the_beginning_of_a_text_and_by_time() -> None:
    create_bob()
    users.create(CHARLIE, "bobby", {}, HASHER)
    users.create(CHARLIE, "BOBS", {}, HASHER)

    def targets(**filters: Any) -> list[str]:
        found = audit.AuditFilter(action="user.create", **filters)
        return [event.target for event in audit.events(1, 50, found).items if event.actor in ("alice", "charlie")]

    assert targets(target="user:bob*") == ["user:bobby", "user:bob"]
    assert targets(target="user:b*", actor="char*") == ["user:bobby"]
    assert targets(target="*") == ["user:BOBS", "user:bobby", "user:bob"]
    assert targets(target="user:%*") == targets(target="user:_*") == []
    created = {event.target: event.at for event in audit.events(1, 50, audit.AuditFilter()).items}
    second = created["user:bobby"]
    assert targets(after=second) == ["user:BOBS", "user:bobby"]
    assert targets(before=second) == ["user:bob"]
    assert targets(after=second, before=second) == []


def test_export_yields_every_matching_event_once_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "_BATCH", 3)
    for number in range(7):
        audit.record(ALICE, "test.export", f"user:{number}")
    newest_first = [f"user:{number}" for number in reversed(range(7))]
    wanted = audit.AuditFilter(action="test.export")
    assert [event.target for event in audit.export(wanted)] == newest_first
    monkeypatch.setattr(audit, "MAX_EXPORTED", 4)
    assert [event.target for event in audit.export(wanted)] == newest_first[:4]
    assert list(audit.export(audit.AuditFilter(action="test.nothing"))) == []


def test_actions_are_listed_once_each() -> None:
    create_bob()
    audit.record(ALICE, "a.first", "user:bob")
    audit.record(ALICE, "a.first", "user:bob")
    found = audit.actions()
    assert found == sorted(set(found))
    assert found[0] == "a.first"
    assert "user.create" in found


def test_first_start_writes_events() -> None:
    first = events()
    assert {(event.actor, event.via) for event in first} == {("authsvc", "service")}
    assert {"signing-key.create", "user.create"} <= {event.action for event in first}
