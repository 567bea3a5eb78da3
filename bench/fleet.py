"""A thousand devices that reconnect at once, and a connected device that measures the delay of its PINGs."""

from __future__ import annotations

import random
from itertools import islice
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

from bench import wire

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_PING_EVERY = 0.02
# Mosquitto's backlog. Beyond it the kernel drops a SYN, which is repeated a second later.
_NOT_YET_ACCEPTED = 100
_TRIES_AGAIN_AFTER = (0.8, 1.2)  # seconds after a refusal, as client libraries do


class Storm(NamedTuple):
    """The result of a storm: seconds until all devices are connected, the longest PING delay, and refusals."""

    all_in: float
    longest_stall: float
    refused: int


class PingingDevice:
    """Sends a PINGREQ every 20 ms and records the longest time without an answer."""

    def __init__(self, fleet: wire.Fleet, client: wire.Client) -> None:
        self.longest_stall = 0.0
        self.alive = True
        self._fleet = fleet
        self._client = client
        self._asked_at: float | None = None
        client.on_packet = self._answered
        client.on_end = self._ended
        self._ask()

    def _ask(self) -> None:
        if self.alive:
            self._asked_at = perf_counter()
            self._client.send(wire.PING)

    def _answered(self, packet: wire.Packet) -> None:
        if packet.kind == wire.PINGRESP and self._asked_at is not None:
            self.longest_stall = max(self.longest_stall, perf_counter() - self._asked_at)
            self._asked_at = None
            self._fleet.later(_PING_EVERY, self._ask)

    def _ended(self) -> None:
        self.alive = False

    def stalled(self) -> float:
        """Return the longest delay so far, including a PING that is not answered yet."""
        waiting = perf_counter() - self._asked_at if self._asked_at is not None else 0.0
        return max(self.longest_stall, waiting)


class Device:
    """Connects, and retries after each refusal or lost connection."""

    def __init__(self, fleet: wire.Fleet, username: str, password: str, first_answer: Callable[[], None]) -> None:
        self._on_answer = first_answer
        self.is_in = False
        self.refused = 0
        self._fleet = fleet
        self._packet = wire.connect_packet(username, username, password)

    def connect(self) -> None:
        """Connect, and retry until it is accepted."""
        self._client = self._fleet.client()
        self._client.on_packet = self._answered
        self._client.on_end = self._try_again
        self._client.send(self._packet)

    def close(self) -> None:
        """Disconnect without retrying."""
        self._client.close()

    def _answered(self, packet: wire.Packet) -> None:
        if packet.kind != wire.CONNACK:
            return
        self._on_answer()
        self._on_answer = _nothing
        self.is_in = packet.body[1] == 0
        if not self.is_in:
            self._client.close()
            self._try_again()

    def _try_again(self) -> None:
        self.is_in = False
        self.refused += 1
        self._fleet.later(random.uniform(*_TRIES_AGAIN_AFTER), self.connect)


def _nothing() -> None:
    pass


def storm(fleet: wire.Fleet, pinging_device: PingingDevice, credentials: Mapping[str, str], patience: float) -> Storm:
    """Connect devices with these passwords by username at once, wait for all, and disconnect them."""
    fleet.run(0.1)  # read the answers that arrived in between
    pinging_device.longest_stall = 0.0
    devices: list[Device] = []
    coming = iter(devices)

    def next_comes() -> None:
        for device in islice(coming, 1):
            device.connect()

    devices += [Device(fleet, username, password, next_comes) for username, password in credentials.items()]
    started = perf_counter()
    for _ in range(_NOT_YET_ACCEPTED):
        next_comes()
    # The last ones first: while they are not in, this asks about few of thousands.
    all_in = fleet.run(patience, lambda: all(device.is_in for device in reversed(devices)))
    taken = perf_counter() - started
    outcome = Storm(
        taken if all_in else float("inf"), pinging_device.stalled(), sum(device.refused for device in devices)
    )
    for device in devices:
        device.close()
    if not pinging_device.alive:
        raise RuntimeError("the pinging_device lost its session")
    return outcome
