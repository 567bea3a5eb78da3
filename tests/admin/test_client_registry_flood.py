"""The Client Registry's page while a flood goes on: it says so, and everything that matches is decided at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import requests
from playwright.sync_api import expect

from registry.mqtt_registration.unknown_names import FLOOD_NAMES
from tests.admin.registry_client import Registry, registration_row
from tests.registry.environment import soon

if TYPE_CHECKING:
    from tests.admin.page_objects import Window
    from tests.service import Service

PATIENCE = 20_000  # a process reports every 5 seconds, and the page asks every 5


@pytest.fixture(scope="module")
def gate(service: Service) -> Registry:
    return Registry(service)


def storm(gate: Registry, names: int, prefix: str) -> None:
    with requests.Session() as broker:
        for number in range(names):
            fields = {"username": f"{prefix}{number}", "password": "a flood's secret", "clientid": f"bot_{number}"}
            assert broker.post(gate.service.broker_url + "/auth/user", json=fields, timeout=10).status_code == 403
    soon(lambda: gate.call_api("GET", f"/registrations?search={prefix}{names - 1}")["items"], within=30)


def test_a_flood_is_announced_and_its_names_are_forgotten(gate: Registry, admin: Window) -> None:
    page = admin.page
    gate.lock()
    admin.open("/admin/registry")
    for _ in range(2):
        gate.attempt_login("press-7")
    storm(gate, FLOOD_NAMES + 20, "flood-")
    notice = page.locator("#flood")
    expect(notice).to_contain_text("unknown usernames tried to register in the last minute", timeout=PATIENCE)
    expect(notice).to_contain_text("Most usernames begin with flood-")
    expect(notice).to_contain_text("Most client ids begin with bot_")
    notice.get_by_role("link", name="Deny or forget the names of this flood").click()
    dialog = page.get_by_role("dialog", name="Deny or forget all that match")
    expect(dialog.get_by_label("Usernames like")).to_have_value("flood-*")
    expect(dialog.get_by_label("Attempts at most")).to_have_value("1")
    expect(dialog).to_contain_text(f"{FLOOD_NAMES + 20} pending registrations match")
    dialog.get_by_role("button", name="Forget all").click()
    expect(page.get_by_role("status").first).to_have_text(f"{FLOOD_NAMES + 20} registrations are forgotten.")
    expect(registration_row(page, "press-7")).to_be_visible()
    assert gate.status_of("flood-1") == "forgotten"
    assert not admin.script_errors


def test_all_that_match_are_denied_and_an_empty_or_bad_filter_is_refused(gate: Registry, admin: Window) -> None:
    page = admin.page
    gate.unlock()
    for name in ("lamp-1", "lamp-2", "valve-1"):
        gate.attempt_login(name)
    admin.open("/admin/registry?search=lamp")
    page.get_by_role("link", name="Deny or forget all that match").click()
    dialog = page.get_by_role("dialog", name="Deny or forget all that match")
    expect(dialog.get_by_label("Usernames like")).to_have_value("*lamp*")
    dialog.get_by_label("Address or network").fill("nonsense")
    dialog.get_by_role("button", name="Show what matches").click()
    expect(dialog.locator("[id='filter.address-wrong']")).to_contain_text("must be an IP address or a network")
    dialog.get_by_label("Address or network").fill("")
    dialog.get_by_label("Usernames like").fill("")
    dialog.get_by_role("button", name="Show what matches").click()
    expect(dialog.locator("[id='filter.address-wrong']")).to_have_count(0)
    expect(dialog.get_by_role("button", name="Deny all")).to_have_count(0)
    dialog.get_by_label("Usernames like").fill("lamp-*")
    dialog.get_by_role("button", name="Show what matches").click()
    expect(dialog).to_contain_text("2 pending registrations match")
    dialog.get_by_label("Reason").fill("no lamps")
    dialog.get_by_role("button", name="Deny all").click()
    expect(page.get_by_role("status").first).to_have_text("2 registrations are denied.")
    assert [gate.status_of(name) for name in ("lamp-1", "lamp-2", "valve-1")] == ["denied", "denied", "pending"]
    assert not admin.script_errors
