"""Enrolment over Secure Transport (RFC 7030), as devices use it with openssl and curl."""

from __future__ import annotations

import base64
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives.serialization import pkcs7

from authsvc.accounts import users
from authsvc.pki import authorities
from tests.actors import BOBS_PASSWORD, OPERATOR
from tests.certificates.environment import ON_SQLITE, Environment
from tests.certificates.tools import openssl, pem
from tests.http.callers import Caller, basic, problem_of, refused_fields
from tests.registry.signing import der_of, signing_request
from tests.storage.environment import events

if TYPE_CHECKING:
    from werkzeug.test import TestResponse

pytestmark = ON_SQLITE

EST = "/.well-known/est"
KINDS = {
    "P-256": ("EC", "ec_paramgen_curve:P-256"),
    "P-384": ("EC", "ec_paramgen_curve:P-384"),
    "RSA": ("RSA", "rsa_keygen_bits:2048"),
}


def request_by_openssl(directory: Path, username: str = "bob", kind: str = "P-256") -> bytes:
    """Create a key and a CSR in DER with openssl."""
    algorithm, option = KINDS[kind]
    key = directory / f"{username}.key"
    openssl("genpkey", "-algorithm", algorithm, "-pkeyopt", option, "-out", key)
    file = directory / f"{username}.der"
    openssl("req", "-new", "-key", key, "-subj", f"/CN={username}", "-outform", "DER", "-out", file)
    return file.read_bytes()


def enrols(
    env: Environment,
    der: bytes,
    username: str = "bob",
    password: str = BOBS_PASSWORD,
    operation: str = "simpleenroll",
) -> TestResponse:
    device = Caller(env.app.test_client(), basic(username, password))
    return sends(device, base64.encodebytes(der), operation)


def sends(device: Caller, body: bytes, operation: str = "simpleenroll") -> TestResponse:
    return device.call("POST", f"{EST}/{operation}", data=body, content_type="application/pkcs10")


def certificates_in(answer: TestResponse) -> list[x509.Certificate]:
    """Check a response's format by RFC 7030, and return the certificates that openssl reads from it."""
    assert answer.status_code == 200, answer.text
    assert answer.content_type.startswith("application/pkcs7-mime")
    assert answer.headers["Content-Transfer-Encoding"] == "base64"
    return read_by_openssl(base64.b64decode(answer.data))


def read_by_openssl(der: bytes) -> list[x509.Certificate]:
    text = openssl("pkcs7", "-inform", "DER", "-print_certs", stdin=der)
    assert x509.load_pem_x509_certificates(text.encode()) == pkcs7.load_der_pkcs7_certificates(der)
    return x509.load_pem_x509_certificates(text.encode())


def unlock(env: Environment) -> None:
    assert env.admin.post("/api/client-registry/unlock", {}).status_code == 200


def decide(env: Environment, decision: str) -> None:
    (pending,) = env.admin.get("/api/client-registry/registrations").get_json()["items"]
    answer = env.admin.post(f"/api/client-registry/registrations/{pending['id']}/{decision}", {})
    assert answer.status_code == 200, answer.text


# The authorities.


def test_cacerts_needs_no_authentication(env: Environment) -> None:
    (only,) = certificates_in(env.unauthenticated.get(f"{EST}/cacerts"))
    assert pem(only) == env.ca_pem()


def test_cacerts_contains_both_authorities_during_an_overlap(env: Environment) -> None:
    authorities.rotate(OPERATOR, None, timedelta(days=1))
    both = certificates_in(env.unauthenticated.get(f"{EST}/cacerts"))
    assert {pem(each) for each in both} == {
        pem(each) for each in x509.load_pem_x509_certificates(env.ca_pem().encode())
    }
    assert len(both) == 2


# A user.


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("operation", ["simpleenroll", "simplereenroll"])
def test_user_gets_its_certificate_at_once(env: Environment, tmp_path: Path, kind: str, operation: str) -> None:
    (certificate,) = certificates_in(enrols(env, request_by_openssl(tmp_path, kind=kind), operation=operation))
    trusted = tmp_path / "ca.pem"
    trusted.write_text(env.ca_pem())
    assert "OK" in openssl("verify", "-purpose", "sslclient", "-CAfile", trusted, stdin=pem(certificate))
    of_certificate = openssl("x509", "-noout", "-pubkey", stdin=pem(certificate))
    assert of_certificate == openssl("pkey", "-in", tmp_path / "bob.key", "-pubout")
    assert env.acl_answer("bob") == "ok"


def test_enrolment_is_audited_as_the_users_action(env: Environment, tmp_path: Path) -> None:
    enrols(env, request_by_openssl(tmp_path))
    *_, issued = events()
    assert (issued.action, issued.actor, issued.via) == ("certificate.issue", "bob", "api")


def test_same_csr_gets_the_same_certificate(env: Environment, tmp_path: Path) -> None:
    der = request_by_openssl(tmp_path)
    assert certificates_in(enrols(env, der)) == certificates_in(enrols(env, der))
    assert env.admin.get("/api/certificates").get_json()["total"] == 1


def test_next_key_gets_another_certificate(env: Environment, tmp_path: Path) -> None:
    (first,) = certificates_in(enrols(env, request_by_openssl(tmp_path)))
    (second,) = certificates_in(enrols(env, request_by_openssl(tmp_path), operation="simplereenroll"))
    assert first.public_key() != second.public_key()
    assert {env.show_certificate(each)["status"] for each in (first, second)} == {"valid"}


@pytest.mark.parametrize("operation", ["simpleenroll", "simplereenroll"])
def test_wrong_password_is_refused(env: Environment, tmp_path: Path, operation: str) -> None:
    der = request_by_openssl(tmp_path)
    for password in ("wrong", BOBS_PASSWORD + " "):
        answer = enrols(env, der, "bob", password, operation)
        problem_of(answer, 401, "wrong-credentials")
        assert "Basic" in answer.headers["WWW-Authenticate"]
    problem_of(sends(env.unauthenticated, base64.b64encode(der), operation), 401, "unauthenticated")
    problem_of(
        sends(Caller(env.app.test_client(), "Bearer x"), base64.b64encode(der), operation), 401, "unauthenticated"
    )
    for username, password in (("", BOBS_PASSWORD), ("bob", "")):
        problem_of(enrols(env, der, username, password, operation), 401, "unauthenticated")
    assert env.admin.get("/api/certificates").get_json()["total"] == 0


def test_user_without_the_grant_type_cannot_enrol(env: Environment, tmp_path: Path) -> None:
    der = request_by_openssl(tmp_path)
    env.change_user(grant_types=frozenset({"password"}))
    problem_of(enrols(env, der), 409, "grant-type-missing")
    env.change_user(grant_types=frozenset({"certificate"}))
    problem_of(enrols(env, der), 401, "wrong-credentials")
    env.change_user(grant_types=frozenset({"certificate", "password"}), enabled=False)
    problem_of(enrols(env, der), 401, "wrong-credentials")


def test_csr_for_another_name_is_refused(env: Environment, tmp_path: Path) -> None:
    env.create_user("carol")
    assert refused_fields(enrols(env, request_by_openssl(tmp_path, "carol"))) == ["csr"]
    assert env.admin.get("/api/certificates").get_json()["total"] == 0


# An unknown device.


def test_unknown_device_gets_its_certificate_after_the_grant(env: Environment, tmp_path: Path) -> None:
    der = request_by_openssl(tmp_path, "press-7")
    problem_of(enrols(env, der, "press-7", "s3cret-7"), 423, "registry-locked")
    unlock(env)
    for _ in range(2):
        answer = enrols(env, der, "press-7", "s3cret-7")
        assert answer.status_code == 202
        assert int(answer.headers["Retry-After"]) > 0
    decide(env, "grant")
    (certificate,) = certificates_in(enrols(env, der, "press-7", "s3cret-7"))
    assert certificate.subject.rfc4514_string() == "CN=press-7"
    assert certificates_in(enrols(env, der, "press-7", "s3cret-7")) == [certificate]
    assert users.get("press-7").grant_types == {"certificate", "password"}


def test_locked_registry_answers_with_retry_after(env: Environment, tmp_path: Path) -> None:
    answer = enrols(env, request_by_openssl(tmp_path, "press-7"), "press-7", "s3cret-7")
    assert answer.status_code == 423
    assert int(answer.headers["Retry-After"]) > 0


def test_denied_device_is_refused(env: Environment, tmp_path: Path) -> None:
    der = request_by_openssl(tmp_path, "press-7")
    unlock(env)
    assert enrols(env, der, "press-7", "s3cret-7").status_code == 202
    decide(env, "deny")
    problem_of(enrols(env, der, "press-7", "s3cret-7"), 403, "registration-denied")


def test_other_key_or_password_for_a_pending_name_is_a_conflict(env: Environment, tmp_path: Path) -> None:
    der = request_by_openssl(tmp_path, "press-7")
    unlock(env)
    assert enrols(env, der, "press-7", "s3cret-7").status_code == 202
    problem_of(enrols(env, der, "press-7", "s3cret-8"), 409, "username-taken")
    problem_of(enrols(env, request_by_openssl(tmp_path, "press-7"), "press-7", "s3cret-7"), 409, "username-taken")


def test_unknown_device_cannot_reenrol(env: Environment, tmp_path: Path) -> None:
    unlock(env)
    answer = enrols(env, request_by_openssl(tmp_path, "press-7"), "press-7", "s3cret-7", "simplereenroll")
    problem_of(answer, 401, "wrong-credentials")


@pytest.mark.parametrize("username", ["x", "no such name", "press#7", "n" * 65, "press-7\0"])
@pytest.mark.filterwarnings("ignore:Attribute's length")
def test_invalid_username_is_refused(env: Environment, username: str) -> None:
    unlock(env)
    der = der_of(signing_request(username))
    assert refused_fields(enrols(env, der, username, "s3cret-7")) == ["csr" if len(username) > 64 else "username"]
    assert env.admin.get("/api/client-registry/registrations").get_json()["total"] == 0


def test_password_against_the_policy_is_refused(env: Environment, tmp_path: Path) -> None:
    unlock(env)
    assert refused_fields(enrols(env, request_by_openssl(tmp_path, "press-7"), "press-7", "1234")) == ["password"]


# Bodies.


@pytest.mark.parametrize(
    "body", [b"", b"junk", b"====", b"\xff\xfe", b"QUFBQQ==", b"MIIBAA==", b"-----BEGIN CERTIFICATE REQUEST-----"]
)
@pytest.mark.parametrize("username", ["bob", "press-7"])
def test_invalid_body_is_refused(env: Environment, body: bytes, username: str) -> None:
    unlock(env)
    device = Caller(env.app.test_client(), basic(username, BOBS_PASSWORD))
    assert refused_fields(sends(device, body)) == ["csr"]


@pytest.mark.parametrize("username", ["bob", "press-7"])
def test_too_large_body_is_refused_unread(env: Environment, username: str) -> None:
    unlock(env)
    device = Caller(env.app.test_client(), basic(username, BOBS_PASSWORD))
    answer = sends(device, b"QUFB" * 100_000)
    assert answer.status_code == 413


def test_any_line_breaks_are_accepted(env: Environment, tmp_path: Path) -> None:
    der = request_by_openssl(tmp_path)
    device = Caller(env.app.test_client(), basic("bob", BOBS_PASSWORD))
    plain = base64.b64encode(der)
    forms = [plain, base64.encodebytes(der), base64.encodebytes(der).replace(b"\n", b"\r\n"), b"\r\n" + plain + b"\n\n"]
    assert len({certificates_in(sends(device, form))[0] for form in forms}) == 1


@pytest.mark.parametrize(
    ("method", "operation"),
    [("GET", "simpleenroll"), ("POST", "cacerts"), ("GET", "fullcmc"), ("POST", "serverkeygen")],
)
def test_unsupported_operation_is_refused(env: Environment, method: str, operation: str) -> None:
    assert env.unauthenticated.call(method, f"{EST}/{operation}").status_code in (404, 405)


# Over HTTP.

RECIPE = r"""
openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout press-7.key \
  -subj /CN=press-7 -outform DER | base64 > press-7.p10
curl -sSf -u press-7:s3cret-7 --data-binary @press-7.p10 -H 'Content-Type: application/pkcs10' \
  $SERVER/.well-known/est/simpleenroll | base64 -d | openssl pkcs7 -inform DER -print_certs -out press-7.crt
curl -sSf $SERVER/.well-known/est/cacerts | base64 -d | openssl pkcs7 -inform DER -print_certs -out ca.crt
openssl verify -CAfile ca.crt press-7.crt
"""


def test_documented_commands_work(env: Environment, server: str, tmp_path: Path) -> None:
    env.create_user("press-7", password="s3cret-7")
    script = "set -euo pipefail\n" + RECIPE.replace("$SERVER", server)
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("press-7.crt: OK\n")
    documented = (Path(__file__).parents[2] / "docs" / "certificates.md").read_text(encoding="utf-8")
    assert "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout press-7.key" in documented


def test_pending_device_gets_retry_after_over_http(env: Environment, server: str, tmp_path: Path) -> None:
    unlock(env)
    body = base64.encodebytes(request_by_openssl(tmp_path, "press-7"))
    url = f"{server}{EST}/simpleenroll"
    answer = requests.post(
        url, data=body, auth=("press-7", "s3cret-7"), headers={"Content-Type": "application/pkcs10"}, timeout=20
    )
    assert (answer.status_code, answer.headers["Retry-After"]) == (202, "5")
    decide(env, "grant")
    answer = requests.post(url, data=body, auth=("press-7", "s3cret-7"), timeout=20)
    (certificate,) = read_by_openssl(base64.b64decode(answer.content))
    assert certificate.subject.rfc4514_string() == "CN=press-7"


def test_chunked_body_is_accepted(env: Environment, server: str, tmp_path: Path) -> None:
    body = base64.encodebytes(request_by_openssl(tmp_path))
    answer = requests.post(
        f"{server}{EST}/simpleenroll", data=iter([body[:40], body[40:]]), auth=("bob", BOBS_PASSWORD), timeout=20
    )
    assert answer.status_code == 200, answer.text
