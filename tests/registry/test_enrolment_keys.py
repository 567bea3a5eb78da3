"""Enrolment keys: secrets that vouch for so many registrations, so that nobody has to stand by an open window."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from authsvc.storage.database import session
from registry.models import EnrolmentKey, Registration
from tests.http.callers import problem_of, refused_fields
from tests.registry.environment import (
    BOBS_PASSWORD,
    ON_BOTH_DATABASES,
    at_once,
    done,
    events,
    time_passes,
    with_settings,
)
from tests.registry.signing import signing_request

if TYPE_CHECKING:
    from tests.registry.environment import Place

KEYS = "/api/client-registry/enrolment-keys"


def make_key(place: Place, **fields: Any) -> dict[str, Any]:
    """Let Alice make a key, and return it with its secret."""
    return done(place.alice.post(KEYS, {"label": "hall 3", **fields}))


def listed(place: Place) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = done(place.alice.get(KEYS))["items"]
    return items


@ON_BOTH_DATABASES
def test_a_key_lets_a_client_in_at_once_while_the_registry_is_locked(place: Place) -> None:
    key = make_key(place, roles=["press"])
    answer = place.registers(enrolmentKey=key["secret"], password=BOBS_PASSWORD, csr=signing_request("bob"))
    assert answer.status_code == 201
    assert "BEGIN CERTIFICATE" in answer.get_json()["certificate"]
    assert place.connects("bob", BOBS_PASSWORD)
    user = place.user()
    assert user
    assert (user["roles"], user["permissions"]) == (["press"], [])
    assert place.registration()["decidedBy"] == "authsvc"


def test_a_key_does_not_grant_what_the_client_asks_for(place: Place) -> None:
    key = make_key(place)
    assert place.registers(enrolmentKey=key["secret"], roles=["admin"]).status_code == 201
    user = place.user()
    assert user
    assert user["roles"] == []


def test_with_approval_required_somebody_still_decides(place: Place) -> None:
    key = make_key(place, roles=["press"], approvalRequired=True)
    registration = place.asks(enrolmentKey=key["secret"])
    assert place.user() is None
    assert place.registration()["startingRoles"] == ["press"]
    assert not place.registration()["recordedWhileLocked"]
    place.granted(registration, roles=["line"])
    user = place.user()
    assert user
    assert user["roles"] == ["line", "press"]


def test_asking_again_costs_no_further_use(place: Place) -> None:
    key = make_key(place, uses=2, approvalRequired=True)
    for _ in range(4):
        place.asks(enrolmentKey=key["secret"])
    assert listed(place)[0]["used"] == 1
    # Who is known needs the key no more.
    assert place.registers().status_code == 202


@ON_BOTH_DATABASES
@pytest.mark.parametrize("approval_required", [False, True])
def test_a_key_for_five_lets_in_exactly_five_of_many(place: Place, approval_required: bool) -> None:
    secret = make_key(place, uses=5, approvalRequired=approval_required)["secret"]
    answers = at_once(15, lambda number: place.registers(f"bob-{number}", enrolmentKey=secret))
    let_in = 202 if approval_required else 201
    assert sorted(answer.status_code for answer in answers) == [let_in] * 5 + [403] * 10
    assert listed(place)[0]["used"] == 5
    assert len(place.registrations()) == 5
    made = [name for name in (f"bob-{number}" for number in range(15)) if place.user(name)]
    assert len(made) == (0 if approval_required else 5)


@ON_BOTH_DATABASES
def test_a_name_that_comes_many_times_at_once_costs_one_use(place: Place) -> None:
    secret, csr = make_key(place, uses=5)["secret"], signing_request("bob")
    answers = at_once(8, lambda _: place.registers(enrolmentKey=secret, csr=csr))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.get_json()["certificate"] for answer in answers}) == 1
    assert listed(place)[0]["used"] == 1


def test_a_key_that_is_used_up_revoked_expired_or_unknown_is_refused_in_the_same_words(place: Place) -> None:
    soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    used_up, revoked, expired = (make_key(place), make_key(place), make_key(place, expiresAt=soon))
    assert place.registers("carol", enrolmentKey=used_up["secret"]).status_code == 201
    assert place.alice.delete(f"{KEYS}/{revoked['id']}").status_code == 204
    time_passes(timedelta(hours=1, seconds=1))
    secrets = [used_up["secret"], revoked["secret"], expired["secret"], "ek_unknown", "", used_up["id"]]
    answers = [place.registers(enrolmentKey=secret) for secret in secrets]
    for answer in answers:
        problem_of(answer, 403, "enrolment-key-invalid")
        assert answer.data == answers[0].data
    assert place.user() is None
    # An open window does not make up for a bad key.
    place.unlock()
    problem_of(place.registers(enrolmentKey="ek_unknown"), 403, "enrolment-key-invalid")


def test_what_was_registered_with_a_key_outlives_it(place: Place) -> None:
    key = make_key(place)
    assert place.registers(enrolmentKey=key["secret"]).status_code == 201
    place.alice.delete(f"{KEYS}/{key['id']}")
    assert place.registers(enrolmentKey=key["secret"]).status_code == 201
    assert place.connects("bob", BOBS_PASSWORD)


@ON_BOTH_DATABASES
def test_a_secret_is_shown_once_and_kept_as_a_digest(place: Place) -> None:
    key = make_key(place, uses=3, roles=["line"])
    secret = key.pop("secret")
    assert listed(place) == [key]
    assert (key["label"], key["uses"], key["used"], key["roles"]) == ("hall 3", 3, 0, ["line"])
    assert (key["createdBy"], key["revoked"], key["expiresAt"]) == ("alice", None, None)
    place.registers(enrolmentKey=secret)
    with session():
        rows = [*EnrolmentKey.select().tuples(), *Registration.select().tuples()]
    assert secret not in str(rows)
    assert secret not in str(events())


def test_the_newest_key_stands_first_also_when_revoked(place: Place) -> None:
    first, second = make_key(place, label="first"), make_key(place, label="second")
    place.alice.delete(f"{KEYS}/{first['id']}")
    assert [(key["label"], key["revoked"] is not None) for key in listed(place)] == [("second", False), ("first", True)]
    problem_of(place.alice.delete(f"{KEYS}/nobody"), 404, "enrolment-key-not-found")
    assert second["revoked"] is None


@pytest.mark.parametrize(
    ("fields", "refused"),
    [
        ({"uses": 0}, "uses"),
        ({"uses": 1_000_001}, "uses"),
        ({"label": ""}, "label"),
        ({"label": "x" * 201}, "label"),
        ({"roles": ["nobody"]}, "roles[0]"),
        ({"expiresAt": "tomorrow"}, "expiresAt"),
        ({"expiresAt": "2026-12-24T18:00:00"}, "expiresAt"),
    ],
)
def test_a_key_that_makes_no_sense_is_refused(place: Place, fields: dict[str, Any], refused: str) -> None:
    assert refused_fields(place.alice.post(KEYS, {"label": "hall 3", **fields})) == [refused]
    assert listed(place) == []


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+10:00", "9999-12-31T23:59:59-10:00"])
def test_an_expiry_at_the_edge_of_the_calendar_is_refused(place: Place, moment: str) -> None:
    assert refused_fields(place.alice.post(KEYS, {"label": "hall 3", "expiresAt": moment})) == ["expiresAt"]


def test_charlie_makes_no_key_to_rights_he_lacks(place: Place) -> None:
    answer = place.charlie.post(KEYS, {"label": "hall 3", "roles": ["admin"]})
    problem_of(answer, 403, "beyond-own-rights")
    assert listed(place) == []
    done(place.charlie.post(KEYS, {"label": "hall 3", "roles": ["press"]}))


def test_a_role_is_not_deleted_from_under_a_key(place: Place) -> None:
    secret = make_key(place, roles=["press"])["secret"]
    place.alice.delete("/api/roles/press")
    assert place.registers(enrolmentKey=secret).status_code == 201


@with_settings(registry_max_pending=1)
def test_registrations_that_wait_for_approval_count_towards_the_same_maximum(place: Place) -> None:
    secret = make_key(place, uses=3, approvalRequired=True)["secret"]
    place.asks("bob-1", enrolmentKey=secret)
    place.asks("bob-2", enrolmentKey=secret)
    assert [one["username"] for one in place.registrations()] == ["bob-2"]
    assert listed(place)[0]["used"] == 2


def test_a_refused_password_costs_no_use(place: Place) -> None:
    secret = make_key(place)["secret"]
    assert refused_fields(place.registers(enrolmentKey=secret, password="1234")) == ["password"]
    assert listed(place)[0]["used"] == 0
