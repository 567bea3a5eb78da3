"""What an administrator does with a registration, and what time does: all of it or nothing, and nothing twice."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

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
    at_once,
    broken,
    done,
    events,
    everything,
    stored,
    time_passes,
)
from tests.registry.signing import signing_request

if TYPE_CHECKING:
    from tests.registry.environment import Place

READS_ORDERS = {"context": "mqtt", "operation": "read", "resource": "orders/%u", "effect": "allow"}
OVER_USERS = {"context": "http", "operation": "write", "resource": "/api/users/#", "effect": "allow"}


def made_of(username: str) -> tuple[int, int]:
    """Return how many users and certificates there are of a name."""
    with session():
        users = User.select().where(User.username == username).count()
        return users, Certificate.select().where(Certificate.username == username).count()


@ON_BOTH_DATABASES
def test_a_grant_gives_what_it_names_and_nothing_else(place: Place) -> None:
    place.unlock()
    registration = place.asks(csr=signing_request("bob"), roles=["admin"], permissions=[OVER_USERS])
    shown = place.granted(registration, roles=["press"], permissions=[READS_ORDERS])
    assert (shown["status"], shown["decidedBy"]) == ("granted", "alice")
    assert shown["decidedAt"]
    user = place.user()
    assert user
    assert (user["roles"], user["permissions"], user["enabled"]) == (["press"], [READS_ORDERS], True)
    assert made_of("bob") == (1, 1)


@ON_BOTH_DATABASES
def test_two_grants_at_once_make_one_user_and_one_certificate(place: Place) -> None:
    place.unlock()
    registration = place.asks(csr=signing_request("bob"))
    answers = at_once(6, lambda _: place.grant(registration).status_code)
    assert sorted(answers) == [200] + [409] * 5
    assert made_of("bob") == (1, 1)
    assert actions().count("registration.grant") == 1


@ON_BOTH_DATABASES
def test_of_a_grant_and_a_denial_at_once_one_is_done(place: Place) -> None:
    place.unlock()
    registration = place.asks(csr=signing_request("bob"))
    answers = at_once(6, lambda number: (place.grant if number % 2 else place.deny)(registration).status_code)
    assert sorted(answers) == [200] + [409] * 5
    assert made_of("bob") == ((1, 1) if place.registration()["status"] == "granted" else (0, 0))


@ON_BOTH_DATABASES
def test_a_user_made_by_hand_and_a_grant_at_once_make_one_user(place: Place) -> None:
    place.unlock()
    registration = place.asks()

    def make(number: int) -> int:
        if number % 2:
            return place.grant(registration).status_code
        return place.alice.post("/api/users", {"username": "bob", "password": "by hand"}).status_code

    answers = at_once(4, make)
    assert [answers.count(409), len(set(answers) & {200, 201})] == [3, 1]
    assert made_of("bob") == (1, 0)
    by_grant = place.registration()["status"] == "granted"
    assert place.connects("bob", BOBS_PASSWORD) is by_grant
    assert place.connects("bob", "by hand") is not by_grant


def test_a_name_that_was_taken_meanwhile_cannot_be_granted(place: Place) -> None:
    place.unlock()
    registration = place.asks()
    place.alice.creates_user("bob", "by hand")
    problem_of(place.grant(registration), 409, "user-exists")
    problem_of(place.registers(), 409, "username-taken")
    assert place.registration()["status"] == "pending"


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
def test_a_grant_that_fails_at_any_step_leaves_nothing_behind(place: Place, table: str, condition: str) -> None:
    place.unlock()
    registration = place.asks(password=BOBS_PASSWORD, csr=signing_request("bob"))
    before = everything()
    with broken(table, condition):
        assert place.grant(registration, roles=["press"]).status_code == 500
    assert everything() == before
    assert not place.connects("bob", BOBS_PASSWORD)
    place.granted(registration, roles=["press"])
    assert place.connects("bob", BOBS_PASSWORD)


@ON_BOTH_DATABASES
def test_an_admission_at_once_that_fails_leaves_nothing_behind_and_costs_nothing(place: Place) -> None:
    keys = "/api/client-registry/enrolment-keys"
    secret = done(place.alice.post(keys, {"label": "hall 3"}))["secret"]
    done(place.alice.post("/api/client-registry/preauthorizations", {"username": "carol"}))
    with broken("audit_events", "NEW.action = 'registration.grant'"):
        assert place.registers("bob", enrolmentKey=secret).status_code == 500
        assert place.registers("carol").status_code == 500
        assert not place.connects("carol", "carol's secret")
    assert place.registrations() == []
    assert done(place.alice.get(keys))["items"][0]["used"] == 0
    assert place.registers("bob", enrolmentKey=secret).status_code == 201
    assert place.registers("carol").status_code == 201


@pytest.mark.parametrize("given", [{"roles": ["admin"]}, {"permissions": [OVER_USERS]}, {"acceptRequested": True}])
@pytest.mark.parametrize("wishes", [{"roles": ["admin"]}, {"permissions": [OVER_USERS]}], ids=["role", "permission"])
def test_charlie_grants_no_rights_that_he_lacks(place: Place, wishes: dict[str, Any], given: dict[str, Any]) -> None:
    place.unlock()
    registration = place.asks(**wishes)
    done(place.charlie.get(REGISTRATIONS))  # a first sign-in from an address is remembered
    before = everything()
    problem_of(place.charlie.post(f"{REGISTRATIONS}/{registration}/grant", given), 403, "beyond-own-rights")
    bulk = done(place.charlie.post(f"{REGISTRATIONS}/grant", {"ids": [registration], **given}))
    assert [one["code"] for one in bulk["failed"]] == ["beyond-own-rights"]
    assert everything() == before
    done(place.charlie.post(f"{REGISTRATIONS}/{registration}/grant", {"roles": ["press"]}))


def test_charlie_grants_no_rights_that_a_window_would_add(place: Place) -> None:
    place.unlock(roles=["press"])
    registration = place.asks()
    place.alice.patch("/api/roles/press", {"permissions": [OVER_USERS]})
    answer = place.charlie.post(f"{REGISTRATIONS}/{registration}/grant", {"acceptHttpRights": True})
    problem_of(answer, 403, "beyond-own-rights")
    assert place.user() is None


@pytest.mark.parametrize(
    ("given", "refused"),
    [
        ({"roles": ["nobody"]}, "roles[0]"),
        ({"permissions": [{**READS_ORDERS, "resource": "a/#/b"}]}, "permissions[0].resource"),
        ({"admin": True}, "admin"),
        ({"acceptRequested": "yes"}, "acceptRequested"),
    ],
)
def test_a_grant_that_makes_no_sense_is_refused(place: Place, given: dict[str, Any], refused: str) -> None:
    place.unlock()
    registration = place.asks()
    assert refused_fields(place.grant(registration, **given)) == [refused]
    assert place.registration()["status"] == "pending"


def test_many_are_granted_each_on_its_own(place: Place) -> None:
    place.unlock()
    bob, carol, dave = (place.asks(name) for name in ("bob", "carol", "dave"))
    place.deny(carol)
    place.alice.creates_user("dave", "by hand")
    answer = done(place.alice.post(f"{REGISTRATIONS}/grant", {"ids": [bob, carol, bob, dave, "x"], "roles": ["press"]}))
    assert [one["username"] for one in answer["items"]] == ["bob"]
    assert {one["id"]: one["code"] for one in answer["failed"]} == {
        carol: "registration-denied",
        dave: "user-exists",
        "x": "registration-not-found",
    }
    user = place.user("bob")
    assert user
    assert user["roles"] == ["press"]


def test_many_are_denied_for_one_reason(place: Place) -> None:
    place.unlock()
    ids = [place.asks(name) for name in ("bob", "carol")]
    answer = done(place.alice.post(f"{REGISTRATIONS}/deny", {"ids": ids, "reason": "not ours"}))
    assert [(one["status"], one["reason"]) for one in answer["items"]] == [("denied", "not ours")] * 2
    assert answer["failed"] == []


@pytest.mark.parametrize("ids", [[], None, "x", [7], ["x"] * 1001])
def test_a_list_of_nobody_or_too_many_is_refused(place: Place, ids: Any) -> None:
    for decision in ("grant", "deny"):
        answer = place.alice.post(f"{REGISTRATIONS}/{decision}", {"ids": ids})
        assert {field.partition("[")[0] for field in refused_fields(answer)} == {"ids"}


def test_a_denial_is_remembered_with_its_reason_whoever_asks(place: Place) -> None:
    registration = place.in_status("denied")
    place.unlock()
    for password in (BOBS_PASSWORD, "another secret"):
        problem_of(place.registers(password=password), 403, "registration-denied")
        assert not place.connects("bob", password)
    shown = place.registration()
    assert (shown["id"], shown["status"], shown["decidedBy"]) == (registration, "denied", "alice")
    row = stored()
    assert row
    assert (row.password_hash, row.public_key) == (None, None)


@ON_BOTH_DATABASES
def test_a_registration_expires_a_day_after_it_was_first_seen_however_often_it_comes_back(place: Place) -> None:
    place.unlock()
    place.asks("bob", csr=signing_request("bob"))
    assert not place.connects("carol", "carol's secret")
    time_passes(timedelta(hours=23))
    assert not place.connects("carol", "carol's secret")
    assert decisions.expire(24) == 0
    time_passes(timedelta(hours=2))
    assert decisions.expire(24) == 2
    assert {one["username"]: one["status"] for one in place.registrations()} == {"bob": "expired", "carol": "expired"}
    row = stored("bob")
    assert row
    assert (row.password_hash, row.public_key) == (None, None)
    assert actions()[-1] == "registration.expire"


@ON_BOTH_DATABASES
def test_time_is_the_databases(place: Place) -> None:
    place.unlock()
    place.asks()
    with time_machine.travel(timedelta(days=30)):
        assert decisions.expire(24) == 0
        assert not done(place.alice.get("/api/client-registry"))["locked"]


def test_what_ran_out_is_forgotten_after_a_week(place: Place) -> None:
    place.in_status("expired")
    time_passes(timedelta(days=6, hours=23))
    decisions.expire(24)
    assert stored()
    time_passes(timedelta(hours=1))
    decisions.expire(24)
    assert stored() is None


def test_every_step_is_in_the_audit_trail_and_no_secret_is(place: Place) -> None:
    place.unlock()
    secret = done(place.alice.post("/api/client-registry/enrolment-keys", {"label": "hall 3"}))["secret"]
    place.registers("erin", enrolmentKey=secret)
    bob, carol, dave = (place.asks(name, context={"note": "confidential"}) for name in ("bob", "carol", "dave"))
    hashes = [row.password_hash for row in map(stored, ("bob", "carol", "dave")) if row]
    place.granted(bob)
    place.deny(carol, reason="not ours")
    place.alice.delete(f"{REGISTRATIONS}/{dave}")
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
