"""The service as a client of the broker, connecting under a user's client id so that the broker drops its connection.

Only the connection ends. The MQTT session, with its subscriptions and the messages that wait in it, stays with the
broker for the device's return (MQTT 5.0 section 4.1): it is neither started anew nor is any message acknowledged.
The session of a removed user is deleted, since nobody returns to it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

if TYPE_CHECKING:
    from paho.mqtt.client import ConnectFlags
    from paho.mqtt.reasoncodes import ReasonCode

    from authsvc.settings import Settings

# Our own login may take a hash, and the broker a moment, before it succeeds.
_PAUSES_SECONDS = (0.0, 0.3, 0.6)
_PATIENCE_SECONDS = 3.0
# "Does not expire": our value takes the place of the device's own, which only the device knows and sets at its return.
_KEPT_SECONDS = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class TakeoverBroker:
    """Where the broker is and as which of its users we connect; without `read #` the broker drops waiting messages."""

    host: str
    port: int
    username: str
    password: str
    tls: bool
    ca_file: str | None

    def __repr__(self) -> str:
        return f"Broker({self.host!r}, {self.port})"

    def take_over(self, client_id: str, *, keep_session: bool = True) -> bool:
        """Connect under the client id and leave at once; return whether the broker let us in, which ends theirs.

        Without `keep_session` the broker deletes the MQTT session when we leave.
        Tries up to three times; takes at most some 20 seconds.
        """
        for pause in _PAUSES_SECONDS:
            time.sleep(pause)
            if self._try(client_id, keep_session):
                return True
        return False

    def _try(self, client_id: str, keep_session: bool) -> bool:
        answers: list[tuple[bool, bool]] = []

        def on_connect(_client: object, _data: object, flags: ConnectFlags, reason: ReasonCode, _: object) -> None:
            answers.append((not reason.is_failure, flags.session_present))

        client = Client(CallbackAPIVersion.VERSION2, client_id, protocol=MQTTProtocolVersion.MQTTv5)
        client.username_pw_set(self.username, self.password)
        client.connect_timeout = _PATIENCE_SECONDS
        client.on_connect = on_connect
        try:
            if self.tls:
                client.tls_set(self.ca_file)
            kept = _kept(PacketTypes.CONNECT, keep_session)
            client.connect(self.host, self.port, keepalive=10, clean_start=False, properties=kept)
        except OSError:
            return False
        # Packet by packet, in this thread: what the broker sends after its answer is not read, let alone acknowledged.
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not answers and time.monotonic() < deadline:
            if client.loop(0.1) is not MQTTErrorCode.MQTT_ERR_SUCCESS:
                break
        accepted, session_present = answers[0] if answers else (False, False)
        # If the device had no session that outlives its connection, none of ours is left in its place.
        client.disconnect(properties=_kept(PacketTypes.DISCONNECT, session_present and keep_session))
        return accepted


def _kept(packet: int, kept: bool) -> Properties:
    properties = Properties(packet)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = _KEPT_SECONDS if kept else 0
    return properties


def takeover_broker(settings: Settings) -> TakeoverBroker | None:
    """Return the broker that the settings name, or None."""
    if settings.broker_url is None:
        return None
    parts = urlsplit(settings.broker_url)
    tls = parts.scheme == "mqtts"
    return TakeoverBroker(
        host=parts.hostname or "",
        port=parts.port or (8883 if tls else 1883),
        username=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        tls=tls,
        ca_file=settings.broker_ca_file,
    )
