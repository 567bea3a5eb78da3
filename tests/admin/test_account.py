"""The second factor in a real browser, from its set-up to the lost phone."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.admin.page_objects import FormClient, Window
from tests.authenticator import Authenticator
from tests.service import ADMIN_PASSWORD, Service

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page


def give_password(page: Page, username: str, password: str) -> None:
    page.goto("/admin/sign-in")
    page.get_by_label("Username").fill(username)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()


def give_code(page: Page, code: str, button: str) -> None:
    page.get_by_label(re.compile("^Code")).fill(code)
    page.get_by_role("button", name=button).click()


def scan(page: Page) -> Authenticator:
    """Return an app with the secret of the set-up page, which also shows it as a QR code."""
    box = page.get_by_role("img", name="QR code with the secret").bounding_box()
    assert box
    assert box["height"] > 100
    return Authenticator(page.locator("#secret").inner_text().replace(" ", ""))


def recovery_codes(page: Page) -> list[str]:
    expect(page.get_by_role("heading", name="Recovery codes")).to_be_visible()
    return page.locator(".recovery-codes code").all_inner_texts()


def assert_accessible(page: Page) -> None:
    found = Axe().run(page).response["violations"]
    assert not [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] not in {"minor", "moderate"}]


def test_second_factor_is_set_up_asked_for_recovered_and_removed(service: Service, page: Page) -> None:
    service.create_user("erika", "the secret of erika")
    window = Window(page)
    give_password(page, "erika", "the secret of erika")
    expect(page.get_by_role("heading", name="Your account: erika")).to_be_visible()

    page.get_by_role("button", name="Set up a second factor").click()
    app = scan(page)
    give_code(page, app.wrong_code(), "Confirm")
    expect(page.get_by_role("alert")).to_have_text("The code is wrong or was used before")
    give_code(page, app.next_code(), "Confirm")
    codes = recovery_codes(page)
    assert len(codes) == 10
    assert_accessible(page)
    page.get_by_role("button", name="I have stored them, go on").click()
    expect(page.get_by_text("10 recovery codes left")).to_be_visible()

    page.get_by_role("button", name="Sign out").click()
    give_password(page, "erika", "the secret of erika")
    expect(page.get_by_label("Code of your authenticator app")).to_be_focused()
    assert_accessible(page)
    give_code(page, app.next_code(), "Sign in")
    expect(page.get_by_role("heading", name="Your account: erika")).to_be_visible()

    page.get_by_role("button", name="Sign out").click()
    give_password(page, "erika", "the secret of erika")
    give_code(page, codes[0], "Sign in")
    expect(page.get_by_text("9 recovery codes left")).to_be_visible()
    give_code(page, codes[1], "Remove the second factor")
    expect(page.get_by_role("button", name="Set up a second factor")).to_be_visible()
    assert not window.script_errors


def test_administrator_sees_and_removes_a_second_factor(service: Service, admin: Window) -> None:
    service.create_user("otto", "the secret of otto", "http read /api/me")
    as_otto = {"auth": ("otto", "the secret of otto")}
    begun = service.call("POST", "/api/me/otp", **as_otto).json()
    confirmation = {"otp": Authenticator(begun["secret"]).next_code()}
    assert service.call("POST", "/api/me/otp/confirm", json=confirmation, **as_otto).status_code == 200
    page = admin.page
    admin.open("/admin/users?search=otto")
    expect(page.get_by_role("row", name=re.compile("otto"))).to_contain_text("second factor")
    admin.open("/admin/users/otto")
    page.get_by_role("button", name="Remove", exact=True).click()
    expect(page.get_by_text("otto has no second factor any more.")).to_be_visible()
    assert FormClient(service.url).sign_in("otto", "the secret of otto").headers["Location"] == "/admin"
    assert not admin.script_errors


def test_browser_is_signed_out_from_another_one(service: Service, page: Page) -> None:
    service.create_user("nora", "the secret of nora")
    other = FormClient(service.url)
    other.sign_in("nora", "the secret of nora")
    give_password(page, "nora", "the secret of nora")
    browsers = page.get_by_role("region", name="Signed-in browsers")
    expect(browsers.get_by_text("this browser")).to_have_count(1)
    page.on("dialog", lambda dialog: dialog.accept())
    browsers.get_by_role("button", name="Sign out").click()
    expect(page.get_by_text("The browser is signed out.")).to_be_visible()
    assert other.get("/admin/account").headers["Location"].startswith("/admin/sign-in")


@pytest.fixture
def strict(tmp_path: Path) -> Iterator[Service]:
    """A service that requires a second factor."""
    with Service(tmp_path, {"AUTHSVC_SECOND_FACTOR": "required"}) as service:
        yield service


def test_required_second_factor_is_set_up_at_the_first_sign_in(strict: Service, browser: Browser) -> None:
    context = browser.new_context(base_url=strict.url)
    page = context.new_page()
    window = Window(page)
    give_password(page, "admin", ADMIN_PASSWORD)
    expect(page.get_by_role("heading", name="Set up a second factor")).to_be_visible()
    assert_accessible(page)
    assert page.get_by_role("navigation").count() == 0
    app = scan(page)
    page.goto("/admin/users")
    expect(page.get_by_label("Password")).to_be_visible()
    page.goto("/admin/sign-in/set-up")
    give_code(page, app.next_code(), "Confirm")
    assert len(recovery_codes(page)) == 10
    page.get_by_role("button", name="I have stored them, go on").click()
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    assert not window.script_errors
    context.close()
