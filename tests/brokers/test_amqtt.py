"""amqtt with its own HTTP plugins: the service also works with a broker other than Mosquitto."""

from __future__ import annotations

import asyncio
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

import pytest
from amqtt.broker import Broker
from amqtt.contrib.http import ParamsMode, RequestMethod, ResponseMode

from tests.broker import free_port
from tests.brokers.site import Site
from tests.devices import FIRST_FAILURE, NOT_AUTHORIZED, SOON
from tests.service import Service

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

SECRET = "between-broker-and-service"
JSON, FORM = ParamsMode.JSON, ParamsMode.FORM
GET, POST, PUT = RequestMethod.GET, RequestMethod.POST, RequestMethod.PUT


class Amqtt:
    """amqtt in a thread with its own event loop; it runs inside the `with` block."""

    host = "127.0.0.1"

    def __init__(self, service_port: int, method: RequestMethod, params: ParamsMode, response: ResponseMode) -> None:
        self.port = free_port()
        query = f"?key={SECRET}" + ("&response=text" if response is ResponseMode.TEXT else "")
        asks = {
            "host": "127.0.0.1",
            "port": service_port,
            "request_method": method,
            "params_mode": params,
            "response_mode": response,
        }
        self._config = {
            "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{self.port}"}},
            "plugins": {
                "amqtt.contrib.http.UserAuthHttpPlugin": {**asks, "user_uri": f"/auth/user{query}"},
                "amqtt.contrib.http.TopicAuthHttpPlugin": {**asks, "topic_uri": f"/auth/acl{query}"},
            },
        }
        self._loop = asyncio.new_event_loop()
        self._running = ExitStack()

    def __enter__(self) -> Self:
        thread = threading.Thread(target=self._loop.run_forever)
        thread.start()
        self._running.callback(self._loop.close)
        self._running.callback(thread.join)
        self._running.callback(self._loop.call_soon_threadsafe, self._loop.stop)
        broker = self._call(self._start())
        self._running.callback(lambda: self._call(broker.shutdown()))
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    async def _start(self) -> Broker:
        broker = Broker(self._config)
        await broker.start()
        return broker

    def _call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(SOON)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with a webhook secret."""
    with Service(tmp_path_factory.mktemp("service"), {"AUTHSVC_WEBHOOK_SECRET": SECRET}) as service:
        yield service


@pytest.fixture
def site(request: pytest.FixtureRequest, service: Service) -> Iterator[Site]:
    """The service and amqtt with the HTTP method and formats of the test, by default POST and JSON."""
    method, params, response = getattr(request, "param", (POST, JSON, ResponseMode.JSON))
    with Amqtt(service.broker_port, method, params, response) as broker, Site(service, broker) as site:
        yield site


@pytest.mark.parametrize(
    "site",
    [
        (GET, JSON, ResponseMode.JSON),
        (PUT, JSON, ResponseMode.JSON),
        (POST, JSON, ResponseMode.TEXT),
        (POST, JSON, ResponseMode.STATUS),
        (POST, FORM, ResponseMode.JSON),
        (PUT, FORM, ResponseMode.STATUS),
    ],
    indirect=True,
    ids="-".join,
)
def test_devices_can_do_only_what_their_permissions_allow(site: Site) -> None:
    bob = site.connected("bob", "write line/#")
    carol = site.connected("carol", "read line/#", "deny read line/+/recipe", "write line/1/orders")

    assert carol.subscribe("line/#", "cellar/#", "#") == [1, FIRST_FAILURE, FIRST_FAILURE]
    # Messages of one device keep their order, so a denied message would arrive before the allowed one after it.
    carol.publish("line/1/state", "forged")
    carol.publish("line/1/orders", "genuine")
    bob.publish("line/1/recipe", "secret")
    bob.publish("line/1/state", "genuine")
    received = sorted([carol.received(), carol.received()])
    assert received == [("line/1/orders", b"genuine"), ("line/1/state", b"genuine")]
    assert site.try_to_connect(bob.username, "wrong", "another") == NOT_AUTHORIZED
    assert site.try_to_connect("charlie") == NOT_AUTHORIZED


def test_client_id_is_passed_to_the_service(site: Site) -> None:
    bob = site.connect(site.add_user("bob", "readWrite clients/%c/#"), "press-7")

    assert bob.subscribe("clients/press-7/#", "clients/press-8/#") == [1, FIRST_FAILURE]
    bob.publish("clients/press-7/state", "on")
    assert bob.received() == ("clients/press-7/state", b"on")


def test_change_affects_a_connected_device(site: Site) -> None:
    bob = site.connected("bob", "write line/1")
    carol = site.connected("carol", "read line/#")
    carol.subscribe("line/#")

    bob.publish("line/1", "before")
    assert carol.received() == ("line/1", b"before")
    site.change(bob, enabled=False)
    bob.publish("line/1", "disabled")
    site.change(bob, enabled=True)
    bob.publish("line/1", "enabled")
    assert carol.received() == ("line/1", b"enabled")
    site.change(bob, enabled=False)
    assert site.try_to_connect(bob.username, client_id="another") == NOT_AUTHORIZED
