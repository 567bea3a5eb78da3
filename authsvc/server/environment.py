"""The environment of a service that runs: without the secrets it was started with.

What a process was started with stays readable in `/proc/PID/environ`, whatever the program removes later, and each
worker shows it again. So `authsvc serve` starts itself a second time, under the same process id, with the secrets in a
file in memory instead, which it reads and closes.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

from authsvc.errors import SettingsError
from authsvc.settings import PREFIX, split_secrets

if TYPE_CHECKING:
    from collections.abc import Mapping

_HANDED_OVER = f"{PREFIX}HANDED_OVER_SECRETS"
"""Names the descriptor of the file in memory. It stays set: a restart without that file must fail, not run without
secrets."""


def restart_without_secrets() -> None:
    """Replace this program by itself, with an environment that holds no secret; return if it holds none already."""
    others, secrets = split_secrets(os.environ)
    if not secrets:
        return
    descriptor = os.memfd_create("authsvc-secrets", 0)
    os.set_inheritable(descriptor, True)
    with os.fdopen(descriptor, "wb", closefd=False) as file:
        file.write(json.dumps(secrets).encode())
    os.lseek(descriptor, 0, os.SEEK_SET)
    sys.stdout.flush()
    sys.stderr.flush()
    program = [sys.executable, *sys.orig_argv[1:]]
    os.execve(sys.executable, program, {**others, _HANDED_OVER: str(descriptor)})  # noqa: S606 - no shell is wanted


def with_secrets() -> Mapping[str, str]:
    """Return the environment together with the secrets that were handed over, which can be read once."""
    environ = dict(os.environ)
    descriptor = environ.pop(_HANDED_OVER, None)
    if descriptor is None:
        return environ
    try:
        with os.fdopen(int(descriptor), "rb") as file:
            secrets: dict[str, str] = json.load(file)
            return environ | secrets
    except (OSError, ValueError):
        raise SettingsError("the secrets were handed over to an earlier process; start `authsvc serve` again") from None
