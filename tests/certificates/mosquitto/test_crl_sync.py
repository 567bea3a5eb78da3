"""`authsvc crl sync` when it is killed, when the disk is full, and when the server's answers are invalid."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from authsvc.cli.main import commands
from authsvc.pki import crl_sync
from authsvc.pki.crl_sync import SyncError, Target
from tests.certificates.mosquitto.commands import running_command
from tests.certificates.mosquitto.lists import ListServer, Reader, new_authority, new_list, number_in
from tests.certificates.mosquitto.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

AUTHSVC = str(Path(sys.executable).parent / "authsvc")
LARGE = 5000  # entries


@pytest.fixture
def server() -> Iterator[ListServer]:
    """A server with configurable answers, without a service."""
    with ListServer() as server:
        yield server


@pytest.fixture
def file(server: ListServer, tmp_path: Path) -> Path:
    """The broker's CRL file with CRL number 1."""
    file = tmp_path / "pki" / "crl.pem"
    file.parent.mkdir()
    file.write_text(new_list(server.authority))
    return file


def sync(target: Target) -> bool:
    return crl_sync.sync(target, datetime.now(UTC))


def sync_command(server: ListServer, file: Path) -> tuple[str, ...]:
    return ("crl", "sync", "--server", server.url, "--out", str(file))


def authsvc(*arguments: str, under: str = "true") -> subprocess.CompletedProcess[str]:
    """Run `authsvc ...` after a shell command such as `ulimit`."""
    command = ("sh", "-c", f'{under} && exec "$@"', "sh", AUTHSVC, *arguments)
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def names_beside(file: Path) -> list[str]:
    return sorted(each.name for each in file.parent.iterdir())


# ---- Killed ----


def test_killed_sync_leaves_a_valid_list(server: ListServer, file: Path, tmp_path: Path) -> None:
    with Reader(file, server.authorities) as reader:
        for number, moment in ((2, 0.1), (4, 0.11)):
            with running_command(*sync_command(server, file), "--interval", "0.1", log=tmp_path / "log") as process:
                server.lists = new_list(server.authority, number, LARGE)
                until(lambda: max(reader.numbers) >= number, "the new list is read")  # noqa: B023 - called within the round
                server.lists = new_list(server.authority, number + 1, LARGE)
                time.sleep(moment)  # during its next round
                process.send_signal(signal.SIGKILL)
        sync(Target(server.url, file))
        until(lambda: 5 in reader.numbers, "the last list is read")


def test_incomplete_files_of_a_killed_sync_are_ignored(server: ListServer, file: Path) -> None:
    server.lists = new_list(server.authority, 2)
    half = server.lists[: len(server.lists) // 2]
    for name in (f".crl.pem.{os.getpid()}", ".crl.pem.x1y2z3"):
        file.with_name(name).write_text(half)
    file.with_name(".crl.pem.told").write_bytes(b"\xff\x00")
    with Reader(file, server.authorities):
        assert sync(Target(server.url, file, command=("true",)))
    assert number_in(file.read_text()) == 2
    assert not sync(Target(server.url, file, command=("true",)))


@pytest.mark.parametrize(
    "broken", [b"", b"\xff\xfe\x00", b"-----BEGIN X509 CRL-----\n"], ids=["empty", "binary", "half"]
)
def test_damaged_list_is_replaced(server: ListServer, file: Path, broken: bytes) -> None:
    file.write_bytes(broken)
    assert sync(Target(server.url, file))
    with Reader(file, server.authorities):
        assert number_in(file.read_text()) == 1


# ---- The disk is full ----


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of five pages, one of them for a replaced list that is still being read.

    The test is skipped if it cannot be mounted.
    """
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ("mount", "-t", "tmpfs", "-o", "size=20k", "tmpfs", disk)
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


def fill(file: Path) -> None:
    with file.open("wb", buffering=0) as filler:
        while True:
            filler.write(b"x" * 4096)


def test_full_disk_keeps_the_list(server: ListServer, tiny_disk: Path) -> None:
    target = Target(server.url, tiny_disk / "crl.pem", ca_out=tiny_disk / "ca.pem", command=("true",))
    sync(target)
    with Reader(target.out, server.authorities) as reader:
        server.lists = new_list(server.authority, 2, 100)
        with pytest.raises(OSError, match="No space left"):
            fill(tiny_disk / "filler")
        with pytest.raises(SyncError, match="No space left"):
            sync(target)
        assert reader.numbers == {1}
        (tiny_disk / "filler").unlink()
        assert sync(target)
    assert number_in(target.out.read_text()) == 2
    assert names_beside(target.out) == [".crl.pem.told", "ca.pem", "crl.pem"]


def test_file_size_limit_keeps_the_list(server: ListServer, file: Path) -> None:
    server.lists = new_list(server.authority, 2, 100)
    with Reader(file, server.authorities):
        done = authsvc(*sync_command(server, file), under="ulimit -f 1")
    assert (done.returncode, done.stderr) == (1, f"authsvc: {file} cannot be written: File too large\n")
    assert names_beside(file) == ["crl.pem"]


# ---- Invalid answers of the server ----


def endless() -> Iterable[bytes]:
    return (b"-" * 1_000_000 for _ in range(100))


NONSENSE: dict[str, Callable[[ListServer], str | bytes | int | Iterable[bytes]]] = {
    "nothing": lambda _: "",
    "a page": lambda _: "<html>It works!</html>",
    "no text": lambda _: b"\x00\xff" * 500,
    "an error": lambda _: 503,
    "not modified": lambda _: 304,
    "half a list": lambda server: new_list(server.authority, 2)[:300],
    "a list and a half": lambda server: new_list(server.authority, 2) + new_list(server.authority, 3)[:300],
    "a list and a word": lambda server: new_list(server.authority, 2) + "x",
    "another's list": lambda _: new_list(new_authority("another's"), 2),
    "a forged list": lambda _: new_list(new_authority("ours"), 2),
    "a list and a forged one": lambda server: new_list(server.authority, 2) + new_list(new_authority("ours"), 2),
    "a list that ran out": lambda server: new_list(server.authority, 2, valid=(-9, -1)),
    "a list of tomorrow": lambda server: new_list(server.authority, 2, valid=(1, 9)),
    "a certificate": lambda server: server.authority.certificate_pem,
    "without end": lambda _: endless(),
}


@pytest.mark.parametrize("nonsense", NONSENSE.values(), ids=NONSENSE)
def test_invalid_list_is_not_written(
    server: ListServer, file: Path, nonsense: Callable[[ListServer], str | bytes | int | Iterable[bytes]]
) -> None:
    server.lists = nonsense(server)
    before = file.read_text()
    with pytest.raises(SyncError):
        sync(Target(server.url, file, ca_out=file.with_name("ca.pem"), command=("false",)))
    assert file.read_text() == before
    assert names_beside(file) == ["crl.pem"]


@pytest.mark.parametrize("authorities", ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "junk"])
def test_invalid_authorities_keep_both_files(server: ListServer, file: Path, authorities: str) -> None:
    server.authorities = authorities
    with pytest.raises(SyncError):
        sync(Target(server.url, file, ca_out=file.with_name("ca.pem")))
    assert names_beside(file) == ["crl.pem"]


def test_unreachable_server_keeps_the_list(file: Path) -> None:
    with pytest.raises(SyncError, match="does not answer: ConnectionError"):
        sync(Target("http://127.0.0.1:9", file))
    assert names_beside(file) == ["crl.pem"]


# ---- Authorities and unchanged lists ----


def test_authorities_are_written_and_new_ones_are_reported(
    server: ListServer, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = Target(server.url, file, ca_out=file.with_name("ca.pem"))
    assert sync(target)
    assert "restart the broker" not in capsys.readouterr().out
    following = new_authority("the next one")
    server.authorities = following.certificate_pem + server.authority.certificate_pem
    server.lists = new_list(following) + new_list(server.authority, 2)

    assert sync(target)
    assert "restart the broker" in capsys.readouterr().out
    assert target.ca_out
    assert target.ca_out.read_text() == server.authorities
    assert {target.ca_out.stat().st_mode & 0o777, file.stat().st_mode & 0o777} == {0o644}
    assert not sync(target)


def test_list_of_an_unknown_authority_does_not_block_the_other_lists(
    server: ListServer, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ca = file.with_name("ca.pem")
    ca.write_text("# brought by hand, from Gräfelfing\n" + server.authorities)
    following, target = new_authority("the next one"), Target(server.url, file, ca_file=ca)
    server.lists = new_list(following) + new_list(server.authority, 2)

    assert sync(target)
    assert server.lists.endswith(file.read_text())
    assert number_in(file.read_text()) == 2
    assert capsys.readouterr().out.count("copy its certificate here") == 1
    assert not sync(target)
    assert capsys.readouterr().out == ""
    ca.write_text(following.certificate_pem + server.authorities)
    assert sync(target)
    assert file.read_text() == server.lists


def test_ca_file_and_ca_out_exclude_each_other(server: ListServer, file: Path) -> None:
    ca = file.with_name("ca.pem")
    ca.write_text(server.authorities)
    done = CliRunner().invoke(commands, [*sync_command(server, file), "--ca", str(ca), "--ca-out", str(ca)])
    assert done.exit_code == 2
    assert "--ca and --ca-out exclude each other" in done.stderr


def test_unchanged_list_is_not_downloaded_again(server: ListServer, file: Path) -> None:
    server.etag = '"of these lists"'
    target = Target(server.url, file, ca_out=file.with_name("ca.pem"))
    assert sync(target)
    assert not sync(target)
    assert server.conditional_requests == 2
    server.etag, server.lists = '"of others"', new_list(server.authority, 2)
    assert sync(target)
    assert number_in(file.read_text()) == 2


# ---- Notifying the broker ----


def test_broker_is_notified_once_per_list_and_again_after_a_failure(server: ListServer, file: Path) -> None:
    told = file.with_name("told")
    with pytest.raises(SyncError, match="could not be made to reload"):
        sync(Target(server.url, file, command=("false",)))
    target = Target(server.url, file, command=("sh", "-c", f"echo told >> {told}"))
    assert [sync(target), sync(target)] == [True, False]
    server.lists = new_list(server.authority, 2)
    assert [sync(target), sync(target)] == [True, False]
    assert told.read_text() == "told\ntold\n"


@pytest.mark.parametrize("content", ["", "-1", "0", "-99999999", "no number", "1.5"])
def test_pid_file_without_a_valid_process_id_signals_no_process(server: ListServer, file: Path, content: str) -> None:
    pid_file = file.with_name("mosquitto.pid")
    pid_file.write_text(content)
    with pytest.raises(SyncError, match="could not be made to reload: ValueError"):
        sync(Target(server.url, file, pid_file=pid_file))


def test_process_that_sighup_would_end_is_not_signalled(server: ListServer, file: Path) -> None:
    pid_file = file.with_name("mosquitto.pid")
    with subprocess.Popen(["sleep", "60"]) as other_process:
        pid_file.write_text(str(other_process.pid))
        with pytest.raises(SyncError, match="does not handle SIGHUP"):
            sync(Target(server.url, file, pid_file=pid_file))
        assert other_process.poll() is None
        other_process.terminate()
    with pytest.raises(SyncError, match="could not be made to reload: ProcessLookupError"):
        sync(Target(server.url, file, pid_file=pid_file))
