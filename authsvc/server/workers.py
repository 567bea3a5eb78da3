"""Two kinds of worker process behind one address: those that answer brokers, and those that answer the API and pages.

Python runs one thread of a process at a time, so a page that takes its time would keep a broker waiting in the same
process. A connection is sorted by its first bytes: a broker worker accepts it and, unless they ask for a webhook, hands
the socket itself to an API worker, which serves it from then on. Either kind can answer every request, so whatever
comes later on a connection is answered where it is.
"""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress
from enum import Enum
from functools import cached_property
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

from gunicorn.asgi.protocol import ASGIProtocol
from gunicorn.workers.gasgi import ASGIWorker

if TYPE_CHECKING:
    from collections.abc import Iterable

    from authsvc.server.connection_limits import ConnectionLimits

# `/healthz` says whether brokers are answered, so it is asked where they are.
_KEPT = tuple(f"{method} {path}".encode() for method in ("POST", "PUT", "GET") for path in ("/auth/", "/healthz"))
_ENOUGH = max(map(len, _KEPT))
_UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
# Pages and lists may wait a little whenever a broker, or a device's login, wants the processor.
_API_NICENESS = 10
# Less than the arbiter gives us, who then kills whoever is left: what is yet to be written takes a moment too.
_GRACE_SECONDS = 1


class Kind(Enum):
    """Whom a worker answers."""

    BROKERS = "brokers"
    API = "api"


def hand_over_pair() -> tuple[socket.socket, socket.socket]:
    """Return the ends at which connections are handed over and taken; what nobody has taken yet waits in between."""
    giving, taking = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    giving.setblocking(False)
    taking.setblocking(False)
    return giving, taking


def missing(wanted: dict[Kind, int], living: Iterable[Kind]) -> Kind:
    """Return the kind of which there are the fewest, beside how many there should be."""
    present = list(living)
    return min(wanted, key=lambda kind: present.count(kind) / wanted[kind])


class Worker(ASGIWorker):  # type: ignore[misc]
    """One process of either kind; `kind`, `place` among its kind, both ends and `limits` are set before it serves."""

    kind: Kind
    place: int
    giving: socket.socket
    taking: socket.socket
    limits: ConnectionLimits[asyncio.BaseProtocol]

    def settle_in(self) -> None:
        """Take the priority of its kind; to be called before there is any thread, for each thread has its own."""
        self.cfg.set("graceful_timeout", _GRACE_SECONDS)
        if self.kind is Kind.API:
            os.nice(_API_NICENESS)

    def handle_exit_signal(self) -> None:
        """Stop serving, at once and not at the next look."""
        super().handle_exit_signal()
        self._told_to_stop.set()

    async def _serve(self) -> None:
        """Take connections until told to stop; in place of gunicorn's own, which serves all that it accepts."""
        if self.kind is Kind.API:
            self.loop.add_reader(self.taking, self._take)
        else:
            for listening in self.sockets:
                self.servers.append(await self.loop.create_server(lambda: FirstBytes(self), sock=listening.sock))
        while self.alive and self.ppid == os.getppid():
            self.notify()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._told_to_stop.wait(), 1.0)
        self.loop.remove_reader(self.taking)
        await self._shutdown()

    def _take(self) -> None:
        try:
            first, handed, _, _ = socket.recv_fds(self.taking, _ENOUGH, 1, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:  # another worker was faster
            return
        for descriptor in handed:
            begun = self.loop.create_task(self._go_on(first, socket.socket(fileno=descriptor)))
            self._begun.add(begun)
            begun.add_done_callback(self._begun.discard)

    async def _go_on(self, first: bytes, connection: socket.socket) -> None:
        connection.setblocking(False)
        with suppress(OSError):  # the client has gone
            address = connection.getpeername()[0]
            if self.limits.is_full or self.limits.is_full_for(address):
                connection.send(_UNAVAILABLE)
                connection.close()
                return
            protocol = Sorted(self, first)
            self.limits.add(protocol, address)
            try:
                await self.loop.connect_accepted_socket(lambda: protocol, connection)
            except OSError:
                self.limits.remove(protocol)

    @cached_property
    def _told_to_stop(self) -> asyncio.Event:
        return asyncio.Event()

    @cached_property
    def _begun(self) -> set[asyncio.Task[None]]:
        return set()  # the loop itself keeps no task alive


class FirstBytes(asyncio.BufferedProtocol):
    """A connection of which it is not known yet whom it wants: reads as much as tells, and not a byte more."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._buffer = bytearray(_ENOUGH)
        self._filled = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        limits = self._worker.limits
        if not peer or limits.is_full:  # without a peer it has ended already
            self._transport.write(_UNAVAILABLE)
            self._transport.close()
            return
        self._address = peer[0]
        if limits.is_full_for(self._address):
            # Not the new one is given up: it may be a broker's, which asks at once.
            cast("FirstBytes | Sorted", limits.oldest_of(self._address)).give_up()
        limits.add(self, self._address)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        """Count it no longer."""
        self._worker.limits.remove(self)

    def give_up(self) -> None:
        """End a connection that has not said anything for longer than others from its address."""
        self._worker.limits.remove(self)
        self._transport.abort()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's
        """Return where the next bytes go."""
        return memoryview(self._buffer)[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        """Sort the connection as soon as it can be."""
        self._filled += nbytes
        first = bytes(self._buffer[: self._filled])
        if first.startswith(_KEPT):
            self._keep(first)
        elif not any(start.startswith(first) for start in _KEPT):
            self._hand_over(first)

    def _keep(self, first: bytes) -> None:
        self._transport.pause_reading()
        protocol = Sorted(self._worker, first)
        limits = self._worker.limits
        limits.remove(self)
        limits.add(protocol, self._address)
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        self._transport.resume_reading()

    def _hand_over(self, first: bytes) -> None:
        connection = self._transport.get_extra_info("socket")
        try:
            socket.send_fds(self._worker.giving, [first], [connection.fileno()])
        except OSError:  # too many wait there to be taken
            self._transport.write(_UNAVAILABLE)
            self._transport.close()
        else:
            self._transport.abort()  # here, that is; the connection goes on there


class Sorted(ASGIProtocol):  # type: ignore[misc]
    """A connection of which the first bytes have been read already."""

    def __init__(self, worker: Worker, first: bytes) -> None:
        super().__init__(worker)
        self._first = first
        self._limits = worker.limits

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin with what was read."""
        super().connection_made(transport)
        self.data_received(self._first)

    def give_up(self) -> None:
        """Close a connection on which no webhook was allowed for longer than on others from its address."""
        self._limits.remove(self)
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Count it no longer."""
        self._limits.remove(self)
        super().connection_lost(exc)

    def _send_response_start(self, status: int, headers: Any, request: Any, close: bool = False) -> None:
        # A webhook is answered 200 only to a caller with the webhook secret: a broker has as many as it needs.
        if status == HTTPStatus.OK and request.path.startswith("/auth/"):
            self._limits.count_no_longer_for_address(self)
        super()._send_response_start(status, headers, request, close)
