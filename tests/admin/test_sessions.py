"""How long somebody is signed in, and what ends it."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.admin.page_objects import FormFiller

if TYPE_CHECKING:
    from tests.service import Service

_numbers = count()


@pytest.fixture
def clerk(service: Service) -> FormFiller:
    """Somebody who may read everything and has just signed in."""
    return signed_in(service, new_clerk(service))


def new_clerk(service: Service) -> str:
    username = f"clerk-{next(_numbers)}"
    service.create_user(username, "secret", "http read /api/#")
    return username


def signed_in(service: Service, username: str) -> FormFiller:
    browser = FormFiller(service.url)
    assert browser.sign_in(username, "secret").status_code == 303
    return browser


def put_back(service: Service, username: str, column: str, ago: timedelta) -> None:
    """Let a user's sessions be as old as that, as if time had passed."""
    moment = (datetime.now(UTC) - ago).strftime("%Y-%m-%d %H:%M:%S.%f")
    whose = "WHERE user_id = (SELECT id FROM users WHERE username = ?)"
    with _database(service) as database:
        database.execute(f"UPDATE browser_sessions SET {column} = ? {whose}", (moment, username))
    database.close()


def is_in(browser: FormFiller) -> bool:
    return browser.get("/admin/users").status_code == 200


def sessions_of(service: Service, username: str) -> int:
    return int(service.call("GET", "/api/sessions", params={"username": username}).json()["total"])


def test_a_session_nobody_used_for_a_while_is_over(service: Service) -> None:
    username = new_clerk(service)
    browser = signed_in(service, username)
    put_back(service, username, "last_seen_at", timedelta(minutes=29))
    assert is_in(browser)
    put_back(service, username, "last_seen_at", timedelta(minutes=31))
    assert not is_in(browser)


def test_a_session_is_over_in_the_end_however_much_it_was_used(service: Service) -> None:
    username = new_clerk(service)
    browser = signed_in(service, username)
    put_back(service, username, "expires_at", timedelta(seconds=1))
    assert not is_in(browser)


@pytest.mark.parametrize(
    "path", ["/admin/history", "/admin/users/admin/denials", "/admin/registry/lock", "/admin/registry/registrations"]
)
def test_what_a_page_asks_for_by_itself_keeps_nobody_signed_in(service: Service, path: str) -> None:
    username = new_clerk(service)
    browser = signed_in(service, username)
    put_back(service, username, "last_seen_at", timedelta(minutes=20))
    part = browser.session.get(browser.url + path, headers={"HX-Request": "true"}, timeout=20)
    assert part.status_code == 200
    put_back_further = "UPDATE browser_sessions SET last_seen_at = datetime(last_seen_at, '-11 minutes')"
    with _database(service) as database:
        database.execute(put_back_further)
    database.close()
    assert not is_in(browser)


def test_signing_in_anew_leaves_no_session_behind(service: Service) -> None:
    username = new_clerk(service)
    browser = signed_in(service, username)
    thief = FormFiller(service.url)
    thief.session.cookies.set("authsvc", browser.cookie())
    assert is_in(thief)
    assert browser.sign_in(username, "secret").status_code == 303
    assert sessions_of(service, username) == 1
    assert is_in(browser)
    assert not is_in(thief)


def test_whoever_may_nothing_may_still_sign_out(service: Service) -> None:
    service.create_user("prisoner", "secret")
    browser = signed_in(service, "prisoner")
    assert browser.get("/admin").status_code == 403
    assert browser.post("/admin/sign-out", drawn_at="/admin").headers["Location"] == "/admin/sign-in"
    assert sessions_of(service, "prisoner") == 0


def test_signing_out_twice_is_no_error(clerk: FormFiller) -> None:
    for _ in range(2):
        assert clerk.post("/admin/sign-out").headers["Location"] == "/admin/sign-in"


def test_a_user_that_is_made_again_under_an_old_name_is_somebody_else(service: Service) -> None:
    username = new_clerk(service)
    browser = signed_in(service, username)
    assert service.call("DELETE", f"/api/users/{username}").status_code == 204
    service.create_user(username, "secret", "http read /api/#")
    assert not is_in(browser)


def test_rights_that_are_taken_are_gone_at_the_next_click(service: Service) -> None:
    username = new_clerk(service)
    browser = signed_in(service, username)
    assert is_in(browser)
    service.call("PATCH", f"/api/users/{username}", json={"permissions": []})
    assert browser.get("/admin/users").status_code == 403


@pytest.mark.parametrize("path", ["/admin/users/m%C3%BCller", "/admin/%0d%0aX-Y:%20z", "/admin/a%5C%5Cevil.example"])
def test_an_odd_address_leads_back_to_where_it_may(service: Service, path: str) -> None:
    browser = FormFiller(service.url)
    asked = browser.get(path)
    assert asked.status_code == 303
    assert browser.get(asked.headers["Location"]).status_code == 200
    token = service.call("POST", "/api/tokens", json={"label": "odd"}).json()["token"]
    entered = browser.get(f"{path}?apiToken={token}")
    assert entered.status_code == 303
    assert entered.headers["Location"] in ("/admin", path)
    assert "X-Y" not in entered.headers


def _database(service: Service) -> sqlite3.Connection:
    return sqlite3.connect(Path(service.environment["AUTHSVC_DATA_DIR"]) / "authsvc.db", timeout=10)
