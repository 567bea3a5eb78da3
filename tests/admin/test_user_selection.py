"""The list of users: filters, sorting, export, and changes of several users at once."""

from __future__ import annotations

import csv
import io
from itertools import count
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.admin.page_objects import FormClient, Window
from tests.service import ADMIN_PASSWORD, permission

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.service import Service

_numbers = count()


def new_users(service: Service, many: int = 3) -> list[str]:
    prefix = f"device{next(_numbers)}"
    names = [f"{prefix}-{number}" for number in range(many)]
    for name in names:
        service.create_user(name, "secret")
    return names


def new_role(service: Service) -> str:
    name = f"role-{next(_numbers)}"
    assert service.call("POST", "/api/roles", json={"name": name}).status_code == 201
    return name


def signed_in(service: Service, *permissions: str) -> FormClient:
    name = f"caller-{next(_numbers)}"
    service.create_user(name, "secret", *permissions)
    client = FormClient(service.url)
    assert client.sign_in(name, "secret").status_code == 303
    return client


def signed_in_as_admin(service: Service) -> FormClient:
    client = FormClient(service.url)
    assert client.sign_in("admin", ADMIN_PASSWORD).status_code == 303
    return client


def is_enabled(service: Service, name: str) -> bool:
    return bool(service.call("GET", f"/api/users/{name}").json()["enabled"])


def test_list_is_filtered_and_sorted(service: Service) -> None:
    first, second, third = names = new_users(service)
    prefix = first.partition("-")[0]
    role = new_role(service)
    service.call("PATCH", f"/api/users/{first}", json={"enabled": False, "grantTypes": ["token"]})
    service.call("PATCH", f"/api/users/{second}", json={"roles": [role]})
    client = signed_in(service, "http read /api/users/#", "http read /api/users")

    def shown(query: str) -> list[str]:
        text = client.get(f"/admin/users?search={prefix}&{query}").text
        return sorted((name for name in names if f">{name}</a>" in text), key=lambda name: text.index(f">{name}</a>"))

    assert shown("") == names
    assert shown("sort=-username") == names[::-1]
    assert shown("sort=updatedAt") == [third, first, second]
    assert shown("enabled=false") == shown("grantType=token") == [first]
    assert shown(f"role={role}") == [second]
    assert shown("origin=registration") == shown("lastSeenAfter=2026-01-01T00:00") == []
    assert shown("origin=administrator&lastSeenBefore=2027-01-01T00:00Z") == names
    assert shown("perPage=2&page=2") == [third]
    for query in ("sort=password", "enabled=perhaps", "grantType=x", "lastSeenAfter=x", "origin=x"):
        assert client.get(f"/admin/users?{query}").status_code == 400


def test_csv_export_has_the_filtered_users(service: Service) -> None:
    name, *_ = new_users(service)
    service.call("PATCH", f"/api/users/{name}", json={"permissions": [permission("read =1/#")]})
    client = signed_in(service, "http read /api/users")
    answer = client.get(f"/admin/users.csv?search={name}")
    assert answer.headers["Content-Disposition"] == 'attachment; filename="users.csv"'
    (row,) = csv.DictReader(io.StringIO(answer.content.decode(), newline=""))
    assert (row["username"], row["enabled"], row["grantTypes"], row["origin"]) == (
        name,
        "yes",
        "password",
        "administrator",
    )
    assert row["permissions"] == "read =1/#"
    assert "$2" not in answer.text
    assert signed_in(service, "http read /api/me").get("/admin/users.csv").status_code == 403


def test_confirmation_lists_names_and_count_and_changes_nothing(service: Service) -> None:
    names = new_users(service)
    client = signed_in_as_admin(service)
    shown = client.post("/admin/users/selected", drawn_at="/admin", action="disable", usernames=[*names, "nobody"]).text
    assert "Disable 3 users" in shown
    assert all(f"<code>{name}</code>" in shown for name in names)
    assert all(is_enabled(service, name) for name in names)
    empty = client.post("/admin/users/selected", drawn_at="/admin", action="delete")
    assert "No user is selected" in empty.text
    assert client.post("/admin/users/selected", drawn_at="/admin", action="explode").status_code == 400


def test_users_are_disabled_enabled_and_deleted_together(service: Service) -> None:
    names = new_users(service)
    client = signed_in_as_admin(service)
    for action, expected in (("disable", False), ("enable", True)):
        answer = client.post(
            "/admin/users/bulk", drawn_at="/admin", action=action, usernames=names, back="/admin/users?page=1"
        )
        assert (answer.status_code, answer.headers["Location"]) == (303, "/admin/users?page=1")
        assert [is_enabled(service, name) for name in names] == [expected] * 3
    client.post("/admin/users/bulk", drawn_at="/admin", action="delete", usernames=names)
    assert [service.call("GET", f"/api/users/{name}").status_code for name in names] == [404] * 3
    assert "3 users are deleted." in client.get("/admin/users").text
    for name in names:
        events = service.call("GET", f"/api/audit?target=user:{name}").json()["items"]
        assert [event["action"] for event in events] == ["user.delete", "user.change", "user.change", "user.create"]


def test_role_is_added_and_removed_and_must_be_chosen(service: Service) -> None:
    names, role = new_users(service), new_role(service)
    client = signed_in_as_admin(service)
    refused = client.post("/admin/users/bulk", drawn_at="/admin", action="addRole", usernames=names)
    assert refused.status_code == 400
    assert f"<code>{names[0]}</code>" in refused.text
    for action, expected in (("addRole", [role]), ("removeRole", [])):
        client.post("/admin/users/bulk", drawn_at="/admin", action=action, usernames=names, role=role)
        assert [service.call("GET", f"/api/users/{name}").json()["roles"] for name in names] == [expected] * 3


def test_partial_results_and_the_last_administrator_are_reported(service: Service) -> None:
    names = new_users(service)
    client = signed_in_as_admin(service)
    shown = client.post(
        "/admin/users/bulk", drawn_at="/admin", action="delete", usernames=[names[0], "admin", "nobody"]
    )
    assert "1 deleted, 2 not" in shown.text
    assert "last administrator" in shown.text
    assert "no such user" in shown.text
    assert service.call("GET", "/api/users/admin").status_code == 200
    assert service.call("GET", f"/api/users/{names[0]}").status_code == 404


def test_caller_changes_only_users_that_it_may_change_one_by_one(service: Service) -> None:
    first, second, _ = new_users(service)
    rights = ("http read /api/users/#", "http write /api/users/bulk", f"http write /api/users/{first}")
    client = signed_in(service, *rights)
    asked = client.post("/admin/users/selected", drawn_at="/admin", action="disable", usernames=[first, second]).text
    assert "You may not change 1 of them" in asked
    shown = client.post("/admin/users/bulk", drawn_at="/admin", action="disable", usernames=[first, second]).text
    assert "1 disabled, 1 not" in shown
    assert f"http write /api/users/{second}" in shown
    assert [is_enabled(service, name) for name in (first, second)] == [False, True]
    reader = signed_in(service, "http read /api/users/#", "http read /api/me")
    assert "/admin/users/selected" not in reader.get("/admin/users").text
    assert reader.post("/admin/users/bulk", drawn_at="/admin", action="enable", usernames=[first]).status_code == 403


@pytest.mark.parametrize(
    "body",
    [
        {"usernames": [], "action": "enable"},
        {"usernames": ["a"] * 1001, "action": "enable"},
        {"usernames": ["bob"], "action": "explode"},
        {"usernames": ["bob"], "action": "addRole"},
        {"usernames": ["bob"], "action": "delete", "role": "line"},
    ],
)
def test_api_refuses_an_invalid_bulk_change(service: Service, body: dict[str, object]) -> None:
    assert service.call("POST", "/api/users/bulk", json=body).status_code == 400


def test_api_changes_many_users(service: Service) -> None:
    names = new_users(service)
    body = {"usernames": [*names, "nobody"], "action": "disable"}
    answer = service.call("POST", "/api/users/bulk", json=body).json()
    assert answer["usernames"] == names
    (failure,) = answer["failed"]
    assert (failure["username"], failure["code"]) == ("nobody", "user-not-found")


def test_selected_users_are_disabled_in_a_browser(service: Service, admin: Window) -> None:
    names, page = new_users(service), admin.page
    admin.open(f"/admin/users?search={names[0].partition('-')[0]}")
    expect(page.get_by_role("button", name="Disable…")).to_be_hidden()
    page.get_by_label("Select all on this page").check()
    page.get_by_label(f"Select {names[2]}").uncheck()
    page.get_by_role("button", name="Disable…").click()
    dialog = page.get_by_role("dialog", name="Disable 2 users")
    expect(dialog).to_contain_text(names[0])
    dialog.get_by_role("button", name="Disable 2 users").click()
    expect(page.get_by_role("status").first).to_contain_text("2 users are disabled.")
    assert [is_enabled(service, name) for name in names] == [False, False, True]
    assert not admin.script_errors


def test_selected_users_are_deleted_without_scripts(service: Service, browser: Browser) -> None:
    names = new_users(service)
    context = browser.new_context(
        base_url=service.url, java_script_enabled=False, viewport={"width": 360, "height": 800}
    )
    window = Window(context.new_page())
    window.sign_in("admin", ADMIN_PASSWORD)
    page = window.page
    window.open(f"/admin/users?search={names[0].partition('-')[0]}")
    for name in names[:2]:
        page.get_by_label(f"Select {name}").check()
    page.get_by_role("button", name="Delete…").click()
    page.get_by_role("button", name="Delete 2 users").click()
    expect(page.get_by_role("status").first).to_contain_text("2 users are deleted.")
    expect(page.get_by_role("link", name=names[2])).to_be_visible()
    context.close()
