"""Load beside a broker's requests: administrators who page through users or change them, and logins.

    python -m bench.load administrators PORT TOKEN COUNT PAGES
    python -m bench.load changes PORT TOKEN DEVICES
    python -m bench.load logins PORT DEVICES
    python -m bench.load guesses|unknown|signins|registrations PORT DEVICES

Each runs in its own process, until its standard input ends. It then prints its answered requests and the
seconds. Administrators and attackers run at the lowest priority, so that sending requests takes no time from
the service.
"""

from __future__ import annotations

import os
import selectors
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import count
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any

from bench.broker_connection import BrokerConnection, post, user_request
from bench.population import PASSWORD, username

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_READ = 256 * 1024
_BROKERS = 10  # so that no attacker waits for a hash before its next request


class Load:
    """Load that runs during a measurement; at its end `rate` is the answered requests per second."""

    rate = 0.0

    @contextmanager
    def running(self, *arguments: str | int) -> Iterator[None]:
        """Run the load during the block."""
        command = [sys.executable, "-m", "bench.load", *map(str, arguments)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            yield
            output, _ = process.communicate("")
        answered, seconds = output.split()
        self.rate = int(answered) / float(seconds)


class Administrator:
    """An administrator with one kept connection and one request in flight."""

    def __init__(self, port: int, token: str, first_page: int, pages: int) -> None:
        self.socket = _connected(port)
        self.shown = 0
        self._token = token
        self._pages = (1 + number % pages for number in count(first_page))
        self._received = b""
        self._ask()

    def _ask(self) -> None:
        path = f"/api/users?page={next(self._pages)}&perPage=100"
        head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {self._token}\r\n\r\n"
        self.socket.sendall(head.encode())

    def read(self) -> None:
        """Read a part of a response; request the next page when the response is complete."""
        self._received += _received(self.socket)
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found or len(body) < _length(head):
            return
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"answered {head[:60]!r}")
        self._received = b""
        self.shown += 1
        self._ask()


def administrators(port: int, token: str, count: int, pages: int) -> int:
    """Page through all users, each administrator from a different page, until standard input ends."""
    os.nice(19)
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    with selectors.DefaultSelector() as selector:
        selector.register(sys.stdin, selectors.EVENT_READ)
        connections = [Administrator(port, token, number * pages // count, pages) for number in range(count)]
        for one in connections:
            selector.register(one.socket, selectors.EVENT_READ, one)
        while all(_read_next(key.data) for key, _ in selector.select()):
            pass
    return sum(one.shown for one in connections)


def changes(port: int, token: str, devices: int) -> int:
    """Change the permissions of ten users per second until standard input ends.

    The numbers of these users end in 01; no measured request concerns them.
    """
    connection = _connected(port)

    def change(number: int) -> None:
        body = f'{{"permissions": [{{"context": "mqtt", "operation": "write", "resource": "plant/{number}/#"}}]}}'
        path = f"/api/users/{username((number * 100 + 1) % devices)}"
        head = f"PATCH {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n"
        rest = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        connection.sendall((head + rest).encode())
        if not (answer := _received(connection)).startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"answered {answer[:60]!r}")

    return _ten_a_second(change)


def logins(port: int, devices: int) -> int:
    """Let ten devices per second log in for the first time, each with a hash, until standard input ends."""
    connections, first = [_connected(port) for _ in range(_BROKERS)], int.from_bytes(os.urandom(4))

    def log_in(number: int) -> None:
        connection = connections[number % _BROKERS]
        if number >= _BROKERS:
            _received(connection)  # its last answer, a second later
        connection.sendall(user_request(username((first + number) % devices), PASSWORD))

    return _ten_a_second(log_in)


def guesses(port: int, devices: int) -> int:
    """Guess passwords of the devices at `/auth/user`, 1,000 per second, each with a new client id."""
    return _attack(port, 1000, 4, lambda n: user_request(username(n % devices), f"guess {n}", f"made-up-{n}"))


def unknown(port: int, _devices: int) -> int:
    """Log in with unknown usernames at `/auth/user`, 200 per second."""
    return _attack(port, 200, 4, lambda n: user_request(f"unknown-{os.getpid()}-{n}", PASSWORD))


def signins(port: int, _devices: int) -> int:
    """Sign in at the API on 60 connections, each with another username, as fast as it answers."""
    return _attack(port, 6000, 60, lambda n: post("/api/login", {"username": f"unknown-{n}", "password": f"guess {n}"}))


def registrations(port: int, _devices: int) -> int:
    """Register unknown usernames, 200 per second."""
    path = "/api/client-registry/register"
    return _attack(port, 200, 10, lambda n: post(path, {"username": f"new-{os.getpid()}-{n}", "password": PASSWORD}))


def _attack(port: int, per_second: int, connections: int, request: Callable[[int], bytes]) -> int:
    """Send up to `rate` requests per second until standard input ends; return the number of answers."""
    os.nice(19)
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    enough = threading.Event()

    def send(place: int) -> int:
        answered, started = 0, monotonic()
        while not enough.is_set():
            with closing(BrokerConnection(port)) as connection:
                try:
                    while not enough.wait(max(0.0, started + answered * connections / per_second - monotonic())):
                        connection.status(request(place + answered * connections))
                        answered += 1
                except (OSError, RuntimeError):  # the service may close the connection
                    continue
        return answered

    with ThreadPoolExecutor(connections) as pool:
        sending = [pool.submit(send, place) for place in range(connections)]
        sys.stdin.read()
        enough.set()
        return sum(each.result() for each in sending)


def _ten_a_second(act: Callable[[int], None]) -> int:
    """Call the action every 100 ms until standard input ends; return the number of calls."""
    started = monotonic()
    with selectors.DefaultSelector() as selector:
        selector.register(sys.stdin, selectors.EVENT_READ)
        for number in count():
            if selector.select(max(0.0, started + number / 10 - monotonic())):
                return number
            act(number)
    raise AssertionError


def _read_next(one: Administrator | None) -> bool:
    """Let the administrator of this key read; return False for standard input, which has none."""
    if one is not None:
        one.read()
    return one is not None


def _connected(port: int) -> socket.socket:
    connected = socket.create_connection(("127.0.0.1", port))
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connected


def _received(connection: socket.socket) -> bytes:
    received = connection.recv(_READ)
    if not received:
        raise RuntimeError("the service closed a kept connection")
    return received


def _length(head: bytes) -> int:
    _, _, rest = head.lower().partition(b"content-length:")
    return int(rest.partition(b"\r\n")[0])


def main() -> None:
    """Run one kind of load."""
    kind, *words = sys.argv[1:]
    given: list[Any] = [int(word) if word.isdigit() else word for word in words]
    started = perf_counter()
    kinds: list[Callable[..., int]] = [administrators, changes, logins, guesses, unknown, signins, registrations]
    answered = {each.__name__: each for each in kinds}[kind](*given)
    print(answered, perf_counter() - started)


if __name__ == "__main__":
    main()
