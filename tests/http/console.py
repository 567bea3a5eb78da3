"""The command line within the test's own process, which is fast, and how commands are held to their manners."""

from __future__ import annotations

import io
import os
import sys
from dataclasses import dataclass
from subprocess import CompletedProcess

import pytest

from authsvc.cli.main import main


@dataclass(frozen=True)
class Console:
    """Runs `authsvc ...` as `Service.command` does, but for the process of its own."""

    environment: dict[str, str]
    capture: pytest.CaptureFixture[str]

    def command(self, *arguments: str, stdin: str = "") -> CompletedProcess[str]:
        """Run one command with these settings."""
        self.capture.readouterr()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["authsvc", *arguments])
            patch.setattr(sys, "stdin", io.StringIO(stdin))
            for name in [name for name in os.environ if name.startswith("AUTHSVC_")]:
                patch.delenv(name)
            for name, value in self.environment.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as end:
                main()
        printed, complained = self.capture.readouterr()
        code = end.value.code
        if isinstance(code, str):  # the interpreter's own way to end with a line
            return CompletedProcess(["authsvc", *arguments], 1, printed, f"{complained}{code}\n")
        return CompletedProcess(["authsvc", *arguments], code or 0, printed, complained)


def said(done: CompletedProcess[str]) -> str:
    """Return what a command printed that must have worked and had nothing to complain of."""
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def complaint(done: CompletedProcess[str]) -> str:
    """Return the one line in which a command must have refused to work."""
    assert (done.returncode, done.stdout) == (1, ""), done
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done
    assert lines[0].startswith("authsvc: ")
    return lines[0].removeprefix("authsvc: ")
