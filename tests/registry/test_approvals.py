"""What an approval gives is what somebody looked at: conflicts and rights over this service are confirmed singly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import peewee
import pytest

from registry.mqtt_registration.contacts import BURST, Contacts
from tests.http.callers import problem_of, refused_fields
from tests.registry.environment import BOBS_PASSWORD, ON_BOTH_DATABASES, REGISTRATIONS, Place, broken, done, stored
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


def grant_many(place: Place, *ids: str, **given: Any) -> tuple[list[str], dict[str, str]]:
    """Let Alice grant many; return the names that were granted, and by id why others were not."""
    answer = done(place.alice.post(f"{REGISTRATIONS}/grant", {"ids": ids, **given}))
    return [one["username"] for one in answer["items"]], {one["id"]: one["code"] for one in answer["failed"]}


def rights(place: Place, username: str = "bob") -> tuple[list[str], list[dict[str, str]]]:
    user = place.user(username)
    assert user
    return user["roles"], user["permissions"]


def conflicting(place: Place, *addresses: str) -> str:
    """Return the registration of Bob, whose name others tried from these addresses."""
    place.unlock()
    registration = place.asks()
    for address in addresses:
        body = {"username": "bob", "password": "another secret"}
        problem_of(register_from(place, address, body), 409, "username-taken")
    return registration


def register_from(place: Place, address: str, body: dict[str, Any]) -> TestResponse:
    environment = {"REMOTE_ADDR": address}
    return place.stranger.call("POST", "/api/client-registry/register", json=body, environ_overrides=environment)


@ON_BOTH_DATABASES
def test_a_registration_with_conflicts_is_granted_only_by_somebody_who_accepts_them(place: Place) -> None:
    registration = conflicting(place, "192.0.2.7", "2001:db8::9", "192.0.2.7")
    shown = place.registration()
    assert (shown["conflicts"], shown["conflictAddresses"]) == (3, ["192.0.2.7", "2001:db8::9"])
    problem = problem_of(place.grant(registration), 409, "registration-has-conflicts")
    assert "3 attempts from 192.0.2.7, 2001:db8::9" in problem["detail"]
    assert [one["field"] for one in problem["errors"]] == ["acceptConflicts"]
    assert place.user() is None
    place.granted(registration, acceptConflicts=True)
    assert place.connects("bob", BOBS_PASSWORD)


def test_a_conflict_that_came_over_the_broker_counts_too(place: Place) -> None:
    place.unlock()
    place.connects("bob", BOBS_PASSWORD)
    place.connects("bob", "another secret")
    problem = problem_of(place.grant(place.registration()["id"]), 409, "registration-has-conflicts")
    assert "1 attempt under the name bob" in problem["detail"]


def test_the_address_of_a_conflict_that_came_over_the_broker_is_kept(place: Place) -> None:
    place.unlock()
    place.connects("bob", BOBS_PASSWORD)
    place.intake.enqueue(None, "bob", "another secret", "c2", "::ffff:192.0.2.7")
    place.intake.flush()
    # Of these two nobody knows which came from the address.
    place.intake.enqueue(None, "bob", BOBS_PASSWORD, "c1", "192.0.2.1")
    place.intake.enqueue(None, "bob", "another secret", "c2", "192.0.2.8")
    place.intake.flush()
    shown = place.registration()
    assert (shown["conflicts"], shown["conflictAddresses"]) == (2, ["192.0.2.7"])


@ON_BOTH_DATABASES
def test_the_first_conflict_is_seen_at_once_however_much_waits_to_be_written(place: Place) -> None:
    place.unlock()
    place.asks()
    contacts = Contacts(clock=lambda: 100.0)

    def add(attempts: int, conflicts: int, address: str) -> None:
        row = stored()
        assert row
        contacts.add(row, attempts, conflicts, address=address)

    for _ in range(BURST + 3):
        add(1, 0, "192.0.2.1")
    assert contacts.unwritten == 1
    add(0, 1, "192.0.2.7")
    assert contacts.unwritten == 0
    shown = place.registration()
    assert (shown["attempts"], shown["conflicts"], shown["conflictAddresses"]) == (BURST + 4, 1, ["192.0.2.7"])
    # What follows waits, with its addresses.
    add(0, 1, "192.0.2.8")
    add(0, 1, "192.0.2.9")
    assert contacts.unwritten == 1
    assert place.registration()["conflicts"] == 1


def test_the_first_ten_addresses_of_conflicts_are_kept(place: Place) -> None:
    conflicting(place, *(f"192.0.2.{number}" for number in range(30)))
    assert place.registration()["conflictAddresses"] == [f"192.0.2.{number}" for number in range(10)]


def test_a_registration_with_conflicts_is_not_granted_in_bulk(place: Place) -> None:
    bob = conflicting(place, "192.0.2.7")
    carol = place.asks("carol")
    assert grant_many(place, bob, carol) == (["carol"], {bob: "registration-has-conflicts"})
    body = {"ids": [bob], "acceptConflicts": True}
    assert refused_fields(place.alice.post(f"{REGISTRATIONS}/grant", body)) == ["acceptConflicts"]


@pytest.mark.parametrize("reason", ["binding-not-met", "tried-before"])
def test_a_registration_that_may_be_another_device_is_granted_only_singly_and_with_a_confirmation(
    place: Place, reason: str
) -> None:
    if reason == "tried-before":
        place.registers()
    preauthorize(place, withSecret=reason == "binding-not-met")
    place.unlock()
    bob, carol = place.asks("bob"), place.asks("carol")
    assert place.registration("bob")["heldReason"] == reason
    assert grant_many(place, bob, carol) == (["carol"], {bob: "registration-held"})
    problem = problem_of(place.grant(bob), 409, "registration-held")
    assert [one["field"] for one in problem["errors"]] == ["acceptConflicts"]
    assert place.user("bob") is None
    place.granted(bob, acceptConflicts=True)


@ON_BOTH_DATABASES
@RISKY
def test_accepting_in_bulk_what_they_request_gives_nobody_rights_over_this_service(
    place: Place, wishes: dict[str, Any]
) -> None:
    place.unlock()
    bob, carol = place.asks("bob", **wishes), place.asks("carol", **wishes)
    expected = dict.fromkeys((bob, carol), "bulk-http-rights")
    assert grant_many(place, bob, carol, acceptRequested=True) == ([], expected)
    assert grant_many(place, bob, acceptRequested=True) == ([], {bob: "bulk-http-rights"})
    assert place.user("bob") is place.user("carol") is None
    body = {"ids": [bob], "acceptHttpRights": True}
    assert refused_fields(place.alice.post(f"{REGISTRATIONS}/grant", body)) == ["acceptHttpRights"]


@RISKY
def test_in_bulk_rights_over_this_service_are_not_given_by_name_either(place: Place, wishes: dict[str, Any]) -> None:
    place.unlock()
    bob = place.asks("bob")
    assert grant_many(place, bob, **wishes) == ([], {bob: "bulk-http-rights"})
    place.granted(bob, **wishes)


def test_accepting_in_bulk_what_differs_is_refused_for_all_that_request_something(place: Place) -> None:
    place.unlock()
    bob, carol = place.asks("bob", roles=["press"]), place.asks("carol", roles=["press"], permissions=[READS_ORDERS])
    dave = place.asks("dave")
    granted, failed = grant_many(place, bob, carol, dave, acceptRequested=True)
    assert (granted, failed) == (["dave"], dict.fromkeys((bob, carol), "bulk-requests-differ"))
    assert grant_many(place, bob, carol, roles=["line"]) == (["bob", "carol"], {})
    assert rights(place, "carol") == (["line"], [])


def test_accepting_in_bulk_what_is_the_same_in_another_order_is_done(place: Place) -> None:
    place.unlock()
    bob = place.asks("bob", roles=["press", "line"], permissions=[READS_ORDERS, READS_PLANS])
    carol = place.asks("carol", roles=["line", "press", "line"], permissions=[READS_PLANS, READS_ORDERS])
    assert grant_many(place, bob, carol, acceptRequested=True) == (["bob", "carol"], {})
    for name in ("bob", "carol"):
        roles, permissions = rights(place, name)
        assert roles == ["line", "press"]
        assert sorted(one["resource"] for one in permissions) == ["orders/%u", "plans/%u"]


@ON_BOTH_DATABASES
@RISKY
def test_requested_rights_over_this_service_are_given_only_by_somebody_who_accepts_them(
    place: Place, wishes: dict[str, Any]
) -> None:
    place.unlock()
    registration = place.asks(**wishes)
    problem = problem_of(place.grant(registration, acceptRequested=True), 409, "registration-http-rights")
    assert [one["field"] for one in problem["errors"]] == ["acceptHttpRights"]
    assert place.user() is None
    place.granted(registration, acceptRequested=True, acceptHttpRights=True)
    assert rights(place) == (wishes.get("roles", []), wishes.get("permissions", []))


@RISKY
def test_rights_over_this_service_that_the_grant_names_need_no_further_word(
    place: Place, wishes: dict[str, Any]
) -> None:
    place.unlock()
    place.granted(place.asks(**wishes), acceptRequested=True, **wishes)
    assert rights(place) == (wishes.get("roles", []), wishes.get("permissions", []))


def test_accepting_rights_over_this_service_alone_gives_none(place: Place) -> None:
    place.unlock()
    place.granted(place.asks(roles=["admin"]), acceptHttpRights=True)
    assert rights(place) == ([], [])


def test_a_rule_that_denies_something_over_this_service_is_no_right_over_it(place: Place) -> None:
    place.unlock()
    bob = place.asks(permissions=[NOT_OVER_USERS])
    assert grant_many(place, bob, acceptRequested=True) == (["bob"], {})


@pytest.mark.parametrize("role", ["admin", "minimum-access", "clerk"])
def test_no_window_and_no_enrolment_key_gives_rights_over_this_service(place: Place, role: str) -> None:
    done(place.alice.post("/api/roles", {"name": "clerk", "permissions": [READS_ORDERS, OVER_USERS]}))
    assert refused_fields(place.alice.post(UNLOCK, {"roles": ["press", role]})) == ["roles[1]"]
    assert refused_fields(place.alice.post(KEYS, {"label": "hall 3", "roles": [role]})) == ["roles[0]"]
    assert done(place.alice.get("/api/client-registry"))["locked"]
    assert done(place.alice.get(KEYS))["items"] == []


def test_a_window_s_role_that_gains_rights_over_this_service_is_not_given_without_a_word(place: Place) -> None:
    place.unlock(roles=["press"])
    bob, carol = place.asks("bob"), place.asks("carol")
    done(place.alice.patch("/api/roles/press", {"permissions": [OVER_USERS]}))
    problem = problem_of(place.grant(bob), 409, "registration-http-rights")
    assert "press" in problem["detail"]
    assert grant_many(place, bob, carol) == ([], dict.fromkeys((bob, carol), "bulk-http-rights"))
    place.granted(bob, acceptHttpRights=True)


def test_an_enrolment_key_whose_role_gains_rights_over_this_service_lets_nobody_in(place: Place) -> None:
    secret = make_key(place, roles=["press"])["secret"]
    done(place.alice.patch("/api/roles/press", {"permissions": [OVER_USERS]}))
    problem_of(place.registers(enrolmentKey=secret), 409, "registration-http-rights")
    assert place.user() is None
    assert done(place.alice.get(KEYS))["items"][0]["used"] == 0


@ON_BOTH_DATABASES
def test_contact_that_the_database_refuses_is_written_later(place: Place) -> None:
    place.unlock()
    place.asks()
    row = stored()
    assert row
    contacts = Contacts()
    with broken("registrations", "NEW.username = 'bob'", "UPDATE"):
        for _ in range(2):
            with pytest.raises(peewee.PeeweeException):
                contacts.add(row, 3, 1, ("c2",), "192.0.2.7")
        with pytest.raises(peewee.PeeweeException):
            contacts.write()
        assert contacts.unwritten == 1
    contacts.write()
    shown = place.registration()
    assert (shown["attempts"], shown["conflicts"]) == (7, 2)
    assert (shown["clientIds"], shown["conflictAddresses"]) == (["c2"], ["192.0.2.7"])
