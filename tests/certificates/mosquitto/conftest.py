"""A plant with both listeners, made once for each test process, and a site on it for each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.broker import build_plugin
from tests.certificates.mosquitto.plant import SESSIONS_PASSWORD, SESSIONS_USER, Plant
from tests.certificates.mosquitto.site import PlantSite

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def plugin() -> Path:
    """The compiled plugin that stands for go-auth."""
    return build_plugin()


@pytest.fixture(scope="session")
def plant(plugin: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    """Passwords on one listener, certificates on the other; the service may end sessions."""
    with Plant(tmp_path_factory.mktemp("plant"), plugin).may_end_sessions() as plant:
        plant.service.create_user(SESSIONS_USER, SESSIONS_PASSWORD, "read #")
        yield plant


@pytest.fixture
def site(plant: Plant) -> Iterator[PlantSite]:
    """Room for the devices of one test."""
    with PlantSite(plant) as site:
        yield site
