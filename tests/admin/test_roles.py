"""The pages of roles."""

from __future__ import annotations

import re
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.admin.page_objects import FormClient, Window
from tests.service import permission

if TYPE_CHECKING:
    from tests.service import Service

_numbers = count()


def new_role(service: Service, *permissions: str, description: str = "") -> str:
    name = f"role-{next(_numbers)}"
    body = {"name": name, "description": description, "permissions": list(map(permission, permissions))}
    assert service.call("POST", "/api/roles", json=body).status_code == 201
    return name


def sign_in_new_user(service: Service, *permissions: str) -> FormClient:
    username = f"user-{next(_numbers)}"
    service.create_user(username, "secret", *permissions)
    browser = FormClient(service.url)
    assert browser.sign_in(username, "secret").status_code == 303
    return browser


def get_role(service: Service, name: str) -> dict[str, Any]:
    answer = service.call("GET", f"/api/roles/{name}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def form_fields(rule: str, **fields: str) -> dict[str, str]:
    """Return the fields of a form with one permission."""
    return {f"permission.{name}": value for name, value in permission(rule).items()} | fields


def form_version(browser: FormClient, name: str) -> str:
    """Return the version of the role that its edit form was rendered from."""
    drawn = browser.get(f"/admin/roles/{name}/edit")
    assert drawn.status_code == 200
    return drawn.text.partition('name="updated" value="')[2].partition('"')[0]


def test_role_is_created_changed_and_deleted(service: Service, admin: Window) -> None:
    name, page = f"role-{next(_numbers)}", admin.page
    admin.open("/admin/roles")
    page.get_by_role("button", name="New role").click()
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_label("Description").fill("Whatever reports its state")
    page.get_by_role("button", name="Add a permission").click()
    page.get_by_label("Topic filter or path").press_sequentially("devices/#/state")
    expect(page.locator(".checked")).to_have_text("# must be the last level")
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_label("Topic filter or path")).to_have_value("devices/#/state")
    expect(page.locator(".checked")).to_have_text("# must be the last level")
    expect(page.get_by_label("Description")).to_have_value("Whatever reports its state")
    page.get_by_label("Topic filter or path").fill("devices/%u/state")
    page.get_by_label("Operation").select_option("write")
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("status")).to_contain_text("was created")
    assert get_role(service, name)["permissions"] == [permission("write devices/%u/state")]

    page.get_by_role("button", name="Edit").click()
    page.get_by_label("Description").fill("Whatever takes orders, too")
    page.get_by_role("button", name="Add a permission").click()
    page.get_by_label("Topic filter or path").nth(1).fill("orders/%u")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status")).to_contain_text("was changed")
    role = get_role(service, name)
    assert role["description"] == "Whatever takes orders, too"
    assert role["permissions"] == [permission("write devices/%u/state"), permission("readWrite orders/%u")]

    declining = page.context.new_page()  # without a dialog handler, playwright dismisses the question
    declining.goto(f"/admin/roles/{name}")
    declining.get_by_role("button", name="Delete").click()
    assert get_role(service, name) == role
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("status")).to_have_text(f"The role {name} was deleted.")
    assert service.call("GET", f"/api/roles/{name}").status_code == 404
    assert not admin.script_errors


def test_role_in_use_cannot_be_deleted_and_its_users_are_linked(service: Service, admin: Window) -> None:
    name, page = new_role(service, "read a"), admin.page
    holders = [f"holder-{next(_numbers)}" for _ in range(3)]
    for username in holders:
        service.create_user(username, "secret", roles=[name])
    admin.open(f"/admin/roles/{name}")
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("alert")).to_contain_text(f"3 users have the role {name}; remove it from them first")
    assert get_role(service, name)
    page.get_by_role("link", name="3", exact=True).click()
    expect(page.get_by_role("rowheader")).to_have_text(sorted(holders))
    assert not admin.script_errors


def test_role_search_matches_descriptions_and_counts_users(service: Service, admin: Window) -> None:
    name, page = new_role(service, "read a", description="for the <b>Zeppelin</b> hall"), admin.page
    service.create_user(f"holder-{next(_numbers)}", "secret", roles=[name])
    admin.open("/admin/roles")
    page.get_by_role("searchbox").fill("zeppelin")
    page.get_by_role("searchbox").press("Enter")
    (row,) = page.get_by_role("row").filter(has=page.get_by_role("rowheader")).all()
    expect(row).to_contain_text("for the <b>Zeppelin</b> hall")
    expect(row.get_by_role("cell").nth(2)).to_have_text("1")
    assert page.locator("main b").count() == 0
    row.get_by_role("link", name=name).click()
    expect(page.get_by_role("region", name="Details")).to_contain_text("<b>Zeppelin</b>")
    expect(page.get_by_role("region", name="Latest changes")).to_contain_text("<b>Zeppelin</b>")
    assert page.locator("main b").count() == 0
    admin.open("/admin/roles?search=nothing-like-it")
    expect(page.get_by_text("No role matches")).to_be_visible()
    assert not admin.script_errors


def test_built_in_role_cannot_be_changed(service: Service, admin: Window) -> None:
    before = get_role(service, "minimum-access")
    admin.open("/admin/roles/minimum-access")
    expect(admin.page.get_by_text("built in")).to_be_visible()
    for name in ("Edit", "Delete"):
        expect(admin.page.get_by_role("button", name=name)).to_have_count(0)
    clerk = sign_in_new_user(service, "http readWrite /#")
    wanted = form_fields("http readWrite /#", updated=form_version(clerk, "minimum-access"), description="mine")
    for path in ("edit", "delete"):
        answer = clerk.post(f"/admin/roles/minimum-access/{path}", drawn_at="/admin", **wanted)
        assert answer.status_code == 409
        assert "is built in and cannot be changed" in answer.text
    assert get_role(service, "minimum-access") == before


def test_concurrent_role_change_is_reported_and_input_is_kept(service: Service, admin: Window) -> None:
    name, page = new_role(service, "read a", description="first"), admin.page
    admin.open(f"/admin/roles/{name}/edit")
    service.call("PATCH", f"/api/roles/{name}", json={"description": "theirs"})
    page.get_by_label("Description").fill("mine")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert")).to_contain_text("Not saved: this role was changed after you opened the form")
    expect(page.get_by_role("alert")).to_contain_text("theirs")
    expect(page.get_by_label("Description")).to_have_value("mine")
    assert get_role(service, name)["description"] == "theirs"
    page.get_by_role("button", name="Overwrite with my input").click()
    expect(page.get_by_role("status")).to_contain_text("was changed")
    assert get_role(service, name)["description"] == "mine"


def test_error_is_shown_in_the_row_of_the_invalid_permission(service: Service) -> None:
    clerk = sign_in_new_user(service, "http readWrite /#")
    rows = {f"permission.{name}": [value, value] for name, value in permission("read a/b").items()}
    rows["permission.resource"] = ["a/b", "a/#/b"]
    answer = clerk.post("/admin/new-role", drawn_at="/admin", name="a role", description="kept <words>", **rows)
    assert answer.status_code == 400
    assert "must be 1 to 64" in answer.text
    assert 'value="a role"' in answer.text
    assert 'value="kept &lt;words&gt;"' in answer.text
    answer = clerk.post("/admin/new-role", drawn_at="/admin", name="half-made", description="", **rows)
    first, second = answer.text.split('class="permission-row"')[1:]
    assert "must be the last level" in second
    assert "must be the last level" not in first
    assert service.call("GET", "/api/roles/half-made").status_code == 404


@pytest.mark.parametrize("path", ["roles", "new-role", "roles/{name}", "roles/{name}/edit"])
def test_role_pages_are_accessible_and_fit_a_phone_with_long_values(service: Service, admin: Window, path: str) -> None:
    name, page = new_role(service, "read a/#", "deny write b", description="w" * 300), admin.page
    assert admin.open("/admin/" + path.format(name=name)) == 200
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    found = Axe().run(page).response["violations"]
    assert not [violation for violation in found if violation["impact"] in ("serious", "critical")]
    assert not admin.script_errors


def test_read_only_user_sees_no_forms_or_edit_links(service: Service) -> None:
    name = new_role(service, "read a")
    clerk = sign_in_new_user(service, "http read /api/#")
    for path in ("/admin/roles", f"/admin/roles/{name}"):
        answer = clerk.get(path)
        assert answer.status_code == 200
        assert 'method="post"' not in answer.text.replace('<form class="who" method="post"', "")
        assert "/edit" not in answer.text
        assert "/new" not in answer.text


def test_write_only_user_cannot_see_a_role(service: Service) -> None:
    name = new_role(service, "read secret/topic")
    clerk = sign_in_new_user(service, "http read /api/me", "http write /api/roles/#")
    for path in ("", "/edit"):
        answer = clerk.get(f"/admin/roles/{name}{path}")
        assert answer.status_code == 403
        assert "secret/topic" not in answer.text


def test_caller_cannot_give_a_role_permissions_that_it_lacks(service: Service) -> None:
    name = new_role(service, "read a")
    clerk = sign_in_new_user(service, "http readWrite /api/roles/#", "http read /api/me")
    before = get_role(service, name)
    wanted = form_fields("http readWrite /api/users/#", description="kept words", updated=form_version(clerk, name))
    for path in (f"/admin/roles/{name}/edit", "/admin/new-role"):
        answer = clerk.post(path, drawn_at="/admin", name="made-by-clerk", **wanted)
        assert answer.status_code == 403
        assert "account needs the permission" in answer.text
        assert "/api/users/#" in answer.text
        assert "kept words" in answer.text
    assert get_role(service, name) == before
    assert service.call("GET", "/api/roles/made-by-clerk").status_code == 404


def test_invalid_and_unknown_role_names_are_client_errors(service: Service) -> None:
    clerk = sign_in_new_user(service, "http readWrite /#")
    assert clerk.get("/admin/roles/a%00b").status_code == 400
    assert clerk.get("/admin/roles/no-such-role").status_code == 404
    assert clerk.post("/admin/roles/no-such-role/delete", drawn_at="/admin").status_code == 404
    assert clerk.get("/admin/roles?search=a%00b").status_code == 400


def test_role_picker_has_chosen_roles_first_and_a_search(service: Service, admin: Window) -> None:
    page = admin.page
    names = [f"picker-{letter}" for letter in "abcdefghij"]
    for name in names:
        assert service.call("POST", "/api/roles", json={"name": name}).status_code == 201
    service.create_user("picky", "secret", roles=["picker-j"])
    admin.open("/admin/users/picky/edit")
    roles = page.locator(".picks label")
    expect(roles.first).to_have_text("picker-j")
    search = page.get_by_label("Search roles")
    search.fill("PICKER-C")
    search.press("Enter")
    expect(roles.filter(visible=True)).to_have_text([re.compile("picker-j"), re.compile("picker-c")])
    page.get_by_label("picker-c").check()
    search.fill("no such role")
    expect(roles.filter(visible=True)).to_have_count(2)
    page.get_by_role("button", name="Save").click()
    assert service.call("GET", "/api/users/picky").json()["roles"] == ["picker-c", "picker-j"]
    assert not admin.script_errors
