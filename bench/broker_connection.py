"""A kept broker connection with one request in flight, and its response times."""

from __future__ import annotations

import json
import socket
from time import perf_counter, sleep
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_END_OF_HEADERS = b"\r\n\r\n"


class BrokerConnection:
    """Sends go-auth's requests on one connection, or with `kept=False` on a new connection each time."""

    def __init__(self, port: int, *, kept: bool = True) -> None:
        self._port = port
        self._kept = kept
        self._socket = _connected(port)

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def times(self, requests: Iterable[bytes]) -> list[float]:
        """Send requests one after the other, all of which must be allowed; return the seconds of each."""
        times = []
        for request in requests:
            started = perf_counter()
            if not self._kept:
                self._reconnect()
            self._socket.sendall(request)
            status = self._read_answer()
            times.append(perf_counter() - started)
            if status != b"200":
                raise RuntimeError(f"answered {status.decode()}: {request.decode()}")
        return times

    def warm(self, request: bytes) -> None:
        """Repeat a request until it is allowed, because a first login may be refused while its hash is computed."""
        for _ in range(100):
            if self.status(request) == b"200":
                return
            sleep(0.05)
        raise RuntimeError(f"never allowed: {request.decode()}")

    def status(self, request: bytes) -> bytes:
        """Send one request and return the status of its answer."""
        self._socket.sendall(request)
        return self._read_answer()

    def _reconnect(self) -> None:
        self._socket.close()
        self._socket = _connected(self._port)

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


def acl_request(username: str, topic: str, acc: int = 2) -> bytes:
    """Return an ACL request of a client whose id is its username."""
    return post("/auth/acl", {"acc": acc, "clientid": username, "topic": topic, "username": username})


def user_request(username: str, password: str, client_id: str | None = None) -> bytes:
    """Return a login request; the client id is the username by default."""
    return post("/auth/user", {"clientid": client_id or username, "password": password, "username": username})


def _connected(port: int) -> socket.socket:
    connected = socket.create_connection(("127.0.0.1", port), timeout=60)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connected


def post(path: str, fields: Mapping[str, str | int]) -> bytes:
    """Return go-auth's POST request with these fields as JSON."""
    body = json.dumps(fields, separators=(",", ":"), sort_keys=True).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: mosquitto-2.0.11\r\nContent-Length: {len(body)}\r\n"
        "Content-Type: application/json\r\nAccept-Encoding: gzip\r\n\r\n"
    )
    return head.encode() + body
