"""A broker with the plugin for each module of tests; all run once more with the sanitizers, marked as slow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.in_broker import build
from tests.plugin.in_broker.site import Site, new_sites

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.plugin.in_broker.build import Build


@pytest.fixture(scope="session", params=["plain", pytest.param("sanitized", marks=pytest.mark.slow)])
def plugin_build(request: pytest.FixtureRequest) -> Build:
    return build.sanitized() if request.param == "sanitized" else build.plain()


@pytest.fixture(scope="module")
def shared_site(plugin_build: Build, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(plugin_build, tmp_path_factory.mktemp("broker")) as site:
        site.wait_until_up()
        yield site


@pytest.fixture
def site(shared_site: Site) -> Iterator[Site]:
    """A site that the module's tests share; devices end with each test."""
    yield shared_site
    shared_site.end_devices()
    assert shared_site.broker.is_running(), shared_site.broker.log_text()


@pytest.fixture
def new_site(plugin_build: Build, tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """Start a site of this test alone, with options of its own."""
    yield from new_sites(plugin_build, tmp_path)
