"""A TCP relay for tests: it forwards and counts connections, and can be cut."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Self


class Relay(ThreadingTCPServer):
    """Forwards bytes in both directions between its `port` and the target inside the `with` block."""

    daemon_threads = True

    def __init__(self, target_port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.target_port = target_port
        self.port: int = self.server_address[1]
        self.connections = 0
        self.closed = threading.Event()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Connection(BaseRequestHandler):
    server: Relay
    request: socket.socket

    def handle(self) -> None:
        self.server.connections += 1
        with socket.create_connection(("127.0.0.1", self.server.target_port)) as target:
            _pass_on(self.request, target)
        self.server.closed.set()


def _pass_on(first: socket.socket, second: socket.socket) -> None:
    """Forward bytes in both directions until either side ends."""
    with selectors.DefaultSelector() as selector, contextlib.suppress(ConnectionError):
        selector.register(first, selectors.EVENT_READ, second)
        selector.register(second, selectors.EVENT_READ, first)
        while True:
            for key, _ in selector.select():
                assert isinstance(key.fileobj, socket.socket)
                passed = key.fileobj.recv(65_536)
                if not passed:
                    return
                key.data.sendall(passed)
