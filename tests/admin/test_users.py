"""The pages of users."""

from __future__ import annotations

import sqlite3
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
import requests
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.admin.page_objects import FormClient, Window
from tests.registry.signing import signing_request
from tests.service import permission

if TYPE_CHECKING:
    from playwright.sync_api import Dialog

    from tests.service import Service

_numbers = count()


def new_user(service: Service, *permissions: str, **fields: Any) -> str:
    username = f"user-{next(_numbers)}"
    service.create_user(username, "secret", *permissions, **fields)
    return username


def new_role(service: Service, *permissions: str, description: str = "") -> str:
    name = f"role-{next(_numbers)}"
    body = {"name": name, "description": description, "permissions": list(map(permission, permissions))}
    assert service.call("POST", "/api/roles", json=body).status_code == 201
    return name


def sign_in_new_user(service: Service, *permissions: str) -> FormClient:
    browser = FormClient(service.url)
    assert browser.sign_in(new_user(service, *permissions), "secret").status_code == 303
    return browser


def get_user(service: Service, username: str) -> dict[str, Any]:
    answer = service.call("GET", f"/api/users/{username}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def password_is_accepted(service: Service, username: str, password: str) -> bool:
    """Return whether the service accepts the password, whatever the user's permissions."""
    return requests.get(service.url + "/api/me", auth=(username, password), timeout=10).status_code != 401


def form_fields(user: dict[str, Any], **changed: str | list[str]) -> dict[str, str | list[str]]:
    """Return the fields of an edit form that was submitted with only these changes."""
    rows = user["permissions"]
    columns = {
        f"permission.{name}": [row[name] for row in rows] for name in ("context", "operation", "resource", "effect")
    }
    enabled: dict[str, str | list[str]] = {"enabled": "yes"} if user["enabled"] else {}
    return enabled | {"grantTypes": user["grantTypes"], "roles": user["roles"]} | columns | changed


def form_version(browser: FormClient, username: str) -> str:
    """Return the version of the user that its edit form was rendered from."""
    drawn = browser.get(f"/admin/users/{username}/edit")
    assert drawn.status_code == 200
    return drawn.text.partition('name="updated" value="')[2].partition('"')[0]


def test_user_is_created_with_roles_permissions_and_a_generated_password(service: Service, admin: Window) -> None:
    role, username, page = new_role(service), f"user-{next(_numbers)}", admin.page
    admin.open("/admin/users")
    page.get_by_role("button", name="New user").click()
    page.get_by_label("Username").fill(username)
    page.get_by_label("certificate", exact=True).check()
    page.get_by_label(role).check()
    page.get_by_role("button", name="Add a permission").click()
    page.get_by_label("Topic filter or path").fill("devices/%u/#")
    page.get_by_label("Operation").select_option("write")
    page.get_by_role("button", name="Create").click()
    password = page.get_by_label(f"Password of {username}").input_value()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied", exact=True)).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == password
    page.get_by_role("button", name="I have copied it").click()
    expect(page.get_by_role("heading", name=username)).to_be_visible()
    assert password not in page.content()

    user = get_user(service, username)
    assert (user["grantTypes"], user["roles"]) == (["certificate", "password"], [role])
    assert user["permissions"] == [permission("write devices/%u/#")]
    assert password_is_accepted(service, username, password)
    assert not admin.script_errors


def test_topic_filter_is_validated_while_typing(service: Service, admin: Window) -> None:
    username, page = new_user(service, "read a/#", "write b"), admin.page
    admin.open(f"/admin/users/{username}/edit")
    rows = page.locator(".permission-row")
    page.get_by_role("button", name="Add a permission").click()
    expect(rows).to_have_count(3)
    new = rows.nth(2)
    expect(new.get_by_label("Topic filter or path")).to_be_focused()
    new.get_by_label("Topic filter or path").press_sequentially("devices/#/state")
    expect(new.get_by_role("status")).to_have_text("# must be the last level")
    new.get_by_label("Topic filter or path").fill("devices/%u/#")
    expect(new.get_by_role("status")).to_contain_text("%u is replaced by the username")
    new.get_by_label("Applies to").select_option("http")
    expect(new.get_by_role("status")).to_contain_text("names a path")
    new.get_by_label("Applies to").select_option("mqtt")
    new.get_by_label("Allow or deny").select_option("deny")
    expect(new.get_by_role("status")).to_contain_text("Denies")

    rows.nth(0).get_by_role("button", name="Remove").click()
    expect(rows).to_have_count(2)
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status")).to_contain_text("was changed")
    expected = [permission("write b"), permission("deny readWrite devices/%u/#")]
    assert get_user(service, username)["permissions"] == expected
    assert not admin.script_errors


def test_errors_are_shown_next_to_their_fields_and_input_is_kept(service: Service, admin: Window) -> None:
    role, page = new_role(service), admin.page
    taken = new_user(service)
    admin.open("/admin/new-user")
    page.get_by_label("Username").fill("a\x85b")
    page.get_by_label("Enter a password").check()
    page.get_by_label("New password").fill("a secret of mine")
    page.get_by_label("token", exact=True).check()
    page.get_by_label(role).check()
    rows = page.locator(".permission-row")
    for position, resource in enumerate(("fine/+", "a/#/b")):
        page.get_by_role("button", name="Add a permission").click()
        rows.nth(position).get_by_label("Topic filter or path").fill(resource)
    page.get_by_role("button", name="Create").click()
    expect(page.locator("#username-wrong")).to_contain_text("control characters")
    expect(page.get_by_label("Username")).to_have_value("a\x85b")
    expect(page.get_by_label(role)).to_be_checked()
    expect(page.get_by_label("token", exact=True)).to_be_checked()
    expect(page.get_by_label("Enter a password")).to_be_checked()
    expect(page.get_by_label("New password")).to_have_value("")
    assert "a secret of mine" not in page.content()

    page.get_by_label("Username").fill(taken)
    page.get_by_label("New password").fill("a secret of mine")
    page.get_by_role("button", name="Create").click()
    expect(rows.nth(1).get_by_role("status")).to_have_text("# must be the last level")
    expect(rows.nth(1).get_by_label("Topic filter or path")).to_have_value("a/#/b")
    expect(rows.nth(0).get_by_role("status")).to_have_text("")
    rows.nth(1).get_by_label("Topic filter or path").fill("a/b")
    page.get_by_label("New password").fill("four")
    page.get_by_role("button", name="Create").click()
    expect(page.locator("#password-wrong")).to_contain_text("at least 5")
    page.get_by_label("New password").fill("a secret of mine")
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("alert")).to_contain_text(f"user named {taken} exists")
    assert get_user(service, taken)["permissions"] == []
    assert not admin.script_errors


def test_user_search_matches_parts_of_names_and_is_paged(service: Service, admin: Window) -> None:
    for number in range(12):
        service.create_user(f"paged-{number:02}", "secret")
    page = admin.page
    names = page.get_by_role("rowheader")
    admin.open("/admin/users?perPage=5")
    page.get_by_role("searchbox").fill("AGED-")
    page.get_by_role("searchbox").press("Enter")
    expect(page.get_by_text("12 users match")).to_be_visible()
    expect(names).to_have_count(5)  # the size of a page is kept
    admin.open("/admin/users?search=paged-&perPage=5")
    expect(names).to_have_text([f"paged-{number:02}" for number in range(5)])
    page.get_by_role("link", name="Next").click()
    expect(names).to_have_text([f"paged-{number:02}" for number in range(5, 10)])
    page.get_by_role("link", name="Last", exact=True).click()
    expect(names).to_have_text(["paged-10", "paged-11"])
    expect(page.get_by_text("Page 3 of 3")).to_be_visible()
    admin.open("/admin/users?search=paged-&perPage=5&page=4")
    page.get_by_role("link", name="Go to the first page").click()
    expect(names).to_have_count(5)
    admin.open("/admin/users?search=nobody-has-this-name")
    expect(page.get_by_text("No user matches")).to_be_visible()
    assert admin.open("/admin/users?page=soon") == 400
    assert not admin.script_errors


def test_disabling_needs_confirmation_and_enabling_does_not(service: Service, admin: Window) -> None:
    username = new_user(service)
    declining = admin.page.context.new_page()
    questions: list[str] = []

    def decline(dialog: Dialog) -> None:
        questions.append(dialog.message)
        dialog.dismiss()

    declining.on("dialog", decline)
    declining.goto(f"/admin/users?search={username}")
    declining.get_by_role("button", name="Disable").click()
    (question,) = questions
    assert username in question
    expect(declining.get_by_role("table").get_by_text("enabled", exact=True)).to_be_visible()
    assert password_is_accepted(service, username, "secret")

    page = admin.page
    admin.open(f"/admin/users?search={username}")
    page.get_by_role("button", name="Disable").click()
    expect(page.get_by_role("status")).to_contain_text("is disabled")
    expect(page.get_by_role("searchbox")).to_have_value(username)
    assert not password_is_accepted(service, username, "secret")
    page.get_by_role("button", name="Enable").click()
    expect(page.get_by_role("status")).to_contain_text("is enabled")
    assert password_is_accepted(service, username, "secret")
    assert not admin.script_errors


def test_password_is_generated_set_or_removed(service: Service, admin: Window) -> None:
    username, page = new_user(service), admin.page
    admin.open(f"/admin/users/{username}")
    page.get_by_role("button", name="Reset password").click()
    expect(page.get_by_label("New password")).not_to_be_visible()
    page.get_by_role("button", name="Save").click()
    generated = page.get_by_label(f"Password of {username}").input_value()
    assert not password_is_accepted(service, username, "secret")
    assert password_is_accepted(service, username, generated)

    admin.open(f"/admin/users/{username}/password")
    page.get_by_label("Enter a password").check()
    page.get_by_label("New password").fill("another secret")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status")).to_contain_text("has a new password")
    assert password_is_accepted(service, username, "another secret")

    admin.open(f"/admin/users/{username}/password")
    page.get_by_label("No password").check()
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status")).to_contain_text("has no password")
    assert not get_user(service, username)["hasPassword"]
    assert not admin.script_errors


@pytest.mark.parametrize("revoked", [True, False])
def test_new_password_revokes_tokens_unless_unchecked(service: Service, admin: Window, *, revoked: bool) -> None:
    username, page = new_user(service), admin.page
    assert service.call("POST", "/api/tokens", json={"username": username, "label": "wall"}).status_code == 201
    admin.open(f"/admin/users/{username}/password")
    also = page.get_by_label("Also revoke all API tokens and certificates of this user")
    expect(also).to_be_checked()
    if not revoked:
        also.uncheck()
    page.get_by_label("Enter a password").check()
    page.get_by_label("New password").fill("four")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#password-wrong")).to_be_visible()
    expect(also).to_be_checked(checked=revoked)
    page.get_by_label("Enter a password").check()
    page.get_by_label("New password").fill("another secret")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status")).to_contain_text("has a new password")
    assert service.call("GET", "/api/tokens", params={"username": username}).json()["total"] == int(not revoked)
    assert not admin.script_errors


def test_deleting_a_user_needs_confirmation(service: Service, admin: Window) -> None:
    username = new_user(service)
    declining = admin.page.context.new_page()  # without a dialog handler, playwright dismisses the question
    declining.goto(f"/admin/users/{username}")
    declining.get_by_role("button", name="Delete").click()
    assert get_user(service, username)["enabled"]
    admin.open(f"/admin/users/{username}")
    admin.page.get_by_role("button", name="Delete").click()
    expect(admin.page.get_by_role("status")).to_have_text(f"{username} was deleted.")
    assert service.call("GET", f"/api/users/{username}").status_code == 404
    assert admin.open(f"/admin/users/{username}") == 404
    assert not admin.script_errors


def test_last_administrator_cannot_be_deleted_or_disabled(service: Service, admin: Window) -> None:
    admin.open("/admin/users/admin")
    for button in ("Delete", "Disable"):
        admin.page.get_by_role("button", name=button).click()
        expect(admin.page.get_by_role("alert")).to_contain_text("would remove the last administrator", ignore_case=True)
    assert get_user(service, "admin")["enabled"]


def test_concurrent_user_change_is_reported_and_input_is_kept(service: Service, admin: Window) -> None:
    username, page = new_user(service, "read a"), admin.page
    admin.open(f"/admin/users/{username}/edit")
    service.call("PATCH", f"/api/users/{username}", json={"permissions": [permission("read theirs/#")]})
    page.get_by_label("Topic filter or path").fill("mine/#")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert")).to_contain_text("Not saved: this user was changed after you opened the form")
    expect(page.get_by_role("alert")).to_contain_text("theirs/#")
    expect(page.get_by_label("Topic filter or path")).to_have_value("mine/#")
    assert get_user(service, username)["permissions"] == [permission("read theirs/#")]
    page.get_by_role("button", name="Overwrite with my input").click()
    expect(page.get_by_role("status")).to_contain_text("was changed")
    assert get_user(service, username)["permissions"] == [permission("read mine/#")]
    assert not admin.script_errors


def test_user_page_shows_related_records_with_html_escaped(service: Service, admin: Window) -> None:
    role = new_role(service, "write <i>role</i>/#", description="<script>complain('role')</script>")
    grants = ["password", "certificate", "token"]
    username = new_user(service, "read <b>own</b>/#", roles=[role], grantTypes=grants)
    page = admin.page
    service.call("POST", "/api/tokens", json={"username": username, "label": "<img src=x onerror=complain()>"})
    csr = signing_request(username)
    serial = service.call("POST", f"/api/users/{username}/certificates", json={"csr": csr}).json()["serial"]
    other = FormClient(service.url)
    other.session.headers["User-Agent"] = "<u>Browser</u> of mine"
    assert other.sign_in(username, "secret").status_code == 303
    insert_seen_client_id(service, username, "<script>complain('client')</script>")

    assert admin.open(f"/admin/users/{username}") == 200
    in_force = page.get_by_role("region", name="Permissions in force")
    own = in_force.get_by_role("row").filter(has_text="<b>own</b>/#")
    expect(own).to_contain_text("user")
    expect(in_force.get_by_role("row").filter(has_text="<i>role</i>/#").get_by_role("link", name=role)).to_be_visible()
    link = page.get_by_role("region", name="Certificates").get_by_role("link", name=serial)
    expect(link).to_have_attribute("href", f"/admin/certificates/{serial}")
    expect(page.get_by_role("region", name="API tokens")).to_contain_text("<img src=x onerror=complain()>")
    expect(page.get_by_role("region", name="Browser sessions")).to_contain_text("<u>Browser</u> of mine")
    expect(page.get_by_role("region", name="Last seen client ids")).to_contain_text("<script>complain('client')")
    changes = page.get_by_role("region", name="Latest changes")
    expect(changes).to_contain_text("user.create")
    expect(changes).to_contain_text("<b>own</b>/#")
    assert page.locator("main :is(script, img, u, i, b:text('own'))").count() == 0
    admin.open(f"/admin/users/{username}/edit")
    expect(page.get_by_text("<script>complain('role')</script>")).to_be_visible()
    assert page.locator("main script").count() == 0
    assert not admin.script_errors


def insert_seen_client_id(service: Service, username: str, client_id: str) -> None:
    """Insert a seen client id into the database, as the service does with a delay."""
    with sqlite3.connect(f"{service.environment['AUTHSVC_DATA_DIR']}/authsvc.db", timeout=10) as database:
        seen_at = "2026-11-20 08:00:00"
        database.execute(
            "INSERT INTO sightings (username, client_id, seen_at) VALUES (?, ?, ?)", (username, client_id, seen_at)
        )
    database.close()


@pytest.mark.parametrize(
    "path", ["users", "new-user", "users/{username}", "users/{username}/edit", "users/{username}/password"]
)
def test_user_pages_are_accessible_and_fit_a_phone_with_long_values(service: Service, admin: Window, path: str) -> None:
    role = new_role(service, f"write {'b' * 300}", description="d" * 200)
    username, page = f"{'u' * 60}{next(_numbers):04}", admin.page
    service.create_user(username, "secret", f"read {'a' * 300}/#", roles=[role], grantTypes=["password", "token"])
    service.call("POST", "/api/tokens", json={"username": username, "label": "l" * 200})
    insert_seen_client_id(service, username, "c" * 200)
    assert admin.open("/admin/" + path.format(username=username)) == 200
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    found = Axe().run(page).response["violations"]
    assert not [violation for violation in found if violation["impact"] in ("serious", "critical")]
    assert not admin.script_errors


FIELDS = {"username": "made-by-nobody", "passwordIs": "typed", "password": "stolen secret", "enabled": "no"}


def test_read_only_user_sees_no_forms_or_edit_links(service: Service) -> None:
    username = new_user(service)
    clerk = sign_in_new_user(service, "http read /api/#")
    for path in ("/admin/users", f"/admin/users/{username}"):
        answer = clerk.get(path)
        assert answer.status_code == 200
        assert 'method="post"' not in answer.text.replace('<form class="who" method="post"', "")
        assert "/edit" not in answer.text
        assert "/new" not in answer.text


def test_caller_who_may_read_only_users_sees_no_roles_tokens_or_audit_events(service: Service) -> None:
    role = new_role(service, "read secret/topic")
    username = new_user(service, "read own/topic", roles=[role], grantTypes=["password", "token"])
    service.call("POST", "/api/tokens", json={"username": username, "label": "a label that is not theirs"})
    clerk = sign_in_new_user(service, "http read /api/me", "http read /api/users", "http read /api/users/+")
    text = clerk.get(f"/admin/users/{username}").text
    assert "own/topic" in text
    assert role in text
    for hidden in (
        "secret/topic",
        "a label that is not theirs",
        "Latest changes",
        "Certificates",
        "Browser sessions",
        "Roles</a>",
    ):
        assert hidden not in text


def test_write_only_user_cannot_see_a_user(service: Service) -> None:
    username = new_user(service, "read own/topic")
    clerk = sign_in_new_user(service, "http read /api/me", "http write /api/users/#")
    for path in ("", "/edit", "/password"):
        answer = clerk.get(f"/admin/users/{username}{path}")
        assert answer.status_code == 403
        assert "own/topic" not in answer.text
    answer = clerk.post(f"/admin/users/{username}/enabled", drawn_at="/admin", enabled="no")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/admin")
    assert not get_user(service, username)["enabled"]


def test_caller_cannot_grant_permissions_that_it_lacks(service: Service) -> None:
    username = new_user(service, "read a/#")
    clerk = sign_in_new_user(service, "http readWrite /api/users/#", "http read /api/roles", "http read /api/me")
    before = get_user(service, username)
    wanted = form_fields(before, updated=form_version(clerk, username), roles=["admin"])
    answer = clerk.post(f"/admin/users/{username}/edit", drawn_at="/admin", **wanted)
    assert answer.status_code == 403
    assert "account needs the permission" in answer.text
    assert 'value="admin" checked' in answer.text
    assert 'value="a/#"' in answer.text
    assert get_user(service, username) == before

    fields = {"username": "made-by-clerk", "passwordIs": "typed", "password": "secret", "roles": "admin"}
    assert clerk.post("/admin/new-user", drawn_at="/admin", **fields).status_code == 403
    assert service.call("GET", "/api/users/made-by-clerk").status_code == 404


@pytest.mark.parametrize(
    ("path", "words"), [("password", "New password"), ("enabled", "Details"), ("delete", "Details")]
)
def test_caller_cannot_change_a_user_with_more_permissions(service: Service, path: str, words: str) -> None:
    chief = new_user(service, roles=["admin"])
    clerk = sign_in_new_user(service, "http readWrite /api/users/#", "http read /api/me")
    answer = clerk.post(f"/admin/users/{chief}/{path}", drawn_at="/admin", **FIELDS)
    assert answer.status_code == 403
    assert "account needs the permission" in answer.text
    assert words in answer.text
    assert "stolen secret" not in answer.text
    assert get_user(service, chief)["enabled"]
    assert password_is_accepted(service, chief, "secret")


def test_roles_that_the_caller_may_not_list_are_kept_when_saving(service: Service) -> None:
    role = new_role(service, "read a")
    username = new_user(service, roles=[role])
    clerk = sign_in_new_user(service, "http readWrite /api/users/#", "http read /api/me")
    drawn = clerk.get(f"/admin/users/{username}/edit").text
    assert f'value="{role}" checked' in drawn
    assert 'value="admin"' not in drawn
    wanted = form_fields(get_user(service, username), updated=form_version(clerk, username), grantTypes=["token"])
    assert clerk.post(f"/admin/users/{username}/edit", drawn_at="/admin", **wanted).status_code == 303
    user = get_user(service, username)
    assert (user["roles"], user["grantTypes"]) == ([role], ["token"])


@pytest.mark.parametrize("back", ["//elsewhere.example", "https://elsewhere.example/", "/\\elsewhere.example"])
def test_redirect_after_a_change_to_another_host_is_refused(service: Service, back: str) -> None:
    username = new_user(service)
    clerk = sign_in_new_user(service, "http readWrite /#")
    answer = clerk.post(f"/admin/users/{username}/enabled", drawn_at="/admin", enabled="no", back=back)
    assert answer.status_code == 400
    assert "Location" not in answer.headers
    assert get_user(service, username)["enabled"]


@pytest.mark.parametrize("as_of", ["", "yesterday", "2026-11-20T08:00:00", "2026-11-20T08:00:00+00:00"])
def test_form_with_an_outdated_version_is_not_saved(service: Service, as_of: str) -> None:
    username = new_user(service)
    clerk = sign_in_new_user(service, "http readWrite /#")
    before = get_user(service, username)
    answer = clerk.post(
        f"/admin/users/{username}/edit", drawn_at="/admin", **form_fields(before, updated=as_of, grantTypes=["token"])
    )
    assert answer.status_code in (400, 412)
    assert get_user(service, username) == before


@pytest.mark.parametrize("path", ["", "/edit", "/password"])
def test_invalid_and_unknown_usernames_are_client_errors(service: Service, path: str) -> None:
    clerk = sign_in_new_user(service, "http readWrite /#")
    assert clerk.get(f"/admin/users/a%00b{path}").status_code == 400
    assert clerk.get(f"/admin/users/nobody-at-all{path}").status_code == 404
    assert clerk.post(f"/admin/users/nobody-at-all{path or '/delete'}", drawn_at="/admin", **FIELDS).status_code in (
        400,
        404,
    )


def test_form_accepts_10000_permissions_like_the_api(service: Service) -> None:
    username = new_user(service)
    clerk = sign_in_new_user(service, "http readWrite /#")
    rows = [permission(f"read halls/{number}/lines/+/state") for number in range(10_000)]
    user = get_user(service, username) | {"permissions": rows}
    wanted = form_fields(user, updated=form_version(clerk, username))
    assert clerk.post(f"/admin/users/{username}/edit", drawn_at="/admin", **wanted).status_code == 303
    assert get_user(service, username)["permissions"] == rows
