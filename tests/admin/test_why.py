"""Recent denials, the dry run of a request, and the button that adds a permission."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import pytest
import requests
from playwright.sync_api import expect

from tests.admin.page_objects import FormClient, Window
from tests.service import permission

if TYPE_CHECKING:
    from tests.service import Service

_numbers = count()
READ, WRITE, SUBSCRIBE = 1, 2, 4


def new_device(service: Service, *permissions: str, **fields: object) -> str:
    username = f"device-{next(_numbers)}"
    service.create_user(username, "secret", *permissions, **fields)
    return username


def request_acl(service: Service, username: str, topic: str, access: int) -> int:
    fields = {"username": username, "clientid": f"{username}-main", "topic": topic, "acc": access}
    return requests.post(service.broker_url + "/auth/acl", json=fields, timeout=10).status_code


def permissions_of(service: Service, username: str) -> list[dict[str, str]]:
    found: list[dict[str, str]] = service.call("GET", f"/api/users/{username}").json()["permissions"]
    return found


def test_recent_denial_is_listed_and_allow_this_adds_the_permission(service: Service, admin: Window) -> None:
    username, page = new_device(service), admin.page
    admin.open(f"/admin/users/{username}")
    expect(page.get_by_text("No request was denied")).to_be_visible()
    assert request_acl(service, username, "plant/line-2/state", WRITE) == 403
    assert request_acl(service, username, "plant/line-2/state", WRITE) == 403
    row = page.get_by_role("row", name="plant/line-2/state")
    expect(row).to_contain_text("no permission")
    row.get_by_text("Allow this").click()
    dialog = page.get_by_role("dialog", name="Allow this?")
    expect(dialog).to_contain_text("write plant/line-2/state")
    assert request_acl(service, username, "plant/line-2/state", WRITE) == 403
    dialog.get_by_role("button", name="Allow").click()
    expect(page.get_by_role("status").first).to_contain_text("may now write plant/line-2/state")
    assert permissions_of(service, username) == [permission("write plant/line-2/state")]
    assert request_acl(service, username, "plant/line-2/state", WRITE) == 200
    assert request_acl(service, username, "plant/line-2/state", READ) == 403
    assert request_acl(service, username, "plant/line-2/other", WRITE) == 403
    expect(page.get_by_role("row", name="plant/line-2/state").filter(has_text="allowed now")).to_be_visible()
    assert not admin.script_errors


def test_cancelling_the_allow_dialog_changes_nothing(service: Service, admin: Window) -> None:
    username, page = new_device(service), admin.page
    request_acl(service, username, "alarms/#", SUBSCRIBE)
    admin.open(f"/admin/users/{username}")
    page.get_by_role("row", name="alarms/#").get_by_text("Allow this").click()
    page.get_by_role("dialog").get_by_text("Cancel").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.get_by_role("row", name="alarms/#").get_by_text("Allow this").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert permissions_of(service, username) == []


def test_denial_that_no_permission_would_allow_is_explained(service: Service, admin: Window) -> None:
    username, page = new_device(service, "readWrite plant/#", "deny write plant/secret/#"), admin.page
    request_acl(service, username, "plant/secret/door", WRITE)
    login = {"username": username, "password": "wrong", "clientid": "c"}
    assert requests.post(service.broker_url + "/auth/user", json=login, timeout=10).status_code == 403
    admin.open(f"/admin/users/{username}")
    expect(page.get_by_role("row", name="plant/secret/door")).to_contain_text("deny write plant/secret/#")
    expect(page.get_by_role("row", name="login")).to_contain_text("the password was wrong")
    expect(page.get_by_text("Allow this")).to_have_count(0)
    assert "wrong horse" not in page.content()


@pytest.mark.parametrize(
    ("operation", "topic", "answer"),
    [
        ("publish", "plant/line-2/state", "Allowed: write plant/# (permission of the role "),
        ("publish", "plant/secret/state", "Denied: deny write plant/secret/# (the user's own permission)"),
        ("read or subscribe", "plant/#", "Denied: no permission of the user or its roles covers this"),
        ("publish", "plant/+/state", "Topic must not contain"),
    ],
)
def test_dry_run_shows_the_deciding_permission_and_role(
    service: Service, admin: Window, operation: str, topic: str, answer: str
) -> None:
    role = f"role-{next(_numbers)}"
    body = {"name": role, "permissions": [permission("write plant/#")]}
    assert service.call("POST", "/api/roles", json=body).status_code == 201
    username, page = new_device(service, "deny write plant/secret/#", roles=[role]), admin.page
    admin.open(f"/admin/users/{username}")
    page.get_by_label("Operation").select_option(operation)
    page.get_by_label("Topic", exact=True).fill(topic)
    page.get_by_role("button", name="Check").click()
    expect(page.locator("#decision")).to_contain_text(answer)
    assert not admin.script_errors


def test_dry_run_uses_the_client_id(service: Service, admin: Window) -> None:
    username, page = new_device(service, "write clients/%c/state"), admin.page
    admin.open(f"/admin/users/{username}")
    page.get_by_label("Topic", exact=True).fill("clients/left/state")
    page.get_by_role("button", name="Check").click()
    expect(page.locator("#decision")).to_contain_text("Denied")
    page.get_by_role("textbox", name="Client id").fill("left")
    page.get_by_role("button", name="Check").click()
    expect(page.locator("#decision")).to_contain_text("Allowed")
    assert service.call("GET", f"/api/users/{username}").status_code == 200
    expect(page.get_by_text("No MQTT client of")).to_be_visible()


def test_topics_are_html_escaped(service: Service, admin: Window) -> None:
    username, page = new_device(service), admin.page
    request_acl(service, username, "<img src=x onerror=alert(1)>/\"'><script>alert(2)</script>", WRITE)
    admin.open(f"/admin/users/{username}")
    expect(page.get_by_role("row", name="<script>alert(2)</script>")).to_be_visible()
    assert page.locator("#denials img, #denials script").count() == 0
    page.get_by_text("Allow this").click()
    expect(page.get_by_role("dialog")).to_contain_text("<script>alert(2)</script>")
    page.get_by_role("dialog").get_by_role("button", name="Allow").click()
    expect(page.get_by_role("status").first).to_contain_text("<script>")
    assert not admin.script_errors


def test_read_only_user_sees_the_advice_without_a_button(service: Service) -> None:
    username = new_device(service)
    request_acl(service, username, "plant/line-2/state", WRITE)
    clerk = FormClient(service.url)
    clerk.sign_in(new_device(service, "http read /api/#"), "secret")
    shown = clerk.get(f"/admin/users/{username}/denials").text
    assert "Allow this" not in shown
    answer = clerk.post(f"/admin/users/{username}/allow", operation="write", resource="plant/line-2/state")
    assert answer.status_code == 403
    assert permissions_of(service, username) == []


def test_invalid_permission_is_refused_with_a_message(service: Service) -> None:
    username = new_device(service)
    clerk = FormClient(service.url)
    clerk.sign_in(new_device(service, "http readWrite /api/#"), "secret")
    for operation, resource in (("write", "a/#/b"), ("fly", "a"), ("write", "")):
        answer = clerk.post(f"/admin/users/{username}/allow", "/admin", operation=operation, resource=resource)
        assert answer.status_code == 400
        assert 'role="alert"' in answer.text
    assert permissions_of(service, username) == []
