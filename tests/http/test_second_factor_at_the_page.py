"""Signing in at the page in two steps, and the set-up that a required second factor begins with."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import time_machine

from authsvc.accounts import users
from authsvc.accounts.sign_in import second_factor
from tests.actors import HASHER, OPERATOR
from tests.authenticator import Authenticator
from tests.http.callers import Caller, basic
from tests.http.conftest import with_services_of
from tests.http.seed_data import CHARLIES_PASSWORD, DOTS_PASSWORD

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flask_openapi3.openapi import OpenAPI
    from werkzeug.test import TestResponse

    from authsvc.settings import Settings

SIGN_IN, CODE, SET_UP = "/admin/sign-in", "/admin/sign-in/code", "/admin/sign-in/set-up"
LATE = "/admin/sign-in?failed=late"


@pytest.fixture(autouse=True)
def clock() -> Iterator[time_machine.Traveller]:
    with time_machine.travel(1_800_000_000, tick=False) as clock:
        yield clock


@pytest.fixture
def app_of_charlie(charlie: Caller) -> Authenticator:
    """The authenticator app of charlie, who has a second factor."""
    return set_up_over_rest(charlie)


def set_up_over_rest(caller: Caller) -> Authenticator:
    app = Authenticator(caller.post("/api/me/otp").get_json()["secret"])
    assert caller.post("/api/me/otp/confirm", {"otp": app.next_code()}).status_code == 200
    return app


class Browser:
    """A browser that submits forms of the page, without following redirects."""

    def __init__(self, app: OpenAPI) -> None:
        self.client = app.test_client()

    def get(self, path: str) -> TestResponse:
        return self.client.get(path)

    def post(self, path: str, drawn_at: str = SIGN_IN, **fields: str) -> TestResponse:
        found = re.search('name="csrf_token" value="([^"]+)"', self.client.get(drawn_at).text)
        assert found, drawn_at
        return self.client.post(path, data={**fields, "csrf_token": found[1]})

    def gives_password(self, username: str = "charlie", password: str = CHARLIES_PASSWORD, **fields: str) -> str:
        """Send the first step, and return where it leads."""
        return self.post(SIGN_IN, username=username, password=password, **fields).headers["Location"]

    def gives_code(self, code: str) -> TestResponse:
        return self.post(CODE, CODE, otp=code)

    @property
    def is_signed_in(self) -> bool:
        return self.client.get("/admin/account").status_code == 200


@pytest.fixture
def browser(app: OpenAPI) -> Browser:
    return Browser(app)


def test_sign_in_asks_for_the_code_and_leads_to_the_wanted_page(
    browser: Browser, app_of_charlie: Authenticator
) -> None:
    assert browser.gives_password(redirect="/admin/users?search=press") == CODE
    assert not browser.is_signed_in
    wrong = browser.gives_code(app_of_charlie.wrong_code())
    assert (wrong.status_code, "The code is wrong" in wrong.text) == (401, True)
    answer = browser.gives_code(app_of_charlie.next_code())
    assert (answer.status_code, answer.headers["Location"]) == (303, "/admin/users?search=press")
    assert browser.is_signed_in


def test_session_in_the_audit_trail_says_how_it_began(
    browser: Browser, app_of_charlie: Authenticator, alice: Caller
) -> None:
    browser.gives_password()
    browser.gives_code(app_of_charlie.next_code())
    (event,) = alice.get("/api/audit?action=session.begin").get_json()["items"]
    assert event["after"] == {"signedInBy": "password", "secondFactor": "code"}


def test_code_without_the_password_in_the_same_browser_is_refused(
    browser: Browser, app: OpenAPI, app_of_charlie: Authenticator
) -> None:
    browser.gives_password()
    other = Browser(app)
    answer = other.post(CODE, otp=app_of_charlie.next_code())
    assert (answer.status_code, answer.headers["Location"]) == (303, LATE)
    assert not other.is_signed_in


def test_code_is_asked_for_within_five_minutes(
    browser: Browser, app_of_charlie: Authenticator, clock: time_machine.Traveller
) -> None:
    browser.gives_password()
    clock.shift(301)
    answer = browser.post(CODE, otp=app_of_charlie.next_code())
    assert (answer.status_code, answer.headers["Location"]) == (303, LATE)
    assert "not finished within 5 minutes" in browser.get(LATE).text


@pytest.mark.parametrize("change", [{"password": "a new password"}, {"enabled": False}])
def test_change_of_the_user_ends_a_sign_in_that_waits_for_the_code(
    browser: Browser, app_of_charlie: Authenticator, change: users.UserChanges
) -> None:
    browser.gives_password()
    users.change(OPERATOR, "charlie", change, HASHER)
    answer = browser.post(CODE, otp=app_of_charlie.next_code())
    assert answer.headers["Location"] == LATE
    assert not browser.is_signed_in


def test_code_is_not_accepted_by_a_second_worker(
    browser: Browser, routes: OpenAPI, seeded: Settings, app_of_charlie: Authenticator
) -> None:
    browser.gives_password()
    code = app_of_charlie.next_code()
    assert browser.gives_code(code).status_code == 303
    other = Browser(with_services_of(routes, seeded))
    assert other.gives_password() == CODE
    assert other.gives_code(code).status_code == 401
    assert not other.is_signed_in


def test_guesses_in_many_browsers_are_throttled_together(app: OpenAPI, app_of_charlie: Authenticator) -> None:
    statuses = []
    for _ in range(4):
        browser = Browser(app)
        browser.gives_password()
        statuses += [browser.gives_code(app_of_charlie.wrong_code()).status_code for _ in range(3)]
    assert statuses == [401] * 10 + [429] * 2


def test_second_factor_removed_while_the_code_is_asked_for_is_not_needed(
    browser: Browser, app_of_charlie: Authenticator
) -> None:
    browser.gives_password()
    second_factor.remove(OPERATOR, "charlie")
    assert browser.gives_code("").status_code == 303
    assert browser.is_signed_in


def test_token_in_the_url_asks_for_no_code(browser: Browser, app_of_charlie: Authenticator, charlie: Caller) -> None:
    assert browser.get(f"/admin?apiToken={charlie.token}").status_code == 303
    assert browser.is_signed_in


@pytest.fixture
def strict(routes: OpenAPI, seeded: Settings) -> OpenAPI:
    """A service that requires a second factor of each user that may change anything."""
    return with_services_of(routes, replace(seeded, second_factor="required"))


def test_required_second_factor_is_set_up_before_any_page_is_shown(strict: OpenAPI) -> None:
    browser = Browser(strict)
    assert browser.gives_password(redirect="/admin/users") == SET_UP
    shown = browser.get(SET_UP)
    assert "<svg" in shown.text
    assert "style=" not in shown.text
    for path in ("/admin", "/admin/users", "/admin/account", "/admin/account/second-factor"):
        assert browser.get(path).headers["Location"].startswith("/admin/sign-in")
    assert browser.post(CODE, SET_UP, otp="123456").status_code == 401
    secret = re.search('<code id="secret">([A-Z2-7 ]+)</code>', shown.text)
    assert secret
    app = Authenticator(secret[1].replace(" ", ""))
    wrong = browser.post(SET_UP, SET_UP, otp=app.wrong_code())
    assert (wrong.status_code, "<svg" in wrong.text, browser.is_signed_in) == (401, True, False)
    done = browser.post(SET_UP, SET_UP, otp=app.next_code())
    assert done.status_code == 200
    assert len(re.findall("<li><code>[a-z2-7-]{19}</code>", done.text)) == 10
    assert 'href="/admin/users"' in done.text
    assert browser.is_signed_in
    assert Browser(strict).gives_password() == CODE


def test_user_who_may_only_read_signs_in_without_a_second_factor(strict: OpenAPI) -> None:
    browser = Browser(strict)
    assert browser.gives_password("dot", DOTS_PASSWORD) == "/admin/account"
    assert browser.is_signed_in


def test_set_up_page_does_not_show_a_finished_secret(strict: OpenAPI) -> None:
    browser = Browser(strict)
    assert browser.gives_password() == SET_UP
    set_up_over_rest(Caller(strict.test_client(), basic("charlie", CHARLIES_PASSWORD)))
    assert browser.get(SET_UP).headers["Location"] == LATE


def test_set_up_is_shown_and_finished_only_in_the_browser_that_began_it(strict: OpenAPI) -> None:
    thief, owner = Browser(strict), Browser(strict)
    assert thief.gives_password() == SET_UP
    assert owner.gives_password() == SET_UP
    secret = re.search('<code id="secret">([A-Z2-7 ]+)</code>', owner.get(SET_UP).text)
    assert secret
    app = Authenticator(secret[1].replace(" ", ""))
    assert thief.get(SET_UP).headers["Location"] == LATE
    assert thief.post(SET_UP, otp=app.next_code()).headers["Location"] == LATE
    assert owner.post(SET_UP, SET_UP, otp=app.next_code()).status_code == 200


def test_set_up_of_another_browser_is_not_shown_at_the_account_page(app: OpenAPI) -> None:
    thief, owner, page = Browser(app), Browser(app), "/admin/account"
    for browser in (thief, owner):
        browser.gives_password("dot", DOTS_PASSWORD)
        assert browser.post(f"{page}/second-factor", page).headers["Location"] == f"{page}/second-factor"
    assert owner.get(f"{page}/second-factor").status_code == 200
    assert thief.get(f"{page}/second-factor").headers["Location"] == page
    assert thief.post(f"{page}/second-factor/confirm", page, otp="123456").headers["Location"] == page


def test_account_page_sets_up_and_removes_a_second_factor(browser: Browser) -> None:
    browser.gives_password("dot", DOTS_PASSWORD)
    page = "/admin/account"
    assert browser.post(f"{page}/second-factor", page).headers["Location"] == f"{page}/second-factor"
    secret = re.search('<code id="secret">([A-Z2-7 ]+)</code>', browser.get(f"{page}/second-factor").text)
    assert secret
    app = Authenticator(secret[1].replace(" ", ""))
    assert browser.post(f"{page}/second-factor/confirm", page, otp=app.wrong_code()).status_code == 401
    assert browser.post(f"{page}/second-factor/confirm", page, otp=app.next_code()).status_code == 200
    assert browser.get(f"{page}/second-factor").headers["Location"] == page
    assert browser.post(f"{page}/second-factor", page).status_code == 409
    assert browser.post(f"{page}/second-factor/remove", page, otp=app.wrong_code()).status_code == 401
    assert browser.post(f"{page}/second-factor/remove", page, otp=app.next_code()).status_code == 303
    assert not second_factor.is_set("dot")


def test_qr_code_of_the_longest_username_is_drawn(browser: Browser, alice: Caller) -> None:
    username, page = "\N{LOCK}" * 255, "/admin/account"
    alice.creates_user(username, "a secret behind locks")
    assert browser.gives_password(username, "a secret behind locks") == page
    browser.post(f"{page}/second-factor", page)
    assert "<svg" in browser.get(f"{page}/second-factor").text


def test_account_page_changes_the_password(browser: Browser) -> None:
    browser.gives_password("dot", DOTS_PASSWORD)
    page, new = "/admin/account", "another secret of dot"
    differs = browser.post(f"{page}/password", page, currentPassword=DOTS_PASSWORD, password=new, repeated="x")
    assert (differs.status_code, "differs from the new password" in differs.text) == (400, True)
    changed = browser.post(f"{page}/password", page, currentPassword=DOTS_PASSWORD, password=new, repeated=new)
    assert changed.headers["Location"] == "/admin/sign-in?changed=password"
    assert not browser.is_signed_in
    assert browser.gives_password("dot", new) == page
