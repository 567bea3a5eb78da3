"""The service as a client of the broker, connecting under somebody's client id so that the broker ends that session."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

if TYPE_CHECKING:
    from authsvc.settings import Settings

# Our own login may take a hash, and the broker a moment, before it succeeds.
_PAUSES_SECONDS = (0.0, 0.3, 0.6)
_PATIENCE_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Broker:
    """Where the broker is and as which user of its we may connect; the user needs no permission at all."""

    host: str
    port: int
    username: str
    password: str
    tls: bool
    ca_file: str | None

    def __repr__(self) -> str:
        return f"Broker({self.host!r}, {self.port})"

    def take_over(self, client_id: str) -> bool:
        """Connect under the client id and leave at once; say whether the broker let us in, which ends the session."""
        for pause in _PAUSES_SECONDS:
            time.sleep(pause)
            if self._try(client_id):
                return True
        return False

    def _try(self, client_id: str) -> bool:
        answered = threading.Event()
        accepted = []
        client = Client(
            CallbackAPIVersion.VERSION2, client_id, clean_session=True, protocol=MQTTProtocolVersion.MQTTv311
        )
        client.username_pw_set(self.username, self.password)

        def on_connect(_client: object, _data: object, _flags: object, reason: object, _properties: object) -> None:
            accepted.append(not getattr(reason, "is_failure", True))
            answered.set()

        client.on_connect = on_connect
        try:
            if self.tls:
                client.tls_set(self.ca_file)
            client.connect(self.host, self.port, keepalive=10)
        except OSError:
            return False
        client.loop_start()
        answered.wait(_PATIENCE_SECONDS)
        client.disconnect()
        client.loop_stop()
        return bool(accepted and accepted[0])


def broker_under(settings: Settings) -> Broker | None:
    """Return the broker that the settings name, or None."""
    if settings.broker_url is None:
        return None
    parts = urlsplit(settings.broker_url)
    tls = parts.scheme == "mqtts"
    return Broker(
        host=parts.hostname or "",
        port=parts.port or (8883 if tls else 1883),
        username=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        tls=tls,
        ca_file=settings.broker_ca_file,
    )
