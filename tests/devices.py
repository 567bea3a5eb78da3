"""MQTT devices for tests: paho clients with blocking calls."""

from __future__ import annotations

import socket
from queue import Empty, Queue
from typing import TYPE_CHECKING, Any, Literal

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

V311 = MQTTProtocolVersion.MQTTv311
V5 = MQTTProtocolVersion.MQTTv5
# With MQTT 3.1.1 the slow tests repeat what the others show with MQTT 5.
BOTH_PROTOCOLS = pytest.mark.parametrize(
    "protocol", [pytest.param(V311, marks=pytest.mark.slow), V5], ids=["3.1.1", "5"]
)

SOON = 5.0  # seconds to wait for an event that has been triggered
FIRST_FAILURE = 0x80  # the first failure among MQTT 5's reason codes, and the only one in a SUBACK of MQTT 3.1.1
NOT_AUTHORIZED = 0x87
NO_SUCH_SUBSCRIPTION = "nobody/subscribes/to/this"


class Device:
    """A paho client whose callbacks fill queues.

    A `persistent` device keeps its session while it is offline. A device that `returns` reconnects when the
    connection is lost. `will` is a topic and a payload.
    """

    def __init__(
        self,
        username: str | None,
        password: str | bytes | None,
        client_id: str,
        protocol: MQTTProtocolVersion = V311,
        *,
        persistent: bool = False,
        returns: bool = False,
        will: tuple[str, str] | None = None,
        transport: Literal["tcp", "websockets"] = "tcp",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.username = username or ""
        self.client_id = client_id
        self.ends: Queue[int] = Queue()
        self._connacks: Queue[int] = Queue()
        self._subacks: Queue[list[int]] = Queue()
        self._unsubacks: Queue[int] = Queue()
        self._pubacks: Queue[tuple[int, int]] = Queue()
        self._messages: Queue[tuple[str, bytes]] = Queue()
        self._credentials = username, password
        self._protocol = protocol
        self._persistent = persistent
        self._returns = returns
        self._will = will
        self._transport = transport
        self._tls = tls
        self._client = self._new_client()

    def start(self, port: int, host: str = "127.0.0.1") -> None:
        """Connect without waiting for the CONNACK."""
        self._client.connect(host, port, **self._session())
        self._client.loop_start()

    def stop(self) -> None:
        """Send DISCONNECT, if connected, and stop. The device can be started again."""
        self._client.disconnect()
        self._client.loop_stop()
        # A paho client that is started a second time does not close a socket of its first start.
        self._client = self._new_client()

    def vanish(self) -> None:
        """Close the connection without DISCONNECT, like a device with a power failure."""
        connection = self._client.socket()
        assert isinstance(connection, socket.socket)
        connection.shutdown(socket.SHUT_RDWR)

    def connack(self, within: float = SOON) -> int:
        """Return the reason code of the CONNACK."""
        return self._connacks.get(timeout=within)

    def subscribe(self, *topic_filters: str) -> list[int]:
        """Subscribe with QoS 1 and return the reason codes of the SUBACK: 1 if granted."""
        self._client.subscribe([(topic_filter, 1) for topic_filter in topic_filters])
        return self._subacks.get(timeout=SOON)

    def publish(self, topic: str, payload: str = "", *, retain: bool = False) -> int:
        """Publish with QoS 1 and return 0, or the reason code of a refusal in MQTT 5; 3.1.1 reports none."""
        sent = self._client.publish(topic, payload, qos=1, retain=retain)
        while True:
            packet, code = self._pubacks.get(timeout=SOON)
            if packet == sent.mid:
                return code if code >= FIRST_FAILURE else 0  # "no matching subscribers" is no refusal

    def publish_unacknowledged(self, topic: str, qos: int = 0) -> None:
        """Publish without waiting for an acknowledgement."""
        self._client.publish(topic, "", qos)

    def subscribe_unacknowledged(self, topic_filter: str) -> None:
        """Send a SUBSCRIBE without waiting for the SUBACK."""
        self._client.subscribe(topic_filter)

    def received(self) -> tuple[str, bytes]:
        """Wait for the next message and return its topic and payload."""
        return self._messages.get(timeout=SOON)

    def received_so_far(self) -> list[tuple[str, bytes]]:
        """Return the messages that the broker has sent so far and that `received` has not returned."""
        self.wait_for_broker()
        return list(_drained(self._messages))

    def wait_for_broker(self) -> None:
        """Wait until the broker has processed all packets that were sent before.

        The broker works in order. It answers an UNSUBSCRIBE without a subscription and changes nothing.
        """
        self._client.unsubscribe(NO_SUCH_SUBSCRIPTION)
        self._unsubacks.get(timeout=SOON)

    def stayed_connected(self) -> bool:
        """Return whether the connection never ended."""
        self.wait_for_broker()
        return self.ends.empty()

    def is_dropped_without_connack(self) -> bool:
        """Wait for the end of the connection; return whether it ended without a CONNACK."""
        self.ends.get(timeout=SOON)
        return self._connacks.empty()

    def is_disconnected(self) -> bool:
        """Wait for the end of the connection; return whether the broker or the network ended it."""
        return self.ends.get(timeout=SOON) >= FIRST_FAILURE

    def _new_client(self) -> Client:
        client = Client(
            CallbackAPIVersion.VERSION2,
            self.client_id,
            clean_session=None if self._protocol is V5 else not self._persistent,
            protocol=self._protocol,
            reconnect_on_failure=self._returns,
            transport=self._transport,
        )
        client.reconnect_delay_set(1, 1)
        client.username_pw_set(*self._credentials)  # type: ignore[arg-type]  # it takes bytes as well
        if self._tls:
            client.tls_set_context(self._tls)
        if self._will:
            client.will_set(*self._will, qos=1)
        self._listen_to(client)
        return client

    def _session(self) -> dict[str, Any]:
        if self._protocol is not V5:
            return {}
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = 3600 if self._persistent else 0
        return {"clean_start": not self._persistent, "properties": properties}

    def _listen_to(self, client: Client) -> None:
        client.on_connect = lambda _c, _u, _flags, code, _p: self._connacks.put(code.value)
        client.on_subscribe = lambda _c, _u, _mid, codes, _p: self._subacks.put([code.value for code in codes])
        client.on_unsubscribe = lambda _c, _u, mid, _codes, _p: self._unsubacks.put(mid)
        client.on_publish = lambda _c, _u, mid, code, _p: self._pubacks.put((mid, code.value))
        client.on_message = lambda _c, _u, message: self._messages.put((message.topic, bytes(message.payload)))
        client.on_disconnect = lambda _c, _u, _flags, code, _p: self.ends.put(code.value)


def _drained(queue: Queue[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
    while True:
        try:
            yield queue.get_nowait()
        except Empty:
            return
