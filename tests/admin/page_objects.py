"""Somebody at the page, who clicks and reads as people do."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import requests
from playwright.sync_api import expect

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.admin.tour import Stop


class Visitor:
    """A browser's window, and what went wrong in it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda said: self._hear(said.type, said.text))
        page.on("dialog", lambda dialog: dialog.accept())

    def sign_in(self, username: str, password: str) -> None:
        """Fill in the form that asks who is there."""
        self.page.goto("/admin/sign-in")
        self.page.get_by_label("Username").fill(username)
        self.page.get_by_label("Password").fill(password)
        self.page.get_by_role("button", name="Sign in").click()
        expect(self.page.get_by_role("button", name="Sign out")).to_be_visible()

    def open(self, path: str) -> int:
        """Go to a page and return its status."""
        answer = self.page.goto(path)
        assert answer
        return answer.status

    def visit(self, stop: Stop) -> None:
        """Go to a stop of the tour and wait until it shows everything."""
        assert self.open(stop.path) == 200, stop
        self._wait_for_every_part()
        if stop.dialog:
            self.page.locator("main").get_by_text(stop.dialog, exact=True).first.click()
            expect(self.page.locator("dialog[open]")).to_be_visible()
            self._wait_for_every_part()

    def _wait_for_every_part(self) -> None:
        """Wait until nothing that htmx asked for is still on its way."""
        self.page.wait_for_function("() => window.htmx && !document.querySelector('.htmx-request, .htmx-settling')")

    def _hear(self, kind: str, text: str) -> None:
        if kind == "error" and "the server responded with a status of" not in text:
            self.complaints.append(text)


class FormFiller:
    """A browser without a window: it keeps cookies and brings back what a form must, and follows no redirect."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.session = requests.Session()

    def get(self, path: str) -> requests.Response:
        """Ask for a page."""
        return self.session.get(self.url + path, allow_redirects=False, timeout=20)

    def post(self, path: str, drawn_at: str = "/admin/sign-in", **fields: str | list[str]) -> requests.Response:
        """Send a form, as if it had been drawn on any page."""
        filled = {**fields, "csrf_token": self.form_token(drawn_at)}
        return self.session.post(self.url + path, data=filled, allow_redirects=False, timeout=20)

    def sign_in(self, username: str, password: str) -> requests.Response:
        """Send the form that asks who is there."""
        return self.post("/admin/sign-in", username=username, password=password)

    def form_token(self, path: str) -> str:
        """Return what the forms of a page must bring back; of the first that has any, after redirects."""
        found = re.search(r'name="csrf_token" value="([^"]+)"', self.session.get(self.url + path, timeout=20).text)
        assert found, f"no form at {path}"
        return found[1]

    def cookie(self) -> str:
        """Return the page's cookie as it is now."""
        if not self.session.cookies:
            self.get("/admin/sign-in")
        return str(self.session.cookies["authsvc"])
