"""What clients may hold of a listener: how many connections, and for how long without a complete request.

gunicorn closes an idle connection only after its first request, and limits connections neither in total nor per
address. These limits are kept one level lower: the event loop wraps the protocol of every connection that a server
accepts. asyncio's event loop policy is the public way to choose the loop, so gunicorn is used as it is (ADR 8).
"""

from __future__ import annotations

import asyncio
import resource
import socket
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import uvloop

from authsvc.addresses import is_within, network_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from authsvc.addresses import Network

    Client = tuple[str, int]

_SWEEP_SECONDS = 1.0
# How long requests may still take when their server closes. Brokers' idle connections must not make gunicorn wait
# longer: it would kill the process before it has written down what it knows.
_LAST_ANSWERS_SECONDS = 2.0
_UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
# A client that vanished without closing its connection is noticed after 60 + 3 x 20 seconds.
_TCP_KEEP_ALIVE = {socket.TCP_KEEPIDLE: 60, socket.TCP_KEEPINTVL: 20, socket.TCP_KEEPCNT: 3}
# More than a service needs, and few enough that what the kernel reserves for each descriptor costs nothing.
_MOST_DESCRIPTORS = 65_536
# Logs, metrics, sockets between processes, and connections that the kernel accepted before they could be refused.
_RESERVED = 192
# SQLite opens three files for each connection to the database.
_RESERVED_FOR_EACH_THREAD = 4


def raise_descriptor_limit() -> None:
    """Raise this process's soft limit of file descriptors to its hard limit, at most to 65,536."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _bounded(hard)
    if _bounded(soft) < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def most_connections(threads: int) -> int:
    """Return how many connections a process with this many threads may hold under its limit of file descriptors."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    descriptors = _bounded(soft)
    return max(descriptors - _RESERVED - _RESERVED_FOR_EACH_THREAD * threads, descriptors // 2)


def _bounded(limit: int) -> int:
    return _MOST_DESCRIPTORS if limit == resource.RLIM_INFINITY else min(limit, _MOST_DESCRIPTORS)


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Connections in total and per address; addresses in `exempt` count towards the total only.

    If an address has reached its limit, a listener that `evicts` closes the oldest connection of that address, any
    other refuses the new one. A connection is closed if it sends nothing for `first_byte_seconds`, or if a request is
    not complete `whole_request_seconds` after its first byte.
    """

    in_total: int
    per_address: int
    exempt: tuple[Network, ...] = ()
    evicts: bool = False
    first_byte_seconds: float = 10.0
    whole_request_seconds: float = 30.0


class Connections:
    """The open connections of one process, by the client's address and port.

    A trusted connection has no deadline and counts towards the total only, until the sweep after its end.
    """

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self._open: dict[Client, LimitedConnection] = {}
        self._trusted: dict[Client, asyncio.Transport] = {}
        self._of_network: defaultdict[str, dict[Client, None]] = defaultdict(dict)

    def request_began(self, client: Client) -> None:
        """Start the deadline of a request that arrived behind another one, before that was complete."""
        connection = self._open.get(client)
        if connection is not None:
            connection.start_deadline()

    def request_complete(self, client: Client) -> None:
        """Stop the deadline of a connection: its request has arrived as a whole."""
        connection = self._open.get(client)
        if connection is not None:
            connection.due = None

    def close(self, client: Client) -> None:
        """Close a connection when its answer has been written."""
        connection = self._open.get(client)
        transport = self._trusted.get(client) if connection is None else connection.transport
        if transport is not None:
            transport.close()

    def trust(self, client: Client) -> None:
        """Take every limit but the total off a connection: its client proved to be a broker.

        gunicorn's protocol takes the connection over, so a broker's requests pass through no code of this module.
        """
        connection = self._open.get(client)
        if connection is not None:
            self.remove(client)
            self._trusted[client] = connection.transport
            connection.transport.set_protocol(connection.inner)

    def admit(self, connection: LimitedConnection) -> bool:
        """Count a new connection; return False if it has to be refused."""
        client = connection.client
        network = network_of(client[0])
        if len(self._open) + len(self._trusted) >= self.limits.in_total:
            return False
        counted = self._of_network.get(network, {})
        if len(counted) >= self.limits.per_address and not is_within(client[0], self.limits.exempt):
            if not self.limits.evicts:
                return False
            oldest = self._open[next(iter(counted))]
            self.remove(oldest.client)
            oldest.transport.abort()
        self._open[client] = connection
        self._of_network[network][client] = None
        return True

    def remove(self, client: Client) -> None:
        """Forget a connection that has ended; one that was never counted is no error."""
        if self._open.pop(client, None) is not None:
            network = network_of(client[0])
            counted = self._of_network[network]
            counted.pop(client, None)
            if not counted:
                del self._of_network[network]

    def sweep(self, now: float) -> None:
        """Close every connection whose deadline has passed, and forget the trusted ones that have ended."""
        for connection in [each for each in self._open.values() if each.due is not None and each.due <= now]:
            connection.transport.abort()
        for client in [each for each, transport in self._trusted.items() if transport.is_closing()]:
            del self._trusted[client]

    def close_all(self) -> None:
        """Close every connection."""
        for transport in [*(each.transport for each in self._open.values()), *self._trusted.values()]:
            transport.abort()


class LimitedConnection(asyncio.Protocol):
    """A connection that passes everything on to gunicorn's protocol; `due` is its deadline by the loop's clock."""

    transport: asyncio.Transport
    client: Client

    def __init__(self, inner: asyncio.Protocol, connections: Connections, clock: Callable[[], float]) -> None:
        self.inner = inner
        self._connections = connections
        self._clock = clock
        self._admitted = False
        self._silent = True
        self.due: float | None = clock() + connections.limits.first_byte_seconds

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, or refuse the connection with 503 if there are too many."""
        self.transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        if not peer:  # ended already
            self.transport.abort()
            return
        self.client = (peer[0], peer[1])
        self._admitted = self._connections.admit(self)
        if not self._admitted:
            self.transport.write(_UNAVAILABLE)
            self.transport.close()
            return
        connected = transport.get_extra_info("socket")
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _TCP_KEEP_ALIVE.items():
            connected.setsockopt(socket.IPPROTO_TCP, option, value)
        self.inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Start the deadline of a request with its first byte."""
        if not self._admitted:
            return
        if self._silent:
            self._silent = False
            self.due = None
        self.start_deadline()
        self.inner.data_received(data)

    def start_deadline(self) -> None:
        """Give a request its time to become complete, unless that runs already."""
        if self.due is None:
            self.due = self._clock() + self._connections.limits.whole_request_seconds

    def eof_received(self) -> bool | None:
        """Pass it on."""
        return self.inner.eof_received() if self._admitted else None

    def pause_writing(self) -> None:
        """Pass it on."""
        if self._admitted:
            self.inner.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on."""
        if self._admitted:
            self.inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        if self._admitted:
            self._connections.remove(self.client)
            self.inner.connection_lost(exc)


class LimitedServer:
    """A server that calls `on_close` when it is closed."""

    def __init__(self, inner: asyncio.AbstractServer, on_close: Callable[[], object]) -> None:
        self._inner = inner
        self._on_close = on_close

    def close(self) -> None:
        """Stop accepting connections."""
        self._inner.close()
        self._on_close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class LimitedLoop(uvloop.Loop):
    """An event loop whose servers keep the limits of `connections`."""

    connections: Connections

    async def create_server(self, protocol_factory: Any, *args: Any, **options: Any) -> Any:
        """Create a server as asyncio does, and limit each of its connections."""

        def limited() -> LimitedConnection:
            return LimitedConnection(protocol_factory(), self.connections, self.time)

        self._sweep()
        server = await super().create_server(limited, *args, **options)
        return LimitedServer(server, lambda: self.call_later(_LAST_ANSWERS_SECONDS, self.connections.close_all))

    def _sweep(self) -> None:
        self.connections.sweep(self.time())
        self.call_later(_SWEEP_SECONDS, self._sweep)


class LimitedLoopPolicy(asyncio.DefaultEventLoopPolicy):
    """Makes event loops that keep these limits."""

    def __init__(self, connections: Connections) -> None:
        super().__init__()
        self._connections = connections

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        """Return a new loop."""
        loop = LimitedLoop()
        loop.connections = self._connections
        return cast("asyncio.AbstractEventLoop", loop)
