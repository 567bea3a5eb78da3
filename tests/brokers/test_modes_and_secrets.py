"""Every mode of go-auth's HTTP backend, with a service that requires a webhook secret."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.broker import Mosquitto, free_port, go_auth_config
from tests.brokers.site import Site
from tests.devices import NOT_AUTHORIZED, V5
from tests.relay import Relay
from tests.service import Service

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECRET = "between-broker-and-service"
# Longer than gunicorn's default keep-alive, after which the connection would be closed.
LONGER_THAN_TWO_SECONDS = 2.3


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with a webhook secret."""
    with Service(tmp_path_factory.mktemp("service"), {"AUTHSVC_WEBHOOK_SECRET": SECRET}) as service:
        yield service


class Brokers:
    """Starts brokers with different go-auth modes that call one service."""

    def __init__(self, service: Service, plugin: Path, directory: Path) -> None:
        self.service = service
        self._plugin = plugin
        self._directory = directory

    @contextmanager
    def site(self, extra: str = "", service_port: int | None = None, **settings: Any) -> Iterator[Site]:
        """Run one broker during the block."""
        config = go_auth_config(
            plugin=self._plugin,
            service_port=service_port or self.service.broker_port,
            listener_port=free_port(),
            extra=extra,
            **settings,
        )
        with Mosquitto(config, self._directory) as broker, Site(self.service, broker) as site:
            yield site


@pytest.fixture
def brokers(service: Service, plugin: Path, tmp_path: Path) -> Brokers:
    return Brokers(service, plugin, tmp_path)


def exercise(site: Site) -> None:
    """Log in, publish and subscribe, each with one request that is allowed and one that is denied."""
    bob = site.connected("bob", "readWrite line/1 & 2/é/#", protocol=V5)

    assert bob.subscribe("line/1 & 2/é/+", "line/#") == [1, NOT_AUTHORIZED]
    assert bob.publish("line/1 & 2/é/<state>", "on") == 0
    assert bob.publish("line/2") == NOT_AUTHORIZED
    assert bob.received_so_far() == [("line/1 & 2/é/<state>", b"on")]
    assert site.try_to_connect(bob.username, "wrong") == NOT_AUTHORIZED
    assert site.try_to_connect("charlie") == NOT_AUTHORIZED


@pytest.mark.parametrize("response_mode", ["json", "text", "status"])
@pytest.mark.parametrize("params_mode", ["json", "form"])
def test_every_mode_of_go_auth_works(brokers: Brokers, params_mode: str, response_mode: str) -> None:
    with brokers.site(params_mode=params_mode, response_mode=response_mode, webhook_secret=SECRET) as site:
        exercise(site)


@pytest.mark.parametrize("method", ["PUT", "GET"])
def test_every_method_of_go_auth_works(brokers: Brokers, method: str) -> None:
    with brokers.site(f"auth_opt_http_method {method}", webhook_secret=SECRET) as site:
        exercise(site)


def test_superuser_requests_are_denied(brokers: Brokers) -> None:
    uri = f"auth_opt_http_superuser_uri /auth/superuser?key={SECRET}"
    with brokers.site(uri, webhook_secret=SECRET) as site:
        exercise(site)
        alice = site.connect(site.add_user("alice", roles=["admin"]), protocol=V5)
        assert alice.subscribe("#", "$SYS/#") == [1, NOT_AUTHORIZED]


# ---- The secret ----


def test_webhook_secret_is_accepted_as_http_basic_password(brokers: Brokers) -> None:
    with brokers.site(f"auth_opt_http_host broker:{SECRET}@127.0.0.1") as site:
        exercise(site)


@pytest.mark.parametrize("key", [None, "guessed", f"{SECRET}x", SECRET[:-1], SECRET.upper()])
def test_broker_without_the_webhook_secret_refuses_all_logins(brokers: Brokers, key: str | None) -> None:
    with brokers.site(webhook_secret=key) as site:
        assert site.try_to_connect(site.add_user("bob")) == NOT_AUTHORIZED


def test_broker_with_a_wrong_http_basic_secret_refuses_all_logins(brokers: Brokers) -> None:
    with brokers.site("auth_opt_http_host broker:guessed@127.0.0.1") as site:
        assert site.try_to_connect(site.add_user("bob")) == NOT_AUTHORIZED


def test_cached_answers_need_the_webhook_secret_too(brokers: Brokers) -> None:
    with brokers.site(webhook_secret=SECRET) as site:
        bob = site.connected("bob", "readWrite line/#", protocol=V5)
        assert bob.publish("line/1") == 0
    with brokers.site(webhook_secret="guessed") as site:
        assert site.try_to_connect(bob.username) == NOT_AUTHORIZED
    guessed = "auth_opt_http_aclcheck_uri /auth/acl?key=guessed"
    with brokers.site(guessed, webhook_secret=SECRET) as site:
        assert site.connect(bob.username, protocol=V5).publish("line/1") == NOT_AUTHORIZED


def test_brokers_with_different_modes_share_one_service(brokers: Brokers) -> None:
    bob = None
    for response_mode in ("json", "text", "status", "json"):
        with brokers.site(response_mode=response_mode, webhook_secret=SECRET) as site:
            bob = bob or site.add_user("bob", "readWrite line/#")
            device = site.connect(bob, protocol=V5)
            assert device.subscribe("line/#") == [1]
            assert device.publish("line/1") == 0
            assert device.publish("cellar/1") == NOT_AUTHORIZED
            assert device.stayed_connected()


def test_acl_requests_without_the_webhook_secret_are_denied(brokers: Brokers) -> None:
    with brokers.site("auth_opt_http_aclcheck_uri /auth/acl?key=guessed", webhook_secret=SECRET) as site:
        bob = site.connected("bob", "readWrite line/#", protocol=V5)
        assert bob.subscribe("line/#") == [NOT_AUTHORIZED]
        assert bob.publish("line/1") == NOT_AUTHORIZED
        assert bob.stayed_connected()


# ---- The broker's connection ----


def test_one_connection_serves_all_requests_and_survives_idle_time(brokers: Brokers) -> None:
    with Relay(brokers.service.broker_port) as relay:
        with brokers.site(service_port=relay.port, webhook_secret=SECRET) as site:
            for _ in range(3):
                exercise(site)
            assert not relay.closed.wait(LONGER_THAN_TWO_SECONDS)
            exercise(site)
        assert relay.connections == 1
