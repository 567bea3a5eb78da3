"""The service is stopped or killed and started again while devices are connected."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.devices import NOT_AUTHORIZED, V5, V311

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from tests.brokers.site import Site
    from tests.service import Service

pytestmark = pytest.mark.slow

RECONNECTED_WITHIN = 10.0  # a device tries once per second


@pytest.fixture(params=["stop", "kill"])
def away(request: pytest.FixtureRequest, service: Service) -> Callable[[], AbstractContextManager[None]]:
    """Return a context manager that stops the service and starts it again, on the same port, at the end."""

    @contextmanager
    def away() -> Iterator[None]:
        end = {"stop": service.stop, "kill": service.kill}[request.param]
        end()
        try:
            yield
        finally:
            service.start()

    return away


def test_idle_devices_stay_connected(site: Site, away: Callable[[], AbstractContextManager[None]]) -> None:
    bob = site.connected("bob", "readWrite line/#", protocol=V311)
    carol = site.connected("carol", "readWrite line/#", protocol=V5)
    for device in (bob, carol):
        device.subscribe("line/#")
    with away():
        assert bob.stayed_connected()

    for device in (bob, carol):
        assert device.publish("line/1", device.username) == 0
    expected = [("line/1", device.username.encode()) for device in (bob, carol)]
    assert bob.received_so_far() == carol.received_so_far() == expected
    assert bob.stayed_connected()
    assert carol.stayed_connected()


def test_messages_published_during_the_outage_are_delivered_after_reconnecting(
    site: Site, away: Callable[[], AbstractContextManager[None]]
) -> None:
    alice = site.connected("alice", "read line/#")
    alice.subscribe("line/#")
    presses = [site.connected("bob", "write line/%u", protocol=protocol, returns=True) for protocol in (V311, V5)]
    with away():
        for press in presses:
            press.publish_unacknowledged(f"line/{press.username}", qos=1)
            assert press.is_disconnected()

    assert [press.connack(RECONNECTED_WITHIN) for press in presses] == [0, 0]
    expected = {f"line/{press.username}": b"" for press in presses}
    assert dict(alice.received() for _ in presses) == expected
    assert alice.stayed_connected()


def test_device_that_connects_during_the_outage_is_accepted_afterwards(
    site: Site, away: Callable[[], AbstractContextManager[None]]
) -> None:
    bob = site.add_user("bob")
    with away():
        early = site.device(bob)
        early.start(site.broker.port)
        assert early.is_dropped_without_connack()

    assert site.try_to_connect(bob) == 0


def test_changes_just_before_the_outage_are_kept(site: Site, away: Callable[[], AbstractContextManager[None]]) -> None:
    bob = site.connected("bob", "write line/1", protocol=V5)
    site.permit(bob, "write line/2")
    charlie = site.add_user("charlie")
    site.change(site.device(charlie), enabled=False)
    with away():
        pass

    assert bob.publish("line/1") == NOT_AUTHORIZED
    assert bob.publish("line/2") == 0
    assert site.try_to_connect(charlie) == NOT_AUTHORIZED
