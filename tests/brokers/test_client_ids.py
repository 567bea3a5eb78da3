"""One user with valid credentials against another: allowed client ids keep MQTT sessions and inboxes apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.brokers.site import THROUGH_BOTH
from tests.devices import BOTH_PROTOCOLS, NOT_AUTHORIZED

if TYPE_CHECKING:
    from paho.mqtt.enums import MQTTProtocolVersion

    from tests.brokers.site import Site

pytestmark = THROUGH_BOTH

OWN = ["%u", "%u:*"]


@BOTH_PROTOCOLS
def test_a_user_cannot_end_the_session_of_another_by_its_client_id(site: Site, protocol: MQTTProtocolVersion) -> None:
    press = site.connected("press", protocol=protocol)
    mallory = site.add_user("mallory", clientIds=OWN)

    assert site.try_to_connect(mallory, client_id=press.client_id, protocol=protocol) == NOT_AUTHORIZED
    assert press.stayed_connected()
    assert site.try_to_connect(mallory, protocol=protocol) == 0
    assert site.try_to_connect(mallory, client_id=f"{mallory}:phone", protocol=protocol) == 0


def test_a_user_cannot_read_the_inbox_of_another_by_its_client_id(site: Site) -> None:
    bob = site.connected("bob", "read inbox/%c/#")
    sender = site.connected("sender", "write inbox/#")
    mallory = site.add_user("mallory", "read inbox/%c/#", clientIds=OWN)
    assert bob.subscribe(f"inbox/{bob.client_id}/#") == [1]

    assert site.try_to_connect(mallory, client_id=bob.client_id) == NOT_AUTHORIZED
    thief = site.connect(mallory)
    assert thief.subscribe(f"inbox/{bob.client_id}/#") == [0x80]
    assert thief.subscribe(f"inbox/{mallory}/#") == [1]
    sender.publish(f"inbox/{bob.client_id}/order", "42")
    assert bob.received() == (f"inbox/{bob.client_id}/order", b"42")
    assert thief.received_so_far() == []


def test_a_session_that_is_older_than_the_restriction_receives_nothing_more(site: Site) -> None:
    sender = site.connected("sender", "write inbox/#")
    thief = site.connected("mallory", "read inbox/%c/#", client_id="press-7")
    assert thief.subscribe("inbox/press-7/#") == [1]
    sender.publish("inbox/press-7/order", "before")
    assert thief.received() == ("inbox/press-7/order", b"before")

    site.change(thief, clientIds=OWN)
    sender.publish("inbox/press-7/order", "after")
    assert thief.received_so_far() == []
