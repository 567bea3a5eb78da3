"""Webhooks at a real HTTP receiver: the signature, and receivers that behave badly."""

from __future__ import annotations

import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from time import monotonic
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from standardwebhooks import Webhook, WebhookVerificationError

from authsvc.notifications import signing_secrets, webhook
from authsvc.notifications.targets import DeliveryError, RefusedAddress
from tests.notifications.receivers import PATIENCE, answer_with, receiving, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from http.server import BaseHTTPRequestHandler
    from pathlib import Path

SECRET = signing_secrets.create()
BODY = '{"type": "notification.test"}'


def post(url: str, *, allow_private: bool = True) -> None:
    webhook.post(url, "msg_1", SECRET, BODY, allow_private=allow_private)


def error_of(url: str) -> str:
    """Return the error of a failed delivery, which contains nothing of the URL's path."""
    with pytest.raises(DeliveryError) as failed:
        post(url)
    assert "top-secret" not in str(failed.value)
    return str(failed.value)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short timeouts."""
    monkeypatch.setattr(webhook, "TIMEOUT_SECONDS", 0.5)
    monkeypatch.setattr(webhook, "LONGEST_SECONDS", 1.0)


@pytest.fixture
def silence() -> Iterator[threading.Event]:
    """An event for receivers to wait for; it is set after the test."""
    ended = threading.Event()
    yield ended
    ended.set()


def test_message_is_signed_for_the_library_of_standard_webhooks() -> None:
    with receiving() as receiver:
        post(receiver.url)
    (received,) = receiver.received
    assert received.path == "/hook?token=top-secret"
    assert received.body.decode() == BODY
    assert received.verified(SECRET) == {"type": "notification.test"}
    assert received.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert received.headers["content-type"] == "application/json"
    assert received.id == "msg_1"
    with pytest.raises(WebhookVerificationError):
        received.verified(signing_secrets.create())
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(received.body + b" ", received.headers)


def test_private_address_is_refused_before_a_connection() -> None:
    with receiving() as receiver, pytest.raises(RefusedAddress):
        post(receiver.url, allow_private=False)
    assert not receiver.received


def test_connection_goes_to_the_address_that_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    lookups = []

    def found(host: str, port: int, *_: object, **__: object) -> list[Any]:
        lookups.append(host)
        address = "127.0.0.1" if len(lookups) == 1 or host == "127.0.0.1" else "127.0.0.2"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    with receiving() as receiver:
        monkeypatch.setattr(socket, "getaddrinfo", found)
        post(f"http://hooks.example.com:{receiver.port}/")
        monkeypatch.undo()
    assert [one.headers["host"] for one in receiver.received] == [f"hooks.example.com:{receiver.port}"]
    assert lookups.count("hooks.example.com") == 1


def test_next_address_of_the_host_is_tried_if_the_first_refuses_connections() -> None:
    # `localhost` is ::1 first, where nobody listens.
    with receiving() as receiver:
        post(f"http://localhost:{receiver.port}/")
    assert len(receiver.received) == 1


def test_proxies_and_passwords_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login a password b\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with receiving() as receiver:
        post(receiver.url)
    assert "authorization" not in receiver.received[0].headers


@pytest.mark.parametrize("status", [400, 401, 404, 410, 429, 500, 503])
def test_other_answer_than_2xx_is_a_failure(status: int) -> None:
    with receiving(answer_with(status, body=b"the password is top-secret")) as receiver:
        assert error_of(receiver.url) == f"the receiver answered {status}"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_is_not_followed(status: int) -> None:
    with receiving() as other, receiving(answer_with(status, ("Location", other.url))) as receiver:
        assert error_of(receiver.url) == f"the receiver answered {status}; redirects are not followed"
    assert not other.received


def test_receiver_that_cannot_be_reached() -> None:
    with receiving() as receiver:
        pass
    assert error_of(receiver.url) == "the receiver cannot be reached"


@pytest.mark.usefixtures("impatient")
def test_receiver_that_does_not_answer(silence: threading.Event) -> None:
    with receiving(lambda _: silence.wait(PATIENCE)) as receiver:
        assert error_of(receiver.url) == "the receiver did not answer in time"
        silence.set()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("part", [b"H", b"HTTP/1.1 200 OK\r\nX: "])
def test_receiver_that_sends_one_byte_at_a_time(part: bytes, silence: threading.Event) -> None:
    def trickle(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(part)
        while not silence.wait(0.05):
            request.wfile.write(b"x")

    with receiving(trickle) as receiver:
        began = monotonic()
        assert error_of(receiver.url) == "the receiver did not answer in time"
        assert monotonic() - began < PATIENCE
        silence.set()


@pytest.mark.usefixtures("impatient")
def test_body_that_never_ends_does_not_turn_success_into_failure(silence: threading.Event) -> None:
    def trickle(request: BaseHTTPRequestHandler) -> None:
        answer_with(200, ("Content-Length", "1000000"))(request)
        while not silence.wait(0.05):
            request.wfile.write(b"x")

    with receiving(trickle) as receiver:
        post(receiver.url)
        silence.set()


def test_huge_answer_is_read_up_to_64_kib() -> None:
    written: list[int] = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        answer_with(200)(request)
        try:
            while len(written) < 100_000:
                written.append(request.wfile.write(b"x" * 4096))
        except OSError:
            written.append(0)

    with receiving(answer) as receiver:
        post(receiver.url)
        # The buffers of the connection take a few MB more.
        wait_until(lambda: written and not written[-1])
    assert sum(written) < 50_000_000


def test_huge_headers_are_refused() -> None:
    with receiving(answer_with(200, ("X-Long", "x" * 100_000))) as receiver:
        assert error_of(receiver.url) == "the connection ended before the answer"


def test_compressed_answer_is_not_decompressed() -> None:
    with receiving(answer_with(200, ("Content-Encoding", "gzip"), body=b"no gzip")) as receiver:
        post(receiver.url)


def certificate(directory: Path, *names: x509.GeneralName) -> Path:
    """Return a file with a new self-signed certificate for these names and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "receiver")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = directory / "receiver.pem"
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM) + key_pem)
    return file


@pytest.mark.parametrize(
    ("names", "host", "error"),
    [
        ([x509.DNSName("localhost")], "localhost", None),
        ([x509.IPAddress(ip_address("127.0.0.1"))], "127.0.0.1", None),
        ([x509.DNSName("other.example.com")], "localhost", "TLS failed: Hostname mismatch"),
        ([x509.DNSName("localhost")], "127.0.0.1", "TLS failed: IP address mismatch"),
    ],
)
def test_certificate_must_be_for_the_host_of_the_url(
    names: list[x509.GeneralName], host: str, error: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = certificate(tmp_path, *names)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    with receiving(tls=context) as receiver:
        url = f"https://{host}:{receiver.port}/hook?top-secret"
        assert "self-signed certificate" in error_of(url)
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
        if error:
            assert error_of(url).startswith(error)
            assert not receiver.received
        else:
            post(url)
            receiver.received[0].verified(SECRET)
