"""Roles at the administrator's page."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.admin.page_objects import FormFiller, Visitor
from tests.service import permission

if TYPE_CHECKING:
    from tests.service import Service

_numbers = count()


def new_role(service: Service, *permissions: str, description: str = "") -> str:
    name = f"role-{next(_numbers)}"
    body = {"name": name, "description": description, "permissions": list(map(permission, permissions))}
    assert service.call("POST", "/api/roles", json=body).status_code == 201
    return name


def person_with(service: Service, *permissions: str) -> FormFiller:
    username = f"person-{next(_numbers)}"
    service.create_user(username, "secret", *permissions)
    browser = FormFiller(service.url)
    assert browser.sign_in(username, "secret").status_code == 303
    return browser


def stored(service: Service, name: str) -> dict[str, Any]:
    answer = service.call("GET", f"/api/roles/{name}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def form_with(rule: str, **fields: str) -> dict[str, str]:
    """Return the fields of a form with one permission in it."""
    return {f"permission.{name}": value for name, value in permission(rule).items()} | fields


def updated(browser: FormFiller, name: str) -> str:
    """Return as of when a form for changes shows the role."""
    drawn = browser.get(f"/admin/roles/{name}/edit")
    assert drawn.status_code == 200
    return drawn.text.partition('name="updated" value="')[2].partition('"')[0]


def test_a_role_is_made_changed_and_deleted(service: Service, admin: Visitor) -> None:
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
    assert stored(service, name)["permissions"] == [permission("write devices/%u/state")]

    page.get_by_role("button", name="Edit").click()
    page.get_by_label("Description").fill("Whatever takes orders, too")
    page.get_by_role("button", name="Add a permission").click()
    page.get_by_label("Topic filter or path").nth(1).fill("orders/%u")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status")).to_contain_text("was changed")
    role = stored(service, name)
    assert role["description"] == "Whatever takes orders, too"
    assert role["permissions"] == [permission("write devices/%u/state"), permission("readWrite orders/%u")]

    hesitant = page.context.new_page()  # where nobody listens, every question is answered with no
    hesitant.goto(f"/admin/roles/{name}")
    hesitant.get_by_role("button", name="Delete").click()
    assert stored(service, name) == role
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("status")).to_have_text(f"The role {name} was deleted.")
    assert service.call("GET", f"/api/roles/{name}").status_code == 404
    assert not admin.complaints


def test_a_role_in_use_stays_and_the_page_says_by_whom(service: Service, admin: Visitor) -> None:
    name, page = new_role(service, "read a"), admin.page
    holders = [f"holder-{next(_numbers)}" for _ in range(3)]
    for username in holders:
        service.create_user(username, "secret", roles=[name])
    admin.open(f"/admin/roles/{name}")
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("alert")).to_contain_text(f"3 users have the role {name}; remove it from them first")
    assert stored(service, name)
    page.get_by_role("link", name="3", exact=True).click()
    expect(page.get_by_role("rowheader")).to_have_text(sorted(holders))
    assert not admin.complaints


def test_roles_are_found_by_their_description_and_counted(service: Service, admin: Visitor) -> None:
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
    expect(page.get_by_role("region", name="Facts")).to_contain_text("<b>Zeppelin</b>")
    expect(page.get_by_role("region", name="Latest changes")).to_contain_text("<b>Zeppelin</b>")
    assert page.locator("main b").count() == 0
    admin.open("/admin/roles?search=nothing-like-it")
    expect(page.get_by_text("No role fits")).to_be_visible()
    assert not admin.complaints


def test_a_built_in_role_offers_no_change_and_takes_none(service: Service, admin: Visitor) -> None:
    before = stored(service, "minimum-access")
    admin.open("/admin/roles/minimum-access")
    expect(admin.page.get_by_text("built in")).to_be_visible()
    for name in ("Edit", "Delete"):
        expect(admin.page.get_by_role("button", name=name)).to_have_count(0)
    clerk = person_with(service, "http readWrite /#")
    wanted = form_with("http readWrite /#", updated=updated(clerk, "minimum-access"), description="mine")
    for path in ("edit", "delete"):
        answer = clerk.post(f"/admin/roles/minimum-access/{path}", drawn_at="/admin", **wanted)
        assert answer.status_code == 409
        assert "is built in and cannot be changed" in answer.text
    assert stored(service, "minimum-access") == before


def test_of_two_who_change_a_role_the_later_is_told_and_loses_nothing(service: Service, admin: Visitor) -> None:
    name, page = new_role(service, "read a", description="first"), admin.page
    admin.open(f"/admin/roles/{name}/edit")
    service.call("PATCH", f"/api/roles/{name}", json={"description": "theirs"})
    page.get_by_label("Description").fill("mine")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert")).to_contain_text("Not saved: somebody has changed this role meanwhile")
    expect(page.get_by_role("alert")).to_contain_text("theirs")
    expect(page.get_by_label("Description")).to_have_value("mine")
    assert stored(service, name)["description"] == "theirs"
    page.get_by_role("button", name="Save mine all the same").click()
    expect(page.get_by_role("status")).to_contain_text("was changed")
    assert stored(service, name)["description"] == "mine"


def test_what_is_wrong_is_said_beside_its_row(service: Service) -> None:
    clerk = person_with(service, "http readWrite /#")
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
def test_every_page_about_roles_can_be_used_by_anybody_and_fits_a_phone(
    service: Service, admin: Visitor, path: str
) -> None:
    name, page = new_role(service, "read a/#", "deny write b", description="w" * 300), admin.page
    assert admin.open("/admin/" + path.format(name=name)) == 200
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    found = Axe().run(page).response["violations"]
    assert not [violation for violation in found if violation["impact"] in ("serious", "critical")]
    assert not admin.complaints


VIEWS = [
    ("GET", "/admin/roles"),
    ("GET", "/admin/new-role"),
    ("POST", "/admin/new-role"),
    ("GET", "/admin/roles/{name}"),
    ("GET", "/admin/roles/{name}/edit"),
    ("POST", "/admin/roles/{name}/edit"),
    ("POST", "/admin/roles/{name}/delete"),
]


@pytest.mark.parametrize(("method", "path"), VIEWS)
def test_a_powerless_user_gets_none_of_it(service: Service, method: str, path: str) -> None:
    name = new_role(service, "read secret/topic")
    before, where = stored(service, name), path.format(name=name)
    powerless = person_with(service, "http read /api/me")
    fields = form_with("read x", name="made-by-nobody", description="theirs")
    answer = powerless.get(where) if method == "GET" else powerless.post(where, drawn_at="/admin", **fields)
    assert answer.status_code == 403
    assert "secret/topic" not in answer.text
    assert stored(service, name) == before
    assert service.call("GET", "/api/roles/made-by-nobody").status_code == 404


@pytest.mark.parametrize("path", [path for method, path in VIEWS if method == "POST"])
def test_a_form_that_was_not_drawn_here_changes_nothing(service: Service, path: str) -> None:
    name = new_role(service, "read a")
    before = stored(service, name)
    clerk = person_with(service, "http readWrite /#")
    fields = form_with("read x", name="made-by-nobody", description="theirs", updated=updated(clerk, name))
    assert clerk.session.post(service.url + path.format(name=name), data=fields, timeout=20).status_code == 400
    assert stored(service, name) == before
    assert service.call("GET", "/api/roles/made-by-nobody").status_code == 404


def test_who_may_only_look_sees_nothing_to_change(service: Service) -> None:
    name = new_role(service, "read a")
    clerk = person_with(service, "http read /api/#")
    for path in ("/admin/roles", f"/admin/roles/{name}"):
        answer = clerk.get(path)
        assert answer.status_code == 200
        assert 'method="post"' not in answer.text.replace('<form class="who" method="post"', "")
        assert "/edit" not in answer.text
        assert "/new" not in answer.text


def test_who_may_only_write_is_not_shown_what_there_is(service: Service) -> None:
    name = new_role(service, "read secret/topic")
    clerk = person_with(service, "http read /api/me", "http write /api/roles/#")
    for path in ("", "/edit"):
        answer = clerk.get(f"/admin/roles/{name}{path}")
        assert answer.status_code == 403
        assert "secret/topic" not in answer.text


def test_nobody_gives_a_role_more_than_they_have_and_is_told_so(service: Service) -> None:
    name = new_role(service, "read a")
    clerk = person_with(service, "http readWrite /api/roles/#", "http read /api/me")
    before = stored(service, name)
    wanted = form_with("http readWrite /api/users/#", description="kept words", updated=updated(clerk, name))
    for path in (f"/admin/roles/{name}/edit", "/admin/new-role"):
        answer = clerk.post(path, drawn_at="/admin", name="made-by-clerk", **wanted)
        assert answer.status_code == 403
        assert "account needs the permission" in answer.text
        assert "/api/users/#" in answer.text
        assert "kept words" in answer.text
    assert stored(service, name) == before
    assert service.call("GET", "/api/roles/made-by-clerk").status_code == 404


def test_a_name_that_no_role_could_have_is_no_error_of_the_service(service: Service) -> None:
    clerk = person_with(service, "http readWrite /#")
    assert clerk.get("/admin/roles/a%00b").status_code == 400
    assert clerk.get("/admin/roles/no-such-role").status_code == 404
    assert clerk.post("/admin/roles/no-such-role/delete", drawn_at="/admin").status_code == 404
    assert clerk.get("/admin/roles?search=a%00b").status_code == 400
