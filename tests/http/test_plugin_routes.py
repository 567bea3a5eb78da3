"""The routes of the plugin for Mosquitto behind the ASGI application, in this process."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from authsvc.accounts import roles, users
from authsvc.accounts.api_tokens import issue_token
from authsvc.activity import client_ids, denials
from authsvc.broker.asgi import BrokerApplication
from authsvc.broker.change_streams import MAX_WAITING, ChangeStream, ChangeStreams
from authsvc.broker.plugin_protocol import MAX_BODY, UserStates
from authsvc.broker.plugin_routes import PluginRoutes, ReportReceivers
from authsvc.policy.snapshot import SnapshotChange
from authsvc.storage.changes import ChangeKind, policy_change
from tests.actors import BOBS_PASSWORD, HASHER, OPERATOR
from tests.http.broker import RecordingConnections, services_of
from tests.http.conftest import with_services_of
from tests.http.plugin import BOOT, CONNECTED, DENIAL, OTHER_BOOT, Answered, report

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

    from flask_openapi3.openapi import OpenAPI

    from authsvc.policy.broker_report import BrokerReport
    from authsvc.settings import Settings
    from authsvc.web.request_context import Services

CLIENT = ("192.0.2.1", 50_000)
VERSION = [(b"authsvc-plugin", b"1")]
NEVER_SENT = 60.0

Message = dict[str, Any]


class Front:
    """The broker listener's application; `reports` are those that were stored."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.connections = RecordingConnections()
        self.reports: list[BrokerReport] = []
        self.database_error: Exception | None = None
        receivers = ReportReceivers(
            self._store, services.client_ids.note, services.denials.note, services.denials.count_dropped
        )
        self.streams = ChangeStreams(services.policy)
        self.plugin = PluginRoutes(UserStates(services.policy), self.streams, receivers)
        self.application = BrokerApplication(services.webhooks, self.plugin, self.connections)

    def _store(self, stored: BrokerReport) -> None:
        if self.database_error:
            raise self.database_error
        self.reports.append(stored)

    def ask(
        self,
        path: str,
        body: object = None,
        method: str = "POST",
        query: bytes = b"",
        headers: list[tuple[bytes, bytes]] = VERSION,
    ) -> Answered:
        """Send one request and return its answer."""
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        return asyncio.run(self._ask(scope_of(path, method, query, headers), sent))

    async def _ask(self, scope: Message, body: bytes) -> Answered:
        parts = [body[at : at + 65_536] for at in range(0, len(body), 65_536)] or [b""]
        sent: list[MutableMapping[str, Any]] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message)

        await self.application(scope, receive, send)
        start, content = sent
        is_json = dict(start["headers"])[b"content-type"] == b"application/json"
        return Answered(start["status"], json.loads(content["body"]) if is_json else None)


def scope_of(path: str, method: str, query: bytes = b"", headers: list[tuple[bytes, bytes]] = VERSION) -> Message:
    return {
        "type": "http",
        "client": CLIENT,
        "method": method,
        "path": path,
        "query_string": query,
        "headers": headers,
    }


@pytest.fixture
def front(services: Services) -> Front:
    return Front(services)


LOGIN = {"username": "bob", "password": BOBS_PASSWORD, "clientid": "c1"}


def change_user(username: str, **fields: Any) -> None:
    users.change(OPERATOR, username, fields, HASHER)  # type: ignore[arg-type]


# Logins.


def test_login_of_a_plugin_is_answered_with_the_credential_and_the_state(front: Front) -> None:
    for _ in range(2):  # the second time without a hash
        status, body = front.ask("/auth/user", LOGIN)
        assert (status, body["ok"], body["error"]) == (200, True, "")
        assert body["credential"] in body["user"]["credentials"]
        assert body["credential"].startswith("p:")
        assert body["user"]["rules"][0] == "readWrite devices/%u/#"
        assert "write lines/+" in body["user"]["rules"]
        assert body["user"]["roles"] == ["line"]
    assert ("trust", CLIENT) in front.connections.calls
    assert front.services.verifier.counters.misses == 1


def test_state_at_login_is_that_of_the_users_route(front: Front) -> None:
    user = front.ask("/auth/user", LOGIN).body["user"]
    assert front.ask("/auth/plugin/users", {"usernames": ["bob"]}).body["users"] == [user]


def test_login_with_an_api_token_names_the_token(front: Front) -> None:
    policy = front.services.policy
    used, other = (issue_token(OPERATOR, "tom", label, 1).token for label in ("used", "other"))
    policy.catch_up()
    names = {
        front.ask("/auth/user", LOGIN | {"username": "tom", "password": each}).body["credential"]
        for each in (used, other)
    }
    state = front.ask("/auth/user", LOGIN | {"username": "tom", "password": used}).body["user"]
    assert len(names) == 2
    assert {name for name in state["credentials"] if name.startswith("t:")} == names
    assert all(until > time.time() for name, until in state["credentials"].items() if name in names)


@pytest.mark.parametrize(
    ("fields", "status", "error"),
    [
        ({"password": "wrong"}, 403, "wrong-password"),
        ({"username": "nemo"}, 403, "unknown-user"),
        ({"username": "dora"}, 403, "user-disabled"),
        ({"username": "carol"}, 403, "grant-type-missing"),
        ({"username": None}, 400, "malformed"),
    ],
)
def test_refused_login_has_no_state(front: Front, fields: dict[str, Any], status: int, error: str) -> None:
    assert front.ask("/auth/user", LOGIN | fields) == (status, {"ok": False, "error": error})


@pytest.mark.parametrize("version", [b"2", b"", b"1.0", b"01"])
def test_other_versions_are_answered_as_go_auth_is(front: Front, version: bytes) -> None:
    headers = [(b"authsvc-plugin", version)]
    assert front.ask("/auth/user", LOGIN, headers=headers) == (200, {"ok": True, "error": ""})
    assert front.ask("/auth/plugin/users", {"usernames": ["bob"]}, headers=headers).status == 404


def test_go_auth_and_the_plugin_get_their_own_answers_from_one_cache(front: Front) -> None:
    for _ in range(2):
        assert "user" in front.ask("/auth/user", LOGIN).body
        assert front.ask("/auth/user", LOGIN, headers=[]) == (200, {"ok": True, "error": ""})
    assert front.services.webhooks.counters.hits == 2


def test_new_password_and_new_token_are_in_the_state_of_the_next_login(front: Front) -> None:
    before = front.ask("/auth/user", LOGIN | {"username": "tom"}).body
    issue_token(OPERATOR, "tom", "new", 1)
    front.services.policy.catch_up()
    after = front.ask("/auth/user", LOGIN | {"username": "tom"}).body
    assert after["credential"] == before["credential"]
    assert len(after["user"]["credentials"]) == len(before["user"]["credentials"]) + 1
    assert after["user"]["version"] > before["user"]["version"]
    change_user("tom", password="another secret of tom")
    front.services.policy.catch_up()
    changed = front.ask("/auth/user", LOGIN | {"username": "tom", "password": "another secret of tom"}).body
    assert changed["credential"] != before["credential"]
    assert before["credential"] not in changed["user"]["credentials"]


# States of users.


def test_users_are_answered_in_the_order_of_the_request(front: Front) -> None:
    names = ["nemo", "bob", "dora", "bob"]
    status, body = front.ask("/auth/plugin/users", {"usernames": names})
    assert (status, body["version"]) == (200, front.services.policy.snapshot.revision)
    assert [each["username"] for each in body["users"]] == names
    assert [each["refused"] for each in body["users"]] == ["unknown-user", None, "user-disabled", None]


def test_users_are_refused_before_the_policy_is_loaded(front: Front, routes: OpenAPI, seeded: Settings) -> None:
    del front
    from authsvc.app import compose  # noqa: PLC0415

    early = Front(compose(seeded))
    status, body = early.ask("/auth/plugin/users", {"usernames": ["bob"]})
    assert (status, body["version"], body["users"][0]["refused"]) == (200, 0, "policy-not-loaded")


NOT_FOUND = [("GET", "users"), ("PUT", "report"), ("POST", "changes"), ("POST", "x"), ("GET", "")]


@pytest.mark.parametrize(("method", "path"), NOT_FOUND)
def test_other_methods_and_paths_are_not_found(front: Front, method: str, path: str) -> None:
    assert front.ask(f"/auth/plugin/{path}", {"usernames": ["bob"]}, method).status == 404
    assert ("trust", CLIENT) not in front.connections.calls


# Who may ask.

ROUTES = [("POST", "users"), ("GET", "changes"), ("POST", "report")]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_plugin_needs_the_webhook_secret(routes: OpenAPI, seeded: Settings, method: str, path: str) -> None:
    app = with_services_of(routes, replace(seeded, webhook_secret="s3cret"))
    front = Front(services_of(app))
    for query in (b"", b"key=wrong", b"key=s3cre", b"key=s3cret%00"):
        refused = front.ask(f"/auth/plugin/{path}", {}, method, query)
        assert refused == (401, {"ok": False, "error": "wrong-webhook-secret"})
    assert ("trust", CLIENT) not in front.connections.calls
    allowed = front.ask("/auth/plugin/users", {"usernames": ["bob"]}, query=b"key=s3cret")
    assert allowed.status == 200
    basic = [*VERSION, (b"authorization", b"Basic YnJva2VyOnMzY3JldA==")]
    assert front.ask("/auth/plugin/users", {"usernames": ["bob"]}, headers=basic).status == 200


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize(
    ("header", "error"),
    [
        ((b"origin", b"https://evil.example"), "browser-request"),
        ((b"sec-fetch-site", b"same-origin"), "browser-request"),
        ((b"host", b"evil.example"), "unknown-host"),
    ],
)
def test_browsers_and_unknown_hosts_are_refused(
    front: Front, method: str, path: str, header: tuple[bytes, bytes], error: str
) -> None:
    refused = front.ask(f"/auth/plugin/{path}", {}, method, headers=[*VERSION, header])
    assert refused == (403, {"ok": False, "error": error})


# Reports.


def test_report_is_stored_and_its_logins_and_denials_are_noted(front: Front, services: Services) -> None:
    logins = [{"username": "bob", "clientid": "bob-9"}]
    body = report(connected=[CONNECTED], disconnected=[3], logins=logins, denials=[DENIAL], dropped=2)
    assert front.ask("/auth/plugin/report", body) == (200, {"ok": True})
    (stored,) = front.reports
    assert (stored.boot, stored.name, stored.generation, stored.disconnected) == (BOOT, "plant", 1, (3,))
    assert [client.number for client in stored.connected] == [17]
    assert services.client_ids.known.knows("bob", "bob-9")
    services.client_ids.store()
    assert "bob-9" in client_ids.all_of_user("bob")
    services.denials.store()
    (record,) = denials.of_user("bob")
    assert (record.denial.topic, record.denial.client_id) == ("elsewhere", "bob-1")
    assert services.denials.dropped == 2


def test_report_is_not_noted_while_it_cannot_be_stored(front: Front, services: Services) -> None:
    front.database_error = OSError("the database, and a secret")
    body = report(denials=[DENIAL], dropped=2)
    for _ in range(2):
        status, told = front.ask("/auth/plugin/report", body)
        assert (status, told["ok"]) == (200, False)
        assert "secret" not in told["error"]
    front.database_error = None
    assert front.ask("/auth/plugin/report", body) == (200, {"ok": True})
    services.denials.store()
    (record,) = denials.of_user("bob")
    assert (record.count, services.denials.dropped) == (1, 2)


def test_report_that_waits_for_the_database_delays_no_webhook(front: Front) -> None:
    may_store = threading.Event()
    front.plugin._receivers = front.plugin._receivers._replace(store_report=lambda _: may_store.wait(20))

    async def ask_meanwhile() -> tuple[bool, int]:
        stored = asyncio.ensure_future(
            front._ask(scope_of("/auth/plugin/report", "POST"), json.dumps(report()).encode())
        )
        answer = await front._ask(scope_of("/auth/user", "POST"), json.dumps(LOGIN).encode())
        waited = not stored.done()
        may_store.set()
        assert (await stored).status == 200
        return waited, answer.status

    assert asyncio.run(ask_meanwhile()) == (True, 200)


def test_malformed_report_is_refused_with_the_field(front: Front) -> None:
    refused = front.ask("/auth/plugin/report", report(denials=[DENIAL | {"topic": 7}]))
    assert refused == (400, {"ok": False, "error": "malformed: denials[0].topic"})
    assert front.reports == []


def test_body_of_a_report_may_have_4_mib(front: Front) -> None:
    denied = [DENIAL | {"topic": "t" * 8000}] * 500
    body = json.dumps(report(denials=denied)).encode()
    assert MAX_BODY - 200_000 < len(body) < MAX_BODY
    assert front.ask("/auth/plugin/report", body) == (200, {"ok": True})
    too_long = body + b" " * 200_000
    assert front.ask("/auth/plugin/report", too_long) == (400, {"ok": False, "error": "malformed: body"})


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([BOOT, "bob", "p", 2, 2**63]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*CONNECTED, *DENIAL]), inner),
    max_leaves=8,
)


def entries(right: dict[str, Any]) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Return lists of entries in which up to one field has any value."""
    wrong = st.dictionaries(st.sampled_from(sorted(right)), anything, max_size=1)
    return st.lists(st.builds(lambda fields: right | fields, wrong), max_size=3)


lists = {"connected": entries(CONNECTED), "denials": entries(DENIAL)}
reports = st.builds(
    lambda changed, extra: report(**changed) | extra,
    st.dictionaries(st.sampled_from(sorted(report())), anything, max_size=2),
    st.fixed_dictionaries({}, optional=lists),
)
bodies = st.binary() | st.builds(lambda value: json.dumps(value).encode(), anything | reports)


@hypothesis_settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(["users", "report"]), body=bodies)
def test_any_body_is_answered_200_or_400(front: Front, path: str, body: bytes) -> None:
    status, told = front.ask(f"/auth/plugin/{path}", body)
    assert status in (200, 400)
    if status == 400:
        assert told["error"].startswith("malformed: ")
    elif path == "report":
        assert told == {"ok": True}


@hypothesis_settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(query=st.binary(max_size=100).filter(lambda query: BOOT.encode() not in query))
def test_any_query_of_a_stream_is_refused(front: Front, query: bytes) -> None:
    assert front.ask("/auth/plugin/changes", b"", "GET", query).status == 400


# Change streams.


class Stream:
    """A change stream whose reader takes one message at a time."""

    def __init__(self, front: Front, boot: str = BOOT) -> None:
        self._taken = asyncio.Queue[bytes](maxsize=1)
        self._left = asyncio.Event()
        self._first = True
        query = f"boot={boot}&name=plant".encode()
        self._running = asyncio.ensure_future(
            front.application(scope_of("/auth/plugin/changes", "GET", query), self._receive, self._send)
        )

    async def _receive(self) -> Message:
        if self._first:
            self._first = False
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.body":
            await self._taken.put(message["body"])

    async def lines(self) -> list[Message]:
        """Return the lines of the next message, without the heartbeat that ends each but the first."""
        async with asyncio.timeout(10):
            found = [json.loads(line) for line in (await self._taken.get()).splitlines()]
        if "protocol" not in found[0]:
            assert set(found[-1]) == {"version"}
            return found[:-1]
        return found

    async def leave(self) -> None:
        self._left.set()
        async with asyncio.timeout(10):
            await self._running


def on_a_stream(front: Front, change: Callable[[], object]) -> list[Message]:
    """Return the lines that a stream sends within a second after a change."""

    async def listen() -> list[Message]:
        stream = Stream(front)
        (hello,) = await stream.lines()
        assert hello == {"protocol": 1, "version": front.services.policy.snapshot.revision, "service": "0.1.0"}
        await asyncio.to_thread(change)
        await asyncio.to_thread(front.services.policy.catch_up)
        async with asyncio.timeout(0.9):
            lines = await stream.lines()
        await stream.leave()
        return lines

    return asyncio.run(listen())


@pytest.fixture(autouse=True)
def no_heartbeats(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no heartbeat stand between a change and the line about it, but in the tests of heartbeats."""
    if "heartbeat" not in request.node.name:
        monkeypatch.setattr("authsvc.broker.change_streams.HEARTBEAT_SECONDS", NEVER_SENT)


def test_stream_names_a_changed_user(front: Front) -> None:
    lines = on_a_stream(front, lambda: change_user("bob", enabled=False))
    assert lines == [{"version": front.services.policy.snapshot.revision, "users": ["bob"]}]


def test_stream_names_a_changed_role_and_not_its_users(front: Front) -> None:
    lines = on_a_stream(front, lambda: roles.change(OPERATOR, "line", {"permissions": ()}))
    assert lines == [{"version": front.services.policy.snapshot.revision, "roles": ["line"]}]


def test_stream_names_the_user_of_a_new_token(front: Front) -> None:
    lines = on_a_stream(front, lambda: issue_token(OPERATOR, "tom", "new", 1))
    assert lines == [{"version": front.services.policy.snapshot.revision, "users": ["tom"]}]


def kick(*clients: str) -> None:
    with policy_change() as announce:
        for client in clients:
            announce(ChangeKind.CLIENT, client)


def test_connection_is_ended_on_the_stream_of_its_boot_only(front: Front) -> None:
    async def listen() -> tuple[list[Message], list[Message]]:
        here, there = Stream(front), Stream(front, OTHER_BOOT)
        await here.lines()
        await there.lines()
        kick(f"{BOOT}/17", f"{BOOT}/18", "x", f"{BOOT}/", f"{BOOT}/-1", f"{OTHER_BOOT}/5")
        front.services.policy.catch_up()
        told = await here.lines(), await there.lines()
        await here.leave()
        await there.leave()
        return told

    generation = front.services.policy.generation
    assert asyncio.run(listen()) == ([{"disconnect": [17, 18]}], [{"disconnect": [5]}])
    assert front.services.policy.generation == generation, "cached answers remain valid"


def test_stream_says_all_when_everything_was_read_again(front: Front) -> None:
    def fall_behind() -> None:
        front.services.policy.snapshot.version += 1000

    assert on_a_stream(front, fall_behind) == [{"version": front.services.policy.snapshot.revision, "all": True}]


def test_slow_reader_gets_all_after_its_queue_has_overflowed(front: Front) -> None:
    def told(count: int) -> SnapshotChange:
        return SnapshotChange(7, frozenset(f"user-{number}" for number in range(count)))

    async def listen() -> list[list[Message]]:
        stream = Stream(front)
        await stream.lines()
        # The lines about the first two are under way; what follows waits until the reader has taken them.
        for count in (1, 2, MAX_WAITING, MAX_WAITING + 1, 3):
            front.streams._schedule(told(count))
            await asyncio.sleep(0.05)
        found = [await stream.lines() for _ in range(3)]
        await stream.leave()
        return found

    one, two, rest = asyncio.run(listen())
    assert one == [{"version": 7, "users": ["user-0"]}]
    assert two == [{"version": 7, "users": ["user-0", "user-1"]}]
    assert rest == [{"version": 7, "all": True}]


def test_heartbeat_is_sent_each_second(front: Front) -> None:
    async def listen() -> float:
        stream = Stream(front)
        await stream.lines()
        begun = time.monotonic()
        assert [await stream.lines(), await stream.lines()] == [[], []]
        taken = time.monotonic() - begun
        await stream.leave()
        return taken

    assert 1.8 < asyncio.run(listen()) < 5


def test_stream_is_forgotten_when_its_client_leaves_and_when_it_is_cancelled(front: Front) -> None:
    async def listen() -> None:
        one, other = Stream(front), Stream(front)
        await one.lines()
        await other.lines()
        assert len(front.streams._streams) == 2
        await one.leave()
        other._running.cancel()
        await asyncio.gather(other._running, return_exceptions=True)
        assert front.streams._streams == set()

    asyncio.run(listen())
    assert front.connections.calls.count(("trust", CLIENT)) == 2


def test_change_after_the_event_loop_has_ended_is_no_error(front: Front) -> None:
    on_a_stream(front, lambda: change_user("bob", enabled=False))
    change_user("bob", enabled=True)
    front.services.policy.catch_up()


def test_disconnects_that_wait_for_a_slow_reader_are_bounded() -> None:
    async def fill() -> bytes:
        stream = ChangeStream(BOOT, 1)
        stream.add(SnapshotChange(1, clients=frozenset(f"{BOOT}/{number}" for number in range(11_000))))
        return await stream.next_lines()

    told = [json.loads(line) for line in asyncio.run(fill()).splitlines()]
    assert sum(len(line.get("disconnect", [])) for line in told) == 10_000
