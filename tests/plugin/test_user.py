"""A user parsed from the service's JSON: what is refused, its credentials, the order of reasons, its memory."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from authsvc.policy.access import READ, SUBSCRIBE, WRITE
from authsvc.policy.decision import Reason
from tests.plugin.native import user_fields

if TYPE_CHECKING:
    from tests.plugin.native import Native, NativeUser

NOW = 1_767_225_600
PASSWORD, TOKEN, CERTIFICATE = f"p:{'9c1f' * 8}", f"t:{'77ab' * 8}", "c:1A2B"
BOB = user_fields(
    credentials={PASSWORD: None, TOKEN: NOW + 60, CERTIFICATE: NOW + 10},
    clientIds=["%u", "%u-*"],
    rules=["readWrite devices/%u/#", "deny read devices/%u/keys", "write logs/%c"],
    roles=["plant"],
)


def bob(native: Native, **changed: object) -> NativeUser:
    """Return Bob, with some fields changed."""
    user = native.user({**BOB, **changed})
    assert user
    return user


def test_rules_apply_to_the_user_and_its_client_id(native: Native) -> None:
    with bob(native) as user:
        assert user.decide("bob", SUBSCRIBE, "devices/bob/#") is Reason.PERMISSION
        assert user.decide("bob-1", WRITE, "logs/bob-1") is Reason.PERMISSION
        assert user.decide("bob", READ, "devices/bob/keys") is Reason.DENIED_BY_PERMISSION
        assert user.decide("bob", READ, "devices/charlie/state") is Reason.NO_PERMISSION
        assert user.decide("bob", SUBSCRIBE, "$share/g/devices/bob/#") is Reason.SHARE_REACHES_DENIED


@pytest.mark.parametrize(
    "reason", [Reason.UNKNOWN_USER, Reason.USER_DISABLED, Reason.DAMAGED_POLICY, Reason.POLICY_NOT_LOADED]
)
def test_refused_user_is_denied_everything_for_that_reason(native: Native, reason: Reason) -> None:
    with bob(native, refused=str(reason)) as user:
        assert user.decide("bob", WRITE, "logs/bob") is reason
        assert user.decide("eve", WRITE, "+") is reason
        assert not user.has_credential(PASSWORD, NOW)


def test_wrong_client_id_is_the_reason_before_a_malformed_topic(native: Native) -> None:
    with bob(native) as user:
        assert user.decide("eve", READ, "a+") is Reason.CLIENT_ID_NOT_ALLOWED
        assert user.decide("bob", READ, "a+") is Reason.MALFORMED


@pytest.mark.parametrize("access", [0, 3, 5, 8, -1])
def test_unknown_access_is_denied(native: Native, access: int) -> None:
    with bob(native, rules=["readWrite #"]) as user:
        assert user.decide("bob", access, "a") is Reason.NO_PERMISSION


def test_credential_is_valid_until_its_end(native: Native) -> None:
    with bob(native) as user:
        assert user.has_credential(PASSWORD, NOW + 10**9)
        assert user.has_credential(CERTIFICATE, NOW + 9)
        assert not user.has_credential(CERTIFICATE, NOW + 10)
        assert not user.has_credential("c:1A2", NOW)
        assert not user.has_credential("", NOW)


def test_next_expiry_is_the_first_end_in_the_future(native: Native) -> None:
    with bob(native) as user:
        assert [user.next_expiry(NOW + passed) for passed in (0, 9, 10, 59, 60)] == [
            NOW + 10,
            NOW + 10,
            NOW + 60,
            NOW + 60,
            0,
        ]


@pytest.mark.parametrize("missing", sorted(BOB))
def test_user_without_one_of_the_fields_is_malformed(native: Native, missing: str) -> None:
    assert native.user({name: value for name, value in BOB.items() if name != missing}) is None


def each(field: str, *values: object) -> list[tuple[str, object]]:
    """Return the field with each of these values."""
    return [(field, value) for value in values]


@pytest.mark.parametrize(
    ("field", "malformed"),
    [
        *each("username", None, 7, [], "x" * 65_536),
        *each("version", None, "7", -1, 1.5, 2**53, 1e300, True),
        *each("refused", False, 0, "", "permission", "no-permission", "Unknown-User", {}),
        *each("credentials", None, [], "p:1", [None], {"p:1": "never"}, {"p:1": False}, {"p:" + "1" * 65_534: None}),
        *each("credentials", {"p:1": 0}, {"p:1": -1}, {"p:1": 1.5}, {"p:1": 2**53}, {"p:1": {}}, {"p:1": []}),
        *each("credentials", {f"t:{number}": None for number in range(100_001)}),
        *each("clientIds", None, {}, "bob", [None], [7], [["bob"]], ["x" * 65_536], [""] * 100_001),
        *each("rules", None, {}, "read a", [None], [7], [["read a"]], ["read a"] * 100_001),
        *each(
            "rules", *(["read a", rule] for rule in ("", "read ", "a", "read a+", "READ a", "allow read a", " read a"))
        ),
        *each("rules", ["http read /a"], ["read $share/g/a"], ["deny  read a"], ["read\ta"], ["denyread a"]),
        *each("roles", None, {}, "plant", [None], [7], [""] * 100_001),
    ],
    ids=lambda value: str(value)[:20],
)
def test_user_with_a_malformed_field_is_refused(native: Native, field: str, malformed: object) -> None:
    assert native.user({**BOB, field: malformed}) is None


@pytest.mark.parametrize("text", [b"", b"null", b"[]", b'"bob"', b"{}", b"{", b"\xff", json.dumps(BOB).encode()[:-1]])
def test_text_that_is_no_user_is_refused(native: Native, text: bytes) -> None:
    assert native.user(text) is None


def test_unknown_fields_are_ignored(native: Native) -> None:
    with bob(native, later={"protocol": 2}) as user:
        assert user.decide("bob", WRITE, "logs/bob") is Reason.PERMISSION


def test_user_may_have_100_000_rules(native: Native) -> None:
    with bob(native, rules=[f"read rooms/{number}/#" for number in range(100_000)]) as user:
        assert user.decide("bob", READ, "rooms/99999/door") is Reason.PERMISSION
        assert user.decide("bob", READ, "rooms/100000/door") is Reason.NO_PERMISSION


def test_user_with_five_rules_takes_at_most_2_kb(native: Native) -> None:
    rules = [
        "readWrite devices/%u/#",
        "read plant/line-3/+/temperature",
        "deny read plant/line-3/secret/#",
        "write logs/%c",
        "read $SYS/broker/uptime",
    ]
    assert 0 < native.user_bytes({**BOB, "rules": rules}) <= 2048


def test_decision_among_1_000_rules_takes_as_many_calls_as_one_rule(counting: Native) -> None:
    calls = []
    for count in (1, 1000):
        # The last rule matches; the others differ from it in their first, second or last level.
        others = [
            f"read {path}" for number in range(333) for path in (f"a{number}/b/c", f"a/b{number}/c", f"a/b/{number}")
        ]
        with counting.rules(*others[: count - 1], "read a/b/c") as rules:
            counting.calls()
            assert rules.decide(READ, "a/b/c") is Reason.PERMISSION
            calls.append(counting.calls())
    assert 10 < calls[0] <= calls[1] <= 2 * calls[0]
