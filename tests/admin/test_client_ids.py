"""Allowed client ids on the pages of users, roles and registrations, and warnings about missing ones."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.admin.registry_client import RegistryDriver, open_decision_dialog
from tests.service import permission

if TYPE_CHECKING:
    from tests.admin.page_objects import Window
    from tests.service import Service

_numbers = count()


@pytest.fixture
def registry(service: Service) -> RegistryDriver:
    """The client registry of the service."""
    return RegistryDriver(service)


def new_user(service: Service, *permissions: str, **fields: Any) -> str:
    username = f"user-{next(_numbers)}"
    service.create_user(username, "secret", *permissions, **fields)
    return username


def new_role(service: Service, *permissions: str, **fields: Any) -> str:
    name = f"role-{next(_numbers)}"
    body = {"name": name, "permissions": list(map(permission, permissions)), **fields}
    assert service.call("POST", "/api/roles", json=body).status_code == 201
    return name


def client_ids(service: Service, path: str) -> list[str]:
    answer = service.call("GET", f"/api/{path}")
    assert answer.status_code == 200, answer.text
    found: list[str] = answer.json()["clientIds"]
    return found


def test_user_page_warns_until_client_ids_are_restricted(service: Service, admin: Window) -> None:
    username, page = new_user(service, "read inbox/%c/#"), admin.page
    warning = page.get_by_role("note").filter(has_text="uses %c and any client id is allowed")
    admin.open(f"/admin/users/{username}")
    expect(warning).to_be_visible()
    expect(page.get_by_role("region", name="Details")).to_contain_text("Allowed client idsany")
    assert Axe().run(page).violations_count == 0

    page.get_by_role("button", name="Edit").click()
    page.get_by_label("Allowed client ids").fill("%u\n\n%u-*\n")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("region", name="Details")).to_contain_text("Allowed client ids%u, %u-*")
    expect(warning).to_have_count(0)
    assert client_ids(service, f"users/{username}") == ["%u", "%u-*"]

    page.get_by_role("button", name="Edit").click()
    expect(page.get_by_label("Allowed client ids")).to_have_value("%u\n%u-*")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", name=username)).to_be_visible()
    assert client_ids(service, f"users/{username}") == ["%u", "%u-*"]
    assert not admin.script_errors


def test_invalid_client_id_is_reported_with_its_line_and_kept(service: Service, admin: Window) -> None:
    username, page = new_user(service), admin.page
    admin.open(f"/admin/users/{username}/edit")
    page.get_by_label("Allowed client ids").fill("%u\n%c")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Line 2: must not contain %c")).to_be_visible()
    expect(page.get_by_label("Allowed client ids")).to_have_value("%u\n%c")
    assert client_ids(service, f"users/{username}") == []


def test_role_page_warns_and_allowed_client_ids_of_a_role_restrict_its_users(service: Service, admin: Window) -> None:
    role, page = new_role(service, "read inbox/%c/#"), admin.page
    username = new_user(service, roles=[role])
    admin.open(f"/admin/users/{username}")
    expect(page.get_by_role("note")).to_contain_text(f"A rule of the role {role} uses %c")
    admin.open(f"/admin/roles/{role}")
    expect(page.get_by_role("note")).to_contain_text("A rule uses %c and the role allows any client id")
    page.get_by_role("button", name="Edit").click()
    page.get_by_label("Allowed client ids").fill("%u")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("region", name="Details")).to_contain_text("Allowed client ids%u")
    expect(page.get_by_role("note")).to_have_count(0)
    assert client_ids(service, f"roles/{role}") == ["%u"]
    admin.open(f"/admin/users/{username}")
    expect(page.get_by_role("region", name="Details")).to_contain_text(f"%u from role {role}")


def test_role_is_created_with_allowed_client_ids(service: Service, admin: Window) -> None:
    name, page = f"role-{next(_numbers)}", admin.page
    admin.open("/admin/new-role")
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_label("Allowed client ids").fill("%u-*")
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("heading", name=name)).to_be_visible()
    assert client_ids(service, f"roles/{name}") == ["%u-*"]


def test_dry_run_reports_a_client_id_that_is_not_allowed(service: Service, admin: Window) -> None:
    username, page = new_user(service, "write a", clientIds=["%u"]), admin.page
    admin.open(f"/admin/users/{username}")
    page.get_by_label("Topic", exact=True).fill("a")
    page.get_by_role("textbox", name="Client id (optional)").fill("press-7")
    page.get_by_role("button", name="Check").click()
    expect(page.locator("#decision")).to_contain_text("Denied: the user may not use this client id.")


def test_only_client_id_of_several_attempts_is_preselected(registry: RegistryDriver, admin: Window) -> None:
    page, username = admin.page, registry.add_unknown_device(client_id="plc-7")
    registry.try_to_connect(username, client_id="plc-7")
    admin.open("/admin/registry")
    dialog = open_decision_dialog(page, username)
    expect(dialog.get_by_label("Only the recorded client id: plc-7")).to_be_checked()
    dialog.get_by_role("button", name="Allow").click()
    expect(page.get_by_role("status")).to_contain_text(f"{username} is granted")
    assert registry.user(username)["clientIds"] == ["plc-7"]
    assert not admin.script_errors


def test_client_id_of_a_single_attempt_is_offered_but_not_preselected(registry: RegistryDriver, admin: Window) -> None:
    page, username = admin.page, registry.add_unknown_device(client_id="plc-7")
    admin.open("/admin/registry")
    dialog = open_decision_dialog(page, username)
    expect(dialog.get_by_label("Only the recorded client id: plc-7")).not_to_be_checked()
    dialog.get_by_role("button", name="Allow").click()
    expect(page.get_by_role("status")).to_contain_text(f"{username} is granted")
    assert registry.user(username)["clientIds"] == []


def test_selected_client_ids_are_kept_when_the_dialog_unlocks_the_registry(
    registry: RegistryDriver, admin: Window
) -> None:
    page, username = admin.page, registry.add_unknown_device(locked=True, client_id="plc-7")
    registry.try_to_connect(username, client_id="plc-8")
    admin.open("/admin/registry")
    dialog = open_decision_dialog(page, username)
    expect(dialog.get_by_label("Allow plc-7")).not_to_be_checked()
    dialog.get_by_label("Allow plc-8").check()
    dialog.get_by_role("button", name="Unlock for 5 minutes").click()
    expect(dialog.get_by_role("button", name="Unlock for 5 minutes")).to_have_count(0)
    expect(dialog.get_by_label("Allow plc-7")).not_to_be_checked()
    dialog.get_by_role("button", name="Allow").click()
    expect(page.get_by_role("status")).to_contain_text(f"{username} is granted")
    assert registry.user(username)["clientIds"] == ["plc-8"]


def test_client_id_that_would_be_a_pattern_is_not_offered(registry: RegistryDriver, admin: Window) -> None:
    page, username = admin.page, registry.add_unknown_device(client_id="*")
    registry.try_to_connect(username, client_id="*")
    admin.open("/admin/registry")
    expect(open_decision_dialog(page, username).get_by_text("Only the recorded client id")).to_have_count(0)
