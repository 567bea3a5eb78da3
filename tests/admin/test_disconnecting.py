"""The button that ends the MQTT sessions of a user."""

from __future__ import annotations

import time
from itertools import count
from typing import TYPE_CHECKING

import pytest
import requests
from playwright.sync_api import expect

from tests.admin.page_objects import FormClient, Window
from tests.broker import free_port
from tests.registry.signing import signing_request
from tests.service import ADMIN_PASSWORD, Service

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser

pytestmark = pytest.mark.slow

_numbers = count()
PAGES_ABOUT_SESSIONS = ("/admin/users", "/admin/users/admin", "/admin/users/admin/password")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with AUTHSVC_BROKER_URL set to a port where no broker listens."""
    url = f"mqtt://authsvc-sessions:secret@127.0.0.1:{free_port()}"
    with Service(tmp_path_factory.mktemp("page"), {"AUTHSVC_BROKER_URL": url}) as service:
        yield service


def new_user(service: Service, *permissions: str) -> str:
    username = f"device-{next(_numbers)}"
    service.create_user(username, "secret", *permissions)
    return username


def test_disconnect_without_a_seen_client_shows_a_warning(service: Service, admin: Window) -> None:
    username = new_user(service)
    admin.open(f"/admin/users/{username}")
    admin.page.get_by_role("button", name="Disconnect").click()
    expect(admin.page.get_by_role("status")).to_contain_text(
        f"No MQTT client of {username} was seen in the last 30 days"
    )
    assert not admin.script_errors


def test_failed_disconnects_are_counted_on_the_page(service: Service, admin: Window) -> None:
    username = new_user(service)
    login = {"username": username, "password": "secret", "clientid": f"{username}-main"}
    assert requests.post(service.broker_url + "/auth/user", json=login, timeout=10).status_code == 200
    deadline = time.monotonic() + 20
    while f"{username}-main" not in admin.page.content():
        assert time.monotonic() < deadline, "the client id was not stored"
        admin.open(f"/admin/users/{username}")
    admin.page.get_by_role("button", name="Disconnect").click()
    expect(admin.page.get_by_role("status")).to_contain_text(f"1 of 1 client ids of {username} could not")
    events = service.call("GET", "/api/audit", params={"target": f"user:{username}"}).json()["items"]
    assert [(one["actor"], one["via"]) for one in events if one["action"] == "user.disconnect"] == [("admin", "page")]


def test_read_only_user_has_no_disconnect_button_and_gets_403(service: Service, browser: Browser) -> None:
    username, looker = new_user(service), new_user(service, "http read /api/#")
    context = browser.new_context(base_url=service.url)
    window = Window(context.new_page())
    window.sign_in(looker, "secret")
    window.open(f"/admin/users/{username}")
    expect(window.page.get_by_role("button", name="Disconnect")).to_have_count(0)
    context.close()
    client = FormClient(service.url)
    client.sign_in(looker, "secret")
    assert client.post(f"/admin/users/{username}/disconnect", drawn_at="/admin").status_code == 403


def issue_certificate(service: Service) -> str:
    username = new_user(service)
    service.call("PATCH", f"/api/users/{username}", json={"grantTypes": ["certificate"]}).raise_for_status()
    body = {"csr": signing_request(username)}
    return str(service.call("POST", f"/api/users/{username}/certificates", json=body).json()["serial"])


def test_with_a_broker_pages_announce_that_mqtt_sessions_are_ended(service: Service) -> None:
    client = FormClient(service.url)
    client.sign_in("admin", ADMIN_PASSWORD)
    for path in (*PAGES_ABOUT_SESSIONS, f"/admin/certificates/{issue_certificate(service)}"):
        assert "MQTT sessions" in client.get(path).text, path


def test_without_a_broker_no_page_offers_or_promises_to_end_mqtt_sessions(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with Service(tmp_path_factory.mktemp("alone")) as alone:
        client = FormClient(alone.url)
        client.sign_in("admin", ADMIN_PASSWORD)
        serial = issue_certificate(alone)
        shown = [client.get(path).text for path in PAGES_ABOUT_SESSIONS]
        shown.append(client.get(f"/admin/certificates/{serial}").text)
        assert not [text for text in shown if "MQTT session" in text or "/disconnect" in text]
        answer = client.post("/admin/users/admin/disconnect", drawn_at="/admin")
        assert answer.status_code == 409
        assert "set AUTHSVC_BROKER_URL" in answer.text
