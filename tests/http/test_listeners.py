"""The API listener and the broker listener: processes of their own under one supervisor, or one by itself."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests

from authsvc.server import directory_lock
from tests.actors import ADMIN_PASSWORD, BOBS_PASSWORD
from tests.http.callers import basic
from tests.http.wire import (
    Connection,
    answer_on,
    asks,
    logs_in,
    publishes,
    response_to,
    stopped_process,
    webhook_request,
    within,
)
from tests.service import ADMIN_PASSWORD as SERVICES_PASSWORD
from tests.service import Service, permission, processes_of_group

if TYPE_CHECKING:
    from collections.abc import Iterator

LISTENERS = ("api", "broker")
QUESTION = webhook_request(username="bob", topic="devices/bob/up", acc=2, clientid="c1")
YES = (200, b'{"ok":true,"error":""}')


def api_request(path: str = "/api/me", password: str = ADMIN_PASSWORD) -> bytes:
    """Return the bytes of one request by the administrator."""
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {basic('admin', password)}\r\n\r\n".encode()


@pytest.fixture
def service(running: Service) -> Service:
    """The service with its seed data, one worker for each listener."""
    running.start()
    return running


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, seed_directory: Path) -> Iterator[Service]:
    """One such service for the tests that only ask it, or change only dot."""
    directory = tmp_path_factory.mktemp("shared")
    shutil.copytree(seed_directory, directory / "data")
    with Service(directory, {"AUTHSVC_ADMIN_PASSWORD": ADMIN_PASSWORD}) as service:
        yield service


def the_worker(service: Service, listener: str) -> int:
    (pid,) = service.workers(listener)
    return pid


def is_ready(service: Service) -> bool:
    try:
        return requests.get(service.url + "/readyz", timeout=5).status_code == 200
    except requests.RequestException:
        return False


def is_answered(service: Service) -> bool:
    try:
        return publishes(service, "bob", "devices/bob/up") == "ok"
    except requests.RequestException:
        return False


# Requests that each listener answers.


def test_each_listener_has_a_worker_of_its_own(shared: Service) -> None:
    assert len(shared.workers()) == 2
    assert the_worker(shared, "api") != the_worker(shared, "broker")
    assert shared.arbiter("api") != shared.arbiter("broker")


def test_broker_listener_answers_webhooks_and_its_health_only(shared: Service) -> None:
    for path in ("/api/me", "/admin", "/pki/ca.pem", "/metrics", "/"):
        answer = requests.get(shared.broker_url + path, auth=("admin", ADMIN_PASSWORD), timeout=10)
        assert (answer.status_code, answer.text) == (404, "only /auth/*, /healthz and /readyz are answered here\n")
    assert requests.get(shared.broker_url + "/healthz", timeout=10).json() == {"status": "ok"}
    assert requests.get(shared.broker_url + "/readyz", timeout=10).json() == {"status": "ready"}
    assert requests.head(shared.broker_url + "/healthz", timeout=10).status_code == 200
    assert '"level": "warning", "event": "ASGI' not in shared.log_text()


def test_api_listener_answers_webhooks_too(shared: Service) -> None:
    question = {"username": "bob", "topic": "devices/bob/up", "acc": 2, "clientid": "c1"}
    assert requests.post(shared.url + "/auth/acl", json=question, timeout=10).json() == {"ok": True, "error": ""}
    assert requests.post(shared.url + "/auth/acl", json=question | {"topic": "x"}, timeout=10).status_code == 403


def test_websockets_are_refused_and_are_no_error(shared: Service) -> None:
    for listener in LISTENERS:
        for path in ("/auth/acl", "/healthz", "/api/me"):
            received = response_to(
                shared,
                f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode(),
                listener,
            )
            assert received.startswith(b"HTTP/1.1 403 ")
    assert shared.errors() == []


def test_brokers_are_answered_while_the_api_process_is_stopped(service: Service) -> None:
    with Connection(service) as kept, stopped_process(the_worker(service, "api")):
        for _ in range(3):
            kept.sendall(QUESTION)
            assert answer_on(kept) == YES
            assert publishes(service, "bob", "devices/bob/up") == "ok"
        assert requests.get(service.broker_url + "/healthz", timeout=10).status_code == 200
        with pytest.raises(requests.Timeout):
            requests.get(service.url + "/healthz", timeout=0.3)


def test_api_answers_while_the_broker_process_is_stopped(service: Service) -> None:
    assert service.call("GET", "/api/me").status_code == 200
    with stopped_process(the_worker(service, "broker")):
        assert service.call("GET", "/api/users").status_code == 200
        begun = time.monotonic()
        assert service.call("PATCH", "/api/users/bob", json={"enabled": False}).status_code == 200
        assert time.monotonic() - begun < 5
        assert service.call("GET", "/readyz").json()["brokerWorkers"] == "behind"
    assert within(5, lambda: publishes(service, "bob", "devices/bob/up") == "user-disabled")
    assert within(5, lambda: is_ready(service))


@pytest.mark.slow
def test_api_knows_the_address_of_ipv6_callers(running: Service) -> None:
    running.environment["AUTHSVC_BIND"] = f"[::1]:{running.port}"
    running.url = f"http://[::1]:{running.port}"
    running.start()
    assert running.call("POST", "/api/users", json={"username": "press-7"}).status_code == 201
    (event,) = running.call("GET", "/api/audit?action=user.create&target=user:press-7").json()["items"]
    assert event["address"] == "::1"


@pytest.mark.slow
def test_broker_listener_answers_over_ipv6(running: Service) -> None:
    running.environment["AUTHSVC_BROKER_BIND"] = f"[::1]:{running.broker_port}"
    running.broker_url = f"http://[::1]:{running.broker_port}"
    running.start()
    with socket.create_connection(("::1", running.broker_port), timeout=10) as broker:
        for _ in range(3):
            broker.sendall(QUESTION)
            assert answer_on(broker) == YES


# A change is in force when its answer arrives.


def test_change_is_in_force_at_the_webhooks_when_its_answer_arrives(shared: Service) -> None:
    for number in range(25):
        rights = [permission(f"write news/{number}")]
        assert shared.call("PATCH", "/api/users/dot", json={"permissions": rights}).status_code == 200
        assert publishes(shared, "dot", f"news/{number}") == "ok"
        assert publishes(shared, "dot", f"news/{number - 1}") == "no-permission"


@pytest.mark.slow
def test_change_is_in_force_in_several_workers_when_its_answer_arrives(running: Service) -> None:
    running.environment |= {"AUTHSVC_WORKERS": "3", "AUTHSVC_API_WORKERS": "2"}
    running.start()
    assert within(30, lambda: (len(running.workers("broker")), len(running.workers("api"))) == (3, 2))
    assert within(30, lambda: running.log_text().count("ASGI server listening") == 5)
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


# A process dies.


@pytest.mark.slow
def test_killed_api_worker_is_replaced_and_disturbs_no_broker(service: Service) -> None:
    with Connection(service) as broker:
        for _ in range(2):
            killed = the_worker(service, "api")
            os.kill(killed, signal.SIGKILL)
            broker.sendall(QUESTION)
            assert answer_on(broker) == YES
            # A client that connects now waits for the next one.
            assert requests.get(service.url + "/pki/ca.pem", timeout=30).status_code == 200
            assert within(10, lambda pid=killed: service.workers("api") not in ([], [pid]))  # type: ignore[misc]
        broker.sendall(QUESTION)
        assert answer_on(broker) == YES


def test_killed_broker_worker_is_replaced_and_disturbs_no_administrator(service: Service) -> None:
    with Connection(service, "api") as administrator:
        administrator.sendall(api_request())
        assert answer_on(administrator)[0] == 200
        api_worker, killed = the_worker(service, "api"), the_worker(service, "broker")
        os.kill(killed, signal.SIGKILL)
        assert publishes(service, "bob", "devices/bob/up") == "ok"
        administrator.sendall(api_request())
        assert answer_on(administrator)[0] == 200
    assert the_worker(service, "api") == api_worker
    assert the_worker(service, "broker") != killed
    assert service.call("PATCH", "/api/users/bob", json={"enabled": False}).status_code == 200
    assert publishes(service, "bob", "devices/bob/up") == "user-disabled"


@pytest.mark.slow
def test_replaced_worker_does_not_begin_with_a_policy_that_an_older_database_has_passed(
    running: Service, tmp_path: Path
) -> None:
    service = running
    with (
        closing(sqlite3.connect(tmp_path / "data" / "authsvc.db")) as database,
        closing(sqlite3.connect(tmp_path / "copy.db")) as copy,
    ):
        database.backup(copy)
        database.execute("UPDATE policy_version SET version = version + 3")
        database.commit()
        service.start()
        copy.backup(database)
    # The supervisor, two processes that start workers, and two workers.
    assert within(30, lambda: service.log_text().count("older policy") == 5)
    assert service.call("PATCH", "/api/users/bob", json={"enabled": False}).status_code == 200
    for number in range(3):
        service.create_user(f"new-{number}")
    killed = the_worker(service, "broker")
    os.kill(killed, signal.SIGKILL)
    assert publishes(service, "bob", "devices/bob/up") == "user-disabled"
    assert publishes(service, "new-2", "x") == "no-permission"
    assert the_worker(service, "broker") != killed


@pytest.mark.slow
@pytest.mark.parametrize("listener", LISTENERS)
def test_killed_listener_is_started_again_and_the_other_goes_on(service: Service, listener: str) -> None:
    (other,) = set(LISTENERS) - {listener}
    arbiter, others_arbiter = service.arbiter(listener), service.arbiter(other)
    os.kill(arbiter, signal.SIGKILL)
    if listener == "api":
        assert is_answered(service)
    else:
        assert service.call("GET", "/api/me").status_code == 200
    assert within(30, lambda: service.workers(listener) != [] and service.arbiter(listener) != arbiter)
    assert within(30, lambda: is_ready(service) and is_answered(service))
    assert service.arbiter(other) == others_arbiter
    assert "listener ended; starting it again" in service.log_text()
    assert service.call("PATCH", "/api/users/bob", json={"enabled": False}).status_code == 200
    assert publishes(service, "bob", "devices/bob/up") == "user-disabled"


@pytest.mark.slow
def test_both_listeners_end_when_the_supervisor_is_killed(service: Service) -> None:
    assert service.process
    group = service.process.pid
    assert len(processes_of_group(group)) == 5
    os.kill(group, signal.SIGKILL)
    service.process.wait()
    assert within(20, lambda: not processes_of_group(group))


@pytest.mark.slow
def test_killed_service_leaves_no_process(service: Service) -> None:
    assert service.process
    group = service.process.pid
    service.kill()
    assert processes_of_group(group) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_service_ends_in_time_with_connections_of_all_kinds_open(tmp_path: Path, number: signal.Signals) -> None:
    with Service(tmp_path) as service, ExitStack() as opened:
        assert service.process
        group = service.process.pid
        broker, idle = (opened.enter_context(Connection(service)) for _ in range(2))
        administrator, half = (opened.enter_context(Connection(service, "api")) for _ in range(2))
        broker.sendall(QUESTION)
        administrator.sendall(api_request(password=SERVICES_PASSWORD))
        half.sendall(b"PO")
        assert answer_on(broker)[0] == 403
        assert answer_on(administrator)[0] == 200
        assert idle.fileno() > 0
        begun = time.monotonic()
        service.process.send_signal(number)
        assert service.process.wait(20) == 0
        assert time.monotonic() - begun < 8
        assert processes_of_group(group) == []


@pytest.mark.slow
def test_sighup_replaces_the_workers_and_keeps_the_addresses(service: Service) -> None:
    assert service.process
    before = service.workers()
    service.process.send_signal(signal.SIGHUP)
    assert within(30, lambda: len(service.workers()) == 2 and not set(before) & set(service.workers()))
    assert within(30, lambda: is_ready(service) and is_answered(service))
    assert service.call("PATCH", "/api/users/bob", json={"enabled": False}).status_code == 200
    assert publishes(service, "bob", "devices/bob/up") == "user-disabled"


@pytest.mark.slow
def test_token_use_and_client_id_are_written_down_when_the_service_ends(service: Service) -> None:
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


# One listener by itself.


@pytest.fixture
def separate(tmp_path: Path) -> Iterator[dict[str, Service]]:
    """Both listeners as services of their own on one fresh data directory, not started."""
    (tmp_path / "broker").mkdir()
    api = Service(tmp_path)
    broker = Service(tmp_path / "broker", api.environment)
    api.only, broker.only = "api", "broker"
    yield {"api": api, "broker": broker}
    api.kill()
    broker.kill()


@pytest.mark.slow
def test_listeners_started_separately_share_what_one_of_them_prepared(separate: dict[str, Service]) -> None:
    api, broker = separate["api"], separate["broker"]
    api.start()
    api.create_user("bob", "secret", "write devices/%u/#")
    with pytest.raises(requests.ConnectionError):
        requests.get(api.broker_url + "/healthz", timeout=10)
    broker.start()
    assert is_answered(broker)
    assert api.call("PATCH", "/api/users/bob", json={"enabled": False}).status_code == 200
    assert publishes(broker, "bob", "devices/bob/up") == "user-disabled"
    assert '"authsvc_decisions_total' not in api.log_text()
    assert within(5, lambda: "authsvc_decisions_total{" in api.call("GET", "/metrics").text)
    broker.stop()
    assert api.call("PATCH", "/api/users/bob", json={"enabled": True}).status_code == 200
    assert is_ready(api)


@pytest.mark.slow
def test_listeners_started_together_on_a_fresh_directory_both_come_up(separate: dict[str, Service]) -> None:
    api, broker = separate["api"], separate["broker"]
    for service in (api, broker):
        service.launch()
    for service in (api, broker):
        service.wait_until_ready()
    api.create_user("bob", "secret", "write devices/%u/#")
    assert is_answered(broker)
    assert asks(broker, "user", username="bob", password="secret", clientid="c1") == "ok"


@pytest.mark.slow
@pytest.mark.parametrize("listener", LISTENERS)
def test_separate_listener_replaces_its_worker_and_ends_in_time(separate: dict[str, Service], listener: str) -> None:
    service = separate[listener]
    service.start()
    assert service.process
    group, (killed,) = service.process.pid, service.workers(listener)
    assert service.arbiter(listener) == group
    os.kill(killed, signal.SIGKILL)
    assert within(30, lambda: service.workers(listener) not in ([], [killed]))
    service.process.terminate()
    assert service.process.wait(20) == 0
    assert processes_of_group(group) == []


# A data directory that is in use.


@pytest.fixture
def second(running: Service, tmp_path: Path) -> Iterator[Service]:
    """A service on other ports with the data directory of the running one, not started."""
    (tmp_path / "second").mkdir()
    shared = {name: running.environment[name] for name in ("AUTHSVC_DATA_DIR", "AUTHSVC_ADMIN_PASSWORD")}
    other = Service(tmp_path / "second", shared)
    yield other
    other.kill()


@pytest.mark.parametrize("only", [None, "broker"])
def test_second_service_in_a_data_directory_is_refused_and_names_the_first(
    running: Service, second: Service, only: str | None
) -> None:
    running.only = second.only = only
    running.start()
    assert running.process
    metrics = Path(running.environment["AUTHSVC_DATA_DIR"], "metrics")
    before = set(metrics.rglob("*.db"))
    with pytest.raises(RuntimeError, match=f"is run by process {running.process.pid};"):
        second.start()
    assert set(metrics.rglob("*.db")) >= before


_HOLDER = """
import sys
from pathlib import Path
from authsvc.server import directory_lock
with directory_lock.locked(Path(sys.argv[1]), ["api"]):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_service_waits_for_another_that_ends_in_this_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-c", _HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"locked\n"

        def end_holder(_seconds: float) -> None:
            holder.kill()
            holder.wait()

        # It is found running, and has ended when the lock is tried again.
        monkeypatch.setattr("authsvc.server.directory_lock.time.sleep", end_holder)
        with directory_lock.locked(tmp_path, ["api"]):
            assert holder.poll() == -signal.SIGKILL


@pytest.mark.slow
def test_service_starts_at_once_after_another_was_killed(running: Service, second: Service) -> None:
    running.start()
    assert running.process
    os.kill(running.process.pid, signal.SIGKILL)  # its workers end by themselves
    second.start()
    assert second.call("GET", "/api/me").status_code == 200


@pytest.mark.slow
def test_metrics_forget_the_workers_of_a_killed_listener(service: Service) -> None:
    def version() -> str:
        text = service.call("GET", "/metrics").text
        return next(line for line in text.splitlines() if line.startswith("authsvc_policy_version "))

    os.kill(service.arbiter("broker"), signal.SIGKILL)
    assert within(30, lambda: service.workers("broker") != [] and is_answered(service))
    assert service.call("PATCH", "/api/users/bob", json={"enabled": False}).status_code == 200
    expected = service.call("GET", "/readyz").json()["policyVersion"]
    assert within(10, lambda: version() == f"authsvc_policy_version {float(expected)}")


# An address that is in use.


@pytest.mark.slow  # gunicorn tries for 5 s
@pytest.mark.parametrize("only", [None, *LISTENERS])
@pytest.mark.parametrize("taken", LISTENERS)
def test_service_ends_with_an_error_if_an_address_is_in_use(tmp_path: Path, only: str | None, taken: str) -> None:
    service = Service(tmp_path)
    service.only = only
    port = service.port if taken == "api" else service.broker_port
    with socket.create_server(("127.0.0.1", port)):
        if only not in (None, taken):
            service.start()
            service.kill()
            return
        service.launch()
        assert service.process
        try:
            assert service.process.wait(60) == 1
        finally:
            service.kill()
    assert f"Connection in use: ('127.0.0.1', {port})" in service.log_text()
    if only is None:
        assert f"authsvc: the {taken} listener cannot start on 127.0.0.1:{port}; see the log" in service.log_text()
