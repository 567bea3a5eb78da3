"""Retained messages, messages queued for an offline device, and wills."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.brokers.site import THROUGH_BOTH
from tests.devices import BOTH_PROTOCOLS

if TYPE_CHECKING:
    from paho.mqtt.enums import MQTTProtocolVersion

    from tests.broker import Mosquitto
    from tests.brokers.site import Site
    from tests.devices import Device

pytestmark = THROUGH_BOTH


@BOTH_PROTOCOLS
def test_retained_message_is_delivered_to_a_subscriber_that_may_read_it(
    site: Site, protocol: MQTTProtocolVersion
) -> None:
    bob = site.connected("bob", "write retained/%u/#", protocol=protocol)
    branch = f"retained/{bob.username}"
    bob.publish(f"{branch}/recipe", "secret", retain=True)
    bob.publish(f"{branch}/state", "running", retain=True)
    carol = site.connected("carol", "read retained/#", "deny read retained/+/recipe", protocol=protocol)

    assert carol.subscribe(f"{branch}/#") == [1]
    assert carol.received_so_far() == [(f"{branch}/state", b"running")]


def test_retained_message_is_not_delivered_after_its_publisher_lost_the_permission(site: Site) -> None:
    bob = site.connected("bob", "write retained/%u")
    topic = f"retained/{bob.username}"
    bob.publish(topic, "running", retain=True)
    site.permit(bob)
    carol = site.connected("carol", "read retained/#")

    assert carol.subscribe(topic) == [1]
    assert carol.received_so_far() == []


# ---- Messages queued for an offline device ----


def offline_subscriber(site: Site, name: str, protocol: MQTTProtocolVersion) -> Device:
    """Return an offline device with a subscription in a persistent MQTT session."""
    device = site.connected(name, "read line/#", protocol=protocol, persistent=True)
    assert device.subscribe("line/#") == [1]
    device.stop()
    return device


def come_back(site: Site, device: Device) -> None:
    device.start(site.broker.port)
    assert device.connack() == 0


@BOTH_PROTOCOLS
def test_message_is_queued_for_an_offline_subscriber(site: Site, protocol: MQTTProtocolVersion) -> None:
    carol = offline_subscriber(site, "carol", protocol)
    site.connected("bob", "write line/#").publish("line/1/state", "running")
    come_back(site, carol)

    assert carol.received() == ("line/1/state", b"running")


@BOTH_PROTOCOLS
def test_message_is_not_queued_for_a_subscriber_that_may_not_read_it(site: Site, protocol: MQTTProtocolVersion) -> None:
    carol = offline_subscriber(site, "carol", protocol)
    site.permit(carol, "read line/#", "deny read line/1/recipe")
    bob = site.connected("bob", "write line/#")
    bob.publish("line/1/recipe", "secret")
    bob.publish("line/1/state", "running")
    site.permit(carol, "read line/#")
    come_back(site, carol)

    assert carol.received() == ("line/1/state", b"running")
    assert carol.received_so_far() == []


@BOTH_PROTOCOLS
def test_queued_message_is_not_delivered_after_the_permission_was_removed(
    site: Site, protocol: MQTTProtocolVersion
) -> None:
    carol = offline_subscriber(site, "carol", protocol)
    bob = site.connected("bob", "write line/#")
    bob.publish("line/1/recipe", "secret")
    bob.publish("line/1/state", "running")
    site.permit(carol, "read line/#", "deny read line/1/recipe")
    come_back(site, carol)

    assert carol.received() == ("line/1/state", b"running")
    assert carol.received_so_far() == []


# ---- Wills ----


def lose(broker: Mosquitto, device: Device) -> None:
    """Cut the device's connection and wait until the broker has sent its will."""
    device.vanish()
    broker.wait_for_log(f"Client {device.client_id} closed its connection")


@BOTH_PROTOCOLS
def test_will_is_published_to_a_topic_that_its_owner_may_write(
    site: Site, broker: Mosquitto, protocol: MQTTProtocolVersion
) -> None:
    carol = site.connected("carol", "read line/#")
    carol.subscribe("line/#")
    bob = site.connected("bob", "write line/1/#", protocol=protocol, will=("line/1/state", "lost"))
    lose(broker, bob)

    assert carol.received() == ("line/1/state", b"lost")


@BOTH_PROTOCOLS
def test_will_is_not_published_to_a_topic_that_its_owner_may_not_write(
    site: Site, broker: Mosquitto, protocol: MQTTProtocolVersion
) -> None:
    carol = site.connected("carol", "read line/#")
    carol.subscribe("line/#")
    charlie = site.connected("charlie", "write line/1/#", protocol=protocol, will=("line/2/state", "lost"))
    lose(broker, charlie)

    assert carol.received_so_far() == []


def test_will_is_checked_with_the_permissions_at_its_publication(site: Site, broker: Mosquitto) -> None:
    carol = site.connected("carol", "read line/#")
    carol.subscribe("line/#")
    bob = site.connected("bob", "write line/1/#", will=("line/1/state", "lost"))
    site.permit(bob)
    lose(broker, bob)

    assert carol.received_so_far() == []
