"""A running service and a real browser."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.admin.page_objects import FormClient, Window
from tests.service import ADMIN_PASSWORD, Service

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium; closed after each module because its event loop interferes with other test modules."""
    with sync_playwright() as playwright:
        path = shutil.which("chromium")
        assert path, "chromium is missing; install it with: deploy/apt-packages.sh test"
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-extensions"]
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for all tests of a module; each test creates its own users and roles."""
    with Service(tmp_path_factory.mktemp("page")) as service:
        yield service


@pytest.fixture
def context(browser: Browser, service: Service) -> Iterator[BrowserContext]:
    """A browser profile without cookies."""
    context = browser.new_context(base_url=service.url, viewport={"width": 1280, "height": 800}, locale="en-GB")
    context.set_default_timeout(10_000)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Page:
    """A browser page that is not signed in."""
    return context.new_page()


@pytest.fixture
def admin(context: BrowserContext, service: Service) -> Window:
    """A window in which the administrator is signed in."""
    # Without the sign-in form, which has its own tests and is the slowest step in a browser.
    client = FormClient(service.url)
    client.sign_in("admin", ADMIN_PASSWORD)
    context.add_cookies([{"name": "authsvc", "value": client.cookie(), "url": service.url}])
    window = Window(context.new_page())
    window.open("/admin")
    return window
