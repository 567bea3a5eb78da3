"""The commands `authsvc certificates` and `authsvc ca`."""

from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509

from tests.actors import ADMIN_PASSWORD
from tests.certificates.environment import ON_SQLITE, Environment, serial_of
from tests.certificates.tools import client_context, handshake, key_pem, openssl, pem, server_context, write_file
from tests.http.console import Console, error_of, stdout_of
from tests.registry.signing import new_key, signing_request
from tests.storage.environment import events

if TYPE_CHECKING:
    from pathlib import Path
    from subprocess import CompletedProcess

    from authsvc.settings import Settings

pytestmark = ON_SQLITE


@pytest.fixture
def console(env: Environment, prepared: Settings, capsys: pytest.CaptureFixture[str]) -> Console:
    """Return the command line of the service."""
    environment = {
        "AUTHSVC_DATA_DIR": str(prepared.data_dir),
        "AUTHSVC_DATABASE_URL": prepared.database_url,
        "AUTHSVC_ADMIN_PASSWORD": ADMIN_PASSWORD,
    }
    return Console(environment, capsys)


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """Return the operator's working directory."""
    return tmp_path / "desk"


def issues(
    console: Console, desk: Path, *options: str, username: str = "bob", stdin: str = ""
) -> CompletedProcess[str]:
    return console.command("certificates", "issue", username, "--out", str(desk), *options, stdin=stdin)


def certificate_on(desk: Path, username: str = "bob") -> x509.Certificate:
    return x509.load_pem_x509_certificate((desk / f"{username}.crt").read_bytes())


def json_of(console: Console, *arguments: str) -> Any:
    return json.loads(stdout_of(console.command(*arguments)))


# Issuing.


def test_issue_creates_key_and_certificate(console: Console, env: Environment, desk: Path) -> None:
    line = stdout_of(issues(console, desk))
    assert {path.name for path in desk.iterdir()} == {"bob.key", "bob.crt", "ca.crt"}
    certificate = certificate_on(desk)
    assert line.startswith(f"{serial_of(certificate)} for bob, valid until 20")
    assert (desk / "ca.crt").read_text() == env.ca_pem()
    assert "OK" in openssl("verify", "-CAfile", desk / "ca.crt", desk / "bob.crt")
    of_key = openssl("pkey", "-in", desk / "bob.key", "-pubout")
    assert of_key == openssl("x509", "-in", desk / "bob.crt", "-noout", "-pubkey")
    assert env.acl_answer("bob") == "ok"
    (done,) = [each for each in events() if each.action == "certificate.issue"]
    assert done.via == "command"


def test_key_file_has_mode_0600_and_is_never_overwritten(console: Console, env: Environment, desk: Path) -> None:
    stdout_of(issues(console, desk))
    assert stat.S_IMODE((desk / "bob.key").stat().st_mode) == 0o600
    before = {path.name: path.read_bytes() for path in desk.iterdir()}
    assert "exists and is not overwritten" in error_of(issues(console, desk))
    assert {path.name: path.read_bytes() for path in desk.iterdir()} == before
    assert env.admin.get("/api/certificates").get_json()["total"] == 1


def test_issued_files_work_in_a_tls_handshake(console: Console, env: Environment, desk: Path, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    stdout_of(issues(console, desk))
    key = load_pem_private_key((desk / "bob.key").read_bytes(), None)
    client = client_context(tmp_path, (desk / "bob.crt").read_text(), key)
    assert handshake(server_context(tmp_path, env.ca_pem(), env.crl_pem()), client) == "bob"


def test_csr_is_signed_without_creating_a_key(console: Console, desk: Path) -> None:
    csr = write_file(desk, "bob.csr", signing_request("bob"))
    stdout_of(issues(console, desk, "--csr", str(csr), "--days", "7"))
    assert {path.name for path in desk.iterdir()} == {"bob.csr", "bob.crt", "ca.crt"}
    lived = certificate_on(desk).not_valid_after_utc - certificate_on(desk).not_valid_before_utc
    assert lived.days == 7


@pytest.mark.parametrize("content", ["junk", signing_request("carol"), ""], ids=["junk", "another's", "empty"])
def test_invalid_csr_is_refused_and_leaves_no_file(console: Console, desk: Path, content: str) -> None:
    csr = write_file(desk, "bob.csr", content)
    assert error_of(issues(console, desk, "--csr", str(csr))).startswith("csr: must ")
    assert [path.name for path in desk.iterdir()] == ["bob.csr"]


@pytest.mark.filterwarnings("ignore::getpass.GetPassWarning")
def test_pkcs12_file_contains_key_certificate_and_authority(console: Console, desk: Path) -> None:
    done = issues(console, desk, "--p12", stdin="phone\nphone\n")
    assert done.returncode == 0, done
    assert stat.S_IMODE((desk / "bob.p12").stat().st_mode) == 0o600
    text = openssl("pkcs12", "-in", desk / "bob.p12", "-passin", "pass:phone", "-nodes")
    found = x509.load_pem_x509_certificates(text.encode())
    assert {pem(each) for each in found} == {(desk / "bob.crt").read_text(), (desk / "ca.crt").read_text()}
    assert "BEGIN PRIVATE KEY" in text
    assert "friendlyName: bob" in text
    with pytest.raises(AssertionError, match=r"(?i)mac verify"):
        openssl("pkcs12", "-in", desk / "bob.p12", "-passin", "pass:wrong", "-nodes")


@pytest.mark.filterwarnings("ignore::getpass.GetPassWarning")
def test_pkcs12_file_needs_a_new_key(console: Console, desk: Path) -> None:
    csr = write_file(desk, "bob.csr", signing_request("bob"))
    done = issues(console, desk, "--csr", str(csr), "--p12", stdin="phone\nphone\n")
    assert done.returncode != 0


@pytest.mark.parametrize(("username", "words"), [("nemo", "no such user"), ("dot", "grant type certificate")])
def test_user_who_cannot_have_a_certificate_is_named(
    console: Console, env: Environment, desk: Path, username: str, words: str
) -> None:
    env.create_user("dot", grant_types=frozenset({"password"}))
    assert words in error_of(issues(console, desk, username=username))
    assert not (desk / f"{username}.crt").exists()


def test_issue_can_be_repeated_after_an_error(console: Console, env: Environment, desk: Path) -> None:
    env.create_user("dot", grant_types=frozenset({"password"}))
    error_of(issues(console, desk, username="dot"))
    env.change_user("dot", grant_types=frozenset({"certificate"}))
    stdout_of(issues(console, desk, username="dot"))


@pytest.mark.parametrize("username", ["../bob", "a/b", "x"])
def test_invalid_username_writes_no_file_elsewhere(console: Console, desk: Path, tmp_path: Path, username: str) -> None:
    before = set(tmp_path.rglob("*"))
    assert issues(console, desk, username=username).returncode == 1
    assert not {path for path in set(tmp_path.rglob("*")) - before if path.is_file() and path.parent.name != "data"}


# Listing, showing, revoking.


def test_certificates_are_listed_shown_and_revoked(console: Console, env: Environment, desk: Path) -> None:
    stdout_of(issues(console, desk))
    serial = serial_of(certificate_on(desk))
    (listed,) = json_of(console, "certificates", "list", "--json")["items"]
    assert (listed["serial"], listed["username"], listed["status"]) == (serial, "bob", "valid")
    shown = json_of(console, "certificates", "show", serial)
    assert shown.pop("certificate") == (desk / "bob.crt").read_text()
    assert shown == listed
    assert (
        stdout_of(console.command("certificates", "revoke", serial, "--reason", "keyCompromise"))
        == f"{serial} revoked\n"
    )
    (listed,) = json_of(console, "certificates", "list", "--json")["items"]
    assert (listed["status"], listed["reason"]) == ("revoked", "keyCompromise")
    assert env.crl_entries() == {serial: "keyCompromise"}
    assert env.acl_answer("bob") == "no-valid-certificate"
    assert error_of(console.command("certificates", "revoke", serial)) == "the certificate is revoked already"


def test_beginning_of_a_serial_or_a_username_names_a_certificate(console: Console, env: Environment) -> None:
    serial = serial_of(env.issue_certificate("bob"))
    spelled = [serial[:6], serial[:7].upper(), f"{serial[:9]}…", "bob"]
    for given in spelled:
        assert json_of(console, "certificates", "show", given)["serial"] == serial
    assert stdout_of(console.command("certificates", "revoke", "bob")) == f"{serial} revoked\n"
    assert error_of(console.command("certificates", "revoke", "bob")) == "no such certificate"
    assert json_of(console, "certificates", "show", serial[:4])["serial"] == serial
    valid = sorted(serial_of(env.issue_certificate("bob")) for _ in range(2))
    assert "names several certificates" in error_of(console.command("certificates", "revoke", "bob"))
    assert stdout_of(console.command("certificates", "revoke", valid[0])) == f"{valid[0]} revoked\n"


def test_certificates_are_listed_as_a_table(console: Console, env: Environment) -> None:
    certificate = env.issue_certificate("bob")
    head, line = stdout_of(console.command("certificates", "list")).splitlines()[:2]
    assert head.split() == ["SERIAL", "USERNAME", "STATUS", "NOT", "AFTER", "REVOKED", "REASON"]
    assert line.split()[:3] == [serial_of(certificate), "bob", "valid"]


def test_list_options_filter_like_the_api(console: Console, env: Environment) -> None:
    env.create_user("carol")
    short, long = env.issue_certificate("bob", days=5), env.issue_certificate("carol", days=50)

    def serials(*options: str) -> list[str]:
        return [each["serial"] for each in json_of(console, "certificates", "list", "--json", *options)["items"]]

    assert serials() == [serial_of(short), serial_of(long)]
    assert serials("--user", "carol") == [serial_of(long)]
    assert serials("--search", "aro") == [serial_of(long)]
    assert serials("--expiring", "10") == [serial_of(short)]
    assert serials("--per-page", "1", "--page", "2") == [serial_of(long)]
    env.revoke_certificate(short)
    assert serials("--status", "valid") == [serial_of(long)]
    assert serials("--status", "revoked") == [serial_of(short)]


def test_unknown_serial_or_reason_is_reported(console: Console, env: Environment) -> None:
    assert "no such certificate" in error_of(console.command("certificates", "show", "beef"))
    assert "no such certificate" in error_of(console.command("certificates", "revoke", "beef"))
    serial = serial_of(env.issue_certificate("bob"))
    done = console.command("certificates", "revoke", serial, "--reason", "lost")
    assert done.returncode == 2
    assert "keyCompromise" in done.stderr


# Authorities.


def test_authorities_are_listed_with_the_signing_one_first(console: Console, env: Environment) -> None:
    env.crl()
    (only,) = json_of(console, "ca", "show", "--json")
    assert (only["subject"], only["retiresAt"], only["crlNumber"]) == ("CN=authsvc certificate authority", "", 1)
    stdout_of(console.command("ca", "rotate", "--overlap-days", "10"))
    newest, oldest = json_of(console, "ca", "show", "--json")
    assert (newest["retiresAt"], oldest["subject"]) == ("", "CN=authsvc certificate authority")
    assert oldest["retiresAt"].startswith("20")
    assert stdout_of(console.command("ca", "show")).splitlines()[0].startswith("SUBJECT")
    assert len(x509.load_pem_x509_certificates(env.ca_pem().encode())) == 2


def test_authority_created_by_openssl_is_imported(console: Console, env: Environment, desk: Path) -> None:
    desk.mkdir()
    create_authority_with_openssl(desk)
    files = (
        "--certificate",
        str(desk / "plant.crt"),
        "--key",
        str(desk / "plant.key"),
        "--chain",
        str(desk / "root.crt"),
    )
    write_file(desk, "passphrase", "plant's secret\n")
    assert "passphrase" in error_of(console.command("ca", "import", *files))
    stdout_of(console.command("ca", "import", *files, "--key-passphrase-file", str(desk / "passphrase")))
    assert "plant" in json_of(console, "ca", "show", "--json")[0]["subject"]
    stdout_of(issues(console, desk))
    trusted = write_file(desk, "trusted.pem", env.ca_pem())
    assert "OK" in openssl("verify", "-x509_strict", "-CAfile", trusted, desk / "bob.crt")
    assert len(x509.load_pem_x509_certificates((desk / "ca.crt").read_bytes())) == 2


def create_authority_with_openssl(desk: Path) -> None:
    """Create a root, and an intermediate with an encrypted key, with openssl."""
    uses = ("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    new = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-days", "30", *uses)
    openssl(*new, "-nodes", "-subj", "/CN=root", "-keyout", desk / "root.key", "-out", desk / "root.crt")
    above = ("-CA", desk / "root.crt", "-CAkey", desk / "root.key")
    secret = ("-passout", "pass:plant's secret", "-keyout", desk / "plant.key")
    openssl(*new, "-subj", "/CN=plant", *above, *secret, "-out", desk / "plant.crt")


def test_import_error_is_one_line(console: Console, env: Environment, desk: Path) -> None:
    certificate, key = (
        write_file(desk, "a.crt", pem(env.issue_certificate("bob"))),
        write_file(desk, "a.key", key_pem(new_key())),
    )
    done = console.command("ca", "import", "--certificate", str(certificate), "--key", str(key))
    assert error_of(done).startswith("key: does not belong")


def test_error_for_a_wrong_passphrase_is_one_line(console: Console, desk: Path) -> None:
    console.environment["AUTHSVC_CA_KEY_PASSPHRASE"] = "needless"
    assert "AUTHSVC_CA_KEY_PASSPHRASE" in error_of(issues(console, desk))
