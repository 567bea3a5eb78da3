"""Run a command under the system call filter and memory rule of a systemd unit: python -m tests.deploy.sandbox UNIT ...

Without systemd as process 1 a unit cannot be started in tests; this applies the two settings that a program is most
likely to break on.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import os
import subprocess
import sys
from pathlib import Path

_PR_SET_MDWE, _MDWE_REFUSE_EXEC_GAIN = 65, 1
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000


def values(unit: Path, name: str) -> list[str]:
    """Return the values of a setting, in order."""
    lines = unit.read_text().splitlines()
    return [line.partition("=")[2] for line in lines if line.startswith(f"{name}=")]


def allowed_calls(unit: Path) -> set[str]:
    """Return the system calls that the unit allows."""
    allowed: set[str] = set()
    for value in values(unit, "SystemCallFilter"):
        words = value.removeprefix("~").split()
        named = set().union(*map(_calls, words))
        allowed = allowed - named if value.startswith("~") else allowed | named
    return allowed


def _calls(word: str) -> set[str]:
    """Return the system calls of a word of SystemCallFilter=, which is one or a group `@NAME`."""
    if not word.startswith("@"):
        return {word}
    printed = subprocess.run(["systemd-analyze", "syscall-filter", word], capture_output=True, text=True, check=True)
    lines = [line.strip() for line in printed.stdout.splitlines() if line.startswith("    ")]
    return set().union(*(_calls(line) for line in lines if not line.startswith("#")))


def restrict(unit: Path) -> None:
    """Apply the unit's filter to this process and its children."""
    allowed = allowed_calls(unit)
    seccomp = ctypes.CDLL(ctypes.util.find_library("seccomp") or "libseccomp.so.2")
    seccomp.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(seccomp.seccomp_init(_ERRNO | errno.EPERM))
    for name in allowed:
        number = seccomp.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:
            seccomp.seccomp_rule_add(context, _ALLOW, number, 0)
    assert "yes" in values(unit, "MemoryDenyWriteExecute")
    assert ctypes.CDLL(None).prctl(_PR_SET_MDWE, _MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) == 0
    assert seccomp.seccomp_load(context) == 0


if __name__ == "__main__":
    restrict(Path(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])
