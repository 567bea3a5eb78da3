"""One kept connection with one request in flight: how a broker asks, byte for byte, and how long it waits."""

from __future__ import annotations

import json
import socket
from time import perf_counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_END_OF_HEADERS = b"\r\n\r\n"


class BrokerConnection:
    """Asks as go-auth does."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def times(self, path: str, fields: Mapping[str, str | int], count: int) -> list[float]:
        """Ask the same `count` times, one after the other, and return the seconds each took, sorted."""
        request = _request(path, fields)
        times = []
        for _ in range(count):
            started = perf_counter()
            self._socket.sendall(request)
            status = self._read_answer()
            times.append(perf_counter() - started)
            if status != b"200":
                raise RuntimeError(f"{path} was answered {status.decode()}")
        return sorted(times)

    def _read_answer(self) -> bytes:
        received = b""
        while _END_OF_HEADERS not in received:
            received += self._receive()
        head, _, body = received.partition(_END_OF_HEADERS)
        _, _, rest = head.lower().partition(b"content-length:")
        length = int(rest.partition(b"\r\n")[0])
        while len(body) < length:
            body += self._receive()
        return head[9:12]

    def _receive(self) -> bytes:
        received = self._socket.recv(65_536)
        if not received:
            raise RuntimeError("the service closed a kept connection")
        return received


def _request(path: str, fields: Mapping[str, str | int]) -> bytes:
    body = json.dumps(fields, separators=(",", ":"), sort_keys=True).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: mosquitto-2.0.11\r\nContent-Length: {len(body)}\r\n"
        "Content-Type: application/json\r\nAccept-Encoding: gzip\r\n\r\n"
    )
    return head.encode() + body
