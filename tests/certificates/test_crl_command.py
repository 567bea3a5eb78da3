"""A single run of `authsvc crl sync`: output, exit status and notification of the broker."""

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
from tests.certificates.environment import ON_SQLITE, Environment, crls_in, entries_of, serial_of
from tests.certificates.tools import openssl, write_file
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
    # Logging would stay configured for all later tests of this process.
    monkeypatch.setattr(logs, "configure", lambda _: None)
    return Console({}, capsys)


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> CapturingLogger:
    """Return the log of crl_sync."""
    logger = CapturingLogger()
    monkeypatch.setattr(crl_sync, "log", logger)
    return logger


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Return the path of the broker's `crlfile`."""
    return tmp_path / "broker" / "crl.pem"


@pytest.fixture
def synced(console: Console, server: str, out: Path) -> Syncing:
    out.parent.mkdir()
    return Syncing(console, server, out)


class Syncing:
    """Runs `authsvc crl sync` against a server for one file."""

    def __init__(self, console: Console, server: str, out: Path) -> None:
        self._console, self._server, self._out = console, server, out

    def __call__(self, *options: str) -> str:
        """Return the last line that it said; what stands before it is the log of the service."""
        done = self._console.command("crl", "sync", "--server", self._server, "--out", str(self._out), *options)
        assert done.returncode == 0, done
        return done.stdout.splitlines()[-1]


def test_sync_prints_whether_anything_changed(env: Environment, synced: Syncing, out: Path) -> None:
    bobs = env.issue_certificate("bob")
    assert synced() == f"{out} updated"
    assert synced() == f"{out} is up to date"
    env.revoke_certificate(bobs)
    assert synced() == f"{out} updated"
    (only,) = crls_in(out.read_text())
    assert entries_of(only) == {serial_of(bobs): "unspecified"}


def test_openssl_refuses_a_revoked_certificate_with_the_synced_crl(
    env: Environment, synced: Syncing, out: Path, tmp_path: Path
) -> None:
    env.revoke_certificate(env.issue_certificate("bob"))
    trusted = write_file(tmp_path, "ca.pem", env.ca_pem())
    synced("--ca", str(trusted))
    assert "verify OK" in openssl("crl", "-in", out, "-noout", "-CAfile", trusted)


def test_command_runs_only_for_a_new_crl(env: Environment, synced: Syncing, tmp_path: Path) -> None:
    note = tmp_path / "told"
    program = f"open({str(note)!r}, 'a').write('!')"
    command = ("--command", f'{sys.executable} -c "{program}"')
    bobs = env.issue_certificate("bob")
    for _ in range(3):
        synced(*command)
    assert note.read_text() == "!"
    env.revoke_certificate(bobs)
    for _ in range(3):
        synced(*command)
    assert note.read_text() == "!!"


@pytest.fixture
def listener() -> Iterator[subprocess.Popen[str]]:
    """Return a process that prints a line when it gets SIGHUP."""
    process = subprocess.Popen([sys.executable, "-c", LISTENER], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_process_in_the_pid_file_gets_sighup(
    env: Environment, synced: Syncing, listener: subprocess.Popen[str], tmp_path: Path
) -> None:
    pid = write_file(tmp_path, "broker.pid", f"{listener.pid}\n")
    bobs = env.issue_certificate("bob")
    assert listener.stdout
    synced("--pid", str(pid))
    assert listener.stdout.readline() == "reloaded\n"
    synced("--pid", str(pid))
    env.revoke_certificate(bobs)
    synced("--pid", str(pid))
    assert listener.stdout.readline() == "reloaded\n"
    assert listener.poll() is None


def test_failing_command_is_an_error_and_runs_again(synced: Syncing, console: Console, out: Path) -> None:
    with pytest.raises(AssertionError, match="could not be made to reload"):
        synced("--command", "false")
    assert out.exists(), "the list is there, and only the broker has not heard of it"
    assert synced("--command", "true") == f"{out} updated"
    assert synced("--command", "true") == f"{out} is up to date"


def test_unreachable_server_is_an_error_and_the_file_stays(synced: Syncing, console: Console, out: Path) -> None:
    synced()
    before = out.read_bytes()
    away = f"http://127.0.0.1:{free_port()}"
    done = console.command("crl", "sync", "--server", away, "--out", str(out))
    assert done.returncode == 1
    assert done.stderr == f"authsvc: {away} does not answer: ConnectionError\n"
    assert out.read_bytes() == before


@pytest.mark.parametrize(("days", "warnings"), [(0, 0), (5, 0), (5.4, 1), (6.9, 1), (8, 1)])
def test_expiring_crl_logs_a_warning(
    synced: Syncing, out: Path, logged: CapturingLogger, days: float, warnings: int
) -> None:
    synced()
    crl_sync.warn_before_expiry(out, datetime.now(UTC) + days * DAY)
    assert [call.method_name for call in logged.calls] == ["warning"] * warnings
    assert all("expires soon" in call.args[0] for call in logged.calls)


@pytest.mark.parametrize("content", [None, "", "junk"])
def test_missing_crl_logs_a_warning(env: Environment, out: Path, logged: CapturingLogger, content: str | None) -> None:
    if content is not None:
        write_file(out.parent, out.name, content)
    crl_sync.warn_before_expiry(out, datetime.now(UTC))
    assert [call.method_name for call in logged.calls] == ["warning"]
