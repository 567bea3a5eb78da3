"""The service, a broker with the output of `authsvc broker-config`, and their shared files."""

from __future__ import annotations

import hashlib
import shutil
import signal
import sqlite3
import subprocess
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from authsvc.pki.ca import CertificateAuthority
from tests.broker import Mosquitto, free_port
from tests.certificates.mosquitto.certified import CertificateFiles, new_certificate_files
from tests.certificates.mosquitto.commands import running_command
from tests.certificates.mosquitto.waiting import TIMEOUT, until
from tests.registry.signing import signing_request
from tests.service import Service

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

ROOT = Path(__file__).parents[3]
WEBHOOK_SECRET = "between.broker_and~service"
SYNC_EVERY = 0.2
SESSIONS_USER, SESSIONS_PASSWORD = "authsvc-sessions", "needs no permission"


class Deployment:
    """A service, a broker and `authsvc crl sync`; they run inside the `with` block."""

    broker: Mosquitto

    def __init__(
        self, directory: Path, plugin: Path, environment: Mapping[str, str] | None = None, *, is_go_auth: bool = True
    ) -> None:
        self.directory = directory
        self.pki = directory / "pki"
        self.password_port, self.tls_port = free_port(), free_port()
        self.service = Service(directory, {"AUTHSVC_WEBHOOK_SECRET": WEBHOOK_SECRET, **(environment or {})})
        self.is_go_auth = is_go_auth
        self._plugin = plugin
        self._running = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as starting:
            starting.enter_context(self.service)
            self._make_server_certificate()
            self._syncing = starting.enter_context(self._crl_sync())
            config = self.broker_config()
            until((self.pki / "crl.pem").exists, "the first list is written")
            self.broker = starting.enter_context(Mosquitto(config, self.directory))
            self.sync()
            self._running = starting.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def with_disconnects(self) -> Self:
        """Configure the service's own login to the broker, to disconnect clients. Call it before the start."""
        login = f"{SESSIONS_USER}:{SESSIONS_PASSWORD.replace(' ', '%20')}"
        self.service.environment["AUTHSVC_BROKER_URL"] = f"mqtt://{login}@127.0.0.1:{self.password_port}"
        return self

    def authsvc(self, *arguments: str | Path, stdin: str = "") -> str:
        """Run `authsvc ...` with the service's settings; it must succeed."""
        done = self.service.command(*map(str, arguments), stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout

    # ---- The broker and its files ----

    def broker_config(self) -> str:
        """Return the output of `authsvc broker-config`, changed to loopback and to the test's directory."""
        ports = ("--password-port", str(self.password_port), "--tls-port", str(self.tls_port))
        option, secret = "--go-auth", tuple[str | Path, ...]()
        if not self.is_go_auth:
            option, secret_file = "--plugin", self.directory / "webhook_secret"
            secret_file.write_text(WEBHOOK_SECRET)
            secret = ("--secret-file", secret_file)
        config = self.authsvc(
            "broker-config", *ports, option, self._plugin, *secret, "--pki", self.pki, "--pid", self._pid_file
        )
        assert config.count("/var/lib/mosquitto/\n") == 1
        config = config.replace("/var/lib/mosquitto/\n", f"{self.directory}/\n")
        for port in (self.password_port, self.tls_port):
            config = config.replace(f"listener {port}\n", f"listener {port} 127.0.0.1\n")
        return config

    def sync(self) -> None:
        """Wait until the broker was sent SIGHUP for the current lists. It reads them a moment later."""
        lists = self.service.call("GET", "/pki/crl.pem").content
        told = self.pki / ".crl.pem.told"
        digest = hashlib.sha256(lists).hexdigest()
        until(lambda: told.exists() and told.read_text() == digest, "the broker is notified of the lists")

    @contextmanager
    def lists_held_back(self) -> Iterator[None]:
        """Stop `crl sync` during the block, so that the broker gets no new list."""
        self._syncing.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._syncing.send_signal(signal.SIGCONT)

    def _crl_sync(self) -> AbstractContextManager[subprocess.Popen[bytes]]:
        files = ("--out", self.pki / "crl.pem", "--ca-out", self.pki / "ca.pem", "--pid", self._pid_file)
        command = ("crl", "sync", "--server", self.service.url, *files, "--interval", str(SYNC_EVERY))
        return running_command(*command, log=self.directory / "sync.log")

    @property
    def _pid_file(self) -> Path:
        return self.pki / "mosquitto.pid"

    def _make_server_certificate(self) -> None:
        """Create the broker's certificate with the shipped script, like `make secrets`."""
        script = shutil.copy(ROOT / "deploy" / "make-secrets.sh", self.directory)
        subprocess.run([script], check=True, capture_output=True)
        self.pki.mkdir()
        for name in ("server.crt", "server.key"):
            shutil.copy(self.directory / "secrets" / name, self.pki)

    # ---- Certificates ----

    def enrol(self, username: str, name: str = "") -> CertificateFiles:
        """Issue a certificate for a new key. `name` is the directory of the files, by default the username."""
        files, key = new_certificate_files(self.directory / "devices" / (name or username))
        body = {"csr": signing_request(username, key)}
        answer = self.service.call("POST", f"/api/users/{username}/certificates", json=body)
        assert answer.status_code == 201, answer.text
        files.certificate_file.write_text(answer.json()["certificate"])
        return files

    def revoke(self, files: CertificateFiles) -> None:
        """Revoke a certificate as the administrator."""
        path = f"/api/certificates/{files.serial}/revoke"
        answer = self.service.call("POST", path, json={"reason": "keyCompromise"})
        assert answer.status_code == 200, answer.text

    def authority(self) -> CertificateAuthority:
        """Return the signing authority, to sign certificates that the service would not issue."""
        return CertificateAuthority(*self.stored("SELECT certificate, key FROM authorities ORDER BY id DESC LIMIT 1"))

    # ---- Stored rows ----

    def stored(self, statement: str, *values: object) -> tuple[Any, ...]:
        """Run a statement on the service's database and return its first row, or an empty tuple."""
        file = self.directory / "data" / "authsvc.db"
        with closing(sqlite3.connect(file, timeout=TIMEOUT)) as connection, connection:
            row: tuple[Any, ...] | None = connection.execute(statement, values).fetchone()
        return row or ()

    def make_older(self, files: CertificateFiles, days: int) -> None:
        """Replace a device's certificate by a one-year certificate issued the given number of days ago."""
        then = datetime.now(UTC) - timedelta(days=days)
        old = files.certificate
        key: Any = old.public_key()
        made = self.authority().sign(old.subject.rfc4514_string().removeprefix("CN="), key, then, 365)
        files.certificate_file.write_text(made.certificate)
        times = [f"{moment:%Y-%m-%d %H:%M:%S}" for moment in (made.not_before, made.not_after)]
        self.stored(
            "UPDATE certificates SET serial = ?, certificate = ?, not_before = ?, not_after = ? WHERE serial = ?",
            *(made.serial, made.certificate, *times, f"{old.serial_number:x}"),
        )
