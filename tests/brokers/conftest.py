"""One service and one broker per module, and a `Site` per test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.broker import build_plugin
from tests.brokers.site import Site, broker_for
from tests.service import Service

pytest.register_assert_rewrite("tests.brokers.end_to_end")

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.broker import Mosquitto


@pytest.fixture(scope="session")
def plugin() -> Path:
    """The compiled plugin that calls the webhooks as go-auth does."""
    return build_plugin()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service on SQLite, without a webhook secret."""
    with Service(tmp_path_factory.mktemp("service")) as service:
        yield service


@pytest.fixture(scope="module")
def broker(
    service: Service, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Mosquitto]:
    """A broker with the recommended settings; with authsvc's own plugin if a test has the mark `THROUGH_BOTH`."""
    plugin = getattr(request, "param", "go-auth")
    with broker_for(service, tmp_path_factory.mktemp("broker"), plugin) as broker:
        yield broker


@pytest.fixture
def site(service: Service, broker: Mosquitto) -> Iterator[Site]:
    """The service and the broker with the devices of one test."""
    with Site(service, broker) as site:
        yield site
