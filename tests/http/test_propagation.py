"""Notifications of a policy change between processes, over Unix sockets in one directory."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from authsvc.storage.propagation import Propagation
from tests.http.wire import stopped_process, within

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """The directory of the sockets; its path is longer than the address of a socket may be."""
    return tmp_path / ("long" * 30) / "run"


@pytest.fixture
def changing(directory: Path) -> Propagation:
    """The propagation of the process that makes changes."""
    return Propagation(directory)


class Broker:
    """A broker process simulated by a thread; it counts its reloads."""

    def __init__(self, directory: Path, *, fails: bool = False) -> None:
        self.reloads = 0
        self.may_reload = threading.Event()
        self.may_reload.set()
        self.propagation = Propagation(directory)
        self._fails = fails
        self.propagation.listen(self._reload)

    def _reload(self) -> None:
        self.may_reload.wait()
        if self._fails:
            raise OSError("no database")
        self.reloads += 1


@pytest.fixture
def starts(directory: Path) -> Iterator[Callable[..., Broker]]:
    """Start broker processes, which end after the test."""
    started: list[Broker] = []

    def start(*, fails: bool = False) -> Broker:
        started.append(Broker(directory, fails=fails))
        return started[-1]

    yield start
    for broker in started:
        broker.may_reload.set()
        broker.propagation.close()


def _serve(directory: Path) -> None:
    Propagation(directory).listen(lambda: None)
    signal.pause()


@contextmanager
def process(directory: Path) -> Iterator[int]:
    """Run a broker process of its own, and yield its id when it listens."""
    before = len(sockets(directory))
    child = multiprocessing.get_context("spawn").Process(target=_serve, args=(directory,))
    child.start()
    assert child.pid
    try:
        assert within(60, lambda: len(sockets(directory)) > before)
        yield child.pid
    finally:
        child.kill()
        child.join()


def sockets(directory: Path) -> list[Path]:
    return list(directory.glob("*.sock"))


def seconds(work: Callable[[], object]) -> float:
    begun = time.monotonic()
    work()
    return time.monotonic() - begun


def test_all_have_reloaded_if_there_is_no_broker_process(changing: Propagation) -> None:
    assert changing.all_reloaded()
    assert changing.age == 0.0


def test_every_broker_process_has_reloaded_when_the_notification_returns(
    changing: Propagation, starts: Callable[..., Broker]
) -> None:
    brokers = [starts() for _ in range(3)]
    for times in range(1, 50):
        assert changing.all_reloaded()
        assert [broker.reloads for broker in brokers] == [times] * 3


def test_process_that_fails_to_reload_is_reported_and_the_others_reload(
    changing: Propagation, starts: Callable[..., Broker]
) -> None:
    able, _ = starts(), starts(fails=True)
    for times in (1, 2):
        assert not changing.all_reloaded()
        assert able.reloads == times


def test_process_that_takes_longer_than_800_ms_is_not_waited_for(
    changing: Propagation, starts: Callable[..., Broker]
) -> None:
    quick, busy = starts(), starts()
    busy.may_reload.clear()
    begun = time.monotonic()
    assert not changing.all_reloaded()
    assert 0.7 < time.monotonic() - begun < 5
    assert (quick.reloads, busy.reloads) == (1, 0)
    busy.may_reload.set()
    assert within(5, lambda: busy.reloads == 1)
    assert changing.all_reloaded()


def test_stopped_process_never_blocks_a_change(
    changing: Propagation, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("authsvc.storage.propagation._WAIT_SECONDS", 0.001)
    with process(directory) as pid:
        with stopped_process(pid):
            # More connections than the queue of the socket holds.
            assert seconds(lambda: [changing.all_reloaded() for _ in range(80)]) < 10
            assert not changing.all_reloaded()
        monkeypatch.undo()
        assert within(10, changing.all_reloaded)


def test_socket_of_a_killed_process_is_removed_and_not_waited_for(changing: Propagation, directory: Path) -> None:
    with process(directory):
        assert changing.all_reloaded()
    assert len(sockets(directory)) == 1
    begun = time.monotonic()
    assert changing.all_reloaded()
    assert time.monotonic() - begun < 0.7
    assert sockets(directory) == []


def test_process_that_ends_removes_its_socket(
    changing: Propagation, starts: Callable[..., Broker], directory: Path
) -> None:
    ended, other = starts(), starts()
    ended.propagation.close()
    assert len(sockets(directory)) == 1
    assert changing.all_reloaded()
    assert (ended.reloads, other.reloads) == (0, 1)
    ended.propagation.close()


def test_client_that_says_nothing_does_not_keep_others_waiting(
    changing: Propagation, starts: Callable[..., Broker], directory: Path
) -> None:
    broker = starts()
    (path,) = sockets(directory)
    with silent(path):
        assert within(10, changing.all_reloaded)
    assert broker.reloads >= 1


@contextmanager
def silent(path: Path) -> Iterator[None]:
    """Connect to a socket and send nothing."""
    here = os.open(path.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(f"/proc/self/fd/{here}/{path.name}")
        os.close(here)
        yield


def test_version_is_notified_once_and_again_until_all_have_reloaded(
    changing: Propagation, starts: Callable[..., Broker]
) -> None:
    broker = starts()
    failing = starts(fails=True)
    for times in (1, 2):
        changing.notify(7)
        assert broker.reloads == times
    failing.propagation.close()
    for version, times in ((7, 3), (7, 3), (8, 4), (6, 5), (6, 5)):
        changing.notify(version)
        assert broker.reloads == times


def test_age_is_that_of_the_broker_process_furthest_behind(
    changing: Propagation, starts: Callable[..., Broker]
) -> None:
    fresh, behind = starts(), starts()
    fresh.propagation.report(0.0)
    behind.propagation.report(60.0)
    assert 60 <= changing.age < 70
    behind.propagation.report(1.0)
    assert 1 <= changing.age < 10


def test_age_of_a_killed_process_does_not_count(changing: Propagation, directory: Path) -> None:
    with process(directory):
        (path,) = sockets(directory)
        os.utime(path, (0, 0))
        assert changing.age > 1000
    assert changing.age == 0.0
    assert sockets(directory) == []


def test_process_that_answers_no_brokers_reports_no_age(changing: Propagation, directory: Path) -> None:
    changing.report(60.0)
    changing.close()
    assert changing.age == 0.0
    assert sockets(directory) == []


def test_no_file_descriptor_is_held_open(directory: Path, starts: Callable[..., Broker]) -> None:
    starts()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        propagation = Propagation(directory)
        assert propagation.all_reloaded()
        assert propagation.age < 60
    assert within(5, lambda: len(list(Path("/proc/self/fd").iterdir())) <= before)
