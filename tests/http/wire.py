"""Sends raw bytes or webhook requests to a running service."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.service import Service


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    """Wait for the condition; return whether it became true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@contextmanager
def stopped_process(pid: int) -> Iterator[None]:
    """Stop a process with SIGSTOP during the block."""
    os.kill(pid, signal.SIGSTOP)
    try:
        # On a busy machine the threads of the process stop a moment later.
        assert within(20, lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def asks(service: Service, check: str, **fields: Any) -> str:
    """Call a webhook on a new connection and return `ok` or the reason of the denial."""
    answer = requests.post(f"{service.broker_url}/auth/{check}", json=fields, timeout=10)
    assert answer.status_code in (200, 400, 401, 403), answer.text
    body: dict[str, Any] = answer.json()
    assert body["ok"] is (answer.status_code == 200)
    return body["error"] or "ok"


def logs_in(service: Service, username: str, password: str) -> str:
    return asks(service, "user", username=username, password=password, clientid="c1")


def publishes(service: Service, username: str, topic: str) -> str:
    return asks(service, "acl", username=username, topic=topic, acc=2, clientid="c1")


class Connection:
    """A kept connection to a listener of the service, `broker` or `api`."""

    def __init__(self, service: Service, listener: str = "broker") -> None:
        port = service.broker_port if listener == "broker" else service.port
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=10)

    def __enter__(self) -> socket.socket:
        return self._socket

    def __exit__(self, *_: object) -> None:
        self._socket.close()


def webhook_request(**fields: Any) -> bytes:
    """Return the bytes of an ACL request in go-auth's form."""
    body = json.dumps(fields).encode()
    head = b"POST /auth/acl HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    return b"%sContent-Length: %d\r\n\r\n%s" % (head, len(body), body)


def answer_on(connection: socket.socket) -> tuple[int, bytes]:
    """Read exactly one response from a connection."""
    with connection.makefile("rb") as stream:
        status = int(stream.readline().split()[1])
        length = 0
        while (line := stream.readline()) not in (b"\r\n", b""):
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        return status, stream.read(length)


def response_to(service: Service, sent: bytes, listener: str = "broker") -> bytes:
    """Send bytes to a listener, close the sending side, and return all received bytes."""
    with Connection(service, listener) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        received = b""
        while piece := connection.recv(65_536):
            received += piece
        return received
