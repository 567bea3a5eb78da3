"""Word to the workers that answer brokers that something has changed, and theirs that they know it.

A change is made in a worker that answers the API and must be in force in those that answer brokers when its answer
leaves. Who has made it sends each of them the writing end of one pipe; each catches up, writes a byte, and closes
its end. When the last one is closed the pipe ends, also when a worker has died with it.
"""

from __future__ import annotations

import mmap
import os
import socket
import threading
from contextlib import suppress
from select import POLLIN, poll
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

# Whoever is not there by then, perhaps because it is only just starting, follows by itself.
_PATIENCE_SECONDS = 0.8
_WORD = b"?"
_KNOWN = b"."


class Propagation:
    """The ways to so many listening workers, made before they are forked; with none there is nobody to wait for."""

    def __init__(self, listeners: int = 0) -> None:
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(listeners)]
        self._mouths = [mouth for mouth, _ in pairs]
        self._ears = [ear for _, ear in pairs]
        self._listening: list[threading.Thread] = []
        self._told: Hashable = None
        # Shared by all workers; a time of the monotonic clock for each place, which is the same in all processes.
        self._refreshed_at = memoryview(mmap.mmap(-1, 8 * max(listeners, 1))).cast("d")
        self._place: int | None = None
        for place in range(len(self._refreshed_at)):
            self._refreshed_at[place] = monotonic()
        for mouth in self._mouths:
            mouth.setblocking(False)

    def tell(self, version: Hashable) -> None:
        """Let all listeners catch up with a version, and wait until they have; not twice for the same one."""
        if version != self._told and self.all_catch_up():
            self._told = version

    def all_catch_up(self) -> bool:
        """Let all listeners catch up, and wait for a moment; False when one could not, or took too long."""
        hearing, saying = os.pipe()
        try:
            try:
                reached = [_reached(mouth, saying) for mouth in self._mouths]
            finally:
                os.close(saying)
            return all(reached) and _bytes_until_the_end(hearing) == len(reached)
        finally:
            os.close(hearing)

    @property
    def age(self) -> float:
        """Seconds since the listener that is furthest behind has refreshed its policy; 0 without listeners."""
        return monotonic() - min(self._refreshed_at) if self._ears else 0.0

    def report(self, refreshed_at: float) -> None:
        """Let the other workers know when this one, if it is a listener, has refreshed its policy."""
        if self._place is not None:
            self._refreshed_at[self._place] = refreshed_at

    def close(self) -> None:
        """Tell nobody any more, and let those that listen in this process end."""
        for mouth in self._mouths:
            mouth.close()
        for listening in self._listening:
            listening.join()
        for ear in self._ears:
            ear.close()

    def listen(self, place: int, catch_up: Callable[[], object]) -> None:
        """Catch up whenever there is word, from now on and in a thread; the place is the listener's own."""
        self._place = place
        listening = threading.Thread(
            target=_listen, args=(self._ears[place], catch_up), name="propagation", daemon=True
        )
        self._listening.append(listening)
        listening.start()


def _listen(ear: socket.socket, catch_up: Callable[[], object]) -> None:
    while True:
        word, ends, _, _ = socket.recv_fds(ear, len(_WORD), 1, socket.MSG_CMSG_CLOEXEC)
        if not word:
            return
        known = _succeeds(catch_up)
        for saying in ends:
            with suppress(BrokenPipeError):  # whoever asked has gone
                os.write(saying, _KNOWN if known else b"")
            os.close(saying)


def _succeeds(catch_up: Callable[[], object]) -> bool:
    try:
        catch_up()
    except Exception:  # noqa: BLE001 - whatever it is, the thread in the background meets it too, and tells
        return False
    return True


def _reached(mouth: socket.socket, saying: int) -> bool:
    try:
        socket.send_fds(mouth, [_WORD], [saying])
    except OSError:  # so much word is waiting there that one more would be no news
        return False
    return True


def _bytes_until_the_end(hearing: int) -> int:
    """Return how many bytes came before the end; when none comes in time, those that came so far."""
    deadline, count = monotonic() + _PATIENCE_SECONDS, 0
    waiting = poll()
    waiting.register(hearing, POLLIN)
    while waiting.poll(max(0.0, deadline - monotonic()) * 1000):
        received = os.read(hearing, 64)
        if not received:
            break
        count += len(received)
    return count
