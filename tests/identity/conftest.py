"""A service that signs users in at a real OpenID provider and in a real LDAP directory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.identity.openid import OpenIdProvider
from tests.service import Service

if TYPE_CHECKING:
    from collections.abc import Iterator

ROLES = {"plant-admins": ["admin"], "operators": ["operator", "minimum-access"]}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Service:
    """A service that is not started, so that its provider can know its address."""
    return Service(tmp_path_factory.mktemp("service"))


@pytest.fixture(scope="module")
def provider(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenIdProvider]:
    """The provider, and the service started with it; each test sets the accounts that it needs."""
    with OpenIdProvider(tmp_path_factory.mktemp("provider"), service.url) as provider:
        service.environment |= provider.environment(ROLES)
        with service:
            answer = service.call("POST", "/api/roles", json={"name": "operator", "permissions": []})
            assert answer.status_code == 201, answer.text
            yield provider
