"""Protocol 1 of the plugin for Mosquitto: states of users, lines of a change stream, and how requests are read."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from authsvc.broker.plugin_protocol import (
    MAX_BODY,
    MalformedRequest,
    UserStates,
    change_lines,
    disconnect_lines,
    everything_line,
    first_line,
    heartbeat_line,
    parse_report,
    parse_stream_request,
    parse_usernames,
    user_state,
)
from authsvc.policy.broker_report import BrokerReport, ConnectedClient
from authsvc.policy.decision import Denial, Reason
from authsvc.policy.permissions import Permission
from authsvc.policy.sharded_map import ShardedMap
from authsvc.policy.snapshot import CurrentPolicy, GrantType, RolePolicy, Snapshot, UserPolicy
from tests.actors import http, mqtt
from tests.http.plugin import BOOT, CONNECTED, DENIAL, report

NOW = datetime(2026, 11, 20, 8, tzinfo=UTC)
LATER = NOW + timedelta(days=1)
UNTIL = int(LATER.timestamp())
HASH = "$2b$04$abcdefghijklmnopqrstuv"
PASSWORD = "p:" + hashlib.sha256(HASH.encode()).hexdigest()[:32]
DIGEST = "77ab" * 16
EVERY_GRANT = frozenset(GrantType)


def user(**fields: Any) -> UserPolicy:
    given: dict[str, Any] = {"username": "bob", "enabled": True, "grant_types": EVERY_GRANT, "password_hash": HASH}
    return UserPolicy(**given | fields)


def snapshot(bob: UserPolicy | None = None, roles: dict[str, RolePolicy] | None = None, **fields: Any) -> Snapshot:
    users = ShardedMap([("bob", bob)] if bob else [])
    return Snapshot(users, roles or {}, **({"version": 120, "token_version": 3} | fields))


def state(*given: Any, **fields: Any) -> dict[str, Any]:
    return user_state(snapshot(*given, **fields), "bob", NOW)


# The state of a user.


def test_state_has_rules_and_client_ids_of_the_user_and_its_roles_without_duplicates() -> None:
    common = mqtt("read", "news/#")
    bob = user(
        permissions=(mqtt("readWrite", "devices/%u/#"), common, http("read", "/api/me")),
        roles=("line", "plant", "unknown"),
        client_ids=("%u", "%u-*"),
    )
    roles = {
        "line": RolePolicy((mqtt("write", "a b/ä", "deny"), common), ("%u",)),
        "plant": RolePolicy((http("read", "/#"),), ("gateway",)),
    }
    assert state(bob, roles) == {
        "username": "bob",
        "version": 123,
        "refused": None,
        "credentials": {PASSWORD: None},
        "clientIds": ["%u", "%u-*", "gateway"],
        "rules": ["readWrite devices/%u/#", "read news/#", "deny write a b/ä"],
        "roles": ["line", "plant", "unknown"],
    }


def test_rules_can_be_read_as_permissions_again() -> None:
    rules = (mqtt("read", "a/+/#"), mqtt("write", "%c/b c", "deny"), mqtt("readWrite", "$SYS/#"))
    assert tuple(map(Permission.parse, state(user(permissions=rules))["rules"])) == rules


def test_credentials_are_those_that_are_valid_now_and_of_a_grant_type_that_the_user_has() -> None:
    tokens = {DIGEST: LATER, "88" * 32: NOW}
    certificates = {"1A2B": LATER, "FF": NOW - timedelta(seconds=1)}
    bob = user(tokens=tokens, certificates=certificates)
    assert state(bob)["credentials"] == {PASSWORD: None, f"t:{DIGEST[:32]}": UNTIL, "c:1A2B": UNTIL}
    for grant, expected in (("password", PASSWORD), ("token", f"t:{DIGEST[:32]}"), ("certificate", "c:1A2B")):
        only = user(tokens=tokens, certificates=certificates, grant_types=frozenset({GrantType(grant)}))
        assert list(state(only)["credentials"]) == [expected]
    assert state(user(password_hash=None))["credentials"] == {}
    assert state(user(grant_types=frozenset()))["credentials"] == {}


def test_credential_of_a_password_changes_with_the_password_and_reveals_no_hash() -> None:
    (before,), (after,) = state(user())["credentials"], state(user(password_hash=HASH + "x"))["credentials"]
    assert before != after
    assert HASH not in before


@pytest.mark.parametrize(
    ("found", "refused", "roles"),
    [
        (snapshot(), "unknown-user", []),
        (snapshot(user(enabled=False, roles=("line",))), "user-disabled", ["line"]),
        (snapshot(user(damage=("a row",))), "damaged-policy", []),
        (snapshot(user(roles=("line",)), damaged_roles={"line": ("a row",)}), "damaged-policy", ["line"]),
        (snapshot(user(), version=0), "policy-not-loaded", []),
    ],
)
def test_refused_user_has_no_credentials_and_no_rules(found: Snapshot, refused: str, roles: list[str]) -> None:
    told = user_state(found, "bob", NOW)
    assert (told["refused"], told["roles"]) == (refused, roles)
    assert (told["credentials"], told["rules"], told["clientIds"]) == ({}, [], [])
    assert told["version"] == found.revision


def test_revision_grows_with_each_change_and_each_token_and_is_0_before_the_first_load() -> None:
    assert snapshot(version=0, token_version=7).revision == 0
    assert [snapshot(version=5, token_version=tokens).revision for tokens in (0, 1)] == [5, 6]


# The cache of states.


def policy_with(bob: UserPolicy) -> CurrentPolicy:
    policy = CurrentPolicy()
    policy.snapshot, policy.generation = snapshot(bob), 1
    return policy


def told_at_login(states: UserStates) -> Any:
    return json.loads(states.login_body("bob", PASSWORD))


def test_login_is_told_the_credential_and_the_state() -> None:
    states = UserStates(policy_with(user()))
    told = told_at_login(states)
    assert told == {"ok": True, "error": "", "credential": PASSWORD, "user": json.loads(states.of("bob"))}
    assert told_at_login(states) == told


def test_cached_state_is_used_for_one_generation_and_until_the_user_gets_a_token() -> None:
    policy = policy_with(user())
    states = UserStates(policy)
    assert told_at_login(states)["user"]["rules"] == []
    policy.snapshot, policy.generation = snapshot(user(permissions=(mqtt("read", "a"),))), 2
    assert told_at_login(states)["user"]["rules"] == ["read a"]
    until = datetime.now(UTC) + timedelta(days=1)
    policy.snapshot = snapshot(user(tokens={DIGEST: until}), token_version=4)
    told = told_at_login(states)["user"]
    assert (f"t:{DIGEST[:32]}" in told["credentials"], told["version"]) == (True, 124)


def test_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("authsvc.broker.plugin_protocol._MAX_CACHED_BYTES", 1000)
    states = UserStates(policy_with(user()))
    for number in range(100):
        states.login_body(f"user-{number}", PASSWORD)
        assert sum(len(cached.state) for cached in states._cached.values()) <= 1000
    assert states._cached


# The lines of a change stream.


def lines(sent: bytes) -> list[Any]:
    assert sent.endswith(b"\n") or not sent
    return [json.loads(line) for line in sent.splitlines()]


def test_lines_of_a_change_stream() -> None:
    assert lines(first_line(7, "0.1.0")) == [{"protocol": 1, "version": 7, "service": "0.1.0"}]
    assert lines(heartbeat_line(0)) == [{"version": 0}]
    assert lines(everything_line(7)) == [{"version": 7, "all": True}]
    assert lines(disconnect_lines({18, 17})) == [{"disconnect": [17, 18]}]
    assert lines(change_lines(7, {"bob"}, {"plant"})) == [
        {"version": 7, "users": ["bob"]},
        {"version": 7, "roles": ["plant"]},
    ]
    assert lines(change_lines(7, (), ())) == []


def test_a_line_names_at_most_500_users() -> None:
    names = {f"user-{number:04}" for number in range(1001)}
    told = lines(change_lines(7, names, ()))
    assert [len(line["users"]) for line in told] == [500, 500, 1]
    assert {name for line in told for name in line["users"]} == names


# Requests.


def bytes_of(value: object) -> bytes:
    return json.dumps(value).encode()


def test_names_of_users_are_read() -> None:
    assert parse_usernames(bytes_of({"usernames": ["bob", "ä", "x" * 64]})) == ["bob", "ä", "x" * 64]
    assert len(parse_usernames(bytes_of({"usernames": ["bob"] * 500}))) == 500


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "body"),
        (b"[]", "body"),
        (b"{", "body"),
        (b"\xff", "body"),
        (b"[" * 100_000, "body"),
        (b'{"usernames":["bob"]}' + b" " * MAX_BODY, "body"),
        (b"{}", "usernames"),
        (b'{"usernames":"bob"}', "usernames"),
        (b'{"usernames":[]}', "usernames"),
        (bytes_of({"usernames": ["bob"] * 501}), "usernames"),
        (b'{"usernames":["bob",7]}', "usernames[1]"),
        (b'{"usernames":[""]}', "usernames[0]"),
        (b'{"usernames":["a\\u0000"]}', "usernames[0]"),
        (b'{"usernames":["\\ud800"]}', "usernames[0]"),
        (bytes_of({"usernames": ["x" * 65_536]}), "usernames[0]"),
    ],
)
def test_malformed_request_for_users_names_the_field(body: bytes, field: str) -> None:
    with pytest.raises(MalformedRequest) as refused:
        parse_usernames(body)
    assert str(refused.value) == field


def test_report_is_read() -> None:
    connected = [CONNECTED, CONNECTED | {"id": 18, "address": None, "credential": "c"}]
    logins = [{"username": "bob", "clientid": "bob-1"}]
    read = parse_report(
        bytes_of(report(connected=connected, disconnected=[3, 4], logins=logins, denials=[DENIAL], dropped=5))
    )
    since = datetime(2026, 1, 1, tzinfo=UTC)
    assert read.broker == BrokerReport(
        BOOT,
        "plant",
        "0.1.0",
        1,
        (
            ConnectedClient(17, "bob", "bob-1", "10.0.0.7", "MQTT 5.0", since, "password"),
            ConnectedClient(18, "bob", "bob-1", None, "MQTT 5.0", since, "certificate"),
        ),
        (3, 4),
    )
    assert read.logins == (("bob", "bob-1"),)
    assert read.denials == (Denial("bob", "bob-1", "elsewhere", 2, Reason.NO_PERMISSION),)
    assert read.dropped == 5


@pytest.mark.parametrize(
    ("address", "read"),
    [("::ffff:127.0.0.1", "127.0.0.1"), ("FE80::1%eth0", "fe80::1"), ("a socket", None), ("", None)],
)
def test_address_of_a_client_is_read_in_its_normal_form(address: str, read: str | None) -> None:
    (client,) = parse_report(bytes_of(report(connected=[CONNECTED | {"address": address}]))).broker.connected
    assert client.address == read


@pytest.mark.parametrize(
    "denial",
    [
        {"reason": "unknown-user"},
        {"reason": "policy-not-loaded"},
        {"reason": "a reason of a newer plugin"},
        {"topic": "a/#"},
        {"topic": ""},
        {"topic": "$share/g", "access": 4},
    ],
)
def test_denials_that_no_administrator_can_change_are_left_out(denial: dict[str, Any]) -> None:
    assert parse_report(bytes_of(report(denials=[DENIAL | denial]))).denials == ()


def test_denied_login_has_no_topic_and_a_long_topic_is_cut() -> None:
    login = DENIAL | {"access": 0, "topic": "x", "reason": "client-id-not-allowed"}
    (denied, cut) = parse_report(bytes_of(report(denials=[login, DENIAL | {"topic": "x" * 2000}]))).denials
    assert (denied.topic, denied.access, denied.reason) == ("", 0, Reason.CLIENT_ID_NOT_ALLOWED)
    assert (len(cut.topic), cut.whole) == (1000, False)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"boot": "x" * 32}, "boot"),
    ({"boot": BOOT + "0"}, "boot"),
    ({"boot": None}, "boot"),
    ({"name": ""}, "name"),
    ({"name": "x" * 65}, "name"),
    ({"name": "a\nb"}, "name"),
    ({"plugin": 1}, "plugin"),
    ({"generation": -1}, "generation"),
    ({"generation": True}, "generation"),
    ({"generation": 2**53}, "generation"),
    ({"dropped": 1.5}, "dropped"),
    ({"connected": {}}, "connected"),
    ({"connected": None}, "connected"),
    ({"connected": [CONNECTED] * 501}, "connected"),
    ({"connected": [CONNECTED, 7]}, "connected[1]"),
    ({"connected": [CONNECTED | {"id": "17"}]}, "connected[0].id"),
    ({"connected": [CONNECTED | {"username": ""}]}, "connected[0].username"),
    ({"connected": [CONNECTED | {"clientid": "ä" * 40_000}]}, "connected[0].clientid"),
    ({"connected": [CONNECTED | {"clientid": "a\0b"}]}, "connected[0].clientid"),
    ({"connected": [CONNECTED | {"address": 7}]}, "connected[0].address"),
    ({"connected": [CONNECTED | {"protocol": None}]}, "connected[0].protocol"),
    ({"connected": [CONNECTED | {"since": 10**12}]}, "connected[0].since"),
    ({"connected": [CONNECTED | {"credential": "x"}]}, "connected[0].credential"),
    ({"connected": [CONNECTED | {"credential": ["p"]}]}, "connected[0].credential"),
    ({"disconnected": [1, "2"]}, "disconnected[1]"),
    ({"disconnected": [10**400]}, "disconnected[0]"),
    ({"disconnected": list(range(501))}, "disconnected"),
    ({"logins": [{"username": "bob"}]}, "logins[0].clientid"),
    ({"denials": [DENIAL | {"access": 3}]}, "denials[0].access"),
    ({"denials": [DENIAL | {"access": True}]}, "denials[0].access"),
    ({"denials": [DENIAL | {"reason": 7}]}, "denials[0].reason"),
]


@pytest.mark.parametrize(("fields", "field"), WRONG)
def test_malformed_report_names_the_field(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(MalformedRequest) as refused:
        parse_report(bytes_of(report(**fields)))
    assert str(refused.value) == field


def test_stream_is_requested_with_the_boot_and_the_name_of_a_broker() -> None:
    assert parse_stream_request({"boot": BOOT, "name": "plant", "key": "x"}) == (BOOT, "plant")
    for parameters in ({}, {"boot": BOOT}, {"name": "plant"}, {"boot": "x", "name": "plant"}):
        with pytest.raises(MalformedRequest):
            parse_stream_request(parameters)
