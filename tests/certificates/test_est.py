"""Enrolment over Secure Transport, as devices speak it that know nothing of us: with openssl and curl."""

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
from tests.certificates.environment import ON_SQLITE, Scene
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
    """Let openssl make a key and a request in DER."""
    algorithm, option = KINDS[kind]
    key = directory / f"{username}.key"
    openssl("genpkey", "-algorithm", algorithm, "-pkeyopt", option, "-out", key)
    file = directory / f"{username}.der"
    openssl("req", "-new", "-key", key, "-subj", f"/CN={username}", "-outform", "DER", "-out", file)
    return file.read_bytes()


def enrols(
    scene: Scene,
    der: bytes,
    username: str = "bob",
    password: str = BOBS_PASSWORD,
    operation: str = "simpleenroll",
) -> TestResponse:
    device = Caller(scene.app.test_client(), basic(username, password))
    return sends(device, base64.encodebytes(der), operation)


def sends(device: Caller, body: bytes, operation: str = "simpleenroll") -> TestResponse:
    return device.call("POST", f"{EST}/{operation}", data=body, content_type="application/pkcs10")


def certificates_in(answer: TestResponse) -> list[x509.Certificate]:
    """Hold an answer to the form that RFC 7030 wants, and return what openssl reads out of it."""
    assert answer.status_code == 200, answer.text
    assert answer.content_type.startswith("application/pkcs7-mime")
    assert answer.headers["Content-Transfer-Encoding"] == "base64"
    return read_by_openssl(base64.b64decode(answer.data))


def read_by_openssl(der: bytes) -> list[x509.Certificate]:
    text = openssl("pkcs7", "-inform", "DER", "-print_certs", stdin=der)
    assert x509.load_pem_x509_certificates(text.encode()) == pkcs7.load_der_pkcs7_certificates(der)
    return x509.load_pem_x509_certificates(text.encode())


def unlock(scene: Scene) -> None:
    assert scene.admin.post("/api/client-registry/unlock", {}).status_code == 200


def decide(scene: Scene, decision: str) -> None:
    (pending,) = scene.admin.get("/api/client-registry/registrations").get_json()["items"]
    answer = scene.admin.post(f"/api/client-registry/registrations/{pending['id']}/{decision}", {})
    assert answer.status_code == 200, answer.text


# The authorities.


def test_anybody_may_have_the_authorities(scene: Scene) -> None:
    (only,) = certificates_in(scene.stranger.get(f"{EST}/cacerts"))
    assert pem(only) == scene.ca_pem()


def test_in_an_overlap_both_are_given(scene: Scene) -> None:
    authorities.rotate(OPERATOR, None, timedelta(days=1))
    both = certificates_in(scene.stranger.get(f"{EST}/cacerts"))
    assert {pem(each) for each in both} == {
        pem(each) for each in x509.load_pem_x509_certificates(scene.ca_pem().encode())
    }
    assert len(both) == 2


# A user.


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("operation", ["simpleenroll", "simplereenroll"])
def test_a_user_has_its_certificate_at_once(scene: Scene, tmp_path: Path, kind: str, operation: str) -> None:
    (certificate,) = certificates_in(enrols(scene, request_by_openssl(tmp_path, kind=kind), operation=operation))
    trusted = tmp_path / "ca.pem"
    trusted.write_text(scene.ca_pem())
    assert "OK" in openssl("verify", "-purpose", "sslclient", "-CAfile", trusted, stdin=pem(certificate))
    of_certificate = openssl("x509", "-noout", "-pubkey", stdin=pem(certificate))
    assert of_certificate == openssl("pkey", "-in", tmp_path / "bob.key", "-pubout")
    assert scene.answers("bob") == "ok"


def test_it_is_the_users_own_deed(scene: Scene, tmp_path: Path) -> None:
    enrols(scene, request_by_openssl(tmp_path))
    *_, issued = events()
    assert (issued.action, issued.actor, issued.via) == ("certificate.issue", "bob", "api")


def test_the_same_request_gives_the_same_certificate(scene: Scene, tmp_path: Path) -> None:
    der = request_by_openssl(tmp_path)
    assert certificates_in(enrols(scene, der)) == certificates_in(enrols(scene, der))
    assert scene.admin.get("/api/certificates").get_json()["total"] == 1


def test_the_next_key_is_certified_beside_the_first(scene: Scene, tmp_path: Path) -> None:
    (first,) = certificates_in(enrols(scene, request_by_openssl(tmp_path)))
    (second,) = certificates_in(enrols(scene, request_by_openssl(tmp_path), operation="simplereenroll"))
    assert first.public_key() != second.public_key()
    assert {scene.shows(each)["status"] for each in (first, second)} == {"valid"}


@pytest.mark.parametrize("operation", ["simpleenroll", "simplereenroll"])
def test_nobody_enrols_without_the_right_password(scene: Scene, tmp_path: Path, operation: str) -> None:
    der = request_by_openssl(tmp_path)
    for password in ("wrong", BOBS_PASSWORD + " "):
        answer = enrols(scene, der, "bob", password, operation)
        problem_of(answer, 401, "wrong-credentials")
        assert "Basic" in answer.headers["WWW-Authenticate"]
    problem_of(sends(scene.stranger, base64.b64encode(der), operation), 401, "unauthenticated")
    problem_of(
        sends(Caller(scene.app.test_client(), "Bearer x"), base64.b64encode(der), operation), 401, "unauthenticated"
    )
    for username, password in (("", BOBS_PASSWORD), ("bob", "")):
        problem_of(enrols(scene, der, username, password, operation), 401, "unauthenticated")
    assert scene.admin.get("/api/certificates").get_json()["total"] == 0


def test_a_user_who_may_not_log_in_so_may_not_enrol_so(scene: Scene, tmp_path: Path) -> None:
    der = request_by_openssl(tmp_path)
    scene.changes(grant_types=frozenset({"password"}))
    problem_of(enrols(scene, der), 409, "grant-type-missing")
    scene.changes(grant_types=frozenset({"certificate"}))
    problem_of(enrols(scene, der), 401, "wrong-credentials")
    scene.changes(grant_types=frozenset({"certificate", "password"}), enabled=False)
    problem_of(enrols(scene, der), 401, "wrong-credentials")


def test_nobody_is_certified_under_anothers_name(scene: Scene, tmp_path: Path) -> None:
    scene.moves_in("carol")
    assert refused_fields(enrols(scene, request_by_openssl(tmp_path, "carol"))) == ["csr"]
    assert scene.admin.get("/api/certificates").get_json()["total"] == 0


# A stranger.


def test_a_stranger_waits_for_a_grant_and_has_its_certificate_then(scene: Scene, tmp_path: Path) -> None:
    der = request_by_openssl(tmp_path, "press-7")
    problem_of(enrols(scene, der, "press-7", "s3cret-7"), 423, "registry-locked")
    unlock(scene)
    for _ in range(2):
        answer = enrols(scene, der, "press-7", "s3cret-7")
        assert answer.status_code == 202
        assert int(answer.headers["Retry-After"]) > 0
    decide(scene, "grant")
    (certificate,) = certificates_in(enrols(scene, der, "press-7", "s3cret-7"))
    assert certificate.subject.rfc4514_string() == "CN=press-7"
    assert certificates_in(enrols(scene, der, "press-7", "s3cret-7")) == [certificate]
    assert users.get("press-7").grant_types == {"certificate", "password"}


def test_a_locked_registry_says_when_to_come_again(scene: Scene, tmp_path: Path) -> None:
    answer = enrols(scene, request_by_openssl(tmp_path, "press-7"), "press-7", "s3cret-7")
    assert answer.status_code == 423
    assert int(answer.headers["Retry-After"]) > 0


def test_a_stranger_who_is_denied_is_told_so(scene: Scene, tmp_path: Path) -> None:
    der = request_by_openssl(tmp_path, "press-7")
    unlock(scene)
    assert enrols(scene, der, "press-7", "s3cret-7").status_code == 202
    decide(scene, "deny")
    problem_of(enrols(scene, der, "press-7", "s3cret-7"), 403, "registration-denied")


def test_another_key_or_password_under_a_name_that_waits_is_a_conflict(scene: Scene, tmp_path: Path) -> None:
    der = request_by_openssl(tmp_path, "press-7")
    unlock(scene)
    assert enrols(scene, der, "press-7", "s3cret-7").status_code == 202
    problem_of(enrols(scene, der, "press-7", "s3cret-8"), 409, "username-taken")
    problem_of(enrols(scene, request_by_openssl(tmp_path, "press-7"), "press-7", "s3cret-7"), 409, "username-taken")


def test_a_stranger_has_nothing_to_reenrol(scene: Scene, tmp_path: Path) -> None:
    unlock(scene)
    answer = enrols(scene, request_by_openssl(tmp_path, "press-7"), "press-7", "s3cret-7", "simplereenroll")
    problem_of(answer, 401, "wrong-credentials")


@pytest.mark.parametrize("username", ["x", "no such name", "press#7", "n" * 65, "press-7\0"])
@pytest.mark.filterwarnings("ignore:Attribute's length")
def test_a_name_that_nobody_can_have_is_refused(scene: Scene, username: str) -> None:
    unlock(scene)
    der = der_of(signing_request(username))
    assert refused_fields(enrols(scene, der, username, "s3cret-7")) == ["username"]
    assert scene.admin.get("/api/client-registry/registrations").get_json()["total"] == 0


def test_a_password_that_the_policy_does_not_take_is_refused(scene: Scene, tmp_path: Path) -> None:
    unlock(scene)
    assert refused_fields(enrols(scene, request_by_openssl(tmp_path, "press-7"), "press-7", "1234")) == ["password"]


# Bodies.


@pytest.mark.parametrize(
    "body", [b"", b"junk", b"====", b"\xff\xfe", b"QUFBQQ==", b"MIIBAA==", b"-----BEGIN CERTIFICATE REQUEST-----"]
)
@pytest.mark.parametrize("username", ["bob", "press-7"])
def test_junk_is_refused(scene: Scene, body: bytes, username: str) -> None:
    unlock(scene)
    device = Caller(scene.app.test_client(), basic(username, BOBS_PASSWORD))
    assert refused_fields(sends(device, body)) == ["csr"]


@pytest.mark.parametrize("username", ["bob", "press-7"])
def test_what_is_too_large_is_refused_unread(scene: Scene, username: str) -> None:
    unlock(scene)
    device = Caller(scene.app.test_client(), basic(username, BOBS_PASSWORD))
    answer = sends(device, b"QUFB" * 100_000)
    assert answer.status_code == 413


def test_line_breaks_of_any_kind_are_no_matter(scene: Scene, tmp_path: Path) -> None:
    der = request_by_openssl(tmp_path)
    device = Caller(scene.app.test_client(), basic("bob", BOBS_PASSWORD))
    plain = base64.b64encode(der)
    forms = [plain, base64.encodebytes(der), base64.encodebytes(der).replace(b"\n", b"\r\n"), b"\r\n" + plain + b"\n\n"]
    assert len({certificates_in(sends(device, form))[0] for form in forms}) == 1


@pytest.mark.parametrize(
    ("method", "operation"),
    [("GET", "simpleenroll"), ("POST", "cacerts"), ("GET", "fullcmc"), ("POST", "serverkeygen")],
)
def test_what_is_not_offered_is_said(scene: Scene, method: str, operation: str) -> None:
    assert scene.stranger.call(method, f"{EST}/{operation}").status_code in (404, 405)


# Over the wire.

RECIPE = r"""
openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout press-7.key \
  -subj /CN=press-7 -outform DER | base64 > press-7.p10
curl -sSf -u press-7:s3cret-7 --data-binary @press-7.p10 -H 'Content-Type: application/pkcs10' \
  $SERVER/.well-known/est/simpleenroll | base64 -d | openssl pkcs7 -inform DER -print_certs -out press-7.crt
curl -sSf $SERVER/.well-known/est/cacerts | base64 -d | openssl pkcs7 -inform DER -print_certs -out ca.crt
openssl verify -CAfile ca.crt press-7.crt
"""


def test_the_recipe_of_the_documentation_works(scene: Scene, server: str, tmp_path: Path) -> None:
    scene.moves_in("press-7", password="s3cret-7")
    script = "set -euo pipefail\n" + RECIPE.replace("$SERVER", server)
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("press-7.crt: OK\n")
    documented = (Path(__file__).parents[2] / "docs" / "certificates.md").read_text(encoding="utf-8")
    assert "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout press-7.key" in documented


def test_a_stranger_is_told_to_come_again_over_the_wire(scene: Scene, server: str, tmp_path: Path) -> None:
    unlock(scene)
    body = base64.encodebytes(request_by_openssl(tmp_path, "press-7"))
    url = f"{server}{EST}/simpleenroll"
    answer = requests.post(
        url, data=body, auth=("press-7", "s3cret-7"), headers={"Content-Type": "application/pkcs10"}, timeout=20
    )
    assert (answer.status_code, answer.headers["Retry-After"]) == (202, "5")
    decide(scene, "grant")
    answer = requests.post(url, data=body, auth=("press-7", "s3cret-7"), timeout=20)
    (certificate,) = read_by_openssl(base64.b64decode(answer.content))
    assert certificate.subject.rfc4514_string() == "CN=press-7"


def test_a_body_in_chunks_is_read_too(scene: Scene, server: str, tmp_path: Path) -> None:
    body = base64.encodebytes(request_by_openssl(tmp_path))
    answer = requests.post(
        f"{server}{EST}/simpleenroll", data=iter([body[:40], body[40:]]), auth=("bob", BOBS_PASSWORD), timeout=20
    )
    assert answer.status_code == 200, answer.text
