"""Warnings about administrators that may log in to the broker, and about damaged users."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from itertools import count
from typing import TYPE_CHECKING

import pytest

from tests.admin.page_objects import FormClient
from tests.service import ADMIN_PASSWORD, permission

if TYPE_CHECKING:
    from tests.service import Service

BADGE = "administrator on the broker"
TILE = "Administrators that may log in to the broker"
_numbers = count(1)


@pytest.fixture
def admin_client(service: Service) -> FormClient:
    """An HTTP client, signed in as the administrator."""
    browser = FormClient(service.url)
    assert browser.sign_in("admin", ADMIN_PASSWORD).status_code == 303
    return browser


def new_user(service: Service, *permissions: str, **fields: object) -> str:
    username = f"warned-{next(_numbers)}"
    service.create_user(username, "secret", *permissions, **fields)
    return username


def damage_permissions(service: Service, username: str) -> None:
    """Write invalid values into every permission of a user, in the database file."""
    with closing(sqlite3.connect(f"{service.environment['AUTHSVC_DATA_DIR']}/authsvc.db", timeout=10)) as database:
        chosen = "(SELECT id FROM users WHERE username = ?)"
        database.execute(f"UPDATE permissions SET operation = 'r<b>d\u202e' WHERE user_id = {chosen}", (username,))
        database.execute("UPDATE policy_version SET version = version + 20000")
        database.commit()


def test_built_in_administrator_has_no_warning(service: Service, admin_client: FormClient) -> None:
    assert service.call("GET", "/api/users/admin").json()["grantTypes"] == []
    assert BADGE not in admin_client.get("/admin/users?search=admin").text
    assert "may also log in to the broker" not in admin_client.get("/admin/users/admin").text


@pytest.mark.parametrize("through_a_role", [False, True], ids=["its own rule", "a role"])
def test_administrator_with_broker_login_is_flagged_on_every_page(
    service: Service, admin_client: FormClient, *, through_a_role: bool
) -> None:
    chief = new_user(service, roles=["admin"]) if through_a_role else new_user(service, "http write /api/users/#")
    device = new_user(service, "readWrite #", "http read /#", "deny http write /#")
    page = admin_client.get("/admin/users?administratorOnBroker=true").text
    assert f"/admin/users/{chief}" in page
    assert f"/admin/users/{device}" not in page
    assert BADGE in admin_client.get(f"/admin/users?search={chief}").text
    assert BADGE not in admin_client.get(f"/admin/users?search={device}").text
    assert "may also log in to the broker" in admin_client.get(f"/admin/users/{chief}").text
    assert "may also log in to the broker" not in admin_client.get(f"/admin/users/{device}").text
    assert TILE in admin_client.get("/admin").text
    listed = service.call("GET", "/api/users?administratorOnBroker=true&perPage=1000").json()["items"]
    assert chief in {user["username"] for user in listed}
    assert all(user["administratorOnBroker"] for user in listed)
    for user in listed:
        service.call("PATCH", f"/api/users/{user['username']}", json={"grantTypes": []}).raise_for_status()
    assert TILE not in admin_client.get("/admin").text
    assert service.call("GET", "/api/users?administratorOnBroker=true").json()["items"] == []


def test_damaged_user_is_flagged_until_it_is_saved_again(service: Service, admin_client: FormClient) -> None:
    username = new_user(service, "read devices/#")
    damage_permissions(service, username)
    shown = service.call("GET", f"/api/users/{username}")
    assert shown.status_code == 200
    assert len(shown.json()["damage"]) == 1
    page = admin_client.get(f"/admin/users/{username}").text
    assert f"Damaged: every request by {username} is denied" in page
    assert "r<b>d" not in page
    assert "\u202e" not in page
    assert ">damaged<" in admin_client.get(f"/admin/users?search={username}").text
    asked = {"username": username, "password": "secret"}
    assert service.call("POST", "/auth/user", json=asked).json()["error"] == "damaged-policy"
    body = {"permissions": [permission("read devices/#")]}
    assert service.call("PATCH", f"/api/users/{username}", json=body).json()["damage"] == []
    assert service.call("POST", "/auth/user", json=asked).status_code == 200
    assert "Damaged" not in admin_client.get(f"/admin/users/{username}").text
