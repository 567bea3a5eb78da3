"""The pages of notifications."""

from __future__ import annotations

import re
from itertools import count
from typing import TYPE_CHECKING

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from authsvc.notifications.outbox import EVENTS
from tests.admin.page_objects import FormClient, Window
from tests.notifications.receivers import answer_with, receiving
from tests.service import ADMIN_PASSWORD, Service

if TYPE_CHECKING:
    from collections.abc import Iterator

_numbers = count()
_PATIENCE = 10_000


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that may send to this machine."""
    with Service(tmp_path_factory.mktemp("page"), {"AUTHSVC_NOTIFY_PRIVATE": "yes"}) as service:
        yield service


@pytest.fixture
def client(service: Service) -> FormClient:
    client = FormClient(service.url)
    client.sign_in("admin", ADMIN_PASSWORD)
    return client


def create(service: Service, **fields: object) -> dict[str, str]:
    """Create a notification over REST."""
    body = {
        "name": f"n-{next(_numbers)}",
        "url": "http://127.0.0.1:9/top/path",
        "events": ["login.throttled"],
        **fields,
    }
    answer = service.call("POST", "/api/notifications", json=body)
    assert answer.status_code == 201, answer.text
    created: dict[str, str] = answer.json()
    return created


def signed_in(service: Service, *permissions: str) -> FormClient:
    username = f"user-{next(_numbers)}"
    service.create_user(username, "secret", *permissions)
    client = FormClient(service.url)
    assert client.sign_in(username, "secret").status_code == 303
    return client


def test_notification_is_created_tested_switched_edited_and_deleted(service: Service, admin: Window) -> None:
    page = admin.page
    with receiving() as receiver:
        page.get_by_role("link", name="Notifications", exact=True).click()
        page.get_by_role("button", name="New notification").click()
        page.get_by_label("Name").fill("operators")
        page.get_by_label("Receiver").fill(receiver.url)
        page.get_by_label("registration.pending").check()
        page.get_by_role("button", name="Create").click()
        secret = page.get_by_label("Secret").input_value()
        assert secret.startswith("whsec_")
        assert not Axe().run(page).violations_count
        page.get_by_role("link", name="Show the notification").click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("operators enabled")
        assert secret not in page.content()

        page.get_by_role("button", name="Send a test").click()
        expect(page.get_by_role("status")).to_contain_text("The test message was delivered.", timeout=_PATIENCE)
        receiver.received[0].verified(secret)
        rows = page.get_by_role("region", name="Deliveries").locator("tbody tr")
        expect(rows).to_have_count(1)
        expect(rows.first).to_contain_text("notification.test")
        expect(rows.first).to_contain_text("delivered")

        receiver.answer = answer_with(502)
        page.get_by_role("button", name="Send a test").click()
        expect(page.get_by_role("status")).to_contain_text("the receiver answered 502", timeout=_PATIENCE)
        expect(rows.first).to_contain_text("pending")
        assert not Axe().run(page).violations_count

    page.get_by_role("button", name="Disable").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("disabled")
    page.get_by_role("button", name="Enable").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("enabled")

    page.get_by_role("button", name="Edit").click()
    expect(page.get_by_label("registration.pending")).to_be_checked()
    page.get_by_label("registration.pending").uncheck()
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert").first).to_contain_text("Nothing was saved")
    page.get_by_label("Name").fill("on call")
    page.get_by_label("authority.expiring").check()
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("on call")
    expect(page.get_by_role("region", name="Details")).to_contain_text("authority.expiring")

    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("status")).to_contain_text("The notification was deleted.")
    assert service.call("GET", "/api/notifications?search=on%20call").json()["total"] == 0
    assert not admin.script_errors


def test_new_deliveries_appear_by_themselves(service: Service, admin: Window) -> None:
    created = create(service)
    admin.open(f"/admin/notifications/{created['id']}")
    deliveries = admin.page.get_by_role("region", name="Deliveries")
    expect(deliveries).to_contain_text("No message was sent")
    service.call("POST", f"/api/notifications/{created['id']}/test")
    expect(deliveries).to_contain_text("the receiver cannot be reached", timeout=20_000)


def test_every_event_can_be_chosen(client: FormClient) -> None:
    shown = client.get("/admin/new-notification").text
    assert re.findall(r'name="events" value="([^"]+)"', shown) == list(EVENTS)
    assert "needs AUTHSVC_SMTP_URL, which is not set" in shown


def test_errors_keep_the_input(client: FormClient) -> None:
    fields: dict[str, str | list[str]] = {"name": "x", "url": "https://a:b@example.com/", "events": ["login.throttled"]}
    answer = client.post("/admin/new-notification", drawn_at="/admin/new-notification", **fields)
    assert answer.status_code == 400
    assert "must contain no username and password" in answer.text
    assert 'value="login.throttled" checked' in answer.text


def test_outdated_form_is_refused(service: Service, client: FormClient) -> None:
    created = create(service)
    path = f"/admin/notifications/{created['id']}/edit"
    version = re.search(r'name="updated" value="([^"]+)"', client.get(path).text)
    assert version
    service.call("PATCH", f"/api/notifications/{created['id']}", json={"enabled": False})
    fields = {"name": "x", "url": created["url"], "events": ["login.throttled"], "updated": version[1]}
    answer = client.post(path, drawn_at=path, **fields)
    assert answer.status_code == 412
    assert service.call("GET", f"/api/notifications/{created['id']}").json()["name"] == created["name"]


def test_hostile_names_and_urls_are_escaped(service: Service, client: FormClient) -> None:
    hostile = f"<script>alert({next(_numbers)})</script>'\""
    created = create(service, name=hostile, url="http://127.0.0.1:9/'\"><img/src=x>")
    path = f"/admin/notifications/{created['id']}"
    service.call("POST", f"/api{path.removeprefix('/admin')}/test")
    for page in ("/admin/notifications", path, f"{path}/edit", f"{path}/deliveries"):
        shown = client.get(page).text
        assert not [tag for tag in ("<script>alert", "<img/src") if tag in shown], page
    assert "&lt;script&gt;alert" in client.get(path).text
    assert "top/path" not in client.get("/admin/notifications").text


def test_pages_need_the_permissions_of_the_api(service: Service) -> None:
    created = create(service)
    path = f"/admin/notifications/{created['id']}"
    client = signed_in(service, "http readWrite /api/users/#")
    for page in ("/admin/notifications", "/admin/new-notification", path, f"{path}/deliveries", f"{path}/edit"):
        assert client.get(page).status_code == 403, page
    assert "/admin/notifications" not in client.get("/admin/users").text
    client = signed_in(service, "http read /api/notifications/#", "http read /api/me")
    shown = client.get(path).text
    assert not [each for each in ("/test", "/switch", "/edit", "/delete") if f"{path}{each}" in shown]
    for action in ("test", "switch", "edit", "delete"):
        assert client.post(f"{path}/{action}", drawn_at="/admin").status_code == 403
    client = signed_in(service, f"http read /api/notifications/{created['id']}", "http read /api/me")
    assert "Deliveries" not in client.get(path).text
    assert client.get("/admin/notifications/nowhere").status_code == 403


def test_lists_have_pages(service: Service, client: FormClient) -> None:
    created = create(service)
    for _ in range(3):
        service.call("POST", f"/api/notifications/{created['id']}/test")
    shown = client.get(f"/admin/notifications/{created['id']}?perPage=2").text
    assert "Page 1 of 2 · 3 in total" in shown
    assert "The list has no page 9" in client.get(f"/admin/notifications/{created['id']}?page=9").text
    assert "No notification matches" in client.get("/admin/notifications?search=nothing-like-it").text
    assert client.get("/admin/notifications/nowhere").status_code == 404
