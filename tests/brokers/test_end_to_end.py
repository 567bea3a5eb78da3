"""What the product is for, through Mosquitto."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.brokers import end_to_end
from tests.devices import BOTH_PROTOCOLS

if TYPE_CHECKING:
    from paho.mqtt.enums import MQTTProtocolVersion

    from tests.brokers.site import Site


@BOTH_PROTOCOLS
def test_a_device_is_let_in_kept_to_its_own_topics_and_given_more_while_connected(
    site: Site, protocol: MQTTProtocolVersion
) -> None:
    end_to_end.tell(site, protocol)
