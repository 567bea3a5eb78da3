"""What pages warn of: administrators that may log in to the broker, and users and roles with damaged rows."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from itertools import count
from typing import TYPE_CHECKING

import pytest

from tests.admin.page_objects import FormFiller
from tests.service import ADMIN_PASSWORD, permission

if TYPE_CHECKING:
    from tests.service import Service

BADGE = "administrator on the broker"
TILE = "Administrators that may log in to the broker"
_numbers = count(1)


@pytest.fixture
def browser_of_admin(service: Service) -> FormFiller:
    """The administrator, signed in."""
    browser = FormFiller(service.url)
    assert browser.sign_in("admin", ADMIN_PASSWORD).status_code == 303
    return browser


def new_user(service: Service, *permissions: str, **fields: object) -> str:
    username = f"warned-{next(_numbers)}"
    service.create_user(username, "secret", *permissions, **fields)
    return username


def damage(service: Service, username: str) -> None:
    """Damage every permission of a user in the database's file."""
    with closing(sqlite3.connect(f"{service.environment['AUTHSVC_DATA_DIR']}/authsvc.db", timeout=10)) as database:
        chosen = "(SELECT id FROM users WHERE username = ?)"
        database.execute(f"UPDATE permissions SET operation = 'r<b>d\u202e' WHERE user_id = {chosen}", (username,))
        database.execute("UPDATE policy_version SET version = version + 20000")
        database.commit()


def test_the_built_in_administrator_is_not_pointed_out(service: Service, browser_of_admin: FormFiller) -> None:
    assert service.call("GET", "/api/users/admin").json()["grantTypes"] == []
    assert BADGE not in browser_of_admin.get("/admin/users?search=admin").text
    assert "may also log in to the broker" not in browser_of_admin.get("/admin/users/admin").text


@pytest.mark.parametrize("through_a_role", [False, True], ids=["its own rule", "a role"])
def test_an_administrator_on_the_broker_is_pointed_out_on_every_page(
    service: Service, browser_of_admin: FormFiller, *, through_a_role: bool
) -> None:
    chief = new_user(service, roles=["admin"]) if through_a_role else new_user(service, "http write /api/users/#")
    device = new_user(service, "readWrite #", "http read /#", "deny http write /#")
    page = browser_of_admin.get("/admin/users?administratorOnBroker=true").text
    assert f"/admin/users/{chief}" in page
    assert f"/admin/users/{device}" not in page
    assert BADGE in browser_of_admin.get(f"/admin/users?search={chief}").text
    assert BADGE not in browser_of_admin.get(f"/admin/users?search={device}").text
    assert "may also log in to the broker" in browser_of_admin.get(f"/admin/users/{chief}").text
    assert "may also log in to the broker" not in browser_of_admin.get(f"/admin/users/{device}").text
    assert TILE in browser_of_admin.get("/admin").text
    listed = service.call("GET", "/api/users?administratorOnBroker=true&perPage=1000").json()["items"]
    assert chief in {user["username"] for user in listed}
    assert all(user["administratorOnBroker"] for user in listed)
    for user in listed:
        service.call("PATCH", f"/api/users/{user['username']}", json={"grantTypes": []}).raise_for_status()
    assert TILE not in browser_of_admin.get("/admin").text
    assert service.call("GET", "/api/users?administratorOnBroker=true").json()["items"] == []


def test_a_damaged_user_is_shown_with_its_damage_and_the_form_repairs_it(
    service: Service, browser_of_admin: FormFiller
) -> None:
    username = new_user(service, "read devices/#")
    damage(service, username)
    shown = service.call("GET", f"/api/users/{username}")
    assert shown.status_code == 200
    assert len(shown.json()["damage"]) == 1
    page = browser_of_admin.get(f"/admin/users/{username}").text
    assert f"Damaged: {username} is denied everything" in page
    assert "r<b>d" not in page
    assert "\u202e" not in page
    assert ">damaged<" in browser_of_admin.get(f"/admin/users?search={username}").text
    asked = {"username": username, "password": "secret"}
    assert service.call("POST", "/auth/user", json=asked).json()["error"] == "damaged-policy"
    body = {"permissions": [permission("read devices/#")]}
    assert service.call("PATCH", f"/api/users/{username}", json=body).json()["damage"] == []
    assert service.call("POST", "/auth/user", json=asked).status_code == 200
    assert "Damaged" not in browser_of_admin.get(f"/admin/users/{username}").text
