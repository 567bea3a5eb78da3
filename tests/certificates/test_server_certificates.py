"""Server certificates for brokers: the command, the API, and a broker that uses one."""

from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.actors import ADMIN_PASSWORD
from tests.certificates.environment import ON_SQLITE, Environment
from tests.certificates.tools import key_pem, openssl, openssl_refuses, write_file
from tests.http.callers import Caller, problem_of, refused_fields
from tests.http.console import Console, error_of, stdout_of
from tests.registry.signing import new_key, signing_request
from tests.storage.environment import events

if TYPE_CHECKING:
    from pathlib import Path
    from subprocess import CompletedProcess

    from authsvc.settings import Settings

pytestmark = ON_SQLITE
HOSTS = ("Broker.Plant", "192.0.2.7", "2001:db8::7", "*.line-3.plant")


@pytest.fixture
def console(env: Environment, prepared: Settings, capsys: pytest.CaptureFixture[str]) -> Console:
    """Return the command line of the service."""
    environment = {"AUTHSVC_DATA_DIR": str(prepared.data_dir), "AUTHSVC_ADMIN_PASSWORD": ADMIN_PASSWORD}
    return Console(environment, capsys)


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """Return the directory of the broker's files."""
    return tmp_path / "desk"


def issues(
    console: Console, desk: Path, *options: str, hosts: tuple[str, ...] = HOSTS, stdin: str = ""
) -> CompletedProcess[str]:
    named = [word for host in hosts for word in ("--host", host)]
    return console.command("certificates", "issue-server", *named, "--out", str(desk), *options, stdin=stdin)


def certificate_in(desk: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate((desk / "server.crt").read_bytes())


# The command.


def test_certificate_is_verified_by_the_authorities_beside_it(console: Console, env: Environment, desk: Path) -> None:
    line = stdout_of(issues(console, desk))
    assert {path.name for path in desk.iterdir()} == {"server.key", "server.crt", "ca.crt"}
    assert " for broker.plant, 192.0.2.7, 2001:db8::7, *.line-3.plant, valid until 20" in line
    assert (desk / "ca.crt").read_text() == env.ca_pem()
    assert stat.S_IMODE((desk / "server.key").stat().st_mode) == 0o600
    verify = ("verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", desk / "ca.crt")
    for name in ("broker.plant", "press.line-3.plant"):
        assert "OK" in openssl(*verify, "-verify_hostname", name, desk / "server.crt")
    for address in ("192.0.2.7", "2001:db8::7"):
        assert "OK" in openssl(*verify, "-verify_ip", address, desk / "server.crt")
    openssl_refuses(*verify, "-verify_hostname", "other.plant", desk / "server.crt")
    of_key = openssl("pkey", "-in", desk / "server.key", "-pubout")
    assert of_key == openssl("x509", "-in", desk / "server.crt", "-noout", "-pubkey")


def test_certificate_is_no_client_certificate(console: Console, env: Environment, desk: Path) -> None:
    env.create_user("broker.plant")
    stdout_of(issues(console, desk, hosts=("broker.plant",)))
    openssl_refuses("verify", "-purpose", "sslclient", "-CAfile", desk / "ca.crt", desk / "server.crt")
    certificate = certificate_in(desk)
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]
    (name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert name.value == "server:broker.plant", "no user can have this name"


def test_issuing_is_audited_and_the_certificate_listed(console: Console, desk: Path) -> None:
    serial = stdout_of(issues(console, desk)).split()[0]
    (done,) = [each for each in events() if each.action == "certificate.issue-server"]
    assert (done.via, done.target) == ("command", f"certificate:{serial}")
    assert done.after
    assert done.after["hosts"] == ["broker.plant", "192.0.2.7", "2001:db8::7", "*.line-3.plant"]
    listed = json.loads(stdout_of(console.command("certificates", "list", "--json")))["items"]
    assert [(one["serial"], one["username"], one["status"]) for one in listed] == [
        (serial, "server:broker.plant", "valid")
    ]


def test_renewal_asks_and_keeps_the_key(console: Console, desk: Path) -> None:
    stdout_of(issues(console, desk))
    key, first = (desk / "server.key").read_bytes(), certificate_in(desk)
    kept = issues(console, desk, stdin="n\n")
    assert kept.returncode == 1
    assert "Replace it?" in kept.stdout
    assert certificate_in(desk) == first
    assert issues(console, desk, stdin="y\n").returncode == 0
    assert certificate_in(desk) != first
    assert (desk / "server.key").read_bytes() == key
    assert {path.name for path in desk.iterdir()} == {"server.key", "server.crt", "ca.crt"}


def test_forced_renewal_needs_no_hosts_and_can_replace_the_key(console: Console, desk: Path) -> None:
    stdout_of(issues(console, desk))
    first, key = certificate_in(desk), (desk / "server.key").read_bytes()
    stdout_of(issues(console, desk, "--force", hosts=()))
    second = certificate_in(desk)
    alternative = x509.SubjectAlternativeName
    assert second.extensions.get_extension_for_class(alternative) == first.extensions.get_extension_for_class(
        alternative
    )
    assert second.public_key() == first.public_key()
    stdout_of(issues(console, desk, "--force", "--new-key", hosts=("other.plant",)))
    assert (desk / "server.key").read_bytes() != key
    assert certificate_in(desk).public_key() != first.public_key()
    assert stat.S_IMODE((desk / "server.key").stat().st_mode) == 0o600


def test_first_certificate_needs_a_host(console: Console, desk: Path) -> None:
    done = issues(console, desk, hosts=())
    assert done.returncode == 2
    assert "--host is needed" in done.stderr
    assert not desk.exists()


@pytest.mark.parametrize(
    "host",
    ["", "https://broker.plant", "broker.plant:8883", "a b", "-x.plant", "1.2.3", "a_b", "*", "x" * 64, "ü.plant"],
)
def test_wrong_host_is_refused_and_writes_nothing(console: Console, desk: Path, host: str) -> None:
    words = error_of(issues(console, desk, hosts=("broker.plant", host)))
    assert words.startswith("hosts: must be host names or IP addresses")
    assert list(desk.iterdir()) == []


def test_other_files_in_the_way_are_kept(console: Console, desk: Path) -> None:
    write_file(desk, "server.crt", "something else")
    assert "is not a certificate" in error_of(issues(console, desk))
    (desk / "server.crt").unlink()
    write_file(desk, "server.key", key_pem(ec.generate_private_key(ec.SECP256R1()), "passphrase"))
    assert "is not a private key without a passphrase" in error_of(issues(console, desk))


def test_revoked_certificate_is_on_the_list_and_disconnects_nobody(
    console: Console, env: Environment, desk: Path
) -> None:
    serial = stdout_of(issues(console, desk)).split()[0]
    stdout_of(console.command("certificates", "revoke", serial))
    (revoked,) = x509.load_pem_x509_crl(env.unauthenticated.get("/pki/crl.pem").data)
    assert f"{revoked.serial_number:x}" == serial
    assert not [each for each in events() if each.action.startswith("session.")]


# The API.


def body(**fields: Any) -> dict[str, Any]:
    return {"csr": signing_request("anything", new_key()), "hosts": ["broker.plant"], **fields}


def test_api_signs_a_request_whatever_its_name(env: Environment, tmp_path: Path) -> None:
    answer = env.admin.post("/api/certificates/server", body(hosts=list(HOSTS), days=30))
    assert answer.status_code == 201, answer.text
    issued = answer.get_json()
    file = write_file(tmp_path, "server.crt", issued["certificate"])
    authority = write_file(tmp_path, "ca.crt", issued["caCertificate"])
    assert "OK" in openssl("verify", "-CAfile", authority, "-verify_hostname", "broker.plant", file)
    (done,) = [each for each in events() if each.action == "certificate.issue-server"]
    assert (done.actor, done.via, done.target) == ("admin", "api", f"certificate:{issued['serial']}")
    shown = env.admin.get(f"/api/certificates/{issued['serial']}").get_json()
    assert (shown["username"], shown["status"]) == ("server:broker.plant", "valid")


def test_api_needs_its_own_permission(env: Environment) -> None:
    def caller(name: str, *resources: str) -> Caller:
        permissions = [{"context": "http", "operation": "write", "resource": each} for each in resources]
        fields = {"username": name, "password": "secret", "permissions": permissions}
        assert env.admin.post("/api/users", fields).status_code == 201
        return env.unauthenticated.signs_in(name, "secret")

    allowed = caller("pat", "/api/certificates/server")
    other = caller("quinn", "/api/users/#", "/api/certificates/+/revoke")
    assert allowed.post("/api/certificates/server", body()).status_code == 201
    problem_of(other.post("/api/certificates/server", body()), 403, "forbidden")
    problem_of(env.unauthenticated.post("/api/certificates/server", body()), 401, "unauthenticated")


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [({"hosts": []}, "hosts"), ({"hosts": ["a b"]}, "hosts"), ({"csr": "junk"}, "csr"), ({"days": 0}, "days")],
)
def test_api_names_the_wrong_field(env: Environment, fields: dict[str, Any], wrong: str) -> None:
    assert refused_fields(env.admin.post("/api/certificates/server", body(**fields))) == [wrong]


def test_key_of_a_client_is_refused(env: Environment) -> None:
    key = new_key()
    request = signing_request("bob", key)
    assert env.admin.post("/api/users/bob/certificates", {"csr": request}).status_code == 201
    problem_of(env.admin.post("/api/certificates/server", body(csr=request)), 409, "key-used")


def test_key_of_a_server_is_no_key_for_a_client(env: Environment) -> None:
    request = signing_request("bob", new_key())
    assert env.admin.post("/api/certificates/server", body(csr=request)).status_code == 201
    assert env.admin.post("/api/certificates/server", body(csr=request)).status_code == 201, "a server may keep its key"
    problem_of(env.admin.post("/api/users/bob/certificates", {"csr": request}), 409, "key-used")
