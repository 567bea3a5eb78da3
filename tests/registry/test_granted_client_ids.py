"""Allowed client ids in a grant, and their suggestion."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from registry import records
from tests.http.callers import refused_fields
from tests.registry.environment import BOBS_PASSWORD, ON_BOTH_DATABASES, REGISTRATIONS, events, expect_success

if TYPE_CHECKING:
    from tests.registry.environment import Environment

GRANT_MANY = f"{REGISTRATIONS}/grant"


def _attempts(env: Environment, *client_ids: str) -> records.RegistrationRecord:
    """Let Bob try to connect with each of these client ids; return his registration."""
    env.unlock()
    for client_id in client_ids:
        assert not env.connect("bob", BOBS_PASSWORD, client_id)
    return records.get(env.registration()["id"])


@ON_BOTH_DATABASES
def test_grant_sets_the_allowed_client_ids(env: Environment) -> None:
    registration = _attempts(env, "press-7")
    env.grant_successfully(registration.id, clientIds=["press-7"])
    user = env.user()
    assert user
    assert user["clientIds"] == ["press-7"]
    assert env.connect("bob", BOBS_PASSWORD, "press-7")
    assert env.authenticate("bob", BOBS_PASSWORD, "press-8") == "client-id-not-allowed"
    event = next(event for event in events() if event.action == "registration.grant")
    assert event.after
    assert event.after["clientIds"] == ["press-7"]


def test_grant_without_client_ids_allows_any(env: Environment) -> None:
    env.grant_successfully(_attempts(env, "press-7", "press-7").id)
    assert env.connect("bob", BOBS_PASSWORD, "press-8")


def test_bulk_grant_sets_a_client_id_pattern(env: Environment) -> None:
    registration = _attempts(env, "press-7")
    body = {"ids": [registration.id], "clientIds": ["%u"]}
    answer = env.alice.post(GRANT_MANY, body)
    assert [item["status"] for item in answer.get_json()["items"]] == ["granted"]
    assert not env.connect("bob", BOBS_PASSWORD, "press-7")
    assert env.connect("bob", BOBS_PASSWORD, "bob")


def test_bulk_grant_sets_client_ids_of_each_user(env: Environment) -> None:
    env.unlock()
    for username, client_id in (("bob", "press-7"), ("carol", "press-8"), ("dave", "press-9")):
        env.connect(username, f"{username}'s secret", client_id)
    bob, carol, dave = (env.registration(username)["id"] for username in ("bob", "carol", "dave"))
    body = {"ids": [bob, carol, dave], "clientIds": ["%u"], "clientIdsOf": {bob: ["press-7"], carol: []}}
    assert expect_success(env.alice.post(GRANT_MANY, body))["count"] == 3
    users = [env.user(username) for username in ("bob", "carol", "dave")]
    assert [user["clientIds"] for user in users if user] == [["press-7"], [], ["%u"]]


@pytest.mark.parametrize(
    ("client_ids_of", "refused"),
    [({"somebody else": ["press-7"]}, "body"), ({"ID": ["press-7", "%c"]}, "clientIdsOf.ID[1]")],
)
def test_invalid_client_ids_of_grant_nothing(
    env: Environment, client_ids_of: dict[str, list[str]], refused: str
) -> None:
    registration = _attempts(env, "press-7")
    named = {key.replace("ID", registration.id): value for key, value in client_ids_of.items()}
    answer = env.alice.post(GRANT_MANY, {"ids": [registration.id], "clientIdsOf": named})
    assert refused_fields(answer) == [refused.replace("ID", registration.id)]
    assert env.registration()["status"] == "pending"


def test_invalid_client_id_grants_nothing(env: Environment) -> None:
    registration = _attempts(env, "press-7")
    assert refused_fields(env.grant(registration.id, clientIds=["press-7", "%c"])) == ["clientIds[1]"]
    assert env.registration()["status"] == "pending"


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
def test_client_id_of_two_or_more_equal_attempts_is_suggested(
    env: Environment, client_ids: list[str], suggested: list[str]
) -> None:
    assert _attempts(env, *client_ids).suggested_client_ids == suggested


def test_attempt_with_another_password_adds_no_client_id(env: Environment) -> None:
    registration = _attempts(env, "")
    assert not env.connect("bob", "the attacker's secret", "attacker")
    assert not env.connect("bob", "the attacker's secret", "attacker")
    shown = records.get(registration.id)
    assert (shown.client_ids, shown.suggested_client_ids) == ([], [])
    env.authenticate("bob", "the attacker's secret", "attacker")
    env.authenticate("bob", BOBS_PASSWORD, "press-7")
    env.mqtt.flush()
    assert records.get(registration.id).client_ids == ["press-7"]


def test_first_contact_with_several_passwords_records_client_ids_of_the_stored_password(
    env: Environment,
) -> None:
    for _ in range(2):
        env.authenticate("bob", BOBS_PASSWORD, "press-7")
        env.authenticate("bob", "the attacker's secret", "attacker")
    env.mqtt.flush()
    shown = records.get(env.registration()["id"])
    assert (shown.client_ids, shown.suggested_client_ids) == (["press-7"], [])


def test_no_client_id_is_suggested_after_uncompared_attempts(env: Environment) -> None:
    registration = _attempts(env, "press-7", "press-7")
    assert registration.suggested_client_ids == ["press-7"]
    for password in ("guess number 1", "guess number 2", "guess number 3", BOBS_PASSWORD):
        env.authenticate("bob", password, "attacker")
    env.mqtt.flush()
    shown = records.get(registration.id)
    assert (shown.client_ids, shown.suggested_client_ids) == (["press-7"], [])


def test_rest_request_records_no_client_id(env: Environment) -> None:
    registration = _attempts(env, "press-7")
    assert env.register_pending("bob") == registration.id
    shown = records.get(registration.id)
    assert (shown.attempts, shown.client_ids, shown.suggested_client_ids) == (2, ["press-7"], [])
