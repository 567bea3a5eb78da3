"""authsvc's own plugin for Mosquitto, as the service meets it: the requests of protocol 1 over plain sockets."""

from __future__ import annotations

import json
import time
from base64 import b64encode
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.service import Service

BOOT = "0123456789abcdef0123456789abcdef"
OTHER_BOOT = "f" * 32
VERSION = {"Authsvc-Plugin": "1"}

Line = dict[str, Any]


class Answered(NamedTuple):
    """The status of an answer and its body; the body is None unless it is JSON."""

    status: int
    body: Any


class ChangeStream:
    """The lines of one change stream."""

    def __init__(self, response: HTTPResponse) -> None:
        self._response = response

    def line(self) -> Line:
        """Return the next line; `EOFError` if the service has ended the stream."""
        read = self._response.readline()
        if not read.endswith(b"\n"):
            raise EOFError
        line: Line = json.loads(read)
        return line

    def until(self, condition: Callable[[Line], bool], seconds: float = 5) -> Line:
        """Return the next line that meets a condition."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            line = self.line()
            if condition(line):
                return line
        raise AssertionError("no such line came in time")

    def names(self, kind: str, name: object) -> Line:
        """Return the next line that names a user, role or connection; a second is enough for that."""
        return self.until(lambda line: name in line.get(kind, []), seconds=1)


class Plugin:
    """Sends the plugin's requests to the broker listener, each on a connection of its own."""

    def __init__(self, service: Service, secret: str | None = None) -> None:
        self._port = service.broker_port
        self.headers = dict(VERSION)
        if secret is not None:
            self.headers["Authorization"] = "Basic " + b64encode(f"broker:{secret}".encode()).decode()

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> Answered:
        """Send any request; `body` is sent as JSON unless it is bytes."""
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        with self._connected() as connection:
            connection.request(method, path, sent, {**self.headers, "Content-Type": "application/json", **headers})
            response = connection.getresponse()
            is_json = response.headers.get("Content-Type") == "application/json"
            return Answered(response.status, json.loads(response.read()) if is_json else None)

    def logs_in(self, username: str, password: str, **headers: str) -> Answered:
        fields = {"username": username, "password": password, "clientid": "c1", "address": "192.0.2.7"}
        return self.ask("POST", "/auth/user", fields, **headers)

    def user(self, username: str) -> Any:
        """Return the state of one user."""
        answer = self.ask("POST", "/auth/plugin/users", {"usernames": [username]})
        assert answer.status == 200, answer
        (state,) = answer.body["users"]
        return state

    def report(self, **fields: Any) -> Answered:
        return self.ask("POST", "/auth/plugin/report", report(**fields))

    @contextmanager
    def changes(self, boot: str = BOOT, name: str = "plant") -> Iterator[ChangeStream]:
        """Hold a change stream open."""
        with self._connected() as connection:
            connection.request("GET", f"/auth/plugin/changes?boot={boot}&name={name}", headers=self.headers)
            response = connection.getresponse()
            assert response.status == 200, response.read()
            assert response.headers["Content-Type"] == "application/x-ndjson"
            yield ChangeStream(response)

    @contextmanager
    def _connected(self) -> Iterator[HTTPConnection]:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=10)
        try:
            yield connection
        finally:
            connection.close()


def report(**fields: Any) -> dict[str, Any]:
    """Return the body of a report; it is empty but for the given fields."""
    return {
        "boot": BOOT,
        "name": "plant",
        "plugin": "0.1.0",
        "generation": 1,
        "connected": [],
        "disconnected": [],
        "logins": [],
        "denials": [],
        "dropped": 0,
    } | fields


CONNECTED = {
    "id": 17,
    "username": "bob",
    "clientid": "bob-1",
    "address": "10.0.0.7",
    "protocol": "MQTT 5.0",
    "since": 1_767_225_600,
    "credential": "p",
}
DENIAL = {"username": "bob", "clientid": "bob-1", "topic": "elsewhere", "access": 2, "reason": "no-permission"}
