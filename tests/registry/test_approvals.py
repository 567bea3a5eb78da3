"""Confirmation of conflicts and of rights over this service, which is impossible in bulk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import peewee
import pytest

from registry.mqtt_registration.contacts import BURST, ContactWriter
from tests.http.callers import problem_of, refused_fields
from tests.registry.environment import (
    BOBS_PASSWORD,
    ON_BOTH_DATABASES,
    REGISTRATIONS,
    Environment,
    expect_success,
    failing_writes,
    stored_registration,
)
from tests.registry.test_enrolment_keys import KEYS, make_key
from tests.registry.test_preauthorizations import preauthorize

if TYPE_CHECKING:
    from werkzeug.test import TestResponse

UNLOCK = "/api/client-registry/unlock"
READS_ORDERS = {"context": "mqtt", "operation": "read", "resource": "orders/%u", "effect": "allow"}
READS_PLANS = {"context": "mqtt", "operation": "read", "resource": "plans/%u", "effect": "allow"}
OVER_USERS = {"context": "http", "operation": "write", "resource": "/api/users/#", "effect": "allow"}
NOT_OVER_USERS = {**OVER_USERS, "effect": "deny"}
RISKY = pytest.mark.parametrize(
    "wishes", [{"roles": ["admin"]}, {"permissions": [OVER_USERS]}], ids=["role", "permission"]
)


def grant_many(env: Environment, *ids: str, **given: Any) -> tuple[list[str], dict[str, str]]:
    """Let Alice grant registrations in bulk; return the granted names, and the error codes of the others by id."""
    answer = expect_success(env.alice.post(f"{REGISTRATIONS}/grant", {"ids": ids, **given}))
    return [one["username"] for one in answer["items"]], {one["id"]: one["code"] for one in answer["failed"]}


def rights(env: Environment, username: str = "bob") -> tuple[list[str], list[dict[str, str]]]:
    user = env.user(username)
    assert user
    return user["roles"], user["permissions"]


def conflicting(env: Environment, *addresses: str) -> str:
    """Return Bob's registration after attempts with another password from these addresses."""
    env.unlock()
    registration = env.register_pending()
    for address in addresses:
        body = {"username": "bob", "password": "another secret"}
        problem_of(register_from(env, address, body), 409, "username-taken")
    return registration


def register_from(env: Environment, address: str, body: dict[str, Any]) -> TestResponse:
    environment = {"REMOTE_ADDR": address}
    return env.anonymous.call("POST", "/api/client-registry/register", json=body, environ_overrides=environment)


@ON_BOTH_DATABASES
def test_grant_of_a_registration_with_conflicts_needs_accept_conflicts(env: Environment) -> None:
    registration = conflicting(env, "192.0.2.7", "2001:db8::9", "192.0.2.7")
    shown = env.registration()
    assert (shown["conflicts"], shown["conflictAddresses"]) == (3, ["192.0.2.7", "2001:db8::9"])
    problem = problem_of(env.grant(registration), 409, "registration-has-conflicts")
    assert "3 attempts from 192.0.2.7, 2001:db8::9" in problem["detail"]
    assert [one["field"] for one in problem["errors"]] == ["acceptConflicts"]
    assert env.user() is None
    env.grant_successfully(registration, acceptConflicts=True)
    assert env.connect("bob", BOBS_PASSWORD)


def test_conflict_over_mqtt_needs_accept_conflicts(env: Environment) -> None:
    env.unlock()
    env.connect("bob", BOBS_PASSWORD)
    env.connect("bob", "another secret")
    problem = problem_of(env.grant(env.registration()["id"]), 409, "registration-has-conflicts")
    assert "1 attempt under the name bob" in problem["detail"]


def test_address_of_a_conflict_over_mqtt_is_stored(env: Environment) -> None:
    env.unlock()
    env.connect("bob", BOBS_PASSWORD)
    env.mqtt.enqueue(None, "bob", "another secret", "c2", "::ffff:192.0.2.7")
    env.mqtt.flush()
    # It is unknown which of the two came from the address.
    env.mqtt.enqueue(None, "bob", BOBS_PASSWORD, "c1", "192.0.2.1")
    env.mqtt.enqueue(None, "bob", "another secret", "c2", "192.0.2.8")
    env.mqtt.flush()
    shown = env.registration()
    assert (shown["conflicts"], shown["conflictAddresses"]) == (2, ["192.0.2.7"])


@ON_BOTH_DATABASES
def test_first_conflict_is_written_at_once(env: Environment) -> None:
    env.unlock()
    env.register_pending()
    contacts = ContactWriter(clock=lambda: 100.0)

    def add(attempts: int, conflicts: int, address: str) -> None:
        row = stored_registration()
        assert row
        contacts.add(row, attempts, conflicts, address=address)

    for _ in range(BURST + 3):
        add(1, 0, "192.0.2.1")
    assert contacts.unwritten == 1
    add(0, 1, "192.0.2.7")
    assert contacts.unwritten == 0
    shown = env.registration()
    assert (shown["attempts"], shown["conflicts"], shown["conflictAddresses"]) == (BURST + 4, 1, ["192.0.2.7"])
    # The next conflicts are written later, with their addresses.
    add(0, 1, "192.0.2.8")
    add(0, 1, "192.0.2.9")
    assert contacts.unwritten == 1
    assert env.registration()["conflicts"] == 1


def test_first_ten_addresses_of_conflicts_are_stored(env: Environment) -> None:
    conflicting(env, *(f"192.0.2.{number}" for number in range(30)))
    assert env.registration()["conflictAddresses"] == [f"192.0.2.{number}" for number in range(10)]


def test_registration_with_conflicts_cannot_be_granted_in_bulk(env: Environment) -> None:
    bob = conflicting(env, "192.0.2.7")
    carol = env.register_pending("carol")
    assert grant_many(env, bob, carol) == (["carol"], {bob: "registration-has-conflicts"})
    body = {"ids": [bob], "acceptConflicts": True}
    assert refused_fields(env.alice.post(f"{REGISTRATIONS}/grant", body)) == ["acceptConflicts"]


@pytest.mark.parametrize("reason", ["binding-not-met", "tried-before"])
def test_held_registration_needs_a_single_confirmed_grant(env: Environment, reason: str) -> None:
    if reason == "tried-before":
        env.register()
    preauthorize(env, withSecret=reason == "binding-not-met")
    env.unlock()
    bob, carol = env.register_pending("bob"), env.register_pending("carol")
    assert env.registration("bob")["heldReason"] == reason
    assert grant_many(env, bob, carol) == (["carol"], {bob: "registration-held"})
    problem = problem_of(env.grant(bob), 409, "registration-held")
    assert [one["field"] for one in problem["errors"]] == ["acceptConflicts"]
    assert env.user("bob") is None
    env.grant_successfully(bob, acceptConflicts=True)


@ON_BOTH_DATABASES
@RISKY
def test_requested_http_rights_cannot_be_granted_in_bulk(env: Environment, wishes: dict[str, Any]) -> None:
    env.unlock()
    bob, carol = env.register_pending("bob", **wishes), env.register_pending("carol", **wishes)
    expected = dict.fromkeys((bob, carol), "bulk-http-rights")
    assert grant_many(env, bob, carol, acceptRequested=True) == ([], expected)
    assert grant_many(env, bob, acceptRequested=True) == ([], {bob: "bulk-http-rights"})
    assert env.user("bob") is env.user("carol") is None
    body = {"ids": [bob], "acceptHttpRights": True}
    assert refused_fields(env.alice.post(f"{REGISTRATIONS}/grant", body)) == ["acceptHttpRights"]


@RISKY
def test_named_http_rights_cannot_be_granted_in_bulk(env: Environment, wishes: dict[str, Any]) -> None:
    env.unlock()
    bob = env.register_pending("bob")
    assert grant_many(env, bob, **wishes) == ([], {bob: "bulk-http-rights"})
    env.grant_successfully(bob, **wishes)


def test_different_requests_cannot_be_accepted_in_bulk(env: Environment) -> None:
    env.unlock()
    bob, carol = (
        env.register_pending("bob", roles=["press"]),
        env.register_pending("carol", roles=["press"], permissions=[READS_ORDERS]),
    )
    dave = env.register_pending("dave")
    granted, failed = grant_many(env, bob, carol, dave, acceptRequested=True)
    assert (granted, failed) == (["dave"], dict.fromkeys((bob, carol), "bulk-requests-differ"))
    assert grant_many(env, bob, carol, roles=["line"]) == (["bob", "carol"], {})
    assert rights(env, "carol") == (["line"], [])


def test_equal_requests_in_another_order_are_accepted_in_bulk(env: Environment) -> None:
    env.unlock()
    bob = env.register_pending("bob", roles=["press", "line"], permissions=[READS_ORDERS, READS_PLANS])
    carol = env.register_pending("carol", roles=["line", "press", "line"], permissions=[READS_PLANS, READS_ORDERS])
    assert grant_many(env, bob, carol, acceptRequested=True) == (["bob", "carol"], {})
    for name in ("bob", "carol"):
        roles, permissions = rights(env, name)
        assert roles == ["line", "press"]
        assert sorted(one["resource"] for one in permissions) == ["orders/%u", "plans/%u"]


@ON_BOTH_DATABASES
@RISKY
def test_requested_http_rights_need_accept_http_rights(env: Environment, wishes: dict[str, Any]) -> None:
    env.unlock()
    registration = env.register_pending(**wishes)
    problem = problem_of(env.grant(registration, acceptRequested=True), 409, "registration-http-rights")
    assert [one["field"] for one in problem["errors"]] == ["acceptHttpRights"]
    assert env.user() is None
    env.grant_successfully(registration, acceptRequested=True, acceptHttpRights=True)
    assert rights(env) == (wishes.get("roles", []), wishes.get("permissions", []))


@RISKY
def test_http_rights_named_in_the_grant_need_no_confirmation(env: Environment, wishes: dict[str, Any]) -> None:
    env.unlock()
    env.grant_successfully(env.register_pending(**wishes), acceptRequested=True, **wishes)
    assert rights(env) == (wishes.get("roles", []), wishes.get("permissions", []))


def test_accept_http_rights_alone_gives_no_rights(env: Environment) -> None:
    env.unlock()
    env.grant_successfully(env.register_pending(roles=["admin"]), acceptHttpRights=True)
    assert rights(env) == ([], [])


def test_requested_http_deny_rule_needs_no_confirmation(env: Environment) -> None:
    env.unlock()
    bob = env.register_pending(permissions=[NOT_OVER_USERS])
    assert grant_many(env, bob, acceptRequested=True) == (["bob"], {})


@pytest.mark.parametrize("role", ["admin", "minimum-access", "clerk"])
def test_unlock_window_and_enrolment_key_cannot_give_http_rights(env: Environment, role: str) -> None:
    expect_success(env.alice.post("/api/roles", {"name": "clerk", "permissions": [READS_ORDERS, OVER_USERS]}))
    assert refused_fields(env.alice.post(UNLOCK, {"roles": ["press", role]})) == ["roles[1]"]
    assert refused_fields(env.alice.post(KEYS, {"label": "hall 3", "roles": [role]})) == ["roles[0]"]
    assert expect_success(env.alice.get("/api/client-registry"))["locked"]
    assert expect_success(env.alice.get(KEYS))["items"] == []


def test_window_role_that_gained_http_rights_needs_confirmation(env: Environment) -> None:
    env.unlock(roles=["press"])
    bob, carol = env.register_pending("bob"), env.register_pending("carol")
    expect_success(env.alice.patch("/api/roles/press", {"permissions": [OVER_USERS]}))
    problem = problem_of(env.grant(bob), 409, "registration-http-rights")
    assert "press" in problem["detail"]
    assert grant_many(env, bob, carol) == ([], dict.fromkeys((bob, carol), "bulk-http-rights"))
    env.grant_successfully(bob, acceptHttpRights=True)


def test_enrolment_key_whose_role_gained_http_rights_is_refused(env: Environment) -> None:
    secret = make_key(env, roles=["press"])["secret"]
    expect_success(env.alice.patch("/api/roles/press", {"permissions": [OVER_USERS]}))
    problem_of(env.register(enrolmentKey=secret), 409, "registration-http-rights")
    assert env.user() is None
    assert expect_success(env.alice.get(KEYS))["items"][0]["used"] == 0


@ON_BOTH_DATABASES
def test_contact_is_written_after_a_database_error(env: Environment) -> None:
    env.unlock()
    env.register_pending()
    row = stored_registration()
    assert row
    contacts = ContactWriter()
    with failing_writes("registrations", "NEW.username = 'bob'", "UPDATE"):
        for _ in range(2):
            with pytest.raises(peewee.PeeweeException):
                contacts.add(row, 3, 1, ("c2",), "192.0.2.7")
        with pytest.raises(peewee.PeeweeException):
            contacts.flush()
        assert contacts.unwritten == 1
    contacts.flush()
    shown = env.registration()
    assert (shown["attempts"], shown["conflicts"]) == (7, 2)
    assert (shown["clientIds"], shown["conflictAddresses"]) == (["c2"], ["192.0.2.7"])
