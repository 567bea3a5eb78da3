"""The page of the Client Registry during a flood, and decisions by filter."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import requests
from playwright.sync_api import expect

from registry.mqtt_registration.unknown_names import FLOOD_NAMES
from tests.admin.registry_client import RegistryDriver, row_of
from tests.registry.environment import wait_until

if TYPE_CHECKING:
    from tests.admin.page_objects import Window
    from tests.service import Service

pytestmark = pytest.mark.slow

PATIENCE = 20_000  # a process reports every 5 seconds, and the page polls every 5


@pytest.fixture(scope="module")
def registry(service: Service) -> RegistryDriver:
    return RegistryDriver(service)


def send_flood(registry: RegistryDriver, names: int, prefix: str) -> None:
    with requests.Session() as broker:
        for number in range(names):
            fields = {"username": f"{prefix}{number}", "password": "a flood's secret", "clientid": f"bot_{number}"}
            assert broker.post(registry.service.broker_url + "/auth/user", json=fields, timeout=10).status_code == 403
    wait_until(lambda: registry.call("GET", f"/registrations?search={prefix}{names - 1}")["items"], within=30)


def test_flood_is_shown_and_its_registrations_are_deleted(registry: RegistryDriver, admin: Window) -> None:
    page = admin.page
    registry.lock()
    admin.open("/admin/registry")
    for _ in range(2):
        registry.try_to_connect("press-7")
    send_flood(registry, FLOOD_NAMES + 20, "flood-")
    notice = page.locator("#flood")
    expect(notice).to_contain_text("unknown usernames tried to register in the last minute", timeout=PATIENCE)
    expect(notice).to_contain_text("Most usernames begin with flood-")
    expect(notice).to_contain_text("Most client ids begin with bot_")
    notice.get_by_role("link", name="Deny or delete the registrations of this flood").click()
    dialog = page.get_by_role("dialog", name="Deny or delete matching registrations")
    expect(dialog.get_by_label("Username pattern")).to_have_value("flood-*")
    expect(dialog.get_by_label("Maximum number of attempts")).to_have_value("1")
    expect(dialog).to_contain_text(f"{FLOOD_NAMES + 20} pending registrations match")
    dialog.get_by_role("button", name="Delete all").click()
    expect(page.get_by_role("status").first).to_have_text(f"{FLOOD_NAMES + 20} registrations are deleted.")
    expect(row_of(page, "press-7")).to_be_visible()
    assert registry.status_of("flood-1") == "deleted"
    assert not admin.script_errors


def test_matching_registrations_are_denied_and_invalid_filters_refused(registry: RegistryDriver, admin: Window) -> None:
    page = admin.page
    registry.unlock()
    for name in ("lamp-1", "lamp-2", "valve-1"):
        registry.try_to_connect(name)
    admin.open("/admin/registry?search=lamp")
    page.get_by_role("link", name="Deny or delete by filter").click()
    dialog = page.get_by_role("dialog", name="Deny or delete matching registrations")
    expect(dialog.get_by_label("Username pattern")).to_have_value("*lamp*")
    dialog.get_by_label("Address or network").fill("nonsense")
    dialog.get_by_role("button", name="Show matches").click()
    expect(dialog.locator("[id='filter.address-wrong']")).to_contain_text("must be an IP address or a network")
    dialog.get_by_label("Address or network").fill("")
    dialog.get_by_label("Username pattern").fill("")
    dialog.get_by_role("button", name="Show matches").click()
    expect(dialog.locator("[id='filter.address-wrong']")).to_have_count(0)
    expect(dialog.get_by_role("button", name="Deny all")).to_have_count(0)
    dialog.get_by_label("Username pattern").fill("lamp-*")
    dialog.get_by_role("button", name="Show matches").click()
    expect(dialog).to_contain_text("2 pending registrations match")
    dialog.get_by_label("Reason").fill("no lamps")
    dialog.get_by_role("button", name="Deny all").click()
    expect(page.get_by_role("status").first).to_have_text("2 registrations are denied.")
    assert [registry.status_of(name) for name in ("lamp-1", "lamp-2", "valve-1")] == ["denied", "denied", "pending"]
    assert not admin.script_errors
