"""Grants given in advance: the first contact of a name is let in at once, also while the registry is locked; once."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.http.callers import problem_of, refused_fields
from tests.registry.environment import (
    BOBS_PASSWORD,
    ON_BOTH_DATABASES,
    actions,
    at_once,
    done,
    expire,
    time_passes,
    with_settings,
)
from tests.registry.signing import new_key, signing_request, spki

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

    from tests.registry.environment import Place

ADVANCES = "/api/client-registry/preauthorizations"
READS_ORDERS = {"context": "mqtt", "operation": "read", "resource": "orders/%u", "effect": "allow"}


def preauthorize(place: Place, username: str = "bob", **fields: Any) -> dict[str, Any]:
    return done(place.alice.post(ADVANCES, {"username": username, **fields}))


def waiting(place: Place) -> list[str]:
    """Return the names that are preauthorized and did not come yet."""
    return [one["username"] for one in done(place.alice.get(ADVANCES))["items"]]


def fingerprint(key: EllipticCurvePrivateKey) -> str:
    return hashlib.sha256(spki(key.public_key())).hexdigest()


@ON_BOTH_DATABASES
def test_a_device_is_in_at_its_second_attempt(place: Place) -> None:
    preauthorize(place, roles=["press"], permissions=[READS_ORDERS])
    assert not place.connects("bob", BOBS_PASSWORD, "press-7")
    assert place.connects("bob", BOBS_PASSWORD, "press-7")
    user = place.user()
    assert user
    assert (user["roles"], user["permissions"]) == (["press"], [READS_ORDERS])
    shown = place.registration()
    assert (shown["kind"], shown["status"], shown["clientIds"]) == ("implicit", "granted", ["press-7"])
    assert not shown["recordedWhileLocked"]
    assert waiting(place) == []


@ON_BOTH_DATABASES
def test_a_client_is_in_at_once(place: Place) -> None:
    preauthorize(place, roles=["press"])
    answer = place.registers(csr=signing_request("bob"), roles=["admin"])
    assert answer.status_code == 201
    assert "BEGIN CERTIFICATE" in answer.get_json()["certificate"]
    user = place.user()
    assert user
    assert user["roles"] == ["press"]


def test_it_is_good_for_one(place: Place) -> None:
    preauthorize(place)
    assert place.registers().status_code == 201
    assert place.alice.delete("/api/users/bob").status_code == 204
    problem_of(place.registers(), 423, "registry-locked")


@ON_BOTH_DATABASES
def test_of_many_at_once_one_gets_it(place: Place) -> None:
    preauthorize(place)
    passwords = [f"secret number {number}" for number in range(8)]
    answers = at_once(8, lambda number: place.registers(password=passwords[number]))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7
    assert [place.connects("bob", password) for password in passwords].count(True) == 1


def test_a_first_contact_with_several_passwords_waits_for_approval(place: Place) -> None:
    preauthorize(place, roles=["press"])
    place.hears("bob", BOBS_PASSWORD)
    place.hears("bob", "charlie's secret")
    assert place.connects("bob", BOBS_PASSWORD) is False
    assert place.connects("bob", BOBS_PASSWORD) is False
    shown = place.registration()
    assert (shown["status"], shown["heldReason"], shown["startingRoles"]) == ("pending", "conflicts", ["press"])
    problem_of(place.grant(shown["id"]), 409, "registration-has-conflicts")
    place.granted(shown["id"], acceptConflicts=True)
    assert place.connects("bob", BOBS_PASSWORD) is True


def test_one_for_a_key_is_for_that_key_alone(place: Place) -> None:
    key = new_key()
    preauthorize(place, csrFingerprint=fingerprint(key))
    problem_of(place.registers(csr=signing_request("bob")), 423, "registry-locked")
    problem_of(place.registers(password=BOBS_PASSWORD), 423, "registry-locked")
    assert place.registers(csr=signing_request("bob", key)).status_code == 201


def test_one_for_a_key_does_not_let_in_a_password(place: Place) -> None:
    preauthorize(place, csrFingerprint=fingerprint(new_key()))
    assert not place.connects("bob", BOBS_PASSWORD)
    assert not place.connects("bob", BOBS_PASSWORD)
    assert place.registration()["status"] == "pending"
    assert place.registration()["recordedWhileLocked"]


def test_one_that_ran_out_lets_nobody_in(place: Place) -> None:
    preauthorize(place, expiresAt=(datetime.now(UTC) + timedelta(hours=1)).isoformat())
    preauthorize(place, "carol", expiresAt=(datetime.now(UTC) + timedelta(hours=3)).isoformat())
    time_passes(timedelta(hours=2))
    problem_of(place.registers(), 423, "registry-locked")
    assert place.registers("carol").status_code == 201


def test_one_can_be_taken_back(place: Place) -> None:
    advance = preauthorize(place)
    assert place.alice.delete(f"{ADVANCES}/{advance['id']}").status_code == 204
    problem_of(place.registers(), 423, "registry-locked")
    problem_of(place.alice.delete(f"{ADVANCES}/{advance['id']}"), 404, "preauthorization-not-found")
    assert actions()[-2:] == ["preauthorization.create", "preauthorization.delete"]


@pytest.mark.parametrize("status", ["pending", "granted", "denied"])
def test_a_name_that_is_taken_or_decided_on_gets_none(place: Place, status: str) -> None:
    place.in_status(status)
    problem_of(place.alice.post(ADVANCES, {"username": "bob"}), 409, "username-taken")
    problem_of(place.alice.post(ADVANCES, {"username": "alice"}), 409, "username-taken")


def test_a_name_gets_no_second_one(place: Place) -> None:
    preauthorize(place)
    problem_of(place.alice.post(ADVANCES, {"username": "bob"}), 409, "username-taken")


@pytest.mark.parametrize("status", ["expired", "user deleted"])
def test_a_name_that_may_ask_anew_may_be_preauthorized_and_then_needs_an_approval(place: Place, status: str) -> None:
    place.in_status("expired" if status == "expired" else "granted")
    place.alice.delete("/api/users/bob")
    place.lock()
    preauthorize(place)
    assert place.registers().status_code == 202
    place.granted(place.registration()["id"], acceptConflicts=True)
    assert place.registers().status_code == 201


def test_one_that_ran_out_can_be_given_anew(place: Place) -> None:
    preauthorize(place, expiresAt=(datetime.now(UTC) + timedelta(hours=1)).isoformat())
    time_passes(timedelta(hours=2))
    preauthorize(place)


@with_settings(registry_max_pending=1)
def test_those_who_are_preauthorized_stand_in_no_line(place: Place) -> None:
    preauthorize(place)
    preauthorize(place, "dave")
    place.unlock()
    place.asks("carol")
    assert place.registers().status_code == 201
    assert not place.connects("dave", "dave's secret")
    assert place.connects("dave", "dave's secret")


@pytest.mark.parametrize(
    ("fields", "refused"),
    [
        ({"username": "b/#"}, "username"),
        ({"roles": ["nobody"]}, "roles[0]"),
        ({"csrFingerprint": "AB" * 32}, "csrFingerprint"),
        ({"csrFingerprint": "ab"}, "csrFingerprint"),
        ({"expiresAt": "never"}, "expiresAt"),
        ({"permissions": [{"context": "mqtt", "operation": "read", "resource": "a/#/b"}]}, "permissions[0].resource"),
    ],
)
def test_one_that_makes_no_sense_is_refused(place: Place, fields: dict[str, Any], refused: str) -> None:
    assert refused_fields(place.alice.post(ADVANCES, {"username": "bob", **fields})) == [refused]
    assert waiting(place) == []


def test_charlie_gives_no_rights_in_advance_that_he_lacks(place: Place) -> None:
    over_users = {"context": "http", "operation": "write", "resource": "/api/users/#"}
    for given in ({"roles": ["admin"]}, {"permissions": [over_users]}):
        problem_of(place.charlie.post(ADVANCES, {"username": "bob", **given}), 403, "beyond-own-rights")
    assert waiting(place) == []
    done(place.charlie.post(ADVANCES, {"username": "bob", "roles": ["press"]}))


def test_one_whose_role_was_deleted_keeps_nobody_else_out(place: Place) -> None:
    preauthorize(place, roles=["press"])
    assert place.alice.delete("/api/roles/press").status_code == 204
    place.hears("bob", BOBS_PASSWORD)
    place.hears("carol", "carol's secret")
    place.writes_down()
    assert place.registration("carol")["status"] == "pending"


def test_an_expired_registration_makes_way_for_the_grant_in_advance(place: Place) -> None:
    preauthorize(place, csrFingerprint=fingerprint(key := new_key()))
    assert not place.connects("bob", BOBS_PASSWORD)
    expire()
    assert place.registers(csr=signing_request("bob", key)).status_code == 201
