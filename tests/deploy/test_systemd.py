"""The systemd units: what systemd says of them, and the service under their system call filter."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import click
import pytest

from authsvc.cli.main import commands
from authsvc.settings import from_environment
from tests.deploy.sandbox import values
from tests.deploy.shipped import ROOT
from tests.service import Service

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

UNITS = ROOT / "deploy" / "systemd"
SERVICES = sorted(UNITS.glob("*.service"))
EVERY_SERVICE = pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.name)
WITH_SYSTEMD = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")


@WITH_SYSTEMD
@EVERY_SERVICE
def test_service_is_hardened(unit: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", unit],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@WITH_SYSTEMD
def test_systemd_knows_every_setting(tmp_path: Path) -> None:
    program = shutil.which("true")
    for unit in UNITS.iterdir():
        if unit.suffix in (".service", ".target", ".timer"):
            (tmp_path / unit.name).write_text(unit.read_text().replace("/opt/authsvc/bin/authsvc", str(program)))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *tmp_path.iterdir()], capture_output=True, text=True, check=False
    )
    # It also reads the units of this machine.
    assert not [line for line in done.stderr.splitlines() if "authsvc" in line]


@EVERY_SERVICE
def test_command_line_of_a_unit_exists(unit: Path) -> None:
    (line,) = values(unit, "ExecStart")
    program, *words = line.split()
    assert program == "/opt/authsvc/bin/authsvc"
    command: click.Command | None = commands
    while isinstance(command, click.Group):
        command = command.get_command(click.Context(command), words.pop(0))
    assert command
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known


def test_example_of_the_settings_is_valid(tmp_path: Path) -> None:
    lines = re.findall(r"^#(AUTHSVC_\w+)=(.*)$", (UNITS / "authsvc.env").read_text(), re.MULTILINE)
    given = dict(lines)
    assert given
    for name in [name for name in given if name.endswith("_FILE")]:
        file = tmp_path / name
        file.write_text("postgresql://authsvc:secret@db/authsvc" if "DATABASE" in name else "secret")
        given[name] = str(file)
    from_environment(given)


@WITH_SYSTEMD
@pytest.mark.slow
@pytest.mark.parametrize("listener", ["api", "broker"])
def test_listener_works_under_the_filter_and_reports_that_it_is_ready(tmp_path: Path, listener: str) -> None:
    unit = UNITS / f"authsvc-{listener}.service"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(tmp_path / "notify"))
        notified.settimeout(60)
        service = Service(tmp_path, {"NOTIFY_SOCKET": str(tmp_path / "notify"), "AUTHSVC_CA_KEY_PASSPHRASE": "secret"})
        service.only = listener
        service.under = (sys.executable, "-m", "tests.deploy.sandbox", str(unit))
        with service:
            assert b"READY=1" in notified.recv(1000)
            if listener == "api":
                service.create_user("bob")
                assert service.call("GET", "/pki/crl.pem").status_code == 200
            service.stop()
    assert service.errors() == []
    assert "Error" not in service.log_text()
