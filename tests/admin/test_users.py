"""Users at the administrator's page."""

from __future__ import annotations

import sqlite3
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
import requests
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.admin.page_objects import FormFiller, Visitor
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


def person_with(service: Service, *permissions: str) -> FormFiller:
    browser = FormFiller(service.url)
    assert browser.sign_in(new_user(service, *permissions), "secret").status_code == 303
    return browser


def stored(service: Service, username: str) -> dict[str, Any]:
    answer = service.call("GET", f"/api/users/{username}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def gets_in(service: Service, username: str, password: str) -> bool:
    """Say whether the service knows who that is; what it lets them do then is another matter."""
    return requests.get(service.url + "/api/me", auth=(username, password), timeout=10).status_code != 401


def form_of(user: dict[str, Any], **changed: str | list[str]) -> dict[str, str | list[str]]:
    """Return the fields that the form for changes brings back when nothing but these was touched."""
    rows = user["permissions"]
    columns = {
        f"permission.{name}": [row[name] for row in rows] for name in ("context", "operation", "resource", "effect")
    }
    enabled: dict[str, str | list[str]] = {"enabled": "yes"} if user["enabled"] else {}
    return enabled | {"grantTypes": user["grantTypes"], "roles": user["roles"]} | columns | changed


def updated(browser: FormFiller, username: str) -> str:
    """Return as of when a form for changes shows the user."""
    drawn = browser.get(f"/admin/users/{username}/edit")
    assert drawn.status_code == 200
    return drawn.text.partition('name="updated" value="')[2].partition('"')[0]


def test_a_user_is_made_with_a_role_permissions_and_a_generated_password(service: Service, admin: Visitor) -> None:
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

    user = stored(service, username)
    assert (user["grantTypes"], user["roles"]) == (["certificate", "password"], [role])
    assert user["permissions"] == [permission("write devices/%u/#")]
    assert gets_in(service, username, password)
    assert not admin.complaints


def test_a_topic_filter_is_checked_while_it_is_typed(service: Service, admin: Visitor) -> None:
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
    expect(new.get_by_role("status")).to_contain_text("%u stands for the username")
    new.get_by_label("What it is about").select_option("http")
    expect(new.get_by_role("status")).to_contain_text("names a path")
    new.get_by_label("What it is about").select_option("mqtt")
    new.get_by_label("Allow or deny").select_option("deny")
    expect(new.get_by_role("status")).to_contain_text("Refuses")

    rows.nth(0).get_by_role("button", name="Remove").click()
    expect(rows).to_have_count(2)
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status")).to_contain_text("was changed")
    expected = [permission("write b"), permission("deny readWrite devices/%u/#")]
    assert stored(service, username)["permissions"] == expected
    assert not admin.complaints


def test_what_is_wrong_is_said_beside_its_field_and_what_was_typed_is_kept(service: Service, admin: Visitor) -> None:
    role, page = new_role(service), admin.page
    taken = new_user(service)
    admin.open("/admin/new-user")
    page.get_by_label("Username").fill("a b")
    page.get_by_label("Type one").check()
    page.get_by_label("New password").fill("a secret of mine")
    page.get_by_label("token", exact=True).check()
    page.get_by_label(role).check()
    rows = page.locator(".permission-row")
    for position, resource in enumerate(("fine/+", "a/#/b")):
        page.get_by_role("button", name="Add a permission").click()
        rows.nth(position).get_by_label("Topic filter or path").fill(resource)
    page.get_by_role("button", name="Create").click()
    expect(page.locator("#username-wrong")).to_contain_text("3 to 64")
    expect(page.get_by_label("Username")).to_have_value("a b")
    expect(page.get_by_label(role)).to_be_checked()
    expect(page.get_by_label("token", exact=True)).to_be_checked()
    expect(page.get_by_label("Type one")).to_be_checked()
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
    assert stored(service, taken)["permissions"] == []
    assert not admin.complaints


def test_users_are_found_by_a_part_of_their_name_and_paged_through(service: Service, admin: Visitor) -> None:
    for number in range(12):
        service.create_user(f"paged-{number:02}", "secret")
    page = admin.page
    names = page.get_by_role("rowheader")
    admin.open("/admin/users?perPage=5")
    page.get_by_role("searchbox").fill("AGED-")
    page.get_by_role("searchbox").press("Enter")
    expect(names).to_have_count(12)
    admin.open("/admin/users?search=paged-&perPage=5")
    expect(names).to_have_text([f"paged-{number:02}" for number in range(5)])
    page.get_by_role("link", name="Next").click()
    expect(names).to_have_text([f"paged-{number:02}" for number in range(5, 10)])
    page.get_by_role("link", name="Last").click()
    expect(names).to_have_text(["paged-10", "paged-11"])
    expect(page.get_by_text("Page 3 of 3")).to_be_visible()
    admin.open("/admin/users?search=paged-&perPage=5&page=4")
    page.get_by_role("link", name="To its beginning").click()
    expect(names).to_have_count(5)
    admin.open("/admin/users?search=nobody-has-this-name")
    expect(page.get_by_text("No user fits")).to_be_visible()
    assert admin.open("/admin/users?page=soon") == 400
    assert not admin.complaints


def test_a_user_is_disabled_after_a_question_and_enabled_in_one_click(service: Service, admin: Visitor) -> None:
    username = new_user(service)
    hesitant = admin.page.context.new_page()
    questions: list[str] = []

    def decline(dialog: Dialog) -> None:
        questions.append(dialog.message)
        dialog.dismiss()

    hesitant.on("dialog", decline)
    hesitant.goto(f"/admin/users?search={username}")
    hesitant.get_by_role("button", name="Disable").click()
    (question,) = questions
    assert username in question
    expect(hesitant.get_by_text("enabled", exact=True)).to_be_visible()
    assert gets_in(service, username, "secret")

    page = admin.page
    admin.open(f"/admin/users?search={username}")
    page.get_by_role("button", name="Disable").click()
    expect(page.get_by_role("status")).to_contain_text("is disabled")
    expect(page.get_by_role("searchbox")).to_have_value(username)
    assert not gets_in(service, username, "secret")
    page.get_by_role("button", name="Enable").click()
    expect(page.get_by_role("status")).to_contain_text("is enabled")
    assert gets_in(service, username, "secret")
    assert not admin.complaints


def test_a_password_is_reset_to_what_was_typed_or_generated_or_taken_away(service: Service, admin: Visitor) -> None:
    username, page = new_user(service), admin.page
    admin.open(f"/admin/users/{username}")
    page.get_by_role("button", name="Reset password").click()
    expect(page.get_by_label("New password")).not_to_be_visible()
    page.get_by_role("button", name="Set").click()
    generated = page.get_by_label(f"Password of {username}").input_value()
    assert not gets_in(service, username, "secret")
    assert gets_in(service, username, generated)

    admin.open(f"/admin/users/{username}/password")
    page.get_by_label("Type one").check()
    page.get_by_label("New password").fill("another secret")
    page.get_by_role("button", name="Set").click()
    expect(page.get_by_role("status")).to_contain_text("has a new password")
    assert gets_in(service, username, "another secret")

    admin.open(f"/admin/users/{username}/password")
    page.get_by_label("None: take it away").check()
    page.get_by_role("button", name="Set").click()
    expect(page.get_by_role("status")).to_contain_text("has no password")
    assert not stored(service, username)["hasPassword"]
    assert not admin.complaints


@pytest.mark.parametrize("revoked", [True, False])
def test_new_password_revokes_tokens_unless_that_is_switched_off(
    service: Service, admin: Visitor, *, revoked: bool
) -> None:
    username, page = new_user(service), admin.page
    assert service.call("POST", "/api/tokens", json={"username": username, "label": "wall"}).status_code == 201
    admin.open(f"/admin/users/{username}/password")
    also = page.get_by_label("Also revoke all its API tokens and certificates")
    expect(also).to_be_checked()
    if not revoked:
        also.uncheck()
    page.get_by_label("Type one").check()
    page.get_by_label("New password").fill("four")
    page.get_by_role("button", name="Set").click()
    expect(page.locator("#password-wrong")).to_be_visible()
    expect(also).to_be_checked(checked=revoked)
    page.get_by_label("Type one").check()
    page.get_by_label("New password").fill("another secret")
    page.get_by_role("button", name="Set").click()
    expect(page.get_by_role("status")).to_contain_text("has a new password")
    assert service.call("GET", "/api/tokens", params={"username": username}).json()["total"] == int(not revoked)
    assert not admin.complaints


def test_a_user_is_deleted_after_a_question(service: Service, admin: Visitor) -> None:
    username = new_user(service)
    hesitant = admin.page.context.new_page()  # where nobody listens, every question is answered with no
    hesitant.goto(f"/admin/users/{username}")
    hesitant.get_by_role("button", name="Delete").click()
    assert stored(service, username)["enabled"]
    admin.open(f"/admin/users/{username}")
    admin.page.get_by_role("button", name="Delete").click()
    expect(admin.page.get_by_role("status")).to_have_text(f"{username} was deleted.")
    assert service.call("GET", f"/api/users/{username}").status_code == 404
    assert admin.open(f"/admin/users/{username}") == 404
    assert not admin.complaints


def test_the_last_administrator_stays_and_the_page_says_why(service: Service, admin: Visitor) -> None:
    admin.open("/admin/users/admin")
    for button in ("Delete", "Disable"):
        admin.page.get_by_role("button", name=button).click()
        expect(admin.page.get_by_role("alert")).to_contain_text("remove the last administrator")
    assert stored(service, "admin")["enabled"]


def test_of_two_who_change_a_user_the_later_is_told_and_loses_nothing(service: Service, admin: Visitor) -> None:
    username, page = new_user(service, "read a"), admin.page
    admin.open(f"/admin/users/{username}/edit")
    service.call("PATCH", f"/api/users/{username}", json={"permissions": [permission("read theirs/#")]})
    page.get_by_label("Topic filter or path").fill("mine/#")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert")).to_contain_text("Not saved: somebody has changed this user meanwhile")
    expect(page.get_by_role("alert")).to_contain_text("theirs/#")
    expect(page.get_by_label("Topic filter or path")).to_have_value("mine/#")
    assert stored(service, username)["permissions"] == [permission("read theirs/#")]
    page.get_by_role("button", name="Save mine all the same").click()
    expect(page.get_by_role("status")).to_contain_text("was changed")
    assert stored(service, username)["permissions"] == [permission("read mine/#")]
    assert not admin.complaints


def test_a_users_page_shows_what_belongs_to_it_and_takes_nobodys_words_for_html(
    service: Service, admin: Visitor
) -> None:
    role = new_role(service, "write <i>role</i>/#", description="<script>complain('role')</script>")
    grants = ["password", "certificate", "token"]
    username = new_user(service, "read <b>own</b>/#", roles=[role], grantTypes=grants)
    page = admin.page
    service.call("POST", "/api/tokens", json={"username": username, "label": "<img src=x onerror=complain()>"})
    csr = signing_request(username)
    serial = service.call("POST", f"/api/users/{username}/certificates", json={"csr": csr}).json()["serial"]
    other = FormFiller(service.url)
    other.session.headers["User-Agent"] = "<u>Browser</u> of mine"
    assert other.sign_in(username, "secret").status_code == 303
    see_client(service, username, "<script>complain('client')</script>")

    assert admin.open(f"/admin/users/{username}") == 200
    in_force = page.get_by_role("region", name="Permissions in force")
    own = in_force.get_by_role("row").filter(has_text="<b>own</b>/#")
    expect(own).to_contain_text("its own")
    expect(in_force.get_by_role("row").filter(has_text="<i>role</i>/#").get_by_role("link", name=role)).to_be_visible()
    link = page.get_by_role("region", name="Certificates").get_by_role("link", name=serial)
    expect(link).to_have_attribute("href", f"/admin/certificates/{serial}")
    expect(page.get_by_role("region", name="API tokens")).to_contain_text("<img src=x onerror=complain()>")
    expect(page.get_by_role("region", name="Signed-in browsers")).to_contain_text("<u>Browser</u> of mine")
    expect(page.get_by_role("region", name="Last seen client ids")).to_contain_text("<script>complain('client')")
    changes = page.get_by_role("region", name="Latest changes")
    expect(changes).to_contain_text("user.create")
    expect(changes).to_contain_text("<b>own</b>/#")
    assert page.locator("main :is(script, img, u, i, b:text('own'))").count() == 0
    admin.open(f"/admin/users/{username}/edit")
    expect(page.get_by_text("<script>complain('role')</script>")).to_be_visible()
    assert page.locator("main script").count() == 0
    assert not admin.complaints


def see_client(service: Service, username: str, client_id: str) -> None:
    """Write down that a client was seen, as the service does some time after it was."""
    with sqlite3.connect(f"{service.environment['AUTHSVC_DATA_DIR']}/authsvc.db", timeout=10) as database:
        seen_at = "2026-11-20 08:00:00"
        database.execute(
            "INSERT INTO sightings (username, client_id, seen_at) VALUES (?, ?, ?)", (username, client_id, seen_at)
        )
    database.close()


@pytest.mark.parametrize(
    "path", ["users", "new-user", "users/{username}", "users/{username}/edit", "users/{username}/password"]
)
def test_every_page_about_users_can_be_used_by_anybody_and_fits_a_phone(
    service: Service, admin: Visitor, path: str
) -> None:
    role = new_role(service, f"write {'b' * 300}", description="d" * 200)
    username, page = f"{'u' * 60}{next(_numbers):04}", admin.page
    service.create_user(username, "secret", f"read {'a' * 300}/#", roles=[role], grantTypes=["password", "token"])
    service.call("POST", "/api/tokens", json={"username": username, "label": "l" * 200})
    see_client(service, username, "c" * 200)
    assert admin.open("/admin/" + path.format(username=username)) == 200
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    found = Axe().run(page).response["violations"]
    assert not [violation for violation in found if violation["impact"] in ("serious", "critical")]
    assert not admin.complaints


VIEWS = [
    ("GET", "/admin/users"),
    ("GET", "/admin/new-user"),
    ("POST", "/admin/new-user"),
    ("GET", "/admin/users/{username}"),
    ("GET", "/admin/users/{username}/edit"),
    ("POST", "/admin/users/{username}/edit"),
    ("POST", "/admin/users/{username}/enabled"),
    ("GET", "/admin/users/{username}/password"),
    ("POST", "/admin/users/{username}/password"),
    ("POST", "/admin/users/{username}/delete"),
]
FIELDS = {"username": "made-by-nobody", "passwordIs": "typed", "password": "stolen secret", "enabled": "no"}


@pytest.mark.parametrize(("method", "path"), VIEWS)
def test_a_powerless_user_gets_none_of_it(service: Service, method: str, path: str) -> None:
    username = new_user(service)
    before, where = stored(service, username), path.format(username=username)
    powerless = person_with(service, "http read /api/me")
    answer = powerless.get(where) if method == "GET" else powerless.post(where, drawn_at="/admin", **FIELDS)
    assert answer.status_code == 403
    assert "http" in answer.text
    assert username not in answer.text.replace(f"/api/users/{username}", "")
    assert stored(service, username) == before
    assert gets_in(service, username, "secret")
    assert service.call("GET", "/api/users/made-by-nobody").status_code == 404


@pytest.mark.parametrize("path", [path for method, path in VIEWS if method == "POST"])
def test_a_form_that_was_not_drawn_here_changes_nothing(service: Service, path: str) -> None:
    username = new_user(service)
    before = stored(service, username)
    clerk = person_with(service, "http readWrite /#")
    fields = FIELDS | {"updated": updated(clerk, username)}
    answer = clerk.session.post(service.url + path.format(username=username), data=fields, timeout=20)
    assert answer.status_code == 400
    assert stored(service, username) == before
    assert gets_in(service, username, "secret")
    assert service.call("GET", "/api/users/made-by-nobody").status_code == 404


def test_who_may_only_look_sees_nothing_to_change(service: Service) -> None:
    username = new_user(service)
    clerk = person_with(service, "http read /api/#")
    for path in ("/admin/users", f"/admin/users/{username}"):
        answer = clerk.get(path)
        assert answer.status_code == 200
        assert 'method="post"' not in answer.text.replace('<form class="who" method="post"', "")
        assert "/edit" not in answer.text
        assert "/new" not in answer.text


def test_who_may_see_users_alone_sees_nothing_else_of_them(service: Service) -> None:
    role = new_role(service, "read secret/topic")
    username = new_user(service, "read own/topic", roles=[role], grantTypes=["password", "token"])
    service.call("POST", "/api/tokens", json={"username": username, "label": "a label that is not theirs"})
    clerk = person_with(service, "http read /api/me", "http read /api/users", "http read /api/users/+")
    text = clerk.get(f"/admin/users/{username}").text
    assert "own/topic" in text
    assert role in text
    for hidden in (
        "secret/topic",
        "a label that is not theirs",
        "Latest changes",
        "Certificates",
        "Signed-in",
        "Roles</a>",
    ):
        assert hidden not in text


def test_who_may_only_write_is_not_shown_what_there_is(service: Service) -> None:
    username = new_user(service, "read own/topic")
    clerk = person_with(service, "http read /api/me", "http write /api/users/#")
    for path in ("", "/edit", "/password"):
        answer = clerk.get(f"/admin/users/{username}{path}")
        assert answer.status_code == 403
        assert "own/topic" not in answer.text
    answer = clerk.post(f"/admin/users/{username}/enabled", drawn_at="/admin", enabled="no")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/admin")
    assert not stored(service, username)["enabled"]


def test_nobody_hands_out_more_than_they_have_and_is_told_so(service: Service) -> None:
    username = new_user(service, "read a/#")
    clerk = person_with(service, "http readWrite /api/users/#", "http read /api/roles", "http read /api/me")
    before = stored(service, username)
    wanted = form_of(before, updated=updated(clerk, username), roles=["admin"])
    answer = clerk.post(f"/admin/users/{username}/edit", drawn_at="/admin", **wanted)
    assert answer.status_code == 403
    assert "account needs the permission" in answer.text
    assert 'value="admin" checked' in answer.text
    assert 'value="a/#"' in answer.text
    assert stored(service, username) == before

    fields = {"username": "made-by-clerk", "passwordIs": "typed", "password": "secret", "roles": "admin"}
    assert clerk.post("/admin/new-user", drawn_at="/admin", **fields).status_code == 403
    assert service.call("GET", "/api/users/made-by-clerk").status_code == 404


@pytest.mark.parametrize(("path", "words"), [("password", "New password"), ("enabled", "Facts"), ("delete", "Facts")])
def test_nobody_touches_who_has_more_than_they_have(service: Service, path: str, words: str) -> None:
    chief = new_user(service, roles=["admin"])
    clerk = person_with(service, "http readWrite /api/users/#", "http read /api/me")
    answer = clerk.post(f"/admin/users/{chief}/{path}", drawn_at="/admin", **FIELDS)
    assert answer.status_code == 403
    assert "account needs the permission" in answer.text
    assert words in answer.text
    assert "stolen secret" not in answer.text
    assert stored(service, chief)["enabled"]
    assert gets_in(service, chief, "secret")


def test_roles_that_somebody_may_not_list_are_kept_when_they_save(service: Service) -> None:
    role = new_role(service, "read a")
    username = new_user(service, roles=[role])
    clerk = person_with(service, "http readWrite /api/users/#", "http read /api/me")
    drawn = clerk.get(f"/admin/users/{username}/edit").text
    assert f'value="{role}" checked' in drawn
    assert 'value="admin"' not in drawn
    wanted = form_of(stored(service, username), updated=updated(clerk, username), grantTypes=["token"])
    assert clerk.post(f"/admin/users/{username}/edit", drawn_at="/admin", **wanted).status_code == 303
    user = stored(service, username)
    assert (user["roles"], user["grantTypes"]) == ([role], ["token"])


@pytest.mark.parametrize("back", ["//elsewhere.example", "https://elsewhere.example/", "/\\elsewhere.example"])
def test_a_change_leads_back_to_this_host_alone(service: Service, back: str) -> None:
    username = new_user(service)
    clerk = person_with(service, "http readWrite /#")
    answer = clerk.post(f"/admin/users/{username}/enabled", drawn_at="/admin", enabled="no", back=back)
    assert answer.status_code == 400
    assert "Location" not in answer.headers
    assert stored(service, username)["enabled"]


@pytest.mark.parametrize("as_of", ["", "yesterday", "2026-11-20T08:00:00", "2026-11-20T08:00:00+00:00"])
def test_a_form_that_does_not_show_the_latest_is_not_saved(service: Service, as_of: str) -> None:
    username = new_user(service)
    clerk = person_with(service, "http readWrite /#")
    before = stored(service, username)
    answer = clerk.post(
        f"/admin/users/{username}/edit", drawn_at="/admin", **form_of(before, updated=as_of, grantTypes=["token"])
    )
    assert answer.status_code in (400, 412)
    assert stored(service, username) == before


@pytest.mark.parametrize("path", ["", "/edit", "/password"])
def test_a_name_that_nobody_could_have_is_no_error_of_the_service(service: Service, path: str) -> None:
    clerk = person_with(service, "http readWrite /#")
    assert clerk.get(f"/admin/users/a%00b{path}").status_code == 400
    assert clerk.get(f"/admin/users/nobody-at-all{path}").status_code == 404
    assert clerk.post(f"/admin/users/nobody-at-all{path or '/delete'}", drawn_at="/admin", **FIELDS).status_code in (
        400,
        404,
    )


def test_a_user_may_have_as_many_permissions_as_the_api_takes(service: Service) -> None:
    username = new_user(service)
    clerk = person_with(service, "http readWrite /#")
    rows = [permission(f"read halls/{number}/lines/+/state") for number in range(10_000)]
    user = stored(service, username) | {"permissions": rows}
    wanted = form_of(user, updated=updated(clerk, username))
    assert clerk.post(f"/admin/users/{username}/edit", drawn_at="/admin", **wanted).status_code == 303
    assert stored(service, username)["permissions"] == rows
