"""Registration of a device through a real broker; the device only reconnects."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.brokers.site import THROUGH_BOTH, broker_for
from tests.devices import BOTH_PROTOCOLS, V311, Device
from tests.registry.environment import REGISTRATIONS, wait_until
from tests.service import Service, permission

if TYPE_CHECKING:
    from collections.abc import Iterator

    from paho.mqtt.enums import MQTTProtocolVersion

    from tests.broker import Mosquitto

pytestmark = THROUGH_BOTH

PASSWORD = "a device's secret"
_numbers = itertools.count(1)


@dataclass(frozen=True)
class BrokerEnvironment:
    """A service, its broker and an unknown device."""

    service: Service
    broker: Mosquitto
    name: str

    def call(self, method: str, path: str, **body: Any) -> Any:
        """Call the API as administrator and assert success."""
        answer = self.service.call(method, f"/api/client-registry{path}", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def registration(self) -> dict[str, Any]:
        """Wait for the device's registration and return it."""
        found = wait_until(
            lambda: self.service.call("GET", REGISTRATIONS, params={"search": self.name}).json()["items"],
        )
        return dict(found[0])

    def grant(self, **confirmed: bool) -> int:
        """Grant topics of its own; return the status."""
        path = f"{REGISTRATIONS}/{self.registration()['id']}/grant"
        body = {"permissions": [permission("readWrite presses/%u/#")], **confirmed}
        return self.service.call("POST", path, json=body).status_code


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service for this module."""
    with Service(tmp_path_factory.mktemp("service")) as service:
        service.create_user("carol", "carol's secret", "read presses/#")
        yield service


@pytest.fixture(scope="module")
def broker(
    service: Service, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Mosquitto]:
    """A broker with the recommended settings."""
    with broker_for(service, tmp_path_factory.mktemp("broker"), request.param) as broker:
        yield broker


@pytest.fixture
def broker_env(service: Service, broker: Mosquitto) -> BrokerEnvironment:
    """A locked registry and an unknown username."""
    broker_env = BrokerEnvironment(service, broker, f"press-{next(_numbers)}")
    broker_env.call("POST", "/lock")
    return broker_env


@pytest.fixture
def device(broker_env: BrokerEnvironment, protocol: MQTTProtocolVersion) -> Iterator[Device]:
    """A device with a reconnect loop, not started."""
    device = Device(broker_env.name, PASSWORD, f"{broker_env.name}-plc", protocol, returns=True)
    yield device
    device.stop()


@pytest.fixture
def carol(broker_env: BrokerEnvironment) -> Iterator[Device]:
    """A user who subscribes to all presses."""
    carol = Device("carol", "carol's secret", f"carol-{broker_env.name}")
    carol.start(broker_env.broker.port)
    assert carol.connack() == 0
    assert carol.subscribe("presses/#") == [1]
    yield carol
    carol.stop()


def comes_in_by_itself(device: Device) -> bool:
    """Return whether one of the device's next attempts succeeds."""
    return wait_until(lambda: device.connack() == 0)


@BOTH_PROTOCOLS
def test_device_recorded_before_unlocking_is_granted(
    broker_env: BrokerEnvironment, device: Device, carol: Device
) -> None:
    device.start(broker_env.broker.port)
    assert device.connack() != 0
    shown = broker_env.registration()
    assert (shown["username"], shown["clientIds"]) == (broker_env.name, [device.client_id])
    assert (shown["kind"], shown["status"], shown["recordedWhileLocked"]) == ("implicit", "pending", True)
    assert broker_env.grant() == 423
    broker_env.call("POST", "/unlock")
    assert broker_env.grant() == 200
    assert comes_in_by_itself(device)
    publishes(broker_env, device, carol)


@BOTH_PROTOCOLS
def test_device_recorded_after_unlocking_is_granted(
    broker_env: BrokerEnvironment, device: Device, carol: Device
) -> None:
    broker_env.call("POST", "/unlock")
    device.start(broker_env.broker.port)
    assert device.connack() != 0
    shown = broker_env.registration()
    assert (shown["clientIds"], shown["recordedWhileLocked"]) == ([device.client_id], False)
    broker_env.call("POST", "/lock")
    assert broker_env.grant() == 200
    assert comes_in_by_itself(device)
    publishes(broker_env, device, carol)


@BOTH_PROTOCOLS
def test_preauthorized_device_needs_no_administrator(broker_env: BrokerEnvironment, device: Device) -> None:
    body = {"username": broker_env.name, "permissions": [permission("readWrite presses/%u/#")]}
    assert broker_env.service.call("POST", "/api/client-registry/preauthorizations", json=body).status_code == 201
    device.start(broker_env.broker.port)
    assert comes_in_by_itself(device)
    assert device.subscribe(f"presses/{broker_env.name}/#") == [1]


@BOTH_PROTOCOLS
def test_denied_device_cannot_connect_and_is_counted(broker_env: BrokerEnvironment, device: Device) -> None:
    device.start(broker_env.broker.port)
    assert device.connack() != 0
    broker_env.call("POST", f"/registrations/{broker_env.registration()['id']}/deny")
    assert device.connack() != 0
    wait_until(lambda: broker_env.registration()["attempts"] > 1)
    assert broker_env.registration()["status"] == "denied"


@pytest.mark.parametrize("protocol", [V311], ids=["3.1.1"])
def test_other_password_under_the_name_cannot_connect(broker_env: BrokerEnvironment, device: Device) -> None:
    broker_env.call("POST", "/unlock")
    device.start(broker_env.broker.port)
    assert device.connack() != 0
    broker_env.registration()
    charlie = Device(broker_env.name, "charlie's guess", "charlie-plc")
    charlie.start(broker_env.broker.port)
    assert charlie.connack() != 0
    charlie.stop()
    wait_until(lambda: broker_env.registration()["conflicts"] == 1)
    assert broker_env.registration()["clientIds"] == [device.client_id]
    assert broker_env.grant() == 409
    assert broker_env.grant(acceptConflicts=True) == 200
    assert comes_in_by_itself(device)
    charlie.start(broker_env.broker.port)
    assert charlie.connack() != 0
    charlie.stop()


def publishes(broker_env: BrokerEnvironment, device: Device, carol: Device) -> None:
    """Publish to granted and not granted topics."""
    device.publish("presses/another/state", "forged")
    device.publish(f"presses/{broker_env.name}/state", "running")
    assert carol.received() == (f"presses/{broker_env.name}/state", b"running")
    assert carol.received_so_far() == []
