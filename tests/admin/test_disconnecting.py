"""Ending a user's sessions on the broker by hand."""

from __future__ import annotations

import time
from itertools import count
from typing import TYPE_CHECKING

import pytest
import requests
from playwright.sync_api import expect

from tests.admin.page_objects import FormFiller, Visitor
from tests.broker import free_port
from tests.service import ADMIN_PASSWORD, Service

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser

_numbers = count()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that knows of a broker, which does not answer."""
    nobody = f"mqtt://authsvc-sessions:secret@127.0.0.1:{free_port()}"
    with Service(tmp_path_factory.mktemp("page"), {"AUTHSVC_BROKER_URL": nobody}) as service:
        yield service


def new_user(service: Service, *permissions: str) -> str:
    username = f"device-{next(_numbers)}"
    service.create_user(username, "secret", *permissions)
    return username


def test_that_there_was_nobody_to_disconnect_is_said(service: Service, admin: Visitor) -> None:
    username = new_user(service)
    admin.open(f"/admin/users/{username}")
    admin.page.get_by_role("button", name="Disconnect").click()
    expect(admin.page.get_by_role("status")).to_contain_text(f"No client was seen as {username} lately")
    assert not admin.complaints


def test_whom_the_broker_did_not_drop_is_said(service: Service, admin: Visitor) -> None:
    username = new_user(service)
    login = {"username": username, "password": "secret", "clientid": f"{username}-main"}
    assert requests.post(service.broker_url + "/auth/user", json=login, timeout=10).status_code == 200
    deadline = time.monotonic() + 20
    while f"{username}-main" not in admin.page.content():
        assert time.monotonic() < deadline, "the client was not written down"
        admin.open(f"/admin/users/{username}")
    admin.page.get_by_role("button", name="Disconnect").click()
    expect(admin.page.get_by_role("status")).to_contain_text(f"1 of 1 client ids of {username} could not")
    events = service.call("GET", "/api/audit", params={"target": f"user:{username}"}).json()["items"]
    assert [(one["actor"], one["via"]) for one in events if one["action"] == "user.disconnect"] == [("admin", "page")]


def test_who_may_only_look_neither_sees_nor_uses_the_button(service: Service, browser: Browser) -> None:
    username, looker = new_user(service), new_user(service, "http read /api/#")
    context = browser.new_context(base_url=service.url)
    visitor = Visitor(context.new_page())
    visitor.sign_in(looker, "secret")
    visitor.open(f"/admin/users/{username}")
    expect(visitor.page.get_by_role("button", name="Disconnect")).to_have_count(0)
    context.close()
    filler = FormFiller(service.url)
    filler.sign_in(looker, "secret")
    assert filler.post(f"/admin/users/{username}/disconnect", drawn_at="/admin").status_code == 403


def test_without_a_broker_there_is_no_button(tmp_path_factory: pytest.TempPathFactory) -> None:
    with Service(tmp_path_factory.mktemp("alone")) as alone:
        filler = FormFiller(alone.url)
        filler.sign_in("admin", ADMIN_PASSWORD)
        assert "/disconnect" not in filler.get("/admin/users/admin").text
        answer = filler.post("/admin/users/admin/disconnect", drawn_at="/admin")
        assert answer.status_code == 409
        assert "set AUTHSVC_BROKER_URL" in answer.text
