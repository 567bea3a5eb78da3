"""A running service, a real browser, and somebody who looks at the page."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.admin.page_objects import FormFiller, Visitor
from tests.service import ADMIN_PASSWORD, Service

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's browser; gone after the module, for its event loop would be in the way of others."""
    with sync_playwright() as playwright:
        path = shutil.which("chromium")
        assert path, "chromium is missing: deploy/apt-packages.sh test"
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-extensions"]
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for the tests of a module; each makes what it needs under names of its own."""
    with Service(tmp_path_factory.mktemp("page")) as service:
        yield service


@pytest.fixture
def context(browser: Browser, service: Service) -> Iterator[BrowserContext]:
    """A browser that nobody used before."""
    context = browser.new_context(base_url=service.url, viewport={"width": 1280, "height": 800}, locale="en-GB")
    context.set_default_timeout(10_000)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Page:
    """A window nobody has signed in at."""
    return context.new_page()


@pytest.fixture
def admin(context: BrowserContext, service: Service) -> Visitor:
    """The administrator, signed in; scripts that fail and policies that are broken fail the test."""
    # Past the form, which has tests of its own and takes a browser longer than everything else.
    form = FormFiller(service.url)
    form.sign_in("admin", ADMIN_PASSWORD)
    context.add_cookies([{"name": "authsvc", "value": form.cookie(), "url": service.url}])
    visitor = Visitor(context.new_page())
    visitor.open("/admin")
    return visitor
