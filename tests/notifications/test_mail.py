"""Mails at a real SMTP server: TLS, login, refusals and names that try to inject headers."""

from __future__ import annotations

import email
import email.policy
import json
import ssl
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509

from authsvc.notifications import mail, outbox
from authsvc.notifications.outbox import EVENTS, EventType
from authsvc.settings import from_environment
from authsvc.storage.database import transaction
from tests.broker import free_port
from tests.notifications.environment import Clock, deny, notify, private, sender, stored
from tests.notifications.test_webhook import certificate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from email.message import EmailMessage
    from pathlib import Path

    from authsvc.settings import Settings

pytestmark = [
    pytest.mark.usefixtures("prepared"),
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True, ids=[""]),
]

RECIPIENT = "operator@plant.example"


@dataclass
class Mailbox:
    """The mails that the server accepted. It refuses mails with a status of `refusal`, if set."""

    received: list[tuple[str, list[str], EmailMessage]] = field(default_factory=list)
    refusal: str = ""
    logins: list[tuple[bytes, bytes]] = field(default_factory=list)
    encrypted: list[bool] = field(default_factory=list)
    port: int = 0

    async def handle_DATA(self, server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd names it
        if self.refusal:
            return self.refusal
        assert isinstance(envelope.content, bytes)
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        self.received.append((envelope.mail_from or "", envelope.rcpt_tos, message))
        assert server.transport
        self.encrypted.append(server.transport.get_extra_info("ssl_object") is not None)
        return "250 OK"

    def authenticate(
        self, _server: object, _session: object, _envelope: object, _way: object, given: Any
    ) -> AuthResult:
        assert isinstance(given, LoginPassword)
        self.logins.append((given.login, given.password))
        return AuthResult(success=given.password == b"s3cret@/", handled=False)


@contextmanager
def mail_server(**options: Any) -> Iterator[Mailbox]:
    """Run a mail server on a free port of 127.0.0.1."""
    mailbox = Mailbox(port=free_port())
    options = {"authenticator": mailbox.authenticate, "auth_require_tls": False, **options}
    controller = Controller(mailbox, hostname="127.0.0.1", port=mailbox.port, ready_timeout=30, **options)
    controller.start()
    try:
        yield mailbox
    finally:
        controller.stop()


def with_mail(settings: Settings, url: str, **changes: Any) -> Settings:
    """Return the settings of a service that sends mails through this URL."""
    return private(settings, smtp_url=url, **{"smtp_from": "authsvc@plant.example", **changes})


def send(settings: Settings) -> str | None:
    """Publish an event about a notification by mail, send it, and return the error of the delivery."""
    notify(settings, f"mailto:{RECIPIENT}")
    deny()
    assert sender(settings).send_due() == 1
    error: str | None = stored()[0].error
    return error


def test_mail_has_the_event_as_text(prepared: Settings) -> None:
    with mail_server() as mailbox:
        assert send(with_mail(prepared, f"smtp://127.0.0.1:{mailbox.port}")) is None
    ((envelope_from, recipients, message),) = mailbox.received
    assert (envelope_from, recipients) == ("authsvc@plant.example", [RECIPIENT])
    assert (message["From"], message["To"]) == (envelope_from, RECIPIENT)
    assert message["Subject"] == "authsvc: press-7 was denied access"
    assert message["Message-ID"] == f"<{stored()[0].webhook_id}@plant.example>"
    text = message.get_content()
    assert json.loads(text[text.index("{") : text.rindex("}") + 1])["data"] == {"username": "press-7"}
    assert stored()[0].status == "delivered"
    assert not mailbox.logins


def test_mail_notification_has_no_secret(prepared: Settings) -> None:
    assert notify(with_mail(prepared, "smtp://localhost"), f"mailto:{RECIPIENT}").secret is None


def test_login_with_user_and_password(prepared: Settings) -> None:
    with mail_server() as mailbox:
        url = f"smtp://authsvc%40plant.example:s3cret%40%2F@127.0.0.1:{mailbox.port}"
        assert send(with_mail(prepared, url, smtp_from=None)) is None
    assert mailbox.logins == [(b"authsvc@plant.example", b"s3cret@/")]
    assert mailbox.received[0][0] == "authsvc@plant.example"


def test_wrong_password_is_a_failure_without_the_password(prepared: Settings) -> None:
    with mail_server() as mailbox:
        error = send(with_mail(prepared, f"smtp://authsvc:top-secret@127.0.0.1:{mailbox.port}"))
    assert error == "the mail server refused the user or password of AUTHSVC_SMTP_URL"
    assert not mailbox.received


@pytest.mark.parametrize("scheme", ["smtps", "smtp+starttls"])
def test_tls_with_a_verified_certificate(
    scheme: str, prepared: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = certificate(tmp_path, x509.IPAddress(ip_address("127.0.0.1")))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    options = {"ssl_context": context} if scheme == "smtps" else {"tls_context": context, "require_starttls": True}
    with mail_server(**options) as mailbox:
        settings = with_mail(prepared, f"{scheme}://authsvc:s3cret%40%2F@127.0.0.1:{mailbox.port}")
        assert "self-signed certificate" in str(send(settings))
        assert not mailbox.logins
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
        clock = Clock()
        clock.advance(seconds=40)
        assert sender(settings, clock).send_due() == 1
        assert stored()[0].error is None
    assert mailbox.encrypted == [True]
    assert len(mailbox.logins) == 1


def test_starttls_is_required(prepared: Settings) -> None:
    with mail_server() as mailbox:
        error = send(with_mail(prepared, f"smtp+starttls://a:top-secret@127.0.0.1:{mailbox.port}"))
    assert error == "the mail server does not support the login or STARTTLS"
    assert not mailbox.logins


@pytest.mark.parametrize(
    ("refusal", "error"),
    [("451 try later: top-secret", "the mail server answered 451"), ("550 no", "the mail server answered 550")],
)
def test_refusal_is_a_failure_that_is_repeated(refusal: str, error: str, prepared: Settings) -> None:
    with mail_server() as mailbox:
        mailbox.refusal = refusal
        assert send(with_mail(prepared, f"smtp://127.0.0.1:{mailbox.port}")) == error
        assert stored()[0].status == "pending"
        mailbox.refusal = ""
        clock = Clock()
        clock.advance(seconds=40)
        assert sender(with_mail(prepared, f"smtp://127.0.0.1:{mailbox.port}"), clock).send_due() == 1
    assert stored()[0].status == "delivered"


def test_server_that_cannot_be_reached_or_is_not_set(prepared: Settings) -> None:
    settings = with_mail(prepared, f"smtp://127.0.0.1:{free_port()}")
    assert send(settings) == "the mail server cannot be reached, or it ended the connection"
    clock = Clock()
    clock.advance(seconds=40)
    assert sender(prepared, clock).send_due() == 1
    assert stored()[0].error == "there is no mail server; set AUTHSVC_SMTP_URL"


@pytest.mark.parametrize("event", EVENTS)
def test_names_cannot_inject_headers_or_lines(event: EventType, prepared: Settings) -> None:
    hostile = "x\r\nBcc: victim@example.com\r\n\r\nbody\n.\nQUIT\u202e\x00"
    settings = with_mail(prepared, "smtp://127.0.0.1")
    notify(settings, f"mailto:{RECIPIENT}")
    with mail_server() as mailbox, transaction():
        named = {"username": hostile, "subject": hostile, "days": 7}
        outbox.publish(event, {"certificates": [named], "registrations": [named], "users": [named], "count": 3} | named)
    with mail_server() as mailbox:
        assert sender(with_mail(prepared, f"smtp://127.0.0.1:{mailbox.port}")).send_due() == 1
    ((_, recipients, message),) = mailbox.received
    assert recipients == [RECIPIENT]
    assert set(message.keys()) == {
        *("From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "MIME-Version"),
        *("Content-Type", "Content-Transfer-Encoding"),
    }
    assert "Bcc: victim" in message["Subject"]
    assert message["Subject"].isprintable()
    assert not any(line.startswith(("Bcc", ".", "QUIT")) for line in message.get_content().splitlines())
    assert message.get_content().isascii() or "\ufffd" in message.get_content()
    assert "\u202e" not in message.as_string()


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ({"count": 1, "registrations": [{"username": "a"}]}, "a registered and waits for approval"),
        ({"count": 3, "registrations": [{"username": "a"}]}, "a and 2 more registered and waits for approval"),
        ({"count": 3, "registrations": []}, "a user and 2 more registered and waits for approval"),
    ],
)
def test_subject_counts(content: dict[str, Any], line: str) -> None:
    assert mail.subject(EventType.REGISTRATION_PENDING, content) == line
    message = mail.compose("a@b", RECIPIENT, "msg_1", EventType.TEST, {}, datetime.now(UTC), "x")
    assert message["Subject"] == "authsvc: test message"


def test_server_of_a_url() -> None:
    settings = from_environment({"AUTHSVC_SMTP_URL": "smtps://u%3A:p%25@[::1]"})
    server = mail.mail_server(settings)
    assert server is not None
    assert (server.host, server.port, server.username, server.password) == ("::1", 465, "u:", "p%")
    assert "p%" not in repr(server)
    assert server.sender.startswith("authsvc@")
