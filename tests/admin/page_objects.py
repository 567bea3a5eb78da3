"""Clients of the web interface: a window of a real browser, and an HTTP client that submits its forms."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import requests
from playwright.sync_api import expect

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.admin.page_tour import Stop


class Window:
    """A browser window that accepts confirmation dialogs and collects script errors."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.script_errors: list[str] = []
        page.on("pageerror", lambda error: self.script_errors.append(str(error)))
        page.on("console", lambda message: self._collect(message.type, message.text))
        page.on("dialog", lambda dialog: dialog.accept())

    def sign_in(self, username: str, password: str) -> None:
        self.page.goto("/admin/sign-in")
        self.page.get_by_label("Username").fill(username)
        self.page.get_by_label("Password").fill(password)
        self.page.get_by_role("button", name="Sign in").click()
        expect(self.page.get_by_role("button", name="Sign out")).to_be_visible()

    def open(self, path: str) -> int:
        """Open a page and return its HTTP status."""
        answer = self.page.goto(path)
        assert answer
        return answer.status

    def visit(self, stop: Stop) -> None:
        """Open a page of the tour, and its dialog if it has one, and wait until all parts are loaded."""
        assert self.open(stop.path) == 200, stop
        self._wait_for_htmx()
        if stop.dialog:
            self.page.locator("main").get_by_text(stop.dialog, exact=True).first.click()
            expect(self.page.locator("dialog[open]")).to_be_visible()
            self._wait_for_htmx()

    def _wait_for_htmx(self) -> None:
        self.page.wait_for_function("() => window.htmx && !document.querySelector('.htmx-request, .htmx-settling')")

    def _collect(self, kind: str, text: str) -> None:
        if kind == "error" and "the server responded with a status of" not in text:
            self.script_errors.append(text)


class FormClient:
    """An HTTP client that keeps cookies, sends the CSRF token with each form, and follows no redirects."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.session = requests.Session()

    def get(self, path: str) -> requests.Response:
        return self.session.get(self.url + path, allow_redirects=False, timeout=20)

    def post(self, path: str, drawn_at: str = "/admin/sign-in", **fields: str | list[str]) -> requests.Response:
        """Submit a form with the CSRF token of the page `drawn_at`."""
        filled = {**fields, "csrf_token": self.form_token(drawn_at)}
        return self.session.post(self.url + path, data=filled, allow_redirects=False, timeout=20)

    def sign_in(self, username: str, password: str) -> requests.Response:
        return self.post("/admin/sign-in", username=username, password=password)

    def form_token(self, path: str) -> str:
        """Return the CSRF token of the first form on a page, after redirects."""
        found = re.search(r'name="csrf_token" value="([^"]+)"', self.session.get(self.url + path, timeout=20).text)
        assert found, f"no form at {path}"
        return found[1]

    def cookie(self) -> str:
        """Return the present value of the session cookie."""
        if not self.session.cookies:
            self.get("/admin/sign-in")
        return str(self.session.cookies["authsvc"])
