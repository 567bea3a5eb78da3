"""`authsvc` commands that run in the background of a test."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_TIMEOUT = 20.0


@contextmanager
def running_command(
    *arguments: str | Path, log: Path, wrapper: tuple[str, ...] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `authsvc ...` without settings during the block; its output is appended to the log."""
    command = [*wrapper, str(Path(sys.executable).parent / "authsvc"), *map(str, arguments)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AUTHSVC_")}
    with log.open("ab") as said, subprocess.Popen(command, env=environment, stdout=said, stderr=said) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.wait(_TIMEOUT)
