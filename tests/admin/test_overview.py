"""The overview page and its charts."""

from __future__ import annotations

import re
from time import monotonic
from typing import TYPE_CHECKING

import requests
from playwright.sync_api import expect

from authsvc import __version__
from authsvc.admin.reports.plots import Bar, Series, plot
from tests.admin.page_objects import FormClient, Window
from tests.registry.signing import signing_request

if TYPE_CHECKING:
    from playwright.sync_api import Locator

    from tests.service import Service


def test_overview_shows_counts_and_links_to_details(service: Service, admin: Window) -> None:
    page = admin.page
    service.create_user("press-7", "secret", grantTypes=["password", "certificate"])
    body = {"csr": signing_request("press-7"), "days": 9}
    assert service.call("POST", "/api/users/press-7/certificates", json=body).status_code == 201
    for password in ("secret", "secret", "wrong"):
        fields = {"username": "press-7", "password": password, "clientid": "c"}
        requests.post(service.url + "/auth/user", json=fields, timeout=10)
    unknown = {"username": "unknown-1", "password": "secret", "clientid": "c"}
    requests.post(service.url + "/auth/user", json=unknown, timeout=10)
    requests.post(
        service.broker_url + "/auth/acl",
        json={"username": "press-7", "clientid": "c", "topic": "a", "acc": 2},
        timeout=10,
    )
    expect(page.get_by_text(__version__)).to_be_visible()
    expect(page.get_by_text("SQLite")).to_be_visible()

    _reload_until(admin, page.locator(".tile").filter(has_text="Pending registrations").locator("b"), "1")
    _reload_until(
        admin, page.locator("figure").filter(has_text="Logins").locator(".legend"), "2 allowed 2 denied in 24 hours"
    )
    expect(page.locator(".tile").filter(has_text="Certificates expiring").locator("b")).to_have_text("1")
    expect(page.get_by_role("img", name=re.compile("Denied topics over the last 24 hours: 1 denied"))).to_be_visible()
    page.locator(".tile").filter(has_text="Certificates expiring").click()
    expect(page.get_by_role("row", name="press-7")).to_be_visible()
    assert not admin.script_errors


def _reload_until(admin: Window, shown: Locator, text: str) -> None:
    """Reload for up to 20 seconds, because the service stores its counts with a delay."""
    deadline = monotonic() + 20
    while monotonic() < deadline:
        admin.page.reload(wait_until="networkidle")
        if " ".join(shown.inner_text().split()) == text:
            return
    raise AssertionError(f"{text!r} was not shown, but {shown.inner_text()!r}")


def test_user_without_permissions_sees_no_counts(service: Service) -> None:
    service.create_user("window-1", "secret", "http read /api/me")
    powerless = FormClient(service.url)
    powerless.sign_in("window-1", "secret")
    shown = powerless.get("/admin").text
    assert "Users" not in shown
    assert "Pending" not in shown
    assert powerless.get("/admin/history").status_code == 403


def test_charts_link_to_what_they_count_for_users_who_may_read_it(service: Service) -> None:
    links = {}
    for number, rights in enumerate((["http read /api/#"], ["http read /api/history", "http read /api/me"])):
        name = f"chart-{number}"
        service.create_user(name, "secret", *rights)
        client = FormClient(service.url)
        client.sign_in(name, "secret")
        links[number] = re.findall(r'<a href="(/admin/[^"]+)"', client.get("/admin/history").text)
        for url in links[number]:
            assert client.get(url.replace("&amp;", "&")).status_code == 200
    assert [url.partition("&")[0] for url in links[0]] == [
        "/admin/users?sort=-lastSeen",
        "/admin/denials?kind=login",
        "/admin/denials?kind=topic",
    ]
    assert links[1] == []


def test_bars_are_stacked_and_fill_the_plot() -> None:
    drawn = plot([Series("good", [1, 0, 3]), Series("bad", [1, 0, 1], bad=True)])
    assert drawn.peak == 4
    assert drawn.totals == [4, 2]
    step = drawn.width / 3
    width, quarter = round(step * 0.8, 2), drawn.height / 4
    assert drawn.bars == [
        Bar(0.0, drawn.height - quarter, width, quarter, 0),
        Bar(0.0, drawn.height - 2 * quarter, width, quarter, 1),
        Bar(round(2 * step, 2), quarter, width, 3 * quarter, 0),
        Bar(round(2 * step, 2), 0.0, width, quarter, 1),
    ]


def test_many_values_are_summed_into_at_most_96_bars() -> None:
    drawn = plot([Series("all", [1] * 288)])
    assert (len(drawn.bars), drawn.values_per_bar, drawn.peak, drawn.totals) == (96, 3, 3, [288])


def test_zero_values_produce_no_bars() -> None:
    drawn = plot([Series("none", [0] * 12)])
    assert (drawn.bars, drawn.peak) == ([], 0)
