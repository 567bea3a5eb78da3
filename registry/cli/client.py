"""The client side of registration over REST: create a key, register, wait for the grant, store the certificate.

The private key never leaves the directory and is never overwritten. It identifies the client in the next request, so
the command can be stopped and started again at any time.
"""

from __future__ import annotations

import base64
import os
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from authsvc.errors import AuthsvcError
from authsvc.pki.ca import common_name_of, encrypt_key
from authsvc.pki.csr import fingerprint_of
from authsvc.pki.renewal import message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime
    from pathlib import Path

KEY, CERTIFICATE, CA_CERTIFICATE, NEXT_KEY = "client.key", "client.crt", "ca.crt", "client.next.key"
_TIMEOUT_SECONDS = 30
_DEFAULT_RETRY_SECONDS = 10
_MAX_RETRY_SECONDS = 300
_WAIT_FOR = {
    423: "the registry is locked; waiting for an administrator to unlock it",
    429: "too many requests; waiting",
}


class Refused(AuthsvcError):
    """The service refused the request; the same request will not succeed later."""

    code = "refused"


@dataclass(frozen=True, slots=True)
class Enrolment:
    """The server, the username and the credentials of a registration. `password` is None for a certificate alone."""

    server: str
    username: str
    directory: Path
    with_certificate: bool
    password: str | None = None
    enrolment_key: str | None = None
    ca_file: Path | None = None

    def __repr__(self) -> str:
        return f"Enrolment({self.server!r}, {self.username!r})"

    @property
    def verify(self) -> bool | str:
        """The CA file for `requests`, or True for the system's authorities."""
        return str(self.ca_file) if self.ca_file else True


def register(enrolment: Enrolment, say: Callable[[str], None], give_up_at: float | None = None) -> dict[str, Any]:
    """Register until granted, write the certificate files and return the answer; raise `Refused` for a refusal.

    `say` receives each new status message. `give_up_at` is the `time.monotonic()` after which it raises `Refused`.
    """
    body = _body(enrolment)
    said = ""
    for status, answer, retry_after in _answers(enrolment, body):
        if status == 201:  # noqa: PLR2004
            if enrolment.with_certificate:
                _must_certify(answer, enrolment.username, _key(enrolment.directory))
            _keep(enrolment, answer)
            return answer
        message = _message(status, answer)
        if message != said:
            say(message)
            said = message
        if give_up_at is not None and time.monotonic() + retry_after > give_up_at:
            raise Refused("no decision yet; run the same command again to continue waiting")
        time.sleep(retry_after)
    raise AssertionError("_answers ended")


def renew(enrolment: Enrolment, now: datetime) -> bool:
    """Replace key and certificate by new ones after two thirds of its lifetime; return whether they were replaced.

    The new key is stored beside the current one until its certificate arrives. An interrupted renewal continues with
    the same new key. Raise `Refused` if the service refuses.
    """
    directory = enrolment.directory
    certificate, parsed = _current(directory / CERTIFICATE)
    if _finish_renewal(directory, parsed):
        return True
    if now < parsed.not_valid_before_utc + (parsed.not_valid_after_utc - parsed.not_valid_before_utc) * 2 / 3:
        return False
    new_key = _key(directory, NEXT_KEY)
    body = _renewal(certificate, _key(directory), new_key, now)
    url = enrolment.server.rstrip("/") + "/api/certificates/renew"
    try:
        reply = requests.post(url, json=body, timeout=_TIMEOUT_SECONDS, verify=enrolment.verify)
    except (requests.RequestException, ValueError) as error:
        raise Refused(f"the server does not answer: {type(error).__name__}") from None
    answer = _json(reply)
    if reply.status_code != 201:  # noqa: PLR2004
        raise Refused(f"{answer.get('detail', 'refused')} ({reply.status_code})")
    _must_certify(answer, common_name_of(parsed), new_key)
    _keep(enrolment, answer)
    return _finish_renewal(directory, x509.load_pem_x509_certificate(answer["certificate"].encode()))


def _must_certify(answer: dict[str, Any], username: str, key: ec.EllipticCurvePrivateKey) -> None:
    """Raise `Refused` unless the certificate is for this user and key; any other would lock the device out."""
    try:
        certificate = x509.load_pem_x509_certificate(str(answer.get("certificate")).encode())
        fits = common_name_of(certificate) == username and certificate.public_key() == key.public_key()
    except (ValueError, TypeError):
        fits = False
    if not fits:
        raise Refused("the server answered with a certificate that is not for this device; nothing was replaced")


def _current(path: Path) -> tuple[str, x509.Certificate]:
    try:
        pem = path.read_text()
        return pem, x509.load_pem_x509_certificate(pem.encode())
    except (OSError, ValueError):
        raise Refused(f"{path} is not a certificate; register first") from None


def _finish_renewal(directory: Path, certificate: x509.Certificate) -> bool:
    """Replace the old key by the new one if the certificate is for the new one; return whether it was replaced."""
    path = directory / NEXT_KEY
    if not path.exists() or _key(directory, NEXT_KEY).public_key() != certificate.public_key():
        return False
    path.replace(directory / KEY)
    return True


def _renewal(
    certificate: str, current: ec.EllipticCurvePrivateKey, new_key: ec.EllipticCurvePrivateKey, now: datetime
) -> dict[str, Any]:
    parsed = x509.load_pem_x509_certificate(certificate.encode())
    time_ = now.isoformat(timespec="seconds")
    fingerprint = fingerprint_of(new_key.public_key())
    signed = current.sign(message(f"{parsed.serial_number:x}", fingerprint, time_), ec.ECDSA(hashes.SHA256()))
    return {
        "certificate": certificate,
        "csr": _signing_request(common_name_of(parsed), new_key),
        "time": time_,
        "signature": base64.b64encode(signed).decode(),
    }


def _answers(enrolment: Enrolment, body: dict[str, Any]) -> Iterator[tuple[int, dict[str, Any], float]]:
    url = enrolment.server.rstrip("/") + "/api/client-registry/register"
    with requests.Session() as session:
        while True:
            try:
                answer = session.post(url, json=body, timeout=_TIMEOUT_SECONDS, verify=enrolment.verify)
            except requests.exceptions.SSLError:
                raise Refused("the server's certificate is not trusted; give its CA with --ca-file") from None
            except (requests.ConnectionError, requests.Timeout):
                yield 0, {}, _DEFAULT_RETRY_SECONDS
                continue
            except (requests.RequestException, ValueError):
                raise Refused(f"{enrolment.server} is not the URL of a server") from None
            yield answer.status_code, _json(answer), _retry_after(answer)


def _message(status: int, answer: dict[str, Any]) -> str:
    """Return the status message of an answer; raise `Refused` if waiting is pointless."""
    if status == 0:
        return "the server does not answer; trying again"
    if status == 202:  # noqa: PLR2004
        return f"waiting for an administrator to grant access; pairing code {answer.get('pairingCode', '-')}"
    if status in _WAIT_FOR:
        return _WAIT_FOR[status]
    if status >= 500:  # noqa: PLR2004
        return f"the server answered {status}; trying again"
    raise Refused(f"{answer.get('detail', 'refused')} ({status})")


def _body(enrolment: Enrolment) -> dict[str, Any]:
    body: dict[str, Any] = {"username": enrolment.username}
    if enrolment.with_certificate:
        body["csr"] = _signing_request(enrolment.username, _key(enrolment.directory))
    if enrolment.password is not None:
        body["password"] = enrolment.password
    if enrolment.enrolment_key is not None:
        body["enrolmentKey"] = enrolment.enrolment_key
    return body


def _key(directory: Path, name: str = KEY) -> ec.EllipticCurvePrivateKey:
    """Return the key in the directory; create it if there is none."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    if not path.exists():
        key = ec.generate_private_key(ec.SECP256R1())
        _write_new(path, encrypt_key(key, None).encode())
    try:
        loaded = serialization.load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError):
        raise Refused(f"{path} is not a private key without a passphrase, and it is never overwritten") from None
    if not isinstance(loaded, ec.EllipticCurvePrivateKey):
        raise Refused(f"{path} is not an elliptic curve key, and it is never overwritten")
    return loaded


def _signing_request(username: str, key: ec.EllipticCurvePrivateKey) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, username)])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def _keep(enrolment: Enrolment, answer: dict[str, Any]) -> None:
    # The certificate comes last, because its presence means that all files are complete.
    for name, field in ((CA_CERTIFICATE, "caCertificate"), (CERTIFICATE, "certificate")):
        if answer.get(field):
            temporary = _temporary(enrolment.directory / name)
            temporary.write_text(answer[field])
            temporary.replace(enrolment.directory / name)


def _temporary(path: Path) -> Path:
    """Return a new temporary name beside the file, and delete the temporary files of interrupted runs."""
    for leftover in path.parent.glob(f".{path.name}.*"):
        leftover.unlink(missing_ok=True)
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}")


def _write_new(path: Path, content: bytes) -> None:
    """Create a file that only its owner can read, atomically; fail if it exists."""
    temporary = _temporary(path)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    # A hard link fails if the file exists; a rename would overwrite it.
    os.link(temporary, path)
    temporary.unlink()


def _json(answer: requests.Response) -> dict[str, Any]:
    try:
        value: Any = answer.json()
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _retry_after(answer: requests.Response) -> float:
    given = answer.headers.get("Retry-After", "")
    return min(int(given), _MAX_RETRY_SECONDS) if given.isdigit() else _DEFAULT_RETRY_SECONDS
