"""A deployment with both listeners, started once per test process, and a `CertificateSite` per test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.broker import build_authsvc_plugin, build_plugin
from tests.certificates.mosquitto.deployment import SESSIONS_PASSWORD, SESSIONS_USER, Deployment
from tests.certificates.mosquitto.site import CertificateSite

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def plugin() -> Path:
    """The compiled plugin that calls the webhooks as go-auth does."""
    return build_plugin()


@pytest.fixture(scope="session")
def deployment(
    plugin: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Deployment]:
    """A broker with a listener for passwords and one for certificates; the service may disconnect MQTT clients.

    It has authsvc's own plugin if a test has the mark `CERTIFICATES_THROUGH_BOTH`.
    """
    directory = tmp_path_factory.mktemp("deployment")
    if getattr(request, "param", "go-auth") == "authsvc":
        prepared = Deployment(directory, build_authsvc_plugin(), is_go_auth=False)
    else:
        prepared = Deployment(directory, plugin).with_disconnects()
    with prepared as deployment:
        deployment.service.create_user(SESSIONS_USER, SESSIONS_PASSWORD, "read #")
        yield deployment


@pytest.fixture
def site(deployment: Deployment) -> Iterator[CertificateSite]:
    """The deployment with the devices of one test."""
    with CertificateSite(deployment) as site:
        yield site
