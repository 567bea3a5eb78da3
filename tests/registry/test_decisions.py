"""Granting, denying, deleting and expiring registrations."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import peewee
import pytest
import time_machine

from authsvc.storage.database import session
from authsvc.storage.models import Certificate, User
from registry import decisions
from tests.http.callers import problem_of, refused_fields
from tests.registry.environment import (
    BOBS_PASSWORD,
    ON_BOTH_DATABASES,
    REGISTRATIONS,
    actions,
    all_rows,
    events,
    expect_success,
    failing_writes,
    in_parallel,
    shift_time,
    stored_registration,
)
from tests.registry.signing import signing_request

if TYPE_CHECKING:
    from tests.registry.environment import Environment

READS_ORDERS = {"context": "mqtt", "operation": "read", "resource": "orders/%u", "effect": "allow"}
OVER_USERS = {"context": "http", "operation": "write", "resource": "/api/users/#", "effect": "allow"}


def made_of(username: str) -> tuple[int, int]:
    """Return the numbers of users and certificates of a name."""
    with session():
        users = User.select().where(User.username == username).count()
        return users, Certificate.select().where(Certificate.username == username).count()


@ON_BOTH_DATABASES
def test_grant_gives_exactly_the_named_rights(env: Environment) -> None:
    env.unlock()
    registration = env.register_pending(csr=signing_request("bob"), roles=["admin"], permissions=[OVER_USERS])
    shown = env.grant_successfully(registration, roles=["press"], permissions=[READS_ORDERS])
    assert (shown["status"], shown["decidedBy"]) == ("granted", "alice")
    assert shown["decidedAt"]
    user = env.user()
    assert user
    assert (user["roles"], user["permissions"], user["enabled"]) == (["press"], [READS_ORDERS], True)
    assert made_of("bob") == (1, 1)


@ON_BOTH_DATABASES
def test_concurrent_grants_create_one_user_and_one_certificate(env: Environment) -> None:
    env.unlock()
    registration = env.register_pending(csr=signing_request("bob"))
    answers = in_parallel(6, lambda _: env.grant(registration).status_code)
    assert sorted(answers) == [200] + [409] * 5
    assert made_of("bob") == (1, 1)
    assert actions().count("registration.grant") == 1


@ON_BOTH_DATABASES
def test_only_one_of_concurrent_grant_and_denial_succeeds(env: Environment) -> None:
    env.unlock()
    registration = env.register_pending(csr=signing_request("bob"))
    answers = in_parallel(6, lambda number: (env.grant if number % 2 else env.deny)(registration).status_code)
    assert sorted(answers) == [200] + [409] * 5
    assert made_of("bob") == ((1, 1) if env.registration()["status"] == "granted" else (0, 0))


@ON_BOTH_DATABASES
def test_concurrent_user_creation_and_grant_create_one_user(env: Environment) -> None:
    env.unlock()
    registration = env.register_pending()

    def make(number: int) -> int:
        if number % 2:
            return env.grant(registration).status_code
        return env.alice.post("/api/users", {"username": "bob", "password": "by hand"}).status_code

    answers = in_parallel(4, make)
    assert [answers.count(409), len(set(answers) & {200, 201})] == [3, 1]
    assert made_of("bob") == (1, 0)
    by_grant = env.registration()["status"] == "granted"
    assert env.connect("bob", BOBS_PASSWORD) is by_grant
    assert env.connect("bob", "by hand") is not by_grant


def test_registration_cannot_be_granted_if_a_user_has_its_name(env: Environment) -> None:
    env.unlock()
    registration = env.register_pending()
    env.alice.creates_user("bob", "by hand")
    problem_of(env.grant(registration), 409, "user-exists")
    problem_of(env.register(), 409, "username-taken")
    assert env.registration()["status"] == "pending"


@ON_BOTH_DATABASES
@pytest.mark.parametrize(
    ("table", "condition"),
    [
        ("audit_events", "NEW.action = 'registration.grant'"),
        ("certificates", "NEW.username = 'bob'"),
        ("policy_changes", "NEW.name = 'bob'"),
    ],
    ids=["the last step", "the certificate", "the announcement"],
)
def test_failed_grant_is_rolled_back(env: Environment, table: str, condition: str) -> None:
    env.unlock()
    registration = env.register_pending(password=BOBS_PASSWORD, csr=signing_request("bob"))
    before = all_rows()
    with failing_writes(table, condition):
        assert env.grant(registration, roles=["press"]).status_code == 500
    assert all_rows() == before
    assert not env.connect("bob", BOBS_PASSWORD)
    env.grant_successfully(registration, roles=["press"])
    assert env.connect("bob", BOBS_PASSWORD)


@ON_BOTH_DATABASES
def test_failed_grant_by_enrolment_key_is_rolled_back_with_its_use(env: Environment) -> None:
    keys = "/api/client-registry/enrolment-keys"
    secret = expect_success(env.alice.post(keys, {"label": "hall 3"}))["secret"]
    expect_success(env.alice.post("/api/client-registry/preauthorizations", {"username": "carol"}))
    with failing_writes("audit_events", "NEW.action = 'registration.grant'"):
        assert env.register("bob", enrolmentKey=secret).status_code == 500
        assert env.register("carol").status_code == 500
        assert not env.connect("carol", "carol's secret")
    assert env.registrations() == []
    assert expect_success(env.alice.get(keys))["items"][0]["used"] == 0
    assert env.register("bob", enrolmentKey=secret).status_code == 201
    assert env.register("carol").status_code == 201


@pytest.mark.parametrize("given", [{"roles": ["admin"]}, {"permissions": [OVER_USERS]}, {"acceptRequested": True}])
@pytest.mark.parametrize("wishes", [{"roles": ["admin"]}, {"permissions": [OVER_USERS]}], ids=["role", "permission"])
def test_actor_cannot_grant_rights_that_it_lacks(
    env: Environment, wishes: dict[str, Any], given: dict[str, Any]
) -> None:
    env.unlock()
    registration = env.register_pending(**wishes)
    expect_success(env.charlie.get(REGISTRATIONS))  # a first sign-in from an address is remembered
    before = all_rows()
    problem_of(env.charlie.post(f"{REGISTRATIONS}/{registration}/grant", given), 403, "beyond-own-rights")
    bulk = expect_success(env.charlie.post(f"{REGISTRATIONS}/grant", {"ids": [registration], **given}))
    assert [one["code"] for one in bulk["failed"]] == ["beyond-own-rights"]
    assert all_rows() == before
    expect_success(env.charlie.post(f"{REGISTRATIONS}/{registration}/grant", {"roles": ["press"]}))


def test_actor_cannot_grant_starting_rights_that_it_lacks(env: Environment) -> None:
    env.unlock(roles=["press"])
    registration = env.register_pending()
    env.alice.patch("/api/roles/press", {"permissions": [OVER_USERS]})
    answer = env.charlie.post(f"{REGISTRATIONS}/{registration}/grant", {"acceptHttpRights": True})
    problem_of(answer, 403, "beyond-own-rights")
    assert env.user() is None


@pytest.mark.parametrize(
    ("given", "refused"),
    [
        ({"roles": ["nobody"]}, "roles[0]"),
        ({"permissions": [{**READS_ORDERS, "resource": "a/#/b"}]}, "permissions[0].resource"),
        ({"admin": True}, "admin"),
        ({"acceptRequested": "yes"}, "acceptRequested"),
    ],
)
def test_invalid_grant_is_refused(env: Environment, given: dict[str, Any], refused: str) -> None:
    env.unlock()
    registration = env.register_pending()
    assert refused_fields(env.grant(registration, **given)) == [refused]
    assert env.registration()["status"] == "pending"


def test_bulk_grant_reports_each_failure(env: Environment) -> None:
    env.unlock()
    bob, carol, dave = (env.register_pending(name) for name in ("bob", "carol", "dave"))
    env.deny(carol)
    env.alice.creates_user("dave", "by hand")
    answer = expect_success(
        env.alice.post(f"{REGISTRATIONS}/grant", {"ids": [bob, carol, bob, dave, "x"], "roles": ["press"]})
    )
    assert [one["username"] for one in answer["items"]] == ["bob"]
    assert {one["id"]: one["code"] for one in answer["failed"]} == {
        carol: "registration-denied",
        dave: "user-exists",
        "x": "registration-not-found",
    }
    user = env.user("bob")
    assert user
    assert user["roles"] == ["press"]


def test_bulk_grant_reports_what_was_granted_before_the_database_was_lost(
    env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    env.unlock()
    bob, carol, dave = (env.register_pending(name) for name in ("bob", "carol", "dave"))
    grant = decisions.grant

    def lose_database_at_carol(actor: Any, registration_id: str, *arguments: Any) -> Any:
        if registration_id == carol:
            raise peewee.OperationalError
        return grant(actor, registration_id, *arguments)

    monkeypatch.setattr(decisions, "grant", lose_database_at_carol)
    answer = expect_success(env.alice.post(f"{REGISTRATIONS}/grant", {"ids": [bob, carol, dave]}))
    assert [one["username"] for one in answer["items"]] == ["bob"]
    assert [(one["id"], one["code"]) for one in answer["failed"]] == [
        (carol, "database-unavailable"),
        (dave, "database-unavailable"),
    ]
    nothing_done = env.alice.post(f"{REGISTRATIONS}/grant", {"ids": [carol, dave]})
    problem_of(nothing_done, 503, "database-unavailable")


def test_bulk_denial_stores_its_reason(env: Environment) -> None:
    env.unlock()
    ids = [env.register_pending(name) for name in ("bob", "carol")]
    answer = expect_success(env.alice.post(f"{REGISTRATIONS}/deny", {"ids": ids, "reason": "not ours"}))
    assert [(one["status"], one["reason"]) for one in answer["items"]] == [("denied", "not ours")] * 2
    assert answer["failed"] == []


@pytest.mark.parametrize("ids", [[], None, "x", [7], ["x"] * 1001])
def test_empty_or_too_long_list_of_ids_is_refused(env: Environment, ids: Any) -> None:
    for decision in ("grant", "deny"):
        answer = env.alice.post(f"{REGISTRATIONS}/{decision}", {"ids": ids})
        assert {field.partition("[")[0] for field in refused_fields(answer)} == {"ids"}


def test_denied_name_stays_denied_for_every_client(env: Environment) -> None:
    registration = env.create_in_status("denied")
    env.unlock()
    for password in (BOBS_PASSWORD, "another secret"):
        problem_of(env.register(password=password), 403, "registration-denied")
        assert not env.connect("bob", password)
    shown = env.registration()
    assert (shown["id"], shown["status"], shown["decidedBy"]) == (registration, "denied", "alice")
    row = stored_registration()
    assert row
    assert (row.password_hash, row.public_key) == (None, None)


@ON_BOTH_DATABASES
def test_registration_expires_a_day_after_its_first_contact(env: Environment) -> None:
    env.unlock()
    env.register_pending("bob", csr=signing_request("bob"))
    assert not env.connect("carol", "carol's secret")
    shift_time(timedelta(hours=23))
    assert not env.connect("carol", "carol's secret")
    assert decisions.expire(24) == 0
    shift_time(timedelta(hours=2))
    assert decisions.expire(24) == 2
    assert {one["username"]: one["status"] for one in env.registrations()} == {"bob": "expired", "carol": "expired"}
    row = stored_registration("bob")
    assert row
    assert (row.password_hash, row.public_key) == (None, None)
    assert actions()[-1] == "registration.expire"


@ON_BOTH_DATABASES
def test_expiry_uses_the_database_clock(env: Environment) -> None:
    env.unlock()
    env.register_pending()
    with time_machine.travel(timedelta(days=30)):
        assert decisions.expire(24) == 0
        assert not expect_success(env.alice.get("/api/client-registry"))["locked"]


def test_expired_registrations_are_deleted_after_a_week(env: Environment) -> None:
    env.create_in_status("expired")
    shift_time(timedelta(days=6, hours=23))
    decisions.expire(24)
    assert stored_registration()
    shift_time(timedelta(hours=1))
    decisions.expire(24)
    assert stored_registration() is None


def test_every_decision_is_audited_without_secrets(env: Environment) -> None:
    env.unlock()
    secret = expect_success(env.alice.post("/api/client-registry/enrolment-keys", {"label": "hall 3"}))["secret"]
    env.register("erin", enrolmentKey=secret)
    bob, carol, dave = (
        env.register_pending(name, context={"note": "confidential"}) for name in ("bob", "carol", "dave")
    )
    hashes = [row.password_hash for row in map(stored_registration, ("bob", "carol", "dave")) if row]
    env.grant_successfully(bob)
    env.deny(carol, reason="not ours")
    env.alice.delete(f"{REGISTRATIONS}/{dave}")
    trail = events()
    assert [(event.actor, event.action, event.target) for event in trail[-4:]] == [
        ("alice", "user.create", "user:bob"),
        ("alice", "registration.grant", "registration:bob"),
        ("alice", "registration.deny", "registration:carol"),
        ("alice", "registration.delete", "registration:dave"),
    ]
    assert ("authsvc", "registration.grant") in {(event.actor, event.action) for event in trail}
    assert [hashed for hashed in hashes if hashed] == hashes
    for confidential in (*hashes, BOBS_PASSWORD, secret, "confidential", "PRIVATE KEY"):
        assert confidential not in str(trail)
