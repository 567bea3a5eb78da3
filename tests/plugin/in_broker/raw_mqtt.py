"""MQTT 3.1.1 by hand: many connections at little cost, and packets that no client library would send."""

from __future__ import annotations

import socket
import time

PINGREQ, PINGRESP = b"\xc0\x00", b"\xd0\x00"
ACCEPTED = b"\x20\x02\x00\x00"


def field(text: bytes) -> bytes:
    return len(text).to_bytes(2, "big") + text


def packet(kind: int, body: bytes) -> bytes:
    """Return an MQTT packet with its length in front."""
    length, left = b"", len(body)
    while True:
        left, digit = divmod(left, 128)
        length += bytes([digit | (0x80 if left else 0)])
        if not left:
            return bytes([kind]) + length + body


def connect_packet(client_id: str, username: bytes | None = None, password: bytes | None = None) -> bytes:
    """Return a CONNECT with a clean session and without keepalive."""
    flags = 0x02 | (0x80 if username is not None else 0) | (0x40 if password is not None else 0)
    body = field(b"MQTT") + bytes([4, flags, 0, 0]) + field(client_id.encode())
    for given in (username, password):
        body += field(given) if given is not None else b""
    return packet(0x10, body)


def publish_packet(topic: bytes) -> bytes:
    return packet(0x30, field(topic))


class RawClient:
    """One connection; nothing is sent or read unless it is asked for."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def read(self, count: int) -> bytes:
        """Return this many bytes, or fewer if the broker ends the connection."""
        received = b""
        while len(received) < count:
            try:
                more = self.socket.recv(count - len(received))
            except ConnectionError:
                break
            if not more:
                break
            received += more
        return received

    def login(self, client_id: str, username: bytes | None = None, password: bytes | None = b"secret") -> int | None:
        """Connect and return the code of the CONNACK, None if there was none."""
        self.send(connect_packet(client_id, username, password))
        answer = self.read(4)
        return answer[3] if len(answer) == 4 else None

    def ping(self) -> float:
        """Return the seconds until a PINGREQ is answered."""
        began = time.monotonic()
        self.send(PINGREQ)
        assert self.read(2) == PINGRESP
        return time.monotonic() - began

    def close(self) -> None:
        self.socket.close()


def login_code(port: int, client_id: str, username: bytes | None, password: bytes | None) -> int | None:
    """Return what a broker answers to one login, which ends at once."""
    client = RawClient(port)
    try:
        return client.login(client_id, username, password)
    finally:
        client.close()
