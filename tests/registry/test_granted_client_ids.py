"""A grant can allow only the client id that asked, and suggests it if all attempts came with the same one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from registry import records
from tests.http.callers import refused_fields
from tests.registry.environment import BOBS_PASSWORD, ON_BOTH_DATABASES, REGISTRATIONS, done, events

if TYPE_CHECKING:
    from tests.registry.environment import Place

GRANT_MANY = f"{REGISTRATIONS}/grant"


def _attempts(place: Place, *client_ids: str) -> records.Record:
    """Let Bob try to connect with each of these client ids, and return his registration."""
    place.unlock()
    for client_id in client_ids:
        assert not place.connects("bob", BOBS_PASSWORD, client_id)
    return records.get(place.registration()["id"])


@ON_BOTH_DATABASES
def test_a_grant_restricts_the_user_to_the_client_ids_that_it_names(place: Place) -> None:
    registration = _attempts(place, "press-7")
    place.granted(registration.id, clientIds=["press-7"])
    user = place.user()
    assert user
    assert user["clientIds"] == ["press-7"]
    assert place.connects("bob", BOBS_PASSWORD, "press-7")
    assert place.hears("bob", BOBS_PASSWORD, "press-8") == "client-id-not-allowed"
    event = next(event for event in events() if event.action == "registration.grant")
    assert event.after
    assert event.after["clientIds"] == ["press-7"]


def test_a_grant_that_names_no_client_id_allows_any(place: Place) -> None:
    place.granted(_attempts(place, "press-7", "press-7").id)
    assert place.connects("bob", BOBS_PASSWORD, "press-8")


def test_one_grant_of_many_gives_each_user_its_own_pattern(place: Place) -> None:
    registration = _attempts(place, "press-7")
    body = {"ids": [registration.id], "clientIds": ["%u"]}
    answer = place.alice.post(GRANT_MANY, body)
    assert [item["status"] for item in answer.get_json()["items"]] == ["granted"]
    assert not place.connects("bob", BOBS_PASSWORD, "press-7")
    assert place.connects("bob", BOBS_PASSWORD, "bob")


def test_one_grant_of_many_restricts_each_user_to_its_own_client_id(place: Place) -> None:
    place.unlock()
    for username, client_id in (("bob", "press-7"), ("carol", "press-8"), ("dave", "press-9")):
        place.connects(username, f"{username}'s secret", client_id)
    bob, carol, dave = (place.registration(username)["id"] for username in ("bob", "carol", "dave"))
    body = {"ids": [bob, carol, dave], "clientIds": ["%u"], "clientIdsOf": {bob: ["press-7"], carol: []}}
    assert done(place.alice.post(GRANT_MANY, body))["count"] == 3
    users = [place.user(username) for username in ("bob", "carol", "dave")]
    assert [user["clientIds"] for user in users if user] == [["press-7"], [], ["%u"]]


@pytest.mark.parametrize(
    ("client_ids_of", "refused"),
    [({"somebody else": ["press-7"]}, "body"), ({"ID": ["press-7", "%c"]}, "clientIdsOf.ID[1]")],
)
def test_wrong_client_ids_of_one_registration_grant_nothing(
    place: Place, client_ids_of: dict[str, list[str]], refused: str
) -> None:
    registration = _attempts(place, "press-7")
    named = {key.replace("ID", registration.id): value for key, value in client_ids_of.items()}
    answer = place.alice.post(GRANT_MANY, {"ids": [registration.id], "clientIdsOf": named})
    assert refused_fields(answer) == [refused.replace("ID", registration.id)]
    assert place.registration()["status"] == "pending"


def test_a_wrong_client_id_is_refused_and_grants_nothing(place: Place) -> None:
    registration = _attempts(place, "press-7")
    assert refused_fields(place.grant(registration.id, clientIds=["press-7", "%c"])) == ["clientIds[1]"]
    assert place.registration()["status"] == "pending"


@pytest.mark.parametrize(
    ("client_ids", "suggested"),
    [
        (["press-7", "press-7"], ["press-7"]),
        (["press-7"] * 3, ["press-7"]),
        (["press-7"], []),
        (["press-7", "press-8"], []),
        (["press-7", "press-7", "press-8"], []),
        (["press-7", ""], []),
        (["", ""], []),
        (["*", "*"], []),
        (["%u", "%u"], []),
        (["x" * 200, "x" * 201], []),
    ],
)
def test_a_client_id_is_suggested_if_two_attempts_or_more_came_with_it_and_no_other(
    place: Place, client_ids: list[str], suggested: list[str]
) -> None:
    assert _attempts(place, *client_ids).suggested_client_ids == suggested


def test_an_attempt_with_another_password_chooses_no_client_id(place: Place) -> None:
    registration = _attempts(place, "")
    assert not place.connects("bob", "the attacker's secret", "attacker")
    assert not place.connects("bob", "the attacker's secret", "attacker")
    shown = records.get(registration.id)
    assert (shown.client_ids, shown.suggested_client_ids) == ([], [])
    place.hears("bob", "the attacker's secret", "attacker")
    place.hears("bob", BOBS_PASSWORD, "press-7")
    place.intake.flush()
    assert records.get(registration.id).client_ids == ["press-7"]


def test_the_client_ids_of_a_first_contact_with_several_passwords_are_those_of_the_password_that_counts(
    place: Place,
) -> None:
    for _ in range(2):
        place.hears("bob", BOBS_PASSWORD, "press-7")
        place.hears("bob", "the attacker's secret", "attacker")
    place.intake.flush()
    shown = records.get(place.registration()["id"])
    assert (shown.client_ids, shown.suggested_client_ids) == (["press-7"], [])


def test_no_client_id_is_suggested_after_attempts_that_could_not_be_compared(place: Place) -> None:
    registration = _attempts(place, "press-7", "press-7")
    assert registration.suggested_client_ids == ["press-7"]
    for password in ("guess number 1", "guess number 2", "guess number 3", BOBS_PASSWORD):
        place.hears("bob", password, "attacker")
    place.intake.flush()
    shown = records.get(registration.id)
    assert (shown.client_ids, shown.suggested_client_ids) == (["press-7"], [])


def test_a_request_over_rest_has_no_client_id(place: Place) -> None:
    registration = _attempts(place, "press-7")
    assert place.asks("bob") == registration.id
    shown = records.get(registration.id)
    assert (shown.attempts, shown.client_ids, shown.suggested_client_ids) == (2, ["press-7"], [])
