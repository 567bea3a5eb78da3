"""What users do with their own account without any permission."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from authsvc.accounts import browser_sessions
from authsvc.accounts.sign_in.methods import How, Method
from authsvc.policy.actors import Actor, Via
from tests.http.callers import Caller, problem_of, refused_fields
from tests.http.conftest import with_services_of
from tests.http.seed_data import DOTS_PASSWORD

if TYPE_CHECKING:
    from flask_openapi3.openapi import OpenAPI

    from authsvc.settings import Settings

NEW = "another secret of dot"


def test_account_says_where_it_comes_from(dot: Caller) -> None:
    assert dot.get("/api/me/account").get_json() == {
        "username": "dot",
        "origin": "administrator",
        "hasPassword": True,
        "secondFactor": False,
        "recoveryCodesLeft": 0,
    }


def test_own_password_is_changed_with_the_present_one(dot: Caller, alice: Caller) -> None:
    wrong = dot.post("/api/me/password", {"currentPassword": "wrong", "password": NEW})
    assert refused_fields(wrong) == ["currentPassword"]
    short = dot.post("/api/me/password", {"currentPassword": DOTS_PASSWORD, "password": "x"})
    assert refused_fields(short) == ["password"]
    assert dot.post("/api/me/password", {"currentPassword": DOTS_PASSWORD, "password": NEW}).status_code == 204
    dot.signs_in("dot", NEW)
    problem_of(
        dot.client.post("/api/login", json={"username": "dot", "password": DOTS_PASSWORD}), 401, "wrong-credentials"
    )
    (event,) = alice.get("/api/audit?action=user.change&target=user:dot").get_json()["items"]
    assert (event["actor"], event["after"]) == ("dot", {"password": "changed"})


def test_own_password_is_changed_in_spite_of_deny_rules(alice: Caller) -> None:
    denied = {"context": "http", "operation": "write", "resource": "/api/roles/#", "effect": "deny"}
    allowed = {"context": "http", "operation": "readWrite", "resource": "/#"}
    alice.creates_user("ernie", "the secret of ernie", permissions=[allowed, denied])
    ernie = alice.signs_in("ernie", "the secret of ernie")
    body = {"currentPassword": "the secret of ernie", "password": NEW}
    assert ernie.post("/api/me/password", body).status_code == 204


def test_guesses_of_the_present_password_are_throttled(dot: Caller, routes: OpenAPI, seeded: Settings) -> None:
    with_services_of(routes, replace(seeded, wrong_passwords_per_minute=3))
    answers = [dot.post("/api/me/password", {"currentPassword": f"guess {n}", "password": NEW}) for n in range(4)]
    assert [answer.status_code for answer in answers] == [400, 400, 400, 429]


def test_own_sessions_and_tokens_are_listed_and_ended(dot: Caller, alice: Caller, seeded: Settings) -> None:
    for username in ("dot", "alice"):
        browser_sessions.begin(Actor(username, Via.PAGE), How(Method.PASSWORD), seeded.session_lifetime, "Firefox")
    (session,) = dot.get("/api/me/sessions").get_json()["items"]
    assert (session["username"], session["signedInBy"]) == ("dot", "password")
    (token,) = dot.get("/api/me/tokens").get_json()["items"]
    others = alice.get("/api/me/sessions").get_json()["items"] + alice.get("/api/me/tokens").get_json()["items"]
    problem_of(dot.delete(f"/api/me/sessions/{others[0]['id']}"), 404, "session-not-found")
    problem_of(dot.delete(f"/api/me/tokens/{others[1]['id']}"), 404, "token-not-found")
    assert dot.delete(f"/api/me/sessions/{session['id']}").status_code == 204
    assert dot.delete(f"/api/me/tokens/{token['id']}").status_code == 204
    problem_of(dot.get("/api/me/account"), 401, "invalid-token")
    assert len(alice.get("/api/me/sessions").get_json()["items"]) == 1


@pytest.mark.parametrize("path", ["/api/me/account", "/api/me/tokens"])
def test_deny_rule_forbids_the_own_account(alice: Caller, path: str) -> None:
    denied = {"context": "http", "operation": "readWrite", "resource": "/api/me/#", "effect": "deny"}
    alice.creates_user("kiosk", "shared by many", permissions=[denied])
    problem_of(alice.signs_in("kiosk", "shared by many").get(path), 403, "forbidden")


def test_own_account_gives_no_right_beside_it(dot: Caller) -> None:
    for path in ("/api/me", "/api/users", "/api/tokens", "/api/me/../users", "/api/me%2F..%2Fusers"):
        assert dot.get(path).status_code in {403, 404}
