"""A real service and plugins that hold their change streams open."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests

from tests.actors import BOBS_PASSWORD
from tests.http.asgi_service import many_descriptors
from tests.http.plugin import BOOT, CONNECTED, DENIAL, OTHER_BOOT, Plugin, report
from tests.http.test_connection_limits import is_open
from tests.http.wire import Connection, answer_on, publishes, webhook_request, within
from tests.registry.signing import new_key, signing_request
from tests.service import permission

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.http.plugin import ChangeStream
    from tests.service import Service

QUESTION = webhook_request(username="bob", topic="devices/bob/up", acc=2, clientid="c1")
MANY = 200


@pytest.fixture
def service(running: Service) -> Service:
    running.start()
    return running


@pytest.fixture
def plugin(service: Service) -> Plugin:
    return Plugin(service)


@pytest.fixture
def stream(plugin: Plugin) -> Iterator[ChangeStream]:
    """A change stream that has begun."""
    with plugin.changes() as opened:
        hello = opened.line()
        assert (hello["protocol"], hello["service"]) == (1, "0.1.0")
        assert hello["version"] > 0
        yield opened


def change(service: Service, method: str, path: str, **body: object) -> dict[str, object]:
    answer = service.call(method, path, json=body)
    assert answer.status_code in (200, 201), answer.text
    found: dict[str, object] = answer.json()
    return found


# Changes.


def test_stream_names_a_changed_user_and_its_state_has_the_change(
    service: Service, plugin: Plugin, stream: ChangeStream
) -> None:
    before = plugin.user("bob")
    change(service, "PATCH", "/api/users/bob", permissions=[permission("write news")])
    line = stream.names("users", "bob")
    after = plugin.user("bob")
    assert after["rules"] == ["write news", "write lines/+"]
    assert after["version"] >= line["version"] > before["version"]
    change(service, "PATCH", "/api/users/bob", enabled=False)
    stream.names("users", "bob")
    assert plugin.user("bob")["refused"] == "user-disabled"


def test_stream_names_a_changed_role(service: Service, plugin: Plugin, stream: ChangeStream) -> None:
    change(service, "PATCH", "/api/roles/line", permissions=[permission("write lines/changed")])
    line = stream.names("roles", "line")
    assert "users" not in line
    assert plugin.user("bob")["rules"][-1] == "write lines/changed"


def test_stream_names_the_user_of_a_new_and_of_a_revoked_token(
    service: Service, plugin: Plugin, stream: ChangeStream
) -> None:
    issued = change(service, "POST", "/api/login", username="tom", password=BOBS_PASSWORD)
    line = stream.names("users", "tom")
    state = plugin.user("tom")
    assert state["version"] >= line["version"]
    credential = plugin.logs_in("tom", str(issued["token"])).body["credential"]
    assert credential.startswith("t:")
    assert credential in state["credentials"]
    assert service.call("DELETE", f"/api/tokens/{issued['id']}").status_code == 204
    stream.names("users", "tom")
    assert credential not in plugin.user("tom")["credentials"]


def test_revoked_certificate_leaves_the_credentials(service: Service, plugin: Plugin, stream: ChangeStream) -> None:
    csr = signing_request("carol", new_key())
    serial = str(change(service, "POST", "/api/users/carol/certificates", csr=csr)["serial"])
    credential = f"c:{serial.upper()}"
    stream.names("users", "carol")
    assert plugin.user("carol")["credentials"][credential] > time.time()
    change(service, "POST", f"/api/certificates/{serial}/revoke", reason="keyCompromise")
    stream.names("users", "carol")
    assert plugin.user("carol")["credentials"] == {}


@pytest.mark.slow
def test_stream_typically_names_a_change_within_100_ms_of_its_answer(service: Service, stream: ChangeStream) -> None:
    taken = []
    for number in range(15):
        change(service, "PATCH", "/api/users/bob", permissions=[permission(f"write news/{number}")])
        answered = time.monotonic()
        stream.names("users", "bob")
        taken.append(time.monotonic() - answered)
    assert sorted(taken)[len(taken) // 2] < 0.1


@pytest.mark.slow
def test_connection_is_ended_on_the_stream_of_its_boot_only(
    service: Service, plugin: Plugin, stream: ChangeStream
) -> None:
    with plugin.changes(OTHER_BOOT) as other:
        other.line()
        file = Path(service.environment["AUTHSVC_DATA_DIR"]) / "authsvc.db"
        with closing(sqlite3.connect(file)) as database, database:
            database.execute("UPDATE policy_version SET version = version + 1")
            row = "SELECT version, 'client', ? FROM policy_version"
            database.execute(f"INSERT INTO policy_changes (version, kind, name) {row}", (f"{BOOT}/17",))
        assert stream.names("disconnect", 17) == {"disconnect": [17]}
        version = other.line()["version"]
        while version < stream.line()["version"]:
            line = other.line()
            assert "disconnect" not in line
            version = line["version"]


@pytest.mark.slow
def test_heartbeats_come_each_second(stream: ChangeStream) -> None:
    begun = time.monotonic()
    for _ in range(3):
        assert set(stream.line()) == {"version"}
    assert 1.5 < time.monotonic() - begun < 6


# Logins, reports, and who may ask.


def test_login_has_the_state_and_a_refused_one_has_not(plugin: Plugin) -> None:
    status, body = plugin.logs_in("bob", BOBS_PASSWORD)
    assert (status, body["user"]["username"]) == (200, "bob")
    assert body["credential"] in body["user"]["credentials"]
    assert plugin.logs_in("bob", "wrong") == (403, {"ok": False, "error": "wrong-password"})


def test_report_is_accepted_and_its_denials_are_shown(service: Service, plugin: Plugin) -> None:
    logins = [{"username": "bob", "clientid": "bob-9"}]
    assert plugin.report(connected=[CONNECTED], logins=logins, denials=[DENIAL]) == (200, {"ok": True})

    def topics() -> list[str]:
        items = service.call("GET", "/api/users/bob/denials").json()["items"]
        return [item["topic"] for item in items]

    assert within(5, lambda: topics() == ["elsewhere"])
    assert plugin.report(generation="1") == (400, {"ok": False, "error": "malformed: generation"})
    assert plugin.ask("POST", "/auth/plugin/report", b"x" * 5_000_000).status == 400


@pytest.mark.slow
def test_wrong_secret_is_refused_and_the_right_one_opens_a_stream(running: Service) -> None:
    running.environment["AUTHSVC_WEBHOOK_SECRET"] = "the right secret"
    running.start()
    for secret in (None, "wrong"):
        plugin = Plugin(running, secret)
        assert plugin.report().status == 401
        assert plugin.ask("GET", f"/auth/plugin/changes?boot={BOOT}&name=plant").status == 401
        assert plugin.ask("POST", "/auth/plugin/users", {"usernames": ["bob"]}).status == 401
    with Plugin(running, "the right secret").changes() as stream:
        assert stream.line()["protocol"] == 1


def test_browser_is_refused(plugin: Plugin) -> None:
    refused = plugin.ask("POST", "/auth/plugin/report", report(), Origin="https://evil.example")
    assert refused == (403, {"ok": False, "error": "browser-request"})
    assert plugin.ask("POST", "/auth/plugin/report", report(), Host="evil.example").status == 403


def test_api_listener_answers_no_plugin(service: Service) -> None:
    headers = {"Authsvc-Plugin": "1"}
    for method, path in (("POST", "users"), ("GET", "changes"), ("POST", "report"), ("GET", "")):
        answer = requests.request(method, f"{service.url}/auth/plugin/{path}", headers=headers, timeout=10)
        assert answer.status_code == 404
    login = {"username": "bob", "password": BOBS_PASSWORD, "clientid": "c1"}
    answer = requests.post(f"{service.url}/auth/user", json=login, headers=headers, timeout=10)
    assert (answer.status_code, answer.json()) == (200, {"ok": True, "error": ""})


# The service and its streams.


@pytest.mark.slow
def test_service_ends_in_time_with_a_stream_open(service: Service, stream: ChangeStream) -> None:
    assert service.process
    begun = time.monotonic()
    service.process.send_signal(signal.SIGTERM)
    with pytest.raises((EOFError, ConnectionError)):
        stream.until(lambda line: "protocol" in line, seconds=20)
    assert service.process.wait(20) == 0
    assert time.monotonic() - begun < 8
    assert service.errors() == []
    assert "Traceback" not in service.log_text()


def test_stream_of_a_killed_process_ends_and_the_next_one_begins(
    service: Service, plugin: Plugin, stream: ChangeStream
) -> None:
    (killed,) = service.workers("broker")
    os.kill(killed, signal.SIGKILL)
    with pytest.raises((EOFError, ConnectionError)):
        stream.until(lambda line: "protocol" in line, seconds=20)
    with plugin.changes() as again:
        assert again.line()["version"] > 0
        change(service, "PATCH", "/api/users/bob", enabled=False)
        again.names("users", "bob")


def test_200_open_streams_leave_webhooks_answering(service: Service, plugin: Plugin) -> None:
    with many_descriptors(), ExitStack() as opened:
        streams = [opened.enter_context(plugin.changes(f"{number:032x}")) for number in range(MANY)]
        for each in streams:
            each.line()
        broker = opened.enter_context(Connection(service))
        begun = time.monotonic()
        for _ in range(100):
            broker.sendall(QUESTION)
            assert answer_on(broker)[0] == 200
        assert time.monotonic() - begun < 5
        change(service, "PATCH", "/api/users/bob", enabled=False)
        for each in streams:
            each.until(lambda line: "bob" in line.get("users", []))
        assert publishes(service, "bob", "devices/bob/up") == "user-disabled"
        opened.pop_all().close()
    assert within(5, lambda: service.log_text().count("stream of a broker has ended") == MANY)
    assert service.errors() == []


@pytest.mark.slow
def test_stream_whose_client_reads_nothing_disturbs_nobody(service: Service, stream: ChangeStream) -> None:
    request = f"GET /auth/plugin/changes?boot={OTHER_BOOT}&name=slow HTTP/1.1\r\nHost: localhost\r\n"
    with Connection(service) as slow:
        slow.sendall(f"{request}Authsvc-Plugin: 1\r\n\r\n".encode())
        for number in range(20):
            change(service, "PATCH", "/api/users/bob", permissions=[permission(f"write news/{number}")])
            stream.names("users", "bob")
        assert is_open(slow)
