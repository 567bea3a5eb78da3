"""Allowed client ids: matching, and validation of patterns."""

from __future__ import annotations

import re
from time import perf_counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authsvc.errors import InvalidInput
from authsvc.policy.allowed_client_ids import allows, can_be_literal, depend_on_client_id, restrict, validate_client_ids
from authsvc.policy.snapshot import GrantType, RolePolicy, Snapshot, UserPolicy
from tests.actors import http, mqtt

if TYPE_CHECKING:
    from authsvc.policy.permissions import Permission


@pytest.mark.parametrize(
    ("pattern", "client_id", "allowed"),
    [
        ("press-7", "press-7", True),
        ("press-7", "press-77", False),
        ("press-7", "PRESS-7", False),
        ("press-7", "", False),
        ("%u", "bob", True),
        ("%u", "%u", False),
        ("%u", "bobby", False),
        ("%u-*", "bob-phone", True),
        ("%u-*", "bob-", True),
        ("%u-*", "bob", False),
        ("%u-*", "eve-bob-phone", False),
        ("*-%u", "phone-bob", True),
        ("a*b", "ab", True),
        ("a*b", "axxb", True),
        ("a*b", "axxbc", False),
        ("ab*ba", "aba", False),
        ("ab*ba", "abba", True),
        ("a*b*c", "a-c-b-c", True),
        ("a*b*c", "a-c-b", False),
        ("a*bc*cd", "abcd", False),
        ("**", "anything", True),
        ("*", "", True),
        ("*", "line\nbreak", True),
        ("a.c", "abc", False),
        ("[ab]", "a", False),
        ("?", "x", False),
        ("%u%u", "bobbob", True),
    ],
)
def test_pattern_matches_the_whole_client_id(pattern: str, client_id: str, allowed: bool) -> None:
    assert allows([pattern], "bob", client_id) is allowed


_TEXT = st.text("ab*%uc", max_size=8)


@given(_TEXT, st.text("abu%c", max_size=12), st.text("ab*", max_size=3))
def test_pattern_agrees_with_a_regular_expression(pattern: str, client_id: str, username: str) -> None:
    parts = [re.escape(part.replace("%u", username)) for part in pattern.split("*")]
    expected = re.fullmatch(".*".join(parts), client_id, re.DOTALL) is not None
    assert allows([pattern], username, client_id) is expected


def test_username_adds_no_wildcard() -> None:
    assert not allows(["%u"], "*", "admin")
    assert allows(["%u"], "*", "*")


def test_without_patterns_any_client_id_is_allowed() -> None:
    assert allows([], "bob", "anything")
    assert allows([], "bob", "")


def test_one_matching_pattern_among_many_is_enough() -> None:
    patterns = [*(f"press-{number}" for number in range(99)), "%u"]
    assert allows(patterns, "bob", "press-98")
    assert allows(patterns, "bob", "bob")
    assert not allows(patterns, "bob", "press-99")


@pytest.mark.parametrize(
    ("pattern", "client_id"),
    [
        ("a*" * 100, "a" * 65_534 + "b"),
        ("*a" * 100, "b" + "a" * 65_534),
        ("*" + "ab" * 98 + "*b", "ab" * 32_767 + "a"),
        ("*" * 200, "a" * 65_535),
    ],
)
def test_matching_does_not_backtrack(pattern: str, client_id: str) -> None:
    # A match that backtracks would not end; this one takes milliseconds.
    started = perf_counter()
    for _ in range(10):
        allows([pattern], "bob", client_id)
    assert perf_counter() - started < 5


def _user(*client_ids: str, roles: tuple[str, ...] = ()) -> UserPolicy:
    return UserPolicy("bob", True, frozenset({GrantType.PASSWORD}), None, roles=roles, client_ids=client_ids)


@pytest.mark.parametrize(
    ("own", "of_roles", "allowed", "refused"),
    [
        ((), ((), ()), ["anything", ""], []),
        (("%u",), (), ["bob"], ["eve", ""]),
        (("%u",), ((), ()), ["bob"], ["eve"]),
        ((), (("%u",),), ["bob"], ["eve"]),
        ((), (("%u",), ()), ["bob"], ["eve"]),
        (("gateway",), (("%u",), ("%u-*",)), ["gateway", "bob", "bob-1"], ["eve", "gateway-1"]),
        (("*",), (("%u",),), ["eve"], []),
    ],
)
def test_user_may_use_client_ids_of_its_own_and_its_roles_patterns(
    own: tuple[str, ...], of_roles: tuple[tuple[str, ...], ...], allowed: list[str], refused: list[str]
) -> None:
    roles = {f"role-{number}": RolePolicy((), client_ids) for number, client_ids in enumerate(of_roles)}
    bob, snapshot = _user(*own, roles=tuple(roles)), Snapshot(roles=roles)
    assert [client_id for client_id in allowed + refused if snapshot.allows_client_id(bob, client_id)] == allowed


def test_unknown_role_neither_restricts_nor_lifts_a_restriction() -> None:
    assert not Snapshot().allows_client_id(_user("%u", roles=("gone",)), "eve")
    assert Snapshot().allows_client_id(_user(roles=("gone",)), "eve")


def test_validation_removes_duplicates_and_keeps_the_order() -> None:
    assert validate_client_ids(["%u-*", "%u", "%u-*"]) == ("%u-*", "%u")
    assert validate_client_ids([]) == ()


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("", "must be 1 to 200 characters"),
        ("x" * 201, "must be 1 to 200 characters"),
        ("a\nb", "must not contain control or invisible characters"),
        ("a\0", "must not contain control or invisible characters"),
        ("a\x7f", "must not contain control or invisible characters"),
        ("a\u202eb", "must not contain control or invisible characters"),
        ("\ud800", "must not contain control or invisible characters"),
        ("%c", "must not contain %c, which is the client id itself; write * for any characters"),
    ],
)
def test_invalid_pattern_is_named_by_its_position(pattern: str, message: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        validate_client_ids(["%u", pattern])
    assert refusal.value.errors == (("clientIds[1]", message),)


def test_at_most_100_patterns_are_accepted() -> None:
    assert len(validate_client_ids([f"press-{number}" for number in range(100)])) == 100
    with pytest.raises(InvalidInput) as refusal:
        validate_client_ids([f"press-{number}" for number in range(101)])
    assert refusal.value.errors == (("clientIds", "must have at most 100 entries"),)


@pytest.mark.parametrize("client_id", ["press-7", "x" * 200, "50%", "bøb", "名前", "with spaces", "a/b", "+", "#"])
def test_client_id_that_can_be_literal_matches_only_itself(client_id: str) -> None:
    assert can_be_literal(client_id)
    assert allows([client_id], "bob", client_id)
    assert not allows([client_id], "bob", client_id + "x")


@pytest.mark.parametrize("client_id", ["", "*", "press-*", "%u", "a%ub", "%c", "a\n", "x" * 201, "\u202eabc"])
def test_client_id_with_wildcards_or_invalid_characters_cannot_be_literal(client_id: str) -> None:
    assert not can_be_literal(client_id)


@pytest.mark.parametrize(
    ("patterns", "restricted"),
    [([], False), (["*"], False), (["%u", "**"], False), (["%u"], True), (["%u", "%u-*"], True), (["*-x"], True)],
)
def test_patterns_restrict_unless_one_matches_everything(patterns: list[str], restricted: bool) -> None:
    assert restrict(patterns) is restricted


@pytest.mark.parametrize(
    ("permission", "depends"),
    [
        (mqtt("read", "inbox/%c/#"), True),
        (mqtt("write", "inbox/%c", "deny"), True),
        (mqtt("read", "inbox/%u/#"), False),
        (http("read", "/inbox/%c"), False),
    ],
)
def test_mqtt_permission_with_percent_c_depends_on_the_client_id(permission: Permission, depends: bool) -> None:
    assert depend_on_client_id([mqtt("read", "a"), permission]) is depends
