"""CSRs of openssl and others: which are refused by the API, the command and EST."""

from __future__ import annotations

import base64
from functools import cache
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from tests.certificates.environment import ON_SQLITE, Environment
from tests.certificates.tools import openssl, pem
from tests.http.callers import refused_fields
from tests.registry.signing import der_of, pem_around, signing_request

if TYPE_CHECKING:
    from collections.abc import Callable

    from werkzeug.test import TestResponse

pytestmark = ON_SQLITE

DSA_PARAMETERS = ("-genparam", "-algorithm", "DSA", "-pkeyopt", "dsa_paramgen_bits:1024")
EC = ("-algorithm", "EC", "-pkeyopt")


@cache
def by_openssl(
    *key_options: str, digest: str = "-sha256", subject: str = "/CN=bob", added: tuple[str, ...] = ()
) -> str:
    """Create a key of this kind and a CSR with openssl."""
    with TemporaryDirectory() as directory:
        key, config = f"{directory}/key", f"{directory}/config"
        with open(config, "w") as file:  # noqa: PTH123
            file.write("[req]\ndistinguished_name = names\n[names]\n")
        openssl("genpkey", *key_options, "-out", key)
        return openssl("req", "-new", "-config", config, "-utf8", "-key", key, "-subj", subject, digest, *added)


def dsa() -> str:
    with TemporaryDirectory() as directory:
        parameters = f"{directory}/parameters"
        openssl("genpkey", *DSA_PARAMETERS, "-out", parameters)
        return by_openssl("-paramfile", parameters)


def rsa_of(p: int, q: int) -> rsa.RSAPrivateKey:
    """Return an RSA key of two known primes, because finding primes of this size is slow."""
    exponent = pow(65_537, -1, (p - 1) * (q - 1))
    parts = rsa.rsa_crt_dmp1(exponent, p), rsa.rsa_crt_dmq1(exponent, q), rsa.rsa_crt_iqmp(p, q)
    public = rsa.RSAPublicNumbers(65_537, p * q)
    return rsa.RSAPrivateNumbers(p, q, exponent, *parts, public).private_key(unsafe_skip_rsa_key_validation=True)


def with_anothers_key() -> str:
    """Return bob's CSR with another public key of the same length."""
    bobs, mallorys = (x509.load_pem_x509_csr(signing_request("bob").encode()) for _ in range(2))
    ours, theirs = (der_of(each.public_bytes(Encoding.PEM).decode()) for each in (bobs, mallorys))
    point = ours.index(b"\x03\x42\x00\x04") + 4
    return pem_around(ours[:point] + theirs[point : point + 64] + ours[point + 64 :])


def with_trailing_bytes() -> str:
    return pem_around(der_of(signing_request("bob")) + b"\0\0")


def with_another_signature_algorithm() -> str:
    der = der_of(signing_request("bob"))
    # Changes ecdsa-with-SHA256 to ecdsa-with-SHA384 without changing the signature.
    return pem_around(der.replace(bytes.fromhex("2a8648ce3d040302"), bytes.fromhex("2a8648ce3d040303")))


REFUSED: dict[str, Callable[[], str]] = {
    "RSA of 1024 bits": lambda: by_openssl("-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"),
    "RSA of 2047 bits": lambda: by_openssl("-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2047"),
    "RSA of 4484 bits": lambda: signing_request("bob", rsa_of(2**2203 - 1, 2**2281 - 1)),
    "DSA": dsa,
    "P-224": lambda: by_openssl(*EC, "ec_paramgen_curve:secp224r1"),
    "P-521": lambda: by_openssl(*EC, "ec_paramgen_curve:P-521"),
    "a curve of 112 bits": lambda: by_openssl(*EC, "ec_paramgen_curve:secp112r1"),
    "Bitcoin's curve": lambda: by_openssl(*EC, "ec_paramgen_curve:secp256k1"),
    "brainpool": lambda: by_openssl(*EC, "ec_paramgen_curve:brainpoolP256r1"),
    "Ed448": lambda: by_openssl("-algorithm", "ED448"),
    "no name": lambda: by_openssl(*EC, "ec_paramgen_curve:P-256", subject="/"),
    "an organisation instead of a name": lambda: by_openssl(*EC, "ec_paramgen_curve:P-256", subject="/O=bob"),
    "another name": lambda: by_openssl(*EC, "ec_paramgen_curve:P-256", subject="/CN=carol"),
    "two names": lambda: by_openssl(*EC, "ec_paramgen_curve:P-256", subject="/CN=bob/CN=carol"),
    "two names in one": lambda: by_openssl(*EC, "ec_paramgen_curve:P-256", subject="/CN=bob+CN=carol"),
    "a name that looks the same": lambda: by_openssl(*EC, "ec_paramgen_curve:P-256", subject="/CN=b\u043eb"),
    "another's key": with_anothers_key,
    "bytes behind it": with_trailing_bytes,
    "another algorithm": with_another_signature_algorithm,
    "a private key": lambda: openssl("genpkey", *EC, "ec_paramgen_curve:P-256"),
    "its Base64": lambda: base64.b64encode(openssl("genpkey", *EC, "ec_paramgen_curve:P-256").encode()).decode(),
    "Base64 twice": lambda: base64.b64encode(base64.b64encode(signing_request("bob").encode())).decode(),
    "DER": lambda: base64.b64encode(der_of(signing_request("bob"))).decode(),
    "nothing": lambda: "",
}
TAKEN: dict[str, Callable[[], str]] = {
    "P-256": lambda: by_openssl(*EC, "ec_paramgen_curve:P-256"),
    "P-384": lambda: by_openssl(*EC, "ec_paramgen_curve:P-384"),
    "P-256 spelled out": lambda: by_openssl(*EC, "ec_paramgen_curve:P-256", "-pkeyopt", "ec_param_enc:explicit"),
    "Ed25519": lambda: by_openssl("-algorithm", "ED25519"),
    "RSA of 2048 bits": lambda: by_openssl("-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"),
    "an organisation beside the name": lambda: by_openssl(
        *EC, "ec_paramgen_curve:P-256", subject="/O=x/CN=bob/OU=admin"
    ),
    "the old heading": lambda: signing_request("bob").replace("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"),
    "Windows' line breaks": lambda: signing_request("bob").replace("\n", "\r\n"),
    "other names wished for": lambda: by_openssl(
        *EC, "ec_paramgen_curve:P-256", added=("-addext", "subjectAltName=DNS:alice,email:alice@example.org")
    ),
    "an authority wished for": lambda: by_openssl(
        *EC, "ec_paramgen_curve:P-256", added=("-addext", "basicConstraints=critical,CA:TRUE")
    ),
}


def requests_certificate(env: Environment, csr: str) -> TestResponse:
    return env.admin.post("/api/users/bob/certificates", {"csr": csr})


@pytest.mark.parametrize("make", REFUSED.values(), ids=REFUSED.keys())
def test_invalid_csr_is_refused(env: Environment, make: Callable[[], str]) -> None:
    assert refused_fields(requests_certificate(env, make())) == ["csr"]
    assert env.admin.get("/api/certificates").get_json()["total"] == 0


@pytest.mark.parametrize("make", TAKEN.values(), ids=TAKEN.keys())
def test_valid_csr_is_certified_for_its_key(env: Environment, make: Callable[[], str]) -> None:
    answer = requests_certificate(env, make())
    assert answer.status_code == 201, answer.text
    certificate = x509.load_pem_x509_certificate(answer.get_json()["certificate"].encode())
    assert certificate.subject.rfc4514_string() == "CN=bob"
    text = openssl("x509", "-noout", "-text", stdin=pem(certificate))
    assert "alice" not in text
    assert "CA:TRUE" not in text


@pytest.mark.parametrize("size", [16_385, 2**20])
def test_too_long_csr_is_refused_unread(env: Environment, size: int) -> None:
    assert refused_fields(requests_certificate(env, "x" * size)) == ["csr"]


def test_command_and_est_refuse_an_invalid_csr(env: Environment) -> None:
    weak = REFUSED["RSA of 1024 bits"]()
    device = env.unauthenticated
    device.headers["Authorization"] = "Basic " + base64.b64encode(b"bob:bob's very own secret").decode()
    answer = device.call("POST", "/.well-known/est/simpleenroll", data=base64.b64encode(der_of(weak)))
    assert refused_fields(answer) == ["csr"]
