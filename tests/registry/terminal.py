"""Runs a command in a pseudo terminal and reads its output while it runs."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests.registry.environment import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping

AUTHSVC = str(Path(sys.executable).parent / "authsvc")
CHECKOUT = Path(__file__).parents[2]
_PATIENCE = 20.0


class Running:
    """A running command, without settings from the environment of the tests."""

    def __init__(self, *command: str, environment: Mapping[str, str] | None = None) -> None:
        self._printed = bytearray()
        self._screen, terminal = pty.openpty()
        self._process = subprocess.Popen(
            command,
            cwd=CHECKOUT,
            env=_environment(environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=terminal,
            stderr=terminal,
        )
        os.close(terminal)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._reader.join()
        os.close(self._screen)

    @property
    def printed(self) -> str:
        """The output so far."""
        return self._printed.decode(errors="replace")

    def wait_for(self, text: str) -> None:
        """Wait until the output contains the text; fail if the command ends before."""
        wait_until(lambda: text in self.printed or self._process.poll() is not None, _PATIENCE)
        assert text in self.printed, self.printed

    def wait(self) -> int:
        """Wait for the end; return the exit status."""
        return self._process.wait(_PATIENCE)

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self._process.send_signal(signal.SIGINT)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._process.terminate()

    def kill(self) -> None:
        """Kill the command if it still runs."""
        self._process.kill()
        self._process.wait(_PATIENCE)

    def _read(self) -> None:
        while True:
            try:
                self._printed += os.read(self._screen, 65_536)
            except OSError:  # the other side of a terminal has closed
                return


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AUTHSVC_")}
    return {**inherited, "TERM": "xterm", "COLUMNS": "200", "LINES": "50", **more}
