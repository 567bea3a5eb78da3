"""A server in the place of authsvc that speaks the plugin's protocol, and can be made to fail in many ways."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import queue
import threading
import time
from base64 import b64encode
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, BinaryIO, Self
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

HEARTBEAT_SECONDS = 0.2


@dataclass
class FakeUser:
    """A user as the plugin is told of it; the password is its only credential unless others are given."""

    password: str = "secret"
    rules: list[str] = field(default_factory=list)
    roles: list[str] = field(default_factory=list)
    client_ids: list[str] = field(default_factory=list)
    certificates: dict[str, float | None] = field(default_factory=dict)
    until: float | None = None
    refused: str | None = None

    def state(self, username: str, version: int) -> dict[str, Any]:
        credentials: dict[str, float | None] = {f"c:{serial}": until for serial, until in self.certificates.items()}
        credentials[self.credential] = self.until
        return {
            "username": username,
            "version": version,
            "refused": self.refused,
            "credentials": {} if self.refused else credentials,
            "clientIds": self.client_ids,
            "rules": [] if self.refused else self.rules,
            "roles": self.roles,
        }

    @property
    def credential(self) -> str:
        return f"p:{self.password}"


def unknown(username: str, version: int) -> dict[str, Any]:
    """Return the state of a user that does not exist."""
    return FakeUser(refused="unknown-user").state(username, version)


class FakeService(ThreadingHTTPServer):
    """Answers by `users`. Each request is kept in `requests` as its path and its fields.

    `answers` holds the body of a 200 that is sent in place of the answer to a path, `statuses` the status of an answer,
    and `raw` a function that writes an answer, its headers included. A request waits while `resumed` is clear. `speaks`
    is false for a service without the plugin's protocol.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int = 0, *, secret: str | None = None, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", port), _Conversation)
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.secret = secret
        self.users: dict[str, FakeUser] = {}
        self.version = 1
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.reports: list[dict[str, Any]] = []
        self.answers: dict[str, bytes] = {}
        self.statuses: dict[str, int] = {}
        self.raw: dict[str, Callable[[BinaryIO], None]] = {}
        self.speaks = True
        self.stores_reports = True
        self.resumed = threading.Event()
        self.resumed.set()
        self.streams: list[queue.Queue[bytes | None]] = []
        self._connections: set[Any] = set()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.resumed.set()
        self.shutdown()
        self.server_close()
        self.end_streams()
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(2)

    def answer_json(self, path: str, answer: Any) -> None:
        """Answer every request to a path with this."""
        self.answers[path] = json.dumps(answer).encode()

    def asked(self, path: str) -> list[dict[str, Any]]:
        """Return the fields of each request to a path so far."""
        return [fields for asked, fields in list(self.requests) if asked == path]

    def change(self, username: str, user: FakeUser | None) -> None:
        """Create, replace or delete a user and announce it."""
        self.version += 1
        if user is None:
            self.users.pop(username, None)
        else:
            self.users[username] = user
        self.announce(version=self.version, users=[username])

    def replace(self, username: str, **fields: Any) -> None:
        """Change fields of a user and announce it."""
        self.change(username, dataclasses.replace(self.users[username], **fields))

    def announce(self, **line: Any) -> None:
        """Send a line to every stream."""
        self.send(json.dumps(line).encode() + b"\n")

    def send(self, raw: bytes) -> None:
        """Send bytes to every stream."""
        for stream in list(self.streams):
            stream.put(raw)

    def end_streams(self) -> None:
        """End every stream as a process does that stops."""
        for stream in list(self.streams):
            stream.put(None)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that leave are expected."""


class _Conversation(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: FakeService

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        fields = {name: given[-1] for name, given in parse_qs(url.query).items()}
        self.server.requests.append((url.path, fields))
        self.server.resumed.wait()
        if self._is_handled(url.path):
            return
        if url.path in self.server.answers:
            self._answer(200, self.server.answers[url.path])
        elif url.path != "/auth/plugin/changes" or not self.server.speaks:
            self._answer(404, b"not found\n")
        elif url.path in self.server.statuses:
            self._answer(self.server.statuses[url.path], b"{}")
        else:
            self._stream()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        path = urlsplit(self.path).path
        try:
            fields = json.loads(body)
        except UnicodeDecodeError:
            self._answer(400, b"{}")
            return
        self.server.requests.append((path, fields))
        self.server.resumed.wait()
        if self._is_handled(path):
            return
        if path in self.server.answers:
            self._answer(self.server.statuses.get(path, 200), self.server.answers[path])
            return
        if path in self.server.statuses:
            self._answer(self.server.statuses[path], b"{}")
            return
        answers = {"/auth/user": self._user, "/auth/acl": self._acl}
        if self.server.speaks:
            answers |= {"/auth/plugin/users": self._users, "/auth/plugin/report": self._report}
        status, answer = answers.get(path, self._not_found)(fields)
        self._answer(status, json.dumps(answer).encode())

    def _is_handled(self, path: str) -> bool:
        """Answer in a way that is the same for each method and path; return whether that was done."""
        given = self.headers["authorization"]
        wanted = self.server.secret and "Basic " + b64encode(f"broker:{self.server.secret}".encode()).decode()
        if given != wanted:
            self._answer(401, b'{"ok":false,"error":"unauthorized"}')
        elif path in self.server.raw:
            self.close_connection = True
            self.server.raw[path](self.wfile)  # type: ignore[arg-type]
        return given != wanted or path in self.server.raw

    def _user(self, fields: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        user = self.server.users.get(fields["username"])
        if user is None or user.refused or user.password != fields["password"]:
            return 403, {"ok": False, "error": "wrong-password" if user else "unknown-user"}
        if not self.server.speaks:
            return 200, {"ok": True, "error": ""}
        state = user.state(fields["username"], self.server.version)
        return 200, {"ok": True, "error": "", "credential": user.credential, "user": state}

    def _acl(self, fields: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        user = self.server.users.get(fields["username"])
        allowed = bool(user and any(rule.endswith(fields["topic"]) for rule in user.rules))
        return (200 if allowed else 403), {"ok": allowed, "error": "" if allowed else "no-permission"}

    def _users(self, fields: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        version = self.server.version
        states = []
        for name in fields["usernames"]:
            user = self.server.users.get(name)
            states.append(user.state(name, version) if user else unknown(name, version))
        return 200, {"version": version, "users": states}

    def _report(self, fields: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if not self.server.stores_reports:
            return 200, {"ok": False, "error": "the database is gone"}
        self.server.reports.append(fields)
        return 200, {"ok": True}

    def _not_found(self, _fields: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        return 404, {"ok": False, "error": "not-found"}

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self) -> None:
        lines: queue.Queue[bytes | None] = queue.Queue()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.server.streams.append(lines)
        line: bytes | None = self._line(protocol=1, version=self.server.version, service="test")
        try:
            while line is not None:
                self._chunk(line)
                try:
                    line = lines.get(timeout=HEARTBEAT_SECONDS)
                except queue.Empty:
                    line = self._line(version=self.server.version)
                self.server.resumed.wait()
            self.wfile.write(b"0\r\n\r\n")
        finally:
            self.server.streams.remove(lines)
            self.close_connection = True

    def _line(self, **fields: Any) -> bytes:
        return json.dumps(fields).encode() + b"\n"

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()


def wait_for(reached: Any, within: float = 5.0) -> None:
    """Wait until a condition holds; fail if it does not in time."""
    deadline = time.monotonic() + within
    while not reached():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)
