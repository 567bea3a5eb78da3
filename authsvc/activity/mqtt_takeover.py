"""Connects to the broker with a user's client id, so that the broker drops the user's connection.

Only the connection ends. The broker keeps the MQTT session, with its subscriptions and queued messages, until the
device reconnects (MQTT 5.0 section 4.1): it is not reset, and no message is acknowledged. Only the session of a removed
user is deleted.
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

# The first attempt may fail while the service still hashes the password of its own login.
_DELAYS_SECONDS = (0.0, 0.3, 0.6)
_TIMEOUT_SECONDS = 3.0
# "Does not expire". It replaces the device's own value, which is unknown here; the device sets it when it reconnects.
_NEVER = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class TakeoverBroker:
    """The broker's address and the user to connect as; unless it may `read #`, the broker drops queued messages."""

    host: str
    port: int
    username: str
    password: str
    tls: bool
    ca_file: str | None

    def __repr__(self) -> str:
        return f"TakeoverBroker({self.host!r}, {self.port})"

    def take_over(self, client_id: str, *, keep_session: bool = True) -> bool:
        """Connect with the client id and disconnect; return whether the broker accepted and so dropped the user.

        Without `keep_session` the broker then deletes the MQTT session. Tries up to 3 times; takes at most about 20 s.
        """
        for delay in _DELAYS_SECONDS:
            time.sleep(delay)
            if self._try(client_id, keep_session):
                return True
        return False

    def _try(self, client_id: str, keep_session: bool) -> bool:
        answers: list[tuple[bool, bool]] = []

        def on_connect(_client: object, _data: object, flags: ConnectFlags, reason: ReasonCode, _: object) -> None:
            answers.append((not reason.is_failure, flags.session_present))

        client = Client(CallbackAPIVersion.VERSION2, client_id, protocol=MQTTProtocolVersion.MQTTv5)
        client.username_pw_set(self.username, self.password)
        client.connect_timeout = _TIMEOUT_SECONDS
        client.on_connect = on_connect
        try:
            if self.tls:
                client.tls_set(self.ca_file)
            expiry = _session_expiry(PacketTypes.CONNECT, keep_session)
            client.connect(self.host, self.port, keepalive=10, clean_start=False, properties=expiry)
        except OSError:
            return False
        # One packet at a time in this thread: packets after the CONNACK are not read, so no message is acknowledged.
        deadline = time.monotonic() + _TIMEOUT_SECONDS
        while not answers and time.monotonic() < deadline:
            if client.loop(0.1) is not MQTTErrorCode.MQTT_ERR_SUCCESS:
                break
        accepted, session_present = answers[0] if answers else (False, False)
        # If the device had no persistent session, this connection leaves none either.
        client.disconnect(properties=_session_expiry(PacketTypes.DISCONNECT, session_present and keep_session))
        return accepted


def _session_expiry(packet: int, kept: bool) -> Properties:
    properties = Properties(packet)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = _NEVER if kept else 0
    return properties


def takeover_broker(settings: Settings) -> TakeoverBroker | None:
    """Return the broker of `AUTHSVC_BROKER_URL`; None if it is not set."""
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
