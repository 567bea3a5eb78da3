"""A minimal MQTT broker that records CONNECT packets and accepts or refuses them."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

ACCEPTED, NOT_AUTHORIZED = 0, 0x87
_CONNECT = 0x10


class ConnectPacket(NamedTuple):
    """The fields of an MQTT 5 CONNECT packet that tests check."""

    client_id: str
    username: str
    password: str
    clean_start: bool
    expiry: int


class FakeBroker:
    """Answers each CONNECT packet with the reason code that `answer` returns, and records it in `connects`."""

    def __init__(self, answer: Callable[[ConnectPacket], int] = lambda _: ACCEPTED) -> None:
        self.connects: list[ConnectPacket] = []
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    @property
    def url(self) -> str:
        """What `AUTHSVC_BROKER_URL` is to be."""
        return f"mqtt://authsvc-sessions:se%2Fcret@127.0.0.1:{self.port}"

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as stream:
                connect = _read(stream)
                self.connects.append(connect)
                connection.sendall(bytes([0x20, 3, 0, self._answer(connect), 0]))
                while stream.read(1):  # until it leaves
                    pass


def _read(stream: BinaryIO) -> ConnectPacket:
    assert stream.read(1)[0] == _CONNECT
    _read_length(stream)
    assert _read_text(stream) == "MQTT"
    _level, flags, *_keep_alive = stream.read(4)
    properties = stream.read(stream.read(1)[0])
    expiry = int.from_bytes(properties[1:5], "big") if properties[:1] == b"\x11" else 0
    return ConnectPacket(_read_text(stream), _read_text(stream), _read_text(stream), bool(flags & 2), expiry)


def _read_length(stream: BinaryIO) -> None:
    while stream.read(1)[0] & 0x80:
        pass


def _read_text(stream: BinaryIO) -> str:
    length = int.from_bytes(stream.read(2), "big")
    return stream.read(length).decode()
