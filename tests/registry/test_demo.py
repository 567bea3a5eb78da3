"""`make demo` runs completely, in time, and leaves no files or processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.registry.terminal import CHECKOUT, Running

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = pytest.mark.slow

_DEMO = [sys.executable, "-m", "tests.demo"]
EXPECTED_OUTPUT = [
    "authsvc on http://127.0.0.1:",
    "press-7: refused, not authorized",
    "authsvc registry list",
    "plc-0815",
    "authsvc registry grant",
    "press-7 granted",
    "press-7: connected",
    "screen: presses/press-7/state running",
    "press-7: presses/press-8/state refused",
    "denied: no-permission",
    "allowed: permission",
    "The end",
]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Environment variables with an own directory for temporary files."""
    return {**os.environ, "TMPDIR": str(tmp_path)}


def left_behind(environment: Mapping[str, str]) -> list[str]:
    """Return the files in that directory and the processes that use it."""
    home = Path(environment["TMPDIR"])
    return [str(path) for path in home.iterdir()] + [path for path in map(str, _processes()) if _works_in(path, home)]


def _processes() -> list[Path]:
    return [path for path in Path("/proc").iterdir() if path.name.isdecimal()]


def _works_in(process: str, home: Path) -> bool:
    """Return whether a process has this directory in its arguments or environment."""
    try:
        text = Path(process, "cmdline").read_bytes() + Path(process, "environ").read_bytes()
    except OSError:  # ended in the meantime, or owned by another user
        return False
    return f"{home}".encode() in text


def test_demo_runs_all_steps_in_order(environment: dict[str, str]) -> None:
    result = subprocess.run(
        _DEMO, cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")
    places = [result.stdout.find(words) for words in EXPECTED_OUTPUT]
    assert -1 not in places, result.stdout
    assert places == sorted(places)
    assert "\x1b" not in result.stdout
    assert left_behind(environment) == []


def test_interrupted_demo_leaves_no_files_or_processes(environment: dict[str, str]) -> None:
    with Running(*_DEMO, environment=environment) as demo:
        demo.wait_for("It retries")
        assert "\x1b[" in demo.printed  # in a terminal there are colours
        assert left_behind(environment)
        demo.terminate()
        assert demo.wait() == 130, demo.printed
    assert left_behind(environment) == []
