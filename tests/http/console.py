"""The command line in the test's own process, which is faster than a new process, and checks of its output."""

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
    """Runs `authsvc ...` like `Service.command`, but in this process."""

    environment: dict[str, str]
    capture: pytest.CaptureFixture[str]

    def command(self, *arguments: str, stdin: str = "") -> CompletedProcess[str]:
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
        stdout, stderr = self.capture.readouterr()
        code = end.value.code
        if isinstance(code, str):  # sys.exit(text): the interpreter would print it and exit with 1
            return CompletedProcess(["authsvc", *arguments], 1, stdout, f"{stderr}{code}\n")
        return CompletedProcess(["authsvc", *arguments], code or 0, stdout, stderr)


def stdout_of(done: CompletedProcess[str]) -> str:
    """Return the standard output of a command that must have succeeded without errors."""
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def error_of(done: CompletedProcess[str]) -> str:
    """Return the one-line error of a command that must have failed."""
    assert (done.returncode, done.stdout) == (1, ""), done
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done
    assert lines[0].startswith("authsvc: ")
    return lines[0].removeprefix("authsvc: ")
