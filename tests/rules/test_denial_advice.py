"""Denial advice: the narrowest permission that allows a denied request, or why no permission does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, event, given
from hypothesis import strategies as st

from authsvc.errors import InvalidInput
from authsvc.policy.access import READ, SUBSCRIBE, WRITE, requests_for
from authsvc.policy.decision import MAX_DENIED_CLIENT_ID, MAX_DENIED_TOPIC, Allowed, Denial, Denied, Reason, denial_of
from authsvc.policy.denial_advice import DenialAdvice, advice_for
from authsvc.policy.permissions import Effect, Permission, Rule, decide
from authsvc.policy.snapshot import GrantType, UserPolicy
from authsvc.policy.topics import Identity
from tests.actors import mqtt, own
from tests.rules.filters import chains, covers, rules_and_filters

if TYPE_CHECKING:
    from collections.abc import Sequence

NOW = datetime(2026, 11, 20, 8, tzinfo=UTC)
BOB = UserPolicy("bob", enabled=True, grant_types=frozenset({GrantType.PASSWORD}), password_hash="x")
DISABLED = UserPolicy("bob", enabled=False, grant_types=frozenset(), password_hash="x")
CERTIFIED = UserPolicy(
    "bob",
    enabled=True,
    grant_types=frozenset({GrantType.CERTIFICATE}),
    password_hash=None,
    certificates={"1A2B": NOW + timedelta(days=1)},
)
CLIENT = "sensor-1"
ACCESSES = (READ, WRITE, READ | WRITE, SUBSCRIBE)


def advise(
    topic: str,
    access: int,
    rules: Sequence[Rule] = (),
    reason: Reason = Reason.NO_PERMISSION,
    user: UserPolicy = BOB,
    *,
    whole: bool = True,
) -> DenialAdvice:
    requests = requests_for(topic, access, Identity("bob", CLIENT)) if topic else []
    return advice_for(Denial("bob", CLIENT, topic, access, reason, whole), requests, user, rules, NOW)


def is_allowed(rules: Sequence[Rule], topic: str, access: int) -> bool:
    return all(decide(rules, request) for request in requests_for(topic, access, Identity("bob", CLIENT)))


@pytest.mark.parametrize(
    ("topic", "access", "expected"),
    [
        ("machines/7/state", WRITE, mqtt("write", "machines/7/state")),
        ("machines/7/state", READ, mqtt("read", "machines/7/state")),
        ("machines/7/state", READ | WRITE, mqtt("readWrite", "machines/7/state")),
        ("machines/+/state", SUBSCRIBE, mqtt("read", "machines/+/state")),
        ("machines/#", SUBSCRIBE, mqtt("read", "machines/#")),
        ("machines/7", SUBSCRIBE, mqtt("read", "machines/7")),
        ("$share/readers/machines/#", SUBSCRIBE, mqtt("read", "machines/#")),
        ("$SYS/broker/uptime", READ, mqtt("read", "$SYS/broker/uptime")),
        ("devices/bob/x", WRITE, mqtt("write", "devices/bob/x")),
        ("/a//", WRITE, mqtt("write", "/a//")),
        ("100%", WRITE, mqtt("write", "100%")),
    ],
)
def test_suggested_permission_is_exactly_the_denied_request(topic: str, access: int, expected: Permission) -> None:
    assert advise(topic, access).permission == expected


def test_only_the_missing_half_of_read_write_is_suggested() -> None:
    assert advise("a", READ | WRITE, own(mqtt("read", "a"))).permission == mqtt("write", "a")
    assert advise("a", READ | WRITE, own(mqtt("write", "#"))).permission == mqtt("read", "a")


@pytest.mark.parametrize(
    ("topic", "access", "words"),
    [
        ("a", WRITE, "publish to this one topic"),
        ("a", READ, "read this one topic"),
        ("a", READ | WRITE, "read and publish to this one topic"),
        ("a/#", SUBSCRIBE, "every topic that a/# matches"),
        ("#", SUBSCRIBE, "every topic, except"),
        ("+/#", SUBSCRIBE, "every topic, except"),
    ],
)
def test_note_states_the_scope_of_the_suggested_permission(topic: str, access: int, words: str) -> None:
    assert words in advise(topic, access).note


@pytest.mark.parametrize(
    ("topic", "words"),
    [
        ("devices/%u/x", "%u"),
        ("%c", "%c"),
        ("devices/a%ub", "%u"),
        ("$CONTROL/dynamic-security/v1", "$CONTROL"),
        ("$CONTROL", "$CONTROL"),
        ("$share/a/b", "no rule can name"),
    ],
)
def test_nothing_is_suggested_for_placeholders_or_dollar_control(topic: str, words: str) -> None:
    advice = advise(topic, WRITE)
    assert advice.permission is None
    assert words in advice.note


def test_note_names_the_deny_rule_and_its_role() -> None:
    vault = Rule(mqtt("read", "doors/vault/#", "deny"), "visitors")
    advice = advise("doors/vault/1", READ, [vault], Reason.DENIED_BY_PERMISSION)
    assert (advice.permission, advice.rule) == (None, vault)
    assert "`deny read doors/vault/#` of role visitors denies it" in advice.note
    own_rule = advise("doors/vault/1", READ, own(vault.permission))
    assert "of the user's own" in own_rule.note


def test_nothing_is_suggested_for_a_shared_subscription_that_overlaps_a_deny_rule() -> None:
    rules = own(mqtt("read", "doors/vault/#", "deny"))
    advice = advise("$share/g/doors/#", SUBSCRIBE, rules, Reason.SHARE_REACHES_DENIED)
    assert (advice.permission, advice.rule) == (None, rules[0])
    assert "shared subscription" in advice.note
    assert advise("doors/#", SUBSCRIBE, rules).permission == mqtt("read", "doors/#")


def test_request_that_is_allowed_now_is_cured() -> None:
    assert advise("a", WRITE, own(mqtt("write", "+"))) == DenialAdvice(None, "it is allowed now", cured=True)
    assert advise("a", WRITE, own(mqtt("write", "+")), Reason.USER_DISABLED).cured


@pytest.mark.parametrize("reason", [Reason.USER_DISABLED, Reason.NO_PERMISSION, Reason.WRONG_PASSWORD])
def test_advice_for_a_disabled_user_is_to_enable_it(reason: Reason) -> None:
    topic = "" if reason is Reason.WRONG_PASSWORD else "a"
    advice = advise(topic, WRITE if topic else 0, own(mqtt("write", "a")), reason, DISABLED)
    assert advice == DenialAdvice(None, "the user is disabled; enable it first")


@pytest.mark.parametrize(
    ("reason", "word"),
    [
        (Reason.WRONG_PASSWORD, "password was wrong"),
        (Reason.INVALID_TOKEN, "token"),
        (Reason.GRANT_TYPE_MISSING, "grant type"),
        (Reason.USER_DISABLED, "enabled now"),
    ],
)
def test_note_on_a_denied_login_names_the_cause(reason: Reason, word: str) -> None:
    advice = advise("", 0, own(mqtt("readWrite", "#")), reason)
    assert (advice.permission, advice.cured) == (None, False)
    assert word in advice.note


def test_note_on_a_missing_certificate_ends_once_the_user_has_one() -> None:
    advice = advise("a", WRITE, (), Reason.NO_VALID_CERTIFICATE)
    assert advice.permission is None
    assert "certificate" in advice.note
    assert advise("a", WRITE, (), Reason.NO_VALID_CERTIFICATE, CERTIFIED).permission == mqtt("write", "a")


def test_nothing_is_suggested_for_a_truncated_topic() -> None:
    advice = advise("a" * MAX_DENIED_TOPIC, WRITE, whole=False)
    assert advice.permission is None
    assert "too long" in advice.note


_rules = st.lists(
    st.tuples(rules_and_filters(), st.sampled_from(["read", "write", "readWrite"]), st.sampled_from(Effect)), max_size=3
).map(lambda drawn: own(*(mqtt(operation, rule or "+", effect) for (rule, _), operation, effect in drawn)))


@given(chains(), rules_and_filters(), st.sampled_from(ACCESSES), st.booleans(), _rules)
def test_suggested_permission_allows_the_denied_request_and_nothing_else(
    others: tuple[str, ...], asked: tuple[str, str], access: int, shared: bool, rules: tuple[Rule, ...]
) -> None:
    topic = asked[1] if access == SUBSCRIBE else others[0]
    asked_for = f"$share/g/{topic}" if shared and access == SUBSCRIBE else topic
    assume(topic)
    was_allowed = is_allowed(rules, asked_for, access)
    advice = advise(asked_for, access, rules)
    event(
        f"allowed: {was_allowed}, suggested: {advice.permission is not None}, denied by rule: {advice.rule is not None}"
    )
    assert advice.cured is was_allowed
    if was_allowed or advice.rule:
        assert advice.permission is None
        return
    assert advice.permission is not None
    cured = (*rules, *own(advice.permission))
    assert is_allowed(cured, asked_for, access)
    assert advice.permission.effect is Effect.ALLOW
    for other in (others[0], others[1], asked[0], asked[1]):
        _is_no_wider(rules, cured, other, topic, access)


def _is_no_wider(rules: Sequence[Rule], cured: Sequence[Rule], other: str, topic: str, asked: int) -> None:
    """Assert that each newly allowed access is within the topic or topic filter and operation of the denied one."""
    for access, part in ((READ, READ | SUBSCRIBE), (SUBSCRIBE, READ | SUBSCRIBE), (WRITE, WRITE)):
        try:
            newly = is_allowed(cured, other, access) and not is_allowed(rules, other, access)
        except InvalidInput:
            continue  # no such topic, or no topic filter
        assert not newly or (covers(topic, other) and asked & part)


@given(st.text(max_size=6), st.sampled_from(ACCESSES))
def test_any_denied_topic_gets_a_note_and_a_sufficient_permission_or_none(topic: str, access: int) -> None:
    try:
        requests = requests_for(topic, access, Identity("bob", CLIENT))
    except InvalidInput:
        return
    advice = advice_for(Denial("bob", CLIENT, topic, access, Reason.NO_PERMISSION), requests, BOB, (), NOW)
    assert advice.note
    if advice.permission:
        assert is_allowed(own(advice.permission), topic, access)


def test_only_denials_of_existing_users_are_stored() -> None:
    assert denial_of(Allowed(Reason.PERMISSION), "bob", CLIENT, "a", WRITE) is None
    for reason in (Reason.UNKNOWN_USER, Reason.VERIFYING, Reason.HASHING_BUSY, Reason.POLICY_NOT_LOADED):
        assert denial_of(Denied(reason), "bob", CLIENT) is None
    expected = Denial("bob", CLIENT, "a", WRITE, Reason.NO_PERMISSION)
    assert denial_of(Denied(Reason.NO_PERMISSION), "bob", CLIENT, "a", WRITE) == expected


def test_topic_and_client_id_of_a_denial_are_truncated() -> None:
    denial = denial_of(Denied(Reason.NO_PERMISSION), "bob", "c" * 65_535, "t" * 65_535, WRITE)
    assert denial is not None
    assert (len(denial.client_id), len(denial.topic)) == (MAX_DENIED_CLIENT_ID, MAX_DENIED_TOPIC)
    assert not denial.whole
    longest = denial_of(Denied(Reason.NO_PERMISSION), "bob", "", "t" * MAX_DENIED_TOPIC, WRITE)
    assert longest is not None
    assert longest.whole
