"""The files that are shipped for running authsvc beside a broker, read the way their readers read them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[2]
MOSQUITTO_CONF = ROOT / "deploy/mosquitto/mosquitto.conf"
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


def options(conf: str) -> dict[str, str]:
    """Return the options of a `mosquitto.conf` by name."""
    lines = [line for line in conf.splitlines() if line and not line.startswith("#")]
    return dict(line.split(" ", 1) for line in lines)
