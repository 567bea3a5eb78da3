"""Accessibility of every page: contrast, labels, keyboard, phone width and dark mode."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.admin.page_objects import Window
from tests.admin.page_tour import SCHEMES, WIDTHS, Scheme, Stop, seed
from tests.service import ADMIN_PASSWORD

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.service import Service

_TOLERATED = {"minor", "moderate"}
_COVERED_LINKS = """() => [...document.querySelectorAll("main tbody tr:first-child :is(a, button)")].filter((link) => {
  link.scrollIntoView({ block: "center" });
  const { left, top, width, height } = link.getClientRects()[0] ?? {};
  return width && !link.contains(document.elementFromPoint(left + width / 2, top + height / 2));
}).map((link) => link.outerHTML)"""


@pytest.fixture(scope="module")
def stops(service: Service) -> list[Stop]:
    """The tour of a seeded service."""
    return seed(service)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_every_page_has_no_serious_accessibility_violations_and_fits_the_width(
    service: Service, stops: list[Stop], browser: Browser, width: int, scheme: Scheme
) -> None:
    context = browser.new_context(
        base_url=service.url,
        viewport={"width": width, "height": 800},
        color_scheme="dark" if scheme == "dark" else "light",
        reduced_motion="reduce",
    )
    window = Window(context.new_page())
    window.sign_in("admin", ADMIN_PASSWORD)
    for stop in stops:
        window.visit(stop)
        found = Axe().run(window.page).response["violations"]
        serious = [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] not in _TOLERATED]
        assert not serious, stop
        assert window.page.evaluate("document.documentElement.scrollWidth") <= width, stop
        assert stop.dialog or not window.page.evaluate(_COVERED_LINKS), stop
        assert window.page.locator("h1, dialog h2").first.inner_text(), stop
    assert not window.script_errors
    context.close()


def test_first_tab_stop_skips_to_the_content(admin: Window) -> None:
    page = admin.page
    admin.open("/admin/tokens")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('main') !== null")
