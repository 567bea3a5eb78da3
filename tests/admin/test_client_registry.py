"""The Client Registry's page: who wants in appears by itself, is compared, and is let in or not."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import requests
from playwright.sync_api import TimeoutError as NothingCame
from playwright.sync_api import expect

from tests.admin.registry_client import Registry, open_decision_dialog, registration_row
from tests.broker import Mosquitto, build_plugin, free_port, go_auth_config
from tests.devices import Device
from tests.registry.environment import REGISTER, soon
from tests.registry.signing import signing_request
from tests.service import ADMIN_PASSWORD, permission

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser, Page

    from tests.admin.page_objects import Window
    from tests.service import Service

POLL = "/admin/registry/registrations"


@pytest.fixture(scope="module")
def gate(service: Service) -> Registry:
    """The registry, with a role to give and somebody who listens."""
    body = {"name": "press", "description": "Its own topics", "permissions": [permission("write presses/%u/#")]}
    assert service.call("POST", "/api/roles", json=body).status_code == 201
    service.create_user("carol", "carol's secret", "read presses/#")
    return Registry(service)


def stays_loaded(page: Page) -> None:
    """Mark the page, so that `was_reloaded` knows it again."""
    page.evaluate("window.stayed = true")


def was_reloaded(page: Page) -> bool:
    return not page.evaluate("window.stayed === true")


def test_a_device_is_refused_appears_by_itself_is_granted_and_publishes(
    gate: Registry, admin: Window, tmp_path: Path
) -> None:
    page, service = admin.page, gate.service
    config = go_auth_config(plugin=build_plugin(), service_port=service.broker_port, listener_port=free_port())
    device = Device("press-7", "factory default", "plc-7", returns=True)
    carol = Device("carol", "carol's secret", "carol-main", returns=True)
    with Mosquitto(config, tmp_path) as broker:
        carol.start(broker.port)
        assert soon(lambda: carol.connack() == 0)
        assert carol.subscribe("presses/#") == [1]
        gate.lock()
        admin.open("/admin/registry")
        page.get_by_role("button", name="Unlock").click()
        expect(page.get_by_role("status")).to_have_text("The registry is unlocked.")
        stays_loaded(page)
        device.start(broker.port)
        assert device.connack() != 0
        expect(registration_row(page, "press-7")).to_contain_text("plc-7")
        assert not was_reloaded(page)

        dialog = open_decision_dialog(page, "press-7")
        dialog.get_by_label("press Its own topics").check()
        dialog.get_by_role("button", name="Allow").click()
        expect(page.get_by_role("status")).to_have_text("press-7 is granted, and is let in at its next attempt.")
        expect(registration_row(page, "press-7")).to_have_count(0)
        assert soon(lambda: device.connack() == 0)
        device.publish("presses/press-7/state", "running")
        assert carol.received() == ("presses/press-7/state", b"running")
        device.stop()
        carol.stop()
    assert not admin.script_errors


def test_it_counts_down_and_is_seen_to_lock_itself(gate: Registry, admin: Window) -> None:
    page = admin.page
    gate.lock()
    admin.open("/admin/registry")
    lock = page.get_by_role("region", name="Lock", exact=True)
    expect(lock).to_contain_text("Locked")
    page.get_by_label("Unlock for").select_option("1 minute")
    page.get_by_role("button", name="Unlock").click()
    expect(lock.locator(".countdown")).to_have_text(re.compile(r"0:5\d"))
    gate.unlock(durationSeconds=3)
    expect(lock.locator(".countdown")).to_have_text("0:01")
    expect(lock).to_contain_text("Devices that come now have to wait")
    gate.unlock()
    expect(lock.locator(".countdown")).to_have_text(re.compile(r"4:\d\d"))
    lock.get_by_role("button", name="Lock now").click()
    expect(page.get_by_role("status")).to_have_text("The registry is locked.")
    assert gate.call_api("GET", "")["locked"]
    assert not admin.script_errors


def test_a_window_is_narrowed_and_nonsense_is_refused_beside_its_field(gate: Registry, admin: Window) -> None:
    page = admin.page
    gate.lock()
    admin.open("/admin/registry")
    page.get_by_text("Limits").click()
    page.get_by_label("Maximum number of registrations").fill("some")
    page.get_by_label("Usernames like").fill("press_*")
    page.get_by_role("button", name="Unlock").click()
    expect(page.locator("#maxRegistrations-wrong")).to_contain_text("integer")
    expect(page.get_by_label("Usernames like")).to_have_value("press_*")
    assert gate.call_api("GET", "")["locked"]
    page.get_by_label("Maximum number of registrations").fill("3")
    page.get_by_label("press Its own topics").check()
    page.get_by_role("button", name="Unlock").click()
    expect(page.get_by_role("region", name="Lock", exact=True)).to_contain_text("0 of at most 3 granted")
    now = gate.call_api("GET", "")
    assert (now["maxRegistrations"], now["usernamePattern"], now["roles"]) == (3, "press_*", ["press"])


def test_one_that_came_while_it_was_locked_says_so_before_anybody_tries(gate: Registry, admin: Window) -> None:
    page, username = admin.page, gate.add_unknown_device(locked=True)
    admin.open("/admin/registry")
    expect(registration_row(page, username)).to_contain_text("while locked")
    dialog = open_decision_dialog(page, username)
    expect(dialog).to_contain_text("can be granted only while the registry is unlocked")
    dialog.get_by_label("press Its own topics").check()
    dialog.get_by_role("button", name="Allow").click()
    expect(dialog.get_by_role("alert")).to_have_text("The client registry is locked")
    assert gate.status_of(username) == "pending"
    dialog.get_by_role("button", name="Unlock for 5 minutes").click()
    expect(dialog.get_by_role("button", name="Unlock for 5 minutes")).to_have_count(0)
    expect(dialog.get_by_label("press Its own topics")).to_be_checked()
    dialog.get_by_role("button", name="Allow").click()
    expect(page.get_by_role("status")).to_contain_text(f"{username} is granted")
    assert gate.user(username)["roles"] == ["press"]
    assert not admin.script_errors


def test_a_conflict_is_marked_and_explained(gate: Registry, admin: Window) -> None:
    page, username = admin.page, gate.add_unknown_device()
    gate.attempt_login(username, password="another password")
    admin.open("/admin/registry")
    expect(registration_row(page, username)).to_contain_text("1 conflict")
    expect(open_decision_dialog(page, username)).to_contain_text(
        "1 attempt under this name came with another password or key"
    )


def test_a_registration_with_conflicts_is_granted_once_they_are_accepted(gate: Registry, admin: Window) -> None:
    page, username = admin.page, gate.register_over_rest()["username"]
    body = {"username": username, "password": "another password"}
    assert requests.post(gate.service.url + REGISTER, json=body, timeout=10).status_code == 409
    admin.open("/admin/registry")
    dialog = open_decision_dialog(page, username)
    expect(dialog).to_contain_text("The other attempts came from 127.0.0.1.")
    dialog.get_by_role("button", name="Allow").click()
    expect(dialog.get_by_role("alert")).to_contain_text("1 attempt from 127.0.0.1 under the name")
    assert gate.status_of(username) == "pending"
    dialog.get_by_label("Grant it although 1 other attempt came under this name").check()
    dialog.get_by_role("button", name="Allow").click()
    expect(page.get_by_role("status")).to_contain_text("is granted")
    assert not admin.script_errors


def test_requested_rights_over_the_service_are_a_danger_and_need_a_confirmation(gate: Registry, admin: Window) -> None:
    page, username = admin.page, gate.register_over_rest(roles=["admin"])["username"]
    admin.open("/admin/registry")
    expect(registration_row(page, username).locator(".badge.bad").get_by_text("admin")).to_be_visible()
    dialog = open_decision_dialog(page, username)
    expect(dialog.locator(".notice.wrong")).to_contain_text("Danger: it requests rights over this service")
    dialog.get_by_label("Accept what was requested").check()
    dialog.get_by_role("button", name="Allow").click()
    expect(dialog.get_by_role("alert")).to_contain_text("would get rights over this service")
    expect(dialog.get_by_label("Accept what was requested")).to_be_checked()
    assert gate.status_of(username) == "pending"
    dialog.get_by_label("Give it rights over this service").check()
    dialog.get_by_role("button", name="Allow").click()
    expect(page.get_by_role("status")).to_contain_text("is granted")
    assert gate.user(username)["roles"] == ["admin"]
    assert not admin.script_errors


def test_a_name_that_looks_like_a_user_s_is_marked(gate: Registry, admin: Window) -> None:
    gate.unlock()
    gate.attempt_login("Caro1")
    admin.open("/admin/registry?search=Caro1")
    expect(registration_row(admin.page, "Caro1")).to_contain_text("looks like carol")
    expect(open_decision_dialog(admin.page, "Caro1")).to_contain_text("This name can be mistaken for carol")


def test_characters_that_turn_text_round_are_spelled_out_in_what_is_requested(gate: Registry, admin: Window) -> None:
    trick = permission("write plans/%u/\u202e\u2066x")
    username = gate.register_over_rest(permissions=[trick])["username"]
    admin.open(f"/admin/registry?search={username}")
    expect(registration_row(admin.page, username)).to_contain_text(r"plans/%u/\u202e\u2066x")
    dialog = open_decision_dialog(admin.page, username)
    expect(dialog.locator(".requested")).to_contain_text(r"plans/%u/\u202e\u2066x")
    dialog.get_by_label("Accept what was requested").check()
    dialog.get_by_role("button", name="Allow").click()
    expect(admin.page.get_by_role("status")).to_contain_text("is granted")
    admin.open(f"/admin/users/{username}")
    expect(admin.page.locator(".permission").first).to_contain_text(r"plans/%u/\u202e\u2066x")
    assert not {"\u202e", "\u2066"} & set(admin.page.content())


def test_what_was_asked_for_is_shown_whole_and_accepted_in_one_click(gate: Registry, admin: Window) -> None:
    page = admin.page
    applicant = gate.register_over_rest(
        context={"maker": "Müller & Söhne", "slots": [1, 2], "trick": "a\u202eb<script>"},
        roles=["press"],
        permissions=[permission("read plans/%u")],
    )
    signed = gate.register_over_rest()["username"]
    admin.open("/admin/registry")
    expect(registration_row(page, applicant["username"])).to_contain_text(applicant["pairingCode"])
    expect(registration_row(page, signed)).to_be_visible()
    dialog = open_decision_dialog(page, applicant["username"])
    expect(dialog.locator(".pairing")).to_have_text(applicant["pairingCode"])
    expect(dialog.locator(".context")).to_contain_text('"maker": "Müller & Söhne"')
    expect(dialog.locator(".context")).to_contain_text(r"a\u202eb<script>")
    expect(dialog.locator(".requested")).to_contain_text("plans/%u")
    dialog.get_by_label("Accept what was requested").check()
    dialog.get_by_role("button", name="Allow").click()
    expect(page.get_by_role("status")).to_contain_text("is granted")
    user = gate.user(applicant["username"])
    assert (user["roles"], user["permissions"]) == (["press"], [permission("read plans/%u")])
    assert not admin.script_errors


def test_a_keys_fingerprint_is_shown_short_in_the_table_and_whole_in_the_dialog(gate: Registry, admin: Window) -> None:
    username = "camera-9"
    gate.unlock()
    body = {"username": username, "csr": signing_request(username)}
    assert gate.service.api.post(gate.service.url + "/api/client-registry/register", json=body).status_code == 202
    shown = gate.registration_of(username)
    assert shown
    fingerprint = shown["csrFingerprint"]
    admin.open("/admin/registry")
    short = registration_row(admin.page, username).get_by_title(fingerprint)
    expect(short).to_have_text(f"{fingerprint[:8]}…")
    expect(open_decision_dialog(admin.page, username)).to_contain_text(fingerprint)


def test_what_cannot_be_granted_is_refused_in_words_and_keeps_what_was_typed(gate: Registry, admin: Window) -> None:
    page, username = admin.page, gate.register_over_rest(roles=["no-such-role"])["username"]
    admin.open("/admin/registry")
    dialog = open_decision_dialog(page, username)
    expect(dialog.locator(".requested")).to_contain_text("no such role")
    dialog.get_by_role("button", name="Add a permission").click()
    dialog.get_by_label("Topic filter or path").fill("presses/#/state")
    dialog.get_by_role("button", name="Allow").click()
    # The page marks the topic filter by itself; what is typed before the service has answered is drawn over.
    expect(dialog.get_by_role("alert").filter(has_text="Nothing was changed")).to_be_visible()
    expect(dialog.locator(".permission-row .wrong")).to_have_text("# must be the last level")
    expect(dialog.get_by_label("Topic filter or path")).to_have_value("presses/#/state")
    dialog.get_by_label("Topic filter or path").fill("presses/%u/#")
    dialog.get_by_label("Accept what was requested").check()
    dialog.get_by_role("button", name="Allow").click()
    expect(dialog.get_by_role("alert").filter(has_text="no such role")).to_be_visible()
    expect(dialog.get_by_label("Accept what was requested")).to_be_checked()
    assert gate.status_of(username) == "pending"
    dialog.get_by_label("Accept what was requested").uncheck()
    dialog.get_by_role("button", name="Allow").click()
    expect(page.get_by_role("status")).to_contain_text("is granted")
    assert gate.user(username)["permissions"] == [permission("readWrite presses/%u/#")]
    assert not admin.script_errors


def test_one_is_denied_with_a_reason_and_forgotten_again(gate: Registry, admin: Window) -> None:
    page, username = admin.page, gate.add_unknown_device()
    admin.open("/admin/registry")
    dialog = open_decision_dialog(page, username)
    dialog.get_by_label("Reason").fill("not one of ours")
    dialog.get_by_role("button", name="Deny").click()
    expect(page.get_by_role("status")).to_have_text(f"{username} is denied.")
    assert gate.status_of(username) == "denied"
    page.get_by_role("link", name="Denied").click()
    registration_row(page, username).get_by_role("button", name="Show").click()
    dialog = page.get_by_role("dialog", name=f"Registration of {username}")
    expect(dialog).to_contain_text("not one of ours")
    expect(dialog.get_by_role("button", name="Allow")).to_have_count(0)
    dialog.get_by_role("button", name="Forget").click()
    expect(page.get_by_role("status")).to_contain_text("is forgotten")
    expect(page.get_by_role("link", name="Denied")).to_have_attribute("aria-current", "page")
    assert gate.status_of(username) == "forgotten"


def test_what_is_selected_focused_and_open_survives_that_the_table_refreshes_itself(
    gate: Registry, admin: Window
) -> None:
    page, first, second = admin.page, gate.add_unknown_device(), gate.add_unknown_device()
    admin.open("/admin/registry")
    page.get_by_label(f"Select {first}").check()
    registration_row(page, second).get_by_role("button", name="Decide").focus()
    gate.attempt_login(first)
    expect(registration_row(page, first).get_by_role("cell", name="2", exact=True)).to_be_visible()
    expect(page.get_by_label(f"Select {first}")).to_be_checked()
    expect(registration_row(page, second).get_by_role("button", name="Decide")).to_be_focused()
    expect(page.get_by_role("button", name="Grant selected")).to_be_visible()
    dialog = open_decision_dialog(page, second)
    dialog.get_by_label("Reason").fill("half a sent")
    gate.attempt_login(first)
    expect(page.locator("tr", has_text=first).get_by_text("3", exact=True)).to_be_visible()
    expect(dialog.get_by_label("Reason")).to_have_value("half a sent")
    expect(dialog.get_by_label("Reason")).to_be_focused()
    assert not admin.script_errors


def test_nothing_is_asked_for_while_nobody_looks(admin: Window) -> None:
    page = admin.page
    admin.open("/admin/registry")
    page.evaluate("Object.defineProperty(document, 'hidden', { value: true, configurable: true })")
    with pytest.raises(NothingCame):
        page.wait_for_event("request", timeout=2_500)
    page.evaluate("Object.defineProperty(document, 'hidden', { value: false })")
    with page.expect_request(lambda asked: POLL in asked.url):
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


def test_a_click_is_not_lost_because_the_table_refreshes_itself_under_it(gate: Registry, admin: Window) -> None:
    page, username = admin.page, gate.add_unknown_device()
    admin.open("/admin/registry")
    registration_row(page, username).get_by_role("button", name="Decide").hover()
    page.mouse.down()
    gate.attempt_login(username)
    with pytest.raises(NothingCame):
        page.wait_for_event("request", timeout=2_500)
    page.mouse.up()
    expect(page.get_by_role("dialog", name=f"Grant access to {username}")).to_be_visible()
    expect(page.locator("tr", has_text=username).get_by_text("2", exact=True)).to_be_visible()


def test_a_table_that_cannot_be_refreshed_stays_and_says_so(gate: Registry, admin: Window) -> None:
    page, username = admin.page, gate.add_unknown_device()
    admin.open("/admin/registry")
    page.route(f"**{POLL}*", lambda route: route.fulfill(status=503, body="no"))
    expect(page.locator("#registrations.stale")).to_be_visible()
    expect(registration_row(page, username)).to_be_visible()
    page.unroute(f"**{POLL}*")
    expect(page.locator("#registrations.stale")).to_have_count(0)


def test_the_table_is_searched_by_status_and_name(gate: Registry, admin: Window) -> None:
    page, first, second = admin.page, gate.add_unknown_device(), gate.add_unknown_device()
    admin.open("/admin/registry?status=all")
    page.get_by_role("searchbox").fill(first)
    page.get_by_role("button", name="Search").click()
    expect(registration_row(page, first)).to_be_visible()
    expect(registration_row(page, second)).to_have_count(0)
    expect(page.get_by_role("link", name="All", exact=True)).to_have_attribute("aria-current", "page")
    page.get_by_role("link", name="Granted").click()
    expect(page.get_by_text("No registration fits.")).to_be_visible()
    assert admin.open("/admin/registry?status=nonsense") == 400


def test_an_empty_table_says_what_to_do_next(gate: Registry, admin: Window) -> None:
    username = gate.add_unknown_device()
    for one in gate.call_api("GET", "/registrations?status=pending&perPage=1000")["items"]:
        gate.call_api("POST", f"/registrations/{one['id']}/deny")
    admin.open("/admin/registry")
    expect(admin.page.get_by_text("Let a device try to connect to the broker")).to_be_visible()
    admin.open("/admin/registry?status=expired")
    expect(admin.page.get_by_text("There is no registration that ran out")).to_be_visible()
    assert gate.status_of(username) == "denied"


def test_it_works_without_a_script(gate: Registry, browser: Browser) -> None:
    username = gate.add_unknown_device(locked=True)
    context = browser.new_context(base_url=gate.service.url, java_script_enabled=False)
    page = context.new_page()
    page.goto("/admin/sign-in?redirect=/admin/registry")
    page.get_by_label("Username").fill("admin")
    page.get_by_label("Password").fill(ADMIN_PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    registration_row(page, username).get_by_role("button", name="Decide").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Grant access to {username}")
    page.get_by_role("button", name="Allow").click()
    expect(page.get_by_role("alert")).to_have_text("The client registry is locked")
    page.get_by_role("button", name="Unlock for 5 minutes").click()
    expect(page.get_by_role("status")).to_have_text("The registry is unlocked.")
    page.get_by_role("button", name="Allow").click()
    expect(page.get_by_role("status")).to_contain_text(f"{username} is granted")
    assert gate.can_log_in(username)
    context.close()
