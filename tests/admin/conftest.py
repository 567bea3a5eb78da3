"""A running service and a real browser."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest
import requests
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.admin.page_objects import FormClient, Window
from tests.broker import free_port
from tests.http.wire import within
from tests.service import ADMIN_PASSWORD, Service

if TYPE_CHECKING:
    from collections.abc import Iterator


# What Playwright passes itself if it starts a browser, as far as it saves time.
_FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-extensions", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"),
    *("--no-default-browser-check", "--mute-audio", "--hide-scrollbars", "--use-mock-keychain"),
)


# The browser tests of `make test`: one sign-in, and a device from its first attempt to its grant.
_QUICK = (
    "test_administrator_signs_in_and_out",
    "test_unknown_device_appears_is_granted_and_publishes",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests in a browser as slow, except for the few that show that pages work in one."""
    for item in items:
        in_browser = isinstance(item, pytest.Function) and "browser" in item.fixturenames
        if in_browser and not any(name in item.nodeid for name in _QUICK):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The debugging address of Debian's Chromium, one for all tests of this process."""
    path = shutil.which("chromium-headless-shell")
    assert path, "chromium-headless-shell is missing; install it with: deploy/apt-packages.sh test"
    port, profile = free_port(), tmp_path_factory.mktemp("chromium")
    command = [path, *_FLAGS, f"--remote-debugging-port={port}", f"--user-data-dir={profile}", "about:blank"]
    with (profile / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        assert within(60, lambda: _answers(address)), (profile / "log").read_text()
        yield address
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(address: str) -> bool:
    try:
        return requests.get(f"{address}/json/version", timeout=1).ok
    except requests.RequestException:
        return False


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    """A connection to Chromium; closed after each module because its event loop interferes with other test modules."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.connect_over_cdp(chromium)
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
