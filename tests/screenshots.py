"""Take the screenshots in docs/screenshots: `make screenshots`."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from tests.admin.page_objects import Window
from tests.admin.page_tour import SCHEMES, WIDTHS, Scheme, Stop, seed
from tests.service import ADMIN_PASSWORD, Service

DIRECTORY = Path(__file__).parents[1] / "docs" / "screenshots"


def main() -> None:
    """Start a service with sample data, take a screenshot of each page, and stop the service."""
    shutil.rmtree(DIRECTORY, ignore_errors=True)
    DIRECTORY.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as place, Service(Path(place)) as service, sync_playwright() as playwright:
        stops = seed(service)
        path = shutil.which("chromium-headless-shell")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        for width in WIDTHS:
            for scheme in SCHEMES:
                _take(browser, service.url, stops, width, scheme)
        browser.close()
    print(f"{len(stops) * len(WIDTHS) * len(SCHEMES)} pictures in {DIRECTORY}")  # noqa: T201


def _take(browser: Browser, url: str, stops: list[Stop], width: int, scheme: Scheme) -> None:
    context = browser.new_context(
        base_url=url,
        viewport={"width": width, "height": 800},
        color_scheme=scheme,
        locale="en-GB",
        reduced_motion="reduce",
    )
    window = Window(context.new_page())
    window.sign_in("admin", ADMIN_PASSWORD)
    for stop in stops:
        window.visit(stop)
        path = DIRECTORY / f"{stop.name}-{width}-{scheme}.png"
        window.page.screenshot(path=path, full_page=not stop.dialog)
    context.close()


if __name__ == "__main__":
    main()
