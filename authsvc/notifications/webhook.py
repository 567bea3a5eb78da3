"""Sends one message as a signed HTTP request (Standard Webhooks)."""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from datetime import UTC, datetime
from threading import Timer
from typing import TYPE_CHECKING, Any, Self

import requests
import standardwebhooks
from requests.adapters import HTTPAdapter
from urllib3.exceptions import NewConnectionError

from authsvc import __version__
from authsvc.notifications import targets
from authsvc.notifications.targets import DeliveryError

if TYPE_CHECKING:
    from authsvc.notifications.targets import Webhook

TIMEOUT_SECONDS = 5.0
"""How long to wait for a connection, and then for each part of the answer."""
LONGEST_SECONDS = 15.0
"""How long one request may take in total, whatever the receiver does."""
MAX_ANSWER_BYTES = 64 * 1024
_MAX_ADDRESSES = 3
_TOO_SLOW = "the receiver did not answer in time"


def post(url: str, webhook_id: str, secret: str, body: str, *, allow_private: bool) -> None:
    """Send a message and return if the receiver answers 2xx; otherwise raise `DeliveryError`."""
    webhook = targets.webhook(url)
    addresses = targets.resolve(webhook.host, webhook.port, allow_private=allow_private)
    now = datetime.now(UTC)
    headers = {
        "Host": webhook.authority,
        "Content-Type": "application/json",
        "User-Agent": f"authsvc/{__version__}",
        "webhook-id": webhook_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": standardwebhooks.Webhook(secret).sign(webhook_id, now, body),
    }
    for address in addresses[:_MAX_ADDRESSES]:
        with _Exchange(webhook) as exchange:
            try:
                exchange.post(address, body.encode(), headers)
            except requests.RequestException as error:
                problem, is_connected = _problem(error, exchange), not _failed_to_connect(error)
            else:
                return
        if is_connected:
            break
    raise DeliveryError(problem)


class _Exchange:
    """One request and its answer. After `LONGEST_SECONDS` its connection is shut down."""

    def __init__(self, webhook: Webhook) -> None:
        self.timed_out = False
        self._webhook = webhook
        self._session = requests.Session()
        # No proxy: it would resolve the name again. No .netrc: its passwords are for other programs.
        self._session.trust_env = False
        self._adapter = _Adapter(webhook)
        self._session.mount(f"{webhook.scheme}://", self._adapter)
        self._timer = Timer(LONGEST_SECONDS, self._shut_down)

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        self._session.close()

    def post(self, address: str, body: bytes, headers: dict[str, str]) -> None:
        """Send the request to this IP address; raise `DeliveryError` unless the answer is 2xx."""
        webhook = self._webhook
        with self._session.post(
            f"{webhook.scheme}://{targets.bracketed(address)}:{webhook.port}{webhook.path}",
            data=body,
            headers=headers,
            timeout=TIMEOUT_SECONDS,
            allow_redirects=False,
            stream=True,
        ) as answer:
            if self.timed_out:  # the end of the connection looks like the end of the headers
                raise DeliveryError(_TOO_SLOW)
            # So that the receiver can send its answer; an error in the middle of it changes nothing.
            with suppress(Exception):
                answer.raw.read(MAX_ANSWER_BYTES, decode_content=False)
            if answer.status_code // 100 != 2:  # noqa: PLR2004 - success
                redirect = "; redirects are not followed" if answer.is_redirect else ""
                raise DeliveryError(f"the receiver answered {answer.status_code}{redirect}")

    def _shut_down(self) -> None:
        self.timed_out = True
        for each in self._adapter.opened:
            with suppress(OSError):
                # Not the method of SSLSocket, which takes away the TLS state that the other thread is using.
                socket.socket.shutdown(each, socket.SHUT_RDWR)


class _Adapter(HTTPAdapter):
    """Connects to the IP address in the URL and keeps the sockets; the certificate must be for the webhook's host."""

    def __init__(self, webhook: Webhook) -> None:
        self.opened: list[socket.socket] = []
        self._webhook = webhook
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        if self._webhook.scheme == "https":
            # With the system's authorities, beside those of the library; http is spared the time of loading them.
            options |= {"server_hostname": self._webhook.host, "ssl_context": ssl.create_default_context()}
        super().init_poolmanager(*args, **options)

    def get_connection_with_tls_context(self, *args: Any, **options: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*args, **options)
        opened = self.opened

        class Watched(pool.ConnectionCls):  # type: ignore[misc]
            def connect(self) -> None:
                super().connect()
                opened.append(self.sock)

        pool.ConnectionCls = Watched
        return pool


def _failed_to_connect(error: requests.RequestException) -> bool:
    """Return whether nothing was sent, so that another address of the host may be tried."""
    if isinstance(error, requests.ConnectTimeout):
        return True
    cause = error.args[0] if error.args else None
    return isinstance(getattr(cause, "reason", None), NewConnectionError)


def _problem(error: requests.RequestException, exchange: _Exchange) -> str:
    """Describe an error without its own text, which contains the URL."""
    if isinstance(error, requests.exceptions.SSLError):
        return f"TLS failed: {_certificate_problem(error)}"
    if exchange.timed_out or isinstance(error, requests.Timeout):
        return _TOO_SLOW
    if _failed_to_connect(error):
        return "the receiver cannot be reached"
    return "the connection ended before the answer"


def _certificate_problem(error: BaseException) -> str:
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLCertVerificationError):
            return seen.verify_message
        seen = seen.__cause__ or seen.__context__
    return "no common protocol"
