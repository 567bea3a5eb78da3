"""Checks of certificates by other programs: the command `openssl`, and TLS connections of Python."""

from __future__ import annotations

import socket
import ssl
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes, PrivateKeyTypes

_SECONDS = 30


def openssl(*arguments: str | Path, stdin: str | bytes = b"") -> str:
    """Run `openssl`, which must succeed, and return its output of stdout and stderr."""
    done = _run(arguments, stdin)
    assert done.returncode == 0, done.stderr.decode()
    return (done.stdout + done.stderr).decode()


def openssl_refuses(*arguments: str | Path, stdin: str | bytes = b"") -> str:
    """Run `openssl`, which must fail, and return its output."""
    done = _run(arguments, stdin)
    assert done.returncode != 0, done.stdout.decode()
    return (done.stdout + done.stderr).decode()


def _run(arguments: tuple[str | Path, ...], stdin: str | bytes) -> subprocess.CompletedProcess[bytes]:
    given = stdin.encode() if isinstance(stdin, str) else stdin
    command = ["openssl", *map(str, arguments)]
    return subprocess.run(command, input=given, capture_output=True, timeout=_SECONDS, check=False)


def key_pem(key: PrivateKeyTypes, passphrase: str | None = None) -> str:
    """Return a private key as PEM, encrypted if a passphrase is given."""
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        encryption = serialization.BestAvailableEncryption(passphrase.encode())
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, encryption).decode()


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def write_file(directory: Path, name: str, content: str) -> Path:
    """Write a file and return its path."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    path.write_text(content)
    return path


def new_key_of(kind: str) -> CertificateIssuerPrivateKeyTypes:
    """Return a new key of this kind."""
    if kind == "Ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if kind.startswith("RSA"):
        return rsa.generate_private_key(65_537, int(kind.split()[1]))
    return ec.generate_private_key(ec.SECP384R1() if kind == "P-384" else ec.SECP256R1())


def certificate_for(
    name: str,
    key: CertificateIssuerPrivateKeyTypes,
    issuer: tuple[x509.Certificate, CertificateIssuerPrivateKeyTypes] | None = None,
    *extensions: x509.ExtensionType,
    valid: tuple[timedelta, timedelta] = (timedelta(days=-1), timedelta(days=30)),
) -> x509.Certificate:
    """Return a certificate that the service did not issue; self-signed without an issuer."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    above, signing_key = (issuer[0].subject, issuer[1]) if issuer else (subject, key)
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(above)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + valid[0])
        .not_valid_after(now + valid[1])
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=not isinstance(extension, x509.SubjectAlternativeName))
    hashes_itself = isinstance(signing_key, ed25519.Ed25519PrivateKey)
    return builder.sign(signing_key, None if hashes_itself else hashes.SHA256())


def server_context(directory: Path, ca_pem: str, crl_pem: str | None = None) -> ssl.SSLContext:
    """Return a TLS server context like a broker's: it requires a client certificate and checks the CRL, if given."""
    key = ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))])
    own = write_file(directory, "server.pem", key_pem(key) + pem(certificate_for("localhost", key, None, names)))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own)
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_verify_locations(write_file(directory, "ca.pem", ca_pem))
    if crl_pem is not None:
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        context.load_verify_locations(write_file(directory, "crl.pem", crl_pem))
    return context


def client_context(directory: Path, certificate: str, key: PrivateKeyTypes) -> ssl.SSLContext:
    """Return a TLS client context with this certificate; it does not verify the server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.load_cert_chain(write_file(directory, "client.pem", key_pem(key) + certificate))
    return context


def handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> str:
    """Run a TLS handshake on loopback; return the client's Common Name, or the server's error."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        listener.settimeout(_SECONDS)
        seen = pool.submit(_let_in, listener, server)
        with (
            suppress(OSError),
            socket.create_connection(listener.getsockname(), _SECONDS) as raw,
            client.wrap_socket(raw) as connection,
        ):
            connection.recv(1)
        return seen.result(_SECONDS)


def _let_in(listener: socket.socket, context: ssl.SSLContext) -> str:
    raw, _ = listener.accept()
    raw.settimeout(_SECONDS)
    try:
        with raw, context.wrap_socket(raw, server_side=True) as connection:
            shown = connection.getpeercert()
            connection.send(b"!")
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    assert shown
    names = dict(pair for part in shown["subject"] for pair in part)  # type: ignore[misc]
    return str(names["commonName"])
