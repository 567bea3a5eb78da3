"""Registration over REST."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from registry.api import routes
from tests.actors import ADMIN_PASSWORD
from tests.http.callers import problem_of
from tests.registry.environment import (
    ALICES_PASSWORD,
    BOBS_PASSWORD,
    ON_BOTH_DATABASES,
    REGISTER,
    REGISTRATIONS,
    actions,
    expire,
    stored_registration,
    with_settings,
)
from tests.registry.signing import new_key, signing_request

if TYPE_CHECKING:
    from tests.registry.environment import Environment

WRITES_ITS_STATE = {"context": "mqtt", "operation": "write", "resource": "presses/bob/state", "effect": "allow"}


def test_unknown_client_gets_423_while_locked(env: Environment) -> None:
    answer = env.register()
    problem_of(answer, 423, "registry-locked")
    assert int(answer.headers["Retry-After"]) > 0
    assert env.registrations() == []


@ON_BOTH_DATABASES
def test_client_registers_is_granted_and_can_connect(env: Environment) -> None:
    env.unlock()
    waiting = env.register(context={"line": 7})
    assert waiting.status_code == 202
    assert int(waiting.headers["Retry-After"]) > 0
    body = waiting.get_json()
    assert set(body) == {"status", "id", "pairingCode"}
    assert body["status"] == "pending"
    assert re.fullmatch("[2-9A-HJ-NP-Z]{6}", body["pairingCode"])
    assert not env.connect("bob", BOBS_PASSWORD)
    env.grant_successfully(body["id"])
    answer = env.register(context={"line": 7})
    assert answer.status_code == 201
    assert answer.get_json() == {"status": "granted", "username": "bob"}
    assert env.connect("bob", BOBS_PASSWORD)


def test_repeated_request_is_the_same_registration(env: Environment) -> None:
    env.unlock()
    first, second = env.register().get_json(), env.register().get_json()
    assert first == second
    shown = env.registration()
    assert shown["attempts"] == 2
    assert shown["conflicts"] == 0
    assert shown["pairingCode"] == first["pairingCode"]
    assert shown["kind"] == "explicit"
    assert not shown["recordedWhileLocked"]


def test_pairing_codes_differ(env: Environment) -> None:
    env.unlock()
    codes = {env.register(f"bob-{number}").get_json()["pairingCode"] for number in range(5)}
    assert len(codes) == 5


@pytest.mark.parametrize(("status", "answered"), [("pending", 202), ("granted", 201), ("denied", 403)])
def test_known_registration_is_answered_while_locked(env: Environment, status: str, answered: int) -> None:
    env.create_in_status(status)
    env.lock()
    assert env.register().status_code == answered


def test_denied_client_gets_403_until_the_registration_is_deleted(env: Environment) -> None:
    registration = env.create_in_status("denied")
    problem_of(env.register(), 403, "registration-denied")
    assert env.alice.delete(f"{REGISTRATIONS}/{registration}").status_code == 204
    assert env.register_pending() != registration


def test_expired_registration_can_be_repeated_with_another_password(env: Environment) -> None:
    expired = env.create_in_status("expired")
    problem_of(env.register(), 423, "registry-locked")
    env.unlock()
    assert env.register_pending(password="another secret") != expired
    assert env.registration()["status"] == "pending"


@ON_BOTH_DATABASES
def test_client_of_a_deleted_user_can_register_again(env: Environment) -> None:
    registration = env.create_in_status("granted")
    assert env.alice.delete("/api/users/bob").status_code == 204
    env.lock()
    problem_of(env.register(), 423, "registry-locked")
    env.unlock()
    assert env.register_pending() != registration
    assert env.user() is None


def test_earlier_client_of_a_name_is_not_the_current_user(env: Environment) -> None:
    env.create_in_status("granted")
    assert env.alice.delete("/api/users/bob").status_code == 204
    env.alice.creates_user("bob", "quite another secret")
    problem_of(env.register(), 409, "username-taken")


def others(key: Any) -> dict[str, dict[str, Any]]:
    """Return credentials of another client."""
    mine = signing_request("bob", key)
    return {
        "another password": {"password": "charlie's secret", "csr": mine},
        "another key": {"password": BOBS_PASSWORD, "csr": signing_request("bob")},
        "the password alone": {"password": BOBS_PASSWORD},
        "the key alone": {"csr": mine},
        "neither": {"password": "charlie's secret", "csr": signing_request("bob")},
    }


@ON_BOTH_DATABASES
@pytest.mark.parametrize("status", ["pending", "granted"])
def test_only_the_same_password_and_key_can_poll(env: Environment, status: str) -> None:
    key = new_key()
    held = {"password": BOBS_PASSWORD, "csr": signing_request("bob", key)}
    env.unlock()
    registration = env.register_pending(**held)
    if status == "granted":
        env.grant_successfully(registration)
    answers = {who: env.register(**brought) for who, brought in others(key).items()}
    # The answer is the same for the name of a user that was created by an administrator.
    env.alice.creates_user("carol", "carol's secret")
    answers["a user's name"] = env.register("carol")
    env.lock()
    answers["while locked"] = env.register(password="charlie's secret")
    for answer in answers.values():
        problem_of(answer, 409, "username-taken")
        assert answer.data == answers["a user's name"].data
        assert "Retry-After" not in answer.headers
    assert env.register(**held).status_code == {"pending": 202, "granted": 201}[status]
    shown = env.registration()
    assert shown["conflicts"] == 6
    assert shown["status"] == status


def test_registration_over_mqtt_can_be_polled_over_rest(env: Environment) -> None:
    env.unlock()
    assert not env.connect("bob", BOBS_PASSWORD)
    answer = env.register()
    assert answer.status_code == 202
    assert "pairingCode" not in answer.get_json()
    problem_of(env.register(password="charlie's secret"), 409, "username-taken")
    env.grant_successfully(env.registration()["id"], acceptConflicts=True)
    assert env.register().status_code == 201


def test_requested_rights_are_shown_and_not_given(env: Environment) -> None:
    env.unlock()
    wishes: dict[str, Any] = {
        "context": {"serial": "A-7", "hall": [1, None]},
        "roles": ["press"],
        "permissions": [WRITES_ITS_STATE],
    }
    registration = env.register_pending(**wishes)
    shown = env.registration()
    assert shown["context"] == wishes["context"]
    assert shown["requestedRoles"] == ["press"]
    assert shown["requestedPermissions"] == [WRITES_ITS_STATE]
    env.grant_successfully(registration)
    user = env.user()
    assert user
    assert (user["roles"], user["permissions"]) == ([], [])


def test_requested_rights_are_given_when_accepted(env: Environment) -> None:
    env.unlock()
    registration = env.register_pending(roles=["press"], permissions=[WRITES_ITS_STATE])
    env.grant_successfully(registration, roles=["line"], acceptRequested=True)
    user = env.user()
    assert user
    assert user["roles"] == ["line", "press"]
    assert user["permissions"] == [WRITES_ITS_STATE]


def test_later_requests_do_not_change_requested_rights(env: Environment) -> None:
    env.unlock()
    registration = env.register_pending(roles=["press"])
    assert env.register_pending(roles=["admin"], context={"late": True}) == registration
    env.grant_successfully(registration, acceptRequested=True)
    user = env.user()
    assert user
    assert user["roles"] == ["press"]


@with_settings(registry_max_pending=2)
@ON_BOTH_DATABASES
def test_new_registration_evicts_the_oldest_with_one_attempt(env: Environment) -> None:
    env.unlock()
    returning = env.register_pending("bob-1")
    assert env.register_pending("bob-1") == returning
    env.register_pending("bob-2")
    newcomer = env.register_pending("bob-3")
    assert {one["username"] for one in env.registrations()} == {"bob-1", "bob-3"}
    env.grant_successfully(newcomer)
    assert env.register_pending("bob-2")
    assert env.register_pending("bob-1") == returning


def test_credentials_are_not_shown(env: Environment) -> None:
    env.unlock()
    registration = env.register_pending(password=BOBS_PASSWORD, csr=signing_request("bob"))
    row = stored_registration()
    assert row
    assert row.password_hash
    assert row.password_hash.startswith("$2")
    for path in (f"{REGISTRATIONS}/{registration}", REGISTRATIONS, "/api/audit"):
        text = env.alice.get(path).text
        assert BOBS_PASSWORD not in text
        assert row.password_hash not in text
        assert "BEGIN" not in text
    assert env.registration()["hasPassword"] is True


def test_key_is_shown_by_its_fingerprint(env: Environment) -> None:
    env.unlock()
    env.register_pending(csr=signing_request("bob"))
    shown = env.registration()
    assert re.fullmatch("[0-9a-f]{64}", shown["csrFingerprint"])
    assert shown["hasPassword"] is False


def test_register_needs_no_authentication_and_ignores_bad_credentials(env: Environment) -> None:
    env.unlock()
    body = {"username": "bob", "password": BOBS_PASSWORD}
    answer = env.anonymous.post(REGISTER, body, headers={"Authorization": "Bearer nonsense"})
    assert answer.status_code == 202


@pytest.mark.parametrize("path", [REGISTRATIONS, "/api/client-registry", "/api/client-registry/preauthorizations"])
def test_all_other_paths_need_authentication(env: Environment, path: str) -> None:
    problem_of(env.anonymous.get(path), 401, "unauthenticated")


def test_first_administrator_cannot_be_registered(env: Environment) -> None:
    env.unlock()
    problem_of(env.register("admin", password=ADMIN_PASSWORD), 409, "username-taken")


def test_pending_registration_writes_no_audit_event(env: Environment) -> None:
    env.unlock()
    env.register_pending()
    assert actions()[-1] == "registry.unlock"
    expire()
    assert actions()[-1] == "registration.expire"


def test_registrations_use_only_their_own_hash_slots(env: Environment) -> None:
    env.unlock()
    waiting = env.register().get_json()
    slots = env.app.extensions[routes.EXTENSION].rest_registration.hash_slots
    number = env.services.settings.threads // 4
    assert [slots.acquire(blocking=False) for _ in range(number + 1)] == [True] * number + [False]
    problem_of(env.register("carl"), 503, "hashing-busy")
    problem_of(env.register(), 503, "hashing-busy")
    assert stored_registration("carl") is None
    assert env.services.sign_ins.with_password("alice", ALICES_PASSWORD, "203.0.113.9").user.username == "alice"
    slots.release(1)
    assert env.register("carl").status_code == 202
    assert env.register().get_json() == waiting
    assert slots.acquire(blocking=False), "slots are free again"
    assert env.register().get_json() == waiting, "a password that proved right before takes no hash"
