"""The page of connected MQTT clients, and those on a user's page."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.admin.page_objects import FormClient, Window
from tests.http.plugin import Plugin
from tests.live_clients import connected, report_to
from tests.service import ADMIN_PASSWORD, Service

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Dialog

_numbers = count()
# A client that was disconnected is gone from the list once its broker has reported that.
_PATIENCE = 5_000


def new_name(prefix: str) -> str:
    return f"{prefix}-{next(_numbers)}"


def new_user(service: Service, *permissions: str) -> str:
    username = new_name("device")
    service.create_user(username, "secret", *permissions)
    return username


def new_broker() -> dict[str, str]:
    """Return the name of a broker that has not reported before, and a boot of it."""
    number = next(_numbers)
    return {"name": f"broker-{number}", "boot": f"{number:032x}"}


def signed_in(service: Service, *permissions: str) -> FormClient:
    client = FormClient(service.url)
    assert client.sign_in(new_user(service, *permissions), "secret").status_code == 303
    return client


@contextmanager
def broker_that_ends(service: Service, broker: dict[str, str], number: int) -> Iterator[None]:
    """Report the end of a connection when the service orders it, as the broker's plugin does."""

    def obey() -> None:
        changes.until(lambda line: number in line.get("disconnect", []), seconds=20)
        report_to(service, disconnected=(number,), **broker)

    with Plugin(service).changes(**broker) as changes, ThreadPoolExecutor(1) as pool:
        obeyed = pool.submit(obey)
        yield
        obeyed.result()


def test_without_a_broker_the_page_says_how_to_get_one(tmp_path: Path) -> None:
    with Service(tmp_path) as alone:
        client = FormClient(alone.url)
        client.sign_in("admin", ADMIN_PASSWORD)
        shown = client.get("/admin/clients").text
    assert "Only brokers with authsvc&#39;s own plugin report their clients" in shown.replace("'", "&#39;")
    assert "authsvc broker-config --plugin FILE" in shown


def test_clients_are_listed_searched_and_disconnected(service: Service, admin: Window) -> None:
    page, broker, username = admin.page, new_broker(), new_user(service)
    report_to(service, connected(1, username, "plc/1"), connected(2, username, "plc 2"), **broker)
    report_to(service, connected(1, username, "elsewhere"), **new_broker())
    admin.open("/admin")
    page.get_by_role("link", name="Clients", exact=True).click()
    page.get_by_label("Part of a client id, username or address").fill("PLC")
    page.get_by_label("Broker", exact=True).select_option(broker["name"])
    page.get_by_role("button", name="Search").click()
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(2)
    expect(rows.first).to_contain_text("plc 2")
    expect(rows.first).to_contain_text("10.0.0.7")
    expect(rows.first.get_by_role("link", name=username)).to_have_attribute("href", f"/admin/users/{username}")
    expect(page.get_by_label("Broker", exact=True)).to_have_value(broker["name"])
    assert not Axe().run(page).violations_count

    with broker_that_ends(service, broker, 1):
        rows.filter(has_text="plc/1").get_by_role("button", name="Disconnect").click()
        expect(page.get_by_role("status")).to_contain_text("plc/1 was disconnected", timeout=_PATIENCE)
    expect(rows).to_have_count(1)
    expect(page.get_by_label("Part of a client id, username or address")).to_have_value("PLC")
    assert not admin.script_errors


def test_disconnect_is_confirmed_and_its_failure_is_shown(service: Service, browser: Browser) -> None:
    broker = new_broker()
    report_to(service, connected(1, new_user(service), "press"), **broker)
    context = browser.new_context(base_url=service.url, viewport={"width": 360, "height": 800})
    page = context.new_page()
    asked: list[str] = []

    def accept(dialog: Dialog) -> None:
        asked.append(dialog.message)
        dialog.accept()

    client = FormClient(service.url)
    client.sign_in("admin", ADMIN_PASSWORD)
    context.add_cookies([{"name": "authsvc", "value": client.cookie(), "url": service.url}])
    page.on("dialog", accept)
    page.goto(f"/admin/clients?broker={broker['name']}")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.get_by_role("button", name="Disconnect").click()
    expect(page.get_by_role("status")).to_contain_text("has not reported within 2 seconds", timeout=_PATIENCE)
    assert asked == ["Disconnect press? A client that may connect will reconnect."]
    context.close()


def test_user_page_shows_its_clients_and_disconnects_one_or_all(service: Service, admin: Window) -> None:
    page, broker, username = admin.page, new_broker(), new_user(service)
    report_to(service, *(connected(number, username) for number in range(25)), **broker)
    admin.open(f"/admin/users/{username}")
    card = page.get_by_role("region", name="Connected clients")
    expect(card.locator("tbody tr")).to_have_count(20)
    expect(card.get_by_role("link", name="All 25")).to_have_attribute("href", f"/admin/clients?username={username}")
    with broker_that_ends(service, broker, 24):
        card.get_by_role("row").filter(has_text="c-24").get_by_role("button", name="Disconnect").click()
        expect(page.get_by_role("status")).to_contain_text("c-24 was disconnected", timeout=_PATIENCE)
    expect(card.get_by_role("link", name="All 24")).to_be_visible()
    report_to(service, disconnected=tuple(range(1, 25)), **broker)
    with broker_that_ends(service, broker, 0):
        page.get_by_role("button", name="Disconnect").first.click()
        expect(page.get_by_role("status")).to_contain_text(
            f"{username} was disconnected (1 client id)", timeout=_PATIENCE
        )
    expect(card).to_contain_text(f"No client of {username} is connected")
    expect(page.get_by_role("button", name="Disconnect")).to_have_count(0)
    assert not admin.script_errors


def test_list_has_pages(service: Service) -> None:
    broker, client = new_broker(), signed_in(service, "http read /api/clients")
    report_to(service, *(connected(number) for number in range(120)), **broker)
    shown = client.get(f"/admin/clients?broker={broker['name']}&page=2").text
    assert shown.count('scope="row"') == 50
    assert "Page 2 of 3 · 120 in total" in shown
    assert f"?broker={broker['name']}&amp;page=3" in shown
    assert "The list has no page 9" in client.get(f"/admin/clients?broker={broker['name']}&page=9").text
    assert "No connected client matches" in client.get("/admin/clients?search=no-such-client").text


def test_hostile_names_are_escaped(service: Service) -> None:
    broker = new_broker()
    names = {"client_id": "<script>alert(1)</script>\u202e'\"", "username": "<img src=x>\u202eb", "protocol": "<b>"}
    username = names.pop("username")
    report_to(service, connected(1, username, **names), **broker | {"name": "<i>\u202e"})
    client = FormClient(service.url)
    client.sign_in("admin", ADMIN_PASSWORD)
    shown = client.get(f"/admin/clients?search={quote('<img')}").text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\\u202e" in shown
    assert "&lt;img src=x&gt;\\u202eb" in shown
    assert not [tag for tag in ("<script>alert", "<img src=x", "<b>", "<i>") if tag in shown]
    # The true name stays in addresses and values, where nobody reads it.
    visible = shown.replace(quote("\u202e"), "").replace('value="&lt;i&gt;\u202e"', "")
    assert "\u202e" not in visible
    path = "/".join(quote(name, safe="") for name in ("<i>\u202e", names["client_id"]))
    assert f"/admin/clients/{path}/disconnect" in shown


def test_pages_need_the_permissions_of_the_api(service: Service) -> None:
    broker, username = new_broker(), new_user(service)
    report_to(service, connected(1, username, "a/b"), connected(2, username, "c"), **broker)
    path = f"/admin/clients/{broker['name']}/%s/disconnect"
    client = signed_in(service, "http readWrite /api/users/#")
    assert client.get("/admin/clients").status_code == 403
    shown = client.get(f"/admin/users/{username}").text
    assert 'href="/admin/clients"' not in shown
    assert "Connected clients" not in shown
    assert f"/admin/users/{username}/disconnect" in shown
    assert client.post(path % "c", drawn_at="/admin/users").status_code == 403
    client = signed_in(service, "http read /api/#")
    shown = client.get(f"/admin/clients?username={username}").text
    assert "a/b" in shown
    assert "/disconnect" not in shown
    assert client.post(path % "a%2Fb", drawn_at="/admin").status_code == 403
    rule = f"http write /api/clients/{broker['name']}/a%2Fb/disconnect"
    client = signed_in(service, "http read /api/#", rule)
    shown = client.get(f"/admin/clients?username={username}").text
    assert [each in shown for each in (path % "a%2Fb", path % "c")] == [True, False]
    answer = client.post(path % "a%2Fb", drawn_at="/admin", back="/admin/clients?search=a")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/admin/clients?search=a")
    assert client.post(path % "c", drawn_at="/admin").status_code == 403
    assert client.post(path % "a%2Fb", drawn_at="/admin", back="//elsewhere.example").status_code == 400


def test_client_that_has_gone_is_reported_as_such(service: Service) -> None:
    client = signed_in(service, "http readWrite /api/#")
    answer = client.post("/admin/clients/plant/a%2Fb/disconnect", drawn_at="/admin")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/admin/clients")
    assert "a/b was not connected any more." in client.get("/admin/clients").text
    assert client.post("/admin/clients/plant/a%00b/disconnect", drawn_at="/admin").status_code == 400


@pytest.mark.parametrize("query", ["page=0", "page=x", "broker=%00", "surprise=1"])
def test_invalid_query_is_a_client_error(service: Service, query: str) -> None:
    assert signed_in(service, "http read /api/#").get(f"/admin/clients?{query}").status_code == 400
