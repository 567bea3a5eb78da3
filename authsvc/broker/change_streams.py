"""Change streams: each plugin holds one connection, on which it is told at once what the policy changed."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from authsvc.broker.plugin_protocol import change_lines, disconnect_lines, everything_line, heartbeat_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from authsvc.policy.snapshot import CurrentPolicy, SnapshotChange

HEARTBEAT_SECONDS = 1.0
MAX_WAITING = 5000
"""Names of users and roles that wait for a slow plugin; beyond that it has to ask for everything again."""
_MAX_WAITING_DISCONNECTS = 10_000


class ChangeStream:
    """What one plugin has not been told yet. All methods run in the event loop."""

    def __init__(self, boot: str, revision: int) -> None:
        self.boot = boot
        self._revision = revision
        self._woken = asyncio.Event()
        self._everything = False
        self._users: set[str] = set()
        self._roles: set[str] = set()
        self._disconnects: set[int] = set()

    def add(self, change: SnapshotChange) -> None:
        """Let the next lines say what changed."""
        self._revision = change.revision
        self._users |= change.users
        self._roles |= change.roles
        self._everything |= change.everything or len(self._users) + len(self._roles) > MAX_WAITING
        if self._everything:
            self._users.clear()
            self._roles.clear()
        self._add_disconnects(change.clients)
        if self._everything or self._users or self._roles or self._disconnects:
            self.wake()

    def _add_disconnects(self, clients: frozenset[str]) -> None:
        for client in clients:
            boot, _, number = client.partition("/")
            if boot == self.boot and number.isdecimal() and len(self._disconnects) < _MAX_WAITING_DISCONNECTS:
                self._disconnects.add(int(number))

    def wake(self) -> None:
        """Let `next_lines` return at once."""
        self._woken.set()

    async def next_lines(self) -> bytes:
        """Return the lines to send next: as soon as there is a change, and a heartbeat after a second without one."""
        with suppress(TimeoutError):
            async with asyncio.timeout(HEARTBEAT_SECONDS):
                await self._woken.wait()
        self._woken.clear()
        told = everything_line(self._revision) if self._everything else b""
        told += change_lines(self._revision, self._users, self._roles) + disconnect_lines(self._disconnects)
        self._everything = False
        for waiting in (self._users, self._roles, self._disconnects):
            waiting.clear()
        return told + heartbeat_line(self._revision)


class ChangeStreams:
    """The open change streams of this process."""

    def __init__(self, policy: CurrentPolicy) -> None:
        self._policy = policy
        self._streams: set[ChangeStream] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        policy.subscribe(self._schedule)

    @contextmanager
    def open(self, boot: str) -> Iterator[ChangeStream]:
        """Yield a new stream for one start of a broker; call it in the event loop, which must stay the same."""
        self._loop = asyncio.get_running_loop()
        stream = ChangeStream(boot, self._policy.snapshot.revision)
        self._streams.add(stream)
        try:
            yield stream
        finally:
            self._streams.discard(stream)

    def _schedule(self, change: SnapshotChange) -> None:
        """Pass a change on to the event loop; called in the thread that has replaced the snapshot."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed: the process ends
                self._loop.call_soon_threadsafe(self._distribute, change)

    def _distribute(self, change: SnapshotChange) -> None:
        for stream in self._streams:
            stream.add(change)
