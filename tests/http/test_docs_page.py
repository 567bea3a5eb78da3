"""`/api/docs`: the API description as a page that loads nothing from other hosts."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from flask.testing import FlaskClient

    from tests.http.callers import Caller


class _Page(HTMLParser):
    """Collects the URLs that a browser would load, and the inline scripts of the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.links: list[str] = []
        self.inline: list[str] = []
        self._in_script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.fetched += [given[name] for name in ("src", "srcset", "data-description", "data") if name in given]
        if "href" in given:
            (self.fetched if tag == "link" else self.links).append(given["href"])
        self.inline += [name for name in given if name.startswith("on")]
        self._in_script = tag == "script"

    def handle_data(self, data: str) -> None:
        if self._in_script and data.strip():
            self.inline.append(data)


@pytest.fixture
def page(anonymous: Caller) -> _Page:
    answer = anonymous.get("/api/docs")
    assert answer.status_code == 200
    assert answer.mimetype == "text/html"
    return _Page(answer.text)


def test_page_loads_from_this_service_only(page: _Page) -> None:
    assert len(page.fetched) >= 4
    for address in page.fetched + page.links:
        parts = urlsplit(address)
        assert (parts.scheme, parts.netloc) == ("", "")
        assert parts.path.startswith("/api/")


def test_assets_are_public(page: _Page, anonymous: Caller) -> None:
    for address in page.fetched + page.links:
        answer = anonymous.get(address)
        assert answer.status_code == 200, address
        assert answer.data
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_assets_have_their_content_types(page: _Page, anonymous: Caller) -> None:
    kinds = {(address.rpartition(".")[2], anonymous.get(address).mimetype) for address in page.fetched}
    assert kinds == {("css", "text/css"), ("js", "text/javascript"), ("json", "application/json")}


def test_own_scripts_name_no_other_host(page: _Page, anonymous: Caller) -> None:
    ours = [address for address in page.fetched if "/static/" in address and address.endswith(".js")]
    assert ours
    assert not [address for address in ours if "//" in anonymous.get(address).text]


def test_page_has_no_inline_script(page: _Page) -> None:
    assert page.inline == []


def test_content_security_policy_allows_this_service_only(anonymous: Caller) -> None:
    policy = anonymous.get("/api/docs").headers["Content-Security-Policy"]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    assert (rules["script-src"], rules["connect-src"]) == ("'self'", "'self'")
    assert rules["frame-ancestors"] == "'none'"
    assert "http" not in policy
    assert "*" not in policy


@pytest.mark.parametrize("path", ["/api/me", "/api/openapi.json", "/healthz", "/no-such-thing"])
def test_content_security_policy_of_other_responses_allows_nothing(client: FlaskClient, path: str) -> None:
    headers = client.get(path).headers
    assert headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize("path", ["../../../etc/passwd", "..%2f..%2fdocs.html", "%2e%2e/docs.html", "no-such.js", ""])
@pytest.mark.parametrize("prefix", ["/api/docs/static/", "/api/docs/swagger/"])
def test_no_other_file_is_served(client: FlaskClient, prefix: str, path: str) -> None:
    answer = client.get(prefix + path)
    assert answer.status_code in (401, 404)
