"""One service and one broker per module, and a `Site` per test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.broker import (
    Mosquitto,
    authsvc_plugin_config,
    build_authsvc_plugin,
    build_plugin,
    free_port,
    go_auth_config,
)
from tests.brokers.site import Site
from tests.service import Service

pytest.register_assert_rewrite("tests.brokers.end_to_end")

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


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
    service: Service, plugin: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Mosquitto]:
    """A broker with the recommended settings; with authsvc's own plugin if a test has the mark `THROUGH_BOTH`."""
    port, listener_port = service.broker_port, free_port()
    if getattr(request, "param", "go-auth") == "authsvc":
        config = authsvc_plugin_config(plugin=build_authsvc_plugin(), service_port=port, listener_port=listener_port)
    else:
        config = go_auth_config(plugin=plugin, service_port=port, listener_port=listener_port)
    with Mosquitto(config, tmp_path_factory.mktemp("broker")) as broker:
        yield broker


@pytest.fixture
def site(service: Service, broker: Mosquitto) -> Iterator[Site]:
    """The service and the broker with the devices of one test."""
    with Site(service, broker) as site:
        yield site
