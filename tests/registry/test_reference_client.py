"""`authsvc register` on a device, with a certificate, a password or both."""

from __future__ import annotations

import itertools
import json
import socket
import stat
import subprocess
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from registry.cli import client
from tests.broker import Mosquitto, free_port
from tests.http.console import Console, error_of
from tests.registry.environment import REGISTRATIONS
from tests.registry.terminal import AUTHSVC, Running
from tests.service import Service

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from subprocess import CompletedProcess

_numbers = itertools.count(1)
PASSWORD = "a device's secret"


@dataclass(frozen=True)
class Bob:
    """A device with a directory and a username; it does not wait by default."""

    service: Service
    name: str
    directory: Path
    console: Console

    def arguments(self, *more: str) -> list[str]:
        return ["register", "--server", self.service.url, "--username", self.name, "--out", str(self.directory), *more]

    def register_pending(self, *more: str, stdin: str = "") -> CompletedProcess[str]:
        return self.console.command(*self.arguments("--wait", "0", *more), stdin=stdin)

    def registration(self) -> dict[str, Any]:
        """Return the registration that the administrator sees."""
        (found,) = self.service.call("GET", REGISTRATIONS, params={"search": self.name}).json()["items"]
        return dict(found)

    def is_granted(self) -> None:
        path = f"{REGISTRATIONS}/{self.registration()['id']}/grant"
        assert self.service.call("POST", path).status_code == 200

    @property
    def key(self) -> Path:
        return self.directory / "client.key"

    def holds_what_it_needs(self) -> bool:
        """Return whether key, certificate and CA certificate fit together."""
        key = serialization.load_pem_private_key(self.key.read_bytes(), None)
        certificate = x509.load_pem_x509_certificate((self.directory / "client.crt").read_bytes())
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate((self.directory / "ca.crt").read_bytes()))
        return certificate.public_key() == key.public_key()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A running service for this module."""
    with Service(tmp_path_factory.mktemp("service")) as service:
        yield service


@pytest.fixture
def console(capsys: pytest.CaptureFixture[str]) -> Console:
    """Runs commands without settings of a service."""
    return Console({}, capsys)


@pytest.fixture
def bob(service: Service, console: Console, tmp_path: Path) -> Bob:
    """An unknown device; the registry is unlocked."""
    assert service.call("POST", "/api/client-registry/unlock").status_code == 200
    return Bob(service, f"bob-{next(_numbers)}", tmp_path / "device", console)


def test_device_registers_shows_its_code_and_gets_a_certificate(bob: Bob) -> None:
    asked = bob.register_pending()
    assert asked.returncode == 1
    assert bob.registration()["pairingCode"] in asked.stderr
    assert "run the same command again" in asked.stderr
    assert stat.S_IMODE(bob.key.stat().st_mode) == 0o600
    key = bob.key.read_bytes()
    bob.is_granted()
    fetched = bob.register_pending()
    assert fetched.returncode == 0, fetched.stderr
    assert f"{bob.name} can connect now" in fetched.stdout
    assert bob.key.read_bytes() == key
    assert bob.holds_what_it_needs()
    assert sorted(path.name for path in bob.directory.iterdir()) == ["ca.crt", "client.crt", "client.key"]
    # The command can be repeated.
    assert bob.register_pending().returncode == 0
    assert bob.holds_what_it_needs()


def test_authorities_of_the_device_verify_a_broker_with_an_issued_certificate(bob: Bob, tmp_path: Path) -> None:
    issue = ("certificates", "issue-server", "--host", "localhost", "--out", str(tmp_path / "broker"))
    assert bob.service.command(*issue).returncode == 0
    bob.register_pending()
    bob.is_granted()
    assert bob.register_pending().returncode == 0
    broker = tmp_path / "broker"
    options = ["allow_anonymous true", f"listener {free_port()}", "require_certificate true"]
    options += [f"cafile {broker}/ca.crt", f"certfile {broker}/server.crt", f"keyfile {broker}/server.key"]
    with Mosquitto("\n".join(options), tmp_path) as mosquitto:
        command = f"mosquitto_pub -h localhost -p {mosquitto.port} --cafile ca.crt --key client.key --cert client.crt"
        sent = [*command.split(), "-t", "a", "-m", "b", "-q", "1"]
        done = subprocess.run(sent, cwd=bob.directory, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_command_waits_until_granted(bob: Bob) -> None:
    with Running(AUTHSVC, *bob.arguments()) as waiting:
        waiting.wait_for("pairing code")
        bob.is_granted()
        assert waiting.wait() == 0
        assert waiting.printed.count("pairing code") == 1
    assert bob.holds_what_it_needs()


def test_restarted_command_continues(bob: Bob) -> None:
    with Running(AUTHSVC, *bob.arguments()) as waiting:
        waiting.wait_for("pairing code")
        waiting.kill()
    code = bob.registration()["pairingCode"]
    assert code in waiting.printed
    key = bob.key.read_bytes()
    with Running(AUTHSVC, *bob.arguments()) as waiting:
        waiting.wait_for(code)
    bob.is_granted()
    assert bob.register_pending().returncode == 0
    assert bob.key.read_bytes() == key
    assert bob.holds_what_it_needs()


def test_denied_device_sees_the_denial(bob: Bob) -> None:
    bob.register_pending()
    bob.service.call("POST", f"{REGISTRATIONS}/{bob.registration()['id']}/deny")
    result = bob.register_pending()
    assert result.returncode == 1
    assert "denied" in result.stderr
    assert not (bob.directory / "client.crt").exists()


def test_device_with_a_revoked_certificate_is_told_so(bob: Bob) -> None:
    bob.register_pending()
    bob.is_granted()
    assert bob.register_pending().returncode == 0
    (issued,) = bob.service.call("GET", f"/api/users/{bob.name}/certificates").json()["items"]
    bob.service.call("POST", f"/api/certificates/{issued['serial']}/revoke", json={"reason": "keyCompromise"})
    told = bob.register_pending()
    assert (told.returncode, told.stdout) == (1, "")
    assert "the certificate of this registration is revoked (keyCompromise)" in told.stderr


def test_disabled_device_is_told_so(bob: Bob) -> None:
    bob.register_pending()
    bob.is_granted()
    bob.service.call("PATCH", f"/api/users/{bob.name}", json={"enabled": False})
    told = bob.register_pending()
    assert (told.returncode, told.stdout) == (1, "")
    assert "the user is disabled now" in told.stderr


def test_second_device_of_a_name_sees_that_it_is_taken(bob: Bob, tmp_path: Path) -> None:
    bob.register_pending()
    result = replace(bob, directory=tmp_path / "another").register_pending()
    assert result.returncode == 1
    assert "taken" in result.stderr


def test_command_reports_a_locked_registry(bob: Bob) -> None:
    bob.service.call("POST", "/api/client-registry/lock")
    result = bob.register_pending()
    assert result.returncode == 1
    assert "locked" in result.stderr
    assert bob.key.exists()


@pytest.mark.parametrize(("options", "files"), [([], ["ca.crt"]), (["--csr"], ["ca.crt", "client.crt", "client.key"])])
def test_password_is_read_from_standard_input(bob: Bob, options: list[str], files: list[str]) -> None:
    assert bob.register_pending("--password-stdin", *options, stdin=f"{PASSWORD}\n").returncode == 1
    bob.is_granted()
    assert bob.register_pending("--password-stdin", *options, stdin=f"{PASSWORD}\r\n").returncode == 0
    assert sorted(path.name for path in bob.directory.glob("*")) == files
    login = {"username": bob.name, "password": PASSWORD, "clientid": "c1"}
    assert requests.post(f"{bob.service.broker_url}/auth/user", json=login, timeout=20).status_code == 200


def test_too_short_password_is_reported(bob: Bob) -> None:
    result = bob.register_pending("--password-stdin", stdin="1234\n")
    assert result.returncode == 1
    assert "password" in result.stderr
    assert "1234" not in result.stderr


def test_device_with_an_enrolment_key_is_granted_at_once(bob: Bob, tmp_path: Path) -> None:
    bob.service.call("POST", "/api/client-registry/lock")
    made = bob.service.call("POST", "/api/client-registry/enrolment-keys", json={"label": "hall 3"}).json()
    file = tmp_path / "enrolment-key"
    file.write_text(made["secret"] + "\n")
    ended = bob.register_pending("--enrolment-key-file", str(file))
    assert ended.returncode == 0, ended.stderr
    assert made["secret"] not in ended.stdout + ended.stderr
    assert bob.holds_what_it_needs()


def keys_that_are_no_good() -> dict[str, bytes]:
    """Return invalid contents of the key file."""
    form, secret = serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"passphrase")
    encrypted = ec.generate_private_key(ec.SECP256R1()).private_bytes(serialization.Encoding.PEM, form, secret)
    none = serialization.NoEncryption()
    other = rsa.generate_private_key(65_537, 2048).private_bytes(serialization.Encoding.PEM, form, none)
    return {"junk": b"junk", "nothing": b"", "encrypted": encrypted, "RSA": other}


@pytest.mark.parametrize("kind", keys_that_are_no_good())
def test_existing_key_is_never_overwritten(bob: Bob, kind: str) -> None:
    bob.directory.mkdir()
    found = keys_that_are_no_good()[kind]
    bob.key.write_bytes(found)
    result = bob.register_pending()
    assert result.returncode == 1
    assert "never overwritten" in result.stderr
    assert bob.key.read_bytes() == found
    assert list(bob.directory.iterdir()) == [bob.key]


def test_command_retries_while_the_server_is_down(tmp_path: Path) -> None:
    with Running(AUTHSVC, "register", "--server", f"http://127.0.0.1:{free_port()}", "--username", "bob",
                 "--out", str(tmp_path)) as trying:  # fmt: skip
        trying.wait_for("the server does not answer; trying again")


class OtherServer(BaseHTTPRequestHandler):
    """An HTTP server that is not authsvc."""

    def do_POST(self) -> None:
        body = b"<html>It works!</html>"
        self.send_response(int(self.path.strip("/").partition("/")[0]))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def other_server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), OtherServer) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("status", [200, 404, 405])
def test_command_ends_if_the_server_is_not_authsvc(
    console: Console, other_server: str, status: int, tmp_path: Path
) -> None:
    result = console.command(
        "register", "--server", f"{other_server}/{status}", "--username", "bob", "--out", str(tmp_path)
    )
    assert result.returncode == 1
    assert f"refused ({status})" in result.stderr


@pytest.mark.parametrize("server", ["auth.example", "ftp://auth.example", "http://", "http://[::1"])
def test_invalid_url_is_reported_in_one_line(console: Console, server: str, tmp_path: Path) -> None:
    result = console.command("register", "--server", server, "--username", "bob", "--wait", "0", "--out", str(tmp_path))
    assert error_of(result)


def test_command_retries_after_a_timeout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("registry.cli.transport._TIMEOUT_SECONDS", 0.05)
    said: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as silent:
        server = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(client.Refused):
            client.register(client.Enrolment(server, "bob", tmp_path, True), said.append, give_up_at=0)
    assert said == ["the server does not answer; trying again"]


def test_nothing_is_sent_to_an_untrusted_server(bob: Bob) -> None:
    # An https URL of a plain HTTP server: the TLS handshake fails, so nothing is sent.
    address = bob.service.url.replace("http:", "https:")
    result = replace(bob, service=cast("Service", SimpleNamespace(url=address))).register_pending()
    assert result.returncode == 1
    assert bob.service.call("GET", REGISTRATIONS, params={"search": bob.name}).json()["items"] == []


def test_pairing_code_and_fingerprint_are_equal_on_device_and_registry(bob: Bob) -> None:
    bob.register_pending()
    shown = bob.service.command("registry", "show", bob.registration()["id"]).stdout
    assert json.loads(shown)["pairingCode"] in bob.register_pending().stderr
