"""The page of the Client Registry."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import requests
from playwright.sync_api import TimeoutError as NothingCame
from playwright.sync_api import expect

from tests.admin.registry_client import RegistryDriver, open_decision_dialog, row_of
from tests.broker import Mosquitto, build_plugin, free_port, go_auth_config
from tests.devices import Device
from tests.registry.environment import REGISTER, wait_until
from tests.registry.signing import signing_request
from tests.service import ADMIN_PASSWORD, permission

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser, Page

    from tests.admin.page_objects import Window
    from tests.service import Service

POLL = "/admin/registry/registrations"


@pytest.fixture(scope="module")
def registry(service: Service) -> RegistryDriver:
    """The registry, with a role and a user who subscribes."""
    body = {"name": "press", "description": "Its own topics", "permissions": [permission("write presses/%u/#")]}
    assert service.call("POST", "/api/roles", json=body).status_code == 201
    service.create_user("carol", "carol's secret", "read presses/#")
    return RegistryDriver(service)


def stays_loaded(page: Page) -> None:
    """Mark the page for `was_reloaded`."""
    page.evaluate("window.stayed = true")


def was_reloaded(page: Page) -> bool:
    return not page.evaluate("window.stayed === true")


def test_unknown_device_appears_is_granted_and_publishes(
    registry: RegistryDriver, admin: Window, tmp_path: Path
) -> None:
    page, service = admin.page, registry.service
    config = go_auth_config(plugin=build_plugin(), service_port=service.broker_port, listener_port=free_port())
    device = Device("press-7", "factory default", "plc-7", returns=True)
    carol = Device("carol", "carol's secret", "carol-main", returns=True)
    with Mosquitto(config, tmp_path) as broker:
        carol.start(broker.port)
        assert wait_until(lambda: carol.connack() == 0)
        assert carol.subscribe("presses/#") == [1]
        registry.lock()
        admin.open("/admin/registry")
        page.get_by_role("button", name="Unlock").click()
        expect(page.get_by_role("status")).to_have_text("The registry is unlocked.")
        stays_loaded(page)
        device.start(broker.port)
        assert device.connack() != 0
        expect(row_of(page, "press-7")).to_contain_text("plc-7")
        assert not was_reloaded(page)

        dialog = open_decision_dialog(page, "press-7")
        dialog.get_by_label("press Its own topics").check()
        dialog.get_by_role("button", name="Allow").click()
        expect(page.get_by_role("status")).to_have_text("press-7 is granted and can connect at its next attempt.")
        expect(row_of(page, "press-7")).to_have_count(0)
        assert wait_until(lambda: device.connack() == 0)
        device.publish("presses/press-7/state", "running")
        assert carol.received() == ("presses/press-7/state", b"running")
        device.stop()
        carol.stop()
    assert not admin.script_errors


def test_countdown_runs_until_the_registry_locks_itself(registry: RegistryDriver, admin: Window) -> None:
    page = admin.page
    registry.lock()
    admin.open("/admin/registry")
    lock = page.get_by_role("region", name="Lock", exact=True)
    expect(lock).to_contain_text("Locked")
    page.get_by_label("Unlock for").select_option("1 minute")
    page.get_by_role("button", name="Unlock").click()
    expect(lock.locator(".countdown")).to_have_text(re.compile(r"0:5\d"))
    registry.unlock(durationSeconds=3)
    expect(lock.locator(".countdown")).to_have_text("0:01")
    expect(lock).to_contain_text("New devices are recorded but cannot be approved")
    registry.unlock()
    expect(lock.locator(".countdown")).to_have_text(re.compile(r"4:\d\d"))
    lock.get_by_role("button", name="Lock now").click()
    expect(page.get_by_role("status")).to_have_text("The registry is locked.")
    assert registry.call("GET", "")["locked"]
    assert not admin.script_errors


def test_invalid_limit_is_reported_next_to_its_field(registry: RegistryDriver, admin: Window) -> None:
    page = admin.page
    registry.lock()
    admin.open("/admin/registry")
    page.get_by_text("Limits").click()
    page.get_by_label("Maximum number of registrations").fill("some")
    page.get_by_label("Username pattern").fill("press_*")
    page.get_by_role("button", name="Unlock").click()
    expect(page.locator("#maxRegistrations-wrong")).to_contain_text("integer")
    expect(page.get_by_label("Username pattern")).to_have_value("press_*")
    assert registry.call("GET", "")["locked"]
    page.get_by_label("Maximum number of registrations").fill("3")
    page.get_by_label("press Its own topics").check()
    page.get_by_role("button", name="Unlock").click()
    expect(page.get_by_role("region", name="Lock", exact=True)).to_contain_text("0 of at most 3 granted")
    now = registry.call("GET", "")
    assert (now["maxRegistrations"], now["usernamePattern"], now["roles"]) == (3, "press_*", ["press"])


def test_dialog_explains_a_registration_recorded_while_locked(registry: RegistryDriver, admin: Window) -> None:
    page, username = admin.page, registry.add_unknown_device(locked=True)
    admin.open("/admin/registry")
    expect(row_of(page, username)).to_contain_text("while locked")
    dialog = open_decision_dialog(page, username)
    expect(dialog).to_contain_text("recorded while the registry was locked")
    dialog.get_by_label("press Its own topics").check()
    dialog.get_by_role("button", name="Allow").click()
    expect(dialog.get_by_role("alert")).to_have_text("The client registry is locked")
    assert registry.status_of(username) == "pending"
    dialog.get_by_role("button", name="Unlock for 5 minutes").click()
    expect(dialog.get_by_role("button", name="Unlock for 5 minutes")).to_have_count(0)
    expect(dialog.get_by_label("press Its own topics")).to_be_checked()
    dialog.get_by_role("button", name="Allow").click()
    expect(page.get_by_role("status")).to_contain_text(f"{username} is granted")
    assert registry.user(username)["roles"] == ["press"]
    assert not admin.script_errors


def test_conflict_is_marked_and_explained(registry: RegistryDriver, admin: Window) -> None:
    page, username = admin.page, registry.add_unknown_device()
    registry.try_to_connect(username, password="another password")
    admin.open("/admin/registry")
    expect(row_of(page, username)).to_contain_text("1 conflict")
    expect(open_decision_dialog(page, username)).to_contain_text(
        "1 attempt under this name came with another password or key"
    )


def test_registration_with_conflicts_is_granted_after_confirmation(registry: RegistryDriver, admin: Window) -> None:
    page, username = admin.page, registry.add_rest_client()["username"]
    body = {"username": username, "password": "another password"}
    assert requests.post(registry.service.url + REGISTER, json=body, timeout=10).status_code == 409
    admin.open("/admin/registry")
    dialog = open_decision_dialog(page, username)
    expect(dialog).to_contain_text("The other attempts came from 127.0.0.1.")
    dialog.get_by_role("button", name="Allow").click()
    expect(dialog.get_by_role("alert")).to_contain_text("1 attempt from 127.0.0.1 under the name")
    assert registry.status_of(username) == "pending"
    dialog.get_by_label("Grant although 1 other attempt came under this name").check()
    dialog.get_by_role("button", name="Allow").click()
    expect(page.get_by_role("status")).to_contain_text("is granted")
    assert not admin.script_errors


def test_requested_http_rights_are_marked_and_need_confirmation(registry: RegistryDriver, admin: Window) -> None:
    page, username = admin.page, registry.add_rest_client(roles=["admin"])["username"]
    admin.open("/admin/registry")
    expect(row_of(page, username).locator(".badge.bad").get_by_text("admin")).to_be_visible()
    dialog = open_decision_dialog(page, username)
    expect(dialog.locator(".notice.wrong")).to_contain_text(
        "Danger: the requested rights include rights over this service"
    )
    dialog.get_by_label("Give the requested rights").check()
    dialog.get_by_role("button", name="Allow").click()
    expect(dialog.get_by_role("alert")).to_contain_text("would get rights over this service")
    expect(dialog.get_by_label("Give the requested rights")).to_be_checked()
    assert registry.status_of(username) == "pending"
    dialog.get_by_label("Give it rights over this service").check()
    dialog.get_by_role("button", name="Allow").click()
    expect(page.get_by_role("status")).to_contain_text("is granted")
    assert registry.user(username)["roles"] == ["admin"]
    assert not admin.script_errors


def test_look_alike_of_a_user_is_marked(registry: RegistryDriver, admin: Window) -> None:
    registry.unlock()
    registry.try_to_connect("Caro1")
    admin.open("/admin/registry?search=Caro1")
    expect(row_of(admin.page, "Caro1")).to_contain_text("looks like carol")
    expect(open_decision_dialog(admin.page, "Caro1")).to_contain_text("This name can be mistaken for carol")


def test_bidirectional_characters_are_escaped_in_requested_rights(registry: RegistryDriver, admin: Window) -> None:
    trick = permission("write plans/%u/\u202e\u2066x")
    username = registry.add_rest_client(permissions=[trick])["username"]
    admin.open(f"/admin/registry?search={username}")
    expect(row_of(admin.page, username)).to_contain_text(r"plans/%u/\u202e\u2066x")
    dialog = open_decision_dialog(admin.page, username)
    expect(dialog.locator(".requested")).to_contain_text(r"plans/%u/\u202e\u2066x")
    dialog.get_by_label("Give the requested rights").check()
    dialog.get_by_role("button", name="Allow").click()
    expect(admin.page.get_by_role("status")).to_contain_text("is granted")
    admin.open(f"/admin/users/{username}")
    expect(admin.page.locator(".permission").first).to_contain_text(r"plans/%u/\u202e\u2066x")
    assert not {"\u202e", "\u2066"} & set(admin.page.content())


def test_requested_rights_are_shown_and_accepted_in_one_click(registry: RegistryDriver, admin: Window) -> None:
    page = admin.page
    applicant = registry.add_rest_client(
        context={"maker": "Müller & Söhne", "slots": [1, 2], "trick": "a\u202eb<script>"},
        roles=["press"],
        permissions=[permission("read plans/%u")],
    )
    signed = registry.add_rest_client()["username"]
    admin.open("/admin/registry")
    expect(row_of(page, applicant["username"])).to_contain_text(applicant["pairingCode"])
    expect(row_of(page, signed)).to_be_visible()
    dialog = open_decision_dialog(page, applicant["username"])
    expect(dialog.locator(".pairing")).to_have_text(applicant["pairingCode"])
    expect(dialog.locator(".context")).to_contain_text('"maker": "Müller & Söhne"')
    expect(dialog.locator(".context")).to_contain_text(r"a\u202eb<script>")
    expect(dialog.locator(".requested")).to_contain_text("plans/%u")
    dialog.get_by_label("Give the requested rights").check()
    dialog.get_by_role("button", name="Allow").click()
    expect(page.get_by_role("status")).to_contain_text("is granted")
    user = registry.user(applicant["username"])
    assert (user["roles"], user["permissions"]) == (["press"], [permission("read plans/%u")])
    assert not admin.script_errors


def test_fingerprint_is_short_in_the_table_and_complete_in_the_dialog(registry: RegistryDriver, admin: Window) -> None:
    username = "camera-9"
    registry.unlock()
    body = {"username": username, "csr": signing_request(username)}
    assert (
        registry.service.api.post(registry.service.url + "/api/client-registry/register", json=body).status_code == 202
    )
    shown = registry.find_registration(username)
    assert shown
    fingerprint = shown["csrFingerprint"]
    admin.open("/admin/registry")
    short = row_of(admin.page, username).get_by_title(fingerprint)
    expect(short).to_have_text(f"{fingerprint[:8]}…")
    expect(open_decision_dialog(admin.page, username)).to_contain_text(fingerprint)


def test_refused_grant_shows_the_reason_and_keeps_the_input(registry: RegistryDriver, admin: Window) -> None:
    page, username = admin.page, registry.add_rest_client(roles=["no-such-role"])["username"]
    admin.open("/admin/registry")
    dialog = open_decision_dialog(page, username)
    expect(dialog.locator(".requested")).to_contain_text("no such role")
    dialog.get_by_role("button", name="Add a permission").click()
    dialog.get_by_label("Topic filter or path").fill("presses/#/state")
    dialog.get_by_role("button", name="Allow").click()
    # Wait for the check of the topic filter: its answer replaces text that is typed before.
    expect(dialog.get_by_role("alert").filter(has_text="Nothing was saved")).to_be_visible()
    expect(dialog.locator(".permission-row .wrong")).to_have_text("# must be the last level")
    expect(dialog.get_by_label("Topic filter or path")).to_have_value("presses/#/state")
    dialog.get_by_label("Topic filter or path").fill("presses/%u/#")
    dialog.get_by_label("Give the requested rights").check()
    dialog.get_by_role("button", name="Allow").click()
    expect(dialog.get_by_role("alert").filter(has_text="no such role")).to_be_visible()
    expect(dialog.get_by_label("Give the requested rights")).to_be_checked()
    assert registry.status_of(username) == "pending"
    dialog.get_by_label("Give the requested rights").uncheck()
    dialog.get_by_role("button", name="Allow").click()
    expect(page.get_by_role("status")).to_contain_text("is granted")
    assert registry.user(username)["permissions"] == [permission("readWrite presses/%u/#")]
    assert not admin.script_errors


def test_registration_is_denied_with_a_reason_and_deleted(registry: RegistryDriver, admin: Window) -> None:
    page, username = admin.page, registry.add_unknown_device()
    admin.open("/admin/registry")
    dialog = open_decision_dialog(page, username)
    dialog.get_by_label("Reason").fill("not one of ours")
    dialog.get_by_role("button", name="Deny").click()
    expect(page.get_by_role("status")).to_have_text(f"{username} is denied.")
    assert registry.status_of(username) == "denied"
    page.get_by_role("link", name="Denied").click()
    row_of(page, username).get_by_role("button", name="Show").click()
    dialog = page.get_by_role("dialog", name=f"Registration of {username}")
    expect(dialog).to_contain_text("not one of ours")
    expect(dialog.get_by_role("button", name="Allow")).to_have_count(0)
    dialog.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("status")).to_contain_text("is deleted")
    expect(page.get_by_role("link", name="Denied")).to_have_attribute("aria-current", "page")
    assert registry.status_of(username) == "deleted"


def test_refresh_keeps_selection_focus_and_dialog(registry: RegistryDriver, admin: Window) -> None:
    page, first, second = admin.page, registry.add_unknown_device(), registry.add_unknown_device()
    admin.open("/admin/registry")
    page.get_by_label(f"Select {first}").check()
    row_of(page, second).get_by_role("button", name="Decide").focus()
    registry.try_to_connect(first)
    expect(row_of(page, first).get_by_role("cell", name="2", exact=True)).to_be_visible()
    expect(page.get_by_label(f"Select {first}")).to_be_checked()
    expect(row_of(page, second).get_by_role("button", name="Decide")).to_be_focused()
    expect(page.get_by_role("button", name="Grant selected")).to_be_visible()
    dialog = open_decision_dialog(page, second)
    dialog.get_by_label("Reason").fill("half a sent")
    registry.try_to_connect(first)
    expect(page.locator("tr", has_text=first).get_by_text("3", exact=True)).to_be_visible()
    expect(dialog.get_by_label("Reason")).to_have_value("half a sent")
    expect(dialog.get_by_label("Reason")).to_be_focused()
    assert not admin.script_errors


def test_hidden_page_does_not_poll(admin: Window) -> None:
    page = admin.page
    admin.open("/admin/registry")
    page.evaluate("Object.defineProperty(document, 'hidden', { value: true, configurable: true })")
    with pytest.raises(NothingCame):
        page.wait_for_event("request", timeout=2_500)
    page.evaluate("Object.defineProperty(document, 'hidden', { value: false })")
    with page.expect_request(lambda asked: POLL in asked.url):
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


def test_refresh_does_not_lose_a_click(registry: RegistryDriver, admin: Window) -> None:
    page, username = admin.page, registry.add_unknown_device()
    admin.open("/admin/registry")
    row_of(page, username).get_by_role("button", name="Decide").hover()
    page.mouse.down()
    registry.try_to_connect(username)
    with pytest.raises(NothingCame):
        page.wait_for_event("request", timeout=2_500)
    page.mouse.up()
    expect(page.get_by_role("dialog", name=f"Grant access to {username}")).to_be_visible()
    expect(page.locator("tr", has_text=username).get_by_text("2", exact=True)).to_be_visible()


def test_failed_refresh_keeps_the_table_and_marks_it_stale(registry: RegistryDriver, admin: Window) -> None:
    page, username = admin.page, registry.add_unknown_device()
    admin.open("/admin/registry")
    page.route(f"**{POLL}*", lambda route: route.fulfill(status=503, body="no"))
    expect(page.locator("#registrations.stale")).to_be_visible()
    expect(row_of(page, username)).to_be_visible()
    page.unroute(f"**{POLL}*")
    expect(page.locator("#registrations.stale")).to_have_count(0)


def test_table_is_searched_by_status_and_name(registry: RegistryDriver, admin: Window) -> None:
    page, first, second = admin.page, registry.add_unknown_device(), registry.add_unknown_device()
    admin.open("/admin/registry?status=all")
    page.get_by_role("searchbox").fill(first)
    page.get_by_role("button", name="Search").click()
    expect(row_of(page, first)).to_be_visible()
    expect(row_of(page, second)).to_have_count(0)
    expect(page.get_by_role("link", name="All", exact=True)).to_have_attribute("aria-current", "page")
    page.get_by_role("link", name="Granted").click()
    expect(page.get_by_text("No registration matches.")).to_be_visible()
    assert admin.open("/admin/registry?status=nonsense") == 400


def test_empty_table_says_what_to_do_next(registry: RegistryDriver, admin: Window) -> None:
    username = registry.add_unknown_device()
    for one in registry.call("GET", "/registrations?status=pending&perPage=1000")["items"]:
        registry.call("POST", f"/registrations/{one['id']}/deny")
    admin.open("/admin/registry")
    expect(admin.page.get_by_text("Connect a device to the broker")).to_be_visible()
    admin.open("/admin/registry?status=expired")
    expect(admin.page.get_by_text("There are no expired registrations")).to_be_visible()
    assert registry.status_of(username) == "denied"


def test_registry_page_works_without_javascript(registry: RegistryDriver, browser: Browser) -> None:
    username = registry.add_unknown_device(locked=True)
    context = browser.new_context(base_url=registry.service.url, java_script_enabled=False)
    page = context.new_page()
    page.goto("/admin/sign-in?redirect=/admin/registry")
    page.get_by_label("Username").fill("admin")
    page.get_by_label("Password").fill(ADMIN_PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    row_of(page, username).get_by_role("button", name="Decide").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Grant access to {username}")
    page.get_by_role("button", name="Allow").click()
    expect(page.get_by_role("alert")).to_have_text("The client registry is locked")
    page.get_by_role("button", name="Unlock for 5 minutes").click()
    expect(page.get_by_role("status")).to_have_text("The registry is unlocked.")
    page.get_by_role("button", name="Allow").click()
    expect(page.get_by_role("status")).to_contain_text(f"{username} is granted")
    assert registry.can_log_in(username)
    context.close()
