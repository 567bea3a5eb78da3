"""From the outside: a device that nobody knows, a real broker, and a grant; the device does nothing but reconnect."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.broker import Mosquitto, build_plugin, free_port, go_auth_config
from tests.devices import BOTH_PROTOCOLS, V311, Device
from tests.registry.environment import REGISTRATIONS, soon
from tests.service import Service, permission

if TYPE_CHECKING:
    from collections.abc import Iterator

    from paho.mqtt.enums import MQTTProtocolVersion

PASSWORD = "a device's secret"
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Hall:
    """A service, a broker in front of it, and a device of a name that nobody had before."""

    service: Service
    broker: Mosquitto
    name: str

    def told(self, method: str, path: str, **body: Any) -> Any:
        """Let the administrator ask for something that must succeed."""
        answer = self.service.call(method, f"/api/client-registry{path}", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def registration(self) -> dict[str, Any]:
        """Wait until the device appears, and return what the administrator sees of it."""
        found = soon(
            lambda: self.service.call("GET", REGISTRATIONS, params={"search": self.name}).json()["items"],
        )
        return dict(found[0])

    def grant(self, **confirmed: bool) -> int:
        """Grant it to use topics of its own, and return the status."""
        path = f"{REGISTRATIONS}/{self.registration()['id']}/grant"
        body = {"permissions": [permission("readWrite presses/%u/#")], **confirmed}
        return self.service.call("POST", path, json=body).status_code


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service of this module's own."""
    with Service(tmp_path_factory.mktemp("service")) as service:
        service.create_user("carol", "carol's secret", "read presses/#")
        yield service


@pytest.fixture(scope="module")
def broker(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    """A broker with the recommended settings."""
    config = go_auth_config(plugin=build_plugin(), service_port=service.broker_port, listener_port=free_port())
    with Mosquitto(config, tmp_path_factory.mktemp("broker")) as broker:
        yield broker


@pytest.fixture
def hall(service: Service, broker: Mosquitto) -> Hall:
    """A locked registry and a name that it never heard of."""
    hall = Hall(service, broker, f"press-{next(_numbers)}")
    hall.told("POST", "/lock")
    return hall


@pytest.fixture
def device(hall: Hall, protocol: MQTTProtocolVersion) -> Iterator[Device]:
    """A device with its own reconnect loop, not started."""
    device = Device(hall.name, PASSWORD, f"{hall.name}-plc", protocol, returns=True)
    yield device
    device.stop()


@pytest.fixture
def carol(hall: Hall) -> Iterator[Device]:
    """Somebody who listens to all presses."""
    carol = Device("carol", "carol's secret", f"carol-{hall.name}")
    carol.start(hall.broker.port)
    assert carol.connack() == 0
    assert carol.subscribe("presses/#") == [1]
    yield carol
    carol.stop()


def comes_in_by_itself(device: Device) -> bool:
    """Say whether the device, refused so far, is let in at one of its next attempts."""
    return soon(lambda: device.connack() == 0)


@BOTH_PROTOCOLS
def test_a_device_that_came_before_the_registry_was_unlocked(hall: Hall, device: Device, carol: Device) -> None:
    device.start(hall.broker.port)
    assert device.connack() != 0
    shown = hall.registration()
    assert (shown["username"], shown["clientIds"]) == (hall.name, [device.client_id])
    assert (shown["kind"], shown["status"], shown["recordedWhileLocked"]) == ("implicit", "pending", True)
    assert hall.grant() == 423
    hall.told("POST", "/unlock")
    assert hall.grant() == 200
    assert comes_in_by_itself(device)
    publishes(hall, device, carol)


@BOTH_PROTOCOLS
def test_a_device_that_came_after_the_registry_was_unlocked(hall: Hall, device: Device, carol: Device) -> None:
    hall.told("POST", "/unlock")
    device.start(hall.broker.port)
    assert device.connack() != 0
    shown = hall.registration()
    assert (shown["clientIds"], shown["recordedWhileLocked"]) == ([device.client_id], False)
    hall.told("POST", "/lock")
    assert hall.grant() == 200
    assert comes_in_by_itself(device)
    publishes(hall, device, carol)


@BOTH_PROTOCOLS
def test_a_device_that_is_preauthorized_needs_nobody(hall: Hall, device: Device) -> None:
    body = {"username": hall.name, "permissions": [permission("readWrite presses/%u/#")]}
    assert hall.service.call("POST", "/api/client-registry/preauthorizations", json=body).status_code == 201
    device.start(hall.broker.port)
    assert comes_in_by_itself(device)
    assert device.subscribe(f"presses/{hall.name}/#") == [1]


@BOTH_PROTOCOLS
def test_a_device_that_is_denied_stays_out_and_is_counted(hall: Hall, device: Device) -> None:
    device.start(hall.broker.port)
    assert device.connack() != 0
    hall.told("POST", f"/registrations/{hall.registration()['id']}/deny")
    assert device.connack() != 0
    soon(lambda: hall.registration()["attempts"] > 1)
    assert hall.registration()["status"] == "denied"


@pytest.mark.parametrize("protocol", [V311], ids=["3.1.1"])
def test_another_password_under_its_name_gets_nobody_in(hall: Hall, device: Device) -> None:
    hall.told("POST", "/unlock")
    device.start(hall.broker.port)
    assert device.connack() != 0
    hall.registration()
    charlie = Device(hall.name, "charlie's guess", "charlie-plc")
    charlie.start(hall.broker.port)
    assert charlie.connack() != 0
    charlie.stop()
    soon(lambda: hall.registration()["conflicts"] == 1)
    assert hall.registration()["clientIds"] == [device.client_id]
    assert hall.grant() == 409
    assert hall.grant(acceptConflicts=True) == 200
    assert comes_in_by_itself(device)
    charlie.start(hall.broker.port)
    assert charlie.connack() != 0
    charlie.stop()


def publishes(hall: Hall, device: Device, carol: Device) -> None:
    """Let the device use what it was granted, and try what it was not."""
    device.publish("presses/another/state", "forged")
    device.publish(f"presses/{hall.name}/state", "running")
    assert carol.received() == (f"presses/{hall.name}/state", b"running")
    assert carol.received_so_far() == []
