"""The lifetime of browser sessions."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.admin.page_objects import FormClient

if TYPE_CHECKING:
    from tests.service import Service

_numbers = count()


@pytest.fixture
def clerk(service: Service) -> FormClient:
    """A user with read access to the whole API, just signed in."""
    return sign_in(service, new_clerk(service))


def new_clerk(service: Service) -> str:
    username = f"clerk-{next(_numbers)}"
    service.create_user(username, "secret", "http read /api/#")
    return username


def sign_in(service: Service, username: str) -> FormClient:
    browser = FormClient(service.url)
    assert browser.sign_in(username, "secret").status_code == 303
    return browser


def age_sessions(service: Service, username: str, column: str, ago: timedelta) -> None:
    """Set a time of a user's sessions to this long ago."""
    moment = (datetime.now(UTC) - ago).strftime("%Y-%m-%d %H:%M:%S.%f")
    whose = "WHERE user_id = (SELECT id FROM users WHERE username = ?)"
    with _database(service) as database:
        database.execute(f"UPDATE browser_sessions SET {column} = ? {whose}", (moment, username))
    database.close()


def is_signed_in(browser: FormClient) -> bool:
    return browser.get("/admin/users").status_code == 200


def count_sessions(service: Service, username: str) -> int:
    return int(service.call("GET", "/api/sessions", params={"username": username}).json()["total"])


def test_idle_session_ends_after_30_minutes(service: Service) -> None:
    username = new_clerk(service)
    browser = sign_in(service, username)
    age_sessions(service, username, "last_seen_at", timedelta(minutes=29))
    assert is_signed_in(browser)
    age_sessions(service, username, "last_seen_at", timedelta(minutes=31))
    assert not is_signed_in(browser)


def test_session_ends_at_its_absolute_expiry(service: Service) -> None:
    username = new_clerk(service)
    browser = sign_in(service, username)
    age_sessions(service, username, "expires_at", timedelta(seconds=1))
    assert not is_signed_in(browser)


@pytest.mark.parametrize(
    "path", ["/admin/history", "/admin/users/admin/denials", "/admin/registry/lock", "/admin/registry/registrations"]
)
def test_polled_parts_of_a_page_do_not_extend_the_session(service: Service, path: str) -> None:
    username = new_clerk(service)
    browser = sign_in(service, username)
    age_sessions(service, username, "last_seen_at", timedelta(minutes=20))
    part = browser.session.get(browser.url + path, headers={"HX-Request": "true"}, timeout=20)
    assert part.status_code == 200
    statement = "UPDATE browser_sessions SET last_seen_at = datetime(last_seen_at, '-11 minutes')"
    with _database(service) as database:
        database.execute(statement)
    database.close()
    assert not is_signed_in(browser)


def test_second_sign_in_ends_the_previous_session(service: Service) -> None:
    username = new_clerk(service)
    browser = sign_in(service, username)
    thief = FormClient(service.url)
    thief.session.cookies.set("authsvc", browser.cookie())
    assert is_signed_in(thief)
    assert browser.sign_in(username, "secret").status_code == 303
    assert count_sessions(service, username) == 1
    assert is_signed_in(browser)
    assert not is_signed_in(thief)


def test_user_without_permissions_can_sign_out(service: Service) -> None:
    service.create_user("no-permissions", "secret")
    browser = sign_in(service, "no-permissions")
    assert browser.get("/admin").status_code == 403
    assert browser.post("/admin/sign-out", drawn_at="/admin").headers["Location"] == "/admin/sign-in"
    assert count_sessions(service, "no-permissions") == 0


def test_signing_out_twice_is_not_an_error(clerk: FormClient) -> None:
    for _ in range(2):
        assert clerk.post("/admin/sign-out").headers["Location"] == "/admin/sign-in"


def test_recreated_user_does_not_inherit_the_session_of_its_namesake(service: Service) -> None:
    username = new_clerk(service)
    browser = sign_in(service, username)
    assert service.call("DELETE", f"/api/users/{username}").status_code == 204
    service.create_user(username, "secret", "http read /api/#")
    assert not is_signed_in(browser)


def test_removed_permissions_take_effect_at_the_next_request(service: Service) -> None:
    username = new_clerk(service)
    browser = sign_in(service, username)
    assert is_signed_in(browser)
    service.call("PATCH", f"/api/users/{username}", json={"permissions": []})
    assert browser.get("/admin/users").status_code == 403


@pytest.mark.parametrize("path", ["/admin/users/m%C3%BCller", "/admin/%0d%0aX-Y:%20z", "/admin/a%5C%5Cevil.example"])
def test_unusual_paths_redirect_safely_after_sign_in(service: Service, path: str) -> None:
    browser = FormClient(service.url)
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
