"""The main use case from end to end, through Mosquitto."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.brokers import end_to_end
from tests.brokers.site import THROUGH_BOTH
from tests.devices import BOTH_PROTOCOLS

if TYPE_CHECKING:
    from paho.mqtt.enums import MQTTProtocolVersion

    from tests.brokers.site import Site

pytestmark = THROUGH_BOTH


@BOTH_PROTOCOLS
def test_device_uses_its_own_topics_and_those_granted_while_it_is_connected(
    site: Site, protocol: MQTTProtocolVersion
) -> None:
    end_to_end.run(site, protocol)
