"""A plant: the service, a broker that `authsvc broker-config` configured, and the files they share."""

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
from tests.certificates.mosquitto.certified import Papers, new_papers
from tests.certificates.mosquitto.commands import going_on
from tests.certificates.mosquitto.waiting import PATIENCE, until
from tests.registry.signing import signing_request
from tests.service import Service

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

ROOT = Path(__file__).parents[3]
WEBHOOK_SECRET = "between.broker_and~service"
SYNC_EVERY = 0.2
SESSIONS_USER, SESSIONS_PASSWORD = "authsvc-sessions", "needs no permission"


class Plant:
    """Runs inside its `with` block, with `authsvc crl sync` beside the broker."""

    broker: Mosquitto

    def __init__(self, directory: Path, plugin: Path, environment: Mapping[str, str] | None = None) -> None:
        self.directory = directory
        self.pki = directory / "pki"
        self.password_port, self.tls_port = free_port(), free_port()
        self.service = Service(directory, {"AUTHSVC_WEBHOOK_SECRET": WEBHOOK_SECRET, **(environment or {})})
        self._plugin = plugin
        self._running = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as starting:
            starting.enter_context(self.service)
            self._make_server_certificate()
            self._syncing = starting.enter_context(self._crl_sync())
            config = self.broker_config()
            until((self.pki / "crl.pem").exists, "there is a first list")
            self.broker = starting.enter_context(Mosquitto(config, self.directory))
            self.sync()
            self._running = starting.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def may_end_sessions(self) -> Self:
        """Give the service a user of its own on the broker, to be called before the start."""
        login = f"{SESSIONS_USER}:{SESSIONS_PASSWORD.replace(' ', '%20')}"
        self.service.environment["AUTHSVC_BROKER_URL"] = f"mqtt://{login}@127.0.0.1:{self.password_port}"
        return self

    def authsvc(self, *arguments: str | Path, stdin: str = "") -> str:
        """Run `authsvc ...` with the service's own settings; it must succeed."""
        done = self.service.command(*map(str, arguments), stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout

    # ---- The broker and its files ----

    def broker_config(self) -> str:
        """Return what `authsvc broker-config` prints, on loopback and with its data in the test's directory."""
        ports = ("--password-port", str(self.password_port), "--tls-port", str(self.tls_port))
        config = self.authsvc(
            "broker-config", *ports, "--go-auth", self._plugin, "--pki", self.pki, "--pid", self._pid_file
        )
        assert config.count("/var/lib/mosquitto/\n") == 1
        config = config.replace("/var/lib/mosquitto/\n", f"{self.directory}/\n")
        for port in (self.password_port, self.tls_port):
            config = config.replace(f"listener {port}\n", f"listener {port} 127.0.0.1\n")
        return config

    def sync(self) -> None:
        """Wait until the broker has been told of the lists as they are now; it reads them in the next moment."""
        lists = self.service.call("GET", "/pki/crl.pem").content
        told = self.pki / ".crl.pem.told"
        digest = hashlib.sha256(lists).hexdigest()
        until(lambda: told.exists() and told.read_text() == digest, "the broker is told of the lists")

    @contextmanager
    def lists_held_back(self) -> Iterator[None]:
        """Let no new list reach the broker for the length of a block, and it alone when the block ends."""
        self._syncing.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._syncing.send_signal(signal.SIGCONT)

    def _crl_sync(self) -> AbstractContextManager[subprocess.Popen[bytes]]:
        files = ("--out", self.pki / "crl.pem", "--ca-out", self.pki / "ca.pem", "--pid", self._pid_file)
        command = ("crl", "sync", "--server", self.service.url, *files, "--interval", str(SYNC_EVERY))
        return going_on(*command, log=self.directory / "sync.log")

    @property
    def _pid_file(self) -> Path:
        return self.pki / "mosquitto.pid"

    def _make_server_certificate(self) -> None:
        """Let the shipped script make it, as `make secrets` does."""
        script = shutil.copy(ROOT / "deploy" / "make-secrets.sh", self.directory)
        subprocess.run([script], check=True, capture_output=True)
        self.pki.mkdir()
        for name in ("server.crt", "server.key"):
            shutil.copy(self.directory / "secrets" / name, self.pki)

    # ---- Certificates ----

    def enrol(self, username: str, name: str = "") -> Papers:
        """Let Alice sign a request of the user's, under another name if it has papers; return what it has then."""
        papers, key = new_papers(self.directory / "devices" / (name or username))
        body = {"csr": signing_request(username, key)}
        answer = self.service.call("POST", f"/api/users/{username}/certificates", json=body)
        assert answer.status_code == 201, answer.text
        papers.certificate_file.write_text(answer.json()["certificate"])
        return papers

    def revoke(self, papers: Papers) -> None:
        """Let Alice revoke a certificate."""
        path = f"/api/certificates/{papers.serial}/revoke"
        answer = self.service.call("POST", path, json={"reason": "keyCompromise"})
        assert answer.status_code == 200, answer.text

    def authority(self) -> CertificateAuthority:
        """Return the authority that signs, for what the service itself would never sign."""
        return CertificateAuthority(*self.stored("SELECT certificate, key FROM authorities ORDER BY id DESC LIMIT 1"))

    # ---- What is stored, and how time passes over it ----

    def stored(self, statement: str, *values: object) -> tuple[Any, ...]:
        """Run a statement on the service's database and return its first row, or nothing."""
        file = self.directory / "data" / "authsvc.db"
        with closing(sqlite3.connect(file, timeout=PATIENCE)) as connection, connection:
            row: tuple[Any, ...] | None = connection.execute(statement, values).fetchone()
        return row or ()

    def ages(self, papers: Papers, days: int) -> None:
        """Replace a device's certificate by a one-year certificate issued the given number of days ago."""
        then = datetime.now(UTC) - timedelta(days=days)
        old = papers.certificate
        key: Any = old.public_key()
        made = self.authority().sign(old.subject.rfc4514_string().removeprefix("CN="), key, then, 365)
        papers.certificate_file.write_text(made.certificate)
        times = [f"{moment:%Y-%m-%d %H:%M:%S}" for moment in (made.not_before, made.not_after)]
        self.stored(
            "UPDATE certificates SET serial = ?, certificate = ?, not_before = ?, not_after = ? WHERE serial = ?",
            *(made.serial, made.certificate, *times, f"{old.serial_number:x}"),
        )
