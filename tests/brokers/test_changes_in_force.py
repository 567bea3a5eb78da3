"""A change takes effect for connected devices before the API answers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.devices import BOTH_PROTOCOLS, NOT_AUTHORIZED, V5

if TYPE_CHECKING:
    from collections.abc import Callable

    from paho.mqtt.enums import MQTTProtocolVersion

    from tests.brokers.site import Site
    from tests.service import Service

REPLICAS_FOLLOW_WITHIN = 1.0


def test_granted_and_removed_write_permission_affects_a_connected_device(site: Site) -> None:
    bob = site.connected("bob", protocol=V5)
    carol = site.connected("carol", "read line/#")
    carol.subscribe("line/#")

    assert bob.publish("line/1", "before") == NOT_AUTHORIZED
    site.permit(bob, "write line/1")
    assert bob.publish("line/1", "allowed") == 0
    site.permit(bob, "write line/1", "deny write line/#")
    assert bob.publish("line/1", "denied") == NOT_AUTHORIZED
    site.permit(bob)
    assert bob.publish("line/1", "after") == NOT_AUTHORIZED
    assert carol.received_so_far() == [("line/1", b"allowed")]
    assert bob.stayed_connected()


@BOTH_PROTOCOLS
def test_granted_and_removed_read_permission_affects_a_subscription(site: Site, protocol: MQTTProtocolVersion) -> None:
    bob = site.connected("bob", "write line/#")
    carol = site.connected("carol", "read line/#", protocol=protocol)
    carol.subscribe("line/#")

    bob.publish("line/1", "allowed")
    site.permit(carol, "read line/#", "deny read line/1")
    bob.publish("line/1", "denied")
    site.permit(carol)
    bob.publish("line/1", "without a rule")
    site.permit(carol, "read line/1")
    bob.publish("line/1", "allowed again")
    assert carol.received_so_far() == [("line/1", b"allowed"), ("line/1", b"allowed again")]


def test_refused_subscription_is_granted_after_the_change(site: Site) -> None:
    bob = site.connected("bob", protocol=V5)

    assert bob.subscribe("line/#") == [NOT_AUTHORIZED]
    site.permit(bob, "read line/#")
    assert bob.subscribe("line/#") == [1]
    site.permit(bob)
    assert bob.subscribe("line/#") == [NOT_AUTHORIZED]


def test_disabled_user_can_neither_publish_nor_receive_until_it_is_enabled(site: Site) -> None:
    bob = site.connected("bob", "readWrite line/#", protocol=V5)
    carol = site.connected("carol", "readWrite line/#", protocol=V5)
    for device in (bob, carol):
        device.subscribe("line/#")

    site.change(bob, enabled=False)
    assert bob.publish("line/1", "from bob, disabled") == NOT_AUTHORIZED
    assert bob.subscribe("line/1") == [NOT_AUTHORIZED]
    carol.publish("line/1", "to bob, disabled")
    site.change(bob, enabled=True)
    assert bob.publish("line/1", "from bob, enabled") == 0

    assert bob.received_so_far() == [("line/1", b"from bob, enabled")]
    assert [payload for _, payload in carol.received_so_far()] == [b"to bob, disabled", b"from bob, enabled"]


def test_deleted_user_can_neither_publish_nor_receive(site: Site) -> None:
    bob = site.connected("bob", "readWrite line/#", protocol=V5)
    carol = site.connected("carol", "readWrite line/#", protocol=V5)
    bob.subscribe("line/#")

    assert site.service.call("DELETE", f"/api/users/{bob.username}").status_code == 204
    assert bob.publish("line/1") == NOT_AUTHORIZED
    carol.publish("line/1")
    assert bob.received_so_far() == []


def test_new_user_with_the_name_of_a_deleted_one_has_no_rights_of_it(site: Site) -> None:
    bob = site.connected("bob", "readWrite line/#", protocol=V5)
    site.service.call("DELETE", f"/api/users/{bob.username}")
    site.service.create_user(bob.username, "another secret", "write cellar/#")

    assert bob.publish("line/1") == NOT_AUTHORIZED
    assert site.try_to_connect(bob.username) == NOT_AUTHORIZED


# ---- Roles ----


def role(site: Site, method: str, name: str, *resources: str) -> None:
    """Create or change a role with write permissions for these topics."""
    permissions = [{"context": "mqtt", "operation": "write", "resource": resource} for resource in resources]
    path, body = ("/api/roles", {"name": name}) if method == "POST" else (f"/api/roles/{name}", {})
    answer = site.service.call(method, path, json={**body, "permissions": permissions})
    assert answer.ok, answer.text


def test_changed_role_affects_all_its_users(site: Site) -> None:
    role(site, "POST", "changed", "line/1")
    presses = [site.connect(site.add_user("bob", roles=["changed"]), protocol=V5) for _ in range(3)]
    carol = site.connected("carol", protocol=V5)
    assert {press.publish("line/1") for press in presses} == {0}

    role(site, "PATCH", "changed", "line/2")
    assert {press.publish("line/1") for press in presses} == {NOT_AUTHORIZED}
    assert {press.publish("line/2") for press in presses} == {0}
    assert carol.publish("line/2") == NOT_AUTHORIZED


def test_granted_and_removed_role_affects_a_connected_device(site: Site) -> None:
    role(site, "POST", "lent", "line/1")
    bob = site.connected("bob", "write own/1", protocol=V5)
    assert bob.publish("line/1") == NOT_AUTHORIZED

    site.change(bob, roles=["lent"])
    assert bob.publish("line/1") == 0
    site.change(bob, roles=[])
    assert bob.publish("line/1") == NOT_AUTHORIZED
    assert bob.publish("own/1") == 0


# ---- Changes by another process ----


def last_code(publish: Callable[[], int], wanted: int) -> int:
    """Publish until the wanted reason code is returned, for at most 1 s, and return the last code."""
    deadline = time.monotonic() + REPLICAS_FOLLOW_WITHIN
    while True:
        code = publish()
        if code == wanted or time.monotonic() > deadline:
            return code


def test_change_on_the_command_line_takes_effect_within_a_second(site: Site, service: Service) -> None:
    bob = site.connected("bob", "write line/#", protocol=V5)
    assert bob.publish("line/1") == 0

    for option, code in (("--disable", NOT_AUTHORIZED), ("--enable", 0)):
        changed = service.command("users", "change", bob.username, option)
        assert changed.returncode == 0, changed.stderr
        assert last_code(lambda: bob.publish("line/1"), code) == code


def test_change_affects_all_devices_of_a_user(site: Site) -> None:
    username = site.add_user("bob", "write line/#")
    devices = [site.connect(username, f"{username}-{number}", protocol=V5) for number in range(5)]
    assert {device.publish("line/1") for device in devices} == {0}

    site.change(devices[0], enabled=False)
    assert {device.publish("line/1") for device in devices} == {NOT_AUTHORIZED}
    assert site.try_to_connect(username, client_id=f"{username}-6") == NOT_AUTHORIZED
    assert all(device.publish("line/1") == NOT_AUTHORIZED for device in devices)
