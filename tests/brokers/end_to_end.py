"""The main use case from end to end. It runs with more than one kind of broker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paho.mqtt.enums import MQTTProtocolVersion

    from tests.brokers.site import Site
    from tests.devices import Device

ORDERS = {"context": "mqtt", "operation": "readWrite", "resource": "line/+/orders", "effect": "allow"}


def run(site: Site, protocol: MQTTProtocolVersion) -> None:
    """Connect a device, check that it can use only its own topics, and grant it another topic while it is connected."""
    # Alice creates a user for Bob's device. The device connects and uses its own topics.
    bob = site.connected("bob", "readWrite devices/%u/#", protocol=protocol)
    own, orders = f"devices/{bob.username}/state", "line/1/orders"
    assert bob.subscribe(f"devices/{bob.username}/#") == [1]
    bob.publish(own, "running")
    assert bob.received() == (own, b"running")

    # All other topics are denied, and the API returns the reason.
    carol = site.connected("carol", "readWrite line/#", protocol=protocol)
    carol.subscribe("line/#")
    bob.publish(orders, "forged")
    assert carol.received_so_far() == []
    refused = {"allowed": False, "reason": "no-permission", "permission": None, "role": None}
    assert _decision(site, bob, "write", orders) == refused

    # Alice adds a permission. It takes effect without a new connection.
    held = site.service.call("GET", f"/api/users/{bob.username}").json()["permissions"]
    site.change(bob, permissions=[*held, ORDERS])
    bob.publish(orders, "genuine")
    assert carol.received() == (orders, b"genuine")
    assert bob.subscribe(orders) == [1]
    carol.publish(orders, "thanks")
    assert bob.received() == (orders, b"thanks")
    allowed = {"allowed": True, "reason": "permission", "permission": ORDERS, "role": None}
    assert _decision(site, bob, "write", orders) == allowed
    assert bob.stayed_connected()


def _decision(site: Site, device: Device, operation: str, topic: str) -> dict[str, Any]:
    question = {"operation": operation, "topic": topic, "clientId": device.client_id}
    answer = site.service.call("GET", f"/api/users/{device.username}/decision", params=question)
    assert answer.status_code == 200, answer.text
    decision: dict[str, Any] = answer.json()
    return decision
