"""Bulk decisions, preauthorizations and enrolment keys on the pages."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import requests
from playwright.sync_api import expect

from tests.admin.page_objects import FormClient, Window
from tests.admin.registry_client import RegistryDriver, row_of
from tests.registry.environment import wait_until
from tests.service import ADMIN_PASSWORD, permission

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.service import Service

READS_PLANS = permission("read plans/%u")


@pytest.fixture(scope="module")
def registry(service: Service) -> RegistryDriver:
    """The registry with a role."""
    body = {"name": "press", "description": "Its own topics", "permissions": [permission("write presses/%u/#")]}
    assert service.call("POST", "/api/roles", json=body).status_code == 201
    return RegistryDriver(service)


def select(page: Page, *usernames: str) -> None:
    for username in usernames:
        page.get_by_label(f"Select {username}", exact=True).check()


def test_bulk_grant_shows_granted_and_failed_registrations(registry: RegistryDriver, admin: Window) -> None:
    page, late, first, second = (
        admin.page,
        registry.add_unknown_device(locked=True),
        registry.add_unknown_device(),
        registry.add_unknown_device(),
    )
    registry.lock()
    admin.open("/admin/registry")
    select(page, late, first, second)
    page.get_by_role("button", name="Grant selected").click()
    dialog = page.get_by_role("dialog", name="Grant 3 registrations")
    expect(dialog).to_contain_text("1 of them was recorded while the registry was locked")
    dialog.get_by_label("press Its own topics").check()
    dialog.get_by_role("button", name="Grant").click()
    dialog = page.get_by_role("dialog", name="2 granted, 1 not")
    expect(dialog.get_by_role("listitem")).to_have_text(f"{late}: the client registry is locked")
    expect(dialog.get_by_role("status")).to_contain_text(first)
    assert [registry.user(name)["roles"] for name in (first, second)] == [["press"], ["press"]]
    assert registry.status_of(late) == "pending"
    dialog.get_by_role("button", name="Close").click()
    expect(row_of(page, first)).to_have_count(0)
    expect(row_of(page, late)).to_be_visible()
    assert not admin.script_errors


def test_selected_registrations_are_denied_with_one_reason(registry: RegistryDriver, admin: Window) -> None:
    page, names = admin.page, [registry.add_unknown_device(), registry.add_unknown_device()]
    admin.open("/admin/registry")
    page.get_by_label("Select all on this page").check()
    page.get_by_role("button", name="Deny selected").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Reason").fill("nobody ordered these")
    dialog.get_by_role("button", name="Deny").click()
    expect(page.get_by_role("status")).to_contain_text(re.compile(r"\d+ registrations are denied"))
    shown = [registry.find_registration(name) for name in names]
    assert [(one["status"], one["reason"]) for one in shown if one] == [("denied", "nobody ordered these")] * 2
    assert not admin.script_errors


def test_invalid_permission_grants_nothing(registry: RegistryDriver, admin: Window) -> None:
    page, username = admin.page, registry.add_unknown_device()
    admin.open("/admin/registry")
    select(page, username)
    page.get_by_role("button", name="Grant selected").click()
    dialog = page.get_by_role("dialog", name="Grant 1 registration")
    dialog.get_by_role("button", name="Add a permission").click()
    dialog.get_by_label("Topic filter or path").fill("a/#/b")
    dialog.get_by_role("button", name="Grant").click()
    expect(dialog.locator(".permission-row .wrong")).to_have_text("# must be the last level")
    assert registry.status_of(username) == "pending"


def test_bulk_dialog_shows_requests_and_refuses_http_rights(registry: RegistryDriver, admin: Window) -> None:
    page = admin.page
    names = [registry.add_rest_client(roles=["admin"])["username"] for _ in range(2)]
    admin.open("/admin/registry")
    select(page, *names)
    page.get_by_role("button", name="Grant selected").click()
    dialog = page.get_by_role("dialog", name="Grant 2 registrations")
    for name in names:
        expect(dialog.get_by_role("row").filter(has_text=name)).to_contain_text("admin")
    dialog.get_by_label("Give the requested rights").check()
    dialog.get_by_role("button", name="Grant").click()
    dialog = page.get_by_role("dialog", name="0 granted, 2 not")
    expect(dialog.get_by_role("listitem").first).to_contain_text("would get rights over this service (http)")
    assert [registry.status_of(name) for name in names] == ["pending", "pending"]
    assert not admin.script_errors


def test_different_requests_are_not_accepted_in_bulk(registry: RegistryDriver, admin: Window) -> None:
    page = admin.page
    names = [
        registry.add_rest_client(**wishes)["username"]
        for wishes in ({"roles": ["press"]}, {"permissions": [READS_PLANS]})
    ]
    admin.open("/admin/registry")
    select(page, *names)
    page.get_by_role("button", name="Grant selected").click()
    dialog = page.get_by_role("dialog", name="Grant 2 registrations")
    expect(dialog.get_by_role("row").filter(has_text=names[1])).to_contain_text("plans/%u")
    dialog.get_by_label("Give the requested rights").check()
    dialog.get_by_role("button", name="Grant").click()
    dialog = page.get_by_role("dialog", name="0 granted, 2 not")
    expect(dialog.get_by_role("listitem").first).to_contain_text("request different things")
    assert [registry.status_of(name) for name in names] == ["pending", "pending"]


def test_bulk_grant_preselects_the_only_client_id(registry: RegistryDriver, admin: Window) -> None:
    page = admin.page
    several, once, mixed = (registry.add_unknown_device(client_id="plc-7") for _ in range(3))
    registry.try_to_connect(several, client_id="plc-7")
    registry.try_to_connect(mixed, client_id="plc-8")
    over_rest = registry.add_rest_client()["username"]
    admin.open("/admin/registry")
    select(page, several, once, mixed, over_rest)
    page.get_by_role("button", name="Grant selected").click()
    dialog = page.get_by_role("dialog", name="Grant 4 registrations")
    rows = {name: dialog.get_by_role("row").filter(has_text=name) for name in (several, once, mixed, over_rest)}
    expect(rows[several].get_by_label("Only the recorded client id: plc-7")).to_be_checked()
    expect(rows[once].get_by_label("Only the recorded client id: plc-7")).not_to_be_checked()
    expect(rows[mixed].get_by_label("Allow plc-7")).not_to_be_checked()
    expect(rows[over_rest].get_by_role("checkbox")).to_have_count(0)
    rows[mixed].get_by_label("Allow plc-8").check()
    dialog.get_by_role("button", name="Grant").click()
    expect(page.get_by_role("status")).to_have_text("4 registrations are granted.")
    granted = [registry.user(name)["clientIds"] for name in (several, once, mixed, over_rest)]
    assert granted == [["plc-7"], [], ["plc-8"], []]
    assert not admin.script_errors


def test_selected_client_ids_survive_an_invalid_permission(registry: RegistryDriver, admin: Window) -> None:
    page, first, second = (
        admin.page,
        registry.add_unknown_device(client_id="plc-7"),
        registry.add_unknown_device(client_id="plc-8"),
    )
    registry.try_to_connect(first, client_id="plc-7")
    admin.open("/admin/registry")
    select(page, first, second)
    page.get_by_role("button", name="Grant selected").click()
    dialog = page.get_by_role("dialog", name="Grant 2 registrations")
    dialog.get_by_label("Only the recorded client id: plc-7").uncheck()
    dialog.get_by_label("Only the recorded client id: plc-8").check()
    dialog.get_by_role("button", name="Add a permission").click()
    dialog.get_by_label("Topic filter or path").fill("a/#/b")
    dialog.get_by_role("button", name="Grant").click()
    expect(dialog.locator(".permission-row .wrong")).to_have_text("# must be the last level")
    expect(dialog.get_by_label("Only the recorded client id: plc-7")).not_to_be_checked()
    expect(dialog.get_by_label("Only the recorded client id: plc-8")).to_be_checked()
    dialog.get_by_label("Topic filter or path").fill("a/#")
    dialog.get_by_role("button", name="Grant").click()
    expect(page.get_by_role("status")).to_have_text("2 registrations are granted.")
    assert [registry.user(name)["clientIds"] for name in (first, second)] == [[], ["plc-8"]]
    assert not admin.script_errors


def test_preauthorization_is_bound_to_a_secret_by_default(registry: RegistryDriver, admin: Window) -> None:
    page = admin.page
    registry.lock()
    admin.open("/admin/registry/preauthorizations")
    page.get_by_text("Preauthorize a device").click()
    form = page.locator("form", has=page.get_by_role("button", name="Preauthorize", exact=True))
    form.get_by_label("Username").fill("bound-1")
    form.get_by_role("button", name="Preauthorize", exact=True).click()
    secret = page.get_by_label("Secret").input_value()
    page.get_by_role("button", name="Done").click()
    expect(row_of(page, "bound-1")).to_contain_text("secret")
    assert secret not in page.content()
    assert secret not in registry.service.log_text()
    registry.can_log_in("bound-1", "a guess")
    wait_until(lambda: registry.find_registration("bound-1"))
    admin.open("/admin/registry")
    expect(row_of(page, "bound-1")).to_contain_text("not the expected device")
    assert wait_until(lambda: registry.can_log_in("bound-1", secret))
    assert not registry.can_log_in("bound-1", "a guess")
    assert not admin.script_errors


def test_upload_shows_a_secret_for_each_name(registry: RegistryDriver, admin: Window) -> None:
    page = admin.page
    admin.open("/admin/registry/preauthorizations")
    page.get_by_text("Preauthorize many from a list").click()
    page.get_by_label("Comma-separated values").fill("username\nbound-2\nbound-3\n")
    page.get_by_role("button", name="Preauthorize all").click()
    lines = page.get_by_label("Usernames and secrets").input_value().split()
    assert [line.partition(",")[0] for line in lines] == ["username", "bound-2", "bound-3"]
    secret = lines[1].partition(",")[2]
    assert wait_until(lambda: registry.can_log_in("bound-2", secret))
    assert not admin.script_errors


def test_preauthorized_device_is_granted_at_its_first_contact(registry: RegistryDriver, admin: Window) -> None:
    page = admin.page
    registry.lock()
    admin.open("/admin/registry/preauthorizations")
    page.get_by_text("Preauthorize a device").click()
    form = page.locator("form", has=page.get_by_role("button", name="Preauthorize", exact=True))
    form.get_by_label("Username").fill("x")
    form.get_by_label("Bound to").select_option("the key below")
    form.get_by_role("button", name="Preauthorize", exact=True).click()
    expect(page.locator("#csrFingerprint-wrong")).to_be_visible()
    form.get_by_label("Fingerprint of the key").fill("short")
    form.get_by_role("button", name="Preauthorize", exact=True).click()
    expect(page.locator("#csrFingerprint-wrong")).to_be_visible()
    form.get_by_label("Fingerprint of the key").fill("0" * 64)
    form.get_by_role("button", name="Preauthorize", exact=True).click()
    expect(page.locator("#username-wrong")).to_contain_text("3 to 64")
    form.get_by_label("Username").fill("expected-1")
    form.get_by_label("Fingerprint of the key").fill("")
    form.get_by_label("Bound to").select_option("nothing: the first device that uses the name is granted")
    form.get_by_label("Valid for").select_option("1 week")
    form.get_by_label("press Its own topics").check()
    form.get_by_role("button", name="Preauthorize", exact=True).click()
    expect(page.get_by_role("status")).to_contain_text("expected-1 is preauthorized")
    expect(row_of(page, "expected-1")).to_contain_text("press")
    assert wait_until(lambda: registry.can_log_in("expected-1"))
    page.get_by_role("searchbox").fill("expected-1")
    page.get_by_role("button", name="Search").click()
    expect(page.get_by_text("No preauthorization matches.")).to_be_visible()
    assert registry.user("expected-1")["roles"] == ["press"]
    assert not admin.script_errors


def test_upload_is_all_or_nothing_and_names_the_invalid_line(registry: RegistryDriver, admin: Window) -> None:
    page = admin.page
    admin.open("/admin/registry/preauthorizations")
    page.get_by_text("Preauthorize many from a list").click()
    page.get_by_label("Comma-separated values").fill("username,roles\nlisted-1,press\nlisted-2,no-such-role\n")
    page.get_by_role("button", name="Preauthorize all").click()
    expect(page.locator("#csv-words")).to_have_text("Line 3: no such role")
    expect(page.get_by_label("Comma-separated values")).to_have_value(re.compile("listed-2,no-such-role"))
    assert registry.call("GET", "/preauthorizations?search=listed")["total"] == 0
    file = {"name": "list.csv", "mimeType": "text/csv", "buffer": b"username,roles\nlisted-1,press\nlisted-2,\n"}
    page.get_by_label("or a CSV file").set_input_files(file)  # type: ignore[arg-type]
    page.get_by_label("Bind each line without a key").uncheck()
    page.get_by_role("button", name="Preauthorize all").click()
    expect(page.get_by_role("status")).to_have_text("2 preauthorized.")
    row_of(page, "listed-2").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("status")).to_contain_text("is deleted")
    (left,) = registry.call("GET", "/preauthorizations?search=listed")["items"]
    assert left["username"] == "listed-1"
    assert not admin.script_errors


def test_enrolment_key_secret_is_shown_once_and_registers_a_device(registry: RegistryDriver, admin: Window) -> None:
    page = admin.page
    registry.lock()
    admin.open("/admin/registry/enrolment-keys")
    page.get_by_role("button", name="New key").click()
    dialog = page.get_by_role("dialog", name="New enrolment key")
    dialog.get_by_label("Maximum number of registrations").fill("many")
    dialog.get_by_role("button", name="Create").click()
    expect(dialog.locator("#uses-wrong")).to_be_visible()
    expect(dialog.locator("#label-wrong")).to_be_visible()
    dialog.get_by_label("Label").fill("hall 4")
    dialog.get_by_label("Maximum number of registrations").fill("2")
    dialog.get_by_label("press Its own topics").check()
    dialog.get_by_role("button", name="Create").click()
    secret = page.get_by_label("Secret").input_value()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == secret
    assert secret not in page.url
    page.get_by_role("button", name="Close").click()
    expect(row_of(page, "hall 4")).to_contain_text("0 of 2")
    for _ in range(2):
        assert secret not in page.content()
        page.reload()
    assert secret not in registry.service.log_text()

    body = {"username": "vouched-1", "password": "factory default", "enrolmentKey": secret}
    address = registry.service.url + "/api/client-registry/register"
    assert requests.post(address, json=body, timeout=10).status_code == 201
    page.reload()
    expect(row_of(page, "hall 4")).to_contain_text("1 of 2")
    row_of(page, "hall 4").get_by_role("button", name="Revoke").click()
    expect(page.get_by_role("status")).to_contain_text("is revoked")
    expect(row_of(page, "hall 4")).to_contain_text("revoked")
    assert requests.post(address, json=body | {"username": "vouched-2"}, timeout=10).status_code == 403
    assert not admin.script_errors


def test_all_matching_registrations_are_denied_over_several_pages(registry: RegistryDriver, admin: Window) -> None:
    page = admin.page
    registry.unlock()
    names = [f"matching-{number}" for number in range(4)]
    for name in (*names, "other-device"):
        registry.try_to_connect(name)
    admin.open("/admin/registry?search=matching&perPage=2")
    expect(page.get_by_role("navigation", name="Pages of this list")).to_contain_text("Page 1 of 2")
    page.get_by_label("Select all 4 that match").check()
    page.get_by_role("button", name="Deny selected").click()
    dialog = page.get_by_role("dialog", name="Deny 4 registrations")
    for name in names:
        expect(dialog).to_contain_text(name)
    expect(dialog).not_to_contain_text("other-device")
    registry.try_to_connect("matching-late")
    dialog.get_by_role("button", name="Deny").click()
    expect(page.get_by_role("status").first).to_contain_text("4 registrations are denied")
    assert [registry.status_of(name) for name in names] == ["denied"] * 4
    assert [registry.status_of(name) for name in ("other-device", "matching-late")] == ["pending"] * 2
    assert not admin.script_errors


def test_list_shows_requests_and_context_and_the_navigation_the_number_of_pending_ones(
    registry: RegistryDriver, service: Service
) -> None:
    context = {"hall": "<b>2</b>", "serial": "a\u202eb", "size": 7, "more": True}
    username = registry.add_rest_client(context=context, roles=["press"])["username"]
    client = FormClient(service.url)
    client.sign_in("admin", ADMIN_PASSWORD)
    shown = client.get(f"/admin/registry?search={username}").text
    assert "hall: &lt;b&gt;2&lt;/b&gt;, more: true, serial: a\\u202eb and 1 more" in shown
    pending = service.call("GET", "/api/client-registry").json()["pending"]
    assert (
        f'Client Registry <span class="badge warn" title="waiting">{pending}</span>' in client.get("/admin/users").text
    )
    service.create_user("no-registry", "secret", "http read /api/users/#", "http read /api/me")
    powerless = FormClient(service.url)
    powerless.sign_in("no-registry", "secret")
    assert 'title="waiting"' not in powerless.get("/admin/users").text


def test_countdown_over_an_hour_is_shown_in_hours(registry: RegistryDriver, admin: Window) -> None:
    registry.unlock(durationSeconds=2 * 3600)
    admin.open("/admin/registry")
    expect(admin.page.locator(".countdown")).to_have_text("1 h 59 min")
    registry.lock()
    registry.unlock(durationSeconds=3000)
    admin.open("/admin/registry")
    expect(admin.page.locator(".countdown")).to_have_text(re.compile(r"49:\d\d"))
