"""A minimal MQTT 3.1.1 client: many clients in one thread, without the overhead of a client library."""

from __future__ import annotations

import heapq
import itertools
import selectors
import socket
import struct
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Callable

    Condition = Callable[[], bool]

CONNACK, PUBLISH, PUBACK, SUBACK, PINGRESP = 2, 3, 4, 9, 13
_CONNECT, _SUBSCRIBE, _PINGREQ, _DISCONNECT = 1, 8, 12, 14
_READ = 256 * 1024


class Packet(NamedTuple):
    """A packet of the broker: its type, four flag bits and body."""

    kind: int
    flags: int
    body: bytes


def connect_packet(client_id: str, username: str, password: str, keep_alive: int = 60) -> bytes:
    """Return a CONNECT with a clean session."""
    body = _text("MQTT") + struct.pack("!BBH", 4, 0b1100_0010, keep_alive)
    return _packet(_CONNECT, 0, body + _text(client_id) + _text(username) + _text(password))


def subscribe_packet(packet_id: int, topic_filter: str, qos: int = 0) -> bytes:
    """Return a SUBSCRIBE to one filter."""
    return _packet(_SUBSCRIBE, 0b0010, struct.pack("!H", packet_id) + _text(topic_filter) + bytes([qos]))


def publish_packet(topic: str, payload: bytes, packet_id: int | None = None) -> bytes:
    """Return a PUBLISH of QoS 1 with a packet id, of QoS 0 without."""
    identified = b"" if packet_id is None else struct.pack("!H", packet_id)
    return _packet(PUBLISH, 0 if packet_id is None else 0b0010, _text(topic) + identified + payload)


def puback_packet(packet_id: int) -> bytes:
    """Return a PUBACK."""
    return _packet(PUBACK, 0, struct.pack("!H", packet_id))


PING = bytes([_PINGREQ << 4, 0])
DISCONNECT = bytes([_DISCONNECT << 4, 0])


def split(received: bytes) -> tuple[list[Packet], bytes]:
    """Return the complete packets and the remaining bytes."""
    packets, begin = [], 0
    while (head := _head(received, begin)) is not None:
        start, end = head
        if end > len(received):
            break
        packets.append(Packet(received[begin] >> 4, received[begin] & 0x0F, received[start:end]))
        begin = end
    return packets, received[begin:]


def packet_id_of(publish: Packet) -> int | None:
    """Return the packet id of a PUBLISH; a PUBLISH of QoS 0 has none."""
    if not publish.flags & 0b0110:
        return None
    after_topic = 2 + int.from_bytes(publish.body[:2])
    return int.from_bytes(publish.body[after_topic : after_topic + 2])


class Client:
    """One connection. `on_packet` is called with each packet, `on_end` once if the broker ends the connection."""

    def __init__(self, fleet: Fleet, port: int) -> None:
        self.on_packet: Callable[[Packet], None] = lambda _: None
        self.on_end: Callable[[], None] = lambda: None
        self._fleet = fleet
        self._unread = b""
        self._unsent = b""
        self._socket = socket.socket()
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.connect_ex(("127.0.0.1", port))
        self._watched = selectors.EVENT_READ | selectors.EVENT_WRITE
        fleet.selector.register(self._socket, self._watched, self)

    def send(self, packets: bytes) -> None:
        """Send as soon as the socket is writable."""
        self._unsent += packets
        self._write()

    def close(self) -> None:
        """Close the connection without DISCONNECT; `on_end` is not called."""
        if self._socket.fileno() >= 0:
            self._fleet.selector.unregister(self._socket)
            self._socket.close()

    def ready(self, events: int) -> None:
        """Read and write as far as possible; called by the fleet."""
        if events & selectors.EVENT_WRITE:
            self._write()
        if events & selectors.EVENT_READ and self._socket.fileno() >= 0:
            self._read()

    def _read(self) -> None:
        try:
            received = self._socket.recv(_READ)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        if not received:
            self._end()
            return
        packets, self._unread = split(self._unread + received)
        for packet in packets:
            self.on_packet(packet)

    def _write(self) -> None:
        try:
            sent = self._socket.send(self._unsent) if self._unsent else 0
        except (BlockingIOError, BrokenPipeError):  # not connected yet, full, or closed, which the next read reports
            sent = 0
        except OSError:
            self._end()
            return
        self._unsent = self._unsent[sent:]
        self._watch(selectors.EVENT_READ | (selectors.EVENT_WRITE if self._unsent else 0))

    def _watch(self, events: int) -> None:
        if events != self._watched and self._socket.fileno() >= 0:
            self._fleet.selector.modify(self._socket, events, self)
            self._watched = events

    def _end(self) -> None:
        self.close()
        self.on_end()


class Fleet:
    """Clients that share one thread; they send and receive only inside `run`."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.selector = selectors.DefaultSelector()
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close_all()
        self.selector.close()

    def close_all(self) -> None:
        """Close all connections and drop all scheduled actions."""
        self._due.clear()
        for key in list(self.selector.get_map().values()):
            key.data.close()

    def client(self) -> Client:
        """Start a connection; packets sent before it is established wait."""
        return Client(self, self.port)

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Schedule an action in `seconds` seconds, within `run`."""
        heapq.heappush(self._due, (perf_counter() + seconds, next(self._count), action))

    def run(self, seconds: float, until: Condition = lambda: False) -> bool:
        """Let all clients send and receive until the condition is true or the time is over; return the condition."""
        deadline = perf_counter() + seconds
        while not until():
            now = perf_counter()
            if now >= deadline:
                return False
            for key, events in self.selector.select(min(deadline, self._due[0][0] if self._due else deadline) - now):
                key.data.ready(events)
            self._act()
        return True

    def _act(self) -> None:
        while self._due and self._due[0][0] <= perf_counter():
            heapq.heappop(self._due)[2]()

    def logged_in(self, client_id: str, username: str, password: str) -> Client:
        """Return a connected client; raise `ConnectionRefusedError` if the broker refuses it."""
        client, answers = self.client(), list[int]()
        client.on_packet = lambda packet: answers.append(packet.body[1])
        client.on_end = lambda: answers.append(-1)
        client.send(connect_packet(client_id, username, password))
        self.run(30, lambda: bool(answers))
        if answers != [0]:
            raise ConnectionRefusedError(f"{username} was answered {answers}")
        client.on_packet, client.on_end = lambda _: None, lambda: None
        return client

    def logged_in_after_retries(self, username: str, password: str) -> Client:
        """Return a connected client; retry, because a first login may be refused while its hash is computed."""
        for _ in range(20):
            try:
                return self.logged_in(username, username, password)
            except ConnectionRefusedError:
                self.run(0.5)
        raise ConnectionRefusedError(f"{username} was never accepted")


def _packet(kind: int, flags: int, body: bytes) -> bytes:
    return bytes([kind << 4 | flags]) + _length(len(body)) + body


def _text(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("!H", len(encoded)) + encoded


def _length(length: int) -> bytes:
    """Return the encoded remaining length: seven bits per byte, the highest bit means that more bytes follow."""
    encoded = bytearray()
    while True:
        length, low = divmod(length, 128)
        encoded.append(low | (0x80 if length else 0))
        if not length:
            return bytes(encoded)


def _head(received: bytes, begin: int) -> tuple[int, int] | None:
    """Return the start and end of the body of the packet at `begin`, or None if its header is incomplete."""
    length = 0
    for place in range(4):
        at = begin + 1 + place
        if at >= len(received):
            return None
        length |= (received[at] & 0x7F) << 7 * place
        if not received[at] & 0x80:
            return at + 1, at + 1 + length
    raise ValueError("a remaining length of five bytes")
