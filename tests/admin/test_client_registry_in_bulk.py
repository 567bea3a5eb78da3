"""Many registrations at once, names that are expected, and keys that vouch for others."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import requests
from playwright.sync_api import expect

from tests.admin.registry_client import Registry, registration_row
from tests.registry.environment import soon
from tests.service import permission

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.admin.page_objects import Window
    from tests.service import Service

READS_PLANS = permission("read plans/%u")


@pytest.fixture(scope="module")
def gate(service: Service) -> Registry:
    """The registry, with a role to give."""
    body = {"name": "press", "description": "Its own topics", "permissions": [permission("write presses/%u/#")]}
    assert service.call("POST", "/api/roles", json=body).status_code == 201
    return Registry(service)


def select(page: Page, *usernames: str) -> None:
    for username in usernames:
        page.get_by_label(f"Select {username}", exact=True).check()


def test_some_are_granted_at_once_and_what_could_not_be_done_is_said_in_words(gate: Registry, admin: Window) -> None:
    page, late, first, second = (
        admin.page,
        gate.add_unknown_device(locked=True),
        gate.add_unknown_device(),
        gate.add_unknown_device(),
    )
    gate.lock()
    admin.open("/admin/registry")
    select(page, late, first, second)
    page.get_by_role("button", name="Grant selected").click()
    dialog = page.get_by_role("dialog", name="Grant 3 registrations")
    expect(dialog).to_contain_text("1 of them came while the registry was locked")
    dialog.get_by_label("press Its own topics").check()
    dialog.get_by_role("button", name="Grant").click()
    dialog = page.get_by_role("dialog", name="2 granted, 1 not")
    expect(dialog.get_by_role("listitem")).to_have_text(f"{late}: the client registry is locked")
    expect(dialog.get_by_role("status")).to_contain_text(first)
    assert [gate.user(name)["roles"] for name in (first, second)] == [["press"], ["press"]]
    assert gate.status_of(late) == "pending"
    dialog.get_by_role("button", name="Close").click()
    expect(registration_row(page, first)).to_have_count(0)
    expect(registration_row(page, late)).to_be_visible()
    assert not admin.script_errors


def test_all_are_denied_at_once_with_one_reason(gate: Registry, admin: Window) -> None:
    page, names = admin.page, [gate.add_unknown_device(), gate.add_unknown_device()]
    admin.open("/admin/registry")
    page.get_by_label("Select all that are shown").check()
    page.get_by_role("button", name="Deny selected").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Reason").fill("nobody ordered these")
    dialog.get_by_role("button", name="Deny").click()
    expect(page.get_by_role("status")).to_contain_text(re.compile(r"\d+ registrations are denied"))
    shown = [gate.registration_of(name) for name in names]
    assert [(one["status"], one["reason"]) for one in shown if one] == [("denied", "nobody ordered these")] * 2
    assert not admin.script_errors


def test_a_permission_that_is_none_changes_nobody(gate: Registry, admin: Window) -> None:
    page, username = admin.page, gate.add_unknown_device()
    admin.open("/admin/registry")
    select(page, username)
    page.get_by_role("button", name="Grant selected").click()
    dialog = page.get_by_role("dialog", name="Grant 1 registration")
    dialog.get_by_role("button", name="Add a permission").click()
    dialog.get_by_label("Topic filter or path").fill("a/#/b")
    dialog.get_by_role("button", name="Grant").click()
    expect(dialog.locator(".permission-row .wrong")).to_have_text("# must be the last level")
    assert gate.status_of(username) == "pending"


def test_what_each_requests_is_shown_and_rights_over_the_service_are_not_given_in_bulk(
    gate: Registry, admin: Window
) -> None:
    page = admin.page
    names = [gate.register_over_rest(roles=["admin"])["username"] for _ in range(2)]
    admin.open("/admin/registry")
    select(page, *names)
    page.get_by_role("button", name="Grant selected").click()
    dialog = page.get_by_role("dialog", name="Grant 2 registrations")
    for name in names:
        expect(dialog.get_by_role("row").filter(has_text=name)).to_contain_text("admin")
    dialog.get_by_label("Accept what they request").check()
    dialog.get_by_role("button", name="Grant").click()
    dialog = page.get_by_role("dialog", name="0 granted, 2 not")
    expect(dialog.get_by_role("listitem").first).to_contain_text("would get rights over this service (http)")
    assert [gate.status_of(name) for name in names] == ["pending", "pending"]
    assert not admin.script_errors


def test_different_requests_are_not_accepted_in_bulk(gate: Registry, admin: Window) -> None:
    page = admin.page
    names = [
        gate.register_over_rest(**wishes)["username"]
        for wishes in ({"roles": ["press"]}, {"permissions": [READS_PLANS]})
    ]
    admin.open("/admin/registry")
    select(page, *names)
    page.get_by_role("button", name="Grant selected").click()
    dialog = page.get_by_role("dialog", name="Grant 2 registrations")
    expect(dialog.get_by_role("row").filter(has_text=names[1])).to_contain_text("plans/%u")
    dialog.get_by_label("Accept what they request").check()
    dialog.get_by_role("button", name="Grant").click()
    dialog = page.get_by_role("dialog", name="0 granted, 2 not")
    expect(dialog.get_by_role("listitem").first).to_contain_text("request different things")
    assert [gate.status_of(name) for name in names] == ["pending", "pending"]


def test_each_is_restricted_to_the_only_client_id_of_its_attempts(gate: Registry, admin: Window) -> None:
    page = admin.page
    several, once, mixed = (gate.add_unknown_device(client_id="plc-7") for _ in range(3))
    gate.attempt_login(several, client_id="plc-7")
    gate.attempt_login(mixed, client_id="plc-8")
    over_rest = gate.register_over_rest()["username"]
    admin.open("/admin/registry")
    select(page, several, once, mixed, over_rest)
    page.get_by_role("button", name="Grant selected").click()
    dialog = page.get_by_role("dialog", name="Grant 4 registrations")
    rows = {name: dialog.get_by_role("row").filter(has_text=name) for name in (several, once, mixed, over_rest)}
    expect(rows[several].get_by_label("Only the client id that asked: plc-7")).to_be_checked()
    expect(rows[once].get_by_label("Only the client id that asked: plc-7")).not_to_be_checked()
    expect(rows[mixed].get_by_label("Allow plc-7")).not_to_be_checked()
    expect(rows[over_rest].get_by_role("checkbox")).to_have_count(0)
    rows[mixed].get_by_label("Allow plc-8").check()
    dialog.get_by_role("button", name="Grant").click()
    expect(page.get_by_role("status")).to_have_text("4 registrations are granted.")
    granted = [gate.user(name)["clientIds"] for name in (several, once, mixed, over_rest)]
    assert granted == [["plc-7"], [], ["plc-8"], []]
    assert not admin.script_errors


def test_a_choice_of_client_ids_survives_a_wrong_permission(gate: Registry, admin: Window) -> None:
    page, first, second = (
        admin.page,
        gate.add_unknown_device(client_id="plc-7"),
        gate.add_unknown_device(client_id="plc-8"),
    )
    gate.attempt_login(first, client_id="plc-7")
    admin.open("/admin/registry")
    select(page, first, second)
    page.get_by_role("button", name="Grant selected").click()
    dialog = page.get_by_role("dialog", name="Grant 2 registrations")
    dialog.get_by_label("Only the client id that asked: plc-7").uncheck()
    dialog.get_by_label("Only the client id that asked: plc-8").check()
    dialog.get_by_role("button", name="Add a permission").click()
    dialog.get_by_label("Topic filter or path").fill("a/#/b")
    dialog.get_by_role("button", name="Grant").click()
    expect(dialog.locator(".permission-row .wrong")).to_have_text("# must be the last level")
    expect(dialog.get_by_label("Only the client id that asked: plc-7")).not_to_be_checked()
    expect(dialog.get_by_label("Only the client id that asked: plc-8")).to_be_checked()
    dialog.get_by_label("Topic filter or path").fill("a/#")
    dialog.get_by_role("button", name="Grant").click()
    expect(page.get_by_role("status")).to_have_text("2 registrations are granted.")
    assert [gate.user(name)["clientIds"] for name in (first, second)] == [[], ["plc-8"]]
    assert not admin.script_errors


def test_a_preauthorized_name_is_bound_to_a_secret_unless_told_otherwise(gate: Registry, admin: Window) -> None:
    page = admin.page
    gate.lock()
    admin.open("/admin/registry/preauthorizations")
    page.get_by_text("Preauthorize a device").click()
    form = page.locator("form", has=page.get_by_role("button", name="Preauthorize", exact=True))
    form.get_by_label("Username").fill("bound-1")
    form.get_by_role("button", name="Preauthorize", exact=True).click()
    secret = page.get_by_label("Secret").input_value()
    page.get_by_role("button", name="Done").click()
    expect(registration_row(page, "bound-1")).to_contain_text("secret")
    assert secret not in page.content()
    assert secret not in gate.service.log_text()
    gate.can_log_in("bound-1", "a guess")
    soon(lambda: gate.registration_of("bound-1"))
    admin.open("/admin/registry")
    expect(registration_row(page, "bound-1")).to_contain_text("not the expected device")
    assert soon(lambda: gate.can_log_in("bound-1", secret))
    assert not gate.can_log_in("bound-1", "a guess")
    assert not admin.script_errors


def test_a_list_gets_a_secret_for_each_name(gate: Registry, admin: Window) -> None:
    page = admin.page
    admin.open("/admin/registry/preauthorizations")
    page.get_by_text("Preauthorize many from a list").click()
    page.get_by_label("Comma-separated values").fill("username\nbound-2\nbound-3\n")
    page.get_by_role("button", name="Preauthorize all").click()
    lines = page.get_by_label("Usernames and secrets").input_value().split()
    assert [line.partition(",")[0] for line in lines] == ["username", "bound-2", "bound-3"]
    secret = lines[1].partition(",")[2]
    assert soon(lambda: gate.can_log_in("bound-2", secret))
    assert not admin.script_errors


def test_one_who_is_expected_gets_in_at_the_first_contact(gate: Registry, admin: Window) -> None:
    page = admin.page
    gate.lock()
    admin.open("/admin/registry/preauthorizations")
    page.get_by_text("Preauthorize a device").click()
    form = page.locator("form", has=page.get_by_role("button", name="Preauthorize", exact=True))
    form.get_by_label("Username").fill("x")
    form.get_by_label("Let in").select_option("only the device with the key below")
    form.get_by_role("button", name="Preauthorize", exact=True).click()
    expect(page.locator("#csrFingerprint-wrong")).to_be_visible()
    form.get_by_label("Fingerprint of the key").fill("short")
    form.get_by_role("button", name="Preauthorize", exact=True).click()
    expect(page.locator("#username-wrong")).to_contain_text("3 to 64")
    expect(page.locator("#csrFingerprint-wrong")).to_be_visible()
    form.get_by_label("Username").fill("expected-1")
    form.get_by_label("Fingerprint of the key").fill("")
    form.get_by_label("Let in").select_option("whoever comes first under this name")
    form.get_by_label("Good for").select_option("A week")
    form.get_by_label("press Its own topics").check()
    form.get_by_role("button", name="Preauthorize", exact=True).click()
    expect(page.get_by_role("status")).to_contain_text("expected-1 is let in")
    expect(registration_row(page, "expected-1")).to_contain_text("press")
    assert soon(lambda: gate.can_log_in("expected-1"))
    page.get_by_role("searchbox").fill("expected-1")
    page.get_by_role("button", name="Search").click()
    expect(page.get_by_text("No preauthorization fits.")).to_be_visible()
    assert gate.user("expected-1")["roles"] == ["press"]
    assert not admin.script_errors


def test_a_list_is_taken_whole_or_not_at_all_and_its_bad_line_is_named(gate: Registry, admin: Window) -> None:
    page = admin.page
    admin.open("/admin/registry/preauthorizations")
    page.get_by_text("Preauthorize many from a list").click()
    page.get_by_label("Comma-separated values").fill("username,roles\nlisted-1,press\nlisted-2,no-such-role\n")
    page.get_by_role("button", name="Preauthorize all").click()
    expect(page.locator("#csv-words")).to_have_text("Line 3: no such role")
    expect(page.get_by_label("Comma-separated values")).to_have_value(re.compile("listed-2,no-such-role"))
    assert gate.call_api("GET", "/preauthorizations?search=listed")["total"] == 0
    file = {"name": "list.csv", "mimeType": "text/csv", "buffer": b"username,roles\nlisted-1,press\nlisted-2,\n"}
    page.get_by_label("or a file with them").set_input_files(file)  # type: ignore[arg-type]
    page.get_by_label("Bind each that names no key").uncheck()
    page.get_by_role("button", name="Preauthorize all").click()
    expect(page.get_by_role("status")).to_have_text("2 preauthorized.")
    registration_row(page, "listed-2").get_by_role("button", name="Take back").click()
    expect(page.get_by_role("status")).to_contain_text("taken back")
    (left,) = gate.call_api("GET", "/preauthorizations?search=listed")["items"]
    assert left["username"] == "listed-1"
    assert not admin.script_errors


def test_an_enrolment_keys_secret_is_shown_once_and_vouches_for_its_holder(gate: Registry, admin: Window) -> None:
    page = admin.page
    gate.lock()
    admin.open("/admin/registry/enrolment-keys")
    page.get_by_role("button", name="New key").click()
    dialog = page.get_by_role("dialog", name="New enrolment key")
    dialog.get_by_label("Registrations").fill("many")
    dialog.get_by_role("button", name="Create").click()
    expect(dialog.locator("#uses-wrong")).to_be_visible()
    expect(dialog.locator("#label-wrong")).to_be_visible()
    dialog.get_by_label("Label").fill("hall 4")
    dialog.get_by_label("Registrations").fill("2")
    dialog.get_by_label("press Its own topics").check()
    dialog.get_by_role("button", name="Create").click()
    secret = page.get_by_label("Secret").input_value()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == secret
    assert secret not in page.url
    page.get_by_role("button", name="Close").click()
    expect(registration_row(page, "hall 4")).to_contain_text("0 of 2")
    for _ in range(2):
        assert secret not in page.content()
        page.reload()
    assert secret not in gate.service.log_text()

    body = {"username": "vouched-1", "password": "factory default", "enrolmentKey": secret}
    address = gate.service.url + "/api/client-registry/register"
    assert requests.post(address, json=body, timeout=10).status_code == 201
    page.reload()
    expect(registration_row(page, "hall 4")).to_contain_text("1 of 2")
    registration_row(page, "hall 4").get_by_role("button", name="Revoke").click()
    expect(page.get_by_role("status")).to_contain_text("is revoked")
    expect(registration_row(page, "hall 4")).to_contain_text("revoked")
    assert requests.post(address, json=body | {"username": "vouched-2"}, timeout=10).status_code == 403
    assert not admin.script_errors
