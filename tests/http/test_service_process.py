"""The service as a process: environment, files, log, and raw requests to its ports."""

from __future__ import annotations

import json
import shutil
import stat
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests

from tests.actors import ADMIN_PASSWORD, BOBS_PASSWORD
from tests.http.callers import basic
from tests.http.seed_data import ALICES_PASSWORD
from tests.http.wire import Connection, answer_on, asks, logs_in, publishes, response_to, webhook_request, within
from tests.service import Service

if TYPE_CHECKING:
    from collections.abc import Iterator

BOBS_QUESTION = webhook_request(username="bob", topic="devices/bob/up", acc=2, clientid="c1")
YES = (200, b'{"ok":true,"error":""}')


# The first start.


def test_first_start_prints_the_password_once(tmp_path: Path) -> None:
    service = Service(tmp_path)
    del service.environment["AUTHSVC_ADMIN_PASSWORD"]
    with service:
        words = service.log_text().split()
        password = words[words.index("password") + 1]
        assert requests.get(service.url + "/api/me", auth=("admin", password), timeout=10).status_code == 200
        assert f"{service.url}/api/docs" in words
    with service:
        assert service.log_text().count(password) == 1
        assert requests.get(service.url + "/api/me", auth=("admin", password), timeout=10).status_code == 200


def test_data_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        service.create_user("bob")
        service.api.close()
        modes = {file.name: _mode(file) for file in (tmp_path / "data").glob("authsvc.db*")}
    assert _mode(tmp_path / "data") == 0o700
    assert modes["authsvc.db"] == 0o600
    assert set(modes.values()) == {0o600}


def _mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


# What only the installed command shows: the other services are forked by a process with all imports and no secrets.

SECRETS = {
    "AUTHSVC_ADMIN_PASSWORD": "admin-secret-9a31",
    "AUTHSVC_WEBHOOK_SECRET": "webhook-secret-77fe",
    "AUTHSVC_CA_KEY_PASSPHRASE": "passphrase-secret-02bd",
    "AUTHSVC_BROKER_URL": "mqtt://user:broker-secret-51c8@127.0.0.1:1",
}


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The installed command, started with secrets in its environment."""
    service = Service(tmp_path_factory.mktemp("command"), SECRETS)
    service.as_command = True
    with service:
        yield service


def _process_tree(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in children for each in _process_tree(int(child)))]


def test_no_process_of_the_service_shows_a_secret_in_its_environment(command: Service) -> None:
    assert command.process
    family = _process_tree(command.process.pid)
    assert len(family) >= 3
    for pid in family:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        assert b"AUTHSVC_BIND=" in environment
        assert not [name for name, secret in SECRETS.items() if secret.encode() in environment], pid
        opened = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()]
        assert not [name for name in opened if "authsvc-secrets" in name], pid
    # The secrets are in use all the same.
    assert command.call("GET", "/api/me").status_code == 200
    asked = {"username": "admin", "password": "x"}
    assert requests.post(command.broker_url + "/auth/user", json=asked, timeout=10).status_code == 401
    key = {"key": SECRETS["AUTHSVC_WEBHOOK_SECRET"]}
    assert requests.post(command.broker_url + "/auth/user", params=key, json=asked, timeout=10).status_code == 403


def test_metrics_do_not_count_processes_that_only_run_others(command: Service) -> None:
    def version() -> float:
        text = command.call("GET", "/metrics").text
        (line,) = [line for line in text.splitlines() if line.startswith("authsvc_policy_version ")]
        return float(line.split()[1])

    assert within(5, lambda: version() == command.call("GET", "/readyz").json()["policyVersion"] > 0)


@pytest.mark.slow
def test_serve_without_the_inherited_secrets_is_refused(tmp_path: Path) -> None:
    service = Service(tmp_path, {"AUTHSVC_HANDED_OVER_SECRETS": "99"})
    del service.environment["AUTHSVC_ADMIN_PASSWORD"]
    done = service.command("serve")
    assert (done.returncode, done.stdout) == (1, "")
    assert "start `authsvc serve` again" in done.stderr


def test_variables_of_kubernetes_are_ignored_and_logged_by_name(tmp_path: Path) -> None:
    with Service(tmp_path, {"AUTHSVC_PORT": "tcp://10.0.0.11:8080", "AUTHSVC_SERVICE_HOST": "10.0.0.11"}) as service:
        logged = [json.loads(line) for line in service.log_text().splitlines() if "Kubernetes" in line]
    assert [sorted(line["variables"]) for line in logged] == [["AUTHSVC_PORT", "AUTHSVC_SERVICE_HOST"]]


@pytest.mark.slow
def test_start_without_a_passphrase_warns_of_the_unencrypted_key(tmp_path: Path) -> None:
    warning = "the key of the certificate authority is stored without encryption"
    with Service(tmp_path) as service:
        assert service.log_text().count(warning) == 1
    with Service(tmp_path, {"AUTHSVC_CA_KEY_PASSPHRASE": "a passphrase"}) as service:
        assert service.log_text().count(warning) == 1


@pytest.mark.slow
def test_sigterm_ends_the_service_with_exit_code_0(running: Service) -> None:
    running.start()
    process = running.process
    assert process
    process.terminate()
    assert process.wait(10) == 0


# Secrets in logs, metrics and audit events.

WEBHOOK_SECRET = "webhook-secret-c4f0"
WRONG_PASSWORD = "wrong-password-81be"
UNKNOWN_USERS_PASSWORD = "unknown-users-password-77aa"
NEW_PASSWORD = "new-password-5d2e"


@pytest.fixture
def debug_service(running: Service) -> Service:
    """The service with log level debug and a webhook secret."""
    running.environment |= {"AUTHSVC_LOG_LEVEL": "debug", "AUTHSVC_WEBHOOK_SECRET": WEBHOOK_SECRET}
    running.start()
    return running


def _call_api_with_secrets(service: Service) -> str:
    """Call the API with all kinds of credentials; return the token that was used."""
    credentials = {"username": "alice", "password": ALICES_PASSWORD}
    token: str = service.call("POST", "/api/login", json=credentials).json()["token"]
    for path in (
        f"/api/me?apiToken={token}",
        f"/api/none?x=1&api%54oken={token}",
        f"//api/me?apiToken={token}",
        f"/api/users;apiToken={token}",
        f"/api/me?apitoken={token}",
        f"/api/me?x=1;apiToken={token}",
        f"/api/me?%2561piToken={token}",
        f"/api/me?APITOKEN%3D{token}",
        f"/admin/users;a%50iToken={token}",
        f"/api/tokens/{token}",
    ):
        requests.get(service.url + path, timeout=10)
    for value in (
        f"Bearer {token}",
        f"Bearer {token}x",
        basic("alice", ALICES_PASSWORD),
        basic("alice", WRONG_PASSWORD),
    ):
        requests.get(service.url + "/api/users/none", headers={"Authorization": value}, timeout=10)
    service.call("POST", "/api/login", json={**credentials, "password": WRONG_PASSWORD})
    service.call("POST", "/api/users", json={"username": "press-7", "password": NEW_PASSWORD})
    service.call("PATCH", "/api/users/press-7", json={"password": [NEW_PASSWORD]})
    return token


def _call_webhooks_with_secrets(service: Service, token: str) -> None:
    for username, password in (
        ("bob", BOBS_PASSWORD),
        ("bob", WRONG_PASSWORD),
        ("unknown", UNKNOWN_USERS_PASSWORD),
        ("tom", token),
    ):
        body = {"username": username, "password": password, "clientid": "c1"}
        requests.post(f"{service.broker_url}/auth/user?key={WEBHOOK_SECRET}", json=body, timeout=10)
        requests.post(f"{service.broker_url}/auth/user?key={WEBHOOK_SECRET}x", json=body, timeout=10)


def _send_invalid_http_with_secrets(service: Service, token: str) -> None:
    for head in (
        f"GET /api/me?apiToken={token}",
        f"GET /api/me?apiToken={token} junk HTTP/1.1",
        f"GET /api/me?api%54oken={token} HTTP/9.9",
        f"GET /api/me;%61pitoken%3D{token} HTTP/9.9",
        f"G\x00T /api/me?apiToken={token} HTTP/1.1",
        f"POST /auth/user?key={WEBHOOK_SECRET}",
        f"GET /api/me HTTP/1.1\r\nAuthorization Bearer {token}",
        f"GET /api/me HTTP/1.1\r\nAuthorization: Bearer\x00{token}",
        f"GET /api/me HTTP/1.1\r\nAutho rization: Bearer {token}",
        f"GET /api/me HTTP/1.1\r\nX: y\r\n Bearer {token}",
        f"GET /api/me HTTP/1.1\r\nHost: x\r\nExpect: {token}",
        f"POST /api/me HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: {token}",
        f"POST /api/login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{WRONG_PASSWORD}",
    ):
        for listener in ("api", "broker"):
            response_to(service, head.encode() + b"\r\n\r\n", listener)


def _found_in_output(secrets: list[str], service: Service) -> list[str]:
    audit = service.call("GET", "/api/audit?perPage=1000").text
    metrics = requests.get(service.url + "/metrics", timeout=10).text
    everything = service.log_text() + audit + metrics
    return [secret for secret in secrets if secret in everything]


def test_no_secret_is_in_logs_metrics_or_audit_events(debug_service: Service) -> None:
    token = _call_api_with_secrets(debug_service)
    _call_webhooks_with_secrets(debug_service, token)
    _send_invalid_http_with_secrets(debug_service, token)
    secrets = [*token.split(".")[1:], WEBHOOK_SECRET, NEW_PASSWORD, WRONG_PASSWORD, UNKNOWN_USERS_PASSWORD, "$2b$"]
    passwords = [ALICES_PASSWORD, BOBS_PASSWORD, ADMIN_PASSWORD]
    encoded = [
        basic(name, password).split()[1] for name, password in (("alice", ALICES_PASSWORD), ("admin", ADMIN_PASSWORD))
    ]
    assert _found_in_output(secrets + passwords + encoded, debug_service) == []


def test_each_log_line_is_json(debug_service: Service) -> None:
    token = _call_api_with_secrets(debug_service)
    _send_invalid_http_with_secrets(debug_service, token)
    greeting, brokers, *lines = debug_service.log_text().splitlines()
    assert greeting.startswith("Sign in at http://")
    assert brokers == f"Brokers are answered at {debug_service.broker_url}"
    events = [json.loads(line) for line in lines]
    assert len(events) > 10
    for line in events:
        assert {"event", "level", "at"} <= set(line)


def test_each_api_request_is_logged_once_with_user_and_request_id(running: Service) -> None:
    running.start()
    running.call("GET", "/api/users/bob?apiToken=none", headers={"X-Request-Id": "order-66"})
    running.call("GET", "/api/me")
    asks(running, "user")
    response_to(running, b"no http at all\r\n\r\n", "api")
    (line,) = [json.loads(line) for line in running.log_text().splitlines() if "order-66" in line]
    assert (line["method"], line["path"], line["status"]) == ("GET", "/api/users/bob", 200)
    assert (line["user"], line["address"], line["request_id"]) == ("admin", "127.0.0.1", "order-66")


# Raw requests.


@pytest.mark.slow
def test_idle_connection_is_still_served(running: Service) -> None:
    running.start()
    with Connection(running) as fresh, Connection(running) as used:
        used.sendall(BOBS_QUESTION)
        assert answer_on(used) == YES
        # Longer than gunicorn keeps an idle connection by default.
        time.sleep(3.0)
        for connection in (used, fresh):
            connection.sendall(BOBS_QUESTION)
            assert answer_on(connection) == YES


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, seed_directory: Path) -> Iterator[Service]:
    """One service with the seed data for all tests that only send requests."""
    directory = tmp_path_factory.mktemp("served")
    shutil.copytree(seed_directory, directory / "data")
    with Service(directory, {"AUTHSVC_ADMIN_PASSWORD": ADMIN_PASSWORD}) as service:
        yield service


def test_requests_in_one_packet_are_answered_in_order(served: Service) -> None:
    with Connection(served) as connection:
        connection.sendall(BOBS_QUESTION * 3)
        received = b""
        while received.count(YES[1]) < 3:
            piece = connection.recv(65_536)
            assert piece
            received += piece


# go-auth's form of the longest client id, username and password of MQTT: each `<` takes six bytes.
LONGEST = b'"%s"' % (rb"\u003c" * 65_535)
LONGEST_LOGIN = b'{"clientid":%s,"password":%s,"username":%s}' % (LONGEST, LONGEST, LONGEST)
HUGE = {"600 KiB": b'{"topic":"%s"}' % (b"x" * 600 * 1024), "the longest possible login": LONGEST_LOGIN}


@pytest.mark.parametrize("body", HUGE.values(), ids=HUGE.keys())
def test_too_large_request_is_malformed_and_the_next_one_is_answered(served: Service, body: bytes) -> None:
    with Connection(served) as connection:
        connection.sendall(
            b"POST /auth/user HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )
        assert answer_on(connection) == (400, b'{"ok":false,"error":"malformed"}')
        connection.sendall(BOBS_QUESTION)
        assert answer_on(connection) == YES


def test_request_in_several_packets_is_answered(served: Service) -> None:
    with Connection(served) as connection:
        for position in range(0, len(BOBS_QUESTION), 40):
            connection.sendall(BOBS_QUESTION[position : position + 40])
            time.sleep(0.01)
        assert answer_on(connection) == YES


CHUNKED = (
    b"POST /auth/acl HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
)
GARBAGE = [
    b"\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200,
    b"GET\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"\xff" * 10_000,
    b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 10_000 + b"\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    b"POST /auth/acl HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999999999\r\n\r\n{}",
    b"POST /auth/acl HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{}",
    b"POST /auth/acl HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
    b"GET /%00%ff%zz?%00=%ff HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET http://elsewhere/api/me HTTP/1.1\r\nHost: x\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    CHUNKED + b"zz\r\nabc\r\n0\r\n\r\n",
    CHUNKED + b"5\r\nabcdefghijkl\r\n0\r\n\r\n",
    CHUNKED + b"ffffffffffffffff\r\nabc",
    CHUNKED + b"5\r\nab",
    CHUNKED.replace(b"/auth/acl", b"/api/login") + b"zz\r\nabc\r\n0\r\n\r\n",
]


@pytest.mark.parametrize("listener", ["api", "broker"])
def test_invalid_http_causes_no_error(served: Service, listener: str) -> None:
    for sent in GARBAGE:
        received = response_to(served, sent, listener)
        assert not received.startswith(b"HTTP/1.1 5"), (sent[:100], received)
        assert publishes(served, "bob", "devices/bob/up") == "ok"
    assert served.errors() == []


def test_chunked_request_is_answered(served: Service) -> None:
    body = b'{"username":"bob","topic":"devices/bob/up","acc":2}'
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    with Connection(served) as connection:
        connection.sendall(CHUNKED + chunks)
        assert answer_on(connection) == YES


# A killed service.


@pytest.mark.slow
def test_no_acknowledged_user_is_lost_when_the_service_is_killed(running: Service) -> None:
    acknowledged: list[str] = []
    running.start()
    writers = [threading.Thread(target=_create_users, args=(running, f"{name}-", acknowledged)) for name in "abc"]
    for writer in writers:
        writer.start()
    assert within(20, lambda: len(acknowledged) >= 40)
    running.kill()
    for writer in writers:
        writer.join()
    running.start()
    stored = running.call("GET", "/api/users?perPage=1000").json()
    assert stored["total"] <= 1000
    assert set(acknowledged) <= {user["username"] for user in stored["items"]}
    assert _audited_users(running) == {user["username"] for user in stored["items"] if user["username"][1] == "-"}
    assert {publishes(running, name, f"devices/{name}") for name in acknowledged} == {"ok"}


def _create_users(service: Service, prefix: str, acknowledged: list[str]) -> None:
    """Create users until the service ends; record each acknowledged one."""
    rights = [{"context": "mqtt", "operation": "write", "resource": "devices/%u"}]
    with requests.Session() as api:
        api.auth = ("admin", ADMIN_PASSWORD)
        for number in range(10_000):
            body = {"username": f"{prefix}{number}", "permissions": rights}
            try:
                answer = api.post(service.url + "/api/users", json=body, timeout=10)
            except requests.RequestException:  # connection lost: the user may or may not exist
                return
            if answer.status_code == 201:
                acknowledged.append(f"{prefix}{number}")


def _audited_users(service: Service) -> set[str]:
    events = service.call("GET", "/api/audit?actor=admin&action=user.create&perPage=1000").json()["items"]
    return {event["target"].removeprefix("user:") for event in events}


@pytest.mark.slow
def test_killed_service_starts_again_with_all_data(running: Service) -> None:
    running.start()
    assert logs_in(running, "bob", BOBS_PASSWORD) == "ok"
    running.kill()
    running.start()
    assert logs_in(running, "bob", BOBS_PASSWORD) == "ok"
    assert asks(running, "superuser", username="bob") == "no-superusers"
