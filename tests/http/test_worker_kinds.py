"""Workers that answer brokers and workers that answer the API, behind one address: nobody notices but by the time."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests

from authsvc.server.workers import Kind, missing
from tests.actors import ADMIN_PASSWORD, BOBS_PASSWORD
from tests.http.callers import basic
from tests.http.fronted import room_for_many
from tests.http.wire import Connection, answer_on, asks, logs_in, publishes, webhook_request, within
from tests.service import ADMIN_PASSWORD as SERVICES_PASSWORD
from tests.service import Service, permission

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

QUESTION = webhook_request(username="bob", topic="devices/bob/up", acc=2, clientid="c1")
YES = (200, b'{"ok":true,"error":""}')
MORE_THAN_CAN_WAIT = 1200


def api_request(path: str = "/api/me", password: str = ADMIN_PASSWORD) -> bytes:
    """Return the bytes of one request by the administrator."""
    return f"GET {path} HTTP/1.1\r\nHost: authsvc\r\nAuthorization: {basic('admin', password)}\r\n\r\n".encode()


@pytest.fixture
def service(running: Service) -> Service:
    """The inhabited service, one worker of each kind."""
    running.start()
    return running


def workers(service: Service) -> dict[int, Kind]:
    """Return the workers that live, by process id: those for the API let all others go first."""
    assert service.process
    children = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children").read_text().split()
    nice = {int(pid): os.getpriority(os.PRIO_PROCESS, int(pid)) for pid in children}
    return {pid: Kind.API if niceness > min(nice.values()) else Kind.BROKERS for pid, niceness in nice.items()}


def the_worker(service: Service, kind: Kind) -> int:
    (pid,) = (pid for pid, its_kind in workers(service).items() if its_kind is kind)
    return pid


@contextmanager
def halted(pid: int) -> Iterator[None]:
    """Let a process stand still for the length of a block."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


# Which worker gets a connection.


@pytest.mark.parametrize(
    ("living", "next_one"),
    [
        ([], Kind.BROKERS),
        ([Kind.BROKERS], Kind.API),
        ([Kind.API], Kind.BROKERS),
        ([Kind.BROKERS, Kind.API], Kind.BROKERS),
        ([Kind.BROKERS, Kind.BROKERS, Kind.API], Kind.BROKERS),
        ([Kind.BROKERS, Kind.BROKERS, Kind.BROKERS], Kind.API),
    ],
)
def test_the_next_worker_is_of_the_kind_that_is_short(living: list[Kind], next_one: Kind) -> None:
    assert missing({Kind.BROKERS: 3, Kind.API: 1}, living) is next_one


def test_there_is_a_worker_of_each_kind(service: Service) -> None:
    assert sorted(kind.value for kind in workers(service).values()) == ["api", "brokers"]


def test_brokers_are_answered_while_the_worker_for_the_api_stands_still(service: Service) -> None:
    with Connection(service) as kept, halted(the_worker(service, Kind.API)):
        for _ in range(3):
            kept.sendall(QUESTION)
            assert answer_on(kept) == YES
            assert publishes(service, "bob", "devices/bob/up") == "ok"
        assert requests.get(service.url + "/healthz", timeout=10).status_code == 200
        with pytest.raises(requests.Timeout):
            requests.get(service.url + "/readyz", timeout=0.3)


def test_the_api_answers_on_kept_connections_while_the_worker_for_brokers_stands_still(service: Service) -> None:
    assert service.call("GET", "/api/me").status_code == 200
    with halted(the_worker(service, Kind.BROKERS)):
        assert service.call("GET", "/api/users").status_code == 200
        begun = time.monotonic()
        assert service.call("PATCH", "/api/users/bob", json={"enabled": False}).status_code == 200
        assert time.monotonic() - begun < 5
        assert service.call("GET", "/readyz").json()["brokerWorkers"] == "behind"
    assert within(1, lambda: publishes(service, "bob", "devices/bob/up") == "user-disabled")
    assert within(2, lambda: service.call("GET", "/readyz").status_code == 200)


@pytest.mark.parametrize("first", [QUESTION, api_request()], ids=["webhook", "api"])
def test_a_connection_may_ask_for_both(service: Service, first: bytes) -> None:
    with Connection(service) as connection:
        connection.sendall(first)
        assert answer_on(connection)[0] == 200
        for _ in range(3):
            connection.sendall(api_request())
            status, body = answer_on(connection)
            assert (status, b'"username":"admin"' in body.replace(b" ", b"")) == (200, True)
            connection.sendall(QUESTION)
            assert answer_on(connection) == YES


def test_requests_in_one_packet_are_all_answered_wherever_the_connection_goes(service: Service) -> None:
    for first, second in ((QUESTION, api_request()), (api_request(), QUESTION)):
        with Connection(service) as connection:
            connection.sendall(first + second + first)
            received = b""
            while received.count(b"HTTP/1.1 200") < 3 or not received.endswith((b"}", b"}\n")):
                piece = connection.recv(65_536)
                assert piece
                received += piece
            assert received.count(YES[1]) == (first + second + first).count(b"/auth/acl")


@pytest.mark.parametrize("request_", [QUESTION, api_request()], ids=["webhook", "api"])
def test_a_request_that_comes_byte_by_byte_is_answered_and_nobody_waits_for_it(
    service: Service, request_: bytes
) -> None:
    with Connection(service) as slow, Connection(service) as quick:
        for place in range(24):
            slow.sendall(request_[place : place + 1])
            quick.sendall(QUESTION)
            assert answer_on(quick) == YES
        slow.sendall(request_[24:])
        assert answer_on(slow)[0] == 200


def test_many_that_never_say_whom_they_want_are_in_nobodys_way(service: Service) -> None:
    with room_for_many(), ExitStack() as opened:
        for number in range(300):
            connection = opened.enter_context(Connection(service))
            connection.sendall(b"POST /au"[: number % 9])
        assert publishes(service, "bob", "devices/bob/up") == "ok"
        assert service.call("GET", "/api/me").status_code == 200


def test_clients_that_leave_before_they_have_said_anything_leave_nothing_behind(service: Service) -> None:
    broker_worker = the_worker(service, Kind.BROKERS)
    assert publishes(service, "bob", "devices/bob/up") == "ok"
    before = _open_sockets(broker_worker)
    for beginning in (b"", b"P", b"POST /aut", b"GET /api/me", b"\r\n", b"\x16\x03\x01"):
        for _ in range(20):
            with Connection(service) as connection:
                connection.sendall(beginning)
    assert within(5, lambda: _open_sockets(broker_worker) <= before)
    assert '"level": "error"' not in service.log_text()


def _open_sockets(pid: int) -> int:
    found = 0
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            found += str(descriptor.readlink()).startswith("socket:")
    return found


def test_more_connections_than_can_wait_are_told_so_and_brokers_are_answered(service: Service) -> None:
    with room_for_many(), ExitStack() as opened:
        with halted(the_worker(service, Kind.API)):
            waiting = []
            for _ in range(MORE_THAN_CAN_WAIT):
                connection = opened.enter_context(Connection(service))
                waiting.append(connection)
                connection.sendall(b"GET /pki/none HTTP/1.1\r\nHost: authsvc\r\n\r\n")
            assert publishes(service, "bob", "devices/bob/up") == "ok"
        statuses = [_status_on(connection) for connection in waiting]
    assert set(statuses) == {404, 503}
    assert statuses.count(404) > 100
    assert service.call("GET", "/api/me").status_code == 200


def _status_on(connection: socket.socket) -> int:
    return int(connection.recv(65_536).split()[1])


def test_the_api_sees_who_calls_also_over_ipv6(running: Service) -> None:
    running.environment["AUTHSVC_BIND"] = f"[::1]:{running.port}"
    running.url = f"http://[::1]:{running.port}"
    running.start()
    assert running.call("POST", "/api/users", json={"username": "press-7"}).status_code == 201
    assert asks(running, "acl", username="bob", topic="devices/bob/up", acc=2, clientid="c1") == "ok"
    (event,) = running.call("GET", "/api/audit?action=user.create&target=user:press-7").json()["items"]
    assert event["address"] == "::1"


# A change is in force when its answer arrives.


def test_a_change_through_the_api_is_in_force_at_the_webhooks_when_its_answer_arrives(service: Service) -> None:
    for number in range(25):
        rights = [permission(f"write news/{number}")]
        assert service.call("PATCH", "/api/users/dot", json={"permissions": rights}).status_code == 200
        assert publishes(service, "dot", f"news/{number}") == "ok"
        assert publishes(service, "dot", f"news/{number - 1}") == "no-permission"


def test_so_it_is_with_many_workers_of_either_kind(running: Service) -> None:
    running.environment |= {"AUTHSVC_WORKERS": "3", "AUTHSVC_API_WORKERS": "2"}
    running.start()
    with ExitStack() as opened:
        brokers = [opened.enter_context(Connection(running)) for _ in range(12)]
        for number in range(6):
            enabled = bool(number % 2)
            url = running.url + "/api/users/bob"  # a connection of its own, for any worker
            answer = requests.patch(url, json={"enabled": enabled}, auth=("admin", ADMIN_PASSWORD), timeout=20)
            assert answer.status_code == 200
            for broker in brokers:
                broker.sendall(QUESTION)
            assert {answer_on(broker)[0] for broker in brokers} == {200 if enabled else 403}


# A worker dies.


def test_a_killed_worker_for_the_api_disturbs_no_broker(service: Service) -> None:
    with Connection(service) as broker:
        for _ in range(2):
            os.kill(the_worker(service, Kind.API), signal.SIGKILL)
            broker.sendall(QUESTION)
            assert answer_on(broker) == YES
            # Who comes now waits for the next one.
            assert requests.get(service.url + "/pki/ca.pem", timeout=20).status_code == 200
            assert within(10, lambda: len(workers(service)) == 2)
        broker.sendall(QUESTION)
        assert answer_on(broker) == YES
        assert publishes(service, "bob", "devices/bob/up") == "ok"


def test_a_killed_worker_for_brokers_is_replaced_by_one_and_disturbs_no_administrator(service: Service) -> None:
    with Connection(service) as administrator:
        administrator.sendall(api_request())
        assert answer_on(administrator)[0] == 200
        before = workers(service)
        os.kill(the_worker(service, Kind.BROKERS), signal.SIGKILL)
        assert publishes(service, "bob", "devices/bob/up") == "ok"
        administrator.sendall(api_request())
        assert answer_on(administrator)[0] == 200
        after = workers(service)
    assert the_worker(service, Kind.API) == next(pid for pid, kind in before.items() if kind is Kind.API)
    assert sorted(kind.value for kind in after.values()) == ["api", "brokers"]
    assert service.call("PATCH", "/api/users/bob", json={"enabled": False}).status_code == 200
    assert publishes(service, "bob", "devices/bob/up") == "user-disabled"


def test_it_ends_in_time_with_connections_of_all_kinds_open(tmp_path: Path) -> None:
    service = Service(tmp_path)
    service.start()
    process = service.process
    assert process
    with Connection(service) as broker, Connection(service) as administrator, Connection(service) as silent:
        broker.sendall(QUESTION)
        administrator.sendall(api_request(password=SERVICES_PASSWORD))
        silent.sendall(b"PO")
        assert answer_on(broker)[0] == 403
        assert answer_on(administrator)[0] == 200
        begun = time.monotonic()
        process.terminate()
        assert process.wait(10) == 0
        assert time.monotonic() - begun < 4


def test_what_a_broker_asked_last_is_still_written_down_when_it_ends(service: Service) -> None:
    credentials = {"username": "tom", "password": BOBS_PASSWORD}
    token = service.call("POST", "/api/login", json=credentials).json()
    with Connection(service) as broker:
        broker.sendall(QUESTION)
        assert answer_on(broker) == YES
        assert logs_in(service, "tom", token["token"]) == "ok"
        service.stop()
    with closing(sqlite3.connect(Path(service.environment["AUTHSVC_DATA_DIR"]) / "authsvc.db")) as file:
        ((used,),) = file.execute("SELECT last_used_at FROM tokens WHERE id = ?", [token["id"]]).fetchall()
    assert used is not None
