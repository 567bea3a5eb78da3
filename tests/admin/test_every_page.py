"""Every page, as somebody sees it who needs contrast, labels, a phone, or the dark."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.admin.page_objects import Visitor
from tests.admin.tour import SCHEMES, WIDTHS, Scheme, Stop, furnish
from tests.service import ADMIN_PASSWORD

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.service import Service

_TOLERATED = {"minor", "moderate"}


@pytest.fixture(scope="module")
def stops(service: Service) -> list[Stop]:
    """The tour of a furnished service."""
    return furnish(service)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_every_page_can_be_read_and_reached_by_everybody(
    service: Service, stops: list[Stop], browser: Browser, width: int, scheme: Scheme
) -> None:
    context = browser.new_context(
        base_url=service.url,
        viewport={"width": width, "height": 800},
        color_scheme="dark" if scheme == "dark" else "light",
        reduced_motion="reduce",
    )
    visitor = Visitor(context.new_page())
    visitor.sign_in("admin", ADMIN_PASSWORD)
    for stop in stops:
        visitor.visit(stop)
        found = Axe().run(visitor.page).response["violations"]
        serious = [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] not in _TOLERATED]
        assert not serious, stop
        assert visitor.page.evaluate("document.documentElement.scrollWidth") <= width, stop
        assert visitor.page.locator("h1, dialog h2").first.inner_text(), stop
    assert not visitor.complaints
    context.close()


def test_the_keyboard_reaches_the_content_first_and_every_link_after_it(admin: Visitor) -> None:
    page = admin.page
    admin.open("/admin/tokens")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('main') !== null")
