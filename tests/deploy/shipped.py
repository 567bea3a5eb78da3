"""The files that are shipped for running authsvc beside a broker, read the way their readers read them."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from click.testing import CliRunner

from authsvc.cli.main import commands

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[2]
MOSQUITTO_CONF = ROOT / "deploy/mosquitto/mosquitto.conf"
PLUGIN_CONF = ROOT / "deploy/mosquitto/mosquitto-plugin.conf"
GUIDE = ROOT / "deploy/mosquitto/README.md"
START_SCRIPT = ROOT / "deploy/mosquitto/start.sh"


def run(*command: str | Path, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command in the root of the repository, under no settings but the given ones."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AUTHSVC_", "COMPOSE_"))}
    return subprocess.run(
        command,
        cwd=ROOT,
        env=inherited | dict(environment or {}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def compose() -> dict[str, Any]:
    """Return `compose.yaml` with its anchors resolved."""
    read: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return read


def rendered_conf(webhook_secret: str) -> str:
    """Return `mosquitto.conf` as `start.sh` hands it to the broker."""
    printed = run(START_SCRIPT, "--print", environment={"AUTHSVC_WEBHOOK_SECRET": webhook_secret})
    assert printed.returncode == 0, printed.stderr
    return printed.stdout


def lines(conf: str) -> list[str]:
    """Return the options of a `mosquitto.conf` as they stand there, without comments."""
    return [line for line in conf.splitlines() if line and not line.startswith("#")]


def options(conf: str) -> dict[str, str]:
    """Return the options of a `mosquitto.conf` by name; of its listeners, the last one."""
    return dict(line.split(" ", 1) for line in lines(conf))


def commands_for_compose() -> tuple[list[str], list[str]]:
    """Return the arguments of `authsvc broker-config` from the guide: for go-auth, and for authsvc's own plugin."""
    guide = GUIDE.read_text().replace("\\\n", "")
    go_auth, own = re.findall(r"^authsvc broker-config (.*)$", guide, re.MULTILINE)
    return shlex.split(go_auth), shlex.split(own)


def broker_config(*arguments: str, **settings: str) -> str:
    """Return what `authsvc broker-config` prints under these settings, named without their prefix."""
    done = CliRunner().invoke(commands, ["broker-config", *arguments], env=_under(settings))
    assert done.exit_code == 0, done.output
    return done.stdout


def refusal(*arguments: str) -> str:
    """Return the words with which `authsvc broker-config` refuses these arguments."""
    done = CliRunner().invoke(commands, ["broker-config", *arguments], env=_under({}))
    assert done.exit_code == 2, done.output
    return done.stderr


def _under(settings: Mapping[str, str]) -> dict[str, str | None]:
    elsewhere: dict[str, str | None] = {name: None for name in os.environ if name.startswith("AUTHSVC_")}
    return elsewhere | {f"AUTHSVC_{name}": value for name, value in settings.items()}
