"""The page of the denials of all users."""

from __future__ import annotations

import time
from itertools import count
from typing import TYPE_CHECKING

import pytest
import requests
from playwright.sync_api import expect

from tests.admin.page_objects import FormClient, Window
from tests.service import permission

if TYPE_CHECKING:
    from tests.service import Service

pytestmark = pytest.mark.slow

_numbers = count()
WRITE = 2


def new_user(service: Service, *permissions: str) -> str:
    username = f"device-{next(_numbers)}"
    service.create_user(username, "secret", *permissions)
    return username


def signed_in(service: Service, *permissions: str) -> FormClient:
    client = FormClient(service.url)
    assert client.sign_in(new_user(service, *permissions), "secret").status_code == 303
    return client


def denied(service: Service, topic: str, client_id: str = "main") -> str:
    """Return a new user that was denied this topic, once the denial is stored."""
    username = new_user(service)
    fields = {"username": username, "clientid": client_id, "topic": topic, "acc": WRITE}
    assert requests.post(service.broker_url + "/auth/acl", json=fields, timeout=10).status_code == 403
    deadline = time.monotonic() + 10
    while not service.call("GET", "/api/denials", params={"username": username}).json()["items"]:
        assert time.monotonic() < deadline, "the denial was not stored"
        time.sleep(0.05)
    return username


def test_denials_are_searched_and_escaped(service: Service) -> None:
    username = denied(service, "hall/<b>", "client\u202e-1")
    client = signed_in(service, "http read /api/denials", "http read /api/me")
    for query in (
        f"search={username}",
        "search=hall/<b>",
        "search=client",
        f"username={username}&reason=no-permission",
    ):
        shown = client.get(f"/admin/denials?{query}").text
        assert username in shown
        assert "hall/&lt;b&gt;" in shown
        assert "client\\u202e-1" in shown
        assert "\u202e" not in shown
    for query in ("reason=wrong-password", f"username={username}&kind=login", "search=hall&before=2020-01-01T00:00"):
        assert "hall/&lt;b&gt;" not in client.get(f"/admin/denials?{query}").text


@pytest.mark.parametrize("query", ["reason=rubbish", "kind=x", "page=0", "search=%00", "after=x", "surprise=1"])
def test_invalid_filter_is_a_client_error(service: Service, query: str) -> None:
    assert signed_in(service, "http read /api/#").get(f"/admin/denials?{query}").status_code == 400
    assert service.call("GET", f"/api/denials?{query}").status_code == 400


def test_user_who_may_not_read_denials_gets_403_and_no_link(service: Service) -> None:
    client = signed_in(service, "http read /api/users/#", "http read /api/me")
    assert client.get("/admin/denials").status_code == 403
    assert "/admin/denials" not in client.get("/admin/users").text


def test_allow_this_needs_the_permission_for_that_user_and_returns_to_the_list(service: Service) -> None:
    username, other = denied(service, "a/b"), denied(service, "a/b")
    rule = f"http write /api/users/{username}/permissions"
    client = signed_in(service, "http read /api/denials", "http read /api/me", rule)
    shown = client.get("/admin/denials?search=a/b").text
    assert [f"/admin/users/{name}/allow?" in shown for name in (username, other)] == [True, False]
    dialog = client.get(f"/admin/users/{username}/allow?operation=write&resource=a/b&back=/admin/denials").text
    assert "narrowest permission" in dialog
    wanted = {"operation": "write", "resource": "a/b"}
    path = f"/admin/users/{username}/allow"
    answer = client.post(path, drawn_at="/admin", back="//elsewhere.example", **wanted)
    assert answer.status_code == 400
    assert service.call("GET", f"/api/users/{username}").json()["permissions"] == []
    answer = client.post(path, drawn_at="/admin", back="/admin/denials?search=a", **wanted)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/admin/denials?search=a")
    assert service.call("GET", f"/api/users/{username}").json()["permissions"] == [permission("write a/b")]


def test_api_has_the_same_denials_with_their_users(service: Service) -> None:
    username = denied(service, "rest/topic")
    (item,) = service.call("GET", "/api/denials?search=rest/topic").json()["items"]
    assert item["username"] == username
    (same,) = service.call("GET", f"/api/users/{username}/denials").json()["items"]
    assert {**same, "username": username} == item


def test_allow_this_in_a_browser(service: Service, admin: Window) -> None:
    username, page = denied(service, "browser/topic"), admin.page
    admin.open("/admin/denials?search=browser/topic")
    page.get_by_role("row", name=username).get_by_text("Allow this").click()
    page.get_by_role("dialog").get_by_role("button", name="Allow").click()
    expect(page).to_have_url("/admin/denials?search=browser/topic&page=1")
    expect(page.get_by_role("status").first).to_contain_text("may now write browser/topic")
    expect(page.get_by_role("row", name=username)).to_contain_text("allowed now")
    assert not admin.script_errors
