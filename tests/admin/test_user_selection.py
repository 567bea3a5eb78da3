"""The list of users: filters, sorting, export, and changes of several users at once."""

from __future__ import annotations

import csv
import io
import re
import sqlite3
from contextlib import closing
from itertools import count
from pathlib import Path
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


def copied_101_times(service: Service) -> str:
    """Return the name of a new user of whom there are 101 copies, NAME-100 to NAME-200."""
    (name, *_) = new_users(service, 1)
    with closing(sqlite3.connect(Path(service.environment["AUTHSVC_DATA_DIR"]) / "authsvc.db")) as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(users)") if row[1] != "id"]
        copied = [f"{column} || '-' || n" if column in ("username", "skeleton") else column for column in columns]
        connection.execute(
            "WITH RECURSIVE numbers(n) AS (SELECT 100 UNION ALL SELECT n + 1 FROM numbers WHERE n < 200) "
            f"INSERT INTO users ({', '.join(columns)}) SELECT {', '.join(copied)} FROM users, numbers "
            "WHERE username = ?",
            [name],
        )
        connection.commit()
    return name


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
        {"action": "enable"},
        {"usernames": ["bob"], "filter": {"search": "b"}, "action": "enable"},
        {"filter": {}, "action": "enable"},
        {"filter": {"search": "", "administratorOnBroker": False}, "action": "enable"},
        {"filter": {"search": "b"}, "maxUsers": 1001, "action": "enable"},
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


def test_api_changes_all_that_match_in_steps(service: Service) -> None:
    names = new_users(service, 3)
    (other, *_) = new_users(service)
    prefix = names[0].partition("-")[0]
    body = {"filter": {"search": f"{prefix}-", "enabled": True}, "maxUsers": 2, "action": "disable"}
    first = service.call("POST", "/api/users/bulk", json=body).json()
    assert (first["usernames"], first["remaining"], first["lastUsername"]) == (names[:2], 1, names[1])
    second = service.call("POST", "/api/users/bulk", json=body | {"afterUsername": names[1]}).json()
    assert (second["usernames"], second["remaining"], second["lastUsername"]) == (names[2:], 0, names[2])
    assert [is_enabled(service, name) for name in (*names, other)] == [False, False, False, True]
    end = service.call("POST", "/api/users/bulk", json=body | {"afterUsername": names[2]}).json()
    assert end == {"usernames": [], "failed": [], "remaining": 0, "lastUsername": None}


def test_api_needs_the_permission_to_list_users_for_a_filter(service: Service) -> None:
    name = f"caller-{next(_numbers)}"
    service.create_user(name, "secret", "http write /api/users/#")
    body = {"filter": {"search": name}, "action": "enable"}
    refused = service.call("POST", "/api/users/bulk", json=body, auth=(name, "secret"))
    assert refused.status_code == 403
    assert "http read /api/users" in refused.json()["detail"]


def test_all_users_that_match_are_changed_and_later_ones_are_not(service: Service) -> None:
    names = new_users(service)
    prefix = names[0].partition("-")[0]
    client = signed_in_as_admin(service)
    address = f"/admin/users/selected?search={prefix}-"
    shown = client.post(address, drawn_at="/admin", action="disable", all="yes", usernames=names[:1]).text
    assert "Disable 3 users" in shown
    (as_of,) = re.findall(r'name="asOf" value="([^"]+)"', shown)
    sent = {"action": "disable", "all": "yes"}
    for late in ("", "&createdBefore=2099-01-01T00:00:00Z"):
        address = f"/admin/users/bulk?search={prefix}-{late}"
        early = client.post(address, drawn_at="/admin", asOf="2026-01-01T00:00:00Z", **sent)
        assert "No user is selected" in early.text
    assert all(is_enabled(service, name) for name in names)
    done = client.post(f"/admin/users/bulk?search={prefix}-", drawn_at="/admin", asOf=as_of, **sent)
    assert done.status_code == 303
    assert not any(is_enabled(service, name) for name in names)
    for query, changed in (("search=x&surprise=1", {}), ("search=x", {"asOf": "soon"})):
        assert client.post(f"/admin/users/bulk?{query}", drawn_at="/admin", **sent | changed).status_code == 400


def test_many_users_are_changed_in_steps(service: Service) -> None:
    name = copied_101_times(service)
    client = signed_in_as_admin(service)
    address = f"/admin/users/bulk?search={name}-"
    first = client.post(address, drawn_at="/admin", action="enable", all="yes").text  # as they are already
    assert "100 enabled, 1 left" in first
    assert "Go on with the other 1<" in first
    fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', first))
    assert fields["after"] == f"{name}-199"
    fields.pop("csrf_token")
    assert client.post(address, drawn_at="/admin", **fields).status_code == 303
    assert "101 users are enabled." in client.get("/admin/users").text


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


def test_all_matching_users_are_changed_in_a_browser_without_further_clicks(service: Service, admin: Window) -> None:
    name, page = copied_101_times(service), admin.page
    admin.open(f"/admin/users?search={name}-&perPage=25")
    page.get_by_label("Select all 101 that match").check()
    page.get_by_role("button", name="Enable…").click()
    page.get_by_role("dialog", name="Enable 101 users").get_by_role("button", name="Enable 101 users").click()
    expect(page.get_by_role("status").first).to_contain_text("101 users are enabled.", timeout=30_000)
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
