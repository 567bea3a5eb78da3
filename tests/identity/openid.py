"""A certified OpenID provider from npm, run by Node."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest
import requests

from tests.broker import BUILD_DIR, free_port
from tests.http.wire import within

if TYPE_CHECKING:
    from collections.abc import Mapping

SOURCE = Path(__file__).parent / "provider"
CLIENT_ID, CLIENT_SECRET = "authsvc", "a client secret/with ?& signs"
_PATIENCE = 30.0
_STARTS = 3


def installed() -> Path:
    """Return a directory with the provider and its libraries; skip the test if npm cannot get them.

    Several processes can call this at once: each installs into a directory of its own and renames it.
    """
    fingerprint = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(SOURCE.iterdir()))).hexdigest()
    target = BUILD_DIR / f"provider-{fingerprint[:16]}"
    if target.exists():
        return target
    if not shutil.which("npm"):
        pytest.skip("npm is missing; install it with: deploy/apt-packages.sh test")
    unfinished = target.with_suffix(f".{os.getpid()}")
    shutil.copytree(SOURCE, unfinished)
    command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
    done = subprocess.run(command, cwd=unfinished, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        shutil.rmtree(unfinished)
        unreachable = any(code in done.stderr for code in ("ENOTFOUND", "ECONNREFUSED", "EAI_AGAIN", "ETIMEDOUT"))
        assert unreachable, done.stderr
        pytest.skip("npm cannot reach its registry")
    try:
        unfinished.rename(target)
    except OSError:
        shutil.rmtree(unfinished)  # another process was faster
    return target


class OpenIdProvider:
    """The provider on a free port for one client, authsvc at `service_url`."""

    def __init__(self, directory: Path, service_url: str) -> None:
        self._port = free_port()
        self._service_url = service_url
        self._directory = directory
        self._log = directory / "provider.log"
        self._people = directory / "people.json"
        self._process: subprocess.Popen[bytes] | None = None
        self.issuer = f"http://127.0.0.1:{self._port}"
        self.has({})
        self.nobody_signs_in()

    def environment(self, roles: Mapping[str, list[str]], **settings: str) -> dict[str, str]:
        """Return the settings of authsvc for this provider."""
        chosen = {"issuer": self.issuer, "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET}
        chosen |= {"name": "the plant", "roles": json.dumps(roles), **settings}
        return {f"AUTHSVC_OIDC_{name.upper()}": value for name, value in chosen.items()}

    def has(self, people: Mapping[str, Mapping[str, Any]]) -> None:
        """Replace all accounts; each has its claims by its `sub`."""
        self._people.write_text(json.dumps(people))

    def signs_in(self, subject: str) -> None:
        """Choose the account with which the next sign-in at the provider is answered."""
        self._people.with_name("people.json.current").write_text(subject)

    def nobody_signs_in(self) -> None:
        """Answer the next sign-in as if the person had refused it."""
        self.signs_in("")

    def start(self, key_name: str = "first") -> None:
        """Start it with a new key of this name, and wait until it answers."""
        home = f"{self._service_url}/admin/sign-in"
        command = ["node", "server.mjs", str(self._port), f"{home}/callback", home, str(self._people), key_name]
        # Once in very many starts Node does nothing at all, not even print an error.
        for _ in range(_STARTS):
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(command, cwd=installed(), stdout=log, stderr=log)
            if within(_PATIENCE, self._answers):
                return
            self.stop()
        raise AssertionError(self._log.read_text())

    def stop(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait(_PATIENCE)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _answers(self) -> bool:
        assert self._process
        assert self._process.poll() is None, self._log.read_text()
        try:
            return requests.get(f"{self.issuer}/.well-known/openid-configuration", timeout=5).ok
        except requests.RequestException:
            return False
