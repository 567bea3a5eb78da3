"""Sends one message as a mail through the server of `AUTHSVC_SMTP_URL`."""

from __future__ import annotations

import json
import smtplib
import socket
import ssl
from contextlib import closing, suppress
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from threading import Timer
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from authsvc.notifications.outbox import DIGESTED, EventType
from authsvc.notifications.targets import DeliveryError
from authsvc.settings import MAIL_ADDRESS

if TYPE_CHECKING:
    from datetime import datetime

    from authsvc.settings import Settings

TIMEOUT_SECONDS = 10.0
"""How long to wait for each answer of the mail server."""
LONGEST_SECONDS = 60.0
"""How long sending one mail may take in total."""
_PORTS = {"smtp": 25, "smtps": 465, "smtp+starttls": 587}
_MAX_SUBJECT = 150
_SUBJECTS = {
    EventType.REGISTRATION_PENDING: "{names} registered and waits for approval",
    EventType.REGISTRATION_GRANTED: "{names} was granted access",
    EventType.REGISTRATION_DENIED: "{names} was denied access",
    EventType.CERTIFICATE_EXPIRING: "certificate of {names} expires within {days} days",
    EventType.CERTIFICATE_REVOKED: "certificate of {names} was revoked",
    EventType.LOGIN_THROTTLED: "logins of {names} are throttled",
    EventType.AUTHORITY_EXPIRING: "certificate authority {names} expires within {days} days",
    EventType.TEST: "test message",
}


@dataclass(frozen=True, slots=True)
class MailServer:
    """The mail server, and the sender of mails."""

    scheme: str
    host: str
    port: int
    username: str
    password: str
    sender: str

    def __repr__(self) -> str:
        return f"MailServer({self.host!r}, {self.port})"

    def send(self, message: EmailMessage) -> None:
        """Send a mail; raise `DeliveryError` if the server does not accept it."""
        try:
            server = self._connect()
            with closing(server), _Deadline(server):
                if self.scheme == "smtp+starttls":
                    server.starttls(context=ssl.create_default_context())
                if self.username:
                    server.login(self.username, self.password)
                server.send_message(message)
                # The mail was accepted: an error from here on must not cause another one.
                with suppress(OSError, smtplib.SMTPException):
                    server.quit()
        except smtplib.SMTPAuthenticationError:
            raise DeliveryError("the mail server refused the user or password of AUTHSVC_SMTP_URL") from None
        except smtplib.SMTPNotSupportedError:
            raise DeliveryError("the mail server does not support the login or STARTTLS") from None
        except smtplib.SMTPRecipientsRefused as error:
            ((code, _),) = error.recipients.values()
            raise DeliveryError(f"the mail server refused the recipient ({code})") from None
        except smtplib.SMTPResponseException as error:
            raise DeliveryError(f"the mail server answered {error.smtp_code}") from None
        except ssl.SSLError as error:
            raise DeliveryError(f"TLS failed: {getattr(error, 'verify_message', 'no common protocol')}") from None
        except TimeoutError:
            raise DeliveryError("the mail server did not answer in time") from None
        except (OSError, smtplib.SMTPException, UnicodeError):
            raise DeliveryError("the mail server cannot be reached, or it ended the connection") from None

    def _connect(self) -> smtplib.SMTP:
        if self.scheme == "smtps":
            context = ssl.create_default_context()
            return smtplib.SMTP_SSL(self.host, self.port, timeout=TIMEOUT_SECONDS, context=context)
        return smtplib.SMTP(self.host, self.port, timeout=TIMEOUT_SECONDS)


class _Deadline:
    """Shuts down the connection to a mail server after `LONGEST_SECONDS`."""

    def __init__(self, connection: smtplib.SMTP) -> None:
        self._timer = Timer(LONGEST_SECONDS, self._shut_down)
        self._connection = connection

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def _shut_down(self) -> None:
        with suppress(OSError):
            if self._connection.sock:
                socket.socket.shutdown(self._connection.sock, socket.SHUT_RDWR)


def mail_server(settings: Settings) -> MailServer | None:
    """Return the server of `AUTHSVC_SMTP_URL`; None if it is not set."""
    if settings.smtp_url is None:
        return None
    parts = urlsplit(settings.smtp_url)
    username = unquote(parts.username or "")
    own = username if MAIL_ADDRESS.fullmatch(username) else f"authsvc@{socket.gethostname()}"
    return MailServer(
        scheme=parts.scheme,
        host=parts.hostname or "",
        port=parts.port or _PORTS[parts.scheme],
        username=username,
        password=unquote(parts.password or ""),
        sender=settings.smtp_from or own,
    )


def compose(
    sender: str, recipient: str, webhook_id: str, event: EventType, content: dict[str, Any], at: datetime, name: str
) -> EmailMessage:
    """Return the mail about an event. Names come from devices, so control characters in them are replaced."""
    message = EmailMessage(policy=SMTP)
    message["From"] = sender
    message["To"] = recipient
    message["Subject"] = f"authsvc: {subject(event, content)}"
    message["Date"] = format_datetime(at)
    # A receiver can detect a repeated mail by it, like a repeated webhook.
    message["Message-ID"] = f"<{webhook_id}@{sender.rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"
    # JSON escapes control characters, and all characters that are not ASCII.
    fields = json.dumps({"type": event, "timestamp": f"{at:%Y-%m-%dT%H:%M:%SZ}", "data": content}, indent=2)
    message.set_content(f"{subject(event, content)}\n\n{fields}\n\nNotification: {json.dumps(name)}\n")
    return message


def subject(event: EventType, content: dict[str, Any]) -> str:
    """Return one line about an event, such as `press-7 and 2 more registered and waits for approval`."""
    listed = content.get(DIGESTED.get(event, "certificates"), [content])
    first = listed[0] if listed else {}
    names = str(first.get("username") or first.get("subject") or "a user")
    more = content.get("count", len(listed)) - 1
    text = _SUBJECTS[event].format(names=f"{names} and {more} more" if more > 0 else names, days=content.get("days"))
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)[:_MAX_SUBJECT]
