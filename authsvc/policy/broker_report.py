"""What a broker's plugin reports about the clients that are connected to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from datetime import datetime


class ConnectedClient(NamedTuple):
    """One connection of an MQTT client.

    `number` is unique for one start of the broker. `address` is None if the broker does not know it. `credential` is
    `password`, `token` or `certificate`.
    """

    number: int
    username: str
    client_id: str
    address: str | None
    protocol: str
    since: datetime
    credential: str


class BrokerReport(NamedTuple):
    """The connections of one broker that have begun and ended since its last report.

    `boot` identifies one start of the broker. A report of a greater `generation` than before replaces everything that
    was reported with this `boot`: the plugin reports all connections again after each gap.
    """

    boot: str
    name: str
    plugin_version: str
    generation: int
    connected: tuple[ConnectedClient, ...] = ()
    disconnected: tuple[int, ...] = ()
