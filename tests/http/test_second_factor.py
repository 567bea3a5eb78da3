"""The second factor over REST: set up, asked for, recovered, removed, and required."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import time_machine

from tests.authenticator import Authenticator
from tests.http.callers import Caller, basic, problem_of
from tests.http.conftest import with_services_of
from tests.http.console import error_of, stdout_of
from tests.http.seed_data import ALICES_PASSWORD, CHARLIES_PASSWORD, DOTS_PASSWORD
from tests.registry.signing import signing_request

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flask.testing import FlaskClient
    from flask_openapi3.openapi import OpenAPI
    from werkzeug.test import TestResponse

    from authsvc.settings import Settings
    from authsvc.web.request_context import Services
    from tests.http.broker import Broker
    from tests.http.console import Console

STEP = 30


@pytest.fixture(autouse=True)
def clock() -> Iterator[time_machine.Traveller]:
    """A stopped clock, which a test moves on for the codes of later time steps."""
    with time_machine.travel(1_800_000_000, tick=False) as clock:
        yield clock


class Owner:
    """A user with a second factor: its password, authenticator app and recovery codes."""

    def __init__(self, caller: Caller, username: str, password: str) -> None:
        begun = caller.post("/api/me/otp")
        assert begun.status_code == 201, begun.text
        self.username, self.password, self.client = username, password, caller.client
        self.app = Authenticator(begun.get_json()["secret"])
        confirmed = caller.post("/api/me/otp/confirm", {"otp": self.app.next_code()})
        assert confirmed.status_code == 200, confirmed.text
        self.recovery_codes: list[str] = confirmed.get_json()["recoveryCodes"]

    def login(self, otp: str | None = None, **fields: Any) -> TestResponse:
        """Send a login with this code, or without any."""
        body = {"username": self.username, "password": self.password, **fields}
        return self.client.post("/api/login", json=body if otp is None else body | {"otp": otp})


@pytest.fixture
def charlies(charlie: Caller) -> Owner:
    """Charlie, who has set up a second factor."""
    return Owner(charlie, "charlie", CHARLIES_PASSWORD)


def test_set_up_begins_with_a_uri_and_a_secret(dot: Caller) -> None:
    begun = dot.post("/api/me/otp").get_json()
    assert begun["uri"] == f"otpauth://totp/authsvc:dot?secret={begun['secret']}&issuer=authsvc"
    assert len(begun["secret"]) == 32


def test_unconfirmed_second_factor_is_not_asked_for(dot: Caller) -> None:
    dot.post("/api/me/otp")
    problem_of(dot.post("/api/me/otp/confirm", {"otp": "000000"}), 401, "otp-wrong")
    assert dot.signs_in("dot", DOTS_PASSWORD).get("/api/me/account").get_json()["secondFactor"] is False


def test_confirmation_needs_a_begun_set_up(dot: Caller) -> None:
    problem_of(dot.post("/api/me/otp/confirm", {"otp": "000000"}), 409, "otp-not-begun")


def test_set_up_gives_ten_different_recovery_codes(charlies: Owner) -> None:
    assert len(set(charlies.recovery_codes)) == 10
    assert {len(code) for code in charlies.recovery_codes} == {19}


def test_second_set_up_is_refused(charlie: Caller, charlies: Owner) -> None:
    problem_of(charlie.post("/api/me/otp"), 409, "otp-already-set")
    problem_of(charlie.post("/api/me/otp/confirm", {"otp": charlies.app.code()}), 409, "otp-not-begun")


def test_login_asks_for_the_code(charlies: Owner) -> None:
    problem_of(charlies.login(), 401, "otp-required")
    problem_of(charlies.login(""), 401, "otp-required")
    problem_of(charlies.login(charlies.app.wrong_code()), 401, "otp-wrong")
    problem_of(charlies.login("not a code at all"), 401, "otp-wrong")
    assert charlies.login(charlies.app.next_code()).status_code == 200


def test_wrong_password_is_refused_without_a_word_about_the_second_factor(charlies: Owner) -> None:
    charlies.password = "wrong"
    problem_of(charlies.login(charlies.app.next_code()), 401, "wrong-credentials")


def test_code_is_accepted_once(charlies: Owner, clock: time_machine.Traveller) -> None:
    used_to_confirm = charlies.app.code()
    problem_of(charlies.login(used_to_confirm), 401, "otp-wrong")
    clock.shift(STEP)
    code = charlies.app.code()
    assert charlies.login(code).status_code == 200
    problem_of(charlies.login(code), 401, "otp-wrong")
    clock.shift(STEP)
    problem_of(charlies.login(code), 401, "otp-wrong")


def test_code_may_have_spaces(charlies: Owner) -> None:
    code = charlies.app.next_code()
    assert charlies.login(f" {code[:3]} {code[3:]} ").status_code == 200


@pytest.mark.parametrize(("steps", "accepted"), [(-2, False), (-1, True), (0, True), (1, True), (2, False)])
def test_clock_of_the_phone_may_differ_by_one_step(
    charlies: Owner, clock: time_machine.Traveller, steps: int, accepted: bool
) -> None:
    clock.shift(10 * STEP)
    assert (charlies.login(charlies.app.code(steps)).status_code == 200) == accepted


def test_older_code_is_refused_after_a_newer_one(charlies: Owner, clock: time_machine.Traveller) -> None:
    clock.shift(10 * STEP)
    assert charlies.login(charlies.app.code(1)).status_code == 200
    problem_of(charlies.login(charlies.app.code(0)), 401, "otp-wrong")


def test_recovery_code_is_accepted_once_in_any_spelling(charlies: Owner, alice: Caller) -> None:
    first, second = charlies.recovery_codes[:2]
    token = charlies.login(first.upper().replace("-", " ")).get_json()["token"]
    problem_of(charlies.login(first), 401, "otp-wrong")
    account = Caller(charlies.client, f"Bearer {token}").get("/api/me/account").get_json()
    assert (account["secondFactor"], account["recoveryCodesLeft"]) == (True, 9)
    assert charlies.login(second).status_code == 200
    used = alice.get("/api/audit?action=second-factor.recover").get_json()["items"]
    assert [event["after"] for event in used] == [{"recoveryCodesLeft": 8}, {"recoveryCodesLeft": 9}]


def test_wrong_codes_are_throttled_but_not_recovery_codes(charlies: Owner, clock: time_machine.Traveller) -> None:
    for _ in range(10):
        problem_of(charlies.login(charlies.app.wrong_code()), 401, "otp-wrong")
    clock.shift(STEP)
    refused = charlies.login(charlies.app.next_code())
    problem_of(refused, 429, "too-many-attempts")
    assert int(refused.headers["Retry-After"]) == 30
    clock.shift(STEP)
    problem_of(charlies.login(charlies.app.wrong_code()), 401, "otp-wrong")
    clock.shift(2 * STEP)
    problem_of(charlies.login(charlies.app.next_code()), 429, "too-many-attempts")
    assert charlies.login(charlies.recovery_codes[0]).status_code == 200
    assert charlies.login(charlies.app.next_code()).status_code == 200


def test_day_of_guessing_finds_no_more_than_a_few_dozen_codes_checked(
    charlies: Owner, clock: time_machine.Traveller
) -> None:
    checked = 0
    for _ in range(24 * 4):
        clock.shift(15 * 60)
        checked += charlies.login(charlies.app.wrong_code()).status_code == 401
    assert 24 <= checked <= 10 + 7 + 24


def test_wrong_code_is_a_failed_sign_in_in_the_audit_trail(charlies: Owner, alice: Caller, services: Services) -> None:
    charlies.login(charlies.app.wrong_code())
    services.failed_sign_ins.store()
    (event,) = alice.get("/api/audit?action=sign-in.failed").get_json()["items"]
    assert (event["target"], event["after"]["reason"]) == ("user:charlie", "otp-wrong")


def test_wrong_code_for_the_removal_is_a_failed_sign_in_too(
    charlie: Caller, charlies: Owner, alice: Caller, services: Services
) -> None:
    problem_of(charlie.delete("/api/me/otp", json={"otp": charlies.app.wrong_code()}), 401, "otp-wrong")
    services.failed_sign_ins.store()
    (event,) = alice.get("/api/audit?action=sign-in.failed").get_json()["items"]
    assert (event["target"], event["after"]["reason"]) == ("user:charlie", "otp-wrong")


def test_audit_trail_says_how_somebody_signed_in(charlies: Owner, alice: Caller) -> None:
    charlies.login(charlies.app.next_code(), label="with a code")
    charlies.login(charlies.recovery_codes[0], label="with a recovery code")
    found = alice.get("/api/audit?actor=charlie&action=token.create").get_json()["items"]
    how = {event["after"]["label"]: (event["after"]["signedInBy"], event["after"]["secondFactor"]) for event in found}
    assert how == {
        "": ("password", None),
        "with a code": ("password", "code"),
        "with a recovery code": ("password", "recovery-code"),
    }


def test_http_basic_is_refused_with_a_second_factor_and_tokens_are_not(charlie: Caller, charlies: Owner) -> None:
    by_basic = Caller(charlies.client, basic("charlie", CHARLIES_PASSWORD))
    problem_of(by_basic.get("/api/me"), 401, "otp-required")
    problem_of(by_basic.post("/api/me/otp"), 401, "otp-required")
    assert charlie.get("/api/me").status_code == 200


def test_est_gives_no_certificate_for_a_password_without_the_second_factor(charlies: Owner) -> None:
    for path in ("/.well-known/est/simpleenroll", "/.well-known/est/simplereenroll"):
        answer = charlies.client.post(path, data=signing_request("charlie"), auth=("charlie", CHARLIES_PASSWORD))
        assert answer.status_code == 401


def test_broker_asks_for_no_code(charlies: Owner, broker: Broker) -> None:
    assert broker.logs_in(charlies.username, charlies.password).status == 200


def test_second_factor_is_removed_with_a_code(charlie: Caller, charlies: Owner) -> None:
    problem_of(charlie.delete("/api/me/otp", json={"otp": charlies.app.wrong_code()}), 401, "otp-wrong")
    problem_of(charlies.login(), 401, "otp-required")
    assert charlie.delete("/api/me/otp", json={"otp": charlies.app.next_code()}).status_code == 204
    assert charlies.login().status_code == 200
    problem_of(charlie.delete("/api/me/otp", json={"otp": "123456"}), 404, "otp-not-set")


def test_administrator_removes_the_second_factor_of_a_lost_phone(alice: Caller, charlies: Owner) -> None:
    assert alice.get("/api/users/charlie").get_json()["secondFactor"] is True
    assert alice.delete("/api/users/charlie/otp").status_code == 204
    assert alice.get("/api/users/charlie").get_json()["secondFactor"] is False
    assert charlies.login().status_code == 200
    (event,) = alice.get("/api/audit?action=second-factor.remove").get_json()["items"]
    assert (event["actor"], event["target"]) == ("alice", "user:charlie")
    problem_of(alice.delete("/api/users/charlie/otp"), 404, "otp-not-set")
    problem_of(alice.delete("/api/users/nobody/otp"), 404, "user-not-found")


def test_users_are_filtered_by_their_second_factor(alice: Caller, charlies: Owner) -> None:
    alice.post("/api/me/otp")  # begun, but not finished

    def names(query: str) -> set[str]:
        return {user["username"] for user in alice.get(f"/api/users?{query}").get_json()["items"]}

    assert names("secondFactor=true") == {charlies.username}
    assert names("secondFactor=false&role=admin") == {"admin", "alice"}


def test_bulk_changes_filter_like_the_list(alice: Caller, charlies: Owner) -> None:
    for chosen, changed in (
        ({"secondFactor": True}, [charlies.username]),
        ({"origin": "oidc"}, []),
        ({"origin": "ldap"}, []),
    ):
        answer = alice.post("/api/users/bulk", {"filter": chosen, "action": "enable"})
        assert (answer.status_code, answer.get_json()["usernames"]) == (200, changed)


def test_nobody_removes_the_second_factor_of_a_user_with_more_rights(alice: Caller, charlie: Caller) -> None:
    alices = Owner(alice, "alice", ALICES_PASSWORD)
    problem_of(charlie.delete("/api/users/alice/otp"), 403, "beyond-own-rights")
    problem_of(alices.login(), 401, "otp-required")


def test_nobody_removes_the_own_second_factor_without_a_code(charlie: Caller, charlies: Owner) -> None:
    problem_of(charlie.delete("/api/users/charlie/otp"), 403, "own-second-factor")
    problem_of(charlies.login(), 401, "otp-required")


def test_command_line_removes_a_second_factor(charlies: Owner, console: Console) -> None:
    assert "2nd factor   set" in stdout_of(console.command("users", "show", "charlie"))
    assert "charlie" in stdout_of(console.command("users", "list", "--second-factor"))
    assert "charlie" not in stdout_of(console.command("users", "list", "--no-second-factor"))
    assert stdout_of(console.command("users", "remove-second-factor", "charlie"))
    assert charlies.login().status_code == 200
    assert "there is no second factor" in error_of(console.command("users", "remove-second-factor", "charlie"))


def test_deleted_user_leaves_no_second_factor_to_a_user_of_the_same_name(alice: Caller, charlies: Owner) -> None:
    assert alice.delete("/api/users/charlie").status_code == 204
    alice.creates_user("charlie", CHARLIES_PASSWORD)
    assert charlies.login().status_code == 200


@pytest.fixture
def strict(routes: OpenAPI, seeded: Settings) -> FlaskClient:
    """A client of a service that requires a second factor of each user that may change anything."""
    return with_services_of(routes, replace(seeded, second_factor="required")).test_client()


def test_required_second_factor_is_set_up_before_anything_else(strict: FlaskClient) -> None:
    login = {"username": "charlie", "password": CHARLIES_PASSWORD}
    problem_of(strict.post("/api/login", json=login), 401, "otp-enrolment-required")
    by_basic = Caller(strict, basic("charlie", CHARLIES_PASSWORD))
    for method, path in (("GET", "/api/me"), ("GET", "/api/me/account"), ("GET", "/api/users")):
        problem_of(by_basic.call(method, path), 401, "otp-enrolment-required")
    charlies = Owner(by_basic, "charlie", CHARLIES_PASSWORD)
    problem_of(charlies.login(), 401, "otp-required")
    assert charlies.login(charlies.app.next_code()).status_code == 200


def test_required_second_factor_is_not_required_of_users_who_only_read(strict: FlaskClient) -> None:
    assert strict.post("/api/login", json={"username": "dot", "password": DOTS_PASSWORD}).status_code == 200


def test_tokens_are_accepted_where_a_second_factor_is_required(charlie: Caller, strict: FlaskClient) -> None:
    assert Caller(strict, charlie.headers["Authorization"]).get("/api/users").status_code == 200
