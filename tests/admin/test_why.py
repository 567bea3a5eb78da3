"""Why does a device get nothing? One look, one question, one click."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import pytest
import requests
from playwright.sync_api import expect

from tests.admin.page_objects import FormFiller, Visitor
from tests.service import permission

if TYPE_CHECKING:
    from tests.service import Service

_numbers = count()
READ, WRITE, SUBSCRIBE = 1, 2, 4


def new_device(service: Service, *permissions: str, **fields: object) -> str:
    username = f"device-{next(_numbers)}"
    service.create_user(username, "secret", *permissions, **fields)
    return username


def asks(service: Service, username: str, topic: str, access: int) -> int:
    fields = {"username": username, "clientid": f"{username}-main", "topic": topic, "acc": access}
    return requests.post(service.broker_url + "/auth/acl", json=fields, timeout=10).status_code


def permissions_of(service: Service, username: str) -> list[dict[str, str]]:
    found: list[dict[str, str]] = service.call("GET", f"/api/users/{username}").json()["permissions"]
    return found


def test_a_denial_appears_and_one_click_cures_it(service: Service, admin: Visitor) -> None:
    username, page = new_device(service), admin.page
    admin.open(f"/admin/users/{username}")
    expect(page.get_by_text("Nothing was denied")).to_be_visible()
    assert asks(service, username, "plant/line-2/state", WRITE) == 403
    assert asks(service, username, "plant/line-2/state", WRITE) == 403
    row = page.get_by_role("row", name="plant/line-2/state")
    expect(row).to_contain_text("no permission")
    row.get_by_text("Allow this").click()
    dialog = page.get_by_role("dialog", name="Allow this?")
    expect(dialog).to_contain_text("write plant/line-2/state")
    assert asks(service, username, "plant/line-2/state", WRITE) == 403
    dialog.get_by_role("button", name="Allow").click()
    expect(page.get_by_role("status").first).to_contain_text("may write plant/line-2/state")
    assert permissions_of(service, username) == [permission("write plant/line-2/state")]
    assert asks(service, username, "plant/line-2/state", WRITE) == 200
    assert asks(service, username, "plant/line-2/state", READ) == 403
    assert asks(service, username, "plant/line-2/other", WRITE) == 403
    expect(page.get_by_role("row", name="plant/line-2/state").filter(has_text="allowed now")).to_be_visible()
    assert not admin.complaints


def test_whoever_thinks_better_of_it_changes_nothing(service: Service, admin: Visitor) -> None:
    username, page = new_device(service), admin.page
    asks(service, username, "alarms/#", SUBSCRIBE)
    admin.open(f"/admin/users/{username}")
    page.get_by_role("row", name="alarms/#").get_by_text("Allow this").click()
    page.get_by_role("dialog").get_by_text("Leave it denied").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.get_by_role("row", name="alarms/#").get_by_text("Allow this").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert permissions_of(service, username) == []


def test_what_no_permission_can_cure_is_explained_and_offers_none(service: Service, admin: Visitor) -> None:
    username, page = new_device(service, "readWrite plant/#", "deny write plant/secret/#"), admin.page
    asks(service, username, "plant/secret/door", WRITE)
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
        ("publish to", "plant/line-2/state", "Allowed: by write plant/# of the role "),
        ("publish to", "plant/secret/state", "Denied: by deny write plant/secret/# of its own"),
        ("read or subscribe to", "plant/#", "Denied: no permission of the user or its roles covers this"),
        ("publish to", "plant/+/state", "Topic must not contain"),
    ],
)
def test_a_question_is_answered_with_the_rule_and_role_that_decide(
    service: Service, admin: Visitor, operation: str, topic: str, answer: str
) -> None:
    role = f"role-{next(_numbers)}"
    body = {"name": role, "permissions": [permission("write plant/#")]}
    assert service.call("POST", "/api/roles", json=body).status_code == 201
    username, page = new_device(service, "deny write plant/secret/#", roles=[role]), admin.page
    admin.open(f"/admin/users/{username}")
    page.get_by_label("Would it be allowed to").select_option(operation)
    page.get_by_label("Topic", exact=True).fill(topic)
    page.get_by_role("button", name="Ask").click()
    expect(page.locator("#decision")).to_contain_text(answer)
    assert not admin.complaints


def test_a_question_about_a_client_id_uses_it(service: Service, admin: Visitor) -> None:
    username, page = new_device(service, "write clients/%c/state"), admin.page
    admin.open(f"/admin/users/{username}")
    page.get_by_label("Topic", exact=True).fill("clients/left/state")
    page.get_by_role("button", name="Ask").click()
    expect(page.locator("#decision")).to_contain_text("Denied")
    page.get_by_role("textbox", name="Client id").fill("left")
    page.get_by_role("button", name="Ask").click()
    expect(page.locator("#decision")).to_contain_text("Allowed")
    assert service.call("GET", f"/api/users/{username}").status_code == 200
    expect(page.get_by_text("No client was seen")).to_be_visible()


def test_what_a_device_spells_is_shown_and_never_run(service: Service, admin: Visitor) -> None:
    username, page = new_device(service), admin.page
    asks(service, username, "<img src=x onerror=alert(1)>/\"'><script>alert(2)</script>", WRITE)
    admin.open(f"/admin/users/{username}")
    expect(page.get_by_role("row", name="<script>alert(2)</script>")).to_be_visible()
    assert page.locator("#denials img, #denials script").count() == 0
    page.get_by_text("Allow this").click()
    expect(page.get_by_role("dialog")).to_contain_text("<script>alert(2)</script>")
    page.get_by_role("dialog").get_by_role("button", name="Allow").click()
    expect(page.get_by_role("status").first).to_contain_text("<script>")
    assert not admin.complaints


def test_who_may_only_look_gets_the_words_and_no_button(service: Service) -> None:
    username = new_device(service)
    asks(service, username, "plant/line-2/state", WRITE)
    clerk = FormFiller(service.url)
    clerk.sign_in(new_device(service, "http read /api/#"), "secret")
    shown = clerk.get(f"/admin/users/{username}/denials").text
    assert "Allow this" not in shown
    answer = clerk.post(f"/admin/users/{username}/allow", operation="write", resource="plant/line-2/state")
    assert answer.status_code == 403
    assert permissions_of(service, username) == []


@pytest.mark.parametrize("page", ["decision?topic=a&operation=write", "denials", "allow?operation=read&resource=a"])
def test_a_powerless_user_learns_nothing_of_others(service: Service, page: str) -> None:
    username = new_device(service)
    powerless = FormFiller(service.url)
    powerless.sign_in(new_device(service, "http read /api/me"), "secret")
    assert powerless.get(f"/admin/users/{username}/{page}").status_code == 403


def test_a_permission_that_is_none_is_refused_in_words(service: Service) -> None:
    username = new_device(service)
    clerk = FormFiller(service.url)
    clerk.sign_in(new_device(service, "http readWrite /api/#"), "secret")
    for operation, resource in (("write", "a/#/b"), ("fly", "a"), ("write", "")):
        answer = clerk.post(f"/admin/users/{username}/allow", "/admin", operation=operation, resource=resource)
        assert answer.status_code == 400
        assert 'role="alert"' in answer.text
    assert permissions_of(service, username) == []
