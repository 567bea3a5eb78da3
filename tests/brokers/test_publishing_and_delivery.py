"""Publishing, subscribing and delivery of a connected device, and the reason codes of refusals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.brokers.site import THROUGH_BOTH
from tests.devices import BOTH_PROTOCOLS, FIRST_FAILURE, NOT_AUTHORIZED, V5, V311

if TYPE_CHECKING:
    from paho.mqtt.enums import MQTTProtocolVersion

    from tests.brokers.site import Site

pytestmark = THROUGH_BOTH


@BOTH_PROTOCOLS
def test_message_is_delivered_from_a_writer_to_a_reader(site: Site, protocol: MQTTProtocolVersion) -> None:
    bob = site.connected("bob", "write line/1/state", protocol=protocol)
    carol = site.connected("carol", "read line/#", protocol=protocol)

    assert carol.subscribe("line/#") == [1]
    assert bob.publish("line/1/state", "running") == 0
    assert carol.received() == ("line/1/state", b"running")


@pytest.mark.parametrize(("protocol", "code"), [(V311, 0), (V5, NOT_AUTHORIZED)], ids=["3.1.1", "5"])
def test_refused_publish_is_not_delivered_and_only_mqtt_5_reports_it(
    site: Site, protocol: MQTTProtocolVersion, code: int
) -> None:
    bob = site.connected("bob", "write line/1/#", "read line/2/#", protocol=protocol)
    carol = site.connected("carol", "read line/#")
    carol.subscribe("line/#")

    assert bob.publish("line/2/state") == code
    assert bob.publish("line") == code
    assert bob.publish("line/1/state", "last") == 0
    assert carol.received_so_far() == [("line/1/state", b"last")]
    assert bob.stayed_connected()


@BOTH_PROTOCOLS
def test_refused_qos_0_publish_keeps_the_connection(site: Site, protocol: MQTTProtocolVersion) -> None:
    bob = site.connected("bob", protocol=protocol)
    carol = site.connected("carol", "read line/#")
    carol.subscribe("line/#")
    bob.publish_unacknowledged("line/1/state")

    assert bob.stayed_connected()
    assert carol.received_so_far() == []


@pytest.mark.parametrize(("protocol", "code"), [(V311, FIRST_FAILURE), (V5, NOT_AUTHORIZED)], ids=["3.1.1", "5"])
def test_each_topic_filter_of_a_subscription_has_its_own_answer(
    site: Site, protocol: MQTTProtocolVersion, code: int
) -> None:
    bob = site.connected("bob", "read line/+/state", "write other/#", "deny read line/9/state", protocol=protocol)

    assert bob.subscribe("line/1/state", "line/#", "line/+/state", "other/1", "line/9/state", "#") == [
        1,
        code,
        1,
        code,
        code,
        code,
    ]
    assert bob.stayed_connected()


@pytest.mark.parametrize(
    ("rule", "wider"),
    [("a/+", "a/#"), ("a/b", "a/+"), ("+/#", "#"), ("a/#", "+/b"), ("a/+/c", "a/b/+"), ("a/b", "a/b/#")],
)
def test_topic_filter_wider_than_the_permission_is_refused(site: Site, rule: str, wider: str) -> None:
    bob = site.connected("bob", f"read {rule}")
    assert bob.subscribe(rule, wider) == [1, FIRST_FAILURE]


@BOTH_PROTOCOLS
def test_deny_rule_inside_a_topic_filter_applies_at_delivery(site: Site, protocol: MQTTProtocolVersion) -> None:
    bob = site.connected("bob", "write line/#", protocol=protocol)
    carol = site.connected("carol", "read line/#", "deny read line/+/recipe", protocol=protocol)

    assert carol.subscribe("line/#") == [1]
    bob.publish("line/1/recipe", "secret")
    bob.publish("line/1/state", "running")
    assert carol.received_so_far() == [("line/1/state", b"running")]


@BOTH_PROTOCOLS
def test_each_subscriber_receives_what_its_own_permissions_allow(site: Site, protocol: MQTTProtocolVersion) -> None:
    bob = site.connected("bob", "write line/#", protocol=protocol)
    readers = [
        site.connected("carol", "read line/#", protocol=protocol),
        site.connected("charlie", "read line/#", "deny read line/1/recipe", protocol=protocol),
        site.connected("carol", "read line/#", protocol=protocol),
    ]
    for reader in readers:
        assert reader.subscribe("line/#") == [1]
    bob.publish("line/1/recipe", "secret")

    secret = ("line/1/recipe", b"secret")
    assert [reader.received_so_far() for reader in readers] == [[secret], [], [secret]]


@BOTH_PROTOCOLS
@pytest.mark.parametrize("qos", [0, 1])
def test_publish_is_accepted_although_a_subscriber_may_not_read_it(
    site: Site, protocol: MQTTProtocolVersion, qos: int
) -> None:
    bob = site.connected("bob", "write line/#", protocol=protocol)
    charlie = site.connected("charlie", "read line/#", protocol=protocol)
    charlie.subscribe("line/#")
    site.permit(charlie)
    bob.publish_unacknowledged("line/1/state", qos)

    assert bob.stayed_connected()
    assert charlie.received_so_far() == []
    assert charlie.stayed_connected()


def test_device_receives_its_own_messages_only_with_a_read_permission(site: Site) -> None:
    bob = site.connected("bob", "readWrite line/1", "read line/#", "deny read line/2", "write line/2")
    bob.subscribe("line/#")
    bob.publish("line/2")
    bob.publish("line/1")

    assert bob.received_so_far() == [("line/1", b"")]
