"""`authsvc crl sync` run once, from cron or a deployment: what it says, how it ends, and whom it tells."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from structlog.testing import CapturingLogger

from authsvc.observability import logs
from authsvc.pki import crl_sync
from tests.broker import free_port
from tests.certificates.environment import ON_SQLITE, Scene, entries_of, lists_in, serial_of
from tests.certificates.tools import openssl, written
from tests.http.console import Console

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = ON_SQLITE

DAY = timedelta(days=1)
LISTENER = """
import signal
def reload(number, frame):
    print("reloaded", flush=True)
signal.signal(signal.SIGHUP, reload)
print("ready", flush=True)
while True:
    signal.pause()
"""


@pytest.fixture
def console(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Console:
    # It would be for the whole process, and for all tests after this one.
    monkeypatch.setattr(logs, "configure", lambda _: None)
    return Console({}, capsys)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> CapturingLogger:
    """What is logged."""
    logger = CapturingLogger()
    monkeypatch.setattr(crl_sync, "log", logger)
    return logger


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """The broker's `crlfile`."""
    return tmp_path / "broker" / "crl.pem"


@pytest.fixture
def synced(console: Console, server: str, out: Path) -> Syncing:
    out.parent.mkdir()
    return Syncing(console, server, out)


class Syncing:
    """Runs the command against a server, for one file."""

    def __init__(self, console: Console, server: str, out: Path) -> None:
        self._console, self._server, self._out = console, server, out

    def __call__(self, *options: str) -> str:
        """Return the last line that it said; what stands before it is the log of the service."""
        done = self._console.command("crl", "sync", "--server", self._server, "--out", str(self._out), *options)
        assert done.returncode == 0, done
        return done.stdout.splitlines()[-1]


def test_it_says_whether_anything_was_new(scene: Scene, synced: Syncing, out: Path) -> None:
    bobs = scene.certifies("bob")
    assert synced() == f"{out} updated"
    assert synced() == f"{out} is up to date"
    scene.revokes(bobs)
    assert synced() == f"{out} updated"
    (only,) = lists_in(out.read_text())
    assert entries_of(only) == {serial_of(bobs): "unspecified"}


def test_it_is_the_list_that_openssl_refuses_by(scene: Scene, synced: Syncing, out: Path, tmp_path: Path) -> None:
    scene.revokes(scene.certifies("bob"))
    trusted = written(tmp_path, "ca.pem", scene.ca_pem())
    synced("--ca", str(trusted))
    assert "verify OK" in openssl("crl", "-in", out, "-noout", "-CAfile", trusted)


def test_a_command_is_run_for_every_new_list_and_for_no_other(scene: Scene, synced: Syncing, tmp_path: Path) -> None:
    note = tmp_path / "told"
    program = f"open({str(note)!r}, 'a').write('!')"
    command = ("--command", f'{sys.executable} -c "{program}"')
    bobs = scene.certifies("bob")
    for _ in range(3):
        synced(*command)
    assert note.read_text() == "!"
    scene.revokes(bobs)
    for _ in range(3):
        synced(*command)
    assert note.read_text() == "!!"


@pytest.fixture
def listener() -> Iterator[subprocess.Popen[str]]:
    """A process that says so when it is told to reload."""
    process = subprocess.Popen([sys.executable, "-c", LISTENER], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_the_process_in_the_pid_file_is_told(
    scene: Scene, synced: Syncing, listener: subprocess.Popen[str], tmp_path: Path
) -> None:
    pid = written(tmp_path, "broker.pid", f"{listener.pid}\n")
    bobs = scene.certifies("bob")
    assert listener.stdout
    synced("--pid", str(pid))
    assert listener.stdout.readline() == "reloaded\n"
    synced("--pid", str(pid))
    scene.revokes(bobs)
    synced("--pid", str(pid))
    assert listener.stdout.readline() == "reloaded\n"
    assert listener.poll() is None


def test_a_command_that_fails_is_an_error_and_is_run_again(synced: Syncing, console: Console, out: Path) -> None:
    with pytest.raises(AssertionError, match="could not be told"):
        synced("--command", "false")
    assert out.exists(), "the list is there, and only the broker has not heard of it"
    assert synced("--command", "true") == f"{out} updated"
    assert synced("--command", "true") == f"{out} is up to date"


def test_a_server_that_is_away_is_an_error_and_the_file_stays(synced: Syncing, console: Console, out: Path) -> None:
    synced()
    before = out.read_bytes()
    away = f"http://127.0.0.1:{free_port()}"
    done = console.command("crl", "sync", "--server", away, "--out", str(out))
    assert done.returncode == 1
    assert done.stderr == "authsvc: the server does not answer: ConnectionError\n"
    assert out.read_bytes() == before


@pytest.mark.parametrize(("days", "warnings"), [(0, 0), (5, 0), (5.4, 1), (6.9, 1), (8, 1)])
def test_before_a_list_runs_out_there_is_a_warning(
    synced: Syncing, out: Path, told: CapturingLogger, days: float, warnings: int
) -> None:
    synced()
    crl_sync.warn_before_expiry(out, datetime.now(UTC) + days * DAY)
    assert [call.method_name for call in told.calls] == ["warning"] * warnings
    assert all("runs out" in call.args[0] for call in told.calls)


@pytest.mark.parametrize("content", [None, "", "junk"])
def test_without_a_list_there_is_a_warning(scene: Scene, out: Path, told: CapturingLogger, content: str | None) -> None:
    if content is not None:
        written(out.parent, out.name, content)
    crl_sync.warn_before_expiry(out, datetime.now(UTC))
    assert [call.method_name for call in told.calls] == ["warning"]
